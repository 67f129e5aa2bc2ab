"""What is computed value by value: CuPy launches one kernel an operation, whatever the size."""

from __future__ import annotations

from collections.abc import Callable

import cupy


def pointwise(function: Callable[..., object], *arrays: cupy.ndarray, passes: int = 2) -> cupy.ndarray:
    """The array that ``function(*arrays, out=array)`` fills, of the dtype of the first, lying in memory as the last."""
    result = cupy.empty_like(arrays[-1], dtype=arrays[0].dtype)
    function(*arrays, out=result)
    return result
