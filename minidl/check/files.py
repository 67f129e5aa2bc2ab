"""The files of a submission: which of them count, and a copy of bounded size."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

SUFFIXES = (".ipynb", ".py")

MAX_FILE_BYTES = 64 * 2**20
"""Bytes of the largest file that is copied."""

MAX_FILES = 2000
"""Most files that are copied."""

MAX_ENTRIES = 1_000_000
"""Most files and folders of a submission that are looked at."""

BLOCK = 4096
"""Bytes that a file takes at least, for its entry in the folder."""


def is_source(name: str) -> bool:
    """Whether a file of this name is Python or a notebook."""
    return name.lower().endswith(SUFFIXES)


def sources(submission: Path) -> list[Path]:
    """The Python files and notebooks of a submission, by name, but for hidden ones, checkpoints and `__init__.py`."""
    if not submission.is_dir():
        return [submission]
    return sorted(Path(entry.path) for entry in _walk(submission) if _counts(entry))


def is_submission(path: Path) -> bool:
    """Whether `path` is a Python file, a notebook, or a folder with one (or one that cannot be read, to be told so)."""
    if path.is_dir():
        return not _is_readable(path) or any(_counts(entry) for entry in _walk(path))
    return is_source(path.name)


def _counts(entry: os.DirEntry[str]) -> bool:
    return is_source(entry.name) and not entry.name.startswith("__") and not os.path.isdir(entry.path)


def _is_readable(folder: str | Path) -> bool:
    return os.access(folder, os.R_OK | os.X_OK)


def _walk(folder: str | Path) -> Iterator[os.DirEntry[str]]:
    """What is below `folder`, but for hidden entries, caches and virtual environments. No link is followed."""
    waiting = [os.fspath(folder)]
    while waiting:
        parent = waiting.pop()
        if os.path.exists(os.path.join(parent, "pyvenv.cfg")):
            continue
        with suppress(OSError), os.scandir(parent) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name in ("__MACOSX", "__pycache__"):
                    continue
                yield entry
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)


def copy(submission: Path, target: Path, room: int) -> list[str]:
    """Copy a file, or a folder, to `target`, where it may take `room` bytes; notes on what was left out.

    Only regular files are copied, and those that links point to. Python files and notebooks go first.
    Raises OSError or ValueError, with the reason, if `submission` is a file that is not copied, or cannot be read.
    """
    if not submission.is_dir():
        _copy_file(submission, target, min(room, MAX_FILE_BYTES))
        return []
    os.listdir(submission)  # raises for a folder that cannot be read
    target.mkdir()
    left_out: list[str] = []
    files: list[str] = []
    for count, entry in enumerate(_walk(submission)):
        if count == MAX_ENTRIES:
            left_out.append(f"{entry.name} (more than {MAX_ENTRIES} files)")
            break
        if not os.path.isdir(entry.path):
            files.append(entry.path)
        elif entry.is_symlink():
            left_out.append(f"{entry.name} (a link to a folder)")
        elif not _is_readable(entry.path):
            left_out.append(f"{entry.name} (no permission to read it)")
    files.sort(key=lambda path: (not is_source(path), path))
    left_out += [f"{os.path.basename(path)} (more than {MAX_FILES} files)" for path in files[MAX_FILES:]]
    for path in files[:MAX_FILES]:
        copied = target / os.path.relpath(path, submission)
        try:
            if room <= 0:
                raise ValueError("no room left")
            copied.parent.mkdir(parents=True, exist_ok=True)
            room -= BLOCK + _copy_file(path, copied, min(room, MAX_FILE_BYTES))
        except (OSError, ValueError) as error:
            left_out.append(f"{copied.name} ({reason(error)})")
    return [f"left out: {left_out[0]}{f' and {len(left_out) - 1} more' if left_out[1:] else ''}"] if left_out else []


def _copy_file(source: str | Path, target: Path, limit: int) -> int:
    """Copy a regular file of at most `limit` bytes; its size. Raises OSError or ValueError for anything else."""
    if not stat.S_ISREG(os.stat(source).st_mode):  # before it is opened, which a device may notice
        raise ValueError("not a regular file")
    with open(os.open(source, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("not a regular file")
        data = file.read(limit + 1) or b""  # it may hold more than it says, or grow
    if len(data) > limit:
        raise ValueError(f"larger than {limit / 2**20:.3g} MiB")
    target.write_bytes(data)
    return len(data)


def reason(error: Exception) -> str:
    """An error in words, without the path."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def takes_more(folder: Path, room: int) -> bool:
    """Whether all that is in `folder` takes more than `room` bytes on disk."""
    total, waiting = 0, [os.fspath(folder)]
    while waiting:
        with suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                with suppress(OSError):
                    total += BLOCK + entry.stat(follow_symlinks=False).st_blocks * 512
                if total > room:  # at once: a loop may write faster than this one counts
                    return True
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
    return False
