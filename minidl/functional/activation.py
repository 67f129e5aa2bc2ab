"""Activations: what stands between two linear maps, and the softmax at the end. Claims D3, D5, D9."""

from __future__ import annotations

from ..arrays import AS_FLOATS, FLOATS, NUMBERS
from ..autograd import differentiable
from ..backend import Array, array_module
from ..kernels import kernels_of


@differentiable(input=NUMBERS)
def relu(input: Array, inplace: bool = False):
    """y = max(x, 0)     ∂L/∂x = 0 where x ≤ 0, else g

    Any shape. AlexNet applies it to the output of every layer; NaN stays NaN. `inplace` is accepted, for code
    written for PyTorch, and changes nothing: the input is left as it is.
    """
    xp, pointwise = array_module(input), kernels_of(input).pointwise
    y = pointwise(lambda x, out: xp.maximum(0, x, out=out), input)

    def masked(g, y, out):
        # By bits: a choice by `where` takes several times as long, and a product makes NaN of an infinite g.
        bits = f"i{g.dtype.itemsize}"
        kept = (y <= 0).astype(bits)
        kept -= 1
        xp.bitwise_and(g.view(bits), kept, out=out.view(bits))

    return y, (lambda g: pointwise(masked, g, y, passes=3),)


@differentiable(input=AS_FLOATS, widen=True)
def sigmoid(input: Array):
    """y = σ(x) = 1 / (1 + e⁻ˣ)     ∂L/∂x = g y (1 − y), and y (1 − y) ≤ 1/4 (claim D5)

    Any shape; e is raised to −|x| only, so neither end overflows.
    """
    xp = array_module(input)
    e = xp.exp(-xp.abs(input))
    y = xp.where(input >= 0, 1, e) / (1 + e)
    return y, (lambda g: g * y * (1 - y),)


@differentiable(input=AS_FLOATS, widen=True)
def tanh(input: Array):
    """y = tanh(x)     ∂L/∂x = g (1 − y²)

    Any shape; LeNet-5's activation.
    """
    xp, pointwise = array_module(input), kernels_of(input).pointwise
    y = pointwise(xp.tanh, input, passes=10)

    def slope(g, y, out):
        xp.multiply(y, y, out=out)
        xp.subtract(1, out, out=out)
        xp.multiply(g, out, out=out)

    return y, (lambda g: pointwise(slope, g, y, passes=4),)


@differentiable(input=FLOATS, widen=True)
def softmax(input: Array, dim: int):
    """aⱼ = e^{zⱼ} / Σₖ e^{zₖ}     ∂L/∂z = a (g − Σₖ gₖ aₖ), from the Jacobian diag(a) − a aᵀ (claim D3)

    Along `dim`, any shape. Logits are shifted by their maximum, which changes nothing and cannot overflow.
    Raises ValueError for a `dim` that the input does not have.
    """
    axes = _axes("softmax", input, dim)
    if not input.size:
        return input.copy(), (lambda g: g,)
    sum_over = kernels_of(input).sum_over
    a = array_module(input).exp(input - input.max(axis=axes, keepdims=True))
    a /= sum_over(a, axes)
    return a, (lambda g: a * (g - sum_over(g * a, axes)),)


@differentiable(input=FLOATS, widen=True)
def log_softmax(input: Array, dim: int):
    """log aⱼ = zⱼ − log Σₖ e^{zₖ}     ∂L/∂z = g − a Σₖ gₖ

    Along `dim`, any shape; no logarithm of a rounded-off zero at logits of ±1000.
    Raises ValueError for a `dim` that the input does not have.
    """
    axes, xp, kernels = _axes("log_softmax", input, dim), array_module(input), kernels_of(input)
    y = kernels.log_softmax(input, axes)
    return y, (lambda g: g - xp.exp(y) * kernels.sum_over(g, axes),)


def _axes(operation: str, input: Array, dim: int) -> tuple[int, ...]:
    """`dim` as a tuple of axes: of none for a number without axes, which counts as one axis of one value."""
    ndim = max(1, input.ndim)
    if not -ndim <= dim < ndim:
        raise ValueError(f"{operation}: dim={dim} is not an axis of an input of shape {input.shape}")
    return (dim % ndim,) if input.ndim else ()
