"""How a kernel is told of sliding windows: its parameters, and the arguments for them."""

from __future__ import annotations

from ..windows import Windows

GEOMETRY = ("int32 images, int32 h, int32 w, int32 oh, int32 ow, int32 kh, int32 kw, int32 sh, int32 sw, int32 top, "
            "int32 left, int32 dh, int32 dw")
"""Images, their size, that of the output, kernel, stride, padding above and to the left, dilation."""


def geometry(n: int, size: tuple[int, ...], windows: Windows) -> tuple[int, ...]:
    """The arguments for `GEOMETRY`, for `n` images of `size` = (H, W)."""
    (top, _), (left, _) = windows.padding
    output = windows.output_size((size[0], size[1]))
    return n, *size, *output, *windows.kernel, *windows.stride, top, left, *windows.dilation
