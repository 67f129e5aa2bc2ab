"""What a network makes of a data set: its loss, its top-1 and top-5 error, and those of several networks together.

Claims F17 and F18.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from .. import functional as F
from ..autograd import Tensor, no_grad
from ..backend import memory_for
from ..nn import Module
from ..nn.module import keeping_modes


class Evaluation(NamedTuple):
    """Means over a data set: the cross-entropy, and the shares of images whose label is first, or among the first 5."""

    loss: float
    accuracy: float
    top5_accuracy: float


class Predictions(NamedTuple):
    """What a network makes of each image of a data set, and what is right."""

    log_probabilities: np.ndarray
    """(N, classes), float32."""
    labels: np.ndarray
    """(N,), int64."""


def predict(model: Module, batches: Iterable[tuple[Tensor, Tensor]]) -> Predictions:
    """The log-softmax of `model` for all of `batches`, in evaluation mode; every module's mode is put back afterwards.

    Where a batch holds several views of each image, (N, views, C, H, W) as `minidl.data.TenCrop` gives them, the
    softmax is averaged over the views. Raises ValueError for a data set without images.
    """
    device = next(model.parameters()).device
    rows, labels = [], []
    with keeping_modes(model), no_grad():
        model.eval()
        for images, truth in batches:
            views = images.data if images.ndim == 5 else images.data[:, None]
            seen = [_log_softmax(model, view, device) for view in views.swapaxes(0, 1)]
            rows.append(_mean_of_softmax(seen))
            labels.append(truth.data)
    if not sum(map(len, rows)):
        raise ValueError("evaluate: the data set holds no images")
    return Predictions(np.concatenate(rows), np.concatenate(labels))


def _log_softmax(model: Module, images: np.ndarray, device: str) -> np.ndarray:
    with memory_for(len(images)):
        return F.log_softmax(model(Tensor(images).to(device)), dim=1).to("cpu").numpy()


def ensemble(predictions: Sequence[Predictions]) -> Predictions:
    """The softmax of several networks, averaged (claim F18; Simonyan and Zisserman 2015, section 4.4).

    Raises ValueError for none, and for predictions of different images or classes.
    """
    if not predictions:
        raise ValueError("an ensemble needs at least one network")
    first = predictions[0]
    for other in predictions[1:]:
        if other.log_probabilities.shape != first.log_probabilities.shape:
            raise ValueError("an ensemble's networks must see the same images, with the same classes; got "
                             f"{first.log_probabilities.shape} and {other.log_probabilities.shape} images and classes")
        if (other.labels != first.labels).any():
            raise ValueError("an ensemble's networks must see the same images in the same order; their labels differ")
    return Predictions(_mean_of_softmax([p.log_probabilities for p in predictions]), first.labels)


def _mean_of_softmax(log_probabilities: Sequence[np.ndarray]) -> np.ndarray:
    """log (1/n) Σ e^{log p}, without leaving the logarithm."""
    if len(log_probabilities) == 1:
        return log_probabilities[0]
    stacked = np.stack(log_probabilities)
    highest = stacked.max(axis=0)
    return highest + np.log(np.exp(stacked - highest).mean(axis=0))


def score(predictions: Predictions) -> Evaluation:
    """Loss, top-1 and top-5 accuracy. Of equal probabilities the lower class counts as the likelier, as in argmax."""
    rows, labels = predictions
    own = np.take_along_axis(rows, labels[:, None], axis=1)
    earlier = np.arange(rows.shape[1]) < labels[:, None]
    # "Not smaller" instead of "larger": where a network says NaN, nothing is right.
    rank = (~(rows < own) & ~((rows == own) & ~earlier)).sum(axis=1)
    loss = float(-own.mean(dtype=np.float64)) + 0.0  # not −0
    return Evaluation(loss, float((rank == 0).mean()), float((rank < 5).mean()))


def evaluate(model: Module, batches: Iterable[tuple[Tensor, Tensor]]) -> Evaluation:
    """`score` of what `predict` gives: loss, top-1 and top-5 accuracy of `model` on all of `batches`, as a loader's."""
    return score(predict(model, batches))
