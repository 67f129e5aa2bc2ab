"""Unit 10, ResNet: the gradient through a residual block, and batch normalisation. Claim D7."""

from __future__ import annotations

import numpy as np

from ... import functional as F
from ..definition import Exercise, Gradient, with_cotangents


def residual_block(x, w1, w2):
    """y = x + W₂ relu(W₁ x), a row an image."""
    return F.add(x, F.linear(F.relu(F.linear(x, w1)), w2))


def _block_cases(draw):
    yield "one image, one unit", (np.array([[1.5]]), np.array([[0.5]]), np.array([[-2.0]]))
    yield "one image, a unit that is off", (np.array([[1.5]]), np.array([[-0.5]]), np.array([[-2.0]]))
    yield "two features, two units", (draw(1, 2), draw(2, 2), draw(2, 2))
    yield "more units than features", (draw(1, 2), draw(5, 2), draw(2, 5))
    yield "two images", (draw(2, 3), draw(4, 3), draw(3, 4))
    yield "as many images as features", (draw(3, 3), draw(3, 3), draw(3, 3))
    yield "a batch", (draw(6, 4), draw(3, 4), draw(4, 3))
    yield "arrays that are not contiguous in memory", (draw(4, 3).T, draw(4, 5).T, draw(5, 4).T)
    yield "a unit exactly at the kink of the ReLU", (np.array([[0.0]]), np.array([[1.5]]), np.array([[2.0]]))


def _hidden(x, w1):
    return np.maximum(x @ w1.T, 0)


def _behind(g, x, w1, w2):
    """∂L/∂(W₁ x)"""
    return g @ w2 * (x @ w1.T > 0)


RESIDUAL_BLOCK_GRADIENT = Exercise(
    "residual_block_gradient(g (N, D), x (N, D), w1 (M, D), w2 (D, M)) -> dx (N, D), dw1 (M, D), dw2 (D, M)",
    Gradient(residual_block, "x", "w1", "w2"), with_cotangents(residual_block, _block_cases),
    {
        "dx": {
            "the identity path is missing: ∂L/∂x = g + Jᵀ g": lambda g, x, w1, w2: _behind(g, x, w1, w2) @ w1,
            "only the identity path is there: ∂L/∂x = g + Jᵀ g": lambda g: g,
            "the derivative of the ReLU is missing: no gradient passes where W₁ x ≤ 0":
                lambda g, w1, w2: g + g @ w2 @ w1,
            "a gradient passes the ReLU where W₁ x is exactly 0, and should not (> 0, not >= 0)":
                lambda g, x, w1, w2: g + (g @ w2 * (x @ w1.T >= 0)) @ w1,
            "the paths are multiplied, and should be added": lambda g, x, w1, w2: g * (_behind(g, x, w1, w2) @ w1),
            "the identity path passes 1, and should pass g": lambda g, x, w1, w2: 1 + _behind(g, x, w1, w2) @ w1,
            "the ReLU lets through where x > 0: it looks at W₁ x": lambda g, x, w1, w2:
                g + (g @ w2 @ w1) * (x > 0),
            "it multiplies by relu(W₁ x), and should by its derivative, 1 or 0": lambda g, x, w1, w2:
                g + (g @ w2 * _hidden(x, w1)) @ w1,
            "the gradient passes through a ReLU behind the sum: this block has none there": lambda g, x, w1, w2:
                _after_relu(g, x, w1, w2) + _behind(_after_relu(g, x, w1, w2), x, w1, w2) @ w1,
            "the branch is subtracted: y = x + W₂ relu(W₁ x)": lambda g, x, w1, w2: g - _behind(g, x, w1, w2) @ w1,
            "the identity path is counted twice": lambda g, x, w1, w2: 2 * g + _behind(g, x, w1, w2) @ w1,
        },
        "dw1": {
            "the derivative of the ReLU is missing: no gradient passes where W₁ x ≤ 0":
                lambda g, x, w2: (g @ w2).T @ x,
            "it is transposed: dw1 has the shape of w1": lambda g, x, w1, w2: x.T @ _behind(g, x, w1, w2),
            "it is divided by the number of images: g holds the 1/n of the loss already":
                lambda g, x, w1, w2: _behind(g, x, w1, w2).T @ x / len(x),
            "it is multiplied by relu(W₁ x), where x belongs: x is what W₁ is applied to":
                lambda g, x, w1, w2: _behind(g, x, w1, w2).T @ _hidden(x, w1),
            "it multiplies by relu(W₁ x), and should by its derivative, 1 or 0":
                lambda g, x, w1, w2: (g @ w2 * _hidden(x, w1)).T @ x,
            "it is not summed over the batch: dw1 is one array for all images":
                lambda g, x, w1, w2: np.einsum("nm,nd->nmd", _behind(g, x, w1, w2), x),
            "the step back through W₂ is missing": lambda g, x, w1: (g * (x @ w1.T > 0)).T @ x,
        },
        "dw2": {
            "the ReLU is missing: W₂ is applied to relu(W₁ x)": lambda g, x, w1: g.T @ (x @ w1.T),
            "it is transposed: dw2 has the shape of w2": lambda g, x, w1: _hidden(x, w1).T @ g,
            "it is divided by the number of images: g holds the 1/n of the loss already":
                lambda g, x, w1: g.T @ _hidden(x, w1) / len(x),
            "x stands where relu(W₁ x) belongs: that is what W₂ is applied to": lambda g, x: g.T @ x,
            "the derivative of the ReLU stands where its value belongs": lambda g, x, w1: g.T @ (x @ w1.T > 0),
            "it is not summed over the batch: dw2 is one array for all images":
                lambda g, x, w1: np.einsum("nd,nm->ndm", g, _hidden(x, w1)),
        },
    },
)


def _after_relu(g, x, w1, w2):
    return g * (residual_block(x, w1, w2).numpy() > 0)


# Batch normalisation while training

def batch_norm(x, gamma, beta, eps):
    return F.batch_norm(x, None, None, gamma, beta, training=True, eps=eps)


def _norm_cases(draw):
    yield "two images of one pixel", (draw(2, 1, 1, 1), draw(1), draw(1), 1e-5)
    yield "one image, one channel", (draw(1, 1, 2, 2), draw(1), draw(1), 1e-5)
    yield "two channels", (draw(2, 2, 1, 2), draw(2), draw(2), 1e-5)
    yield "two channels of two images", (draw(2, 2, 2, 2), draw(2), draw(2), 1e-5)
    yield "images that are not square", (draw(3, 2, 2, 5), draw(2), draw(2), 1e-5)
    yield "an ε that shows", (draw(3, 4, 3, 2), draw(4), draw(4), 0.5)
    yield "a mean far from 0", (draw(4, 3, 3, 3) + 100, draw(3), draw(3), 1e-5)
    yield "images that are not contiguous in memory", (draw(4, 5, 3, 2).T, draw(3), draw(3), 1e-3)


def _statistics(x, axes=(0, 2, 3), degrees=0):
    return x.mean(axis=axes, keepdims=True), x.var(axis=axes, keepdims=True, ddof=degrees)


def _wide(c):
    return c.reshape(1, -1, 1, 1)


def _scaled(x, statistics, gamma, beta, eps):
    mean, variance = statistics
    return _wide(gamma) * (x - mean) / np.sqrt(variance + eps) + _wide(beta)


def _over(axes):
    return lambda x, gamma, beta, eps: _scaled(x, _statistics(x, axes), gamma, beta, eps)


BATCH_NORM = Exercise(
    "batch_norm(x (N, C, H, W), gamma (C), beta (C), eps) -> y (N, C, H, W)", batch_norm, _norm_cases,
    {"y": {
        "mean and variance run over the batch alone: they run over images, rows and columns (axis=(0, 2, 3))":
            _over((0,)),
        "mean and variance run over each image alone: they run over the batch too (axis=(0, 2, 3))": _over((2, 3)),
        "mean and variance run over everything: each channel has its own (axis=(0, 2, 3))": _over((0, 1, 2, 3)),
        "mean and variance run over the channels of each image: each channel has its own (axis=(0, 2, 3))":
            _over((1, 2, 3)),
        "the variance is the unbiased one (ddof=1): it should be divided by the count itself":
            lambda x, gamma, beta, eps: _scaled(x, _statistics(x, degrees=1), gamma, beta, eps),
        "the root is missing: divide by √(σ² + ε)": lambda x, gamma, beta, eps:
            _wide(gamma) * (x - _statistics(x)[0]) / (_statistics(x)[1] + eps) + _wide(beta),
        "ε is added to the standard deviation: it belongs under the root": lambda x, gamma, beta, eps:
            _wide(gamma) * (x - _statistics(x)[0]) / (np.sqrt(_statistics(x)[1]) + eps) + _wide(beta),
        "ε is forgotten": lambda x, gamma, beta: _scaled(x, _statistics(x), gamma, beta, 0),
        "gamma is forgotten": lambda x, beta, eps: _scaled(x, _statistics(x), np.ones_like(beta), beta, eps),
        "beta is forgotten": lambda x, gamma, eps: _scaled(x, _statistics(x), gamma, np.zeros_like(gamma), eps),
        "gamma and beta are both forgotten": lambda x, gamma, eps:
            _scaled(x, _statistics(x), np.ones_like(gamma), np.zeros_like(gamma), eps),
        "gamma and beta are exchanged": lambda x, gamma, beta, eps: _scaled(x, _statistics(x), beta, gamma, eps),
        "the mean is not subtracted": lambda x, gamma, beta, eps: _scaled(x, (0, _statistics(x)[1]), gamma, beta, eps),
        "gamma and beta run along the columns of the image: give them the shape (C, 1, 1)":
            lambda x, gamma, beta, eps:
                gamma * (x - _statistics(x)[0]) / np.sqrt(_statistics(x)[1] + eps) + beta,
        "gamma multiplies beta too: y = gamma x̂ + beta": lambda x, gamma, beta, eps:
            _scaled(x, _statistics(x), gamma, gamma * beta, eps),
        "the variance is the mean square: subtract the mean before squaring": lambda x, gamma, beta, eps:
            _scaled(x, (_statistics(x)[0], (x**2).mean(axis=(0, 2, 3), keepdims=True)), gamma, beta, eps),
    }},
)


def _parts(g, x, gamma, eps):
    """x̂, and what g is multiplied by first: γ / √(σ² + ε)"""
    mean, variance = _statistics(x)
    return (x - mean) / np.sqrt(variance + eps), _wide(gamma) / np.sqrt(variance + eps)


def _mean(values):
    return values.mean(axis=(0, 2, 3), keepdims=True)


def _dx(of):
    """A row of the table for dx: `of` g, x̂ and γ / √(σ² + ε)."""
    return lambda g, x, gamma, eps: of(g, *_parts(g, x, gamma, eps))


def _dgamma(of):
    return lambda g, x, gamma, eps: of(g * _parts(g, x, gamma, eps)[0])


BATCH_NORM_GRADIENT = Exercise(
    "batch_norm_gradient(g (N, C, H, W), x (N, C, H, W), gamma (C), beta (C), eps)"
    " -> dx (N, C, H, W), dgamma (C), dbeta (C)",
    Gradient(batch_norm, "x", "gamma", "beta"), with_cotangents(batch_norm, _norm_cases),
    {
        "dx": {
            "mean and variance are taken for constants: they depend on x, two terms are missing":
                _dx(lambda g, xhat, scale: scale * g),
            "the term through the variance is missing: − x̂ mean(g x̂)":
                _dx(lambda g, xhat, scale: scale * (g - _mean(g))),
            "the term through the mean is missing: − mean(g)":
                _dx(lambda g, xhat, scale: scale * (g - xhat * _mean(g * xhat))),
            "gamma is forgotten": lambda g, x, gamma, eps: _whole(g, *_parts(g, x, np.ones_like(gamma), eps)),
            "the division by √(σ² + ε) is missing": lambda g, x, gamma, eps:
                _whole(g, _parts(g, x, gamma, eps)[0], _wide(gamma)),
            "the means run over the batch alone: they run over images, rows and columns (axis=(0, 2, 3))":
                _dx(lambda g, xhat, scale: scale * (
                    g - g.mean(axis=0, keepdims=True) - xhat * (g * xhat).mean(axis=0, keepdims=True))),
            "the terms through mean and variance are sums: they are means, divided by the N·H·W values of a channel":
                _dx(lambda g, xhat, scale: scale * (
                    g - g.sum(axis=(0, 2, 3), keepdims=True) - xhat * (g * xhat).sum(axis=(0, 2, 3), keepdims=True))),
            "x stands where x̂ belongs": lambda g, x, gamma, eps: _whole(g, x, _parts(g, x, gamma, eps)[1]),
        },
        "dgamma": {
            "x̂ is missing: this is Σ g, the gradient of beta": lambda g: g.sum(axis=(0, 2, 3)),
            "x stands where x̂ belongs: gamma multiplies the normalised x": lambda g, x: (g * x).sum(axis=(0, 2, 3)),
            "it is not summed over rows and columns: dgamma is one number a channel":
                _dgamma(lambda products: products.sum(axis=0)),
            "it is not summed over the batch: dgamma is one number a channel":
                _dgamma(lambda products: products.sum(axis=(2, 3))),
            "it is averaged, and should be summed over images, rows and columns":
                _dgamma(lambda products: products.mean(axis=(0, 2, 3))),
            "it is divided by the number of images: g holds the 1/n of the loss already":
                _dgamma(lambda products: products.sum(axis=(0, 2, 3)) / len(products)),
        },
        "dbeta": {
            "it is not summed over rows and columns: dbeta is one number a channel": lambda g: g.sum(axis=0),
            "it is not summed over the batch: dbeta is one number a channel": lambda g: g.sum(axis=(2, 3)),
            "it is averaged, and should be summed over images, rows and columns": lambda g: g.mean(axis=(0, 2, 3)),
            "it is divided by the number of images: g holds the 1/n of the loss already":
                lambda g: g.sum(axis=(0, 2, 3)) / len(g),
            "it is multiplied by x̂, which belongs to gamma": _dgamma(lambda products: products.sum(axis=(0, 2, 3))),
            "it is summed over the channels too: dbeta is one number a channel": lambda g: g.sum(),
        },
    },
)


def _whole(g, xhat, scale):
    return scale * (g - _mean(g) - xhat * _mean(g * xhat))


EXERCISES = (RESIDUAL_BLOCK_GRADIENT, BATCH_NORM, BATCH_NORM_GRADIENT)
