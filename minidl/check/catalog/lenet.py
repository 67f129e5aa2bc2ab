"""Unit 04, LeNet-5: subsampling, its gradient, and what a convolution has to learn. Claims D9, F1."""

from __future__ import annotations

import numpy as np

from ... import functional as F
from ..definition import Exercise, Gradient, with_cotangents


def avg_pool2d(x, size, stride):
    return F.avg_pool2d(x, size, stride)


def _of_any_dtype(x, size, stride):
    return avg_pool2d(x.astype(np.float64), size, stride)


def pooling_cases(draw):
    """For windows of `size` × `size` at `stride`; `max_pool2d` has the same."""
    yield "one pixel", (draw(1, 1, 1, 1), 1, 1)
    yield "one 2 × 2 window", (draw(1, 1, 2, 2), 2, 2)
    yield "LeNet-5's 2 × 2 windows at stride 2", (draw(1, 1, 4, 4), 2, 2)
    yield "a window larger than its stride: they overlap", (draw(1, 1, 5, 5), 3, 2)
    yield "a stride larger than the window: pixels between are not seen", (draw(1, 1, 5, 5), 2, 3)
    yield "an image that is not square, with a row over", (draw(1, 1, 5, 6), 2, 2)
    yield "two channels", (draw(1, 2, 4, 4), 2, 2)
    yield "two images", (draw(2, 1, 4, 4), 2, 2)
    yield "a batch", (draw(2, 3, 7, 8), 3, 2)
    yield "images that are not contiguous in memory", (draw(6, 5, 3, 2).T, 2, 2)


def _whole_numbers_too(draw):
    yield from pooling_cases(draw)
    yield "pixels that are whole numbers", (np.arange(16).reshape(1, 1, 4, 4) ** 2 % 23, 2, 2)


def windows_of(x, size, stride):
    """(N, C, OH, OW, size, size), a view."""
    return np.lib.stride_tricks.sliding_window_view(x, (size, size), (2, 3))[:, :, ::stride, ::stride]


def first_windows(dense, strided):
    """As many windows as `strided` has, of those of stride 1."""
    return dense[:, :, : strided.shape[2], : strided.shape[3]]


AVG_POOL2D = Exercise(
    "avg_pool2d(x (N, C, H, W), size, stride) -> y (N, C, OH, OW)", _of_any_dtype, _whole_numbers_too,
    {"y": {
        "the stride is ignored: windows start `stride` pixels apart": lambda x, size: _of_any_dtype(x, size, 1),
        "the windows start one pixel apart, and should start `stride` pixels apart (i · stride)":
            lambda x, size, stride: first_windows(
                _of_any_dtype(x, size, 1).numpy(), _of_any_dtype(x, size, stride).numpy()),
        "the stride is taken to be the size of the window, and they may differ":
            lambda x, size: _of_any_dtype(x, size, size),
        "it is the maximum of each window, and should be the mean": lambda x, size, stride:
            windows_of(x, size, stride).max(axis=(4, 5)),
        "the division is missing: it is the sum of each window, and should be the mean": lambda x, size, stride:
            windows_of(x, size, stride).sum(axis=(4, 5)),
        "it divides by the length of a window's side: a window has size² pixels": lambda x, size, stride:
            windows_of(x, size, stride).sum(axis=(4, 5)) / size,
        "it divides by the stride squared: a window has size² pixels": lambda x, size, stride:
            windows_of(x, size, stride).sum(axis=(4, 5)) / stride**2,
        "it is averaged over the channels too: every channel is pooled on its own": lambda x, size, stride:
            _of_any_dtype(x, size, stride).numpy().mean(axis=1, keepdims=True),
        "it is averaged over the batch too: every image is pooled on its own": lambda x, size, stride:
            _of_any_dtype(x, size, stride).numpy().mean(axis=0, keepdims=True),
        "it is the mean of the whole image, global average pooling": lambda x:
            x.mean(axis=(2, 3), keepdims=True),
        "the first pixel of each window is taken, and should be the mean": lambda x, size, stride:
            windows_of(x, size, stride)[..., 0, 0],
        "the output has rows and columns exchanged": lambda x, size, stride:
            _of_any_dtype(x, size, stride).numpy().swapaxes(2, 3),
        "the last row and column of windows are missing: OH = (H − size) // stride + 1": lambda x, size, stride:
            _of_any_dtype(x, size, stride).numpy()[:, :, :-1, :-1],
    }},
)

AVG_POOL2D_GRADIENT = Exercise(
    "avg_pool2d_gradient(g (N, C, OH, OW), x (N, C, H, W), size, stride) -> dx (N, C, H, W)",
    Gradient(avg_pool2d, "x"), with_cotangents(avg_pool2d, pooling_cases),
    {"dx": {
        "the division by size² is missing: each pixel has a share of 1/size² in the mean":
            lambda g, x, size, stride: _spread(g, x, size, stride),
        "it divides by the length of a window's side: a window has size² pixels":
            lambda g, x, size, stride: _spread(g, x, size, stride) / size,
        "it divides by the stride squared: a window has size² pixels":
            lambda g, x, size, stride: _spread(g, x, size, stride) / stride**2,
        "overlapping windows overwrite each other: each adds to dx (+= in place of =)":
            lambda g, x, size, stride: _spread(g, x, size, stride, add=False) / size**2,
        "the whole g goes to the first pixel of each window: every pixel has a share of 1/size²":
            lambda g, x, size, stride: _to_first(g, x, size, stride),
        "it goes to the maximum of each window, as in max pooling: every pixel has a share of 1/size²":
            lambda g, x, size, stride: _max_pool_gradient(g, x, size, stride),
        "the stride is ignored: windows start `stride` pixels apart":
            lambda g, x, size: _spread(g, x, size, 1) / size**2,
        "the stride is taken to be the size of the window, and they may differ":
            lambda g, x, size: _spread(g, x, size, size) / size**2,
        "g is stretched to the size of x without a look at the windows":
            lambda g, x: np.resize(g.repeat(2, axis=2).repeat(2, axis=3), x.shape),
    }},
)


def _spread(g, x, size, stride, add=True):
    """Each g written to, or added to, the pixels of its window."""
    dx = np.zeros(x.shape)
    for i in range(g.shape[2]):
        for j in range(g.shape[3]):
            window = dx[:, :, i * stride : i * stride + size, j * stride : j * stride + size]
            window[...] = g[:, :, i : i + 1, j : j + 1] + (window if add else 0)
    return dx


def _to_first(g, x, size, stride):
    dx = np.zeros(x.shape)
    dx[:, :, : (g.shape[2] - 1) * stride + 1 : stride, : (g.shape[3] - 1) * stride + 1 : stride] = g
    return dx


def _max_pool_gradient(g, x, size, stride):
    return Gradient(F.max_pool2d, "input")(g, x, size, stride, 0, 1, False)


# How many numbers a convolution learns

def conv2d_parameters(in_channels, out_channels, kernel_height, kernel_width):
    return out_channels * (in_channels * kernel_height * kernel_width + 1)


def _parameter_cases(draw):
    yield "one channel, one 1 × 1 filter", (1, 1, 1, 1)
    yield "one channel, one 5 × 5 filter", (1, 1, 5, 5)
    yield "LeNet-5's C1: one channel, six 5 × 5 filters", (1, 6, 5, 5)
    yield "LeNet-5's C3: six channels, sixteen 5 × 5 filters", (6, 16, 5, 5)
    yield "a filter that is not square", (3, 4, 1, 7)
    yield "AlexNet's first layer: three channels, 96 filters of 11 × 11", (3, 96, 11, 11)


CONV2D_PARAMETERS = Exercise(
    "conv2d_parameters(in_channels, out_channels, kernel_height, kernel_width) -> count",
    conv2d_parameters, _parameter_cases,
    {"count": {
        "the biases are forgotten: each filter has one":
            lambda in_channels, out_channels, kernel_height, kernel_width:
                in_channels * out_channels * kernel_height * kernel_width,
        "one bias is counted for the layer: each filter has one":
            lambda in_channels, out_channels, kernel_height, kernel_width:
                in_channels * out_channels * kernel_height * kernel_width + 1,
        "a bias is counted for each input channel: each filter has one":
            lambda in_channels, out_channels, kernel_height, kernel_width:
                in_channels * out_channels * kernel_height * kernel_width + in_channels,
        "a bias is counted for each filter and channel: each filter has one for all its channels":
            lambda in_channels, out_channels, kernel_height, kernel_width:
                in_channels * out_channels * (kernel_height * kernel_width + 1),
        "the input channels are forgotten: a filter looks at all of them":
            lambda out_channels, kernel_height, kernel_width: out_channels * (kernel_height * kernel_width + 1),
        "the number of filters is forgotten: this is one filter":
            lambda in_channels, kernel_height, kernel_width: in_channels * kernel_height * kernel_width + 1,
        "the filter is taken to be square by its height": lambda in_channels, out_channels, kernel_height:
            conv2d_parameters(in_channels, out_channels, kernel_height, kernel_height),
        "the filter is taken to be square by its width": lambda in_channels, out_channels, kernel_width:
            conv2d_parameters(in_channels, out_channels, kernel_width, kernel_width),
        "height and width of the filter are added, and should be multiplied":
            lambda in_channels, out_channels, kernel_height, kernel_width:
                out_channels * (in_channels * (kernel_height + kernel_width) + 1),
    }},
)

EXERCISES = (AVG_POOL2D, AVG_POOL2D_GRADIENT, CONV2D_PARAMETERS)
