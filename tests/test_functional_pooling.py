"""Max, average and adaptive pooling: where the windows lie, who wins, and where the gradient goes (claim D9)."""

import time

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


# Large windows

LARGE = {
    "the whole image": {"kernel_size": (11, 13)}, "half of it": {"kernel_size": (6, 7)},
    "half of it, everywhere": {"kernel_size": 6, "stride": 1}, "one row": {"kernel_size": (1, 13), "stride": 2},
    "one column, padded": {"kernel_size": (9, 1), "stride": 1, "padding": (4, 0)},
    "almost nothing of it": {"kernel_size": (10, 12), "stride": (2, 3), "padding": (5, 6)},
    "sticking out": {"kernel_size": 8, "stride": 5, "padding": 2, "ceil_mode": True},
}


@pytest.mark.parametrize("options", LARGE.values(), ids=LARGE)
@pytest.mark.parametrize("name", ["max_pool2d", "avg_pool2d"])
def test_large_windows_are_windows(name, options):
    image = np.random.default_rng(0).integers(-3, 4, (2, 2, 11, 13)).astype(float)  # with many ties
    case = Case({"input": image}, options)
    check_value(getattr(F, name), getattr(oracles, name), case)
    if name == "avg_pool2d":
        check_gradient(getattr(F, name), case)


@pytest.mark.parametrize("options", LARGE.values(), ids=LARGE)
def test_the_gradient_of_a_large_window_goes_to_its_first_maximum_or_last_nan(options):
    torch = cases.pytorch()
    rng = np.random.default_rng(0)
    for nans in (0, 9):
        image = rng.integers(-3, 4, (2, 2, 11, 13)).astype(float)
        image.reshape(-1)[rng.choice(image.size, nans, replace=False)] = np.nan
        x, theirs = cases.leaf(image), torch.tensor(image, requires_grad=True)
        y, expected = F.max_pool2d(x, **options), torch.nn.functional.max_pool2d(theirs, **options)
        g = rng.standard_normal(y.shape)
        y.backward(dl.tensor(g))
        expected.backward(torch.tensor(g))
        np.testing.assert_array_equal(y.data, expected.detach().numpy())
        np.testing.assert_allclose(x.grad.data, theirs.grad.numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name, oracle", [("max_pool2d", np.max), ("avg_pool2d", np.mean)])
def test_a_window_over_a_large_image_costs_what_its_pixels_cost(name, oracle):
    image = np.random.default_rng(0).standard_normal((1, 1, 700, 700)).astype(np.float32)
    started = time.process_time()
    x = dl.tensor(image, requires_grad=True)
    y = getattr(F, name)(x, 700)
    y.sum().backward()
    assert time.process_time() - started < 1  # 490,000 passes over an output took 26 s
    np.testing.assert_allclose(y.item(), oracle(image.astype(float)), rtol=1e-5)
    np.testing.assert_allclose(x.grad.data.sum(), 1, rtol=1e-4)


def test_an_infinite_gradient_stays_where_the_maximum_is():
    x = dl.tensor(np.arange(16.0).reshape(1, 4, 4), requires_grad=True)
    F.max_pool2d(x, 2).backward(np.array([[[np.inf, 1], [2, np.nan]]]))
    np.testing.assert_array_equal(x.grad.data[0, 1::2, 1::2], [[np.inf, 1], [2, np.nan]])
    assert np.count_nonzero(x.grad.data) == 4


@pytest.mark.parametrize("stride", [5, 10**6, 10**18])
def test_a_stride_beyond_the_image_costs_nothing(stride):
    x = dl.tensor(np.arange(16.0).reshape(1, 4, 4))
    assert F.max_pool2d(x, 2, stride).data.tolist() == [[[5]]]
    assert F.avg_pool2d(x, 2, stride).data.tolist() == [[[2.5]]]


def test_whole_numbers_have_a_maximum_and_padding_is_never_it():
    for dtype in ("int8", "uint8", "int64"):
        lowest = np.iinfo(dtype).min
        x = dl.tensor(np.full((1, 2, 2), lowest, dtype))
        np.testing.assert_array_equal(F.max_pool2d(x, 2, 1, 1).data, np.full((1, 3, 3), lowest, dtype), strict=True)
