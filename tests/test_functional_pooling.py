"""Max, average and adaptive pooling: where the windows lie, who wins, and where the gradient goes (claim D9)."""

import cases
import hypothesis.strategies as st
import numpy as np
import oracles
import pytest
from cases import (
    Case,
    assert_close,
    check_gradient,
    check_torch,
    check_value,
    cotangent,
    mentions,
    shown,
    torch_functional,
)
from hypothesis import given, settings

import minidl as dl
from minidl import functional as F

CASES = {
    "max_pool2d": cases.pools(),
    "avg_pool2d": cases.pools("normal", average=True),
    "adaptive_avg_pool2d": cases.adaptive_pools(),
}


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=100)
@given(data=st.data())
def test_value_is_that_of_the_naive_loops(name, data):
    check_value(getattr(F, name), getattr(oracles, name), data.draw(CASES[name]))


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=100)
@given(data=st.data())
def test_gradients_are_finite_differences(name, data):
    check_gradient(getattr(F, name), data.draw(CASES[name]))


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=500)
@given(data=st.data())
def test_agrees_with_pytorch(name, data):
    check_torch(getattr(F, name), torch_functional(name), data.draw(CASES[name]))


@given(case=cases.pools("tied"))
def test_ties_agree_with_pytorch(case):
    check_torch(F.max_pool2d, torch_functional("max_pool2d"), case)


def check_against_loops(function, gradient, case):
    result, leaves, _ = cases.call(function, case, cases.leaf, cases.constant)
    g = cotangent(result.shape)
    result.backward(dl.tensor(g))
    assert_close(leaves["input"].grad.data, gradient(case.arrays["input"], g, **case.options))


def batched(case):
    return case.arrays["input"].ndim == 4


@given(case=cases.pools("tied").filter(batched))
def test_max_gradient_goes_to_the_first_of_equals(case):
    check_against_loops(F.max_pool2d, oracles.max_pool2d_gradient, case)


@given(case=CASES["avg_pool2d"].filter(batched))
def test_average_gradient_is_that_of_the_naive_loops(case):
    check_against_loops(F.avg_pool2d, oracles.avg_pool2d_gradient, case)


# The traps


def test_padding_never_wins_a_maximum():
    """Padded with zeros instead of −∞, an image of −1s would pool to 0 on its border."""
    result = F.max_pool2d(dl.tensor(np.full((1, 1, 4, 5), -1.0)), 3, stride=2, padding=1)
    assert_close(result.data, np.full((1, 1, 2, 3), -1.0))


def test_a_tie_has_one_winner():
    """One gradient arrives and one leaves: neither copied to every equal value nor lost."""
    x = cases.leaf(np.zeros((1, 1, 2, 3)))
    F.max_pool2d(x, (2, 3)).sum().backward()
    assert x.grad.data.tolist() == [[[[1, 0, 0], [0, 0, 0]]]]


def test_overlapping_windows_add_their_gradients():
    x = cases.leaf(np.array([[[[1.0, 2, 9, 3, 0]]]]))
    F.max_pool2d(x, (1, 3), stride=1).sum().backward()
    assert x.grad.data.tolist() == [[[[0, 0, 3, 0, 0]]]]


@pytest.mark.parametrize("pool", [F.max_pool2d, F.avg_pool2d])
@pytest.mark.parametrize(
    "size, kernel, stride, padding, ceil_mode, expected",
    [
        (112, 3, 2, 0, False, 55),  # PyTorch's default drops the row that does not fill a window
        (112, 3, 2, 0, True, 56),  # GoogLeNet counts on it: 112 → 56 → 28 → 14 → 7
        (112, 3, 2, 1, False, 56),  # ResNet's way to 56
        (55, 3, 2, 0, False, 27),  # AlexNet's tile exactly
        (55, 3, 2, 0, True, 27),
        (5, 2, 3, 1, True, 2),  # a third window would start in the right padding
        (3, 2, 2, 1, True, 2),
        (2, 3, 2, 0, True, 1),  # a kernel larger than the image is one window, by the ceiling only
    ],
)
def test_output_size(pool, size, kernel, stride, padding, ceil_mode, expected):
    image = dl.tensor(np.ones((1, size, size + kernel)))
    result = pool(image, kernel, stride, padding, ceil_mode=ceil_mode)
    assert result.shape[1] == expected


def test_stride_is_the_kernel_unless_given():
    assert F.max_pool2d(dl.tensor(np.ones((1, 1, 6, 6))), (2, 3)).shape == (1, 1, 3, 2)


def test_average_of_a_window_over_the_edge():
    """Ones, kernel 2, padding 1, in a corner: 1 of 4, or 1 of 1 when the padding does not count."""
    image = dl.tensor(np.ones((1, 1, 2, 4)))
    assert F.avg_pool2d(image, 2, padding=1).data[0, 0, 0].tolist() == [0.25, 0.5, 0.25]
    assert F.avg_pool2d(image, 2, padding=1, count_include_pad=False).data[0, 0, 0].tolist() == [1, 1, 1]
    assert F.avg_pool2d(image, 2, padding=1, divisor_override=8).data[0, 0, 0].tolist() == [1 / 8, 1 / 4, 1 / 8]


@pytest.mark.parametrize("kernel", [(2, 3), (3, 1), (1, 4)])
@pytest.mark.parametrize("pool", [F.max_pool2d, F.avg_pool2d])
def test_kernel_that_is_not_square(pool, kernel):
    image = cases.VALUES["distinct"](np.random.default_rng(0), (2, 3, 5, 7))
    check_gradient(pool, Case({"input": image}, {"kernel_size": kernel, "stride": (2, 1)}))


def test_not_a_number_is_not_hidden():
    """A diverged network must show: NaN wins every window it is in, as in PyTorch."""
    image = np.arange(8.0).reshape(1, 2, 4)
    image[0, 0, 1] = np.nan
    assert np.isnan(F.max_pool2d(dl.tensor(image), 2).data).tolist() == [[[True, False]]]


@pytest.mark.parametrize("output_size", [1, (1, 1), (None, 7), (5, None)])
def test_adaptive_sizes(output_size):
    image = np.random.default_rng(0).standard_normal((2, 3, 5, 7))
    result = F.adaptive_avg_pool2d(dl.tensor(image), output_size)
    assert_close(result.data, oracles.adaptive_avg_pool2d(image, output_size))


def test_arguments_may_be_positional():
    image = np.random.default_rng(0).standard_normal((2, 3, 7, 8))
    window = (3, 2), (2, 3), (1, 0)
    assert_close(
        F.max_pool2d(dl.tensor(image), *window, (1, 2), True).data, oracles.max_pool2d(image, *window, (1, 2), True)
    )
    expected = oracles.avg_pool2d(image, *window, True, count_include_pad=False, divisor_override=5)
    assert_close(F.avg_pool2d(dl.tensor(image), *window, True, False, 5).data, expected)


# What is refused

IMAGE = (1, 2, 5, 7)

REFUSED = {
    "image of rank 2": ((5, 7), {"kernel_size": 2}, ValueError, ["(5, 7)"]),
    "image of rank 5": ((1, *IMAGE), {"kernel_size": 2}, ValueError, ["(1, 1, 2, 5, 7)"]),
    "kernel higher than the image": (IMAGE, {"kernel_size": (6, 2)}, ValueError, ["kernel", 6, 5]),
    "kernel wider than the image": (IMAGE, {"kernel_size": (2, 10), "padding": 1}, ValueError, ["kernel", 10, 7]),
    "kernel 0": (IMAGE, {"kernel_size": (2, 0)}, ValueError, ["kernel_size", 0]),
    "stride 0": (IMAGE, {"kernel_size": 2, "stride": 0}, ValueError, ["stride", 0]),
    "negative stride": (IMAGE, {"kernel_size": 2, "stride": (1, -1)}, ValueError, ["stride", -1]),
    "three strides": (IMAGE, {"kernel_size": 2, "stride": (1, 2, 3)}, ValueError, ["stride", "(1, 2, 3)"]),
    "half a kernel": (IMAGE, {"kernel_size": 2.5}, TypeError, ["kernel_size", 2.5]),
    "negative padding": (IMAGE, {"kernel_size": 2, "padding": -1}, ValueError, ["padding", -1]),
    "padding over half of the kernel": (IMAGE, {"kernel_size": 3, "padding": 2}, ValueError, ["padding", 2, 3]),
    "padding over half of its width": (IMAGE, {"kernel_size": (4, 2), "padding": 2}, ValueError, ["padding", 2]),
}


@pytest.mark.parametrize("pool", [F.max_pool2d, F.avg_pool2d])
@pytest.mark.parametrize("shape, options, error, values", REFUSED.values(), ids=REFUSED)
def test_refuses(pool, shape, options, error, values):
    with pytest.raises(error, match=mentions(*values)):
        pool(dl.tensor(np.ones(shape)), **options)


@pytest.mark.parametrize(
    "call, values",
    [
        (lambda image: F.max_pool2d(image, 2, dilation=0), ["dilation", 0]),
        (lambda image: F.max_pool2d(image, 3, dilation=3), ["kernel", 7, 5]),
        (lambda image: F.avg_pool2d(image, 2, divisor_override=0), ["divisor_override", 0]),
        (lambda image: F.adaptive_avg_pool2d(image, (2, -1)), ["output_size", -1]),
        (lambda image: F.adaptive_avg_pool2d(image, (2, 2, 2)), ["output_size", "(2, 2, 2)"]),
        (lambda image: F.adaptive_avg_pool2d(image[0, 0], 2), ["(5, 7)"]),
    ],
    ids=shown,
)
def test_refuses_in_its_own_way(call, values):
    with pytest.raises(ValueError, match=mentions(*values)):
        call(dl.tensor(np.ones(IMAGE)))
