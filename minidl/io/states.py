"""States as safetensors files: names to tensors, with text beside them if wanted, and a checksum of it all."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from ..autograd import Tensor
from ..backend import Array, is_array, to_device
from .atomic import write_atomically

DTYPES = {
    "BOOL": "bool", "U8": "uint8", "U16": "uint16", "U32": "uint32", "U64": "uint64", "I8": "int8", "I16": "int16",
    "I32": "int32", "I64": "int64", "F16": "float16", "F32": "float32", "F64": "float64",
}
"""What both safetensors and a tensor can hold: the file's name of each dtype → NumPy's."""

CHECKSUM = "minidl.crc32"
"""Its name among the file's metadata. Safetensors has none of its own, and would load flipped bits."""


def save(
    state: Mapping[str, Tensor | Array], path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None
) -> None:
    """Write `state`, such as `model.state_dict()`, to `path` as safetensors; atomically.

    `metadata` is text stored beside the arrays. Opens in PyTorch with `safetensors.torch.load_file`.
    Raises TypeError for values that are not tensors or arrays of numbers, OSError if the file cannot be written.
    """
    arrays, text = {}, dict(metadata or {})
    for name, value in state.items():
        array = value.data if isinstance(value, Tensor) else value
        array = np.asarray(array) if isinstance(array, np.generic) else array
        if not (isinstance(name, str) and is_array(array)) or name == "__metadata__":
            raise TypeError("a state maps names (but not '__metadata__') to tensors or arrays; "
                            f"got {name!r}: {type(value).__name__}")
        if array.dtype.name not in DTYPES.values():
            raise TypeError(f"safetensors files hold {', '.join(DTYPES.values())}; {name!r} is {array.dtype}")
        arrays[name] = np.asarray(to_device(array, "cpu"), order="C")
    text[CHECKSUM] = _checksum(arrays, text)

    def write(part: Path) -> None:
        try:
            safetensors.numpy.save_file(arrays, part, metadata=text)
        except safetensors.SafetensorError as error:
            raise OSError(str(error)) from error

    write_atomically(path, write)


def load(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read the tensors that `save` (or PyTorch's safetensors) wrote, by name, on the CPU.

    Raises FileNotFoundError, or ValueError for a file that is cut short, damaged or not safetensors, or
    holds numbers that no tensor can be, such as bfloat16.
    """
    return load_with_metadata(path)[0]


def load_with_metadata(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """`load`, and the text stored beside the tensors."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        with safetensors.safe_open(path, framework="np") as file:
            text = dict(file.metadata() or {})
            dtypes = {name: file.get_slice(name).get_dtype() for name in file.keys()}
            arrays = {name: file.get_tensor(name) for name, dtype in dtypes.items() if dtype in DTYPES}
    except (safetensors.SafetensorError, ValueError, TypeError) as error:
        raise _damaged(path, f"damaged or not a safetensors file ({error})") from error
    for name, dtype in dtypes.items():
        if dtype not in DTYPES:
            raise ValueError(f"{path} holds {name!r} as {dtype}, which no tensor can be; convert it to F32 and save it")
    checksum = text.pop(CHECKSUM, None)
    if checksum not in (None, _checksum(arrays, text)):
        raise _damaged(path, "damaged (its checksum is of other contents)")
    return {name: Tensor(array) for name, array in arrays.items()}, text


def _damaged(path: Path, how: str) -> ValueError:
    return ValueError(f"{path} is {how}; take another checkpoint, or write it again with minidl.save")


def _checksum(arrays: Mapping[str, np.ndarray], text: Mapping[str, str]) -> str:
    """Of all that is read back: the text, and of each array the name, dtype, shape and values."""
    crc = zlib.crc32(json.dumps(sorted(text.items())).encode())
    for name, array in sorted(arrays.items()):
        crc = zlib.crc32(f"{name!r} {array.dtype.name} {array.shape}".encode(), crc)
        crc = zlib.crc32(array.astype(array.dtype.newbyteorder("<"), copy=False).data, crc)
    return f"{crc:08x}"
