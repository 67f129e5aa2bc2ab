"""What is shown of an array: statistics of all of it, and as many of its entries as a page can carry."""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backend import Array, to_device


@dataclass(frozen=True)
class Excerpt:
    """Statistics of a whole array, and evenly spaced entries of it."""

    shape: tuple[int, ...]
    dtype: str
    min: float | None
    """None, as are the others, where no entry is finite."""
    max: float | None
    mean: float | None
    norm: float | None
    """√Σ xᵢ²."""
    zeros: float | None
    """The share of entries that are 0."""
    not_finite: int
    """How many entries are NaN or infinite; the statistics are of the others."""
    entries: np.ndarray
    """Along an axis of n, m of them: entry i is the array's ⌊i·n/m⌋."""

    def as_json(self) -> dict[str, Any]:
        """For the page: the entries as base64 of float32 where that holds them exactly, else of float64."""
        kind = "f4" if self.entries.dtype in (np.float16, np.float32, np.bool_) else "f8"
        values = np.ascontiguousarray(self.entries, dtype=f"<{kind}")
        numbers = {name: getattr(self, name) for name in ("min", "max", "mean", "norm", "zeros")}
        return {
            **{name: x if x is not None and math.isfinite(x) else None for name, x in numbers.items()},
            "shape": self.shape, "dtype": self.dtype, "notFinite": self.not_finite, "shown": self.entries.shape,
            "kind": kind, "entries": base64.b64encode(values.tobytes()).decode("ascii"),
        }

    def __str__(self) -> str:
        if math.prod(self.shape) == 0:
            return "no entries"
        if math.prod(self.shape) == 1:
            return f"{self.entries.item():.6g}"
        others = f"{self.not_finite} not finite" if self.not_finite else ""
        if self.min is None:
            return others
        text = (f"min {self.min:.4g}, max {self.max:.4g}, mean {self.mean:.4g}, norm {self.norm:.4g}, "
                f"{self.zeros:.0%} zeros")
        return f"{text}, {others}" if others else text


def excerpt(array: Array, limit: int) -> Excerpt:
    """An excerpt of at most `limit` entries: all of a smaller array, else the same number along every longer axis."""
    whole = np.asarray(to_device(array, "cpu"))
    entries = whole
    for axis, (size, most) in enumerate(zip(whole.shape, shown_shape(whole.shape, limit))):
        if most < size:
            entries = entries.take(np.arange(most) * size // most, axis=axis)
    finite = whole[np.isfinite(whole)].astype(np.float64)
    statistics: tuple[float | None, ...] = (None,) * 5
    if finite.size:
        with np.errstate(over="ignore"):
            statistics = tuple(map(float, (
                finite.min(), finite.max(), finite.mean(), np.sqrt((finite * finite).sum()), (finite == 0).mean())))
    low, high, mean, norm, zeros = statistics
    others = whole.size - finite.size
    return Excerpt(whole.shape, str(whole.dtype), low, high, mean, norm, zeros, others, np.array(entries))


def shown_shape(shape: tuple[int, ...], limit: int) -> tuple[int, ...]:
    """The shape with no axis longer than m, for the largest m with which at most `limit` entries are left."""
    most = max(shape, default=1)
    while most > 1 and math.prod(min(size, most) for size in shape) > limit:
        most -= 1
    return tuple(min(size, most) for size in shape)
