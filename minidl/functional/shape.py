"""Rearranging without arithmetic: each gradient puts every number back where it came from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral

from ..arrays import full_as, promoted
from ..autograd import Tensor, differentiable, index_parts
from ..backend import array_module, device_of, is_array, memory_order
from ..kernels import kernels_of


@differentiable
def reshape(x, *, shape):
    """The same values in another shape     ∂L/∂x = g in the shape of x"""
    before = x.shape
    return x.reshape(shape), (lambda g: g.reshape(before),)


@differentiable
def flatten(x, *, start_dim=0, end_dim=-1):
    """The axes from `start_dim` to `end_dim` joined into one     ∂L/∂x = g in the shape of x"""
    before, dims = x.shape, max(x.ndim, 1)
    if not (-dims <= start_dim < dims and -dims <= end_dim < dims and start_dim % dims <= end_dim % dims):
        raise ValueError(f"flatten: cannot join axes {start_dim} to {end_dim} of a tensor of shape {before}")
    start, stop = start_dim % dims, end_dim % dims + 1
    return x.reshape(before[:start] + (math.prod(before[start:stop]),) + before[stop:]), (lambda g: g.reshape(before),)


@differentiable
def transpose(x, *, axes=None):
    """The axes in another order, reversed by default     ∂L/∂x = g with the axes put back"""
    axes = tuple(range(x.ndim))[::-1] if axes is None else tuple(axes)
    if sorted(a + x.ndim if a < 0 else a for a in axes) != list(range(x.ndim)):
        raise ValueError(f"transpose: axes must name every axis of shape {x.shape} once; got {axes}")
    axes = tuple(a % x.ndim for a in axes)
    inverse = sorted(range(x.ndim), key=axes.__getitem__)
    return x.transpose(axes), (lambda g: g.transpose(inverse),)


@differentiable
def getitem(x, *, index):
    """x[index]     ∂L/∂x = g at the chosen places, summed where a place was chosen more than once, 0 elsewhere

    `index` is what NumPy takes: whole numbers, slices, None, Ellipsis, bools; sequences, arrays or tensors of places.
    """
    xp, shape, index = array_module(x), x.shape, index_parts(index, device_of(x))
    twice = any(is_array(part) and part.dtype != bool for part in index)  # a place may be chosen twice
    places = tuple(part.copy() if is_array(part) else part for part in index)

    def gradient(g):
        if twice:
            return kernels_of(g).scatter_add(g, places, shape)
        whole = xp.zeros_like(g, shape=shape)  # as g lies in memory: what is added to it later need not be turned over
        whole[places] = g
        return whole

    return x[index], (gradient,)


def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Join tensors along `dim`; they agree in all other sizes. Inception modules join their branches so.

    Raises TypeError for what is not a list or tuple of tensors, ValueError for no tensors, a `dim` that they do not
    have, or sizes that differ elsewhere.
    """
    if not isinstance(tensors, (list, tuple)):
        raise TypeError(f"cat: takes a list of tensors; got a {type(tensors).__name__}. Write F.cat([x, y])")
    if not tensors:
        raise ValueError("cat: needs at least one tensor; got none")
    return concatenate(*tensors, dim=dim)


@differentiable
def concatenate(*arrays, dim):
    """[x₁, x₂, …] side by side     ∂L/∂xᵢ = the part of g where xᵢ stands"""
    for index, array in enumerate(arrays):
        if not is_array(array):
            raise TypeError(f"cat: joins tensors; number {index} is a {type(array).__name__}")
    arrays = promoted(*arrays)
    first = arrays[0].shape
    if not -len(first) <= dim < len(first):
        raise ValueError(f"cat: dim={dim} is not an axis of tensors of shape {first}")
    elsewhere = [axis for axis in range(len(first)) if axis != dim % len(first)]
    for array in arrays:
        if array.ndim != len(first) or any(array.shape[axis] != first[axis] for axis in elsewhere):
            raise ValueError(f"cat: along dim {dim} all other sizes must agree; got shapes {[x.shape for x in arrays]}")
    ends, part = [], [slice(None)] * len(first)
    for array in arrays:
        ends.append((ends[-1] if ends else 0) + array.shape[dim])

    def gradient(index):
        place = part.copy()
        place[dim] = slice(ends[index] - arrays[index].shape[dim], ends[index])
        place = tuple(place)
        return lambda g: g[place]

    # Joined as the first lies in memory, which CuPy would not keep: the next operation finds what it likes best.
    order = memory_order(arrays[0])
    turned = [array.transpose(order) for array in arrays]
    y = array_module(arrays[0]).concatenate(turned, axis=order.index(dim % len(first)))
    return y.transpose([order.index(axis) for axis in range(len(first))]), tuple(map(gradient, range(len(arrays))))


def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """Pad the last axes, PyTorch's order: (left, right, top, bottom, …), the last axis first.

    `mode`: ``"constant"`` (with `value`, default 0; negative amounts crop), ``"reflect"`` (without
    repeating the edge), ``"replicate"`` or ``"circular"``. Raises TypeError for amounts that are not a tuple or list of
    whole numbers, ValueError for an odd number of amounts, more amounts than axes, or more padding than the mode can
    fill from the input.
    """
    if not isinstance(pad, (tuple, list)) or not all(isinstance(n, Integral) for n in pad):
        raise TypeError(f"pad: amounts are a tuple of whole numbers, (left, right, top, bottom); got {pad!r}")
    if len(pad) % 2 or len(pad) > 2 * input.ndim:
        raise ValueError(f"pad: needs (before, after) for at most {input.ndim} axes, last axis first; got {tuple(pad)}")
    if mode not in ("constant", *_SOURCES):
        raise ValueError(f"pad: there is no mode {mode!r}; choose from {['constant', *_SOURCES]}")
    if mode != "constant" and value is not None:
        raise ValueError(f"pad: value={value} goes with mode='constant', not with {mode!r}")
    amounts = [(0, 0)] * (input.ndim - len(pad) // 2) + [(pad[i], pad[i + 1]) for i in range(len(pad) - 2, -1, -2)]
    for axis, (before, after) in enumerate(amounts):
        if input.shape[axis] + min(before, 0) + min(after, 0) < 0:
            raise ValueError(f"pad: cannot crop ({before}, {after}) from axis {axis} of size {input.shape[axis]}")
    if mode == "constant":
        return pad_constant(input, amounts=amounts, value=value or 0.0)
    return pad_from_input(input, amounts=amounts, mode=mode)


@differentiable
def pad_constant(x, *, amounts, value):
    """x in a frame of one value     ∂L/∂x = g without the frame"""
    xp = array_module(x)
    grown = tuple(slice(max(before, 0), max(before, 0) + n + min(before, 0) + min(after, 0))
                  for n, (before, after) in zip(x.shape, amounts))
    cropped = tuple(slice(max(-before, 0), n - max(-after, 0)) for n, (before, after) in zip(x.shape, amounts))
    # As x lies in memory, or all that follows would have to be turned over.
    y = full_as(x, value, shape=tuple(n + before + after for n, (before, after) in zip(x.shape, amounts)))
    y[grown] = x[cropped]
    shape = x.shape

    def gradient(g):
        dx = xp.zeros_like(g, shape=shape)
        dx[cropped] = g[grown]
        return dx

    return y, (gradient,)


_SOURCES = {
    "reflect": lambda i, n: n - 1 - abs((n - 1) - abs(i)),
    "replicate": lambda i, n: min(max(i, 0), n - 1),
    "circular": lambda i, n: i % n,
}
"""Which index of an axis of n values fills the place i, for i from −before to n + after − 1."""


@differentiable(widen=True)
def pad_from_input(x, *, amounts, mode):
    """y[i] = x[source(i)] along each axis     ∂L/∂x[j] = Σ g[i] over all i with source(i) = j"""
    xp = array_module(x)
    sources = {}
    for axis, (before, after) in enumerate(amounts):
        n = x.shape[axis]
        if before == after == 0:
            continue
        if min(before, after) < 0 or max(before, after) > {"reflect": n - 1, "circular": n}.get(mode, before + after):
            raise ValueError(f"pad: mode {mode!r} cannot fill ({before}, {after}) around axis {axis} of size {n}")
        sources[axis] = [_SOURCES[mode](i, n) for i in range(-before, n + after)]
    y, shapes = x, {}
    for axis, source in sources.items():
        shapes[axis] = y.shape
        y = y[(slice(None),) * axis + (xp.asarray(source, dtype="int64"),)]

    def gradient(g):
        for axis in reversed(sources):
            inner = xp.zeros(shapes[axis], g.dtype)
            before = (slice(None),) * axis
            for place, source in enumerate(sources[axis]):
                inner[before + (source,)] += g[before + (place,)]
            g = inner
        return g

    return y, (gradient,)
