"""Unit 09, vanishing and exploding gradients: the gradient through a chain, and clipping. Claims D5, D6."""

from __future__ import annotations

import math

import numpy as np

from ... import functional as F
from ...autograd import tensor
from ...optim import clip_grad_norm_
from ..definition import Exercise, Gradient


def chain(x, w):
    """The lecture's chain of units: x₁ = σ(w₁ x₀), x₂ = σ(w₂ x₁), ..."""
    for i in range(len(w)):
        x = F.sigmoid(F.mul(x, float(w[i])))
    return x


def _chain_cases(draw):
    yield "no layer", (np.array(0.5), np.array([]))
    yield "one layer", (np.array(0.5), np.array([2.0]))
    yield "one layer with a negative weight", (np.array(0.5), np.array([-1.5]))
    yield "two layers", (np.array(-0.3), np.array([0.8, -1.2]))
    yield "the lecture's three layers", (np.array(1.0), np.array([0.5, -0.7, 1.1]))
    yield "weights that let it explode", (np.array(0.0), np.array([6.0, -5.0]))
    yield "ten layers: it vanishes", (np.array(0.2), draw(10))


def _inputs(x, w):
    """x₀ … of every layer."""
    inputs = [float(x)]
    for weight in w[:-1]:
        inputs.append(_sigma(weight * inputs[-1]))
    return np.array(inputs)[: len(w)]


def _sigma(z):
    return 1 / (1 + np.exp(-z))


def _slope(z):
    return _sigma(z) * (1 - _sigma(z))


CHAIN_GRADIENT = Exercise(
    "chain_gradient(x, w (n)) -> dx",
    lambda x, w: Gradient(chain, "x")(x, w) if len(w) else np.array(1.0), _chain_cases,
    {"dx": {
        "the weights are missing: each layer multiplies by σ' and by its w": lambda x, w:
            np.prod(_slope(w * _inputs(x, w))),
        "the slopes are missing: each layer multiplies by σ' and by its w": lambda w: np.prod(w),
        "the layers are added, and should be multiplied: the chain rule is a product":
            lambda x, w: np.sum(_slope(w * _inputs(x, w)) * w),
        "σ' is taken at x, and should be taken at w x, where σ is applied":
            lambda x, w: np.prod(_slope(_inputs(x, w)) * w),
        "every layer sees x₀: layer i sees the output of layer i − 1": lambda x, w: np.prod(_slope(w * x) * w),
        "the largest slope 1/4 is taken for every layer: that is the bound, not the gradient":
            lambda w: np.prod(np.asarray(w) / 4),
        "σ stands in place of its slope σ' = σ (1 − σ)": lambda x, w: np.prod(_sigma(w * _inputs(x, w)) * w),
        "the last layer is missing": lambda x, w: np.prod((_slope(w * _inputs(x, w)) * w)[:-1]),
        "the first layer is missing": lambda x, w: np.prod((_slope(w * _inputs(x, w)) * w)[1:]),
        "the weights are used in reverse order: w[0] belongs to the first layer": lambda x, w:
            np.prod(_slope(w[::-1] * _inputs(x, w[::-1])) * w),
        "σ' is written σ (1 − z), with the number before σ in place of σ": lambda x, w:
            np.prod(_sigma(w * _inputs(x, w)) * (1 - w * _inputs(x, w)) * w),
        "it is the value of the chain, not its gradient": lambda x, w: chain(x, w) if len(w) else x,
        "one factor w only: each layer has its own": lambda x, w:
            np.prod(_slope(w * _inputs(x, w))) * (w[0] if len(w) else 1),
    }},
)


# Clipping

def clip_grad_norm(dw, db, max_norm):
    parameters = [tensor(np.zeros_like(gradient), requires_grad=True) for gradient in (dw, db)]
    for parameter, gradient in zip(parameters, (dw, db)):
        parameter.grad = tensor(gradient.copy())
    norm = math.hypot(np.linalg.norm(dw), np.linalg.norm(db))
    if norm > max_norm:  # exactly max_norm, without the 10⁻⁶ that PyTorch adds to the norm
        clip_grad_norm_(parameters, max_norm * (norm + 1e-6) / norm)
    return parameters[0].grad, parameters[1].grad


def _clip_cases(draw):
    yield "one number each, 3 and 4, clipped to 1", (np.array([[3.0]]), np.array([4.0]), 1.0)
    yield "short enough: nothing changes", (np.array([[0.3]]), np.array([0.4]), 1.0)
    yield "exactly as long as allowed", (np.array([[3.0]]), np.array([4.0]), 5.0)
    yield "only together too long", (np.array([[0.8]]), np.array([0.9]), 1.0)
    yield "one long, one short", (draw(2, 3) * 10, draw(2) * 0.1, 2.0)
    yield "a layer of four units, clipped to 0.5", (draw(4, 3), draw(4), 0.5)
    yield "zeros everywhere", (np.zeros((2, 3)), np.zeros(2), 1.0)
    yield "an exploded gradient", (draw(2, 3) * 1e6, draw(2) * 1e6, 5.0)
    yield "arrays that are not contiguous in memory", (draw(3, 4).T, draw(8)[::2], 1.0)


def _clip_tables():
    """The same mistakes in dw and in db."""
    def of(result):
        return (lambda dw, db, max_norm: result(dw, db, max_norm, dw),
                lambda dw, db, max_norm: result(dw, db, max_norm, db))

    def norm(dw, db):
        return math.hypot(np.linalg.norm(dw), np.linalg.norm(db))

    def shortened(gradient, length, max_norm):
        return gradient * min(1, max_norm / length) if length else gradient

    rows = {
        "it is clipped by the norm of this array alone: one norm for all gradients together keeps the direction":
            of(lambda dw, db, m, x: shortened(x, np.linalg.norm(x), m)),
        "short gradients are lengthened: scale by min(1, max_norm / norm)":
            of(lambda dw, db, m, x: x * (m / norm(dw, db))),
        "every entry is clipped to ±max_norm: that changes the direction; shorten the whole vector":
            of(lambda dw, db, m, x: np.clip(x, -m, m)),
        "the root is missing: the norm is √Σ x²": of(lambda dw, db, m, x: shortened(x, norm(dw, db) ** 2, m)),
        "the norm is Σ |x|: it should be √Σ x²":
            of(lambda dw, db, m, x: shortened(x, abs(dw).sum() + abs(db).sum(), m)),
        "the norms of the arrays are added: the norm of all is √(‖dw‖² + ‖db‖²)":
            of(lambda dw, db, m, x: shortened(x, np.linalg.norm(dw) + np.linalg.norm(db), m)),
        "it is divided by the norm, and not multiplied by max_norm":
            of(lambda dw, db, m, x: x / norm(dw, db) if norm(dw, db) > m else x),
        "the norm is the largest entry: it should be √Σ x²":
            of(lambda dw, db, m, x: shortened(x, max(abs(dw).max(), abs(db).max()), m)),
        "it is not clipped at all": of(lambda dw, db, m, x: x),
        "a long gradient becomes 0: it should become max_norm long":
            of(lambda dw, db, m, x: np.zeros_like(x) if norm(dw, db) > m else x),
        "the norm is averaged over the entries: √ mean x² in place of √Σ x²":
            of(lambda dw, db, m, x: shortened(x, norm(dw, db) / math.sqrt(dw.size + db.size), m)),
    }
    return {"dw": {words: first for words, (first, _) in rows.items()},
            "db": {words: second for words, (_, second) in rows.items()} | {
                "it is clipped by the norm of dw: one norm for all gradients together keeps the direction":
                    lambda dw, db, max_norm: shortened(db, np.linalg.norm(dw), max_norm)}}


CLIP_GRAD_NORM = Exercise(
    "clip_grad_norm(dw (K, C), db (K), max_norm) -> dw (K, C), db (K)", clip_grad_norm, _clip_cases, _clip_tables()
)

EXERCISES = (CHAIN_GRADIENT, CLIP_GRAD_NORM)
