"""The data set that comes with minidl: 1,797 real handwritten digits of 8×8 pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .dataset import ArrayDataset
from .mnist import DIGITS
from .transforms import Transform


def digits(train: bool = True, transform: Transform | None = None) -> ArrayDataset:
    """The UCI optical digits: images (N, 1, 8, 8) with 17 levels of gray, labels 0 to 9.

    The split is fixed: of each class every fifth image, in the order of the file, is a test image; 1,442 images to
    train on, 355 to test on. The file is ordered by its 13 writers, so each writer is on both sides of the
    split, and the test accuracy tells nothing about handwriting that was never seen.

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine
    Learning Repository, 1998, doi:10.24432/C50P49, CC BY 4.0. The bundled images are its test part,
    as scikit-learn's `load_digits` has them; values were repacked, not changed.
    """
    with np.load(Path(__file__).with_name("digits.npz")) as file:
        images, labels = file["images"], file["labels"]
    rank = np.empty(len(labels), int)  # of each image among those of its class
    for label in DIGITS:
        of_class = np.flatnonzero(labels == int(label))
        rank[of_class] = np.arange(len(of_class))
    chosen = (rank % 5 != 4) == train
    return ArrayDataset(images[chosen, np.newaxis], labels[chosen], transform, classes=DIGITS, scale=16)
