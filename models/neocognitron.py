"""Neocognitron, 1980: where it all began, simple and complex cells in turn, and nobody says what is what.

Fukushima, *Neocognitron: a self-organizing neural network model for a mechanism of pattern recognition unaffected by
shift in position*, Biological Cybernetics 36, 193–202 (claim F19). S-cells learn features, by themselves; C-cells
answer to a feature wherever it lies near; three times. The paper's equations, in its order; u are responses ≥ 0, n a
place, ν a place in the window, k a plane, κ a plane of the layer before:

    (1)  u_S(k, n) = r φ[ (1 + Σ_κ Σ_ν a(κ, ν, k) u_C(κ, n + ν)) / (1 + 2r/(1 + r) · b(k) v_C(n)) − 1 ]
    (2)  φ[x] = max(x, 0)
    (3)  v_C(n) = √( Σ_κ Σ_ν c(ν) u_C²(κ, n + ν) )
    (4)  u_C(k, n) = ψ[ (1 + Σ_ν d(ν) u_S(k, n + ν)) / (1 + v_S(n)) − 1 ]
    (5)  ψ[x] = φ[x / (α + x)]
    (6)  v_S(n) = 1/K · Σ_k Σ_ν d(ν) u_S(k, n + ν)
    (7)  Δa(κ, ν, k) = q c(ν) u_C(κ, n + ν)         where k, n is a seed cell
    (8)  Δb(k) = q/2 · v_C(n)

The sum over a is a convolution, that over d a blurred pooling. Inhibition divides ("shunts"): with learned a and b a
cell fires where the cosine between what it sees and what it learned exceeds r / (1 + r), so r is its selectivity.
c and d fall with the distance from the middle; c sums to 1.

Seed cells: an S-column is what lies near a place, in all planes. In each the cell that answers most is a candidate, and
of the candidates of a plane the one that answers most is its seed. All cells of a plane share its weights, so what the
seed learns, all have learned.

    layer   output           window      r
    U0        1 × 28 × 28                        the image, from 0 to 1
    S1       24 × 28 × 28     5 × 5     2.5      edges
    C1       24 × 28 × 28     5 × 5
    S2       48 × 28 × 28     5 × 5     1.5      parts
    C2       48 × 28 × 28     5 × 5
    S3      150 × 13 × 13    16 × 16    2        patterns; 20 while it learns
    C3      150 ×  1 × 1     13 × 13             one cell a pattern
    linear   10                                  what the patterns are called: a readout, not the paper's

The paper has 24 planes everywhere, r = 4, 1.5 and 1.5, and a retina of 16 × 16 whose planes shrink to 2 × 2 in S3:
that is all that a shift may move a pattern there. Here planes keep their size, and C3 looks at all places of S3 that a
pattern may move to. With the paper's r patterns share top cells; a cell that learns more selectively than it answers is
from Fukushima and Tanigawa, *Use of different thresholds in learning and recognition*, Neurocomputing 11, 1996. Layers
learn one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minidl import Tensor, get_device, nn, no_grad, tensor
from minidl import functional as F
from minidl.backend import generator, to_device
from minidl.training import Preset

PRESETS = {"neocognitron": Preset(input_size=28, epochs=12, batch_size=32, lr=0.05)}  # of the readout

FALLOFF = 0.9
"""c and d: to the power of the distance from the middle. S3, whose windows are wide, has 0.95."""

BATCH = 50

LEAST_STD = 1e-3
"""Of a cell's answers, by which the readout divides them: some never answer."""


class SLayer(nn.Module):
    """S-cells, equations (1) to (3): (N, `in_planes`, H, W) → (N, `planes`, H', W').

    The windows are `size` × `size`; `selectivity` is r, `reinforcement` q. While it learns, r is
    `learning_selectivity`, by default the same. c falls by `falloff` with each pixel from the middle. At first a is
    small and random, and b zero.
    """

    def __init__(
        self, in_planes: int, planes: int, size: int, selectivity: float, reinforcement: float, padding: int = 0,
        learning_selectivity: float | None = None, falloff: float = FALLOFF,
    ):
        self.size, self.padding = size, padding
        self.selectivity, self.reinforcement = selectivity, reinforcement
        self.learning_selectivity = learning_selectivity or selectivity
        near = _falling(size, falloff)
        c = (near / (in_planes * near.sum()))[np.newaxis, np.newaxis]  # the same for every plane before
        self.register_buffer("a", _float32(1e-3 * c * generator().random((planes, in_planes, size, size))))
        self.register_buffer("b", _float32(np.zeros(planes)))
        self.register_buffer("c", _float32(c))

    def forward(self, u: Tensor) -> Tensor:
        return self._answers(u, self.energy(u), self.selectivity)

    def _answers(self, u: Tensor, energy: Tensor, r: float) -> Tensor:
        excitation = F.conv2d(u, self.a, padding=self.padding)
        inhibition = 2 * r / (1 + r) * self.b.reshape(-1, 1, 1) * energy
        # (1 + e) / (1 + h) − 1, without the 1 that would swallow the small answers of cells that have not learned yet.
        return r * F.relu((excitation - inhibition) / (1 + inhibition))

    def energy(self, u: Tensor) -> Tensor:
        """v_C, equation (3): (N, 1, H', W')."""
        return F.conv2d((u * u).sum(axis=1, keepdims=True), self.c, padding=self.padding) ** 0.5

    def reinforce(self, u: Tensor, column: int) -> int:
        """Let the seed cells learn what they see in `u` (1, in_planes, H, W), equations (7) and (8); how many did.

        An S-column is `column` × `column` places, or all if there are fewer. Raises ValueError for an even number.
        """
        energy = self.energy(u)
        answers = self._answers(u, energy, self.learning_selectivity)
        highest = _highest_of_columns(answers.max(axis=1, keepdims=True), column)
        candidates = to_device(answers.data * (answers.data == highest.data), "cpu")[0]
        seen = F.pad(u, (self.padding,) * 4)
        seeds = np.flatnonzero(candidates.any(axis=(1, 2)))
        for k in seeds:
            i, j = np.unravel_index(candidates[k].argmax(), candidates[k].shape)
            window = seen.data[:, :, i : i + self.size, j : j + self.size]
            self.a.data[k] += self.reinforcement * (self.c.data * window)[0]
            self.b.data[k] += self.reinforcement / 2 * energy.data[0, 0, i, j]
        return len(seeds)


class CLayer(nn.Module):
    """C-cells, equations (4) to (6): (N, `planes`, H, W) → (N, `planes`, H', W').

    `alpha` is the paper's; `total` is the sum of d: the larger, the sooner a cell is as good as saturated.
    """

    def __init__(self, planes: int, size: int, padding: int = 0, alpha: float = 0.5, total: float = 4.0):
        self.planes, self.padding, self.alpha = planes, padding, alpha
        near = _falling(size, FALLOFF)
        self.register_buffer("d", _float32(np.broadcast_to(total * near / near.sum(), (planes, 1, size, size))))

    def forward(self, u: Tensor) -> Tensor:
        blurred = F.conv2d(u, self.d, padding=self.padding, groups=self.planes)
        inhibition = blurred.mean(axis=1, keepdims=True)
        x = F.relu((blurred - inhibition) / (1 + inhibition))
        return x / (self.alpha + x)


class Neocognitron(nn.Module):
    """The network of the table above: (N, in_channels, H, W) → logits (N, num_classes).

    `self_organise` comes first: it takes images, and no labels. `features` are the answers of C3, each from 0 to 1; the
    readout is linear in what they say beyond their mean over the images of `self_organise`, in standard deviations.
    """

    COLUMN = 5
    """The places in an S-column, in each direction; in S3 it is all."""

    def __init__(
        self, num_classes: int, in_channels: int, planes: tuple[int, int, int], input_size: int, places: int
    ):
        if not 0 < places < input_size:
            raise ValueError(f"places must be at least 1 and fewer than the {input_size} pixels; got {places}")
        if not isinstance(planes, Sequence) or len(planes) != 3 or min(planes) < 1:
            raise ValueError(f"planes must be three numbers of at least 1; got {planes}")
        first, second, third = planes
        self.input_size = input_size
        self.s1 = SLayer(in_channels, first, 5, selectivity=2.5, reinforcement=1.0, padding=2)
        self.c1 = CLayer(first, 5, padding=2)
        self.s2 = SLayer(first, second, 5, selectivity=1.5, reinforcement=16.0, padding=2)
        self.c2 = CLayer(second, 5, padding=2)
        self.s3 = SLayer(
            second, third, input_size - places + 1, selectivity=2.0, reinforcement=16.0, learning_selectivity=20.0,
            falloff=0.95,
        )
        self.c3 = CLayer(third, places)
        self.register_buffer("mean", _float32(np.zeros(third)))
        self.register_buffer("std", _float32(np.ones(third)))
        self.linear = nn.Linear(third, num_classes)

    def self_organise(self, images: Tensor, presentations: int = 1) -> None:
        """Learn from images (N, in_channels, H, W), a layer after the other, each from all images so many times.

        Raises ValueError for images of another size, and for none.
        """
        self._check(images)
        if not len(images):
            raise ValueError("a neocognitron organises itself by images; got none")
        with no_grad():
            modules = ((self.s1, self.c1), (self.s2, self.c2), (self.s3, self.c3))
            for depth, (cells, _) in enumerate(modules):
                column = self.COLUMN if depth < 2 else self.input_size
                for _ in range(presentations):
                    for batch in _batches(images):
                        u = _contrast(batch)
                        for s, c in modules[:depth]:
                            u = c(s(u))
                        for index in range(len(u)):
                            cells.reinforce(u[index : index + 1], column)
            answers = F.cat([self.features(batch) for batch in _batches(images)])
            self.mean.copy_(answers.mean(axis=0))
            deviation = ((answers - self.mean) ** 2).mean(axis=0) ** 0.5
            self.std.copy_(LEAST_STD + F.relu(deviation - LEAST_STD))

    def features(self, x: Tensor) -> Tensor:
        """The answers of C3: (N, planes). Nothing here is learned by gradients, and none flows through."""
        self._check(x)
        with no_grad():
            u = _contrast(x)
            for layer in (self.s1, self.c1, self.s2, self.c2, self.s3, self.c3):
                u = layer(u)
            return u.flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear((self.features(x) - self.mean) / self.std)

    def _check(self, x: Tensor) -> None:
        if x.ndim != 4 or x.shape[2:] != (self.input_size, self.input_size):
            raise ValueError(f"this neocognitron takes images (N, C, {self.input_size}, {self.input_size}); got shape "
                             f"{x.shape}. Bring them to that size, as minidl.data.Fit({self.input_size}) does, or make "
                             "it for another input_size")


def neocognitron(
    num_classes: int = 10, in_channels: int = 1, planes: tuple[int, int, int] = (24, 48, 150), input_size: int = 28,
    places: int = 13,
) -> Neocognitron:
    """The neocognitron, see `Neocognitron`: (N, in_channels, H, W) → logits (N, num_classes).

    `planes`: the S-planes, and C-planes, of each of the three modules. `places`: a pattern may lie in so many places,
    in each direction, among the `input_size` pixels. Raises ValueError where that leaves S3 no window, and for other
    than three numbers of planes.
    """
    return Neocognitron(num_classes, in_channels, planes, input_size, places)


STYLISED = """
    ..###..  ...#...  .#####.  #######  ....#..
    .#...#.  ..##...  #.....#  ......#  ...##..
    #.....#  ...#...  ......#  .....#.  ..#.#..
    #.....#  ...#...  ......#  ....#..  .#..#..
    #.....#  ...#...  .#####.  ...###.  #...#..
    #.....#  ...#...  #......  ......#  #######
    #.....#  ...#...  #......  ......#  ....#..
    .#...#.  ...#...  #......  #.....#  ....#..
    ..###..  ...#...  #######  .#####.  ....#..
"""


def stylised_digits(size: int = 28) -> Tensor:
    """0, 1, 2, 3 and 4 in strokes of one pixel, after the paper's figure: (5, 1, size, size), 0 and 1, in the middle.

    Raises ValueError for a `size` that does not hold their 9 × 7 pixels.
    """
    rows = [line.split() for line in STYLISED.split("\n") if line.strip()]
    digits = np.array([[[pixel == "#" for pixel in row[digit]] for row in rows] for digit in range(5)])
    height, width = digits.shape[1:]
    if size < height:
        raise ValueError(f"the digits are {height} × {width} pixels; got size={size}")
    top, left = (size - height) // 2, (size - width) // 2
    images = np.zeros((5, 1, size, size))
    images[:, 0, top : top + height, left : left + width] = digits
    return _float32(images)


def _batches(images: Tensor) -> list[Tensor]:
    """The images in parts of at most `BATCH`."""
    return [images[first : first + BATCH] for first in range(0, len(images), BATCH)]


def _contrast(x: Tensor) -> Tensor:
    """Each image with its darkest pixel at 0 and its brightest at 1; all 0 where they are the same."""
    dark = -(-x).max(axis=(1, 2, 3), keepdims=True)
    span = x.max(axis=(1, 2, 3), keepdims=True) - dark
    return (x - dark) / (span + (span.data == 0))


def _falling(size: int, falloff: float) -> np.ndarray:
    """`falloff` to the power of the distance from the middle: (size, size)."""
    from_middle = np.arange(size) - (size - 1) / 2
    return falloff ** np.hypot(from_middle[:, np.newaxis], from_middle)


def _highest_of_columns(highest: Tensor, column: int) -> Tensor:
    """For each place the lowest of the maxima of the columns it lies in: (1, 1, H, W).

    A cell is a candidate where it answers with exactly that, being the most of one column at least.
    """
    if column > max(highest.shape[2:]):
        return highest.max()
    if column % 2 == 0:
        raise ValueError(f"the places of an S-column must be odd in number, to have a middle; got {column} × {column}")
    maxima = F.max_pool2d(highest, column, 1, column // 2)
    return -F.max_pool2d(-maxima, column, 1, column // 2)


def _float32(values: np.ndarray) -> Tensor:
    return tensor(values.astype(np.float32), device=get_device())
