"""How the papers frame and vary photographs, for networks of any input size.

Sizes keep the papers' proportion to the 224 pixels, or CIFAR's 32, that their networks take.
"""

from __future__ import annotations

from collections.abc import Callable

from .photographs import (
    CenterCrop,
    PCAJitter,
    RandomCrop,
    RandomHorizontalFlip,
    RandomResize,
    RandomResizedCrop,
    Resize,
    TenCrop,
)
from .transforms import Transform


def evaluation(size: int) -> list[Transform]:
    """The middle of the image, `size` pixels of 256/224 · `size`, as the papers' single-crop errors are taken."""
    return [Resize(_scaled(size, 256)), CenterCrop(size)]


def ten_crop(size: int) -> list[Transform]:
    """Corners, middle and their mirror images; Krizhevsky et al. 2012, section 4.1."""
    return [Resize(_scaled(size, 256)), TenCrop(size)]


def alexnet(size: int) -> list[Transform]:
    """Krizhevsky et al. 2012, section 4.1: crops of 256 pixels' shorter side, mirrored, their colours shifted."""
    return [Resize(_scaled(size, 256)), RandomCrop(size), RandomHorizontalFlip(), PCAJitter()]


def vgg(size: int) -> list[Transform]:
    """Simonyan and Zisserman 2015, section 3.1: as AlexNet, with a shorter side of 256 to 512 pixels."""
    jitter = RandomResize(_scaled(size, 256), _scaled(size, 512))
    return [jitter, RandomCrop(size), RandomHorizontalFlip(), PCAJitter()]


def inception(size: int) -> list[Transform]:
    """Szegedy et al. 2015, section 6: parts of 8 % to 100 % of the area, mirrored."""
    return [RandomResizedCrop(size), RandomHorizontalFlip()]


def resnet(size: int) -> list[Transform]:
    """He et al. 2015, section 3.4: as AlexNet, with a shorter side of 256 to 480 pixels."""
    jitter = RandomResize(_scaled(size, 256), _scaled(size, 480))
    return [jitter, RandomCrop(size), RandomHorizontalFlip(), PCAJitter()]


def cifar(size: int) -> list[Transform]:
    """He et al. 2015, section 4.2: 4 pixels of padding on each side of 32, a crop, mirrored."""
    return [Resize(size), CenterCrop(size), RandomCrop(size, padding=round(size / 8)), RandomHorizontalFlip()]


def _scaled(size: int, side: int) -> int:
    return round(size * side / 224)


AUGMENTATIONS: dict[str, Callable[[int], list[Transform]]] = {
    "none": evaluation, "alexnet": alexnet, "vgg": vgg, "inception": inception, "resnet": resnet, "cifar": cifar,
}
"""What training images go through, by name."""

RECIPES = {**AUGMENTATIONS, "ten_crop": ten_crop}
