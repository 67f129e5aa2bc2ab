"""The losses: labels and distributions, weights, what is ignored, how it is averaged, and the far ends."""

import cases
import hypothesis.strategies as st
import numpy as np
import oracles
import pytest
from cases import Case, assert_close, check_gradient, check_torch, check_value, mentions, shown, torch_functional
from hypothesis import given, settings

import minidl as dl
from minidl import functional as F

REDUCTIONS = st.sampled_from(["none", "sum", "mean"])


@st.composite
def classifications(draw, distributions=False, smoothing=False):
    """Scores (C), (N, C) or (N, C, d1, …), with labels or with a distribution over the classes."""
    shape = draw(cases.shapes(1, 4, most=3))
    classes, labelled = (shape[0], ()) if len(shape) == 1 else (shape[1], (shape[0], *shape[2:]))
    arrays, options = {"input": draw(cases.arrays(shape))}, cases.some_options(draw, reduction=REDUCTIONS)
    if smoothing:
        options |= cases.some_options(draw, label_smoothing=st.floats(0, 1))
    if draw(st.booleans()):
        options["weight"] = draw(cases.arrays((classes,), "positive"))
    if distributions:
        return Case(arrays, options | {"target": draw(cases.arrays(shape, "probability"))})
    rng = draw(cases.generators)
    target = np.asarray(rng.integers(0, classes, labelled))
    if draw(st.booleans()):
        ignored = options["ignore_index"] = draw(st.sampled_from([-100, -1, 255]))
        target.flat[1:] = np.where(rng.random(target.size) < 0.3, ignored, target.flat)[1:]  # never all of them
    return Case(arrays, options | {"target": target})


@st.composite
def estimates(draw, values, weighted=True):
    """Predictions beside targets of the same shape."""
    shape = draw(cases.shapes(0, 3))
    arrays = {"input": draw(cases.arrays(shape, values))}
    options = {"target": draw(cases.arrays(shape, "probability")), **cases.some_options(draw, reduction=REDUCTIONS)}
    if weighted and draw(st.booleans()):
        options["weight"] = draw(cases.arrays(shape, "positive"))
    if weighted and values == "normal" and draw(st.booleans()):
        options["pos_weight"] = draw(cases.arrays(shape[-1:], "positive"))
    return Case(arrays, options)


CASES = {
    "nll_loss": classifications(),
    "cross_entropy": classifications(smoothing=True) | classifications(distributions=True, smoothing=True),
    "binary_cross_entropy": estimates("probability"),
    "binary_cross_entropy_with_logits": estimates("normal"),
    "mse_loss": estimates("normal", weighted=False),
}


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=60)
@given(data=st.data())
def test_value_is_that_of_the_naive_loops(name, data):
    check_value(getattr(F, name), getattr(oracles, name), data.draw(CASES[name]))


@pytest.mark.parametrize("name", CASES)
@given(data=st.data())
def test_gradients_are_finite_differences(name, data):
    check_gradient(getattr(F, name), data.draw(CASES[name]))


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=60)
@given(data=st.data())
def test_agrees_with_pytorch(name, data):
    check_torch(getattr(F, name), torch_functional(name), data.draw(CASES[name]))


@pytest.mark.parametrize("name", [name for name in CASES if name != "nll_loss"])
def test_targets_get_gradients_too(name):
    """In PyTorch a target may itself be a network's answer."""
    probabilities, targets = np.random.default_rng(0).uniform(0.1, 0.9, (2, 4, 3))
    check_torch(getattr(F, name), torch_functional(name), Case({"input": probabilities, "target": targets}, {}))


def value_and_slope(loss, x, *targets, **options):
    """The loss and its gradient by x."""
    leaf = cases.leaf(x)
    result = loss(leaf, *(dl.tensor(target) for target in targets), **options)
    result.backward()
    return result.data, leaf.grad.data


# The far ends, where a warning is an error too


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("logit, target, loss, slope", [(1000, 1, 0, 0), (1000, 0, 1000, 1), (-1000, 1, 1000, -1)])
def test_binary_cross_entropy_with_logits_is_stable_at_a_thousand(logit, target, loss, slope, dtype):
    result = value_and_slope(F.binary_cross_entropy_with_logits, np.array([logit], dtype), np.array([target], dtype))
    assert result == (loss, [slope])


def test_binary_cross_entropy_of_certainty_is_a_hundred_at_most():
    """PyTorch cuts the logarithm at −100, so that one saturated output is not an infinite loss."""
    certain, truth = cases.leaf(np.array([0.0, 1, 0, 1])), dl.tensor(np.array([0.0, 1, 1, 0]))
    result = F.binary_cross_entropy(certain, truth, reduction="none")
    result.sum().backward()
    assert result.data.tolist() == [0, 0, 100, 100]
    assert_close(certain.grad.data, [0, 0, -1e12, 1e12], 1e-6)  # PyTorch's 1e-12 is one of float32


# Labels


@pytest.mark.parametrize("loss", [F.cross_entropy, F.nll_loss])
def test_an_ignored_class_counts_nowhere(loss):
    scores = np.random.default_rng(0).standard_normal((4, 3))
    labels = np.array([2, 0, 1, 0])
    kept, slope = value_and_slope(loss, scores[[0, 2]], labels[[0, 2]])
    ignoring, ignoring_slope = value_and_slope(loss, scores, labels, ignore_index=0)
    assert_close(ignoring, kept)
    assert_close(ignoring_slope[[0, 2]], slope)
    assert not ignoring_slope[[1, 3]].any()


@pytest.mark.parametrize("loss", [F.cross_entropy, F.nll_loss])
@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
def test_labels_are_whole_numbers_of_any_kind(loss, dtype):
    scores, labels = np.random.default_rng(0).standard_normal((3, 4)), np.array([3, 0, 2])
    assert_close(value_and_slope(loss, scores, labels.astype(dtype))[1], value_and_slope(loss, scores, labels)[1])


def test_positional_arguments_are_input_target_and_weight():
    scores, labels, weight = np.random.default_rng(0).standard_normal((3, 4)), np.array([3, 0, 2]), np.arange(1.0, 5)
    result = F.cross_entropy(dl.tensor(scores), dl.tensor(labels), dl.tensor(weight))
    assert_close(result.data, oracles.cross_entropy(scores, labels, weight))


# An empty batch

TARGETS = {
    "nll_loss": np.zeros(0, int),
    "cross_entropy": np.zeros(0, int),
    "binary_cross_entropy": np.zeros((0, 3)),
    "binary_cross_entropy_with_logits": np.zeros((0, 3)),
    "mse_loss": np.zeros((0, 3)),
}


@pytest.mark.parametrize("name, target", TARGETS.items())
def test_an_empty_batch_has_no_mean(name, target):
    with pytest.raises(ValueError, match=f"(?i){name}.*empty"):
        getattr(F, name)(dl.tensor(np.zeros((0, 3))), dl.tensor(target))


@pytest.mark.parametrize("name, target", TARGETS.items())
def test_an_empty_batch_has_a_sum(name, target):
    x = cases.leaf(np.zeros((0, 3)))
    result = getattr(F, name)(x, dl.tensor(target), reduction="sum")
    result.backward()
    assert result.data == 0 and x.grad.shape == (0, 3)
    assert getattr(F, name)(x, dl.tensor(target), reduction="none").shape == target.shape


# What is refused

SCORES = np.zeros((2, 3))


REFUSED = {
    "a class too many": (SCORES, [0, 3], {}, ValueError, [3]),
    "a class below zero": (SCORES, [-1, 0], {}, ValueError, [-1]),
    "another is ignored": (SCORES, [-100, 0], {"ignore_index": 1}, ValueError, [-100]),
    "float labels": (SCORES, [0.0, 1.0], {}, (TypeError, ValueError), ["float64"]),
    "a distribution over other classes": (SCORES, np.zeros((2, 4)), {}, (TypeError, ValueError), ["float64"]),
    "truth values": (SCORES, [True, False], {}, TypeError, ["bool"]),
    "more labels than scores": (SCORES, [0, 1, 2], {}, ValueError, [3, 2]),
    "a column of labels": (SCORES, [[0], [1]], {}, ValueError, ["(2, 1)"]),
    "fewer pixels": (np.zeros((2, 3, 4)), [[0, 1, 2]] * 2, {}, ValueError, ["(2, 3)", "(2, 4)"]),
    "a single score": (np.zeros(()), 0, {}, ValueError, ["input"]),
    "weights of other classes": (SCORES, [0, 1], {"weight": dl.tensor(np.ones(2))}, ValueError, ["weight", 2, 3]),
    "reduction": (SCORES, [0, 1], {"reduction": "average"}, ValueError, ["average", "mean", "sum", "none"]),
}


@pytest.mark.parametrize("loss", [F.cross_entropy, F.nll_loss])
@pytest.mark.parametrize("scores, labels, options, error, values", REFUSED.values(), ids=REFUSED)
def test_refuses_labels(loss, scores, labels, options, error, values):
    with pytest.raises(error, match=mentions(*values)):
        loss(dl.tensor(scores), dl.tensor(np.array(labels)), **options)


@pytest.mark.parametrize(
    "call, values",
    [
        (lambda x: F.cross_entropy(x, dl.tensor(np.array([0, 1])), label_smoothing=1.5), ["label_smoothing", 1.5]),
        (lambda x: F.binary_cross_entropy(x, dl.tensor(np.zeros(3))), ["(3,)", "(2, 3)"]),
        (lambda x: F.binary_cross_entropy_with_logits(x, dl.tensor(np.zeros(3))), ["(3,)", "(2, 3)"]),
        (lambda x: F.binary_cross_entropy(x + 1.5, x), [1.5]),
        (lambda x: F.binary_cross_entropy(x - 0.5, x), [-0.5]),
        (lambda x: F.binary_cross_entropy(x, x, reduction="average"), ["average"]),
        (lambda x: F.binary_cross_entropy_with_logits(x, x, reduction="average"), ["average"]),
        (lambda x: F.mse_loss(x, x, reduction="average"), ["average"]),
    ],
    ids=shown,
)
def test_refuses(call, values):
    with pytest.raises(ValueError, match=mentions(*values)):
        call(dl.tensor(SCORES))


def test_a_column_is_not_silently_compared_with_a_row():
    """(4, 1) against (4,) would broadcast to (4, 4) differences; PyTorch warns of it."""
    with pytest.raises((ValueError, UserWarning), match=mentions(4, 1)):
        F.mse_loss(dl.tensor(np.zeros((4, 1))), dl.tensor(np.zeros(4)))
