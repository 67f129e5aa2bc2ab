"""States, names to tensors, in files: safetensors written and read, NumPy's and PyTorch's archives read as well.

Nothing in a file is ever executed, and arrays are read and written in pieces, so that nothing is in memory twice.
"""

from __future__ import annotations

import json
import os
import struct
import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import safetensors

from ..autograd import Tensor
from ..backend import Array, is_array, to_device
from .atomic import write_atomically
from .dtypes import DTYPES
from .pickles import Refused
from .serialize import write_safetensors
from .streams import BoundedReader, read_array

if TYPE_CHECKING:
    from zipfile import ZipFile

CHECKSUM = "minidl.crc32"
"""Its name among the file's metadata. Safetensors has none of its own, and would load flipped bits."""

PICKLES = (".pt", ".pth", ".th", ".tar", ".pkl", ".ckpt")


def save(
    state: Mapping[str, Tensor | Array], path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None
) -> None:
    """Write `state`, such as `model.state_dict()`, to `path` as safetensors, or as NumPy's archive if it ends in .npz.

    Atomically. `metadata` is text stored beside the arrays, in safetensors only. PyTorch opens what is written with
    `safetensors.torch.load_file`. Raises TypeError for values that are not tensors or arrays of numbers, ValueError for
    a `path` that looks like a pickle, or metadata in an .npz, OSError if the file cannot be written.
    """
    suffix = Path(path).suffix.lower()
    if suffix in PICKLES:
        raise ValueError(f"save writes no pickles; name {path} .safetensors, which PyTorch opens with "
                         "safetensors.torch.load_file")
    if suffix == ".npz" and metadata:
        raise ValueError(f"an .npz file holds no metadata; name {path} .safetensors")
    arrays, text = {}, dict(metadata or {})
    for name, value in state.items():
        array = value.data if isinstance(value, Tensor) else value
        array = np.asarray(array) if isinstance(array, np.generic) else array
        if not (isinstance(name, str) and is_array(array)) or name == "__metadata__":
            raise TypeError("a state maps names (but not '__metadata__') to tensors or arrays; "
                            f"got {name!r}: {type(value).__name__}")
        if array.dtype.name not in DTYPES.values():
            raise TypeError(f"a state's file holds {', '.join(DTYPES.values())}; {name!r} is {array.dtype}")
        arrays[name] = np.asarray(to_device(array, "cpu"), order="C")
    if suffix == ".npz":
        from .npz import write_npz

        return write_atomically(path, lambda part: write_npz(part, arrays))
    text[CHECKSUM] = _checksum(arrays, text)

    write_atomically(path, lambda part: write_safetensors(part, arrays, text))


def load(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read the tensors of a model's state by name, on the CPU: safetensors, NumPy's .npz, PyTorch's .pt, .pth and .th.

    The file's content decides, not its name. Of a PyTorch checkpoint, new or from before 1.6, the model's state is
    taken wherever it lies, tensors of any device; ``module.`` in front of all names, the optimizer's state and what
    else there is are left out. Nothing in the file is executed: what asks for more than tensors and plain containers
    is refused by the name of what it asked for.

    Raises FileNotFoundError, or ValueError for a file that is cut short, damaged, refused, none of these, or holds
    numbers that no tensor can be, such as bfloat16.
    """
    with _open(path) as file:
        start = file.read(9)
        file.seek(0)
        readers = {b"P": _read_zip, b"\x80": _read_legacy}
        # Safetensors begins with 8 bytes of its header's length, which may be any, and a brace.
        if start.endswith(b"{") or start[:1] not in readers:
            return load_with_metadata(path)[0]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Python's, of damaged text in pickles and headers
                arrays = readers[start[:1]](file)
        except Refused as error:
            raise ValueError(f"{path} asks for {error}, which is no tensor and no plain container; it was refused, and "
                             "nothing in it was executed. Save the model's state_dict() alone") from None
        except DAMAGE as error:
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise _damaged(path, f"not a state that can be read ({reason})") from None
    return {name: Tensor(array) for name, array in arrays.items()}


DAMAGE = (KeyError, ValueError, OSError, zlib.error, struct.error, NotImplementedError, RuntimeError, EOFError,
          OverflowError, MemoryError)
"""What reading a damaged file raises."""


def _read_zip(file: BoundedReader) -> dict[str, np.ndarray]:
    import zipfile  # costs time to import, as what reads archives does, and most programs read none

    from .npz import read_npz
    from .pytorch import read_zip

    try:
        with zipfile.ZipFile(file) as archive:
            _check_complete(file, archive)
            is_torch = any(name.endswith("data.pkl") for name in archive.namelist())
            return (read_zip if is_torch else read_npz)(file, archive)
    except zipfile.BadZipFile as error:
        raise ValueError(str(error)) from None


def _read_legacy(file: BoundedReader) -> dict[str, np.ndarray]:
    from .pytorch import read_legacy

    return read_legacy(file)


def _check_complete(file: BoundedReader, archive: ZipFile) -> None:
    """The archive's last entry says how many records there are; damage to their list could hide some."""
    file.seek(max(0, file.length - (1 << 16) - 22))
    end = file.read()
    count = min(len(archive.infolist()), 0xFFFF)  # beyond, the number stands elsewhere
    if struct.unpack_from("<HH", end, end.rindex(b"PK\5\6") + 8) != (count, count):
        raise ValueError("its list of records is incomplete")


def load_with_metadata(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file, and the text stored beside them; raises what `load` raises."""
    with _open(path) as file:
        try:
            with safetensors.safe_open(path, framework="np") as described:
                text = dict(described.metadata() or {})
                slices = [(name, described.get_slice(name)) for name in described.offset_keys()]
                layout = [(name, part.get_dtype(), tuple(part.get_shape())) for name, part in slices]
        except (safetensors.SafetensorError, ValueError, TypeError) as error:
            raise _damaged(path, f"damaged or not a safetensors file ({error})") from error
        arrays = {}
        (header,) = struct.unpack("<Q", file.read(8))
        file.seek(8 + header)
        for name, dtype, shape in layout:
            if dtype not in DTYPES:
                raise ValueError(f"{path} holds {name!r} as {dtype}, which no tensor can be; "
                                 "convert it to F32 and save it")
            try:
                arrays[name] = read_array(file, shape, np.dtype(DTYPES[dtype]).newbyteorder("<"))
            except (ValueError, MemoryError) as error:
                raise _damaged(path, f"damaged ({name!r}: {error})") from None
    checksum = text.pop(CHECKSUM, None)
    if checksum not in (None, _checksum(arrays, text)):
        raise _damaged(path, "damaged (its checksum is of other contents)")
    return {name: Tensor(array) for name, array in arrays.items()}, text


def _open(path: str | os.PathLike[str]) -> BoundedReader:
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path}")
    return BoundedReader(path)


def _damaged(path: str | os.PathLike[str], how: str) -> ValueError:
    return ValueError(f"{path} is {how}; take another checkpoint, or write it again with minidl.save")


def _checksum(arrays: Mapping[str, np.ndarray], text: Mapping[str, str]) -> str:
    """Of all that is read back: the text, and of each array the name, dtype, shape and values."""
    crc = zlib.crc32(json.dumps(sorted(text.items())).encode())
    for name, array in sorted(arrays.items()):
        crc = zlib.crc32(f"{name!r} {array.dtype.name} {array.shape}".encode(), crc)
        crc = zlib.crc32(array.astype(array.dtype.newbyteorder("<"), copy=False).data, crc)
    return f"{crc:08x}"
