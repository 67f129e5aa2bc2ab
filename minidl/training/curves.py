"""The picture of a run: loss and error by epoch, on the training and the test images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..io import write_atomically


def draw_curves(history: Sequence[dict[str, float]], path: Path, title: str = "") -> None:
    """Draw the rows that `Trainer` yields to the PNG file `path`, atomically.

    Raises ModuleNotFoundError naming the extra to install without matplotlib.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.ticker import LogLocator, NullLocator
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"drawing needs {error.name}; run: pip install 'minidl[plot]'") from None
    epochs = [row["epoch"] for row in history]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, name, factor in ((left, "loss", 1.0), (right, "error", 100.0)):
        for part, style in (("train", {"color": "#8a8a8a", "linestyle": "--"}), ("test", {"color": "#1f5fa8"})):
            values = [row[f"{part}_loss"] if name == "loss" else 1 - row[f"{part}_accuracy"] for row in history]
            label = "training, running mean" if part == "train" else part
            scaled = [factor * value for value in values]
            axes.plot(epochs, scaled, label=label, linewidth=1.8, marker="o", markersize=3, **style)
        axes.set_xlabel("epoch")
        axes.set_ylabel("cross-entropy" if name == "loss" else "error, %")
        if _spans_decades(axes):
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter("{x:g}")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    last = history[-1]
    outcome = f"{last['test_accuracy']:.1%} of the test images right after {last['epoch']} epochs"
    figure.suptitle(f"{title}: {outcome}" if title else outcome, fontsize=11)
    write_atomically(path, lambda part: FigureCanvasAgg(figure).print_png(part))


def _spans_decades(axes: Any) -> bool:
    values = [y for line in axes.get_lines() for y in line.get_ydata()]
    positive = [value for value in values if value > 0]
    return bool(positive) and max(positive) / min(positive) > 20
