"""NumPy's archives of arrays: zip files of ``.npy`` records."""

from __future__ import annotations

import operator
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from .dtypes import DTYPES
from .streams import BoundedReader, read_array

LARGEST_RATIO = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: 1032}
"""How many bytes one byte of the file can stand for."""

LONGEST_NAME = 65_000

HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def read_npz(file: BoundedReader, archive: zipfile.ZipFile) -> dict[str, np.ndarray]:
    """The arrays by name. Raises ValueError for what is damaged, or for arrays that no tensor can be."""
    arrays = {}
    for record in archive.infolist():
        name = record.filename.removesuffix(".npy")
        if record.compress_type not in LARGEST_RATIO:
            raise ValueError(f"{name!r} is compressed by a method that numpy does not use")
        if record.file_size > LARGEST_RATIO[record.compress_type] * file.length:
            raise ValueError(f"{name!r} claims more bytes than the file can have")
        with archive.open(record) as content:
            shape, columns_first, dtype = _read_header(name, content)
            if dtype.name not in DTYPES.values():
                raise ValueError(f"it holds {name!r} as {dtype}, which no tensor can be")
            if content.tell() + np.prod(shape, dtype=object) * dtype.itemsize != record.file_size:
                raise ValueError(f"{name!r} has {record.file_size:,} bytes, which are not an array of shape {shape}")
            array = read_array(content, shape[::-1] if columns_first else shape, dtype)
            content.read()  # the archive compares a record's checksum at its end
        arrays[name] = array.T if columns_first else array
    return arrays


def _read_header(name: str, content: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    """(shape, whether columns come first, dtype), which a record begins with as the text of a Python dict."""
    version = npy.read_magic(content)
    if version not in HEADERS:
        raise ValueError(f"{name!r} has the npy version {version}, which is for records with named fields")
    try:
        shape, columns_first, dtype = HEADERS[version](content)
        return tuple(operator.index(n) for n in shape), columns_first, dtype
    except Exception:  # of damaged text, whatever Python's own parser raises
        raise ValueError(f"{name!r} has a damaged header") from None


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write `arrays` as `numpy.savez` does, under any names that a zip archive can hold."""
    if unfit := [name for name in arrays if "\0" in name or len(name.encode()) > LONGEST_NAME]:
        raise ValueError(f"an .npz file holds no name with a NUL or over {LONGEST_NAME:,} bytes, as {unfit[0][:40]!r}; "
                         "safetensors does")
    with zipfile.ZipFile(path, "w", allowZip64=True) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as record:
                npy.write_array(record, array, allow_pickle=False)
