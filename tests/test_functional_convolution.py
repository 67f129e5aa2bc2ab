"""Convolution, its transpose, and the two halves of it that the lecture derives (claim D8): im2col and col2im."""

import tracemalloc

import cases
import hypothesis.strategies as st
import numpy as np
import oracles
import pytest
from cases import Case, assert_close, check_gradient, check_torch, check_value, cotangent, mentions, torch_functional
from hypothesis import given, settings

import minidl as dl
from minidl import functional as F

# PyTorch says that an even `same` kernel costs it a copy; its value is what we ask for
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")


@st.composite
def foldings(draw):
    """A col2im call, with columns of the shape that im2col gives a drawn image."""
    arrays, options = draw(cases.unfoldings())
    columns = draw(cases.arrays(oracles.im2col(arrays["input"], **options).shape))
    return Case({"columns": columns}, {"output_size": arrays["input"].shape[-2:], **options})


CASES = {
    "conv2d": cases.convolutions(),
    "conv_transpose2d": cases.transposed_convolutions(),
    "im2col": cases.unfoldings(),
    "col2im": foldings(),
}
PEERS = {"im2col": "unfold", "col2im": "fold"}


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
    check_torch(getattr(F, name), torch_functional(PEERS.get(name, name)), data.draw(CASES[name]))


@given(case=CASES["conv2d"].filter(lambda case: case.arrays["input"].ndim == 4))
def test_gradients_are_those_of_the_naive_loops(case):
    arrays = {**case.arrays, "bias": np.zeros(len(case.arrays["weight"]))}
    result, leaves, _ = cases.call(F.conv2d, Case(arrays, case.options), cases.leaf, cases.constant)
    g = cotangent(result.shape)
    result.backward(dl.tensor(g))
    expected = oracles.conv2d_gradients(arrays["input"], arrays["weight"], g, **case.options)
    for name, gradient in zip(("input", "weight", "bias"), expected, strict=True):
        assert_close(leaves[name].grad.data, gradient, what=f"gradient of {name}")


# What the parts have to do with each other


@pytest.mark.parametrize("stride, padding, dilation, groups", [(1, 0, 1, 1), ((2, 1), (1, 0), (1, 2), 2), (3, 1, 2, 1)])
def test_transposed_convolution_is_the_gradient_of_convolution(stride, padding, dilation, groups):
    rng = np.random.default_rng(0)
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    x, weight = rng.standard_normal((2, 4, 7, 10)), dl.tensor(rng.standard_normal((6, 4 // groups, 3, 2)))
    leaf = cases.leaf(x)
    result = F.conv2d(leaf, weight, **options)
    g = dl.tensor(cotangent(result.shape))
    result.backward(g)
    shortest = F.conv_transpose2d(g, weight, **options)
    rest = tuple(
        long - short for long, short in zip(x.shape[2:], shortest.shape[2:], strict=True)
    )  # pixels that the stride never reached
    assert_close(F.conv_transpose2d(g, weight, output_padding=rest, **options).data, leaf.grad.data)


@pytest.mark.parametrize(
    "options",
    [
        {"dilation": 2, "output_padding": 1},
        {"dilation": (1, 3), "output_padding": (0, 2)},
        {"stride": 2, "dilation": 3, "output_padding": 2},
    ],
)
def test_output_padding_may_reach_past_the_last_window(options):
    """As much as the stride or more, where the dilation allows it: rows that no input reaches, and hold the bias."""
    rng = np.random.default_rng(0)
    image, weight = rng.standard_normal((2, 2, 2, 3)), rng.standard_normal((2, 1, 2, 1))
    case = Case({"input": image, "weight": weight, "bias": np.ones(1)}, options)
    check_value(F.conv_transpose2d, oracles.conv_transpose2d, case)
    check_gradient(F.conv_transpose2d, case)


def test_the_kernel_is_not_flipped():
    """Deep learning's convolution is the cross-correlation: the kernel's values read left to right, as they lie."""
    image, kernel = np.array([[[[0.0, 1, 10, 100]]]]), np.array([[[[1.0, 2, 3]]]])
    assert F.conv2d(dl.tensor(image), dl.tensor(kernel)).data.tolist() == [[[[32, 321]]]]


@pytest.mark.parametrize("kernel", [(1, 1), (2, 3), (4, 2), (3, 5)])
@pytest.mark.parametrize("dilation", [1, (2, 3)])
def test_same_padding_keeps_the_size(kernel, dilation):
    image, weight = np.ones((1, 2, 6, 5)), np.ones((3, 2, *kernel))
    result = F.conv2d(dl.tensor(image), dl.tensor(weight), padding="same", dilation=dilation)
    assert result.shape == (1, 3, 6, 5)
    assert_close(result.data, oracles.conv2d(image, weight, padding="same", dilation=dilation))


def test_arguments_may_be_positional():
    rng = np.random.default_rng(0)
    x, w, b = rng.standard_normal((1, 4, 7, 6)), rng.standard_normal((4, 2, 2, 3)), rng.standard_normal(4)
    expected = oracles.conv2d(x, w, b, stride=(2, 1), padding=(1, 0), dilation=(1, 2), groups=2)
    assert_close(F.conv2d(*map(dl.tensor, (x, w, b)), (2, 1), (1, 0), (1, 2), 2).data, expected)
    expected = oracles.conv_transpose2d(x, w, b, (2, 3), (1, 0), (1, 2), 2, (2, 1))
    assert_close(F.conv_transpose2d(*map(dl.tensor, (x, w, b)), (2, 3), (1, 0), (1, 2), 2, (2, 1)).data, expected)


def test_numbers_may_be_those_of_numpy():
    image, weight = np.ones((1, 1, 5, 7)), np.ones((1, 1, 3, 3))
    two = np.int64(2)
    assert F.conv2d(dl.tensor(image), dl.tensor(weight), stride=two, padding=(two, two)).shape == (1, 1, 4, 5)


# What is refused


def tensors(*shapes):
    return [dl.tensor(np.ones(shape)) for shape in shapes]


IMAGE, WEIGHT = (1, 4, 5, 7), (6, 4, 3, 3)

REFUSED = {
    "image of rank 2": ([(5, 7), WEIGHT], {}, ValueError, ["(5, 7)"]),
    "image of rank 5": ([(1, *IMAGE), WEIGHT], {}, ValueError, ["(1, 1, 4, 5, 7)"]),
    "weight of rank 3": ([IMAGE, (4, 3, 3)], {}, ValueError, ["weight", "(4, 3, 3)"]),
    "bias of rank 2": ([IMAGE, WEIGHT, (6, 1)], {}, ValueError, ["bias", "(6, 1)"]),
    "bias for other filters": ([IMAGE, WEIGHT, (5,)], {}, ValueError, ["bias", 5, 6]),
    "other channels": ([(1, 3, 5, 7), WEIGHT], {}, ValueError, ["channels", 3, 4]),
    "other channels per group": ([IMAGE, WEIGHT], {"groups": 2}, ValueError, ["channels", 4, 2]),
    "groups that do not divide the channels": ([IMAGE, (6, 1, 3, 3)], {"groups": 3}, ValueError, ["groups", 3, 4]),
    "groups that do not divide the filters": ([IMAGE, (5, 2, 3, 3)], {"groups": 2}, ValueError, ["groups", 2, 5]),
    "no groups": ([IMAGE, WEIGHT], {"groups": 0}, ValueError, ["groups", 0]),
    "negative groups": ([IMAGE, WEIGHT], {"groups": -1}, ValueError, ["groups", -1]),
    "kernel higher than the image": ([IMAGE, (6, 4, 6, 3)], {}, ValueError, ["kernel", 6, 5]),
    "kernel wider than the image": ([IMAGE, (6, 4, 3, 10)], {"padding": 1}, ValueError, ["kernel", 10, 7]),
    "kernel dilated beyond the image": ([IMAGE, WEIGHT], {"dilation": (3, 1)}, ValueError, ["dilat", 7, 5]),
    "stride 0": ([IMAGE, WEIGHT], {"stride": 0}, ValueError, ["stride", 0]),
    "negative stride": ([IMAGE, WEIGHT], {"stride": (1, -2)}, ValueError, ["stride", -2]),
    "three strides": ([IMAGE, WEIGHT], {"stride": (1, 2, 3)}, ValueError, ["stride", "(1, 2, 3)"]),
    "half a stride": ([IMAGE, WEIGHT], {"stride": 1.5}, TypeError, ["stride", 1.5]),
    "negative padding": ([IMAGE, WEIGHT], {"padding": -1}, ValueError, ["padding", -1]),
    "padding of no known name": ([IMAGE, WEIGHT], {"padding": "full"}, ValueError, ["padding", "full"]),
    "same with a stride": ([IMAGE, WEIGHT], {"padding": "same", "stride": 2}, ValueError, ["same", "stride"]),
    "dilation 0": ([IMAGE, WEIGHT], {"dilation": 0}, ValueError, ["dilation", 0]),
}


@pytest.mark.parametrize("shapes, options, error, values", REFUSED.values(), ids=REFUSED)
def test_conv2d_refuses(shapes, options, error, values):
    with pytest.raises(error, match=mentions(*values)):
        F.conv2d(*tensors(*shapes), **options)


REFUSED_TRANSPOSED = {
    "image of rank 2": ([(5, 7), (4, 6, 3, 3)], {}, ValueError, ["(5, 7)"]),
    "other channels": ([IMAGE, (3, 6, 3, 3)], {}, ValueError, ["channels", 3, 4]),
    "groups that do not divide": ([IMAGE, (4, 6, 3, 3)], {"groups": 3}, ValueError, ["groups", 3, 4]),
    "bias for other filters": ([IMAGE, (4, 6, 3, 3), (5,)], {}, ValueError, ["bias", 5, 6]),
    "negative stride": ([IMAGE, (4, 6, 3, 3)], {"stride": -1}, ValueError, ["stride", -1]),
    "negative padding": ([IMAGE, (4, 6, 3, 3)], {"padding": (0, -2)}, ValueError, ["padding", -2]),
    "as much output padding as stride": (
        [IMAGE, (4, 6, 3, 3)],
        {"stride": 2, "output_padding": 2},
        ValueError,
        ["output_padding", 2],
    ),
    "nothing left of the output": ([(1, 4, 1, 1), (4, 6, 3, 3)], {"padding": 2}, ValueError, ["padding", 2]),
}


@pytest.mark.parametrize("shapes, options, error, values", REFUSED_TRANSPOSED.values(), ids=REFUSED_TRANSPOSED)
def test_conv_transpose2d_refuses(shapes, options, error, values):
    with pytest.raises(error, match=mentions(*values)):
        F.conv_transpose2d(*tensors(*shapes), **options)


@pytest.mark.parametrize(
    "shape, arguments, values",
    [
        ((2, 5), ((2, 2), 2), ["(2, 5)"]),
        ((2, 5, 6), (4, 2), [5, 4]),  # 5 rows are no multiple of a 2 × 2 kernel
        ((2, 4, 5), (4, 2), [5, 9]),  # 9 windows fit where 5 columns are given
        ((2, 4, 9), (4, 2, 0), ["stride", 0]),
    ],
)
def test_col2im_refuses(shape, arguments, values):
    with pytest.raises(ValueError, match=mentions(*values)):
        F.col2im(*tensors(shape), *arguments)


@pytest.mark.parametrize("options, values", [({"kernel_size": 6}, [6, 5]), ({"kernel_size": 0}, ["kernel_size", 0])])
def test_im2col_refuses(options, values):
    with pytest.raises(ValueError, match=mentions(*values)):
        F.im2col(*tensors(IMAGE), **options)


# Windows far apart

FAR = {
    "one pixel each": {"stride": (6, 7)}, "with padding": {"stride": (9, 8), "padding": (4, 3)},
    "dilated": {"stride": 7, "dilation": (2, 1), "padding": 2}, "in groups": {"stride": (5, 6), "groups": 2},
}


@pytest.mark.parametrize("options", FAR.values(), ids=FAR)
def test_windows_that_do_not_touch_are_convolved(options):
    rng = np.random.default_rng(0)
    shapes = {"input": (2, 4, 13, 15), "weight": (4, 4 // options.get("groups", 1), 2, 3), "bias": (4,)}
    case = Case({name: rng.standard_normal(shape) for name, shape in shapes.items()}, options)
    check_value(F.conv2d, oracles.conv2d, case)
    check_gradient(F.conv2d, case)


def test_what_lies_between_far_windows_takes_no_memory():
    tracemalloc.start()
    x, w = (dl.tensor(np.ones((1, 1, 1, 1)), requires_grad=True) for _ in range(2))
    y = F.conv2d(x, w, padding=6000, stride=6000)
    y.sum().backward()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert y.data.tolist() == [[[[0, 0, 0], [0, 1, 0], [0, 0, 0]]]] and x.grad.item() == w.grad.item() == 1
    assert peak < 1 << 20  # the padded image alone would take a gigabyte


@pytest.mark.parametrize("option", ["stride", "padding", "dilation"])
def test_a_number_that_no_memory_reaches_is_refused(option):
    with pytest.raises(ValueError, match=mentions("conv2d", option, 2**70)):
        F.conv2d(dl.tensor(np.ones((1, 4, 4))), dl.tensor(np.ones((1, 1, 2, 2))), **{option: 2**70})
