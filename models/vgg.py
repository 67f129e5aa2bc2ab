"""VGG, 2014: nothing but 3 × 3, and depth.

Simonyan and Zisserman, *Very Deep Convolutional Networks for Large-Scale Image Recognition*, ICLR 2015 (claims F7 to
F11). Two 3 × 3 convolutions see 5 × 5 pixels, three see 7 × 7, with fewer parameters and a ReLU after each. VGG-16:

    layer                     output            parameters
    input                    3 × 224 × 224
    conv1_1, conv1_2        64 × 224 × 224     1,792 + 36,928
    pool                    64 × 112 × 112
    conv2_1, conv2_2       128 × 112 × 112     73,856 + 147,584
    pool                   128 × 56 × 56
    conv3_1 to conv3_3     256 × 56 × 56       295,168 + 2 · 590,080
    pool                   256 × 28 × 28
    conv4_1 to conv4_3     512 × 28 × 28       1,180,160 + 2 · 2,359,808
    pool                   512 × 14 × 14
    conv5_1 to conv5_3     512 × 14 × 14       3 · 2,359,808
    pool                   512 × 7 × 7
    fc6, fc7              4096 each            102,764,544 + 16,781,312
    fc8                   1000                 4,097,000   total 138,357,544

Columns A, B and E of the paper's table 1 are VGG-11, VGG-13 and VGG-19. The `state_dict` keys are torchvision's.
"""

from __future__ import annotations

from minidl import Tensor, nn
from minidl.nn import init
from minidl.training import Preset

from .common import check_images, expect_unit_variance
from .published import load_published

COLUMNS = {
    "vgg11": ((64,), (128,), (256, 256), (512, 512), (512, 512)),
    "vgg13": ((64, 64), (128, 128), (256, 256), (512, 512), (512, 512)),
    "vgg16": ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)),
    "vgg19": ((64, 64), (128, 128), (256, 256, 256, 256), (512, 512, 512, 512), (512, 512, 512, 512)),
}
"""Table 1 of the paper: the filters of each convolution, stage by stage; a pool follows each stage."""

PRESETS = {  # section 3.1 at one scale, S = 256: 370,000 batches, in which the rate fell three times
    name: Preset(
        input_size=224, epochs=74, batch_size=256, lr=0.01, weight_decay=5e-4, schedule="steps",
        milestones=(0.25, 0.5, 0.75), augment="alexnet",
    )
    for name in COLUMNS
}


def vgg11(
    num_classes: int = 1000, in_channels: int = 3, batch_norm: bool = False, dropout: float = 0.5,
    weights: str | None = None,
) -> VGG:
    """VGG-11, column A: 132,863,336 parameters (132,868,840 with `batch_norm`). See `VGG`."""
    return _build("vgg11", num_classes, in_channels, batch_norm, dropout, weights)


def vgg13(
    num_classes: int = 1000, in_channels: int = 3, batch_norm: bool = False, dropout: float = 0.5,
    weights: str | None = None,
) -> VGG:
    """VGG-13, column B: 133,047,848 parameters (133,053,736 with `batch_norm`). See `VGG`."""
    return _build("vgg13", num_classes, in_channels, batch_norm, dropout, weights)


def vgg16(
    num_classes: int = 1000, in_channels: int = 3, batch_norm: bool = False, dropout: float = 0.5,
    weights: str | None = None,
) -> VGG:
    """VGG-16, column D: 138,357,544 parameters (138,365,992 with `batch_norm`). See `VGG`."""
    return _build("vgg16", num_classes, in_channels, batch_norm, dropout, weights)


def vgg19(
    num_classes: int = 1000, in_channels: int = 3, batch_norm: bool = False, dropout: float = 0.5,
    weights: str | None = None,
) -> VGG:
    """VGG-19, column E: 143,667,240 parameters (143,678,248 with `batch_norm`). See `VGG`."""
    return _build("vgg19", num_classes, in_channels, batch_norm, dropout, weights)


def _build(
    name: str, num_classes: int, in_channels: int, batch_norm: bool, dropout: float, weights: str | None
) -> VGG:
    def make() -> VGG:
        return VGG(COLUMNS[name], num_classes, in_channels, batch_norm, dropout)

    published = f"{name}_bn" if batch_norm else name
    return load_published(make, published, weights, fits=True, num_classes=num_classes, in_channels=in_channels)


class VGG(nn.Module):
    """(N, in_channels, H, W) → logits (N, num_classes); made for 224 × 224, smallest input 32 × 32.

    `batch_norm` puts a batch normalisation behind each convolution, as later work did; `dropout` is that of the hidden
    layers. `weights` = ``"imagenet"`` loads the published ones; the factories raise what `load_published` raises.
    """

    smallest = 32

    def __init__(
        self, stages: tuple[tuple[int, ...], ...], num_classes: int, in_channels: int, batch_norm: bool, dropout: float
    ):
        layers: list[nn.Module] = []
        for stage in stages:
            for channels in stage:
                layers.append(nn.Conv2d(in_channels, channels, 3, padding=1))
                layers += [nn.BatchNorm2d(channels), nn.ReLU()] if batch_norm else [nn.ReLU()]
                in_channels = channels
            layers.append(nn.MaxPool2d(2, 2))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(7)  # changes nothing at 224 × 224
        self.classifier = nn.Sequential(
            nn.Linear(in_channels * 7 * 7, 4096), nn.ReLU(), nn.Dropout(dropout),
            nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(dropout),
            nn.Linear(4096, num_classes),
        )
        self.apply(_initialise)
        expect_unit_variance(self.features[0])

    def forward(self, x: Tensor) -> Tensor:
        check_images("VGG", x, self.smallest)
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


def _initialise(module: nn.Module) -> None:
    """Glorot and Bengio's, with which the paper's deep columns need no pre-trained shallow one (section 3.1)."""
    if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
        init.xavier_normal_(module.weight)
        init.zeros_(module.bias)
