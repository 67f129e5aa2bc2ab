"""Measurements as CSV files."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..io import write_atomically
from .structure import shortened


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows with the same names to `path`, atomically; floats keep every bit. Raises ValueError for no rows."""
    if not rows:
        raise ValueError(f"there are no rows to write to {path}")

    def write(part: Path) -> None:
        with open(part, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)

    write_atomically(path, write)


def read_table(path: Path, columns: Mapping[str, type] | None = None) -> list[dict[str, Any]]:
    """The rows that `write_table` wrote, numbers as int or float.

    `columns`: the names, in order, and the type of each, int, float or str. Raises ValueError, naming `path`, for a
    file that is not CSV, rows of different lengths, other names, and values of another type.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            names, rows = list(reader.fieldnames or []), list(reader)
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is damaged: not a table ({error})") from None
    if any(None in row or None in row.values() for row in rows):
        raise ValueError(f"{path} is damaged: its rows are not all as long as the first")
    if columns is None:
        return [{name: _number(text) for name, text in row.items()} for row in rows]
    if names != [*columns]:
        raise ValueError(f"{path} is damaged: it has the columns {shortened(names)}; expected {[*columns]}")
    return [{name: _value(kind, row[name], name, path) for name, kind in columns.items()} for row in rows]


def _value(kind: type, text: str, name: str, path: Path) -> Any:
    try:
        return kind(text)
    except ValueError:
        number = "a whole number" if kind is int else "a number"
        raise ValueError(f"{path} is damaged: {name} is {shortened(text)}, not {number}") from None


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text
