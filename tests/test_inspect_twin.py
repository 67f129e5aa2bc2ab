"""A recorded network replayed in PyTorch computes what minidl computes, and takes what torchvision's would."""

import copy

import numpy as np
import pytest

import minidl as dl
import models
from minidl import functional as F
from minidl import nn
from minidl.inspect.recording import Value, record

NETWORKS = [
    ("lenet5", {}, 32), ("lenet5", {"variant": "1998"}, 32), ("alexnet", {"dropout": 0.0}, 67),
    ("googlenet", {}, 96), ("googlenet", {"variant": "torchvision"}, 96),
    ("resnet18", {}, 64), ("resnet20", {}, 32), ("plain20", {}, 32),
]


def images(name, size, batch=3):
    channels = models.input_channels(name)
    return dl.tensor(np.random.default_rng(0).standard_normal((batch, channels, size, size)).astype(np.float32))


def test_a_recording_is_the_operations_in_order():
    model, x = nn.Sequential(nn.Linear(3, 2), nn.ReLU()), dl.tensor(np.ones((4, 3), np.float32))
    recording = record(model, x)
    assert [call.operation for call in recording.calls] == ["linear", "relu"]
    weight, bias = model[0].parameters()
    assert [array is tensor.data for array, tensor in zip(recording.parameters.values(), (weight, bias))] == [True] * 2
    assert recording.calls[0].arguments["input"] == Value(0)
    assert recording.calls[1].arguments["input"] == Value(recording.calls[0].result)
    assert recording.constants == {}


@pytest.mark.usefixtures("blank_weights")
def test_every_model_can_be_recorded():
    for name in models.available():
        model = models.build(name, num_classes=3).eval()
        assert record(model, images(name, {"lenet5": 32, "neocognitron": 28}.get(name, 96), batch=1)).calls


@pytest.mark.parametrize(("name", "options", "size"), NETWORKS)
def test_a_network_and_its_twin_agree(name, options, size):
    torch = pytest.importorskip("torch")
    from minidl.inspect.twin import Twin

    dl.manual_seed(0)
    model = models.build(name, **options).eval()
    x = images(name, size)
    twin = Twin(copy.deepcopy(record(model, x)))
    with dl.no_grad(), torch.no_grad():
        np.testing.assert_allclose(model(x).data, twin(torch.from_numpy(x.data)).numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["lenet5", "alexnet", "resnet20"])
def test_their_gradients_agree(name):
    torch = pytest.importorskip("torch")
    from minidl.inspect.twin import Twin

    dl.manual_seed(0)
    options = {"dropout": 0.0} if name == "alexnet" else {}
    model, labels = models.build(name, num_classes=5, **options), dl.tensor(np.array([0, 4, 2]))
    x = images(name, models.preset(name).input_size if name != "alexnet" else 67)

    def loss(x, y):
        return F.cross_entropy(model(x), y)

    twin = Twin(copy.deepcopy(record(loss, x, labels)))
    loss(x, labels).backward()
    twin(torch.from_numpy(x.data), torch.from_numpy(labels.data)).backward()
    for ours, theirs in zip(model.parameters(), twin.parameters()):
        scale = np.abs(theirs.grad.numpy()).max()
        np.testing.assert_allclose(ours.grad.data, theirs.grad.numpy(), rtol=0, atol=2e-3 * scale + 1e-7)


def test_relus_and_sums_work_in_place_where_nothing_else_reads():
    torch = pytest.importorskip("torch")
    from minidl.inspect.twin import Twin

    weight = nn.Parameter(np.eye(2, dtype=np.float32))

    def function(x):
        hidden = F.linear(x, weight)
        return F.relu(F.linear(F.relu(hidden), weight)) + hidden

    twin = Twin(record(function, dl.tensor(np.ones((1, 2), np.float32))))
    functions = [step.function for step in twin.steps]
    assert torch.relu_ in functions and torch.nn.functional.relu in functions  # the first one's input is read again
    x = np.array([[1.0, -2.0]], np.float32)
    np.testing.assert_array_equal(twin(torch.from_numpy(x)).detach().numpy(), [[2.0, -2.0]])


def test_what_pytorch_has_no_function_for_is_refused():
    pytest.importorskip("torch")
    from minidl.autograd import differentiable
    from minidl.inspect.twin import Twin

    @differentiable
    def of_my_own(x):
        """y = x     ∂L/∂x = g"""
        return x.copy(), (lambda g: g,)

    with pytest.raises(NotImplementedError, match="PyTorch has no function 'of_my_own'"):
        Twin(record(of_my_own, dl.tensor(np.ones(2))))
