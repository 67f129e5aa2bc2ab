"""Copies and pickles of tensors, parameters and modules: of the same class, with all attributes, and as connected."""

import copy
import pickle

import numpy as np
import pytest

import minidl as dl
from minidl import nn

ways = pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))], ids=["deepcopy", "pickle"]
)


def ones(*shape):
    return np.ones(shape, np.float32)


class Named(nn.Parameter):
    """Its constructor takes more than the one it calls."""

    def __init__(self, data, name, requires_grad=True):
        super().__init__(data, requires_grad)
        self.name = name


class Slotted(dl.Tensor):
    __slots__ = ("tags",)


@ways
@pytest.mark.parametrize("shape", [(), (2, 3)])
def test_a_subclass_keeps_its_class_and_its_attributes(duplicate, shape):
    named, slotted = Named(ones(*shape), "w", requires_grad=False), Slotted(ones(*shape))
    slotted.tags = named.tags = [1]
    named.grad = dl.Tensor(ones(*shape) * 2)
    first, second = duplicate((named, slotted))
    assert type(first) is Named and type(second) is Slotted
    assert first.name == "w" and not first.requires_grad
    assert first.tags is second.tags == [1] and first.tags is not named.tags  # shared, as before, and not with the old
    for old, new in ((named, first), (named.grad, first.grad), (slotted, second)):
        assert new.shape == shape and new.dtype == np.float32 and not np.shares_memory(old.data, new.data)
        np.testing.assert_array_equal(old.data, new.data)


def test_a_shallow_copy_shares_the_memory_and_the_place_in_the_graph():
    named = Named(ones(2), "w")
    twin = copy.copy(named)
    assert type(twin) is Named and twin.name == "w" and twin.data is named.data and twin is not named
    result = copy.copy(named * 3)
    result.backward(ones(2))
    np.testing.assert_array_equal(named.grad.data, [3, 3])


@ways
def test_the_result_of_an_operation_is_copied_and_pickled_detached_only(duplicate):
    result = Named(ones(2), "w") * 3
    with pytest.raises(RuntimeError, match=r"leaf .* detach\(\)"):
        duplicate(result)
    np.testing.assert_array_equal(duplicate(result.detach()).data, [3, 3])


def double(module, inputs, output):
    return output * 2


class Net(nn.Module):
    def __init__(self):
        self.named = Named(ones(2), "w")
        self.first, self.second = nn.Linear(2, 2), nn.Linear(2, 2)
        self.second.weight = self.first.weight
        self.again = self.first
        self.register_buffer("alias", self.named.detach())
        self.register_buffer("nothing", None)

    def forward(self, x):
        return self.second(self.first(x)) * self.named


@ways
def test_a_module_is_copied_with_what_it_shares_and_its_hooks(duplicate):
    net, x = Net().eval(), dl.Tensor(ones(1, 2))
    net.register_forward_hook(double)
    twin = duplicate(net)
    np.testing.assert_array_equal(twin(x).data, net(x).data)
    assert list(twin.state_dict()) == list(net.state_dict()) and not twin.training and not twin.first.training
    assert twin.named.name == "w" and twin.again is twin.first is not net.first
    assert twin.second.weight is twin.first.weight is not net.first.weight
    assert twin.alias.data is twin.named.data  # a buffer that is a view of a parameter stays one
    dl.nn.init.zeros_(twin.named)
    assert not twin.alias.data.any() and net.named.data.all()


def test_what_is_assigned_to_a_shallow_copy_is_not_the_originals():
    net = nn.Linear(2, 2)
    twin = copy.copy(net)
    twin.extra, twin.bias = nn.ReLU(), None
    assert twin.weight is net.weight
    assert [len(list(module.parameters())) for module in (net, twin)] == [2, 1] and not list(net.children())
