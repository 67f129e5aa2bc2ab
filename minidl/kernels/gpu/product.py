"""Matrix products: cuBLAS's."""

from __future__ import annotations

import cupy


def matmul(a: cupy.ndarray, b: cupy.ndarray) -> cupy.ndarray:
    """a (…, M, K) · b (…, K, N) → (…, M, N), broadcasting the leading axes as NumPy does."""
    return cupy.matmul(a, b)
