"""Arrays in, arrays out, no autograd: what must be fast. `cpu` and `gpu` are two rooms with the same doors."""

from __future__ import annotations

import importlib
from functools import cache
from types import ModuleType

from ..backend import Array, device_of


def kernels_of(array: Array) -> ModuleType:
    """The kernels for the device on which `array` lives."""
    return _room(device_of(array).partition(":")[0])


@cache
def _room(name: str) -> ModuleType:
    return importlib.import_module(f"{__name__}.{name}")
