"""Pooling, tap by tap, a block of channels at a time: one pass per kernel offset over a block that stays in the cache.

What lies outside the image is never read: it acts as −∞ for the maximum and as 0 for the sum.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..windows import Windows
from .layout import full, settle
from .threads import parallel

BLOCK_BYTES = 1 << 18
PASSES = 3
"""About how often pooling goes through an image: taps, zeros and results together."""


def max_pool2d(x: np.ndarray, windows: Windows) -> np.ndarray:
    """The largest value of each window, (N, C, H, W) → (N, C, OH, OW); NaN wherever a window holds one."""
    x, size = settle(x), x.shape[2:]
    taps = list(windows.taps(size))
    y = full((*x.shape[:2], *windows.output_size(size)), -np.inf, x.dtype)

    def pool(channels: slice) -> None:
        for _, _, outputs, pixels in taps:
            best = y[:, channels][outputs]
            np.maximum(best, x[:, channels][pixels], out=best)

    parallel(pool, _channel_blocks(x), x.nbytes * PASSES)
    return y


def max_pool2d_gradient(g: np.ndarray, x: np.ndarray, y: np.ndarray, windows: Windows) -> np.ndarray:
    """∂L/∂x of y = max_pool2d(x): each g goes to the first pixel of its window that equals the maximum."""
    g, x, y = settle(g), settle(x), settle(y)
    taps = list(windows.taps(x.shape[2:]))
    dx = full(x.shape, 0, g.dtype)

    def scatter(channels: slice) -> None:
        undecided = np.ones_like(y[:, channels], bool)
        for _, _, outputs, pixels in taps:
            hit = x[:, channels][pixels] == y[:, channels][outputs]
            hit &= undecided[outputs]
            undecided[outputs] ^= hit
            dx[:, channels][pixels] += g[:, channels][outputs] * hit

    parallel(scatter, _channel_blocks(x), x.nbytes * PASSES)
    return dx


def sum_pool2d(x: np.ndarray, windows: Windows) -> np.ndarray:
    """The sum of each window, (N, C, H, W) → (N, C, OH, OW)."""
    x, size = settle(x), x.shape[2:]
    taps = list(windows.taps(size))
    y = full((*x.shape[:2], *windows.output_size(size)), 0, x.dtype)

    def pool(channels: slice) -> None:
        for _, _, outputs, pixels in taps:
            y[:, channels][outputs] += x[:, channels][pixels]

    parallel(pool, _channel_blocks(x), x.nbytes * PASSES)
    return y


def sum_pool2d_gradient(g: np.ndarray, size: tuple[int, int], windows: Windows) -> np.ndarray:
    """∂L/∂x of y = sum_pool2d(x): each pixel gets the sum of g over the windows that see it."""
    g, taps = settle(g), list(windows.taps(size))
    dx = full((*g.shape[:2], *size), 0, g.dtype)

    def scatter(channels: slice) -> None:
        for _, _, outputs, pixels in taps:
            dx[:, channels][pixels] += g[:, channels][outputs]

    parallel(scatter, _channel_blocks(dx), dx.nbytes * PASSES)
    return dx


def _channel_blocks(images: np.ndarray) -> Iterator[tuple[slice]]:
    channels = images.shape[1]
    block = max(1, BLOCK_BYTES * channels // max(1, images.nbytes))
    return ((slice(start, start + block),) for start in range(0, channels, block))
