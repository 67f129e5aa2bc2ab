"""minidl: a small, fast autograd engine for the evolution of CNN architectures."""

from . import data, functional, nn, optim
from .autograd import Tensor, backward_steps, is_grad_enabled, no_grad, tensor
from .backend import DeviceError, device, get_device, manual_seed, set_device
from .check import gradcheck
from .inspect import summary
from .io import load, save
from .kernels.cpu.threads import get_num_threads, set_num_threads

__version__ = "0.1.0"

__all__ = [
    "DeviceError", "Tensor", "backward_steps", "data", "device", "functional", "get_device", "get_num_threads",
    "gradcheck", "is_grad_enabled", "load", "manual_seed", "nn", "no_grad", "optim", "save", "set_device",
    "set_num_threads", "summary", "tensor",
]
