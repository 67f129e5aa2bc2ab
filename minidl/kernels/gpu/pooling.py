"""Pooling on a GPU: one thread an output; in the gradients one thread a pixel, which gathers from all windows on it.

What lies outside the image is never read: it acts as −∞ for the maximum and as 0 for the sum.
"""

from __future__ import annotations

from math import prod

import cupy

from ..windows import Windows
from .geometry import GEOMETRY, geometry, over_window, sum_of_windows
from .layout import batch_first, channels_first

MAX_POOL = cupy.ElementwiseKernel(
    f"raw T image, {GEOMETRY}", "T largest",
    "T best = 0; bool empty = true;"
    + over_window("if (empty || value > best || value != value) best = value; empty = false;")
    + "largest = best;",
    "minidl_max_pool2d",
)
SUM_POOL = cupy.ElementwiseKernel(
    f"raw T image, {GEOMETRY}", "T total",
    "T sum = 0;" + over_window("sum += value;") + "total = sum;",
    "minidl_sum_pool2d",
)
MAX_POOL_GRADIENT = cupy.ElementwiseKernel(
    f"raw T g, raw T image, raw T maxima, {GEOMETRY}", "T pixel",
    sum_of_windows("""
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
    f"raw T g, {GEOMETRY}", "T pixel", sum_of_windows("sum += g[window];"), "minidl_sum_pool2d_gradient"
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
