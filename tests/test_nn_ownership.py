"""What a module owns: parameters, buffers and modules, by names that are refused or replaced as in PyTorch."""

import numpy as np
import pytest
from cases import mentions
from hypothesis import given
from hypothesis import strategies as st

import minidl as dl
from minidl import nn
from minidl.nn.module import leaving_as_found

NAMES = st.sampled_from(["a", "b", "c"])
STRANGE_NAMES = NAMES | st.sampled_from(["a.b", "", "forward", "training", "plain", 3])
VALUES = ["number", "text", "array", "None", "tensor", "parameter", "module"]
STEPS = st.lists(
    st.tuples(st.just("setattr"), NAMES, st.sampled_from(VALUES))
    | st.tuples(st.just("delattr"), NAMES, st.just("None"))
    | st.tuples(st.sampled_from(["register_buffer", "register_parameter", "add_module"]), STRANGE_NAMES,
                st.sampled_from(VALUES)),
    max_size=8,
)


def library(package, tensor):
    class Net(package.Module):
        def __init__(self):
            super().__init__()
            self.plain = 1

    return Net(), {
        "number": lambda: 3, "text": lambda: "x", "array": lambda: np.ones(2, np.float32), "None": lambda: None,
        "tensor": lambda: tensor(np.ones(2, np.float32)), "parameter": lambda: package.Parameter(tensor(np.ones(3))),
        "module": lambda: package.Linear(1, 1),
    }


def carry_out(net, make, step):
    """One step; returns the class of its error."""
    what, name, value = step
    try:
        if what == "setattr":
            setattr(net, name, make[value]())
        elif what == "delattr":
            delattr(net, name)
        else:
            getattr(net, what)(name, make[value]())
    except Exception as error:
        return type(error)


def listed(net):
    children = [(name, type(child).__name__) for name, child in net.named_children()]
    return [name for name, _ in net.named_parameters()], [name for name, _ in net.named_buffers()], children, list(
        net.state_dict())


@given(STEPS)
def test_names_are_taken_replaced_and_refused_as_in_pytorch(steps):
    torch = pytest.importorskip("torch")
    ours, theirs = library(nn, dl.tensor), library(torch.nn, torch.tensor)
    for step in steps:
        found, expected = carry_out(*ours, step), carry_out(*theirs, step)
        assert (found is None) == (expected is None), step
        if step[0] in ("setattr", "delattr"):  # in a call both may be wrong, name and value
            assert found is expected, step
        assert listed(ours[0]) == listed(theirs[0]), step
        for name in "abc":
            assert hasattr(ours[0], name) == hasattr(theirs[0], name), step


@pytest.mark.parametrize("spoil, error, words", [
    (lambda net: net.register_buffer("forward", dl.tensor(1)), KeyError, ("'forward' already exists", "buffer")),
    (lambda net: net.register_buffer("weight", dl.tensor(1)), KeyError, ("'weight' already exists",)),
    (lambda net: net.register_buffer("a.b", dl.tensor(1)), KeyError, ("'a.b'", "dot")),
    (lambda net: net.register_buffer("", dl.tensor(1)), KeyError, ("''", "empty")),
    (lambda net: net.register_buffer(3, dl.tensor(1)), TypeError, ("string", "3")),
    (lambda net: net.register_buffer("count", 3), TypeError, ("int", "'count'", "minidl.tensor")),
    (lambda net: net.register_buffer("count", np.ones(3)), TypeError, ("ndarray", "'count'", "minidl.tensor")),
    (lambda net: net.register_parameter("w", dl.tensor(1.0)), TypeError, ("Tensor", "'w'", "nn.Parameter")),
    (lambda net: net.add_module("child", np.ones(3)), TypeError, ("ndarray", "'child'", "module")),
    (lambda net: setattr(net, "weight", dl.tensor(1.0)), TypeError, ("Net.weight", "parameter", "nn.Parameter")),
    (lambda net: setattr(net, "weight", nn.ReLU()), TypeError, ("Net.weight", "parameter", "ReLU")),
    (lambda net: setattr(net, "child", 3), TypeError, ("Net.child", "module", "int")),
    (lambda net: setattr(net, "mean", 3), TypeError, ("Net.mean", "buffer", "int")),
    (lambda net: setattr(net, "modules", nn.ModuleList()), KeyError, ("'modules' already exists",)),
    (lambda net: setattr(net, "helper", nn.Parameter(np.ones(1))), KeyError, ("'helper' already exists",)),
    (lambda net: setattr(net, "a.b", nn.ReLU()), KeyError, ("'a.b'", "dot")),
    (lambda net: net.train("yes"), ValueError, ("True or False", "'yes'")),
    (lambda net: net.children_list.__setattr__("0", 3), TypeError, ("Sequential.0", "module", "int")),
])
def test_what_would_break_later_is_refused_at_once_and_changes_nothing(spoil, error, words):
    class Net(nn.Module):
        def __init__(self):
            self.weight = nn.Parameter(np.ones(2, np.float32))
            self.child = nn.Linear(2, 2)
            self.children_list = nn.Sequential(nn.ReLU())
            self.register_buffer("mean", dl.tensor([1.0]))

        def helper(self):
            return "mine"

    net = Net()
    before = listed(net), [net.weight, net.child, net.mean, net.helper(), net.training]
    with pytest.raises(error, match=mentions(*words)):
        spoil(net)
    assert before == (listed(net), [net.weight, net.child, net.mean, net.helper(), net.training])


def test_deleting_takes_what_is_owned_out_of_every_listing():
    net = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 2))
    norm = net[0]
    del norm.running_mean, norm.weight, net[1].bias
    assert list(net.state_dict()) == ["0.bias", "0.running_var", "0.num_batches_tracked", "1.weight"]
    assert not hasattr(norm, "running_mean")
    with pytest.raises(AttributeError, match="weight"):
        del norm.weight


def test_a_property_may_stand_for_something_that_is_owned():
    class Net(nn.Module):
        def __init__(self):
            self.layers = nn.Sequential(nn.ReLU(), nn.Linear(2, 3))

        @property
        def head(self):
            return self.layers[-1]

        @head.setter
        def head(self, module):
            self.layers[-1] = module

    net = Net()
    net.head = nn.Linear(2, 5)
    assert net.head is net.layers[1] and list(net.state_dict()) == ["layers.1.weight", "layers.1.bias"]
    with pytest.raises(KeyError, match="'head' already exists"):
        net.register_buffer("head", dl.tensor(1))


def test_a_layer_without_bias_takes_a_parameter_as_bias_and_nothing_else():
    for layer in (nn.Linear(2, 3, bias=False), nn.Conv2d(1, 3, 1, bias=False), nn.BatchNorm1d(3, affine=False)):
        with pytest.raises(TypeError, match=r"\.bias is a parameter.*Tensor"):
            layer.bias = dl.tensor(np.ones(3, np.float32))
        layer.bias = nn.Parameter(np.ones(3, np.float32))
        assert "bias" in layer.state_dict()


def test_a_function_is_applied_once_to_a_module_with_two_names():
    net, seen = nn.Module(), []
    net.first = net.second = nn.ReLU()
    net.apply(seen.append)
    assert seen == [net.first, net]


def test_to_keeps_what_is_shared_shared_and_whole_numbers_whole():
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 2))
    net[2].weight = net[0].weight
    net.to("float16")
    assert net[2].weight is net[0].weight and net[0].weight.dtype == np.float16
    assert net[1].num_batches_tracked.dtype == np.int64 and net[1].running_mean.dtype == np.float16


def test_a_model_is_left_as_found_also_where_forward_replaces_buffers_or_fails():
    class Counts(nn.Module):
        def __init__(self):
            read_only = np.ones(1, np.float32)
            read_only.flags.writeable = False
            self.register_buffer("count", dl.tensor(0))
            self.register_buffer("scale", dl.Tensor(read_only))

        def forward(self, x):
            self.count.data += 1
            self.count = self.count + 1
            raise ZeroDivisionError

    net = Counts()
    count, array = net.count, net.count.data
    with pytest.raises(ZeroDivisionError), leaving_as_found(net):
        net.eval()(1)
    assert net.training and net.count is count and count.data is array and count.item() == 0


# Loading

def state_of(net):
    return {name: value.data.copy() for name, value in net.state_dict().items()}


@pytest.mark.parametrize("convert", [
    lambda array: array.astype(array.dtype.newbyteorder(">")),
    lambda array: array.astype(np.float16 if array.dtype.kind == "f" else np.uint8),
    lambda array: array.astype(np.float64),
    lambda array: array.tolist(),
    lambda array: array.view(type("Special", (np.ndarray,), {})),
    lambda array: type("Special", (dl.Tensor,), {})(array),
    lambda array: array.reshape(array.shape or (1,)),  # as PyTorch before 0.4 saved single numbers
], ids=["big-endian", "smaller", "float64", "lists", "array subclass", "tensor subclass", "one axis"])
def test_a_state_is_loaded_from_any_kind_of_numbers(convert):
    net, source = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    source(dl.tensor(np.arange(6, dtype=np.float32).reshape(2, 3)))
    source.running_mean.data[...] = [0.5, 1.5, -2]  # which half precision holds
    source.running_var.data[...] = [0.25, 1, 3]
    net.load_state_dict({name: convert(array) for name, array in state_of(source).items()})
    for name, value in net.state_dict().items():
        expected = source.state_dict()[name].data
        assert value.dtype == expected.dtype and type(value.data) is np.ndarray
        np.testing.assert_array_equal(value.data, expected)


@pytest.mark.parametrize("key, value, words", [
    ("0.bias", np.float32(1), ("0.bias", "()", "(2,)")),
    ("0.bias", [[1.0], [2.0, 3.0]], ("0.bias", "cannot be read")),
    ("0.bias", None, ("0.bias", "object")),
    (7, np.ones(1), ("unexpected: 7",)),
    (None, np.ones(1), ("unexpected: None",)),
])
def test_one_value_that_does_not_fit_is_named_and_nothing_is_loaded(key, value, words):
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    before = state_of(net)
    state = {name: array + 1 for name, array in before.items()}
    state[key] = value
    with pytest.raises(ValueError, match=mentions("Sequential", *words)):
        net.load_state_dict(state)
    for name, array in state_of(net).items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize("state", [None, [("weight", 1)], nn.Linear(2, 2), "weights.npz"], ids=repr)
def test_what_is_not_a_state_is_refused(state):
    with pytest.raises(TypeError, match=f"a dict of names to tensors; got a {type(state).__name__}"):
        nn.Linear(2, 2).load_state_dict(state)


def test_a_state_in_the_models_own_memory_is_read_before_it_is_overwritten():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    before = state_of(net)
    net.load_state_dict({"0.weight": net[1].weight.data.T, "0.bias": net[1].bias, "1.weight": net[0].weight.data[::-1],
                         "1.bias": net[0].bias.detach()})
    expected = {"0.weight": before["1.weight"].T, "0.bias": before["1.bias"], "1.weight": before["0.weight"][::-1],
                "1.bias": before["0.bias"]}
    for name, array in state_of(net).items():
        np.testing.assert_array_equal(array, expected[name])


def test_read_only_memory_is_not_loaded_into_and_neither_is_the_rest():
    net = nn.Linear(2, 2)
    net.bias.data.flags.writeable = False
    before = state_of(net)
    with pytest.raises(ValueError, match=mentions("bias", "read-only")):
        net.load_state_dict({name: array + 1 for name, array in before.items()})
    np.testing.assert_array_equal(net.weight.data, before["weight"])
