"""Initialisers: the distribution of the formula, in place, and the same again for the same seed."""

import inspect
import math

import numpy as np
import pytest
from cases import mentions

import minidl as dl
from minidl.nn import init

WEIGHTS = {"matrix": ((400, 300), 300, 400), "filters": ((64, 48, 5, 3), 48 * 15, 64 * 15)}
"""Shape, fan in and fan out: how many values an output sums, how many outputs an input reaches."""


def empty(*shape, dtype=np.float32):
    return dl.tensor(np.full(shape, np.nan, dtype))


@pytest.fixture(autouse=True)
def seeded():
    dl.manual_seed(0)


def assert_uniform(array, low, high):
    """Within the bounds (of the dtype's precision), reaching almost to both, with the variance of U(low, high)."""
    width = high - low
    assert low - 1e-6 * width <= array.min() < low + 0.01 * width
    assert high - 0.01 * width < array.max() <= high + 1e-6 * width
    assert_moments(array, (low + high) / 2, width / math.sqrt(12))


def assert_moments(array, mean, std):
    """Mean and standard deviation, to five of their own standard errors."""
    assert abs(array.mean(dtype=float) - mean) < 5 * std / math.sqrt(array.size)
    assert abs(array.std(dtype=float) / std - 1) < 5 / math.sqrt(2 * array.size)


def assert_normal(array, mean, std):
    assert_moments(array, mean, std)
    within = np.abs(array - mean)[None] < std * np.array([0.6745, 1.96]).reshape(-1, *[1] * array.ndim)
    np.testing.assert_allclose(within.reshape(2, -1).mean(axis=1), [0.5, 0.95], atol=0.02)


# Plain distributions


def test_uniform_and_normal_have_the_bounds_and_moments_asked_for():
    assert_uniform(init.uniform_(empty(200, 300)).data, 0, 1)
    assert_uniform(init.uniform_(empty(200, 300), -2, 5).data, -2, 5)
    assert_normal(init.normal_(empty(200, 300)).data, 0, 1)
    assert_normal(init.normal_(empty(200, 300), mean=3, std=0.1).data, 3, 0.1)


@pytest.mark.parametrize("mean, std, a, b", [(0, 1, -2, 2), (0, 1, -0.5, 0.25), (1, 2, 0, 1.5), (0, 0.02, -2, 2)])
def test_a_truncated_normal_stays_inside_and_is_normal_there(mean, std, a, b):
    array = init.trunc_normal_(empty(200, 300, dtype=np.float64), mean, std, a, b).data
    assert a <= array.min() and array.max() <= b
    edges = np.linspace(max(a, mean - 3 * std), min(b, mean + 3 * std), 9)
    below = np.array([0.5 * (1 + math.erf((edge - mean) / (std * math.sqrt(2)))) for edge in (*edges, a, b)])
    expected = np.diff(below[:9]) / (below[-1] - below[-2])
    np.testing.assert_allclose(np.histogram(array, edges)[0] / array.size, expected, atol=0.01)


@pytest.mark.parametrize("a, b", [(2, -2), (1, 1), (10, 11), (-11, -10)])
def test_a_truncated_normal_needs_an_interval_it_can_hit(a, b):
    with pytest.raises(ValueError, match=mentions("trunc_normal_", a, b)):
        init.trunc_normal_(empty(3), a=a, b=b)


# Variance kept through a layer


@pytest.mark.parametrize("shape, fan_in, fan_out", WEIGHTS.values(), ids=WEIGHTS)
@pytest.mark.parametrize("gain", [1.0, 5 / 3])
def test_xavier(shape, fan_in, fan_out, gain):
    std = gain * math.sqrt(2 / (fan_in + fan_out))
    assert_uniform(init.xavier_uniform_(empty(*shape), gain).data, -std * math.sqrt(3), std * math.sqrt(3))
    assert_normal(init.xavier_normal_(empty(*shape), gain).data, 0, std)


@pytest.mark.parametrize("shape, fan_in, fan_out", WEIGHTS.values(), ids=WEIGHTS)
@pytest.mark.parametrize("mode", ["fan_in", "fan_out"])
@pytest.mark.parametrize(
    "options, gain",
    [
        ({}, math.sqrt(2)),
        ({"a": math.sqrt(5)}, math.sqrt(1 / 3)),
        ({"nonlinearity": "relu"}, math.sqrt(2)),
        ({"nonlinearity": "tanh"}, 5 / 3),
    ],
    ids=str,
)
def test_kaiming(shape, fan_in, fan_out, mode, options, gain):
    std = gain / math.sqrt({"fan_in": fan_in, "fan_out": fan_out}[mode])
    uniform = init.kaiming_uniform_(empty(*shape), mode=mode, **options).data
    assert_uniform(uniform, -std * math.sqrt(3), std * math.sqrt(3))
    assert_normal(init.kaiming_normal_(empty(*shape), mode=mode, **options).data, 0, std)


def test_relu_layers_of_kaiming_keep_the_variance():
    x = dl.tensor(np.random.default_rng(1).standard_normal((200, 400)))
    for _ in range(10):
        x = (x @ init.kaiming_normal_(empty(400, 400, dtype=np.float64)).T).relu()
    assert 0.5 < (x.data**2).mean() < 2  # without the gain of √2 it would be 2⁻¹⁰


@pytest.mark.parametrize(
    "nonlinearity, param",
    [
        *((name, None) for name in ("linear", "conv2d", "conv_transpose2d", "sigmoid", "tanh", "relu", "leaky_relu")),
        ("leaky_relu", 0.2),
        ("leaky_relu", 0),
        ("relu", 0.2),
    ],
)
def test_gains_are_those_of_pytorch(nonlinearity, param):
    torch = pytest.importorskip("torch")
    assert init.calculate_gain(nonlinearity, param) == torch.nn.init.calculate_gain(nonlinearity, param)


# Fixed patterns


def test_constants_fill_everything():
    np.testing.assert_array_equal(init.constant_(empty(2, 3), 0.3).data, np.full((2, 3), 0.3, np.float32))
    assert (init.zeros_(empty(2, 3)).data == 0).all() and (init.ones_(empty()).data == 1).all()


@pytest.mark.parametrize("shape", [(3, 3), (2, 4), (4, 2)], ids=str)
def test_eye_leaves_a_vector_as_it_is(shape):
    x = np.arange(1.0, shape[1] + 1)
    kept = min(shape)
    result = init.eye_(empty(*shape, dtype=np.float64)).data @ x
    np.testing.assert_array_equal(result, [*x[:kept], *[0] * (shape[0] - kept)])


@pytest.mark.parametrize("groups, shape", [(1, (3, 3, 3, 3)), (2, (4, 2, 3, 5)), (1, (2, 4, 1, 1)), (1, (4, 2, 3, 3))])
def test_dirac_filters_pass_channels_through(groups, shape):
    weight = init.dirac_(empty(*shape, dtype=np.float64), groups)
    image = dl.tensor(np.random.default_rng(0).standard_normal((1, groups * shape[1], 6, 7)))
    padding = (shape[2] // 2, shape[3] // 2)
    y = dl.functional.conv2d(image, weight, padding=padding, groups=groups).data
    if shape[0] // groups == shape[1]:
        np.testing.assert_array_equal(y, image.data)
    else:  # as many as there are on both sides; a filter with nothing to pass stays silent
        kept = min(shape[:2])
        np.testing.assert_array_equal(y[:, :kept], image.data[:, :kept])
        assert not y[:, kept:].any()


@pytest.mark.parametrize("shape", [(5, 5), (3, 7), (7, 3), (4, 2, 3, 3), (30, 2, 3, 3)], ids=str)
@pytest.mark.parametrize("gain", [1.0, math.sqrt(2)])
def test_orthogonal_rows_or_columns_are_orthonormal_times_the_gain(shape, gain):
    matrix = init.orthogonal_(empty(*shape, dtype=np.float64), gain).data.reshape(shape[0], -1)
    rows, columns = matrix.shape
    product = matrix @ matrix.T if rows <= columns else matrix.T @ matrix
    np.testing.assert_allclose(product, gain**2 * np.eye(min(rows, columns)), atol=1e-12)


def test_orthogonal_matrices_favour_no_direction():
    corners = [init.orthogonal_(empty(2, 2)).data[0, 0] for _ in range(300)]
    assert abs(np.mean(corners)) < 0.2 and abs(np.mean(np.square(corners)) - 0.5) < 0.1  # cos of a uniform angle


# All of them

MATRIX, FILTER = (3, 4), (3, 2, 3, 3)
CALLS = {
    "uniform_": (init.uniform_, MATRIX),
    "normal_": (init.normal_, MATRIX),
    "trunc_normal_": (init.trunc_normal_, MATRIX),
    "constant_": (lambda tensor: init.constant_(tensor, 2), MATRIX),
    "zeros_": (init.zeros_, MATRIX),
    "ones_": (init.ones_, MATRIX),
    "eye_": (init.eye_, MATRIX),
    "dirac_": (init.dirac_, FILTER),
    "orthogonal_": (init.orthogonal_, FILTER),
    "xavier_uniform_": (init.xavier_uniform_, FILTER),
    "xavier_normal_": (init.xavier_normal_, FILTER),
    "kaiming_uniform_": (init.kaiming_uniform_, FILTER),
    "kaiming_normal_": (init.kaiming_normal_, FILTER),
}


def test_no_initialiser_is_missing_here():
    assert set(CALLS) == {name for name, _ in inspect.getmembers(init, inspect.isfunction) if name.endswith("_")}


@pytest.mark.parametrize("name", CALLS)
def test_an_initialiser_fills_in_place_reproducibly_and_returns_its_tensor(name):
    fill, shape = CALLS[name]
    parameter = dl.nn.Parameter(empty(*shape))
    memory = parameter.data
    dl.manual_seed(7)
    assert fill(parameter) is parameter
    assert parameter.data is memory and memory.dtype == np.float32 and np.isfinite(memory).all()
    assert parameter.requires_grad and parameter.is_leaf
    dl.manual_seed(7)
    np.testing.assert_array_equal(fill(empty(*shape)).data, memory)
    is_random = not np.array_equal(fill(empty(*shape)).data, memory)
    assert is_random == (name not in ("constant_", "zeros_", "ones_", "eye_", "dirac_"))


def test_single_and_double_precision_draw_the_same_numbers():
    dl.manual_seed(7)
    single = init.kaiming_normal_(empty(3, 4)).data
    dl.manual_seed(7)
    double = init.kaiming_normal_(empty(3, 4, dtype=np.float64)).data
    np.testing.assert_array_equal(single, double.astype(np.float32))


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: init.xavier_uniform_(empty(3)), ("2 axes", "(3,)")),
        (lambda: init.kaiming_normal_(empty()), ("2 axes", "()")),
        (lambda: init.orthogonal_(empty(3)), ("orthogonal_", "(3,)")),
        (lambda: init.eye_(empty(2, 2, 2)), ("eye_", "(2, 2, 2)")),
        (lambda: init.dirac_(empty(2, 2)), ("dirac_", "(2, 2)")),
        (lambda: init.dirac_(empty(3, 2, 3, 3), groups=2), ("dirac_", "groups=2", "(3, 2, 3, 3)")),
        (lambda: init.kaiming_uniform_(empty(3, 4), mode="fan_avg"), ("fan_in", "fan_out", "'fan_avg'")),
        (lambda: init.kaiming_uniform_(empty(3, 4), nonlinearity="swish"), ("'swish'", "relu", "leaky_relu")),
        (lambda: init.calculate_gain("gelu"), ("'gelu'", "tanh")),
    ],
)
def test_what_cannot_be_filled_is_refused_with_the_value(call, words):
    with pytest.raises(ValueError, match=mentions(*words)):
        call()
