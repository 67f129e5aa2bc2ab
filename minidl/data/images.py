"""Image files, read with Pillow: drawings as gray values, photographs in colour."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np

Path = str | os.PathLike[str]

MAX_PIXELS = 89_478_485
"""The largest image that is read, in pixels, which is Pillow's own limit. Reading takes up to 24 bytes per pixel."""

_STRIP_PIXELS = 1 << 20
"""Pixels converted to floats at a time."""


def read_rgb(path: Path) -> np.ndarray:
    """The photograph at `path` as red, green and blue in [0, 1]: float32 (3, H, W).

    Gray, palette, CMYK and 16-bit images are converted, transparent ones seen on white, and turned as their EXIF
    orientation says. Raises FileNotFoundError; ValueError for a file that is not an image, is damaged or cut short, or
    has more than `MAX_PIXELS`; and, where Pillow is missing, ModuleNotFoundError naming the extra to install.
    """
    image = _read(path, "RGB", ground="white")
    planes = np.empty((3, image.height, image.width), np.float32)
    for rows, strip in _strips(image):
        np.divide(strip.transpose(2, 0, 1), np.float32(255), out=planes[:, rows])
    return planes


def read_gray(path: Path, size: int, invert: bool = False) -> np.ndarray:
    """The image at `path` as gray values in [0, 1], float32 (size, size), its longer side made `size` pixels long.

    A black margin fills the shorter side; `invert` turns dark strokes on a bright ground around first. Raises what
    `read_rgb` raises, and ValueError for an image that shows a single shade.
    """
    gray = _read(path, "L", ground="white" if invert else "black")
    from PIL import Image, ImageOps

    darkest, brightest = gray.getextrema()
    if darkest == brightest:
        raise ValueError(f"{path} is blank: every pixel has the gray value {darkest}")
    if invert:
        gray = ImageOps.invert(gray)
    longer = max(gray.size)
    width, height = (max(1, round(side / longer * size)) for side in gray.size)
    framed = Image.new("L", (size, size), 0)
    framed.paste(gray.resize((width, height), Image.Resampling.BOX), (round((size - width) / 2),
                                                                      round((size - height) / 2)))
    return np.asarray(framed, np.float32) / 255


def _read(path: Path, mode: str, ground: str) -> Any:
    """The Pillow image at `path` in `mode`, upright, with `ground` seen through what is transparent.

    What Pillow warns of, such as damaged EXIF data, is refused only where warnings are errors.
    """
    try:
        from PIL import Image
    except ModuleNotFoundError:
        raise ModuleNotFoundError("reading images needs Pillow; run: pip install 'minidl[images]'") from None
    try:
        with Image.open(path) as file:
            return _converted(file, mode, ground)
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no image {path}") from None
    except Exception as error:  # damaged files make Pillow's decoders raise errors of every type
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path} is not an image that can be read: {reason}") from None


def _converted(file: Any, mode: str, ground: str) -> Any:
    from PIL import Image, ImageOps

    if file.format in ("EPS", "WMF"):
        raise ValueError(f"it is {file.format}: not pixels, but a program that draws, which is not run")
    _check_size(file)
    file.load()
    _check_size(file)  # an icon may hold a larger image than it says
    ImageOps.exif_transpose(file, in_place=True)
    image = file
    if image.mode.startswith("I"):  # 16 bits a pixel, which convert would clip
        shades = np.empty((image.height, image.width), np.uint8)
        for rows, strip in _strips(image):
            shades[rows] = np.rint(strip / 257).clip(0, 255)
        image = Image.fromarray(shades)
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, ground), image)
    if image.mode == "F":
        raise ValueError("it holds floating-point numbers, whose black and white nobody knows")
    return image.convert(mode)


def _check_size(image: Any) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"it has {image.width:,} × {image.height:,} pixels; the limit is {MAX_PIXELS:,}")


def _strips(image: Any) -> Iterator[tuple[slice, np.ndarray]]:
    """The rows of a Pillow image as arrays, some at a time: its memory is not needed twice."""
    step = max(1, _STRIP_PIXELS // max(1, image.width))
    for top in range(0, image.height, step):
        bottom = min(top + step, image.height)
        yield slice(top, bottom), np.asarray(image.crop((0, top, image.width, bottom)))
