"""The idx format of the MNIST files: two zero bytes, a type, the sizes, then the numbers, all big-endian."""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from typing import BinaryIO

import numpy as np

_DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_idx(path: str | os.PathLike[str]) -> np.ndarray:
    """The array in an idx file, in this machine's byte order. Whether the file is gzipped, its content tells.

    Raises `ValueError` for a file that is not idx, is cut short, holds more than its header says, is a damaged gzip, or
    does not fit into memory. A header that promises more than the file holds costs no memory.

    Source: http://yann.lecun.com/exdb/mnist/, "The IDX file format".
    """
    with open(path, "rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        try:
            if not zipped:
                return _parse(file, path)
            with gzip.open(file) as unzipped:
                return _parse(unzipped, path)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise ValueError(f"{path} is damaged: {error}; expected an intact gzip of an idx file") from None
        except MemoryError:
            raise ValueError(f"{path} holds more numbers than fit into memory") from None


def _parse(file: BinaryIO | gzip.GzipFile, path: str | os.PathLike[str]) -> np.ndarray:
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _DTYPES:
        types = ", ".join(f"{code:02x}" for code in _DTYPES)
        raise ValueError(
            f"{path} is not an idx file: it starts with the bytes '{magic.hex(' ')}'; "
            f"expected 00 00, a type ({types}) and the number of dimensions"
        )
    dtype, ndim = np.dtype(_DTYPES[magic[2]]), magic[3]
    header = file.read(4 * ndim)
    if len(header) < 4 * ndim:
        raise ValueError(f"{path} is cut short: its header holds {len(header) // 4} of {ndim} sizes")
    shape = struct.unpack(f">{ndim}I", header)
    expected = math.prod(shape) * dtype.itemsize
    data = _read_at_most(file, expected + 1)  # one byte more, to see the end of the file
    if len(data) != expected:
        found = f"{len(data)} bytes follow" if len(data) < expected else "more follow"
        raise ValueError(f"{path}: its header says {shape} numbers of {dtype.itemsize} byte(s), "
                         f"so {expected} bytes are expected after it, but {found}")
    try:
        array = np.frombuffer(data, dtype).reshape(shape)
    except ValueError as error:
        raise ValueError(f"{path}: its header says {ndim} dimensions of sizes {shape}, but {error}") from None
    return array.astype(dtype.newbyteorder("="), copy=False)


def _read_at_most(file: BinaryIO | gzip.GzipFile, count: int) -> bytearray:
    """Up to `count` bytes, in pieces: memory grows with what the file holds, not with what it claims."""
    data = bytearray()
    while len(data) < count and (piece := file.read(min(count - len(data), 1 << 20))):
        data += piece
    return data
