"""Noticing that memory was changed in place while a gradient function still needs its old values.

Tensors that view the same memory share a `Version`, which counts the changes. A recorded operation
keeps a `Guard` for each tensor it saw: when its gradient is due and the count has moved, it looks whether its
gradient functions really hold that memory.
"""

from __future__ import annotations

import functools
import inspect
import weakref
from collections.abc import Iterator
from types import CellType
from typing import Any

from .backend import Array, array_module, is_array

EMPTY = CellType()
"""A variable that a function captured before it had a value."""


class Version:
    """Counts the in-place changes of one piece of memory; tensors that view it share one."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


class Guard:
    """One piece of memory, and how often it had been changed when an operation saw it. Does not keep it alive."""

    __slots__ = ("count", "owner", "version")

    def __init__(self, version: Version, array: Array):
        # The owner of the memory lives as long as any view of it.
        while array.base is not None and is_array(array.base):
            array = array.base
        self.version, self.count, self.owner = version, version.count, weakref.ref(array)

    def changes(self, functions: Any) -> int:
        """How many changes came since, if one of `functions` holds the memory; else 0."""
        owner = self.owner() if self.version.count != self.count else None
        if owner is None:
            return 0
        shares = array_module(owner).may_share_memory
        held = any(shares(owner, array) for array in _arrays_in(functions, set()))
        return self.version.count - self.count if held else 0


def same_memory(value: Array, array: Array) -> bool:
    """Whether `value` is `array`, or a view of the same memory, as what an operation returns may be of its input."""
    return value is array or (value.base is not None and (value.base is array or value.base is array.base))


def _arrays_in(value: Any, seen: set[int]) -> Iterator[Array]:
    """The arrays that functions reach through what they captured, directly or in tuples, lists, dicts and partials."""
    if id(value) in seen:
        return
    seen.add(id(value))
    parts: Any = ()
    if is_array(value):
        yield value
    elif isinstance(value, (tuple, list)):
        parts = value
    elif isinstance(value, dict):
        parts = value.values()
    elif isinstance(value, functools.partial):
        parts = value.func, value.args, value.keywords
    elif inspect.isfunction(value):
        cells = [cell for cell in value.__closure__ or () if cell != EMPTY]
        parts = [*(cell.cell_contents for cell in cells), value.__defaults__, value.__kwdefaults__]
    for part in parts:
        yield from _arrays_in(part, seen)
