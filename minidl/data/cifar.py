"""CIFAR-10: 60,000 colour photographs of 32×32 pixels, in its binary form."""

from __future__ import annotations

import gzip
import os
import tarfile
from itertools import islice
from pathlib import Path

import numpy as np

from .dataset import ArrayDataset
from .download import cache_folder, download
from .transforms import Transform

CIFAR10_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)
CIFAR_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR_STD = (0.2470, 0.2435, 0.2616)
"""Of the training images, red, green and blue, in [0, 1]."""

_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
_MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
_SIZE = 170_052_171
_ARCHIVE = "cifar-10-binary.tar.gz"
_FOLDER = "cifar-10-batches-bin"
_PYTHON_VERSION = ("cifar-10-batches-py", "cifar-10-python.tar.gz", "data_batch_1", "test_batch")

_TRAINING = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
_TEST = ("test_batch.bin",)
_PIXELS = 3 * 32 * 32
_FILE_BYTES = 10_000 * (_PIXELS + 1)
"""Bytes of each of the six files."""

_UNPACKED_BYTES = 8 * _FILE_BYTES
"""Largest part of an archive that is unpacked: its six files and texts take less."""


def cifar10(
    train: bool = True, root: str | os.PathLike[str] | None = None, transform: Transform | None = None
) -> ArrayDataset:
    """CIFAR-10: images (N, 3, 32, 32), labels 0 to 9 of `CIFAR10_CLASSES`; 50,000 to train on, 10,000 to test on.

    With `root`, the ``.bin`` files in that folder or its folder ``cifar-10-batches-bin`` are read, those of the five
    training files that are there, or else the archive ``cifar-10-binary.tar.gz`` in it; the network is never touched.
    Without it the archive is downloaded once, to ``cifar10`` in `cache_folder()`, and its checksum compared.

    Raises `FileNotFoundError` for a folder without them, `ValueError` for a damaged file, and `OSError` when the
    download fails.

    Source: A. Krizhevsky, *Learning multiple layers of features from tiny images*, 2009.
    """
    names = _TRAINING if train else _TEST
    if root is None:
        parts = _in_archive(download(_URL, cache_folder() / "cifar10" / _ARCHIVE, _MD5, _SIZE), names)
    else:
        parts = _in_folder(Path(os.path.expanduser(root)), names)
    images, labels = zip(*(_read(title, content) for title, content in parts))
    return ArrayDataset(np.concatenate(images), np.concatenate(labels), transform, CIFAR10_CLASSES)


def _in_folder(root: Path, names: tuple[str, ...]) -> list[tuple[str, bytes]]:
    for folder in (root, root / _FOLDER):
        if found := [folder / name for name in names if (folder / name).is_file()]:
            return [(str(path), path.read_bytes()) for path in found]
    if (root / _ARCHIVE).is_file():
        return _in_archive(root / _ARCHIVE, names)
    if other := [name for name in _PYTHON_VERSION if (root / name).exists()]:
        raise FileNotFoundError(f"{root / other[0]} is the Python version of CIFAR-10, in pickles, which could run "
                                f"code and are not read; the binary version is at {_URL}")
    raise FileNotFoundError(f"{root} has no {' or '.join(names[:: max(1, len(names) - 1)])}: the binary form of "
                            f"CIFAR-10 is at {_URL}")


def _in_archive(path: Path, names: tuple[str, ...]) -> list[tuple[str, bytes]]:
    found = {}
    try:
        with _Unpacked(path) as unpacked, tarfile.open(fileobj=unpacked, mode="r:") as archive:
            for member in islice(archive, 50):
                name = member.name.rpartition("/")[2]
                if name in names and member.isreg() and member.size <= _FILE_BYTES:
                    found[name] = archive.extractfile(member).read()  # type: ignore[union-attr]
    except Exception as error:  # damaged archives make tarfile raise errors of many types
        raise ValueError(f"{path} is damaged: {error or type(error).__name__}") from None
    if missing := [name for name in names if name not in found]:
        raise ValueError(f"{path} is damaged: it holds no file {missing[0]} of at most {_FILE_BYTES:,} bytes")
    return [(f"{path}, {name}", found[name]) for name in names]


class _Unpacked(gzip.GzipFile):
    """A gzip that ends after `_UNPACKED_BYTES`, whatever its content says."""

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, _UNPACKED_BYTES - self.tell())
        return super().read(left if size is None or size < 0 else min(size, left))

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return super().seek(min(offset, _UNPACKED_BYTES), whence)


def _read(title: str, content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, 3, 32, 32) and labels (n): a byte for the label before those of each image."""
    if not content or len(content) % (_PIXELS + 1):
        raise ValueError(f"{title} is damaged: its {len(content):,} bytes are not a whole number of images "
                         f"of {_PIXELS + 1:,} bytes")
    rows = np.frombuffer(content, np.uint8).reshape(-1, _PIXELS + 1)
    if rows[:, 0].max() > 9:
        wrong = int((rows[:, 0] > 9).argmax())
        raise ValueError(f"{title} is damaged: image {wrong} has the label {rows[wrong, 0]}, which is not in 0 to 9")
    return rows[:, 1:].reshape(-1, 3, 32, 32), rows[:, 0]
