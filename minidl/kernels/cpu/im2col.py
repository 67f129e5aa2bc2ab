"""Convolution by tiled im2col: the column matrix is built a block of output rows at a time, so that it stays in the
cache, and each block is one matrix product. Activations in `layout`'s order make the rows long, and the result of a
product the next activation."""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.lib.stride_tricks import as_strided

from ...arrays import in_float32
from ..windows import Windows
from ..windows import im2col as whole_columns
from .layout import as_numbers, as_pixels, batch_first, batch_last, cuts, padded, transposed
from .threads import PRODUCT_BYTES, parallel

TILE_BYTES = 1 << 20
"""The size of a block of columns: about a core's second-level cache. Half of it for fewer than 16 filters: so few
products do not hide what has to be read from further away."""

FEWEST_COLUMNS = 192
"""In a tile: with fewer, reading the filters takes longer than multiplying by them."""

PRODUCT_WIDTH = 512
"""The columns that a product of the weight gradient adds up at least, so that adding to the sum before costs little."""

PARTS = 8
"""Into at least so many pieces a weight gradient is cut: work for as many threads."""


@in_float32
def conv2d(
    x: np.ndarray, weight: np.ndarray, windows: Windows, groups: int, bias: np.ndarray | None = None
) -> np.ndarray:
    """x (N, C, H, W) * weight (K, C/groups, KH, KW) + bias → (N, K, OH, OW): for each tile, Y = W · im2col(X) + b."""
    n, k, size = len(x), len(weight), windows.output_size(x.shape[2:])
    y = np.empty((groups, k // groups, size[0] * size[1] * n), x.dtype)
    filters = weight.reshape(groups, k // groups, -1)
    patches = _patches(x, windows, groups)

    def multiply(group: int, tile: Tile) -> None:
        outputs = y[group, :, tile[-1]]
        np.matmul(filters[group], _columns(patches[group], tile, x.dtype), out=outputs)
        if bias is not None:
            outputs += bias.reshape(groups, k // groups, 1)[group]

    work = patches.size * n * (x.itemsize + PRODUCT_BYTES * (k // groups))
    parallel(multiply, product(range(groups), _tiles(patches[0], n, k // groups)), work)
    return batch_first(y.reshape(k, *size, n))


@in_float32
def conv2d_weight_gradient(g: np.ndarray, x: np.ndarray, windows: Windows, groups: int) -> np.ndarray:
    """∂L/∂W (K, C/groups, KH, KW) from g (N, K, OH, OW): the sum over tiles of im2col(X) · Gᵀ.

    A block of input channels at a time, so that tiles are wide; the tiles are shared out where channels are few.
    """
    n, k, oh, ow = g.shape
    c, (kh, kw) = x.shape[1] // groups, windows.kernel
    patches = _patches(x, windows, groups)
    outputs = batch_last(g).reshape(groups, k // groups, oh * ow * n)
    large = c * kh * kw * (k // groups) * g.itemsize > TILE_BYTES // 2  # then adding up parts takes too long
    block = max(1, min(-(-c // 2) if large else c, TILE_BYTES // (PRODUCT_WIDTH * kh * kw * g.itemsize)))
    blocks = [slice(start, min(start + block, c)) for start in range(0, c, block)]
    tiles = _tiles(patches[0, :block], n, k // groups)
    parts = 1 if large else max(1, min(len(tiles), PARTS // (groups * len(blocks))))
    runs = [tiles[start:stop] for start, stop in cuts(len(tiles), parts)]
    sums = np.zeros((parts, groups, c, kh * kw, k // groups), g.dtype)

    def multiply(group: int, channels: slice, part: int) -> None:
        total = sums[part, group, channels].reshape(-1, k // groups)
        for tile in runs[part]:
            # Transposed: BLAS is faster with the long side of the result first.
            columns = _columns(patches[group, channels], tile, x.dtype)
            total += np.matmul(columns, outputs[group][:, tile[-1]].T)

    # For a result of under 500 values matmul keeps the interpreter lock: threads would only wait for one another.
    slow = block * kh * kw * (k // groups) < 500
    work = 0 if slow else patches.size * n * (x.itemsize + PRODUCT_BYTES * (k // groups))
    parallel(multiply, product(range(groups), blocks, range(parts)), work)
    total = sums[0] if parts == 1 else sums.sum(axis=0)
    return transposed(total.reshape(groups, -1, k // groups)).reshape(k, c, kh, kw)


@in_float32
def conv2d_input_gradient(
    g: np.ndarray, weight: np.ndarray, size: tuple[int, int], windows: Windows, groups: int
) -> np.ndarray:
    """∂L/∂X (N, C, *size) from g (N, K, OH, OW): col2im(Wᵀ · G), a block of input channels at a time.

    An output row adds to the KH image rows it read as one piece, the KW values of each window side by side; at the end
    these are added to their pixels.
    """
    n, k, oh, ow = g.shape
    c, (kh, kw) = weight.shape[1], windows.kernel
    reach, stride, dilation, (top, bottom) = windows.vertical
    outputs = batch_last(g).reshape(groups, k // groups, oh, ow * n)
    filters = weight.reshape(groups, k // groups, c, kh, kw).transpose(0, 3, 2, 4, 1)
    dx = np.zeros((groups * c, *size, n), g.dtype)
    most = TILE_BYTES // max(1, kh * kw * ow * n * g.itemsize)
    block = max(1, min(most, c if c * oh <= most else -(-c // 2)))

    def multiply_and_add(group: int, start: int, stop: int) -> None:
        weights = filters[group, :, start:stop].reshape(kh * (stop - start) * kw, k // groups)
        rows = np.zeros((size[0] + top + bottom, (stop - start) * kw, ow * n), g.dtype)
        for i in range(oh):
            products = np.matmul(weights, outputs[group, :, i])
            rows[i * stride : i * stride + reach : dilation] += products.reshape(kh, (stop - start) * kw, ow * n)
        inside = rows[top : top + size[0]].reshape(size[0], stop - start, kw, ow, n).transpose(2, 4, 1, 0, 3)
        image = batch_first(dx[group * c + start : group * c + stop])
        for j, outs, pixels in windows.axis_taps(1, size[1], ow):
            image[..., pixels] += inside[j][..., outs]

    places = ((group, start, min(start + block, c)) for group in range(groups) for start in range(0, c, block))
    work = groups * c * kh * kw * oh * ow * n * (g.itemsize + PRODUCT_BYTES * (k // groups))
    parallel(multiply_and_add, places, work)
    return batch_first(dx.reshape(groups * c, *size, n))


def _patches(x: np.ndarray, windows: Windows, groups: int) -> np.ndarray:
    """Every window: (groups, C/groups, KH, KW, OH, OW) pixels of the zero-padded images; a view where windows touch."""
    _, c, h, w = x.shape
    if any(stride > reach for stride, reach in zip(windows.stride, windows.reach)):  # what lies between is not needed
        columns = np.ascontiguousarray(whole_columns(x, windows).transpose(1, 2, 3, 4, 5, 0))
        return as_pixels(columns).reshape(groups, c // groups, *columns.shape[1:5])
    image = as_pixels(padded(batch_last(x), windows.padding))
    if windows.kernel == windows.stride == (1, 1):
        pixels = image.shape[1] * image.shape[2]  # as one row, which can be cut anywhere
        return image.reshape(groups, c // groups, 1, 1, 1, pixels)
    channel, row, column = image.strides
    (sh, sw), (dh, dw) = windows.stride, windows.dilation
    shape = groups, c // groups, *windows.kernel, *windows.output_size((h, w))
    strides = c // groups * channel, channel, dh * row, dw * column, sh * row, sw * column
    return as_strided(image, shape, strides, writeable=False)


Tile = tuple[slice, slice, slice]
"""Output rows, or columns of them, whose columns are built and multiplied at once; and both counted as (OH, OW, N)."""


def _tiles(patches: np.ndarray, n: int, filters: int) -> list[Tile]:
    """Tiles of patches (C, KH, KW, OH, OW), of about the same size and even in number: two threads end together."""
    c, kh, kw, oh, ow = patches.shape
    size = TILE_BYTES if filters >= 16 else TILE_BYTES // 2
    most = max(1, size // max(1, c * kh * kw * patches.itemsize), -(-FEWEST_COLUMNS // n))
    down, across = -(-oh // max(1, most // ow)), -(-ow // most)
    if down * across % 2 and patches.size * patches.itemsize >= TILE_BYTES // 4:
        down, across = (down + 1, across) if down < oh else (down, min(across + 1, ow))
    return [
        (slice(top, below), slice(left, right), slice((top * ow + left) * n, ((below - 1) * ow + right) * n))
        for top, below in cuts(oh, down) for left, right in cuts(ow, across)
    ]


def _columns(patches: np.ndarray, tile: Tile, dtype: np.dtype) -> np.ndarray:
    """The column matrix (C·KH·KW, outputs) of a tile; a view where the image is its own columns, as for 1×1."""
    windows = patches[(slice(None),) * 3 + tile[:2]]
    c, kh, kw, height, width = windows.shape
    return as_numbers(windows.reshape(c * kh * kw, height * width), dtype)
