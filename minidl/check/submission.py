"""The process of one submission: it loads the files, and calls their functions when `grading` asks.

A request is a line of JSON on what was standard input, an answer one on what was standard output; the submission
itself reads nothing and prints elsewhere. Right answers and verdicts are never here.
"""

from __future__ import annotations
import __future__

import ast
import base64
import builtins
import json
import linecache
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import module_from_spec
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

import numpy as np

from .calling import Outcome, raised
from .catalog import EXERCISES
from .cells import Cell, Shell, cells
from .checker import ExerciseError, local
from .files import sources

PACKAGE = "_submission"
"""The package that a submission's files are modules of."""

MAX_FAILURES = 3
"""Failing statements of a cell that are noted one by one."""

FUTURES = sum(getattr(__future__, name).compiler_flag for name in __future__.all_feature_names)
"""Compiler flags of the __future__ imports, which hold for the cells that follow, too."""


def main() -> None:
    """Set the limits and load the submission, then answer requests until there are no more, one case at a time."""
    requests, answers = _take_channel()
    settings = json.loads(requests.readline())
    _send(answers, {"unlimited": limit(settings["memory"], settings["file"], settings["processor_seconds"])})
    threading.Thread(target=_end_with, args=(settings["grader"],), daemon=True).start()
    functions, notes = load(Path(settings["submission"]))
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

    Of functions defined twice the last counts. A statement that fails ends nothing but itself; sys.exit ends its cell.
    """
    functions: dict[str, Callable[..., Any]] = {}
    notes: list[str] = []
    own_modules = _OwnModules(submission)
    for path in sources(submission):
        try:
            own_modules.enter(path.parent)
            namespace, flags = _module(path, own_modules.root).__dict__, 0
            for cell in cells(path):
                said, flags = _run(cell, namespace, flags)
                notes += said
        except Exception as error:
            notes.append(f"{path.name} cannot be read: {error}")
            continue
        found = {name: namespace[name] for name in EXERCISES if callable(namespace.get(name))}
        for name in [name for name, function in found.items() if _is_minidls(function)]:
            notes.append(f"{name} in {path.name} is minidl's own function, which does not count")
            del found[name]
        notes += [f"{name} is defined again in {path.name}, which counts" for name in found if name in functions]
        functions |= found
    return functions, notes


def _is_minidls(function: Callable[..., Any]) -> bool:
    return str(getattr(function, "__module__", "")).startswith(f"{__package__.partition('.')[0]}.")


def _run(cell: Cell, namespace: dict[str, Any], flags: int) -> tuple[list[str], int]:
    """Execute one cell: notes on what was skipped and what went wrong, and the `flags` of its __future__ imports."""
    more = f" and {len(cell.skipped) - 1} more" if cell.skipped[1:] else ""
    notes = [f"{cell.place}: skipped {cell.skipped[0]!r}{more}, which only IPython runs"] if cell.skipped else []
    linecache.cache[cell.place] = (len(cell.source), None, cell.source.splitlines(keepends=True), cell.place)
    failures: list[BaseException] = []
    try:
        statements = ast.parse(cell.source, cell.place).body
    except Exception as error:
        statements, failures = [], [error]
    for statement in statements:
        try:
            code = compile(ast.Module([statement], []), cell.place, "exec", flags, dont_inherit=True)
            flags |= code.co_flags & FUTURES
            exec(code, namespace)
        except ExerciseError:  # the verdict says the same
            pass
        except BaseException as error:
            failures.append(error)
            if isinstance(error, SystemExit):
                break
    notes += [f"{cell.place} {raised(error)}" for error in failures[:MAX_FAILURES]]
    if rest := failures[MAX_FAILURES:]:
        notes.append(f"{cell.place}: {len(rest)} more statements fail")
    return notes, flags


# ---------------------------------------------------------------------------------------------
# Modules of the submission
# ---------------------------------------------------------------------------------------------

class _OwnModules(MetaPathFinder):
    """Finds the modules of a submission before installed ones that are not loaded yet.

    A file that is named as a module of the standard library is not found: it would break other modules. Only the
    imports of the file beside it mean it (see `_import`).
    """

    def __init__(self, submission: Path):
        self.submission = submission
        self.root = submission if submission.is_dir() else submission.parent
        self.folders: list[str] = []
        package = ModuleSpec(PACKAGE, None, is_package=True)
        package.submodule_search_locations = [str(self.root)]
        sys.modules[PACKAGE] = module_from_spec(package)
        sys.meta_path.insert(0, self)

    def enter(self, folder: Path) -> None:
        """Let a file of this folder find what is beside it, by import and by relative path."""
        os.chdir(folder)
        if self.folders[:1] == [str(folder)]:
            return
        for name, module in list(sys.modules.items()):  # this folder may have helpers of the same names as the last
            file = getattr(module, "__file__", None)
            if file and Path(file).is_relative_to(self.root) and not name.startswith(PACKAGE):
                del sys.modules[name]
        self.folders = [str(folder), *(other for other in self.folders if other != str(folder))]
        sys.path = [path for path in sys.path if path not in self.folders] + self.folders  # for namespace packages

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if path is not None or name in sys.stdlib_module_names:
            return None
        spec = PathFinder.find_spec(name, self.folders)
        return spec if spec and spec.has_location and spec.origin != str(self.submission) else None


def _module(path: Path, root: Path) -> ModuleType:
    """A module for the file at `path`, which pickle, dataclasses and relative imports find."""
    relative = path.relative_to(root)
    stem = path.stem if path.suffix.lower() == ".py" else path.name
    module = ModuleType(".".join((PACKAGE, *relative.parent.parts, stem)))
    module.__package__ = module.__name__.removesuffix(f".{stem}")
    module.__file__ = str(path)
    sys.argv = [str(path)]
    sys.modules[module.__name__] = module
    shell = Shell(module.__dict__)
    module.__dict__.update(
        __builtins__={**vars(builtins), "__import__": _import}, get_ipython=lambda: shell,
        display=lambda *objects, **options: None,
    )
    return module


def _import(
    name: str, globals: dict[str, Any] | None = None, locals: dict[str, Any] | None = None,
    fromlist: Sequence[str] = (), level: int = 0,
) -> ModuleType:
    """`__import__` in a submission's own files: a helper beside the file goes before a module of the standard library.
    """
    top, path = name.partition(".")[0], Path((globals or {}).get("__file__") or "")
    if level == 0 and top in sys.stdlib_module_names and path.name:
        beside = path.with_name(f"{top}.py"), path.with_name(top) / "__init__.py"
        if any(file.is_file() and file != path for file in beside):
            level = 1
    return builtins.__import__(name, globals, locals, fromlist, level)


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


def limit(memory: int, file: int, processor_seconds: int) -> list[str]:
    """Limit bytes of address space and of a file, seconds of processor time, and core dumps; the limits refused."""
    import resource  # Windows has none

    refused = []
    for what, name, most in (("memory", "RLIMIT_AS", memory), ("the size of files", "RLIMIT_FSIZE", file),
                             ("core dumps", "RLIMIT_CORE", 0), ("processor time", "RLIMIT_CPU", processor_seconds)):
        try:
            kind = getattr(resource, name)
            hard = resource.getrlimit(kind)[1]
            most = most if hard == resource.RLIM_INFINITY else min(most, hard)
            resource.setrlimit(kind, (most, most))
        except (AttributeError, ValueError, OSError):  # macOS refuses to limit memory
            refused.append(what)
    return refused


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
