"""Reductions: many values to one, along the axes named in NumPy's way (`axis`, `keepdims`)."""

from __future__ import annotations

import math

from ..autograd import differentiable
from ..backend import array_module


def _axes(axis, ndim: int) -> tuple[int, ...]:
    """`axis` as a tuple of non-negative axes; None means all of them."""
    if axis is None:
        return tuple(range(ndim))
    return tuple(a % ndim for a in (axis if isinstance(axis, tuple) else (axis,)))


def _kept(array, axis, ndim: int):
    """A reduced array with the reduced axes put back as 1, so that it broadcasts against the input."""
    axes = _axes(axis, ndim)
    shape = iter(array.shape if array.ndim < ndim else [n for a, n in enumerate(array.shape) if a not in axes])
    return array.reshape([1 if a in axes else next(shape) for a in range(ndim)])


@differentiable
def sum(x, *, axis=None, keepdims=False):
    """Σ xᵢ     ∂L/∂xᵢ = g"""
    xp, shape = array_module(x), x.shape
    return x.sum(axis=axis, keepdims=keepdims), (lambda g: xp.broadcast_to(_kept(g, axis, len(shape)), shape),)


@differentiable
def mean(x, *, axis=None, keepdims=False):
    """(1/n) Σ xᵢ     ∂L/∂xᵢ = g / n"""
    xp, shape, size = array_module(x), x.shape, x.size
    y = x.mean(axis=axis, keepdims=keepdims)
    # A copy, since g / n is no view of g and what broadcast_to gives cannot be written to.
    return y, (lambda g: xp.broadcast_to(_kept(g * (g.size / (size or 1)), axis, len(shape)), shape).copy(),)


@differentiable
def var(x, *, axis=None, ddof=0, keepdims=False):
    """(1/(n − ddof)) Σ (xᵢ − x̄)²     ∂L/∂xᵢ = g · 2 (xᵢ − x̄) / (n − ddof)"""
    y = x.var(axis=axis, ddof=ddof, keepdims=keepdims)

    def gradient(g):
        degrees = x.size / g.size - ddof
        return _kept(g, axis, x.ndim) * (2 / degrees) * (x - x.mean(axis=axis, keepdims=True))

    return y, (gradient,)


@differentiable
def max(x, *, axis=None, keepdims=False):
    """max xᵢ     ∂L/∂xᵢ = g for the first xᵢ that equals the maximum, 0 for all others"""
    return _extremum(x, x.max(axis=axis, keepdims=keepdims), axis)


@differentiable
def min(x, *, axis=None, keepdims=False):
    """min xᵢ     ∂L/∂xᵢ = g for the first xᵢ that equals the minimum, 0 for all others"""
    return _extremum(x, x.min(axis=axis, keepdims=keepdims), axis)


def _extremum(x, y, axis):
    xp = array_module(x)

    def gradient(g):
        axes = _axes(axis, x.ndim)
        others = [a for a in range(x.ndim) if a not in axes]
        order = (*others, *axes)
        found = (x == _kept(y, axis, x.ndim)).transpose(order)
        rows = found.reshape(*found.shape[: len(others)], math.prod(found.shape[len(others) :]))
        first = rows.argmax(axis=-1)[..., None] == xp.arange(rows.shape[-1])
        inverse = sorted(range(x.ndim), key=order.__getitem__)
        return _kept(g, axis, x.ndim) * first.reshape(found.shape).transpose(inverse)

    return y, (gradient,)
