"""grade: a folder of submissions, each run in a process of its own, and judged in this one.

What a submission's process sends are the arrays that its functions returned; they are compared with the right answers
here. So nothing that it prints, patches or sends makes it pass but right numbers. Limits hold for accidents; this is no
sandbox. A submission runs with the rights of whoever grades: it can read their files, use the network, start processes
that leave its group, and get right numbers from minidl's own functions.
"""

from __future__ import annotations

import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .calling import Outcome
from .catalog import EXERCISES
from .checker import ExerciseError, judge
from .submission import SUFFIXES, decode, files_of

PRINTED = 10 * 2**20
"""Bytes that a submission may print, each time that it is loaded."""

ANSWER = 2**20
"""Bytes of the longest answer to one call."""

KEPT = 2000
"""Characters of a text from a submission that are kept."""

INHERITED = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT")
"""What a submission sees of the environment: no keys and passwords that it may hold."""


@dataclass(frozen=True)
class Limits:
    """What one submission may take."""

    seconds: float = 10.0
    """To be loaded, and again for each exercise."""
    memory: int = 2048
    """MiB of address space."""

    def __post_init__(self) -> None:
        if not self.seconds > 0:
            raise ValueError(f"grade: the seconds of a submission must be more than 0; got {self.seconds:g}")
        if self.memory < 256:
            raise ValueError("grade: a submission needs at least 256 MiB, most of it for Python and NumPy themselves; "
                             f"got {self.memory}")


@dataclass(frozen=True)
class Verdict:
    """On one exercise of one submission."""

    exercise: str
    status: str
    """``"passed"``, ``"wrong"``, ``"stopped"`` (by a limit, or by itself), ``"missing"``, or ``"not loaded"``: there is
    nothing in the submission, and a note says why."""
    diagnosis: str = ""
    """One line."""
    message: str = ""
    """The whole explanation, as the student sees it."""


@dataclass(frozen=True)
class Grade:
    """On one submission: a verdict an exercise, and notes on how it could be loaded."""

    student: str
    verdicts: tuple[Verdict, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> int:
        return sum(verdict.status == "passed" for verdict in self.verdicts)


def grade(
    folder: str | os.PathLike[str], limits: Limits | None = None, jobs: int | None = None,
    finished: Callable[[Grade], object] = lambda grade: None,
) -> list[Grade]:
    """Judge every submission in `folder`: a Python file, a notebook, or a folder of them, whose name is the student's.

    Of two with one name, each is called by its file's. A function is the answer to the exercise of the same name. Every
    exercise that some submission answers is asked of all. `limits` hold for each submission, `jobs` of which run at
    once (default: one a processor); `finished` is told of each as it ends. The grades are in the order of the names.

    Raises ValueError for a folder without submissions or limits that make no sense, OSError for one that cannot be
    read or a system without POSIX processes.
    """
    if os.name != "posix":
        raise OSError("grade: the limits of a submission need Linux or macOS; on Windows use WSL")
    if jobs is not None and jobs < 1:
        raise ValueError(f"grade: at least one submission must run at once; got {jobs} jobs")
    if not Path(folder).is_dir():
        raise ValueError(f"grade takes a folder with a submission a student; {folder} is none")
    entries = sorted((entry for entry in Path(folder).iterdir() if not entry.name.startswith((".", "__"))),
                     key=lambda entry: (_student(entry), entry.name))
    submissions = [entry for entry in entries if (entry.is_dir() and files_of(entry)) or entry.suffix in SUFFIXES]
    if not submissions:
        raise ValueError(f"there are no submissions in {folder}: no .py file, no notebook and no folder with one")
    cancelled, names = threading.Event(), Counter(map(_student, submissions))

    def graded(submission: Path) -> Grade:
        student = _student(submission)
        called = student if names[student] == 1 else plain(submission.name)
        result = _Submission(submission, called, limits or Limits(), cancelled).grade()
        finished(result)
        return result

    with ThreadPoolExecutor(jobs or os.cpu_count() or 1) as pool:
        try:
            grades = list(pool.map(graded, submissions))
        except BaseException:
            cancelled.set()
            pool.shutdown(cancel_futures=True)
            raise
    return _complete(grades)


def _student(submission: Path) -> str:
    return plain(submission.stem if submission.suffix in SUFFIXES else submission.name)


def _complete(grades: list[Grade]) -> list[Grade]:
    """Every exercise that was answered by someone, in the order of the lecture, for everyone."""
    answered = {verdict.exercise for grade in grades for verdict in grade.verdicts}
    completed = []
    for grade in grades:
        verdicts = {verdict.exercise: verdict for verdict in grade.verdicts}
        unloaded = bool(grade.notes) and not verdicts
        missing = {name: Verdict(name, "not loaded", grade.notes[0]) if unloaded else
                   Verdict(name, "missing", f"there is no function {name}") for name in answered}
        all_verdicts = tuple((missing | verdicts)[name] for name in EXERCISES if name in answered)
        completed.append(Grade(grade.student, all_verdicts, grade.notes))
    return completed


def plain(text: str) -> str:
    """`text` from a submission on one line, without what could move a terminal's cursor."""
    return " ".join("".join(c if c.isprintable() else " " for c in text[:KEPT]).split())


class Stopped(Exception):
    """A process that reached a limit, or ended."""


@dataclass
class _Submission:
    path: Path
    student: str
    limits: Limits
    cancelled: threading.Event
    process: _Process | None = field(default=None, init=False)

    def grade(self) -> Grade:
        with tempfile.TemporaryDirectory(prefix="minidl-grade-", ignore_cleanup_errors=True) as folder:
            self.copy = Path(folder) / self.path.name
            try:
                if self.path.is_dir():
                    shutil.copytree(self.path, self.copy, symlinks=True)
                else:
                    shutil.copyfile(self.path, self.copy)
                functions, notes = self._load()
                return Grade(self.student, tuple(map(self._verdict, functions)), tuple(notes))
            except (Stopped, OSError, shutil.Error) as stop:
                return Grade(self.student, notes=(f"it could not be loaded: {plain(str(stop))}",))
            finally:
                self._end()

    def _load(self) -> tuple[list[str], list[str]]:
        """Start a process; the names of the exercises that it answers, and notes."""
        self.process = _Process(self.copy, self.limits, self.cancelled)
        loaded = self.process.receive(time.monotonic() + self.limits.seconds)
        functions, notes = loaded.get("functions"), loaded.get("notes")
        if not isinstance(functions, list) or not isinstance(notes, list):
            raise Stopped("its process sent something that is no answer")
        return [name for name in EXERCISES if name in functions], [plain(str(note)) for note in notes[:20]]

    def _verdict(self, name: str) -> Verdict:
        try:
            if self.process is None:
                self._load()
            deadline = time.monotonic() + self.limits.seconds
            message = judge(EXERCISES[name], lambda position: self._answer(name, position, deadline))
            return Verdict(name, "passed", message=message)
        except ExerciseError as error:
            return Verdict(name, "wrong", plain(error.diagnosis), str(error))
        except Stopped as stop:
            self._end()
            return Verdict(name, "stopped", str(stop))
        except Exception as error:  # one submission never takes the summary of all with it
            return Verdict(name, "stopped", plain(f"it could not be judged: {type(error).__name__}: {error}"))

    def _answer(self, name: str, position: int, deadline: float) -> Outcome:
        assert self.process is not None
        self.process.send({"exercise": name, "case": position})
        answer = self.process.receive(deadline)
        try:
            values, complaint = decode(answer, len(EXERCISES[name].outputs))
        except ValueError as error:
            raise Stopped(f"its process sent something that is no answer: {plain(str(error))}") from error
        return Outcome(values, plain(complaint))

    def _end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process = None


class _Process:
    """A process that runs `submission`, and the pipes to it."""

    def __init__(self, path: Path, limits: Limits, cancelled: threading.Event):
        self.limits, self.cancelled = limits, cancelled
        self.received, self.printed = bytearray(), 0
        self.process = subprocess.Popen(
            [sys.executable, "-m", "minidl.check.submission"], cwd=path.parent, env=_environment(path.parent),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )
        assert self.process.stdin and self.process.stdout and self.process.stderr
        self.requests, self.answers, self.output = self.process.stdin, self.process.stdout, self.process.stderr
        self.selector = selectors.DefaultSelector()
        for stream in (self.answers, self.output):
            os.set_blocking(stream.fileno(), False)
            self.selector.register(stream, selectors.EVENT_READ)
        self.send({"submission": str(path), "memory": limits.memory * 2**20, "grader": os.getpid(),
                   "processor_seconds": int(limits.seconds * (len(EXERCISES) + 1)) + 1})

    def send(self, message: dict[str, Any]) -> None:
        with suppress(BrokenPipeError):  # `receive` says why
            self.requests.write(json.dumps(message).encode() + b"\n")
            self.requests.flush()

    def receive(self, deadline: float) -> dict[str, Any]:
        """The next answer. Raises Stopped where none comes in time, or too much."""
        while b"\n" not in self.received:
            self._wait(deadline)
        line, _, rest = bytes(self.received).partition(b"\n")
        self.received = bytearray(rest)
        try:
            message = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise Stopped("its process sent something that is no answer") from error
        if not isinstance(message, dict):
            raise Stopped("its process sent something that is no answer")
        return message

    def _wait(self, deadline: float) -> None:
        """Read what comes next, on either pipe."""
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise Stopped(f"it takes longer than {self.limits.seconds:g} s")
        if self.cancelled.is_set():
            raise Stopped("the grading was interrupted")
        for key, _ in self.selector.select(min(remaining, 0.5)):
            data = os.read(key.fd, 2**16)
            if key.fileobj is self.output:
                self.printed += len(data)
                if not data:
                    self.selector.unregister(self.output)
            elif not data:
                raise Stopped(self._ending())
            else:
                self.received += data
        if self.printed > PRINTED:
            raise Stopped(f"it prints more than {PRINTED // 2**20} MiB")
        if len(self.received) > ANSWER:
            raise Stopped(f"it returns more than {ANSWER // 2**20} MiB")

    def _ending(self) -> str:
        """How the process ended, once its channel is closed."""
        try:
            status = self.process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            return "its process closed the channel to the grader"
        if status < 0:
            return f"its process crashed: {signal.strsignal(-status) or -status}"
        return f"its process ended itself, with exit status {status}"

    def kill(self) -> None:
        """End the process, its threads and the processes that it started."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.selector.close()
        for stream in (self.requests, self.answers, self.output):
            with suppress(BrokenPipeError):
                stream.close()


def _environment(folder: Path) -> dict[str, str]:
    """One thread in each library, this interpreter's modules, and a home that is removed afterwards."""
    kept = {name: os.environ[name] for name in INHERITED if name in os.environ}
    threads = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "MINIDL_NUM_THREADS"), "1")
    modules = os.pathsep.join(os.path.abspath(path) for path in sys.path)
    return kept | threads | {
        "HOME": str(folder), "TMPDIR": str(folder), "PYTHONPATH": modules, "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONIOENCODING": "utf-8", "MPLBACKEND": "Agg",
    }
