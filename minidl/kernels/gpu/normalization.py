"""Batch normalisation on a GPU: sums over the contiguous row of a channel, and one kernel for all that follows."""

from __future__ import annotations

from math import prod

import cupy

from .layout import batch_first, channels_first, rows

CENTRED_SQUARES = cupy.ReductionKernel(
    "T x, T mean", "T total", "(x - mean) * (x - mean)", "a + b", "total = a", "0", "minidl_centred_squares"
)
CENTRED_PRODUCTS = cupy.ReductionKernel(
    "T g, T x, T mean", "T total", "g * (x - mean)", "a + b", "total = a", "0", "minidl_centred_products"
)
SCALE = cupy.ElementwiseKernel(
    "T x, T mean, T gain, T bias", "T y", "y = (x - mean) * gain + bias", "minidl_scale_channels"
)
GRADIENT = cupy.ElementwiseKernel(
    "T g, T x, T mean, T gain, T slope, T shift", "T dx", "dx = gain * (g + slope * (x - mean) + shift)",
    "minidl_normalize_channels_gradient",
)


def normalize_channels(
    x: cupy.ndarray, weight: cupy.ndarray | None, bias: cupy.ndarray | None, eps: float
) -> tuple[cupy.ndarray, cupy.ndarray, cupy.ndarray]:
    """weight (x − μ) / √(σ² + eps) + bias, μ and σ², the mean and (biased) variance of each channel of x (N, C, …)."""
    values = rows(channels_first(x))
    mean = values.mean(axis=1)
    variance = CENTRED_SQUARES(values, mean[:, None], axis=1) / values.shape[1]
    gain = 1 / cupy.sqrt(variance + eps)
    return scale_channels(x, mean, gain if weight is None else weight * gain, bias), mean, variance


def scale_channels(
    x: cupy.ndarray, mean: cupy.ndarray, gain: cupy.ndarray, bias: cupy.ndarray | None
) -> cupy.ndarray:
    """gain (x − mean) + bias of x (N, C, …), with one mean, gain and bias a channel."""
    values = channels_first(x)
    shift = cupy.zeros_like(gain) if bias is None else bias
    y = SCALE(rows(values), mean[:, None], gain[:, None], shift[:, None])
    return batch_first(y.reshape(values.shape))


def normalize_channels_gradient(
    g: cupy.ndarray, x: cupy.ndarray, mean: cupy.ndarray, scale: cupy.ndarray, gain: cupy.ndarray, fixed: bool
) -> tuple[cupy.ndarray, cupy.ndarray, cupy.ndarray]:
    """∂L/∂x, Σ g x̂ and Σ g, where x̂ = scale (x − mean).

    ∂L/∂x = gain (g − mean(g) − x̂ mean(g x̂)); gain g if mean and scale are `fixed`, whatever x is.
    """
    gradients, values = rows(channels_first(g)), channels_first(x)
    moment = CENTRED_PRODUCTS(gradients, rows(values), mean[:, None], axis=1) * scale
    total = gradients.sum(axis=1)
    if fixed:
        return scale_channels(g, cupy.zeros_like(gain), gain, None), moment, total
    count = prod(values.shape[1:])
    slope, shift = -scale * moment / count, -total / count
    dx = GRADIENT(gradients, rows(values), mean[:, None], gain[:, None], slope[:, None], shift[:, None])
    return batch_first(dx.reshape(values.shape)), moment, total
