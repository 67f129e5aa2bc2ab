"""The operators and elementary functions of a tensor: NumPy's values and broadcasting, PyTorch's gradients."""

import cases
import hypothesis.extra.numpy as npst
import hypothesis.strategies as st
import numpy as np
import pytest
from cases import Case, assert_close, check_gradient, check_torch, check_value, mentions, shown
from hypothesis import given

import minidl as dl

# one expression each, true of tensors, of arrays and of PyTorch's tensors alike
BINARY = {
    "a + b": lambda a, b: a + b,
    "a - b": lambda a, b: a - b,
    "a * b": lambda a, b: a * b,
    "a / b": lambda a, b: a / b,
    "a ** b": lambda a, b: a**b,
    "a * a - b / a": lambda a, b: a * a - b / a,  # one tensor in many places
}

UNARY = {
    "-x": (lambda x: -x, lambda x: -x),
    "3 + x": (lambda x: 3 + x, lambda x: 3 + x),
    "3 - x": (lambda x: 3 - x, lambda x: 3 - x),
    "3 * x": (lambda x: 3 * x, lambda x: 3 * x),
    "3 / x": (lambda x: 3 / x, lambda x: 3 / x),
    "3 ** x": (lambda x: 3**x, lambda x: 3**x),
    "x / 3": (lambda x: x / 3, lambda x: x / 3),
    "x ** -1.5": (lambda x: x**-1.5, lambda x: x**-1.5),
    "exp": (lambda x: x.exp(), np.exp),
    "log": (lambda x: x.log(), np.log),
    "sqrt": (lambda x: x.sqrt(), np.sqrt),
    "tanh": (lambda x: x.tanh(), np.tanh),
    "abs": (lambda x: x.abs(), np.abs),
    "abs of a negative": (lambda x: (-x).abs(), np.abs),
}


@st.composite
def broadcasting(draw):
    shapes = draw(npst.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, max_side=3, min_side=0)).input_shapes
    return Case({name: draw(cases.arrays(shape, "positive")) for name, shape in zip("ab", shapes, strict=True)}, {})


@st.composite
def single(draw):
    return Case({"x": draw(cases.arrays(draw(cases.shapes(0, 3, least=0, most=3)), "positive"))}, {})


@pytest.mark.parametrize("operator", BINARY.values(), ids=BINARY)
@given(case=broadcasting())
def test_operators_broadcast(operator, case):
    check_value(operator, operator, case)
    check_gradient(operator, case)


@pytest.mark.parametrize("operator", BINARY.values(), ids=BINARY)
@given(case=broadcasting())
def test_operators_agree_with_pytorch(operator, case):
    check_torch(operator, operator, case)


@pytest.mark.parametrize("function, numpys", UNARY.values(), ids=UNARY)
@given(case=single())
def test_functions_of_one_tensor(function, numpys, case):
    check_value(function, numpys, case)
    check_gradient(function, case)


@pytest.mark.parametrize("function", [function for function, _ in UNARY.values()], ids=UNARY)
@given(case=single())
def test_functions_agree_with_pytorch(function, case):
    check_torch(function, function, case)


@pytest.mark.parametrize("exponent", [3, 2, 1, 0, 2.0])
def test_whole_powers_of_what_is_not_positive(exponent):
    """No logarithm may creep in: d/dx xⁿ = n xⁿ⁻¹ at zero and below, and 0 for n = 0."""
    x = cases.leaf(np.array([-2.0, 0.0, 1.5]))
    result = x**exponent
    result.sum().backward()
    assert_close(result.data, x.data**exponent)
    assert_close(x.grad.data, exponent * x.data ** max(exponent - 1, 0))


def test_abs_has_slope_zero_at_zero():
    x = cases.leaf(np.array([-2.0, 0.0, 3.0]))
    x.abs().sum().backward()
    assert x.grad.data.tolist() == [-1, 0, 1]


# Products

PRODUCTS = [
    ((3,), (3,)),
    ((2, 3), (3,)),
    ((3,), (3, 2)),
    ((2, 3), (3, 4)),
    ((5, 2, 3), (3,)),
    ((3,), (5, 3, 2)),
    ((5, 2, 3), (3, 4)),
    ((2, 3), (5, 3, 1)),
    ((5, 2, 3), (5, 3, 4)),
    ((2, 1, 2, 3), (4, 3, 2)),
    ((0, 3), (3, 2)),
    ((2, 0), (0, 3)),
]


def product(a, b):
    return a @ b


@pytest.fixture(params=PRODUCTS, ids=str)
def factors(request):
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal(shape) for name, shape in zip("ab", request.param, strict=True)}


@pytest.mark.parametrize("layout", cases.LAYOUTS.values(), ids=cases.LAYOUTS)
def test_matrix_product(factors, layout):
    case = Case({name: layout(array) for name, array in factors.items()}, {})
    check_value(product, product, case)
    check_gradient(product, case)


def test_matrix_product_agrees_with_pytorch(factors):
    check_torch(product, product, Case(factors, {}))


# Types


@pytest.mark.parametrize("number", [2, 2.0, np.float64(2), np.int64(2), True])
@pytest.mark.parametrize("operator", BINARY.values(), ids=BINARY)
def test_a_number_does_not_widen_float32(operator, number):
    """Neither a Python number nor, as in PyTorch, one of NumPy's, on either side."""
    for expression in (lambda x: operator(x, number), lambda x: operator(number, x)):
        x = cases.leaf(np.array([1.5, 2.5], np.float32))
        result = expression(x)
        assert isinstance(result, dl.Tensor) and result.dtype == np.float32
        result.sum().backward()
        assert x.grad.dtype == np.float32


def test_float32_and_float64_meet_in_float64():
    """As in PyTorch for elementwise operations; each gradient goes home in its own type."""
    single, double = cases.leaf(np.ones(3, np.float32)), cases.leaf(np.ones((2, 3)))
    result = single * double
    result.sum().backward()
    assert (result.dtype, single.grad.dtype, double.grad.dtype) == (np.float64, np.float32, np.float64)
    assert single.grad.data.tolist() == [2, 2, 2]


# What is refused


@pytest.mark.parametrize(
    "expression, shapes, values",
    [
        (lambda a, b: a + b, [(2, 3), (4,)], [3, 4]),
        (lambda a, b: a / b, [(2, 3), (2, 5)], [3, 5]),
        (lambda a, b: a @ b, [(2, 3), (2, 3)], [3, 2]),
        (lambda a, b: a @ b, [(5, 2, 3), (4, 3, 2)], [5, 4]),
        (lambda a, b: a @ b, [(), (3,)], ["matmul"]),
    ],
    ids=shown,
)
def test_shapes_that_do_not_fit_are_refused(expression, shapes, values):
    with pytest.raises(ValueError, match=mentions(*values)):
        expression(*(dl.tensor(np.ones(shape)) for shape in shapes))


def test_matrix_product_of_two_precisions_is_refused():
    with pytest.raises(TypeError, match=mentions("float32", "float64")):
        dl.tensor(np.ones((2, 2), np.float32)) @ dl.tensor(np.ones((2, 2)))
