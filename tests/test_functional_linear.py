"""y = x Wᵀ + b for any number of leading axes."""

import cases
import hypothesis.strategies as st
import numpy as np
import oracles
import pytest
from cases import Case, check_gradient, check_torch, check_value, mentions, torch_functional
from hypothesis import given

import minidl as dl
from minidl import functional as F


@st.composite
def linears(draw):
    inputs, outputs = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    batch = draw(cases.shapes(0, 3, least=0, most=3))
    arrays = {"input": draw(cases.arrays((*batch, inputs))), "weight": draw(cases.arrays((outputs, inputs)))}
    return Case(draw(cases.with_bias(arrays, outputs)), {})


@given(case=linears())
def test_value_is_that_of_the_naive_loops(case):
    check_value(F.linear, oracles.linear, case)


@given(case=linears())
def test_gradients_are_finite_differences(case):
    check_gradient(F.linear, case)


@given(case=linears())
def test_agrees_with_pytorch(case):
    check_torch(F.linear, torch_functional("linear"), case)


@pytest.mark.parametrize(
    "shapes, values",
    [
        ([(2, 3), (5, 4)], [3, 4]),
        ([(2, 3), (5, 3), (4,)], ["bias", 4, 5]),
        ([(2, 3), (1, 5, 3)], ["weight", "(1, 5, 3)"]),
        ([(), (5, 3)], ["()"]),
    ],
)
def test_refuses(shapes, values):
    with pytest.raises(ValueError, match=mentions(*values)):
        F.linear(*(dl.tensor(np.ones(shape)) for shape in shapes))
