"""The summary counts what really runs: groups, branches, heads, shared layers; and it leaves the model as it was."""

import csv
import html.parser
import tracemalloc

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import assume, given, settings

import minidl as dl
import models
from minidl import functional as F
from minidl import nn
from minidl.backend import generator
from minidl.kernels.cpu import threads


def only_layer(model, *input_size, **options):
    (layer,) = dl.summary(model, input_size, measure_peak=False, **options).layers
    return layer


# One layer

@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(0, 2),
       st.integers(1, 2))
def test_a_convolution_costs_what_its_loops_would_count(groups, c, k, kh, kw, padding, stride):
    layer = only_layer(nn.Conv2d(groups * c, groups * k, (kh, kw), stride, padding, groups=groups), groups * c, 7, 6)
    _, channels, height, width = layer.output_shape
    assert (channels, height) == (groups * k, (7 + 2 * padding - kh) // stride + 1)
    counted = sum(1 for _ in range(channels) for _ in range(height * width) for _ in range(c) for _ in range(kh * kw))
    assert layer.mult_adds == counted
    assert layer.parameters == groups * k * c * kh * kw + groups * k
    assert layer.neurons == channels * height * width and layer.activation_bytes == 4 * layer.neurons
    assert layer.receptive_field == (kh, kw)


def test_a_linear_layer_multiplies_each_weight_once_an_image():
    layer = only_layer(nn.Linear(12, 5), 12, batch_size=3)
    assert layer == ("", "Linear", (3, 5), 5, 65, 3 * 60, 0, (1, 1))


def test_a_transposed_convolution_costs_what_its_adjoint_does():
    layer = only_layer(nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2), 4, 5, 5)
    assert layer.output_shape == (1, 6, 11, 11) and layer.mult_adds == 4 * 25 * 3 * 9
    assert layer.receptive_field == (2, 2)  # an output sums at most two of the inputs each way


@pytest.mark.parametrize("layer", [
    nn.MaxPool2d(2), nn.ReLU(), nn.BatchNorm2d(3), nn.Dropout(), nn.LocalResponseNorm(3)])
def test_what_multiplies_no_weights_costs_nothing(layer):
    row = only_layer(layer, 3, 4, 4)
    assert (row.neurons, row.mult_adds, row.activation_bytes) == (0, 0, 0)


def test_the_batch_counts_where_it_should():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 3))
    one, four = (dl.summary(model, (1, 8, 8), batch) for batch in (1, 4))
    assert four.total_mult_adds == 4 * one.total_mult_adds
    assert four.total_activation_bytes == 4 * one.total_activation_bytes
    assert (four.total_neurons, four.total_params) == (one.total_neurons, one.total_params)
    assert four.layers[0].output_shape[0] == 4 and "4 images of 1×8×8" in str(four)


# Whole networks

class Branches(nn.Module):
    """A layer used twice, a branch, a function with weights of its own, and a layer that does not run."""

    def __init__(self):
        self.shared = nn.Conv2d(2, 2, 3, padding=1)
        self.wide = nn.Conv2d(2, 2, 5, padding=2)
        self.scale = nn.Parameter(dl.tensor(np.ones((3, 2), np.float32)))
        self.unused = nn.Linear(3, 1)

    def forward(self, x):
        x = self.shared(self.shared(x))
        x = x + self.wide(x)
        return x.mean(axis=(2, 3)) @ self.scale.T


def test_what_is_used_twice_is_computed_twice_and_owned_once():
    seen = dl.summary(Branches(), (2, 9, 9), measure_peak=False)
    rows = {(layer.name, layer.parameters, layer.mult_adds) for layer in seen.layers}
    positions = 81
    assert rows == {("shared", 38, positions * 36), ("shared", 0, positions * 36), ("wide", 102, positions * 100),
                    ("", 6, 6)}
    assert seen.total_params == 38 + 102 + 6 + 4 and seen.idle == ("unused",)
    assert "not run: unused, with 4 of the parameters" in str(seen)


def test_a_sum_sees_what_its_widest_branch_sees():
    class Residual(nn.Module):
        def __init__(self):
            self.narrow, self.wide = nn.Conv2d(1, 1, 3, padding=1), nn.Conv2d(1, 1, 7, padding=3)
            self.after = nn.Conv2d(1, 1, 3, padding=1)

        def forward(self, x):
            return self.after(F.cat([self.narrow(x) + self.wide(x), x], dim=1)[:, :1])

    assert dl.summary(Residual(), (1, 9, 9)).layers[-1].receptive_field == (9, 9)


windows = st.tuples(st.sampled_from(["conv", "max", "avg"]), st.integers(1, 3), st.integers(1, 3), st.integers(1, 2),
                    st.integers(1, 2))


@settings(max_examples=60)
@given(st.lists(windows, min_size=1, max_size=4))
def test_the_receptive_field_is_where_the_gradient_arrives(stack):
    made = {"conv": lambda kh, kw, s, d: nn.Conv2d(1, 1, (kh, kw), s, dilation=d, bias=False),
            "max": lambda kh, kw, s, d: nn.MaxPool2d((kh, kw), s, dilation=d),
            "avg": lambda kh, kw, s, d: nn.AvgPool2d((kh, kw), s)}
    model = nn.Sequential(*(made[kind](*numbers) for kind, *numbers in stack)).to("float64")
    for layer in model:
        if isinstance(layer, nn.Conv2d):
            layer.weight.data[...] = 1
    image = np.random.default_rng(0).standard_normal((1, 1, 75, 75))
    x = dl.tensor(image, requires_grad=True)
    with_maximum = any(kind == "max" for kind, *_ in stack)
    y = nn.Sequential(*(nn.AvgPool2d(layer.kernel_size, layer.stride) if isinstance(layer, nn.MaxPool2d)
                        and layer.dilation == 1 else layer for layer in model))(x)
    assume(min(y.shape[2:]) > 0 and not (with_maximum and any(d > 1 for k, *_, d in stack if k == "max")))
    y[0, 0, 0, 0].backward()
    rows, columns = np.nonzero(x.grad.data[0, 0])
    seen = dl.summary(model, (1, 75, 75), measure_peak=False).layers[-1].receptive_field
    assert seen == (rows.max() - rows.min() + 1, columns.max() - columns.min() + 1)


def test_averaging_or_flattening_sees_everything():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3))
    assert [layer.receptive_field for layer in dl.summary(model, (1, 8, 6)).layers] == [(3, 3)] + [(8, 6)] * 3


@pytest.mark.usefixtures("blank_weights")
@pytest.mark.parametrize("training", [True, False])
def test_auxiliary_heads_count_while_training_and_are_named_while_not(training):
    seen = dl.summary(models.googlenet().train(training), (3, 96, 96), measure_peak=False)
    convolutions = [layer for layer in seen.layers if layer.kind.startswith(("Conv2d", "Linear"))]
    assert len(convolutions) == (64 if training else 58)
    assert seen.idle == (() if training else ("aux1", "aux2")) and seen.total_params == 13_378_280
    assert sum(layer.parameters for layer in seen.layers) == (13_378_280 if training else 6_998_552)


# Published operation counts at 224 × 224, counted by others

@pytest.mark.usefixtures("blank_weights")
@pytest.mark.parametrize("name, options, millions", [
    ("alexnet", {"variant": "torchvision"}, 714), ("vgg11", {}, 7609), ("vgg16", {}, 15_470), ("zfnet", {}, 2479),
    ("zfnet", {"filters": (384, 384, 256)}, 1170), ("resnet18", {}, 1814), ("resnet34", {}, 3664),
    ("resnet50", {"variant": "torchvision"}, 4089), ("googlenet", {"variant": "torchvision"}, 1498)])
def test_multiply_adds_are_the_published_ones(name, options, millions):
    seen = dl.summary(models.build(name, **options).eval(), (3, 224, 224), measure_peak=False)
    assert seen.total_mult_adds / 1e6 == pytest.approx(millions, rel=2e-3)


# The model stays as it was

def test_nothing_in_the_model_moves():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten(), nn.Linear(16, 3))
    model[2].eval()
    before = {name: value.data.copy() for name, value in model.state_dict().items()}
    modes, random = [module.training for module in model.modules()], generator().bit_generator.state
    dl.summary(model, (1, 4, 4), 5)
    assert all((value.data == before[name]).all() for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert all(parameter.grad is None for parameter in model.parameters())
    assert generator().bit_generator.state == random
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_model_that_fails_is_left_as_it_was_and_its_error_is_its_own():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Linear(16, 3))
    with pytest.raises(ValueError, match="linear: input"):
        dl.summary(model, (1, 4, 4))
    assert all(module.training for module in model.modules()) and not model._forward_hooks


def test_what_did_not_run_is_named_as_far_down_as_needed():
    class Partly(nn.Module):
        def __init__(self):
            self.a = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 3))
            self.b = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
            self.scale = nn.Parameter(dl.tensor([1.0]))

        def forward(self, x):
            return self.a[0](x)

    assert dl.summary(Partly(), (2,)).idle == ("a.1", "b")  # the scale is the whole's own


def test_a_slice_with_steps_sees_further_afterwards():
    class Sliced(nn.Module):
        def __init__(self):
            self.first, self.second = nn.Conv2d(1, 1, 3), nn.Conv2d(1, 1, 3)

        def forward(self, x):
            return self.second(self.first(x)[:, :, ::2, ::3])

    assert dl.summary(Sliced(), (1, 20, 20)).layers[-1].receptive_field == (3 + 2 * 2, 3 + 2 * 3)


@pytest.mark.parametrize("size", [32, (1, 3, 32, 32), ()])
def test_a_size_that_is_no_images_is_refused(size):
    with pytest.raises(ValueError, match=r"input_size is \(C, H, W\) of one image, without the batch; got"):
        dl.summary(models.resnet20(), size)


def test_hooks_of_ones_own_run_once():
    model, seen = nn.Sequential(nn.Linear(2, 2)), []
    model[0].register_forward_hook(lambda *_: seen.append(1))
    dl.summary(model, (2,))
    assert seen == [1]


def test_no_images_are_refused():
    with pytest.raises(ValueError, match="batch_size must be at least 1; got 0"):
        dl.summary(nn.ReLU(), (3,), 0)


def test_arrays_of_another_dtype_are_counted_as_such():
    assert only_layer(nn.Conv2d(1, 1, 1).to("float64"), 1, 2, 2).activation_bytes == 4 * 8


# The peak of a training step

def test_the_peak_is_what_a_training_step_takes(monkeypatch):
    monkeypatch.setattr(threads, "_num_threads", 1)  # one that wakes up late, on a loaded machine, still holds arrays
    model = nn.Sequential(nn.Linear(1000, 1000), nn.ReLU(), nn.Linear(1000, 10))
    weights = 4 * 1_011_010
    peak = dl.summary(model, (1000,)).training_peak_bytes
    assert 3 * weights <= peak < 3.3 * weights  # weights, gradients and momentum; activations are small
    larger = dl.summary(model, (1000,), 2000).training_peak_bytes
    activations = 2000 * 1000 * 4
    assert peak + 2 * activations < larger < peak + 6 * activations


def test_the_peak_is_measured_beside_a_measurement_of_the_callers():
    tracemalloc.start()
    try:
        peak = dl.summary(nn.Linear(100, 100), (100,)).training_peak_bytes
        assert tracemalloc.is_tracing() and 3 * 40_400 <= peak < 250_000
    finally:
        tracemalloc.stop()


def test_no_peak_where_the_batch_cannot_be_trained_on():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    assert dl.summary(model, (4,)).training_peak_bytes is None
    assert "training step" not in str(dl.summary(model, (4,)))
    assert dl.summary(model, (4,), 2).training_peak_bytes > 0


def test_no_peak_where_nothing_can_learn_and_everything_is_counted():
    frozen, plain = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten()).requires_grad_(False), nn.Conv2d(1, 1, 1)
    seen = dl.summary(frozen, (1, 4, 4))
    assert (seen.total_params, seen.total_mult_adds, seen.training_peak_bytes) == (20, 2 * 4 * 9, None)
    with dl.no_grad():
        seen = dl.summary(plain, (1, 4, 4))
        assert not dl.is_grad_enabled()
    assert (seen.total_params, seen.total_mult_adds, seen.training_peak_bytes) == (2, 16, None)
    frozen[0].bias.requires_grad_()
    assert dl.summary(frozen, (1, 4, 4)).training_peak_bytes > 0
    assert not tracemalloc.is_tracing()


OUTPUTS = {
    "tensor": lambda y: y, "list": lambda y: [y, y], "dict": lambda y: {"out": y, "other": None},
    "tuples of tuples": lambda y: ((None, (y, y)), y), "scores without classes": lambda y: y[:, 0],
    "a loss": lambda y: y.mean(), "a list of losses": lambda y: [y.mean(), y],
    "None": lambda y: None, "a number": lambda y: 3.0, "nothing": lambda y: [],
}
SHAPES = dict.fromkeys(OUTPUTS, (2, 3)) | {
    "scores without classes": (2,), "a loss": (), "a list of losses": (), "None": (), "a number": (), "nothing": ()}


class Answers(nn.Module):
    """A model that answers with what `wrap` makes of the output of its one layer."""

    def __init__(self, wrap):
        self.layer, self.scale, self.wrap = nn.Linear(4, 3), nn.Parameter(np.ones(1, np.float32)), wrap

    def forward(self, x):
        return self.wrap(self.layer(x) * self.scale)


@pytest.mark.parametrize("what", OUTPUTS)
def test_a_model_may_answer_with_anything(what):
    seen = dl.summary(Answers(OUTPUTS[what]), (4,), batch_size=2)
    assert (seen.total_params, seen.total_mult_adds, seen.total_neurons) == (16, 2 * 12, 3)
    assert {layer.name: layer.output_shape for layer in seen.layers} == {"": SHAPES[what], "layer": (2, 3)}
    assert (seen.training_peak_bytes is None) == (what in ("None", "a number", "nothing"))
    assert "layer" in str(seen) and "layer" in seen._repr_html_()


def test_a_models_own_criterion_gets_its_whole_output():
    class Own(Answers):
        def criterion(self, output, labels):
            assert labels.shape == (2,)
            return F.cross_entropy(output["out"], labels)

    assert dl.summary(Own(lambda y: {"out": y}), (4,), batch_size=2).training_peak_bytes > 0


def test_a_model_without_parameters_is_counted():
    seen = dl.summary(nn.Sequential(nn.MaxPool2d(2), nn.Flatten()), (1, 4, 4))
    assert (seen.total_params, seen.training_peak_bytes, seen.layers[-1].output_shape) == (0, None, (1, 4))


def test_an_error_that_the_model_catches_does_not_confuse_the_rows():
    class Tries(nn.Module):
        def __init__(self):
            self.wrong, self.right = nn.Sequential(nn.Linear(5, 1)), nn.Linear(4, 3)

        def forward(self, x):
            try:
                return self.wrong(x)
            except ValueError:
                return self.right(x)

    seen = dl.summary(Tries(), (4,))
    assert [(layer.name, layer.mult_adds) for layer in seen.layers if layer.mult_adds] == [("right", 12)]


@pytest.mark.parametrize("where", ["forward", "training", "deepcopy"])
def test_whatever_a_model_raises_it_and_python_are_left_as_they_were(where):
    class Fails(nn.Module):
        def __init__(self):
            self.layer = nn.Linear(2, 2)
            self.register_buffer("count", dl.tensor(0))

        def forward(self, x):
            self.count = self.count + 1
            generator().standard_normal(3)
            if where == "forward" or (where == "training" and self.layer.training):
                raise KeyboardInterrupt if where == "forward" else KeyError
            return self.layer(x)

        def __deepcopy__(self, memo):
            if where == "deepcopy":
                raise TypeError
            twin = Fails()
            memo[id(self)] = twin
            return twin

    model = Fails()
    count, random = model.count, generator().bit_generator.state
    if where == "forward":
        with pytest.raises(KeyboardInterrupt):
            dl.summary(model, (2,))
    else:
        assert dl.summary(model, (2,)).training_peak_bytes is None
    assert model.count is count and count.item() == 0 and model.training and model.layer.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert generator().bit_generator.state == random and not tracemalloc.is_tracing() and dl.is_grad_enabled()


# How it looks

LECTURE = """
    96×55×55 290,400 34,944
    256×27×27 186,624 307,456
    384×13×13 64,896 885,120
    384×13×13 64,896 663,936
    256×13×13 43,264 442,624
    4096 4,096 37,752,832
    4096 4,096 16,781,312
    1000 1,000 4,097,000
"""


@pytest.mark.usefixtures("blank_weights")
def test_alexnets_table_is_the_lectures_and_fits_a_terminal():
    lines = str(dl.summary(models.alexnet(), (3, 227, 227))).splitlines()
    assert max(map(len, lines)) <= 100
    rows = [line.split() for line in lines if "Conv2d" in line or "Linear" in line]
    for row, expected in zip(rows, LECTURE.strip().splitlines(), strict=True):
        assert " ".join(expected.split()) in " ".join(row)
    (last,) = [line.split() for line in lines if line.startswith("total")]
    assert last[1:3] == ["659,272", "60,965,224"]


def test_columns_stand_below_each_other():
    lines = str(dl.summary(models.lenet5(), (1, 32, 32))).splitlines()
    assert lines[0] == "LeNet5 on 1 image of 1×32×32" and set(lines[1]) == {"─"}
    end = lines[2].index("parameters") + len("parameters")
    assert all(line[end - 1 : end + 1].strip() in ("", line[end - 1]) and line[end : end + 2] in ("", "  ")
               for line in lines[4:-2] if "─" not in line)


def test_a_notebook_shows_a_table():
    class Cells(html.parser.HTMLParser):
        rows, tags = [], []

        def handle_starttag(self, tag, attributes):
            self.tags.append(tag)
            if tag == "tr":
                self.rows.append([])

        def handle_endtag(self, tag):
            assert self.tags.pop() == tag

        def handle_data(self, data):
            if self.rows and self.tags[-1] in ("td", "th"):
                self.rows[-1].append(data)

    seen, cells = dl.summary(models.lenet5(), (1, 32, 32)), Cells()
    cells.feed(seen._repr_html_())
    assert not cells.tags and len(cells.rows) == len(seen.layers) + 2
    assert cells.rows[0][:3] == ["layer", "kind", "output"] and cells.rows[1][0] == "features.0"
    assert "61,706" in cells.rows[-1]


def test_csv_holds_the_plain_numbers(tmp_path):
    seen = dl.summary(models.lenet5(), (1, 32, 32))
    seen.to_csv(tmp_path / "lenet.csv")
    with open(tmp_path / "lenet.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["parameters"]) for row in rows] == [layer.parameters for layer in seen.layers]
    assert (rows[0]["output_shape"], rows[0]["receptive_field"]) == ("1×6×28×28", "5×5")
    assert sum(int(row["mult_adds"]) for row in rows) == seen.total_mult_adds
