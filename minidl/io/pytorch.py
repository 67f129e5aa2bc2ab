"""PyTorch's checkpoints, the zip format and the one before 1.6, without PyTorch and without executing anything.

Both hold a pickle in which tensors are named by storage, offset, shape and strides, and the storages beside it.
"""

from __future__ import annotations

import math
import os
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Literal, NamedTuple

import numpy as np

from .contents import Dict, Refused, Unknown, find_state
from .dtypes import READ_DTYPES
from .pickles import read_pickle
from .streams import BoundedReader, read_values

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
MOST_AXES = 64
"""Axes that NumPy's arrays can have."""

LARGEST_EXPANSION = 64 << 20
"""Bytes of the largest tensor that repeats the values of a smaller storage."""


class Storage(NamedTuple):
    """A piece of memory in the file, shared by the tensors that lie in it."""

    key: str
    dtype: str  # "" for bytes, whose dtype the tensor knows; PyTorch's name where NumPy has none
    length: int
    start: int = 0  # before PyTorch 0.4 a storage could be a part of another


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where a tensor's values are."""

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.storage, Storage) or not self.dtype:
            raise TypeError("a tensor has no storage, or no dtype")
        if not (isinstance(self.shape, tuple) and isinstance(self.strides, tuple)
                and len(self.shape) == len(self.strides) <= MOST_AXES
                and all(map(_is_size, (self.offset, *self.shape, *self.strides)))):
            raise ValueError("a tensor has no proper shape and strides")

    def within(self, memory: np.ndarray) -> np.ndarray:
        """The tensor as a view of its storage's values."""
        if 0 in self.shape:
            return np.empty(self.shape, memory.dtype)
        first = self.storage.start + self.offset
        if first + sum((n - 1) * stride for n, stride in zip(self.shape, self.strides)) >= len(memory):
            raise ValueError(f"a tensor of shape {self.shape} reaches beyond its storage of {len(memory)} values")
        size, itemsize = math.prod(self.shape), memory.itemsize
        if size > len(memory) and size * itemsize > LARGEST_EXPANSION:
            raise ValueError(f"a tensor of shape {self.shape} repeats the {len(memory)} values of its storage")
        strides = tuple(stride * itemsize if n > 1 else 0 for n, stride in zip(self.shape, self.strides))
        return np.ndarray(self.shape, memory.dtype, memory, first * itemsize, strides)


# ---------------------------------------------------------------------------------------------
# What a checkpoint's pickle may name
# ---------------------------------------------------------------------------------------------

ITEM_SIZES = {
    "float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint64": 8,
    "uint32": 4, "uint16": 2, "uint8": 1, "bool": 1, "complex64": 8, "complex128": 16,
    "qint8": 1, "quint8": 1, "qint32": 4,
}
STORAGES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16", "BFloat16Storage": "bfloat16",
    "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8",
    "ByteStorage": "uint8", "BoolStorage": "bool", "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128", "QInt8Storage": "qint8", "QUInt8Storage": "quint8", "QInt32Storage": "qint32",
}


class _DType(str):
    """A dtype, or the kind of a storage, by NumPy's name; "" for bytes."""


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 63


def _tensor(
    storage: Storage, offset: int, shape: Any, strides: Any, needs_gradient: Any = None, hooks: Any = None,
    pending: Any = None,
) -> StoredTensor | Unknown:
    if pending:
        return Unknown("torch._utils._rebuild_tensor_v3 of a conjugate or a negative")
    return StoredTensor(storage, getattr(storage, "dtype", ""), offset, shape, strides)


def _tensor_of_dtype(
    storage: Storage, offset: int, shape: Any, strides: Any, needs_gradient: Any, hooks: Any, dtype: Any, *_: Any
) -> StoredTensor:
    return StoredTensor(storage, _dtype_name(dtype), offset, shape, strides)


def _dtype_name(dtype: Any) -> str:
    if not isinstance(dtype, (_DType, Unknown)):
        raise TypeError("a tensor or storage has no dtype")
    return str(dtype) if isinstance(dtype, _DType) else dtype.name


def _of_class(build: Any, kind: Any, arguments: Any, attributes: Any) -> Any:
    """A tensor with attributes, or of a class of its own."""
    return build(*arguments) if build in (_tensor, _tensor_of_dtype) else Unknown("torch._tensor._rebuild_from_type_v2")


def _ordered_dict(items: Any = ()) -> Dict:
    """From another dict, or from a list of (key, value) pairs."""
    return items if isinstance(items, Dict) else Dict(part for key, value in items for part in (key, value))


ALLOWED: dict[str, Any] = {
    "collections.OrderedDict": _ordered_dict,
    "collections.Counter": _ordered_dict,
    "collections.defaultdict": lambda factory=None, items=(): _ordered_dict(items),
    "torch.Size": lambda sizes: tuple(sizes),
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_dtype,
    "torch._utils._rebuild_parameter": lambda tensor, *_: tensor,
    "torch._utils._rebuild_parameter_with_state": lambda tensor, *_: tensor,
    "torch._tensor._rebuild_from_type_v2": _of_class,
    **{f"torch.{name}": _DType(dtype) for name, dtype in STORAGES.items()},
    **{f"torch.{dtype}": _DType(dtype) for dtype in ITEM_SIZES},
    "torch.storage.UntypedStorage": _DType(""),
}
"""What a checkpoint's pickle may name → what stands for it."""


def _persistent(identity: Any) -> Any:
    """The storage that a pickle names: its kind, its key, where it was, how long it is, and which part is meant.

    Of a whole module, which PyTorch's old format names together with its source, the class.
    """
    if isinstance(identity, tuple) and len(identity) == 4 and identity[0] == "module":
        return identity[1]
    if not (isinstance(identity, tuple) and len(identity) in (5, 6) and identity[0] == "storage"):
        raise ValueError("it names an object outside the pickle that is no storage")
    _, kind, key, _, length, *part = identity
    start = part[0][1] if part and part[0] is not None else 0
    if not (_is_size(length) and _is_size(start) and isinstance(key, str)):
        raise ValueError("it names a storage in no known way")
    return Storage(key, _dtype_name(kind), length, start)


def _size_of(storage: Storage) -> int:
    if storage.dtype and storage.dtype not in ITEM_SIZES:
        raise Refused(f"holds numbers of {storage.dtype}, whose size is not known. Convert them to float32")
    return storage.length * ITEM_SIZES.get(storage.dtype, 1)


def _arrays(
    tensors: dict[str, StoredTensor], read_storage: Callable[[Storage, str], np.ndarray]
) -> dict[str, np.ndarray]:
    """Each tensor's values; tensors that shared a storage share memory again."""
    memories: dict[str, np.ndarray] = {}
    dtypes: dict[str, str] = {}
    arrays = {}
    for name, tensor in tensors.items():
        if tensor.dtype not in READ_DTYPES.values():
            raise Refused(f"holds {name!r} as {tensor.dtype}, which no tensor can be. Convert it to float32")
        key = tensor.storage.key
        if key not in memories:
            memories[key] = read_storage(tensor.storage, tensor.dtype)
            dtypes[key] = tensor.dtype
        if dtypes[key] != tensor.dtype:
            raise ValueError(f"storage {key} holds both {dtypes[key]} and {tensor.dtype}")
        arrays[name] = tensor.within(memories[key])
    return arrays


# ---------------------------------------------------------------------------------------------
# The two formats
# ---------------------------------------------------------------------------------------------

ORDERS: dict[bytes, Literal["<", ">"]] = {b"little": "<", b"big": ">"}


def read_zip(file: BoundedReader, archive: zipfile.ZipFile, key: str | None) -> dict[str, np.ndarray]:
    """The state in a checkpoint of PyTorch 1.6 or later, or that under `key`, by name.

    Raises ValueError for what is damaged, and Refused.
    """
    records = {info.filename: info for info in archive.infolist()}
    pickles = [name for name in records if name.endswith("data.pkl")]
    if len(pickles) > 1 or len(records) < len(archive.infolist()):
        raise ValueError("a record is listed twice")
    root = pickles[0].removesuffix("data.pkl")
    left = file.length

    def open_record(name: str) -> Any:
        nonlocal left
        if name not in records:
            raise ValueError(f"its record {name} is missing")
        record = records[name]
        if record.compress_type != zipfile.ZIP_STORED or record.file_size != record.compress_size:
            raise ValueError(f"{name} is compressed, which PyTorch never does")
        left -= record.file_size
        if left < 0:
            raise ValueError("its records overlap, or claim more bytes than the file has")
        return archive.open(record)

    for name, record in records.items():
        if not name.startswith(f"{root}data/"):
            archive.open(record).close()  # compares its name with the one in front of it, which damage could change
    order: Literal["<", ">"] = "<"
    if f"{root}byteorder" in records:
        with open_record(f"{root}byteorder") as content:
            name = content.read(20)
        if name not in ORDERS:
            raise ValueError(f"its byte order is {name!r}")
        order = ORDERS[name]

    def read_storage(storage: Storage, dtype: str) -> np.ndarray:
        name = f"{root}data/{storage.key}"
        with open_record(name) as content:
            size = records[name].file_size
            if size != _size_of(storage):
                raise ValueError(f"{name} has {size:,} bytes, which are not {storage.length:,} values")
            values = read_values(content, (size // ITEM_SIZES[dtype],), dtype, order)
            content.read()  # the archive compares a record's checksum at its end
        return values

    with open_record(pickles[0]) as content:
        tensors = find_state(read_pickle(BytesIO(content.read()), ALLOWED, _persistent), key)
    return _arrays(tensors, read_storage)


def read_legacy(file: BoundedReader, key: str | None) -> dict[str, np.ndarray]:
    """The state in a checkpoint from before PyTorch 1.6, or that under `key`, by name.

    Raises ValueError for what is damaged, and Refused.
    """
    named: dict[str, Storage] = {}

    def persistent(identity: Any) -> Any:
        storage = _persistent(identity)
        if not isinstance(storage, Storage):
            return storage
        known = named.setdefault(storage.key, storage)
        if (known.dtype, known.length) != (storage.dtype, storage.length):
            raise ValueError(f"storage {storage.key!r} is named with two dtypes or lengths")
        if storage.length > file.length:
            raise ValueError(f"storage {storage.key!r} has {storage.length:,} values, more than the file")
        return storage

    def next_pickle() -> Any:
        return read_pickle(file, ALLOWED, persistent)

    magic = next_pickle()
    if isinstance(magic, Unknown):
        raise Refused.because_of(magic)
    if magic != LEGACY_MAGIC or next_pickle() != 1001:
        raise Refused("is a pickle, but not one that torch.save wrote. Save the model's state_dict() with torch.save, "
                      "or with minidl.save")
    next_pickle()  # sizes of C's types
    tensors, keys = find_state(next_pickle(), key), next_pickle()
    if not isinstance(keys, list) or not all(isinstance(name, str) for name in keys):
        raise ValueError("it does not list its storages")
    places: dict[str, int] = {}
    for name in keys:
        header = file.read(8)
        if name not in named or len(header) < 8 or struct.unpack("<q", header)[0] != named[name].length:
            raise ValueError(f"storage {name[:40]!r} is missing, or has another length than its tensors say")
        places[name] = file.tell()
        file.seek(_size_of(named[name]), os.SEEK_CUR)
    if file.tell() > file.length:
        raise ValueError("it ends before its last storage does")

    def read_storage(storage: Storage, dtype: str) -> np.ndarray:
        if storage.key not in places:
            raise ValueError(f"storage {storage.key[:40]!r} is missing")
        file.seek(places[storage.key])
        return read_values(file, (_size_of(storage) // ITEM_SIZES[dtype],), dtype)

    return _arrays(tensors, read_storage)
