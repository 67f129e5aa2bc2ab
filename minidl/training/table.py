"""Measurements as CSV files."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..io import write_atomically


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


def read_table(path: Path) -> list[dict[str, Any]]:
    """The rows that `write_table` wrote, numbers as int or float. Raises ValueError for rows of different lengths."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if any(None in row or None in row.values() for row in rows):
        raise ValueError(f"{path} is damaged: its rows are not all as long as the first")
    return [{name: _number(text) for name, text in row.items()} for row in rows]


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text
