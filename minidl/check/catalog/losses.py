"""Unit 02, losses: softmax, cross-entropy and its gradient (a − y) / n. Claims D1 to D4."""

from __future__ import annotations

import numpy as np

from ... import functional as F
from ..definition import Exercise, Gradient


def softmax(z):
    return F.softmax(np.asarray(z, np.float64), 1)


def cross_entropy(z, y):
    return F.cross_entropy(z, y)


def _softmax_cases(draw):
    yield "one sample, two classes", (draw(1, 2),)
    yield "one sample, three classes", (draw(1, 3),)
    yield "as many samples as classes", (draw(3, 3),)
    yield "more samples than classes", (draw(5, 2),)
    yield "one class", (draw(3, 1),)
    yield "logits that are not contiguous in memory", (draw(4, 3).T,)
    yield "logits of ±1000", (np.array([[1000.0, 0.0, -1000.0], [-1000.0, -1000.0, -1001.0]]),)
    yield "a large and a small sample together", (np.array([[1000.0, 999.0, 998.0], [0.0, 1.0, 2.0]]),)
    yield "whole numbers", (np.array([[1, 2, 3], [0, 0, 5]]),)


def _loss_cases(draw):
    def one_hot(labels, classes):
        return np.eye(classes)[labels]

    yield "one sample, two classes", (draw(1, 2), one_hot([1], 2))
    yield "one sample, three classes", (draw(1, 3), one_hot([0], 3))
    yield "two samples, three classes", (draw(2, 3), one_hot([2, 0], 3))
    yield "as many samples as classes", (draw(3, 3), one_hot([0, 0, 1], 3))
    yield "five samples, four classes", (draw(5, 4), one_hot([3, 1, 0, 2, 1], 4))
    yield "arrays that are not contiguous in memory", (draw(3, 4).T, np.asfortranarray(one_hot([2, 2, 0, 1], 3)))
    yield "probabilities instead of one-hot y", (draw(2, 3), np.array([[0.5, 0.25, 0.25], [0.0, 0.9, 0.1]]))
    yield "logits around −800", (draw(2, 3) - 800, one_hot([1, 0], 3))
    yield "logits of ±1000, right", (np.array([[1000.0, 0.0, -1000.0]] * 2), one_hot([0, 0], 3))
    yield "logits of ±1000, wrong", (np.array([[1000.0, 0.0, -1000.0]] * 2), one_hot([2, 1], 3))


def _a(z, axis=1):
    return F.softmax(np.asarray(z, np.float64), axis).numpy()


def _naive(z):
    return np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)


SOFTMAX = Exercise(
    "softmax(z (N, C)) -> a (N, C)", softmax, _softmax_cases,
    {"a": {
        "it overflows for large logits: subtract the maximum of each row first, which changes nothing": _naive,
        "it is normalised down the columns, over samples: the sum runs over the classes of each sample (axis=1)":
            lambda z: _a(z, 0),
        "it is normalised over the whole batch: the sum runs over the classes of each sample (axis=1)":
            lambda z: _a(z.reshape(1, -1)).reshape(z.shape),
        "the sum runs over the whole batch: it should run over the classes of each sample (axis=1)":
            lambda z: np.exp(z - z.max(axis=1, keepdims=True)) / np.exp(z - z.max(axis=1, keepdims=True)).sum(),
        "the maximum of the whole batch is subtracted, so that small samples underflow to 0 / 0: one maximum a row":
            lambda z: _naive(z - z.max()),
        "the division by the sum of the exponentials is missing": lambda z: np.exp(z),
        "the exponential is missing: the logits themselves are divided by their sum":
            lambda z: z / z.sum(axis=1, keepdims=True),
        "it is log-softmax: the logarithm is one step too many": lambda z: F.log_softmax(np.asarray(z, np.float64), 1),
        "it is the logarithm of the softmax: one step too many": lambda z: np.log(_a(z)),
        "it is a sigmoid of each logit, which looks at no other class": lambda z: F.sigmoid(np.asarray(z, np.float64)),
        "the sign of the exponent is wrong: this is e⁻ᶻ": lambda z: _a(-z),
        "the maximum is subtracted above, but not in the sum below":
            lambda z: np.exp(z - z.max(axis=1, keepdims=True)) / np.exp(z).sum(axis=1, keepdims=True),
        "it divides by the largest exponential, not by their sum": lambda z: np.exp(z - z.max(axis=1, keepdims=True)),
    }},
)

CROSS_ENTROPY = Exercise(
    "cross_entropy(z (N, C), y (N, C)) -> loss", cross_entropy, _loss_cases,
    {"loss": {
        "it overflows for large logits: compute log a as z − max − log Σ e^(z − max)":
            lambda z, y: -(y * np.log(_naive(z))).sum(axis=1).mean(),
        "the logarithm is taken of an a that was rounded to 0: compute log a as z − max − log Σ e^(z − max)":
            lambda z, y: -(y * np.log(_a(z))).sum(axis=1).mean(),
        "it is summed over the samples, where their mean is asked for: the division by N is missing":
            lambda z, y: -(y * _log_a(z)).sum(),
        "it is divided by the number of classes too, as if np.mean ran over all N·C entries: only 1/N":
            lambda z, y: -(y * _log_a(z)).mean(),
        "it is divided by the number of classes C, as on the slide: here the mean runs over the N samples":
            lambda z, y: -(y * _log_a(z)).sum() / z.shape[1],
        "the minus sign is missing": lambda z, y: (y * _log_a(z)).sum(axis=1).mean(),
        "the softmax is missing: the logarithm is taken of the logits":
            lambda z, y: -(y * np.log(z)).sum(axis=1).mean(),
        "the logarithm is missing": lambda z, y: -(y * _a(z)).sum(axis=1).mean(),
        "it gives one loss a sample: the mean over the samples is missing": lambda z, y: -(y * _log_a(z)).sum(axis=1),
        "the softmax runs over the samples (axis=0), and should run over the classes (axis=1)":
            lambda z, y: -(y * _log_a(z, 0)).sum(axis=1).mean(),
        "it is the binary cross-entropy of every class, with a term (1 − y) log(1 − a)":
            lambda z, y: -(y * _log_a(z) + (1 - y) * np.log(1 - _a(z))).sum(axis=1).mean(),
        "it is the mean square error": lambda z, y: ((_a(z) - y) ** 2).mean(),
        "the logarithm is to base 2, and should be natural":
            lambda z, y: -(y * _log_a(z)).sum(axis=1).mean() / np.log(2),
        "a small number inside the logarithm caps the loss: compute log a as z − max − log Σ e^(z − max)":
            lambda z, y: -(y * np.log(_a(z) + 1e-12)).sum(axis=1).mean(),
        "y is read as a label by its maximum: it may hold probabilities":
            lambda z, y: -_log_a(z)[np.arange(len(z)), y.argmax(axis=1)].mean(),
    }},
)

CROSS_ENTROPY_GRADIENT = Exercise(
    "cross_entropy_gradient(z (N, C), y (N, C)) -> dz (N, C)", Gradient(cross_entropy, "z"), _loss_cases,
    {"dz": {
        "the division by N is missing: the loss is a mean over the samples": lambda z, y: _a(z) - y,
        "it is divided by the number of classes too: only 1/N": lambda z, y: (_a(z) - y) / z.size,
        "it is divided by the number of classes C, and should be by the number of samples N":
            lambda z, y: (_a(z) - y) / z.shape[1],
        "the sign is flipped: it is a − y, not y − a": lambda z, y: (y - _a(z)) / len(z),
        "the softmax is missing: it is z − y": lambda z, y: (z - y) / len(z),
        "− y is missing: it is the softmax alone": lambda z: _a(z) / len(z),
        "it overflows for large logits: subtract the maximum of each row before e is raised to it":
            lambda z, y: (_naive(z) - y) / len(z),
        "the softmax runs over the samples (axis=0), and should run over the classes (axis=1)":
            lambda z, y: (_a(z, 0) - y) / len(z),
        "a softmax slope a (1 − a) too many, as for the mean square error: in cross-entropy it cancels":
            lambda z, y: (_a(z) - y) * _a(z) * (1 - _a(z)) / len(z),
        "it is −y / a, the gradient for a: the step through the softmax is missing": lambda z, y: -y / _a(z) / len(z),
        "only the entry of the true class is right: the others get a, not 0": lambda z, y: (_a(z) - y) * y / len(z),
        "y is read as a label by its maximum: it may hold probabilities":
            lambda z, y: (_a(z) - np.eye(z.shape[1])[y.argmax(axis=1)]) / len(z),
    }},
)


def _log_a(z, axis=1):
    return F.log_softmax(z, axis).numpy()


EXERCISES = (SOFTMAX, CROSS_ENTROPY, CROSS_ENTROPY_GRADIENT)
