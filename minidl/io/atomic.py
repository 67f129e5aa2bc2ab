"""Files that are either there completely or as they were before, whatever interrupts the writing."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


def discard_parts(folder: Path) -> None:
    """Remove what a process that was killed left half-written in `folder`; no other may be writing there."""
    for part in folder.glob(".*.part"):
        part.unlink(missing_ok=True)


def write_atomically(path: str | os.PathLike[str], write: Callable[[Path], object]) -> None:
    """Let `write` fill a new file beside `path`, bring it to the disk and rename it to `path`.

    Raises OSError naming `path` if it cannot be written (full disk, read-only folder); what stood there stays.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.touch()
        mode = part.stat().st_mode
        write(part)
        os.chmod(part, mode)  # a library may have replaced the file by one that only its owner reads
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        raise OSError(f"could not write {path}: {error.strerror or error}. What was there before is unchanged; "
                      "check the free space and the permissions") from error
    finally:
        with suppress(OSError):  # below something that is no folder there is nothing to remove
            part.unlink(missing_ok=True)
