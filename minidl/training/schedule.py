"""The learning rate of a run, batch by batch."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence

from ..optim import SGD, LRScheduler, OneCycleLR

SHAPES = ("constant", "cosine", "steps")
SCHEDULES = ("one_cycle", *SHAPES)


class WarmedUp(LRScheduler):
    """η = η₀ · min(1, (t + 1) / `warmup`) · s(t), after t of `total` batches, with s by name:

    ::

        constant   1
        cosine     (1 + cos(π t / total)) / 2
        steps      γ to the number of `milestones`, in batches, that t has reached

    The linear rise: Goyal et al., *Accurate, Large Minibatch SGD*, 2017, section 2.2. Raises ValueError for another
    name.
    """

    def __init__(
        self, optimizer: SGD, shape: str, total: int, warmup: int = 0, milestones: Sequence[int] = (),
        gamma: float = 0.1,
    ):
        self.shape, self.total, self.warmup = shape, total, warmup
        self.milestones, self.gamma = list(milestones), gamma
        super().__init__(optimizer)

    def check_options(self) -> None:
        if self.shape not in SHAPES:
            raise ValueError(f"the shape must be one of {', '.join(SHAPES)}; got {self.shape!r}")

    def get_lr(self) -> list[float]:
        t, factor = self.last_epoch, 1.0
        if self.shape == "cosine":
            factor = (1.0 + math.cos(math.pi * min(1.0, t / self.total))) / 2.0
        elif self.shape == "steps":
            factor = self.gamma ** bisect_right(self.milestones, t)
        if t < self.warmup:
            factor *= (t + 1) / self.warmup
        return [factor * rate for rate in self.base_lrs]


def schedule(
    optimizer: SGD, name: str, epochs: int, batches: int, warmup: float = 0.0, milestones: Sequence[float] = (),
    gamma: float = 0.1,
) -> LRScheduler:
    """The schedule `name`, one of `SCHEDULES`, for so many epochs of so many batches, from the highest rate.

    `warmup` counts epochs, `milestones` are shares of the training. ``"one_cycle"``, which rises and falls by itself,
    takes neither.
    """
    total = epochs * batches
    if name == "one_cycle":
        return OneCycleLR(optimizer, optimizer.defaults["lr"], total_steps=total, cycle_momentum=False)
    drops = [max(1, round(share * total)) for share in milestones]  # the first batch has the highest rate
    return WarmedUp(optimizer, name, total, round(warmup * batches), drops, gamma)
