"""Gradient clipping: the cure for exploding gradients (D6)."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from ..autograd import Tensor
from ..backend import Array, array_module


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
) -> float:
    """Shorten the gradient, all parameters' gradients as one vector g, to `max_norm`; returns ‖g‖ as it was before.

    ::

        g ← g · min(1, max_norm / (‖g‖ + 10⁻⁶))

    So the norm afterwards is min(‖g‖, max_norm) and the direction is kept. In place, as
    `torch.nn.utils.clip_grad_norm_`; ‖·‖ is the p-norm with p = `norm_type`, which may be ``inf``.
    A norm of ∞ turns finite entries to 0 and infinite ones to NaN, and a norm of NaN all of them to NaN;
    with `error_if_nonfinite` either raises RuntimeError and changes nothing.
    Raises ValueError for a negative `max_norm` and for a `norm_type` that is not positive.

    Source: Pascanu, Mikolov and Bengio, *On the difficulty of training recurrent neural networks*, 2013.
    """
    p = float(norm_type)
    if not max_norm >= 0.0:
        raise ValueError(f"max_norm must be a number ≥ 0; got {max_norm}")
    if not p > 0.0:
        raise ValueError(f"norm_type must be a number > 0, or inf; got {norm_type}")
    gradients = _gradients(parameters)
    total = _norm([_norm(gradient.data.ravel("K"), p) for gradient in gradients], p) if gradients else 0.0
    if error_if_nonfinite and not math.isfinite(total):
        raise RuntimeError(f"the gradient's {p}-norm is {total}, so it cannot be clipped; some gradient overflowed "
                           "or is NaN. A smaller learning rate often helps")
    scale = max_norm / (total + 1e-6)
    if not scale >= 1.0:  # also for NaN
        with np.errstate(invalid="ignore"):  # ∞ · 0
            for gradient in gradients:
                array = gradient.data
                array *= scale
                gradient.bump_version()
    return total


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Clip every entry of every gradient to [−clip_value, clip_value], in place, as `torch.nn.utils.clip_grad_value_`.

    Unlike `clip_grad_norm_` this changes the gradient's direction. Raises ValueError for a negative `clip_value`.
    """
    bound = float(clip_value)
    if not bound >= 0.0:
        raise ValueError(f"clip_value must be a number ≥ 0; got {clip_value}")
    for gradient in _gradients(parameters):
        array_module(gradient.data).clip(gradient.data, -bound, bound, out=gradient.data)
        gradient.bump_version()


def _gradients(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    if isinstance(parameters, Tensor):
        parameters = [parameters]
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


def _norm(values: Array | list[float], p: float) -> float:
    xp = array_module(values)
    with np.errstate(over="ignore"):
        norm = float(xp.linalg.norm(values, p))
        if not math.isfinite(norm):  # the squares of float32 overflow from 2·10¹⁹ on
            norm = float(xp.linalg.norm(xp.asarray(values, dtype=xp.float64), p))
    return norm
