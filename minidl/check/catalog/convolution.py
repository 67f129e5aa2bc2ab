"""Unit 03, convolution as im2col. Claim D8."""

from __future__ import annotations

import numpy as np

from ... import functional as F
from ..definition import Exercise, Gradient, with_cotangents
from .lenet import first_windows


def im2col(x, kernel_height, kernel_width, stride, padding):
    return F.im2col(x, (kernel_height, kernel_width), stride, padding)


def conv2d(x, w, b, stride, padding):
    return F.conv2d(x, w, b, stride, padding)


def _im2col_cases(draw):
    yield "one pixel, a 1 × 1 window", (draw(1, 1, 1, 1), 1, 1, 1, 0)
    yield "a 2 × 2 image, one window", (draw(1, 1, 2, 2), 2, 2, 1, 0)
    yield "a 3 × 3 image, four windows", (draw(1, 1, 3, 3), 2, 2, 1, 0)
    yield "stride 2", (draw(1, 1, 4, 4), 2, 2, 2, 0)
    yield "padding 1", (draw(1, 1, 2, 2), 2, 2, 1, 1)
    yield "two channels", (draw(1, 2, 3, 3), 2, 2, 1, 0)
    yield "two images", (draw(2, 1, 3, 3), 2, 2, 1, 0)
    yield "neither image nor window is square", (draw(1, 1, 4, 5), 3, 2, 1, 0)
    yield "stride that leaves a row over, and padding", (draw(2, 3, 6, 5), 3, 2, 2, 1)
    yield "images that are not contiguous in memory", (draw(5, 4, 3, 2).T, 2, 3, 1, 1)


def _conv2d_cases(draw):
    yield "one pixel, a 1 × 1 kernel", (draw(1, 1, 1, 1), draw(1, 1, 1, 1), draw(1), 1, 0)
    yield "a 2 × 2 image, a 2 × 2 kernel", (draw(1, 1, 2, 2), draw(1, 1, 2, 2), draw(1), 1, 0)
    yield "a 3 × 3 image, a 2 × 2 kernel", (draw(1, 1, 3, 3), draw(1, 1, 2, 2), draw(1), 1, 0)
    yield "stride 2", (draw(1, 1, 4, 4), draw(1, 1, 2, 2), draw(1), 2, 0)
    yield "padding 1", (draw(1, 1, 3, 3), draw(1, 1, 3, 3), draw(1), 1, 1)
    yield "two channels and two filters", (draw(1, 2, 3, 3), draw(2, 2, 2, 2), draw(2), 1, 0)
    yield "two channels", (draw(1, 2, 3, 3), draw(1, 2, 2, 2), draw(1), 1, 0)
    yield "three filters", (draw(1, 1, 3, 3), draw(3, 1, 2, 2), draw(3), 1, 0)
    yield "two images", (draw(2, 1, 3, 3), draw(1, 1, 2, 2), draw(1), 1, 0)
    yield "neither image nor kernel is square", (draw(1, 1, 4, 5), draw(1, 1, 3, 2), draw(1), 1, 0)
    yield "stride that leaves a row over, and padding", (draw(2, 3, 6, 5), draw(4, 3, 3, 2), draw(4), 2, 1)
    yield "stride larger than the kernel", (draw(1, 2, 5, 7), draw(2, 2, 2, 2), draw(2), 3, 0)
    yield "arrays that are not contiguous in memory", (draw(5, 4, 3, 2).T, draw(2, 3, 3, 4).T, draw(8)[::2], 1, 1)


def _columns(x, kernel_height, kernel_width, stride, padding):
    """(N, C, KH, KW, OH, OW)"""
    columns = im2col(x, kernel_height, kernel_width, stride, padding).numpy()
    n, c, h, w = x.shape
    high, wide = ((side + 2 * padding - k) // stride + 1 for side, k in ((h, kernel_height), (w, kernel_width)))
    return columns.reshape(n, c, kernel_height, kernel_width, high, wide)


def _padded(x, padding, **how):
    return np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)), **how)


def _padded_before(x, padding):
    return np.pad(x, ((0, 0), (0, 0), (padding, 0), (padding, 0)))


IM2COL = Exercise(
    "im2col(x (N, C, H, W), kernel_height, kernel_width, stride, padding) -> columns (N, C·KH·KW, OH·OW)",
    im2col, _im2col_cases,
    {"columns": {
        "the padding is missing: surround each image with zeros first":
            lambda x, kernel_height, kernel_width, stride: im2col(x, kernel_height, kernel_width, stride, 0),
        "the stride is ignored: windows start `stride` pixels apart":
            lambda x, kernel_height, kernel_width, padding: im2col(x, kernel_height, kernel_width, 1, padding),
        "the windows start one pixel apart, and should start `stride` pixels apart (i · stride)":
            lambda x, kernel_height, kernel_width, stride, padding:
                _flat(_columns(x, kernel_height, kernel_width, 1, padding)[
                    ..., : (x.shape[2] + 2 * padding - kernel_height) // stride + 1,
                    : (x.shape[3] + 2 * padding - kernel_width) // stride + 1]),
        "it is transposed: a window is a column, (N, C·KH·KW, OH·OW), not a row":
            lambda x, kernel_height, kernel_width, stride, padding:
                im2col(x, kernel_height, kernel_width, stride, padding).numpy().swapaxes(1, 2),
        "the entries of a window are in the order (KH, KW, C), and should be in the order (C, KH, KW)":
            lambda x, kernel_height, kernel_width, stride, padding:
                _flat(_columns(x, kernel_height, kernel_width, stride, padding).transpose(0, 2, 3, 1, 4, 5)),
        "the windows run down the columns of the image, and should run along its rows":
            lambda x, kernel_height, kernel_width, stride, padding:
                _flat(_columns(x, kernel_height, kernel_width, stride, padding).swapaxes(4, 5)),
        "the pixels of a window are read down its columns, and should be read along its rows":
            lambda x, kernel_height, kernel_width, stride, padding:
                _flat(_columns(x, kernel_height, kernel_width, stride, padding).swapaxes(2, 3)),
        "kernel_height and kernel_width are exchanged":
            lambda x, kernel_height, kernel_width, stride, padding:
                im2col(x, kernel_width, kernel_height, stride, padding),
        "the padding repeats the border: it should be zeros":
            lambda x, kernel_height, kernel_width, stride, padding:
                im2col(_padded(x, padding, mode="edge"), kernel_height, kernel_width, stride, 0),
        "the padding stands on one side only: it goes on all four sides":
            lambda x, kernel_height, kernel_width, stride, padding:
                im2col(_padded_before(x, padding), kernel_height, kernel_width, stride, 0),
        "the last row and column of windows are missing: OH = (H + 2·padding − KH) // stride + 1":
            lambda x, kernel_height, kernel_width, stride, padding:
                _flat(_columns(x, kernel_height, kernel_width, stride, padding)[..., :-1, :-1]),
        "the stride steps inside the window too, as a dilation":
            lambda x, kernel_height, kernel_width, stride, padding:
                F.im2col(x, (kernel_height, kernel_width), stride, padding, dilation=stride),
    }},
)


def _flat(columns):
    return columns.reshape(len(columns), columns.shape[1] * columns.shape[2] * columns.shape[3], -1)


CONV2D = Exercise(
    "conv2d(x (N, C, H, W), w (K, C, KH, KW), b (K), stride, padding) -> y (N, K, OH, OW)", conv2d, _conv2d_cases,
    {"y": {
        "the padding is missing: surround each image with zeros first":
            lambda x, w, b, stride: conv2d(x, w, b, stride, 0),
        "the stride is ignored: windows start `stride` pixels apart": lambda x, w, b, padding:
            conv2d(x, w, b, 1, padding),
        "the windows start one pixel apart, and should start `stride` pixels apart (i · stride)":
            lambda x, w, b, stride, padding:
                first_windows(conv2d(x, w, b, 1, padding).numpy(), conv2d(x, w, b, stride, padding)),
        "the bias is forgotten: add b, one number a filter": lambda x, w, stride, padding:
            conv2d(x, w, None, stride, padding),
        "the kernel is flipped: this is the convolution of mathematics; a layer computes the cross-correlation":
            lambda x, w, b, stride, padding: conv2d(x, w[:, :, ::-1, ::-1], b, stride, padding),
        "the kernel is transposed: its rows run along the rows of the image": lambda x, w, b, stride, padding:
            conv2d(x, w.swapaxes(2, 3), b, stride, padding),
        "filters and channels are exchanged: w is (K, C, KH, KW)": lambda x, w, b, stride, padding:
            conv2d(x, w.swapaxes(0, 1), b, stride, padding),
        "only the first channel is used: the sum runs over all of them": lambda x, w, b, stride, padding:
            conv2d(x[:, :1], w[:, :1], b, stride, padding),
        "only the last channel is kept: each one overwrites the sum of those before (= in place of +=)":
            lambda x, w, b, stride, padding: conv2d(x[:, -1:], w[:, -1:], b, stride, padding),
        "the bias is added once a channel, and should be added once": lambda x, w, b, stride, padding:
            conv2d(x, w, b * x.shape[1], stride, padding),
        "the bias is added once a pixel of the window, inside the sum: it belongs outside":
            lambda x, w, b, stride, padding: conv2d(x, w, b * w[0].size, stride, padding),
        "the bias is subtracted": lambda x, w, b, stride, padding: conv2d(x, w, -b, stride, padding),
        "only the bias of the first filter is added": lambda x, w, b, stride, padding:
            conv2d(x, w, np.full_like(b, b[0]), stride, padding),
        "every image is the first one: the index of the batch is missing": lambda x, w, b, stride, padding:
            conv2d(np.broadcast_to(x[:1], x.shape), w, b, stride, padding),
        "images are summed over the batch: each image has its own output": lambda x, w, b, stride, padding:
            conv2d(x.sum(axis=0, keepdims=True), w, b, stride, padding),
        "the padding repeats the border: it should be zeros": lambda x, w, b, stride, padding:
            conv2d(_padded(x, padding, mode="edge"), w, b, stride, 0),
        "the padding stands on one side only: it goes on all four sides": lambda x, w, b, stride, padding:
            conv2d(_padded_before(x, padding), w, b, stride, 0),
        "the last row and column of windows are missing: OH = (H + 2·padding − KH) // stride + 1":
            lambda x, w, b, stride, padding: conv2d(x, w, b, stride, padding).numpy()[:, :, :-1, :-1],
        "the output has rows and columns exchanged": lambda x, w, b, stride, padding:
            conv2d(x, w, b, stride, padding).numpy().swapaxes(2, 3),
        "the mean over each window is taken, and should be the sum": lambda x, w, b, stride, padding:
            conv2d(x, w / w[0].size, b, stride, padding),
    }},
)

CONV2D_GRADIENT = Exercise(
    "conv2d_gradient(g (N, K, OH, OW), x (N, C, H, W), w (K, C, KH, KW), b (K), stride, padding)"
    " -> dx (N, C, H, W), dw (K, C, KH, KW), db (K)",
    Gradient(conv2d, "x", "w", "b"), with_cotangents(conv2d, _conv2d_cases),
    {
        "dx": {
            "the padding is not cut off again: dx must have the shape of x, not of the padded x":
                lambda g, x, w, b, stride, padding: _dx(g, _padded(x, padding), w, b, stride, 0),
            "the kernel is flipped, as if the layer were a convolution of mathematics: y is the cross-correlation":
                lambda g, x, w, b, stride, padding: _dx(g, x, w[:, :, ::-1, ::-1], b, stride, padding),
            "overlapping windows overwrite each other: each adds to dx (+= in place of =)":
                lambda g, x, w, stride, padding: _overwritten(g, x, w, stride, padding),
            "windows and filters overwrite each other: each adds to dx (+= in place of =)":
                lambda g, x, w, stride, padding: _overwritten(g[:, -1:], x, w[-1:], stride, padding),
            "only the first filter sends a gradient back: sum over all of them":
                lambda g, x, w, b, stride, padding: _dx(g[:, :1], x, w[:1], b[:1], stride, padding),
            "only the last filter sends a gradient back: sum over all of them":
                lambda g, x, w, b, stride, padding: _dx(g[:, -1:], x, w[-1:], b[-1:], stride, padding),
            "the kernel is transposed: its rows run along the rows of the image":
                lambda g, x, w, b, stride, padding: _dx(g, x, w.swapaxes(2, 3), b, stride, padding),
            "it is averaged over the batch: each image gets its own gradient, as it is":
                lambda g, x, w, b, stride, padding: _dx(g, x, w, b, stride, padding) / len(x),
        },
        "dw": {
            "it is not summed over the batch: dw is one array for all images":
                lambda g, x, w, b, stride, padding: np.stack([
                    _dw(g[i : i + 1], x[i : i + 1], w, b, stride, padding) for i in range(len(x))]),
            "only the first image counts: sum over the batch":
                lambda g, x, w, b, stride, padding: _dw(g[:1], x[:1], w, b, stride, padding),
            "only the last image counts: sum over the batch (+= in place of =)":
                lambda g, x, w, b, stride, padding: _dw(g[-1:], x[-1:], w, b, stride, padding),
            "every image is taken to be the first one: the index of the batch is missing":
                lambda g, x, w, b, stride, padding: _dw(g.sum(axis=0, keepdims=True), x[:1], w, b, stride, padding),
            "it is divided by the number of images: g holds the 1/n of the loss already":
                lambda g, x, w, b, stride, padding: _dw(g, x, w, b, stride, padding) / len(x),
            "it is flipped: dw[i, j] belongs to w[i, j]":
                lambda g, x, w, b, stride, padding: _dw(g, x, w, b, stride, padding)[:, :, ::-1, ::-1],
            "filters and channels are exchanged: dw has the shape of w":
                lambda g, x, w, b, stride, padding: _dw(g, x, w, b, stride, padding).swapaxes(0, 1),
            "rows and columns of the kernel are exchanged":
                lambda g, x, w, b, stride, padding: _dw(g, x, w, b, stride, padding).swapaxes(2, 3),
            "the padding is missing: the windows were cut out of the padded x":
                lambda g, x, w, stride, padding: _unpadded_dw(g, x, w, stride, padding),
        },
        "db": {
            "it is not summed over the batch: db is one number a filter": lambda g: g.sum(axis=(2, 3)),
            "it is not summed over the positions: db is one number a filter": lambda g: g.sum(axis=0),
            "it is summed over the filters too: db is one number a filter": lambda g: g.sum(),
            "it is averaged, and should be summed over images and positions": lambda g: g.mean(axis=(0, 2, 3)),
            "it is divided by the number of images: g holds the 1/n of the loss already":
                lambda g: g.sum(axis=(0, 2, 3)) / len(g),
            "it is averaged over the positions, and should be summed": lambda g: g.mean(axis=(2, 3)).sum(axis=0),
            "only the first image counts: sum over the batch": lambda g: g[0].sum(axis=(1, 2)),
        },
    },
)

_gradients = CONV2D_GRADIENT.reference


def _dx(g, x, w, b, stride, padding):
    return _gradients(g, x, w, b, stride, padding)[0].numpy()


def _dw(g, x, w, b, stride, padding):
    return _gradients(g, x, w, b, stride, padding)[1].numpy()


def _overwritten(g, x, w, stride, padding):
    """dx where each window writes what it should add."""
    dx = np.zeros_like(_padded(x, padding))
    for i in range(g.shape[2]):
        for j in range(g.shape[3]):
            rows, columns = slice(i * stride, i * stride + w.shape[2]), slice(j * stride, j * stride + w.shape[3])
            dx[:, :, rows, columns] = np.einsum("nk,kcij->ncij", g[:, :, i, j], w)
    return dx[:, :, padding : padding + x.shape[2], padding : padding + x.shape[3]]


def _unpadded_dw(g, x, w, stride, padding):
    """dw where the windows are cut out of x itself, as far as it goes."""
    dw = np.zeros_like(w)
    for i in range(g.shape[2]):
        for j in range(g.shape[3]):
            window = x[:, :, i * stride : i * stride + w.shape[2], j * stride : j * stride + w.shape[3]]
            dw[:, :, : window.shape[2], : window.shape[3]] += np.einsum("nk,ncij->kcij", g[:, :, i, j], window)
    return dw


EXERCISES = (IM2COL, CONV2D, CONV2D_GRADIENT)
