"""Stochastic gradient descent, with momentum, weight decay and Nesterov's look-ahead."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from ..backend import array_module, device_of
from ..kernels import kernels_of
from .optimizer import Optimizer, Params, number


class SGD(Optimizer):
    """Steps against the gradient g = ∂L/∂w of the loss, as `torch.optim.SGD`::

        g ← g + λ w                 λ = weight_decay: the gradient of ½ λ ‖w‖²
        v ← μ v + (1 − τ) g         μ = momentum, τ = dampening; v = g in the first step
        d = v                       or, with nesterov, d = g + μ v
        w ← w − η d                 η = lr

    The AlexNet paper, and Caffe with which VGG and ResNet were trained, put η into the velocity, v ← μ v − η g
    and w ← w + v: the same until η changes, and from then on here the new η scales all of v, there only the new g.

    A parameter whose `.grad` is None is left alone. The velocity is saved as ``"momentum_buffer"``.
    Raises ValueError for an `lr`, `momentum` or `weight_decay` that is negative or not a number, for `nesterov`
    without momentum or with dampening, and what `Optimizer` raises.

    Nesterov: Sutskever et al., *On the importance of initialization and momentum in deep learning*, 2013.
    """

    def __init__(
        self,
        params: Params,
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ):
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
        }
        super().__init__(params, defaults)

    def step(self) -> None:
        """Update, in place, every parameter that has a gradient. Raises what `updates` does, before any is changed."""
        for group, params in self.updates():
            # Python floats: a NumPy scalar would promote float32 arithmetic to float64.
            lr, momentum, dampening = number(group["lr"]), number(group["momentum"]), number(group["dampening"])
            weight_decay, nesterov = number(group["weight_decay"]), bool(group["nesterov"])
            alike: defaultdict[Any, list[Any]] = defaultdict(list)  # what a GPU can update at once
            for param in params:
                w, v, tau = param.data, None, dampening
                if momentum:
                    state = self.state[param]
                    v = state.get("momentum_buffer")
                    if v is None:
                        v = state["momentum_buffer"] = array_module(w).zeros_like(w)
                        tau = 0.0  # the first velocity is μ 0 + g
                assert param.grad is not None
                alike[device_of(w), w.dtype, tau].append((w, param.grad.data, v))
                param.bump_version()
            for (_, _, tau), arrays in alike.items():
                kernels_of(arrays[0][0]).sgd(arrays, lr, momentum, tau, weight_decay, nesterov)

    def check_options(self, options: Mapping[str, Any]) -> None:
        for name in ("lr", "momentum", "weight_decay"):
            if not number(options[name]) >= 0.0:
                raise ValueError(f"{name} must be a number ≥ 0; got {options[name]!r}")
        if math.isnan(number(options["dampening"])):
            raise ValueError(f"dampening must be a number; got {options['dampening']!r}")
        if options["nesterov"] and (number(options["momentum"]) == 0.0 or number(options["dampening"]) != 0.0):
            raise ValueError(f"nesterov=True needs momentum > 0 and dampening = 0; got momentum={options['momentum']} "
                             f"and dampening={options['dampening']}")
        if options.get("maximize"):
            raise ValueError("maximize=True, an option of PyTorch's, is not known here; minimise the negative")
