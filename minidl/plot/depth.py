"""The two pictures of depth: what plain and residual networks learn, and what gradient reaches their layers.

They draw the tables of ``minidl experiment depth``, rows with network, seed and epoch. A network's name is its kind and
its depth, as in ``resnet20``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

from .graphs import finish
from .style import INK, LINES, picture

if TYPE_CHECKING:
    from .picture import Picture

Rows = Sequence[Mapping[str, Any]]
TITLES = {"plain": "plain", "resnet": "residual"}


def errors_by_depth(curves: Rows, title: str = "") -> Picture:
    """Error by epoch, plain networks left and residual ones right, as figure 6 of He et al. 2016 (claim F15).

    `curves` has ``train_error`` and ``test_error``, in [0, 1]. Thin dashes are the training error, as it is while
    training, thick lines the test error: the mean over the seeds, and a band from the lowest to the highest.
    Raises ValueError for no rows.
    """
    result = picture(7.8, 3.5)
    kinds = _networks(curves)
    panels = result.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    for axes, (kind, names) in zip(panels, kinds.items()):
        for name, style in zip(names, cycle(LINES)):
            for part, width, dash in (("train", 1.2, "--"), ("test", 2.2, "-")):
                epochs, errors = _by_seed(curves, name, f"{part}_error")
                label = f"{_depth_of(name)} layers, {'training' if part == 'train' else 'test'}"
                axes.plot(epochs, 100 * errors.mean(axis=0), color=style["color"], linewidth=width, linestyle=dash,
                          marker=style["marker"] if part == "test" else "", markersize=4,
                          markevery=max(1, len(epochs) // 10), label=label)
                if len(errors) > 1:
                    axes.fill_between(epochs, 100 * errors.min(axis=0), 100 * errors.max(axis=0),
                                      color=style["color"], alpha=0.2, linewidth=0)
        axes.set(xlabel="epoch", title=TITLES.get(kind, kind))
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        finish(axes, legend=True)
    panels[0].set_ylabel("error, %")
    panels[0].set_ylim(bottom=0)
    result.suptitle(title, fontsize=11, color=INK)
    return result


def gradients_by_depth(gradients: Rows, title: str = "") -> Picture:
    """‖∂L/∂W‖ from the first layer to the last, of all networks (claim D7): at the start, half-way and at the end.

    `gradients` has the ``norm`` of each ``layer``, in the network's order; several seeds give their geometric mean.
    Raises ValueError for no rows.
    """
    last = max((row["epoch"] for row in gradients), default=0)
    moments = sorted({0, last // 2, last})
    result = picture(7.8, 3.1)
    panels = result.subplots(1, len(moments), sharey=True, squeeze=False)[0]
    for axes, epoch in zip(panels, moments):
        rows = [row for row in gradients if row["epoch"] == epoch]
        for name, style in zip((name for names in _networks(rows).values() for name in names), cycle(LINES)):
            seeds = sorted({row["seed"] for row in rows if row["network"] == name})
            norms = np.array([[row["norm"] for row in rows if (row["network"], row["seed"]) == (name, seed)]
                              for seed in seeds])
            count = norms.shape[1]
            with np.errstate(divide="ignore"):  # a layer that no gradient reaches is below any axis
                means = np.exp(np.log(norms).mean(axis=0))
            axes.plot(np.linspace(0, 1, count), means, label=name, linewidth=1.5, markersize=4,
                      markevery=max(1, count // 8), **style)
        after = f"after epoch {epoch}" if epoch else "at the start"
        axes.set(xlabel="first layer → last layer", title=after, yscale="log")
        axes.set_xticks([])
        finish(axes, legend=epoch == moments[-1])
    panels[0].set_ylabel("‖∂L/∂W‖")
    result.suptitle(title, fontsize=11, color=INK)
    return result


def _depth_of(network: str) -> int:
    """The number at the end of a network's name. Raises ValueError for a name without one."""
    found = re.search(r"\d+$", network)
    if not found:
        raise ValueError(f"a network's name must end in its depth, as resnet20; got {network!r}")
    return int(found.group())


def _networks(rows: Rows) -> dict[str, list[str]]:
    """The names of the networks by kind, shallow ones first."""
    if not rows:
        raise ValueError("there are no rows to draw")
    kinds: dict[str, list[str]] = {}
    for name in sorted({row["network"] for row in rows}, key=lambda name: (name.rstrip("0123456789"), _depth_of(name))):
        kinds.setdefault(name.rstrip("0123456789"), []).append(name)
    return kinds


def _by_seed(rows: Rows, network: str, value: str) -> tuple[np.ndarray, np.ndarray]:
    """(epochs (n), values (seeds, n)), as far as all seeds of the network have come."""
    seeds: dict[int, list[float]] = {}
    for row in rows:
        if row["network"] == network:
            seeds.setdefault(row["seed"], []).append(row[value])
    length = min(map(len, seeds.values()))
    return np.arange(1, length + 1), np.array([values[:length] for values in seeds.values()])
