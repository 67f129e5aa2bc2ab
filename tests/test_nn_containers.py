"""Sequential and ModuleList are sequences: no index, slice or edit loses a parameter; numbers are PyTorch's."""

import copy

import numpy as np
import pytest
from cases import mentions
from hypothesis import given
from hypothesis import strategies as st

import minidl as dl
from minidl import nn

both = pytest.mark.parametrize("kind", [nn.Sequential, nn.ModuleList])


def make(kind, modules):
    return kind(*modules) if kind.__name__ == "Sequential" else kind(modules)


def layers(count, library=nn):
    return [library.Linear(1, number + 1) for number in range(count)]


def names(container):
    return [name for name, _ in container.named_children()]


# Reading

@both
@given(st.integers(0, 4), st.integers(-6, 6))
def test_indices_are_those_of_a_list(kind, count, index):
    parts = layers(count)
    container = make(kind, parts)
    if -count <= index < count:
        assert container[index] is container[np.int64(index)] is parts[index]
    else:
        for edit in (container.__getitem__, container.__delitem__, container.pop,
                     lambda i: container.__setitem__(i, nn.ReLU())):
            with pytest.raises(IndexError, match=f"index {index} is out of range: {kind.__name__} holds {count} mod"):
                edit(index)
    assert list(container) == parts and len(container) == count


@both
@pytest.mark.parametrize("index", ["0", 1.0, None])
def test_an_index_is_a_whole_number(kind, index):
    with pytest.raises(TypeError):
        make(kind, layers(2))[index]


ends = st.none() | st.integers(-6, 6)


@both
@given(st.integers(0, 5), ends, ends, st.none() | st.sampled_from([-2, -1, 1, 2]))
def test_a_slice_is_a_container_of_the_same_class_with_the_names_of_pytorch(kind, count, start, stop, step):
    torch = pytest.importorskip("torch")
    chosen = slice(start, stop, step)
    part = make(kind, parts := layers(count))[chosen]
    theirs = make(getattr(torch.nn, kind.__name__), layers(count, torch.nn))[chosen]
    assert type(part) is kind and list(part) == parts[chosen] and names(part) == names(theirs)


def test_a_slice_of_a_subclass_needs_no_constructor_and_loses_no_parameter():
    class Scaled(nn.Sequential):
        def __init__(self, width):
            super().__init__(nn.Linear(2, width), nn.Tanh(), nn.Linear(width, 2))
            self.scale = nn.Parameter(np.full(1, 3, np.float32))
            self.width = width

        def forward(self, x):
            return super().forward(x) * self.scale

    class Stages(nn.ModuleList):
        def __init__(self, count, *, name):
            super().__init__(layers(count))
            self.name = name

    net, stages = Scaled(4).eval(), Stages(3, name="stages")
    net.register_forward_hook(lambda *_: pytest.fail("a hook of the whole ran for its slice"))
    part, x = net[:2], dl.Tensor(np.ones((1, 2), np.float32))
    assert type(part) is Scaled and part.width == 4 and part.scale is net.scale and not part.training
    assert [name for name, _ in part.named_parameters()] == ["scale", "0.weight", "0.bias"]
    np.testing.assert_array_equal(part(x).data, 3 * np.tanh(net[0](x).data))
    assert type(stages[1:]) is Stages and stages[1:].name == "stages" and list(stages[1:]) == list(stages)[1:]
    assert len(net) == 3 and len(stages) == 3


def test_one_module_in_several_places_runs_in_each():
    double = nn.Linear(1, 1, bias=False)
    double.weight.data[...] = 2
    chain = nn.Sequential(double, double, double)
    assert len(chain) == len(list(chain)) == 3 and chain(dl.tensor([[1.0]])).item() == 8
    assert len(list(chain.parameters())) == 1 and list(chain.state_dict()) == ["0.weight", "1.weight", "2.weight"]


# Editing

def carry_out(container, parts, new, step):
    """One edit of a container and of a list."""
    what, index, stop = step
    if what == "append":
        container.append(new), parts.append(new)
    elif what == "extend":
        container.extend([new, new]), parts.extend([new, new])
    elif what == "+=":
        container += [new]
        parts += [new]
    elif what == "insert":
        if -len(parts) <= index <= len(parts):
            container.insert(index, new), parts.insert(index, new)
    elif what == "slice":
        container, parts = container[index:stop], parts[index:stop]
    elif what == "delete slice":
        del container[index:stop]
        del parts[index:stop]
    elif -len(parts) <= index < len(parts):
        if what == "set":
            container[index] = parts[index] = new
        elif what == "delete":
            del container[index]
            del parts[index]
        else:
            assert container.pop(index) is parts.pop(index)
    return container, parts


EDITS = st.lists(st.tuples(
    st.sampled_from(["append", "extend", "+=", "insert", "slice", "delete slice", "set", "delete", "pop"]),
    st.integers(-4, 4), st.integers(-4, 4)), max_size=8)


@both
@given(EDITS)
def test_edits_are_those_of_a_list_and_everything_is_found(kind, edits):
    parts = layers(3)
    container = make(kind, parts)
    for step in edits:
        container, parts = carry_out(container, parts, nn.Linear(1, 1), step)
        assert list(container) == parts and len(container) == len(parts)
        expected = {id(p) for part in parts for p in part.parameters()}
        assert {id(p) for p in container.parameters()} == expected
        assert len(container.state_dict()) == 2 * len(parts)


@both
@pytest.mark.parametrize("edit", [
    lambda c, new: c.append(new), lambda c, new: c.extend([new, new]), lambda c, new: c.insert(1, new),
    lambda c, new: c.insert(0, new), lambda c, new: c.__setitem__(-1, new), lambda c, new: c.__delitem__(0),
    lambda c, new: c.__delitem__(slice(0, 2)), lambda c, new: c.pop(-2),
], ids=["append", "extend", "insert", "insert first", "set", "delete", "delete slice", "pop"])
def test_edits_number_as_pytorch_does(kind, edit):
    torch = pytest.importorskip("torch")
    ours, theirs = make(kind, layers(4)), make(getattr(torch.nn, kind.__name__), layers(4, torch.nn))
    edit(ours, nn.Linear(1, 9)), edit(theirs, torch.nn.Linear(1, 9))
    described = [[(name, tuple(value.shape)) for name, value in net.state_dict().items()] for net in (ours, theirs)]
    assert described[0] == described[1]


def test_what_is_appended_to_a_slice_overwrites_nothing():
    whole = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 4))
    part = whole[1:].append(nn.Tanh()).append(nn.Linear(4, 1))
    assert [type(module).__name__ for module in part] == ["ReLU", "Linear", "Tanh", "Linear"]
    assert names(part) == ["1", "2", "3", "4"] and names(whole) == ["0", "1", "2"]
    assert names(whole[2:].append(nn.Tanh())) == ["2", "1"]  # the number is free, as in PyTorch


def test_a_named_sequential_keeps_its_names_until_one_is_deleted_as_in_pytorch():
    net = nn.Sequential({"conv": nn.Conv2d(1, 2, 3), "squash": nn.Tanh()})
    net[1] = nn.ReLU()
    assert names(net.append(nn.Flatten())) == ["conv", "squash", "2"] and isinstance(net.squash, nn.ReLU)
    del net[0]
    assert names(net) == ["0", "1"] and isinstance(net[0], nn.ReLU)


def test_layers_may_be_doubled_in_a_loop_over_them():
    modules = nn.ModuleList(layers(2))
    for layer in modules:
        modules.append(copy.deepcopy(layer))
    assert [layer.weight.shape for layer in modules] == [(1, 1), (2, 1)] * 2
    modules.extend(modules)
    assert len(modules) == 8


@both
@pytest.mark.parametrize("edit", [
    lambda c: c.append(3), lambda c: c.extend([nn.ReLU(), 3]), lambda c: c.insert(0, 3),
    lambda c: c.insert(5, nn.ReLU()), lambda c: c.__setitem__(0, None),
    lambda c: c.__setitem__(slice(0, 1), [nn.ReLU()]), lambda c: c.append(nn.ReLU),
], ids=["append", "extend", "insert", "insert past the end", "set", "set slice", "class"])
def test_an_edit_that_is_refused_changes_nothing(kind, edit):
    container = make(kind, parts := layers(2))
    with pytest.raises((TypeError, IndexError)):
        edit(container)
    assert list(container) == parts and names(container) == ["0", "1"]


def test_names_of_modules_are_strings():
    with pytest.raises(TypeError, match=mentions("must be a string", "got 0")):
        nn.Sequential({0: nn.ReLU(), "0": nn.Tanh()})
