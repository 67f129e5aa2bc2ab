"""What a data set is: a length and a sample for each index. `ArrayDataset` holds images and labels in memory."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from .. import backend
from .collate import collate
from .transforms import Transform

WHITE = {"uint8": 255, "uint16": 65535}
"""The value of white in images of these dtypes."""


class Dataset(Protocol):
    """Anything with a length and a sample for each index: often (image, label), an array (C, H, W) and a whole number.

    A sample may be anything that `default_collate` takes.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


@runtime_checkable
class BatchDataset(Dataset, Protocol):
    """A `Dataset` that prepares a whole batch at once, with random numbers that the caller provides."""

    def fetch(self, indices: Sequence[int] | np.ndarray, rng: np.random.Generator) -> Any:
        """The images (n, C, H, W) and labels (n,) at `indices`; every random number comes from `rng`."""
        ...


def fetch(dataset: Dataset, indices: Sequence[int] | np.ndarray, rng: np.random.Generator) -> Any:
    """The batch of `dataset` at `indices`, as arrays. `minidl.backend.generator()` is `rng` meanwhile."""
    with backend.drawing_from(rng):
        if isinstance(dataset, BatchDataset):
            return dataset.fetch(indices, rng)
        return collate(read(dataset, indices), [int(index) for index in indices])


def read(dataset: Dataset, indices: Sequence[int] | np.ndarray) -> list[Any]:
    """The samples of `dataset` at `indices`."""
    samples = []
    for index in map(int, indices):
        try:
            samples.append(dataset[index])
        except Exception as error:
            note(error, f"while reading sample {index}")
            raise
    return samples


def note(error: Exception, text: str) -> None:
    """Add `text` to what is shown of `error`, where Python can (from 3.11 on)."""
    if hasattr(error, "add_note"):
        error.add_note(text)


def as_indices(indices: Any, count: int) -> np.ndarray:
    """`indices` into `count` samples as whole numbers from 0, (n,). Negative ones count from the end.

    Raises TypeError for what is not whole numbers, ValueError for more than one axis, IndexError for what is too large.
    """
    chosen = np.asarray(indices)
    if chosen.ndim != 1:
        raise ValueError(f"indices have the shape {chosen.shape}; expected a list of them, (n,)")
    if chosen.dtype.kind not in "iu" and chosen.size:
        raise TypeError(f"indices are {chosen.dtype}; expected whole numbers")
    outside = (chosen < -count) | (chosen >= count)
    if outside.any():
        raise IndexError(f"index {chosen[outside][0]}; the data set has {count} samples, 0 to {count - 1}")
    return np.where(chosen < 0, chosen + count, chosen).astype(np.intp)


class ArrayDataset:
    """Images (N, C, H, W) and their labels (N,), both in memory.

    `images` stay as they are, without a copy; a batch becomes float32 when it is asked for, divided
    by `scale`, the value of white (default: 1 for floats, 255 for uint8, 65535 for uint16). Then `transform`
    is called as ``transform(images, rng)`` on the batch (n, C, H, W). `labels` are whole numbers;
    `classes` names what they stand for.

    Raises `ValueError` for shapes that are not (N, C, H, W) and (N,), for lengths that disagree, for a label that is
    not the index of a class, and for other whole numbers without a `scale`; `TypeError` for images that are not
    numbers and labels that are not whole numbers.
    """

    def __init__(
        self,
        images: Any,
        labels: Any,
        transform: Transform | None = None,
        classes: Sequence[str] | None = None,
        scale: float | None = None,
    ):
        self.images = np.asarray(images)
        self.labels = np.asarray(labels)
        self.transform = transform
        self.classes = None if classes is None else tuple(classes)
        if self.images.ndim != 4:
            raise ValueError(f"images have the shape {self.images.shape}; expected (N, C, H, W)")
        if self.images.dtype.kind not in "uif":
            raise TypeError(f"images are {self.images.dtype}; expected whole or floating-point numbers")
        if self.labels.shape != self.images.shape[:1]:
            raise ValueError(
                f"labels have the shape {self.labels.shape}; expected ({len(self.images)},), one for each image"
            )
        if self.labels.dtype.kind not in "ui" and self.labels.size:
            raise TypeError(f"labels are {self.labels.dtype}; expected whole numbers")
        self.labels = self.labels.astype(np.int64)
        if self.classes is not None:
            wrong = np.flatnonzero((self.labels < 0) | (self.labels >= len(self.classes)))
            if len(wrong):
                raise ValueError(
                    f"label {self.labels[wrong[0]]} of image {wrong[0]}; "
                    f"expected 0 to {len(self.classes) - 1} for {len(self.classes)} classes"
                )
        if scale is None:
            scale = 1 if self.images.dtype.kind == "f" else WHITE.get(self.images.dtype.name)
        if scale is None:
            raise ValueError(f"images are {self.images.dtype}, whose value of white is not known; say it, for example "
                             "scale=255")
        if not scale > 0:
            raise ValueError(f"scale is {scale}; expected the value of white, above 0")
        self.scale = scale

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """The image (C, H, W), float32, and the label at `index`.

        A random transform draws from `minidl.backend.generator()`, the generator that `manual_seed` seeds.
        """
        images, labels = self.fetch([operator.index(index)], backend.generator())
        return images[0], int(labels[0])

    def fetch(self, indices: Sequence[int] | np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """The images (n, C, H, W), float32, and labels (n,), int64, at `indices`.

        The transform draws its random numbers from `rng` alone, so the same `rng` gives the same batch.
        """
        indices = as_indices(indices, len(self))
        images = np.divide(self.images[indices], self.scale, dtype=np.float32)
        if self.transform is not None:
            images = self.transform(images, rng)
        return images, self.labels[indices]

    def __repr__(self) -> str:
        count, channels, height, width = self.images.shape
        return f"{type(self).__name__}({count} images of {channels}×{height}×{width}, transform={self.transform})"


class Subset:
    """The samples of `dataset` at `indices`, in that order; as `torch.utils.data.Subset`, of any data set.

    `indices` are whole numbers, negative ones counted from the end, or a mask: one bool per sample, True to choose it.

    Raises `IndexError` for an index that the data set does not have and a mask of another length, `TypeError` for
    other numbers.
    """

    def __init__(self, dataset: Dataset, indices: Any):
        chosen, count = np.asarray(indices), len(dataset)
        if chosen.dtype == bool:
            if chosen.shape != (count,):
                raise IndexError(f"the mask has the shape {chosen.shape}; the data set has {count} samples")
            chosen = np.flatnonzero(chosen)
        self.dataset, self.indices = dataset, as_indices(chosen, count)
        self.classes = getattr(dataset, "classes", None)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[int(self.indices[operator.index(index)])]

    def fetch(self, indices: Sequence[int] | np.ndarray, rng: np.random.Generator) -> Any:
        """The batch at these places of the subset, as arrays: images (n, C, H, W) and labels (n,) where it has such."""
        return fetch(self.dataset, self.indices[as_indices(indices, len(self))], rng)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} of {self.dataset})"


def spread(dataset: BatchDataset, count: int) -> Subset:
    """`count` images of `dataset`, evenly apart, so that sets sorted by class give some of each.

    Raises `ValueError` for more images than there are.
    """
    if not 0 < count <= len(dataset):
        raise ValueError(f"{count:,} images were asked for; the data set has {len(dataset):,}")
    return Subset(dataset, np.arange(count) * len(dataset) // count)
