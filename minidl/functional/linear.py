"""Matrix products: `@`, and the fully connected layer."""

from __future__ import annotations

import math

from ..arrays import NUMBERS
from ..autograd import differentiable, sum_to_shape
from ..backend import Array
from ..kernels import kernels_of


@differentiable(a=NUMBERS, b=NUMBERS, widen=True)
def matmul(a: Array, b: Array):
    """A B     ∂L/∂A = g Bᵀ     ∂L/∂B = Aᵀ g

    Over the last two axes, NumPy's way: a vector counts as one row on the left, one column on the right,
    and leading axes broadcast. Raises ValueError for shapes that do not fit, TypeError for dtypes that differ.
    """
    if a.ndim == 0 or b.ndim == 0:
        raise ValueError(f"matmul: needs at least one axis on each side; got shapes {a.shape} and {b.shape}")
    product = kernels_of(a).matmul
    rows = a[None, :] if a.ndim == 1 else a
    columns = b[:, None] if b.ndim == 1 else b
    if rows.shape[-1] != columns.shape[-2]:
        raise ValueError(f"matmul: shapes {a.shape} and {b.shape} do not fit: {rows.shape[-1]} columns against "
                         f"{columns.shape[-2]} rows")
    y = product(rows, columns)
    full, a_shape, b_shape = y.shape, a.shape, b.shape
    rows_shape, columns_shape = rows.shape, columns.shape
    kept = y.shape[:-2] + y.shape[-2:-1] * (a.ndim > 1) + y.shape[-1:] * (b.ndim > 1)

    def gradient_a(g):
        return sum_to_shape(product(g.reshape(full), columns.swapaxes(-1, -2)), rows_shape).reshape(a_shape)

    def gradient_b(g):
        return sum_to_shape(product(rows.swapaxes(-1, -2), g.reshape(full)), columns_shape).reshape(b_shape)

    return y.reshape(kept), (gradient_a, gradient_b)


@differentiable(input=NUMBERS, weight=NUMBERS, bias=NUMBERS, widen=True)
def linear(input: Array, weight: Array, bias: Array | None = None):
    """y = x Wᵀ + b     ∂L/∂x = g W     ∂L/∂W = gᵀ x     ∂L/∂b = Σ g over all rows

    A fully connected layer: `input` (…, I), `weight` (O, I), `bias` (O) → (…, O).
    Raises ValueError for sizes that do not fit, TypeError for dtypes that differ.
    """
    if input.ndim == 0 or weight.ndim != 2 or input.shape[-1] != weight.shape[1]:
        raise ValueError(f"linear: input {input.shape} does not fit weight {weight.shape}; "
                         "needs input (..., I) and weight (O, I)")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"linear: bias {bias.shape} does not fit weight {weight.shape}; needs ({weight.shape[0]},)")
    kernels = kernels_of(input)
    product = kernels.matmul
    features, outputs = weight.shape[::-1]
    count = math.prod(input.shape[:-1])
    x = input.reshape(count, features)
    y = product(x, weight.T)
    if bias is not None:
        y += bias

    shape = input.shape

    def gradient_input(g):
        return product(g.reshape(count, outputs), weight).reshape(shape)

    def gradient_weight(g):
        return product(g.reshape(count, outputs).T, x)

    def gradient_bias(g):
        return kernels.sum_over(g.reshape(count, outputs), (0,)).reshape(outputs)

    return y.reshape(*input.shape[:-1], outputs), (gradient_input, gradient_weight, gradient_bias)
