"""Which array library owns an array, where arrays live, and the random numbers.

Everything above this file asks `array_module(x)` for the library that owns `x` and calls that,
never `numpy` by name: the same line then runs on NumPy (``"cpu"``) and on CuPy (``"gpu"``,
``"gpu:1"``, …). CuPy is imported only when somebody asks for a GPU.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import ModuleType
from typing import Any

import numpy as np

from .tasklocal import TaskLocal

Array = Any  # numpy.ndarray or cupy.ndarray: they share an interface, not a base class


class DeviceError(RuntimeError):
    """A device that does not exist or cannot be used, or arrays that live on different devices."""


def array_module(array: Array) -> ModuleType:
    """The library that owns `array`: `numpy`, or `cupy` when the array lives on a GPU."""
    if isinstance(array, (np.ndarray, np.generic)) or not is_array(array):
        return np
    return sys.modules["cupy"]


def is_array(value: Any) -> bool:
    """Whether `value` is an array of one of the array libraries."""
    if isinstance(value, np.ndarray):
        return True
    cupy = sys.modules.get("cupy")
    return cupy is not None and isinstance(value, cupy.ndarray)


def is_writeable(array: Array) -> bool:
    """Whether the memory of `array` can be changed, unlike that of ``np.load(path, mmap_mode="r")``."""
    return getattr(array.flags, "writeable", True)  # CuPy has no other arrays


def memory_order(array: Array) -> list[int]:
    """The axes of an array as they lie in memory, the longest stride first."""
    return sorted(range(array.ndim), key=lambda axis: -array.strides[axis])


def device_of(array: Array) -> str:
    """``"cpu"``, ``"gpu"`` or ``"gpu:1"``: where `array` lives."""
    if isinstance(array, (np.ndarray, np.generic)):
        return "cpu"
    return _gpu_name(array.device.id)


def to_device(array: Array, device: str) -> Array:
    """`array` on `device`: itself if it is there already, a copy otherwise."""
    device = check_device(device)
    if device_of(array) == device:
        return array
    if device == "cpu":
        return array.get()
    cupy, there = gpu(device)
    with there:
        return cupy.asarray(array)


def gpu(device: str) -> tuple[ModuleType, Any]:
    """CuPy, and the GPU of that name, which ``with`` makes the current one. Raises `DeviceError` as `check_device`."""
    index = _gpu_index(check_device(device))
    cupy = sys.modules["cupy"]
    return cupy, cupy.cuda.Device(index)


def describe_gpu() -> str:
    """The default GPU's name, memory and versions, after a trial of what everything needs: a product and a kernel.

    Raises `DeviceError` if there is none, or if it is there and does not work, with the reason and what mends it.
    """
    cupy, first = gpu("gpu")
    try:
        with first:
            trial = cupy.arange(4, dtype="float32")
            float(trial @ trial)
            (trial * 2).get()
            free, total = first.mem_info
    except Exception as error:
        raise DeviceError(
            f"a GPU was asked for, and CuPy {cupy.__version__} finds one, but cannot compute on it ({error}). CUDA's "
            f"compiler and libraries may be missing; run: pip install '{_cupy_package()}[ctk]'   Otherwise use 'cpu'."
        ) from None
    properties = cupy.cuda.runtime.getDeviceProperties(first.id)
    return (f"{properties['name'].decode()}, {total / 2**30:.1f} GiB ({free / 2**30:.1f} free), CuPy "
            f"{cupy.__version__}, driver for CUDA {_cuda_version(cupy.cuda.runtime.driverGetVersion())}")


def _cupy_package() -> str:
    """The name under which CuPy was installed: cupy-cuda12x, cupy-cuda13x, …"""
    from importlib.metadata import packages_distributions  # costs time to import

    return next((name for name in packages_distributions().get("cupy", ())), "cupy-cuda12x")


def _cuda_version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


@contextmanager
def memory_for(batch: int) -> Iterator[None]:
    """Inside, a GPU's memory that does not suffice for `batch` images is a `DeviceError` that says what to try."""
    try:
        yield
    except Exception as error:
        cupy = sys.modules.get("cupy")
        if cupy is None or not isinstance(error, cupy.cuda.memory.OutOfMemoryError):
            raise
        free, total = cupy.cuda.Device().mem_info
        advice = f"try batches of {batch // 2}" if batch > 1 else "this network needs a larger one"
        raise DeviceError(
            f"the GPU's memory of {total / 2**30:.1f} GiB, of which {free / 2**30:.1f} GiB are free, does not suffice "
            f"for a batch of {batch} ({error}); {advice}"
        ) from None


# ---------------------------------------------------------------------------------------------
# The default device: where new tensors, parameters and random numbers are put
# ---------------------------------------------------------------------------------------------

_devices: TaskLocal[tuple[str, ...]] = TaskLocal(())
"""The names in the ``with device(...)`` blocks around what runs, the innermost last."""

_process_device: str | None = None


def get_device() -> str:
    """The default device: of ``with device(...)``, else of `set_device`, else ``MINIDL_DEVICE``, else the CPU."""
    if _devices.get():
        return _devices.get()[-1]
    if _process_device is not None:
        return _process_device
    return check_device(os.environ.get("MINIDL_DEVICE") or "cpu")


def set_device(name: str) -> None:
    """Make `name` (``"cpu"``, ``"gpu"`` or ``"gpu:N"``) the default device of the process.

    Raises `DeviceError` if the device does not exist or cannot be used, saying what is missing.
    """
    global _process_device
    _process_device = check_device(name)


class device:
    """``with minidl.device("gpu"):`` new tensors and modules are made on that device inside the block.

    It holds for the thread, or the asyncio task, that runs the block.
    """

    def __init__(self, name: str):
        self.name = check_device(name)

    def __enter__(self) -> device:
        _devices.set((*_devices.get(), self.name))
        return self

    def __exit__(self, *exception: Any) -> None:
        _devices.set(_devices.get()[:-1])


def check_device(name: str) -> str:
    """The canonical spelling of a device that can be used here; `DeviceError` for any other."""
    if name == "cpu":
        return name
    if not isinstance(name, str) or not re.fullmatch(r"gpu(:\d+)?", name):
        raise DeviceError(f"there is no device {name!r}; write 'cpu', 'gpu' or 'gpu:N' with N the number of the GPU")
    count = _gpu_count()
    if _gpu_index(name) >= count:
        raise DeviceError(f"{name!r} was asked for, but the driver shows {count} GPU(s): gpu:0 to gpu:{count - 1}")
    return _gpu_name(_gpu_index(name))


def _gpu_index(name: str) -> int:
    return int(name.partition(":")[2] or 0)


def _gpu_name(index: int) -> str:
    return f"gpu:{index}" if index else "gpu"


def _gpu_count() -> int:
    """How many GPUs CuPy can use; `DeviceError` says why there is none, and what to install."""
    try:
        import cupy
    except Exception as error:  # a CuPy that does not fit this NumPy or this driver fails in many ways
        raise DeviceError(
            f"a GPU was asked for, but CuPy cannot be imported ({error}). On a machine with an NVIDIA GPU "
            "run: pip install 'minidl[gpu]'   Otherwise use the device 'cpu'."
        ) from None
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:
        raise DeviceError(
            f"a GPU was asked for, but CuPy {cupy.__version__} finds none it can use ({error}). "
            "Check the driver with nvidia-smi, or use the device 'cpu'."
        ) from None
    if count == 0:
        raise DeviceError("a GPU was asked for, but the driver shows none. Use the device 'cpu'.")
    return count


# ---------------------------------------------------------------------------------------------
# How precise a GPU's products are
# ---------------------------------------------------------------------------------------------

PRECISIONS = ("highest", "high", "medium")
_precision = PRECISIONS[0]


def set_float32_matmul_precision(precision: str) -> None:
    """How precise a GPU's products of float32 matrices are, as in PyTorch; convolutions are such products too.

    ``"highest"``, the default: float32. ``"high"``: TF32, whose factors have 10 bits after the point.
    ``"medium"``: bfloat16, with 7. Sums are always float32, and so is everything on the CPU. For float16 give the
    tensors that dtype. Raises ValueError for another word.
    """
    global _precision
    if precision not in PRECISIONS:
        raise ValueError(f"the precision of products is one of {', '.join(PRECISIONS)}; got {precision!r}")
    _precision = precision


def get_float32_matmul_precision() -> str:
    """What `set_float32_matmul_precision` was told last; ``"highest"`` if nothing."""
    return _precision


# ---------------------------------------------------------------------------------------------
# Random numbers: a seed means the same on every device
# ---------------------------------------------------------------------------------------------

_generator = np.random.default_rng()
_lent: ContextVar[np.random.Generator | None] = ContextVar("minidl_generator", default=None)


def manual_seed(seed: int) -> np.random.Generator:
    """Seed initialisation, dropout and shuffling; returns the generator they draw from.

    The same seed gives bit-identical training on the CPU, whatever the number of threads.
    """
    global _generator
    _generator = np.random.default_rng(seed)
    return _generator


def generator() -> np.random.Generator:
    """The generator that initialisation, dropout and shuffling draw from."""
    return _lent.get() or _generator


@contextmanager
def drawing_from(rng: np.random.Generator) -> Iterator[None]:
    """Let `generator()` return `rng` in this thread until the block ends. Data loaders read each batch so."""
    token = _lent.set(rng)
    try:
        yield
    finally:
        _lent.reset(token)
