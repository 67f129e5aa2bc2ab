"""Convolution by tiled im2col: the column matrix is built a block of output rows at a time, so that
it stays in the cache, and each block is one matrix product.

With activations in `layout`'s order, copies and products run over long contiguous rows, and the
result of a product is the next activation as it lies.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided

from ..windows import Windows
from .layout import batch_first, batch_last
from .threads import parallel

TILE_BYTES = 1 << 19
"""The size of a block of columns: half of a core's second-level cache leaves room for the operands."""

PARTS = 8
"""How many partial sums of a weight gradient are made side by side: work for as many threads, memory for as many."""


def conv2d(x: np.ndarray, weight: np.ndarray, windows: Windows, groups: int) -> np.ndarray:
    """x (N, C, H, W) * weight (K, C/groups, KH, KW) → (N, K, OH, OW): for each tile, Y = W · im2col(X)."""
    n, k, size = len(x), len(weight), windows.output_size(x.shape[2:])
    y = np.empty((groups, k // groups, size[0] * size[1] * n), x.dtype)
    filters = weight.reshape(groups, k // groups, -1)
    patches = _patches(x, windows, groups)

    def multiply(group: int, tile: Tile) -> None:
        np.matmul(filters[group], _columns(patches, group, tile), out=y[group, :, tile.span])

    parallel(multiply, _tiles(patches), patches.size * patches.itemsize)
    return batch_first(y.reshape(k, *size, n))


def conv2d_weight_gradient(g: np.ndarray, x: np.ndarray, windows: Windows, groups: int) -> np.ndarray:
    """∂L/∂W (K, C/groups, KH, KW) from g (N, K, OH, OW): the sum over tiles of im2col(X) · Gᵀ."""
    n, k, oh, ow = g.shape
    c, (kh, kw) = x.shape[1] // groups, windows.kernel
    patches = _patches(x, windows, groups)
    outputs = batch_last(g).reshape(groups, k // groups, oh * ow * n)
    tiles = [tile for group, tile in _tiles(patches) if group == 0]
    cuts = [i * len(tiles) // PARTS for i in range(PARTS + 1)]
    runs = [tiles[start:stop] for start, stop in zip(cuts, cuts[1:]) if start < stop]
    parts = np.zeros((groups, len(runs), c * kh * kw, k // groups), g.dtype)

    def multiply(group: int, part: int) -> None:
        total = parts[group, part]
        for tile in runs[part]:
            # Transposed: BLAS is faster with the long side of the result first.
            total += np.matmul(_columns(patches, group, tile), outputs[group][:, tile.span].T)

    # For a result of under 500 values matmul keeps the interpreter lock: threads would only wait for one another.
    size = patches.size * patches.itemsize if c * kh * kw * (k // groups) >= 500 else 0
    parallel(multiply, ((group, part) for group in range(groups) for part in range(len(runs))), size)
    return parts.sum(axis=1).transpose(0, 2, 1).reshape(k, c, kh, kw)


def conv2d_input_gradient(
    g: np.ndarray, weight: np.ndarray, size: tuple[int, int], windows: Windows, groups: int
) -> np.ndarray:
    """∂L/∂X (N, C, *size) from g (N, K, OH, OW): col2im(Wᵀ · G), a block of input channels at a time.

    col2im goes in two steps: an output row adds to the KH image rows it read as one piece, with the KW values of
    each window side by side; at the end these are added to their pixels.
    """
    n, k, oh, ow = g.shape
    c, (kh, kw) = weight.shape[1], windows.kernel
    reach, stride, dilation, (top, bottom) = windows.vertical
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

    places = ((group, start, min(start + block, c)) for group in range(groups) for start in range(0, c, block))
    parallel(multiply_and_add, places, groups * c * kh * kw * oh * ow * n * g.itemsize)
    return batch_first(dx.reshape(groups * c, *size, n))


def _patches(x: np.ndarray, windows: Windows, groups: int) -> np.ndarray:
    """Every window as a view: (groups, C/groups, KH, KW, OH, OW, N) of the zero-padded images."""
    n, c, h, w = x.shape
    (top, bottom), (left, right) = windows.padding
    if top or bottom or left or right:
        image = np.zeros((c, h + top + bottom, w + left + right, n), x.dtype)
        image[:, top : top + h, left : left + w] = x.transpose(1, 2, 3, 0)
    else:
        image = batch_last(x)
    channel, row, column, one = image.strides
    (sh, sw), (dh, dw) = windows.stride, windows.dilation
    return as_strided(
        image,
        (groups, c // groups, *windows.kernel, *windows.output_size((h, w)), n),
        (c // groups * channel, channel, dh * row, dw * column, sh * row, sw * column, one),
        writeable=False,
    )


class Tile(NamedTuple):
    """Whole output rows, or a part of one: the columns that are built and multiplied at once."""

    rows: slice
    columns: slice
    span: slice
    """The same outputs, counted through (OH, OW, N)."""


def _tiles(patches: np.ndarray) -> Iterator[tuple[int, Tile]]:
    """(group, tile) such that the columns of each tile fill about `TILE_BYTES`."""
    groups, c, kh, kw, oh, ow, n = patches.shape
    column_bytes = max(1, c * kh * kw * n * patches.itemsize)
    width = min(ow, max(1, TILE_BYTES // column_bytes))
    height = max(1, TILE_BYTES // (column_bytes * ow)) if width == ow else 1
    for group in range(groups):
        for row in range(0, oh, height):
            for column in range(0, ow, width):
                below, right = min(row + height, oh), min(column + width, ow)
                span = slice((row * ow + column) * n, ((below - 1) * ow + right) * n)
                yield group, Tile(slice(row, below), slice(column, right), span)


def _columns(patches: np.ndarray, group: int, tile: Tile) -> np.ndarray:
    """The column matrix (C·KH·KW, outputs) of a tile; a view where the image is its own columns, as for 1×1."""
    windows = patches[group, :, :, :, tile.rows, tile.columns]
    c, kh, kw, height, width, n = windows.shape
    return windows.reshape(c * kh * kw, height * width * n)
