"""The door for arrays: what may come in, what it becomes, and how dtypes go together.

Whatever is computed on has come through `plain`: the data of tensors, the arguments of operations, gradients, and the
values of a state. Behind it there are only arrays of NumPy or CuPy themselves, in this machine's byte order, of bools,
whole numbers, or floats of 16, 32 or 64 bits. They may be read-only, and lie in memory in any order: no operation
writes to its arguments.

Dtypes of results are PyTorch's. What an operation does with whole numbers and bools, it says by the kind of each
argument: `ARRAY`, `NUMBERS`, `FLOATS` or `AS_FLOATS`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from enum import Enum
from numbers import Integral, Real
from typing import Any

import numpy as np

from .backend import Array, array_module, is_array

DTYPES = frozenset(map(np.dtype, (
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64",
)))
"""What tensors hold."""


def plain(array: Array) -> Array:
    """`array` as a plain array in native byte order: itself, or a view, if it can be, else a copy.

    Raises TypeError for a masked array, whose masked values would count, and for a dtype that is not among `DTYPES`.
    """
    if type(array) is not np.ndarray and isinstance(array, np.ndarray):
        if isinstance(array, np.ma.MaskedArray):
            raise TypeError("a masked array cannot be a tensor, since its masked values would count; "
                            "write x.filled(0), or x.compressed() for those that are not masked")
        array = array.view(np.ndarray)
    if array.dtype in DTYPES:
        return array
    native = array.dtype.newbyteorder("=")
    if native in DTYPES:
        return array.astype(native)
    hint = "; write x.astype('float64')" if array.dtype.kind == "f" else ""
    raise TypeError("a tensor holds bools, whole numbers, or floats of 16, 32 or 64 bits; "
                    f"got an array of dtype {array.dtype}{hint}")


def from_python(data: Any, dtype: Any = None) -> np.ndarray:
    """A new array of a number, or of nested lists of numbers, arrays and tensors.

    Python's floats count as float32, all others by their own dtype, as in PyTorch. Raises ValueError for ragged lists,
    TypeError for what is not numbers.
    """
    array = np.array(data, dtype=dtype)
    if dtype is None and array.dtype == np.float64 and np.dtype(np.float64) not in _dtypes_in(data):
        array = array.astype(np.float32)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"a tensor holds numbers; got {type(data).__name__} of dtype {array.dtype}")
    return plain(array)


def _dtypes_in(data: Any) -> set[Any]:
    """The dtypes of the parts of nested lists that have one."""
    found, waiting = set(), [data]
    while waiting:
        part = waiting.pop()
        if isinstance(part, (list, tuple)):
            waiting.extend(part)
        else:
            found.add(getattr(part, "dtype", None))
    return found


# ---------------------------------------------------------------------------------------------
# What an operation takes
# ---------------------------------------------------------------------------------------------

class Kind(Enum):
    """What an argument of an operation may be. In front of all: a tensor or an array."""

    ARRAY = "any"
    """Of any dtype."""
    NUMBERS = "no bools"
    """Bools are refused; whole numbers are computed with as they are."""
    FLOATS = "floats"
    """Bools and whole numbers are refused."""
    AS_FLOATS = "floats, and whole numbers as float32"
    """Bools and whole numbers become float32."""
    BUFFER = "written to"
    """An array that the operation changes in place, as running statistics are."""


ARRAY, NUMBERS, FLOATS, AS_FLOATS, BUFFER = Kind


def admitted(operation: str, name: str, kind: Kind, x: Any) -> Any:
    """The argument `name` of `operation`, an array, as `kind` says. Raises TypeError for what it refuses."""
    if not is_array(x):
        raise TypeError(f"{operation}: {name} must be a tensor or an array; got {type(x).__name__} {x!r}. "
                        "Make one with minidl.tensor(...)")
    number = x.dtype.kind
    if number == "f" or kind is ARRAY or kind is BUFFER:
        return x
    if kind is AS_FLOATS:
        return x.astype(np.float32)
    if kind is FLOATS or number == "b":
        raise refusal(operation, name, x)
    return x


def refusal(operation: str, name: str, x: Array) -> TypeError:
    """The error of an operation that cannot compute with the dtype of its argument `name`."""
    if x.dtype.kind == "b":
        return TypeError(f'{operation}: {name} must be numbers; got {x.dtype}. Write x.to("float32")')
    return TypeError(f'{operation}: {name} must be floats; got {x.dtype}. Write x.to("float32"), or for images '
                     'x.to("float32") / 255')


def check_same_dtype(operation: str, **arrays: Array | None) -> None:
    """TypeError unless all arrays have one dtype: matrix products convert nothing silently, as in PyTorch."""
    dtypes = {name: array.dtype for name, array in arrays.items() if array is not None}
    if len(set(dtypes.values())) > 1:
        described = ", ".join(f"{name} is {dtype}" for name, dtype in dtypes.items())
        raise TypeError(f"{operation}: all must have the same dtype, but {described}; "
                        f'convert with x.to("{_common(dtypes.values())}")')


# ---------------------------------------------------------------------------------------------
# How dtypes go together
# ---------------------------------------------------------------------------------------------

def promoted(*operands: Any, floats: bool = False) -> tuple[Any, ...]:
    """Arrays and Python's numbers, ready to be computed with each other: in the dtype that PyTorch computes in.

    Floats go before whole numbers and these before bools, whatever their size: float32 and int64 give float32. An array
    without axes counts only if it is of a higher kind than those with axes, and a Python number only if it is of a
    higher kind than all of them; its dtype is then float32, int64 or bool. With `floats`, what would be computed in
    whole numbers or bools is computed in float32. Raises TypeError for what is neither array nor number, ValueError for
    a whole number of more than 64 bits.
    """
    dtype = getattr(operands[0], "dtype", None)
    if dtype is not None and dtype.kind == "f" and all(getattr(x, "dtype", None) is dtype for x in operands):
        return operands  # as almost always
    arrays = {x.dtype for x in operands if is_array(x)}
    numbers = _common(_dtype_of_number(x) for x in operands if not is_array(x))
    if len(arrays) == 1 and next(iter(arrays)).kind == "f":
        return operands  # a Python number takes the dtype of the array by itself
    axes = _common(x.dtype for x in operands if is_array(x) and x.ndim)
    scalars = _common(x.dtype for x in operands if is_array(x) and not x.ndim)
    dtype = _of_higher_kind(axes, _of_higher_kind(scalars, numbers))
    if floats and dtype is not None and dtype.kind != "f":
        dtype = np.dtype(np.float32)
    return tuple(_as(x, dtype) for x in operands)


_NUMBERS = ((bool, np.dtype(np.bool_)), (Integral, np.dtype(np.int64)), (Real, np.dtype(np.float32)))


def _dtype_of_number(x: Any) -> np.dtype:
    for kind, dtype in _NUMBERS:
        if isinstance(x, kind):
            return dtype
    raise TypeError(f"tensors are computed with tensors, arrays and numbers; got {type(x).__name__} {x!r}")


def _common(dtypes: Iterable[np.dtype]) -> np.dtype | None:
    common = None
    for dtype in dtypes:
        if common is None or (common.kind != "f" and dtype.kind == "f"):
            common = dtype
        elif dtype.kind == "f" or common.kind != "f":
            common = np.promote_types(common, dtype)
    return common


def _of_higher_kind(first: np.dtype | None, second: np.dtype | None) -> np.dtype | None:
    """The dtype of `first` and, where that is of a lower kind, of `second` or what both have in common."""
    if first is None or second is None:
        return first or second
    if first.kind == "f" or (first.kind in "iu" and second.kind != "f"):
        return first
    return _common((first, second))


def _as(x: Any, dtype: Any) -> Any:
    if not is_array(x):
        if isinstance(x, Integral) and not -(1 << 63) <= int(x) < 1 << 63:
            raise ValueError(f"{x} does not fit into 64 bits; write it as a float")
        with np.errstate(over="ignore"):
            return np.array(x).astype(dtype)[()]  # whole numbers wrap around, as in PyTorch; NumPy's would be refused
    return x.astype(dtype, copy=False)


# ---------------------------------------------------------------------------------------------
# float16 on the CPU: computed in float32, and rounded once
# ---------------------------------------------------------------------------------------------

def is_half(x: Any) -> bool:
    """Whether `x` is a float16 array of the CPU. NumPy would add up in float16 what a GPU adds up in float32."""
    return isinstance(x, np.ndarray) and x.dtype == np.float16


def widened(x: Any) -> Any:
    """A float16 array of the CPU in float32; everything else as it is."""
    return x.astype(np.float32) if is_half(x) else x


def narrowed(x: Array) -> Array:
    """A result in float32 as float16; what is too large for it becomes infinite."""
    with np.errstate(over="ignore"):
        return x.astype(np.float16)


def in_float32(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """`kernel`, a function of arrays to an array, computed in float32 and rounded once where arrays are float16."""
    @functools.wraps(kernel)
    def computed(*arguments: Any) -> Any:
        if any(map(is_half, arguments)):
            return narrowed(kernel(*map(widened, arguments)))
        return kernel(*arguments)

    return computed


def remember_last(function: Callable[[Array], Any]) -> Callable[[Array], Any]:
    """`function` of g, computed once while the gradients of several inputs ask for it with the same g in turn."""
    last: list[Any] = [None, None]

    def remembered(g: Array) -> Any:
        if last[0] is not g:
            last[:] = g, function(g)
        return last[1]

    return remembered


def full_as(x: Array, value: float, **options: Any) -> Array:
    """`numpy.full_like`, but a value that the dtype of `x` cannot hold is one ValueError; fractions are cut off."""
    xp = array_module(x)
    if x.dtype.kind in "iu" and not np.iinfo(x.dtype).min <= value <= np.iinfo(x.dtype).max:
        raise ValueError(f"the value {value} does not fit into {x.dtype}; write x.to('float32')")
    return xp.full_like(x, value, **options)
