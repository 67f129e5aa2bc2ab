"""Arithmetic, elementwise: what stands behind + − · / ** and the methods of a tensor.

g is ∂L/∂value. Where an input was broadcast, autograd sums its gradient back to the input's shape. Dtypes go together
as `minidl.arrays.promoted` says.
"""

from __future__ import annotations

import numpy as np

from ..arrays import AS_FLOATS, NUMBERS, promoted, refusal
from ..autograd import differentiable
from ..backend import array_module, device_of, is_array, to_device
from ..kernels import kernels_of


@differentiable
def add(a, b):
    """a + b     ∂L/∂a = g     ∂L/∂b = g"""
    a, b = promoted(a, b)
    alike = is_array(a) and is_array(b) and a.shape == b.shape and a.dtype == b.dtype
    y = kernels_of(a).pointwise(array_module(a).add, a, b) if alike else a + b
    return y, (lambda g: g, lambda g: g)


@differentiable
def sub(a, b):
    """a − b     ∂L/∂a = g     ∂L/∂b = −g"""
    for name, x in (("a", a), ("b", b)):
        if is_array(x) and x.dtype == bool:
            raise refusal("sub", name, x)
    a, b = promoted(a, b)
    return a - b, (lambda g: g, lambda g: -g)


@differentiable
def mul(a, b):
    """a · b     ∂L/∂a = g b     ∂L/∂b = g a"""
    a, b = promoted(a, b)
    return a * b, (lambda g: g * b, lambda g: g * a)


@differentiable
def div(a, b):
    """a / b     ∂L/∂a = g / b     ∂L/∂b = −g a / b²"""
    a, b = promoted(a, b, floats=True)
    y = a / b
    return y, (lambda g: g / b, lambda g: -g * (y / b))


@differentiable
def pow(a, b):
    """aᵇ     ∂L/∂a = g b aᵇ⁻¹, and 0 where b = 0     ∂L/∂b = g aᵇ ln a, and 0 where a = 0 ≤ b

    Raises TypeError for bools, and for whole numbers to a negative power, whose result would be a fraction.
    """
    xp, negative = array_module(a) if is_array(a) else array_module(b), (b < 0)
    a, b = promoted(a, b)
    dtype = (a if is_array(a) else b).dtype
    if dtype.kind == "b":
        raise refusal("pow", "a", a)
    if dtype.kind != "f" and xp.any(negative):
        raise TypeError(f'pow: {dtype} to a negative power would be a fraction; write x.to("float32") ** y')
    y = a ** b

    def base_gradient(g):
        constant = xp.asarray(b) == 0
        exponent = xp.where(constant, 1, xp.asarray(b) - 1).astype(y.dtype)  # 0⁻¹ never arises
        return g * xp.where(constant, 0, b * a ** exponent).astype(y.dtype)

    def exponent_gradient(g):
        flat = (xp.asarray(a) == 0) & (xp.asarray(b) >= 0)
        base = xp.where(flat, 1, a).astype(y.dtype)  # ln 1 = 0 in place of ln 0
        with np.errstate(divide="ignore"):
            return g * (y * xp.log(base))

    return y, (base_gradient, exponent_gradient)


@differentiable(x=NUMBERS)
def neg(x):
    """−x     ∂L/∂x = −g"""
    return -x, (lambda g: -g,)


@differentiable(x=NUMBERS)
def abs(x):
    """|x|     ∂L/∂x = g sign(x), with sign(0) = 0"""
    xp = array_module(x)
    return xp.abs(x), (lambda g: xp.where(x == x, g * xp.sign(x), 0),)  # 0 at NaN, as in PyTorch


@differentiable(x=AS_FLOATS)
def exp(x):
    """eˣ     ∂L/∂x = g eˣ"""
    y = array_module(x).exp(x)
    return y, (lambda g: g * y,)


@differentiable(x=AS_FLOATS)
def log(x):
    """ln x     ∂L/∂x = g / x"""
    return array_module(x).log(x), (lambda g: g / x,)


@differentiable(x=AS_FLOATS)
def sqrt(x):
    """√x     ∂L/∂x = g / (2 √x)"""
    y = array_module(x).sqrt(x)
    return y, (lambda g: g / (2 * y),)


@differentiable
def clone(x):
    """x, in memory of its own     ∂L/∂x = g"""
    return x.copy(), (lambda g: g,)


@differentiable
def to(x, *, device=None, dtype=None):
    """x on another device or in another dtype     ∂L/∂x = g, brought back to where x is"""
    home, kind = device_of(x), x.dtype
    y = x if dtype is None else x.astype(dtype)
    return to_device(y, device or home), (lambda g: to_device(g, home).astype(kind, copy=False),)
