"""Modules own, name, save and print their parts as PyTorch's do; layers compute what PyTorch's compute."""

import ast
import copy
import functools
import operator

import numpy as np
import pytest
from cases import mentions

import minidl as dl
import minidl.functional as F
from minidl import nn


def numbers(*shape, seed=0, dtype=np.float64):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def values(module):
    """A copy of the whole state."""
    return {name: tensor.data.copy() for name, tensor in module.state_dict().items()}


def assert_same_values(found, expected):
    assert list(found) == list(expected)
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


# Layers: how they are made, and an input

LAYERS = {
    "Linear(4, 3)": (2, 4),
    "Linear(4, 3, bias=False)": (2, 5, 4),
    "Conv2d(4, 6, 3)": (2, 4, 5, 6),
    "Conv2d(4, 6, (2, 3), stride=(1, 2), padding=(1, 0), dilation=2, groups=2, bias=False)": (2, 4, 5, 6),
    "Conv2d(1, 2, 3, padding='same')": (2, 1, 5, 6),
    "Conv2d(4, 2, 3, padding=1, padding_mode='reflect')": (2, 4, 5, 6),
    "Conv2d(4, 2, 3, padding=(1, 2), padding_mode='replicate')": (2, 4, 5, 6),
    "Conv2d(4, 2, 3, padding=(0, 2), padding_mode='circular')": (2, 4, 5, 6),
    "ConvTranspose2d(4, 6, 3)": (2, 4, 5, 6),
    "ConvTranspose2d(4, 6, (2, 3), stride=2, padding=1, output_padding=(0, 1), groups=2, bias=False)": (2, 4, 5, 6),
    "ConvTranspose2d(1, 2, 2, dilation=(1, 2))": (1, 5, 6),
    "MaxPool2d(2)": (2, 4, 5, 6),
    "MaxPool2d((2, 3), stride=1, padding=(1, 0), dilation=2, ceil_mode=True)": (2, 4, 5, 6),
    "AvgPool2d(2)": (2, 4, 5, 6),
    "AvgPool2d(3, stride=2, padding=1, ceil_mode=True, count_include_pad=False)": (2, 4, 5, 6),
    "AvgPool2d((2, 3), divisor_override=5)": (2, 4, 5, 6),
    "AdaptiveAvgPool2d(1)": (2, 4, 5, 6),
    "AdaptiveAvgPool2d((3, None))": (2, 4, 5, 6),
    "LocalResponseNorm(5)": (2, 4, 5, 6),
    "LocalResponseNorm(2, alpha=0.5, beta=0.6, k=2.0)": (2, 4, 5, 6),
    "BatchNorm1d(4)": (3, 4),
    "BatchNorm1d(4, eps=0.1, momentum=0.3)": (3, 4, 5),
    "BatchNorm2d(4)": (2, 4, 5, 6),
    "BatchNorm2d(4, momentum=None)": (2, 4, 5, 6),
    "BatchNorm2d(4, affine=False, track_running_stats=False)": (2, 4, 5, 6),
    "Dropout(p=0.0)": (2, 4),
    "Dropout(p=1)": (2, 4),
    "ReLU()": (2, 4),
    "Sigmoid()": (2, 4),
    "Tanh()": (2, 4),
    "Softmax(1)": (2, 4),
    "LogSoftmax(-1)": (2, 4),
    "Flatten()": (2, 4, 5, 6),
    "Flatten(start_dim=0, end_dim=2)": (2, 4, 5, 6),
    "Identity()": (2, 4),
    "ZeroPad2d(2)": (2, 4, 5, 6),
    "ConstantPad2d((1, 0, 2, 3), 0.5)": (2, 4, 5, 6),
    "ReflectionPad2d((1, 2, 0, 1))": (2, 4, 5, 6),
    "ReplicationPad2d(1)": (2, 4, 5, 6),
    "CircularPad2d((2, 0, 1, 1))": (2, 4, 5, 6),
}
LOSSES = [
    "CrossEntropyLoss()",
    "CrossEntropyLoss(ignore_index=0, reduction='sum', label_smoothing=0.1)",
    "NLLLoss()",
    "NLLLoss(ignore_index=2, reduction='none')",
    "BCELoss(reduction='sum')",
    "BCEWithLogitsLoss(reduction='none')",
    "MSELoss(reduction='sum')",
]


def make(text, library=nn):
    return eval(text, dict(vars(library)))


def test_no_layer_is_missing_here():
    layers = {name for name in nn.__all__ if name not in ("init", "Module", "ModuleList", "Parameter", "Sequential")}
    assert layers == {text.partition("(")[0] for text in [*LAYERS, *LOSSES]}


@pytest.mark.parametrize("text", [*LAYERS, *LOSSES])
def test_a_layer_prints_as_its_constructor_reads(text):
    def options(layer):
        return {name: value for name, value in vars(layer).items() if not isinstance(value, dl.Tensor)}

    layer = make(text)
    assert repr(layer) == text
    again = make(repr(layer))
    assert options(again) == options(layer)
    assert {name: t.shape for name, t in again.state_dict().items()} == {
        name: t.shape for name, t in layer.state_dict().items()
    }


def fill(layer, peer):
    """The same random state, of double precision, for a layer and its peer in PyTorch."""
    torch = pytest.importorskip("torch")
    layer.to(np.float64)
    peer.double()
    for seed, (name, tensor) in enumerate(peer.state_dict().items()):
        array = np.abs(numbers(*tensor.shape, seed=seed)) + 0.5 if tensor.is_floating_point() else np.array(3)
        tensor.copy_(torch.tensor(array))
        assert layer.state_dict()[name].shape == tensor.shape
    layer.load_state_dict(peer.state_dict())
    return layer, peer


def assert_agree(layer, peer, *arrays):
    """Outputs, gradients and the state afterwards are PyTorch's; the first of the arrays gets a gradient."""
    torch = pytest.importorskip("torch")
    ours = [dl.tensor(array) for array in arrays]
    theirs = [torch.tensor(array) for array in arrays]
    ours[0].requires_grad_()
    theirs[0].requires_grad_()
    y, expected = layer(*ours), peer(*theirs)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-12)
    assert y.shape == expected.shape
    close(y.data, expected.detach().numpy())
    y.backward(numbers(*y.shape, seed=9))
    expected.backward(torch.tensor(numbers(*y.shape, seed=9)))
    close(ours[0].grad.data, theirs[0].grad.numpy())
    for (name, parameter), (peer_name, other) in zip(layer.named_parameters(), peer.named_parameters(), strict=True):
        assert name == peer_name
        close(parameter.grad.data, other.grad.numpy(), err_msg=name)
    assert_same_keys(layer, peer)
    for name, tensor in peer.state_dict().items():
        close(layer.state_dict()[name].data, tensor.numpy(), err_msg=name)


def assert_same_keys(module, peer):
    """PyTorch's names, in its order, with its shapes and dtypes."""

    def described(state):
        return [(name, tuple(t.shape), str(t.dtype).removeprefix("torch.")) for name, t in state.items()]

    assert described(module.state_dict()) == described(peer.state_dict())


@pytest.mark.parametrize("text", LAYERS)
def test_a_layer_has_the_state_of_pytorch(text):
    torch = pytest.importorskip("torch")
    assert_same_keys(make(text), make(text, torch.nn))


@pytest.mark.parametrize(
    "text, fan_in",
    [
        ("Linear(100, 300)", 100),
        ("Conv2d(8, 300, (2, 3), groups=2)", 4 * 6),
        ("ConvTranspose2d(300, 600, (2, 3), groups=2)", 300 * 6),  # as PyTorch counts it, for a weight (C, K/groups, …)
    ],
)
def test_weights_begin_uniform_within_the_bounds_of_pytorch(text, fan_in):
    dl.manual_seed(0)
    layer, bound = make(text), 1 / np.sqrt(fan_in)
    for array in (layer.weight.data, layer.bias.data):
        assert 0.97 * bound < array.max() <= np.float32(bound) and -bound * (1 + 1e-6) <= array.min() < -0.97 * bound
        assert abs(array.std() / (bound / np.sqrt(3)) - 1) < 0.1


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("text, shape", LAYERS.items(), ids=LAYERS)
def test_a_layer_with_the_weights_of_pytorch_computes_its_outputs_and_gradients(text, shape, mode):
    torch = pytest.importorskip("torch")
    layer, peer = fill(make(text), make(text, torch.nn))
    operator.methodcaller(mode)(layer)
    operator.methodcaller(mode)(peer)
    assert_agree(layer, peer, numbers(*shape))


@pytest.mark.parametrize("text", [text for text in LAYERS if "Norm1d" in text or "Norm2d" in text])
def test_running_statistics_are_those_of_pytorch_over_several_batches(text):
    torch = pytest.importorskip("torch")
    layer, peer = fill(make(text), make(text, torch.nn))
    for seed in range(3):
        layer.zero_grad()
        peer.zero_grad()
        assert_agree(layer, peer, numbers(*LAYERS[text], seed=seed) * 2 + 1)
    layer.zero_grad()
    peer.zero_grad()
    assert_agree(layer.eval(), peer.eval(), numbers(*LAYERS[text], seed=3))


def test_without_momentum_running_statistics_are_the_mean_of_all_batches():
    layer = nn.BatchNorm1d(2, momentum=None)
    batches = [numbers(5, 2, seed=seed, dtype=np.float32) for seed in range(3)]
    for batch in batches:
        layer(dl.tensor(batch))
    assert layer.num_batches_tracked.item() == 3
    np.testing.assert_allclose(layer.running_mean.data, np.mean([b.mean(axis=0) for b in batches], axis=0), rtol=1e-5)
    np.testing.assert_allclose(
        layer.running_var.data, np.mean([b.var(axis=0, ddof=1) for b in batches], axis=0), rtol=1e-5
    )


def test_dropout_is_silent_in_evaluation_and_scales_in_training():
    dl.manual_seed(0)
    layer, x = nn.Dropout(0.25), dl.tensor(np.ones(10_000, np.float32))
    y = layer(x).data
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.75)} and abs((y == 0).mean() - 0.25) < 0.02
    np.testing.assert_array_equal(layer.eval()(x).data, x.data)


@pytest.mark.parametrize("kind, axes", [(nn.BatchNorm1d, (2, 3)), (nn.BatchNorm2d, (4,))])
def test_batch_norm_asks_for_its_axes_and_channels(kind, axes):
    for ndim in {1, 2, 3, 4, 5} - set(axes):
        with pytest.raises(ValueError, match=mentions(kind.__name__, (4,) * ndim)):
            kind(4)(dl.tensor(np.ones((4,) * ndim)))
    shape = (2, 5, 3, 3)[: axes[0]]
    with pytest.raises(ValueError, match=mentions(kind.__name__, 4, 5, shape)):
        kind(4)(dl.tensor(np.ones(shape)))


REFUSED = {
    "Linear(0, 3)": ("in_features", "0"),
    "Linear(3, -1)": ("out_features", "-1"),
    "Linear(2.5, 3)": ("in_features", "2.5"),
    "Conv2d(0, 1, 3)": ("in_channels", "0"),
    "Conv2d(1, '2', 3)": ("out_channels", "'2'"),
    "Conv2d(1, 1, 0)": ("kernel_size", "0"),
    "Conv2d(1, 1, (3, -1))": ("kernel_size", "(3, -1)"),
    "Conv2d(1, 1, (3, 3, 3))": ("kernel_size", "(3, 3, 3)"),
    "Conv2d(1, 1, 2.5)": ("kernel_size", "2.5"),
    "Conv2d(4, 6, 3, groups=3)": ("groups=3", "in_channels=4"),
    "Conv2d(6, 4, 3, groups=3)": ("groups=3", "out_channels=4"),
    "Conv2d(6, 4, 3, groups=0)": ("groups", "0"),
    "Conv2d(1, 1, 3, padding_mode='mirror')": ("'mirror'", "'reflect'"),
    "Conv2d(1, 1, 3, padding='same', padding_mode='reflect')": ("'same'", "'reflect'"),
    "ConvTranspose2d(4, 6, 3, groups=4)": ("groups=4", "out_channels=6"),
    "ConvTranspose2d(4, 6, 0)": ("kernel_size", "0"),
    "BatchNorm2d(0)": ("num_features", "0"),
    "Dropout(1.5)": ("1.5",),
    "Dropout(-0.1)": ("-0.1",),
    "ReflectionPad2d(1.5)": ("padding", "1.5"),
    "ConstantPad2d((1, 2, None, 1), 0.0)": ("padding", "(1, 2, None, 1)"),
}


@pytest.mark.parametrize("text, words", REFUSED.items(), ids=REFUSED)
def test_a_constructor_refuses_what_makes_no_sense_with_the_value(text, words):
    with pytest.raises((ValueError, TypeError), match=mentions(text.partition("(")[0], *words)):
        make(text)


def test_sizes_may_be_numpy_integers():
    layer = nn.Linear(np.prod((2, 3)), np.int64(4))
    assert layer.weight.shape == (4, 6) and repr(layer) == "Linear(6, 4)"
    assert nn.Conv2d(np.int32(1), 2, np.int64(3)).weight.shape == (2, 1, 3, 3)


class NumpyNumbers(ast.NodeTransformer):
    """Writes np.int64(2) for 2 and np.float64(0.5) for 0.5."""

    def visit_Constant(self, node):
        kind = {int: "int64", float: "float64"}.get(type(node.value))
        return ast.parse(f"np.{kind}({node.value!r})", mode="eval").body if kind else node


@pytest.mark.parametrize("text, shape", LAYERS.items(), ids=LAYERS)
def test_options_may_be_numpy_numbers(text, shape):
    layer = eval(ast.unparse(NumpyNumbers().visit(ast.parse(text))), {"np": np, **vars(nn)})
    assert repr(layer) == text
    y = layer(dl.tensor(numbers(*shape, dtype=np.float32)))
    assert y.dtype == np.float32 and y.shape == make(text)(dl.tensor(numbers(*shape, dtype=np.float32))).shape


# Losses

PROBABILITY = 1 / (1 + np.exp(-numbers(3, 4)))
LOSS_INPUTS = {
    "CrossEntropyLoss": (numbers(3, 4), np.array([2, 0, 3])),
    "NLLLoss": (numbers(3, 4), np.array([2, 0, 3])),
    "BCELoss": (PROBABILITY, 1.0 * (numbers(3, 4, seed=1) > 0)),
    "BCEWithLogitsLoss": (numbers(3, 4), 1.0 * (numbers(3, 4, seed=1) > 0)),
    "MSELoss": (numbers(3, 4), numbers(3, 4, seed=1)),
}


@pytest.mark.parametrize("text", LOSSES)
def test_a_loss_is_that_of_pytorch(text):
    torch = pytest.importorskip("torch")
    assert_agree(make(text), make(text, torch.nn), *LOSS_INPUTS[text.partition("(")[0]])


@pytest.mark.parametrize(
    "name, weights",
    [
        ("CrossEntropyLoss", {"weight": (4,)}),
        ("NLLLoss", {"weight": (4,)}),
        ("BCELoss", {"weight": (3, 4)}),
        ("BCEWithLogitsLoss", {"weight": (3, 4)}),
        ("BCEWithLogitsLoss", {"pos_weight": (4,)}),
        ("BCEWithLogitsLoss", {"weight": (4,), "pos_weight": (4,)}),
    ],
)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_a_weighted_loss_is_that_of_pytorch(name, weights, reduction):
    torch = pytest.importorskip("torch")
    arrays = {key: np.abs(numbers(*shape, seed=2)) for key, shape in weights.items()}
    loss = getattr(nn, name)(**{key: dl.tensor(array) for key, array in arrays.items()}, reduction=reduction)
    peer = getattr(torch.nn, name)(**{key: torch.tensor(array) for key, array in arrays.items()}, reduction=reduction)
    assert_agree(loss, peer, *LOSS_INPUTS[name])


def test_a_loss_moves_with_its_weights():
    loss = nn.CrossEntropyLoss(weight=dl.tensor([1.0, 2.0])).to(np.float64)
    assert loss.weight.dtype == np.float64 and list(loss.state_dict()) == ["weight"]


# A network, the same in both libraries


def network(library, ones):
    class Block(library.Module):
        def __init__(self, channels):
            super().__init__()
            self.conv = library.Conv2d(channels, channels, 3, padding=1, bias=False)
            self.norm = library.BatchNorm2d(channels)
            self.scale = library.Parameter(ones(channels, 1, 1))  # its own come first, whenever assigned
            self.register_buffer("seen", ones(2))
            self.shortcut = None

        def forward(self, x):
            return x + self.norm(self.conv(x)) * self.scale

    class Network(library.Module):
        def __init__(self):
            super().__init__()
            self.stem = library.Sequential(library.Conv2d(1, 2, 3), library.Tanh())
            self.blocks = library.ModuleList([Block(2) for _ in range(2)])
            self.pool = library.AvgPool2d(2)
            self.head = library.Sequential(library.Flatten(), library.Linear(8, 3))
            self.temperature = library.Parameter(ones(1))

        def forward(self, x):
            x = self.stem(x)
            for block in self.blocks:
                x = block(x)
            return self.head(self.pool(x)) * self.temperature

    return Network()


def our_network():
    return network(nn, lambda *shape: dl.tensor(np.ones(shape, np.float32)))


def torch_network():
    torch = pytest.importorskip("torch")
    return network(torch.nn, torch.ones)


@pytest.mark.parametrize(
    "listing", ["named_parameters", "named_buffers", "named_modules", "named_children", "state_dict"]
)
def test_parts_are_named_and_ordered_as_in_pytorch(listing):
    def names(net):
        parts = getattr(net, listing)()
        return list(parts) if isinstance(parts, dict) else [name for name, _ in parts]

    assert names(our_network()) == names(torch_network())


def test_a_network_with_the_weights_of_pytorch_computes_its_outputs_and_gradients():
    ours, theirs = fill(our_network(), torch_network())
    for mode in (True, False):
        ours.zero_grad()
        theirs.zero_grad()
        assert_agree(ours.train(mode), theirs.train(mode), numbers(2, 1, 6, 6, seed=mode))


def test_the_plain_listings_are_the_named_ones_without_names():
    net = our_network()
    for listing in ("parameters", "buffers", "modules", "children"):
        unnamed = list(getattr(net, listing)())
        named = [part for _, part in getattr(net, f"named_{listing}")()]
        assert len(unnamed) == len(named) > 0
        assert all(a is b for a, b in zip(unnamed, named, strict=True))


def shared_parts(library):
    class Tied(library.Module):
        def __init__(self):
            super().__init__()
            self.first = library.BatchNorm1d(2)
            self.again = self.first
            self.other = library.Linear(2, 2)
            self.tied = library.Linear(2, 2)
            self.tied.weight = self.other.weight

    return Tied()


@pytest.mark.parametrize("listing", ["named_parameters", "named_buffers", "named_modules"])
def test_shared_parts_come_once_as_in_pytorch(listing):
    torch = pytest.importorskip("torch")
    ours, theirs = ([name for name, _ in getattr(shared_parts(lib), listing)()] for lib in (nn, torch.nn))
    assert ours == theirs


def test_shared_parts_are_saved_under_each_of_their_names_as_in_pytorch():
    torch = pytest.importorskip("torch")
    ours = shared_parts(nn)
    assert_same_keys(ours, shared_parts(torch.nn))
    ours.load_state_dict({name: tensor.data + 1 for name, tensor in ours.state_dict().items()})
    assert ours.tied.weight is ours.other.weight


def test_a_shared_parameter_gets_the_gradients_of_all_its_uses():
    net = shared_parts(nn)
    x = dl.tensor(numbers(3, 2, dtype=np.float32))
    (net.other(x) + net.tied(x)).sum().backward()
    np.testing.assert_allclose(net.other.weight.grad.data, np.tile(2 * x.data.sum(axis=0), (2, 1)), rtol=1e-5)


def test_a_buffer_is_saved_but_not_learned():
    net = nn.Module()
    net.register_buffer("count", dl.tensor(3))
    net.register_buffer("missing", None)
    assert list(net.state_dict()) == ["count"] and not list(net.parameters())
    net.count = dl.tensor(4)  # it may be replaced
    assert net.state_dict()["count"].item() == 4


def test_a_parameter_is_a_leaf_that_needs_a_gradient():
    x = dl.tensor([1.0], requires_grad=True)
    parameter = nn.Parameter(x * 2)
    assert parameter.is_leaf and parameter.requires_grad and isinstance(parameter, dl.Tensor)
    assert not nn.Parameter(x, requires_grad=False).requires_grad
    assert (parameter + 1).__class__ is dl.Tensor  # only what is assigned by hand is learned


def test_a_module_without_forward_says_so():
    with pytest.raises(TypeError, match=mentions("Nothing", "forward")):
        type("Nothing", (nn.Module,), {})()(dl.tensor(1.0))


# Saving and loading


def test_the_state_shares_memory_with_the_module():
    layer = nn.Linear(2, 3)
    state = layer.state_dict()
    assert state["weight"].data is layer.weight.data and not state["weight"].requires_grad


def test_loading_copies_into_the_parameters_that_are_there():
    layer, source = nn.Linear(2, 3), {"weight": numbers(3, 2), "bias": dl.tensor(numbers(3))}
    weight, memory = layer.weight, layer.weight.data
    assert layer.load_state_dict(source) == ([], [])
    assert layer.weight is weight and weight.data is memory and memory.dtype == np.float32
    np.testing.assert_array_equal(memory, source["weight"].astype(np.float32))
    source["weight"][:] = 0
    assert memory.any() and weight.requires_grad and weight.is_leaf


def test_loading_after_the_forward_pass_is_noticed_by_backward():
    layer = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    loss = layer(dl.tensor(numbers(1, 2, dtype=np.float32))).sum()
    layer.load_state_dict(values(layer))
    with pytest.raises(RuntimeError, match="in place"):
        loss.backward()


def test_all_that_does_not_fit_is_said_at_once_and_nothing_is_changed():
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 4))
    before = values(net)
    state = {name: array + 1 for name, array in before.items()}
    state["2.weight"] = state["2.weight"].T
    state["1.running_mean"] = np.zeros(5)
    del state["0.bias"]
    state["3.weight"] = np.zeros(1)
    names = ("0.bias", "1.running_mean", "2.weight", "3.weight")
    with pytest.raises(ValueError, match=mentions("Sequential", *names, (3, 4), (4, 3), (5,), (3,))):
        net.load_state_dict(state)
    assert_same_values(values(net), before)


def test_loading_what_is_not_strict_passes_over_names_but_not_shapes():
    net = nn.Linear(2, 3)
    bias = net.bias.data.copy()
    net.load_state_dict({"weight": np.ones((3, 2)), "other": np.ones(1)}, strict=False)
    np.testing.assert_array_equal(net.weight.data, np.ones((3, 2)))
    np.testing.assert_array_equal(net.bias.data, bias)
    with pytest.raises(ValueError, match=mentions("weight", "(2, 3)", "(3, 2)")):
        net.load_state_dict({"weight": np.ones((2, 3))}, strict=False)


@pytest.mark.parametrize("bad", [np.array(["a", "b", "c"]), np.array([1, None, 2]), np.ones(3, complex)], ids=str)
def test_loading_what_is_not_numbers_changes_nothing(bad):
    net = nn.Linear(2, 3)
    before = values(net)
    with pytest.raises((TypeError, ValueError), match=mentions("bias")):
        net.load_state_dict({"weight": np.ones((3, 2)), "bias": bad})
    assert_same_values(values(net), before)


def test_a_deep_copy_has_parameters_of_its_own():
    net = shared_parts(nn)
    twin = copy.deepcopy(net)
    assert_same_values(values(twin), values(net))
    assert twin.tied.weight is twin.other.weight is not net.other.weight and twin.again is twin.first
    dl.nn.init.zeros_(twin.other.weight)
    assert net.other.weight.data.any()


# Modes, devices, gradients


def test_train_and_eval_reach_every_part():
    net = our_network()
    assert all(module.training for module in net.modules())
    assert net.eval() is net and not any(module.training for module in net.modules())
    assert net.blocks[1].train() is net.blocks[1]
    assert net.blocks[1].norm.training and not net.blocks[0].norm.training
    assert net.train(False) is net and not net.blocks[1].norm.training


def test_apply_visits_children_first_and_the_module_itself_last():
    seen = []
    net = nn.Sequential(nn.Linear(1, 2), nn.Sequential(nn.ReLU()))
    assert net.apply(seen.append) is net
    assert seen == [net[0], net[1][0], net[1], net]


def test_zero_grad_forgets_and_requires_grad_freezes():
    net, x = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1)), dl.tensor(numbers(1, 2, dtype=np.float32))
    net(x).backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
    net.zero_grad()
    assert all(parameter.grad is None for parameter in net.parameters())
    assert net[0].requires_grad_(False) is net[0]
    net(x).backward()
    assert [parameter.grad is None for parameter in net.parameters()] == [True, True, False, False]


@pytest.mark.parametrize("convert", [lambda net: net.to(np.float64), lambda net: net.to(dtype="float64")])
def test_to_converts_what_is_floating_in_place(convert):
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    x = numbers(2, 1, 5, 5)
    net(dl.tensor(x.astype(np.float32))).sum().backward()
    before, parameters, grad = values(net), list(net.parameters()), net[0].weight.grad.data
    assert convert(net) is net
    assert all(a is b for a, b in zip(net.parameters(), parameters, strict=True))
    assert {t.dtype for t in net.state_dict().values()} == {np.dtype(np.float64), np.dtype(np.int64)}
    assert net[1].num_batches_tracked.dtype == np.int64 and net[0].weight.grad.dtype == np.float64
    np.testing.assert_array_equal(net[0].weight.grad.data, grad)
    assert_same_values(values(net), before)
    assert net(dl.tensor(x)).dtype == np.float64


def test_to_where_and_what_it_is_copies_nothing():
    net = nn.Linear(2, 3)
    memory = net.weight.data
    assert net.to("cpu").to(np.float32).weight.data is memory


def test_parameters_cannot_become_integers():
    net = nn.Linear(2, 3)
    memory = net.weight.data
    with pytest.raises(TypeError, match="int64"):
        net.to(np.int64)
    assert net.weight.data is memory


# Containers


def test_sequential_applies_its_modules_in_order():
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    x = dl.tensor(numbers(4, 2, dtype=np.float32))
    np.testing.assert_array_equal(net(x).data, net[2](net[1](net[0](x))).data)
    assert nn.Sequential()(x) is x


def test_sequential_is_a_sequence():
    parts = [nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)]
    net = nn.Sequential(*parts)
    assert len(net) == 3 and list(net) == parts and net[-1] is parts[2]
    with pytest.raises(IndexError):
        net[3]
    features = net[1:]
    assert isinstance(features, nn.Sequential) and list(features) == parts[1:]
    assert list(features.state_dict()) == ["2.weight", "2.bias"]  # the names stay, as in PyTorch
    assert net.append(nn.Tanh()) is net and isinstance(net[3], nn.Tanh)
    assert [name for name, _ in net.named_children()] == ["0", "1", "2", "3"]


def test_sequential_takes_names():
    net = nn.Sequential({"conv": nn.Conv2d(1, 2, 3), "squash": nn.Tanh()})
    assert list(net.state_dict()) == ["conv.weight", "conv.bias"] and net.squash is net[1]


@pytest.mark.parametrize("name", ["forward", "training", "a.b", ""])
def test_sequential_refuses_names_that_would_break_it(name):
    with pytest.raises((KeyError, ValueError), match="name|exists"):
        nn.Sequential({"first": nn.Tanh(), name: nn.ReLU()})


def test_a_module_list_is_found_by_name():
    layers = [nn.Linear(1, 2), nn.Linear(2, 1)]
    modules = nn.ModuleList(layers[:1])
    assert modules.append(layers[1]) is modules
    assert len(modules) == 2 and list(modules) == layers and modules[-1] is layers[1]
    assert list(modules[:1]) == layers[:1]
    assert list(modules.state_dict()) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    with pytest.raises(TypeError, match="ModuleList"):
        modules(dl.tensor(1.0))


@pytest.mark.parametrize(
    "fill_it", [lambda wrong: nn.Sequential(nn.ReLU(), wrong), lambda wrong: nn.ModuleList([nn.ReLU(), wrong])]
)
@pytest.mark.parametrize("wrong", [F.relu, nn.ReLU, None, "relu"], ids=["function", "class", "None", "name"])
def test_a_container_holds_modules_only(fill_it, wrong):
    with pytest.raises(TypeError, match=mentions("holds modules", type(wrong).__name__, "'1'")):
        fill_it(wrong)


# How modules print


def test_a_network_prints_its_parts_indented():
    net = nn.Sequential({"features": nn.Sequential(nn.Conv2d(1, 6, 5), nn.Tanh()), "head": nn.Linear(6, 10)})
    assert repr(net) == "\n".join(
        [
            "Sequential(",
            "  (features): Sequential(",
            "    (0): Conv2d(1, 6, 5)",
            "    (1): Tanh()",
            "  )",
            "  (head): Linear(6, 10)",
            ")",
        ]
    )


def test_a_layer_of_ones_own_prints_the_options_it_keeps():
    class Scale(nn.Module):
        def __init__(self, channels, start=1.0, *, per_pixel=False):
            self.start, self.per_pixel = start, per_pixel
            self.weight = nn.Parameter(dl.tensor(np.full(channels, start)))

    assert repr(Scale(3, start=2.0)) == "Scale(start=2.0)"  # `channels` was not kept, and is not invented
    assert repr(Scale(3, per_pixel=True)) == "Scale(per_pixel=True)"


def test_loading_tells_what_did_not_fit_when_it_is_not_strict():
    keys = nn.Linear(2, 3).load_state_dict({"weight": np.zeros((3, 2)), "extra": np.zeros(1)}, strict=False)
    assert keys == (["bias"], ["extra"]) and keys.missing_keys == ["bias"] and keys.unexpected_keys == ["extra"]


@pytest.mark.parametrize("value", [dl.tensor([1.0]), np.zeros(1), 2.0], ids=["tensor", "array", "number"])
def test_a_parameter_is_not_replaced_by_what_nobody_would_learn(value):
    layer = nn.Linear(2, 3)
    with pytest.raises(TypeError, match=r"Linear.weight is a parameter.*nn.Parameter"):
        layer.weight = value
    layer.weight = nn.Parameter(np.zeros((3, 2), np.float32))
    layer.bias = None
    assert [name for name, _ in layer.named_parameters()] == ["weight"]


def test_in_place_is_accepted_and_leaves_the_input_alone():
    x = dl.tensor([-1.0, 2.0])
    assert nn.ReLU(inplace=True)(x).data.tolist() == [0, 2] and x.data.tolist() == [-1, 2]
    assert nn.Dropout(0.0, inplace=True)(x).data.tolist() == [-1, 2]


def test_padding_with_a_mode_may_be_a_list_as_for_zeros():
    x = dl.tensor(np.ones((1, 1, 4, 5), np.float32))
    assert nn.Conv2d(1, 1, 3, padding=[1, 2], padding_mode="reflect")(x).shape == (1, 1, 4, 7)
    assert nn.Conv2d(1, 1, 3, padding=[1, 2])(x).shape == (1, 1, 4, 7)


# Hooks

def test_hooks_see_and_replace_what_goes_in_and_comes_out():
    layer, seen = nn.Linear(2, 2), []
    before = layer.register_forward_pre_hook(lambda module, inputs: seen.append((module, inputs)))
    after = layer.register_forward_hook(lambda module, inputs, output: seen.append((module, inputs, output)))
    x = dl.tensor([[1.0, 2.0]])
    y = layer(x)
    assert seen == [(layer, (x,)), (layer, (x,), y)]
    before.remove(), after.remove(), after.remove()
    layer(x)
    assert len(seen) == 2
    layer.register_forward_pre_hook(lambda module, inputs: (inputs[0] * 2,))
    layer.register_forward_hook(lambda module, inputs, output: output + 1)
    expected = x.data * 2 @ layer.weight.data.T + layer.bias.data + 1
    np.testing.assert_allclose(layer(x).data, expected, rtol=1e-6)


def test_a_hook_may_last_for_a_block():
    layer, seen = nn.ReLU(), []
    with layer.register_forward_hook(lambda *_: seen.append(1)):
        layer(dl.tensor([1.0]))
    layer(dl.tensor([1.0]))
    assert seen == [1]


def test_hooks_run_in_the_order_of_their_registration_and_belong_to_one_module():
    one, other, order = nn.ReLU(), nn.ReLU(), []
    for name in "abc":
        one.register_forward_hook(lambda *_, name=name: order.append(name))
    other(dl.tensor([1.0]))
    assert order == []
    one(dl.tensor([1.0]))
    assert order == ["a", "b", "c"]
