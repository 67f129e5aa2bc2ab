"""SGD takes PyTorch's steps, in place and resumably; clipping keeps the direction and min(norm, bound) (D6)."""

import copy
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidl.autograd import Tensor
from minidl.optim import SGD, Optimizer, clip_grad_norm_, clip_grad_value_

SHAPES = [(), (7,), (3, 4), (2, 3, 3, 2)]
TOLERANCE = {np.float32: 1e-6, np.float64: 1e-12}


def parameters(dtype=np.float32, shapes=SHAPES, seed=0):
    rng = np.random.default_rng(seed)
    return [Tensor(np.asarray(rng.standard_normal(shape), dtype=dtype), requires_grad=True) for shape in shapes]


def gradients(step, params):
    """The gradient of each parameter at a step, of a distribution that no earlier step has repeated."""
    rng = np.random.default_rng(1000 + step)
    return [np.asarray(rng.standard_normal(p.shape), dtype=p.dtype) for p in params]


def give(params, arrays):
    for param, array in zip(params, arrays, strict=True):
        param.grad = Tensor(array)


def train(optimizer, params, steps):
    for step in steps:
        give(params, gradients(step, params))
        optimizer.step()


def values(params):
    return [param.data.copy() for param in params]


def assert_bit_identical(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == b.dtype and a.tobytes() == b.tobytes()


def by_the_book(w, steps, lr=1e-3, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False):
    """PyTorch's formula on one number at a time."""
    v = None
    for g in steps:
        d = g + weight_decay * w
        if momentum:
            v = d if v is None else momentum * v + (1 - dampening) * d
            d = d + momentum * v if nesterov else v
        w = w - lr * d
    return w


@st.composite
def options(draw):
    momentum = draw(st.just(0.0) | st.floats(0.05, 0.99))
    nesterov = momentum > 0 and draw(st.booleans())
    return {
        "lr": draw(st.just(0.0) | st.floats(1e-4, 0.5)),
        "momentum": momentum,
        "dampening": 0.0 if nesterov else draw(st.just(0.0) | st.floats(0.0, 1.0)),
        "weight_decay": draw(st.just(0.0) | st.floats(1e-5, 0.1)),
        "nesterov": nesterov,
    }


# The formula

@given(options(), st.sampled_from([np.float32, np.float64]))
def test_steps_follow_the_formula(options, dtype):
    params = parameters(dtype)
    before = values(params)
    train(SGD(params, **options), params, range(5))
    for index, param in enumerate(params):
        steps = [gradients(step, params)[index].astype(np.float64) for step in range(5)]
        expected = by_the_book(before[index].astype(np.float64), steps, **options)
        assert param.dtype == dtype
        np.testing.assert_allclose(param.data, expected, rtol=TOLERANCE[dtype], atol=4 * TOLERANCE[dtype])


@given(options(), st.sampled_from([np.float32, np.float64]))
def test_steps_agree_with_pytorch(options, dtype):
    torch = pytest.importorskip("torch")
    ours = parameters(dtype)
    theirs = [torch.tensor(param.data, requires_grad=True) for param in ours]
    optimizer, reference = SGD(ours, **options), torch.optim.SGD(theirs, **options)
    for step in range(6):
        arrays = gradients(step, ours)
        give(ours, arrays)
        for tensor, array in zip(theirs, arrays, strict=True):
            tensor.grad = torch.tensor(array)
        optimizer.step()
        reference.step()
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a.data, b.detach().numpy(), rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


def test_defaults_are_pytorchs():
    torch = pytest.importorskip("torch")
    theirs = torch.optim.SGD([torch.zeros(1)]).param_groups[0]
    ours = SGD([Tensor(np.zeros(1))]).param_groups[0]
    assert {name: theirs[name] for name in ours if name != "params"} == {k: v for k, v in ours.items() if k != "params"}


def test_the_first_velocity_is_the_gradient_undampened():
    param = Tensor(np.array([1.0]))
    optimizer = SGD([param], lr=0.1, momentum=0.5, dampening=0.75)
    give([param], [np.array([4.0])])
    optimizer.step()
    assert optimizer.state[param]["momentum_buffer"] == 4.0
    optimizer.step()
    assert optimizer.state[param]["momentum_buffer"] == 0.5 * 4.0 + 0.25 * 4.0


def test_a_changed_rate_scales_the_whole_velocity():
    """The papers' form keeps η inside the velocity: there the last step would be 0.9 · 1 + 0.1 · 1 = 1.0."""
    param = Tensor(np.array([0.0]))
    optimizer = SGD([param], lr=1.0, momentum=0.9)
    give([param], [np.array([1.0])])
    optimizer.step()
    assert param.data == -1.0
    optimizer.param_groups[0]["lr"] = 0.1
    optimizer.step()
    assert param.data == pytest.approx(-1.0 - 0.1 * 1.9, rel=1e-15)


@pytest.mark.parametrize("shape", [(200_000,), (3, 70_000), (300, 500), (300, 500, 1, 1), (2, 2, 40_000)])
@pytest.mark.parametrize("options", [{}, {"momentum": 0.9, "weight_decay": 0.01}], ids=["plain", "momentum"])
def test_large_parameters_are_updated_entirely(shape, options):
    """They go through the formula in blocks; the blocks must cover everything once."""
    [param] = parameters(shapes=[shape])
    start = param.data.copy()
    train(SGD([param], lr=0.1, **options), [param], range(2))
    small = [Tensor(part.copy()) for part in np.array_split(start.reshape(-1), 7)]
    optimizer = SGD(small, lr=0.1, **options)
    for step in range(2):
        give(small, np.array_split(gradients(step, [param])[0].reshape(-1), 7))
        optimizer.step()
    assert_bit_identical([param.data.reshape(-1)], [np.concatenate([part.data for part in small])])


def test_any_memory_layout():
    rows = parameters(shapes=[(300, 400)])
    columns = [Tensor(np.asfortranarray(rows[0].data))]
    pair = SGD(rows, lr=0.1, momentum=0.9), SGD(columns, lr=0.1, momentum=0.9)
    for step in range(3):
        give(rows, [np.asfortranarray(gradients(step, rows)[0])])
        give(columns, gradients(step, rows))
        for optimizer in pair:
            optimizer.step()
    np.testing.assert_array_equal(rows[0].data, columns[0].data)


# In place, and nothing else touched

def test_updates_in_place_and_leaves_the_gradient_alone():
    params = parameters()
    arrays, view = [param.data for param in params], params[2].data[1:]
    optimizer = SGD(params, lr=0.1, momentum=0.9, weight_decay=0.1, nesterov=True)
    give(params, gradients(0, params))
    before, old_view = [param.grad.data.copy() for param in params], view.copy()
    optimizer.step()
    assert all(param.data is array for param, array in zip(params, arrays, strict=True))
    assert (view != old_view).all()
    assert_bit_identical([param.grad.data for param in params], before)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_the_velocity_is_memory_of_its_own(nesterov, weight_decay):
    """A training loop may reuse the gradient's memory."""
    params = parameters()
    optimizer = SGD(params, momentum=0.9, nesterov=nesterov, weight_decay=weight_decay)
    train(optimizer, params, range(1))
    for param in params:
        buffer = optimizer.state[param]["momentum_buffer"]
        assert not np.shares_memory(buffer, param.grad.data)
        assert not np.shares_memory(buffer, param.data)


def test_numpy_numbers_do_not_promote():
    """A float64 scalar takes float32 arithmetic, and its rounding, to float64 (NEP 50)."""
    plain, numpy = parameters(), parameters()
    settings = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}
    train(SGD(plain, **settings), plain, range(3))
    train(SGD(numpy, **{name: np.float64(value) for name, value in settings.items()}), numpy, range(3))
    assert_bit_identical(values(numpy), values(plain))


def test_a_parameter_without_gradient_is_skipped():
    with_gradient, without = parameters(shapes=[(3,), (3,)])
    before = without.data.copy()
    optimizer = SGD([with_gradient, without], lr=0.1, momentum=0.9, weight_decay=0.5)
    train(optimizer, [with_gradient], range(2))
    assert_bit_identical([without.data], [before])
    assert list(optimizer.state) == [with_gradient]


def test_without_momentum_nothing_is_remembered():
    params = parameters()
    optimizer = SGD(params, lr=0.1)
    train(optimizer, params, range(2))
    assert optimizer.state_dict()["state"] == {}


def test_a_step_between_forward_and_backward_is_found():
    param = Tensor(np.array([2.0, 3.0]), requires_grad=True)
    loss = (param * param).sum()
    give([param], [np.ones(2)])
    SGD([param], lr=0.1).step()
    with pytest.raises(RuntimeError, match="changed in place"):
        loss.backward()


def test_descends_by_autograds_gradients():
    param = Tensor(np.array([5.0, -3.0]), requires_grad=True)
    optimizer = SGD([param], lr=0.1, momentum=0.5)
    for _ in range(60):
        optimizer.zero_grad()
        ((param - 1.0) * (param - 1.0)).sum().backward()
        optimizer.step()
    np.testing.assert_allclose(param.data, 1.0, atol=1e-6)


def test_zero_grad():
    first, second = parameters(shapes=[(3,), (3,)])
    optimizer = SGD([first, second])
    give([first], [np.ones(3, np.float32)])
    memory = first.grad.data
    optimizer.zero_grad(set_to_none=False)
    assert first.grad.data is memory and not memory.any() and second.grad is None
    optimizer.zero_grad()
    assert first.grad is None


# Groups

def test_groups_have_their_own_options():
    first, second, third = parameters(shapes=[(3,), (3,), (3,)])
    before = values([first, second, third])
    optimizer = SGD([{"params": [first]}, {"params": second, "lr": 0.5}], lr=0.1)
    optimizer.add_param_group({"params": iter([third]), "weight_decay": 1.0})
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.5, 0.1]
    give([first, second, third], [np.ones(3, np.float32)] * 3)
    optimizer.step()
    np.testing.assert_allclose(first.data, before[0] - 0.1, rtol=1e-6)
    np.testing.assert_allclose(second.data, before[1] - 0.5, rtol=1e-6)
    np.testing.assert_allclose(third.data, before[2] - 0.1 * (1 + before[2]), rtol=1e-6)


def test_the_callers_dicts_stay_as_they_are():
    given_group = {"params": parameters()}
    SGD([given_group], lr=0.1)
    assert list(given_group) == ["params"]


def test_takes_a_generator():
    params = parameters()
    assert SGD(param for param in params).param_groups[0]["params"] == params


def test_repr_shows_every_group():
    text = repr(SGD([{"params": parameters()}, {"params": parameters(), "lr": 0.5}], lr=0.1))
    assert text.splitlines()[:2] == ["SGD (", "Parameter Group 0"]
    assert "    lr: 0.1\n" in text and "Parameter Group 1\n" in text and "    lr: 0.5\n" in text


def test_a_subclass_is_a_formula():
    """The part a student writes: state by parameter, options by group, saved and loaded like SGD's."""

    class SignDescent(Optimizer):
        def __init__(self, params, lr=0.1):
            super().__init__(params, {"lr": lr})

        def step(self):
            for group in self.param_groups:
                for param in group["params"]:
                    self.state[param]["steps"] = self.state[param].get("steps", 0) + 1
                    param.data -= group["lr"] * np.sign(param.grad.data)

    params = parameters(shapes=[(2,)])
    optimizer = SignDescent(params)
    train(optimizer, params, range(3))
    other = SignDescent(params)
    other.load_state_dict(optimizer.state_dict())
    assert other.state_dict()["state"] == {0: {"steps": 3}}


# Saving and loading

def make(params, **options):
    return SGD([{"params": params[:1], "lr": 0.3}, {"params": params[1:]}], lr=0.1, weight_decay=0.01, **options)


def test_state_dict_has_pytorchs_structure():
    torch = pytest.importorskip("torch")
    ours = parameters()
    theirs = [torch.tensor(param.data, requires_grad=True) for param in ours]
    for tensor, array in zip(theirs, gradients(0, ours), strict=True):
        tensor.grad = torch.tensor(array)
    optimizer = make(ours, momentum=0.9)
    reference = torch.optim.SGD(
        [{"params": theirs[:1], "lr": 0.3}, {"params": theirs[1:]}], lr=0.1, weight_decay=0.01, momentum=0.9
    )
    train(optimizer, ours, range(1))
    reference.step()
    saved, expected = optimizer.state_dict(), reference.state_dict()
    assert list(saved) == list(expected) and list(saved["state"]) == list(expected["state"])
    for index, state in expected["state"].items():
        assert list(saved["state"][index]) == list(state) == ["momentum_buffer"]
        np.testing.assert_allclose(
            saved["state"][index]["momentum_buffer"], state["momentum_buffer"].numpy(), rtol=1e-6
        )
    for group, reference_group in zip(saved["param_groups"], expected["param_groups"], strict=True):
        assert group == {name: reference_group[name] for name in group}


def test_pytorchs_state_continues_here_and_ours_there():
    torch = pytest.importorskip("torch")
    ours = parameters(np.float64)
    theirs = [torch.tensor(param.data, requires_grad=True) for param in ours]
    settings = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01, "dampening": 0.2}

    def train_reference(reference, steps):
        for step in steps:
            for tensor, array in zip(theirs, gradients(step, ours), strict=True):
                tensor.grad = torch.tensor(array)
            reference.step()

    reference = torch.optim.SGD(theirs, **settings)
    train_reference(reference, range(3))
    saved = reference.state_dict()
    saved["state"] = {i: {k: v.numpy() for k, v in state.items()} for i, state in saved["state"].items()}
    for param, tensor in zip(ours, theirs, strict=True):
        param.data[...] = tensor.detach().numpy()
    optimizer = SGD(ours)
    optimizer.load_state_dict(saved)
    train(optimizer, ours, range(3, 6))
    train_reference(reference, range(3, 6))

    back = optimizer.state_dict()
    back["state"] = {i: {k: torch.tensor(v) for k, v in state.items()} for i, state in back["state"].items()}
    reference = torch.optim.SGD(theirs)
    reference.load_state_dict(back)
    train(optimizer, ours, range(6, 9))
    train_reference(reference, range(6, 9))
    for param, tensor in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(param.data, tensor.detach().numpy(), rtol=1e-12, atol=1e-12)


@given(options(), st.integers(0, 3))
def test_a_resumed_run_is_bit_identical(options, stop):
    whole = parameters()
    train(SGD(whole, **options), whole, range(5))

    stopped = parameters()
    optimizer = SGD(stopped, **options)
    train(optimizer, stopped, range(stop))
    resumed = [Tensor(array) for array in values(stopped)]
    fresh = SGD(resumed)
    fresh.load_state_dict(optimizer.state_dict())
    train(optimizer, stopped, range(100, 102))  # the other run going on must not reach into the resumed one
    train(fresh, resumed, range(stop, 5))
    assert_bit_identical(values(resumed), values(whole))


def test_loading_replaces_state_and_converts_it():
    source, target = parameters(np.float64), parameters(np.float32)
    optimizer, other = SGD(source, momentum=0.9), SGD(target, momentum=0.9)
    train(optimizer, source, range(2))
    train(other, target, range(1))
    other.load_state_dict(optimizer.state_dict())
    for a, b in zip(source, target, strict=True):
        buffer = other.state[b]["momentum_buffer"]
        assert buffer.dtype == np.float32
        np.testing.assert_array_equal(buffer, optimizer.state[a]["momentum_buffer"].astype(np.float32))
    other.load_state_dict(SGD(source, momentum=0.9).state_dict())
    assert other.state_dict()["state"] == {}


def spoil(saved, how):
    if how == "another number of parameters":
        saved["param_groups"][1]["params"].pop()
    elif how == "another number of groups":
        saved["param_groups"].pop()
    elif how == "an option gone":
        del saved["param_groups"][1]["momentum"]
    elif how == "another shape":
        saved["state"][1]["momentum_buffer"] = np.zeros((9, 9))
    elif how == "state of nobody":
        saved["state"][17] = saved["state"].pop(1)
    else:
        del saved[how]
    return saved


@pytest.mark.parametrize(
    "how, message",
    [
        ("another number of parameters", r"groups have \[1, 2\] parameters, those of this optimizer have \[1, 3\]"),
        ("another number of groups", r"the saved groups have \[1\] parameters"),
        ("an option gone", "lacks momentum"),
        ("another shape", r"momentum_buffer of parameter 1 has shape \(9, 9\); the parameter has shape \(7,\)"),
        ("state of nobody", "parameter 17"),
        ("state", "lacks state"),
        ("param_groups", "lacks param_groups"),
    ],
)
def test_a_foreign_state_is_refused_and_changes_nothing(how, message):
    params = parameters()
    optimizer = make(params, momentum=0.9)
    train(optimizer, params, range(2))
    groups = [dict(group) for group in optimizer.param_groups]
    buffers = [optimizer.state[param]["momentum_buffer"].copy() for param in params]
    with pytest.raises(ValueError, match=message):
        optimizer.load_state_dict(spoil(optimizer.state_dict(), how))
    assert optimizer.param_groups == groups
    assert_bit_identical([optimizer.state[param]["momentum_buffer"] for param in params], buffers)


# What is refused

@pytest.mark.parametrize(
    "options, message",
    [
        ({"lr": -0.1}, "lr must be a number ≥ 0; got -0.1"),
        ({"lr": math.nan}, "lr must be a number ≥ 0; got nan"),
        ({"momentum": -0.9}, "momentum must be a number ≥ 0; got -0.9"),
        ({"weight_decay": -5e-4}, "weight_decay must be a number ≥ 0; got -0.0005"),
        ({"nesterov": True}, r"nesterov=True needs momentum > 0 .* got momentum=0.0"),
        ({"nesterov": True, "momentum": 0.9, "dampening": 0.1}, "dampening=0.1"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        SGD(parameters(), **options)
    with pytest.raises(ValueError, match=message):
        SGD([{"params": parameters(), **options}])
    with pytest.raises(ValueError, match=message):
        SGD([{"params": parameters(), "lr": 0.1, "momentum": 0.9, "weight_decay": 0.0, "nesterov": False}], **options)


ONE, OTHER = parameters(shapes=[(3,), (3,)])


@pytest.mark.parametrize(
    "params, error, message",
    [
        ([], ValueError, "no parameters"),
        (iter([]), ValueError, "no parameters"),
        (ONE, TypeError, "got a Tensor"),
        ({ONE, OTHER}, TypeError, "got a set"),
        ([{"params": {ONE, OTHER}}], TypeError, "no order"),
        ([ONE, np.zeros(3)], TypeError, "parameter 1 is a ndarray"),
        ([ONE, {"params": [OTHER]}], TypeError, "parameter 1 is a dict"),
        ([{"params": [ONE]}, OTHER], TypeError, "a parameter group is a dict"),
        ([{"lr": 0.1}], TypeError, r"a parameter group is a dict .* got \{'lr': 0.1\}"),
        ([ONE, OTHER, ONE], ValueError, r"parameter 2, of shape \(3,\), was already given"),
        ([{"params": [ONE]}, {"params": [OTHER, ONE]}], ValueError, "parameter 1, .* was already given"),
    ],
)
def test_bad_parameters(params, error, message):
    with pytest.raises(error, match=message):
        SGD(params)


def test_the_result_of_an_operation_is_no_parameter():
    with pytest.raises(ValueError, match=r"parameter 1, of shape \(3,\), is the result of an operation"):
        SGD([ONE, OTHER * 2.0])


def test_a_refused_group_is_not_added():
    optimizer = SGD([ONE])
    with pytest.raises(ValueError, match="already given"):
        optimizer.add_param_group({"params": [OTHER, ONE]})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize("wrong", ["0.1", None, [0.1], np.array([0.1, 0.2]), True, 1j, Tensor(np.ones(2))], ids=repr)
def test_a_rate_is_one_number(wrong):
    with pytest.raises(ValueError, match="lr must be a number ≥ 0; got"):
        SGD(parameters(), lr=wrong)


@pytest.mark.parametrize("kind", [np.float32, np.array, lambda x: np.array([x]), lambda x: Tensor(np.array(x)),
                                  lambda x: Tensor(np.array([x]))])
def test_a_rate_may_be_any_kind_of_number(kind):
    plain, other = parameters(), parameters()
    train(SGD(plain, lr=0.25, momentum=0.5), plain, range(2))
    train(SGD(other, lr=kind(0.25), momentum=kind(0.5)), other, range(2))
    assert_bit_identical(values(plain), values(other))


@pytest.mark.parametrize("params", [3, None, type("Net", (), {})()], ids=["number", "None", "network"])
def test_what_holds_no_parameters_is_said(params):
    with pytest.raises(TypeError, match=r"got a \w+\. Of a network, pass network.parameters\(\)"):
        SGD(params)


# A step that cannot be taken, of the second of two groups

def read_only(group):
    group["params"][1].data.flags.writeable = False


NOT_READY = {
    "read-only memory": (read_only, ValueError, r"parameter 2, of shape \(3,\), is in read-only memory"),
    "gradient of another shape": (lambda group: setattr(group["params"][1], "grad", Tensor(np.ones(1, np.float32))),
                                  ValueError, r"parameter 2, of shape \(3,\), .* \.grad of shape \(1,\)"),
    "gradient of another dtype": (lambda group: setattr(group["params"][1], "grad", Tensor(np.ones(3))), TypeError,
                                  r"parameter 2, of shape \(3,\), is float32, and its \.grad float64"),
    "gradient that is an array": (lambda group: setattr(group["params"][1], "grad", np.ones(3, np.float32)), TypeError,
                                  r"parameter 2.* has a ndarray as its \.grad; .* minidl\.tensor"),
    "parameter that is none": (lambda group: group["params"].append("w"), TypeError, "parameter 3 is a str"),
    "rate": (lambda group: group.update(lr="0.1"), ValueError, "lr must be a number ≥ 0; got '0.1'"),
    "negative rate": (lambda group: group.update(lr=-1.0), ValueError, "lr must be a number ≥ 0; got -1.0"),
    "momentum": (lambda group: group.update(momentum=math.nan), ValueError, "momentum must be a number ≥ 0; got nan"),
    "dampening": (lambda group: group.update(dampening=None), ValueError, "dampening must be a number; got None"),
    "nesterov": (lambda group: group.update(nesterov=True, momentum=0.0), ValueError, "nesterov=True needs momentum"),
    "option that is gone": (lambda group: group.pop("weight_decay"), ValueError, "lacks weight_decay"),
    "maximize": (lambda group: group.update(maximize=True), ValueError, "maximize=True"),
}


@pytest.mark.parametrize("spoil, error, message", NOT_READY.values(), ids=NOT_READY)
def test_a_step_that_cannot_be_taken_changes_no_parameter(spoil, error, message):
    params = parameters(shapes=[(2,), (3,), (3,)])
    optimizer = SGD([{"params": params[:1]}, {"params": params[1:]}], lr=0.1, momentum=0.9)
    train(optimizer, params, range(1))
    before, buffers = values(params), copy.deepcopy([optimizer.state[p]["momentum_buffer"] for p in params])
    versions = [param.version.count for param in params]
    spoil(optimizer.param_groups[1])
    with pytest.raises(error, match=message):
        optimizer.step()
    assert_bit_identical(values(params), before)
    assert_bit_identical([optimizer.state[param]["momentum_buffer"] for param in params], buffers)
    assert [param.version.count for param in params] == versions


def test_memory_mapped_weights_are_not_trained_and_a_copy_is(tmp_path):
    np.save(tmp_path / "w.npy", np.ones(3, np.float32))
    weights = np.load(tmp_path / "w.npy", mmap_mode="r")
    for array in (weights, weights.copy()):
        param = Tensor(array, requires_grad=True)
        give([param], [np.ones(3, np.float32)])
        if array is weights:
            with pytest.raises(ValueError, match="read-only memory, as of np.load"):
                SGD([param], lr=0.5).step()
        else:
            SGD([param], lr=0.5).step()
            assert param.data.tolist() == [0.5] * 3


def test_state_of_another_shape_is_said_at_the_step():
    [param] = parameters(shapes=[(3,)])
    optimizer = SGD([param], lr=0.1, momentum=0.9)
    train(optimizer, [param], range(1))
    param.data = np.ones(4, np.float32)
    give([param], [np.ones(4, np.float32)])
    with pytest.raises(ValueError, match=r"of shape \(4,\), cannot be changed by its momentum_buffer of shape \(3,\)"):
        optimizer.step()
    assert param.data.tolist() == [1] * 4


# Half precision

@pytest.mark.parametrize("scale", [1e-4, 1.0, 1000.0])
@pytest.mark.parametrize("options", [{"lr": 0.1}, {"lr": 1e-8}, {"lr": 0.01, "momentum": 0.9, "weight_decay": 1e-4},
                                     {"lr": 0.01, "momentum": 0.9, "nesterov": True}], ids=str)
def test_half_precision_steps_are_pytorchs(options, scale):
    torch = pytest.importorskip("torch")
    half = [Tensor(np.zeros(500, np.float16)), *parameters(np.float16, [(500,)])]
    theirs = [torch.tensor(param.data) for param in half]
    optimizer, reference = SGD(half, **options), torch.optim.SGD(theirs, **options)
    for step in range(5):
        give(half, [gradient * np.float16(scale) for gradient in gradients(step, half)])
        for tensor, param in zip(theirs, half, strict=True):
            tensor.grad = torch.tensor(param.grad.data)
        optimizer.step()
        reference.step()
    for param, tensor in zip(half, theirs, strict=True):
        assert param.dtype == optimizer.state[param].get("momentum_buffer", param.data).dtype == np.float16
        expected = tensor.numpy().astype(np.float64)
        tolerance = 2e-3 * np.abs(expected).max() + 2e-7  # three steps of the smallest numbers
        np.testing.assert_allclose(param.data, expected, rtol=2e-3, atol=tolerance)


# Loading damaged state

class Counts(Optimizer):
    """Remembers counts of several kinds beside an array."""

    def __init__(self, params):
        super().__init__(params, {"lr": 0.1})

    def step(self):
        for _, params in self.updates():
            for param in params:
                self.state[param] = {"step": np.float32(3001), "whole": np.array(70_000), "steps": 3001,
                                     "moment": np.ones(param.shape, np.float64)}


def test_counts_are_not_rounded_to_the_parameters_dtype():
    [param] = parameters(np.float16, [(2, 3)])
    optimizer, other = Counts([param]), Counts([param])
    give([param], gradients(0, [param]))
    optimizer.step()
    saved = optimizer.state_dict()
    saved["state"][0] |= {"step": np.array(3001, np.float32), "tensor": Tensor(np.ones((2, 3)))}
    other.load_state_dict(saved)
    state = other.state[param]
    assert (state["step"], state["whole"], state["steps"]) == (3001, 70_000, 3001)
    assert state["whole"].dtype == np.int64 and state["step"].dtype == np.float32
    for name in ("moment", "tensor"):
        assert type(state[name]) is np.ndarray and state[name].dtype == np.float16
    other.step()


def test_pytorchs_own_state_is_taken_without_conversion():
    torch = pytest.importorskip("torch")
    params = parameters(shapes=[(), (3,)])
    theirs = [torch.tensor(param.data) for param in params]
    for tensor in theirs:
        tensor.grad = torch.ones_like(tensor)
    reference = torch.optim.SGD(theirs, momentum=0.9)
    reference.step()
    optimizer = SGD(params)
    optimizer.load_state_dict(reference.state_dict())
    for param in params:
        np.testing.assert_array_equal(optimizer.state[param]["momentum_buffer"], np.ones(param.shape, np.float32))


@pytest.mark.parametrize("damage", [
    lambda saved: None, lambda saved: [saved], lambda saved: {**saved, "state": [1]},
    lambda saved: {**saved, "state": {0: 3}}, lambda saved: {**saved, "param_groups": 3},
    lambda saved: {**saved, "param_groups": [3]}, lambda saved: {**saved, "param_groups": [{"lr": 0.1}]},
    lambda saved: changed_group(saved, params=[0, 0]), lambda saved: changed_group(saved, params=[0, [1]]),
    lambda saved: changed_group(saved, params=3), lambda saved: changed_group(saved, lr="x"),
    lambda saved: changed_group(saved, lr=None), lambda saved: changed_group(saved, momentum=-0.9),
    lambda saved: changed_group(saved, nesterov=True, dampening=0.5), lambda saved: changed_group(saved, maximize=True),
    lambda saved: {**saved, "state": {1: {"momentum_buffer": np.array(["a", "b", "c"])}}},
    lambda saved: {**saved, "state": {**saved["state"], 1: {"momentum_buffer": np.ones(4)}}},
])
def test_a_damaged_state_is_refused_and_changes_nothing(damage):
    params = parameters(shapes=[(2,), (3,)])
    optimizer = SGD(params, lr=0.1, momentum=0.9)
    train(optimizer, params, range(1))
    saved, before = copy.deepcopy(optimizer.state_dict()), copy.deepcopy(optimizer.state_dict())
    with pytest.raises(ValueError):
        optimizer.load_state_dict(damage(saved))
    after = optimizer.state_dict()
    assert after["param_groups"] == before["param_groups"] and list(after["state"]) == list(before["state"])
    assert_bit_identical(*([state["momentum_buffer"] for state in side["state"].values()] for side in (after, before)))


def changed_group(saved, **changes):
    return {**saved, "param_groups": [{**saved["param_groups"][0], **changes}]}


# Clipping (D6)

def flat(params):
    return np.concatenate([param.grad.data.reshape(-1).astype(np.float64) for param in params])


def exploded(scale, dtype=np.float64):
    params = parameters(dtype)
    give(params, [gradient * dtype(scale) for gradient in gradients(0, params)])
    return params


def test_a_short_gradient_is_untouched():
    params = exploded(1.0)
    before = [param.grad.data.copy() for param in params]
    assert clip_grad_norm_(params, 1e3) == pytest.approx(np.linalg.norm(flat(params)), rel=1e-12)
    assert_bit_identical([param.grad.data for param in params], before)


@given(st.floats(1e-2, 1e4), st.sampled_from([0.5, 1.0, 2.0, 3.0, "inf"]), st.sampled_from([np.float32, np.float64]))
def test_clipping_agrees_with_pytorch(bound, p, dtype):
    torch = pytest.importorskip("torch")
    params = exploded(10.0, dtype)
    theirs = [torch.zeros(param.shape, dtype=torch.tensor(param.data).dtype) for param in params]
    for param, tensor in zip(params, theirs, strict=True):
        tensor.grad = torch.tensor(param.grad.data)
    norm = clip_grad_norm_(iter(params), bound, norm_type=p)
    assert isinstance(norm, float)
    tolerance = TOLERANCE[dtype]
    expected = torch.nn.utils.clip_grad_norm_(theirs, bound, norm_type=float(p)).item()
    assert norm == pytest.approx(expected, rel=2 * tolerance)
    for param, tensor in zip(params, theirs, strict=True):
        assert param.grad.dtype == dtype
        np.testing.assert_allclose(param.grad.data, tensor.grad.numpy(), rtol=4 * tolerance)


def test_a_float32_gradient_whose_squares_overflow():
    """PyTorch calls this norm infinite and clips the gradient to nothing."""
    params = exploded(1e25, np.float32)
    norm = np.linalg.norm(flat(params))
    assert clip_grad_norm_(params, 2.0) == pytest.approx(norm, rel=1e-6)
    assert np.linalg.norm(flat(params)) == pytest.approx(2.0, rel=1e-6)


def test_a_half_precision_gradient_has_the_norm_of_its_numbers():
    params = exploded(100.0, np.float16)
    params.append(Tensor(np.zeros(10_000, np.float16)))
    params[-1].grad = Tensor(np.full(10_000, 60_000, np.float16))  # a norm of 6·10⁶, which half precision does not hold
    expected, before = np.linalg.norm(flat(params)), flat(params)
    assert clip_grad_norm_(params, 0.5) == pytest.approx(expected, rel=1e-12)
    assert {param.grad.dtype for param in params} == {np.dtype(np.float16)}
    np.testing.assert_allclose(flat(params), before * 0.5 / expected, rtol=1e-3, atol=6e-8)


@pytest.mark.parametrize("size", [1, 2**18 - 1, 2**18, 10**6 + 3])
@pytest.mark.parametrize("p", [1.0, 2.0, math.inf])
def test_the_norm_of_many_entries_is_that_of_all(size, p):
    """Added up one by one in float32, a million squares are off in the third digit."""
    param = Tensor(np.zeros(size, np.float32))
    param.grad = Tensor(np.full(size, 0.1, np.float32))
    exact = float(np.float32(0.1)) * (1 if p == math.inf else size ** (1 / p))
    assert clip_grad_norm_(param, math.inf, p) == pytest.approx(exact, rel=1e-9)


def test_an_empty_gradient_adds_nothing():
    params = exploded(1.0)
    norms = [clip_grad_norm_(params, 1e9, p) for p in (0.5, 2.0, math.inf)]
    params.append(Tensor(np.zeros((0, 3))))
    params[-1].grad = Tensor(np.zeros((0, 3)))
    assert [clip_grad_norm_(params, 1e9, p) for p in (0.5, 2.0, math.inf)] == norms


@pytest.mark.parametrize("clip", [clip_grad_norm_, clip_grad_value_])
def test_what_cannot_be_clipped_is_said_and_nothing_is_clipped(clip):
    params = exploded(1.0)
    before = flat(params)
    params[2].grad.data.flags.writeable = False
    with pytest.raises(ValueError, match="gradient of parameter 2 is in read-only memory"):
        clip(params, 0.1)
    with pytest.raises(TypeError, match=r"parameter 1 is a str. Of a network, pass network.parameters\(\)"):
        clip([params[0], "w"], 0.1)
    np.testing.assert_array_equal(flat(params), before)


def test_a_gradient_that_is_not_finite():
    params = exploded(1.0)
    params[1].grad.data[2] = math.nan
    before = flat(params)
    with pytest.raises(RuntimeError, match="2.0-norm is nan"):
        clip_grad_norm_(params, 1.0, error_if_nonfinite=True)
    np.testing.assert_array_equal(flat(params), before)
    assert math.isnan(clip_grad_norm_(params, 1.0))
    assert np.isnan(flat(params)).all()  # as in PyTorch: every entry is divided by the norm

    params = exploded(1.0)
    params[0].grad.data[...] = math.inf
    with pytest.raises(RuntimeError, match="is inf"):
        clip_grad_norm_(params, 1.0, error_if_nonfinite=True)
    assert clip_grad_norm_(params, 1.0) == math.inf
    assert np.isnan(params[0].grad.data) and not flat(params[1:]).any()


def test_parameters_without_gradient_do_not_count():
    params = exploded(1.0)
    params[3].grad = None
    assert clip_grad_norm_(params, 1.0) == pytest.approx(
        math.sqrt(sum((gradient**2).sum() for gradient in gradients(0, params)[:3])), rel=1e-12
    )
    assert params[3].grad is None
    assert clip_grad_norm_([], 1.0) == 0.0


def test_clipping_by_value():
    params = exploded(3.0, np.float32)
    params[0].grad = None
    before, memory = flat(params[1:]), params[1].grad.data
    clip_grad_value_(params, 1.5)
    assert params[1].grad.data is memory and memory.dtype == np.float32
    assert np.abs(before).max() > 1.5
    np.testing.assert_array_equal(flat(params[1:]), [min(max(g, -1.5), 1.5) for g in before])
    clip_grad_value_(params[1], 0.5)
    assert np.abs(params[1].grad.data).max() == 0.5


@pytest.mark.parametrize(
    "clip, message",
    [
        (lambda params: clip_grad_norm_(params, -1.0), "max_norm must be a number ≥ 0; got -1.0"),
        (lambda params: clip_grad_norm_(params, math.nan), "max_norm must be a number ≥ 0; got nan"),
        (lambda params: clip_grad_norm_(params, 1.0, norm_type=0), "norm_type must be a number > 0, or inf; got 0"),
        (lambda params: clip_grad_value_(params, -2.0), "clip_value must be a number ≥ 0; got -2.0"),
    ],
)
def test_bad_bounds(clip, message):
    params = exploded(1.0)
    before = flat(params)
    with pytest.raises(ValueError, match=message):
        clip(params)
    np.testing.assert_array_equal(flat(params), before)
