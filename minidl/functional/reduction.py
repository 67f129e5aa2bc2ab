"""Reductions: many values to one, along the axes named in NumPy's way (`axis`, `keepdims`).

Whole numbers and bools are added up in int64, and have means and variances in float32.
"""

from __future__ import annotations

import math
import operator

from ..arrays import ARRAY, AS_FLOATS
from ..autograd import differentiable
from ..backend import array_module
from ..kernels import kernels_of


def _axes(operation, axis, shape) -> tuple[int, ...]:
    """`axis` as a tuple of different, non-negative axes; None means all of them."""
    if axis is None:
        return tuple(range(len(shape)))
    try:
        given = [operator.index(a) for a in (axis if isinstance(axis, (tuple, list)) else (axis,))]
    except TypeError:
        raise TypeError(f"{operation}: axis must be a whole number or a tuple of them; got {axis!r}") from None
    ndim = len(shape) or 1  # a number without axes counts as one axis of one value
    if not all(-ndim <= a < ndim for a in given) or len({a % ndim for a in given}) < len(given):
        raise ValueError(f"{operation}: axis={axis} does not name different axes of a tensor of shape {shape}")
    return tuple(a % ndim for a in given) if shape else ()


def _without(array, axes, keepdims):
    """What has the reduced axes as 1, without them unless `keepdims`."""
    return array if keepdims else array.reshape([n for axis, n in enumerate(array.shape) if axis not in axes])


def _kept(shape, axes) -> tuple[int, ...]:
    """`shape` with the reduced axes as 1: so a reduced array broadcasts against the input."""
    return tuple(1 if axis in axes else n for axis, n in enumerate(shape))


@differentiable(x=ARRAY)
def sum(x, *, axis=None, keepdims=False):
    """Σ xᵢ     ∂L/∂xᵢ = g"""
    xp, shape, axes = array_module(x), x.shape, _axes("sum", axis, x.shape)
    y = _without(kernels_of(x).sum_over(x, axes), axes, keepdims)
    return y, (lambda g: xp.broadcast_to(g.reshape(_kept(shape, axes)), shape),)


@differentiable(x=AS_FLOATS, widen=True)
def mean(x, *, axis=None, keepdims=False):
    """(1/n) Σ xᵢ     ∂L/∂xᵢ = g / n"""
    xp, shape, axes = array_module(x), x.shape, _axes("mean", axis, x.shape)
    y = _without(_mean(x, axes), axes, keepdims)
    count = math.prod(shape[a] for a in axes)
    # A copy, since g / n is no view of g and what broadcast_to gives cannot be written to.
    return y, (lambda g: xp.broadcast_to(g.reshape(_kept(shape, axes)) * (1 / (count or 1)), shape).copy(),)


@differentiable(x=AS_FLOATS, widen=True)
def var(x, *, axis=None, ddof=0, keepdims=False):
    """(1/(n − ddof)) Σ (xᵢ − x̄)²     ∂L/∂xᵢ = g · 2 (xᵢ − x̄) / (n − ddof)

    NaN where n is at most `ddof`.
    """
    shape, axes = x.shape, _axes("var", axis, x.shape)
    centred = x - _mean(x, axes)
    degrees = math.prod(shape[a] for a in axes) - ddof
    share = 1 / degrees if degrees > 0 else math.nan
    y = _without(kernels_of(x).sum_over(centred * centred, axes) * share, axes, keepdims)
    return y, (lambda g: g.reshape(_kept(shape, axes)) * (2 * share) * centred,)


def _mean(x, axes):
    """The mean over `axes`, which stay as axes of length 1; NaN of nothing."""
    count = math.prod(x.shape[a] for a in axes)
    return kernels_of(x).sum_over(x, axes) / (count or math.nan)


@differentiable(x=ARRAY)
def max(x, *, axis=None, keepdims=False):
    """max xᵢ     ∂L/∂xᵢ = g for the first xᵢ that equals the maximum, 0 for all others

    NaN, if there is one, is the maximum. Raises ValueError for the maximum of nothing.
    """
    return _extremum("max", x, axis, keepdims)


@differentiable(x=ARRAY)
def min(x, *, axis=None, keepdims=False):
    """min xᵢ     ∂L/∂xᵢ = g for the first xᵢ that equals the minimum, 0 for all others

    NaN, if there is one, is the minimum. Raises ValueError for the minimum of nothing.
    """
    return _extremum("min", x, axis, keepdims)


def _extremum(operation, x, axis, keepdims):
    xp, axes = array_module(x), _axes(operation, axis, x.shape)
    if not math.prod(x.shape[a] for a in axes):
        raise ValueError(f"{operation}: a tensor of shape {x.shape} is empty along axis {axis}: nothing has no "
                         f"{operation}imum")
    y = (x.max if operation == "max" else x.min)(axis=axes, keepdims=True)

    def gradient(g):
        others = [a for a in range(x.ndim) if a not in axes]
        order = (*others, *axes)
        found = ((x == y) | (x != x)).transpose(order)  # only NaN differs from itself
        rows = found.reshape(*found.shape[: len(others)], math.prod(found.shape[len(others) :]))
        first = rows.argmax(axis=-1)[..., None] == xp.arange(rows.shape[-1])
        inverse = sorted(range(x.ndim), key=order.__getitem__)
        return g.reshape(y.shape) * first.reshape(found.shape).transpose(inverse)

    return _without(y, axes, keepdims), (gradient,)
