"""AlexNet, 2012: the network that won ImageNet, on two GPUs.

Krizhevsky, Sutskever, Hinton, *ImageNet Classification with Deep Convolutional Neural Networks*, NIPS 2012
(claims F2 to F5). Two GPUs hold half of the filters each, and see each other's maps in conv3 and in the fully
connected layers only: conv2, conv4 and conv5 are grouped in two.

    layer                                     output       parameters
    input                                    3 × 227 × 227
    conv1  11 × 11, stride 4; ReLU; LRN     96 × 55 × 55        34,944
    pool1  3 × 3, stride 2                  96 × 27 × 27
    conv2  5 × 5, 2 groups; ReLU; LRN      256 × 27 × 27       307,456
    pool2  3 × 3, stride 2                 256 × 13 × 13
    conv3  3 × 3; ReLU                     384 × 13 × 13       885,120
    conv4  3 × 3, 2 groups; ReLU           384 × 13 × 13       663,936
    conv5  3 × 3, 2 groups; ReLU           256 × 13 × 13       442,624
    pool5  3 × 3, stride 2                 256 × 6 × 6
    fc6    ReLU, dropout                  4096              37,752,832
    fc7    ReLU, dropout                  4096              16,781,312
    fc8                                   1000               4,097,000   total 60,965,224

The paper's text says 224 × 224; 227 is what its 55 × 55 maps need. ``variant="torchvision"`` is the one-tower form
of Krizhevsky's *One weird trick* (2014), 64-192-384-256-256 filters without LRN: 61,100,840 parameters (claim F9).
"""

from __future__ import annotations

import dataclasses

from minidl import Tensor, nn
from minidl.nn import init
from minidl.training import Preset

from .common import check_images, check_variant, expect_unit_variance
from .published import load_published

_PAPER = Preset(
    # Section 5; the rate fell three times, when the error on other images no longer did. It is too high for few
    # classes: hidden biases of 1 make the last layers nearly the same for all images, and it diverges along that.
    input_size=227, epochs=90, batch_size=128, lr=0.01, weight_decay=5e-4, schedule="steps",
    milestones=(0.25, 0.5, 0.75), augment="alexnet",
)
PRESETS = {"alexnet": _PAPER, "alexnet/torchvision": dataclasses.replace(_PAPER, input_size=224)}


def alexnet(
    num_classes: int = 1000, in_channels: int = 3, dropout: float = 0.5, variant: str = "paper",
    weights: str | None = None,
) -> AlexNet | OneTower:
    """AlexNet: (N, in_channels, H, W) → logits (N, num_classes); made for 227 × 227 (torchvision's form: 224 × 224).

    `dropout` is that of the hidden layers. `variant`: ``"paper"`` (60,965,224 parameters, smallest input 67 × 67) or
    ``"torchvision"`` (61,100,840, 63 × 63), which `weights` = ``"imagenet"`` needs.
    Raises ValueError for another variant, and what `load_published` raises.
    """
    check_variant("alexnet", variant, ("paper", "torchvision"))
    form = AlexNet if variant == "paper" else OneTower
    return load_published(
        lambda: form(num_classes, in_channels, dropout), "alexnet", weights,
        fits=variant == "torchvision", num_classes=num_classes, in_channels=in_channels,
    )


def response_norm() -> nn.LocalResponseNorm:
    """Section 3.3: n = 5, k = 2, α = 10⁻⁴, β = 0.75; the layer divides α by n, the paper does not."""
    return nn.LocalResponseNorm(5, alpha=5 * 1e-4, beta=0.75, k=2.0)


class AlexNet(nn.Module):
    """The paper's AlexNet; shapes in the table above."""

    smallest = 67

    def __init__(self, num_classes: int, in_channels: int, dropout: float):
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, 96, 11, stride=4), nn.ReLU(), response_norm(), nn.MaxPool2d(3, 2),
            nn.Conv2d(96, 256, 5, padding=2, groups=2), nn.ReLU(), response_norm(), nn.MaxPool2d(3, 2),
            nn.Conv2d(256, 384, 3, padding=1), nn.ReLU(),
            nn.Conv2d(384, 384, 3, padding=1, groups=2), nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1, groups=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        )
        self.avgpool = nn.AdaptiveAvgPool2d(6)  # changes nothing at 227 × 227
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(256 * 6 * 6, 4096), nn.ReLU(), nn.Dropout(dropout),
            nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(dropout),
            nn.Linear(4096, num_classes),
        )
        self.initialise()

    def forward(self, x: Tensor) -> Tensor:
        check_images("AlexNet", x, self.smallest)
        return self.classifier(self.avgpool(self.features(x)))

    def initialise(self) -> None:
        """Section 5: weights N(0, 0.01²), biases 0, but 1 in conv2, conv4, conv5 and the hidden layers."""
        layers = [layer for layer in self.modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]
        for layer, bias in zip(layers, (0, 1, 0, 1, 1, 1, 1, 0), strict=True):
            assert layer.bias is not None
            init.normal_(layer.weight, std=0.01)
            init.constant_(layer.bias, bias)
        expect_unit_variance(self.features[0])


class OneTower(nn.Module):
    """The form of *One weird trick*, with torchvision's `state_dict` keys and initialisation."""

    smallest = 63

    def __init__(self, num_classes: int, in_channels: int, dropout: float):
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2),
        )
        self.avgpool = nn.AdaptiveAvgPool2d(6)
        self.classifier = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(256 * 6 * 6, 4096), nn.ReLU(),
            nn.Dropout(dropout), nn.Linear(4096, 4096), nn.ReLU(),
            nn.Linear(4096, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        check_images("AlexNet", x, self.smallest)
        return self.classifier(self.avgpool(self.features(x)).flatten(1))
