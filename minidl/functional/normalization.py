"""Normalisation: over neighbouring channels (AlexNet's response normalisation), and over the batch."""

from __future__ import annotations

from ..autograd import differentiable
from ..backend import Array, array_module
from .arguments import check_same_dtype


@differentiable
def local_response_norm(input: Array, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0):
    """y = x s^{−β}, s = k + (α / size) Σ x² over `size` neighbouring channels

    ∂L/∂xᵢ = gᵢ sᵢ^{−β} − (2αβ / size) xᵢ Σ gⱼ xⱼ sⱼ^{−β−1} over the channels j whose window holds i.

    (N, C, …); the window of channel c runs from c − ⌊size/2⌋ to c + ⌊(size − 1)/2⌋, as in PyTorch. Krizhevsky et al.
    2012 (section 3.3) do not divide α by `size`: their α = 10⁻⁴ with n = 5 is `alpha=5e-4` here.
    Raises ValueError for `size` below 1 or an input without channels.
    """
    if input.ndim < 3:
        raise ValueError(f"local_response_norm: needs (N, C, ...) with at least 3 axes; got shape {input.shape}")
    if size < 1:
        raise ValueError(f"local_response_norm: size counts channels and must be at least 1; got {size}")
    x, xp = input, array_module(input)
    behind, ahead = size // 2, (size - 1) // 2
    s = _sum_over_channels(x * x, behind, ahead)
    s *= alpha / size
    s += k
    power = xp.power(s, -beta)

    def gradient(g):
        others = _sum_over_channels(g * x * power / s, ahead, behind)
        return g * power - (2 * alpha * beta / size) * x * others

    return x * power, (gradient,)


def _sum_over_channels(x: Array, behind: int, ahead: int) -> Array:
    """For each channel c the sum over the channels c − behind … c + ahead that there are."""
    channels = x.shape[1]
    total = x.copy()
    for d in range(-min(behind, channels - 1), min(ahead, channels - 1) + 1):
        if d < 0:
            total[:, -d:] += x[:, :d]
        elif d > 0:
            total[:, :-d] += x[:, d:]
    return total


@differentiable
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

    Training, where μ and σ² depend on x: ∂L/∂x = γ / √(σ² + ε) · (g − mean(g) − x̂ mean(g x̂)).
    Evaluation, where they are the running statistics: ∂L/∂x = γ / √(σ² + ε) · g.

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
    check_same_dtype("batch_norm", input=input, **given)
    xp, x, axes = array_module(input), input, (0, *range(2, input.ndim))
    shape = [1, channels] + [1] * (x.ndim - 2)
    count = x.size // channels if channels else 0
    if training:
        if count == 1:
            raise ValueError(f"batch_norm: training needs more than one value a channel; got input {x.shape}")
        if count == 0:  # an empty batch says nothing: the running statistics stay
            mean, variance = xp.zeros(channels, x.dtype), xp.ones(channels, x.dtype)
        else:
            mean, variance = x.mean(axis=axes), x.var(axis=axes)
            for running, now in ((running_mean, mean), (running_var, variance * (count / (count - 1)))):
                if running is not None:
                    running *= 1 - momentum
                    running += momentum * now
    else:
        mean, variance = running_mean, running_var
    scale = 1 / xp.sqrt(variance + eps)
    normalized = x - mean.reshape(shape)
    normalized *= scale.reshape(shape)
    gain = scale if weight is None else weight * scale
    y = normalized if weight is None else normalized * weight.reshape(shape)
    if bias is not None:
        y = y + bias.reshape(shape)

    def gradient_input(g):
        if not training:
            return g * gain.reshape(shape)
        mean_g = g.mean(axis=axes).reshape(shape)
        mean_gx = (g * normalized).mean(axis=axes).reshape(shape)
        return (g - mean_g - normalized * mean_gx) * gain.reshape(shape)

    def gradient_weight(g):
        return (g * normalized).sum(axis=axes)

    def gradient_bias(g):
        return g.sum(axis=axes)

    return y, (gradient_input, None, None, gradient_weight, gradient_bias)
