"""Samples made into one batch, by the rules of `torch.utils.data.default_collate`.

A batch has the structure of one sample. Each array in it has one more axis, the first, for the samples.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, MutableMapping, MutableSequence, Sequence
from typing import Any

import numpy as np

from ..autograd import Tensor
from ..backend import Array, is_array, to_device


def default_collate(batch: Sequence[Any]) -> Any:
    """One batch of the samples in `batch`: arrays, tensors and numbers are stacked to tensors (N, …).

    Python's whole numbers, floats and bools become int64, float64 and bool; arrays, tensors and NumPy's numbers keep
    their dtype. Texts and bytes stay in a sequence. Tuples, named tuples, lists and dicts are collated item by item,
    at any depth, and keep their type (PyTorch makes tuples lists).

    Raises ValueError for samples of different shape or structure, TypeError for what cannot be collated, such as None.
    """
    return map_arrays(Tensor, collate(batch, range(len(batch))))


def collate(batch: Sequence[Any], names: Sequence[int], place: str = "") -> Any:
    """`default_collate` with arrays for tensors, and `names` for the samples in errors. `place`: where in a sample."""
    if not batch:
        raise ValueError("a batch of no samples has no structure")
    first = batch[0]
    _check_alike("is", [_kind(item) for item in batch], names, place)
    if isinstance(first, (str, bytes)):
        return batch
    if _is_numeric(first):
        arrays = [_as_array(item) for item in batch]
        _check_alike("has the shape", [array.shape for array in arrays], names, place,
                     "; give all samples one shape, pass a collate_fn, or use batch_size=1")
        if all(_fits_tensor(array) for array in arrays):
            return np.stack(arrays)
    elif isinstance(first, Mapping):
        return _like(first, {key: collate([item[key] for item in batch], names, f"{place}[{key!r}]") for key in first})
    elif isinstance(first, Sequence):
        return _like(first, [collate(items, names, f"{place}[{index}]") for index, items in enumerate(zip(*batch))])
    raise TypeError(f"{_name(names[0], place)} is {first!r:.60}, a {type(first).__name__}; a batch is made of tensors, "
                    "arrays, numbers, texts, and tuples, lists and dicts of these: convert it, or pass a collate_fn")


def map_arrays(function: Callable[[Array], Any], batch: Any) -> Any:
    """`batch` with `function` of each array of numbers and each tensor's array. Anything else stays as it is."""
    if isinstance(batch, Tensor):
        return function(batch.data)
    if is_array(batch):
        return function(batch) if _fits_tensor(batch) else batch
    if isinstance(batch, Mapping):
        return _like(batch, {key: map_arrays(function, item) for key, item in batch.items()})
    if isinstance(batch, Sequence) and not isinstance(batch, (str, bytes, bytearray, memoryview)):
        return _like(batch, [map_arrays(function, item) for item in batch])
    return batch


def _like(container: Any, items: Any) -> Any:
    """`items`, a dict or a list, in a container of the type of `container`."""
    if isinstance(container, tuple):
        return type(container)(*items) if hasattr(container, "_fields") else tuple(items)
    try:
        if isinstance(container, (MutableMapping, MutableSequence)):
            clone: Any = copy.copy(container)  # with what else it carries, such as a default
            for key, item in items.items() if isinstance(items, dict) else enumerate(items):
                clone[key] = item
            return clone
        return type(container)(items)
    except TypeError:  # a type that cannot be made so, such as range
        return items


def _is_numeric(item: Any) -> bool:
    """Whether NumPy makes an array of it: numbers, arrays and tensors, also those of other libraries."""
    return isinstance(item, (int, float, complex)) or is_array(item) or hasattr(type(item), "__array__")


def _as_array(item: Any) -> np.ndarray:
    item = item.data if isinstance(item, Tensor) else item
    return to_device(item, "cpu") if is_array(item) else np.asarray(item)


def _fits_tensor(array: Array) -> bool:
    return array.dtype.kind in "fiub"


def _kind(item: Any) -> str:
    """What samples of one batch must have in common, in words."""
    if isinstance(item, (str, bytes)):
        return "a text"
    if _is_numeric(item):
        return "numbers"
    if isinstance(item, Mapping):
        return f"a {type(item).__name__} with the keys {', '.join(sorted(map(repr, item)))}"
    return f"a {type(item).__name__}" + (f" of {len(item)} items" if isinstance(item, Sequence) else "")


def _check_alike(verb: str, values: Sequence[Any], names: Sequence[int], place: str, advice: str = "") -> None:
    for value, name in zip(values, names):
        if value != values[0]:
            raise ValueError(f"{_name(name, place)} {verb} {value}, but sample {names[0]} of the same batch {verb} "
                             f"{values[0]}{advice}")


def _name(name: int, place: str) -> str:
    return f"{place} of sample {name}" if place else f"sample {name}"
