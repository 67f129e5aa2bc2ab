"""Sums at chosen places."""

from __future__ import annotations

from typing import Any

import numpy as np


def scatter_add(g: np.ndarray, places: tuple[Any, ...], shape: tuple[int, ...]) -> np.ndarray:
    """The adjoint of ``x[places]`` for x of `shape`: g summed wherever a place was chosen, 0 elsewhere."""
    whole = np.zeros(shape, g.dtype)
    np.add.at(whole, places, g)
    return whole
