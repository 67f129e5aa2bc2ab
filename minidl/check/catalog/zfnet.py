"""Unit 06, ZFNet: max pooling that remembers its switches, and unpooling by them. Claims D9, F6."""

from __future__ import annotations

import numpy as np

from ... import functional as F
from ..definition import Exercise
from .lenet import first_windows, pooling_cases, windows_of


def max_pool2d(x, size, stride):
    return F.max_pool2d(x, size, stride), _switches(x, size, stride, lambda window: window.argmax(axis=-1))


def _switches(x, size, stride, choose, width=None, position=lambda i: i):
    """The pixel that `choose` takes of each window, as row · W + column in the image."""
    windows = windows_of(x, size, stride)
    inside = choose(windows.reshape(*windows.shape[:4], size * size))
    rows = position(np.arange(windows.shape[2]))[:, None] * stride + inside // size
    columns = position(np.arange(windows.shape[3])) * stride + inside % size
    return rows * (x.shape[3] if width is None else width) + columns


def _last_maximum(window):
    return window.shape[-1] - 1 - window[..., ::-1].argmax(axis=-1)


def _max_pool_cases(draw):
    yield from pooling_cases(draw)
    yield "only negative numbers", (-1 - abs(draw(1, 1, 4, 4)), 2, 2)
    yield "ties: the first of the largest pixels counts", (np.ones((1, 2, 4, 4)), 2, 2)
    yield "zeros and ties", (np.maximum(draw(1, 1, 6, 5), 0), 3, 2)


MAX_POOL2D = Exercise(
    "max_pool2d(x (N, C, H, W), size, stride) -> y (N, C, OH, OW), switches (N, C, OH, OW)",
    max_pool2d, _max_pool_cases,
    {
        "y": {
            "it is the mean of each window, and should be the maximum": lambda x, size, stride:
                F.avg_pool2d(x, size, stride),
            "it is the minimum of each window, and should be the maximum": lambda x, size, stride:
                windows_of(x, size, stride).min(axis=(4, 5)),
            "the stride is ignored: windows start `stride` pixels apart": lambda x, size: F.max_pool2d(x, size, 1),
            "the windows start one pixel apart, and should start `stride` pixels apart (i · stride)":
                lambda x, size, stride: first_windows(
                    windows_of(x, size, 1).max(axis=(4, 5)), windows_of(x, size, stride).max(axis=(4, 5))),
            "the stride is taken to be the size of the window, and they may differ": lambda x, size:
                F.max_pool2d(x, size, size),
            "the maximum is at least 0: start from −∞, not from 0": lambda x, size, stride:
                np.maximum(windows_of(x, size, stride).max(axis=(4, 5)), 0),
            "it is the largest absolute value of each window": lambda x, size, stride:
                abs(windows_of(x, size, stride)).max(axis=(4, 5)),
            "it is the maximum over the channels too: every channel is pooled on its own": lambda x, size, stride:
                windows_of(x, size, stride).max(axis=(1, 4, 5))[:, None],
            "the output has rows and columns exchanged": lambda x, size, stride:
                windows_of(x, size, stride).max(axis=(4, 5)).swapaxes(2, 3),
            "the last row and column of windows are missing: OH = (H − size) // stride + 1": lambda x, size, stride:
                windows_of(x, size, stride).max(axis=(4, 5))[:, :, :-1, :-1],
        },
        "switches": {
            "they count within the window: a switch is row · W + column in the image": lambda x, size, stride:
                windows_of(x, size, stride).reshape(*windows_of(x, size, stride).shape[:4], -1).argmax(axis=-1),
            "of several largest pixels they take the last: the first counts, as np.argmax takes it":
                lambda x, size, stride: _switches(x, size, stride, _last_maximum),
            "they use the width of the output: a switch is row · W + column with the width W of the image":
                lambda x, size, stride: _switches(
                    x, size, stride, lambda window: window.argmax(axis=-1), windows_of(x, size, stride).shape[3]),
            "they use the height in place of the width: a switch is row · W + column": lambda x, size, stride:
                _switches(x, size, stride, lambda window: window.argmax(axis=-1), x.shape[2]),
            "they are column · H + row: a switch is row · W + column": lambda x, size, stride: _column_first(
                _switches(x, size, stride, lambda window: window.argmax(axis=-1)), x.shape[2], x.shape[3]),
            "they count from 1: the first pixel is 0": lambda x, size, stride:
                _switches(x, size, stride, lambda window: window.argmax(axis=-1)) + 1,
            "they count on through channels and images: every plane starts at 0": lambda x, size, stride:
                _switches(x, size, stride, lambda window: window.argmax(axis=-1))
                + np.arange(x.shape[0] * x.shape[1]).reshape(*x.shape[:2], 1, 1) * x.shape[2] * x.shape[3],
            "they hold the maxima themselves, and should say where they are": lambda x, size, stride:
                F.max_pool2d(x, size, stride),
            "the stride is missing: the window at (i, j) begins at pixel (i · stride, j · stride)":
                lambda x, size, stride: _switches(
                    x, size, stride, lambda window: window.argmax(axis=-1), position=lambda i: i / stride).astype(int),
        },
    },
)


def _column_first(switches, height, width):
    return switches % width * height + switches // width


# Unpooling

def unpool2d(g, switches, height, width):
    x = np.zeros((*g.shape[:2], height * width))
    planes = np.ix_(range(g.shape[0]), range(g.shape[1]))
    flat = switches.reshape(*g.shape[:2], -1)
    np.add.at(x, (planes[0][..., None], planes[1][..., None], flat), g.reshape(flat.shape))
    return x.reshape(*g.shape[:2], height, width)


def _unpool_cases(draw):
    for title, (x, size, stride) in pooling_cases(draw):
        _, switches = max_pool2d(x, size, stride)
        yield title, (draw(*switches.shape), switches, x.shape[2], x.shape[3])
    peak = np.zeros((1, 1, 5, 5))
    peak[..., 2, 2] = 1  # the one maximum of all four windows
    _, switches = max_pool2d(peak, 3, 2)
    yield "windows that share a maximum", (draw(1, 1, 2, 2), switches, 5, 5)


UNPOOL2D = Exercise(
    "unpool2d(g (N, C, OH, OW), switches (N, C, OH, OW), height, width) -> x (N, C, H, W)", unpool2d, _unpool_cases,
    {"x": {
        "windows that share a switch overwrite each other: they add up (np.add.at, or += in a loop)":
            lambda g, switches, height, width: _written(g, switches, height, width),
        "the switches are ignored: g goes to the first pixel of each window of a regular grid":
            lambda g, height, width: _regular(g, height, width),
        "g is repeated over each window (nearest neighbour): only the switch gets it, the rest is 0":
            lambda g, height, width: _stretched(g, height, width),
        "height and width are exchanged in row · W + column: the row is switch // width":
            lambda g, switches, height, width: unpool2d(
                g, switches % height * width + np.minimum(switches // height, width - 1), height, width),
        "every plane gets the values of the first channel": lambda g, switches, height, width:
            unpool2d(np.broadcast_to(g[:, :1], g.shape), switches, height, width),
        "every plane uses the switches of the first channel": lambda g, switches, height, width:
            unpool2d(g, np.broadcast_to(switches[:, :1], g.shape), height, width),
        "every image uses the switches of the first image": lambda g, switches, height, width:
            unpool2d(g, np.broadcast_to(switches[:1], g.shape), height, width),
        "the switches are read as counted from 1: the first pixel is 0": lambda g, switches, height, width:
            unpool2d(g, switches - 1, height, width),
        "it holds the switches, and should hold the values of g at them": lambda switches, height, width:
            unpool2d(switches.astype(float), switches, height, width),
        "the planes stay flat, (N, C, H·W): reshape them to (N, C, H, W)": lambda g, switches, height, width:
            unpool2d(g, switches, height, width).reshape(*g.shape[:2], -1),
        "it holds 1 at the switches, and should hold the values of g there": lambda g, switches, height, width:
            unpool2d(np.ones(g.shape), switches, height, width),
    }},
)


def _written(g, switches, height, width):
    x = np.zeros((*g.shape[:2], height * width))
    np.put_along_axis(x, switches.reshape(*g.shape[:2], -1), g.reshape(*g.shape[:2], -1), axis=2)
    return x.reshape(*g.shape[:2], height, width)


def _regular(g, height, width):
    x = np.zeros((*g.shape[:2], height, width))
    down, across = height // g.shape[2], width // g.shape[3]
    x[:, :, : g.shape[2] * down : down, : g.shape[3] * across : across] = g
    return x


def _stretched(g, height, width):
    sides = ((height, g.shape[2]), (width, g.shape[3]))
    rows, columns = (np.minimum(np.arange(n) // (n // m), m - 1) for n, m in sides)
    return g[:, :, rows[:, None], columns]


EXERCISES = (MAX_POOL2D, UNPOOL2D)
