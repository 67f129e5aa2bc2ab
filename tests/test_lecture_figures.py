"""The lecture's figures, F1 to F19, each computed from the networks themselves; `pytest -k F10 -v` asks for one.

F1 stands in test_models_lenet.py, F15 in test_cli_experiment.py and F19 in test_models_neocognitron.py.
"""

import functools
import importlib

import numpy as np
import pytest

import minidl as dl
import models
from minidl import functional as F
from minidl import nn

MIB = 2**20


@pytest.fixture(autouse=True)
def quick(request):
    """Only F8 and F14 look at values; the others count."""
    if not request.node.name.startswith(("test_F8", "test_F14")):
        request.getfixturevalue("blank_weights")


@functools.cache
def layers_of(name, side, **options):
    """The summary of a network for square images, without the measurement of a training step."""
    return dl.summary(models.build(name, **options), (3, side, side), measure_peak=False)


def weighted(summary):
    """Its layers with weights, in order: convolutions and fully connected ones."""
    return [layer for layer in summary.layers if layer.parameters]


def split(summary):
    """(convolutions, fully connected layers)."""
    kinds = ("Conv2d", "Linear")
    return [[layer for layer in weighted(summary) if layer.kind.startswith(kind)] for kind in kinds]


def total(layers, column):
    return sum(getattr(layer, column) for layer in layers)


def parameters(name, **options):
    return sum(parameter.size for parameter in models.build(name, **options).parameters())


# AlexNet

def test_F2_parameters_of_alexnet_layer_by_layer():
    alexnet = layers_of("alexnet", 227)
    assert [layer.parameters for layer in weighted(alexnet)] == [
        34_944, 307_456, 885_120, 663_936, 442_624, 37_752_832, 16_781_312, 4_097_000]
    assert alexnet.total_params == 60_965_224
    grouped = [layer for layer in models.alexnet().features if isinstance(layer, nn.Conv2d)]
    assert [layer.groups for layer in grouped] == [1, 2, 1, 2, 2]


def test_F3_neurons_of_alexnet_layer_by_layer():
    alexnet = layers_of("alexnet", 227)
    assert [layer.neurons for layer in weighted(alexnet)] == [
        290_400, 186_624, 64_896, 64_896, 43_264, 4096, 4096, 1000]
    assert alexnet.total_neurons == 659_272
    assert weighted(alexnet)[0].output_shape == (1, 96, 55, 55)  # the slide's 253,440 would be another image's


def test_F4_convolutions_compute_and_fully_connected_layers_remember():
    alexnet = layers_of("alexnet", 227)
    convolutions, connected = split(alexnet)
    assert total(convolutions, "mult_adds") == pytest.approx(665.8e6, abs=0.05e6)
    assert alexnet.total_mult_adds == pytest.approx(724.4e6, abs=0.05e6)
    assert total(convolutions, "mult_adds") / alexnet.total_mult_adds == pytest.approx(0.919, abs=5e-4)
    assert total(connected, "mult_adds") == pytest.approx(58.6e6, abs=0.05e6)
    assert total(convolutions, "parameters") == 2_334_080
    assert total(convolutions, "parameters") / alexnet.total_params == pytest.approx(0.038, abs=5e-4)
    assert total(connected, "parameters") / alexnet.total_params == pytest.approx(0.962, abs=5e-4)


def test_F5_what_follows_each_layer_of_alexnet():
    kinds = [layer.kind.split()[0] for layer in layers_of("alexnet", 227).layers]
    words = [{"Conv2d": "|", "Linear": "|", "ReLU": "relu", "LocalResponseNorm": "norm", "MaxPool2d": "pool",
              "Dropout": "", "Flatten": "", "AdaptiveAvgPool2d": ""}[kind] for kind in kinds]
    follows = " ".join(words).split("|")[1:]
    assert [part.split() for part in follows] == [
        ["relu", "norm", "pool"], ["relu", "norm", "pool"], ["relu"], ["relu"], ["relu", "pool"], ["relu"], ["relu"],
        []]


# ZFNet

def test_F6_zfnet_is_alexnet_with_a_finer_start_and_more_filters():
    zfnet = layers_of("zfnet", 224)
    convolutions = [layer for layer in models.zfnet().features if isinstance(layer, nn.Conv2d)]
    assert [layer.kernel_size for layer in convolutions] == [7, 5, 3, 3, 3] and convolutions[0].stride == 2
    assert [layer.out_channels for layer in convolutions] == [96, 256, 512, 1024, 512]
    assert zfnet.total_params == 107_627_624
    assert parameters("zfnet", filters=(384, 384, 256)) == 62_357_608
    assert [layer.output_shape[1:] for layer in split(zfnet)[0]] == [
        (96, 110, 110), (256, 26, 26), (512, 13, 13), (1024, 13, 13), (512, 13, 13)]


# VGG

@pytest.mark.parametrize("depth, count", [
    (11, 132_863_336), (13, 133_047_848), (16, 138_357_544), (19, 143_667_240)])
def test_F7_vgg_is_nothing_but_3x3_and_depth(depth, count):
    model = models.build(f"vgg{depth}")
    assert sum(parameter.size for parameter in model.parameters()) == count
    layers = list(model.modules())
    convolutions = {repr(layer).split(", ", 2)[2] for layer in layers if isinstance(layer, nn.Conv2d)}
    assert convolutions == {"3, padding=1)"}  # and stride 1
    assert {repr(layer) for layer in layers if isinstance(layer, nn.MaxPool2d)} == {"MaxPool2d(2, stride=2)"}
    assert sum(isinstance(layer, (nn.Conv2d, nn.Linear)) for layer in layers) == depth


@pytest.mark.parametrize("count, side", [(1, 3), (2, 5), (3, 7)])
def test_F8_small_filters_in_a_row_see_as_much_as_a_large_one(count, side):
    stack = nn.Sequential(*(nn.Conv2d(4, 4, 3, padding=1, bias=False) for _ in range(count)))
    one = nn.Conv2d(4, 4, side, padding=side // 2, bias=False)
    seen = [dl.summary(model, (4, 15, 15)).layers[-1].receptive_field for model in (stack, one)]
    assert seen == [(side, side)] * 2
    image = dl.tensor(np.zeros((1, 4, 15, 15)), requires_grad=True)  # and so the gradient says
    stack.to("float64")(image)[0, 0, 7, 7].backward()
    rows, columns = np.nonzero(image.grad.data[0].any(axis=0))
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (side, side)


def test_F8_with_fewer_parameters():
    three, one = ([nn.Conv2d(64, 64, side, bias=False) for _ in range(count)] for side, count in ((3, 3), (7, 1)))
    counts = [sum(layer.weight.size for layer in layers) for layers in (three, one)]
    assert counts == [27 * 64**2, 49 * 64**2] and counts[0] / counts[1] == pytest.approx(0.55, abs=2e-3)


def test_F9_vgg_has_more_than_twice_the_parameters_of_alexnet():
    alexnet, vgg = layers_of("alexnet", 227, variant="torchvision"), layers_of("vgg16", 224)
    assert (alexnet.total_params, vgg.total_params) == (61_100_840, 138_357_544)
    assert vgg.total_params / alexnet.total_params == pytest.approx(2.26, abs=5e-3)


def test_F10_vgg_takes_27_times_the_memory_of_alexnet():
    alexnet, vgg = layers_of("alexnet", 227, variant="torchvision"), layers_of("vgg16", 224)
    assert alexnet.total_activation_bytes / MIB == pytest.approx(1.88, abs=5e-3)
    assert vgg.total_activation_bytes / MIB == pytest.approx(51.7, abs=0.05)
    assert vgg.total_activation_bytes / alexnet.total_activation_bytes == pytest.approx(27.5, abs=0.05)
    one_short = vgg.total_activation_bytes - 256 * 56 * 56 * 4
    assert one_short / MIB == pytest.approx(48.6, abs=0.05)  # the slide's


def test_F11_where_vgg_keeps_its_parameters_and_its_memory():
    vgg = layers_of("vgg16", 224)
    convolutions, connected = split(vgg)
    assert connected[0].parameters == 102_764_544 > vgg.total_params / 2
    assert total(convolutions[:2], "activation_bytes") / vgg.total_activation_bytes == pytest.approx(0.47, abs=5e-3)


# GoogLeNet

def test_F12_parameters_and_layers_of_googlenet():
    googlenet = layers_of("googlenet", 224)
    assert googlenet.total_params == 13_378_280
    assert parameters("googlenet", aux_logits=False) == 6_998_552
    main = [layer for layer in weighted(googlenet) if not layer.name.startswith("aux")]
    (classifier,) = [layer for layer in main if layer.kind == "Linear"]
    assert total(main, "parameters") - classifier.parameters == 5_973_552
    assert 60_965_224 / 6_998_552 == pytest.approx(8.7, abs=0.05)


def test_F12_each_row_of_the_table_in_models_googlenet():
    table = importlib.import_module("models.googlenet").__doc__
    rows = {part: total([layer for layer in layers_of("googlenet", 224).layers if layer.name.startswith(names)],
                        "parameters")
            for part, names in {"3a, 3b": "inception3", "4a, then": "inception4a",
                                "4b, 4c": ("inception4b", "inception4c", "inception4d"), "4e ": "inception4e",
                                "5a, 5b": "inception5", "1 × 1 and 3": ("conv2", "conv3"), "7 × 7, s": "conv1"}.items()}
    for part, count in rows.items():
        (line,) = [line for line in table.splitlines() if part in line]
        assert f" {count:,}" in line


def test_F12_googlenet_is_22_layers_deep():
    """Parallel layers count as one: the most layers with weights on a way from the image to the logits."""
    model, depths = models.googlenet(), {}

    def deeper(module, inputs, output):
        own = isinstance(module, (nn.Conv2d, nn.Linear))
        depths[id(output)] = max(depths.get(id(output), 0), depths.get(id(inputs[0]), 0) + own)
        kept.append(output)

    def join(operation, arguments, result):
        tensors = [x for value in arguments.values() for x in (value if isinstance(value, tuple) else (value,))]
        depths[id(result)] = max(depths.get(id(x), 0) for x in tensors)
        kept.append(result)

    kept = []  # an id belongs to a tensor for as long as it lives
    for module in model.modules():
        module.register_forward_hook(deeper)
    with dl.no_grad(), dl.autograd.observe_operations(join):
        logits = model.eval()(dl.tensor(np.zeros((1, 3, 64, 64), np.float32)))
    assert depths[id(logits)] == 22


def test_F13_bottlenecks_make_an_inception_module_cheap():
    """The module of the slide on 28 × 28 × 256: 128 filters 1 × 1, 192 of 3 × 3, 96 of 5 × 5, and the pool."""

    class Naive(nn.Module):
        def __init__(self):
            self.one, self.three, self.five = nn.Conv2d(256, 128, 1), nn.Conv2d(256, 192, 3, padding=1), \
                nn.Conv2d(256, 96, 5, padding=2)
            self.pool = nn.MaxPool2d(3, 1, padding=1)

        def forward(self, x):
            return F.cat([self.one(x), self.three(x), self.five(x), self.pool(x)], dim=1)

    from models.googlenet import Inception

    naive = dl.summary(Naive(), (256, 28, 28))
    reduced = dl.summary(Inception(256, 128, (64, 192), (64, 96), 64, batch_norm=False), (256, 28, 28))
    positions = 28 * 28
    assert naive.total_mult_adds == positions * 256 * (128 + 9 * 192 + 25 * 96)
    assert reduced.total_mult_adds == positions * (256 * (128 + 64 + 64 + 64) + 9 * 64 * 192 + 25 * 64 * 96)
    assert naive.total_mult_adds == pytest.approx(854e6, abs=0.5e6)
    assert reduced.total_mult_adds == pytest.approx(271e6, abs=0.5e6)


def test_F14_auxiliary_heads_inject_gradient_at_lower_layers():
    rng = np.random.default_rng(0)
    images, labels = dl.tensor(rng.standard_normal((4, 3, 96, 96), np.float32)), dl.tensor(np.arange(4))

    def stem_gradient(aux_weight):
        dl.manual_seed(0)
        model = models.googlenet(num_classes=10, aux_weight=aux_weight)
        model.criterion(model(images), labels).backward()
        return float(np.linalg.norm(model.conv1.conv.weight.grad.data)), model

    without, silent = stem_gradient(0.0)
    with_heads, model = stem_gradient(0.3)
    assert with_heads > 1.2 * without
    for path in ("inception5b.branch1.conv.weight", "fc.weight"):  # above both heads nothing changes
        ours, theirs = (dict(net.named_parameters())[path].grad.data for net in (model, silent))
        np.testing.assert_array_equal(ours, theirs)


# ResNet

@pytest.mark.parametrize("name, count, side", [
    ("resnet18", 11_689_512, 224), ("resnet34", 21_797_672, 224), ("resnet50", 25_557_032, 224),
    ("resnet101", 44_549_160, 224), ("resnet152", 60_192_808, 224), ("resnet20", 269_722, 32),
    ("resnet32", 464_154, 32), ("resnet44", 658_586, 32), ("resnet56", 853_018, 32), ("resnet110", 1_727_962, 32)])
def test_F16_parameters_depth_and_shape_of_resnets(name, count, side):
    model = models.build(name)
    assert sum(parameter.size for parameter in model.parameters()) == count
    layers = [(path, module) for path, module in model.named_modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    on_the_way = [module for path, module in layers if "downsample" not in path]  # projections lie beside it
    assert len(on_the_way) == int(name.removeprefix("resnet"))
    assert sum(isinstance(module, nn.Linear) for module in on_the_way) == 1
    assert sum(isinstance(module, nn.AdaptiveAvgPool2d) for module in model.modules()) == 1
    blocks = [module for path, module in model.named_modules() if path.startswith("layer") and path.count(".") == 1]
    kernels = [[conv.kernel_size for conv in block.children() if isinstance(conv, nn.Conv2d)] for block in blocks]
    assert {*map(tuple, kernels)} == {(1, 3, 1) if len(on_the_way) >= 50 and side == 224 else (3, 3)}
    stages = [block.conv1.out_channels for block in blocks]
    halved = [block.conv1.stride for block in blocks]
    for before, after, stride in zip(stages, stages[1:], halved[1:]):
        doubles = after != before  # twice the filters, half the map
        assert (after, stride) == ((2 * before, 2) if doubles else (before, 1))


# Measuring

def test_F17_top_1_and_top_5_error():
    from minidl.training import Predictions, score

    rng = np.random.default_rng(0)
    rows, labels = rng.standard_normal((50, 12)).astype(np.float32), rng.integers(12, size=50)
    ranks = [list(np.argsort(-row)).index(label) for row, label in zip(rows, labels)]
    result = score(Predictions(rows, labels))
    assert result.accuracy == np.mean([rank == 0 for rank in ranks])
    assert result.top5_accuracy == np.mean([rank < 5 for rank in ranks])


def test_F17_classes_are_nodes_of_wordnet():
    names = dl.data.imagenet_classes()
    assert len(names) == 1000 and all(key[0] == "n" and key[1:].isdigit() and len(key) == 9 for key in names)


def test_F18_an_ensemble_averages_the_softmax():
    from minidl.training import Predictions, ensemble

    rng = np.random.default_rng(0)
    logits, labels = rng.standard_normal((3, 20, 7)), rng.integers(7, size=20)
    softmax = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    averaged = ensemble([Predictions(np.log(one), labels) for one in softmax])
    np.testing.assert_allclose(np.exp(averaged.log_probabilities), softmax.mean(axis=0), rtol=1e-12)
    # It is right where most of them are surer than the rest are wrong, which no vote and no mean of logits gives.
    sure, unsure = [[0.98, 0.02]], [[0.3, 0.7]]
    three = ensemble([Predictions(np.log(np.array(p)), np.array([0])) for p in (sure, unsure, unsure)])
    np.testing.assert_allclose(np.exp(three.log_probabilities), [[1.58 / 3, 1.42 / 3]])
