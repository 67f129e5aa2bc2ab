"""MNIST and Fashion-MNIST: 70,000 images of 28×28 pixels each, in four idx files of the same names."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .dataset import ArrayDataset
from .download import cache_folder, download
from .idx import read_idx
from .transforms import Transform

DIGITS = tuple("0123456789")
FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)


@dataclass(frozen=True)
class _Source:
    folder: str  # under the cache folder
    mirrors: tuple[str, ...]
    files: dict[str, tuple[str, int]]  # name of the gzipped file → md5, as torchvision publishes it, and bytes
    folders: tuple[str, ...]  # below a root, where others unpack the files
    classes: tuple[str, ...]


_MNIST = _Source(
    folder="mnist",
    mirrors=("https://ossci-datasets.s3.amazonaws.com/mnist/", "http://yann.lecun.com/exdb/mnist/"),
    files={
        "train-images-idx3-ubyte.gz": ("f68b3c2dcbeaaa9fbdd348bbdeb94873", 9_912_422),
        "train-labels-idx1-ubyte.gz": ("d53e105ee54ea40749a09fcbcd1e9432", 28_881),
        "t10k-images-idx3-ubyte.gz": ("9fb629c4189551a2d022fa330f9573f3", 1_648_877),
        "t10k-labels-idx1-ubyte.gz": ("ec29112dd5afa0611ce80d1b7f02629c", 4_542),
    },
    folders=("", "raw", "MNIST/raw"),
    classes=DIGITS,
)
_FASHION_MNIST = _Source(
    folder="fashion_mnist",
    mirrors=("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
    files={
        "train-images-idx3-ubyte.gz": ("8d4fb7e6c68d591d4c3dfef9ec88bf0d", 26_421_880),
        "train-labels-idx1-ubyte.gz": ("25c81989df183df01b3e8a0aad5dffbe", 29_515),
        "t10k-images-idx3-ubyte.gz": ("bef4ecab320f06d8554ea6380940ec79", 4_422_102),
        "t10k-labels-idx1-ubyte.gz": ("bb300cfdad3c16e7a12a480ee83cd310", 5_148),
    },
    folders=("", "raw", "FashionMNIST/raw", "data/fashion"),
    classes=FASHION_CLASSES,
)


def mnist(
    train: bool = True, root: str | os.PathLike[str] | None = None, transform: Transform | None = None
) -> ArrayDataset:
    """MNIST's handwritten digits: images (N, 1, 28, 28), labels 0 to 9; 60,000 to train on, 10,000 to test on.

    With `root`, the idx files are read from that folder, gzipped or not, also as unpackers (``.idx3-ubyte``), Kaggle
    (in a folder of the file's name) and torchvision (``MNIST/raw``) leave them, and the network is never touched.
    Without it they are downloaded once, to ``mnist`` in `cache_folder()`, and their checksums compared.

    Raises `FileNotFoundError` for a file that `root` lacks, `ValueError` for a damaged one, and
    `OSError` when the download fails.

    Source: Y. LeCun, C. Cortes and C. Burges, http://yann.lecun.com/exdb/mnist/.
    """
    return _load(_MNIST, train, root, transform)


def fashion_mnist(
    train: bool = True, root: str | os.PathLike[str] | None = None, transform: Transform | None = None
) -> ArrayDataset:
    """Fashion-MNIST's pieces of clothing: images (N, 1, 28, 28), labels 0 to 9; everything else as in `mnist`.

    Without `root` the files are downloaded to ``fashion_mnist`` in `cache_folder()`.

    Source: H. Xiao, K. Rasul and R. Vollgraf, "Fashion-MNIST", 2017, arXiv:1708.07747.
    """
    return _load(_FASHION_MNIST, train, root, transform)


def _load(
    source: _Source, train: bool, root: str | os.PathLike[str] | None, transform: Transform | None
) -> ArrayDataset:
    part = "train" if train else "t10k"
    images_path = _find(source, f"{part}-images-idx3-ubyte.gz", root)
    labels_path = _find(source, f"{part}-labels-idx1-ubyte.gz", root)
    images = _read(images_path, (28, 28))
    labels = _read(labels_path, ())
    try:
        return ArrayDataset(images[:, np.newaxis], labels, transform, source.classes)
    except ValueError as error:
        raise ValueError(f"{images_path} and {labels_path} do not belong together: {error}") from None


def _find(source: _Source, name: str, root: str | os.PathLike[str] | None) -> Path:
    if root is None:
        urls = tuple(mirror + name for mirror in source.mirrors)
        checksum, size = source.files[name]
        return download(urls, cache_folder() / source.folder / name, checksum, size)
    folder, unzipped = Path(os.path.expanduser(root)), name.removesuffix(".gz")
    dotted = unzipped.replace("-idx", ".idx")  # the name inside the gzip, which some unpackers restore
    names = (name, unzipped, dotted, f"{dotted}.gz")
    places = (*names, *(f"{outer}/{inner}" for outer in (unzipped, dotted) for inner in names))
    for path in (folder / below / place for below in source.folders for place in places):
        if path.is_file():
            return path
    raise FileNotFoundError(f"{folder} has neither {name} nor {unzipped}")


def _read(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """The array in `path`, which must hold bytes of `shape` for each of its images."""
    array = read_idx(path)
    if array.dtype != np.uint8 or array.ndim != 1 + len(shape) or array.shape[1:] != shape:
        expected = ", ".join(["N", *map(str, shape)])
        raise ValueError(f"{path} holds {array.dtype} of shape {array.shape}; expected uint8 of shape ({expected})")
    return array
