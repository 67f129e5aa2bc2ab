"""Layers: a function of `minidl.functional` with its parameters and options. Arguments, defaults, initialisation
and `state_dict` keys are PyTorch's; the formulas stand in the functions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from numbers import Integral
from typing import Any

import numpy as np

from .. import functional as F
from ..autograd import Tensor
from ..backend import get_device, to_device
from ..functional.arguments import Pair, pair
from . import init
from .module import Module, Parameter, new_parameter


def _reset(weight: Parameter, bias: Parameter | None) -> None:
    """PyTorch's default: both uniform within ±1/√fan_in."""
    init.kaiming_uniform_(weight, a=math.sqrt(5))
    if bias is not None:
        fan_in = weight.size // len(weight)
        bound = 1 / math.sqrt(fan_in) if fan_in else 0.0
        init.uniform_(bias, -bound, bound)


def _positive(layer: str, **counts: int) -> Iterator[int]:
    """The counts as plain integers (NumPy's are welcome), each at least 1."""
    for name, count in counts.items():
        if not isinstance(count, Integral) or count < 1:
            raise ValueError(f"{layer}: {name} must be a whole number of at least 1; got {count!r}")
        yield int(count)


def _plain(*options: Any) -> Iterator[Any]:
    """Options with plain numbers for NumPy's and tuples for lists, so that a layer prints as its constructor reads."""
    for value in options:
        if isinstance(value, (tuple, list)):
            yield tuple(_plain(*value))
        else:
            yield value.item() if isinstance(value, np.generic) else value


def _kernel(layer: str, value: Pair) -> Pair:
    """`kernel_size` in plain integers, one or two as given, so that the layer's repr reads like its constructor."""
    both = pair(layer, "kernel_size", value, 1)
    return both if isinstance(value, (tuple, list)) else both[0]


class Linear(Module):
    """y = x Wᵀ + b: (…, in_features) → (…, out_features). `F.linear`."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True):
        in_features, out_features = _positive("Linear", in_features=in_features, out_features=out_features)
        self.in_features, self.out_features = in_features, out_features
        self.weight = new_parameter(out_features, in_features)
        self.register_parameter("bias", new_parameter(out_features) if bias else None)
        _reset(self.weight, self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


class Conv2d(Module):
    """Convolution, (N, in_channels, H, W) → (N, out_channels, OH, OW). `F.conv2d`, and the modes of `F.pad` by
    `padding_mode` (``"zeros"``, ``"reflect"``, ``"replicate"``, ``"circular"``)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Pair | str = 0,
        dilation: Pair = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
    ):
        in_channels, out_channels, groups = _positive(
            "Conv2d", in_channels=in_channels, out_channels=out_channels, groups=groups
        )
        kernel_size = _kernel("Conv2d", kernel_size)
        if in_channels % groups or out_channels % groups:
            raise ValueError(f"Conv2d: groups={groups} must divide in_channels={in_channels} and "
                             f"out_channels={out_channels}")
        if padding_mode not in ("zeros", "reflect", "replicate", "circular"):
            raise ValueError(f"Conv2d: unknown padding_mode {padding_mode!r}; "
                             "choose from 'zeros', 'reflect', 'replicate', 'circular'")
        if padding_mode != "zeros" and isinstance(padding, str):
            raise ValueError(f"Conv2d: padding={padding!r} goes with padding_mode='zeros'; "
                             f"give numbers for {padding_mode!r}")
        self.in_channels, self.out_channels, self.kernel_size = in_channels, out_channels, kernel_size
        self.stride, self.padding, self.dilation = _plain(stride, padding, dilation)
        self.groups, self.padding_mode = groups, padding_mode
        height, width = pair("Conv2d", "kernel_size", kernel_size, 1)
        self.weight = new_parameter(out_channels, in_channels // groups, height, width)
        self.register_parameter("bias", new_parameter(out_channels) if bias else None)
        _reset(self.weight, self.bias)

    def forward(self, x: Tensor) -> Tensor:
        padding = self.padding
        if self.padding_mode != "zeros":
            vertical, horizontal = pair("Conv2d", "padding", padding, 0)
            x, padding = F.pad(x, (horizontal, horizontal, vertical, vertical), self.padding_mode), 0
        return F.conv2d(x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)


class ConvTranspose2d(Module):
    """The adjoint of convolution, (N, in_channels, H, W) → (N, out_channels, OH, OW). `F.conv_transpose2d`."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Pair = 0,
        output_padding: Pair = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Pair = 1,
    ):
        in_channels, out_channels, groups = _positive(
            "ConvTranspose2d", in_channels=in_channels, out_channels=out_channels, groups=groups
        )
        kernel_size = _kernel("ConvTranspose2d", kernel_size)
        if in_channels % groups or out_channels % groups:
            raise ValueError(f"ConvTranspose2d: groups={groups} must divide in_channels={in_channels} and "
                             f"out_channels={out_channels}")
        self.in_channels, self.out_channels, self.kernel_size = in_channels, out_channels, kernel_size
        self.stride, self.padding, self.output_padding = _plain(stride, padding, output_padding)
        (self.dilation,), self.groups = _plain(dilation), groups
        height, width = pair("ConvTranspose2d", "kernel_size", kernel_size, 1)
        self.weight = new_parameter(in_channels, out_channels // groups, height, width)
        self.register_parameter("bias", new_parameter(out_channels) if bias else None)
        _reset(self.weight, self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv_transpose2d(
            x, self.weight, self.bias, self.stride, self.padding, self.output_padding, self.groups, self.dilation
        )


class MaxPool2d(Module):
    """The largest value of each window. `F.max_pool2d`."""

    def __init__(
        self,
        kernel_size: Pair,
        stride: Pair | None = None,
        padding: Pair = 0,
        dilation: Pair = 1,
        ceil_mode: bool = False,
    ):
        self.kernel_size, self.stride, self.padding = _plain(kernel_size, stride, padding)
        self.dilation, self.ceil_mode = _plain(dilation, ceil_mode)

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)


class AvgPool2d(Module):
    """The mean of each window. `F.avg_pool2d`."""

    def __init__(
        self,
        kernel_size: Pair,
        stride: Pair | None = None,
        padding: Pair = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ):
        self.kernel_size, self.stride, self.padding = _plain(kernel_size, stride, padding)
        self.ceil_mode, self.count_include_pad, self.divisor_override = _plain(
            ceil_mode, count_include_pad, divisor_override
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(
            x, self.kernel_size, self.stride, self.padding,
            self.ceil_mode, self.count_include_pad, self.divisor_override,
        )


class AdaptiveAvgPool2d(Module):
    """The mean of each of a fixed number of windows, for any input size. `F.adaptive_avg_pool2d`."""

    def __init__(self, output_size: Any):
        (self.output_size,) = _plain(output_size)

    def forward(self, x: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(x, self.output_size)


class LocalResponseNorm(Module):
    """Normalisation over neighbouring channels. `F.local_response_norm`, which divides `alpha` by `size`."""

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0):
        self.size, self.alpha, self.beta, self.k = _plain(size, alpha, beta, k)

    def forward(self, x: Tensor) -> Tensor:
        return F.local_response_norm(x, self.size, self.alpha, self.beta, self.k)


class _BatchNorm(Module):
    """Normalisation over the batch; `F.batch_norm`. `momentum=None` averages all batches equally."""

    _axes: tuple[int, ...]

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
    ):
        (num_features,) = _positive(type(self).__name__, num_features=num_features)
        self.num_features, self.eps, self.momentum = _plain(num_features, eps, momentum)
        self.affine, self.track_running_stats = affine, track_running_stats
        self.register_parameter("weight", init.ones_(new_parameter(num_features)) if affine else None)
        self.register_parameter("bias", new_parameter(num_features) if affine else None)
        buffers = {"running_mean": np.zeros(num_features, np.float32), "running_var": np.ones(num_features, np.float32),
                   "num_batches_tracked": np.zeros((), np.int64)}
        for name, array in buffers.items():
            self.register_buffer(name, Tensor(to_device(array, get_device())) if track_running_stats else None)

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim not in self._axes:
            axes = " or ".join(map(str, self._axes))
            raise ValueError(f"{type(self).__name__}: needs an input with {axes} axes; got {x.shape}")
        if x.shape[1] != self.num_features:
            raise ValueError(f"{type(self).__name__}: needs {self.num_features} channels; "
                             f"got {x.shape[1]} in {x.shape}")
        momentum = 0.0 if self.momentum is None else self.momentum
        if self.training and self.track_running_stats:
            self.num_batches_tracked.data += 1
            if self.momentum is None:
                momentum = 1 / self.num_batches_tracked.item()
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias,
            self.training or not self.track_running_stats, momentum, self.eps,
        )


class BatchNorm1d(_BatchNorm):
    """Batch normalisation of (N, C) or (N, C, L). `F.batch_norm`; `momentum=None` averages all batches equally."""

    _axes = (2, 3)


class BatchNorm2d(_BatchNorm):
    """Batch normalisation of images (N, C, H, W). `F.batch_norm`; `momentum=None` averages all batches equally."""

    _axes = (4,)


class Dropout(Module):
    """Units silent with probability `p` while training, nothing in evaluation. `F.dropout`; `inplace` is accepted and
    changes nothing."""

    def __init__(self, p: float = 0.5, inplace: bool = False):
        if not 0 <= p <= 1:
            raise ValueError(f"Dropout: p is a probability; got {p}")
        self.p, self.inplace = _plain(p, inplace)

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.p, self.training)


class ReLU(Module):
    """max(x, 0). `F.relu`; `inplace` is accepted and changes nothing."""

    def __init__(self, inplace: bool = False):
        self.inplace = inplace

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x)


class Sigmoid(Module):
    """1 / (1 + e⁻ˣ). `F.sigmoid`."""

    def forward(self, x: Tensor) -> Tensor:
        return F.sigmoid(x)


class Tanh(Module):
    """tanh x. `F.tanh`."""

    def forward(self, x: Tensor) -> Tensor:
        return F.tanh(x)


class Softmax(Module):
    """Logits to probabilities along `dim`. `F.softmax`."""

    def __init__(self, dim: int):
        (self.dim,) = _plain(dim)

    def forward(self, x: Tensor) -> Tensor:
        return F.softmax(x, self.dim)


class LogSoftmax(Module):
    """Logits to log-probabilities along `dim`. `F.log_softmax`."""

    def __init__(self, dim: int):
        (self.dim,) = _plain(dim)

    def forward(self, x: Tensor) -> Tensor:
        return F.log_softmax(x, self.dim)


class Flatten(Module):
    """Axes `start_dim` to `end_dim` joined into one: (N, C, H, W) → (N, C·H·W) by default."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1):
        self.start_dim, self.end_dim = _plain(start_dim, end_dim)

    def forward(self, x: Tensor) -> Tensor:
        return F.flatten(x, start_dim=self.start_dim, end_dim=self.end_dim)


class Identity(Module):
    """The input, unchanged."""

    def forward(self, x: Tensor) -> Tensor:
        return x


class _Pad2d(Module):
    """Padding of the last two axes by (left, right, top, bottom), or the same amount on all four sides; `F.pad`."""

    _mode = "constant"
    value: float | None = None

    def __init__(self, padding: int | tuple[int, int, int, int]):
        (self.padding,) = _plain(padding)
        amounts = self.padding if isinstance(self.padding, tuple) else (self.padding,)
        if not all(type(amount) is int for amount in amounts):
            raise TypeError(f"{type(self).__name__}: padding must be a whole number, or (left, right, top, bottom); "
                            f"got {padding!r}")

    def forward(self, x: Tensor) -> Tensor:
        amounts = self.padding if isinstance(self.padding, tuple) else (self.padding,) * 4
        return F.pad(x, amounts, self._mode, self.value)


class ZeroPad2d(_Pad2d):
    """A frame of zeros, (left, right, top, bottom) wide. `F.pad`."""


class ReflectionPad2d(_Pad2d):
    """A frame that mirrors the image without repeating its edge. `F.pad`."""

    _mode = "reflect"


class ReplicationPad2d(_Pad2d):
    """A frame that repeats the edge. `F.pad`."""

    _mode = "replicate"


class CircularPad2d(_Pad2d):
    """A frame as if the image were wrapped around. `F.pad`."""

    _mode = "circular"


class ConstantPad2d(_Pad2d):
    """A frame of `value`, (left, right, top, bottom) wide. `F.pad`."""

    def __init__(self, padding: int | tuple[int, int, int, int], value: float):
        super().__init__(padding)
        (self.value,) = _plain(value)
