"""Convolution on a GPU: im2col by one kernel, cuBLAS for the product, and col2im as a sum that each pixel gathers.

Gathering needs no atomic addition, so the same input gives the same bits. The column matrix of as many images is built
at once as `WORKSPACE_BYTES` holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import cupy

from ..windows import Windows
from .geometry import GEOMETRY, geometry
from .layout import batch_first, channels_first, rows

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
    """
    long long rest = i;
    const int s = rest % w;  rest /= w;
    const int r = rest % h;  rest /= h;
    const int b = rest % images;
    const long long c = rest / images;
    T sum = 0;
    for (int k = 0; k < kh; ++k) {
        const int y = r + top - k * dh;
        if (y < 0 || y % sh || y / sh >= oh) continue;
        for (int l = 0; l < kw; ++l) {
            const int x = s + left - l * dw;
            if (x < 0 || x % sw || x / sw >= ow) continue;
            sum += columns[((((c * kh + k) * kw + l) * images + b) * oh + y / sh) * ow + x / sw];
        }
    }
    pixel = sum;
    """,
    "minidl_col2im",
)
"""The pixels (C, N, H, W) that columns (C, KH, KW, N, OH, OW) are added to."""


def conv2d(
    x: cupy.ndarray, weight: cupy.ndarray, windows: Windows, groups: int, bias: cupy.ndarray | None = None
) -> cupy.ndarray:
    """x (N, C, H, W) * weight (K, C/groups, KH, KW) + bias (K) → (N, K, OH, OW): Y = W · im2col(X) + b."""
    image, k, size = channels_first(x), len(weight), windows.output_size(x.shape[2:])
    y = cupy.empty((k, len(x), *size), x.dtype)
    filters, results = rows(weight).reshape(groups, k // groups, -1), y.reshape(groups, k // groups, len(x), *size)
    for group, images in _pieces(groups, len(x), prod(weight.shape[1:]) * prod(size) * x.itemsize):
        part = image.reshape(groups, -1, *image.shape[1:])[group, :, images]
        product = filters[group] @ _columns(part, windows, size)
        results[group, :, images] = product.reshape(k // groups, -1, *size)
    if bias is not None:
        y += bias[:, None, None, None]
    return batch_first(y)


def conv2d_weight_gradient(g: cupy.ndarray, x: cupy.ndarray, windows: Windows, groups: int) -> cupy.ndarray:
    """∂L/∂W (K, C/groups, KH, KW) from g (N, K, OH, OW): G · im2col(X)ᵀ."""
    outputs, image = channels_first(g), channels_first(x)
    k, c, size = len(outputs), len(image) // groups, g.shape[2:]
    dw = cupy.zeros((groups, k // groups, c * prod(windows.kernel)), g.dtype)
    for group, images in _pieces(groups, len(x), dw.shape[2] * prod(size) * x.itemsize):
        part = image.reshape(groups, c, *image.shape[1:])[group, :, images]
        gradients = outputs.reshape(groups, k // groups, *outputs.shape[1:])[group, :, images]
        dw[group] += rows(gradients) @ _columns(part, windows, size).T
    return dw.reshape(k, c, *windows.kernel)


def conv2d_input_gradient(
    g: cupy.ndarray, weight: cupy.ndarray, size: tuple[int, int], windows: Windows, groups: int
) -> cupy.ndarray:
    """∂L/∂X (N, C, *size) from g (N, K, OH, OW): col2im(Wᵀ · G)."""
    outputs, (k, c) = channels_first(g), weight.shape[:2]
    filters, dx = rows(weight).reshape(groups, k // groups, -1), cupy.empty((groups, c, len(g), *size), g.dtype)
    for group, images in _pieces(groups, len(g), filters.shape[2] * prod(g.shape[2:]) * g.itemsize):
        gradients = outputs.reshape(groups, k // groups, *outputs.shape[1:])[group, :, images]
        columns = filters[group].T @ rows(gradients)
        n = gradients.shape[1]
        if windows.kernel == windows.stride == (1, 1) and not any(map(any, windows.padding)):
            pixels = columns.reshape(c, n, *size)
        else:
            pixels = COL2IM(columns, *geometry(n, size, windows), size=c * n * prod(size)).reshape(c, n, *size)
        dx[group, :, images] = pixels
    return batch_first(dx.reshape(groups * c, len(g), *size))


def conv2d_bias_gradient(g: cupy.ndarray) -> cupy.ndarray:
    """∂L/∂b (K): the sum of g (N, K, OH, OW) over images and positions."""
    return rows(channels_first(g)).sum(axis=1)


def _pieces(groups: int, n: int, image_bytes: int) -> Iterator[tuple[int, slice]]:
    """What goes through a product at once: a group, and images whose columns the workspace holds."""
    images = max(1, WORKSPACE_BYTES // max(1, image_bytes))
    return ((group, slice(start, start + images)) for group in range(groups) for start in range(0, n, images))


def _columns(image: cupy.ndarray, windows: Windows, size: tuple[int, int]) -> cupy.ndarray:
    """im2col of image (C, N, H, W): (C·KH·KW, N·OH·OW); the image itself where it is its own columns, as for 1 × 1."""
    c, n, *pixels = image.shape
    if windows.kernel == windows.stride == (1, 1) and not any(map(any, windows.padding)):
        return rows(image)
    taps = c * prod(windows.kernel)
    image = cupy.ascontiguousarray(image)
    columns = IM2COL(image, *geometry(n, pixels, windows), size=taps * n * prod(size))
    return columns.reshape(taps, n * prod(size))
