"""Pooling: each window becomes one number. Claim D9; the lecture's subsampling layers.

Padding acts as −∞ for the maximum and as 0 for the average. With `ceil_mode` a last window may stick
out at the end, if it starts inside the image or its padding at the start.
"""

from __future__ import annotations

import math
from typing import Any

from ..arrays import FLOATS, NUMBERS
from ..autograd import differentiable
from ..backend import Array, array_module
from ..kernels import kernels_of
from ..kernels.windows import Windows
from .arguments import Pair, check_fits, check_images, pair


@differentiable(input=NUMBERS)
def max_pool2d(
    input: Array,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
):
    """y = max of each window     ∂L/∂x = g at the first pixel (row by row) that equals the maximum, summed over windows

    Of a window with NaN the maximum is NaN, and g goes to the last one, as in PyTorch.

    (N, C, H, W) → (N, C, OH, OW); `stride` defaults to `kernel_size`; padding is −∞ and at most half the kernel.
    Raises ValueError for options that make no sense or a kernel larger than the padded image.
    """
    images = check_images("max_pool2d", input)
    windows = _windows("max_pool2d", input, kernel_size, stride, padding, dilation, ceil_mode)
    kernels = kernels_of(input)
    y = kernels.max_pool2d(images, windows)

    def gradient(g):
        return kernels.max_pool2d_gradient(g.reshape(y.shape), images, y, windows).reshape(input.shape)

    return y.reshape(input.shape[:-3] + y.shape[1:]), (gradient,)


@differentiable(input=FLOATS, widen=True)
def avg_pool2d(
    input: Array,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
):
    """y = (1/n) Σ over each window     ∂L/∂x = Σ g / n over the windows that see x

    (N, C, H, W) → (N, C, OH, OW); `stride` defaults to `kernel_size`. n counts the pixels of a window, those of
    the padding too if `count_include_pad`, or is `divisor_override`.
    Raises ValueError for options that make no sense or a kernel larger than the padded image.
    """
    images = check_images("avg_pool2d", input)
    windows = _windows("avg_pool2d", input, kernel_size, stride, padding, 1, ceil_mode)
    if divisor_override is not None and divisor_override == 0:
        raise ValueError("avg_pool2d: divisor_override must not be 0")
    xp, kernels, size = array_module(input), kernels_of(input), images.shape[2:]
    divisor: Any
    if divisor_override is not None:
        divisor = divisor_override
    elif not any(map(any, windows.padding)):
        divisor = math.prod(windows.kernel)
    else:
        counted = pair("avg_pool2d", "padding", padding, 0) if count_include_pad else (0, 0)
        rows, columns = (_window_lengths(size[a], windows, a, counted[a]) for a in (0, 1))
        divisor = xp.asarray([[r * c for c in columns] for r in rows], input.dtype)
    y = kernels.sum_pool2d(images, windows)
    y /= divisor
    shape, batch = input.shape, y.shape

    def gradient(g):
        return kernels.sum_pool2d_gradient(g.reshape(batch) / divisor, size, windows).reshape(shape)

    return y.reshape(input.shape[:-3] + y.shape[1:]), (gradient,)


@differentiable(input=FLOATS, widen=True)
def adaptive_avg_pool2d(input: Array, output_size: Any):
    """y = mean of each of OH × OW windows     ∂L/∂x = Σ g / n over the windows that see x

    (N, C, H, W) → (N, C, OH, OW) for any H, W: window i spans rows ⌊i·H/OH⌋ to ⌈(i + 1)·H/OH⌉. A None in
    `output_size` keeps that size; 1 is global average pooling. Raises ValueError for a size below 1.
    """
    images = check_images("adaptive_avg_pool2d", input)
    size = images.shape[2:]
    wanted = tuple(output_size) if isinstance(output_size, (tuple, list)) else (output_size, output_size)
    kept = tuple(n if o is None else o for o, n in zip(wanted, size)) + wanted[2:]
    out = pair("adaptive_avg_pool2d", "output_size", kept, 1)
    if not images.size and len(images):
        raise ValueError(f"adaptive_avg_pool2d: the images are empty, and have no mean; got shape {input.shape}")
    xp, kernels = array_module(input), kernels_of(input)
    rows, columns = (
        [slice(i * n // o, -(-(i + 1) * n // o)) for i in range(o)] for n, o in zip(size, out)
    )
    y = xp.empty((*images.shape[:2], *out), input.dtype)
    for i, r in enumerate(rows):
        for j, c in enumerate(columns):
            part = images[:, :, r, c]
            y[:, :, i, j] = kernels.sum_over(part, (2, 3))[:, :, 0, 0] / (part.shape[2] * part.shape[3])

    shape, whole, batch = input.shape, images.shape, y.shape

    def gradient(g):
        dx, g = xp.zeros(whole, g.dtype), g.reshape(batch)
        for i, r in enumerate(rows):
            for j, c in enumerate(columns):
                dx[:, :, r, c] += g[:, :, i : i + 1, j : j + 1] / ((r.stop - r.start) * (c.stop - c.start))
        return dx.reshape(shape)

    return y.reshape(input.shape[:-3] + y.shape[1:]), (gradient,)


def _windows(
    operation: str, input: Array, kernel_size: Pair, stride: Pair | None, padding: Pair, dilation: Pair, ceil_mode: bool
) -> Windows:
    kernel = pair(operation, "kernel_size", kernel_size, 1)
    stride = kernel if stride is None else pair(operation, "stride", stride, 1)
    padding, dilation = pair(operation, "padding", padding, 0), pair(operation, "dilation", dilation, 1)
    if any(2 * p > k for p, k in zip(padding, kernel)):
        raise ValueError(f"{operation}: padding {padding} is more than half of the kernel {kernel}; "
                         "a window could miss the image")
    vertical, horizontal = padding
    windows = Windows(kernel, stride, ((vertical, vertical), (horizontal, horizontal)), dilation)
    if not ceil_mode:
        return check_fits(operation, input, windows)

    def grown(axis: int) -> tuple[int, int]:
        n, reach, s, p = input.shape[-2 + axis], windows.reach[axis], stride[axis], padding[axis]
        last = -(-(n + 2 * p - reach) // s)
        if last * s >= n + p:  # it would start in the padding at the end
            last -= 1
        return p, max(p, last * s + reach - n - p)

    windows = windows._replace(padding=(grown(0), grown(1)))
    return check_fits(operation, input, windows)


def _window_lengths(size: int, windows: Windows, axis: int, counted: int) -> list[int]:
    """How many pixels each window spans along one axis, `counted` pixels of padding on each side included."""
    before, stride = windows.padding[axis][0], windows.stride[axis]
    starts = [i * stride - before for i in range(windows.output_size((size, size))[axis])]
    ends = [min(start + windows.kernel[axis], size + counted) for start in starts]
    return [end - max(start, -counted) for start, end in zip(starts, ends)]
