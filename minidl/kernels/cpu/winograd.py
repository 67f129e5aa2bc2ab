"""3 × 3 convolution with a quarter of the multiplications: Winograd's F(4 × 4, 3 × 3).

Lavin and Gray, *Fast Algorithms for Convolutional Neural Networks*, CVPR 2016. An output tile of 4 × 4 comes from an
image tile d of 6 × 6 as  Y = Aᵀ [ (G w Gᵀ) ⊙ (Bᵀ d B) ] A:  36 products where im2col makes 144. With the tiles as
columns, the transform of a side by M and the other by M is one product with M ⊗ M, and the 36 entries are 36 matrix
products (K × C) · (C × tiles). Each step is linear, so the weight gradient is its transposes in reverse order:
∂L/∂w = Gᵀ [ Σ over tiles (A g Aᵀ) ⊙ (Bᵀ d B) ] G.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided

from ..windows import Windows
from .layout import as_numbers, as_pixels, batch_first, batch_last, cuts, padded
from .product import matmul
from .threads import parallel

A = np.array([[1, 0, 0, 0], [1, 1, 1, 1], [1, -1, 1, -1], [1, 2, 4, 8], [1, -2, 4, -8], [0, 0, 0, 1]])
B = np.array([[4, 0, 0, 0, 0, 0], [0, -4, 4, -2, 2, 4], [-5, -4, -4, -1, -1, 0], [0, 1, -1, 2, -2, -5],
              [1, 1, 1, 1, 1, 0], [0, 0, 0, 0, 0, 1]])
G = np.array([[1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6], [1 / 24, 1 / 12, 1 / 6],
              [1 / 24, -1 / 12, 1 / 6], [0, 0, 1]])
A2, B2, G2 = np.kron(A, A), np.kron(B, B), np.kron(G, G)

OUTPUTS = 4
"""The side of a tile of outputs, and the stride from tile to tile."""

INPUTS = 6
"""The side of the tile of the image that it depends on."""

ENTRIES = INPUTS * INPUTS
BLOCK_BYTES, FEWEST_TILES = 1 << 25, 192
"""What goes through the products together: with less, products are narrow, and threads wait for one another between the
steps more often than the cache saves."""

CHUNKS = 8
"""Into which the channels are cut where tiles are gathered and put back."""

PASSES = 4
"""About how often that goes through the tiles."""


def applies(windows: Windows, groups: int, dtype: np.dtype) -> bool:
    """Whether the algorithm is one for such windows, 3 × 3 and one pixel apart, and for such numbers.

    Its matrices hold fractions, and a tile adds its largest numbers to all others: float16 is too coarse.
    """
    fits = windows.kernel == (3, 3) and windows.stride == windows.dilation == (1, 1) and groups == 1
    return fits and dtype.char in "fd"


def conv2d(x: np.ndarray, weight: np.ndarray, windows: Windows, bias: np.ndarray | None = None) -> np.ndarray | None:
    """x (N, C, H, W) * weight (K, C, 3, 3) + bias → (N, K, OH, OW).

    None if a result is not finite: the transforms carry an infinity or NaN to the whole tile, and overflow earlier.
    """
    k, c = weight.shape[:2]
    y = np.empty((k, *windows.output_size(x.shape[2:]), len(x)), x.dtype)
    pixels = _whole_tiles(x, windows.padding, y.shape[1:3], INPUTS)
    filters = matmul(G2.astype(x.dtype), weight.reshape(k * c, 9).T).reshape(ENTRIES, k, c)
    for block in _blocks(y.shape, c):
        images = _transformed(B2.T.astype(x.dtype), pixels, block, INPUTS)
        products = np.empty((ENTRIES, k, block.tiles), x.dtype)
        parallel(np.matmul, zip(filters, images, products), c * products.nbytes)
        if not _put_back(products, y, block, bias):
            return None
    return batch_first(y)


def conv2d_weight_gradient(g: np.ndarray, x: np.ndarray, windows: Windows) -> np.ndarray | None:
    """∂L/∂W (K, C, 3, 3) from g (N, K, OH, OW); None if an entry is not finite."""
    (n, k, *size), c = g.shape, x.shape[1]
    pixels = _whole_tiles(x, windows.padding, size, INPUTS)
    outputs = _whole_tiles(g, ((0, 0), (0, 0)), size, OUTPUTS)
    total = np.zeros((ENTRIES, k, c), g.dtype)
    for block in _blocks((k, *size, n), c):
        images = _transformed(B2.T.astype(x.dtype), pixels, block, INPUTS)
        gradients = _transformed(A2.astype(x.dtype), outputs, block, OUTPUTS)
        parallel(_add_product, zip(total, gradients, images), c * gradients.nbytes)
    if not _is_finite(total):
        return None
    return matmul(total.reshape(ENTRIES, k * c).T, G2.astype(g.dtype)).reshape(k, c, 3, 3)


def _add_product(total: np.ndarray, gradients: np.ndarray, images: np.ndarray) -> None:
    total += gradients @ images.T


class Block(NamedTuple):
    """Rows of tiles."""

    first: int
    rows: int
    across: int
    images: int

    @property
    def tiles(self) -> int:
        return self.rows * self.across * self.images


def _blocks(outputs: tuple[int, ...], channels: int) -> Iterator[Block]:
    """What of the tiles of `outputs` = (K, OH, OW, N) goes through the products together."""
    k, oh, ow, n = outputs
    height, across = -(-oh // OUTPUTS), -(-ow // OUTPUTS)
    tiles = max(FEWEST_TILES, BLOCK_BYTES // (4 * ENTRIES * (channels + k)))
    rows = max(1, tiles // max(1, across * n))
    for first in range(0, height, rows):
        yield Block(first, min(rows, height - first), across, n)


def _chunks(channels: int) -> Iterator[tuple[slice]]:
    return ((slice(start, stop),) for start, stop in cuts(channels, CHUNKS))


def _whole_tiles(x: np.ndarray, padding: Iterable[tuple[int, int]], outputs: Sequence[int], side: int) -> np.ndarray:
    """x (N, C, H, W) as pixels (C, H, W), with the padding above and to the left, and below and to the right as much as
    the tiles need, of this `side`, that give so many outputs."""
    around = [
        (before, -(-length // OUTPUTS) * OUTPUTS + side - OUTPUTS - before - size)
        for (before, _), length, size in zip(padding, outputs, x.shape[2:])
    ]
    return as_pixels(padded(batch_last(x), (around[0], around[1])))


def _transformed(matrix: np.ndarray, pixels: np.ndarray, block: Block, side: int) -> np.ndarray:
    """The tiles of a block of pixels (C, H, W), each multiplied by `matrix`: (36, C, tiles)."""
    transformed = np.empty((ENTRIES, len(pixels) * block.tiles), matrix.dtype)
    channel, row, column = pixels.strides
    strides = row, column, channel, OUTPUTS * row, OUTPUTS * column

    def transform(channels: slice) -> None:
        part = pixels[channels, block.first * OUTPUTS :]
        tiles = as_strided(part, (side, side, len(part), block.rows, block.across), strides, writeable=False)
        span = slice(channels.start * block.tiles, channels.stop * block.tiles)
        np.matmul(matrix, as_numbers(tiles.reshape(side * side, -1), matrix.dtype), out=transformed[:, span])

    parallel(transform, _chunks(len(pixels)), PASSES * transformed.nbytes)
    return transformed.reshape(ENTRIES, len(pixels), block.tiles)


def _is_finite(values: np.ndarray) -> bool:
    """Whether all are finite, and their squares do not overflow: a product of two vectors takes no time."""
    flat = values.reshape(-1)
    with np.errstate(all="ignore"):
        return bool(np.isfinite(np.vdot(flat, flat)))


def _put_back(products: np.ndarray, y: np.ndarray, block: Block, bias: np.ndarray | None) -> bool:
    """Aᵀ products A + bias, each output at its place in y (K, OH, OW, N); whether they are finite."""
    matrix, finite = A2.T.astype(y.dtype), []
    rows = y[:, block.first * OUTPUTS : (block.first + block.rows) * OUTPUTS]

    def transform(channels: slice) -> None:
        part, size = rows[channels], (block.rows * OUTPUTS, block.across * OUTPUTS)
        outputs = (matrix @ products[:, channels].reshape(ENTRIES, -1)).reshape(len(matrix), len(part), block.tiles)
        if bias is not None:
            outputs += bias[channels, None]
        finite.append(_is_finite(outputs))
        tiles = as_pixels(outputs.reshape(OUTPUTS, OUTPUTS, len(part), block.rows, block.across, block.images))
        whole = part if part.shape[1:3] == size else np.empty((len(part), *size, block.images), y.dtype)
        placed = as_pixels(whole).reshape(len(part), block.rows, OUTPUTS, block.across, OUTPUTS)
        placed[...] = tiles.transpose(2, 3, 0, 4, 1)
        if whole is not part:
            part[...] = whole[:, : part.shape[1], : part.shape[2]]

    parallel(transform, _chunks(len(y)), PASSES * products.nbytes)
    return all(finite)
