"""Numbers as lines and bars: the course of a training, what layers cost, functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .style import INK, LINES, array, in_ink, picture, width_of

if TYPE_CHECKING:
    from .picture import Picture

HATCHES = ("", "///", "...", "xxx")


def curves(history: Sequence[Mapping[str, float]], title: str = "") -> Picture:
    """The rows that `Trainer` yields: loss and error by epoch, on the training and on the test images."""
    epochs = [row["epoch"] for row in history]
    result = picture(7.8, 3.2)
    left, right = result.subplots(1, 2)
    for axes, name, factor in ((left, "loss", 1.0), (right, "error", 100.0)):
        for part, style in (("train", LINES[1]), ("test", LINES[0])):
            values = [row[f"{part}_loss"] if name == "loss" else 1 - row[f"{part}_accuracy"] for row in history]
            label = "training, running mean" if part == "train" else part
            axes.plot(epochs, [factor * value for value in values], label=label, linewidth=1.8, markersize=3, **style)
        axes.set(xlabel="epoch", ylabel="cross-entropy" if name == "loss" else "error, %")
        _by_decades(axes)
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        finish(axes, legend=True)
    last = history[-1]
    elapsed = f"{last['epoch']} epoch{'s' if last['epoch'] > 1 else ''}"
    outcome = f"{last['test_accuracy']:.1%} of the test images right after {elapsed}"
    result.suptitle(f"{title}: {outcome}" if title else outcome, fontsize=11, color=INK)
    return result


def lines(
    series: Mapping[str, Any], x: Any = None, xlabel: str = "", ylabel: str = "", title: str = "", log: bool = False
) -> Picture:
    """A line for each name of `series`: values (n), over `x` (n), by default 0, 1, …; `log` for a logarithmic scale."""
    result = picture(6, 3.2)
    axes = result.subplots()
    for index, (name, values) in enumerate(series.items()):
        y = array(values)
        style = LINES[index % len(LINES)]
        places = np.arange(len(y)) if x is None else array(x)
        axes.plot(places, y, label=name, linewidth=1.6, markersize=4, markevery=max(1, len(y) // 12), **style)
    axes.set(xlabel=xlabel, ylabel=ylabel, title=title)
    if x is None or array(x).dtype.kind in "iu":
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    if log:
        axes.set_yscale("log")
    finish(axes, legend=len(series) > 1)
    return result


def bars(names: Sequence[str], series: Mapping[str, Any], ylabel: str = "", title: str = "") -> Picture:
    """A group of bars for each of `names`, such as layers: one bar for each name of `series`, with values (n)."""
    wide = 1.5 + 0.35 * len(names) * max(1, len(series) / 2)
    result = picture(min(7.5, max(3.6, wide, width_of(title))), 3.0)
    axes, width = result.subplots(), 0.8 / max(1, len(series))
    for index, (name, values) in enumerate(series.items()):
        places = np.arange(len(names)) + (index - (len(series) - 1) / 2) * width
        colour = str(LINES[index % len(LINES)]["color"])
        axes.bar(places, array(values), width, label=name, color=colour, edgecolor=INK, linewidth=0.5,
                 hatch=HATCHES[index % len(HATCHES)])
    axes.set_xticks(range(len(names)), names, rotation=0 if max(map(len, names), default=0) * len(names) < 75 else 60)
    axes.set(ylabel=ylabel, title=title)
    finish(axes, legend=len(series) > 1)
    axes.grid(visible=False, axis="x")
    return result


def function(
    functions: Mapping[str, Callable[[Any], Any]], between: tuple[float, float] = (-6.0, 6.0), xlabel: str = "z",
    title: str = "",
) -> Picture:
    """Functions of one number by name, each called with an array of points `between` two."""
    points = np.linspace(*between, 401)
    values = {name: array(f(points)) for name, f in functions.items()}
    return lines(values, points, xlabel=xlabel, title=title)


def finish(axes: Any, legend: bool) -> None:
    """What all graphs have around their lines: a grid, two spines, and a legend where there is something to tell."""
    axes.grid(alpha=0.25, color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    in_ink(axes)
    if legend:
        axes.legend(frameon=False, fontsize=8, labelcolor=INK)


def _by_decades(axes: Any) -> None:
    """A logarithmic scale where the values span more than a decade, with numbers that can be read."""
    from matplotlib.ticker import LogLocator, NullLocator

    positive = [y for line in axes.get_lines() for y in line.get_ydata() if y > 0]
    span = max(positive) / min(positive) if positive else 1
    if span > 20:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if span < 1e4 else (1,)))
        axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter("{x:g}")

