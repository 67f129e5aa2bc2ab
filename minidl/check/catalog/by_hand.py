"""Unit 01, autograd by hand: a value, its gradient, and the gradient of what was broadcast."""

from __future__ import annotations

import numpy as np

from ... import functional as F
from ...autograd import sum_to_shape
from ..definition import Exercise, Gradient, with_cotangents


def sigmoid(x):
    return F.sigmoid(x)


def _sigmoid_cases(draw):
    yield "one number", (draw(1),)
    yield "three numbers", (draw(3),)
    yield "a matrix", (draw(2, 3),)
    yield "a batch of images", (draw(2, 3, 2, 4),)
    yield "an array that is not contiguous in memory", (draw(4, 6)[:, ::2],)
    yield "numbers where e to the x overflows", (np.array([-1000.0, -40.0, 0.0, 40.0, 1000.0]),)


def _sigmoid_cases_with_whole_numbers(draw):
    yield from _sigmoid_cases(draw)
    yield "whole numbers", (np.array([-2, -1, 0, 1, 2]),)


SIGMOID = Exercise(
    "sigmoid(x (any shape)) -> y (any shape)", sigmoid, _sigmoid_cases_with_whole_numbers,
    {"y": {
        "the sign of the exponent is wrong: this is σ(−x) = 1 / (1 + eˣ)": lambda x: 1 / (1 + np.exp(x)),
        "it overflows for large |x|: e to a large power is ∞; raise e to −|x| only":
            lambda x: np.exp(x) / (1 + np.exp(x)),
        "it is tanh, which runs from −1 to 1, not from 0 to 1": lambda x: np.tanh(x),
        "the fraction is upside down: 1 + e⁻ˣ belongs below": lambda x: 1 + np.exp(-x),
        "the 1 + of the denominator is missing": lambda x: 1 / np.exp(-x),
        "it is softmax over all numbers: σ looks at each number alone": lambda x:
            F.softmax(x.astype(np.float64).reshape(-1), 0).numpy().reshape(x.shape),
        "its derivative is returned, not its value": lambda x: _slope(x),
    }},
)

SIGMOID_GRADIENT = Exercise(
    "sigmoid_gradient(g (any shape), x (any shape)) -> dx (any shape)", Gradient(sigmoid, "x"),
    with_cotangents(sigmoid, _sigmoid_cases),
    {"dx": {
        "the chain rule is missing: the slope must be multiplied by g": lambda x: _slope(x),
        "the factor 1 − σ(x) is missing": lambda g, x: g * _sigma(x),
        "the factor σ(x) is missing": lambda g, x: g * (1 - _sigma(x)),
        "the slope is taken of x itself, x (1 − x), where σ(x) belongs": lambda g, x: g * x * (1 - x),
        "the slope is taken at σ(x), as if σ were applied twice": lambda g, x: g * _slope(_sigma(x)),
        "it is g σ(x)², with a square in place of σ(x) (1 − σ(x))": lambda g, x: g * _sigma(x) ** 2,
        "it is the gradient of tanh, 1 − σ², not of σ": lambda g, x: g * (1 - _sigma(x) ** 2),
        "it divides by the slope where it should multiply": lambda g, x: g / _slope(x),
        "it overflows for large |x|: e⁻ˣ / (1 + e⁻ˣ)² is ∞ / ∞; write it as σ (1 − σ)":
            lambda g, x: g * np.exp(-x) / (1 + np.exp(-x)) ** 2,
    }},
)


def _sigma(x):
    return sigmoid(x).numpy()


def _slope(x):
    return _sigma(x) * (1 - _sigma(x))


def mul(a, b):
    return F.mul(a, b)


def _mul_cases(draw):
    yield "two numbers", (draw(1), draw(1))
    yield "two vectors", (draw(3), draw(3))
    yield "a row of b for every row of a", (draw(2, 3), draw(3))
    yield "a number a row: b has one column", (draw(2, 3), draw(2, 1))
    yield "a and b broadcast against each other", (draw(4, 1), draw(1, 3))
    yield "a is the smaller one", (draw(1, 3), draw(2, 2, 3))
    yield "a number a channel of a batch of images", (draw(2, 3, 4, 5), draw(3, 1, 1))
    yield "arrays that are not contiguous in memory", (draw(3, 2).T, draw(2, 6)[:, ::2])


def _averaged(gradient, shape):
    return sum_to_shape(gradient, shape) / (gradient.size / np.prod(shape))


def _first_axis_only(gradient, shape):
    """Summed as far as the first axis goes."""
    if gradient.shape == shape:
        return gradient
    return gradient.sum(axis=0, keepdims=gradient.ndim == len(shape))


MUL_GRADIENT = Exercise(
    "mul_gradient(g (the shape of a · b), a (any shape), b (any shape)) -> da (the shape of a), db (the shape of b)",
    Gradient(mul, "a", "b"), with_cotangents(mul, _mul_cases),
    {
        "da": {
            "it is not summed over what was broadcast: da must have the shape of a": lambda g, b: g * b,
            "a and b are exchanged: ∂L/∂a = g b": lambda g, a, b: sum_to_shape(g * a, np.shape(a)),
            "the factor b is missing: it is g, the gradient of a sum": lambda g, a: sum_to_shape(g, np.shape(a)),
            "the factor g is missing": lambda g, a, b: sum_to_shape(np.ones_like(g) * b, np.shape(a)),
            "it is averaged over what was broadcast, where it should be summed":
                lambda g, a, b: _averaged(g * b, np.shape(a)),
            "it is summed over the first axis only, and other axes were broadcast too":
                lambda g, a, b: _first_axis_only(g * b, np.shape(a)),
            "it divides by b": lambda g, a, b: sum_to_shape(g / b, np.shape(a)),
        },
        "db": {
            "it is not summed over what was broadcast: db must have the shape of b": lambda g, a: g * a,
            "a and b are exchanged: ∂L/∂b = g a": lambda g, b: sum_to_shape(g * b, np.shape(b)),
            "the factor a is missing: it is g, the gradient of a sum": lambda g, b: sum_to_shape(g, np.shape(b)),
            "the factor g is missing": lambda g, a, b: sum_to_shape(np.ones_like(g) * a, np.shape(b)),
            "it is averaged over what was broadcast, where it should be summed":
                lambda g, a, b: _averaged(g * a, np.shape(b)),
            "it is summed over the first axis only, and other axes were broadcast too":
                lambda g, a, b: _first_axis_only(g * a, np.shape(b)),
            "it divides by a": lambda g, a, b: sum_to_shape(g / a, np.shape(b)),
        },
    },
)

EXERCISES = (SIGMOID, SIGMOID_GRADIENT, MUL_GRADIENT)
