"""How activations lie in a GPU's memory: as (C, N, H, W), behind their (N, C, H, W) view.

A channel is one row, so what a convolution's matrix product gives is the next activation as it lies, a 1 × 1
convolution is a product of what is there, and sums over a channel run over contiguous memory. Nothing outside the
kernels depends on it: every array keeps its shape (N, C, H, W).
"""

from __future__ import annotations

from math import prod

import cupy


def channels_first(x: cupy.ndarray) -> cupy.ndarray:
    """(N, C, …) as a contiguous (C, N, …); a copy only if it does not lie so already."""
    return cupy.ascontiguousarray(x.swapaxes(0, 1))


def batch_first(x: cupy.ndarray) -> cupy.ndarray:
    """The (N, C, …) view of a (C, N, …) array."""
    return x.swapaxes(0, 1)


def rows(x: cupy.ndarray) -> cupy.ndarray:
    """(C, …) as (C, M), a row a channel."""
    return x.reshape(len(x), prod(x.shape[1:]))
