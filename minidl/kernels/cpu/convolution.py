"""Convolution and its gradients: which algorithm computes them. `im2col` does all, `winograd` 3 × 3 at stride 1.

The cheaper one is taken, by a model of what both cost. A batch of one photograph or of sixty-four, a first layer and a
last one differ enough that neither always wins.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np

from ...arrays import in_float32
from ...tasklocal import TaskLocal
from ..windows import Windows
from . import im2col, winograd
from .layout import blocks, by_channel, full
from .reduction import sum_rows
from .threads import parallel

ALGORITHMS = ("im2col", "winograd")
FLOAT32 = np.dtype(np.float32)

# What moving data costs, in multiply-adds of a large matrix product that take as long (2 cores, AVX-512).
COLUMN = 10
"""A value copied into a column."""
SCATTER = 20
"""A value of a column added to its pixel."""
TRANSFORM = 200
"""A value of a tile gathered, transformed, and its product put back."""
FILTER = 85
"""A value of a transformed filter."""


def conv2d(
    x: np.ndarray, weight: np.ndarray, windows: Windows, groups: int, bias: np.ndarray | None = None
) -> np.ndarray:
    """x (N, C, H, W) * weight (K, C/groups, KH, KW) + bias (K) → (N, K, OH, OW)."""
    size = windows.output_size(x.shape[2:])
    algorithm = _choose(len(x), weight.shape, size, windows, groups, x.dtype)
    if not len(x) or 0 in size:  # pixels of no images would have no size
        return np.empty((len(x), len(weight), *size), x.dtype)
    y = winograd.conv2d(x, weight, windows, bias) if algorithm == "winograd" else None
    if y is None:
        y = im2col.conv2d(x, weight, windows, groups, bias)
    return y


def conv2d_weight_gradient(g: np.ndarray, x: np.ndarray, windows: Windows, groups: int) -> np.ndarray:
    """∂L/∂W (K, C/groups, KH, KW) from g (N, K, OH, OW)."""
    shape = (g.shape[1], x.shape[1] // groups, *windows.kernel)
    algorithm = _choose(len(x), shape, g.shape[2:], windows, groups, x.dtype)
    if not len(x) or 0 in g.shape[2:]:
        return np.zeros(shape, g.dtype)
    dw = winograd.conv2d_weight_gradient(g, x, windows) if algorithm == "winograd" else None
    if dw is None:
        dw = im2col.conv2d_weight_gradient(g, x, windows, groups)
    return dw


def conv2d_input_gradient(
    g: np.ndarray, weight: np.ndarray, size: tuple[int, int], windows: Windows, groups: int
) -> np.ndarray:
    """∂L/∂X (N, C, *size) from g (N, K, OH, OW).

    At stride 1 it is itself a convolution: of g, padded so that every window meets it, with the filters turned by 180°.
    Else, and where that padding costs more than it saves, it is col2im.
    """
    n, k, oh, ow = g.shape
    _, c, kh, kw = weight.shape
    if 0 in (oh, ow):
        return np.zeros((n, groups * c, *size), g.dtype)
    if (kh, kw) == (1, 1) and windows.stride != (1, 1) and not any(map(any, windows.padding)):
        dx = full((n, groups * c, *size), 0, g.dtype)  # the pixels between were not seen
        at_stride_1 = conv2d_input_gradient(g, weight, (oh, ow), windows._replace(stride=(1, 1)), groups)
        dx[:, :, :: windows.stride[0], :: windows.stride[1]] = at_stride_1
        return dx
    turned, shape = windows.turned(), (groups * c, k // groups, kh, kw)
    col2im = n * oh * ow * c * kh * kw * (k + SCATTER * groups)
    if turned is None or (
        _study.get().forced != "winograd" and col2im < min(costs(n, shape, size, turned, groups, g.dtype).values())
    ):
        _note("im2col")
        return im2col.conv2d_input_gradient(g, weight, size, windows, groups)
    filters = weight.reshape(groups, k // groups, c, kh, kw)[..., ::-1, ::-1].swapaxes(1, 2)
    return conv2d(g, filters.reshape(shape), turned, groups)


@in_float32
def conv2d_bias_gradient(g: np.ndarray) -> np.ndarray:
    """∂L/∂b (K): the sum of g (N, K, OH, OW) over images and positions."""
    gradients = by_channel(g)
    total = np.empty(len(gradients), g.dtype)

    def add_up(channels: slice) -> None:
        total[channels] = sum_rows(gradients[channels])

    parallel(add_up, blocks(gradients), gradients.nbytes)
    return total


def costs(
    batch: int, weight: tuple[int, ...], outputs: tuple[int, ...], windows: Windows, groups: int = 1,
    dtype: np.dtype = FLOAT32,
) -> dict[str, float]:
    """What each algorithm that applies costs, as multiply-adds of a matrix product.

    `weight` is the shape (K, C/groups, KH, KW), `outputs` (OH, OW).
    """
    k, c, kh, kw = weight
    oh, ow = outputs
    column = 0 if (kh, kw) == windows.stride == (1, 1) else COLUMN  # such an image is its own columns
    found: dict[str, float] = {"im2col": batch * oh * ow * c * kh * kw * (k + column * groups)}
    if winograd.applies(windows, groups, dtype):
        tiles = batch * -(-oh // winograd.OUTPUTS) * -(-ow // winograd.OUTPUTS)
        found["winograd"] = winograd.ENTRIES * (tiles * (c * k + TRANSFORM * (c + k) / 2) + FILTER * c * k)
    return found


# ---------------------------------------------------------------------------------------------
# Asking, and forcing
# ---------------------------------------------------------------------------------------------

class _Study(NamedTuple):
    forced: str | None = None
    ran: list[str] | None = None


_study = TaskLocal(_Study())


@contextmanager
def conv_algorithm(name: str | None = None) -> Iterator[list[str]]:
    """Have convolutions on the CPU and their gradients use the algorithm `name`, where it applies.

    It holds for the thread, or the asyncio task, that runs the block.
    ``"im2col"`` (which col2im belongs to), ``"winograd"`` (3 × 3 at stride 1, of float32 and float64; im2col elsewhere,
    and again where a result is not finite), or None for the cheaper one. The list that it gives fills with the names of
    those that were chosen: ``with F.conv_algorithm() as ran: F.conv2d(x, w)``.
    Raises ValueError for another name.
    """
    if name is not None and name not in ALGORITHMS:
        raise ValueError(f"conv_algorithm: there is no {name!r}; choose {' or '.join(map(repr, ALGORITHMS))}")
    before, ran = _study.get(), list[str]()
    _study.set(_Study(name, ran))
    try:
        yield ran
    finally:
        _study.set(before)


def _choose(
    batch: int, weight: tuple[int, ...], outputs: tuple[int, ...], windows: Windows, groups: int, dtype: np.dtype
) -> str:
    found = costs(batch, weight, outputs, windows, groups, dtype)
    forced = _study.get().forced
    if forced is not None:
        algorithm = forced if forced in found else "im2col"
    else:
        algorithm = min(found, key=found.__getitem__)
    _note(algorithm)
    return algorithm


def _note(algorithm: str) -> None:
    ran = _study.get().ran
    if ran is not None:
        ran.append(algorithm)
