"""How a kernel is told of sliding windows, and the two ways in which it goes over them."""

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


def over_window(each: str) -> str:
    """CUDA: do `each` for every pixel, as `value`, of the window of output i, row by row."""
    return """
    long long rest = i;
    const int x = rest % ow;  rest /= ow;
    const int y = rest % oh;
    const long long first = rest / oh * h * w;
    for (int k = 0; k < kh; ++k) {
        const int r = y * sh - top + k * dh;
        if (r < 0 || r >= h) continue;
        for (int l = 0; l < kw; ++l) {
            const int s = x * sw - left + l * dw;
            if (s < 0 || s >= w) continue;
            const T value = image[first + (long long)r * w + s];
            """ + each + """
        }
    }
"""


def sum_of_windows(each: str) -> str:
    """CUDA: `pixel` becomes the `sum` to which `each` adds, for every window (`plane`, y, x) that sees pixel i. It sees
    the pixel at its offset (k, l), and is number `window` of all."""
    return """
    long long rest = i;
    const int s = rest % w;  rest /= w;
    const int r = rest % h;
    const long long plane = rest / h, first = plane * h * w;
    T sum = 0;
    for (int k = 0; k < kh; ++k) {
        const int y = (r + top - k * dh) / sh;
        if (r + top - k * dh < 0 || (r + top - k * dh) % sh || y >= oh) continue;
        for (int l = 0; l < kw; ++l) {
            const int x = (s + left - l * dw) / sw;
            if (s + left - l * dw < 0 || (s + left - l * dw) % sw || x >= ow) continue;
            const long long window = (plane * oh + y) * ow + x;
            """ + each + """
        }
    }
    pixel = sum;
"""
