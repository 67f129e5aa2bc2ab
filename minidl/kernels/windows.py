"""Windows sliding over images, and im2col: the geometry that convolution and pooling share.

Written for any array library. Each *tap* of a window (one kernel offset) reads a strided rectangle
of the image and serves a rectangle of outputs; what would be read outside the image is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

from ..backend import Array, array_module


class Windows(NamedTuple):
    """How a window slides: all pairs are (vertical, horizontal), padding is ((top, bottom), (left, right))."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[tuple[int, int], tuple[int, int]]
    dilation: tuple[int, int] = (1, 1)

    @property
    def reach(self) -> tuple[int, int]:
        """The rows and columns that one dilated window spans."""
        (kh, kw), (dh, dw) = self.kernel, self.dilation
        return dh * (kh - 1) + 1, dw * (kw - 1) + 1

    @property
    def vertical(self) -> tuple[int, int, int, tuple[int, int]]:
        """(reach, stride, dilation, padding) from row to row."""
        return self.reach[0], self.stride[0], self.dilation[0], self.padding[0]

    def turned(self) -> Windows | None:
        """Those windows over the outputs through which each pixel was seen; None unless they lie one pixel apart."""
        if self.stride != (1, 1):
            return None
        rest = [(reach - 1 - before, reach - 1 - after) for reach, (before, after) in zip(self.reach, self.padding)]
        return None if min(map(min, rest)) < 0 else self._replace(padding=(rest[0], rest[1]))

    def output_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """How many windows fit into an image of `size` = (H, W)."""
        (h, w), (rh, rw), (sh, sw), ((top, bottom), (left, right)) = size, self.reach, self.stride, self.padding
        return (h + top + bottom - rh) // sh + 1, (w + left + right - rw) // sw + 1

    def split(self) -> tuple[Windows, Windows]:
        """Windows one row high, and windows one column wide: sums over both in turn are sums over these."""
        (kh, kw), (sh, sw), (vertical, horizontal), (dh, dw) = self
        return (Windows((1, kw), (1, sw), ((0, 0), horizontal), (1, dw)),
                Windows((kh, 1), (sh, 1), (vertical, (0, 0)), (dh, 1)))

    def each(self, size: tuple[int, int]) -> Iterator[tuple[int, int, slice, slice]]:
        """For each window (i, j) over an image of `size` = (H, W): the rows and the columns that it sees."""
        out = self.output_size(size)
        for i in range(out[0]):
            for j in range(out[1]):
                yield i, j, self.seen(0, size[0], i), self.seen(1, size[1], j)

    def seen(self, axis: int, size: int, index: int) -> slice:
        """What the window `index` along one axis of `size` pixels sees of them."""
        start, step = index * self.stride[axis] - self.padding[axis][0], self.dilation[axis]
        first = start if start >= 0 else start % step
        return slice(first, max(first, min(start + self.reach[axis], size)), step)

    @lru_cache  # noqa: B019  (a tuple of numbers keeps nothing alive)
    def taps(self, size: tuple[int, int]) -> tuple[tuple[int, int, tuple[Any, ...], tuple[Any, ...]], ...]:
        """For each kernel offset (kh, kw): the index of the outputs it serves, that of the pixels of an image of
        `size` = (H, W) they read; both for arrays (…, H, W)."""
        out = self.output_size(size)
        return tuple(
            (kh, kw, (..., out_rows, out_columns), (..., in_rows, in_columns))
            for kh, out_rows, in_rows in self.axis_taps(0, size[0], out[0])
            for kw, out_columns, in_columns in self.axis_taps(1, size[1], out[1])
        )

    def axis_taps(self, axis: int, size: int, out: int) -> Iterator[tuple[int, slice, slice]]:
        """For each kernel offset along one axis of `size` pixels and `out` outputs: those it serves and reads."""
        stride, before = self.stride[axis], self.padding[axis][0]
        for k in range(self.kernel[axis]):
            offset = k * self.dilation[axis] - before  # the pixel that output 0 reads
            first = max(0, -(offset // stride))
            last = min(out, (size - 1 - offset) // stride + 1)
            if first < last:
                yield k, slice(first, last), slice(offset + first * stride, offset + (last - 1) * stride + 1, stride)


def im2col(x: Array, windows: Windows) -> Array:
    """Every window of the images as a column: (N, C, H, W) → (N, C, KH, KW, OH, OW), zero outside the image."""
    (n, c), size, (kh, kw) = x.shape[:2], x.shape[2:], windows.kernel
    columns = array_module(x).zeros((n, c, kh, kw, *windows.output_size(size)), x.dtype)
    for i, j, outputs, pixels in windows.taps(size):
        columns[:, :, i, j][outputs] = x[pixels]
    return columns


def col2im(columns: Array, size: tuple[int, int], windows: Windows) -> Array:
    """The adjoint of `im2col`: each column entry added back to its pixel, (N, C, KH, KW, OH, OW) → (N, C, H, W)."""
    n, c = columns.shape[:2]
    x = array_module(columns).zeros((n, c, *size), columns.dtype)
    for i, j, outputs, pixels in windows.taps(size):
        x[pixels] += columns[:, :, i, j][outputs]
    return x


def extend(x: Array, beyond: tuple[int, int]) -> Array:
    """(N, C, H, W) with so many rows and columns of zeros more at the end."""
    n, c, h, w = x.shape
    larger = array_module(x).zeros_like(x, shape=(n, c, h + beyond[0], w + beyond[1]))
    larger[:, :, :h, :w] = x
    return larger
