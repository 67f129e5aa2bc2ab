"""The figure that every function of `minidl.plot` returns."""

from __future__ import annotations

import io
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..io import write_atomically

DOTS = 144
"""Per inch of a picture, twice those at which a notebook shows it."""


class Picture(Figure):
    """A matplotlib figure without pyplot: it is shown where it is a cell's last value, and kept nowhere else."""

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        buffer = io.BytesIO()
        FigureCanvasAgg(self)
        self.savefig(buffer, format="png", dpi=DOTS, facecolor="none")
        width, height = (round(inches * DOTS / 2) for inches in self.get_size_inches())
        return buffer.getvalue(), {"width": width, "height": height}

    def save(self, path: str | Path) -> None:
        """Write it to the PNG file `path`, on white, atomically."""
        canvas = FigureCanvasAgg(self)
        write_atomically(Path(path), lambda part: canvas.print_png(part))
