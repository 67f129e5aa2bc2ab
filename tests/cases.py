"""What the tests of the operations share: calls drawn by hypothesis, and the three judges that every call must satisfy.

The judges: the naive loops of `oracles`, finite differences (`gradcheck`), and PyTorch where it is installed.
Shapes are tiny and never square on purpose; strides differ from kernels, windows do not tile, batches are sometimes
empty or missing, and memory is laid out in every way that NumPy allows.
"""

import math
import re
from typing import NamedTuple

import hypothesis.strategies as st
import numpy as np
import pytest
from oracles import pair

import minidl as dl

# Calls and their judges


class Case(NamedTuple):
    """One call: arrays that get a gradient (the first is passed by position), and all the rest, passed by name."""

    arrays: dict
    options: dict


def call(function, case, leaf, constant):
    """The result, the leaves and the constants by name; `leaf` and `constant` turn the case's arrays into tensors."""
    leaves = {name: leaf(array) for name, array in case.arrays.items()}
    constants = {name: constant(value) for name, value in case.options.items() if isinstance(value, np.ndarray)}
    (_, first), *named = leaves.items()
    return function(first, **dict(named), **{**case.options, **constants}), leaves, constants


def leaf(array):
    return dl.tensor(array, requires_grad=True)


def constant(array):
    return dl.tensor(array.copy())  # a copy, for running statistics move


def cotangent(shape):
    """A random gradient to start from: ones would hide every error that sums to zero, as softmax's do."""
    return np.random.default_rng(0).standard_normal(shape)


def assert_close(actual, expected, tolerance=1e-10, what="value"):
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, f"{what} has shape {actual.shape} instead of {expected.shape}"
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance, err_msg=what)


def check_value(ours, oracle, case):
    """The oracle's value; and the arguments as the oracle leaves them: running statistics moved, all else untouched."""
    result, leaves, constants = call(ours, case, leaf, constant)
    expected, expected_leaves, expected_constants = call(oracle, case, np.copy, np.copy)
    assert_close(result.data, expected)
    for name, array in {**expected_leaves, **expected_constants}.items():
        assert_close({**leaves, **constants}[name].data, array, what=f"{name} after the call")


def check_gradient(ours, case):
    """Finite differences in every direction of every array."""

    def function(*tensors):
        given = iter(tensors)
        return call(ours, case, lambda _: next(given), constant)[0]

    dl.gradcheck(function, list(case.arrays.values()))


def pytorch():
    """PyTorch on one thread: on arrays this small, its threads only wait for each other and for other processes."""
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    return torch


def check_torch(ours, theirs, case):
    """PyTorch's value, its gradients of a random cotangent, and its effect on the arguments."""
    torch = pytorch()
    result, leaves, constants = call(ours, case, leaf, constant)
    expected, peers, peer_constants = call(
        theirs,
        case,
        lambda array: torch.tensor(array.copy(), requires_grad=True),
        lambda array: torch.tensor(array.copy()),
    )
    assert_close(result.data, expected.detach().numpy())
    g = cotangent(result.shape)
    result.backward(dl.tensor(g))
    expected.backward(torch.tensor(g))
    for name, peer in peers.items():
        assert leaves[name].grad is not None, f"{name} got no gradient"
        assert_close(leaves[name].grad.data, peer.grad.numpy(), what=f"gradient of {name}")
    for name, peer in peer_constants.items():
        assert_close(constants[name].data, peer.numpy(), what=f"{name} after the call")


def torch_functional(name):
    return getattr(pytorch().nn.functional, name)


def gradients(function, *arrays):
    """The gradients of a random projection of `function`, one for each array."""
    tensors = [leaf(array) for array in arrays]
    result = function(*tensors)
    result.backward(dl.tensor(cotangent(result.shape).astype(result.dtype)))
    return [tensor.grad.data for tensor in tensors]


def mentions(*values):
    """A pattern for `pytest.raises(match=…)`: every one of the values is in the message, in whatever order."""
    return "(?s)" + "".join(f"(?=.*{re.escape(str(value))})" for value in values)


def shown(parameter):
    """The id of a parameter: what it is, and nothing for code."""
    return "" if callable(parameter) else str(parameter)


# Arrays

LAYOUTS = {
    "rows first": lambda array: array,
    "columns first": lambda array: array.T.copy().T,
    "backwards": lambda array: np.flip(np.flip(array).copy()),
    "with gaps": lambda array: np.stack([array, array], axis=-1)[..., 0],
}

VALUES = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    # apart from each other and from zero by far more than the step of finite differences: no kink is near
    "distinct": lambda rng, shape: (rng.permutation(math.prod(shape)) - math.prod(shape) // 2 + 0.5).reshape(shape) / 8,
    "tied": lambda rng, shape: rng.integers(-2, 2, shape).astype(float),
    "positive": lambda rng, shape: rng.uniform(0.5, 2, shape),
    "probability": lambda rng, shape: rng.uniform(0.05, 0.95, shape),
}

generators = st.integers(0, 2**32 - 1).map(np.random.default_rng)


@st.composite
def arrays(draw, shape, values="normal"):
    """Hypothesis chooses the shape, the seed and the memory layout; the numbers come from the seed, which is quick."""
    layout = draw(st.sampled_from(sorted(LAYOUTS)))
    return np.asarray(LAYOUTS[layout](np.asarray(VALUES[values](draw(generators), shape))))


def shapes(least_axes=1, most_axes=4, least=1, most=4):
    return st.lists(st.integers(least, most), min_size=least_axes, max_size=most_axes).map(tuple)


# Images under windows


def pairs(low, high):
    """One number for both axes, or one for each."""
    return st.integers(low, high) | st.tuples(st.integers(low, high), st.integers(low, high))


@st.composite
def images(draw, channels, height, width, values="normal"):
    batch = draw(st.sampled_from([(2,), (1,), (), (2,), (0,)]))
    return draw(arrays((*batch, channels, height, width), values))


@st.composite
def sides(draw, kernel, padding=0, dilation=1, slack=3):
    """An input side for each axis: the least that the kernel needs, or up to `slack` more."""
    return [
        max(1, d * (k - 1) + 1 - 2 * p) + draw(st.integers(0, slack))
        for k, p, d in zip(pair(kernel), pair(padding), pair(dilation), strict=True)
    ]


def some_options(draw, **drawn):
    """A few of the options at a time, so that the defaults are tested too."""
    return {name: draw(strategy) for name, strategy in drawn.items() if draw(st.booleans())}


@st.composite
def with_bias(draw, tensors, filters):
    return {**tensors, "bias": draw(arrays((filters,)))} if draw(st.booleans()) else tensors


@st.composite
def convolutions(draw):
    groups, kernel = draw(st.integers(1, 3)), (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    depth, filters = draw(st.integers(1, 2)), groups * draw(st.integers(1, 2))
    options = some_options(
        draw,
        stride=pairs(1, 3),
        padding=pairs(0, 2) | st.sampled_from(["same", "valid"]),
        dilation=pairs(1, 2),
    )
    if options.get("padding") == "same":
        options.pop("stride", None)  # refused together, as in PyTorch
    if groups > 1:
        options["groups"] = groups
    padding = options.get("padding", 0)
    room = 0 if isinstance(padding, str) else padding
    height, width = draw(sides(kernel, room, options.get("dilation", 1)))
    tensors = {
        "input": draw(images(groups * depth, height, width)),
        "weight": draw(arrays((filters, depth, *kernel))),
    }
    return Case(draw(with_bias(tensors, filters)), options)


@st.composite
def transposed_convolutions(draw):
    groups, kernel = draw(st.integers(1, 2)), (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    channels, depth = groups * draw(st.integers(1, 2)), draw(st.integers(1, 2))
    options = some_options(draw, stride=pairs(1, 3), padding=pairs(0, 1), dilation=pairs(1, 2))
    stride, padding, dilation = (
        pair(options.get(name, d)) for name, d in (("stride", 1), ("padding", 0), ("dilation", 1))
    )
    if draw(st.booleans()):  # always less than the stride or the dilation
        options["output_padding"] = tuple(
            draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True)
        )
    if groups > 1:
        options["groups"] = groups
    # a side of 1 + 2p leaves an output of at least one pixel after the border is cut off
    height, width = (1 + 2 * p + draw(st.integers(0, 2)) for p in padding)
    tensors = {"input": draw(images(channels, height, width)), "weight": draw(arrays((channels, depth, *kernel)))}
    return Case(draw(with_bias(tensors, groups * depth)), options)


@st.composite
def unfoldings(draw):
    options = {"kernel_size": draw(pairs(1, 3))}
    options |= some_options(draw, stride=pairs(1, 3), padding=pairs(0, 2), dilation=pairs(1, 2))
    height, width = draw(sides(options["kernel_size"], options.get("padding", 0), options.get("dilation", 1)))
    return Case({"input": draw(images(draw(st.integers(1, 2)), height, width))}, options)


@st.composite
def pools(draw, values="distinct", average=False):
    """A pool's call. PyTorch allows padding up to half of the kernel, and so do we."""
    kernel = draw(pairs(1, 4))
    options = {"kernel_size": kernel, **some_options(draw, stride=pairs(1, 4), ceil_mode=st.just(True))}
    options |= some_options(draw, padding=st.tuples(*(st.integers(0, k // 2) for k in pair(kernel))))
    if average:
        options |= some_options(draw, count_include_pad=st.booleans(), divisor_override=st.integers(1, 7))
    else:
        options |= some_options(draw, dilation=pairs(1, 2))
    dilation = pair(options.get("dilation", 1))
    height, width = draw(sides(kernel, options.get("padding", 0), dilation))
    if options.get("ceil_mode"):  # then the only window may hang over the edge, with a part of it inside
        overhang = [draw(st.integers(0, s - 1)) for s in pair(options.get("stride", kernel))]
        height, width = (max(d, side - o) for side, o, d in zip((height, width), overhang, dilation, strict=True))
    height, width = (max(d, side) for side, d in zip((height, width), dilation, strict=True))
    return Case({"input": draw(images(draw(st.integers(1, 3)), height, width, values))}, options)


@st.composite
def adaptive_pools(draw):
    wanted = st.integers(1, 5)
    output_size = draw(wanted | st.tuples(wanted | st.none(), wanted | st.none()))
    image = draw(images(draw(st.integers(1, 3)), draw(st.integers(1, 6)), draw(st.integers(1, 6))))
    return Case({"input": image}, {"output_size": output_size})
