"""Matrix products, cut into fixed pieces and spread over the thread pool."""

from __future__ import annotations

import numpy as np

from .layout import cuts
from .threads import parallel, single_threaded_blas

PIECE_PRODUCTS = 1 << 22
"""Multiply-adds in a piece: below this a thread costs more than it saves."""


def matmul(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a (…, M, K) · b (…, K, N) → (…, M, N), broadcasting the leading axes as NumPy does."""
    (m, k), n = a.shape[-2:], b.shape[-1]
    if k == 1:
        return a * b  # NumPy's product of a column and a row takes four times as long
    pieces = min(max(a.size * n, m * b.size) // PIECE_PRODUCTS, 16)
    if pieces < 2:
        with single_threaded_blas():
            return np.matmul(a, b)
    y = np.empty((*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), m, n), np.result_type(a, b))

    def multiply(start: int, stop: int) -> None:
        if m >= n:
            np.matmul(a[..., start:stop, :], b, out=y[..., start:stop, :])
        else:
            np.matmul(a, b[..., start:stop], out=y[..., start:stop])

    parallel(multiply, cuts(max(m, n), pieces))
    return y
