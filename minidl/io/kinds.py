"""What a file is that holds no state that can be read, by its first bytes, and what to do with it."""

from __future__ import annotations

import re

UNPACK = "is compressed. Unpack it, and load the file in it"
KINDS = {
    rb"version https://git-lfs": "is a Git LFS pointer: the file itself was not downloaded. Run git lfs pull",
    rb"(?i)(\xef\xbb\xbf)?\s*<(!doctype|html|head|body|\?xml)": "is a web page. Download the file itself",
    rb"\x89HDF\r\n\x1a\n": "is an HDF5 file, as Keras writes them. Read it with h5py, and use minidl.save",
    rb"\x93NUMPY": "is a single NumPy array (.npy), without a name. Write numpy.savez('a.npz', name=array) instead",
    rb"\x08[\x01-\x1f][\x12\x1a\x22\x2a\x3a\x42]": "looks like an ONNX file. Save its weights as safetensors",
    rb"\x1f\x8b|BZh|\xfd7zXZ\x00|7z\xbc\xaf\x27\x1c|\x28\xb5\x2f\xfd|Rar!": UNPACK,
    rb"(?s).{257}ustar": "is a tar archive. Unpack it, and load the file in it",
    rb"MATLAB 5\.0": "is a MATLAB file. Read it with scipy.io.loadmat, and use minidl.save",
    rb"GGUF": "is a GGUF file. Save its weights as safetensors",
}
"""Patterns of the first bytes → what the file is; the text continues after the file's path."""

START = 512
"""Bytes to look at."""


def kind_of(start: bytes) -> str | None:
    """What a file is that begins with `start`, or None if that is not known. An empty one is cut short."""
    if not start:
        return "is empty: writing or downloading it was cut short. Write or download it again"
    for pattern, kind in KINDS.items():
        if re.match(pattern, start):
            return kind
    text = start.decode("latin-1")
    if start.isascii() and all(character.isprintable() or character.isspace() for character in text):
        return f"is damaged, or not a state's file: it is text, which begins with {text[:60]!r}"
    return None
