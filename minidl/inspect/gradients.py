"""How large the gradient is that reaches each layer (claims D6 and D7)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import functional as F
from ..autograd import Tensor
from ..backend import to_device
from ..nn import Module
from ..nn.module import leaving_as_found


def gradient_norms(
    model: Module, images: Tensor, labels: Tensor, criterion: Callable[[Any, Tensor], Tensor] = F.cross_entropy
) -> dict[str, float]:
    """‖∂L/∂W‖ of each layer's weight W by the layer's name, from the image to the classifier.

    L is ``criterion(model(images), labels)`` of one batch, images (N, C, H, W) and labels (N,), as in training: with
    the statistics of the batch, and dropout. The model, its gradients and the random numbers to come stay as they are,
    also where `criterion` raises.
    """
    with leaving_as_found(model):
        model.train().zero_grad()
        criterion(model(images), labels).backward()
        return {
            name.removesuffix(".weight"): float(np.linalg.norm(to_device(parameter.grad.data, "cpu")))
            for name, parameter in model.named_parameters() if parameter.ndim > 1 and parameter.grad is not None
        }
