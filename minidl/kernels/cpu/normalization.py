"""Batch normalisation, a block of channels at a time: all of it is done while the block is in the cache."""

from __future__ import annotations

import numpy as np

from .layout import blocks, by_channel, from_channels
from .reduction import dot_rows, sum_rows
from .threads import parallel

PASSES = 6
"""About how often each goes through an array."""


def normalize_channels(
    x: np.ndarray, weight: np.ndarray | None, bias: np.ndarray | None, eps: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """weight (x − μ) / √(σ² + eps) + bias, μ and σ², the mean and (biased) variance of each channel of x (N, C, …)."""
    values = by_channel(x)
    y = np.empty_like(values)
    mean, variance = np.empty((2, len(values)), x.dtype)

    def normalize(channels: slice) -> None:
        block = y[channels]
        mean[channels] = sum_rows(values[channels]) / values.shape[1]
        np.subtract(values[channels], mean[channels, None], out=block)
        variance[channels] = dot_rows(block, block) / values.shape[1]
        gain = 1 / np.sqrt(variance[channels] + eps)
        block *= (gain if weight is None else weight[channels] * gain)[:, None]
        if bias is not None:
            block += bias[channels, None]

    parallel(normalize, blocks(values), PASSES * values.nbytes)
    return from_channels(y, x.shape), mean, variance


def scale_channels(x: np.ndarray, mean: np.ndarray, gain: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
    """gain (x − mean) + bias of x (N, C, …), with one mean, gain and bias a channel."""
    values = by_channel(x)
    y = np.empty_like(values)

    def scale(channels: slice) -> None:
        block = y[channels]
        np.subtract(values[channels], mean[channels, None], out=block)
        block *= gain[channels, None]
        if bias is not None:
            block += bias[channels, None]

    parallel(scale, blocks(values), PASSES * values.nbytes)
    return from_channels(y, x.shape)


def normalize_channels_gradient(
    g: np.ndarray, x: np.ndarray, mean: np.ndarray, scale: np.ndarray, gain: np.ndarray, fixed: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """∂L/∂x, Σ g x̂ and Σ g, where x̂ = scale (x − mean).

    ∂L/∂x = gain (g − mean(g) − x̂ mean(g x̂)); gain g if mean and scale are `fixed`, whatever x is.
    """
    gradients, values = by_channel(g), by_channel(x)
    dx = np.empty_like(gradients)
    moment, total = np.empty((2, len(values)), x.dtype)

    def differentiate(channels: slice) -> None:
        incoming, block = gradients[channels], dx[channels]
        np.subtract(values[channels], mean[channels, None], out=block)
        moment[channels] = dot_rows(incoming, block) * scale[channels]
        total[channels] = sum_rows(incoming)
        if fixed:
            np.multiply(incoming, gain[channels, None], out=block)
        else:
            block *= (-scale[channels] * moment[channels] / values.shape[1])[:, None]
            block += incoming
            block -= (total[channels] / values.shape[1])[:, None]
            block *= gain[channels, None]

    parallel(differentiate, blocks(values), PASSES * values.nbytes)
    return from_channels(dx, x.shape), moment, total
