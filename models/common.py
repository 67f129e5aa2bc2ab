"""What the families share: refusing an input that they cannot take, and the scale of what they see."""

from __future__ import annotations

from minidl import Tensor, nn
from minidl.data import IMAGENET_STD

PIXEL_STD = 255 * sum(IMAGENET_STD) / 3
"""The standard deviation of ImageNet's pixels, which go from 0 to 255."""


def expect_unit_variance(first: nn.Conv2d) -> None:
    """Let `first`, initialised for pixels around their mean as the papers until 2014 fed them, see normalised ones.

    Otherwise what tells images apart arrives that much smaller in every layer, beside biases that stay as they are.
    """
    first.weight.data *= PIXEL_STD


def check_images(network: str, x: Tensor, smallest: int) -> None:
    """ValueError unless `x` is images (N, C, H, W) of at least `smallest` pixels a side."""
    if x.ndim != 4:
        raise ValueError(f"{network} takes images (N, C, H, W); got shape {x.shape}")
    if min(x.shape[2:]) < smallest:
        raise ValueError(f"{network} takes images of at least {smallest} × {smallest} pixels; got {x.shape}. "
                         f"Enlarge them: minidl.data.Resize({smallest})")


def check_variant(network: str, variant: str, variants: tuple[str, ...]) -> None:
    """ValueError unless `variant` is one of `variants`."""
    if variant not in variants:
        raise ValueError(f"{network}: there is no variant {variant!r}; choose {' or '.join(map(repr, variants))}")
