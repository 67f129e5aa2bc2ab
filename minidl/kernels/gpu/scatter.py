"""Sums at chosen places on a GPU: each place finds its own in a sorted list, so that no order of threads shows."""

from __future__ import annotations

from math import prod
from typing import Any

import cupy

SCATTER_ADD = cupy.ElementwiseKernel(
    "raw T g, raw int64 places, raw int64 order, int64 count", "T total",
    """
    long long first = 0, beyond = count;  // the first of the sorted places that is not before i
    while (first < beyond) {
        const long long middle = (first + beyond) / 2;
        if (places[order[middle]] < i) first = middle + 1; else beyond = middle;
    }
    T sum = 0;
    for (; first < count && places[order[first]] == i; ++first) sum += g[order[first]];
    total = sum;
    """,
    "minidl_scatter_add",
)


def scatter_add(g: cupy.ndarray, places: tuple[Any, ...], shape: tuple[int, ...]) -> cupy.ndarray:
    """The adjoint of ``x[places]`` for x of `shape`: g summed wherever a place was chosen, 0 elsewhere."""
    flat = cupy.arange(prod(shape)).reshape(shape)[places].reshape(-1)
    return SCATTER_ADD(g.reshape(-1), flat, flat.argsort(), flat.size, size=prod(shape)).reshape(shape)
