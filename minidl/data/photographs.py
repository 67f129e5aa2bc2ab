"""Transforms of photographs: the scales, crops, flips and colours of the papers. Those that torchvision has, too, bear
its names; sizes are one whole number, and images smaller than a crop are refused.

As every transform: images (N, C, H, W), float32, in [0, 1], and a generator come in, and images go out; those that
came in stay as they are. Random numbers are drawn for each image on its own. Transforms that only move pixels take any
dtype; Resize, RandomResize, RandomResizedCrop and PCAJitter raise TypeError for whole numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Integral

import numpy as np

from .images import MAX_PIXELS
from .transforms import check_floats


@dataclass(frozen=True)
class Resize:
    """The shorter side made `size` pixels long, the ratio of the sides kept; averaged where that makes it smaller.

    Raises ValueError when called on images so narrow that they would become larger than `MAX_PIXELS`.
    """

    size: int

    def __post_init__(self) -> None:
        _check_size("Resize", self.size)

    def __call__(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        height, width = images.shape[2:]
        shorter = min(height, width)
        return resize(images, (height * self.size // shorter, width * self.size // shorter))


@dataclass(frozen=True)
class RandomResize:
    """VGG's scale jitter: the shorter side made `min_size` to `max_size` pixels long, drawn anew for each batch.

    A batch of photographs of different sizes is transformed one at a time, so that each has a scale of its own.
    Simonyan and Zisserman 2015, section 3.1.
    """

    min_size: int
    max_size: int

    def __post_init__(self) -> None:
        _check_size("RandomResize", self.min_size)
        if self.max_size < self.min_size:
            raise ValueError(f"RandomResize: max_size is {self.max_size}; expected min_size={self.min_size} or more")

    def __call__(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return Resize(int(rng.integers(self.min_size, self.max_size, endpoint=True)))(images, rng)


@dataclass(frozen=True)
class CenterCrop:
    """The `size` × `size` pixels in the middle. Raises ValueError when called on images smaller than that."""

    size: int

    def __post_init__(self) -> None:
        _check_size("CenterCrop", self.size)

    def __call__(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        _check_room("CenterCrop", images, self.size)
        top, left = (round((side - self.size) / 2) for side in images.shape[2:])
        return images[:, :, top : top + self.size, left : left + self.size]


@dataclass(frozen=True)
class RandomCrop:
    """`size` × `size` pixels from anywhere, of the image with `padding` zeros around it.

    Krizhevsky et al. 2012, section 4.1; with ``padding=4`` He et al. 2015's for CIFAR. Raises ValueError when called
    on images smaller than that.
    """

    size: int
    padding: int = 0

    def __post_init__(self) -> None:
        _check_size("RandomCrop", self.size)
        if self.padding < 0:
            raise ValueError(f"RandomCrop: padding is {self.padding}; expected 0 or more pixels")

    def __call__(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        around = (self.padding, self.padding)
        images = np.pad(images, ((0, 0), (0, 0), around, around)) if self.padding else images
        _check_room("RandomCrop", images, self.size)
        height, width = images.shape[2:]
        tops = rng.integers(height - self.size, size=len(images), endpoint=True)
        lefts = rng.integers(width - self.size, size=len(images), endpoint=True)
        crops = np.empty((*images.shape[:2], self.size, self.size), images.dtype)
        for crop, image, top, left in zip(crops, images, tops, lefts):
            crop[...] = image[:, top : top + self.size, left : left + self.size]
        return crops


@dataclass(frozen=True)
class RandomResizedCrop:
    """A part of the image, between `scale` of its area and between `ratio` wide for its height, as `size` × `size`.

    Szegedy et al. 2015, section 6. A part that does not fit is drawn again, up to ten times; then the middle is taken.
    """

    size: int
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self) -> None:
        _check_size("RandomResizedCrop", self.size)
        for name, (low, high) in (("scale", self.scale), ("ratio", self.ratio)):
            if not 0 < low <= high:
                raise ValueError(f"RandomResizedCrop: {name} is {(low, high)}; expected two numbers above 0, in order")

    def __call__(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        check_floats("RandomResizedCrop", images)
        crops = np.empty((*images.shape[:2], self.size, self.size), images.dtype)
        for crop, image in zip(crops, images):
            top, left, height, width = self._part(image.shape[1], image.shape[2], rng)
            part = image[None, :, top : top + height, left : left + width]
            crop[...] = resize(part, (self.size, self.size))[0]
        return crops

    def _part(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        for _ in range(10):
            area = height * width * rng.uniform(*self.scale)
            ratio = math.exp(rng.uniform(math.log(self.ratio[0]), math.log(self.ratio[1])))
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
        h = min(height, max(1, round(width / self.ratio[0])))
        w = min(width, max(1, round(height * self.ratio[1])))
        return (height - h) // 2, (width - w) // 2, h, w


@dataclass(frozen=True)
class RandomHorizontalFlip:
    """Each image mirrored, left for right, with probability `p`."""

    p: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.p <= 1:
            raise ValueError(f"RandomHorizontalFlip: p is a probability; got {self.p}")

    def __call__(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        flipped = rng.random(len(images)) < self.p
        return np.where(flipped[:, None, None, None], images[..., ::-1], images)


@dataclass(frozen=True)
class PCAJitter:
    """AlexNet's colour jitter: p₁ α₁ λ₁ + p₂ α₂ λ₂ + p₃ α₃ λ₃ added to every pixel of an image, each α from N(0, std²).

    pᵢ and λᵢ are the eigenvectors and eigenvalues of the covariance of ImageNet's colours, in [0, 1].
    Krizhevsky et al. 2012, section 4.1. Raises ValueError when called on images without three channels.
    """

    std: float = 0.1

    def __post_init__(self) -> None:
        if not self.std >= 0:
            raise ValueError(f"PCAJitter: std is {self.std}; expected 0 or more")

    def __call__(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        check_floats("PCAJitter", images)
        if images.shape[1] != 3:
            raise ValueError(f"PCAJitter needs red, green and blue; got images {images.shape}")
        alphas = rng.normal(0, self.std, (len(images), 3))
        shift = (alphas * _COLOUR_SCALES) @ _COLOUR_AXES.T
        return images + shift[:, :, None, None].astype(images.dtype)


_COLOUR_SCALES = np.array([0.2175, 0.0188, 0.0045])
_COLOUR_AXES = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])


@dataclass(frozen=True)
class TenCrop:
    """The four corners and the middle, `size` × `size`, and the mirror images of these.

    (N, C, H, W) → (N, 10, C, size, size).
    `minidl.training.evaluate` averages a network's softmax over them, as Krizhevsky et al. 2012 did (section 4.1).
    Raises ValueError when called on images smaller than that.
    """

    size: int

    def __post_init__(self) -> None:
        _check_size("TenCrop", self.size)

    def __call__(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        _check_room("TenCrop", images, self.size)
        five = list(self._five(images, rng))
        return np.stack([*five, *(crop[..., ::-1] for crop in five)], axis=1)

    def _five(self, images: np.ndarray, rng: np.random.Generator) -> Iterator[np.ndarray]:
        bottom, right = (side - self.size for side in images.shape[2:])
        for top, left in ((0, 0), (0, right), (bottom, 0), (bottom, right)):
            yield images[:, :, top : top + self.size, left : left + self.size]
        yield CenterCrop(self.size)(images, rng)


def resize(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Images (N, C, H, W) as (N, C, *size), bilinear, averaged where that makes them smaller, by Pillow.

    Raises TypeError for images of whole numbers, ValueError for a size above `MAX_PIXELS`, and ModuleNotFoundError
    naming the extra to install where Pillow is missing.
    """
    check_floats("Resize", images)
    if size[0] * size[1] > MAX_PIXELS:
        raise ValueError(f"images of {images.shape[2]}×{images.shape[3]} pixels would become {size[0]}×{size[1]}; at "
                         f"most {MAX_PIXELS:,} pixels are made of one")
    if images.shape[2:] == size:
        return images
    try:
        from PIL import Image
    except ModuleNotFoundError:
        raise ModuleNotFoundError("resizing photographs needs Pillow; run: pip install 'minidl[images]'") from None
    resized = np.empty((*images.shape[:2], *size), images.dtype)
    for target, image in zip(resized.reshape(-1, *size), images.reshape(-1, *images.shape[2:])):
        plane = Image.fromarray(np.asarray(image, np.float32))
        target[...] = plane.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return resized


def _check_size(transform: str, size: int) -> None:
    if not isinstance(size, Integral) or size < 1:
        raise ValueError(f"{transform}: the size is {size!r}; expected 1 or more pixels")


def _check_room(transform: str, images: np.ndarray, size: int) -> None:
    if min(images.shape[2:]) < size:
        raise ValueError(f"{transform}({size}): images of {images.shape[2]}×{images.shape[3]} pixels are too small; "
                         f"put Resize({size}) in front")
