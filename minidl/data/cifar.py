"""CIFAR-10: 60,000 colour photographs of 32×32 pixels, in its binary form."""

from __future__ import annotations

import os
import tarfile
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
_TRAINING = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
_TEST = ("test_batch.bin",)
_PIXELS = 3 * 32 * 32


def cifar10(
    train: bool = True, root: str | os.PathLike[str] | None = None, transform: Transform | None = None
) -> ArrayDataset:
    """CIFAR-10: images (N, 3, 32, 32), labels 0 to 9 of `CIFAR10_CLASSES`; 50,000 to train on, 10,000 to test on.

    With `root`, the ``.bin`` files in that folder are read, those of the five training files that are there, and the
    network is never touched. Without it the archive of them is downloaded once, to ``cifar10`` in `cache_folder()`, and
    its checksum compared.

    Raises `FileNotFoundError` for a folder without them, `ValueError` for a damaged file, and `OSError` when the
    download fails.

    Source: A. Krizhevsky, *Learning multiple layers of features from tiny images*, 2009.
    """
    names = _TRAINING if train else _TEST
    parts = _in_archive(names) if root is None else _in_folder(Path(root), names)
    images, labels = zip(*(_read(title, content) for title, content in parts))
    return ArrayDataset(np.concatenate(images), np.concatenate(labels), transform, CIFAR10_CLASSES)


def _in_folder(root: Path, names: tuple[str, ...]) -> list[tuple[str, bytes]]:
    found = [(str(root / name), (root / name).read_bytes()) for name in names if (root / name).exists()]
    if not found:
        raise FileNotFoundError(f"{root} has no {' or '.join(names[:: max(1, len(names) - 1)])}: the binary form of "
                                f"CIFAR-10 is at {_URL}")
    return found


def _in_archive(names: tuple[str, ...]) -> list[tuple[str, bytes]]:
    path = download(_URL, cache_folder() / "cifar10" / "cifar-10-binary.tar.gz", _MD5)
    with tarfile.open(path) as archive:
        members = [archive.extractfile(f"cifar-10-batches-bin/{name}") for name in names]
        return [(f"{path}, {name}", member.read()) for name, member in zip(names, members) if member is not None]


def _read(title: str, content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, 3, 32, 32) and labels (n): a byte for the label before those of each image."""
    if not content or len(content) % (_PIXELS + 1):
        raise ValueError(f"{title} is damaged: its {len(content):,} bytes are no whole number of images "
                         f"of {_PIXELS + 1:,} bytes")
    rows = np.frombuffer(content, np.uint8).reshape(-1, _PIXELS + 1)
    if rows[:, 0].max() > 9:
        wrong = int((rows[:, 0] > 9).argmax())
        raise ValueError(f"{title} is damaged: image {wrong} has the label {rows[wrong, 0]}, which is none of 0 to 9")
    return rows[:, 1:].reshape(-1, 3, 32, 32), rows[:, 0]
