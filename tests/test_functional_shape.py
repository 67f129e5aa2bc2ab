"""What moves values without changing them: reshaping, transposing, indexing, joining, padding."""

import cases
import hypothesis.extra.numpy as npst
import hypothesis.strategies as st
import numpy as np
import oracles
import pytest
from cases import Case, check_gradient, check_torch, check_value, mentions, shown, torch_functional
from hypothesis import given

import minidl as dl
from minidl import functional as F

# Reshaping and transposing: one expression for tensors and arrays

MOVES = {
    "reshape": lambda x: x.reshape(4, 6),
    "reshape by a tuple": lambda x: x.reshape((3, 8)),
    "reshape with an open side": lambda x: x.reshape(2, -1),
    "flatten": lambda x: x.reshape(-1),
    "transpose": lambda x: x.transpose(2, 0, 1),
    "transpose from the end": lambda x: x.transpose(-1, 1, 0),
    "transpose all": lambda x: x.transpose(),
    "T": lambda x: x.T,
    "there and back": lambda x: x.T.reshape(6, 4).T,
}


@pytest.mark.parametrize("move", MOVES.values(), ids=MOVES)
@given(x=cases.arrays((2, 3, 4)))
def test_moves(move, x):
    check_value(move, move, Case({"x": x}, {}))
    check_gradient(move, Case({"x": x}, {}))


@pytest.mark.parametrize(
    "move, values",
    [
        (lambda x: x.reshape(5, 5), [24, 5]),
        (lambda x: x.reshape(5, -1), [5]),
        (lambda x: x.transpose(0, 1), ["axes"]),
        (lambda x: x.transpose(2, 1, 1), ["axis"]),
        (lambda x: x.transpose(3, 1, 2), [3]),
    ],
    ids=shown,
)
def test_moves_that_cannot_be_are_refused(move, values):
    with pytest.raises(ValueError, match=mentions(*values)):
        move(dl.tensor(np.ones((2, 3, 4))))


# Indexing

SHAPE = (3, 4, 2)


def check_index(x, index):
    check_value(lambda x: x[index], lambda x: x[index], Case({"x": x}, {}))
    check_gradient(lambda x: x[index], Case({"x": x}, {}))


@given(x=cases.arrays(SHAPE), index=npst.basic_indices(SHAPE, allow_newaxis=True))
def test_slices(x, index):
    check_index(x, index)


@given(x=cases.arrays(SHAPE), index=npst.integer_array_indices(SHAPE) | npst.arrays(bool, SHAPE))
def test_indices_of_arrays(x, index):
    check_index(x, index)


def test_a_value_taken_twice_gets_both_gradients():
    """`grad[index] += g` would count it once."""
    x = cases.leaf(np.zeros(3))
    x[np.array([0, 2, 0, 0])].backward(dl.tensor(np.array([1.0, 2, 4, 8])))
    assert x.grad.data.tolist() == [13, 0, 2]


def test_a_missing_place_is_refused():
    with pytest.raises(IndexError, match="3"):
        dl.tensor(np.zeros(3))[3]


# Joining


@st.composite
def joins(draw):
    shape = list(draw(cases.shapes(1, 3, most=3)))
    dim = draw(st.integers(-len(shape), len(shape) - 1))
    arrays = {}
    for name in "abc"[: draw(st.integers(1, 3))]:
        shape[dim] = draw(st.integers(0, 3))
        arrays[name] = draw(cases.arrays(tuple(shape)))
    return Case(arrays, {"dim": dim})


def joiner(cat):
    return lambda first, dim, **rest: cat([first, *rest.values()], dim)


@given(case=joins())
def test_cat(case):
    check_value(joiner(F.cat), joiner(np.concatenate), case)
    check_gradient(joiner(F.cat), case)


@given(case=joins())
def test_cat_agrees_with_pytorch(case):
    check_torch(joiner(F.cat), joiner(cases.pytorch().cat), case)


def test_cat_of_a_tensor_with_itself():
    x = cases.leaf(np.zeros(2))
    F.cat([x, dl.tensor(np.zeros(1)), x]).backward(dl.tensor(np.array([1.0, 2, 4, 8, 16])))
    assert x.grad.data.tolist() == [9, 18]


@pytest.mark.parametrize(
    "shapes, dim, values",
    [
        ([(2, 2), (2, 3)], 0, ["(2, 3)"]),
        ([(2, 2), (2, 2, 2)], 0, ["(2, 2, 2)"]),
        ([(2, 2), (2, 2)], 2, [2]),
        ([()], 0, [0]),
        ([], 0, ["cat"]),
    ],
)
def test_cat_refuses(shapes, dim, values):
    with pytest.raises(ValueError, match=mentions(*values)):
        F.cat([dl.tensor(np.ones(shape)) for shape in shapes], dim)


# Padding

REACH = {
    "constant": lambda size: (-(size // 2), 3),  # a negative margin crops
    "reflect": lambda size: (0, size - 1),
    "replicate": lambda size: (0, 4),
    "circular": lambda size: (0, size),
}


@st.composite
def paddings(draw, mode):
    """PyTorch pads the last axis of 2 or 3, or the last two of 3 or 4; with a constant, as many axes as it is told."""
    padded = draw(st.integers(1, 2))
    shape = draw(cases.shapes(padded if mode == "constant" else padded + 1, padded + 2, most=4))
    margins = [st.integers(*REACH[mode](size)) for size in reversed(shape[-padded:])]
    options = {"pad": tuple(draw(margin) for margin in margins for _ in range(2)), "mode": mode}
    if mode == "constant":
        options |= cases.some_options(draw, value=st.none() | st.floats(-5, 5))
    return Case({"input": draw(cases.arrays(shape))}, options)


@pytest.mark.parametrize("mode", REACH)
@given(data=st.data())
def test_pad(mode, data):
    case = data.draw(paddings(mode))
    check_value(F.pad, oracles.pad, case)
    check_gradient(F.pad, case)


@pytest.mark.parametrize("mode", REACH)
@given(data=st.data())
def test_pad_agrees_with_pytorch(mode, data):
    check_torch(F.pad, torch_functional("pad"), data.draw(paddings(mode)))


@pytest.mark.parametrize(
    "margins, mode, values",
    [
        ((1, 2, 3), "constant", ["(1, 2, 3)"]),  # an odd number of margins
        ((1,) * 10, "constant", [4]),  # more axes than there are
        ((-3, -3), "constant", [-3]),  # nothing left
        ((5, 0, 0, 0), "reflect", [5]),
        ((6, 0, 0, 0), "circular", [6]),
        ((1, 1), "mirror", ["mirror", "reflect"]),
    ],
)
def test_pad_refuses(margins, mode, values):
    with pytest.raises(ValueError, match=mentions(*values)):
        F.pad(dl.tensor(np.ones((1, 1, 5, 5))), margins, mode)


@pytest.mark.parametrize("amounts", [1, 1.5, "12", (1.5, 1), ("1", "1")], ids=repr)
def test_pad_takes_a_tuple_of_whole_numbers(amounts):
    with pytest.raises(TypeError, match=mentions("pad: amounts are a tuple", repr(amounts))):
        F.pad(dl.tensor([1.0, 2.0]), amounts)


@pytest.mark.parametrize("tensors, said", [
    (np.ones((2, 3)), "takes a list of tensors; got a ndarray"), ([None, np.ones(2)], "number 0 is a NoneType"),
])
def test_cat_takes_a_list_of_tensors(tensors, said):
    with pytest.raises(TypeError, match=f"cat: .*{said}"):
        F.cat(tensors)
