"""Files from the network: checked against a checksum, and either there completely or not at all."""

from __future__ import annotations

import os
import re
import secrets
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

try:
    import fcntl
except ModuleNotFoundError:  # Windows, which itself keeps others from removing an open file
    fcntl = None  # type: ignore[assignment]

MAX_BYTES = 1 << 30
"""Largest file that is downloaded where its size is not known, in bytes."""

_ALGORITHMS = {8: "sha256", 32: "md5", 64: "sha256"}  # by the number of hexadecimal digits
_PIECE = 1 << 16


def cache_folder() -> Path:
    """The folder for downloaded files: ``MINIDL_HOME``, else ``XDG_CACHE_HOME/minidl``, else ``~/.cache/minidl``.

    As its specification asks, ``XDG_CACHE_HOME`` counts only where it is an absolute path.
    """
    if home := os.environ.get("MINIDL_HOME"):
        return Path(home).expanduser()
    caches = os.environ.get("XDG_CACHE_HOME", "")
    return Path(caches if os.path.isabs(caches) else "~/.cache").expanduser() / "minidl"


def download(
    urls: str | tuple[str, ...], path: str | os.PathLike[str], checksum: str, size: int | None = None
) -> Path:
    """Bring the file at `urls` to `path`, unless it is there already; returns `path`.

    `urls` is an address or several that hold the same file, tried in order. `checksum` is the md5
    or sha256 of the file in hexadecimal, or the first 8 digits of its sha256, as PyTorch's weights
    have them in their names; its length tells which. `size` is the size of the file in bytes; where it is not known,
    files of up to `MAX_BYTES` are taken. The file is written beside `path` and renamed
    when it is complete and its checksum right: a file with another checksum is replaced then, and
    not before. Nothing else stays behind: what a download that was killed has left, the next one of this file removes.

    Raises `OSError` when no address gives the file, with the reason for each and where to put the
    file by hand; `ValueError` for a checksum of another length. An address is given up when it sends no byte
    for 30 seconds, or less than 1,000 bytes per second over a minute.
    """
    from http.client import HTTPException  # the network costs time to import, and most runs need none

    path, checksum = Path(path), checksum.lower()
    algorithm = _ALGORITHMS.get(len(checksum))
    if algorithm is None:
        raise ValueError(f"checksum {checksum!r} has {len(checksum)} digits; expected 32 (md5), 64 or 8 (sha256)")
    _remove_abandoned_parts(path)
    if path.exists() and _checksum(path, algorithm).startswith(checksum):
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    reasons = []
    for url in (urls,) if isinstance(urls, str) else urls:
        try:
            with _new_part(path) as (file, part):
                _fetch(url, file, path.name, size)
                found = _checksum(part, algorithm)
                if not found.startswith(checksum):
                    raise OSError(f"its {part.stat().st_size:,} bytes have the {algorithm} {found}")
                if fcntl is None:
                    file.close()  # Windows renames no open file
                os.replace(part, path)
                return path
        except (OSError, ValueError, HTTPException) as error:
            reason = str(error) or type(error).__name__
            reasons.append(f"  {url}: " + "".join(letter if letter.isprintable() else "?" for letter in reason))
    raise OSError(
        "\n".join([f"could not download {path.name}:", *reasons])
        + f"\nTo go on without the network, put the file at {path} by hand ({algorithm} {checksum})."
    )


def _fetch(url: str, file: BinaryIO, title: str, size: int | None) -> None:
    """Write what `url` gives to `file`, all of it on the disk on return."""
    from tqdm import tqdm

    from .transport import pieces_of

    with tqdm(desc=title, total=size, unit="B", unit_scale=True, disable=None) as bar:
        for piece in pieces_of(url, MAX_BYTES if size is None else size, bar.reset):
            bar.update(file.write(piece))
    file.flush()
    os.fsync(file.fileno())


# A part is locked while it is being written. The system ends the lock with the process, however that ends.


@contextmanager
def _new_part(path: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """A new file beside `path` to download to, which is removed at the end unless it was renamed."""
    while True:
        part = path.with_name(f".{path.name}.{secrets.token_hex(8)}.minidl-part")
        with open(part, "xb") as file, _removed_on_sigterm(part):
            try:
                if not _is_ours(file, part):
                    continue
                yield file, part
                return
            finally:
                file.close()
                part.unlink(missing_ok=True)


def _is_ours(file: BinaryIO, part: Path) -> bool:
    """Lock a new part. False where another download was faster, and removes it as abandoned."""
    try:
        _lock(file)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks, where no part is taken for abandoned
        return True
    return part.exists()


def _remove_abandoned_parts(path: Path) -> None:
    """Remove what downloads of `path` left behind whose processes have ended."""
    name = re.compile(re.escape(f".{path.name}.") + r"[0-9a-f]{16}\.minidl-part")
    with suppress(OSError):
        for part in path.parent.iterdir():
            if name.fullmatch(part.name):
                with suppress(OSError), open(part, "rb+") as file:
                    _lock(file)
                    if fcntl is None:
                        file.close()  # Windows removes no open file
                    part.unlink()


def _lock(file: BinaryIO) -> None:
    """Lock `file` until it is closed. Raises OSError where another process has locked it."""
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def _removed_on_sigterm(part: Path) -> Iterator[None]:
    """Let SIGTERM remove `part` before it ends the process, where nobody else handles it."""
    def end(number: int, _: Any) -> None:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _checksum(path: Path, algorithm: str) -> str:
    import hashlib

    digest = hashlib.new(algorithm, usedforsecurity=False)
    with open(path, "rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()
