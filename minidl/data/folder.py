"""Photographs in folders, one folder a class, as ImageNet and its subsets come."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from .. import backend
from .dataset import as_indices
from .imagenet import imagenet_classes
from .images import read_rgb
from .transforms import Transform

EXTENSIONS = {".jpg", ".jpeg", ".png", ".ppm", ".pgm", ".bmp", ".gif", ".tif", ".tiff", ".webp"}

TRAINING, TEST = ("train", "training"), ("val", "valid", "validation", "test", "testing")
"""The names, in any case, of the folders that hold the two parts of a data set; of several the first is taken."""

LEFTOVERS = {"__MACOSX", "__pycache__", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"}
"""Folders that unpackers and systems leave behind; they are passed over like hidden ones."""


class ImageFolder:
    """The images in the folders of `root`, labelled by the folder they are in: ``root/dog/1.jpg``, ``root/cat/2.png``.

    Labels follow the folders' names in order; `folders` asks for other ones, or another order. `classes` names them:
    a folder that is a WordNet id of ImageNet, such as ``n01440764``, by its word. Images may lie deeper inside a class,
    and links to files and folders are followed. Hidden files and what is not an image by its extension are passed over;
    an image is read in colour by `read_rgb` each time it is asked for.
    `transform` is called as ``transform(images, rng)`` on each image alone, (1, 3, H, W) in [0, 1], since sizes
    differ; it must bring them to one size.

    Raises FileNotFoundError for a `root` without folders, a folder without images, or a link to nothing; ValueError for
    a folder of `root` that is not among `folders`, and, without `folders`, for a `root` whose folders are not classes:
    they are named as parts of a data set, such as ``train`` and ``test``, or hold no images but all the same folders.
    When an image is read, raises what `read_rgb` raises.
    """

    def __init__(
        self, root: str | os.PathLike[str], transform: Transform | None = None, folders: Sequence[str] | None = None
    ):
        self.root, self.transform = Path(os.path.expanduser(root)), transform
        found = class_folders(self.root)
        if folders is None:
            _check_classes(self.root, found)
        self.folders = tuple(found if folders is None else folders)
        if unknown := sorted(set(found) - set(self.folders)):
            raise ValueError(f"{root} has the folder {unknown[0]!r}, which is not one of the {len(self.folders)} "
                             "classes")
        names = imagenet_classes()
        self.classes = tuple(names.get(folder, folder) for folder in self.folders)
        self.samples: list[tuple[Path, int]] = []
        """(file, label) of each image, by class, then by name."""
        for folder in found:
            files = sorted(_images_in(self.root / folder, [self.root.resolve()]))
            if not files:
                raise FileNotFoundError(f"{self.root / folder} holds no image ({', '.join(sorted(EXTENSIONS))})")
            self.samples += [(path, self.folders.index(folder)) for path in files]
        self.labels = np.array([label for _, label in self.samples], np.int64)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """The image, float32 (3, H, W), and the label at `index`.

        A random transform draws from `minidl.backend.generator()`, the generator that `manual_seed` seeds.
        """
        images, labels = self.fetch([operator.index(index)], backend.generator())
        return images[0], int(labels[0])

    def fetch(self, indices: Sequence[int] | np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """The images (n, 3, H, W), float32, and labels (n,), int64, at `indices`; random numbers come from `rng` alone.

        Raises ValueError where the transform leaves images of different sizes.
        """
        chosen = as_indices(indices, len(self))
        images = [self._read(self.samples[index][0], rng) for index in chosen]
        if different := [image.shape for image in images if image.shape != images[0].shape]:
            raise ValueError(f"images of one batch have the shapes {images[0].shape[1:]} and {different[0][1:]}; "
                             "let the transform bring them to one size, as Resize and CenterCrop do")
        labels = self.labels[chosen]
        return np.concatenate(images) if images else np.empty((0, 3, 0, 0), np.float32), labels

    def _read(self, path: Path, rng: np.random.Generator) -> np.ndarray:
        image = read_rgb(path)[None]
        return image if self.transform is None else self.transform(image, rng)

    def __repr__(self) -> str:
        return (f"{type(self).__name__}({len(self)} images of {len(self.classes)} classes in {str(self.root)!r}, "
                f"transform={self.transform})")


def class_folders(root: Path) -> list[str]:
    """The names of the folders in `root`, in order, without hidden ones. Raises FileNotFoundError for none."""
    if not root.is_dir():
        raise FileNotFoundError(f"there is no folder {root}")
    found = _subfolders(root)
    if not found:
        raise FileNotFoundError(f"{root} has no folders; expected one folder of images for each class")
    return found


def find_parts(root: Path) -> tuple[Path | None, Path | None]:
    """The folders in `root` for training and for testing, by the names in `TRAINING` and `TEST`.

    Both are None where no folder of these names holds folders: then they are classes themselves.
    """
    named = {folder.lower(): root / folder for folder in _subfolders(root)} if root.is_dir() else {}
    train, test = (next((named[name] for name in names if name in named), None) for names in (TRAINING, TEST))
    return (train, test) if any(part and _subfolders(part) for part in (train, test)) else (None, None)


def _check_classes(root: Path, folders: Sequence[str]) -> None:
    """Raise ValueError where the `folders` of `root` are not classes but parts of a data set, or hold the classes."""
    if all(folder.lower() in TRAINING + TEST for folder in folders):
        raise ValueError(f"the folders of {root} ({_shown(folders)}) are named as parts of a data set, not as classes; "
                         "open one of them, or name them in folders= if they are the classes")
    common = set.intersection(*(set(_subfolders(root / folder)) for folder in folders))
    images = (_is_image(entry) for folder in folders for entry in _entries(root / folder))
    if len(common) > 1 and not any(images):
        raise ValueError(f"the folders of {root} ({_shown(folders)}) hold no images but the same folders "
                         f"({_shown(sorted(common))}); open {root / folders[0]} if those are the classes, or name the "
                         "outer ones in folders=")


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (", …" if len(names) > 4 else "")


def _images_in(folder: Path, above: Sequence[Path]) -> Iterator[Path]:
    """The images in `folder` and in the folders below it, links followed, but not to a folder that holds the link.

    `above`: the real paths of the folders on the way here.
    """
    real = folder.resolve()
    if any(outer.is_relative_to(real) for outer in above):
        return
    for entry in _entries(folder):
        if entry.is_dir():
            yield from _images_in(Path(entry), [*above, real])
        elif _is_image(entry):
            yield Path(entry)


def _subfolders(folder: Path) -> list[str]:
    return [entry.name for entry in _entries(folder) if entry.is_dir()]


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """The entries of `folder` by name, without hidden and left-over ones. FileNotFoundError for a broken link."""
    with os.scandir(folder) as entries:
        found = sorted((entry for entry in entries if not entry.name.startswith(".") and entry.name not in LEFTOVERS),
                       key=operator.attrgetter("name"))
    for entry in found:
        if entry.is_symlink() and not os.path.exists(entry):
            raise FileNotFoundError(f"{entry.path} is a link to {os.readlink(entry)}, which is not there")
    return found


def _is_image(entry: os.DirEntry[str]) -> bool:
    return os.path.splitext(entry.name)[1].lower() in EXTENSIONS and entry.is_file()
