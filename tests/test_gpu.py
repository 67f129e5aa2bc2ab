"""The same calls on the CPU and on a GPU: every operation over the whole grid of cases, and a step of every network.

The GPU is a strict stand-in for CuPy that computes on the CPU, with our kernels compiled by a C++ compiler; and, with
`pytest -m gpu`, a real one.
"""

import importlib
import re
import sys

import cases
import hypothesis.strategies as st
import numpy as np
import pytest
import strict_cupy
import test_functional_activation
import test_functional_arithmetic as arithmetic
import test_functional_convolution
import test_functional_linear as linear
import test_functional_loss
import test_functional_normalization
import test_functional_pooling
import test_functional_reduction as reduction
import test_functional_shape as shape
from cases import Case, assert_close
from hypothesis import given, settings

import minidl as dl
import models
from minidl import functional as F
from minidl import kernels, nn, optim
from minidl.cli import main
from minidl.inspect import step_through
from minidl.training import CapturedPass, Trainer

ROOMS = ("minidl.kernels.gpu", "cupy")


@pytest.fixture(scope="module", params=["stand-in", pytest.param("real", marks=pytest.mark.gpu)], autouse=True)
def a_gpu(request):
    """The tests of this file run on it."""
    patch = pytest.MonkeyPatch()
    if request.param == "real":
        try:
            dl.backend.check_device("gpu")
        except dl.DeviceError as error:
            pytest.skip(str(error))
    else:
        if strict_cupy.compiler() is None:
            pytest.skip("needs a C++ compiler, for the kernels")
        for name in [name for name in sys.modules if name.startswith(ROOMS)]:
            patch.delitem(sys.modules, name)
        strict_cupy.install(patch)
        kernels._room.cache_clear()
    yield
    for name in [name for name in sys.modules if name.startswith(ROOMS[0])]:
        del sys.modules[name]
    patch.undo()
    kernels._room.cache_clear()


def on(device, dtype):
    """How a case's arrays become leaves and constants there; labels and other whole numbers stay such."""
    def converted(array):
        return array.astype(dtype) if array.dtype.kind == "f" else array.copy()

    return (lambda array: dl.tensor(converted(array), requires_grad=True, device=device),
            lambda array: dl.tensor(converted(array), device=device))


def computed(function, case, device, dtype):
    """The value, the gradients, and the constants as the call leaves them, on the CPU."""
    result, leaves, constants = cases.call(function, case, *on(device, dtype))
    assert result.device == device
    result.backward(dl.tensor(cases.cotangent(result.shape).astype(dtype), device=device))
    tensors = {"value": result.detach(), **constants,
               **{f"gradient of {name}": leaf.grad for name, leaf in leaves.items()}}
    return {name: tensor.to("cpu").numpy() for name, tensor in tensors.items()}


def check(function, case):
    for dtype, tolerance in ((np.float64, 1e-10), (np.float32, 1e-4)):
        here, there = (computed(function, case, device, dtype) for device in ("cpu", "gpu"))
        for name, expected in here.items():
            assert there[name].dtype == expected.dtype
            assert_close(there[name], expected, tolerance, what=name)


GRID = {
    name: (getattr(F, name), strategy)
    for module in (test_functional_activation, test_functional_convolution, test_functional_loss,
                   test_functional_normalization, test_functional_pooling)
    for name, strategy in module.CASES.items()
}
GRID |= {name: (operator, arithmetic.broadcasting()) for name, operator in arithmetic.BINARY.items()}
GRID |= {name: (operator, arithmetic.single()) for name, (operator, _) in arithmetic.UNARY.items()}
GRID |= {name: (getattr(dl.Tensor, name), reduction.reductions()) for name in reduction.REDUCTIONS}
GRID |= {
    name: (move, cases.arrays((2, 3, 4)).map(lambda x: Case({"x": x}, {}))) for name, move in shape.MOVES.items()
}
GRID |= {
    "max_pool2d of ties": (F.max_pool2d, cases.pools("tied")),
    "linear": (F.linear, linear.linears()),
    "cat": (shape.joiner(F.cat), shape.joins()),
    **{f"pad, {mode}": (F.pad, shape.paddings(mode)) for mode in shape.REACH},
}


@pytest.mark.parametrize("name", GRID)
@settings(max_examples=25)
@given(data=st.data())
def test_the_gpu_computes_what_the_cpu_does(name, data):
    function, strategy = GRID[name]
    check(function, data.draw(strategy))


@pytest.mark.parametrize("index", [0, slice(1, 3), (slice(None), 1), np.array([0, 2, 2]), [1, 1, 0], (..., None),
                                   (slice(None), [3, 0, 3]), np.arange(12).reshape(3, 4) % 5 > 1],
                         ids=str)
def test_the_gpu_indexes_as_the_cpu_does(index):
    def chosen(x):
        return x[dl.tensor(index, device=x.device) if isinstance(index, np.ndarray) else index]

    check(chosen, Case({"x": np.random.default_rng(0).standard_normal((3, 4, 2))}, {}))


def test_dropout_draws_the_same_on_both():
    def dropped(x):
        dl.manual_seed(0)
        return F.dropout(x, 0.4)

    check(dropped, Case({"x": np.random.default_rng(0).standard_normal((3, 4, 2))}, {}))


@pytest.mark.parametrize("labels", [[0, 3], [-1, 1]])
def test_a_label_that_is_no_class_makes_the_loss_nan(labels):
    scores = dl.tensor(np.zeros((2, 3)), requires_grad=True, device="gpu")
    loss = F.cross_entropy(scores, dl.tensor(np.array(labels), device="gpu"))
    assert np.isnan(loss.item())


def test_a_mean_over_no_label_is_nan():
    labels = dl.tensor(np.array([-100, -100]), device="gpu")
    assert np.isnan(F.cross_entropy(dl.tensor(np.zeros((2, 3)), device="gpu"), labels).item())


@pytest.mark.parametrize("precision, tolerance", [("high", 2e-3), ("medium", 2e-2)])
def test_products_may_be_rounder(precision, tolerance):
    """Every way in which matrices can lie: the stand-in rounds nothing, but takes what cuBLAS takes."""
    a, b = np.random.default_rng(0).standard_normal((2, 5, 7)).astype(np.float32)
    pairs = [(a, b.T), (a.T, b), (a.T.copy(), b), (a, b.T.copy()), (a[::2], b.T[:, 1:3]), (a[:1], b[:1].T)]
    try:
        dl.set_float32_matmul_precision(precision)
        for left, right in pairs:
            x, y = dl.tensor(left, device="gpu"), dl.tensor(right, device="gpu")
            assert_close((x @ y).numpy(), left @ right, tolerance * 8)
        x, w = dl.tensor(np.ones((2, 3, 5, 4), np.float32), device="gpu"), dl.tensor(np.ones((4, 3, 2, 2), np.float32))
        assert np.array_equal(F.conv2d(x, w.to("gpu")).numpy(), np.full((2, 4, 4, 3), 12, np.float32))
    finally:
        dl.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("options", [{}, {"momentum": 0.9, "dampening": 0.2}, {"momentum": 0.9, "nesterov": True}],
                         ids=str)
def test_one_launch_updates_parameters_of_any_size_and_layout(options):
    shapes = [(3,), (), (2, 3, 4), (0, 2), (5, 1), (4, 6)]

    def updated(device):
        rng = np.random.default_rng(0)
        parameters = [dl.tensor(rng.standard_normal(shape), device=device) for shape in shapes]
        parameters += [dl.tensor(rng.standard_normal((4, 3)), device=device).T.detach(),
                       dl.tensor(rng.standard_normal(4), dtype="float32", device=device)]
        for parameter in parameters:
            parameter.requires_grad = True
        optimizer = optim.SGD(parameters, lr=0.1, weight_decay=0.01, **options)
        for _ in range(3):
            for parameter in parameters[1:]:
                gradient = rng.standard_normal(parameter.shape[::-1]).T
                parameter.grad = dl.tensor(gradient, dtype=parameter.dtype, device=device)
            optimizer.step()
        return [parameter.detach().numpy() for parameter in parameters]

    for here, there in zip(updated("cpu"), updated("gpu")):
        assert_close(there, here, 1e-6 if here.dtype == np.float32 else 1e-12)


def test_a_sum_lies_as_its_terms_do():
    x = dl.tensor(np.ones((2, 3, 5, 4)), device="gpu")
    branches = [F.conv2d(x, dl.tensor(np.ones((3, 3, 1, 1)), device="gpu")) for _ in range(2)]
    assert (branches[0] + branches[1]).data.swapaxes(0, 1).flags.c_contiguous


@pytest.mark.parametrize("options", [{}, {"groups": 2}, {"stride": 2}], ids=str)
def test_a_small_workspace_changes_nothing(monkeypatch, options):
    room = importlib.import_module("minidl.kernels.gpu.convolution")
    monkeypatch.setattr(room, "WORKSPACE_BYTES", 1)  # one image at a time
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((4, 4 // options.get("groups", 1), 3, 2))
    check(F.conv2d, Case({"input": rng.standard_normal((3, 4, 6, 5)), "weight": weight}, options))


def test_what_is_joined_lies_as_a_convolution_left_it():
    x = dl.tensor(np.ones((2, 3, 5, 4)), device="gpu")
    branches = [F.conv2d(x, dl.tensor(np.ones((k, 3, 1, 1)), device="gpu")) for k in (2, 3)]
    joined = F.cat(branches, dim=1).data
    assert joined.swapaxes(0, 1).flags.c_contiguous and branches[0].data.swapaxes(0, 1).flags.c_contiguous


# Networks

NETWORKS = [
    ("lenet5", {"in_channels": 3}, 32), ("lenet5", {"variant": "1998"}, 32),
    *(pytest.param(*network, marks=pytest.mark.slow)
      for network in (("alexnet", {}, 67), ("zfnet", {}, 63), ("vgg11", {}, 32), ("vgg11", {"batch_norm": True}, 32),
                      ("googlenet", {}, 97), ("resnet50", {}, 41))),
    ("googlenet", {"variant": "torchvision"}, 64), ("resnet18", {}, 41), ("plain18", {}, 40),
    ("resnet20", {}, 32), ("plain20", {}, 32),
]


def step(model, side, device):
    """The loss, and every gradient and buffer after a training step."""
    dl.manual_seed(1)  # dropout
    model.to(device)
    optimizer = optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    weight, rng = next(model.parameters()), np.random.default_rng(1)
    images = dl.tensor(rng.standard_normal((2, weight.shape[1], side, side)), dtype=weight.dtype, device=device)
    labels = dl.tensor(np.array([3, 1]), device=device)
    loss = getattr(model, "criterion", F.cross_entropy)(model(images), labels)
    loss.backward()
    optimizer.step()
    gradients = {f"gradient of {key}": parameter.grad for key, parameter in model.named_parameters()}
    tensors = {"loss": loss.detach(), **gradients, **model.state_dict()}
    return {key: tensor.to("cpu").numpy().copy() for key, tensor in tensors.items()}


def test_a_neocognitron_organises_itself_as_on_the_cpu():
    images, states = dl.tensor(np.random.default_rng(1).random((3, 1, 14, 14))), []
    for device in ("cpu", "gpu"):
        dl.manual_seed(0)
        model = models.neocognitron(planes=(3, 4, 5), input_size=14, places=5).to("float64").to(device)
        model.self_organise(images.to(device), presentations=2)
        states.append({name: value.to("cpu").numpy() for name, value in model.state_dict().items()})
    for name, value in states[0].items():
        np.testing.assert_allclose(states[1][name], value, rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("name, options, side", NETWORKS)
def test_a_training_step_ends_as_on_the_cpu(name, options, side):
    dl.manual_seed(0)
    model = models.build(name, **options)
    if sum(parameter.size for parameter in model.parameters()) < 5e7:  # else in float32, for memory's sake
        model.to("float64")
    before = {key: value.numpy().copy() for key, value in model.state_dict().items()}
    here = step(model, side, "cpu")
    model.to("cpu").load_state_dict(before)
    model.zero_grad()
    there = step(model, side, "gpu")
    for key, expected in here.items():
        scale = max(1.0, np.abs(expected).max())
        assert_close(there[key] / scale, expected / scale, 1e-8 if expected.dtype == np.float64 else 1e-4, what=key)


def test_the_state_of_a_network_goes_from_one_to_the_other(tmp_path):
    model = models.build("lenet5").to("gpu")
    dl.save(model.state_dict(), tmp_path / "weights.safetensors")
    other = models.build("lenet5")
    other.load_state_dict(dl.load(tmp_path / "weights.safetensors"))
    for key, value in model.state_dict().items():
        assert value.device == "gpu"
        assert np.array_equal(value.to("cpu").numpy(), other.state_dict()[key].numpy())
    model.load_state_dict(other.state_dict())


def test_gradcheck_runs_on_a_gpu():
    x, w = (dl.tensor(np.random.default_rng(seed).standard_normal(shape), device="gpu")
            for seed, shape in ((0, (1, 2, 4, 5)), (1, (3, 2, 2, 3))))
    dl.gradcheck(lambda x, w: F.conv2d(x, w, padding=1), [x, w])


# Training


def run(device, capture=False):
    dl.manual_seed(0)
    images = np.random.default_rng(0).standard_normal((50, 1, 32, 32)).astype(np.float32)
    dataset = dl.data.ArrayDataset(images, np.arange(50) % 10)
    model = models.build("lenet5").to(device)
    optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    loaders = (dl.data.DataLoader(dataset, 4, shuffle=True, seed=1, device=device), dl.data.DataLoader(dataset, 25))
    trainer = Trainer(model, optimizer, None, *loaders, epochs=2, capture=capture)
    return [row["train_loss"] for row in trainer.epochs_to_go(quiet=True)], trainer


def test_training_on_a_gpu_is_training():
    here, there = run("cpu"), run("gpu")
    assert_close(there[0], here[0], 1e-4)
    assert next(there[1].model.parameters()).device == "gpu"
    assert run("gpu")[0] == run("gpu", capture=True)[0] == there[0]  # the same bits


# CUDA graphs


def passes(name, side, captured, counts=(2, 2, 2, 3, 2)):
    """A model after a few steps, the losses, and how the images lay in the batches."""
    dl.manual_seed(0)
    model = models.build(name, **({"in_channels": 3} if name == "lenet5" else {})).to("gpu")
    optimizer = optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def compute(images, labels):
        loss = getattr(model, "criterion", F.cross_entropy)(model(images), labels)
        loss.backward()
        return (loss.detach(),)

    run = CapturedPass(compute, list(model.parameters())) if captured else compute
    rng, losses = np.random.default_rng(1), []
    for count in counts:
        images = dl.tensor(rng.standard_normal((count, 3, side, side)), dtype="float32", device="gpu")
        optimizer.zero_grad()
        losses.append(run(images, dl.tensor(rng.integers(0, 10, count), device="gpu"))[0])
        optimizer.step()
        optimizer.param_groups[0]["lr"] /= 2
    return [loss.item() for loss in losses], {key: x.numpy() for key, x in model.state_dict().items()}, run


@pytest.mark.parametrize("name, side", [
    ("lenet5", 32), ("resnet20", 16), pytest.param("resnet18", 33, marks=pytest.mark.slow),
])
def test_a_captured_pass_computes_what_it_would_without(name, side):
    (losses, state, _), (expected, values, run) = passes(name, side, False), passes(name, side, True)
    assert run._graph is not None
    assert losses == expected
    for key, value in values.items():
        assert np.array_equal(value, state[key]), key


def test_random_numbers_are_not_captured():
    x = dl.tensor(np.ones(3), requires_grad=True, device="gpu")

    def compute(y):
        F.dropout(x * y).sum().backward()
        return ()

    run, y = CapturedPass(compute, [x]), dl.tensor(np.ones(3), device="gpu")
    dl.manual_seed(0)
    run(y)
    with pytest.raises(ValueError, match=cases.mentions("random", "dropout")):
        run(y)


def test_waiting_for_the_gpu_is_not_captured():
    x = dl.tensor(np.ones(3), requires_grad=True, device="gpu")

    def compute(y):
        loss = (x * y).sum()
        loss.backward()
        return (loss * loss.item(),)

    run, y = CapturedPass(compute, [x]), dl.tensor(np.ones(3), device="gpu")
    run(y)
    with pytest.raises(Exception, match="(?i)captur"):
        run(y)


def test_a_pass_on_the_cpu_is_not_captured():
    with pytest.raises(dl.DeviceError, match=cases.mentions("GPU", "to('gpu')")):
        CapturedPass(lambda: (), [dl.tensor(np.ones(3), requires_grad=True)])


def test_a_loader_hands_out_each_batch_once_on_the_gpu():
    dataset = dl.data.ArrayDataset(np.arange(10, dtype=np.float32).reshape(10, 1, 1, 1), np.arange(10))
    loader = dl.data.DataLoader(dataset, 4, device="gpu")
    seen = []
    for images, labels in loader:
        assert images.device == labels.device == "gpu"
        seen.append(labels.to("cpu").numpy().tolist())
        assert loader.state_dict()["batch"] == len(seen)  # not one ahead, as its copies are
    assert seen == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_too_little_memory_says_which_batch_to_try(monkeypatch):
    def fails(*_):
        raise sys.modules["cupy"].cuda.memory.OutOfMemoryError(2**40, 2**30)

    monkeypatch.setattr(nn.Conv2d, "forward", fails)
    with pytest.raises(dl.DeviceError, match=cases.mentions("GiB", "batch of 4", "batches of 2")):
        run("gpu")


def test_info_names_the_gpu_and_its_versions(capsys):
    assert main(["info"]) == 0
    expected = r"GPU: .+, [\d.]+ GiB \([\d.]+ free\), CuPy [\d.]+, driver for CUDA \d+\.\d"
    assert re.search(expected, capsys.readouterr().out)


def test_a_whole_number_on_the_gpu_is_an_index():
    assert [10, 20, 30][dl.tensor(1, device="gpu")] == 20
    for wrong in (dl.tensor(1.0, device="gpu"), dl.tensor([1], device="gpu")):
        with pytest.raises(TypeError, match="only a whole number can be an index"):
            [10, 20, 30][wrong]


def test_a_step_through_shows_the_arrays_of_a_gpu():
    x = dl.tensor([[1.0, -2.0]], device="gpu")
    layer = nn.Linear(2, 3).to("gpu")
    steps = step_through(lambda: layer(x).sum())
    shown = steps.trace.operations[0].result
    assert isinstance(shown.excerpt.entries, np.ndarray) and "linear" in steps.html()
    np.testing.assert_array_equal(shown.excerpt.entries, layer(x).detach().to("cpu").numpy())
    np.testing.assert_array_equal(shown.gradient.entries, np.ones((1, 3)))


def test_a_step_needs_gradient_and_velocity_on_the_parameters_device():
    with dl.device("gpu"):
        layer = nn.Linear(2, 2, bias=False)
    optimizer, before = optim.SGD(layer.parameters(), lr=0.1, momentum=0.9), layer.weight.to("cpu").data.copy()
    layer.weight.grad = dl.tensor(np.ones((2, 2), np.float32), device="cpu")
    with pytest.raises(dl.DeviceError, match="is on 'gpu', and its .grad on 'cpu'"):
        optimizer.step()
    np.testing.assert_array_equal(layer.weight.to("cpu").data, before)
    layer.weight.grad = layer.weight.grad.to("gpu")
    optimizer.step()
    layer.to("cpu")
    with pytest.raises(dl.DeviceError, match="is on 'cpu', and its momentum_buffer on 'gpu'"):
        optimizer.step()
