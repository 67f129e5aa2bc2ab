"""Files from the network: checked against a checksum, and either there completely or not at all."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

_ALGORITHMS = {8: "sha256", 32: "md5", 64: "sha256"}  # by the number of hexadecimal digits
_PIECE = 1 << 16
_TIMEOUT = 30  # seconds without a byte


def cache_folder() -> Path:
    """The folder for downloaded files: ``MINIDL_HOME``, or ``~/.cache/minidl`` where that is not set."""
    return Path(os.environ.get("MINIDL_HOME") or "~/.cache/minidl").expanduser()


def download(urls: str | tuple[str, ...], path: str | os.PathLike[str], checksum: str) -> Path:
    """Bring the file at `urls` to `path`, unless it is there already; returns `path`.

    `urls` is an address or several that hold the same file, tried in order. `checksum` is the md5
    or sha256 of the file in hexadecimal, or the first 8 digits of its sha256, as PyTorch's weights
    have them in their names; its length tells which. The file is written beside `path` and renamed
    when it is complete and its checksum right: a file with another checksum is replaced then, and
    not before.

    Raises `OSError` when no address gives the file, with the reason for each and where to put the
    file by hand; `ValueError` for a checksum that is none of these.
    """
    from http.client import HTTPException  # the network costs time to import, and most runs need none

    path, checksum = Path(path), checksum.lower()
    algorithm = _ALGORITHMS.get(len(checksum))
    if algorithm is None:
        raise ValueError(f"checksum {checksum!r} has {len(checksum)} digits; expected 32 (md5), 64 or 8 (sha256)")
    if path.exists() and _checksum(path, algorithm).startswith(checksum):
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    reasons = []
    for url in (urls,) if isinstance(urls, str) else urls:
        try:
            _fetch(url, part, path.name)
            found = _checksum(part, algorithm)
            if not found.startswith(checksum):
                raise OSError(f"its {part.stat().st_size:,} bytes have the {algorithm} {found}")
            os.replace(part, path)
            return path
        except (OSError, ValueError, HTTPException) as error:
            reasons.append(f"  {url}: {error or type(error).__name__}")
        finally:
            part.unlink(missing_ok=True)
    raise OSError(
        "\n".join([f"could not download {path.name}:", *reasons])
        + f"\nTo go on without the network, put the file at {path} by hand ({algorithm} {checksum})."
    )


def _fetch(url: str, path: Path, title: str) -> None:
    """Write what `url` gives to the new file `path`, all of it on the disk on return."""
    import urllib.request

    from tqdm import tqdm

    request = urllib.request.Request(url, headers={"User-Agent": "minidl"})
    with open(path, "xb") as file, urllib.request.urlopen(request, timeout=_TIMEOUT) as response:
        size = int(response.headers.get("Content-Length") or 0)
        with tqdm(desc=title, total=size or None, unit="B", unit_scale=True, disable=None) as bar:
            while piece := response.read(_PIECE):
                bar.update(file.write(piece))
        if file.tell() < size:
            raise OSError(f"the connection ended after {file.tell():,} of {size:,} bytes")
        file.flush()
        os.fsync(file.fileno())


def _checksum(path: Path, algorithm: str) -> str:
    import hashlib

    digest = hashlib.new(algorithm, usedforsecurity=False)
    with open(path, "rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()
