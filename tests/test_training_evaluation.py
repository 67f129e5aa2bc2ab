"""Errors of one network and of several, over whole data sets and over several views of each image (F17, F18)."""

import numpy as np
import pytest

import minidl as dl
from minidl import nn
from minidl.data import ArrayDataset, DataLoader, TenCrop
from minidl.training import Predictions, ensemble, evaluate, predict, score


def network(seed, side=6, classes=7):
    dl.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
                         nn.Dropout(), nn.Linear(16, classes))


def images(count=23, side=6, transform=None):
    rng = np.random.default_rng(count)
    return ArrayDataset(rng.random((count, 3, side, side), np.float32), rng.integers(7, size=count), transform)


def softmax(logits):
    shares = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shares / shares.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("batch", [1, 5, 23, 100])
def test_predictions_are_the_log_softmax_in_evaluation_mode_whatever_the_batch(batch):
    model, data = network(0), images()
    model(dl.tensor(data.images))  # statistics that are not 0 and 1
    rows, labels = predict(model, DataLoader(data, batch))
    assert all(module.training for module in model.modules())
    with dl.no_grad():
        logits = model.eval()(dl.tensor(data.images)).numpy()
    np.testing.assert_allclose(np.exp(rows), softmax(logits), rtol=1e-5)
    np.testing.assert_array_equal(labels, data.labels)


def test_scores_are_means_over_all_images_also_of_a_batch_that_is_not_full():
    model, data = network(1), images()
    rows, labels = predict(model, DataLoader(data, 23))
    result = evaluate(model, DataLoader(data, 4))
    assert result.loss == pytest.approx(-np.mean([row[label] for row, label in zip(rows, labels)]), rel=1e-6)
    assert result.accuracy == np.mean(rows.argmax(axis=1) == labels)
    assert result.top5_accuracy == np.mean([label in np.argsort(-row)[:5] for row, label in zip(rows, labels)])


def test_of_equal_probabilities_the_lower_class_is_the_guess():
    even = np.log(np.full((7, 7), 1 / 7))
    result = score(Predictions(even, np.arange(7)))
    assert result.accuracy == 1 / 7 and result.top5_accuracy == 5 / 7


def test_where_a_network_says_nan_nothing_is_right():
    result = score(Predictions(np.full((4, 7), np.nan), np.array([0, 1, 5, 6])))
    assert np.isnan(result.loss) and (result.accuracy, result.top5_accuracy) == (0, 0)


def test_vectors_are_evaluated_as_well_as_images():
    model, rng = nn.Linear(8, 3), np.random.default_rng(0)
    samples = [(rng.standard_normal(8).astype(np.float32), label) for label in (0, 1, 2, 1, 0)]
    rows, labels = predict(model, DataLoader(samples, 2))
    assert rows.shape == (5, 3) and labels.tolist() == [0, 1, 2, 1, 0]


def test_with_up_to_five_classes_the_top_5_are_all():
    rng = np.random.default_rng(0)
    assert score(Predictions(rng.standard_normal((9, 5)), rng.integers(5, size=9))).top5_accuracy == 1


def test_views_of_an_image_are_averaged():
    model = network(2)
    data, views = images(side=9), images(side=9, transform=TenCrop(6))
    rows, _ = predict(model, DataLoader(views, 4))
    with dl.no_grad():
        seen = [softmax(model.eval()(dl.tensor(np.ascontiguousarray(view))).numpy())
                for view in TenCrop(6)(data.images, None).swapaxes(0, 1)]
    assert len(seen) == 10
    np.testing.assert_allclose(np.exp(rows), np.mean(seen, axis=0), rtol=1e-5)


def test_an_ensemble_of_one_is_that_one_and_of_twins_the_twin():
    one = predict(network(3), DataLoader(images(), 8))
    np.testing.assert_array_equal(ensemble([one]).log_probabilities, one.log_probabilities)
    np.testing.assert_allclose(ensemble([one] * 3).log_probabilities, one.log_probabilities, rtol=1e-5)


def test_an_ensemble_never_leaves_the_logarithm():
    surest = Predictions(np.array([[-2000.0, -1000.0, 0.0]]), np.array([0]))
    other = Predictions(np.array([[-1500.0, -1000.0, 0.0]]), np.array([0]))
    result = ensemble([surest, other]).log_probabilities
    np.testing.assert_allclose(result, [[-1500 - np.log(2), -1000, 0]])


@pytest.mark.parametrize("other", [
    Predictions(np.zeros((4, 7)), np.zeros(4, int)), Predictions(np.zeros((3, 6)), np.zeros(3, int)),
    Predictions(np.zeros((3, 7)), np.ones(3, int))])
def test_networks_that_saw_other_images_are_no_ensemble(other):
    with pytest.raises(ValueError, match="must see the same images.*(classes; got|their labels differ)"):
        ensemble([Predictions(np.zeros((3, 7)), np.zeros(3, int)), other])


def test_nothing_to_evaluate_is_refused():
    with pytest.raises(ValueError, match="no images"):
        evaluate(network(0), DataLoader(images(0)))
    with pytest.raises(ValueError, match="at least one network"):
        ensemble([])
