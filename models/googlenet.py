"""GoogLeNet, 2014: Inception modules, 1 × 1 bottlenecks, and two auxiliary heads.

Szegedy et al., *Going Deeper with Convolutions*, CVPR 2015 (claims F12 to F14). An Inception module looks at its
input through 1 × 1, 3 × 3, 5 × 5 and pooling at once and joins the results; 1 × 1 convolutions shrink the input of
the larger ones first. The paper's table 1, with ReLU behind every convolution:

    layer                                          output      parameters
    input                                         3 × 224 × 224
    convolution 7 × 7, stride 2                  64 × 112 × 112       9,472
    max pool 3 × 3, stride 2, ceil; LRN          64 × 56 × 56
    convolutions 1 × 1 and 3 × 3; LRN           192 × 56 × 56       114,944
    max pool 3 × 3, stride 2, ceil              192 × 28 × 28
    inception 3a, 3b                     256 and 480 × 28 × 28      552,432
    max pool 3 × 3, stride 2, ceil              480 × 14 × 14
    inception 4a, then auxiliary head 1         512 × 14 × 14       376,176  + 3,188,840
    inception 4b, 4c, 4d, then head 2   512, 512, 528 × 14 × 14   1,564,640  + 3,190,888
    inception 4e                                832 × 14 × 14       868,352
    max pool 3 × 3, stride 2, ceil              832 × 7 × 7
    inception 5a, 5b                   832 and 1024 × 7 × 7       2,487,536
    global average pool, dropout 0.4           1024
    linear                                     1000               1,025,000   total 6,998,552; 13,378,280 with heads

The paper gives neither the constants of LRN nor the initialisation; these are those of Caffe's GoogLeNet.
``variant="torchvision"`` is the form of the published weights: batch normalisation instead of LRN, and 3 × 3 where
the paper has 5 × 5 (a known slip that the weights were trained with), 6,624,904 parameters without heads.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from minidl import Tensor, nn
from minidl import functional as F
from minidl.nn import init
from minidl.training import Preset

from .common import check_images, check_variant
from .published import load_published

MODULES = {
    "3a": (192, 64, (96, 128), (16, 32), 32),
    "3b": (256, 128, (128, 192), (32, 96), 64),
    "4a": (480, 192, (96, 208), (16, 48), 64),
    "4b": (512, 160, (112, 224), (24, 64), 64),
    "4c": (512, 128, (128, 256), (24, 64), 64),
    "4d": (512, 112, (144, 288), (32, 64), 64),
    "4e": (528, 256, (160, 320), (32, 128), 128),
    "5a": (832, 256, (160, 320), (32, 128), 128),
    "5b": (832, 384, (192, 384), (48, 128), 128),
}
"""Table 1 of the paper: input channels; filters of 1 × 1; (reduction, 3 × 3); (reduction, 5 × 5); behind the pool."""

PRESETS = {
    "googlenet": Preset(  # section 6: 4 % less every 8 epochs; batch, rate, decay and epochs are those of Caffe's copy
        input_size=224, epochs=60, batch_size=32, lr=0.01, weight_decay=2e-4, schedule="steps",
        milestones=tuple(8 * drop / 60 for drop in range(1, 8)), gamma=0.96, augment="inception",
    ),
}


class GoogLeNetOutput(NamedTuple):
    """What GoogLeNet gives while it is trained: three logits (N, num_classes), in network order."""

    logits: Tensor
    aux1: Tensor
    aux2: Tensor


def googlenet(
    num_classes: int = 1000, in_channels: int = 3, aux_logits: bool = True, aux_weight: float = 0.3,
    variant: str = "paper", weights: str | None = None,
) -> GoogLeNet:
    """GoogLeNet: (N, in_channels, H, W) → logits (N, num_classes), and while training `GoogLeNetOutput`.

    Made for 224 × 224; smallest input 31 × 31, 79 × 79 while training with heads (torchvision's form: 15 × 15).
    `aux_logits` builds the auxiliary heads; `GoogLeNet.criterion` adds their losses times `aux_weight`.
    `variant`: ``"paper"`` or ``"torchvision"``, which `weights` = ``"imagenet"`` needs. The published weights count on
    pixels of −1 to 1, which `preprocessing` gives and torchvision's model computes by itself (`transform_input`).
    Raises ValueError for another variant, and what `load_published` raises.
    """
    check_variant("googlenet", variant, ("paper", "torchvision"))
    if not aux_weight >= 0:
        raise ValueError(f"googlenet: aux_weight must be a number ≥ 0; got {aux_weight!r}")
    batch_norm = variant == "torchvision"
    return load_published(
        lambda: GoogLeNet(num_classes, in_channels, aux_logits, aux_weight, batch_norm), "googlenet", weights,
        fits=batch_norm, num_classes=num_classes, in_channels=in_channels,
    )


class GoogLeNet(nn.Module):
    """GoogLeNet; shapes in the table above. `batch_norm` is torchvision's form."""

    def __init__(self, num_classes: int, in_channels: int, aux_logits: bool, aux_weight: float, batch_norm: bool):
        self.aux_weight = aux_weight

        def norm() -> nn.Module:
            return nn.Identity() if batch_norm else nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0)

        def pool(kernel_size: int = 3) -> nn.Module:
            return nn.MaxPool2d(kernel_size, 2, ceil_mode=True)

        def inception(name: str) -> Inception:
            return Inception(*MODULES[name], batch_norm)

        self.conv1 = ConvUnit(in_channels, 64, 7, batch_norm, stride=2, padding=3)
        self.maxpool1, self.norm1 = pool(), norm()
        self.conv2 = ConvUnit(64, 64, 1, batch_norm)
        self.conv3 = ConvUnit(64, 192, 3, batch_norm, padding=1)
        self.norm2, self.maxpool2 = norm(), pool()
        self.inception3a, self.inception3b = inception("3a"), inception("3b")
        self.maxpool3 = pool()
        self.inception4a, self.inception4b, self.inception4c = inception("4a"), inception("4b"), inception("4c")
        self.inception4d, self.inception4e = inception("4d"), inception("4e")
        self.maxpool4 = pool(2 if batch_norm else 3)
        self.inception5a, self.inception5b = inception("5a"), inception("5b")
        self.aux_logits = aux_logits
        if aux_logits:
            self.aux1 = AuxiliaryHead(512, num_classes, batch_norm)
            self.aux2 = AuxiliaryHead(528, num_classes, batch_norm)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.2 if batch_norm else 0.4)
        self.fc = nn.Linear(1024, num_classes)
        # Every pool needs two pixels, torchvision's last one needs one; the paper's heads need maps of 5 × 5.
        self.smallest, self.smallest_with_heads = (15, 15) if batch_norm else (31, 79)
        self.apply(_initialise_torchvision if batch_norm else _initialise)

    def forward(self, x: Tensor) -> Tensor | GoogLeNetOutput:
        with_heads = self.training and self.aux_logits
        check_images("GoogLeNet", x, self.smallest_with_heads if with_heads else self.smallest)
        x = self.norm1(self.maxpool1(self.conv1(x)))
        x = self.maxpool2(self.norm2(self.conv3(self.conv2(x))))
        x = self.maxpool3(self.inception3b(self.inception3a(x)))
        after_4a = self.inception4a(x)
        after_4d = self.inception4d(self.inception4c(self.inception4b(after_4a)))
        x = self.maxpool4(self.inception4e(after_4d))
        x = self.inception5b(self.inception5a(x))
        logits = self.fc(self.dropout(self.avgpool(x).flatten(1)))
        return GoogLeNetOutput(logits, self.aux1(after_4a), self.aux2(after_4d)) if with_heads else logits

    def criterion(self, output: Tensor | GoogLeNetOutput, labels: Tensor) -> Tensor:
        """Cross-entropy of the logits, plus `aux_weight` (section 5: 0.3) times that of each head."""
        if isinstance(output, Tensor):
            return F.cross_entropy(output, labels)
        heads = F.cross_entropy(output.aux1, labels) + F.cross_entropy(output.aux2, labels)
        return F.cross_entropy(output.logits, labels) + self.aux_weight * heads


class ConvUnit(nn.Module):
    """A convolution and its ReLU; in torchvision's form batch normalisation replaces the bias."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, batch_norm: bool, **options: Any):
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, bias=not batch_norm, **options)
        self.bn = nn.BatchNorm2d(out_channels, eps=0.001) if batch_norm else None
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.relu(x if self.bn is None else self.bn(x))


class Inception(nn.Module):
    """Four views of one input, joined along the channels (figure 2b of the paper; claim F13)."""

    def __init__(
        self, in_channels: int, ones: int, threes: tuple[int, int], fives: tuple[int, int], pooled: int,
        batch_norm: bool,
    ):
        size = 3 if batch_norm else 5
        self.branch1 = ConvUnit(in_channels, ones, 1, batch_norm)
        self.branch2 = nn.Sequential(
            ConvUnit(in_channels, threes[0], 1, batch_norm),
            ConvUnit(threes[0], threes[1], 3, batch_norm, padding=1),
        )
        self.branch3 = nn.Sequential(
            ConvUnit(in_channels, fives[0], 1, batch_norm),
            ConvUnit(fives[0], fives[1], size, batch_norm, padding=size // 2),
        )
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, padding=1), ConvUnit(in_channels, pooled, 1, batch_norm))

    def forward(self, x: Tensor) -> Tensor:
        return F.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], dim=1)


class AuxiliaryHead(nn.Module):
    """A classifier on an inner map that injects gradient there while training (section 5; claim F14)."""

    def __init__(self, in_channels: int, num_classes: int, batch_norm: bool):
        # 14 × 14 → 4 × 4; the second pool changes nothing there, and lets other sizes in.
        self.avgpool = nn.Identity() if batch_norm else nn.AvgPool2d(5, 3)
        self.fit = nn.AdaptiveAvgPool2d(4)
        self.conv = ConvUnit(in_channels, 128, 1, batch_norm)
        self.fc1 = nn.Linear(128 * 4 * 4, 1024)
        self.relu = nn.ReLU()
        self.dropout = nn.Dropout(0.7)
        self.fc2 = nn.Linear(1024, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(self.fit(self.avgpool(x))).flatten(1)
        return self.fc2(self.dropout(self.relu(self.fc1(x))))


def _initialise(module: nn.Module) -> None:
    """Caffe's: weights uniform with the variance 1 / fan in, biases 0.2, and 0 in front of a softmax."""
    if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
        init.kaiming_uniform_(module.weight, nonlinearity="linear")
        init.constant_(module.bias, 0.2)
    for classifier in (getattr(module, name, None) for name in ("fc", "fc2")):
        if classifier is not None:
            init.zeros_(classifier.bias)


def _initialise_torchvision(module: nn.Module) -> None:
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        init.trunc_normal_(module.weight, std=0.01)
