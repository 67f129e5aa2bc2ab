"""grade: a folder of submissions, each run in a process of its own, and judged in this one.

What a submission's process sends are the arrays that its functions returned; they are compared with the right answers
here. So nothing that it prints, patches or sends makes it pass but right numbers. The process sets its limits before
anything of the submission runs. They hold for accidents; this is no sandbox. A submission runs with the rights of
whoever grades: it can read their files, use the network, start processes that leave its group, write elsewhere, and get
right numbers from minidl's own functions.
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
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .calling import Outcome
from .catalog import EXERCISES
from .checker import ExerciseError, judge
from .files import copy, is_source, is_submission, reason, takes_more
from .submission import decode

PRINTED = 10 * 2**20
"""Bytes that a submission may print, each time that it is loaded."""

START_SECONDS = 60.0
"""Seconds in which a process must have started, before anything of the submission runs."""

ANSWER = 2**20
"""Bytes of the longest answer to one call."""

DISK = 512 * 2**20
"""Bytes that a submission and what it writes may take on disk; less where that would fill the disk."""

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
    unlimited: tuple[str, ...] = ()
    """The limits that the system refused to set, such as "memory" on macOS."""

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
    once (default: one per processor); `finished` is called with each grade as it is known. The grades are in the order
    of the names.

    Each submission is a copy: only regular files, links to them included, within bounds of size and number. Its files
    import each other by name, and never replace a module of Python or one that is loaded already, such as NumPy.

    Raises ValueError for a folder without submissions or limits that make no sense, OSError for one that cannot be
    read or a system without POSIX processes.
    """
    if os.name != "posix":
        raise OSError("grade: the limits of a submission need Linux or macOS; on Windows use WSL")
    if jobs is not None and jobs < 1:
        raise ValueError(f"grade: at least one submission must run at once; got {jobs} jobs")
    if not Path(folder).is_dir():
        raise ValueError(f"grade takes a folder with one submission per student; {folder} is not a folder")
    _check_not_imported(Path(folder).resolve())
    entries = sorted((entry for entry in Path(folder).iterdir() if not entry.name.startswith((".", "__"))),
                     key=lambda entry: (_student(entry), entry.name))
    submissions = list(filter(is_submission, entries))
    if not submissions:
        raise ValueError(f"there are no submissions in {folder}: no .py file, no notebook and no folder with one")
    cancelled, names = threading.Event(), Counter(map(_student, submissions))
    jobs = jobs or os.cpu_count() or 1
    disk = min(DISK, shutil.disk_usage(tempfile.gettempdir()).free // (jobs + 1))

    def graded(submission: Path) -> Grade:
        student = _student(submission)
        called = student if names[student] == 1 else plain(submission.name)
        result = _Submission(submission, called, limits or Limits(), disk, cancelled).grade()
        finished(result)
        return result

    with ThreadPoolExecutor(jobs) as pool:
        try:
            grades = list(pool.map(graded, submissions))
        except BaseException:
            cancelled.set()
            pool.shutdown(cancel_futures=True)
            raise
    return _complete(grades)


def _student(submission: Path) -> str:
    return plain(submission.stem if is_source(submission.name) else submission.name)


def _check_not_imported(folder: Path) -> None:
    """Raise ValueError if a submission was imported in this process, as a module of the same name."""
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and Path(file).parent == folder and name != "__main__":
            raise ValueError(f"{Path(file).name} in {folder} was imported as a module, since Python looks for modules "
                             "there: run `minidl grade` from another folder")


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
        completed.append(replace(grade, verdicts=all_verdicts))
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
    disk: int
    cancelled: threading.Event
    process: _Process | None = field(default=None, init=False)
    unlimited: tuple[str, ...] = field(default=(), init=False)

    def grade(self) -> Grade:
        notes: list[str] = []
        folder = None
        try:
            folder = tempfile.TemporaryDirectory(prefix="minidl-grade-", ignore_cleanup_errors=True)
            self.copy = Path(folder.name) / self.path.name
            notes += map(plain, copy(self.path, self.copy, self.disk))
            functions, said = self._load()
            notes += said
            return Grade(self.student, tuple(map(self._verdict, functions)), tuple(notes), self.unlimited)
        except Exception as stop:  # one submission never takes the grades of all with it
            return Grade(self.student, notes=(f"it could not be loaded: {plain(reason(stop))}", *notes))
        finally:
            self._end()
            if folder:
                _remove(folder)

    def _load(self) -> tuple[list[str], list[str]]:
        """Start a process; the names of the exercises that it answers, and notes."""
        modules = _module_folders(self.path.parent)
        self.process = _Process(self.copy, modules, self.limits, self.disk, self.cancelled)
        self.unlimited = tuple(self.process.receive(time.monotonic() + START_SECONDS)["unlimited"])
        loaded = self.process.receive(time.monotonic() + self.limits.seconds)
        functions, notes = loaded.get("functions"), loaded.get("notes")
        if not isinstance(functions, list) or not isinstance(notes, list):
            raise Stopped("its process sent something that is no answer")
        return [name for name in EXERCISES if name in functions], [plain(str(note)) for note in notes[:20]]

    def _verdict(self, name: str) -> Verdict:
        try:
            if self.process is None:  # the one before was stopped
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


def _remove(folder: tempfile.TemporaryDirectory[str]) -> None:
    try:
        folder.cleanup()
    except RecursionError:  # folders that are nested very deeply
        subprocess.run(["rm", "-rf", folder.name], check=False)


class _Process:
    """A process that runs `submission`, and the pipes to it."""

    def __init__(self, path: Path, modules: list[str], limits: Limits, disk: int, cancelled: threading.Event):
        self.limits, self.disk, self.cancelled = limits, disk, cancelled
        self.folder, self.next_look = path.parent, 0.0
        self.received, self.printed = bytearray(), 0
        self.process = subprocess.Popen(
            _command(modules), cwd=self.folder, env=_environment(self.folder, modules),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )
        assert self.process.stdin and self.process.stdout and self.process.stderr
        self.requests, self.answers, self.output = self.process.stdin, self.process.stdout, self.process.stderr
        self.selector = selectors.DefaultSelector()
        for stream in (self.answers, self.output):
            os.set_blocking(stream.fileno(), False)
            self.selector.register(stream, selectors.EVENT_READ)
        self.send({"submission": str(path), "memory": limits.memory * 2**20, "file": disk // 2, "grader": os.getpid(),
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
        self._check_disk()
        for key, _ in self.selector.select(min(remaining, 0.1)):
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

    def _check_disk(self) -> None:
        """Look at what the submission wrote, ten times a second, or less often where that takes long."""
        started = time.monotonic()
        if started < self.next_look:
            return
        if takes_more(self.folder, self.disk):
            raise Stopped(f"it takes more than {self.disk / 2**20:.3g} MiB on disk")
        self.next_look = time.monotonic() + max(0.1, 10 * (time.monotonic() - started))

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


def _module_folders(submissions: Path) -> list[str]:
    """Where this process finds modules, without the folder of the submissions and those in it."""
    folder = submissions.resolve()
    paths = [os.path.abspath(path) for path in (*sys.path, str(Path(__file__).parents[2]))]
    return [path for path in paths if folder not in (Path(path).resolve(), Path(path).resolve().parent)]


def _command(modules: list[str]) -> list[str]:
    """Start `submission.main` with the folders `modules`, and nothing from the environment or the current folder.

    So Python runs no file of a submission at its start, even if it is named random.py or sitecustomize.py.
    """
    start = f"import sys; sys.path[:] = {modules!r}; from {__package__}.submission import main; main()"
    return [sys.executable, "-I", "-B", "-X", "utf8", "-c", start]


def _environment(folder: Path, modules: list[str]) -> dict[str, str]:
    """One thread in each library, the folders `modules` for processes it starts, and a home that is removed afterwards.
    """
    kept = {name: os.environ[name] for name in INHERITED if name in os.environ}
    threads = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "MINIDL_NUM_THREADS"), "1")
    return kept | threads | {
        "HOME": str(folder), "TMPDIR": str(folder), "PYTHONPATH": os.pathsep.join(modules), "MPLBACKEND": "Agg",
        "MALLOC_ARENA_MAX": "1",  # glibc would give each thread 64 MiB of the address space
    }
