"""Batch normalisation, a block of channels at a time: each passes through the cache once in every direction."""

from __future__ import annotations

import numpy as np

from .layout import blocks, by_channel, from_channels
from .threads import parallel

PASSES = 6
"""About how often each goes through an array."""


def channel_moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean and the (biased) variance of each channel of x (N, C, …)."""
    values = by_channel(x)
    mean, variance = np.empty((2, len(values)), x.dtype)

    def measure(channels: slice) -> None:
        block = values[channels]
        mean[channels] = block.mean(axis=1)
        centred = block - mean[channels, None]
        variance[channels] = np.vecdot(centred, centred) / values.shape[1]

    parallel(measure, blocks(values), PASSES * values.nbytes)
    return mean, variance


def channel_scale(x: np.ndarray, mean: np.ndarray, gain: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
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


def channel_sums(g: np.ndarray, x: np.ndarray, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Σ g and Σ g (x − mean) over each channel of g and x (N, C, …)."""
    gradients, values = by_channel(g), by_channel(x)
    total, moment = np.empty((2, len(values)), x.dtype)

    def add(channels: slice) -> None:
        block = gradients[channels]
        total[channels] = block.sum(axis=1)
        moment[channels] = np.vecdot(block, values[channels] - mean[channels, None])

    parallel(add, blocks(values), PASSES * values.nbytes)
    return total, moment


def channel_combination(
    g: np.ndarray, x: np.ndarray, mean: np.ndarray, of_g: np.ndarray, of_x: np.ndarray, constant: np.ndarray
) -> np.ndarray:
    """of_g g + of_x (x − mean) + constant, of g and x (N, C, …), with one factor of each a channel."""
    gradients, values = by_channel(g), by_channel(x)
    result = np.empty_like(gradients)

    def combine(channels: slice) -> None:
        block = result[channels]
        np.subtract(values[channels], mean[channels, None], out=block)
        block *= of_x[channels, None]
        block += of_g[channels, None] * gradients[channels]
        block += constant[channels, None]

    parallel(combine, blocks(values), PASSES * values.nbytes)
    return from_channels(result, x.shape)
