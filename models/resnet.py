"""ResNet, 2015: blocks that learn what to add to their input, and the plain stacks that show why.

He, Zhang, Ren, Sun, *Deep Residual Learning for Image Recognition*, CVPR 2016 (claims D7, F15 and F16). A block
computes relu(F(x) + x): to do nothing it need only learn F = 0, and the gradient reaches x undiminished. Table 1 of
the paper, for 224 × 224 images; [blocks] of two 3 × 3 convolutions, from ResNet-50 on of 1 × 1, 3 × 3 and 1 × 1:

    layer     output       ResNet-18   34     ResNet-50              101     152     parameters of ResNet-50
    conv1    112 × 112     7 × 7, 64, stride 2                                            9,536
    pool      56 × 56      3 × 3 max, stride 2
    layer1    56 × 56      [64] × 2    × 3    [64, 64, 256] × 3      × 3     × 3        215,808
    layer2    28 × 28      [128] × 2   × 4    [128, 128, 512] × 4    × 4     × 8      1,219,584
    layer3    14 × 14      [256] × 2   × 6    [256, 256, 1024] × 6   × 23    × 36     7,098,368
    layer4     7 × 7       [512] × 2   × 3    [512, 512, 2048] × 3   × 3     × 3     14,964,736
    pool, fc   1000        global average, linear                                     2,049,000
    total      11,689,512 · 21,797,672 · 25,557,032 · 44,549,160 · 60,192,808

For CIFAR's 32 × 32 images (section 4.2) n blocks each of 16, 32 and 64 filters follow a 3 × 3 convolution, 6n + 2
layers in all:

    layer     output       ResNet-20   32     44     56     110     parameters of ResNet-20
    conv1     32 × 32      3 × 3, 16                                        464
    layer1    32 × 32      [16] × 3    × 5    × 7    × 9    × 18         14,016
    layer2    16 × 16      [32] × 3    × 5    × 7    × 9    × 18         51,072
    layer3     8 × 8       [64] × 3    × 5    × 7    × 9    × 18        203,520
    pool, linear  10       global average, linear                           650
    total      269,722 · 464,154 · 658,586 · 853,018 · 1,727,962

Where a block changes the shape, the ImageNet networks project its input by a 1 × 1 convolution (option B of the paper),
and CIFAR's drop every other pixel and add channels of zeros (option A, no parameters). ``variant="torchvision"`` is the
form of the published weights: bottlenecks stride in the 3 × 3 convolution instead of the first 1 × 1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from minidl import Tensor, nn
from minidl import functional as F
from minidl.nn import init
from minidl.training import Preset

from .common import check_images, check_variant
from .published import load_published

Shortcut = Callable[[int, int, int], nn.Module]
"""What carries a block's input to its end: made from its input channels, output channels and stride."""


def projection(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """Option B: the identity where the shape stays, else a 1 × 1 convolution."""
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels))


class ZeroPadded(nn.Module):
    """Option A: the identity on every `stride`-th pixel, with channels of zeros added, half of them in front."""

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        self.front = (out_channels - in_channels) // 2
        self.back = out_channels - in_channels - self.front
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == 1 and self.front == self.back == 0:
            return x
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.front, self.back))


class BasicBlock(nn.Module):
    """relu(F(x) + shortcut(x)) with two 3 × 3 convolutions in F; without `shortcut` a plain relu(F(x))."""

    expansion = 1

    def __init__(self, in_channels: int, channels: int, stride: int, shortcut: Shortcut | None):
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = shortcut(in_channels, channels, stride) if shortcut else None  # None: a plain network's

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu(y if self.downsample is None else y + self.downsample(x))


class Bottleneck(nn.Module):
    """As `BasicBlock`, with F of three: a 1 × 1 convolution shrinks x, and another widens it after the 3 × 3."""

    expansion = 4
    stride_in_3x3 = False

    def __init__(self, in_channels: int, channels: int, stride: int, shortcut: Shortcut | None):
        out_channels = self.expansion * channels
        strides = (1, stride) if self.stride_in_3x3 else (stride, 1)
        self.conv1 = nn.Conv2d(in_channels, channels, 1, strides[0], bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, strides[1], padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU()
        self.downsample = shortcut(in_channels, out_channels, stride) if shortcut else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.relu(y if self.downsample is None else y + self.downsample(x))


class Bottleneck3x3(Bottleneck):
    """The bottleneck of the published weights, known as v1.5."""

    stride_in_3x3 = True


def _stage(
    block: type[BasicBlock] | type[Bottleneck], in_channels: int, channels: int, count: int, stride: int,
    shortcut: Shortcut | None,
) -> nn.Sequential:
    """`count` blocks, of which the first strides."""
    inputs = [in_channels, *[channels * block.expansion] * (count - 1)]
    strides = [stride, *[1] * (count - 1)]
    return nn.Sequential(*(block(c, channels, s, shortcut) for c, s in zip(inputs, strides)))


class ResNet(nn.Module):
    """The form for ImageNet: (N, in_channels, H, W) → logits (N, num_classes), for any H and W; made for 224 × 224."""

    def __init__(
        self, block: type[BasicBlock] | type[Bottleneck], counts: tuple[int, int, int, int], num_classes: int,
        in_channels: int, shortcut: Shortcut | None = projection,
    ):
        self.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        width = block.expansion
        self.layer1 = _stage(block, 64, 64, counts[0], 1, shortcut)
        self.layer2 = _stage(block, 64 * width, 128, counts[1], 2, shortcut)
        self.layer3 = _stage(block, 128 * width, 256, counts[2], 2, shortcut)
        self.layer4 = _stage(block, 256 * width, 512, counts[3], 2, shortcut)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(512 * width, num_classes)
        self.apply(_initialise)

    def forward(self, x: Tensor) -> Tensor:
        check_images("ResNet", x, 1)
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.avgpool(x).flatten(1))


class CifarResNet(nn.Module):
    """The form for CIFAR: (N, in_channels, H, W) → logits (N, num_classes), for any H and W; made for 32 × 32.

    The `state_dict` keys are those of the weights that are in circulation (Idelbayev's), whose classifier is `linear`.
    """

    def __init__(self, depth: int, num_classes: int, in_channels: int, shortcut: Shortcut | None):
        count = (depth - 2) // 6
        self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU()
        self.layer1 = _stage(BasicBlock, 16, 16, count, 1, shortcut)
        self.layer2 = _stage(BasicBlock, 16, 32, count, 2, shortcut)
        self.layer3 = _stage(BasicBlock, 32, 64, count, 2, shortcut)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(64, num_classes)
        self.apply(_initialise)

    def forward(self, x: Tensor) -> Tensor:
        check_images("ResNet", x, 1)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(self.avgpool(x).flatten(1))


def _initialise(module: nn.Module) -> None:
    """He et al. 2015, *Delving Deep into Rectifiers*, which the paper refers to: N(0, 2 / fan out)."""
    if isinstance(module, nn.Conv2d):
        init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


# ---------------------------------------------------------------------------------------------
# The networks by name
# ---------------------------------------------------------------------------------------------

COUNTS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
"""Table 1 of the paper: the blocks in each of the four stages."""

_IMAGENET = Preset(  # section 3.4 and figure 4: 600,000 batches, the rate divided by 10 where the error stays
    input_size=224, epochs=120, batch_size=256, lr=0.1, weight_decay=1e-4, schedule="steps", milestones=(0.25, 0.5),
    augment="resnet",
)
_CIFAR = Preset(  # section 4.2: 64,000 batches, the rate divided by 10 after 32,000 and 48,000
    input_size=32, epochs=164, batch_size=128, lr=0.1, weight_decay=1e-4, schedule="steps", milestones=(0.5, 0.75),
    augment="cifar",
)
_CIFAR_110 = dataclasses.replace(_CIFAR, warmup=1.0)  # of the 110 layers only, 400 batches at 0.01

PRESETS = {
    **dict.fromkeys((*(f"resnet{depth}" for depth in COUNTS), "plain18", "plain34"), _IMAGENET),
    **{f"resnet{depth}": _CIFAR for depth in (20, 32, 44, 56)}, "resnet110": _CIFAR_110,
    **{f"plain{depth}": _CIFAR for depth in (20, 32, 44, 56)},
}


def resnet18(
    num_classes: int = 1000, in_channels: int = 3, variant: str = "paper", weights: str | None = None
) -> ResNet:
    """ResNet-18: 11,689,512 parameters; see `ResNet`. Both variants are the same."""
    return _resnet(18, num_classes, in_channels, variant, weights)


def resnet34(
    num_classes: int = 1000, in_channels: int = 3, variant: str = "paper", weights: str | None = None
) -> ResNet:
    """ResNet-34: 21,797,672 parameters; see `ResNet`. Both variants are the same."""
    return _resnet(34, num_classes, in_channels, variant, weights)


def resnet50(
    num_classes: int = 1000, in_channels: int = 3, variant: str = "paper", weights: str | None = None
) -> ResNet:
    """ResNet-50: 25,557,032 parameters; see `ResNet`. `variant`: ``"paper"`` or ``"torchvision"``."""
    return _resnet(50, num_classes, in_channels, variant, weights)


def resnet101(
    num_classes: int = 1000, in_channels: int = 3, variant: str = "paper", weights: str | None = None
) -> ResNet:
    """ResNet-101: 44,549,160 parameters; see `ResNet`. `variant`: ``"paper"`` or ``"torchvision"``."""
    return _resnet(101, num_classes, in_channels, variant, weights)


def resnet152(
    num_classes: int = 1000, in_channels: int = 3, variant: str = "paper", weights: str | None = None
) -> ResNet:
    """ResNet-152: 60,192,808 parameters; see `ResNet`. `variant`: ``"paper"`` or ``"torchvision"``."""
    return _resnet(152, num_classes, in_channels, variant, weights)


def plain18(num_classes: int = 1000, in_channels: int = 3) -> ResNet:
    """ResNet-18 without its shortcuts: 11,515,688 parameters, for it projects nothing either."""
    return ResNet(BasicBlock, COUNTS[18], num_classes, in_channels, shortcut=None)


def plain34(num_classes: int = 1000, in_channels: int = 3) -> ResNet:
    """ResNet-34 without its shortcuts: 21,623,848 parameters, for it projects nothing either."""
    return ResNet(BasicBlock, COUNTS[34], num_classes, in_channels, shortcut=None)


def resnet20(num_classes: int = 10, in_channels: int = 3) -> CifarResNet:
    """CIFAR's ResNet-20: 269,722 parameters; see `CifarResNet`."""
    return CifarResNet(20, num_classes, in_channels, ZeroPadded)


def resnet32(num_classes: int = 10, in_channels: int = 3) -> CifarResNet:
    """CIFAR's ResNet-32: 464,154 parameters; see `CifarResNet`."""
    return CifarResNet(32, num_classes, in_channels, ZeroPadded)


def resnet44(num_classes: int = 10, in_channels: int = 3) -> CifarResNet:
    """CIFAR's ResNet-44: 658,586 parameters; see `CifarResNet`."""
    return CifarResNet(44, num_classes, in_channels, ZeroPadded)


def resnet56(num_classes: int = 10, in_channels: int = 3) -> CifarResNet:
    """CIFAR's ResNet-56: 853,018 parameters; see `CifarResNet`."""
    return CifarResNet(56, num_classes, in_channels, ZeroPadded)


def resnet110(num_classes: int = 10, in_channels: int = 3) -> CifarResNet:
    """CIFAR's ResNet-110: 1,727,962 parameters; see `CifarResNet`."""
    return CifarResNet(110, num_classes, in_channels, ZeroPadded)


def plain20(num_classes: int = 10, in_channels: int = 3) -> CifarResNet:
    """ResNet-20 without its shortcuts, and as many parameters: 269,722."""
    return CifarResNet(20, num_classes, in_channels, None)


def plain32(num_classes: int = 10, in_channels: int = 3) -> CifarResNet:
    """ResNet-32 without its shortcuts, and as many parameters: 464,154."""
    return CifarResNet(32, num_classes, in_channels, None)


def plain44(num_classes: int = 10, in_channels: int = 3) -> CifarResNet:
    """ResNet-44 without its shortcuts, and as many parameters: 658,586."""
    return CifarResNet(44, num_classes, in_channels, None)


def plain56(num_classes: int = 10, in_channels: int = 3) -> CifarResNet:
    """ResNet-56 without its shortcuts, and as many parameters: 853,018."""
    return CifarResNet(56, num_classes, in_channels, None)


def _resnet(depth: int, num_classes: int, in_channels: int, variant: str, weights: str | None) -> ResNet:
    check_variant(f"resnet{depth}", variant, ("paper", "torchvision"))
    bottleneck = Bottleneck if variant == "paper" else Bottleneck3x3
    block = BasicBlock if depth < 50 else bottleneck
    return load_published(
        lambda: ResNet(block, COUNTS[depth], num_classes, in_channels), f"resnet{depth}", weights,
        fits=depth < 50 or variant == "torchvision", num_classes=num_classes, in_channels=in_channels,
    )
