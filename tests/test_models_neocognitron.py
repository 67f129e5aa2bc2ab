"""The neocognitron: its equations beside loops, what a seed cell learns, five digits without labels, and real ones."""

import math

import numpy as np
import pytest

import minidl as dl
import models
from minidl.cli.assembly import trainer_of
from minidl.data import open_dataset
from minidl.training import Configuration
from models.neocognitron import CLayer, SLayer, stylised_digits

RNG = np.random.default_rng(0)


def falling(size, falloff=0.9):
    """`falloff` to the power of the distance from the middle, entry by entry."""
    middle = (size - 1) / 2
    return np.array([[falloff ** math.dist((i, j), (middle, middle)) for j in range(size)] for i in range(size)])


def windows(u, size, padding):
    """Each place of images (N, K, H, W) with its window (N, K, size, size)."""
    u = np.pad(u, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    for i in range(u.shape[2] - size + 1):
        for j in range(u.shape[3] - size + 1):
            yield (i, j), u[:, :, i : i + size, j : j + size]


def learned(in_planes, planes, size, **options):
    """A layer of S-cells that have learned something, in float64."""
    layer = SLayer(in_planes, planes, size, **options).to("float64")
    layer.a.data[...] = RNG.random(layer.a.shape)
    layer.b.data[...] = RNG.random(planes)
    return layer


@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize("in_planes, size", [(1, 3), (3, 5), (2, 4)])
def test_simple_cells_follow_equations_1_to_3(in_planes, size, padding):
    r, u = 1.7, RNG.random((2, in_planes, 6, 7))
    layer = learned(in_planes, 4, size, selectivity=r, reinforcement=1, padding=padding)
    c = falling(size) / falling(size).sum() / in_planes
    answers = layer(dl.tensor(u)).data
    assert np.count_nonzero(answers)
    for (i, j), window in windows(u, size, padding):
        for n in range(len(u)):
            v = math.sqrt(sum(c[p, q] * window[n, kappa, p, q] ** 2
                              for kappa in range(in_planes) for p in range(size) for q in range(size)))
            for k in range(4):
                excitation = (layer.a.data[k] * window[n]).sum()
                inhibition = 2 * r / (1 + r) * layer.b.data[k] * v
                expected = r * max((1 + excitation) / (1 + inhibition) - 1, 0)
                assert answers[n, k, i, j] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("size, padding", [(3, 0), (5, 2), (4, 1)])
def test_complex_cells_follow_equations_4_to_6(size, padding):
    layer, u = CLayer(3, size, padding, alpha=0.7, total=2.5).to("float64"), RNG.random((2, 3, 6, 7)) ** 4
    d = 2.5 * falling(size) / falling(size).sum()
    answers = layer(dl.tensor(u)).data
    assert 0 < np.count_nonzero(answers) < answers.size and answers.max() < 1
    for (i, j), window in windows(u, size, padding):
        for n in range(len(u)):
            sums = [(d * window[n, k]).sum() for k in range(3)]
            for k in range(3):
                x = (1 + sums[k]) / (1 + sum(sums) / 3) - 1
                assert answers[n, k, i, j] == pytest.approx(max(x, 0) / (0.7 + max(x, 0)), abs=1e-6)


@pytest.mark.parametrize("column", [1, 3, 5, 99])
def test_of_each_column_the_best_is_a_candidate_and_of_each_plane_one_is_the_seed(column):
    layer = learned(2, 5, 3, selectivity=1.5, reinforcement=16, padding=1)
    u = RNG.random((1, 2, 7, 6))
    before = layer.a.data.copy(), layer.b.data.copy()
    answers = layer(dl.tensor(u)).data[0]
    candidates = set()
    for i in range(7):
        for j in range(6):
            near = [(k, p, q) for k in range(5) for p in range(7) for q in range(6)
                    if max(abs(p - i), abs(q - j)) <= column // 2]
            best = max(near, key=lambda cell: answers[cell])
            if answers[best] > 0:
                candidates.add(best)
    seeds = {k: max((c for c in candidates if c[0] == k), key=lambda cell: answers[cell]) for k, *_ in candidates}
    count = layer.reinforce(dl.tensor(u), column)
    assert count == len(seeds) and 1 <= count <= 5
    c = falling(3) / falling(3).sum() / 2
    seen = dict(windows(u, 3, 1))
    for k in range(5):
        if k not in seeds:
            assert (layer.a.data[k] == before[0][k]).all() and layer.b.data[k] == before[1][k]
            continue
        window = seen[seeds[k][1:]][0]
        np.testing.assert_allclose(layer.a.data[k] - before[0][k], 16 * c * window, rtol=1e-5)
        assert layer.b.data[k] - before[1][k] == pytest.approx(8 * math.sqrt((c * window**2).sum()), rel=1e-5)


def test_at_most_one_cell_of_a_column_learns_where_none_has_learned_yet(monkeypatch):
    """Their answers are so small that a 1 added to them would make many the same."""
    dl.manual_seed(0)
    net, seeds, reinforce = models.neocognitron(), [], SLayer.reinforce

    def counted(layer, u, column):
        seeds.append(reinforce(layer, u, column))
        return seeds[-1]

    monkeypatch.setattr(SLayer, "reinforce", counted)
    net.self_organise(stylised_digits(), presentations=3)
    assert seeds[-15:] == 15 * [1]  # in S3 all places are one column
    assert np.count_nonzero(net.s3.b.data) == 5


def test_nothing_is_learned_from_a_blank_image():
    layer = SLayer(1, 3, 3, selectivity=4, reinforcement=1)
    before = layer.a.data.copy()
    assert layer.reinforce(dl.tensor(np.zeros((1, 1, 6, 6), np.float32)), 3) == 0
    assert (layer.a.data == before).all() and not layer.b.data.any()


@pytest.mark.parametrize("r", [0.5, 1.5, 4.0, 20.0])
def test_a_cell_fires_where_the_cosine_exceeds_r_by_1_plus_r(r):
    """The docstring's reading of equation (1), for a cell that has learned one pattern often."""
    layer = SLayer(1, 1, 5, selectivity=r, reinforcement=1e7).to("float64")
    pattern = RNG.random((1, 1, 5, 5))
    layer.reinforce(dl.tensor(pattern), 99)
    c = falling(5) / falling(5).sum()
    for mixture in np.linspace(0, 1, 21):
        other = (1 - mixture) * pattern + mixture * RNG.permutation(pattern.ravel()).reshape(pattern.shape) ** 3
        cosine = (c * pattern * other).sum() / math.sqrt((c * pattern**2).sum() * (c * other**2).sum())
        if abs(cosine - r / (1 + r)) > 1e-3:
            assert (layer(dl.tensor(other)).item() > 0) == (cosine > r / (1 + r))


def test_features_are_the_same_for_any_contrast_and_pass_no_gradient():
    dl.manual_seed(0)
    net = models.neocognitron(planes=(3, 4, 5), input_size=14, places=5)
    images = dl.tensor(RNG.random((3, 1, 14, 14)).astype(np.float32), requires_grad=True)
    net.self_organise(images)
    features = net.features(images)
    assert features.shape == (3, 5) and features.data.any() and not features.requires_grad
    np.testing.assert_allclose(net.features(-0.8 + 2.5 * images).data, features.data, rtol=1e-3, atol=1e-5)
    assert np.isfinite(net.features(dl.tensor(np.ones((2, 1, 14, 14), np.float32))).data).all()
    assert net.features(images[:0]).shape == (0, 5)
    net(images).sum().backward()
    assert {name for name, p in net.named_parameters() if p.grad is not None} == {"linear.weight", "linear.bias"}
    assert images.grad is None


def test_what_it_learned_is_in_its_state():
    dl.manual_seed(0)
    net = models.neocognitron(planes=(3, 4, 5), input_size=14, places=5)
    images = dl.tensor(RNG.random((3, 1, 14, 14)).astype(np.float32))
    net.self_organise(images)
    dl.manual_seed(1)
    other = models.neocognitron(planes=(3, 4, 5), input_size=14, places=5)
    other.load_state_dict(net.state_dict())
    assert (other.features(images).data == net.features(images).data).all()


def test_the_readout_sees_answers_of_mean_0_and_deviation_1():
    dl.manual_seed(0)
    net = models.neocognitron(planes=(3, 4, 5), input_size=14, places=5)
    images = dl.tensor(RNG.random((6, 1, 14, 14)).astype(np.float32))
    net.self_organise(images)
    answers = net.features(images).data
    spread = np.maximum(answers.std(axis=0), 1e-3)
    expected = (answers - answers.mean(axis=0)) / spread @ net.linear.weight.data.T + net.linear.bias.data
    np.testing.assert_allclose(net(images).data, expected, rtol=1e-4, atol=1e-5)


# Five digits, no labels

@pytest.fixture(scope="module")
def organised():
    dl.manual_seed(0)
    net = models.neocognitron()
    net.self_organise(stylised_digits(), presentations=20)
    return net


def tops(net, images):
    """The cell of C3 that answers most to each image; −1 where none does."""
    answers = net.features(images).data
    return np.where(answers.max(axis=1) > 0, answers.argmax(axis=1), -1)


def scaled(images, factor):
    """Enlarged about the middle, by linear interpolation."""
    size = images.shape[-1]
    places = (np.arange(size) - (size - 1) / 2) / factor + (size - 1) / 2
    near = np.clip(1 - np.abs(places[:, None] - np.arange(size)), 0, None)  # (new, old)
    return dl.tensor((near @ images.data @ near.T).astype(np.float32))


def test_F19_each_of_five_digits_has_a_top_cell_of_its_own(organised):
    answers = organised.features(stylised_digits()).data
    own = answers.argmax(axis=1)
    assert len(set(own.tolist())) == 5
    second = np.sort(answers, axis=1)[:, -2]
    assert (answers.max(axis=1) > 1.5 * second).all()


@pytest.mark.parametrize("shift, rate", [(1, 1.0), (2, 1.0), (3, 0.98)])
def test_F19_the_cell_keeps_answering_when_the_digit_moves(organised, shift, rate):
    digits = stylised_digits()
    own, found = tops(organised, digits), []
    for down in range(-shift, shift + 1):
        for right in range(-shift, shift + 1):
            if max(abs(down), abs(right)) == shift:
                found.append(tops(organised, dl.tensor(np.roll(digits.data, (down, right), (2, 3)))) == own)
    assert np.mean(found) >= rate


def test_F19_the_cell_keeps_answering_when_the_digit_grows_shrinks_or_is_noisy(organised):
    digits = stylised_digits()
    own, rng = tops(organised, digits), np.random.default_rng(0)
    assert np.mean([tops(organised, scaled(digits, factor)) == own for factor in (0.9, 1.1)]) >= 0.9
    flipped, grey = [], []
    for _ in range(5):
        images = digits.data.copy()
        for image in images.reshape(5, -1):
            places = rng.choice(image.size, 3, replace=False)
            image[places] = 1 - image[places]
        flipped.append(tops(organised, dl.tensor(images)) == own)
        noise = 0.1 * rng.standard_normal(images.shape).astype(np.float32)
        grey.append(tops(organised, dl.tensor(np.clip(digits.data + noise, 0, 1))) == own)
    assert np.mean(flipped) >= 0.9 and np.mean(grey) >= 0.9


def test_stylised_digits_are_in_the_middle_of_any_size():
    small, large = stylised_digits(9).data, stylised_digits(16).data
    assert small.shape == (5, 1, 9, 9) and set(np.unique(large)) == {0, 1}
    assert (large[:, :, 3:12, 3:12] == small).all() and large.sum() == small.sum()
    with pytest.raises(ValueError, match="the digits are 9 × 7 pixels; got size=8"):
        stylised_digits(8)


# Real digits, and the command line

def configuration(**changes):
    preset = models.preset("neocognitron")
    return Configuration(**{
        "model": "neocognitron", "data": "digits", "input_size": 28, "epochs": preset.epochs, "seed": 0, "shift": 0,
        "batch_size": preset.batch_size, "lr": preset.lr, "momentum": preset.momentum, "weight_decay": 0.0,
        "schedule": preset.schedule, **changes,
    })


@pytest.mark.slow
def test_F19_real_digits_are_read_by_a_linear_readout():
    trainer = trainer_of(configuration(), workers=0)
    for _ in trainer.epochs_to_go(quiet=True):
        pass
    assert trainer.history[-1]["test_accuracy"] >= 0.92


def test_a_run_begins_with_a_network_that_has_organised_itself():
    small = {"planes": [3, 4, 5], "input_size": 14, "places": 5}
    model = trainer_of(configuration(model_options=small, input_size=14, images=30), workers=0).model
    dl.manual_seed(0)
    same = models.neocognitron(**small)
    data = open_dataset("digits", True, 14)
    images, _ = data.fetch(np.arange(30) * len(data) // 30, np.random.default_rng(0))
    same.self_organise(dl.tensor(images))
    assert model.s3.b.data.any()
    for name, value in same.state_dict().items():
        np.testing.assert_array_equal(model.state_dict()[name].data, value.data)


@pytest.mark.parametrize("call, complaint", [
    (lambda: models.neocognitron(places=28), "places must be at least 1 and fewer than the 28 pixels; got 28"),
    (lambda: models.neocognitron(planes=(1, 2)), r"planes must be three numbers of at least 1; got \(1, 2\)"),
    (lambda: models.neocognitron(planes=5), "planes must be three numbers of at least 1; got 5"),
    (lambda: models.neocognitron(input_size=14, places=5)(dl.tensor(np.zeros((1, 1, 8, 8), np.float32))),
     r"takes images \(N, C, 14, 14\); got shape \(1, 1, 8, 8\). Bring them to that size, as minidl.data.Fit\(14\)"),
    (lambda: SLayer(1, 2, 3, selectivity=4, reinforcement=1).reinforce(dl.tensor(np.ones((1, 1, 9, 9), np.float32)), 4),
     "the places of an S-column must be odd in number, to have a middle; got 4 × 4"),
    (lambda: models.neocognitron().self_organise(dl.tensor(np.zeros((1, 8, 8), np.float32))), "got shape"),
    (lambda: models.neocognitron().self_organise(stylised_digits()[:0]), "organises itself by images; got none"),
])
def test_what_it_cannot_take_is_refused(call, complaint):
    with pytest.raises(ValueError, match=complaint):
        call()
