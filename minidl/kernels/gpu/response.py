"""Local response normalisation on a GPU: one thread a value, which goes through the channels of its window."""

from __future__ import annotations

from math import prod

import cupy

from .layout import batch_first, channels_first

FORWARD = cupy.ElementwiseKernel(
    "raw T x, int64 channels, int64 row, int32 behind, int32 ahead, T share, T beta, T k", "T y, T s",
    """
    const long long c = i / row;
    T sum = k;
    for (long long j = c - behind; j <= c + ahead; ++j)
        if (j >= 0 && j < channels) {
            const T value = x[i + (j - c) * row];
            sum += share * value * value;
        }
    s = sum;
    y = x[i] * pow(sum, -beta);
    """,
    "minidl_local_response_norm",
)
GRADIENT = cupy.ElementwiseKernel(
    "raw T g, raw T x, raw T s, int64 channels, int64 row, int32 behind, int32 ahead, T share, T beta", "T dx",
    """
    const long long c = i / row;
    T sum = 0;
    for (long long j = c - behind; j <= c + ahead; ++j)
        if (j >= 0 && j < channels) {
            const long long at = i + (j - c) * row;
            sum += g[at] * x[at] * pow(s[at], -beta - T(1));
        }
    dx = g[i] * pow(s[i], -beta) - T(2) * share * beta * x[i] * sum;
    """,
    "minidl_local_response_norm_gradient",
)


def local_response_norm(
    x: cupy.ndarray, size: int, alpha: float, beta: float, k: float
) -> tuple[cupy.ndarray, cupy.ndarray]:
    """y = x s^{−β} and s = k + (α / size) Σ x² over neighbouring channels, of x (N, C, …)."""
    values = channels_first(x)
    y, s = FORWARD(values, len(values), prod(values.shape[1:]), size // 2, (size - 1) // 2, alpha / size, beta, k,
                   size=values.size)
    return batch_first(y.reshape(values.shape)), batch_first(s.reshape(values.shape))


def local_response_norm_gradient(
    g: cupy.ndarray, x: cupy.ndarray, s: cupy.ndarray, size: int, alpha: float, beta: float
) -> cupy.ndarray:
    """∂L/∂xᵢ = gᵢ sᵢ^{−β} − (2αβ / size) xᵢ Σ gⱼ xⱼ sⱼ^{−β−1} over the channels j whose window holds i."""
    values = channels_first(x)
    dx = GRADIENT(channels_first(g), values, channels_first(s), len(values), prod(values.shape[1:]), (size - 1) // 2,
                  size // 2, alpha / size, beta, size=values.size)
    return batch_first(dx.reshape(values.shape))
