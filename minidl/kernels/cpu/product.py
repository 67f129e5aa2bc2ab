"""Matrix products, cut into fixed pieces and spread over the thread pool."""

from __future__ import annotations

import numpy as np

from .layout import cuts
from .threads import parallel, single_threaded_blas

ROWS = 64
"""In a piece at least: then it is cut by rows, and what a thread writes lies together."""

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

    by_rows = m >= min(n, ROWS * pieces)

    def multiply(start: int, stop: int) -> None:
        if by_rows:
            np.matmul(a[..., start:stop, :], b, out=y[..., start:stop, :])
        else:
            np.matmul(a, b[..., start:stop], out=y[..., start:stop])

    parallel(multiply, cuts(m if by_rows else n, pieces))
    return y
