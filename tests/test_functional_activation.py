"""ReLU, sigmoid, tanh and the softmaxes: right in the middle, at the kink, and a thousand away from it."""

import cases
import hypothesis.strategies as st
import numpy as np
import oracles
import pytest
from cases import Case, assert_close, check_gradient, check_torch, check_value, mentions, torch_functional
from hypothesis import given

import minidl as dl
from minidl import functional as F


@st.composite
def pointwise(draw):
    return Case({"input": draw(cases.arrays(draw(cases.shapes(0, 4, least=0)), "distinct"))}, {})


@st.composite
def along_an_axis(draw):
    shape = draw(cases.shapes())
    dim = draw(st.integers(-len(shape), len(shape) - 1))
    return Case({"input": draw(cases.arrays(shape))}, {"dim": dim})


CASES = {
    "relu": pointwise(),
    "sigmoid": pointwise(),
    "tanh": pointwise(),
    "softmax": along_an_axis(),
    "log_softmax": along_an_axis(),
}


@pytest.mark.parametrize("name", CASES)
@given(data=st.data())
def test_value_is_that_of_the_naive_loops(name, data):
    check_value(getattr(F, name), getattr(oracles, name), data.draw(CASES[name]))


@pytest.mark.parametrize("name", CASES)
@given(data=st.data())
def test_gradients_are_finite_differences(name, data):
    check_gradient(getattr(F, name), data.draw(CASES[name]))


@pytest.mark.parametrize("name", CASES)
@given(data=st.data())
def test_agrees_with_pytorch(name, data):
    check_torch(getattr(F, name), torch_functional(name), data.draw(CASES[name]))


# The kink


def test_relu_has_slope_zero_at_zero():
    x = cases.leaf(np.array([-1.0, -0.0, 0.0, 1.0]))
    F.relu(x).sum().backward()
    assert x.grad.data.tolist() == [0, 0, 0, 1]


def test_relu_does_not_hide_what_is_not_a_number():
    assert np.isnan(F.relu(dl.tensor(np.array([np.nan]))).data).all()


# Far from zero, where a warning is an error too


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "function, value, gradient",
    [
        (F.relu, [0, 1000], [0, 2]),
        (F.sigmoid, [0, 1], [0, 0]),
        (F.tanh, [-1, 1], [0, 0]),
        (lambda x: F.softmax(x, 0), [0, 1], [0, 0]),
        (lambda x: F.log_softmax(x, 0), [-2000, 0], [1, -1]),
    ],
    ids=["relu", "sigmoid", "tanh", "softmax", "log_softmax"],
)
def test_stable_at_a_thousand(function, value, gradient, dtype):
    x = cases.leaf(np.array([-1000, 1000], dtype))
    result = function(x)
    result.backward(dl.tensor(np.array([1, 2], dtype)))
    assert result.data.tolist() == value
    assert x.grad.data.tolist() == gradient


# Softmax


def test_ones_would_accept_a_dead_softmax():
    """A softmax sums to 1 whatever its input, so a gradient of zeros looks right when it is started from ones."""
    z = cases.leaf(np.random.default_rng(0).standard_normal((3, 4)))
    F.softmax(z, 1).sum().backward()
    assert np.abs(z.grad.data).max() < 1e-15

    def dead(z):
        return F.softmax(z.detach(), 1) + 0 * z

    with pytest.raises(AssertionError):
        dl.gradcheck(dead, [z])


# Sigmoid


def test_sigmoid_slope_is_a_quarter_at_most():
    z = cases.leaf(np.linspace(-5, 5, 11))
    y = F.sigmoid(z)
    y.sum().backward()
    assert_close(z.grad.data, y.data * (1 - y.data))
    assert z.grad.data.max() == z.grad.data[5] == 0.25


@pytest.mark.parametrize("function", [F.softmax, F.log_softmax])
@pytest.mark.parametrize("dim", [2, -3])
def test_an_axis_that_is_not_there_is_refused(function, dim):
    with pytest.raises(ValueError, match=mentions(dim)):
        function(dl.tensor(np.ones((2, 3))), dim)


@pytest.mark.parametrize("dtype", ["int64", "int8", "uint8"])
def test_whole_numbers_have_a_tanh_and_a_relu(dtype):
    x = np.array([[0, 1, 1], [1, 0, 1]], dtype)
    np.testing.assert_array_equal(F.tanh(dl.tensor(x)).data, np.tanh(x.astype(np.float32)), strict=True)
    np.testing.assert_array_equal(F.relu(dl.tensor(x)).data, np.maximum(x, 0), strict=True)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_relu_lets_no_infinite_gradient_through_where_it_is_flat(dtype):
    x = dl.tensor(np.array([-1, -0.0, 0, 4], dtype), requires_grad=True)
    F.relu(x).backward(np.array([np.inf, np.nan, -np.inf, 3], dtype))
    np.testing.assert_array_equal(x.grad.data, np.array([0, 0, 0, 3], dtype), strict=True)
