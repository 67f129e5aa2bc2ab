"""How activations lie in memory: as (C, H, W, N), behind their (N, C, H, W) view.

The images of a batch are neighbours, so NumPy's inner loops are long even where windows are strided,
and no transpose stands between a convolution's matrix product and the next layer. A batch of one
lies as usual. Nothing outside the kernels depends on it: every array keeps its shape (N, C, H, W).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from ...backend import memory_order
from .threads import parallel

BLOCK_BYTES = 1 << 21
"""A part of an array that stays in the cache while it is gone through several times, and keeps one NumPy call busy for
so long that another thread can wake up meanwhile: where calls are short, the thread that has the interpreter lock gets
it again and again."""

ROWS = 8
"""Of a matrix, transposed at a time."""


def blocks(x: np.ndarray, axis: int = 0) -> Iterator[tuple[slice]]:
    """Slices along an axis of `x` of at most about `BLOCK_BYTES`, even in number unless `x` is small."""
    pieces = 1 if x.nbytes < BLOCK_BYTES // 8 else 2 * -(-x.nbytes // (2 * BLOCK_BYTES))
    return ((slice(start, stop),) for start, stop in cuts(x.shape[axis], pieces))


def cuts(length: int, pieces: int) -> Iterator[tuple[int, int]]:
    """Where each of the `pieces` of `length` starts and stops."""
    pieces = max(1, min(pieces, length))
    ends = [length * i // pieces for i in range(pieces + 1)]
    return zip(ends, ends[1:])


def batch_last(x: np.ndarray) -> np.ndarray:
    """(N, C, H, W) as a contiguous (C, H, W, N); a copy only if it does not lie so already."""
    if x.flags.c_contiguous and x.size:
        return transposed(x.reshape(len(x), -1)).reshape(*x.shape[1:], len(x))
    return np.ascontiguousarray(x.transpose(1, 2, 3, 0))


def as_pixels(image: np.ndarray) -> np.ndarray:
    """(…, N) as (…): a pixel of all images is one item, which NumPy copies in less time than N numbers."""
    return image.view(np.dtype((np.void, image.shape[-1] * image.itemsize)))[..., 0]


def as_numbers(pixels: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The way back: (…, M) pixels as (…, M · N) numbers."""
    # NumPy may give an axis of length 1 any stride, and then does not look into its items.
    return (pixels if pixels.strides[-1] == pixels.itemsize else pixels.copy()).view(dtype)


def batch_first(x: np.ndarray) -> np.ndarray:
    """The (N, C, H, W) view of a (C, H, W, N) array."""
    return x.transpose(3, 0, 1, 2)


def settle(x: np.ndarray) -> np.ndarray:
    """(N, C, H, W) lying as (C, H, W, N); `x` itself if it does already."""
    return batch_first(batch_last(x))


def full(shape: tuple[int, ...], value: float, dtype: np.dtype) -> np.ndarray:
    """A new (N, C, H, W) array of one value, lying as (C, H, W, N)."""
    n, *rest = shape
    return batch_first(np.full((*rest, n), value, dtype))


def by_channel(x: np.ndarray) -> np.ndarray:
    """(N, C, …) as a contiguous (C, … · N), a row a channel; a copy only if it does not lie so already."""
    rows = np.ascontiguousarray(np.moveaxis(x, 0, -1))
    return rows.reshape(x.shape[1], x.size // x.shape[1] if x.shape[1] else 0)


def from_channels(rows: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The view of `shape` = (N, C, …) of what `by_channel` gives."""
    return np.moveaxis(rows.reshape(*shape[1:], shape[0]), -1, 0)


def in_memory_order(
    x: np.ndarray, *others: np.ndarray
) -> tuple[list[np.ndarray], Callable[[np.ndarray], np.ndarray]]:
    """Arrays of one shape as one-dimensional ones, in the order in which `x` lies in memory, and the way back.

    Copies only what lies otherwise.
    """
    order = memory_order(x)
    shape = tuple(x.shape[axis] for axis in order)
    back = np.argsort(order)
    flat = [np.ascontiguousarray(array.transpose(order)).reshape(-1) for array in (x, *others)]
    return flat, lambda values: values.reshape(shape).transpose(back)


def transposed(matrices: np.ndarray) -> np.ndarray:
    """(…, M, N) as a contiguous (…, N, M); few rows at a time, since the cache does not hold a line of each of many."""
    *several, rows, columns = matrices.shape
    result = np.empty((*several, columns, rows), matrices.dtype)
    for first in range(0, rows, ROWS):
        result[..., first : first + ROWS] = matrices[..., first : first + ROWS, :].swapaxes(-2, -1)
    return result


def padded(image: np.ndarray, padding: tuple[tuple[int, int], tuple[int, int]]) -> np.ndarray:
    """(C, H, W, N) in a frame of zeros, ((top, bottom), (left, right)) wide; `image` itself if that is nothing."""
    (c, h, w, n), ((top, bottom), (left, right)) = image.shape, padding
    if not any(map(any, padding)):
        return image
    whole = np.empty((c, h + top + bottom, w + left + right, n), image.dtype)

    def fill(channels: slice) -> None:
        part = whole[channels]
        part[...] = 0
        part[:, top : top + h, left : left + w] = image[channels]

    parallel(fill, blocks(whole), 2 * whole.nbytes)
    return whole
