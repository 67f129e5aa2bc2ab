"""How a model is trained unless told otherwise."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Preset:
    """The numbers of a training run: SGD with momentum and weight decay, under a schedule.

    `input_size`: the side of the square images the network was made for, in pixels. `lr` is the highest rate, and
    `weight_decay` that of weights: what is one number a channel, as biases are, has none. `schedule` is
    ``"one_cycle"`` (up to `lr` and down again), ``"cosine"`` (down from it), ``"steps"`` (times `gamma` at each of
    `milestones`, shares of the training) or ``"constant"``; all but the first after `warmup` epochs of a linear rise.
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
    warmup: float = 0.0
    milestones: tuple[float, ...] = (0.5, 0.75)
    gamma: float = 0.1
    augment: str = "none"
    shift: int = 0
