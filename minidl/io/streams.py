"""Reading large files a piece at a time, so that nothing is ever in memory twice."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

PIECE = 1 << 20
"""Bytes read at a time."""


class BoundedReader(io.BufferedReader):
    """A file whose `read` asks for no more than there is, whatever length a damaged file claims."""

    def __init__(self, path: str | os.PathLike[str]):
        super().__init__(io.FileIO(Path(path)))
        self.length = os.fstat(self.fileno()).st_size

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and 0 <= size <= PIECE:
            return super().read(size)
        left = max(0, self.length - self.tell())
        return super().read(left if size is None or size < 0 else min(size, left))


def read_array(file: BinaryIO | Any, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """The next values of `file` as a new array in native byte order. Raises ValueError where the file ends before."""
    array = np.empty(shape, dtype)
    memory = array.reshape(-1).view(np.uint8).data  # no copy: a new array is contiguous
    for start in range(0, len(memory), PIECE):
        piece = file.read(min(PIECE, len(memory) - start))
        memory[start : start + len(piece)] = piece
        if len(piece) < min(PIECE, len(memory) - start):
            raise ValueError(f"it ends after {start + len(piece):,} of the {len(memory):,} bytes of an array")
    return array if dtype.isnative else array.astype(dtype.newbyteorder("="))


def read_values(
    file: BinaryIO | Any, shape: tuple[int, ...], dtype: str, order: Literal["<", ">"] = "<"
) -> np.ndarray:
    """`read_array` of a dtype by NumPy's name, or of bfloat16 as float32: the same bits, and 16 zeros below them."""
    if dtype != "bfloat16":
        return read_array(file, shape, np.dtype(dtype).newbyteorder(order))
    bits = read_array(file, shape, np.dtype(np.uint16).newbyteorder(order)).astype(np.uint32)
    bits <<= 16
    return bits.view(np.float32)
