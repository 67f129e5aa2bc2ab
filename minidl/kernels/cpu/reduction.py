"""Sums along any axes, as exact as sums in pairs.

NumPy adds in pairs along values that lie together in memory, some thousands at a time: the error grows with the
logarithm of their number. Along other axes, and from one run of thousands to the next, it adds one value after the
other, and of a million float32 values the last digits are wrong.
"""

from __future__ import annotations

import math

import numpy as np

from ...arrays import in_float32
from ...backend import memory_order

FEW = 32
"""Values that may be added one after the other."""

RUN = 1 << 12
"""Values that lie together and are given to NumPy, or to BLAS for a dot product, at a time."""


@in_float32
def sum_over(x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Σ x over `axes`, which stay as axes of length 1.

    float16 is added up in float32; whole numbers and bools in int64, as in PyTorch.
    """
    if x.dtype.kind != "f":
        return np.asarray(x.sum(axis=axes, keepdims=True, dtype=np.int64))
    together = _together(x, axes)
    while math.prod(x.shape[axis] for axis in axes if axis not in together) > FEW:
        x = _folded(x, max((axis for axis in axes if axis not in together), key=x.shape.__getitem__))
        together = _together(x, axes)
    if math.prod(x.shape[axis] for axis in together) <= 2 * RUN:
        return np.add.reduce(x, axis=axes, keepdims=True)
    others = [axis for axis in range(x.ndim) if axis not in together]
    lines = x.transpose(others + together).reshape(*(x.shape[axis] for axis in others), -1)
    sums = sum_rows(lines).sum(axis=tuple(place for place, axis in enumerate(others) if axis in axes))
    return sums.reshape([1 if axis in axes else n for axis, n in enumerate(x.shape)])


def sum_rows(x: np.ndarray) -> np.ndarray:
    """Σ x along the last axis, of values that lie together."""
    whole = x.shape[-1] // RUN * RUN
    if x.shape[-1] <= 2 * RUN:
        return x.sum(axis=-1)
    runs = x[..., :whole].reshape(*x.shape[:-1], -1, RUN).sum(axis=-1)
    return sum_rows(runs) + x[..., whole:].sum(axis=-1)


def dot_rows(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Σ a b along each row of two matrices: dot products of short runs, added in pairs."""
    whole = a.shape[1] // RUN * RUN
    rest = np.vecdot(a[:, whole:], b[:, whole:])
    if not whole:
        return rest
    runs = (x[:, :whole].reshape(len(x), -1, RUN) for x in (a, b))
    return sum_rows(np.vecdot(*runs)) + rest


def _together(x: np.ndarray, axes: tuple[int, ...]) -> list[int]:
    """Those of `axes` along which x lies in memory without gaps, as one run of values; the outermost first."""
    found: list[int] = []
    step = x.itemsize
    for axis in reversed(memory_order(x)):
        if x.shape[axis] == 1:
            continue
        if axis not in axes or x.strides[axis] != step:
            break
        found.insert(0, axis)
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
