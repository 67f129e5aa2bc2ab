"""minidl: a small, fast autograd engine for the evolution of CNN architectures."""

import importlib
from typing import TYPE_CHECKING, Any

from . import startup as startup

# isort: split
from . import functional, nn, optim
from .autograd import Tensor, backward_steps, is_grad_enabled, no_grad, tensor
from .backend import (
    DeviceError,
    device,
    get_device,
    get_float32_matmul_precision,
    manual_seed,
    set_device,
    set_float32_matmul_precision,
)
from .check import gradcheck
from .io import load, save
from .kernels.cpu.threads import get_num_threads, set_num_threads

if TYPE_CHECKING:
    from . import data
    from .inspect import summary
else:

    def __getattr__(name: str) -> Any:
        """`data` and `summary` are imported when they are first asked for: who only computes does not wait for them."""
        if name == "data":
            return importlib.import_module(".data", __name__)
        if name == "summary":
            return importlib.import_module(".inspect", __name__).summary
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__version__ = "0.1.0"

__all__ = [
    "DeviceError", "Tensor", "backward_steps", "data", "device", "functional", "get_device",
    "get_float32_matmul_precision", "get_num_threads", "gradcheck", "is_grad_enabled", "load", "manual_seed", "nn",
    "no_grad", "optim", "save", "set_device", "set_float32_matmul_precision", "set_num_threads", "summary", "tensor",
]
