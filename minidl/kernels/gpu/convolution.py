"""Convolution on a GPU: im2col by one kernel, cuBLAS for the product, and col2im as a sum that each pixel gathers.

Gathering needs no atomic addition, so the same input gives the same bits. The column matrix of as many images is built
at once as `WORKSPACE_BYTES` holds.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import cupy

from ..windows import Windows
from .geometry import GEOMETRY, geometry, sum_of_windows
from .layout import batch_first, channels_first, rows
from .product import matmul

WORKSPACE_BYTES = 1 << 30
"""For the columns of a convolution."""

IM2COL = cupy.ElementwiseKernel(
    f"raw T image, {GEOMETRY}", "T column",
    """
    long long rest = i;
    const int x = rest % ow;  rest /= ow;
    const int y = rest % oh;  rest /= oh;
    const int b = rest % images;  rest /= images;
    const int l = rest % kw;  rest /= kw;
    const int k = rest % kh;
    const long long c = rest / kh;
    const int r = y * sh - top + k * dh, s = x * sw - left + l * dw;
    column = r >= 0 && r < h && s >= 0 && s < w ? image[((c * images + b) * h + r) * w + s] : T(0);
    """,
    "minidl_im2col",
)
"""column (C, KH, KW, N, OH, OW) of image (C, N, H, W)."""

COL2IM = cupy.ElementwiseKernel(
    f"raw T columns, {GEOMETRY}", "T pixel",
    sum_of_windows("""
            const long long c = plane / images, b = plane % images;
            sum += columns[((((c * kh + k) * kw + l) * images + b) * oh + y) * ow + x];
    """),
    "minidl_col2im",
)
"""The pixels (C, N, H, W) that columns (C, KH, KW, N, OH, OW) are added to."""


def conv2d(
    x: cupy.ndarray, weight: cupy.ndarray, windows: Windows, groups: int, bias: cupy.ndarray | None = None
) -> cupy.ndarray:
    """x (N, C, H, W) * weight (K, C/groups, KH, KW) + bias (K) → (N, K, OH, OW): Y = W · im2col(X) + b."""
    k, size = len(weight), windows.output_size(x.shape[2:])
    image, filters = _grouped(x, groups), weight.reshape(groups, k // groups, -1)

    def multiply(group: int, images: slice) -> cupy.ndarray:
        return matmul(filters[group], _columns(image[group, :, images], windows, size))

    y = _in_pieces(multiply, (groups, k // groups, len(x), *size), x.dtype, filters.shape[2] * prod(size) * x.itemsize)
    if bias is not None:
        y += bias[:, None, None, None]
    return batch_first(y)


def conv2d_weight_gradient(g: cupy.ndarray, x: cupy.ndarray, windows: Windows, groups: int) -> cupy.ndarray:
    """∂L/∂W (K, C/groups, KH, KW) from g (N, K, OH, OW): G · im2col(X)ᵀ."""
    outputs, image, size = _grouped(g, groups), _grouped(x, groups), g.shape[2:]
    k, c = g.shape[1] // groups, x.shape[1] // groups
    dw = cupy.zeros((groups, k, c * prod(windows.kernel)), g.dtype)
    for group, images in _pieces(groups, len(x), dw.shape[2] * prod(size) * x.itemsize):
        dw[group] += matmul(rows(outputs[group, :, images]), _columns(image[group, :, images], windows, size).T)
    return dw.reshape(groups * k, c, *windows.kernel)


def conv2d_input_gradient(
    g: cupy.ndarray, weight: cupy.ndarray, size: tuple[int, int], windows: Windows, groups: int
) -> cupy.ndarray:
    """∂L/∂X (N, C, *size) from g (N, K, OH, OW): col2im(Wᵀ · G)."""
    outputs, c = _grouped(g, groups), weight.shape[1]
    filters = weight.reshape(groups, len(weight) // groups, -1)

    def multiply_and_add(group: int, images: slice) -> cupy.ndarray:
        gradients = outputs[group, :, images]
        columns, n = matmul(filters[group].T, rows(gradients)), gradients.shape[1]
        if _own_columns(windows):
            return columns
        return COL2IM(columns, *geometry(n, size, windows), size=c * n * prod(size))

    image_bytes = filters.shape[2] * prod(g.shape[2:]) * g.itemsize
    return batch_first(_in_pieces(multiply_and_add, (groups, c, len(g), *size), g.dtype, image_bytes))


def conv2d_bias_gradient(g: cupy.ndarray) -> cupy.ndarray:
    """∂L/∂b (K): the sum of g (N, K, OH, OW) over images and positions."""
    return rows(channels_first(g)).sum(axis=1)


def _grouped(x: cupy.ndarray, groups: int) -> cupy.ndarray:
    """x (N, C, H, W) as (groups, C/groups, N, H, W)."""
    image = channels_first(x)
    return image.reshape(groups, len(image) // groups, *image.shape[1:])


def _pieces(groups: int, n: int, image_bytes: int) -> list[tuple[int, slice]]:
    """What goes through a product at once: a group, and images whose columns the workspace holds."""
    images = max(1, WORKSPACE_BYTES // max(1, image_bytes))
    return [(group, slice(start, start + images)) for group in range(groups) for start in range(0, n, images)]


def _in_pieces(
    function: Callable[[int, slice], cupy.ndarray], shape: tuple[int, ...], dtype: Any, image_bytes: int
) -> cupy.ndarray:
    """The result of `shape` = (groups, C, N, H, W) as (groups · C, N, H, W), a piece of it at a time."""
    groups, c, n, *size = shape
    pieces = _pieces(groups, n, image_bytes)
    if len(pieces) == 1:
        return function(*pieces[0]).reshape(c, n, *size)
    whole = cupy.empty(shape, dtype)
    for group, images in pieces:
        part = whole[group, :, images]
        part[...] = function(group, images).reshape(part.shape)
    return whole.reshape(groups * c, n, *size)


def _own_columns(windows: Windows) -> bool:
    """Whether an image is its own columns."""
    return windows.kernel == windows.stride == (1, 1) and not any(map(any, windows.padding))


def _columns(image: cupy.ndarray, windows: Windows, size: tuple[int, int]) -> cupy.ndarray:
    """im2col of image (C, N, H, W): (C·KH·KW, N·OH·OW)."""
    if _own_columns(windows):
        return rows(image)
    c, n, *pixels = image.shape
    taps = c * prod(windows.kernel)
    columns = IM2COL(cupy.ascontiguousarray(image), *geometry(n, pixels, windows), size=taps * n * prod(size))
    return columns.reshape(taps, n * prod(size))
