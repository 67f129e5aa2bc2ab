"""What a data set is: a length and an image with its label for each index. `ArrayDataset` holds both in memory."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from .. import backend
from .transforms import Transform


class Dataset(Protocol):
    """Anything with a length whose items are (image, label): an array (C, H, W) and a whole number."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> tuple[Any, Any]: ...


@runtime_checkable
class BatchDataset(Dataset, Protocol):
    """A `Dataset` that prepares a whole batch at once, with random numbers that the caller provides."""

    def fetch(self, indices: Sequence[int] | np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """The images (n, C, H, W) and labels (n,) at `indices`; every random number comes from `rng`."""
        ...


class ArrayDataset:
    """Images (N, C, H, W) and their labels (N,), both in memory.

    `images` stay as they are, without a copy; a batch becomes float32 when it is asked for, divided
    by `scale`, the value of white: 255 unless told for whole numbers, 1 for floats. Then `transform`
    is called as ``transform(images, rng)`` on the batch (n, C, H, W). `labels` are whole numbers;
    `classes` names what they stand for.

    Raises `ValueError` for shapes that are not (N, C, H, W) and (N,), for lengths that disagree and
    for a label that no class stands behind; `TypeError` for images that are not numbers and labels
    that are not whole numbers.
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
            scale = 1 if self.images.dtype.kind == "f" else 255
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
        indices = np.asarray(indices, dtype=np.intp)
        images = np.divide(self.images[indices], self.scale, dtype=np.float32)
        if self.transform is not None:
            images = self.transform(images, rng)
        return images, self.labels[indices]

    def __repr__(self) -> str:
        count, channels, height, width = self.images.shape
        return f"{type(self).__name__}({count} images of {channels}×{height}×{width}, transform={self.transform})"


class Subset:
    """The images of `dataset`, a `BatchDataset`, at `indices`, in that order. As `torch.utils.data.Subset`.

    Raises `IndexError` for an index that the data set does not have.
    """

    def __init__(self, dataset: BatchDataset, indices: Sequence[int] | np.ndarray):
        self.dataset, self.indices = dataset, np.asarray(indices, dtype=np.intp)
        outside = (self.indices < 0) | (self.indices >= len(dataset))
        if outside.any():
            raise IndexError(f"index {self.indices[outside][0]}; the data set has {len(dataset)} images, from 0")
        self.classes = getattr(dataset, "classes", None)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return self.dataset[int(self.indices[operator.index(index)])]

    def fetch(self, indices: Sequence[int] | np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """The images (n, C, H, W) and labels (n,) at these places of the subset."""
        return self.dataset.fetch(self.indices[np.asarray(indices, dtype=np.intp)], rng)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} of {self.dataset})"


def spread(dataset: BatchDataset, count: int) -> Subset:
    """`count` images of `dataset`, evenly apart, so that sets sorted by class give some of each.

    Raises `ValueError` for more images than there are.
    """
    if not 0 < count <= len(dataset):
        raise ValueError(f"{count:,} images were asked for; the data set has {len(dataset):,}")
    return Subset(dataset, np.arange(count) * len(dataset) // count)
