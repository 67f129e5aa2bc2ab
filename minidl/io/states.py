"""States, names to tensors, in files: safetensors written and read, NumPy's and PyTorch's archives read as well.

Nothing in a file is ever executed, and arrays are read and written in pieces, so that nothing is in memory twice.
"""

from __future__ import annotations

import json
import os
import struct
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import safetensors

from ..autograd import Tensor
from ..backend import Array, is_array, to_device
from .atomic import write_atomically
from .contents import Refused, as_content, find_state
from .dtypes import DTYPES, MOST_TENSORS, READ_DTYPES
from .kinds import START, kind_of
from .serialize import write_safetensors
from .streams import BoundedReader, read_values

CHECKSUM = "minidl.crc32"
"""Metadata key of our checksum. Safetensors has none of its own, and would load flipped bits."""

FORMAT = "minidl.format"
"""Metadata key in every file that `save` writes. A file with a key of ours and without its checksum is damaged."""

MOST_RECORDS = 4 * MOST_TENSORS
"""Most records in a zip archive: a checkpoint also has an optimizer's."""

LARGEST_HEADER = 8 << 20
"""Bytes of the longest safetensors header, which has the names, the shapes and the metadata."""

PICKLES = (".pt", ".pth", ".th", ".tar", ".pkl", ".pickle", ".ckpt", ".bin")
OTHER_FORMATS = (".npy", ".h5", ".hdf5", ".keras", ".onnx", ".pb", ".tflite", ".mat", ".zip", ".gz", ".json", ".csv",
                 ".txt", ".yaml", ".yml", ".py")
"""Suffixes of files that hold something else."""


def save(
    state: Mapping[str, Tensor | Array], path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None
) -> None:
    """Write `state`, such as `model.state_dict()`, to `path` as safetensors, or as NumPy's archive if it ends in .npz.

    Atomically. `metadata` is text stored beside the arrays, in safetensors only. PyTorch opens what is written with
    `safetensors.torch.load_file`. Raises TypeError for values that are not tensors or arrays of numbers, or metadata
    that is not text; ValueError for a `path` whose suffix belongs to another format, metadata in an .npz, or more names
    and text than `load` reads (16,384, or 8 MiB); FileNotFoundError for a missing folder, and OSError if the file
    cannot be written.
    """
    path = Path(path)
    _check_path(path, has_metadata=bool(metadata))
    arrays, text = _arrays_of(state), dict(metadata or {})
    _check_text(arrays, text)
    if path.suffix.lower() == ".npz":
        from .npz import write_npz

        return write_atomically(path, lambda part: write_npz(part, arrays))
    text[FORMAT] = "1"
    text[CHECKSUM] = _checksum(arrays, text)

    write_atomically(path, lambda part: write_safetensors(part, arrays, text))


def _check_path(path: Path, has_metadata: bool) -> None:
    """Raise ValueError for a suffix of another format, and OSError for a place where no file can be."""
    suffix, better = path.suffix.lower(), path.with_suffix(".safetensors") if path.name else path
    if suffix in PICKLES:
        raise ValueError(f"save writes no pickles; name it {better}, which PyTorch opens with "
                         "safetensors.torch.load_file")
    if suffix in OTHER_FORMATS:
        raise ValueError(f"save writes safetensors, or NumPy's .npz, and no {suffix}; name it {better} or "
                         f"{path.with_suffix('.npz')}")
    if suffix == ".npz" and has_metadata:
        raise ValueError(f"an .npz file holds no metadata; name it {better}")
    folder = path.parent
    if path.is_dir():
        raise IsADirectoryError(f"could not write {path}: it is a folder; name a file in it, such as "
                                f"{path / 'model.safetensors'}")
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"could not write {path}: {folder} is a file, not a folder")
    if not folder.exists():
        raise FileNotFoundError(f"could not write {path}: there is no folder {folder}; make it first, with "
                                f"os.makedirs({str(folder)!r})")


def _arrays_of(state: Mapping[str, Tensor | Array]) -> dict[str, np.ndarray]:
    """The arrays of `state` on the CPU. Raises TypeError for what is not a state."""
    if not isinstance(state, Mapping):
        instead = "model.state_dict()" if hasattr(state, "state_dict") else "{'name': tensor}"
        raise TypeError(f"a state maps names to tensors or arrays; got {type(state).__name__}. Write "
                        f"minidl.save({instead}, path)")
    arrays = {}
    for name, value in state.items():
        array = value.data if isinstance(value, Tensor) else value
        array = np.asarray(array) if isinstance(array, np.generic) else array
        if not (isinstance(name, str) and is_array(array)) or name == "__metadata__":
            raise TypeError("a state maps names (but not '__metadata__') to tensors or arrays; "
                            f"got {name!r}: {type(value).__name__}")
        if array.dtype.name not in DTYPES.values():
            raise TypeError(f"a state's file holds {', '.join(DTYPES.values())}; {name!r} is {array.dtype}")
        arrays[name] = np.asarray(to_device(array, "cpu"), order="C")
    return arrays


def _check_text(arrays: Mapping[str, np.ndarray], text: Mapping[str, str]) -> None:
    """Raise TypeError for metadata that is not text, and ValueError for more names and text than `load` reads."""
    for name, value in text.items():
        if not (isinstance(name, str) and isinstance(value, str)):
            raise TypeError(f"metadata maps text to text; got {name!r:.60}: {value!r:.60}. Write str(value) or "
                            "json.dumps(value)")
    if (count := len(arrays) + len(text)) > MOST_TENSORS:
        raise ValueError(f"a state's file holds at most {MOST_TENSORS:,} tensors and texts; got {count:,}")
    names = json.dumps([text, {name: array.shape for name, array in arrays.items()}])
    if (size := len(names) + 100 * len(arrays)) > LARGEST_HEADER:  # 100 for a tensor's dtype and place
        raise ValueError(f"a state's file holds at most {LARGEST_HEADER >> 20} MiB of names and metadata; "
                         f"got {size / (1 << 20):.1f} MiB")


def load(path: str | os.PathLike[str], key: str | None = None) -> dict[str, Tensor]:
    """Read the tensors of a model's state by name, on the CPU: safetensors, NumPy's .npz, PyTorch's .pt, .pth and .th.

    The file's content decides, not its name. A PyTorch checkpoint, new or from before 1.6, may hold other things beside
    the state, such as the epoch, an optimizer's state or a configuration: the model's state is found in it, and the
    rest is left out. So is a text among the arrays of an .npz. If there are several states, the error lists them;
    `key` then names one, with dots between the levels: ``load(path, key="gan.generator")``. In a file that only has
    names and arrays, `key` names those that begin with it and a dot.

    A prefix in front of all names is removed: ``module.`` (`DataParallel`, and `AveragedModel`, whose ``n_averaged`` is
    left out) and ``_orig_mod.`` (`torch.compile`). Tensors of any device are read, and bfloat16 as float32, exactly.
    Nothing in the file is executed, no class or function is imported, and memory and time are bounded by its size.

    Raises FileNotFoundError, TypeError for a `key` that is not text, and ValueError for a file that is cut short,
    damaged, of another kind, holds no state, or several, or whose state has numbers that no tensor can hold, such as
    complex ones.
    """
    if not isinstance(key, (str, type(None))):
        raise TypeError(f"key must be text, such as 'gan.generator'; got {key!r}")
    with _reading(path) as (file, start):
        if _is_safetensors(start):
            state = find_state(as_content(_read_safetensors(file)[0]), key)
        elif start.startswith((b"PK", b"\x80")):
            read = _read_zip if start.startswith(b"PK") else _read_legacy
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Python's, of damaged text in headers and pickles
                state = read(file, key)
        else:
            raise _unknown(start)
    return {name: Tensor(array) for name, array in state.items()}


def load_with_metadata(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors of a safetensors file by name, and the text stored beside them; raises what `load` raises."""
    with _reading(path) as (file, start):
        if not _is_safetensors(start):
            raise _unknown(start)
        arrays, text = _read_safetensors(file)
    return {name: Tensor(array) for name, array in arrays.items()}, text


DAMAGE = (ArithmeticError, EOFError, LookupError, MemoryError, OSError, RuntimeError, TypeError, ValueError, zlib.error,
          struct.error, safetensors.SafetensorError)
"""What reading a damaged file raises."""


@contextmanager
def _reading(path: str | os.PathLike[str]) -> Iterator[tuple[BoundedReader, bytes]]:
    """The file at `path`, and its first bytes; what reading it raises becomes a ValueError of one sentence or two."""
    path = Path(path)
    if path.is_dir():
        names = [file.name for file in sorted(path.iterdir()) if file.suffix in (".safetensors", ".npz", *PICKLES)]
        raise FileNotFoundError(f"there is no file {path}: it is a folder. Name a file in it"
                                + (f", such as {path / names[0]}" if names else ""))
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    with BoundedReader(path) as file:
        try:
            start = file.read(START)
            file.seek(0)
            yield file, start
        except Refused as error:
            raise ValueError(f"{path} {error}") from None
        except DAMAGE as error:
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise ValueError(f"{path} is damaged, or not a state's file ({reason}). Take another checkpoint, or write "
                             "it again with minidl.save") from None


def _is_safetensors(start: bytes) -> bool:
    """It begins with 8 bytes of its header's length, which may be any, and a brace."""
    return start[8:9] == b"{"


def _unknown(start: bytes) -> ValueError:
    kind = kind_of(start)
    return Refused(kind) if kind else ValueError("it begins as neither safetensors nor a checkpoint does")


def _read_zip(file: BoundedReader, key: str | None) -> dict[str, np.ndarray]:
    import zipfile  # costs time to import, as what reads archives does, and most programs read none

    from .npz import read_npz
    from .pytorch import read_zip

    count = _count_records(file)
    try:
        with zipfile.ZipFile(file) as archive:
            if len(archive.infolist()) != count:
                raise ValueError("its list of records is incomplete")
            if any(name.endswith("data.pkl") for name in archive.namelist()):
                return read_zip(file, archive, key)
            return find_state(as_content(read_npz(file, archive)), key)
    except zipfile.BadZipFile as error:
        raise ValueError(str(error)) from None


def _count_records(file: BoundedReader) -> int:
    """How many records a zip archive says that it lists, which damage to the list could hide.

    Raises ValueError if it lists too many: Python makes an object of each before anything else.
    """
    tail = file.length - min(file.length, (1 << 16) + 98)
    file.seek(tail)
    end = file.read()
    at = end.rindex(b"PK\5\6")
    here, count, size, start = struct.unpack_from("<HHII", end, at + 8)
    if end[max(0, at - 76) :].startswith(b"PK\6\6") and end[at - 20 :].startswith(b"PK\6\7"):  # of large archives
        at -= 76
        here, count, size, start = struct.unpack_from("<QQQQ", end, at + 24)
    if here != count or start + size != tail + at:
        raise ValueError("its list of records is incomplete")
    file.seek(start)
    if file.read(size).count(b"PK\1\2") > MOST_RECORDS:
        raise ValueError(f"it lists more than {MOST_RECORDS:,} records")
    return count


def _read_legacy(file: BoundedReader, key: str | None) -> dict[str, np.ndarray]:
    from .pytorch import read_legacy

    return read_legacy(file, key)


def _read_safetensors(file: BoundedReader) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays by name, and the text beside them."""
    (length,) = struct.unpack("<Q", file.read(8))
    if length > LARGEST_HEADER:
        raise ValueError(f"its header has {length:,} bytes; at most {LARGEST_HEADER:,} are read")
    fields = _count_fields(file.read(length))
    if fields > 4 * (MOST_TENSORS + 3):  # a tensor has a name and 3 fields
        raise Refused(f"lists more than {MOST_TENSORS:,} tensors; at most as many are read")
    with safetensors.safe_open(file.name, framework="np") as described:
        metadata = described.metadata()
        slices = [(name, described.get_slice(name)) for name in described.offset_keys()]
        layout = [(name, part.get_dtype(), tuple(part.get_shape())) for name, part in slices]
    text = dict(metadata or {})
    if fields != 4 * len(layout) + len(text) + (metadata is not None):
        raise ValueError("it has two entries of one name")
    arrays = {}
    file.seek(8 + length)
    for name, dtype, shape in layout:
        if dtype not in READ_DTYPES:
            raise Refused(f"holds {name!r} as {dtype}, which no tensor can be. Convert it to F32 and save it")
        try:
            arrays[name] = read_values(file, shape, READ_DTYPES[dtype])
        except (ValueError, MemoryError) as error:
            raise ValueError(f"{name!r}: {error}") from None
    is_ours = any(key.startswith("minidl.") for key in text)  # also where the rest of one name is damaged
    checksum = text.pop(CHECKSUM, None)
    if checksum != (_checksum(arrays, text) if is_ours or checksum else None):
        raise ValueError("its checksum is of other contents")
    text.pop(FORMAT, None)
    return arrays, text


def _count_fields(header: bytes) -> int:
    """How many colons there are in a JSON text, outside its strings."""
    text = np.frombuffer(header.replace(b"\\\\", b"").replace(b'\\"', b""), np.uint8)
    outside = ~np.logical_xor.accumulate(text == ord('"'))
    return int(np.count_nonzero(text[outside] == ord(":")))


def _checksum(arrays: Mapping[str, np.ndarray], text: Mapping[str, str]) -> str:
    """Of all that is read back: the text, and of each array the name, dtype, shape and values."""
    crc = zlib.crc32(json.dumps(sorted(text.items())).encode())
    for name, array in sorted(arrays.items()):
        crc = zlib.crc32(f"{name!r} {array.dtype.name} {array.shape}".encode(), crc)
        crc = zlib.crc32(array.astype(array.dtype.newbyteorder("<"), copy=False).data, crc)
    return f"{crc:08x}"
