"""What all pictures share: colours for two grounds, empty axes, and arrays from tensors."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..autograd import Tensor
from ..backend import to_device

INK = "#787878"
"""Text and axes: half-way between a white and a dark ground."""

MARK = "#e0562b"
"""What the reader is to look at."""

LINES: tuple[dict[str, Any], ...] = (
    {"color": "#2f6fb5", "linestyle": "-", "marker": "o"}, {"color": "#d08a1d", "linestyle": "--", "marker": "s"},
    {"color": "#4f9a5b", "linestyle": "-.", "marker": "^"}, {"color": "#9b6bc7", "linestyle": ":", "marker": "D"},
    {"color": "#c2557a", "linestyle": (0, (6, 1, 1, 1, 1, 1)), "marker": "v"},
    {"color": INK, "linestyle": (0, (1, 3)), "marker": "x"},
)
"""A line each; told apart by dash and marker without colours."""

SIGNED = "cividis"
"""The colour map for values of both signs: dark below 0, grey at 0, bright above, so that it reads in grey too."""


def picture(width: float, height: float) -> Any:
    """An empty picture, in inches. Raises ModuleNotFoundError naming the extra to install."""
    try:
        from .picture import Picture
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"drawing needs {error.name}; run: pip install 'minidl[plot]'") from None
    return Picture(figsize=(width, height), layout="constrained")


def array(x: Any) -> np.ndarray:
    """The values of a tensor or of an array, as NumPy's, on the CPU."""
    return np.asarray(x) if not isinstance(x, Tensor) else to_device(x.data, "cpu")


def width_of(title: str) -> float:
    """Inches that a title takes."""
    return 0.4 + 0.075 * len(title)


def in_ink(axes: Any) -> Any:
    """`axes` with everything around the data in the colour of the text."""
    axes.set_facecolor("none")
    axes.tick_params(which="both", colors=INK, labelsize=8)
    for part in (axes.xaxis.label, axes.yaxis.label, axes.title):
        part.set_color(INK)
        part.set_fontsize(9)
    for spine in axes.spines.values():
        spine.set_color(INK)
    return axes


def blank(axes: Any, title: str = "") -> Any:
    """`axes` for an image: nothing around it but a title."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(title)
    in_ink(axes)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return axes


def signed_limits(values: np.ndarray) -> dict[str, float]:
    """Limits of a colour map as far below 0 as above."""
    largest = float(np.abs(values[np.isfinite(values)]).max(initial=0.0)) or 1.0
    return {"vmin": -largest, "vmax": largest}
