"""Sums along any axes: CuPy adds in a tree, and float16 in float32."""

from __future__ import annotations

import cupy


def sum_over(x: cupy.ndarray, axes: tuple[int, ...]) -> cupy.ndarray:
    """Σ x over `axes`, which stay as axes of length 1; whole numbers and bools in int64, as in PyTorch."""
    return x.sum(axis=axes, keepdims=True, dtype=None if x.dtype.kind == "f" else "int64")
