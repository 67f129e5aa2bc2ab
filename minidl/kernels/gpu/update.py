"""The step of SGD on a GPU: one launch a parameter."""

from __future__ import annotations

import cupy

STEP = cupy.ElementwiseKernel(
    "T gradient, T lr, T momentum, T share, T weight_decay, bool nesterov", "T w, T v",
    """
    const T g = gradient + weight_decay * w;
    v = momentum * v + share * g;
    const T ahead = g + momentum * v;
    w -= lr * (nesterov ? ahead : v);
    """,
    "minidl_sgd",
)
PLAIN_STEP = cupy.ElementwiseKernel(
    "T gradient, T lr, T weight_decay", "T w", "w -= lr * (gradient + weight_decay * w)", "minidl_plain_sgd"
)


def sgd(
    w: cupy.ndarray, g: cupy.ndarray, v: cupy.ndarray | None, lr: float, momentum: float, tau: float,
    weight_decay: float, nesterov: bool,
) -> None:
    """The formula of `minidl.optim.SGD`, writing to w and v only; no velocity is v = None."""
    if v is None:
        PLAIN_STEP(g, lr, weight_decay, w)
    else:
        STEP(g, lr, momentum, 1 - tau, weight_decay, nesterov, w, v)
