"""Arrays in, arrays out, no autograd: what must be fast. `cpu` and `gpu` are two rooms with the same doors."""

from __future__ import annotations

import importlib
from functools import cache
from types import ModuleType

from ..backend import Array, DeviceError, device_of


def kernels_of(array: Array) -> ModuleType:
    """The kernels for the device on which `array` lives. Raises `DeviceError` for a device that has none yet."""
    return _room(device_of(array).partition(":")[0])


@cache
def _room(room: str) -> ModuleType:
    try:
        return importlib.import_module(f"{__name__}.{room}")
    except ModuleNotFoundError:
        raise DeviceError(
            f"this version of minidl has no kernels for {room!r}; move the tensors with x.to('cpu')"
        ) from None
