"""Whether values read from JSON have the structure of known ones."""

from __future__ import annotations

import math
from typing import Any


def check_structure(found: Any, expected: Any, name: str = "it") -> None:
    """Raise ValueError, naming the place, unless `found` is built as `expected` is.

    Dictionaries must have the same keys and lists the same length. Texts must be equal. For a float any finite number
    will do, for an int any whole number from 0, for a boolean any boolean.
    """
    if isinstance(expected, dict):
        if not isinstance(found, dict) or found.keys() != expected.keys():
            raise _wrong(name, sorted(found) if isinstance(found, dict) else found, f"the keys {sorted(expected)}")
        for key, value in expected.items():
            check_structure(found[key], value, f"{name}[{key!r}]")
    elif isinstance(expected, (list, tuple)):
        if not isinstance(found, list) or len(found) != len(expected):
            raise _wrong(name, found, f"a list of {len(expected)}")
        for index, value in enumerate(expected):
            check_structure(found[index], value, f"{name}[{index}]")
    elif isinstance(expected, float):
        if isinstance(found, bool) or not isinstance(found, (int, float)) or not math.isfinite(found):
            raise _wrong(name, found, "a finite number")
    elif isinstance(expected, int) and not isinstance(expected, bool):
        if isinstance(found, bool) or not isinstance(found, int) or found < 0:
            raise _wrong(name, found, "a whole number from 0")
    elif type(found) is not type(expected) or (isinstance(expected, str) and found != expected):
        raise _wrong(name, found, "true or false" if isinstance(expected, bool) else repr(expected))


def _wrong(name: str, found: Any, expected: str) -> ValueError:
    return ValueError(f"{name} is {shortened(found)}; expected {expected}")


def shortened(value: Any) -> str:
    """`value` as Python writes it, cut after 100 characters."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:99]}…"
