"""Sums at chosen places."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...arrays import in_float32


@in_float32
def scatter_add(g: np.ndarray, places: tuple[Any, ...], shape: tuple[int, ...]) -> np.ndarray:
    """The adjoint of ``x[places]`` for x of `shape`: g summed wherever a place was chosen, 0 elsewhere."""
    whole = np.zeros(shape, np.float64)  # a place may be chosen a million times, and these are added one by one
    np.add.at(whole, places, g)
    return whole.astype(g.dtype, copy=False)
