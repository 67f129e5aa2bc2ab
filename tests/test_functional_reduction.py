"""Sum, mean, maximum and minimum over any axes; and of equal values only the first counts."""

import cases
import hypothesis.strategies as st
import numpy as np
import pytest
from cases import Case, check_gradient, check_torch, check_value, mentions
from hypothesis import given

import minidl as dl

REDUCTIONS = {"sum": "sum", "mean": "mean", "max": "amax", "min": "amin"}  # and what PyTorch calls them


@st.composite
def reductions(draw):
    shape = draw(cases.shapes(0, 3, most=3))
    axes = st.integers(-len(shape), len(shape) - 1) if shape else st.nothing()
    several = st.lists(axes, unique_by=lambda axis: axis % len(shape), min_size=1).map(tuple)
    options = cases.some_options(draw, axis=st.none() | axes | several, keepdims=st.booleans())
    return Case({"x": draw(cases.arrays(shape, "distinct"))}, options)


def peer(torch, name):
    def reduce(x, axis=None, keepdims=False):
        axis = tuple(range(x.ndim)) if axis is None else axis
        return getattr(torch, name)(x, dim=axis, keepdim=keepdims)

    return reduce


@pytest.mark.parametrize("name", REDUCTIONS)
@given(case=reductions())
def test_reductions(name, case):
    ours = getattr(dl.Tensor, name)
    check_value(ours, getattr(np, name), case)
    check_gradient(ours, case)


@pytest.mark.parametrize("name", REDUCTIONS)
@given(case=reductions())
def test_agree_with_pytorch(name, case):
    check_torch(getattr(dl.Tensor, name), peer(cases.pytorch(), REDUCTIONS[name]), case)


@pytest.mark.parametrize("axis", [None, 0, (0, 1), -1])
@pytest.mark.parametrize("name", ["max", "min"])
def test_a_tie_has_one_winner(name, axis):
    """One gradient arrives for each result and one leaves, to the first of equal values."""
    x = cases.leaf(np.zeros((2, 3)))
    result = getattr(x, name)(axis=axis)
    result.backward(dl.tensor(np.ones(result.shape)))
    first = {None: [[1, 0, 0], [0, 0, 0]], 0: [[1, 1, 1], [0, 0, 0]], -1: [[1, 0, 0], [1, 0, 0]]}
    assert x.grad.data.tolist() == first[None if axis == (0, 1) else axis]


@pytest.mark.parametrize("name", REDUCTIONS)
@pytest.mark.parametrize("axis", [2, -3, (0, 2)])
def test_an_axis_that_is_not_there_is_refused(name, axis):
    with pytest.raises(ValueError, match=mentions(max(axis) if isinstance(axis, tuple) else axis)):
        getattr(dl.tensor(np.ones((2, 3))), name)(axis=axis)


@pytest.mark.parametrize("name", ["max", "min"])
def test_nothing_has_no_extreme(name):
    with pytest.raises(ValueError, match="(?i)empty|zero-size|no identity"):
        getattr(dl.tensor(np.ones((0, 3))), name)(axis=0)
