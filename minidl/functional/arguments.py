"""What operations ask of their arguments, and what they say when they do not get it."""

from __future__ import annotations

from numbers import Integral
from typing import Any

from ..backend import Array
from ..kernels.windows import Windows

Pair = int | tuple[int, int]
"""One number for both directions, or (vertical, horizontal)."""


FAR = 1 << 62
"""Pixels beyond which no computer's memory reaches."""


def pair(operation: str, name: str, value: Any, minimum: int) -> tuple[int, int]:
    """One whole number for both directions, or (vertical, horizontal); each at least `minimum`.

    Raises TypeError for numbers that are not whole, ValueError for whole ones that are too small, and for anything
    that is neither one number nor two.
    """
    if type(value) is int and minimum <= value < FAR:
        return value, value
    both = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(both) != 2:
        raise ValueError(f"{operation}: {name} must be a whole number, or a pair of them; got {value!r}")
    if not all(isinstance(v, Integral) and not isinstance(v, bool) for v in both):
        raise TypeError(f"{operation}: {name} must be a whole number, or a pair of them; got {value!r}")
    if min(both) < minimum:
        raise ValueError(f"{operation}: {name} must be a whole number of at least {minimum}, or a pair of them; "
                         f"got {value!r}")
    if max(both) >= FAR:
        raise ValueError(f"{operation}: {name} must be below 2⁶²; got {value!r}")
    return int(both[0]), int(both[1])


def check_images(operation: str, input: Array) -> Array:
    """`input` as (N, C, H, W); a single image (C, H, W) becomes a batch of one."""
    if input.ndim not in (3, 4):
        raise ValueError(f"{operation}: needs images (N, C, H, W) or one image (C, H, W); got shape {input.shape}")
    return input if input.ndim == 4 else input[None]


def check_reduction(operation: str, reduction: str, count: int) -> None:
    """`reduction` is a known word, and a mean is not taken over nothing."""
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"{operation}: reduction must be 'mean', 'sum' or 'none'; got {reduction!r}")
    if reduction == "mean" and count == 0:
        raise ValueError(f"{operation}: the mean loss over an empty batch is undefined; "
                         "skip empty batches or use reduction='sum'")


def check_fits(operation: str, input: Array, windows: Windows) -> Windows:
    """`windows`, whose (dilated) kernel fits into the padded image; a stride beyond the image is cut short."""
    strides = []
    for size, reach, (before, after) in zip(input.shape[-2:], windows.reach, windows.padding):
        if size + before + after < reach:
            raise ValueError(
                f"{operation}: kernel {windows.kernel} with dilation {windows.dilation} is larger than "
                f"the padded input: {tuple(input.shape[-2:])} padded by {windows.padding}"
            )
        strides.append(size + before + after)
    vertical, horizontal = map(min, windows.stride, strides)
    return windows._replace(stride=(vertical, horizontal))
