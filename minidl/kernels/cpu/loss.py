"""Cross-entropy: the logarithm of the softmax, and what labels pick from it."""

from __future__ import annotations

import numpy as np

from .reduction import sum_over


def log_softmax(z: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """log aⱼ = zⱼ − log Σₖ e^{zₖ} along `axes`."""
    if not z.size:
        return z.copy()
    log_a = z - z.max(axis=axes, keepdims=True)
    log_a -= np.log(sum_over(np.exp(log_a), axes))
    return log_a


def label_losses(log_a: np.ndarray, labels: np.ndarray, ignored: int) -> np.ndarray:
    """−log aⱼ of the label j of each sample (N, D), from log_a (N, C, D); 0 for the label `ignored`."""
    counted = labels != ignored
    chosen = np.take_along_axis(log_a, np.where(counted, labels, 0)[:, None], axis=1)[:, 0]
    return np.where(counted, -chosen, 0).astype(log_a.dtype, copy=False)


def label_losses_gradient(g: np.ndarray, log_a: np.ndarray, labels: np.ndarray, ignored: int) -> np.ndarray:
    """g (a − y) for the one-hot y of the labels (N, D): ∂L/∂z (N, C, D) of z, whose `log_softmax` is log_a."""
    labels = labels[:, None]
    a = np.exp(log_a)
    a -= labels == np.arange(a.shape[1])[:, None]
    a *= g * (labels != ignored)
    return a
