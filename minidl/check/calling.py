"""Calling a student's function once: what it returns as arrays, or what went wrong, in words."""

from __future__ import annotations

import dis
import inspect
import linecache
import os
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .definition import as_array

NOT_DONE = "it is not done yet"

LIBRARIES, PACKAGE, STANDARD = (
    str(Path(path).parent) + os.sep for path in (np.__path__[0], Path(__file__).parent, inspect.__file__)
)
"""Folders whose code is not the student's."""


class Outcome(NamedTuple):
    """What one call gave: an array an output, or none and a complaint."""

    values: tuple[np.ndarray, ...] | None
    complaint: str = ""


def call(function: Callable[..., Any], arguments: Sequence[Any], names: Sequence[str], outputs: int) -> Outcome:
    """Call `function` with `arguments`, whose `names` are for the words, for as many `outputs`."""
    if complaint := _signature_complaint(function, names):
        return Outcome(None, complaint)
    before = [np.array(x) if isinstance(x, np.ndarray) else x for x in arguments]
    try:
        with np.errstate(all="ignore"):
            returned = function(*arguments)
    except (Exception, SystemExit) as error:
        return Outcome(None, NOT_DONE if _is_stub(error) else f"it {raised(error)}")
    for name, x, was in zip(names, arguments, before):
        if isinstance(x, np.ndarray) and not np.array_equal(x, was, equal_nan=True):
            return Outcome(None, f"it changes its input {name} in place (by {name} -= ..., {name}[...] = ... or out=); "
                                 f"work on a copy, or write {name} = {name} - ...")
    return _read(returned, outputs)


def raised(error: BaseException) -> str:
    """``raises ValueError: ... (line 3: y[i] = x[j])``: the innermost line that the student wrote."""
    if isinstance(error, SystemExit):
        return "calls sys.exit"
    kind = type(error).__name__
    text = f"raises {kind}: {error}" if str(error) else f"raises {kind}"
    if isinstance(error, SyntaxError):
        return text
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_students(frame.filename)]
    if not frames:
        return text
    line = (frames[-1].line or linecache.getline(frames[-1].filename, frames[-1].lineno or 0)).strip()
    return f"{text} (line {frames[-1].lineno}{f': {line}' if line else ''})"


def _is_stub(error: BaseException) -> bool:
    """Whether the student wrote ``raise NotImplementedError``; a library raises it for what it cannot do."""
    innermost = error.__traceback__
    while innermost and innermost.tb_next:
        innermost = innermost.tb_next
    if not isinstance(error, NotImplementedError) or innermost is None:
        return False
    code = innermost.tb_frame.f_code
    return _is_students(code.co_filename) and dis.opname[code.co_code[innermost.tb_lasti]] == "RAISE_VARARGS"


def _is_students(filename: str) -> bool:
    return not filename.startswith((LIBRARIES, PACKAGE, STANDARD, "<frozen"))


def _signature_complaint(function: Callable[..., Any], names: Sequence[str]) -> str:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some builtins have none
        return ""
    try:
        signature.bind(*names)
    except TypeError:
        return f"it takes {signature}, and is called with ({', '.join(names)})"
    return ""


def _read(returned: Any, outputs: int) -> Outcome:
    if returned is None:
        return Outcome(None, "it returns None: is its `return` missing, or is it not done yet?")
    if returned is ...:
        return Outcome(None, NOT_DONE)
    if outputs == 1:
        parts: Sequence[Any] = (returned,)
    elif isinstance(returned, (tuple, list)):
        parts = returned
    else:
        return Outcome(None, f"it returns one {type(returned).__name__}, and should return a tuple of {outputs}")
    if len(parts) != outputs:
        return Outcome(None, f"it returns {len(parts)} values, and should return {outputs}")
    try:
        values = tuple(map(as_array, parts))
    except ValueError:  # a ragged list
        return Outcome(None, "it returns a list whose parts have different lengths, and should return an array")
    for value in values:
        if value.dtype.kind not in "fiub":
            return Outcome(None, f"it returns {value.dtype} values, and should return real numbers"
                                 + (": a part of it is None?" if value.dtype.kind == "O" else ""))
    return Outcome(values)
