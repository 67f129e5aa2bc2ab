"""Loss functions. Claims D1, D2, D4.

Each first gives one loss a sample (`cross_entropy`, `nll_loss`) or an entry (the others): L in the formulas.
`reduction` then takes their ``"mean"`` (the default), their ``"sum"``, or ``"none"`` of both.
"""

from __future__ import annotations

import math
import warnings

from ..arrays import ARRAY, AS_FLOATS, FLOATS, check_same_dtype, promoted, refusal
from ..autograd import differentiable, sum_to_shape
from ..backend import Array, array_module, device_of, is_array
from ..kernels import kernels_of
from .arguments import check_reduction


@differentiable(input=FLOATS, target=ARRAY, weight=FLOATS, widen=True)
def cross_entropy(
    input: Array,
    target: Array,
    weight: Array | None = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
):
    """L = −Σⱼ yⱼ log aⱼ with a = softmax(z)     ∂L/∂z = a Σⱼ yⱼ − y, which is a − y for one-hot y     ∂L/∂y = −log a

    Minimising it is minimising the negative log-likelihood of the softmax (claims D1, D4). The slide divides by the
    number of classes C; as everywhere else, a mean here runs over the samples. `input`: logits z
    (N, C), (C) or (N, C, …); `target`: class indices (N), () or (N, …), or probabilities of the input's shape.
    `weight` (C) scales each class; a mean over indices then divides by the sum of the weights. Samples labelled
    `ignore_index` do not count; `label_smoothing` ε mixes ε/C into y.
    Raises ValueError for labels out of range, shapes that do not fit or a mean over no samples, TypeError for labels
    that are not whole numbers. On a GPU, which is not waited for, the loss is NaN for such labels and such a mean.
    """
    xp, kernels = array_module(input), kernels_of(input)
    z = _class_axis_second("cross_entropy", input)
    log_a = kernels.log_softmax(z, (1,))
    if target.dtype.kind in "iu" and weight is None and not label_smoothing:
        labels, count = _labels("cross_entropy", input, target, ignore_index, reduction)
        value, share = _reduce(kernels.label_losses(log_a, labels, ignore_index), reduction, count, input.shape)

        def gradient(g):
            return kernels.label_losses_gradient(share(g), log_a, labels, ignore_index).reshape(input.shape)

        return value, (gradient,)
    y, count = _target_shares("cross_entropy", input, target, weight, ignore_index, reduction, label_smoothing)
    losses = -_sum_of_classes(y * xp.where(y == 0, 0, log_a))
    value, share = _reduce(losses, reduction, count, input.shape)

    def gradient_input(g):
        return (share(g) * (xp.exp(log_a) * kernels.sum_over(y, (1,)) - y)).reshape(input.shape)

    def gradient_target(g):
        scale = (1 - label_smoothing) * (1.0 if weight is None else weight[:, None])
        return (share(g) * -log_a * scale).reshape(input.shape)

    return value, (gradient_input, gradient_target)


@differentiable(input=FLOATS, target=ARRAY, weight=FLOATS, widen=True)
def nll_loss(
    input: Array, target: Array, weight: Array | None = None, *, ignore_index: int = -100, reduction: str = "mean"
):
    """L = −Σⱼ yⱼ xⱼ with y one-hot     ∂L/∂x = −y

    The negative log-likelihood of log-probabilities `input` (N, C), (C) or (N, C, …), as `log_softmax` gives them;
    `target`, `weight`, `ignore_index` and errors as in `cross_entropy`, with class indices only.
    """
    if is_array(target) and target.dtype.kind == "f":
        raise TypeError(f"nll_loss: labels must be whole numbers; got dtype {target.dtype}")
    x = _class_axis_second("nll_loss", input)
    y, count = _target_shares("nll_loss", input, target, weight, ignore_index, reduction, 0.0)
    losses = -_sum_of_classes(y * array_module(input).where(y == 0, 0, x))
    value, share = _reduce(losses, reduction, count, input.shape)
    return value, (lambda g: (share(g) * -y).reshape(input.shape), None)


@differentiable(input=FLOATS, target=FLOATS, weight=AS_FLOATS, widen=True)
def binary_cross_entropy(input: Array, target: Array, weight: Array | None = None, *, reduction: str = "mean"):
    """L = −(y log p + (1 − y) log(1 − p))     ∂L/∂p = (p − y) / (p (1 − p))     ∂L/∂y = log(1 − p) − log p

    `input` p in [0, 1] and `target` y of one shape; each logarithm is at least −100, as in PyTorch, so that p = 0 and
    p = 1 stay finite. `weight` scales the losses. The slide lacks the minus sign over both terms (errata).
    Raises ValueError for p outside [0, 1], shapes that differ or a mean over no samples.
    """
    xp = array_module(input)
    _check_pair("binary_cross_entropy", input, target, reduction)
    if input.size and not (0 <= input.min() and input.max() <= 1):
        raise ValueError(f"binary_cross_entropy: input holds probabilities in [0, 1]; got {input.min()} to "
                         f"{input.max()}. For logits use binary_cross_entropy_with_logits")
    scale = 1.0 if weight is None else weight
    losses = -(target * _clamped_log(xp, input) + (1 - target) * _clamped_log(xp, 1 - input)) * scale
    value, share = _reduce(losses, reduction, losses.size)

    def gradient_input(g):
        return share(g) * scale * (input - target) / xp.maximum(input * (1 - input), 1e-12)

    def gradient_target(g):
        return share(g) * scale * (_clamped_log(xp, 1 - input) - _clamped_log(xp, input))

    return value, (gradient_input, gradient_target)


@differentiable(input=FLOATS, target=FLOATS, weight=AS_FLOATS, pos_weight=AS_FLOATS, widen=True)
def binary_cross_entropy_with_logits(
    input: Array,
    target: Array,
    weight: Array | None = None,
    *,
    reduction: str = "mean",
    pos_weight: Array | None = None,
):
    """L = −(y log σ(z) + (1 − y) log(1 − σ(z)))     ∂L/∂z = σ(z) − y: the σ′ cancels (claim D2)     ∂L/∂y = −z

    `input` z and `target` y of one shape; written with log(1 + e^{−|z|}), which is exact at logits of ±1000.
    `weight` scales the losses, `pos_weight` the first term. Raises ValueError for shapes that differ or a mean over
    no samples.
    """
    xp = array_module(input)
    _check_pair("binary_cross_entropy_with_logits", input, target, reduction)
    scale = 1.0 if weight is None else weight
    gain = 1.0 if pos_weight is None else 1 + (pos_weight - 1) * target
    e = xp.exp(-xp.abs(input))
    log_sigmoid = -(xp.log1p(e) + xp.maximum(-input, 0))
    losses = ((1 - target) * input - gain * log_sigmoid) * scale
    value, share = _reduce(losses, reduction, losses.size)

    def gradient_input(g):
        one_minus_sigmoid = xp.where(input >= 0, e, 1) / (1 + e)
        return share(g) * scale * ((1 - target) - gain * one_minus_sigmoid)

    def gradient_target(g):
        extra = 0.0 if pos_weight is None else pos_weight - 1
        return share(g) * scale * -(input + extra * log_sigmoid)

    return value, (gradient_input, gradient_target)


@differentiable(input=ARRAY, target=ARRAY, widen=True)
def mse_loss(input: Array, target: Array, *, reduction: str = "mean"):
    """L = (x − y)²     ∂L/∂x = 2 (x − y)     ∂L/∂y = −2 (x − y)

    `input` and `target` of one shape; others broadcast with a warning, since that is rarely meant.
    Raises ValueError for a mean over no samples.
    """
    if input.dtype.kind != "f" and target.dtype.kind != "f":
        raise refusal("mse_loss", "input", input)
    input, target = promoted(input, target)
    if input.shape != target.shape:
        warnings.warn(f"mse_loss: input {input.shape} and target {target.shape} differ and are broadcast; "
                      "make their shapes equal", stacklevel=3)
    difference = input - target
    check_reduction("mse_loss", reduction, difference.size)
    value, share = _reduce(difference * difference, reduction, difference.size)

    def toward(operand, sign):
        return lambda g: sum_to_shape((sign * 2) * share(g) * difference, operand)

    return value, (toward(input.shape, 1), toward(target.shape, -1))


def _class_axis_second(operation: str, input: Array) -> Array:
    """(C) → (1, C, 1), (N, C) → (N, C, 1), (N, C, d₁, …) → (N, C, d₁·…): one row of classes a sample."""
    if input.ndim == 0:
        raise ValueError(f"{operation}: input must be (N, C), (C) or (N, C, ...); got a single number")
    if input.ndim == 1:
        return input[None, :, None]
    n, c, *rest = input.shape
    return input.reshape(n, c, math.prod(rest))


def _labels(
    operation: str, input: Array, target: Array, ignore_index: int, reduction: str
) -> tuple[Array, Array]:
    """Class indices as (N, D), and how many of them count."""
    classes = input.shape[0] if input.ndim == 1 else input.shape[1]
    samples = () if input.ndim == 1 else (input.shape[0], *input.shape[2:])
    flat = (1, 1) if input.ndim == 1 else (input.shape[0], math.prod(input.shape[2:]))
    check_reduction(operation, reduction, math.prod(samples))
    if operation == "cross_entropy" and target.shape == input.shape and target.dtype.kind != "f":
        raise refusal(operation, "a target of the input's shape", target)  # it holds probabilities
    if target.dtype.kind not in "iu":
        raise TypeError(f"{operation}: labels must be whole numbers (or, in cross_entropy, probabilities of shape "
                        f"{input.shape}); got dtype {target.dtype} and shape {target.shape}")
    if target.shape != samples:
        raise ValueError(f"{operation}: target must have shape {samples} for an input of shape {input.shape}; "
                         f"got {target.shape}")
    counted = target != ignore_index
    if device_of(target) == "cpu":
        wrong = target[counted & ((target < 0) | (target >= classes))]
        if wrong.size:
            raise ValueError(f"{operation}: label {wrong[0]} is out of range; "
                             f"with {classes} classes labels are 0 to {classes - 1}")
    return target.reshape(flat), _divisor(operation, counted.sum(), ignore_index, reduction)


def _divisor(operation: str, count: Array, ignore_index: int, reduction: str) -> Array:
    """`count`, by which a mean can be divided."""
    if reduction == "mean" and device_of(count) == "cpu" and not count > 0:
        raise ValueError(f"{operation}: the mean loss is undefined: "
                         f"every label is ignore_index={ignore_index} or has weight 0")
    return count


def _target_shares(
    operation: str, input: Array, target: Array, weight: Array | None,
    ignore_index: int, reduction: str, smoothing: float,
) -> tuple[Array, Array]:
    """Class indices or probabilities as the shares y (N, C, D) of the sum −Σ y log a, and what a mean divides by."""
    classes = input.shape[0] if input.ndim == 1 else input.shape[1]
    if weight is not None and weight.shape != (classes,):
        raise ValueError(f"{operation}: weight must have shape ({classes},), one value a class; got {weight.shape}")
    if not 0 <= smoothing <= 1:
        raise ValueError(f"{operation}: label_smoothing is a share between 0 and 1; got {smoothing}")
    if target.dtype.kind == "f" and target.shape == input.shape:
        check_same_dtype(operation, input=input, target=target)
        y, count = _class_axis_second(operation, target), float(input.size // max(classes, 1))
        check_reduction(operation, reduction, int(count))
        if smoothing:
            y = y * (1 - smoothing) + smoothing / (classes or 1)
        return (y if weight is None else y * weight[:, None]), count
    labels, count = _labels(operation, input, target, ignore_index, reduction)
    counted = (labels != ignore_index)[:, None]
    chosen = (labels[:, None] == array_module(input).arange(classes)[:, None]) & counted
    y = chosen.astype(input.dtype)
    if smoothing:
        y = (y * (1 - smoothing) + smoothing / (classes or 1)) * counted
    if weight is not None:
        y = y * weight[:, None]
        total = kernels_of(weight).sum_over(chosen * weight[:, None], (0, 1, 2)).reshape(())
        count = _divisor(operation, total, ignore_index, reduction)
    return y.astype(input.dtype, copy=False), count


def _sum_of_classes(values: Array) -> Array:
    """(N, C, D) → (N, D)"""
    return kernels_of(values).sum_over(values, (1,))[:, 0]


def _reduce(losses: Array, reduction: str, count: Array, classes_of: tuple[int, ...] | None = None):
    """The reduced loss, and the function that turns g = ∂L/∂value into the gradient of each of `losses`.

    `classes_of`: the shape of an input with a class axis, for which `losses` is (N, D).
    """
    if reduction == "none":
        if classes_of is None:
            return losses, lambda g: g
        samples = classes_of[:1] * (len(classes_of) > 1) + classes_of[2:]
        return losses.reshape(samples), lambda g: g.reshape(losses.shape)[:, None]
    if reduction == "sum":
        scale = 1.0
    else:  # what a GPU counted stays there: to read it one would have to wait
        scale = (1 / count).astype(losses.dtype) if is_array(count) else 1 / float(count)
    total = kernels_of(losses).sum_over(losses, tuple(range(losses.ndim))).reshape(())
    return total * scale, lambda g: g * scale


def _check_pair(operation: str, input: Array, target: Array, reduction: str) -> None:
    if input.shape != target.shape:
        raise ValueError(f"{operation}: input {input.shape} and target {target.shape} must have the same shape")
    check_reduction(operation, reduction, input.size)


def _clamped_log(xp, p: Array) -> Array:
    return xp.maximum(xp.where(p > 0, xp.log(xp.where(p > 0, p, 1)), -100), -100)
