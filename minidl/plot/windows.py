"""Windows on images: im2col pictured, and what the units of deeper and deeper layers see."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .. import functional as F
from ..autograd import Tensor
from ..functional.arguments import pair
from ..inspect import summary
from ..nn import Module
from .style import INK, LINES, MARK, SIGNED, array, blank, picture, signed_limits

if TYPE_CHECKING:
    from .picture import Picture

Pair = int | tuple[int, int]


def columns(
    image: Any, kernel_size: Pair, stride: Pair = 1, padding: Pair = 0, dilation: Pair = 1, window: int = 0
) -> Picture:
    """im2col of one image (H, W) or (1, 1, H, W): the image, padded, with window number `window` marked; and the matrix
    that has a column a window, with that one marked. Claim D8.

    Raises ValueError for a window that there is not, and for several channels or images.
    """
    pixels = array(image)
    if pixels.ndim < 2 or pixels.size != pixels.shape[-2] * pixels.shape[-1]:
        raise ValueError(f"columns: takes one image of one channel, (H, W) or (1, 1, H, W); got shape {pixels.shape}")
    pixels = pixels.reshape(*pixels.shape[-2:])
    matrix = F.im2col(Tensor(pixels[None, None]), kernel_size, stride, padding, dilation).data[0]
    (kh, kw), (sh, sw) = pair("columns", "kernel_size", kernel_size, 1), pair("columns", "stride", stride, 1)
    (ph, pw), (dh, dw) = pair("columns", "padding", padding, 0), pair("columns", "dilation", dilation, 1)
    if not 0 <= window < matrix.shape[1]:
        raise ValueError(f"columns: window {window} is none of the {matrix.shape[1]} that fit")
    padded = np.pad(pixels.astype(float), ((ph, ph), (pw, pw)))
    across = (padded.shape[1] - dw * (kw - 1) - 1) // sw + 1
    top, left = window // across * sh, window % across * sw
    limits = signed_limits(pixels)
    result = picture(7.5, 3.0)
    first, second = result.subplots(1, 2, width_ratios=[1, 1.4])
    blank(first, f"{pixels.shape[0]} × {pixels.shape[1]} pixels, window {window}")
    first.imshow(padded, cmap=SIGNED, **limits)
    if ph or pw:
        _frame(first, pw, ph, pixels.shape[1], pixels.shape[0], "black", "--")
    if (dh, dw) == (1, 1):
        _frame(first, left, top, kw, kh, MARK)
    else:
        for k, l in np.ndindex(kh, kw):
            _frame(first, left + l * dw, top + k * dh, 1, 1, MARK)
    blank(second, f"im2col: {matrix.shape[0]} values a window × {matrix.shape[1]} windows")
    second.imshow(matrix, cmap=SIGNED, aspect="auto" if matrix.shape[1] > 4 * matrix.shape[0] else "equal", **limits)
    _frame(second, window, 0, 1, len(matrix), MARK)
    return result


def receptive_field(model: Module, image: Any) -> Picture:
    """What one unit of each convolution or pool of `model` sees of `image` (C, H, W): a frame each around the middle,
    the later the larger. Claim F8; the sizes are those of `minidl.summary`, which count the padding too."""
    values = array(image)
    shown: dict[tuple[int, int], str] = {}
    for layer in summary(model, values.shape, measure_peak=False).layers:
        if layer.receptive_field and len(layer.output_shape) == 4:
            shown.setdefault(layer.receptive_field, layer.name)
    result = picture(6.0, 4.2 * values.shape[1] / values.shape[2] + 0.3)
    axes = blank(result.subplots(), "what a unit in the middle sees")
    low, high = float(values.min()), float(values.max())
    scaled = (values - low) / ((high - low) or 1.0)
    axes.imshow(scaled.transpose(1, 2, 0) if len(values) == 3 else scaled[0], cmap="gray", vmin=0, vmax=1)
    h, w = values.shape[1:]
    for index, ((rows, across), name) in enumerate(shown.items()):
        style = LINES[index % len(LINES)]
        x, y = (w - across) / 2, (h - rows) / 2
        _frame(axes, x, y, across, rows, str(style["color"]), style["linestyle"])
        axes.plot([], [], color=style["color"], linestyle=style["linestyle"], label=f"{name}: {rows} × {across}")
    axes.set(xlim=(-0.5, w - 0.5), ylim=(h - 0.5, -0.5))
    axes.legend(frameon=False, fontsize=8, labelcolor=INK, loc="center left", bbox_to_anchor=(1, 0.5))
    return result


def _frame(axes: Any, x: float, y: float, width: float, height: float, colour: str, style: Any = "-") -> None:
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import withStroke

    rim = [withStroke(linewidth=2.8, foreground="white")]  # in grey, the colours are as bright as what they lie on
    axes.add_patch(Rectangle((x - 0.5, y - 0.5), width, height, fill=False, edgecolor=colour, linewidth=1.5,
                             linestyle=style, path_effects=rim))
