"""Dropout: units that stay silent at random while training (AlexNet's two fully connected layers)."""

from __future__ import annotations

from ..autograd import differentiable
from ..backend import Array, device_of, generator, to_device


@differentiable
def dropout(input: Array, p: float = 0.5, training: bool = True, inplace: bool = False):
    """y = x m / (1 − p), with mᵢ = 0 at probability p, else 1     ∂L/∂x = g m / (1 − p)

    Any shape; scaled while training so that nothing is left to do in evaluation, where y = x.
    Random numbers come from `minidl.manual_seed`. `inplace` is accepted, for code written for PyTorch, and changes
    nothing. Raises ValueError for a `p` outside [0, 1].
    """
    if not 0 <= p <= 1:
        raise ValueError(f"dropout: p is a probability; got {p}")
    if not training or p == 0:
        return input, (lambda g: g,)
    kept = to_device(generator().random(input.shape, "float32") >= p, device_of(input))
    scale = 1 / (1 - p) if p < 1 else 0.0
    return input * kept * scale, (lambda g: g * kept * scale,)
