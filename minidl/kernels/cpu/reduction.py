"""Sums along any axes, as exact as sums in pairs.

NumPy adds in pairs along values that lie together in memory: the error grows with the logarithm of their number. Along
other axes it adds one value after the other, and of a million float32 values the last digits are wrong.
"""

from __future__ import annotations

import math

import numpy as np

from ...arrays import in_float32
from ...backend import memory_order

FEW = 32
"""Values that may be added one after the other."""

RUN = 1 << 12
"""Values of a dot product, which BLAS adds up some 32 at a time."""


@in_float32
def sum_over(x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Σ x over `axes`, which stay as axes of length 1.

    float16 is added up in float32; whole numbers and bools in int64, as in PyTorch.
    """
    if x.dtype.kind != "f":
        return np.asarray(x.sum(axis=axes, keepdims=True, dtype=np.int64))
    apart = [axis for axis in axes if axis not in _together(x, axes)]
    while math.prod(x.shape[axis] for axis in apart) > FEW:
        x = _folded(x, max(apart, key=x.shape.__getitem__))
    return np.add.reduce(x, axis=axes, keepdims=True)


def dot_rows(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Σ a b along each row of two matrices: products of short runs, which BLAS adds up, added in pairs."""
    whole = a.shape[1] // RUN * RUN
    rest = np.vecdot(a[:, whole:], b[:, whole:])
    if not whole:
        return rest
    runs = (x[:, :whole].reshape(len(x), -1, RUN) for x in (a, b))
    return np.vecdot(*runs).sum(axis=1) + rest


def _together(x: np.ndarray, axes: tuple[int, ...]) -> set[int]:
    """Those of `axes` along which x lies in memory without gaps, as one run of values."""
    found, step = set(), x.itemsize
    for axis in reversed(memory_order(x)):
        if x.shape[axis] == 1:
            continue
        if axis not in axes or x.strides[axis] != step:
            break
        found.add(axis)
        step *= x.shape[axis]
    return found


def _folded(x: np.ndarray, axis: int) -> np.ndarray:
    """The second half along `axis` added to the first."""
    half = x.shape[axis] // 2
    rows = x.swapaxes(0, axis)
    y = rows[:half] + rows[half : 2 * half]
    if len(rows) % 2:
        y[0] += rows[-1]
    return y.swapaxes(0, axis)
