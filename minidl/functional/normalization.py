"""Normalisation: over neighbouring channels (AlexNet's response normalisation), and over the batch."""

from __future__ import annotations

import numpy as np

from ..arrays import BUFFER, FLOATS, check_same_dtype, remember_last
from ..autograd import differentiable
from ..backend import Array, array_module
from ..kernels import kernels_of


@differentiable(input=FLOATS, widen=True)
def local_response_norm(input: Array, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0):
    """y = x s^{−β}, s = k + (α / size) Σ x² over `size` neighbouring channels
    ∂L/∂xᵢ = gᵢ sᵢ^{−β} − (2αβ / size) xᵢ Σ gⱼ xⱼ sⱼ^{−β−1} over the channels j whose window holds i

    (N, C, …); the window of channel c runs from c − ⌊size/2⌋ to c + ⌊(size − 1)/2⌋, as in PyTorch. Krizhevsky et al.
    2012 (section 3.3) do not divide α by `size`: their α = 10⁻⁴ with n = 5 is `alpha=5e-4` here.
    Raises ValueError for `size` below 1 or an input without channels.
    """
    if input.ndim < 3:
        raise ValueError(f"local_response_norm: needs (N, C, ...) with at least 3 axes; got shape {input.shape}")
    if size < 1:
        raise ValueError(f"local_response_norm: size counts channels and must be at least 1; got {size}")
    kernels = kernels_of(input)
    y, s = kernels.local_response_norm(input, size, alpha, beta, k)

    def gradient(g):
        return kernels.local_response_norm_gradient(g, input, s, size, alpha, beta)

    return y, (gradient,)


@differentiable(
    input=FLOATS, running_mean=BUFFER, running_var=BUFFER, weight=FLOATS, bias=FLOATS, widen=True
)
def batch_norm(
    input: Array,
    running_mean: Array | None,
    running_var: Array | None,
    weight: Array | None = None,
    bias: Array | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
):
    """y = γ x̂ + β, x̂ = (x − μ) / √(σ² + ε)     ∂L/∂γ = Σ g x̂     ∂L/∂β = Σ g
    ∂L/∂x = γ / √(σ² + ε) · (g − mean(g) − x̂ mean(g x̂)) in training, where μ and σ² depend on x
    ∂L/∂x = γ / √(σ² + ε) · g in evaluation, where they are the running statistics

    (N, C) or (N, C, …), each channel over all its values; `weight` γ and `bias` β are (C). While training, σ² is the
    biased variance, and the running statistics move in place by r ← (1 − momentum) r + momentum · (mean or unbiased
    variance). Ioffe and Szegedy 2015. Raises ValueError for one value a channel in training, or shapes that do not fit.
    """
    if input.ndim < 2:
        raise ValueError(f"batch_norm: needs (N, C) or (N, C, ...); got shape {input.shape}")
    channels = input.shape[1]
    given = {"running_mean": running_mean, "running_var": running_var, "weight": weight, "bias": bias}
    for name, array in given.items():
        if array is not None and array.shape != (channels,):
            raise ValueError(f"batch_norm: {name} must have shape ({channels},), one value a channel; "
                             f"got {array.shape}")
    if not training and (running_mean is None or running_var is None):
        raise ValueError("batch_norm: evaluation needs running_mean and running_var; pass them, or training=True")
    for name in ("running_mean", "running_var"):
        if (statistics := given[name]) is not None and statistics.dtype != np.float16:
            check_same_dtype("batch_norm", input=input, **{name: statistics})
    xp, kernels, x = array_module(input), kernels_of(input), input
    count = x.size // channels if channels else 0
    if training and count == 1:
        raise ValueError(f"batch_norm: training needs more than one value a channel; got input {x.shape}")
    measured = training and count > 0  # an empty batch says nothing: the running statistics stay
    if measured:
        y, mean, variance = kernels.normalize_channels(x, weight, bias, eps)
        for running, now in ((running_mean, mean), (running_var, variance * (count / (count - 1)))):
            if running is not None:
                running *= 1 - momentum
                running += momentum * now
    elif training:
        mean, variance = xp.zeros(channels, x.dtype), xp.ones(channels, x.dtype)
    else:
        mean, variance = running_mean, running_var
    scale = 1 / xp.sqrt(variance + eps)
    gain = scale if weight is None else weight * scale
    if not measured:
        y = kernels.scale_channels(x, mean, gain, bias)
    gradients = remember_last(
        lambda g: kernels.normalize_channels_gradient(g, x, mean, scale, gain, fixed=not measured)
    )
    return y, (lambda g: gradients(g)[0], None, None, lambda g: gradients(g)[1], lambda g: gradients(g)[2])
