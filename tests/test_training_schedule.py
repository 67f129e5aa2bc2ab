"""The learning rate of a run: the formulas, beside the optimizers' own schedules, and what goes on after a stop."""

import json

import numpy as np
import pytest

import minidl as dl
from minidl import optim
from minidl.training.schedule import SCHEDULES, WarmedUp, schedule


def sgd(lr=0.2):
    return optim.SGD([dl.tensor([1.0], requires_grad=True)], lr=lr)


def rates(made, count):
    """The rate of each of the first `count` batches."""
    found = []
    for _ in range(count):
        found.append(made.get_last_lr()[0])
        made.step()
    return found


@pytest.mark.parametrize("name, own", [
    ("constant", lambda optimizer: optim.StepLR(optimizer, 1, gamma=1.0)),
    ("cosine", lambda optimizer: optim.CosineAnnealingLR(optimizer, 40)),
    ("steps", lambda optimizer: optim.MultiStepLR(optimizer, [20, 30], gamma=0.1)),
    ("one_cycle", lambda optimizer: optim.OneCycleLR(optimizer, 0.2, total_steps=40, cycle_momentum=False)),
])
def test_without_warming_up_it_is_the_schedule_of_that_name(name, own):
    made = schedule(sgd(), name, epochs=8, batches=5, milestones=[0.5, 0.75])
    np.testing.assert_allclose(rates(made, 40), rates(own(sgd()), 40), rtol=1e-12)


@pytest.mark.parametrize("name", ["constant", "cosine", "steps"])
def test_warming_up_rises_evenly_to_what_it_would_have_been(name):
    plan = {"epochs": 8, "batches": 5, "milestones": [0.5, 0.75]}
    cold, warm = (np.array(rates(schedule(sgd(), name, warmup=w, **plan), 40)) for w in (0, 1.6))
    np.testing.assert_allclose(warm[:8] / cold[:8], np.arange(1, 9) / 8, rtol=1e-12)
    assert (warm[8:] == cold[8:]).all()


def test_steps_multiply_by_gamma_at_the_first_batch_of_each_share():
    found = rates(schedule(sgd(1.0), "steps", epochs=3, batches=4, milestones=[1 / 3, 0.5], gamma=0.5), 12)
    assert found == [1.0] * 4 + [0.5] * 2 + [0.25] * 6


@pytest.mark.parametrize("batches", [1, 2, 3])
def test_a_short_training_begins_at_the_highest_rate(batches):
    assert rates(schedule(sgd(1.0), "steps", epochs=1, batches=batches, milestones=[0.1, 0.5, 0.75]), 1) == [1.0]


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("stop", [0, 1, 7, 11])
def test_a_schedule_goes_on_from_its_state_as_json(name, stop):
    plan = {"epochs": 3, "batches": 4, "milestones": [0.5]}
    whole = rates(schedule(sgd(), name, **plan), 12)
    stopped = schedule(sgd(), name, **plan)
    first = rates(stopped, stop)
    resumed = schedule(optimizer := sgd(), name, **plan)
    resumed.load_state_dict(json.loads(json.dumps(stopped.state_dict())))
    optimizer.load_state_dict(stopped.optimizer.state_dict())
    assert first + rates(resumed, 12 - stop) == whole


def test_every_group_keeps_its_own_rate():
    groups = [{"params": [dl.tensor([1.0])], "lr": 1.0}, {"params": [dl.tensor([1.0])], "lr": 0.1}]
    made = WarmedUp(optim.SGD(groups, lr=1.0), "steps", total=4, warmup=2, milestones=[3])
    seen = []
    for _ in range(4):
        seen.append(made.get_last_lr())
        made.step()
    np.testing.assert_allclose(seen, [[0.5, 0.05], [1, 0.1], [1, 0.1], [0.1, 0.01]])


def test_there_are_no_other_shapes():
    with pytest.raises(ValueError, match=r"the shape must be one of constant, cosine, steps; got 'step'"):
        WarmedUp(sgd(), "step", total=3)
