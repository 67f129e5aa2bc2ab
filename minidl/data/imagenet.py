"""ImageNet's thousand classes, which are nodes of WordNet (claim F17), and the statistics of its images."""

from __future__ import annotations

from functools import cache
from pathlib import Path

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of red, green and blue in [0, 1] over the training images of ILSVRC 2012, as torchvision's weights expect them."""


@cache
def imagenet_classes() -> dict[str, str]:
    """WordNet id → name of the classes of ILSVRC 2012, such as ``"n01440764"`` → ``"tench"``, in the order of labels.

    Source: O. Russakovsky et al., *ImageNet Large Scale Visual Recognition Challenge*, 2015; names from WordNet 3.0.
    """
    lines = Path(__file__).with_name("imagenet.txt").read_text(encoding="utf-8").splitlines()
    return {wordnet_id: name for wordnet_id, _, name in (line.partition(" ") for line in lines)}
