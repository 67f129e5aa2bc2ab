"""Files that are either there completely or as they were before, whatever interrupts the writing."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

REPLACE_PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8) if sys.platform == "win32" else ()
"""Seconds to wait before each new try to replace a file that another program holds open. Only Windows forbids that."""


def write_atomically(path: str | os.PathLike[str], write: Callable[[Path], object], new: bool = False) -> None:
    """Let `write` fill a new file beside `path`, bring it to the disk and rename it to `path`.

    The file that a symbolic link points to is replaced, not the link. A device or a pipe, such as ``/dev/stdout``, is
    written to directly. Raises OSError naming `path` if it cannot be written (full disk, read-only folder), and with
    `new`, FileExistsError if there is such a file already, also if another process writes it at the same time; the file
    that was there before stays.
    """
    target = Path(os.path.realpath(path))
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        if target.exists() and not (target.is_file() or target.is_dir()):
            write(target)
            return
        write(part)
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
        _put(part, target, new)
    except FileExistsError:
        raise FileExistsError(f"{path} exists already") from None
    except OSError as error:
        raise OSError(f"could not write {path}: {error.strerror or error}. What was there before is unchanged; "
                      "check the free space and the permissions") from error
    finally:
        with suppress(OSError):  # where the folder is missing, there is nothing to remove
            part.unlink(missing_ok=True)


def _put(part: Path, target: Path, new: bool) -> None:
    if new:
        try:
            return os.link(part, target)
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links
            if os.path.lexists(target):
                raise FileExistsError from None
    for pause in REPLACE_PAUSES:
        try:
            return os.replace(part, target)
        except PermissionError:
            time.sleep(pause)
    os.replace(part, target)


def discard_parts(folder: Path, names: Iterable[str]) -> None:
    """Remove what `write_atomically` left in `folder` of the files `names` when its process was killed.

    Every other file stays. No other process may be writing there.
    """
    ours = re.compile(rf"\.({'|'.join(map(re.escape, names))})\.\d+\.part")
    for path in folder.iterdir():
        if ours.fullmatch(path.name) and path.is_file():
            path.unlink(missing_ok=True)
