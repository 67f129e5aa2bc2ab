"""Gradient clipping: the cure for exploding gradients (D6)."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from ..autograd import Tensor
from ..backend import Array, array_module, is_writeable


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
    The norm is computed in float64. Raises ValueError for a negative `max_norm`, for a `norm_type` that is not positive
    and for a gradient in read-only memory; TypeError for what is not tensors.

    Source: Pascanu, Mikolov and Bengio, *On the difficulty of training recurrent neural networks*, 2013.
    """
    p = float(norm_type)
    if not max_norm >= 0.0:
        raise ValueError(f"max_norm must be a number ≥ 0; got {max_norm}")
    if not p > 0.0:
        raise ValueError(f"norm_type must be a number > 0, or inf; got {norm_type}")
    gradients = _gradients(parameters)
    total = _norm([norm for gradient in gradients for norm in _norms(gradient.data, p)], p)
    if error_if_nonfinite and not math.isfinite(total):
        raise RuntimeError(f"the gradient's {p}-norm is {total}, so it cannot be clipped; some gradient overflowed "
                           "or is NaN. A smaller learning rate often helps")
    scale = max_norm / (total + 1e-6)
    if not scale >= 1.0:  # also for NaN
        with np.errstate(invalid="ignore"):  # ∞ · 0
            for gradient in gradients:
                array = gradient.data
                if array.dtype == np.float16:  # which holds no scale below 6e-8
                    array[...] = array.astype(np.float32) * scale
                else:
                    array *= scale
                gradient.bump_version()
    return total


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Clip every entry of every gradient to [−clip_value, clip_value], in place, as `torch.nn.utils.clip_grad_value_`.

    Unlike `clip_grad_norm_` this changes the gradient's direction. Raises ValueError for a negative `clip_value` and
    for a gradient in read-only memory; TypeError for what is not tensors.
    """
    bound = float(clip_value)
    if not bound >= 0.0:
        raise ValueError(f"clip_value must be a number ≥ 0; got {clip_value}")
    for gradient in _gradients(parameters):
        array_module(gradient.data).clip(gradient.data, -bound, bound, out=gradient.data)
        gradient.bump_version()


PIECE = 2**18
"""Gradient entries converted to float64 at a time; the copy fits into the cache."""


def _gradients(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    gradients = []
    for index, parameter in enumerate([parameters] if isinstance(parameters, Tensor) else parameters):
        if not isinstance(parameter, Tensor):
            raise TypeError(f"clipping changes the gradients of tensors; parameter {index} is a "
                            f"{type(parameter).__name__}. Of a network, pass network.parameters()")
        if parameter.grad is not None:
            if not is_writeable(parameter.grad.data):
                raise ValueError(f"the gradient of parameter {index} is in read-only memory and cannot be clipped; "
                                 "make it of a copy")
            gradients.append(parameter.grad)
    return gradients


def _norms(gradient: Array, p: float) -> list[float]:
    """The norm of each piece of a gradient; their norm is that of the whole."""
    flat = gradient.ravel("K")
    return [_norm(flat[start : start + PIECE], p) for start in range(0, len(flat), PIECE)]


def _norm(values: Array | list[float], p: float) -> float:
    xp = array_module(values)
    wide = xp.asarray(values, dtype=xp.float64)
    return float(xp.linalg.norm(wide, p)) if wide.size else 0.0
