"""Each schedule follows its formula, and PyTorch to 12 digits; saved and loaded it goes on as if never stopped."""

import copy
import json
import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from minidl.autograd import Tensor
from minidl.optim import (
    SGD,
    CosineAnnealingLR,
    LRScheduler,
    MultiStepLR,
    OneCycleLR,
    Optimizer,
    ReduceLROnPlateau,
    StepLR,
)

rates = st.floats(1e-4, 10.0)


def sgd(*lrs, momentum=0.9):
    return SGD([{"params": [Tensor(np.zeros(2))], "lr": lr} for lr in lrs or (0.1,)], momentum=momentum)


def history(schedule, steps, *metrics):
    """(rates, momenta) of all groups at the start and after each step; what get_last_lr() says is what SGD uses."""
    rows = []
    for step in range(steps + 1):
        if step:
            schedule.step(*(metric[step - 1] for metric in metrics))
        groups = schedule.optimizer.param_groups
        assert schedule.get_last_lr() == [group["lr"] for group in groups]
        rows.append([group["lr"] for group in groups] + [group["momentum"] for group in groups])
    return rows


def pytorchs(name, lrs, steps, *metrics, **options):
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([{"params": [torch.zeros(2)], "lr": lr} for lr in lrs], momentum=0.9)
    schedule = getattr(torch.optim.lr_scheduler, name)(optimizer, **options)
    optimizer.step()  # PyTorch warns of a schedule that moves before its optimizer
    return history(schedule, steps, *metrics)


def assert_same(ours, theirs):
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=0)


# StepLR and MultiStepLR

@given(rates, st.integers(1, 7), st.floats(0.05, 1.0))
def test_step_lr(lr, step_size, gamma):
    rows = history(StepLR(sgd(lr, 2 * lr), step_size, gamma), 20)
    for epoch, row in enumerate(rows):
        expected = lr * gamma ** math.floor(epoch / step_size)
        assert row == pytest.approx([expected, 2 * expected, 0.9, 0.9], rel=1e-14)


@given(rates, st.lists(st.integers(0, 20), max_size=5), st.floats(0.05, 1.0))
def test_multi_step_lr(lr, milestones, gamma):
    rows = history(MultiStepLR(sgd(lr, 2 * lr), milestones, gamma), 25)
    for epoch, row in enumerate(rows):
        expected = lr
        for milestone in milestones:
            expected *= gamma if milestone <= epoch else 1.0
        assert row == pytest.approx([expected, 2 * expected, 0.9, 0.9], rel=1e-14)


@given(rates, st.integers(1, 7), st.lists(st.integers(0, 20), max_size=5), st.floats(0.05, 1.0))
def test_the_step_schedules_agree_with_pytorch(lr, step_size, milestones, gamma):
    for make, name, options in (
        (StepLR, "StepLR", {"step_size": step_size, "gamma": gamma}),
        (MultiStepLR, "MultiStepLR", {"milestones": milestones, "gamma": gamma}),
    ):
        assert_same(history(make(sgd(lr, 2 * lr), **options), 25), pytorchs(name, [lr, 2 * lr], 25, **options))


def test_resnets_schedule():
    rows = history(MultiStepLR(sgd(0.1), milestones=[30, 60]), 61)
    assert [rows[epoch][0] for epoch in (0, 29, 30, 59, 60)] == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001], rel=1e-12)


# CosineAnnealingLR

@given(rates, st.integers(1, 60), st.just(0.0) | st.floats(1e-6, 1e-2))
def test_cosine_annealing_lr(lr, T_max, eta_min):
    rows = history(CosineAnnealingLR(sgd(lr, 2 * lr), T_max, eta_min), 2 * T_max)
    for epoch, row in enumerate(rows):
        cos = math.cos(math.pi * epoch / T_max)
        expected = [(eta_min + start) / 2 + (start - eta_min) / 2 * cos for start in (lr, 2 * lr)]
        assert row == pytest.approx([*expected, 0.9, 0.9], rel=1e-12, abs=1e-14 * lr)
    assert rows[T_max][0] == pytest.approx(eta_min, abs=1e-15 * lr)
    assert rows[2 * T_max][0] == pytest.approx(lr, rel=1e-14)  # it rises again, as in PyTorch


@pytest.mark.parametrize("eta_min", [0.0, 1e-4])
@pytest.mark.parametrize("T_max", [1, 2, 30, 200, 1000])
def test_cosine_annealing_lr_agrees_with_pytorch(T_max, eta_min):
    rows = history(CosineAnnealingLR(sgd(0.1, 2.0), T_max, eta_min), 3 * T_max + 5)
    expected = pytorchs("CosineAnnealingLR", [0.1, 2.0], 3 * T_max + 5, T_max=T_max, eta_min=eta_min)
    assert_same(rows[: T_max + 1], expected[: T_max + 1])
    # PyTorch's recursion leaves the minimum with 1 − cos(π / T_max), cancelled to ε T_max², and keeps that error
    np.testing.assert_allclose(rows, expected, rtol=1e-16 * T_max**2 + 1e-12, atol=1e-15)


# ReduceLROnPlateau

class Plateau:
    """The textbook loop on one group, to compare with."""

    def __init__(self, lr, mode, factor, patience, threshold, threshold_mode, cooldown, min_lr, eps):
        self.__dict__.update(locals())
        self.best, self.bad, self.rest = None, 0, 0

    def better(self, metric):
        if self.best is None:
            return True
        margin = self.threshold if self.threshold_mode == "abs" else self.threshold * self.best
        return metric < self.best - margin if self.mode == "min" else metric > self.best + margin

    def step(self, metric):
        if self.better(metric):
            self.best, self.bad = metric, 0
        else:
            self.bad += 1
        if self.rest:
            self.rest, self.bad = self.rest - 1, 0
        if self.bad > self.patience:
            new = max(self.lr * self.factor, self.min_lr)
            self.lr = new if self.lr - new > self.eps else self.lr
            self.rest, self.bad = self.cooldown, 0
        return self.lr


plateau_options = st.fixed_dictionaries({
    "mode": st.sampled_from(["min", "max"]),
    "factor": st.floats(0.05, 0.95),
    "patience": st.integers(0, 3),
    "threshold": st.sampled_from([0.0, 1e-4, 0.1]),
    "threshold_mode": st.sampled_from(["rel", "abs"]),
    "cooldown": st.integers(0, 3),
    "min_lr": st.sampled_from([0.0, 0.01]),
    "eps": st.sampled_from([1e-8, 1e-3]),
})
losses = st.lists(st.integers(1, 60).map(lambda n: n / 7), min_size=25, max_size=25)


@given(rates, plateau_options, losses)
def test_reduce_lr_on_plateau(lr, options, losses):
    rows = history(ReduceLROnPlateau(sgd(lr, 2 * lr), **options), 25, losses)
    books = [Plateau(lr, **options), Plateau(2 * lr, **options)]
    for row, loss in zip(rows[1:], losses, strict=True):
        assert row[:2] == pytest.approx([book.step(loss) for book in books], rel=1e-14)


@given(rates, plateau_options, losses)
def test_reduce_lr_on_plateau_agrees_with_pytorch(lr, options, losses):
    rows = history(ReduceLROnPlateau(sgd(lr, 2 * lr), **options), 25, losses)
    assert_same(rows, pytorchs("ReduceLROnPlateau", [lr, 2 * lr], 25, losses, **options))


def test_reduce_lr_on_plateau_with_default_patience():
    rates = [row[0] for row in history(ReduceLROnPlateau(sgd(0.1)), 12, [1.0] * 12)]
    assert rates == pytest.approx([0.1] * 12 + [0.01])  # the first epoch is the best, ten are forgiven


def test_reduce_lr_on_plateau_takes_tensors_a_bound_a_group_and_later_groups():
    optimizer = sgd(0.1, 0.1)
    schedule = ReduceLROnPlateau(optimizer, patience=0, factor=0.5, min_lr=[0.04, 0.0])
    for _ in range(3):
        schedule.step(Tensor(np.float32(1.0)))
    assert schedule.get_last_lr() == pytest.approx([0.04, 0.025])

    optimizer = sgd(0.1)
    schedule = ReduceLROnPlateau(optimizer, patience=0, factor=0.5)
    optimizer.add_param_group({"params": [Tensor(np.zeros(1))], "lr": 0.3})
    for _ in range(2):
        schedule.step(1.0)
    assert schedule.get_last_lr() == pytest.approx([0.05, 0.15])


def test_a_diverged_loss_is_no_improvement():
    schedule = ReduceLROnPlateau(sgd(0.1), patience=0)
    schedule.step(1.0)
    schedule.step(math.nan)
    assert schedule.get_last_lr() == pytest.approx([0.01]) and schedule.best == 1.0


# OneCycleLR

def bend(strategy, first, last, done):
    return first + (last - first) * ((1 - math.cos(math.pi * done)) / 2 if strategy == "cos" else done)


@given(
    st.floats(0.01, 2.0), st.integers(5, 60), st.floats(0.25, 0.6), st.sampled_from(["cos", "linear"]),
    st.floats(2.0, 50.0), st.floats(10.0, 1e4),
)
def test_one_cycle_lr(max_lr, total, pct_start, strategy, div, final_div):
    schedule = OneCycleLR(sgd(0.1, 0.1), [max_lr, 2 * max_lr], total, pct_start=pct_start, anneal_strategy=strategy,
                          div_factor=div, final_div_factor=final_div)
    peak, end = pct_start * total - 1, total - 1
    for step, row in enumerate(history(schedule, total - 1)):
        if step <= peak:
            lr, momentum = ((bend(strategy, a, b, step / peak)) for a, b in ((max_lr / div, max_lr), (0.95, 0.85)))
        else:
            done = (step - peak) / (end - peak)
            lr = bend(strategy, max_lr, max_lr / div / final_div, done)
            momentum = bend(strategy, 0.85, 0.95, done)
        assert row == pytest.approx([lr, 2 * lr, momentum, momentum], rel=1e-9)


@given(
    st.integers(1, 60), st.floats(0.0, 1.0), st.sampled_from(["cos", "linear"]), st.booleans(), st.booleans(),
    st.sampled_from([0.85, [0.8, 0.7]]), st.sampled_from([25.0, 4.0]),
)
def test_one_cycle_lr_agrees_with_pytorch(total, pct_start, strategy, three_phase, cycle_momentum, base_momentum, div):
    peak = pct_start * total - 1
    assume(0.0 not in (peak, total - 1 - peak, total - 1 - 2 * peak))  # PyTorch divides by the length of a phase
    options = {
        "max_lr": [0.1, 2.0], "total_steps": total, "pct_start": pct_start, "anneal_strategy": strategy,
        "three_phase": three_phase, "cycle_momentum": cycle_momentum, "base_momentum": base_momentum, "div_factor": div,
    }
    rows = history(OneCycleLR(sgd(0.5, 0.5), **options), total)
    assert_same(rows, pytorchs("OneCycleLR", [0.5, 0.5], total, **options))


def test_one_cycle_lr_by_epochs():
    by_steps = history(OneCycleLR(sgd(0.1), 1.0, total_steps=40), 39)
    by_epochs = history(OneCycleLR(sgd(0.1), 1.0, epochs=4, steps_per_epoch=10), 39)
    assert by_epochs == by_steps
    assert by_steps[0] == pytest.approx([0.04, 0.95], rel=1e-14)
    assert by_steps[11] == pytest.approx([1.0, 0.85], rel=1e-14)  # 0.3 · 40 − 1
    assert by_steps[39] == pytest.approx([4e-6, 0.95], rel=1e-9)


def test_one_cycle_lr_in_three_phases_falls_as_it_rose():
    rows = history(OneCycleLR(sgd(0.1), 1.0, total_steps=41, pct_start=11 / 41, three_phase=True), 40)
    np.testing.assert_allclose(rows[:21], rows[20::-1], rtol=1e-12)
    assert rows[40] == pytest.approx([4e-6, 0.95], rel=1e-9)


def test_one_cycle_lr_whose_rise_has_no_length_starts_at_the_top():
    """PyTorch divides by zero here."""
    rows = history(OneCycleLR(sgd(0.1), 1.0, total_steps=10, pct_start=0.1), 9)
    assert rows[0] == [1.0, 0.85]
    assert rows == sorted(rows, key=lambda row: -row[0]) and rows[1][0] < 1.0


def test_one_cycle_lr_ends():
    schedule = OneCycleLR(sgd(0.1), 1.0, total_steps=5)
    for _ in range(5):
        schedule.step()
    with pytest.raises(ValueError, match="step 6 of a cycle of total_steps=5"):
        schedule.step()


# All of them

MAKERS = {
    "StepLR": lambda optimizer, **more: StepLR(optimizer, 2, 0.5, **more),
    "MultiStepLR": lambda optimizer, **more: MultiStepLR(optimizer, [3, 5, 5, 9], **more),
    "CosineAnnealingLR": lambda optimizer, **more: CosineAnnealingLR(optimizer, 9, 1e-3, **more),
    "OneCycleLR": lambda optimizer, **more: OneCycleLR(optimizer, 1.0, 20, **more),
    "ReduceLROnPlateau": lambda optimizer: ReduceLROnPlateau(optimizer, patience=1, cooldown=1, factor=0.3),
}
METRICS = [3.0, 2.0, 2.5, 2.4, 1.0, 1.5, 1.2, 1.1, 1.3, 1.2, 1.4, 1.5]


def go(schedule, start, stop):
    rows = []
    for step in range(start, stop):
        schedule.step(*([METRICS[step]] if isinstance(schedule, ReduceLROnPlateau) else []))
        rows.append([(group["lr"], group["momentum"]) for group in schedule.optimizer.param_groups])
    return rows


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("order", ["optimizer first", "schedule first"])
def test_a_resumed_schedule_goes_on_bit_identically(name, order):
    make = MAKERS[name]
    whole = go(make(sgd(0.1, 0.4)), 0, 12)

    schedule = make(sgd(0.1, 0.4))
    go(schedule, 0, 5)
    saved = json.loads(json.dumps(schedule.state_dict()))
    saved_optimizer = json.loads(json.dumps(schedule.optimizer.state_dict()))

    optimizer = sgd(0.1, 0.4)
    if order == "optimizer first":
        optimizer.load_state_dict(saved_optimizer)
        resumed = make(optimizer)
    else:
        resumed = make(optimizer)
        optimizer.load_state_dict(saved_optimizer)
    resumed.load_state_dict(saved)
    assert resumed.get_last_lr() == schedule.get_last_lr()
    assert go(resumed, 5, 12) == whole[5:]


@pytest.mark.parametrize("name", [name for name in MAKERS if name != "ReduceLROnPlateau"])
def test_last_epoch_continues_from_the_optimizers_state(name):
    make = MAKERS[name]
    whole = go(make(sgd(0.1, 0.4)), 0, 12)
    schedule = make(sgd(0.1, 0.4))
    go(schedule, 0, 5)
    optimizer = sgd(0.1, 0.4)
    optimizer.load_state_dict(schedule.optimizer.state_dict())
    resumed = make(optimizer, last_epoch=5)  # stands at t = 6, as in PyTorch
    assert [(group["lr"], group["momentum"]) for group in optimizer.param_groups] == whole[5]
    assert go(resumed, 6, 12) == whole[6:]
    with pytest.raises(KeyError, match="parameter group 0 has no 'initial_lr'"):
        make(sgd(0.1), last_epoch=5)


@pytest.mark.parametrize("name", ["StepLR", "CosineAnnealingLR"])
def test_a_second_schedule_starts_from_the_present_rate(name):
    """A notebook's cell is run again: PyTorch goes on from the decayed rate, and so do we."""
    torch = pytest.importorskip("torch")
    options = {"StepLR": {"step_size": 2, "gamma": 0.5}, "CosineAnnealingLR": {"T_max": 9}}[name]
    theirs = torch.optim.SGD([torch.zeros(2)], lr=0.1, momentum=0.9)
    ours = sgd(0.1)
    theirs.step()
    for _ in range(2):
        rows = history({"StepLR": StepLR, "CosineAnnealingLR": CosineAnnealingLR}[name](ours, **options), 5)
        reference = getattr(torch.optim.lr_scheduler, name)(theirs, **options)
        theirs.step()
        assert_same(rows, history(reference, 5))
    assert ours.param_groups[0]["initial_lr"] == theirs.param_groups[0]["initial_lr"] == 0.1


def test_groups_keep_pytorchs_keys():
    torch = pytest.importorskip("torch")
    for name, options in (("StepLR", {"step_size": 3}), ("OneCycleLR", {"max_lr": 1.0, "total_steps": 9})):
        theirs = torch.optim.SGD([torch.zeros(2)], lr=0.1, momentum=0.9)
        getattr(torch.optim.lr_scheduler, name)(theirs, **options)
        ours = sgd(0.1)
        {"StepLR": StepLR, "OneCycleLR": OneCycleLR}[name](ours, **options)
        added = theirs.param_groups[0].keys() - torch.optim.SGD([torch.zeros(2)]).param_groups[0].keys()
        assert added == ours.param_groups[0].keys() - sgd().param_groups[0].keys()
        for key in added:
            assert ours.param_groups[0][key] == pytest.approx(theirs.param_groups[0][key], rel=1e-14)


def test_numpy_rates_become_plain_numbers():
    schedule = StepLR(sgd(np.float32(0.5)), 1, 0.5)
    schedule.step()
    assert json.loads(json.dumps(schedule.state_dict()))["_last_lr"] == [0.25]


def test_a_schedule_of_ones_own():
    class InverseTimeLR(LRScheduler):
        def get_lr(self):
            return [base_lr / (1 + self.last_epoch) for base_lr in self.base_lrs]

    assert [row[0] for row in history(InverseTimeLR(sgd(1.0)), 3)] == pytest.approx([1.0, 1 / 2, 1 / 3, 1 / 4])


# What is refused

@pytest.mark.parametrize(
    "make, message",
    [
        (lambda optimizer: StepLR(optimizer, 0), "step_size must be positive; got 0"),
        (lambda optimizer: CosineAnnealingLR(optimizer, 0), "T_max must be positive; got 0"),
        (lambda optimizer: ReduceLROnPlateau(optimizer, factor=1.5), "factor must be below 1, .* got 1.5"),
        (lambda optimizer: ReduceLROnPlateau(optimizer, mode="down"), "mode must be one of 'min', 'max'; got 'down'"),
        (lambda optimizer: ReduceLROnPlateau(optimizer, threshold_mode="x"), "threshold_mode must be .* got 'x'"),
        (lambda optimizer: ReduceLROnPlateau(optimizer, min_lr=[0.1, 0.1]), r"min_lr must be .* group, 1; got \[0.1"),
        (lambda optimizer: OneCycleLR(optimizer, 1.0), "give total_steps, or epochs and steps_per_epoch"),
        (lambda optimizer: OneCycleLR(optimizer, 1.0, epochs=3), "give total_steps, or epochs and steps_per_epoch"),
        (lambda optimizer: OneCycleLR(optimizer, 1.0, total_steps=0), "total_steps must be positive; got 0"),
        (lambda optimizer: OneCycleLR(optimizer, 1.0, epochs=-1, steps_per_epoch=3), "epochs must be positive; got -1"),
        (lambda optimizer: OneCycleLR(optimizer, 1.0, 9, pct_start=1.5), "pct_start .* from 0 to 1; got 1.5"),
        (lambda optimizer: OneCycleLR(optimizer, 1.0, 9, anneal_strategy="exp"), "must be one of .* got 'exp'"),
        (lambda optimizer: OneCycleLR(optimizer, [1.0, 2.0], 9), r"max_lr must be .* group, 1; got \[1.0, 2.0\]"),
        (lambda optimizer: OneCycleLR(optimizer, 1.0, 9, base_momentum=[0.8] * 3), r"base_momentum must be .* 1; got"),
    ],
)
def test_bad_options(make, message):
    optimizer = sgd(0.1)
    with pytest.raises(ValueError, match=message):
        make(optimizer)
    assert optimizer.param_groups[0].keys() == sgd(0.1).param_groups[0].keys()  # nothing was written


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_needs_an_optimizer(make):
    with pytest.raises(TypeError, match="needs an optimizer, such as SGD; got a list"):
        make([Tensor(np.zeros(2))])


def test_one_cycle_lr_needs_a_momentum_to_cycle():
    class Plain(Optimizer):
        pass

    optimizer = Plain([Tensor(np.zeros(2))], {"lr": 0.1})
    with pytest.raises(ValueError, match="Plain has no momentum to cycle; pass cycle_momentum=False"):
        OneCycleLR(optimizer, 1.0, 9)
    OneCycleLR(optimizer, 1.0, 9, cycle_momentum=False)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.04) and "momentum" not in optimizer.param_groups[0]


def test_another_schedules_state_is_refused_and_changes_nothing():
    schedule = CosineAnnealingLR(sgd(0.1), 9)
    before = dict(schedule.state_dict())
    with pytest.raises(ValueError, match="lacks T_max, eta_min; was it saved by a CosineAnnealingLR"):
        schedule.load_state_dict(StepLR(sgd(0.1), 3).state_dict())
    assert schedule.state_dict() == before


DAMAGED = [math.nan, None, "x", [], [0.1, None], {}, True]


@pytest.mark.parametrize("name", MAKERS)
def test_a_damaged_state_is_refused_and_changes_nothing(name):
    """Every value of the state in turn, by everything that it cannot be."""
    schedule, saved = MAKERS[name](sgd(0.1, 0.4)), MAKERS[name](sgd(0.1, 0.4))
    go(saved, 0, 3)
    before = copy.deepcopy(schedule.state_dict()), copy.deepcopy(schedule.optimizer.state_dict())
    for key, right in saved.state_dict().items():
        for wrong in DAMAGED:
            if wrong == right or (key in ("milestones", "_last_lr") and wrong == []):
                continue  # that may well be one
            with pytest.raises(ValueError, match="saved"):
                schedule.load_state_dict({**saved.state_dict(), key: wrong})
                pytest.fail(f"{key}={wrong!r} was loaded")
    for key in ("last_epoch", "num_bad_epochs", "cooldown_counter"):
        if key in before[0]:
            with pytest.raises(ValueError, match=f"{key} must be a whole number of at least 0; got -2"):
                schedule.load_state_dict({**saved.state_dict(), key: -2})
    for wrong in (None, [1], "state"):
        with pytest.raises(ValueError, match="not a schedule's state_dict"):
            schedule.load_state_dict(wrong)
    assert (schedule.state_dict(), schedule.optimizer.state_dict()) == before
    schedule.load_state_dict(saved.state_dict())
    assert schedule.state_dict() == saved.state_dict()


@pytest.mark.parametrize("name, key, wrong", [
    ("StepLR", "step_size", 0), ("CosineAnnealingLR", "T_max", -3), ("ReduceLROnPlateau", "mode", "down"),
    ("ReduceLROnPlateau", "threshold_mode", "x"), ("ReduceLROnPlateau", "factor", 2.0),
    ("OneCycleLR", "anneal_strategy", "exp"), ("OneCycleLR", "rates", ["initial_lr", "max_lr", "no_lr"]),
    ("OneCycleLR", "times", [0.0, 3.0]), ("OneCycleLR", "total_steps", 1),
])
def test_a_saved_option_that_makes_no_sense_is_refused(name, key, wrong):
    schedule = {"OneCycleLR": lambda: OneCycleLR(sgd(0.1), 1.0, 12)}.get(name, lambda: MAKERS[name](sgd(0.1, 0.4)))()
    go(schedule, 0, 3)
    before = copy.deepcopy(schedule.state_dict())
    assert key in before
    with pytest.raises(ValueError, match="saved state cannot be gone on from"):
        schedule.load_state_dict({**before, key: wrong})
    assert schedule.state_dict() == before


def test_a_loaded_state_shares_no_lists_with_the_saved_one():
    schedule, saved = (MultiStepLR(sgd(0.1), [2, 4]) for _ in range(2))
    state = saved.state_dict()
    schedule.load_state_dict(state)
    state["milestones"].append(9)
    assert schedule.milestones == [2, 4]


def test_a_group_added_too_late_is_said():
    schedule = StepLR(sgd(0.1), 3)
    schedule.optimizer.add_param_group({"params": [Tensor(np.zeros(2))]})
    with pytest.raises(ValueError, match="2 parameter groups, and had 1 when this schedule was made"):
        schedule.step()
