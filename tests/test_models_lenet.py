"""LeNet-5 is the lecture's and the paper's: claim F1, each layer by a naive loop, and PyTorch with the same weights."""

import itertools
import re

import numpy as np
import pytest

import minidl as dl
import models
from minidl import nn
from minidl.training import Preset
from models.lenet import CONNECTIONS, ConnectedConv2d, RadialBasis, ScaledTanh, Subsampling, drawings

VARIANTS = ["lecture", "1998"]


def random(*shape):
    return np.random.default_rng(shape).standard_normal(shape)


def count(*modules):
    return sum(parameter.size for module in modules for parameter in module.parameters())


def network(variant, dtype=np.float64):
    """LeNet-5 in float64, with no weight left at 0 or 1, where a mistake could hide."""
    dl.manual_seed(5)
    model = models.lenet5(variant=variant).to(dtype)
    for parameter in model.parameters():
        parameter.data += 0.1 * random(*parameter.shape)
    return model


# Claim F1

def lecture_layers(model):
    features, classifier = model.features, model.classifier
    return [features[:2], features[2:3], features[3:5], features[5:], classifier[:3], classifier[3:5], classifier[5:]]


def paper_layers(model):
    f = model.features
    return [f[:2], f[2:4], f[4:6], f[6:8], f[8:10], f[10:], nn.Sequential(model.output)]


@pytest.mark.parametrize("variant, layers, outputs, parameters, total", [
    ("lecture", lecture_layers, [(6, 28, 28), (6, 14, 14), (16, 10, 10), (16, 5, 5), (120,), (84,), (10,)],
     [156, 0, 2416, 0, 48_120, 10_164, 850], 61_706),
    ("1998", paper_layers, [(6, 28, 28), (6, 14, 14), (16, 10, 10), (16, 5, 5), (120, 1, 1), (84,), (10,)],
     [156, 12, 1516, 32, 48_120, 10_164, 0], 60_000),
])
def test_F1_every_layer_has_the_shape_and_the_parameters_of_the_table(variant, layers, outputs, parameters, total):
    model = models.lenet5(variant=variant)
    x = dl.tensor(random(2, 1, 32, 32).astype(np.float32))
    y = x
    for layer, shape in zip(layers(model), outputs, strict=True):
        y = layer(y)
        assert y.shape == (2, *shape)
    np.testing.assert_array_equal(y.data, model(x).data)  # these are all of its layers
    assert [count(layer) for layer in layers(model)] == parameters
    assert count(model) == total
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_F1_filters_are_5x5_at_stride_1_and_windows_2x2_at_stride_2():
    model = models.lenet5()
    convolutions = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    pools = [layer for layer in model.modules() if isinstance(layer, nn.AvgPool2d)]
    assert [repr(layer) for layer in convolutions] == ["Conv2d(1, 6, 5)", "Conv2d(6, 16, 5)"]
    assert [repr(layer) for layer in pools] == ["AvgPool2d(2)"] * 2
    kinds = [type(layer).__name__ for layer in model.modules()]
    order = [kind for kind in kinds if kind in ("Conv2d", "AvgPool2d", "Linear")]
    assert order == ["Conv2d", "AvgPool2d"] * 2 + ["Linear"] * 3  # the last of which classifies


# Table I of the paper: an X in row i, column j where C3's map j sees S2's map i
TABLE_I = """
    X . . . X X X . . X X X X . X X
    X X . . . X X X . . X X X X . X
    X X X . . . X X X . . X . X X X
    . X X X . . X X X X . . X . X X
    . . X X X . . X X X X . X X . X
    . . . X X X . . X X X X . X X X
"""


def test_F1_C3_is_connected_as_in_table_I():
    table = np.array([row.split() for row in TABLE_I.strip().splitlines()]) == "X"
    assert [tuple(np.flatnonzero(column)) for column in table.T] == [tuple(sorted(seen)) for seen in CONNECTIONS]
    assert sum(map(len, CONNECTIONS)) == 60
    # and the layer does see those maps, and no others
    layer, silent = network("1998").features[4], np.zeros((1, 6, 5, 5))
    for channel in range(6):
        image = silent.copy()
        image[0, channel] = random(5, 5)
        reaction = (layer(dl.tensor(image)).data - layer(dl.tensor(silent)).data).ravel()
        np.testing.assert_array_equal(reaction != 0, table[channel])


# The paper's layers, by naive loops

def test_scaled_tanh_is_1_at_1():
    f = ScaledTanh()
    np.testing.assert_allclose(f(dl.tensor(np.array([-1.0, 0.0, 1.0]))).data, [-1, 0, 1], atol=1e-4)
    assert f(dl.tensor(np.array([1e6]))).item() == pytest.approx(1.7159)


def test_subsampling_is_the_sum_of_each_window_times_a_coefficient_plus_a_bias():
    layer = Subsampling(3).to(np.float64)
    layer.coefficient.data[:], layer.bias.data[:] = random(2, 3)
    x = random(2, 3, 4, 6)
    expected = np.zeros((2, 3, 2, 3))
    for n, c, i, j in np.ndindex(expected.shape):
        total = sum(x[n, c, 2 * i + a, 2 * j + b] for a in range(2) for b in range(2))
        expected[n, c, i, j] = layer.coefficient.data[c] * total + layer.bias.data[c]
    np.testing.assert_allclose(layer(dl.tensor(x)).data, expected, rtol=1e-12)


def test_a_connected_convolution_sums_over_the_maps_it_is_connected_to():
    connections = ((2, 0), (1,), (0, 1, 2))
    layer = ConnectedConv2d(connections, 3, 2).to(np.float64)
    for parameter in layer.parameters():
        parameter.data[...] = random(*parameter.shape)
    x = random(2, 3, 4, 5)
    expected = np.zeros((2, 3, 3, 4)) + layer.bias.data.reshape(-1, 1, 1)
    for n, i, j in itertools.product(range(2), range(3), range(4)):
        filters = iter(layer.weight.data)  # in the order of the connections
        for output, seen in enumerate(connections):
            for channel in seen:
                expected[n, output, i, j] += np.sum(x[n, channel, i : i + 2, j : j + 2] * next(filters))
    np.testing.assert_allclose(layer(dl.tensor(x)).data, expected, rtol=1e-12)


def test_radial_basis_logits_are_negative_squared_distances():
    codes, x = random(4, 7), random(3, 7)
    expected = [[-sum((a - b) ** 2 for a, b in zip(row, code)) for code in codes] for row in x]
    np.testing.assert_allclose(RadialBasis(codes)(dl.tensor(x)).data, expected, rtol=1e-12)


def test_the_drawings_are_ten_different_ones():
    codes = drawings()
    assert codes.shape == (10, 84) and codes.dtype == np.float32
    assert set(np.unique(codes)) == {-1, 1}
    distances = {(i, j): int(np.sum(codes[i] != codes[j])) for i, j in itertools.combinations(range(10), 2)}
    assert min(distances.values()) == distances[3, 8] == 12
    # unlike a one-hot code, most pixels of a drawing are shared: the paper's reason for drawings
    assert {"output.codes"} == {name for name, _ in models.lenet5(variant="1998").named_buffers()}


def test_the_drawings_are_digits():
    one = drawings()[1].reshape(12, 7)
    assert ["".join("#" if pixel > 0 else "." for pixel in row) for row in one] == [
        "...#...", "..##...", ".###...", *["...#..."] * 7, "..###..", ".......",
    ]


def test_the_1998_form_starts_within_2_4_over_fan_in():
    model = models.lenet5(variant="1998")
    fan_ins = {0: 25, 8: 400, 11: 120, 4: 25 * np.repeat(*2 * [[len(seen) for seen in CONNECTIONS]])[:, None, None]}
    for index, fan_in in fan_ins.items():
        share = np.abs(model.features[index].weight.data * fan_in / 2.4)
        assert 0.9 < share.max() <= 1 + 1e-6 and share.mean() == pytest.approx(0.5, abs=0.1)
        assert not model.features[index].bias.data.any()


# The whole network

def with_weights(model):
    """The model as a function of its input and all of its weights, and those weights."""
    places = [(module, name) for module in model.modules() for name, value in vars(module).items()
              if isinstance(value, nn.Parameter)]

    def function(x, *weights):
        for (module, name), weight in zip(places, weights, strict=True):
            vars(module)[name] = weight  # past the check that parameters stay parameters
        return model(x)

    return function, [getattr(module, name).data for module, name in places]


@pytest.mark.parametrize("variant", VARIANTS)
def test_finite_differences_agree_with_the_gradient_of_the_whole_network(variant):
    function, weights = with_weights(network(variant))
    dl.gradcheck(function, [random(1, 1, 32, 32), *weights], max_entries=20)


def twin(torch, variant):
    """The same network in PyTorch, with the same names."""
    from torch.nn import functional as F

    class ScaledTanh(torch.nn.Module):
        def forward(self, x):
            return 1.7159 * torch.tanh(2 / 3 * x)

    class Subsampling(torch.nn.Module):
        def __init__(self, channels):
            super().__init__()
            self.coefficient = torch.nn.Parameter(torch.zeros(channels))
            self.bias = torch.nn.Parameter(torch.zeros(channels))

        def forward(self, x):
            return 4 * F.avg_pool2d(x, 2) * self.coefficient[:, None, None] + self.bias[:, None, None]

    class Connected(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(60, 5, 5))
            self.bias = torch.nn.Parameter(torch.zeros(16))

        def forward(self, x):
            filters = torch.split(self.weight, [len(seen) for seen in CONNECTIONS])
            maps = [F.conv2d(x[:, seen], w[None], b[None]) for seen, w, b in zip(CONNECTIONS, filters, self.bias)]
            return torch.cat(maps, dim=1)

    class Distances(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("codes", torch.zeros(10, 84))

        def forward(self, x):
            return -torch.cdist(x, self.codes) ** 2

    class Twin(torch.nn.Module):
        def __init__(self, **parts):
            super().__init__()
            for name, part in parts.items():
                setattr(self, name, part)

        def forward(self, x):
            for part in self.children():
                x = part(x)
            return x

    layers = torch.nn
    if variant == "lecture":
        return Twin(
            features=layers.Sequential(
                layers.Conv2d(1, 6, 5), layers.Tanh(), layers.AvgPool2d(2),
                layers.Conv2d(6, 16, 5), layers.Tanh(), layers.AvgPool2d(2)),
            classifier=layers.Sequential(
                layers.Flatten(), layers.Linear(400, 120), layers.Tanh(),
                layers.Linear(120, 84), layers.Tanh(), layers.Linear(84, 10)))
    return Twin(
        features=layers.Sequential(
            layers.Conv2d(1, 6, 5), ScaledTanh(), Subsampling(6), ScaledTanh(), Connected(), ScaledTanh(),
            Subsampling(16), ScaledTanh(), layers.Conv2d(16, 120, 5), ScaledTanh(),
            layers.Flatten(), layers.Linear(120, 84), ScaledTanh()),
        output=Distances())


@pytest.mark.parametrize("variant", VARIANTS)
def test_pytorch_with_the_same_weights_agrees_in_logits_and_every_gradient(variant):
    torch = pytest.importorskip("torch")
    ours, theirs = network(variant), twin(torch, variant).double()
    theirs.load_state_dict({name: torch.tensor(value.numpy()) for name, value in ours.state_dict().items()})
    images, labels = random(4, 1, 32, 32), np.array([3, 1, 4, 9])
    x, peer = dl.tensor(images, requires_grad=True), torch.tensor(images, requires_grad=True)
    logits, peer_logits = ours(x), theirs(peer)
    np.testing.assert_allclose(logits.data, peer_logits.detach(), rtol=1e-9)
    dl.functional.cross_entropy(logits, dl.tensor(labels)).backward()
    torch.nn.functional.cross_entropy(peer_logits, torch.tensor(labels)).backward()
    peers = dict(theirs.named_parameters()) | {"image": peer}
    for name, parameter in [*ours.named_parameters(), ("image", x)]:
        np.testing.assert_allclose(parameter.grad.data, peers.pop(name).grad, rtol=1e-7, atol=1e-10, err_msg=name)
    assert not peers


def test_other_numbers_of_classes_and_channels():
    model = models.lenet5(num_classes=3, in_channels=2)
    assert model(dl.tensor(np.zeros((5, 2, 32, 32), np.float32))).shape == (5, 3)
    assert count(model) == 61_706 + 6 * 25 - 7 * 85


# What is refused, with the reason

@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("shape", [(1, 1, 28, 28), (1, 1, 32, 31), (1, 1, 8, 8), (32,)])
def test_images_of_another_size_are_refused(variant, shape):
    complaint = re.escape(f"takes 32 × 32 images; got {shape}. Enlarge or pad them: minidl.data.Fit(32)")
    with pytest.raises(ValueError, match=complaint):
        models.lenet5(variant=variant)(dl.tensor(np.zeros(shape, np.float32)))


@pytest.mark.parametrize("variant", VARIANTS)
def test_images_of_three_channels_are_refused(variant):
    with pytest.raises(ValueError, match="3 channels"):
        models.lenet5(variant=variant)(dl.tensor(np.zeros((1, 3, 32, 32), np.float32)))


@pytest.mark.parametrize("options, complaint", [
    ({"variant": "1999"}, "there is no variant '1999'; choose 'lecture' or '1998'"),
    ({"variant": 1998}, "there is no variant 1998"),
    ({"variant": "1998", "num_classes": 12}, "ten digits in one channel; got num_classes=12, in_channels=1"),
    ({"variant": "1998", "in_channels": 3}, "got num_classes=10, in_channels=3"),
    ({"num_classes": 0}, "got 0"),
    ({"in_channels": -1}, "got -1"),
])
def test_options_that_lenet5_does_not_have_are_refused(options, complaint):
    with pytest.raises(ValueError, match=complaint):
        models.build("lenet5", **options)


# Models by name

def test_models_are_built_by_name():
    assert "lenet5" in models.available()
    assert type(models.build("lenet5")) is type(models.lenet5())
    assert count(models.build("lenet5", variant="1998")) == 60_000
    for name in models.available():
        assert isinstance(models.preset(name), Preset)
    assert models.preset("lenet5").input_size == 32


@pytest.mark.parametrize("find", [models.build, models.preset])
@pytest.mark.parametrize("name, hint", [("lenet", "did you mean lenet5"), ("LeNet5", "did you mean .*lenet5"),
                                        ("qqq", "there are .*lenet5")])
def test_an_unknown_name_gets_the_nearest(find, name, hint):
    with pytest.raises(ValueError, match=f"there is no model '{name}'; {hint}"):
        find(name)


def test_an_unknown_option_is_named():
    with pytest.raises(TypeError, match="depth"):
        models.build("lenet5", depth=3)


def test_a_variant_may_be_trained_with_numbers_of_its_own():
    assert models.preset("lenet5", "1998").lr < models.preset("lenet5").lr == models.preset("lenet5", "lecture").lr
