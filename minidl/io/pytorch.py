"""PyTorch's checkpoints, the zip format and the one before 1.6, without PyTorch and without executing anything.

Both hold a pickle in which tensors are named by storage, offset, shape and strides, and the storages beside it.
"""

from __future__ import annotations

import os
import struct
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided

from .dtypes import DTYPES
from .pickles import plain_dict, read_pickle
from .streams import BoundedReader, read_array

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
STATE_NAMES = ("state_dict", "model_state_dict", "model", "net", "network", "module", "weights", "params")
"""Under which training scripts keep a model's state among other things."""


class Storage(NamedTuple):
    """A piece of memory in the file, shared by the tensors that lie in it."""

    key: str
    dtype: str  # "" for bytes, whose dtype the tensor knows
    length: int
    start: int = 0  # before PyTorch 0.4 a storage could be a part of another


@dataclass(frozen=True)
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
        if len(self.shape) != len(self.strides) or not all(map(_is_size, (self.offset, *self.shape, *self.strides))):
            raise ValueError("a tensor has no proper shape and strides")

    def within(self, memory: np.ndarray) -> np.ndarray:
        """The tensor as a view of its storage's values."""
        if 0 in self.shape:
            return np.empty(self.shape, memory.dtype)
        first = self.storage.start + self.offset
        if first + sum((n - 1) * stride for n, stride in zip(self.shape, self.strides)) >= len(memory):
            raise ValueError(f"a tensor of shape {self.shape} reaches beyond its storage of {len(memory)} values")
        return as_strided(memory[first:], self.shape, tuple(stride * memory.itemsize for stride in self.strides))


# ---------------------------------------------------------------------------------------------
# What a checkpoint's pickle may name
# ---------------------------------------------------------------------------------------------

ITEM_SIZES = {
    "float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint64": 8,
    "uint32": 4, "uint16": 2, "uint8": 1, "bool": 1, "complex64": 8, "complex128": 16,
}
STORAGES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16", "BFloat16Storage": "bfloat16",
    "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8",
    "ByteStorage": "uint8", "BoolStorage": "bool", "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
}


class _DType(str):
    """A dtype, or the kind of a storage, by NumPy's name; "" for bytes."""


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 63


def _tensor(
    storage: Storage, offset: int, shape: Any, strides: Any, needs_gradient: Any = None, hooks: Any = None,
    pending: Any = None,
) -> StoredTensor:
    if pending:
        raise ValueError("a tensor is a conjugate or a negative that was never computed; save tensor.resolve_neg()")
    return StoredTensor(storage, storage.dtype, offset, tuple(shape), tuple(strides))


def _tensor_of_dtype(
    storage: Storage, offset: int, shape: Any, strides: Any, needs_gradient: Any, hooks: Any, dtype: _DType, *_: Any
) -> StoredTensor:
    if not isinstance(dtype, _DType):
        raise TypeError("a tensor's dtype is none")
    return StoredTensor(storage, str(dtype), offset, tuple(shape), tuple(strides))


def _parameter(tensor: StoredTensor, *_: Any) -> StoredTensor:
    return tensor


LENT: dict[str, Any] = {
    "collections.OrderedDict": plain_dict,
    "collections.Counter": plain_dict,
    "torch.Size": lambda sizes: tuple(sizes),
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_dtype,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    **{f"torch.{name}": _DType(dtype) for name, dtype in STORAGES.items()},
    **{f"torch.{dtype}": _DType(dtype) for dtype in ITEM_SIZES},
    "torch.storage.UntypedStorage": _DType(""),
}


def _storage(identity: Any) -> Storage:
    """The storage that a pickle names: its kind, its key, where it was, how long it is, and which part is meant."""
    if not (isinstance(identity, tuple) and len(identity) in (5, 6) and identity[0] == "storage"):
        raise ValueError("it names an object outside the pickle that is no storage, such as a whole module; "
                         "save model.state_dict() instead")
    _, kind, key, _, length, *part = identity
    start = part[0][1] if part and part[0] is not None else 0
    if not (_is_size(length) and _is_size(start) and isinstance(kind, _DType) and isinstance(key, str)):
        raise ValueError("it names a storage in no known way")
    return Storage(key, str(kind), length, start)


def find_state(content: Any) -> dict[str, StoredTensor]:
    """The tensors by name in what a checkpoint holds: the state itself, or one that lies in it under whatever name.

    What else there is, such as the epoch or an optimizer's state, is left out, and so is the ``module.`` that
    `torch.nn.DataParallel` puts in front of every name. Raises ValueError for none, or several.
    """
    level, seen = _dicts([content]), set[int]()
    while level:
        named = _dicts(part.get(name) for part in level for name in STATE_NAMES)
        states = list(filter(_has_tensors, named)) or list(filter(_has_tensors, level))
        if len(states) > 1:
            raise ValueError("it holds the states of several models; save the one that is wanted alone")
        if states:
            state = {str(name): value for name, value in states[0].items() if isinstance(value, StoredTensor)}
            wrapped = all(name.startswith("module.") for name in state)
            return {name.removeprefix("module."): value for name, value in state.items()} if wrapped else state
        seen.update(map(id, level))
        inner = named or _dicts(value for part in level for value in part.values())
        level = [part for part in inner if id(part) not in seen]
    if content == {}:
        return {}
    raise ValueError(f"it holds no state of a model, no names with tensors, but a {type(content).__name__}")


def _dicts(values: Iterable[Any]) -> list[dict]:
    """Those of the values that are dicts, each once."""
    return list({id(value): value for value in values if isinstance(value, dict)}.values())


def _has_tensors(part: dict) -> bool:
    return any(isinstance(value, StoredTensor) for value in part.values())


def _arrays(
    tensors: dict[str, StoredTensor], read_storage: Callable[[Storage, np.dtype], np.ndarray],
    order: Literal["<", ">"],
) -> dict[str, np.ndarray]:
    """Each tensor's values; tensors that shared a storage share memory again."""
    memories: dict[str, np.ndarray] = {}
    arrays = {}
    for name, tensor in tensors.items():
        if tensor.dtype not in DTYPES.values():
            raise ValueError(f"it holds {name!r} as {tensor.dtype}, which no tensor can be; convert it to float32")
        key = tensor.storage.key
        if key not in memories:
            memories[key] = read_storage(tensor.storage, np.dtype(tensor.dtype).newbyteorder(order))
        if memories[key].dtype != tensor.dtype:
            raise ValueError(f"storage {key} holds both {memories[key].dtype} and {tensor.dtype}")
        arrays[name] = tensor.within(memories[key])
    return arrays


# ---------------------------------------------------------------------------------------------
# The two formats
# ---------------------------------------------------------------------------------------------

ORDERS: dict[bytes, Literal["<", ">"]] = {b"little": "<", b"big": ">"}


def read_zip(file: BoundedReader, archive: zipfile.ZipFile) -> dict[str, np.ndarray]:
    """The state in a checkpoint of PyTorch 1.6 or later, by name. Raises ValueError for what is damaged or refused."""
    records = {info.filename: info for info in archive.infolist()}
    (pickle,) = [name for name in records if name.endswith("data.pkl")]
    root = pickle.removesuffix("data.pkl")
    left = file.length

    def open_record(name: str) -> Any:
        nonlocal left
        record = records[name]
        if record.compress_type != zipfile.ZIP_STORED or record.file_size != record.compress_size:
            raise ValueError(f"{name} is compressed, which PyTorch never does")
        left -= record.file_size
        if left < 0:
            raise ValueError("its records overlap, or claim more bytes than the file has")
        return archive.open(record)

    def read_storage(storage: Storage, dtype: np.dtype) -> np.ndarray:
        name = f"{root}data/{storage.key}"
        with open_record(name) as content:
            size = records[name].file_size
            if size != storage.length * ITEM_SIZES.get(storage.dtype, 1):
                raise ValueError(f"{name} has {size:,} bytes, which are not {storage.length:,} values")
            memory = read_array(content, (size // dtype.itemsize,), dtype)
            content.read()  # the archive compares a record's checksum at its end
        return memory

    order = b"little"
    if f"{root}byteorder" in records:
        with open_record(f"{root}byteorder") as content:
            order = content.read()
    if order not in ORDERS:
        raise ValueError(f"its byte order is {order[:20]!r}")
    with open_record(pickle) as content:
        tensors = find_state(read_pickle(BytesIO(content.read()), LENT, _storage))
    return _arrays(tensors, read_storage, ORDERS[order])


def read_legacy(file: BoundedReader) -> dict[str, np.ndarray]:
    """The state in a checkpoint from before PyTorch 1.6, by name. Raises ValueError for what is damaged or refused."""
    named: dict[str, Storage] = {}

    def persistent(identity: Any) -> Storage:
        storage = _storage(identity)
        known = named.setdefault(storage.key, storage)
        if (known.dtype, known.length) != (storage.dtype, storage.length):
            raise ValueError(f"storage {storage.key!r} is named with two dtypes or lengths")
        if storage.dtype not in ITEM_SIZES or storage.length > file.length:
            kind = storage.dtype or "UntypedStorage"
            raise ValueError(f"storage {storage.key!r} is of {kind} and {storage.length:,} values, which such a file "
                             "cannot hold")
        return storage

    def next_pickle() -> Any:
        return read_pickle(file, LENT, persistent)

    magic, protocol, _ = next_pickle(), next_pickle(), next_pickle()
    if magic != LEGACY_MAGIC or protocol != 1001:
        raise ValueError("it is a pickle, but not one that torch.save wrote")
    tensors, keys = find_state(next_pickle()), next_pickle()
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise ValueError("it does not list its storages")
    places: dict[str, int] = {}
    for key in keys:
        header = file.read(8)
        if key not in named or len(header) < 8 or struct.unpack("<q", header)[0] != named[key].length:
            raise ValueError(f"storage {key[:40]!r} is missing, or has another length than its tensors say")
        places[key] = file.tell()
        file.seek(named[key].length * ITEM_SIZES[named[key].dtype], os.SEEK_CUR)
    if file.tell() > file.length:
        raise ValueError("it ends before its last storage does")

    def read_storage(storage: Storage, dtype: np.dtype) -> np.ndarray:
        file.seek(places[storage.key])
        return read_array(file, (storage.length,), dtype)

    return _arrays(tensors, read_storage, "<")
