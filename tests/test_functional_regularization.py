"""Dropout: what is dropped, what is scaled, and that the gradient takes the same way."""

import cases
import numpy as np
import pytest
from cases import assert_close, mentions

import minidl as dl
from minidl import functional as F

ONES = np.ones((200, 50))


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_survivors_are_scaled_so_that_the_mean_stays(p):
    dl.manual_seed(0)
    kept = F.dropout(dl.tensor(ONES), p).data
    assert_close(np.unique(kept), [0, 1 / (1 - p)])
    deviation = np.sqrt(p * (1 - p) / ONES.size)  # of the share that is dropped
    assert abs((kept == 0).mean() - p) < 4 * deviation


def test_the_gradient_passes_where_the_value_passed():
    dl.manual_seed(0)
    x = cases.leaf(ONES)
    result = F.dropout(x, 0.3)
    g = cases.cotangent(ONES.shape)
    result.backward(dl.tensor(g))
    assert_close(x.grad.data, g * result.data)


@pytest.mark.parametrize("options", [{"p": 0.5, "training": False}, {"p": 0.0}])
def test_nothing_is_dropped(options):
    assert_close(F.dropout(dl.tensor(ONES), **options).data, ONES, 0)


def test_everything_is_dropped():
    """p = 1 leaves zeros, not the 0/0 of the scale."""
    x = cases.leaf(ONES)
    result = F.dropout(x, 1.0)
    result.sum().backward()
    assert not result.data.any() and not x.grad.data.any()


def test_the_seed_decides():
    def draw(seed):
        dl.manual_seed(seed)
        return F.dropout(dl.tensor(ONES)).data

    assert (draw(1) == draw(1)).all()
    assert (draw(1) != draw(2)).any()


def test_two_calls_drop_differently():
    dl.manual_seed(0)
    assert (F.dropout(dl.tensor(ONES)).data != F.dropout(dl.tensor(ONES)).data).any()


@pytest.mark.parametrize("p", [-0.1, 1.5])
@pytest.mark.parametrize("training", [True, False])
def test_a_probability_is_refused_outside_0_and_1(p, training):
    with pytest.raises(ValueError, match=mentions(p)):
        F.dropout(dl.tensor(ONES), p, training)
