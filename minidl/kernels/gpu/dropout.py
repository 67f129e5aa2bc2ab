"""Dropout on a GPU: one kernel that draws and multiplies, with the random numbers that NumPy's Philox draws."""

from __future__ import annotations

import cupy

UNIFORM = """
__device__ inline float minidl_uniform(unsigned long long key, unsigned long long i) {
    // Of eight numbers that come from one count, the i-th. Salmon et al., Parallel random numbers: as easy as 1, 2, 3.
    unsigned long long c[4] = {i / 8 + 1, 0, 0, 0}, other = 0;
    for (int round = 0; round < 10; ++round) {
        const unsigned long long a = 0xD2E7470EE14C6C93ULL, b = 0xCA5A826395121157ULL, first = c[0], third = c[2];
        c[0] = __umul64hi(b, third) ^ c[1] ^ key;
        c[1] = b * third;
        c[2] = __umul64hi(a, first) ^ c[3] ^ other;
        c[3] = a * first;
        key += 0x9E3779B97F4A7C15ULL;
        other += 0xBB67AE8584CAA73BULL;
    }
    const unsigned int bits = (unsigned int)(c[i % 8 / 2] >> (i % 2 * 32));
    return (bits >> 8) * (1.0f / 16777216.0f);
}
"""
DROPOUT = cupy.ElementwiseKernel(
    "T x, uint64 key, float32 p, T scale", "T y", "y = minidl_uniform(key, i) >= p ? x * scale : x * T(0)",
    "minidl_dropout", preamble=UNIFORM,
)


def dropout(x: cupy.ndarray, p: float, key: int) -> cupy.ndarray:
    """x m / (1 − p), with mᵢ = 0 at probability p, else 1: the same m for the same key and shape, on every device."""
    return DROPOUT(x, key, p, 1 / (1 - p) if p < 1 else 0.0)
