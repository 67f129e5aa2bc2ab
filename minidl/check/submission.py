"""The process of one submission: it loads the files, and calls their functions when `grading` asks.

A request is a line of JSON on what was standard input, an answer one on what was standard output; the submission
itself reads nothing and prints elsewhere. Right answers and verdicts are never here.
"""

from __future__ import annotations

import base64
import json
import linecache
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .calling import Outcome, raised
from .catalog import EXERCISES
from .checker import ExerciseError, local

SUFFIXES = (".ipynb", ".py")


def main() -> None:
    """Answer requests until there are no more: first with what was loaded, then a case at a time."""
    requests, answers = _take_channel()
    settings = json.loads(requests.readline())
    _limit(settings["memory"], settings["processor_seconds"])
    threading.Thread(target=_end_with, args=(settings["grader"],), daemon=True).start()
    submission = Path(settings["submission"])
    functions, notes = load(submission)
    _send(answers, {"functions": list(functions), "notes": notes})
    prepared: dict[str, Callable[[int], Outcome]] = {}
    for line in requests:
        request = json.loads(line)
        name = request["exercise"]
        if name not in prepared:
            prepared[name] = local(EXERCISES[name], functions[name])
        _send(answers, encode(prepared[name](request["case"])))


def load(submission: Path) -> tuple[dict[str, Callable[..., Any]], list[str]]:
    """Run a file, or all files of a folder by name: the functions named like an exercise, and notes on what happened.

    Of functions defined twice the last counts. What fails ends its cell or file, and nothing else.
    """
    functions: dict[str, Callable[..., Any]] = {}
    notes: list[str] = []
    for path in files_of(submission):
        sys.path.insert(0, str(path.parent))
        namespace: dict[str, Any] = {"__name__": "submission", "__file__": str(path)}
        try:
            for place, source in _cells(path):
                notes += _run(place, source, namespace)
        except (ValueError, OSError) as error:
            notes.append(f"{path.name} cannot be read: {error}")
        found = {name: namespace[name] for name in EXERCISES if callable(namespace.get(name))}
        for name in [name for name, function in found.items() if _is_minidls(function)]:
            notes.append(f"{name} in {path.name} is minidl's own function, which does not count")
            del found[name]
        notes += [f"{name} is defined again in {path.name}, which counts" for name in found if name in functions]
        functions |= found
    return functions, notes


def _is_minidls(function: Callable[..., Any]) -> bool:
    return str(getattr(function, "__module__", "")).startswith(f"{__package__.partition('.')[0]}.")


def files_of(submission: Path) -> list[Path]:
    """The Python files and notebooks of a submission, by name; hidden ones and checkpoints do not count."""
    if submission.is_file():
        return [submission]
    return sorted(path for path in submission.rglob("*") if path.suffix in SUFFIXES and path.is_file()
                  and not any(part.startswith((".", "__")) for part in path.relative_to(submission).parts))


def _cells(path: Path) -> Iterator[tuple[str, str]]:
    """(its name, source) of each code cell of a notebook, or of the one that a Python file is."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        yield path.name, text
        return
    notebook = json.loads(text)
    cells = notebook.get("cells") if isinstance(notebook, dict) else None
    if not isinstance(cells, list) or not all(isinstance(cell, dict) for cell in cells):
        raise ValueError("it is no notebook of format 4: it has no list of cells")
    for number, cell in enumerate(cells, 1):
        if cell.get("cell_type") == "code":
            yield f"{path.name}, cell {number}", "".join(cell.get("source", ""))


def _run(place: str, source: str, namespace: dict[str, Any]) -> list[str]:
    """Execute one cell; notes on what was skipped and what went wrong."""
    notes = []
    if place.endswith(".py"):
        plain = source
    else:
        plain, skipped = _without_magics(source)
        notes += [f"{place}: skipped {skipped[0]!r}{f' and {len(skipped) - 1} more' if skipped[1:] else ''}, "
                  "which only IPython runs"] if skipped else []
    linecache.cache[place] = (len(plain), None, plain.splitlines(keepends=True), place)
    try:
        exec(compile(plain, place, "exec"), namespace)
    except ExerciseError:  # the verdict says the same
        pass
    except BaseException as error:
        notes.append(f"{place} {raised(error)}")
    return notes


def _without_magics(source: str) -> tuple[str, list[str]]:
    """`source` without the lines that are IPython's and not Python's, and those lines."""
    try:
        compile(source, "cell", "exec")
        return source, []
    except (SyntaxError, ValueError):
        lines = source.splitlines()
    if lines and lines[0].startswith("%%"):
        return "", lines[:1]
    skipped = [line for line in lines if line.lstrip().startswith(("%", "!")) or line.rstrip().endswith("?")]
    kept = [line[: len(line) - len(line.lstrip())] + "pass" if line in skipped else line for line in lines]
    return "\n".join(kept), [line.strip() for line in skipped]


# ---------------------------------------------------------------------------------------------
# The channel, and the limits
# ---------------------------------------------------------------------------------------------

def _take_channel() -> tuple[BinaryIO, BinaryIO]:
    """The pipes of the channel, moved to where a submission does not come across them by accident."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    return requests, answers


def _send(answers: BinaryIO, message: dict[str, Any]) -> None:
    answers.write(json.dumps(message).encode() + b"\n")
    answers.flush()


def _limit(memory: int, processor_seconds: int) -> None:
    """Bytes of address space and of a file, seconds of processor time; no core dumps."""
    import resource  # Windows has none

    for kind, limit in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_FSIZE, memory), (resource.RLIMIT_CORE, 0),
                        (resource.RLIMIT_CPU, processor_seconds)):
        hard = resource.getrlimit(kind)[1]
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(kind, (limit, limit))


def _end_with(grader: int) -> None:
    """End this process and those that it started when the grader is gone, by whatever signal."""
    while os.getppid() == grader:
        time.sleep(0.5)
    os.killpg(0, signal.SIGKILL)


def encode(outcome: Outcome) -> dict[str, Any]:
    """An outcome as JSON."""
    values = None if outcome.values is None else [
        {"dtype": value.dtype.str, "shape": value.shape, "data": base64.b64encode(value.tobytes()).decode()}
        for value in outcome.values
    ]
    return {"values": values, "complaint": outcome.complaint}


def decode(message: dict[str, Any], outputs: int) -> Outcome:
    """The outcome in an answer, which may be anything. Raises ValueError for what is no outcome of so many outputs."""
    try:
        values, complaint = message["values"], message["complaint"]
        if values is None and isinstance(complaint, str) and complaint:
            return Outcome(None, complaint)
        arrays = tuple(_decode_array(value) for value in values)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("it is no outcome of a call") from error
    if len(arrays) != outputs:
        raise ValueError(f"it holds {len(arrays)} outputs instead of {outputs}")
    return Outcome(arrays)


def _decode_array(value: dict[str, Any]) -> np.ndarray:
    dtype, shape, data = np.dtype(value["dtype"]), value["shape"], base64.b64decode(value["data"], validate=True)
    if dtype.kind not in "fiub" or not all(type(n) is int and n >= 0 for n in shape) or len(shape) > 8:
        raise ValueError(f"it holds an array of dtype {dtype} and shape {shape}")
    if math.prod(shape) * dtype.itemsize != len(data):
        raise ValueError(f"it holds {len(data)} bytes for an array of shape {shape}")
    return np.frombuffer(data, dtype).reshape(shape)


if __name__ == "__main__":
    main()
