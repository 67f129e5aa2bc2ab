"""Arrays as pictures: images, filters, feature maps and matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .style import INK, SIGNED, array, blank, in_ink, picture, signed_limits, width_of

if TYPE_CHECKING:
    from .picture import Picture

NUMBERS = 120
"""Cells of a matrix at most that have their numbers written in."""


def images(x: Any, titles: Sequence[str] | None = None, columns: int = 8) -> Picture:
    """Images (N, C, H, W) with C = 1 or 3, or (N, H, W), in rows of `columns`, on one scale from black to white.

    Raises ValueError for another shape, or titles that do not fit.
    """
    values = array(x)
    if values.ndim == 3:
        values = values[:, None]
    if values.ndim != 4 or values.shape[1] not in (1, 3):
        raise ValueError(f"images are (N, 1 or 3, H, W) or (N, H, W); got shape {values.shape}")
    if titles is not None and len(titles) != len(values):
        raise ValueError(f"{len(values)} images have {len(values)} titles; got {len(titles)}")
    low, high = (float(f(values)) if values.size else 0.0 for f in (np.min, np.max))
    scaled = (values - low) / ((high - low) or 1.0)
    return _tiles([image.transpose(1, 2, 0) if len(image) == 3 else image[0] for image in scaled],
                  titles, columns, cmap="gray", vmin=0, vmax=1)


def filters(weight: Any, columns: int = 16) -> Picture:
    """The filters of a convolution's weight (K, C, KH, KW): in colour if C = 3, each from black to white; else a tile
    each of its C slices, dark below 0 and bright above, a row of tiles a filter if C > 1."""
    values = array(weight)
    if values.ndim != 4:
        raise ValueError(f"filters are (K, C, KH, KW), as a convolution's weight; got shape {values.shape}")
    if values.shape[1] == 3:
        low, high = (f(values, axis=(1, 2, 3), keepdims=True) for f in (np.min, np.max))
        coloured = (values - low) / np.where(high > low, high - low, 1)
        return _tiles(list(coloured.transpose(0, 2, 3, 1)), None, columns)
    slices = values.reshape(-1, *values.shape[2:])
    width = columns if values.shape[1] == 1 else values.shape[1]
    return _tiles(list(slices), None, width, cmap=SIGNED, **signed_limits(values))


def feature_maps(x: Any, columns: int = 8) -> Picture:
    """What one image becomes in a layer: (C, H, W) or (1, C, H, W), a tile a channel, on one scale around 0."""
    values = array(x)
    if values.ndim == 4 and len(values) == 1:
        values = values[0]
    if values.ndim != 3:
        raise ValueError(f"feature maps are (C, H, W) of one image; got shape {values.shape}")
    return _tiles(list(values), None, columns, cmap=SIGNED, **signed_limits(values))


def heatmap(
    matrix: Any, rows: Sequence[Any] | None = None, columns: Sequence[Any] | None = None, title: str = "",
    xlabel: str = "", ylabel: str = "",
) -> Picture:
    """A matrix (M, N), dark below 0 and bright above, with its numbers where they are few, and names of its rows and
    columns. Raises ValueError for another shape."""
    values = array(matrix)
    if values.ndim != 2:
        raise ValueError(f"a heat map shows a matrix (M, N); got shape {values.shape}")
    m, n = values.shape
    cell = min(0.42, 6.3 / max(n, 1), 5.1 / max(m, 1))
    result = picture(max(1.2 + cell * n, width_of(title)), 0.9 + cell * m)
    axes, limits = result.subplots(), signed_limits(values)
    axes.imshow(values, cmap=SIGNED, **limits)
    for positions, names, place in ((m, rows, axes.yaxis), (n, columns, axes.xaxis)):
        place.set_ticks(range(positions) if names is not None else [], names if names is not None else [])
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
    in_ink(axes)
    if values.size <= NUMBERS:
        for (i, j), value in np.ndenumerate(values):
            colour = "black" if value > 0.1 * limits["vmax"] else "white"
            axes.text(j, i, _short(value), ha="center", va="center", fontsize=8, color=colour)
    return result


def _short(value: Any) -> str:
    return str(value) if isinstance(value, (np.integer, np.bool_)) else f"{value:.2g}"


def _tiles(tiles: list[np.ndarray], titles: Sequence[str] | None, columns: int, **shown: Any) -> Picture:
    columns = max(1, min(columns, len(tiles)))
    rows = max(1, -(-len(tiles) // columns))
    h, w = tiles[0].shape[:2] if tiles else (1, 1)
    width = min(7.5, max(2.0, columns * 1.3))
    across = width / columns
    result = picture(width, max(0.5, rows * (across * h / w + (0.3 if titles is not None else 0.04))))
    grid = result.subplots(rows, columns, squeeze=False)
    for index, axes in enumerate(grid.flat):
        blank(axes, titles[index] if titles is not None and index < len(tiles) else "")
        if index < len(tiles):
            axes.imshow(tiles[index], **shown)
            for spine in axes.spines.values():
                spine.set(visible=True, color=INK, linewidth=0.4)
    result.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.02, hspace=0.02)
    return result
