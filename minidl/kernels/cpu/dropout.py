"""Dropout: units that a counted stream of random numbers picks, so that every device picks the same."""

from __future__ import annotations

import numpy as np


def dropout(x: np.ndarray, p: float, key: int) -> np.ndarray:
    """x m / (1 − p), with mᵢ = 0 at probability p, else 1: the same m for the same key and shape, on every device."""
    kept = np.random.Generator(np.random.Philox(key=key)).random(x.shape, np.float32) >= np.float32(p)
    return x * (kept * x.dtype.type(1 / (1 - p) if p < 1 else 0.0))
