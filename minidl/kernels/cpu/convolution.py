"""Convolution by tiled im2col: the column matrix is built a block of output rows at a time, so that
it stays in the cache, and each block is one matrix product.

With activations in `layout`'s order, copies and products run over long contiguous rows, and the
result of a product is the next activation as it lies.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.lib.stride_tricks import as_strided

from ..windows import Windows
from .layout import batch_first, batch_last
from .threads import parallel

TILE_BYTES = 1 << 19
"""The size of a block of columns: half of a core's second-level cache leaves room for the operands."""


def conv2d(x: np.ndarray, weight: np.ndarray, windows: Windows, groups: int) -> np.ndarray:
    """x (N, C, H, W) * weight (K, C/groups, KH, KW) → (N, K, OH, OW): for each tile, Y = W · im2col(X)."""
    n, k, size = len(x), len(weight), windows.output_size(x.shape[2:])
    y = np.empty((groups, k // groups, size[0] * size[1] * n), x.dtype)
    filters = weight.reshape(groups, k // groups, -1)
    patches = _patches(x, windows, groups)

    def multiply(group: int, rows: slice) -> None:
        np.matmul(filters[group], _columns(patches, group, rows), out=y[group, :, _span(rows, size[1] * n)])

    parallel(multiply, _tiles(patches))
    return batch_first(y.reshape(k, *size, n))


def conv2d_weight_gradient(g: np.ndarray, x: np.ndarray, windows: Windows, groups: int) -> np.ndarray:
    """∂L/∂W (K, C/groups, KH, KW) from g (N, K, OH, OW): the sum over tiles of im2col(X) · Gᵀ."""
    n, k, oh, ow = g.shape
    patches = _patches(x, windows, groups)
    outputs = batch_last(g).reshape(groups, k // groups, oh * ow * n)
    tiles = list(_tiles(patches))
    c, (kh, kw) = x.shape[1] // groups, windows.kernel
    parts = np.empty((len(tiles), c * kh * kw, k // groups), g.dtype)

    def multiply(index: int, group: int, rows: slice) -> None:
        # Transposed: BLAS is faster with the long side of the result first.
        np.matmul(_columns(patches, group, rows), outputs[group][:, _span(rows, ow * n)].T, out=parts[index])

    parallel(multiply, ((index, *tile) for index, tile in enumerate(tiles)))
    totals = parts.reshape(groups, len(tiles) // groups, c * kh * kw, k // groups).sum(axis=1)
    return totals.transpose(0, 2, 1).reshape(k, c, kh, kw)


def conv2d_input_gradient(
    g: np.ndarray, weight: np.ndarray, size: tuple[int, int], windows: Windows, groups: int
) -> np.ndarray:
    """∂L/∂X (N, C, *size) from g (N, K, OH, OW): col2im(Wᵀ · G), a block of input channels at a time.

    col2im goes in two steps: an output row adds to the KH image rows it read as one piece, with the KW values of
    each window side by side; at the end these are added to their pixels.
    """
    n, k, oh, ow = g.shape
    c, (kh, kw) = weight.shape[1], windows.kernel
    (reach, _), (stride, _), (dilation, _), ((top, bottom), _) = windows.reach, windows.stride, windows.dilation, windows.padding
    outputs = batch_last(g).reshape(groups, k // groups, oh, ow * n)
    filters = weight.reshape(groups, k // groups, c, kh, kw).transpose(0, 3, 2, 4, 1)
    dx = np.zeros((groups * c, *size, n), g.dtype)
    block = max(1, TILE_BYTES // max(1, kh * kw * ow * n * g.itemsize))

    def multiply_and_add(group: int, start: int, stop: int) -> None:
        transposed = filters[group, :, start:stop].reshape(kh * (stop - start) * kw, k // groups)
        rows = np.zeros((size[0] + top + bottom, (stop - start) * kw, ow * n), g.dtype)
        for i in range(oh):
            products = np.matmul(transposed, outputs[group, :, i])
            rows[i * stride : i * stride + reach : dilation] += products.reshape(kh, (stop - start) * kw, ow * n)
        inside = rows[top : top + size[0]].reshape(size[0], stop - start, kw, ow, n).transpose(2, 4, 1, 0, 3)
        image = batch_first(dx[group * c + start : group * c + stop])
        for j, outs, pixels in windows.axis_taps(1, size[1], ow):
            image[..., pixels] += inside[j][..., outs]

    parallel(multiply_and_add, ((i, j, min(j + block, c)) for i in range(groups) for j in range(0, c, block)))
    return batch_first(dx.reshape(groups * c, *size, n))


def _patches(x: np.ndarray, windows: Windows, groups: int) -> np.ndarray:
    """Every window as a view: (groups, C/groups, KH, KW, OH, OW, N) of the zero-padded images."""
    n, c, h, w = x.shape
    (top, bottom), (left, right) = windows.padding
    image = batch_last(x)
    if top or bottom or left or right:
        image = np.zeros((c, h + top + bottom, w + left + right, n), x.dtype)
        image[:, top : top + h, left : left + w] = x.transpose(1, 2, 3, 0)
    channel, row, column, one = image.strides
    (sh, sw), (dh, dw) = windows.stride, windows.dilation
    return as_strided(
        image,
        (groups, c // groups, *windows.kernel, *windows.output_size((h, w)), n),
        (c // groups * channel, channel, dh * row, dw * column, sh * row, sw * column, one),
        writeable=False,
    )


def _tiles(patches: np.ndarray) -> Iterator[tuple[int, slice]]:
    """(group, output rows) such that the columns of each tile fill about `TILE_BYTES`."""
    groups, c, kh, kw, oh, ow, n = patches.shape
    height = max(1, TILE_BYTES // max(1, c * kh * kw * ow * n * patches.itemsize))
    return ((group, slice(row, min(row + height, oh))) for group in range(groups) for row in range(0, oh, height))


def _columns(patches: np.ndarray, group: int, rows: slice) -> np.ndarray:
    """The column matrix (C·KH·KW, rows·OW·N) of a tile; a view where the image is its own columns, as for 1×1."""
    tile = patches[group, :, :, :, rows]
    c, kh, kw, height, ow, n = tile.shape
    return tile.reshape(c * kh * kw, height * ow * n)


def _span(rows: slice, width: int) -> slice:
    return slice(rows.start * width, rows.stop * width)
