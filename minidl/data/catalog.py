"""Data sets by name, ready for a network: brought to its input size and normalised."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from .cifar import CIFAR_MEAN, CIFAR_STD, cifar10
from .dataset import ArrayDataset
from .digits import digits
from .folder import TEST, TRAINING, ImageFolder, class_folders, find_parts
from .imagenet import IMAGENET_MEAN, IMAGENET_STD
from .images import read_gray, read_rgb
from .mnist import fashion_mnist, mnist
from .recipes import RECIPES
from .transforms import Compose, Fit, Normalize, RandomShift, Transform

Folder = Literal["none", "optional", "needed"]
"""Whether a set takes a folder of the user's: none for one that comes with minidl."""


@dataclass(frozen=True)
class Drawings:
    """A set of small gray images of `size` pixels a side: how to open it, and its mean and deviation in [0, 1]."""

    open: Callable[..., ArrayDataset]
    size: int
    mean: float
    std: float
    folder: Folder = "optional"
    workers: int = 0

    def load(self, train: bool, folder: str | None, transform: Transform) -> ArrayDataset:
        options = {} if self.folder == "none" else {"root": folder}
        return self.open(train=train, transform=transform, **options)

    def suited(self, recipe: str) -> str:
        """The recipe that takes the place of a model's own, which is for photographs."""
        return "none"

    def preparation(self, input_size: int, recipe: str = "none", shift: int = 0) -> Compose:
        """What is done to every image before a network sees it."""
        if recipe != "none":
            raise ValueError(f"the recipe {recipe!r} is for photographs, as in cifar10 or imagefolder:PATH; drawings "
                             "are varied by shift")
        return Compose([Fit(input_size), *_moving(shift), Normalize([self.mean], [self.std])])

    def read(self, path: str | os.PathLike[str], invert: bool) -> np.ndarray:
        """The image at `path`, (1, size, size), framed as those of the set are."""
        return read_gray(path, self.size, invert)[np.newaxis]


@dataclass(frozen=True)
class Photographs:
    """A folder of photographs: two parts, such as ``train`` and ``val``, with a folder for each class in both, or these
    folders alone.

    `TRAINING` and `TEST` have the names of the parts. Labels follow the folders of the training part. Without parts
    the same images are trained and tested on.
    """

    folder: Folder = "needed"
    workers: int = 1

    def load(self, train: bool, folder: str | None, transform: Transform) -> ImageFolder:
        assert folder is not None, "find_source asks for it"
        root = Path(folder)
        to_train, to_test = find_parts(root)
        if to_train is None and to_test is None:
            return ImageFolder(root, transform)
        part = to_train if train else to_test
        if part is None:
            missing, names = ("training", TRAINING) if train else ("test", TEST)
            raise FileNotFoundError(f"{to_train or to_test} is there, but no folder for the {missing} images beside it "
                                    f"({', '.join(names)})")
        return ImageFolder(part, transform, class_folders(to_train) if to_train and part is to_test else None)

    def suited(self, recipe: str) -> str:
        """The recipe that takes the place of a model's own: it is for these."""
        return recipe

    def preparation(self, input_size: int, recipe: str = "none", shift: int = 0) -> Compose:
        """What is done to every image before a network sees it."""
        if recipe not in RECIPES:
            raise ValueError(f"there is no recipe {recipe!r} for photographs; choose from {', '.join(RECIPES)}")
        if recipe == "ten_crop" and shift:
            raise ValueError(f"ten crops are for measuring, where nothing moves at random; got shift={shift}")
        return Compose([*RECIPES[recipe](input_size), *_moving(shift), Normalize(IMAGENET_MEAN, IMAGENET_STD)])

    def read(self, path: str | os.PathLike[str], invert: bool) -> np.ndarray:
        """The image at `path`, (3, H, W)."""
        if invert:
            raise ValueError("invert is for drawings; a photograph is shown as it is")
        return read_rgb(path)


@dataclass(frozen=True)
class Thumbnails:
    """A set of colour photographs of `size` pixels a side: how to open it, and its mean and deviation by channel."""

    open: Callable[..., ArrayDataset]
    size: int
    mean: Sequence[float]
    std: Sequence[float]
    folder: Folder = "optional"
    workers: int = 0

    def load(self, train: bool, folder: str | None, transform: Transform) -> ArrayDataset:
        return self.open(train=train, transform=transform, root=folder)

    def suited(self, recipe: str) -> str:
        """The recipe that takes the place of a model's own, which may be for larger photographs."""
        return "none" if recipe == "none" else "cifar"

    def preparation(self, input_size: int, recipe: str = "none", shift: int = 0) -> Compose:
        """What is done to every image before a network sees it: enlarged by a whole factor where the network is for
        larger ones, and varied as the recipe ``"cifar"`` says."""
        if recipe not in ("none", "cifar"):
            raise ValueError(f"the recipe {recipe!r} is for larger photographs, as in imagefolder:PATH; "
                             "thumbnails are varied by 'cifar'")
        varied = RECIPES["cifar"](input_size) if recipe == "cifar" else []
        return Compose([Fit(input_size), *varied, *_moving(shift), Normalize(self.mean, self.std)])

    def read(self, path: str | os.PathLike[str], invert: bool) -> np.ndarray:
        """The image at `path`, its middle square, (3, size, size)."""
        if invert:
            raise ValueError("invert is for drawings; a photograph is shown as it is")
        framed = Compose(RECIPES["none"](self.size))
        return framed(read_rgb(path)[np.newaxis], np.random.default_rng(0))[0]


Source = Drawings | Photographs | Thumbnails
"""Each says in `workers` how many threads should prepare its batches while others compute: to decode a photograph and
bring it to size takes a tenth of a training step's time, to read an array nothing."""

SOURCES: dict[str, Source] = {
    "digits": Drawings(digits, 8, 0.3051, 0.3762, folder="none"),
    "mnist": Drawings(mnist, 28, 0.1307, 0.3081),
    "fashion_mnist": Drawings(fashion_mnist, 28, 0.2860, 0.3530),
    "cifar10": Thumbnails(cifar10, 32, CIFAR_MEAN, CIFAR_STD),
    "imagefolder": Photographs(),
}


def find_source(name: str) -> tuple[Source, str | None]:
    """The source and folder of ``"name"`` or ``"name:folder"``, whose ``~`` is the user's home.

    Raises ValueError for an unknown name, with the nearest ones, and for a folder that is missing or not taken.
    """
    name, _, folder = name.partition(":")
    if name not in SOURCES:
        near = difflib.get_close_matches(name, SOURCES, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(SOURCES)}"
        raise ValueError(f"there is no data set {name!r}; {hint}")
    source = SOURCES[name]
    if folder and source.folder == "none":
        raise ValueError(f"the data set {name!r} comes with minidl and takes no folder; got {folder!r}")
    if not folder and source.folder == "needed":
        raise ValueError(f"the data set {name!r} is a folder of yours; write {name}:PATH")
    return source, os.path.expanduser(folder) or None


def open_dataset(
    name: str, train: bool, input_size: int, recipe: str = "none", shift: int = 0
) -> ArrayDataset | ImageFolder:
    """The data set `name`: ``"digits"``, ``"mnist"``, ``"fashion_mnist"``, ``"cifar10"``, or ``"imagefolder:PATH"``.

    ``"mnist:FOLDER"`` reads a local copy. Drawings come as (N, 1, input_size, input_size), by `Fit`; photographs as
    (N, 3, input_size, input_size), framed by `recipe`, one of `RECIPES` (``"ten_crop"`` gives ten views of each);
    moved at random by up to `shift` pixels; and normalised. Raises ValueError for an unknown name.
    """
    source, folder = find_source(name)
    return source.load(train, folder, source.preparation(input_size, recipe, shift))


def _moving(shift: int) -> list[Transform]:
    return [RandomShift(shift)] if shift else []
