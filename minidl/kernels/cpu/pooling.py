"""Pooling, a block of channels at a time, which stays in the cache: one pass over the block per kernel offset.

Large windows are few, and then there is one pass per window. What lies outside the image is never read: it acts as −∞
for the maximum and as 0 for the sum.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import numpy as np

from ..windows import Windows
from .layout import as_pixels, batch_first, batch_last, blocks, full, settle
from .reduction import sum_over
from .threads import parallel

PASSES = 1
"""About how often one tap goes through an image."""

SMALL = 9
"""The most pixels of a window that are added up in one step; a larger window is added up by columns, then by rows."""


def max_pool2d(x: np.ndarray, windows: Windows) -> np.ndarray:
    """The largest value of each window, (N, C, H, W) → (N, C, OH, OW); NaN wherever a window holds one."""
    image, size = batch_last(x), windows.output_size(x.shape[2:])
    lowest = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
    y = np.empty((len(image), *size, len(x)), x.dtype)

    def pool(channels: slice) -> None:
        if _is_large(windows, size):
            for i, j, rows, columns in windows.each(x.shape[2:]):
                y[channels, i, j] = image[channels, rows, columns].max(axis=(1, 2), initial=lowest)
            return
        best, values = y[channels], _sorted(image[channels], windows, lowest)
        best[...] = lowest
        for tap in _taps(values, windows, size):
            np.maximum(best, tap, out=best)

    if x.size:
        parallel(pool, blocks(x, axis=1), x.nbytes * PASSES * prod(windows.kernel))
    return batch_first(y)


def max_pool2d_gradient(g: np.ndarray, x: np.ndarray, y: np.ndarray, windows: Windows) -> np.ndarray:
    """∂L/∂x of y = max_pool2d(x): each g goes to the first pixel of its window that equals the maximum.

    Of a window that holds NaN it goes to the last NaN, as in PyTorch.
    """
    image, gradients, maxima = batch_last(x), batch_last(g), batch_last(y)
    dx = np.zeros_like(image)
    bits = f"i{g.dtype.itemsize}"

    def send(gradients: np.ndarray, hit: np.ndarray, total: np.ndarray) -> None:
        # By bits: the product of an infinite g and a hit of 0 would be NaN.
        total += np.bitwise_and(gradients.view(bits), -hit.astype(bits)).view(g.dtype)

    def scatter(channels: slice) -> None:
        if _is_large(windows, g.shape[2:]):
            for i, j, high, wide in windows.each(x.shape[2:]):
                _add_to_maximum(gradients[channels, i, j], image[channels, high, wide], dx[channels, high, wide])
            return
        values = _sorted(image[channels], windows, np.nan)  # what lies outside is never the maximum
        sums, undecided = np.zeros_like(values), np.ones_like(maxima[channels], bool)
        totals = list(_taps(sums, windows, g.shape[2:]))
        for tap, total in zip(_taps(values, windows, g.shape[2:]), totals):
            hit = tap == maxima[channels]
            hit &= undecided
            undecided ^= hit
            send(gradients[channels], hit, total)
        if undecided.any():  # windows with NaN, which equals nothing
            values = _sorted(image[channels], windows, -np.inf)
            for tap, total in reversed(list(zip(_taps(values, windows, g.shape[2:]), totals))):
                hit = np.isnan(tap)
                hit &= undecided
                undecided ^= hit
                send(gradients[channels], hit, total)
        top, (h, w) = windows.padding[0][0], x.shape[2:]
        pixels, sorted_pixels = as_pixels(dx[channels]), as_pixels(sums)
        for remainder, places, columns in _by_remainder(w, windows.stride[1], windows.padding[1][0], sums.shape[3]):
            rows = sorted_pixels[:, top : top + h, remainder, places]
            pixels[:, : rows.shape[1], columns] = rows

    if x.size:
        parallel(scatter, blocks(x, axis=1), x.nbytes * PASSES * prod(windows.kernel))
    return batch_first(dx)


def _is_large(windows: Windows, size: tuple[int, ...]) -> bool:
    """Whether there are fewer windows than pixels in one."""
    return prod(size) < prod(windows.kernel)


def _add_to_maximum(g: np.ndarray, window: np.ndarray, dx: np.ndarray) -> None:
    """Add g (C, N) to the pixel of dx (C, H, W, N) at which `window` is largest first, or NaN last."""
    c, height, width, n = window.shape
    if not window.size:
        return
    pixels = window.reshape(c, height * width, n)
    last_nan = height * width - 1 - np.isnan(pixels[:, ::-1]).argmax(axis=1)
    place = np.where(np.isnan(pixels).any(axis=1), last_nan, pixels.argmax(axis=1))
    dx[np.arange(c)[:, None], place // width, place % width, np.arange(n)] += g


def _sorted(image: np.ndarray, windows: Windows, outside: float) -> np.ndarray:
    """What windows read of (C, H, W, N), padded by `outside`: (C, rows, stride, columns / stride, N), by remainder."""
    c, h, w, n = image.shape
    (oh, ow), stride, (top, _), (left, _) = windows.output_size((h, w)), windows.stride, *windows.padding
    shape = (c, (oh - 1) * stride[0] + windows.reach[0], stride[1], ow + (windows.reach[1] - 1) // stride[1], n)
    values = np.full(shape, outside, image.dtype)
    lines, sorted_lines = as_pixels(image[:, : shape[1] - top]), as_pixels(values)
    for remainder, places, columns in _by_remainder(w, stride[1], left, shape[3]):
        sorted_lines[:, top : top + lines.shape[1], remainder, places] = lines[:, :, columns]
    return values


def _by_remainder(width: int, stride: int, before: int, count: int) -> Iterator[tuple[int, slice, slice]]:
    """How the columns of an image, `before` of padding in front, are sorted by their remainder by `stride`.

    (remainder, places, columns): those columns of the image go to those of the `count` places of that remainder. What
    neighbouring windows read at the same offset then lies together.
    """
    for remainder in range(stride):
        start = -(-max(0, before - remainder) // stride)
        columns = range(start * stride + remainder - before, width, stride)[: max(0, count - start)]
        if columns:
            yield remainder, slice(start, start + len(columns)), slice(columns.start, columns[-1] + 1, stride)


def _taps(values: np.ndarray, windows: Windows, size: tuple[int, ...]) -> Iterator[np.ndarray]:
    """For each kernel offset, row by row, what it reads of `_sorted` values, as a view (C, OH, OW, N)."""
    (oh, ow), (sh, sw), (dh, dw) = size, windows.stride, windows.dilation
    for i in range(windows.kernel[0]):
        for j in range(windows.kernel[1]):
            first = j * dw // sw
            yield values[:, i * dh : i * dh + (oh - 1) * sh + 1 : sh, j * dw % sw, first : first + ow]


def sum_pool2d(x: np.ndarray, windows: Windows) -> np.ndarray:
    """The sum of each window, (N, C, H, W) → (N, C, OH, OW)."""
    if prod(windows.kernel) <= SMALL:
        return _sum_by_taps(x, windows)
    across, down = windows.split()
    return _sum_along(0, _sum_along(1, x, across), down)


def sum_pool2d_gradient(g: np.ndarray, size: tuple[int, int], windows: Windows) -> np.ndarray:
    """∂L/∂x of y = sum_pool2d(x): each pixel gets the sum of g over the windows that see it."""
    if prod(windows.kernel) <= SMALL:
        return _spread_by_taps(g, size, windows)
    across, down = windows.split()
    return _spread_along(1, _spread_along(0, g, (size[0], g.shape[3]), down), size, across)


def _sum_by_taps(x: np.ndarray, windows: Windows) -> np.ndarray:
    x, size = settle(x), x.shape[2:]
    taps = windows.taps(size)
    y = full((*x.shape[:2], *windows.output_size(size)), 0, x.dtype)

    def pool(channels: slice) -> None:
        for _, _, outputs, pixels in taps:
            y[:, channels][outputs] += x[:, channels][pixels]

    parallel(pool, blocks(x, axis=1), x.nbytes * PASSES * prod(windows.kernel))
    return y


def _sum_along(axis: int, x: np.ndarray, windows: Windows) -> np.ndarray:
    """`sum_pool2d` for windows along one axis, 0 (down) or 1 (across): one pass per offset, or per window if fewer."""
    size = x.shape[2:]
    out = windows.output_size(size)
    if out[axis] >= windows.kernel[axis]:
        return _sum_by_taps(x, windows)
    y = full((*x.shape[:2], *out), 0, x.dtype)
    lines, sums = (array.swapaxes(2, 2 + axis) for array in (settle(x), y))

    def pool(channels: slice) -> None:
        for index in range(out[axis]):
            seen = windows.seen(axis, size[axis], index)
            sums[:, channels, index] = sum_over(lines[:, channels, seen], (2,))[:, :, 0]

    parallel(pool, blocks(x, axis=1), x.nbytes * PASSES)
    return y


def _spread_by_taps(g: np.ndarray, size: tuple[int, int], windows: Windows) -> np.ndarray:
    g, taps = settle(g), windows.taps(size)
    dx = full((*g.shape[:2], *size), 0, g.dtype)
    seen_once = all(stride >= reach for stride, reach in zip(windows.stride, windows.reach))

    def scatter(channels: slice) -> None:
        sums, gradients = dx[:, channels], g[:, channels]
        if seen_once:
            sums, gradients = (as_pixels(array.transpose(1, 2, 3, 0)) for array in (sums, gradients))
        for _, _, outputs, pixels in taps:
            if seen_once:
                sums[pixels] = gradients[outputs]
            else:
                sums[pixels] += gradients[outputs]

    if dx.size:
        parallel(scatter, blocks(dx, axis=1), dx.nbytes * PASSES * prod(windows.kernel))
    return dx


def _spread_along(axis: int, g: np.ndarray, size: tuple[int, int], windows: Windows) -> np.ndarray:
    """`sum_pool2d_gradient` for windows along one axis: one pass per offset, or per window if those are fewer."""
    if g.shape[2 + axis] >= windows.kernel[axis]:
        return _spread_by_taps(g, size, windows)
    dx = full((*g.shape[:2], *size), 0, g.dtype)
    lines, gradients = (array.swapaxes(2, 2 + axis) for array in (dx, settle(g)))

    def scatter(channels: slice) -> None:
        for index in range(g.shape[2 + axis]):
            seen = windows.seen(axis, size[axis], index)
            lines[:, channels, seen] += gradients[:, channels, index : index + 1]

    parallel(scatter, blocks(dx, axis=1), dx.nbytes * PASSES)
    return dx
