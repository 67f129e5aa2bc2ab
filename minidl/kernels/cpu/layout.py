"""How activations lie in memory: as (C, H, W, N), behind their (N, C, H, W) view.

The images of a batch are neighbours, so NumPy's inner loops are long even where windows are strided,
and no transpose stands between a convolution's matrix product and the next layer. A batch of one
lies as usual. Nothing outside the kernels depends on it: every array keeps its shape (N, C, H, W).
"""

from __future__ import annotations

import numpy as np


def batch_last(x: np.ndarray) -> np.ndarray:
    """(N, C, H, W) as a contiguous (C, H, W, N); a copy only if it does not lie so already."""
    return np.ascontiguousarray(x.transpose(1, 2, 3, 0))


def batch_first(x: np.ndarray) -> np.ndarray:
    """The (N, C, H, W) view of a (C, H, W, N) array."""
    return x.transpose(3, 0, 1, 2)


def settle(x: np.ndarray) -> np.ndarray:
    """(N, C, H, W) lying as (C, H, W, N); `x` itself if it does already."""
    return batch_first(batch_last(x))


def full(shape: tuple[int, ...], value: float, dtype: np.dtype) -> np.ndarray:
    """A new (N, C, H, W) array of one value, lying as (C, H, W, N)."""
    n, *rest = shape
    return batch_first(np.full((*rest, n), value, dtype))
