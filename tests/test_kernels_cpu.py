"""The kernels behind the operations: every fast path beside plain im2col, any number of threads beside one."""

import sys
import threading
import time

import hypothesis.strategies as st
import numpy as np
import oracles
import pytest
from hypothesis import given, settings

import minidl as dl
from minidl import functional as F
from minidl.backend import memory_order
from minidl.kernels import cpu, windows
from minidl.kernels.cpu import convolution, im2col, layout, threads, winograd
from minidl.kernels.windows import Windows

RELATIVE = {("winograd", "float32"): 1e-3, ("winograd", "float64"): 1e-10,
            ("im2col", "float32"): 1e-5, ("im2col", "float64"): 1e-12}


def by_hand(x, weight, window, groups, g):
    """Convolution and its gradients in float64 with the whole column matrix: the three lines of claim D8."""
    x, weight, g = (array.astype(np.float64) for array in (x, weight, g))
    n, k, (kh, kw), (oh, ow) = len(x), len(weight), window.kernel, window.output_size(x.shape[2:])
    columns = windows.im2col(x, window).reshape(n, groups, x.shape[1] // groups * kh * kw, oh * ow)
    filters, outputs = weight.reshape(groups, k // groups, -1), g.reshape(n, groups, k // groups, oh * ow)
    y = (filters @ columns).reshape(n, k, oh, ow)
    taps = (filters.swapaxes(1, 2) @ outputs).reshape(n, x.shape[1], *window.kernel, oh, ow)
    of_weight = np.einsum("ngkp,ngcp->gkc", outputs, columns).reshape(weight.shape)
    return y, windows.col2im(taps, x.shape[2:], window), of_weight


def assert_near(actual, expected, relative):
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=0, atol=relative * max(1.0, np.abs(expected).max(initial=0)))


@st.composite
def convolutions(draw, kernels, strides, dilations, groups):
    """(x, weight, windows, groups, g), lying in memory as (N, C, H, W) or as (C, H, W, N)."""
    kernel, stride, dilation = (tuple(draw(st.tuples(part, part))) for part in (kernels, strides, dilations))
    padding = tuple(draw(st.tuples(st.integers(0, 2), st.integers(0, 2))) for _ in range(2))
    group = draw(groups)
    window = Windows(kernel, stride, padding, dilation)
    size = tuple(reach + draw(st.integers(0, 14)) for reach in window.reach)
    batch, c, k = draw(st.integers(0, 5)), group * draw(st.integers(1, 5)), group * draw(st.integers(1, 5))
    dtype, rng = draw(st.sampled_from(["float32", "float64"])), np.random.default_rng(draw(st.integers(0, 99)))
    lay = draw(st.sampled_from([np.ascontiguousarray, layout.settle]))
    x = lay(rng.standard_normal((batch, c, *size)).astype(dtype))
    weight = rng.standard_normal((k, c // group, *kernel)).astype(dtype)
    return x, weight, window, group, lay(rng.standard_normal((batch, k, *window.output_size(size))).astype(dtype))


@pytest.fixture
def small_tiles(monkeypatch):
    """So that even small images fall into many tiles, and every kernel goes to the pool."""
    monkeypatch.setattr(im2col, "TILE_BYTES", 1 << 9)
    monkeypatch.setattr(im2col, "FEWEST_COLUMNS", 1)
    monkeypatch.setattr(im2col, "PRODUCT_WIDTH", 8)
    monkeypatch.setattr(winograd, "BLOCK_BYTES", 1 << 12)
    monkeypatch.setattr(winograd, "FEWEST_TILES", 1)
    monkeypatch.setattr(sys.modules[cpu.pointwise.__module__], "PIECE", 1 << 6)
    monkeypatch.setattr(layout, "BLOCK_BYTES", 1 << 12)
    monkeypatch.setattr(threads, "ENOUGH_BYTES", 0)


def check_against_plain_im2col(case, algorithm):
    x, weight, window, groups, g = case
    y, dx, dw = by_hand(x, weight, window, groups, g)
    bias = np.linspace(-1, 1, len(weight), dtype=x.dtype)
    y += bias[:, None, None]
    with convolution.conv_algorithm(algorithm) as ran:
        results = (cpu.conv2d(x, weight, window, groups, bias),
                   cpu.conv2d_input_gradient(g, weight, x.shape[2:], window, groups),
                   cpu.conv2d_weight_gradient(g, x, window, groups))
    for result, expected in zip(results, (y, dx, dw)):
        assert result.dtype == x.dtype
        assert_near(result, expected, RELATIVE[algorithm, str(x.dtype)])
    return ran


@settings(max_examples=300)
@given(convolutions(st.just(3), st.just(1), st.just(1), st.just(1)))
def test_winograd_is_convolution(case):
    ran = check_against_plain_im2col(case, "winograd")
    padded = case[2].turned() is not None  # else the input gradient is col2im's
    assert ran == ["winograd", "winograd" if padded else "im2col", "winograd"]


@pytest.mark.usefixtures("small_tiles")
def test_winograd_is_convolution_in_many_blocks():
    rng = np.random.default_rng(0)
    for batch, size in ((1, (5, 9)), (3, (17, 30)), (2, (64, 33))):
        x, weight = rng.standard_normal((batch, 6, *size)), rng.standard_normal((7, 6, 3, 3))
        window = Windows((3, 3), (1, 1), ((1, 1), (1, 1)))
        check_against_plain_im2col((x, weight, window, 1, rng.standard_normal((batch, 7, *size))), "winograd")


@settings(max_examples=300)
@given(convolutions(st.integers(1, 4), st.integers(1, 3), st.integers(1, 2), st.integers(1, 2)))
def test_tiles_are_the_whole_column_matrix(case):
    check_against_plain_im2col(case, "im2col")


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize(("kernel", "stride", "groups"), [(3, 1, 1), (3, 2, 2), (1, 1, 2), (5, 3, 1), (1, 2, 1)])
def test_many_tiles_are_the_whole_column_matrix(kernel, stride, groups):
    rng = np.random.default_rng(0)
    window = Windows((kernel, kernel), (stride, stride), ((1, 0), (0, 2)))
    x, weight = rng.standard_normal((3, 4, 21, 34)), rng.standard_normal((6, 4 // groups, kernel, kernel))
    g = rng.standard_normal((3, 6, *window.output_size((21, 34))))
    check_against_plain_im2col((x, weight, window, groups, g), "im2col")


def test_winograd_is_the_naive_loops():
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((2, 3, 7, 10)), rng.standard_normal((4, 3, 3, 3))
    with F.conv_algorithm("winograd") as ran:
        y = F.conv2d(dl.tensor(x), dl.tensor(weight), padding=1)
    assert ran == ["winograd"]
    assert_near(y.data, oracles.conv2d(x, weight, None, 1, 1), 1e-12)


# Which algorithm runs

def chosen(batch, c, k, size, kernel=3, stride=1, groups=1):
    window = Windows((kernel, kernel), (stride, stride), ((1, 1), (1, 1)))
    found = convolution.costs(batch, (k, c // groups, kernel, kernel), (size, size), window, groups)
    return min(found, key=found.get), set(found)


def test_the_cost_model_knows_where_winograd_pays():
    assert chosen(4, 256, 256, 56) == ("winograd", {"im2col", "winograd"})  # VGG's third stage
    assert chosen(4, 512, 512, 28)[0] == "winograd"
    assert chosen(4, 3, 64, 224)[0] == "im2col"  # a first layer: the transforms cost more than they save
    assert chosen(1, 512, 512, 7)[0] == "im2col"  # four tiles do not pay for 36 × 512 × 512 filter values
    for other in ({"kernel": 5}, {"kernel": 1}, {"stride": 2}, {"groups": 2}):
        assert chosen(4, 256, 256, 56, **other) == ("im2col", {"im2col"})


def test_costs_are_multiply_adds_where_moving_is_free(monkeypatch):
    for name in ("COLUMN", "TRANSFORM", "FILTER"):
        monkeypatch.setattr(convolution, name, 0)
    found = convolution.costs(2, (5, 7, 3, 3), (8, 12), Windows((3, 3), (1, 1), ((1, 1), (1, 1))))
    assert found["im2col"] == 2 * 8 * 12 * 5 * 7 * 9
    assert found["winograd"] * 4 == found["im2col"]  # 36 products for 16 outputs, where im2col makes 144


def test_a_reader_can_ask_and_force():
    x, weight = dl.tensor(np.zeros((1, 2, 6, 6)), requires_grad=True), dl.tensor(np.zeros((2, 2, 3, 3)))
    with F.conv_algorithm() as outer:
        F.conv2d(x, weight, padding=1)
        with F.conv_algorithm("winograd") as ran:
            F.conv2d(x, weight, padding=1).sum().backward()
            F.conv2d(x, weight, padding=1, stride=2)
            other = threading.Thread(target=F.conv2d, args=(x, weight))  # sees neither
            other.start()
            other.join()
        F.conv2d(x, weight)
    assert ran == ["winograd", "winograd", "im2col"]
    assert outer == ["im2col", "im2col"]


def test_an_unknown_algorithm_is_refused():
    with pytest.raises(ValueError, match="there is no 'fft'; choose 'im2col' or 'winograd'"), F.conv_algorithm("fft"):
        pass


# Threads

def every_kernel():
    rng = np.random.default_rng(0)
    x, g = (layout.settle(rng.standard_normal((3, 16, 20, 28)).astype("float32")) for _ in range(2))
    weight = rng.standard_normal((16, 16, 3, 3)).astype("float32")
    window, pool = Windows((3, 3), (1, 1), ((1, 1), (1, 1))), Windows((3, 3), (2, 2), ((0, 1), (1, 1)))
    mean, gain = rng.standard_normal((2, 16)).astype("float32")
    for algorithm in convolution.ALGORITHMS:
        with convolution.conv_algorithm(algorithm):
            yield cpu.conv2d(x, weight, window, 1, mean)
            yield cpu.conv2d_input_gradient(g, weight, x.shape[2:], window, 1)
            yield cpu.conv2d_weight_gradient(g, x, window, 1)
    yield cpu.conv2d_bias_gradient(g)
    y = cpu.max_pool2d(x, pool)
    yield from (y, cpu.max_pool2d_gradient(y, x, y, pool), cpu.sum_pool2d(x, pool))
    yield cpu.pointwise(np.tanh, x)
    yield from (*cpu.normalize_channels(x, gain, mean, 1e-5), cpu.scale_channels(x, mean, gain, mean))
    for fixed in (False, True):
        yield from cpu.normalize_channels_gradient(g, x, mean, gain, gain, fixed)
    y, s = cpu.local_response_norm(x, 5, 1e-4, 0.75, 2.0)
    yield from (y, s, cpu.local_response_norm_gradient(g, x, s, 5, 1e-4, 0.75))
    v = np.zeros_like(weight)
    cpu.sgd([(weight, weight.copy(), v)], 0.1, 0.9, 0.0, 1e-4, True)
    yield from (weight, v)


@pytest.mark.usefixtures("small_tiles")
def test_any_number_of_threads_gives_the_same_bits(monkeypatch):
    results = []
    for number in (1, 2, 3):
        monkeypatch.setattr(threads, "_num_threads", number)
        results.append([array.tobytes() for array in every_kernel()])
    assert results[0] == results[1] == results[2]


def test_one_thread_means_one(monkeypatch):
    # A product outside the pool wakes BLAS's own threads, which then spin for 25 ms on a core that the pool wants.
    monkeypatch.setattr(threads, "_num_threads", 1)
    x, weight = np.ones((1, 64, 8, 8), "float32"), np.ones((64, 64, 3, 3), "float32")
    window = Windows((3, 3), (1, 1), ((1, 1), (1, 1)))
    time.sleep(0.2)  # whatever ran before is over
    others = time.process_time() - time.thread_time()
    for algorithm in convolution.ALGORITHMS:
        with convolution.conv_algorithm(algorithm):
            y = cpu.conv2d(x, weight, window, 1)
            cpu.conv2d_input_gradient(y, weight, x.shape[2:], window, 1)
            cpu.conv2d_weight_gradient(y, x, window, 1)
    list(every_kernel())
    assert time.process_time() - time.thread_time() - others < 0.005


# What stands around a kernel

@given(st.integers(0, 3), st.integers(1, 3), st.integers(0, 5), st.integers(0, 20), st.randoms(use_true_random=False))
def test_memory_order_does_not_matter(n, c, h, w, random):
    values = np.random.default_rng(random.randrange(99)).standard_normal((2 * n, c, h, w)).astype("float32")
    x = random.choice([values, values[::2], layout.settle(values), values.transpose(0, 1, 3, 2)])
    g = np.random.default_rng(1).standard_normal(x.shape).astype("float32")
    assert np.array_equal(cpu.pointwise(np.square, x), x * x)
    product = cpu.pointwise(np.multiply, g, x)
    assert np.array_equal(product, g * x)
    assert product.size == 0 or product.strides == np.empty_like(x).strides  # it lies as x does


@pytest.mark.parametrize("cut", [
    lambda x: x[:, 1:, ::2, ::2],
    lambda x: F.pad(x, (0, 0, 0, 0, 2, 1)),
    lambda x: F.pad(x, (-1, 2)),
], ids=["sliced", "padded", "cropped"])
def test_a_shortcut_lies_in_memory_as_the_block_beside_it(cut):
    """Else every operation down the residual stream would copy one of the two."""
    x = dl.Tensor(layout.full((4, 3, 6, 5), 1, np.dtype("float32")), requires_grad=True)
    y = cut(x)
    y.backward(dl.Tensor(layout.settle(np.ones(y.shape, "float32"))))
    for array in (y.data, x.grad.data):
        assert memory_order(array) == [1, 2, 3, 0]


def test_the_first_of_equal_pixels_gets_the_gradient_even_at_minus_infinity():
    x = np.full((1, 1, 4, 4), -np.inf)
    window = Windows((2, 2), (2, 2), ((1, 1), (1, 1)))
    y = cpu.max_pool2d(x, window)
    dx = cpu.max_pool2d_gradient(np.ones_like(y), x, y, window)
    assert dx.sum() == y.size  # nothing is lost to the padding
    assert np.array_equal(np.flatnonzero(dx), [0, 1, 3, 4, 5, 7, 12, 13, 15])


@pytest.mark.parametrize("beta", [0.75, 0.5, 1.0])
def test_the_power_by_roots_is_the_power(beta):
    x = np.random.default_rng(0).standard_normal((2, 7, 3, 4))
    expected = oracles.local_response_norm(x, 5, 0.1, beta, 2.0)
    assert_near(cpu.local_response_norm(x, 5, 0.1, beta, 2.0)[0], expected, 1e-12)


# ---------------------------------------------------------------------------------------------
# Sums
# ---------------------------------------------------------------------------------------------

@given(st.data())
def test_sums_are_sums_in_whatever_order_an_array_lies_in_memory(data):
    shape = data.draw(st.lists(st.integers(0, 40), min_size=0, max_size=3))
    x = np.random.default_rng(0).standard_normal(shape)
    x = x.transpose(data.draw(st.permutations(range(x.ndim))))[tuple(
        slice(None, None, data.draw(st.sampled_from([1, 2, -1]))) for _ in shape)]
    axes = tuple(axis for axis in range(x.ndim) if data.draw(st.booleans()))
    found, before = cpu.sum_over(x, axes), x.copy()
    np.testing.assert_allclose(found, x.sum(axis=axes, keepdims=True), rtol=1e-12, atol=1e-12, strict=True)
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("view", [
    lambda x: x, lambda x: x[:, ::2], lambda x: x[::-1], np.asfortranarray, lambda x: x.reshape(1000, -1, 4),
], ids=["rows", "every other column", "backwards", "columns", "a stack"])
def test_many_equal_values_are_summed_as_in_pairs(view):
    x = view(np.full((200_000, 4), 0.1, np.float32))
    for axes in (tuple(range(x.ndim)), tuple(range(x.ndim - 1))):
        terms = x.size // (x.shape[-1] if len(axes) < x.ndim else 1)
        np.testing.assert_allclose(cpu.sum_over(x, axes), np.float64(np.float32(0.1)) * terms, rtol=1e-6)


# ---------------------------------------------------------------------------------------------
# Winograd's limits
# ---------------------------------------------------------------------------------------------

@pytest.mark.parametrize("number", [np.inf, -np.inf, np.nan, 3e38])
def test_winograd_hands_what_is_not_finite_to_im2col(number):
    rng = np.random.default_rng(0)
    image = rng.standard_normal((1, 4, 12, 12)).astype(np.float32)
    image[0, 0, 5, 5] = number
    x, w = dl.tensor(image, requires_grad=True), dl.tensor(rng.random((4, 4, 3, 3)).astype(np.float32) / 9)
    w.requires_grad_()
    found = []
    for algorithm in ("winograd", "im2col"):
        x.grad = w.grad = None
        with F.conv_algorithm(algorithm), np.errstate(all="ignore"):
            y = F.conv2d(x, w, padding=1)
            y.backward(np.ones(y.shape, np.float32))
        found.append([y.data, w.grad.data, x.grad.data])
    for ours, right in zip(*found):
        np.testing.assert_allclose(ours, right, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", ["float16", "int64"])
def test_winograd_is_for_floats_of_32_and_64_bits(dtype):
    x, w = dl.tensor(np.ones((4, 32, 16, 16), dtype)), dl.tensor(np.ones((32, 32, 3, 3), dtype))
    with F.conv_algorithm("winograd") as ran:
        y = F.conv2d(x, w)
    assert ran == ["im2col"] and y.dtype == dtype and (y.data == 288).all()
