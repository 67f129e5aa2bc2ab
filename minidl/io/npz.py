"""NumPy's archives of arrays: zip files of ``.npy`` records."""

from __future__ import annotations

import operator
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from .contents import Refused
from .dtypes import DTYPES, MOST_TENSORS
from .streams import BoundedReader, read_array

LARGEST_RATIO = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: 1032}
"""How many bytes one byte of a record can stand for, by the method of compression."""

LOCAL_HEADER = 30
"""Bytes before each record, beside its name."""

LONGEST_NAME = 65_000
LONGEST_HEADER = 512
"""Characters of the longest header of a record: NumPy's have 118, and fewer than 400 with the oddest of shapes."""

HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def read_npz(file: BoundedReader, archive: zipfile.ZipFile) -> dict[str, np.ndarray]:
    """The arrays of numbers by name; texts, and records that are no arrays, are left out.

    Raises ValueError for what is damaged, and Refused for arrays of Python objects or of numbers that no tensor can be.
    """
    records = archive.infolist()
    if sum(LOCAL_HEADER + len(record.filename) + record.compress_size for record in records) > file.length:
        raise ValueError("its records overlap, or claim more bytes than the file has")
    if len(records) > MOST_TENSORS:
        raise Refused(f"holds {len(records):,} arrays; at most {MOST_TENSORS:,} are read")
    arrays: dict[str, np.ndarray] = {}
    left_out = []
    for record in records:
        name = record.filename.removesuffix(".npy")
        if record.compress_type not in LARGEST_RATIO:
            raise ValueError(f"{name!r} is compressed by a method that numpy does not use")
        if record.file_size > LARGEST_RATIO[record.compress_type] * record.compress_size:
            raise ValueError(f"{name!r} claims more bytes than it can have")
        with archive.open(record) as content:
            if name == record.filename:
                left_out.append(f"{name!r}")
                continue
            shape, columns_first, dtype = _read_header(name, content)
            if dtype.kind in "US":
                left_out.append(f"{name!r} as text")
                continue
            if dtype.hasobject:
                raise Refused(f"holds {name!r} as object, which no tensor can be, and no pickle is read. Write arrays "
                              "of numbers: numpy.savez(path, **state)")
            if dtype.name not in DTYPES.values():
                raise Refused(f"holds {name!r} as {dtype}, which no tensor can be. Convert it to float32 and save it")
            if content.tell() + np.prod(shape, dtype=object) * dtype.itemsize != record.file_size:
                raise ValueError(f"{name!r} has {record.file_size:,} bytes, which are not an array of shape {shape}")
            array = read_array(content, shape[::-1] if columns_first else shape, dtype)
            content.read()  # the archive compares a record's checksum at its end
        if name in arrays:
            raise ValueError(f"{name!r} is listed twice")
        arrays[name] = array.T if columns_first else array
    if left_out and not arrays:
        raise Refused(f"is a zip archive without arrays of numbers; it holds {', '.join(left_out[:5])[:300]}. If a "
                      "state is among these, unpack it and load that file")
    return arrays


def _read_header(name: str, content: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    """(shape, whether columns come first, dtype), which a record begins with as the text of a Python dict."""
    version = npy.read_magic(content)
    if version not in HEADERS:
        raise ValueError(f"{name!r} has the npy version {version}, which is for records with named fields")
    try:
        shape, columns_first, dtype = HEADERS[version](content, max_header_size=LONGEST_HEADER)
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
