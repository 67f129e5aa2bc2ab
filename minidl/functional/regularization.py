"""Dropout: units that stay silent at random while training (AlexNet's two fully connected layers)."""

from __future__ import annotations

from ..arrays import ARRAY, FLOATS, admitted
from ..autograd import differentiable
from ..backend import Array, generator
from ..kernels import kernels_of


@differentiable(input=ARRAY)
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
    admitted("dropout", "input", FLOATS, input)
    kernels, key = kernels_of(input), int(generator().integers(2**63))

    def drop(values):  # anew in the gradient, so that no mask is kept
        return kernels.dropout(values, p, key)

    return drop(input), (drop,)
