"""What is computed value by value: a piece of memory at a time, on all threads."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .layout import cuts, in_memory_order
from .threads import parallel

PIECE = 1 << 18
"""Values in a piece at most: much fewer keep NumPy busy for too short a time; see `layout.BLOCK_BYTES`."""


def pointwise(function: Callable[..., object], *arrays: np.ndarray, passes: int = 2) -> np.ndarray:
    """The array that ``function(*arrays, out=array)`` fills, called for piece after piece of arrays of one shape.

    The result has the dtype of the first and lies in memory as the last. `passes`: about how often it goes through
    memory, a transcendental function counting ten times.
    """
    *others, last = arrays
    if last.size <= PIECE:
        result = np.empty_like(last, arrays[0].dtype)
        function(*arrays, out=result)
        return result
    (values, *before), restored = in_memory_order(last, *others)
    result = np.empty(values.shape, arrays[0].dtype)

    def compute(piece: slice) -> None:
        function(*(array[piece] for array in (*before, values)), out=result[piece])

    pieces = cuts(result.size, 2 * -(-result.size // (2 * PIECE)))
    parallel(compute, ((slice(start, stop),) for start, stop in pieces), passes * result.nbytes)
    return restored(result)
