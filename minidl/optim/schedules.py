"""Schedules of the learning rate, with PyTorch's names, arguments and values; t counts the calls of `step`.

Each rate is a formula of t and of the group's rate at the start, so two schedules on one optimizer don't
multiply; only `ReduceLROnPlateau` works on whatever rate it finds.
"""

from __future__ import annotations

import copy
import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from .optimizer import Optimizer, number


class _Schedule:
    """What all schedules share: an optimizer whose rates they set, and a state that can be saved."""

    last_epoch: int

    def __init__(self, optimizer: Optimizer):
        self.optimizer = optimizer
        self._last_lr = [number(group["lr"]) for group in _groups_of(optimizer)]
        self.check_options()

    def check_options(self) -> None:
        """Raise ValueError for attributes that make no sense, before anything else is done; by default none do."""

    def get_last_lr(self) -> list[float]:
        """The rate of each parameter group, as last set by this schedule."""
        return self._last_lr

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer, as numbers, strings and lists, which JSON can hold."""
        return {name: value for name, value in vars(self).items() if name != "optimizer"}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a `state_dict` at the next `step`; the rates until then are in the optimizer's own state.

        Raises ValueError, and changes nothing, if it was saved by another kind of schedule, or is damaged.
        """
        names = self.state_dict().keys()
        if not isinstance(state_dict, Mapping):
            raise ValueError(f"this is not a schedule's state_dict: it is a {type(state_dict).__name__}")
        if missing := sorted(names - state_dict.keys()):
            raise ValueError(f"the saved state lacks {', '.join(missing)}; was it saved by a {type(self).__name__}?")
        state = {name: copy.deepcopy(state_dict[name]) for name in names}
        for name, value in state.items():
            if name != "min_lr" and not _is_like(value, getattr(self, name)):  # which is one number or a list
                raise ValueError(f"the saved {name} is {value!r}; it must be like {getattr(self, name)!r}")
        trial = copy.copy(self)
        vars(trial).update(state)
        try:
            trial.check_options()
            trial._check_state()
        except Exception as error:  # whatever a formula raises that gets numbers it was not made for
            raise ValueError(f"the saved state cannot be gone on from: {error!r}") from None
        vars(self).update(state)

    def _check_state(self) -> None:
        """Raise an error if the next `step` would."""
        _check_count("last_epoch", self.last_epoch)

    def _set_lrs(self, lrs: list[float]) -> None:
        groups = self.optimizer.param_groups
        if len(groups) != len(lrs):
            raise ValueError(f"the optimizer has {len(groups)} parameter groups, and had {len(lrs)} when this schedule "
                             "was made; make the schedule after the last add_param_group()")
        for group, lr in zip(groups, lrs, strict=True):
            group["lr"] = lr
        self._last_lr = lrs


class LRScheduler(_Schedule):
    """A schedule by formula: `get_lr` gives the rates at t = `last_epoch` from `base_lrs`, each group's η₀.

    To write a schedule, override `get_lr`. `last_epoch` = −1 starts at t = 0, with the present rates as η₀;
    the last t of an earlier run continues that run, with its η₀, which the groups keep as ``"initial_lr"``.
    Raises TypeError for an `optimizer` that is none, KeyError for continuing where no ``"initial_lr"`` is.
    """

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1):
        super().__init__(optimizer)
        for index, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", group["lr"])
            elif "initial_lr" not in group:
                raise KeyError(f"last_epoch={last_epoch} continues an earlier run, but parameter group {index} has no "
                               "'initial_lr'; load the optimizer's state first, or leave last_epoch out")
        start = "lr" if last_epoch == -1 else "initial_lr"
        self.base_lrs = [number(group[start]) for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        self.step()

    def step(self) -> None:
        """Set the next rate: after each epoch (with `OneCycleLR`, each batch), after `optimizer.step()`."""
        self.last_epoch += 1
        self._set_lrs(self.get_lr())

    def _check_state(self) -> None:
        super()._check_state()
        for name in ("base_lrs", "_last_lr"):
            _one_per_group(name, getattr(self, name), self.optimizer.param_groups)
        if not all(number(lr) >= 0.0 for lr in self.get_lr()):
            raise ValueError(f"the rates would be {self.get_lr()}")

    def get_lr(self) -> list[float]:
        """The rate of each parameter group at t = `last_epoch`."""
        raise NotImplementedError(f"{type(self).__name__} has no get_lr()")


class StepLR(LRScheduler):
    """η = η₀ γ^⌊t / step_size⌋: divided by ten (γ = `gamma` = 0.1) every `step_size` epochs.

    Raises ValueError for a `step_size` that is not positive.
    """

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1):
        self.step_size = step_size
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def check_options(self) -> None:
        _check_positive("step_size", self.step_size)

    def get_lr(self) -> list[float]:
        return [base_lr * self.gamma ** (self.last_epoch // self.step_size) for base_lr in self.base_lrs]


class MultiStepLR(LRScheduler):
    """η = η₀ γ^(number of `milestones` ≤ t): as ResNet, with milestones=[30, 60] and γ = `gamma` = 0.1.

    A milestone given twice counts twice.
    """

    def __init__(self, optimizer: Optimizer, milestones: Iterable[int], gamma: float = 0.1, last_epoch: int = -1):
        self.milestones = sorted(milestones)
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        return [base_lr * self.gamma ** bisect_right(self.milestones, self.last_epoch) for base_lr in self.base_lrs]


class CosineAnnealingLR(LRScheduler):
    """η = η_min + (η₀ − η_min) (1 + cos(π t / T_max)) / 2: half a cosine from η₀ down to η_min = `eta_min`.

    Past T_max the cosine goes on, and the rate rises again; it reaches η₀ at 2 T_max.
    Raises ValueError for a `T_max` that is not positive.

    Source: Loshchilov and Hutter, *SGDR: Stochastic Gradient Descent with Warm Restarts*, 2017; without restarts.
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1):
        self.T_max = T_max
        self.eta_min = eta_min
        super().__init__(optimizer, last_epoch)

    def check_options(self) -> None:
        _check_positive("T_max", self.T_max)

    def get_lr(self) -> list[float]:
        remaining = (1.0 + math.cos(math.pi * self.last_epoch / self.T_max)) / 2.0
        return [self.eta_min + (base_lr - self.eta_min) * remaining for base_lr in self.base_lrs]


class ReduceLROnPlateau(_Schedule):
    """η ← max(`factor` η, `min_lr`) when a metric has not improved for more than `patience` epochs.

    An improvement on the best value so far is one by more than `threshold`, as a fraction of the
    best (``threshold_mode="rel"``) or as it is (``"abs"``), downwards with ``mode="min"``, upwards with
    ``"max"``. After a reduction `cooldown` epochs pass uncounted. A reduction of `eps` or less is not made.
    `min_lr` may be a list, one a group. Raises ValueError for a `factor` ≥ 1, for another mode than
    those and for a list of the wrong length; TypeError for an `optimizer` that is none.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: Literal["min", "max"] = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: Literal["rel", "abs"] = "rel",
        cooldown: int = 0,
        min_lr: float | Sequence[float] = 0.0,
        eps: float = 1e-8,
    ):
        self.mode = mode
        self.factor = factor
        self.patience = patience
        self.threshold = threshold
        self.threshold_mode = threshold_mode
        self.cooldown = cooldown
        self.min_lr = min_lr
        self.eps = eps
        super().__init__(optimizer)
        self.best = math.inf if mode == "min" else -math.inf
        self.num_bad_epochs = 0
        self.cooldown_counter = 0
        self.last_epoch = 0

    def check_options(self) -> None:
        if not self.factor < 1.0:
            raise ValueError(f"factor must be below 1, for the rate to fall; got {self.factor}")
        _check_choice("mode", self.mode, ("min", "max"))
        _check_choice("threshold_mode", self.threshold_mode, ("rel", "abs"))
        _one_per_group("min_lr", self.min_lr, self.optimizer.param_groups)

    def _check_state(self) -> None:
        super()._check_state()
        _check_count("num_bad_epochs", self.num_bad_epochs)
        _check_count("cooldown_counter", self.cooldown_counter)

    def step(self, metrics: float) -> None:
        """Compare `metrics`, a number (or a tensor of one value) such as the validation loss, with the best so far."""
        metric = number(metrics)
        self.last_epoch += 1
        if self._is_better(metric):
            self.best = metric
            self.num_bad_epochs = 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        groups = self.optimizer.param_groups
        lrs = [number(group["lr"]) for group in groups]
        if self.num_bad_epochs > self.patience:
            self.cooldown_counter = self.cooldown
            self.num_bad_epochs = 0
            bounds = _one_per_group("min_lr", self.min_lr, groups)
            reduced = [max(lr * self.factor, bound) for lr, bound in zip(lrs, bounds, strict=True)]
            lrs = [new if old - new > self.eps else old for old, new in zip(lrs, reduced, strict=True)]
        self._set_lrs(lrs)

    def _is_better(self, metric: float) -> bool:
        sign = -1.0 if self.mode == "min" else 1.0
        if self.threshold_mode == "rel":
            return sign * metric > sign * self.best * (1.0 + sign * self.threshold)
        return sign * metric > sign * self.best + self.threshold


class OneCycleLR(LRScheduler):
    """One rise of the rate and one long fall, over `total_steps` batches, with the momentum in opposition.

    The rate goes from `max_lr` / `div_factor` to `max_lr` in the first `pct_start` of the steps, then down to
    `max_lr` / (`div_factor` `final_div_factor`); meanwhile the momentum goes from `max_momentum` to `base_momentum`
    and back, unless `cycle_momentum` is False. With `three_phase` the fall is the rise reversed, and the
    remaining steps go from there to the last rate. Each goes by half a cosine, or a straight line with
    ``anneal_strategy="linear"``. Call `step` after each batch.

    The length is `total_steps`, or `epochs` times `steps_per_epoch`; `max_lr` and the momenta may be lists, one
    value a group. Raises ValueError for no length or one that is not positive, for `pct_start`
    outside [0, 1], another strategy, lists of the wrong length, an optimizer without momentum to
    cycle, and for a step past the end.

    Source: Smith and Topin, *Super-Convergence: Very Fast Training of Neural Networks Using Large Learning
    Rates*, 2018; two phases after fastai.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | Sequence[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: Literal["cos", "linear"] = "cos",
        cycle_momentum: bool = True,
        base_momentum: float | Sequence[float] = 0.85,
        max_momentum: float | Sequence[float] = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
    ):
        if total_steps is None:
            if epochs is None or steps_per_epoch is None:
                raise ValueError("OneCycleLR must know its length: give total_steps, or epochs and steps_per_epoch")
            _check_positive("epochs", epochs)
            _check_positive("steps_per_epoch", steps_per_epoch)
            total_steps = epochs * steps_per_epoch
        if not 0.0 <= pct_start <= 1.0:
            raise ValueError(f"pct_start is the rising part of the cycle, from 0 to 1; got {pct_start}")
        self.total_steps = total_steps
        self.anneal_strategy = anneal_strategy
        self.check_options()
        groups = _groups_of(optimizer)
        max_lrs = _one_per_group("max_lr", max_lr, groups)
        base_momenta = _one_per_group("base_momentum", base_momentum, groups)
        max_momenta = _one_per_group("max_momentum", max_momentum, groups)
        if cycle_momentum and "momentum" not in optimizer.defaults:
            raise ValueError(f"{type(optimizer).__name__} has no momentum to cycle; pass cycle_momentum=False")
        self.cycle_momentum = cycle_momentum
        # The curve's corners: when, at which rate and with which momentum, as keys of the parameter groups.
        peak = pct_start * total_steps - 1.0
        self.times = [0.0, peak, total_steps - 1.0]
        self.rates = ["initial_lr", "max_lr", "min_lr"]
        self.momenta = ["max_momentum", "base_momentum", "max_momentum"]
        if three_phase:
            self.times.insert(2, 2.0 * peak)
            self.rates.insert(2, "initial_lr")
            self.momenta.insert(2, "max_momentum")
        if last_epoch == -1:
            for group, lr, low, high in zip(groups, max_lrs, base_momenta, max_momenta, strict=True):
                group["lr"] = group["initial_lr"] = lr / div_factor
                group["max_lr"] = lr
                group["min_lr"] = lr / div_factor / final_div_factor
                if cycle_momentum:
                    group["base_momentum"] = low
                    group["max_momentum"] = high
        super().__init__(optimizer, last_epoch)

    def check_options(self) -> None:
        _check_positive("total_steps", self.total_steps)
        _check_choice("anneal_strategy", self.anneal_strategy, ("cos", "linear"))

    def _check_state(self) -> None:
        super()._check_state()
        for corners in (self.rates, self.momenta) if self.cycle_momentum else (self.rates,):
            if len(corners) != len(self.times):
                raise ValueError(f"{corners} must be {len(self.times)}, one for each of the times {self.times}")
            for group in self.optimizer.param_groups:
                if missing := sorted(set(corners) - group.keys()):
                    raise ValueError(f"a parameter group lacks {', '.join(missing)}")

    def step(self) -> None:
        """Set the next rate and momentum: after each batch, after `optimizer.step()`."""
        super().step()
        if self.cycle_momentum:
            for group in self.optimizer.param_groups:
                group["momentum"] = self._at_present(group, self.momenta)

    def get_lr(self) -> list[float]:
        """The rate of each parameter group at t = `last_epoch`; ValueError past the end."""
        if self.last_epoch > self.total_steps:
            raise ValueError(f"this is step {self.last_epoch} of a cycle of total_steps={self.total_steps}")
        return [self._at_present(group, self.rates) for group in self.optimizer.param_groups]

    def _at_present(self, group: dict[str, Any], corners: list[str]) -> float:
        """The height at t = `last_epoch` of the curve through `corners`."""
        phase = 0
        while self.last_epoch > self.times[phase + 1] and phase + 2 < len(self.times):
            phase += 1
        start, end = self.times[phase : phase + 2]
        first, last = group[corners[phase]], group[corners[phase + 1]]
        done = (self.last_epoch - start) / (end - start) if end != start else 1.0
        if self.anneal_strategy == "cos":
            return last + (first - last) / 2.0 * (1.0 + math.cos(math.pi * done))
        return first + (last - first) * done


def _groups_of(optimizer: Optimizer) -> list[dict[str, Any]]:
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"a schedule needs an optimizer, such as SGD; got a {type(optimizer).__name__}")
    return optimizer.param_groups


def _one_per_group(name: str, value: float | Sequence[float], groups: list[dict[str, Any]]) -> list[float]:
    values = list(value) if isinstance(value, Sequence) else [value] * len(groups)
    if len(values) != len(groups) or any(math.isnan(number(v)) for v in values):
        raise ValueError(f"{name} must be a number, or a list with one number per parameter group, {len(groups)}; "
                         f"got {value!r}")
    return [number(v) for v in values]


def _is_like(value: Any, present: Any) -> bool:
    """Whether a saved value can take the place of the present one: numbers that of a number, texts that of a text."""
    if isinstance(present, (list, tuple)):
        kinds = [next((one for one in present), part) for part in value] if isinstance(value, (list, tuple)) else [None]
        return isinstance(value, (list, tuple)) and all(map(_is_like, value, kinds))
    if isinstance(present, (bool, str)):
        return isinstance(value, type(present))
    if math.isnan(number(present)):  # something of a schedule of one's own
        return True
    return not math.isnan(number(value))


def _check_count(name: str, value: Any) -> None:
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"{name} must be a whole number of at least 0; got {value!r}")


def _check_positive(name: str, value: float) -> None:
    if not value > 0:
        raise ValueError(f"{name} must be positive; got {value}")


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}; got {value!r}")
