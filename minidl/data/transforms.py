"""What may happen to a batch of images between the disk and the network.

A transform is called as ``transform(images, rng)`` with images (N, C, H, W), float32 in [0, 1], and returns new
ones. All of its random numbers come from `rng`, so the same `rng` gives the same images. This file has the transforms
for any images, `photographs` those for photographs. Transforms that only move pixels take any dtype; those that compute
with them raise TypeError for whole numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

Transform = Callable[[np.ndarray, np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class Compose:
    """The transforms one after the other, the first one first."""

    transforms: Sequence[Transform]

    def __call__(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        for transform in self.transforms:
            images = transform(images, rng)
        return images


@dataclass(frozen=True)
class Normalize:
    """(image − mean) / std, with one mean and one standard deviation for each channel; (N, C, H, W) or (N, …, C, H, W).

    Raises `ValueError` for a standard deviation that is not above 0, for lengths that disagree, and
    when called on images with another number of channels; `TypeError` for images of whole numbers.
    """

    mean: Sequence[float]
    std: Sequence[float]

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std):
            raise ValueError(f"{len(self.mean)} means, {len(self.std)} standard deviations; expected one per channel")
        if not all(std > 0 for std in self.std):
            raise ValueError(f"std is {self.std}; every standard deviation must be above 0")

    def __call__(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        check_floats("Normalize", images)
        if images.shape[-3] != len(self.mean):
            raise ValueError(f"images {images.shape} have {images.shape[-3]} channels; {self} expects {len(self.mean)}")
        mean = np.array(self.mean, images.dtype).reshape(-1, 1, 1)
        std = np.array(self.std, images.dtype).reshape(-1, 1, 1)
        return (images - mean) / std


@dataclass(frozen=True)
class Fit:
    """Images (N, C, H, W) made to fill `size` × `size` without inventing a value.

    Each pixel becomes a square, as large as the largest whole factor that fits allows, and zeros go
    evenly around the rest (one more below and to the right where it is odd). ``Fit(32)`` takes the
    8×8 digits to 32×32 by a factor of 4, and puts 2 zeros on each side of MNIST's 28×28, as LeCun
    et al. did in 1998.

    Raises `ValueError` when called on images larger than `size`.
    """

    size: int

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size is {self.size}; expected 1 or more pixels")

    def __call__(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        count, channels, height, width = images.shape
        factor = self.size // max(height, width)
        if factor == 0:
            raise ValueError(f"images of {height}×{width} pixels do not fit into {self.size}×{self.size}")
        enlarged = images.repeat(factor, axis=2).repeat(factor, axis=3)
        top = (self.size - factor * height) // 2
        left = (self.size - factor * width) // 2
        fitted = np.zeros((count, channels, self.size, self.size), images.dtype)
        fitted[:, :, top : top + factor * height, left : left + factor * width] = enlarged
        return fitted


@dataclass(frozen=True)
class RandomShift:
    """Each image moved by its own whole number of pixels, −`pixels` to `pixels`, down and to the right.

    All shifts are equally likely. What moves out is lost, what moves in is zero.
    """

    pixels: int

    def __post_init__(self) -> None:
        if self.pixels < 0:
            raise ValueError(f"pixels is {self.pixels}; expected 0 or more")

    def __call__(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        count, _, height, width = images.shape
        top, left = rng.integers(2 * self.pixels, size=(2, count), endpoint=True)
        border = (self.pixels, self.pixels)
        padded = np.pad(images, ((0, 0), (0, 0), border, border))
        # Every shift is a window of the padded image: (N, C, 2·pixels + 1, 2·pixels + 1, H, W), a view.
        windows = sliding_window_view(padded, (height, width), axis=(2, 3))
        return windows[np.arange(count), :, top, left]


def check_floats(transform: str, images: np.ndarray) -> None:
    """Raise TypeError unless `images` are floating-point numbers: 0 to 255 would silently be taken for 0 to 1."""
    if images.dtype.kind != "f":
        raise TypeError(f"{transform} computes with floats in [0, 1]; got images of {images.dtype}. "
                        'Write images.astype("float32") / 255')
