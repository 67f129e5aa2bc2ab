"""Unit 08, GoogLeNet: what an Inception module costs, naive and with bottlenecks. Claim F13."""

from __future__ import annotations

from ..definition import Exercise


def inception_cost(in_channels, f1, r3, f3, r5, f5, p, height, width):
    positions = height * width
    naive = in_channels * (f1 + 9 * f3 + 25 * f5)
    bottlenecks = in_channels * (f1 + r3 + r5 + p) + 9 * r3 * f3 + 25 * r5 * f5
    return naive * positions, bottlenecks * positions


def _cases(draw):
    yield "one filter each, one position", (1, 1, 1, 1, 1, 1, 1, 1, 1)
    yield "different filters, one position", (4, 2, 3, 5, 6, 7, 8, 1, 1)
    yield "different filters, 2 × 3 positions", (4, 2, 3, 5, 6, 7, 8, 2, 3)
    yield "Inception 3a", (192, 64, 96, 128, 16, 32, 32, 28, 28)
    yield "Inception 3b, on the slide's 28 × 28 × 256", (256, 128, 128, 192, 32, 96, 64, 28, 28)
    yield "Inception 5b", (832, 384, 192, 384, 48, 128, 128, 7, 7)


def _naive(of):
    """A row of the table for `naive`: `of` gives the weights, and each is used at every position."""
    return lambda in_channels, f1, f3, f5, height, width: of(in_channels, f1, f3, f5) * height * width


def _bottlenecks(of):
    return lambda in_channels, f1, r3, f3, r5, f5, p, height, width: (
        of(in_channels, f1, r3, f3, r5, f5, p) * height * width)


INCEPTION_COST = Exercise(
    "inception_cost(in_channels, f1, r3, f3, r5, f5, p, height, width) -> naive, bottlenecks", inception_cost, _cases,
    {
        "naive": {
            "the positions are forgotten: every weight is used at each of height · width":
                lambda in_channels, f1, f3, f5: in_channels * (f1 + 9 * f3 + 25 * f5),
            "the kernels count 3 and 5 weights a channel: they have 3² and 5²":
                _naive(lambda c, f1, f3, f5: c * (f1 + 3 * f3 + 5 * f5)),
            "the input channels are forgotten: every filter looks at all of them":
                _naive(lambda c, f1, f3, f5: f1 + 9 * f3 + 25 * f5),
            "the pooling branch is counted: comparing multiplies nothing":
                _naive(lambda c, f1, f3, f5: c * (f1 + 9 * f3 + 25 * f5) + 9 * c),
            "the biases are counted: adding one is no multiplication":
                _naive(lambda c, f1, f3, f5: c * (f1 + 9 * f3 + 25 * f5) + f1 + f3 + f5),
            "the 1 × 1 branch is forgotten": _naive(lambda c, f1, f3, f5: c * (9 * f3 + 25 * f5)),
            "a multiplication and an addition are counted as two: one multiply-add is one":
                _naive(lambda c, f1, f3, f5: 2 * c * (f1 + 9 * f3 + 25 * f5)),
            "all three branches are taken to be 3 × 3": _naive(lambda c, f1, f3, f5: 9 * c * (f1 + f3 + f5)),
            "the branches follow each other: they all read the input":
                _naive(lambda c, f1, f3, f5: c * f1 + 9 * f1 * f3 + 25 * f3 * f5),
        },
        "bottlenecks": {
            "the bottlenecks themselves are forgotten: the 1 × 1 convolutions to r3, r5 and p channels cost too":
                _bottlenecks(lambda c, f1, r3, f3, r5, f5, p: c * f1 + 9 * r3 * f3 + 25 * r5 * f5),
            "two bottlenecks are forgotten: the 1 × 1 convolutions to r3 and r5 channels cost too":
                _bottlenecks(lambda c, f1, r3, f3, r5, f5, p: c * (f1 + p) + 9 * r3 * f3 + 25 * r5 * f5),
            "the projection behind the pool is forgotten: p filters of 1 × 1":
                _bottlenecks(lambda c, f1, r3, f3, r5, f5, p: c * (f1 + r3 + r5) + 9 * r3 * f3 + 25 * r5 * f5),
            "the 1 × 1 branch is forgotten: f1 filters":
                _bottlenecks(lambda c, f1, r3, f3, r5, f5, p: c * (r3 + r5 + p) + 9 * r3 * f3 + 25 * r5 * f5),
            "the large filters still see all input channels: behind a bottleneck they see r3 or r5":
                _bottlenecks(lambda c, f1, r3, f3, r5, f5, p: c * (f1 + r3 + r5 + p) + 9 * c * f3 + 25 * c * f5),
            "r3 and r5 are exchanged":
                _bottlenecks(lambda c, f1, r3, f3, r5, f5, p: c * (f1 + r3 + r5 + p) + 9 * r5 * f3 + 25 * r3 * f5),
            "the positions are forgotten: every weight is used at each of height · width":
                lambda in_channels, f1, r3, f3, r5, f5, p:
                    in_channels * (f1 + r3 + r5 + p) + 9 * r3 * f3 + 25 * r5 * f5,
            "the kernels count 3 and 5 weights a channel: they have 3² and 5²":
                _bottlenecks(lambda c, f1, r3, f3, r5, f5, p: c * (f1 + r3 + r5 + p) + 3 * r3 * f3 + 5 * r5 * f5),
            "the biases are counted: adding one is no multiplication":
                _bottlenecks(lambda c, f1, r3, f3, r5, f5, p: c * (f1 + r3 + r5 + p) + 9 * r3 * f3 + 25 * r5 * f5
                             + f1 + r3 + f3 + r5 + f5 + p),
            "the projection is taken to read p channels: it reads the pooled input, all in_channels":
                _bottlenecks(lambda c, f1, r3, f3, r5, f5, p: c * (f1 + r3 + r5) + p * p + 9 * r3 * f3 + 25 * r5 * f5),
        },
    },
)

EXERCISES = (INCEPTION_COST,)
