"""Batch normalisation and local response normalisation: PyTorch's formulas, to the last factor (claim D9)."""

import cases
import hypothesis.strategies as st
import numpy as np
import oracles
import pytest
from cases import Case, assert_close, check_gradient, check_torch, check_value, mentions, torch_functional
from hypothesis import given, settings

import minidl as dl
from minidl import functional as F


@st.composite
def batch_norms(draw):
    channels, training = draw(st.integers(1, 3)), draw(st.booleans())
    space = draw(cases.shapes(0, 2, most=3))
    least = 3 if training else 0  # images, so that a variance is far from zero and its square root smooth
    arrays = {"input": draw(cases.arrays((draw(st.integers(least, 4)), channels, *space), "distinct"))}
    if draw(st.booleans()):
        arrays |= {name: draw(cases.arrays((channels,))) for name in ("weight", "bias")}
    options = {"training": training, "running_mean": None, "running_var": None}
    options |= cases.some_options(draw, momentum=st.floats(0, 1), eps=st.floats(1e-5, 1e-1))
    if not training or draw(st.booleans()):
        options["running_mean"] = draw(cases.arrays((channels,)))
        options["running_var"] = draw(cases.arrays((channels,), "positive"))
    return Case(arrays, options)


@st.composite
def response_norms(draw):
    """With alpha near 1: at the papers' 1e-4 a window one channel short would pass unseen."""
    shape = draw(st.integers(0, 2)), draw(st.integers(1, 6)), *draw(cases.shapes(1, 2, most=3))
    options = {"size": draw(st.integers(1, 7)), "alpha": draw(st.floats(0.5, 2))}
    options |= cases.some_options(draw, beta=st.floats(0.25, 1.5), k=st.floats(0.5, 2))
    return Case({"input": draw(cases.arrays(shape))}, options)


CASES = {"batch_norm": batch_norms(), "local_response_norm": response_norms()}


@pytest.mark.parametrize("name", CASES)
@given(data=st.data())
def test_value_is_that_of_the_naive_loops(name, data):
    check_value(getattr(F, name), getattr(oracles, name), data.draw(CASES[name]))


@pytest.mark.parametrize("name", CASES)
@given(data=st.data())
def test_gradients_are_finite_differences(name, data):
    check_gradient(getattr(F, name), data.draw(CASES[name]))


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=100)
@given(data=st.data())
def test_agrees_with_pytorch(name, data):
    check_torch(getattr(F, name), torch_functional(name), data.draw(CASES[name]))


# Local response normalisation


def test_alpha_is_divided_by_the_size():
    """Five channels of ones and alpha 1: PyTorch has 1 + 5/5 in the middle, AlexNet's paper would have 1 + 5."""
    result = F.local_response_norm(dl.tensor(np.ones((1, 5, 1, 1))), 5, alpha=1.0, beta=1.0)
    assert_close(result.data.ravel(), 1 / (1 + np.array([3, 4, 5, 4, 3]) / 5))


def test_an_even_window_has_more_channels_before_than_after():
    squares = np.array([1.0, 4, 16, 64])
    result = F.local_response_norm(dl.tensor(np.sqrt(squares).reshape(1, 4, 1)), 2, alpha=2.0, beta=1.0, k=0.0)
    assert_close(result.data.ravel(), np.sqrt(squares) / (squares + [0, 1, 4, 16]))


# Batch normalisation


def test_running_statistics_move_in_place_and_with_the_unbiased_variance():
    """Of 0 and 2: mean 1, variance 1 over n, 2 over n − 1; the first normalises, the second is remembered."""
    mean, variance = dl.tensor(np.zeros(1)), dl.tensor(np.ones(1))
    held = mean.data, variance.data
    result = F.batch_norm(dl.tensor(np.array([[0.0], [2.0]])), mean, variance, training=True, momentum=0.1, eps=0.0)
    assert_close(result.data.ravel(), [-1, 1])
    assert_close(held, [[0.1], [0.9 * 1 + 0.1 * 2]])
    assert held[0] is mean.data and held[1] is variance.data


def test_variance_survives_a_large_mean():
    """E[x²] − E[x]² would lose every digit of float32 here."""
    x = (1000 + np.random.default_rng(0).standard_normal((64, 2))).astype(np.float32)
    result = F.batch_norm(dl.tensor(x), None, None, training=True)
    assert_close(result.data, oracles.batch_norm(x.astype(float), training=True), 1e-3)


def test_ones_would_accept_a_dead_gradient():
    """A normalised batch sums to zero whatever its input, so a gradient of zeros looks right when started from ones."""
    x = cases.leaf(np.random.default_rng(0).standard_normal((4, 3)))
    F.batch_norm(x, None, None, training=True).sum().backward()
    assert np.abs(x.grad.data).max() < 1e-12

    def dead(x):
        return F.batch_norm(x.detach(), None, None, training=True) + 0 * x

    with pytest.raises(AssertionError):
        dl.gradcheck(dead, [x])


# What is refused

STATISTICS = [np.zeros(3), np.ones(3)]

REFUSED = {
    "rank 1": ((3,), STATISTICS, {}, ["(3,)"]),
    "one value a channel": ((1, 3), STATISTICS, {"training": True}, ["(1, 3)"]),
    "one pixel a channel": ((1, 3, 1, 1), [None, None], {"training": True}, ["(1, 3, 1, 1)"]),
    "no statistics to evaluate with": ((2, 3), [None, None], {}, ["running_mean"]),
    "statistics of other channels": ((2, 4), STATISTICS, {}, ["running_mean", 3, 4]),
    "weight of other channels": ((2, 3), STATISTICS, {"weight": dl.tensor(np.ones(2))}, ["weight", 2, 3]),
    "bias of other channels": ((2, 3), STATISTICS, {"bias": dl.tensor(np.ones(5))}, ["bias", 5, 3]),
}


@pytest.mark.parametrize("shape, statistics, options, values", REFUSED.values(), ids=REFUSED)
def test_batch_norm_refuses(shape, statistics, options, values):
    running = [None if array is None else dl.tensor(array.copy()) for array in statistics]
    with pytest.raises(ValueError, match=mentions(*values)):
        F.batch_norm(dl.tensor(np.ones(shape)), *running, **options)


@pytest.mark.parametrize(
    "shape, size, values", [((3, 4), 3, ["(3, 4)"]), ((1, 3, 2, 2), 0, ["size", 0]), ((1, 3, 2, 2), -5, ["size", -5])]
)
def test_local_response_norm_refuses(shape, size, values):
    with pytest.raises(ValueError, match=mentions(*values)):
        F.local_response_norm(dl.tensor(np.ones(shape)), size)
