"""Image files, read with Pillow: drawings as gray values, photographs in colour."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

Path = str | os.PathLike[str]


def read_rgb(path: Path) -> np.ndarray:
    """The photograph at `path` as red, green and blue in [0, 1]: float32 (3, H, W).

    Gray, palette, CMYK and 16-bit images are converted, transparent ones seen on white, and turned as their EXIF
    orientation says. Raises FileNotFoundError, ValueError for a file that is not an image, is damaged or cut short,
    and, where Pillow is missing, ModuleNotFoundError naming the extra to install.
    """
    pixels = np.asarray(_read(path, "RGB", ground="white"), np.float32)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)) / 255


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
    small = ImageOps.pad(gray, (size, size), method=Image.Resampling.BOX, color=0)
    return np.asarray(small, np.float32) / 255


def _read(path: Path, mode: str, ground: str) -> Any:
    """The Pillow image at `path` in `mode`, upright, with `ground` seen through what is transparent.

    What Pillow warns of, such as damaged EXIF data, is refused only where warnings are errors.
    """
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ModuleNotFoundError:
        raise ModuleNotFoundError("reading images needs Pillow; run: pip install 'minidl[images]'") from None
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)
            if image.mode.startswith("I"):  # 16 bits a pixel, which convert would clip
                image = Image.fromarray(np.rint(np.asarray(image) / 257).clip(0, 255).astype(np.uint8))
            if "A" in image.getbands() or "transparency" in image.info:
                image = Image.alpha_composite(Image.new("RGBA", image.size, ground), image.convert("RGBA"))
            if image.mode == "F":
                raise ValueError("it holds floating-point numbers, whose black and white nobody knows")
            return image.convert(mode)
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no image {path}") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError, Warning) as error:
        raise ValueError(f"{path} is not an image that can be read: {error}") from None
