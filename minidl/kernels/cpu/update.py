"""The step of SGD, a piece of a parameter at a time: it passes through the cache once, not once an operation."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np

from .threads import parallel

PIECE = 1 << 17
"""Entries updated at a time."""


def sgd(
    parameters: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray | None]], lr: float, momentum: float, tau: float,
    weight_decay: float, nesterov: bool,
) -> None:
    """The formula of `minidl.optim.SGD` for all (w, g, v), writing to w and v only; no velocity is v = None."""
    for w, g, v in parameters:
        update = partial(_update, w, g, v, lr, momentum, tau, weight_decay, nesterov)
        if w.size <= PIECE:
            update(...)
        else:
            rows = max(1, PIECE * len(w) // w.size)
            parallel(update, ((slice(start, start + rows),) for start in range(0, len(w), rows)), 4 * w.nbytes)


def _update(
    w: np.ndarray, g: np.ndarray, v: np.ndarray | None, lr: float, momentum: float, tau: float, weight_decay: float,
    nesterov: bool, piece: Any,
) -> None:
    weights, gradient = w[piece], g[piece]
    if weight_decay:
        decayed = weight_decay * weights
        decayed += gradient
        gradient = decayed
    if v is not None:
        velocity = v[piece]
        velocity *= momentum
        velocity += (1.0 - tau) * gradient if tau else gradient
        if nesterov:
            ahead = momentum * velocity
            ahead += gradient
            gradient = ahead
        else:
            gradient = velocity
    weights -= lr * gradient
