"""The derivations of the lecture: `pytest -k D5 -v` reads like it.

Each gradient three times: in the closed form of the notes, which is written here in NumPy; by autograd; by finite
differences of the loss.
"""

import math

import cases
import hypothesis.strategies as st
import numpy as np
import oracles
import pytest
from cases import assert_close, cotangent
from hypothesis import given, settings
from test_functional_convolution import CASES as CONVOLUTIONS

import minidl as dl
from minidl import functional as F
from minidl import nn, optim

RNG = np.random.default_rng(0)


def agree(loss, closed_form, *arrays):
    """The gradients of ``loss(*tensors)``: autograd's and those of finite differences are those of the closed form."""
    leaves = [cases.leaf(array) for array in arrays]
    loss(*leaves).backward()
    for index, (leaf, closed) in enumerate(zip(leaves, closed_form, strict=True)):
        assert_close(leaf.grad.data, closed, 1e-9, "autograd")
        assert_close(slopes(loss, arrays, index), closed, 1e-6, "finite differences")


def slopes(loss, arrays, index, step=1e-5):
    """∂L/∂x of array number `index`, an entry at a time."""
    result = np.zeros(arrays[index].shape)
    for place in np.ndindex(result.shape):
        ends = []
        for sign in (1, -1):
            moved = [array.copy() for array in arrays]
            moved[index][place] += sign * step
            ends.append(loss(*map(dl.tensor, moved)).item())
        result[place] = (ends[0] - ends[1]) / (2 * step)
    return result


def sigma(z):
    return 1 / (1 + np.exp(-z))


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


# D1 to D4: losses


def test_D1_the_gradient_of_binary_cross_entropy_in_the_probability():
    """L = −(y log p + (1 − y) log(1 − p)), with the minus sign that the slide lacks."""
    p, y = RNG.uniform(0.1, 0.9, 5), RNG.integers(0, 2, 5).astype(float)
    assert_close(F.binary_cross_entropy(dl.tensor(p), dl.tensor(y)).data,
                 -(y * np.log(p) + (1 - y) * np.log(1 - p)).mean())
    agree(lambda x: F.binary_cross_entropy(x, dl.tensor(y)), [(p - y) / (p * (1 - p)) / 5], p)


def test_D1_the_gradient_of_cross_entropy_in_the_logits():
    z, y = RNG.standard_normal((4, 3)), np.array([0, 2, 1, 1])
    assert_close(F.cross_entropy(dl.tensor(z), dl.tensor(y)).data, -np.log(softmax(z)[range(4), y]).mean())
    agree(lambda x: F.cross_entropy(x, dl.tensor(y)), [(softmax(z) - np.eye(3)[y]) / 4], z)


@given(logits=cases.arrays((5, 2)), seed=st.integers(0, 99))
def test_D1_cross_entropy_of_two_classes_is_binary_cross_entropy(logits, seed):
    """Softmax over (z₀, z₁) is the sigmoid of z₁ − z₀."""
    labels = np.random.default_rng(seed).integers(0, 2, 5)
    z, margin = cases.leaf(logits), cases.leaf(logits[:, 1] - logits[:, 0])
    loss = F.cross_entropy(z, dl.tensor(labels))
    binary = F.binary_cross_entropy_with_logits(margin, dl.tensor(labels.astype(float)))
    assert_close(loss.data, binary.data)
    loss.backward()
    binary.backward()
    assert_close(z.grad.data, np.stack([-margin.grad.data, margin.grad.data], axis=1))
    p = F.sigmoid(margin.detach())
    assert_close(F.binary_cross_entropy(p, dl.tensor(labels.astype(float))).data, binary.data)


@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_D1_both_are_stable_at_logits_of_a_thousand(label, dtype):
    z, margin = cases.leaf(np.array([[1000, -1000]], dtype)), cases.leaf(np.array([-2000], dtype))
    many = F.cross_entropy(z, dl.tensor(np.array([label])))
    two = F.binary_cross_entropy_with_logits(margin, dl.tensor(np.array([label], dtype)))
    assert many.item() == two.item() == 2000 * label
    (many + two).backward()
    assert z.grad.data.tolist() == [[label, -label]] and margin.grad.data.tolist() == [-label]


def neuron(loss):
    """The loss of a sigmoid neuron on samples x (n, m) with labels y, as a function of its weights."""
    x, y = RNG.standard_normal((6, 3)), RNG.integers(0, 2, 6).astype(float)
    return x, y, lambda w: loss(F.sigmoid(dl.tensor(x) @ w), dl.tensor(y))


def test_D2_the_slope_of_the_sigmoid_cancels_in_cross_entropy():
    """∂L/∂wⱼ = (1/n) Σ xⱼ (σ(z) − y)"""
    x, y, loss = neuron(F.binary_cross_entropy)
    w = RNG.standard_normal(3)
    agree(loss, [x.T @ (sigma(x @ w) - y) / 6], w)


def test_D2_it_stays_in_the_squared_error():
    """∂L/∂wⱼ = (2/n) Σ xⱼ (σ(z) − y) σ′(z)"""
    x, y, loss = neuron(F.mse_loss)
    w = RNG.standard_normal(3)
    a = sigma(x @ w)
    agree(loss, [2 * x.T @ ((a - y) * a * (1 - a)) / 6], w)


def test_D2_a_saturated_neuron_that_is_wrong_learns_from_cross_entropy_only():
    z, y = cases.leaf(np.array([20.0])), dl.tensor(np.array([0.0]))
    F.binary_cross_entropy_with_logits(z, y).backward()
    assert z.grad.item() == pytest.approx(1.0, abs=1e-8)
    z.grad = None
    F.mse_loss(F.sigmoid(z), y).backward()
    assert 0 < z.grad.item() < 1e-8


@given(z=cases.arrays((2, 4)), shift=st.floats(-1e3, 1e3))
def test_D3_softmax_gives_probabilities_that_no_shift_changes(z, shift):
    a = F.softmax(dl.tensor(z), 1).data
    assert_close(a, softmax(z))
    assert_close(a.sum(axis=1), np.ones(2))
    assert_close(F.softmax(dl.tensor(z + shift), 1).data, a)


@settings(max_examples=20)
@given(z=st.integers(1, 5).flatmap(lambda classes: cases.arrays((classes,))))
def test_D3_the_jacobian_of_softmax(z):
    """∂aᵢ/∂zⱼ = aᵢ (1[i = j] − aⱼ): the matrix diag(a) − a aᵀ, a row each time."""
    a = softmax(z[None])[0]
    for unit, row in zip(np.eye(len(z)), np.diag(a) - np.outer(a, a)):
        agree(lambda x, unit=unit: (F.softmax(x, 0) * dl.tensor(unit)).sum(), [row], z)


@given(logits=cases.arrays((4, 3)), seed=st.integers(0, 99))
def test_D4_the_negative_log_likelihood_of_a_softmax_is_cross_entropy(logits, seed):
    """Equal values and equal gradients, (a − y) / n."""
    labels = np.random.default_rng(seed).integers(0, 3, 4)
    likelihoods = softmax(logits)[range(4), labels]
    closed = (softmax(logits) - np.eye(3)[labels]) / 4
    for loss in (
        lambda z: F.cross_entropy(z, dl.tensor(labels)),
        lambda z: F.nll_loss(F.log_softmax(z, 1), dl.tensor(labels)),
        lambda z: -F.log(F.softmax(z, 1)[np.arange(4), labels]).mean(),
    ):
        assert_close(loss(dl.tensor(logits)).data, -np.log(np.prod(likelihoods)) / 4)
        agree(loss, [closed], logits)


# D5, D6: gradients that vanish and explode


def chain(x, weights):
    for w in weights:
        x = F.sigmoid(w * x)
    return x


def test_D5_the_gradient_of_a_chain_is_the_product_of_its_factors():
    """∂L/∂x₀ = σ′(w₃ x₂) w₃ · σ′(w₂ x₁) w₂ · σ′(w₁ x₀) w₁"""
    x0, (w1, w2, w3) = 0.3, (1.7, -2.1, 0.8)
    x1 = sigma(w1 * x0)
    x2 = sigma(w2 * x1)
    slope = [sigma(z) * (1 - sigma(z)) for z in (w1 * x0, w2 * x1, w3 * x2)]
    product = slope[2] * w3 * slope[1] * w2 * slope[0] * w1
    agree(lambda x: chain(x, [w1, w2, w3]).sum(), [np.array([product])], np.array([x0]))


def test_D5_the_same_with_layers_of_several_neurons():
    """∂L/∂x₀ = W₁ᵀ diag σ′ W₂ᵀ diag σ′ W₃ᵀ diag σ′ g"""
    weights, x0, g = RNG.standard_normal((3, 4, 4)), RNG.standard_normal(4), cotangent((4,))
    x, slopes_of = x0, []
    for w in weights:
        x = sigma(w @ x)
        slopes_of.append(x * (1 - x))
    closed = g
    for w, slope in zip(weights[::-1], slopes_of[::-1]):
        closed = w.T @ (slope * closed)

    def loss(x):
        for w in weights:
            x = F.sigmoid(dl.tensor(w) @ x)
        return (x * dl.tensor(g)).sum()

    agree(loss, [closed], x0)


@given(depth=st.integers(1, 30), largest=st.floats(0.1, 3.9), seed=st.integers(0, 99))
def test_D5_it_falls_at_least_as_fast_as_a_quarter_of_the_largest_weight_to_the_depth(depth, largest, seed):
    weights = np.random.default_rng(seed).uniform(-largest, largest, depth)
    x = cases.leaf(np.array([0.5]))
    chain(x, weights).backward()
    assert abs(x.grad.item()) <= (np.abs(weights).max() / 4) ** depth * (1 + 1e-12)


def test_D5_it_explodes_where_the_factors_exceed_one():
    """With σ′ = 1/4 exactly, at z = 0, and w = 8 each factor is 2."""
    norms = []
    for depth in (1, 10, 40):
        x = cases.leaf(np.array([0.0]))
        y = x
        for _ in range(depth):
            y = F.sigmoid(8.0 * y) - 0.5
        y.backward()
        norms.append(x.grad.item())
    assert norms == pytest.approx([2.0, 2.0**10, 2.0**40])


@given(scale=st.floats(1e-3, 1e6), bound=st.floats(1e-3, 1e6), p=st.sampled_from([1.0, 1.5, 2.0, 3.0, math.inf]))
def test_D6_after_clipping_the_norm_is_the_smaller_of_norm_and_bound_and_the_direction_is_kept(scale, bound, p):
    parameters = [cases.leaf(np.zeros(shape)) for shape in ((3,), (2, 4), ())]
    for parameter in parameters:
        parameter.grad = dl.tensor(scale * cotangent(parameter.shape))

    def gradient():
        return np.concatenate([parameter.grad.data.reshape(-1) for parameter in parameters])

    def norm(x):
        return np.abs(x).max() if p == math.inf else (np.abs(x) ** p).sum() ** (1 / p)

    before = gradient()
    assert optim.clip_grad_norm_(parameters, bound, norm_type=p) == pytest.approx(norm(before), rel=1e-12)
    after = gradient()
    # PyTorch's 10⁻⁶ in the denominator shortens by 10⁻⁶ / norm more than needed.
    assert norm(after) == pytest.approx(min(norm(before), bound), rel=2e-6 / norm(before) + 1e-12)
    assert before @ after / np.linalg.norm(before) / np.linalg.norm(after) == pytest.approx(1.0, abs=1e-12)


def test_D6_clipping_tames_a_product_that_explodes():
    norms = []
    for depth in (1, 20, 200):
        x = cases.leaf(np.array([1.0]))
        y = x
        for _ in range(depth):
            y = y * 3.0
        y.sum().backward()
        norms.append((optim.clip_grad_norm_(x, 1.0), abs(x.grad.item())))
    assert [norm for norm, _ in norms] == pytest.approx([3.0, 3.0**20, 3.0**200], rel=1e-9)
    assert [clipped for _, clipped in norms] == pytest.approx([1.0] * 3, rel=1e-6)


# D7: residual connections


def test_D7_a_block_passes_on_the_gradient_itself_and_that_of_what_it_adds():
    """H(x) = x + F(x), F(x) = W₂ max(W₁ x, 0): ∂L/∂x = g + Jᶠᵀ g"""
    first, second, x, g = *RNG.standard_normal((2, 4, 4)), RNG.standard_normal(4), cotangent((4,))
    jacobian = second @ np.diag((first @ x > 0).astype(float)) @ first

    def loss(x):
        return ((x + dl.tensor(second) @ F.relu(dl.tensor(first) @ x)) * dl.tensor(g)).sum()

    agree(loss, [g + jacobian.T @ g], x)


def test_D7_a_block_that_adds_nothing_is_the_identity():
    x = cases.leaf(RNG.standard_normal((2, 3, 4, 4)))
    weight = dl.tensor(np.zeros((3, 3, 3, 3)))
    g = cotangent(x.shape)
    (x + F.conv2d(x, weight, padding=1)).backward(dl.tensor(g))
    assert np.array_equal(x.grad.data, g)


def gradient_through_a_stack(depth, residual):
    """‖∂L/∂x₀‖ / ‖g‖ of blocks max(W x + b, 0), or x + max(W x + b, 0), fresh as `nn.Linear` makes them."""
    dl.manual_seed(0)
    layers = [nn.Linear(16, 16).to("float64") for _ in range(depth)]
    x = cases.leaf(np.random.default_rng(0).standard_normal(16))
    y, jacobian = x, np.eye(16)
    for layer in layers:
        branch = F.relu(layer(y))
        step = (branch.data > 0)[:, None] * layer.weight.data
        jacobian = (np.eye(16) * residual + step) @ jacobian
        y = y + branch if residual else branch
    g = cotangent((16,))
    y.backward(dl.tensor(g))
    assert_close(x.grad.data, jacobian.T @ g)
    return np.linalg.norm(x.grad.data) / np.linalg.norm(g)


def test_D7_at_initialisation_the_gradient_of_a_plain_stack_decays_with_depth_and_that_of_a_residual_one_does_not():
    depths = (2, 4, 8, 16)
    plain, residual = ([gradient_through_a_stack(depth, kind) for depth in depths] for kind in (False, True))
    assert all(deeper < 0.3 * shallower for shallower, deeper in zip(plain, plain[1:])) and plain[-1] < 1e-6
    assert all(norm > 0.9 for norm in residual)


# D8: convolution as im2col


@given(case=CONVOLUTIONS["im2col"], seed=st.integers(0, 99))
def test_D8_im2col_and_col2im_are_adjoint(case, seed):
    """⟨im2col(x), c⟩ = ⟨x, col2im(c)⟩"""
    x = case.arrays["input"]
    columns = F.im2col(dl.tensor(x), **case.options).data
    c = np.random.default_rng(seed).standard_normal(columns.shape)
    image = F.col2im(dl.tensor(c), x.shape[-2:], **case.options).data
    assert_close(np.vdot(columns, c), np.vdot(x, image))


@given(case=CONVOLUTIONS["im2col"], filters=st.integers(1, 3), seed=st.integers(0, 99))
def test_D8_every_output_is_a_row_of_weights_times_a_column_of_the_image(case, filters, seed):
    """Y = W · im2col(X)"""
    x, kernel = case.arrays["input"], oracles.pair(case.options["kernel_size"])
    weight = np.random.default_rng(seed).standard_normal((filters, x.shape[-3], *kernel))
    window = {name: value for name, value in case.options.items() if name != "kernel_size"}
    result = F.conv2d(dl.tensor(x), dl.tensor(weight), **window).data
    product = weight.reshape(filters, -1) @ F.im2col(dl.tensor(x), **case.options).data
    assert_close(result, product.reshape(result.shape))


def test_D8_the_three_gradients_of_a_convolution():
    """∂L/∂W = Σ G im2col(X)ᵀ, ∂L/∂X = col2im(Wᵀ G), ∂L/∂b = Σ G"""
    x, weight, bias = RNG.standard_normal((2, 3, 5, 4)), RNG.standard_normal((2, 3, 3, 2)), RNG.standard_normal(2)
    options = {"stride": (2, 1), "padding": (1, 0)}
    g = cotangent(oracles.conv2d(x, weight, bias, **options).shape)
    rows, columns = g.reshape(2, 2, -1), oracles.im2col(x, (3, 2), **options)
    by_weight = sum(rows[n] @ columns[n].T for n in range(2)).reshape(weight.shape)
    by_image = oracles.col2im(weight.reshape(2, -1).T @ rows, (5, 4), (3, 2), **options)
    agree(lambda x, w, b: (F.conv2d(x, w, b, **options) * dl.tensor(g)).sum(),
          [by_image, by_weight, g.sum(axis=(0, 2, 3))], x, weight, bias)


# D9: pooling, normalisation, activations


def test_D9_max_pooling_sends_the_gradient_to_the_winner():
    x = RNG.permutation(2 * 1 * 5 * 4).reshape(2, 1, 5, 4).astype(float)
    g, closed = cotangent((2, 1, 2, 2)), np.zeros(x.shape)
    for n, i, j in np.ndindex(2, 2, 2):
        window = x[n, 0, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
        k, l = np.unravel_index(window.argmax(), (2, 2))
        closed[n, 0, 2 * i + k, 2 * j + l] = g[n, 0, i, j]
    agree(lambda x: (F.max_pool2d(x, 2) * dl.tensor(g)).sum(), [closed], x)


def test_D9_average_pooling_shares_it():
    x, g = RNG.standard_normal((1, 2, 4, 6)), cotangent((1, 2, 2, 2))
    closed = np.kron(g, np.ones((2, 3))) / 6
    agree(lambda x: (F.avg_pool2d(x, (2, 3)) * dl.tensor(g)).sum(), [closed], x)


def test_D9_local_response_normalisation():
    """∂L/∂xᵢ = gᵢ sᵢ^{−β} − 2αβ/n xᵢ Σ gⱼ xⱼ sⱼ^{−β−1} over the channels j whose window holds i"""
    x, size, alpha, beta, k = RNG.standard_normal((1, 5, 1, 2)), 3, 0.5, 0.75, 2.0
    g, near = cotangent(x.shape), np.abs(np.subtract.outer(range(5), range(5))) <= 1
    s = k + alpha / size * np.einsum("ij,njhw->nihw", near, x * x)
    closed = g * s**-beta - 2 * alpha * beta / size * x * np.einsum("ij,njhw->nihw", near, g * x * s ** (-beta - 1))
    agree(lambda x: (F.local_response_norm(x, size, alpha, beta, k) * dl.tensor(g)).sum(), [closed], x)


@pytest.mark.parametrize("activation, slope", [
    (F.relu, lambda x: (x > 0).astype(float)),
    (F.sigmoid, lambda x: sigma(x) * (1 - sigma(x))),
    (F.tanh, lambda x: 1 - np.tanh(x) ** 2),
])
def test_D9_activations(activation, slope):
    x, g = np.concatenate([RNG.uniform(0.1, 3, 4), -RNG.uniform(0.1, 3, 4)]), cotangent((8,))
    agree(lambda x: (activation(x) * dl.tensor(g)).sum(), [g * slope(x)], x)
