"""Tensors written as safetensors."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .dtypes import DTYPES

NAMES = {dtype: name for name, dtype in DTYPES.items()}
"""NumPy's name of each dtype → safetensors' name."""


def write_safetensors(path: Path, arrays: Mapping[str, np.ndarray], text: Mapping[str, str]) -> None:
    """Write contiguous `arrays`, and `text` as metadata, to `path`: the length of a header, the header, the values.

    Each array starts at a multiple of its item size. `safetensors.numpy.save_file` does the same, but through a second
    file of its own, with a random name, which stays in the folder if the process is killed.
    """
    ordered = sorted(arrays.items(), key=lambda item: (-item[1].itemsize, item[0]))  # so every array is aligned
    header: dict[str, Any] = {"__metadata__": dict(text)}
    end = 0
    for name, array in ordered:
        start, end = end, end + array.nbytes
        header[name] = {"dtype": NAMES[array.dtype.name], "shape": array.shape, "data_offsets": [start, end]}
    encoded = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    encoded += b" " * (-len(encoded) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(encoded)) + encoded)
        for _, array in ordered:
            file.write(array.astype(array.dtype.newbyteorder("<"), copy=False).data)
