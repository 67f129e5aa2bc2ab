"""LeNet-5, 1998: the first convolutional network that read cheques.

LeCun, Bottou, Bengio, Haffner, *Gradient-based learning applied to document recognition*, Proc. IEEE 86(11).
The lecture's form, CONV-POOL-CONV-POOL-FC-FC and a classifier (claim F1):

    layer                         output      parameters
    input                        1 × 32 × 32
    C1  convolution 5 × 5, tanh  6 × 28 × 28         156
    S2  average 2 × 2            6 × 14 × 14
    C3  convolution 5 × 5, tanh 16 × 10 × 10       2,416
    S4  average 2 × 2           16 × 5 × 5
    C5  fully connected, tanh    120              48,120
    F6  fully connected, tanh     84              10,164
    output                        10                 850   total 61,706

The paper's form (``variant="1998"``) subsamples with a trained coefficient and bias, connects C3 to some of S2's
maps only, squashes by 1.7159 tanh(2x/3), and compares F6 with ten fixed drawings:
156 + 12 + 1,516 + 32 + 48,120 + 10,164 = 60,000 trained parameters.
"""

from __future__ import annotations

import math

import numpy as np

from minidl import Tensor, get_device, nn, tensor
from minidl import functional as F
from minidl.backend import generator
from minidl.nn import init
from minidl.training import Preset

PRESETS = {
    "lenet5": Preset(input_size=32, epochs=50, batch_size=32, lr=0.05, weight_decay=1e-4, shift=2),
    # Squared distances to 84 targets make logits, and gradients, far larger than a linear layer's.
    "lenet5/1998": Preset(input_size=32, epochs=80, batch_size=32, lr=0.003, weight_decay=1e-4, shift=2),
}


def lenet5(num_classes: int = 10, in_channels: int = 1, variant: str = "lecture") -> nn.Module:
    """LeNet-5 for 32 × 32 images: (N, in_channels, 32, 32) → logits (N, num_classes).

    `variant`: ``"lecture"`` (61,706 parameters) or ``"1998"`` (60,000; ten classes of one-channel images only).
    Raises ValueError for another variant, or options the 1998 form does not have.
    """
    if variant == "lecture":
        return LeNet5(num_classes, in_channels)
    if variant != "1998":
        raise ValueError(f"lenet5: there is no variant {variant!r}; choose 'lecture' or '1998'")
    if (num_classes, in_channels) != (10, 1):
        raise ValueError(f"lenet5: the 1998 form reads ten digits in one channel; got num_classes={num_classes}, "
                         f"in_channels={in_channels}")
    return LeNet5Of1998()


def _check_input(x: Tensor) -> None:
    if x.shape[-2:] != (32, 32):
        raise ValueError(f"LeNet-5 takes 32 × 32 images; got {x.shape}. Enlarge or pad them: minidl.data.Fit(32)")


class LeNet5(nn.Module):
    """The lecture's LeNet-5; shapes in the table above."""

    def __init__(self, num_classes: int = 10, in_channels: int = 1):
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, 6, 5),  # C1
            nn.Tanh(),
            nn.AvgPool2d(2),  # S2
            nn.Conv2d(6, 16, 5),  # C3
            nn.Tanh(),
            nn.AvgPool2d(2),  # S4
        )
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(16 * 5 * 5, 120),  # C5: its 5 × 5 filters see the whole map
            nn.Tanh(),
            nn.Linear(120, 84),  # F6
            nn.Tanh(),
            nn.Linear(84, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        _check_input(x)
        return self.classifier(self.features(x))


# ---------------------------------------------------------------------------------------------
# The form of the paper
# ---------------------------------------------------------------------------------------------

CONNECTIONS = (
    (0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (4, 5, 0), (5, 0, 1),
    (0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (3, 4, 5, 0), (4, 5, 0, 1), (5, 0, 1, 2),
    (0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5),
    (0, 1, 2, 3, 4, 5),
)
"""The maps of S2 that each of C3's 16 maps sees (table I of the paper)."""


class ScaledTanh(nn.Module):
    """f(a) = 1.7159 tanh(2a/3), with f(±1) = ±1 (appendix A)."""

    def forward(self, x: Tensor) -> Tensor:
        return 1.7159 * F.tanh(x * (2 / 3))


class Subsampling(nn.Module):
    """The sum of each 2 × 2 window times a trained coefficient, plus a trained bias, one pair a map (section II.B)."""

    def __init__(self, channels: int):
        self.coefficient = nn.Parameter(tensor([1 / 4] * channels))
        self.bias = nn.Parameter(tensor([0.0] * channels))

    def forward(self, x: Tensor) -> Tensor:
        total = F.avg_pool2d(x, 2, divisor_override=1)
        return total * self.coefficient.reshape(-1, 1, 1) + self.bias.reshape(-1, 1, 1)


class ConnectedConv2d(nn.Module):
    """A convolution whose output maps see only the input maps that `connections` names: a filter a connection."""

    def __init__(self, connections: tuple[tuple[int, ...], ...], in_channels: int, kernel_size: int):
        count = sum(map(len, connections))
        bounds = [2.4 / (len(seen) * kernel_size**2) for seen in connections for _ in seen]
        draws = generator().uniform(-1, 1, (count, kernel_size, kernel_size)) * np.reshape(bounds, (-1, 1, 1))
        self.weight = nn.Parameter(tensor(draws.astype(np.float32), device=get_device()))
        self.bias = nn.Parameter(tensor([0.0] * len(connections)))
        # Where nothing is connected stands `count`, the filter of zeros behind the trained ones.
        self.table = np.full((len(connections), in_channels), count)
        filters = iter(range(count))
        for output, seen in enumerate(connections):
            for channel in seen:
                self.table[output, channel] = next(filters)

    def forward(self, x: Tensor) -> Tensor:
        and_zeros = F.pad(self.weight, (0, 0, 0, 0, 0, 1))
        return F.conv2d(x, and_zeros[self.table], self.bias)


class RadialBasis(nn.Module):
    """−‖x − cᵢ‖² for each class i: how well F6 matches the fixed drawing cᵢ, as a logit (section II.B)."""

    def __init__(self, codes: np.ndarray):
        self.register_buffer("codes", tensor(codes, device=get_device()))

    def forward(self, x: Tensor) -> Tensor:
        difference = x.reshape(-1, 1, x.shape[-1]) - self.codes
        return -(difference * difference).sum(axis=-1)


class LeNet5Of1998(nn.Module):
    """LeNet-5 as published: 60,000 trained parameters up to F6, and none behind it."""

    def __init__(self) -> None:
        self.features = nn.Sequential(
            nn.Conv2d(1, 6, 5), ScaledTanh(),  # C1
            Subsampling(6), ScaledTanh(),  # S2
            ConnectedConv2d(CONNECTIONS, 6, 5), ScaledTanh(),  # C3
            Subsampling(16), ScaledTanh(),  # S4
            nn.Conv2d(16, 120, 5), ScaledTanh(),  # C5
            nn.Flatten(),
            nn.Linear(120, 84), ScaledTanh(),  # F6
        )
        self.output = RadialBasis(drawings())
        self.apply(_initialise_1998)

    def forward(self, x: Tensor) -> Tensor:
        _check_input(x)
        return self.output(self.features(x))


def _initialise_1998(module: nn.Module) -> None:
    """Uniform within ±2.4 / fan-in (appendix A), as `ConnectedConv2d` starts."""
    if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
        bound = 2.4 / math.prod(module.weight.shape[1:])
        init.uniform_(module.weight, -bound, bound)
        init.zeros_(module.bias)


def drawings() -> np.ndarray:
    """The ten digits as 7 × 12 pixel drawings of ±1, (10, 84): the targets of F6, after the paper's figure 3."""
    rows = DRAWINGS.split()
    pixels = np.array([[1.0 if pixel == "#" else -1.0 for pixel in row] for row in rows], np.float32)
    return np.ascontiguousarray(pixels.reshape(12, 10, 7).transpose(1, 0, 2)).reshape(10, 84)


DRAWINGS = """
..###.. ...#... .#####. .#####. ....##. ####### ..####. ####### .#####. .#####.
.#...#. ..##... ##...## ##...## ...###. #...... .##.... .....## ##...## ##...##
##...## .###... .....## .....## ..####. #...... ##..... .....## ##...## ##...##
##...## ...#... .....## .....## .##.##. #...... ##..... ....##. ##...## ##...##
##...## ...#... ....##. ..####. ##..##. ######. ######. ....##. .#####. .######
##...## ...#... ...##.. ..####. ##..##. .....## ##...## ...##.. .#####. .....##
##...## ...#... ..##... .....## ####### .....## ##...## ...##.. ##...## .....##
##...## ...#... .##.... .....## ....##. .....## ##...## ..##... ##...## .....##
##...## ...#... ##..... .....## ....##. .....## ##...## ..##... ##...## .....##
.#...#. ...#... ##..... ##...## ....##. ##...## ##...## .##.... ##...## ....##.
..###.. ..###.. ####### .#####. ....##. .#####. .#####. .##.... .#####. .####..
....... ....... ....... ....... ....... ....... ....... ....... ....... .......
"""
