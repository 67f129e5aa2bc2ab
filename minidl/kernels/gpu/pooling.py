"""Pooling on a GPU: one thread an output; in the gradients one thread a pixel, which gathers from all windows on it.

What lies outside the image is never read: it acts as −∞ for the maximum and as 0 for the sum.
"""

from __future__ import annotations

from math import prod

import cupy

from ..windows import Windows
from .geometry import GEOMETRY, geometry
from .layout import batch_first, channels_first

WINDOW = """
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
            EACH
        }
    }
"""
"""EACH pixel of the window of output i, row by row."""

SEEN = """
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
            EACH
        }
    }
    pixel = sum;
"""
"""EACH window that sees pixel i, which lies at its offset (k, l)."""

MAX_POOL = cupy.ElementwiseKernel(
    f"raw T image, {GEOMETRY}", "T largest",
    "T best = 0; bool empty = true;"
    + WINDOW.replace("EACH", "if (empty || value > best || value != value) best = value; empty = false;")
    + "largest = best;",
    "minidl_max_pool2d",
)
SUM_POOL = cupy.ElementwiseKernel(
    f"raw T image, {GEOMETRY}", "T total",
    "T sum = 0;" + WINDOW.replace("EACH", "sum += value;") + "total = sum;",
    "minidl_sum_pool2d",
)
MAX_POOL_GRADIENT = cupy.ElementwiseKernel(
    f"raw T g, raw T image, raw T maxima, {GEOMETRY}", "T pixel",
    SEEN.replace("EACH", """
            const T largest = maxima[window];
            if (image[i] != largest) continue;
            bool taken = false;  // by a pixel of the window that comes before
            for (int before = 0; before < k * kw + l && !taken; ++before) {
                const int p = r + (before / kw - k) * dh, q = s + (before % kw - l) * dw;
                taken = p >= 0 && p < h && q >= 0 && q < w && image[first + (long long)p * w + q] == largest;
            }
            if (!taken) sum += g[window];
    """),
    "minidl_max_pool2d_gradient",
)
SUM_POOL_GRADIENT = cupy.ElementwiseKernel(
    f"raw T g, {GEOMETRY}", "T pixel", SEEN.replace("EACH", "sum += g[window];"), "minidl_sum_pool2d_gradient"
)


def max_pool2d(x: cupy.ndarray, windows: Windows) -> cupy.ndarray:
    """The largest value of each window, (N, C, H, W) → (N, C, OH, OW); NaN wherever a window holds one."""
    return _pool(MAX_POOL, x, windows)


def max_pool2d_gradient(g: cupy.ndarray, x: cupy.ndarray, y: cupy.ndarray, windows: Windows) -> cupy.ndarray:
    """∂L/∂x of y = max_pool2d(x): each g goes to the first pixel of its window that equals the maximum."""
    image = channels_first(x)
    return _spread(MAX_POOL_GRADIENT, (channels_first(g), image, channels_first(y)), image.shape, windows)


def sum_pool2d(x: cupy.ndarray, windows: Windows) -> cupy.ndarray:
    """The sum of each window, (N, C, H, W) → (N, C, OH, OW)."""
    return _pool(SUM_POOL, x, windows)


def sum_pool2d_gradient(g: cupy.ndarray, size: tuple[int, int], windows: Windows) -> cupy.ndarray:
    """∂L/∂x of y = sum_pool2d(x): each pixel gets the sum of g over the windows that see it."""
    g = channels_first(g)
    return _spread(SUM_POOL_GRADIENT, (g,), (*g.shape[:2], *size), windows)


def _pool(kernel: cupy.ElementwiseKernel, x: cupy.ndarray, windows: Windows) -> cupy.ndarray:
    image = channels_first(x)
    shape = *image.shape[:2], *windows.output_size(x.shape[2:])
    return batch_first(kernel(image, *geometry(len(x), x.shape[2:], windows), size=prod(shape)).reshape(shape))


def _spread(
    kernel: cupy.ElementwiseKernel, arrays: tuple[cupy.ndarray, ...], shape: tuple[int, ...], windows: Windows
) -> cupy.ndarray:
    return batch_first(kernel(*arrays, *geometry(shape[1], shape[2:], windows), size=prod(shape)).reshape(shape))
