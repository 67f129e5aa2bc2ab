"""How many pixels of the image one value of a layer depends on, followed through the operations (claim F8).

A window of k values, each of which sees `size` pixels and lies `jump` pixels from the next, sees
size + (k − 1) · jump pixels; with a stride s the next window lies s · jump further.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..autograd import Tensor
from ..functional.arguments import pair


class Field(NamedTuple):
    """(vertical, horizontal): the pixels that a value sees, padding included, and from one value to the next."""

    size: tuple[int, int] = (1, 1)
    jump: tuple[float, float] = (1, 1)

    def through(self, kernel: tuple[int, int], stride: tuple[float, float]) -> Field:
        """What a window of `kernel` values sees, at `stride` from window to window."""
        size = tuple(round(s + (k - 1) * j) for s, k, j in zip(self.size, kernel, self.jump))
        return Field((size[0], size[1]), (self.jump[0] * stride[0], self.jump[1] * stride[1]))

    def join(self, other: Field) -> Field:
        """What the sum, or the concatenation, of two branches sees."""
        (h, w), (a, b) = self
        (other_h, other_w), (other_a, other_b) = other
        return Field((max(h, other_h), max(w, other_w)), (max(a, other_a), max(b, other_b)))


def field_after(operation: str, arguments: dict[str, Any], source: Tensor, field: Field, result: Tensor) -> Field:
    """The field of `result`, computed from `source`, images (N, C, H, W) or vectors, with `field`."""
    if source.ndim != 4:
        return field
    if result.ndim != 4:  # flattened, or averaged over its positions
        return field.through((source.shape[2], source.shape[3]), (1, 1))
    if operation == "getitem":
        index = arguments["index"]
        steps = [part.step or 1 if isinstance(part, slice) else 1 for part in index] if isinstance(index, tuple) else []
        return field.through((1, 1), (steps[2], steps[3])) if len(steps) == 4 else field
    if operation == "adaptive_avg_pool2d":
        sides = list(zip(source.shape[2:], result.shape[2:]))
        kernel = tuple(max(-(-(i + 1) * n // o) - i * n // o for i in range(o)) for n, o in sides)
        return field.through((kernel[0], kernel[1]), (sides[0][0] / sides[0][1], sides[1][0] / sides[1][1]))
    if operation == "conv_transpose2d":
        kernel, stride, dilation = _window(operation, arguments)
        seen = [-(-(d * (k - 1) + 1) // s) for k, s, d in zip(kernel, stride, dilation)]
        return field.through((seen[0], seen[1]), (1 / stride[0], 1 / stride[1]))
    if operation in ("conv2d", "max_pool2d", "avg_pool2d"):
        kernel, stride, dilation = _window(operation, arguments)
        reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation)]
        return field.through((reach[0], reach[1]), stride)
    return field


def _window(operation: str, arguments: dict[str, Any]) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """(kernel, stride, dilation) of a convolution or a pool."""
    kernel = arguments["weight"].shape[2:] if "weight" in arguments else arguments["kernel_size"]
    kernel = pair(operation, "kernel_size", tuple(kernel) if not np.isscalar(kernel) else kernel, 1)
    stride = kernel if arguments["stride"] is None else pair(operation, "stride", arguments["stride"], 1)
    return kernel, stride, pair(operation, "dilation", arguments.get("dilation", 1), 1)
