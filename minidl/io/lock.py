"""A folder that one process at a time works in."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FAR = 1 << 30
"""The byte that Windows locks, far behind the end of the file: locked bytes cannot be read by others."""


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the existing file `path` against other processes that also ask for it here.

    The lock ends with the block, and with the process, also if that is killed. It changes nothing on the disk. On a
    file system without locks nothing is held. Raises BlockingIOError if another process holds it.
    """
    handle = os.open(path, os.O_RDWR if os.access(path, os.W_OK) else os.O_RDONLY)
    try:
        try:
            _lock(handle)
        except (BlockingIOError, PermissionError):
            raise BlockingIOError(f"another process is at work in {path.parent}; wait for it, or stop it") from None
        except OSError:
            pass
        yield
    finally:
        os.close(handle)


if sys.platform == "win32":
    import msvcrt

    def _lock(handle: int) -> None:
        os.lseek(handle, FAR, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
