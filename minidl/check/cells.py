"""The Python of a submitted file, cell by cell: its encoding, a notebook's cells, and IPython's own syntax."""

from __future__ import annotations

import ast
import json
import re
import tokenize
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

PYTHON_CELLS = ("capture", "prun", "time", "timeit")
"""Cell magics whose cell is Python."""

_TIMED = re.compile(r"(\s*(?:[^=%!?#'\"]+=\s*)?)%time\s+(.*)", re.DOTALL)
"""``%time statement`` and ``x = %time expression``."""

_COMMAND = re.compile(r"(\s*)([^=%!?#'\"]+=\s*)?(%|!).*", re.DOTALL)
"""``%magic``, ``!command``, ``x = %magic`` and ``x = !command``."""

_HELP = re.compile(r"\s*\?.*|.*\?\s*(#.*)?|\s*(pip3?|conda)\s+install\b.*", re.DOTALL)
"""``?name``, ``name?`` and ``pip install name``."""


class Cell(NamedTuple):
    """A cell of a notebook, or the one that a Python file is."""

    place: str
    """What messages call it."""
    source: str
    """Python, with the line numbers of the original."""
    skipped: tuple[str, ...]
    """The lines that only IPython runs."""


def cells(path: Path) -> Iterator[Cell]:
    """The code cells of a file. Raises ValueError or OSError, in words, for what cannot be read."""
    if path.suffix.lower() == ".py":
        yield Cell(path.name, *python_of(_text(path)))
        return
    try:
        notebook = json.loads(path.read_bytes())
    except RecursionError as error:
        raise ValueError("its lists are nested too deeply") from error
    found = notebook.get("cells") if isinstance(notebook, dict) else None
    if not isinstance(found, list) or not all(isinstance(cell, dict) for cell in found):
        raise ValueError("it is not a notebook of format 4: it has no list of cells")
    for number, cell in enumerate(found, 1):
        if cell.get("cell_type") == "code":
            yield Cell(f"{path.name}, cell {number}", *python_of(_source(cell)))


def _text(path: Path) -> str:
    """The text of a Python file in the encoding that it declares, UTF-8 if it declares none."""
    if path.read_bytes()[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise ValueError("it is UTF-16, which Python does not run; save it as UTF-8")
    try:
        with tokenize.open(path) as file:
            return file.read()
    except (SyntaxError, UnicodeError, LookupError) as error:
        raise ValueError("it is not UTF-8, or not in the encoding that its first lines declare; save it as UTF-8"
                         ) from error


def _source(cell: dict[str, Any]) -> str:
    source = cell.get("source") or ""
    return source if isinstance(source, str) else "".join(line for line in source if isinstance(line, str))


def python_of(source: str) -> tuple[str, tuple[str, ...]]:
    """`source` with what only IPython runs replaced by Python that does nothing, and the lines that were replaced.

    Only lines at which Python finds a syntax error are looked at: text in a string is left alone.
    """
    lines, skipped = source.replace("\r\n", "\n").split("\n"), []
    for number, line in enumerate(lines):
        if line.startswith("%%"):
            if (line[2:].split() or [""])[0] not in PYTHON_CELLS:
                return "", (line.strip(),)
            lines[number] = ""
        elif line.strip():
            break
    while (bad := _bad_line(lines)) is not None:
        number, line = bad, lines[bad]
        if timed := _TIMED.fullmatch(line):
            lines[number] = timed[1] + timed[2]
            continue
        python = _python(line)
        if python is None:
            break
        skipped.append(line.strip())
        lines[number] = python
        while line.endswith("\\") and number + 1 < len(lines):
            number += 1
            line, lines[number] = lines[number], ""
    return "\n".join(lines), tuple(skipped)


def _bad_line(lines: list[str]) -> int | None:
    """The index of the line at which Python finds a syntax error."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse("\n".join(lines))
    except SyntaxError as error:
        return error.lineno - 1 if error.lineno and error.lineno <= len(lines) else None
    except Exception:  # null bytes, or nested too deeply: whoever runs it says so
        pass
    return None


def _python(line: str) -> str | None:
    """What IPython's `line` is without IPython; None if it is not IPython's."""
    if found := _COMMAND.fullmatch(line):
        indent, target, sign = found.groups(default="")
        return indent + (f"{target}{'[]' if sign == '!' else None}" if target else "pass")
    if _HELP.fullmatch(line):
        return line[: len(line) - len(line.lstrip())] + "pass"
    return None


class Shell:
    """What `get_ipython()` returns: cells of Python run, and whatever else is asked of it does nothing."""

    def __init__(self, namespace: dict[str, Any]):
        self._namespace = namespace

    def run_cell_magic(self, magic: str, line: str, cell: str) -> None:
        if magic in PYTHON_CELLS:
            exec(cell, self._namespace)

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments, **options: []
