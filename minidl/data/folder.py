"""Photographs in folders, one folder a class, as ImageNet and its subsets come."""

from __future__ import annotations

import operator
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .. import backend
from .imagenet import imagenet_classes
from .images import read_rgb
from .transforms import Transform

EXTENSIONS = {".jpg", ".jpeg", ".png", ".ppm", ".pgm", ".bmp", ".gif", ".tif", ".tiff", ".webp"}


class ImageFolder:
    """The images in the folders of `root`, labelled by the folder they are in: ``root/dog/1.jpg``, ``root/cat/2.png``.

    Labels follow the folders' names in order; `folders` asks for other ones, or another order. `classes` names them:
    a folder that is a WordNet id of ImageNet, such as ``n01440764``, by its word. Files that are not images by their
    extension are passed over; what is an image is read in colour by `read_rgb` each time it is asked for.
    `transform` is called as ``transform(images, rng)`` on each image alone, (1, 3, H, W) in [0, 1], since sizes
    differ; it must bring them to one size.

    Raises FileNotFoundError for a `root` without folders, or a folder without images, ValueError for a folder of
    `root` that is not among `folders`; and when an image is read, what `read_rgb` raises.
    """

    def __init__(
        self, root: str | os.PathLike[str], transform: Transform | None = None, folders: Sequence[str] | None = None
    ):
        self.root, self.transform = Path(root), transform
        found = class_folders(self.root)
        self.folders = tuple(found if folders is None else folders)
        if unknown := sorted(set(found) - set(self.folders)):
            raise ValueError(f"{root} has the folder {unknown[0]!r}, which is none of the {len(self.folders)} classes")
        names = imagenet_classes()
        self.classes = tuple(names.get(folder, folder) for folder in self.folders)
        self.samples: list[tuple[Path, int]] = []
        """(file, label) of each image, by class, then by name."""
        for folder in found:
            files = sorted(path for path in (self.root / folder).rglob("*") if _is_image(path, self.root))
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
        images = [self._read(self.samples[index][0], rng) for index in indices]
        if different := [image.shape for image in images if image.shape != images[0].shape]:
            raise ValueError(f"images of one batch have the shapes {images[0].shape[1:]} and {different[0][1:]}; "
                             "let the transform bring them to one size, as Resize and CenterCrop do")
        labels = self.labels[np.asarray(indices, np.intp)]
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
    found = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not found:
        raise FileNotFoundError(f"{root} has no folders; expected one folder of images for each class")
    return found


def _is_image(path: Path, root: Path) -> bool:
    """By its extension; what is hidden, such as a notebook's checkpoints, is none."""
    hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
    return path.suffix.lower() in EXTENSIONS and not hidden and path.is_file()
