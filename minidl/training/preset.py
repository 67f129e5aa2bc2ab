"""How a model is trained unless told otherwise."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Preset:
    """The numbers of a training run: SGD with momentum and weight decay, under a schedule.

    `input_size`: the side of the square images the network was made for, in pixels. `lr` is the highest rate;
    `schedule` is ``"one_cycle"`` (up to it and down again), ``"cosine"`` (down from it) or ``"constant"``.
    `augment`: the recipe of `minidl.data.recipes` for training on photographs. `shift`: training images are moved at
    random by up to so many pixels in each direction.
    """

    input_size: int
    epochs: int
    batch_size: int
    lr: float
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: str = "one_cycle"
    augment: str = "none"
    shift: int = 0
