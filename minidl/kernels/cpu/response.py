"""Local response normalisation, a block of positions at a time with all their channels."""

from __future__ import annotations

import numpy as np

from .layout import blocks, by_channel, from_channels
from .threads import parallel

PASSES = 8
"""About how often each goes through an array."""


def local_response_norm(
    x: np.ndarray, size: int, alpha: float, beta: float, k: float
) -> tuple[np.ndarray, np.ndarray]:
    """y = x s^{−β} and s = k + (α / size) Σ x² over neighbouring channels, of x (N, C, …)."""
    values = by_channel(x)
    y, s = np.empty_like(values), np.empty_like(values)

    def normalise(part: slice) -> None:
        block, squares = s[:, part], np.square(values[:, part])
        squares *= alpha / size
        block[...] = k
        _add_neighbours(squares, block, size // 2, (size - 1) // 2)
        np.multiply(values[:, part], _inverse_power(block, beta), out=y[:, part])

    parallel(normalise, blocks(values, axis=1), PASSES * values.nbytes)
    return from_channels(y, x.shape), from_channels(s, x.shape)


def local_response_norm_gradient(
    g: np.ndarray, x: np.ndarray, s: np.ndarray, size: int, alpha: float, beta: float
) -> np.ndarray:
    """∂L/∂xᵢ = gᵢ sᵢ^{−β} − (2αβ / size) xᵢ Σ gⱼ xⱼ sⱼ^{−β−1} over the channels j whose window holds i."""
    gradients, values, sums = by_channel(g), by_channel(x), by_channel(s)
    dx = np.empty_like(values)

    def differentiate(part: slice) -> None:
        block, scaled = dx[:, part], gradients[:, part] * _inverse_power(sums[:, part], beta)
        own = scaled * values[:, part]
        own /= sums[:, part]
        block[...] = 0
        _add_neighbours(own, block, (size - 1) // 2, size // 2)
        block *= values[:, part]
        block *= -2 * alpha * beta / size
        block += scaled

    parallel(differentiate, blocks(values, axis=1), PASSES * values.nbytes)
    return from_channels(dx, x.shape)


def _add_neighbours(x: np.ndarray, total: np.ndarray, behind: int, ahead: int) -> None:
    """Add to each channel of `total` (C, …) the channels c − behind … c + ahead of `x` that there are."""
    channels = len(x)
    for d in range(-min(behind, channels - 1), min(ahead, channels - 1) + 1):
        total[max(0, -d) : channels - max(0, d)] += x[max(0, d) : channels + min(0, d)]


def _inverse_power(s: np.ndarray, beta: float) -> np.ndarray:
    """s^{−β}; for the papers' β = 3/4 by square roots, which take a tenth of the time of a power."""
    if beta != 0.75:
        return np.power(s, -beta)
    root = np.sqrt(s)
    root *= np.sqrt(root)
    return np.reciprocal(root, out=root)
