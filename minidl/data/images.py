"""Image files, read with Pillow."""

from __future__ import annotations

import os

import numpy as np


def read_gray(path: str | os.PathLike[str], size: int, invert: bool = False) -> np.ndarray:
    """The image at `path` as gray values in [0, 1], float32 (size, size), its longer side made `size` pixels long.

    A black margin fills the shorter side; `invert` turns dark strokes on a bright ground around first. Raises
    FileNotFoundError, ValueError for a file that is not an image, is damaged or shows a single shade, and, where
    Pillow is missing, ModuleNotFoundError naming the extra to install.
    """
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ModuleNotFoundError:
        raise ModuleNotFoundError("reading images needs Pillow; run: pip install 'minidl[images]'") from None
    ground = "white" if invert else "black"  # seen through what is transparent
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)
            if "A" in image.getbands() or "transparency" in image.info:
                image = Image.alpha_composite(Image.new("RGBA", image.size, ground), image.convert("RGBA"))
            if image.mode.startswith("I"):  # 16 bits a pixel, which convert would clip
                image = Image.fromarray((np.asarray(image) / 257).astype(np.uint8))
            gray = image.convert("L")
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no image {path}") from None
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} is not an image that can be read: {error}") from None
    darkest, brightest = gray.getextrema()
    if darkest == brightest:
        raise ValueError(f"{path} is blank: every pixel has the gray value {darkest}")
    if invert:
        gray = ImageOps.invert(gray)
    small = ImageOps.pad(gray, (size, size), method=Image.Resampling.BOX, color=0)
    return np.asarray(small, np.float32) / 255
