"""Data sets by name, ready for a network: fitted to its input size and normalised."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import NamedTuple

from .dataset import ArrayDataset
from .digits import digits
from .mnist import DIGITS, FASHION_CLASSES, fashion_mnist, mnist
from .transforms import Compose, Fit, Normalize, RandomShift


class Source(NamedTuple):
    """How to open a data set, the side of its images, their mean and standard deviation in [0, 1], and its classes."""

    open: Callable[..., ArrayDataset]
    size: int
    mean: float
    std: float
    classes: tuple[str, ...]
    has_folder: bool = True


SOURCES = {
    "digits": Source(digits, 8, 0.3051, 0.3762, DIGITS, has_folder=False),
    "mnist": Source(mnist, 28, 0.1307, 0.3081, DIGITS),
    "fashion_mnist": Source(fashion_mnist, 28, 0.2860, 0.3530, FASHION_CLASSES),
}


def find_source(name: str) -> tuple[Source, str | None]:
    """The source and folder of ``"name"`` or ``"name:folder"``.

    Raises ValueError for an unknown name, with the nearest ones, and for a folder that the source does not take.
    """
    name, _, folder = name.partition(":")
    if name not in SOURCES:
        near = difflib.get_close_matches(name, SOURCES, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(SOURCES)}"
        raise ValueError(f"there is no data set {name!r}; {hint}")
    if folder and not SOURCES[name].has_folder:
        raise ValueError(f"the data set {name!r} comes with minidl and takes no folder; got {folder!r}")
    return SOURCES[name], folder or None


def open_dataset(name: str, train: bool, input_size: int, shift: int = 0) -> ArrayDataset:
    """The data set `name`, ``"digits"``, ``"mnist"`` or ``"fashion_mnist"``; ``"mnist:FOLDER"`` reads a local copy.

    Images come as (N, 1, input_size, input_size), by `Fit` and `Normalize`, moved at random by up to `shift` pixels
    in between. Raises ValueError for an unknown name.
    """
    source, folder = find_source(name)
    options = {"root": folder} if source.has_folder else {}
    return source.open(train=train, transform=preparation(source, input_size, shift), **options)


def preparation(source: Source, input_size: int, shift: int = 0) -> Compose:
    """What is done to every image of `source` before a network sees it."""
    moving = [RandomShift(shift)] if shift else []
    return Compose([Fit(input_size), *moving, Normalize([source.mean], [source.std])])
