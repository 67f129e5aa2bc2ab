"""ZFNet, 2013: AlexNet with a finer first layer, found by looking inside.

Zeiler and Fergus, *Visualizing and Understanding Convolutional Networks*, ECCV 2014 (claim F6). Deconvolution had
shown that AlexNet's 11 × 11 filters at stride 4 miss middle frequencies and alias; ZFNet sees 7 × 7 at stride 2. The
lecture's form has 512, 1024 and 512 filters in the last convolutions:

    layer                                  output       parameters
    input                                 3 × 224 × 224
    conv1  7 × 7, stride 2; ReLU; LRN    96 × 110 × 110        14,208
    pool1  3 × 3, stride 2, ceil         96 × 55 × 55
    conv2  5 × 5, stride 2; ReLU; LRN   256 × 26 × 26         614,656
    pool2  3 × 3, stride 2, ceil        256 × 13 × 13
    conv3  3 × 3; ReLU                  512 × 13 × 13       1,180,160
    conv4  3 × 3; ReLU                 1024 × 13 × 13       4,719,616
    conv5  3 × 3; ReLU                  512 × 13 × 13       4,719,104
    pool5  3 × 3, stride 2              512 × 6 × 6
    fc6    ReLU, dropout               4096                75,501,568
    fc7    ReLU, dropout               4096                16,781,312
    fc8                                1000                 4,097,000   total 107,627,624

With the paper's 384, 384 and 256 filters, ``filters=(384, 384, 256)``, it has 62,357,608.
"""

from __future__ import annotations

from collections.abc import Sequence

from minidl import Tensor, nn
from minidl.nn import init
from minidl.training import Preset

from .alexnet import response_norm
from .common import check_images, expect_unit_variance

PRESETS = {
    "zfnet": Preset(  # section 3; the rate fell by hand; weight decay is AlexNet's
        input_size=224, epochs=70, batch_size=128, lr=0.01, weight_decay=5e-4, schedule="steps",
        milestones=(0.25, 0.5, 0.75), augment="alexnet",
    ),
}


def zfnet(
    num_classes: int = 1000, in_channels: int = 3, dropout: float = 0.5, filters: Sequence[int] = (512, 1024, 512)
) -> ZFNet:
    """ZFNet: (N, in_channels, H, W) → logits (N, num_classes); made for 224 × 224, smallest input 63 × 63.

    `dropout` is that of the hidden layers. `filters` of conv3, conv4 and conv5: the lecture's by default (107,627,624
    parameters), the paper's are (384, 384, 256) (62,357,608). Raises ValueError unless there are three.
    """
    return ZFNet(num_classes, in_channels, dropout, filters)


class ZFNet(nn.Module):
    """ZFNet; shapes in the table above."""

    smallest = 63

    def __init__(self, num_classes: int, in_channels: int, dropout: float, filters: Sequence[int]):
        if len(filters) != 3:
            raise ValueError(f"zfnet: filters are those of conv3, conv4 and conv5, such as (512, 1024, 512); "
                             f"got {filters!r}")
        conv3, conv4, conv5 = filters
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, 96, 7, stride=2, padding=1), nn.ReLU(), response_norm(),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            nn.Conv2d(96, 256, 5, stride=2), nn.ReLU(), response_norm(),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            nn.Conv2d(256, conv3, 3, padding=1), nn.ReLU(),
            nn.Conv2d(conv3, conv4, 3, padding=1), nn.ReLU(),
            nn.Conv2d(conv4, conv5, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2),
        )
        self.avgpool = nn.AdaptiveAvgPool2d(6)  # changes nothing at 224 × 224
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(conv5 * 6 * 6, 4096), nn.ReLU(), nn.Dropout(dropout),
            nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(dropout),
            nn.Linear(4096, num_classes),
        )
        self.apply(_initialise)
        expect_unit_variance(self.features[0])

    def forward(self, x: Tensor) -> Tensor:
        check_images("ZFNet", x, self.smallest)
        return self.classifier(self.avgpool(self.features(x)))


def _initialise(module: nn.Module) -> None:
    """Section 3.1: weights of the order 10⁻², biases 0."""
    if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
        init.normal_(module.weight, std=0.01)
        init.zeros_(module.bias)
