"""Activations: what stands between two linear maps, and the softmax at the end. Claims D3, D5, D9."""

from __future__ import annotations

from ..autograd import differentiable
from ..backend import Array, array_module
from ..kernels import kernels_of


@differentiable
def relu(input: Array, inplace: bool = False):
    """y = max(x, 0)     ∂L/∂x = g where x > 0, else 0 (at x = 0 too)

    Any shape. AlexNet applies it to the output of every layer; NaN stays NaN. `inplace` is accepted, for code
    written for PyTorch, and changes nothing: the input is left as it is.
    """
    xp, pointwise = array_module(input), kernels_of(input).pointwise
    y = pointwise(lambda x, out: xp.maximum(x, 0, out=out), input.astype(xp.result_type(input, 0), copy=False))

    def masked(g, y, out):
        # By bits: a choice by `where` takes several times as long, and a product makes NaN of an infinite g.
        bits = f"i{g.dtype.itemsize}"
        xp.bitwise_and(g.view(bits), -(y > 0).astype(bits), out=out.view(bits))

    return y, (lambda g: pointwise(masked, g, y, passes=3),)


@differentiable
def sigmoid(input: Array):
    """y = σ(x) = 1 / (1 + e⁻ˣ)     ∂L/∂x = g y (1 − y), and y (1 − y) ≤ 1/4 (claim D5)

    Any shape; e is raised to −|x| only, so neither end overflows.
    """
    xp = array_module(input)
    e = xp.exp(-xp.abs(input))
    y = xp.where(input >= 0, 1, e) / (1 + e)
    return y, (lambda g: g * y * (1 - y),)


@differentiable
def tanh(input: Array):
    """y = tanh(x)     ∂L/∂x = g (1 − y²)

    Any shape; LeNet-5's activation.
    """
    xp, pointwise = array_module(input), kernels_of(input).pointwise
    y = pointwise(xp.tanh, input.astype(xp.result_type(input, xp.float16), copy=False), passes=10)

    def slope(g, y, out):
        xp.multiply(y, y, out=out)
        xp.subtract(1, out, out=out)
        xp.multiply(g, out, out=out)

    return y, (lambda g: pointwise(slope, g, y, passes=4),)


@differentiable
def softmax(input: Array, dim: int):
    """aⱼ = e^{zⱼ} / Σₖ e^{zₖ}     ∂L/∂z = a (g − Σₖ gₖ aₖ), from the Jacobian diag(a) − a aᵀ (claim D3)

    Along `dim`, any shape. Logits are shifted by their maximum, which changes nothing and cannot overflow.
    Raises ValueError for a `dim` that the input does not have.
    """
    _check_dim("softmax", input, dim)
    xp = array_module(input)
    a = xp.exp(input - input.max(axis=dim, keepdims=True))
    a /= a.sum(axis=dim, keepdims=True)
    return a, (lambda g: a * (g - (g * a).sum(axis=dim, keepdims=True)),)


@differentiable
def log_softmax(input: Array, dim: int):
    """log aⱼ = zⱼ − log Σₖ e^{zₖ}     ∂L/∂z = g − a Σₖ gₖ

    Along `dim`, any shape; no logarithm of a rounded-off zero at logits of ±1000.
    Raises ValueError for a `dim` that the input does not have.
    """
    _check_dim("log_softmax", input, dim)
    xp, y = array_module(input), kernels_of(input).log_softmax(input, dim)
    return y, (lambda g: g - xp.exp(y) * g.sum(axis=dim, keepdims=True),)


def _check_dim(operation: str, input: Array, dim: int) -> None:
    if not -input.ndim <= dim < input.ndim:
        raise ValueError(f"{operation}: dim={dim} is not an axis of an input of shape {input.shape}")
