"""States as safetensors files: a dict of names to tensors, with text beside them if wanted."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from ..autograd import Tensor
from ..backend import Array, to_device
from .atomic import write_atomically


def save(state: Mapping[str, Tensor | Array], path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None) -> None:
    """Write `state`, such as `model.state_dict()`, to `path` as safetensors; atomically.

    `metadata` is text stored beside the arrays. Opens in PyTorch with `safetensors.torch.load_file`.
    Raises TypeError for values that are not tensors or arrays, OSError if the file cannot be written.
    """
    arrays = {}
    for name, value in state.items():
        if not isinstance(name, str) or not (isinstance(value, Tensor) or hasattr(value, "dtype")):
            raise TypeError(f"a state maps names to tensors or arrays; got {name!r}: {type(value).__name__}")
        array = to_device(value.data if isinstance(value, Tensor) else value, "cpu")
        arrays[name] = np.asarray(array, order="C")

    def write(part: Path) -> None:
        try:
            safetensors.numpy.save_file(arrays, part, metadata=dict(metadata or {}))
        except safetensors.SafetensorError as error:
            raise OSError(str(error)) from error

    write_atomically(path, write)


def load(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read the tensors that `save` (or PyTorch's safetensors) wrote, by name, on the CPU.

    Raises FileNotFoundError, or ValueError for a file that is cut short, damaged or not safetensors.
    """
    return load_with_metadata(path)[0]


def load_with_metadata(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """`load`, and the text stored beside the tensors."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        with safetensors.safe_open(path, framework="np") as file:
            return {name: Tensor(file.get_tensor(name)) for name in file.keys()}, dict(file.metadata() or {})
    except (safetensors.SafetensorError, ValueError, TypeError) as error:
        raise ValueError(f"{path} is damaged or not a safetensors file ({error}); "
                         "take another checkpoint, or write it again with minidl.save") from error
