"""The step of SGD on a GPU: one launch for all parameters, which it finds in a table of their addresses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cupy
import numpy as np

FIND = """
    int found = 0, beyond = parameters;  // the parameter that element i is in
    while (beyond - found > 1) {
        const int middle = (found + beyond) / 2;
        if ((long long)table[4 * middle] <= i) found = middle; else beyond = middle;
    }
    const long long at = i - (long long)table[4 * found];
    T& w = reinterpret_cast<T*>(table[4 * found + 1])[at];
    const T g = reinterpret_cast<const T*>(table[4 * found + 2])[at] + weight_decay * w;
"""
"""table: the element at which a parameter begins, the addresses of its weights, gradient and velocity."""

STEP = cupy.ElementwiseKernel(
    "raw uint64 table, int32 parameters, T lr, T momentum, T share, T weight_decay, bool nesterov", "raw T weights",
    FIND + """
    T& v = reinterpret_cast<T*>(table[4 * found + 3])[at];
    v = momentum * v + share * g;
    const T ahead = g + momentum * v;
    w -= lr * (nesterov ? ahead : v);
    """,
    "minidl_sgd",
)
PLAIN_STEP = cupy.ElementwiseKernel(
    "raw uint64 table, int32 parameters, T lr, T weight_decay", "raw T weights", FIND + "w -= lr * g;",
    "minidl_plain_sgd",
)


def sgd(
    parameters: Sequence[tuple[cupy.ndarray, cupy.ndarray, cupy.ndarray | None]], lr: float, momentum: float,
    tau: float, weight_decay: float, nesterov: bool,
) -> None:
    """The formula of `minidl.optim.SGD` for all (w, g, v), writing to w and v only; no velocity is v = None.

    All are of one dtype, and have a velocity or none has.
    """
    parameters = [arrays for arrays in parameters if arrays[0].size]
    if not parameters:
        return
    rows: Any = [tuple(x if x is None else cupy.ascontiguousarray(x) for x in arrays) for arrays in parameters]
    starts = np.cumsum([0, *(w.size for w, _, _ in rows)])
    table = cupy.asarray(np.array(
        [(start, *(0 if x is None else x.data.ptr for x in arrays)) for start, arrays in zip(starts, rows)], np.uint64
    ))
    first = rows[0][0]
    if rows[0][2] is None:
        PLAIN_STEP(table, len(rows), lr, weight_decay, first, size=int(starts[-1]))
    else:
        STEP(table, len(rows), lr, momentum, 1 - tau, weight_decay, nesterov, first, size=int(starts[-1]))
    for arrays, contiguous in zip(parameters, rows):
        for x, copy in zip(arrays[::2], contiguous[::2]):
            if copy is not x:
                x[...] = copy
