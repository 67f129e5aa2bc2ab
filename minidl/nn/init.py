"""Initialisers, with PyTorch's names: each fills a tensor in place and returns it.

Random numbers are drawn on the CPU from the generator of `minidl.manual_seed`.
"""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np

from ..autograd import Tensor
from ..backend import generator, to_device

T = TypeVar("T", bound=Tensor)


def _fill(tensor: T, values: np.ndarray | float) -> T:
    array = np.broadcast_to(np.asarray(values, tensor.dtype), tensor.shape)
    tensor.data[...] = to_device(array, tensor.device)
    tensor.bump_version()
    return tensor


def uniform_(tensor: T, a: float = 0.0, b: float = 1.0) -> T:
    """U(a, b)."""
    return _fill(tensor, generator().uniform(a, b, tensor.shape))


def normal_(tensor: T, mean: float = 0.0, std: float = 1.0) -> T:
    """N(mean, std²)."""
    return _fill(tensor, generator().normal(mean, std, tensor.shape))


def trunc_normal_(tensor: T, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0) -> T:
    """N(mean, std²), drawn again wherever it falls outside [a, b]. Raises ValueError if that is nearly always."""
    below_a, below_b = (math.erf((x - mean) / (std * math.sqrt(2))) / 2 for x in (a, b))
    if not below_b - below_a > 1e-3:
        raise ValueError(f"trunc_normal_: [{a}, {b}] holds under 0.1% of N({mean}, {std}²); choose a wider interval")
    values = generator().normal(mean, std, tensor.shape)
    outside = (values < a) | (values > b)
    while outside.any():
        values[outside] = generator().normal(mean, std, outside.sum())
        outside = (values < a) | (values > b)
    return _fill(tensor, values)


def constant_(tensor: T, val: float) -> T:
    """All entries `val`."""
    return _fill(tensor, val)


def zeros_(tensor: T) -> T:
    """All entries 0."""
    return _fill(tensor, 0.0)


def ones_(tensor: T) -> T:
    """All entries 1."""
    return _fill(tensor, 1.0)


def eye_(tensor: T) -> T:
    """The identity matrix, for a tensor with 2 axes."""
    if tensor.ndim != 2:
        raise ValueError(f"eye_: needs a matrix; got shape {tensor.shape}")
    return _fill(tensor, np.eye(tensor.shape[0], tensor.shape[1]))


def dirac_(tensor: T, groups: int = 1) -> T:
    """Filters (K, C/groups, KH, KW) that pass channels through unchanged."""
    if tensor.ndim != 4 or tensor.shape[0] % groups:
        raise ValueError(f"dirac_: needs filters (K, C/groups, KH, KW) with K divisible by groups={groups}; "
                         f"got {tensor.shape}")
    values = np.zeros(tensor.shape)
    per_group = tensor.shape[0] // groups
    for group in range(groups):
        for channel in range(min(per_group, tensor.shape[1])):
            values[group * per_group + channel, channel, tensor.shape[2] // 2, tensor.shape[3] // 2] = 1
    return _fill(tensor, values)


def orthogonal_(tensor: T, gain: float = 1.0) -> T:
    """A (semi-)orthogonal matrix times `gain`; the axes after the first count as columns. Saxe et al. 2013."""
    if tensor.ndim < 2:
        raise ValueError(f"orthogonal_: needs at least 2 axes; got shape {tensor.shape}")
    rows, columns = tensor.shape[0], tensor.size // max(1, tensor.shape[0])
    q, r = np.linalg.qr(generator().normal(size=(max(rows, columns), min(rows, columns))))
    q *= np.sign(np.diag(r))  # makes the distribution uniform
    return _fill(tensor, gain * (q if rows >= columns else q.T).reshape(tensor.shape))


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor that keeps the variance through a nonlinearity: 1 for linear, conv and sigmoid, 5/3 for tanh, √2 for
    relu, √(2 / (1 + param²)) for leaky_relu (param 0.01 by default). Raises ValueError for any other name."""
    gains = {"linear": 1.0, "conv2d": 1.0, "conv_transpose2d": 1.0, "sigmoid": 1.0, "tanh": 5 / 3, "relu": math.sqrt(2)}
    if nonlinearity == "leaky_relu":
        return math.sqrt(2 / (1 + (0.01 if param is None else param) ** 2))
    if nonlinearity not in gains:
        raise ValueError(f"calculate_gain: unknown nonlinearity {nonlinearity!r}; choose from {[*gains, 'leaky_relu']}")
    return gains[nonlinearity]


def xavier_uniform_(tensor: T, gain: float = 1.0) -> T:
    """U(−b, b) with b = gain √(6 / (fan_in + fan_out)). Glorot and Bengio 2010."""
    bound = gain * math.sqrt(6 / sum(_fans(tensor)))
    return uniform_(tensor, -bound, bound)


def xavier_normal_(tensor: T, gain: float = 1.0) -> T:
    """N(0, gain² · 2 / (fan_in + fan_out)). Glorot and Bengio 2010."""
    return normal_(tensor, 0.0, gain * math.sqrt(2 / sum(_fans(tensor))))


def kaiming_uniform_(tensor: T, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> T:
    """U(−b, b) with b = gain √(3 / fan). He et al. 2015; `a` is the slope of the leaky ReLU."""
    bound = calculate_gain(nonlinearity, a) * math.sqrt(3 / _fan(tensor, mode))
    return uniform_(tensor, -bound, bound)


def kaiming_normal_(tensor: T, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> T:
    """N(0, gain² / fan). He et al. 2015; `a` is the slope of the leaky ReLU."""
    return normal_(tensor, 0.0, calculate_gain(nonlinearity, a) / math.sqrt(_fan(tensor, mode)))


def _fans(tensor: Tensor) -> tuple[int, int]:
    """(fan_in, fan_out) of a weight (O, I) or (K, C, KH, KW): how many values an output sums, an input reaches."""
    if tensor.ndim < 2:
        raise ValueError(f"fan in and fan out need a weight with at least 2 axes; got shape {tensor.shape}")
    window = math.prod(tensor.shape[2:])
    return tensor.shape[1] * window, tensor.shape[0] * window


def _fan(tensor: Tensor, mode: str) -> int:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"mode must be 'fan_in' or 'fan_out'; got {mode!r}")
    return _fans(tensor)[mode == "fan_out"]
