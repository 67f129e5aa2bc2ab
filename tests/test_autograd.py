"""Autograd: what is recorded, how gradients flow back, what is kept until then, and what is refused."""

import copy
import functools
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from cases import mentions

import minidl as dl
import minidl.functional as F
from minidl import autograd, optim
from minidl.autograd import Tensor, differentiable, observe_operations


@pytest.fixture(autouse=True)
def operations_of_a_test_end_with_it(monkeypatch):
    monkeypatch.setattr(autograd, "OPERATIONS", dict(autograd.OPERATIONS))


def numbers(*shape, dtype=np.float64, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def leaf(*shape, dtype=np.float64, seed=0):
    return dl.tensor(numbers(*shape, dtype=dtype, seed=seed), requires_grad=True)


def operation_names(loss):
    return [step.operation for step in dl.backward_steps(loss)]


def in_thread(function):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


# Recording


def test_only_an_operation_on_something_that_needs_a_gradient_is_recorded():
    plain, needy = dl.tensor([1.0]), dl.tensor([1.0], requires_grad=True)
    assert (plain + plain).node is None and not (plain + plain).requires_grad
    for result in (needy + plain, plain + needy, 1 + needy, np.ones(1, np.float32) + needy):
        assert result.requires_grad and result.node.operation == "add" and not result.is_leaf


def test_a_node_tells_the_formula_that_opens_the_docstring():
    assert (leaf(2) * 2).node.formula == "a · b     ∂L/∂a = g b     ∂L/∂b = g a"
    assert leaf(2).relu().node.formula == F.relu.__doc__.split("\n")[0]


def test_no_grad_records_nothing_until_it_ends():
    x = leaf(2)
    with dl.no_grad():
        with dl.no_grad():
            assert not dl.is_grad_enabled()
        assert (x * 2).is_leaf and not (x * 2).requires_grad
    assert dl.is_grad_enabled() and (x * 2).requires_grad


def test_no_grad_decorates_functions_even_recursive_ones():
    @dl.no_grad()
    def product(x, depth):
        return product(x, depth - 1) if depth else x * x

    assert product(leaf(2), depth=3).is_leaf
    assert dl.is_grad_enabled()


def test_no_grad_ends_with_an_exception():
    with pytest.raises(KeyError), dl.no_grad():
        raise KeyError
    assert dl.is_grad_enabled()


def test_no_grad_holds_in_its_own_thread_only():
    with dl.no_grad():
        assert in_thread(dl.is_grad_enabled)
    assert dl.is_grad_enabled()


def test_a_decorated_function_may_run_in_two_threads_at_once():
    inside = {name: threading.Event() for name in ("recording", "silent")}
    leave = {name: threading.Event() for name in inside}

    @dl.no_grad()
    def evaluate(name):
        inside[name].set()
        assert leave[name].wait(5)

    def recording():
        evaluate("recording")
        return dl.is_grad_enabled()

    def silent():
        with dl.no_grad():
            evaluate("silent")

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(recording)
        assert inside["recording"].wait(5)
        second = pool.submit(silent)
        assert inside["silent"].wait(5)
        leave["recording"].set()  # the first to enter leaves first
        still_recording = first.result()
        leave["silent"].set()
        second.result()
    assert still_recording


def test_detach_shares_memory_and_leaves_the_graph():
    x = leaf(3)
    y = (x * 2).detach()
    assert y.is_leaf and not y.requires_grad
    assert np.shares_memory(x.detach().data, x.data)


def test_clone_has_memory_of_its_own_and_stays_in_the_graph():
    x = leaf(3)
    y = x.clone()
    assert not np.shares_memory(x.data, y.data)
    (y * y).sum().backward()
    np.testing.assert_array_equal(x.grad.data, 2 * x.data)


def test_requires_grad_is_set_on_float_leaves_only():
    x = dl.tensor([1.0, 2.0])
    assert x.requires_grad_() is x and x.requires_grad
    assert not x.requires_grad_(False).requires_grad
    with pytest.raises(RuntimeError, match="exp"):
        leaf(2).exp().requires_grad_(False)
    with pytest.raises(TypeError, match="int64"):
        dl.tensor([1, 2]).requires_grad_()


def test_what_holds_integers_needs_no_gradient():
    x = leaf(3)
    labels = x.to(np.int64)
    assert not labels.requires_grad
    assert not (x > 0).requires_grad and not x.argmax().requires_grad


# How gradients flow


def test_gradients_of_two_backward_passes_add_up():
    x, c = leaf(3), numbers(3, seed=1)
    (x * c).sum().backward()
    first = x.grad
    (x * x).sum().backward()
    np.testing.assert_allclose(x.grad.data, c + 2 * x.data)
    np.testing.assert_array_equal(first.data, c)  # what somebody took meanwhile stays as it was


def test_a_value_used_1000_times_gets_the_sum_of_1000_gradients():
    x = leaf(3)
    y = x * 2
    total = sum(y * k for k in range(1000))
    total.backward(np.ones(3))
    np.testing.assert_array_equal(x.grad.data, np.full(3, 2.0 * sum(range(1000))))


def test_a_gradient_that_two_inputs_share_is_not_changed_while_it_is_summed():
    x, y, c = leaf(3), leaf(3, seed=1), numbers(3, seed=2)
    ((x + y) + x).backward(c)  # x and (x + y) are sent the same array
    np.testing.assert_array_equal(x.grad.data, 2 * c)
    np.testing.assert_array_equal(y.grad.data, c)


def test_a_chain_of_10000_operations_goes_all_the_way_back():
    x = y = leaf(2)
    for _ in range(10_000):
        y = y * 1.0001
    y.sum().backward()
    np.testing.assert_allclose(x.grad.data, np.full(2, 1.0001**10_000))


def test_a_chain_of_100000_operations_can_be_thrown_away():
    y = leaf(1)
    for _ in range(100_000):
        y = y + 1
    alive = weakref.ref(y.node)
    del y
    assert alive() is None


def test_both_ways_round_a_diamond_add_up():
    x = leaf(3)
    y = x.exp()
    z = y * y.log()  # e^x · x
    z.sum().backward()
    np.testing.assert_allclose(x.grad.data, np.exp(x.data) * (1 + x.data))


def test_steps_come_newest_first():
    x = leaf(2)
    a = x.exp()
    b = x * 3
    loss = (b + a).sum()
    assert operation_names(loss) == ["sum", "add", "mul", "exp"]


def test_each_gradient_function_runs_once_and_none_for_what_needs_no_gradient():
    calls = []

    @differentiable
    def weigh(a, b):
        """a · b"""
        return a * b, (lambda g: calls.append("a") or g * b, lambda g: calls.append("b") or g * a)

    x = y = leaf(3)
    frozen = dl.tensor(numbers(3, seed=1))
    for _ in range(20):  # 2²⁰ paths
        y = weigh(y + y, frozen)
    y.sum().backward()
    assert calls == 20 * ["a"] and frozen.grad is None
    np.testing.assert_allclose(x.grad.data, (2 * frozen.data) ** 20)


@pytest.mark.parametrize("shape", [(), (1,), (4,), (1, 4), (3, 1), (1, 1), (2, 1, 1), (2, 3, 1), (1, 1, 4)], ids=str)
def test_the_gradient_of_what_was_broadcast_is_summed(shape):
    x, y, c = leaf(*shape), leaf(2, 3, 4, seed=1), numbers(2, 3, 4, seed=2)
    (x * y).backward(c)
    whole = c * y.data
    expected = np.zeros(shape)
    for index in np.ndindex(whole.shape):  # entry by entry, as broadcasting pairs them
        expected[tuple(i if n > 1 else 0 for i, n in zip(index[3 - len(shape) :], shape, strict=True))] += whole[index]
    assert x.grad.shape == shape
    np.testing.assert_allclose(x.grad.data, expected)


def test_broadcasting_against_nothing_gives_a_gradient_of_zeros():
    x = leaf(1, 3)
    (x + dl.tensor(np.ones((0, 3)))).sum().backward()
    np.testing.assert_array_equal(x.grad.data, np.zeros((1, 3)))


def test_each_gradient_has_the_dtype_of_its_own_input():
    single, double = leaf(3, dtype=np.float32), leaf(3, seed=1)
    y = single * double
    assert y.dtype == np.float64
    y.sum().backward()
    assert (single.grad.dtype, double.grad.dtype) == (np.float32, np.float64)
    np.testing.assert_array_equal(single.grad.data, double.data.astype(np.float32))


def test_a_gradient_may_start_anywhere():
    x = leaf(2, 3)
    y, c = x * x, numbers(2, 3, seed=1)
    y.backward(c.tolist())
    np.testing.assert_allclose(x.grad.data, 2 * c * x.data)
    x.backward(dl.tensor(c.astype(np.float32)))  # a leaf is its own derivative
    np.testing.assert_allclose(x.grad.data, 2 * c * x.data + c.astype(np.float32))


# Gradients that are refused


@pytest.mark.parametrize(
    "value, gradient",
    [
        pytest.param(lambda x: x.sum(), lambda g, x: g, id="not broadcast"),
        pytest.param(lambda x: np.stack([x, x]), lambda g, x: g[:1], id="an axis left over"),
        pytest.param(lambda x: x * np.ones((4, 1, 1)), lambda g, x: g.sum(axis=(0, 1)), id="summed too much"),
        pytest.param(lambda x: x.T, lambda g, x: g, id="not transposed back"),
        pytest.param(lambda x: x.reshape(3, 2), lambda g, x: g, id="not reshaped back"),
        pytest.param(lambda x: x.ravel(), lambda g, x: g, id="not unflattened"),
        pytest.param(lambda x: np.ones((5, 2)) @ x, lambda g, x: np.ones((5, *x.shape)), id="one for each row"),
        pytest.param(lambda x: np.ones((5, 2, 3, 4)) * x[..., None], lambda g, x: g, id="one for each pixel"),
    ],
)
def test_a_gradient_of_the_wrong_shape_is_refused(value, gradient):
    @differentiable
    def careless(x):
        """Forgets a step of its gradient."""
        return value(x), (lambda g: gradient(g, x),)

    x = leaf(2, 3)
    with pytest.raises(RuntimeError, match=mentions("careless", "(2, 3)")):
        careless(x).sum().backward()
    assert x.grad is None


def test_a_gradient_of_the_wrong_dtype_is_refused():
    @differentiable
    def careless(x):
        """Computes in the wrong precision."""
        return x * 2, (lambda g: g.astype(np.float16),)

    with pytest.raises(RuntimeError, match=mentions("careless", "float16", "float32")):
        careless(leaf(3, dtype=np.float32)).sum().backward()


def test_an_argument_without_a_gradient_is_refused_by_name():
    @differentiable
    def shift(x, amount):
        """x + amount, where amount is meant to be constant"""
        return x + amount, (lambda g: g, None)

    assert shift(leaf(2), dl.tensor(1.0)).requires_grad
    with pytest.raises(RuntimeError, match=mentions("shift", "amount", "detach")):
        shift(leaf(2), leaf())


# Where backward cannot begin


def test_a_graph_is_walked_once():
    x = leaf(2)
    loss = x.exp().sum()
    loss.backward()
    before = x.grad.data.copy()
    with pytest.raises(RuntimeError, match=mentions("sum", "second time")):
        loss.backward()
    np.testing.assert_array_equal(x.grad.data, before)


def test_a_shared_part_of_two_graphs_is_walked_once():
    x = leaf(2)
    shared = x.exp()
    (shared * 2).sum().backward()
    before = x.grad.data.copy()
    with pytest.raises(RuntimeError, match=mentions("exp", "second time")):
        (shared * 3).sum().backward()
    np.testing.assert_array_equal(x.grad.data, before)


def test_several_numbers_need_a_gradient_to_start_from():
    with pytest.raises(RuntimeError, match=mentions("(2, 3)", "gradient=", "sum()")):
        leaf(2, 3).exp().backward()
    leaf(1, 1).exp().backward()  # one number does not, whatever its shape


@pytest.mark.parametrize("shape", [(), (3,), (3, 2), (1, 2, 3)], ids=str)
def test_the_gradient_to_start_from_has_the_shape_of_the_loss(shape):
    with pytest.raises(ValueError, match=mentions(shape, "(2, 3)")):
        leaf(2, 3).exp().backward(np.ones(shape))


def test_a_loss_that_records_nothing_has_no_gradient():
    with pytest.raises(RuntimeError, match=mentions("requires_grad=True", "no_grad")):
        dl.tensor(1.0).exp().backward()
    with dl.no_grad():
        loss = leaf(2).sum()
    with pytest.raises(RuntimeError, match="no_grad"):
        loss.backward()


# Changes in place


def overwrite(x):
    with dl.no_grad():
        x[...] = 7


def add_in_place(x):
    with dl.no_grad():
        x += 1


def overwrite_through_a_view(x):
    with dl.no_grad():
        x[0:2][...] = 7


def overwrite_through_another_shape(x):
    x.detach().reshape(-1).copy_(7)


def optimizer_step(x):
    x.grad = dl.tensor(np.ones(x.shape))
    optim.SGD([x], lr=0.1).step()


CHANGES = [
    pytest.param(overwrite, id="x[...] ="),
    pytest.param(add_in_place, id="x +="),
    pytest.param(overwrite_through_a_view, id="through a view"),
    pytest.param(overwrite_through_another_shape, id="through detach and reshape"),
    pytest.param(optimizer_step, id="an optimizer step"),
    pytest.param(lambda x: dl.nn.init.zeros_(x), id="an initialiser"),
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_what_a_gradient_needs_is_refused(change):
    x = leaf(3)
    loss = (x * x).sum()
    change(x)
    with pytest.raises(RuntimeError, match=mentions("mul", "in place", "clone()")):
        loss.backward()


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_what_no_gradient_needs_is_allowed(change):
    x = leaf(3)
    loss = ((x + 1) * 2).sum()
    change(x)
    x.grad = None
    loss.backward()
    np.testing.assert_array_equal(x.grad.data, np.full(3, 2.0))


def test_a_change_before_the_operation_is_allowed():
    x = leaf(3)
    overwrite(x)
    (x * x).sum().backward()
    np.testing.assert_array_equal(x.grad.data, np.full(3, 14.0))


def test_a_change_of_a_result_that_its_own_gradient_needs_is_refused():
    y = leaf(3).exp()
    loss = y.sum()
    overwrite(y)
    with pytest.raises(RuntimeError, match=mentions("exp", "in place")):
        loss.backward()


def test_a_change_of_the_whole_is_noticed_by_its_part():
    x, w = dl.tensor(numbers(4)), leaf(2)
    loss = (w * x[1:3]).sum()
    x[...] = 0
    with pytest.raises(RuntimeError, match=mentions("mul", "in place")):
        loss.backward()


def test_a_change_of_a_factor_of_a_constant_is_allowed():
    x = leaf(3)
    loss = (x * dl.tensor(numbers(3, seed=1))).sum()  # ∂L/∂x needs the constant, and x is for ∂L/∂constant only
    overwrite(x)
    loss.backward()
    np.testing.assert_array_equal(x.grad.data, numbers(3, seed=1))


HOLDERS = {
    "a closure": lambda b: lambda g: g * b,
    "a closure within a closure": lambda b: (lambda times: lambda g: times(g))(lambda g: g * b),
    "a tuple": lambda b: (lambda both: lambda g: g * both[0][1])(((0, b),)),
    "a dictionary": lambda b: (lambda saved: lambda g: g * saved["b"])({"b": b}),
    "a default argument": lambda b: lambda g, b=b: g * b,
    "a partial function": lambda b: functools.partial(np.multiply, b),
}


@pytest.mark.parametrize("hold", HOLDERS.values(), ids=HOLDERS)
def test_a_change_is_noticed_however_the_gradient_function_holds_the_value(hold):
    @differentiable
    def weigh(a, b):
        """a · b, for a constant b"""
        return a * b, (hold(b), None)

    b = dl.tensor(numbers(3, seed=1))
    loss = weigh(leaf(3), b).sum()
    b[...] = 0
    with pytest.raises(RuntimeError, match=mentions("weigh", "in place")):
        loss.backward()


def test_a_change_is_noticed_when_only_a_view_of_the_value_is_left():
    @differentiable
    def weigh_backwards(a, b):
        """a times b in reverse, for a constant b"""
        backwards = b[::-1]
        return a * backwards, (lambda g: g * backwards, None)

    whole = dl.tensor(numbers(4))
    loss = weigh_backwards(leaf(2), whole[1:3]).sum()
    whole[...] = 0
    with pytest.raises(RuntimeError, match=mentions("weigh_backwards", "in place")):
        loss.backward()


def test_a_leaf_that_needs_a_gradient_is_not_changed_while_recording():
    x = leaf(3)
    with pytest.raises(RuntimeError, match="no_grad"):
        x += 1
    with pytest.raises(RuntimeError, match="no_grad"):
        x[0] = 1
    with pytest.raises(RuntimeError, match="cat"):
        dl.tensor(numbers(3))[0:1] = x[0:1]
    np.testing.assert_array_equal(x.data, numbers(3))


def test_augmented_assignment_of_a_result_is_recorded_and_changes_nothing_else():
    x = leaf(3)
    y = before = x * 2
    y += 1
    y *= x
    assert before.node.operation == "mul" and y.node.operation == "mul" and y is not before
    np.testing.assert_array_equal(before.data, 2 * x.data)
    y.sum().backward()
    np.testing.assert_allclose(x.grad.data, 4 * x.data + 1)


def test_augmented_assignment_outside_the_graph_writes_to_the_same_memory():
    x = dl.tensor([1.0, 2.0])
    view = x[0:1]
    x += 1
    x *= dl.tensor(2.0)
    x -= np.float64(1)
    x /= 2
    np.testing.assert_array_equal(x.data, np.array([1.5, 2.5], np.float32))
    assert view.item() == 1.5 and x.dtype == np.float32


@pytest.mark.parametrize("change", [Tensor.__iadd__, Tensor.__isub__, Tensor.__itruediv__])
def test_augmented_assignment_does_not_round_floats_to_integers(change):
    x = dl.tensor([1, 2])
    with pytest.raises(TypeError, match=mentions("float", "int64")):
        change(x, 0.5)
    assert x.data.tolist() == [1, 2]


# What is kept until the backward pass, and how long


def owner(array):
    """The array that owns the memory."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


IMAGES, FILTERS = (2, 3, 4, 5), (2, 3, 2, 3)


@pytest.mark.parametrize(
    "operation",
    [
        pytest.param(lambda h: h + 1, id="add"),
        pytest.param(lambda h: h * 2, id="mul by a number"),
        pytest.param(lambda h: h.sum(axis=1), id="sum"),
        pytest.param(lambda h: h.mean(axis=1), id="mean"),
        pytest.param(lambda h: F.cat([h, h]), id="cat"),
        pytest.param(lambda h: F.pad(h, (1, 1)), id="pad"),
        pytest.param(lambda h: h[[0, 1, 1]], id="getitem"),
        pytest.param(lambda h: F.avg_pool2d(h, 2), id="avg_pool2d"),
        pytest.param(lambda h: F.adaptive_avg_pool2d(h, 2), id="adaptive_avg_pool2d"),
        pytest.param(lambda h: F.im2col(h, 2), id="im2col"),
        pytest.param(lambda h: F.conv2d(h, dl.tensor(numbers(*FILTERS))), id="conv2d with frozen filters"),
        pytest.param(lambda h: F.linear(h, dl.tensor(numbers(2, 5))), id="linear with a frozen weight"),
        pytest.param(lambda h: h @ dl.tensor(numbers(5, 2)), id="matmul with a constant"),
        pytest.param(lambda h: h * dl.tensor(numbers(5)), id="mul by a constant"),
    ],
)
def test_an_input_that_no_gradient_needs_is_not_kept(operation):
    h = leaf(*IMAGES) * 1
    memory = weakref.ref(owner(h.data))
    result = operation(h)
    del h
    assert memory() is None
    result.sum().backward()


@pytest.mark.parametrize(
    "operation",
    [
        pytest.param(lambda x: x * x, id="mul"),
        pytest.param(lambda x: F.conv2d(x, leaf(*FILTERS), leaf(2)), id="conv2d"),
        pytest.param(lambda x: F.conv_transpose2d(x, leaf(3, 2, 2, 3)), id="conv_transpose2d"),
        pytest.param(lambda x: F.linear(x, leaf(2, 5)), id="linear"),
        pytest.param(lambda x: x @ leaf(5, 2), id="matmul"),
        pytest.param(lambda x: x.mean(axis=1), id="mean"),
        pytest.param(lambda x: F.avg_pool2d(x, 2), id="avg_pool2d"),
        pytest.param(lambda x: F.adaptive_avg_pool2d(x, 2), id="adaptive_avg_pool2d"),
        pytest.param(lambda x: F.im2col(x, 2), id="im2col"),
        pytest.param(lambda x: F.local_response_norm(x, 2), id="local_response_norm"),
    ],
)
def test_a_result_that_no_gradient_needs_is_not_kept(operation):
    y = operation(leaf(*IMAGES))
    memory = weakref.ref(owner(y.data))
    loss = y.sum()
    del y
    assert memory() is None
    loss.backward()


def test_what_was_kept_is_released_step_by_step():
    captured = []

    @differentiable
    def remember(x):
        """2 x, with a captured array for each call"""
        memory = np.full(x.shape, 2.0)
        captured.append(weakref.ref(memory))
        return x * 2, (lambda g: g * memory,)

    loss = functools.reduce(lambda y, _: remember(y), range(4), leaf(3)).sum()
    alive = [sum(memory() is not None for memory in captured) for _ in dl.backward_steps(loss)]
    assert alive == [4, 3, 2, 1, 0]


def test_a_graph_that_is_dropped_lets_go_of_everything():
    y = leaf(3).exp()
    memory = weakref.ref(y.data)
    del y
    assert memory() is None


# The arrays in .grad


def test_the_arrays_in_grad_belong_to_their_tensor_alone():
    x, y, w, g = leaf(2), leaf(2, seed=1), leaf(1, 2), np.ones(2)
    z = (x + y) + w.reshape(2)[::-1]
    z.backward(g)
    arrays = [x.grad.data, y.grad.data, w.grad.data, g]
    assert not any(np.shares_memory(a, b) for i, a in enumerate(arrays) for b in arrays[:i])
    for array in arrays:
        array += 5  # writable, too: sums hand back broadcast views
    assert all((array == 6).all() for array in arrays)


@pytest.mark.parametrize("path", [lambda x: x.sum(), lambda x: x.clone().T.reshape(-1).sum(), lambda x: x])
def test_the_array_in_grad_is_writable_memory_of_its_own(path):
    x = leaf(2, 2)
    g = np.ones(path(x).shape)
    path(x).backward(g)
    x.grad.data[0, 0] = 9
    np.testing.assert_array_equal(x.grad.data, [[9, 1], [1, 1]])
    assert (g == 1).all()


def test_what_a_backward_pass_added_to_is_not_changed_in_place():
    x, given = leaf(2), dl.tensor(np.ones(2))
    x.grad = given
    x.sum().backward()
    assert (given.data == 1).all() and (x.grad.data == 2).all()


def test_an_exception_in_a_gradient_leaves_every_grad_as_it_was():
    @differentiable
    def fail(x):
        """x, whose gradient fails"""
        return x * 1, (lambda g: {}["no gradient"],)

    x, y = leaf(2), leaf(2, seed=1)
    y.grad = before = dl.tensor(np.ones(2))
    with pytest.raises(KeyError, match="no gradient"):
        (fail(x) * y).sum().backward()  # y's gradient is ready by then
    assert x.grad is None and y.grad is before and (before.data == 1).all()


# Step by step


def lenet(x, filters, weight):
    """The shape of LeNet-5: convolution, squashing, subsampling, a full layer."""
    stages = [
        lambda h: F.conv2d(h, filters, padding=1),
        lambda h: h.tanh(),
        lambda h: F.avg_pool2d(h, 2),
        lambda h: h.flatten(1),
        lambda h: F.linear(h, weight),
        lambda h: F.cross_entropy(h, dl.tensor([2, 0])),
    ]
    values = [x]
    for stage in stages:
        values.append(stage(values[-1]))
    return stages, values


def lenet_inputs():
    return leaf(2, 1, 4, 6), leaf(3, 1, 3, 3, seed=1), leaf(4, 18, seed=2)


def test_steps_are_what_backward_does():
    inputs, again = lenet_inputs(), lenet_inputs()
    _, (*_, loss) = lenet(*inputs)
    loss.backward()
    _, (*_, loss) = lenet(*again)
    steps = list(dl.backward_steps(loss))
    assert [step.operation for step in steps] == ["cross_entropy", "linear", "flatten", "avg_pool2d", "tanh", "conv2d"]
    assert all(F.__dict__[step.operation].__doc__.startswith(step.formula) for step in steps)
    assert steps[0].gradient == 1
    for earlier, later in zip(steps, steps[1:], strict=False):  # a chain: what goes out comes in next
        np.testing.assert_array_equal(earlier.input_gradients[0], later.gradient)
    sent = [steps[-1].input_gradients[0], steps[-1].input_gradients[1], steps[1].input_gradients[1]]
    for array, x, y in zip(sent, inputs, again, strict=True):
        np.testing.assert_array_equal(array, y.grad.data)
        np.testing.assert_array_equal(x.grad.data, y.grad.data)


@pytest.mark.parametrize("place", range(6))
def test_the_gradient_at_each_step_is_that_of_the_rest_of_the_network(place):
    stages, values = lenet(*lenet_inputs())
    rest = functools.partial(functools.reduce, lambda h, stage: stage(h), stages[place:])
    assert dl.gradcheck(rest, values[place].detach())
    x = values[place].detach().requires_grad_()
    rest(x).backward()
    step = list(dl.backward_steps(values[-1]))[5 - place]
    np.testing.assert_allclose(step.input_gradients[0], x.grad.data, rtol=1e-12)


def test_a_step_holds_the_sum_over_all_uses_and_none_for_what_needs_no_gradient():
    x = leaf(2)
    y = x.exp()
    *_, exp = dl.backward_steps((y * dl.tensor(numbers(2, seed=1)) + y * 3).sum())
    assert exp.operation == "exp"
    np.testing.assert_allclose(exp.gradient, numbers(2, seed=1) + 3)
    _, step = dl.backward_steps((2 * x).sum())
    assert step.input_gradients[0] is None and step.input_gradients[1].shape == (2,)


def test_an_unfinished_walk_changes_no_grad():
    x, y = leaf(2), leaf(2)
    steps = dl.backward_steps((x * 2 + y).sum())
    next(steps), next(steps)  # y's gradient is known by now
    steps.close()
    assert x.grad is None and y.grad is None


def test_a_walk_takes_a_gradient_to_start_from():
    c = numbers(3)
    (step,) = dl.backward_steps(leaf(3).exp(), dl.tensor(c))
    np.testing.assert_array_equal(step.gradient, c)


# Tensors as values


@pytest.mark.parametrize(
    "data, dtype",
    [
        (1.5, np.float32),
        ([1, 2.5], np.float32),
        ([], np.float32),
        (3, np.int64),
        ([[1, 2]], np.int64),
        (True, np.bool_),
        (np.float64(1.5), np.float64),
        (np.int8(1), np.int8),
        (np.ones(2), np.float64),
        (np.ones(2, np.float16), np.float16),
        (np.ones(2, np.uint8), np.uint8),
        (dl.tensor(np.ones(2)), np.float64),
    ],
    ids=repr,
)
def test_python_floats_become_float32_and_all_else_keeps_its_dtype(data, dtype):
    assert dl.tensor(data).dtype == dtype
    assert dl.tensor(data, dtype="float64").dtype == np.float64


@pytest.mark.parametrize("make", [np.asarray, lambda array: dl.tensor(array)], ids=["array", "tensor"])
def test_tensor_copies_what_it_is_given(make):
    source = make(np.ones(3))
    x = dl.tensor(source)
    x[0] = 5
    assert source[0].item() == 1


def test_the_constructor_of_tensor_does_not_copy():
    array = np.ones(3)
    assert Tensor(array).data is array


@pytest.mark.parametrize(
    "data, error",
    [
        ("3", TypeError),
        (["a"], TypeError),
        (None, TypeError),
        (1j, TypeError),
        (np.ones(2, complex), TypeError),
        (np.array([1, None]), TypeError),
        (np.array(["2020-01-01"], "datetime64[D]"), TypeError),
        ({"a": 1}, TypeError),
        (2**70, TypeError),
        ([[1.0, 2.0], [3.0]], ValueError),
    ],
    ids=repr,
)
def test_what_is_not_numbers_is_refused(data, error):
    with pytest.raises(error):
        dl.tensor(data)
    if isinstance(data, np.ndarray):
        with pytest.raises(error, match=str(data.dtype)[:6]):
            Tensor(np.ones(2)) + data


@pytest.mark.parametrize("make", [dl.tensor, Tensor, dl.nn.Parameter])
def test_integers_cannot_need_a_gradient(make):
    with pytest.raises(TypeError, match="int64"):
        make(np.arange(3), requires_grad=True)


@pytest.mark.parametrize(
    "mix",
    [
        lambda x, n: x * n,
        lambda x, n: n * x,
        lambda x, n: x - n,
        lambda x, n: n - x,
        lambda x, n: x / n,
        lambda x, n: n / x,
        lambda x, n: x**n,
        lambda x, n: n**x,
    ],
)
@pytest.mark.parametrize("number", [2, 2.5, np.float64(2.5), np.int64(2)], ids=repr)
def test_a_number_does_not_promote_float32(mix, number):
    x = dl.tensor([1.0, 2.0], requires_grad=True)
    result = mix(x, number)
    assert isinstance(result, Tensor) and result.dtype == np.float32
    np.testing.assert_allclose(result.data, mix(x.data.astype(np.float64), float(number)), rtol=1e-6)
    result.sum().backward()
    assert x.grad.dtype == np.float32


@pytest.mark.parametrize(
    "array", [np.array([1.0, -2.0]), np.array([[1.0], [2.0]], np.float32), np.array(3.0)], ids=["1-d", "2-d", "0-d"]
)
def test_an_array_on_the_left_becomes_part_of_the_graph(array):
    x = leaf(2)
    for result, expected in (
        (array + x, array + x.data),
        (array - x, array - x.data),
        (array * x, array * x.data),
        (array / x, array / x.data),
    ):
        assert isinstance(result, Tensor) and result.requires_grad
        np.testing.assert_array_equal(result.data, expected)


REPRS = {
    "tensor(1.5)": lambda: dl.tensor(1.5),
    "tensor([1, 2])": lambda: dl.tensor([1, 2]),
    "tensor([ True, False])": lambda: dl.tensor([True, False]),
    "tensor([1., 2.], dtype=float64)": lambda: dl.tensor(np.array([1.0, 2.0])),
    "tensor([1., 2.], requires_grad=True)": lambda: dl.tensor([1.0, 2.0], requires_grad=True),
    "tensor([2., 4.], operation=mul)": lambda: dl.tensor([1.0, 2.0], requires_grad=True) * 2,
    "tensor([[1., 2.],\n        [3., 4.]])": lambda: dl.tensor([[1.0, 2.0], [3.0, 4.0]]),
    "tensor([1], dtype=int8)": lambda: dl.tensor(np.ones(1, np.int8)),
    "tensor([], dtype=float64)": lambda: dl.tensor(np.ones(0)),
    "Parameter containing:\ntensor([1.], requires_grad=True)": lambda: dl.nn.Parameter(dl.tensor([1.0])),
}


@pytest.mark.parametrize("text, make", REPRS.items(), ids=REPRS)
def test_a_tensor_prints_as_in_pytorch(text, make):
    assert repr(make()) == text


def test_a_large_tensor_prints_a_summary():
    assert len(repr(dl.tensor(np.zeros((100, 100))))) < 1000


def test_a_single_value_becomes_a_python_number():
    x = dl.tensor([[2.5]])
    assert x.item() == float(x) == 2.5 and type(x.item()) is float
    assert int(x) == 2 and bool(x) and not dl.tensor(0.0)
    assert type(dl.tensor(3).item()) is int and [10, 20, 30][dl.tensor(1)] == 20
    for convert in (Tensor.item, float, int, bool):
        with pytest.raises(ValueError, match=mentions("(2,)")):
            convert(dl.tensor([1.0, 2.0]))


def test_a_tensor_has_a_length_and_rows():
    x = leaf(3, 2)
    assert (len(x), x.shape, x.ndim, x.size, x.device) == (3, (3, 2), 2, 6, "cpu")
    rows = list(x)
    np.testing.assert_array_equal([row.detach().numpy() for row in rows], x.data)
    (rows[0] * rows[2]).sum().backward()
    np.testing.assert_array_equal(x.grad.data, [x.data[2], [0, 0], x.data[0]])
    for no_rows in (len, iter, list):
        with pytest.raises(TypeError):
            no_rows(dl.tensor(1.0))


def test_comparisons_are_elementwise_and_have_no_gradient():
    x, array = dl.tensor([1.0, 2.0, 3.0], requires_grad=True), np.array([1.0, 2.0, 3.0])
    for compare in ("__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__"):
        for other in (2, np.float64(2), np.full(3, 2), dl.tensor([2.0, 2.0, 2.0])):
            result = getattr(x, compare)(other)
            assert isinstance(result, Tensor) and result.dtype == bool and not result.requires_grad
            np.testing.assert_array_equal(result.data, getattr(array, compare)(2))
    np.testing.assert_array_equal((array == x).data, [True, True, True])  # Python asks the tensor, not NumPy
    np.testing.assert_array_equal((array < x).data, [False, False, False])


def test_tensors_are_told_apart_as_keys():
    x, y = dl.tensor([1.0]), dl.tensor([1.0])
    assert len({x, y}) == 2 and {x: 1}[x] == 1


def test_numpy_shares_memory_and_refuses_to_lose_a_gradient():
    x = dl.tensor([1.0, 2.0])
    assert x.numpy() is x.data
    for needy in (x.clone().requires_grad_(), leaf(2).exp()):
        with pytest.raises(RuntimeError, match=r"detach\(\).numpy\(\)"):
            needy.numpy()
        assert needy.detach().numpy() is needy.data


def test_a_numpy_function_does_not_swallow_a_tensor():
    with pytest.raises(TypeError):
        np.exp(leaf(2))


@pytest.mark.parametrize("make", [leaf, lambda n: dl.nn.Parameter(numbers(n))], ids=["tensor", "parameter"])
def test_a_deep_copy_is_a_leaf_of_the_same_kind_with_memory_of_its_own(make):
    x = make(2)
    (x * x).sum().backward()
    y, alias = copy.deepcopy([x, x])
    assert y is alias and type(y) is type(x) and y.requires_grad and y.is_leaf
    for copied, original in ((y, x), (y.grad, x.grad)):
        np.testing.assert_array_equal(copied.data, original.data)
        assert not np.shares_memory(copied.data, original.data)


def test_only_leaves_are_deep_copied():
    with pytest.raises(RuntimeError, match="detach"):
        copy.deepcopy(leaf(2).exp())


def test_indices_may_be_tensors():
    x = leaf(3, 2)
    x[dl.tensor([2, 0, 2]), dl.tensor(1)].backward(np.array([1.0, 2.0, 4.0]))
    np.testing.assert_array_equal(x.grad.data, [[0, 2], [0, 0], [0, 5]])


def test_assignment_outside_the_graph_converts_and_broadcasts():
    x = dl.tensor(np.zeros((2, 3), np.float32))
    x[dl.tensor([True, False])] = dl.tensor(np.arange(3))
    x[1] = np.float64(0.5)
    np.testing.assert_array_equal(x.data, [[0, 1, 2], [0.5, 0.5, 0.5]])
    assert x.dtype == np.float32


# Threads


def test_graphs_of_two_threads_do_not_meet():
    def train(seed, barrier):
        inputs = leaf(2, 1, 4, 6, seed=seed), leaf(3, 1, 3, 3, seed=seed + 1), leaf(4, 18, seed=seed + 2)
        barrier.wait(5)
        for _ in range(20):
            _, (*_, loss) = lenet(*inputs)
            loss.backward()
        return [tensor.grad.data for tensor in inputs]

    seeds, both, nobody = (0, 10), threading.Barrier(2), threading.Barrier(1)
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(train, seeds, (both, both)))
    for seed, found in zip(seeds, together, strict=True):
        for a, b in zip(found, train(seed, nobody), strict=True):
            np.testing.assert_array_equal(a, b)


# What newcomers try


@pytest.mark.parametrize("name, hint", [("view", "reshape"), ("permute", "transpose"), ("float", "float32")])
def test_a_method_of_pytorch_that_is_not_here_is_named_with_what_to_write(name, hint):
    with pytest.raises(AttributeError, match=f"no '{name}'.*{hint}"):
        getattr(dl.tensor(1.0), name)
    assert not hasattr(dl.tensor(1.0), "nothing_of_the_kind")


def test_a_number_is_formatted_and_an_array_is_made():
    assert f"{dl.tensor(0.25):.1%}" == "25.0%" and f"{dl.tensor(2)}" == "tensor(2)"
    assert np.asarray(dl.tensor([1, 2])).tolist() == [1, 2]
    with pytest.raises(RuntimeError, match="detach"):
        np.asarray(dl.tensor([1.0], requires_grad=True))


def test_to_knows_dtypes_by_name_and_devices():
    assert dl.tensor(1.0).to("float64").dtype == np.float64
    with pytest.raises(dl.DeviceError, match="cuda"):
        dl.tensor(1.0).to("cuda")


def test_an_operation_without_a_tuple_of_gradients_is_named():
    @differentiable
    def forgetful(x):
        return x, (lambda g: g)

    with pytest.raises(TypeError, match="forgetful.*comma"):
        forgetful(dl.tensor(1.0))


def test_a_function_of_the_users_never_replaces_an_operation():
    @differentiable
    def mul(a, b):
        return a * b, (lambda g: 7 * g, lambda g: 7 * g)

    x = dl.tensor(3.0, requires_grad=True)
    (x * 5).backward()
    assert x.grad.item() == 5


def test_a_change_of_an_index_or_an_option_after_its_use_does_not_change_the_gradient():
    x, index = dl.tensor([1.0, 2.0, 3.0], requires_grad=True), dl.tensor([0, 2])
    y = x[index]
    index[...] = 1
    y.backward(np.ones(2))
    assert x.grad.data.tolist() == [1, 0, 1]
    p, weight = dl.tensor([0.5], requires_grad=True), dl.tensor([1.0])
    loss = dl.functional.binary_cross_entropy(p, dl.tensor([1.0]), weight)
    weight[...] = 9.0
    with pytest.raises(RuntimeError, match="changed in place"):
        loss.backward()


def test_a_gradient_function_that_captured_itself_or_nothing_yet_is_looked_through():
    @differentiable
    def odd(x):
        def gradient(g):
            return g * x if gradient is not None else later

        if False:
            later = None
        return x * x, (gradient,)

    x = dl.tensor(2.0, requires_grad=True)
    y = odd(x)
    x.data += 1
    x.bump_version()
    with pytest.raises(RuntimeError, match="changed in place"):
        y.backward()


@pytest.mark.parametrize("call, argument", [
    (lambda z: dl.functional.cross_entropy(z, [0, 1]), "cross_entropy: target .* list"),
    (lambda z: dl.functional.cross_entropy(z, target=1), "cross_entropy: target .* int"),
    (lambda z: dl.functional.mse_loss(z, 1.0), "mse_loss: target .* float"),
    (lambda z: dl.functional.relu("one"), "relu: input .* str"),
], ids=["list", "keyword", "number", "string"])
def test_what_is_no_array_is_named_where_an_array_belongs(call, argument):
    with pytest.raises(TypeError, match=argument):
        call(dl.tensor([[1.0, 2.0], [3.0, 4.0]]))


# Observing operations

def test_an_observer_sees_each_operation_with_all_its_arguments():
    seen = []
    x, w = dl.tensor([[1.0, -2.0]]), dl.tensor([[3.0, 4.0]])
    with observe_operations(lambda operation, arguments, result: seen.append((operation, arguments, result))):
        y = F.relu(F.linear(x, w))
    F.relu(y)
    (first, given, inner), (second, _, last) = seen
    assert (first, second) == ("linear", "relu") and last is y
    assert given == {"input": x, "weight": w, "bias": None} and inner.item() == -5


def test_an_observer_is_gone_after_an_error_and_belongs_to_its_thread():
    seen = []
    with pytest.raises(ValueError), observe_operations(lambda *call: seen.append(call)):
        thread = threading.Thread(target=lambda: F.relu(dl.tensor([1.0])))
        thread.start()
        thread.join()
        F.linear(dl.tensor([1.0]), dl.tensor([1.0]))
    F.relu(dl.tensor([1.0]))
    assert seen == []
