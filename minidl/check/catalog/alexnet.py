"""Unit 05, AlexNet: the paper's response normalisation, and what groups save. Claims D9, F2 to F4."""

from __future__ import annotations

import numpy as np

from ... import functional as F
from ..definition import Exercise


def local_response_norm(x, n, alpha, beta, k):
    """The paper does not divide alpha by n; PyTorch's function does."""
    return F.local_response_norm(x, n, alpha * n, beta, k)


def _lrn_cases(draw):
    yield "one channel, one pixel", (draw(1, 1, 1, 1), 1, 0.5, 0.75, 2.0)
    yield "three channels, windows of three", (draw(1, 3, 1, 1), 3, 0.5, 0.75, 2.0)
    yield "more channels than the window holds", (draw(1, 6, 1, 2), 3, 0.5, 0.75, 1.0)
    yield "fewer channels than the window holds", (draw(1, 2, 2, 1), 5, 0.5, 0.75, 2.0)
    yield "another β, images that are not square", (draw(1, 4, 2, 3), 3, 0.25, 0.5, 1.5)
    yield "two images", (draw(2, 5, 2, 2), 3, 0.5, 0.75, 2.0)
    yield "AlexNet's constants: k = 2, n = 5, α = 10⁻⁴, β = 0.75", (draw(2, 8, 3, 2) * 100, 5, 1e-4, 0.75, 2.0)
    yield "images that are not contiguous in memory", (draw(3, 2, 7, 2).T, 5, 0.5, 0.75, 1.0)


def _normalised(x, total, alpha, beta, k):
    return x / (k + alpha * total) ** beta


def _squares(x, reach_before, reach_after):
    """Σ x² over the channels from c − reach_before to c + reach_after."""
    channels = x.shape[1]
    return np.stack([(x[:, max(c - reach_before, 0) : min(c + reach_after + 1, channels)] ** 2).sum(axis=1)
                     for c in range(channels)], axis=1)


LOCAL_RESPONSE_NORM = Exercise(
    "local_response_norm(x (N, C, H, W), n, alpha, beta, k) -> y (N, C, H, W)", local_response_norm, _lrn_cases,
    {"y": {
        "alpha is divided by n, as PyTorch does and the paper does not":
            lambda x, n, alpha, beta, k: local_response_norm(x, n, alpha / n, beta, k),
        "beta is forgotten: the denominator is raised to it": lambda x, n, alpha, k:
            local_response_norm(x, n, alpha, 1.0, k),
        "k is taken to be 1": lambda x, n, alpha, beta: local_response_norm(x, n, alpha, beta, 1.0),
        "k is forgotten": lambda x, n, alpha, beta: local_response_norm(x, n, alpha, beta, 0.0),
        "alpha is forgotten": lambda x, n, beta, k: local_response_norm(x, n, 1.0, beta, k),
        "the squares are missing: it is Σ x², not Σ x": lambda x, n, alpha, beta, k: _normalised(
            x, np.stack([x[:, max(c - n // 2, 0) : c + n // 2 + 1].sum(axis=1) for c in range(x.shape[1])], axis=1),
            alpha, beta, k),
        "the sum runs over all channels: only n neighbours count": lambda x, alpha, beta, k:
            _normalised(x, (x**2).sum(axis=1, keepdims=True), alpha, beta, k),
        "the window reaches n channels to each side: it holds n channels in all, n // 2 to each side":
            lambda x, n, alpha, beta, k: _normalised(x, _squares(x, n, n), alpha, beta, k),
        "the window lacks its last channel: a Python slice ends before its end (c + n // 2 + 1)":
            lambda x, n, alpha, beta, k: _normalised(x, _squares(x, n // 2, n // 2 - 1), alpha, beta, k),
        "the window lacks its last channel, at the last channels too: a Python slice ends before its end":
            lambda x, n, alpha, beta, k: _normalised(x, np.stack(
                [(x[:, max(c - n // 2, 0) : min(c + n // 2, x.shape[1] - 1)] ** 2).sum(axis=1)
                 for c in range(x.shape[1])], axis=1), alpha, beta, k),
        "the window begins at the channel itself: it lies around it, n // 2 to each side":
            lambda x, n, alpha, beta, k: _normalised(x, _squares(x, 0, n - 1), alpha, beta, k),
        "the window wraps around at the first and last channel: it is cut off there": lambda x, n, alpha, beta, k:
            _normalised(x, sum(np.roll(x, by, axis=1) ** 2 for by in range(-(n // 2), n // 2 + 1)), alpha, beta, k),
        "it multiplies where it should divide": lambda x, n, alpha, beta, k:
            x * (k + alpha * _squares(x, n // 2, n // 2)) ** beta,
        "only the channel itself is squared: the sum over its neighbours is missing": lambda x, alpha, beta, k:
            _normalised(x, x**2, alpha, beta, k),
    }},
)


# Cost of a convolution in groups

def grouped_conv2d_cost(in_channels, out_channels, kernel_size, groups, height, width):
    weights = out_channels * (in_channels // groups) * kernel_size**2
    return weights + out_channels, weights * height * width


def _cost_cases(draw):
    yield "one filter, one position", (1, 1, 1, 1, 1, 1)
    yield "one 3 × 3 filter over 4 × 5 positions", (1, 1, 3, 1, 4, 5)
    yield "one group: AlexNet's conv1", (3, 96, 11, 1, 55, 55)
    yield "two groups: AlexNet's conv2", (96, 256, 5, 2, 27, 27)
    yield "a group a channel", (6, 12, 3, 6, 2, 3)
    yield "AlexNet's conv4", (384, 384, 3, 2, 13, 13)


GROUPED_CONV2D_COST = Exercise(
    "grouped_conv2d_cost(in_channels, out_channels, kernel_size, groups, height, width) -> parameters, mult_adds",
    grouped_conv2d_cost, _cost_cases,
    {
        "parameters": {
            "the groups are ignored: a filter sees in_channels // groups channels":
                lambda in_channels, out_channels, kernel_size:
                    out_channels * (in_channels * kernel_size**2 + 1),
            "the biases are forgotten: each filter has one": lambda in_channels, out_channels, kernel_size, groups:
                out_channels * (in_channels // groups) * kernel_size**2,
            "the biases are divided by the groups too: each filter has one":
                lambda in_channels, out_channels, kernel_size, groups:
                    out_channels * (in_channels * kernel_size**2 + 1) // groups,
            "the filters are divided by the groups too: together the groups have out_channels filters":
                lambda in_channels, out_channels, kernel_size, groups:
                    (out_channels // groups) * ((in_channels // groups) * kernel_size**2 + 1),
            "the groups multiply: a filter sees in_channels // groups channels, so they divide":
                lambda in_channels, out_channels, kernel_size, groups:
                    out_channels * (in_channels * groups * kernel_size**2 + 1),
            "the kernel counts kernel_size weights a channel: it has kernel_size²":
                lambda in_channels, out_channels, kernel_size, groups:
                    out_channels * ((in_channels // groups) * kernel_size + 1),
        },
        "mult_adds": {
            "the groups are ignored: a filter sees in_channels // groups channels":
                lambda in_channels, out_channels, kernel_size, height, width:
                    out_channels * in_channels * kernel_size**2 * height * width,
            "the positions are forgotten: every weight is used at each of height · width":
                lambda in_channels, out_channels, kernel_size, groups:
                    out_channels * (in_channels // groups) * kernel_size**2,
            "the biases are counted: adding one is no multiplication":
                lambda in_channels, out_channels, kernel_size, groups, height, width:
                    out_channels * ((in_channels // groups) * kernel_size**2 + 1) * height * width,
            "the filters are forgotten: this is one of out_channels":
                lambda in_channels, kernel_size, groups, height, width:
                    (in_channels // groups) * kernel_size**2 * height * width,
            "the output is taken to be square by its height":
                lambda in_channels, out_channels, kernel_size, groups, height:
                    out_channels * (in_channels // groups) * kernel_size**2 * height**2,
            "a multiplication and an addition are counted as two: one multiply-add is one":
                lambda in_channels, out_channels, kernel_size, groups, height, width:
                    2 * out_channels * (in_channels // groups) * kernel_size**2 * height * width,
            "the filters are divided by the groups too: together the groups have out_channels filters":
                lambda in_channels, out_channels, kernel_size, groups, height, width:
                    (out_channels // groups) * (in_channels // groups) * kernel_size**2 * height * width,
        },
    },
)

EXERCISES = (LOCAL_RESPONSE_NORM, GROUPED_CONV2D_COST)
