"""check.exercise: right answers pass, and each typical mistake is called by its name.

A wrong answer is a right one of `answers.py` with one line spoilt, as a student would; none looks at the tables of
mistakes that the checker has.
"""

import inspect
import re
from pathlib import Path

import answers
import numpy as np
import pytest

import minidl as dl
import models
from minidl import check
from minidl import functional as F
from minidl.check.catalog import EXERCISES
from minidl.check.definition import Gradient
from minidl.check.mistakes import Answer, diagnose
from models.googlenet import MODULES

DIFFERS = "differs from the reference by no mistake known here"
"""Said of a mistake that no table has."""

# exercise: [(what the line was, what it became, words of the diagnosis), ...]
SPOILT = {
    "sigmoid": [
        ("np.where(x >= 0, 1 / (1 + small), small / (1 + small))", "1 / (1 + np.exp(x))", "sign of the exponent"),
        ("np.where(x >= 0, 1 / (1 + small), small / (1 + small))", "np.exp(x) / (np.exp(x) + 1)", "overflows"),
        ("np.where(x >= 0, 1 / (1 + small), small / (1 + small))", "np.tanh(x)", "tanh"),
        ("np.where(x >= 0, 1 / (1 + small), small / (1 + small))", "np.exp(x)", "1 + of the denominator"),
        ("np.where(x >= 0, 1 / (1 + small), small / (1 + small))", "1 + np.exp(-x)", "upside down"),
        ("return np.where", "return -np.where", "sign is flipped"),
        ("    return", "    y = np.zeros_like(x)\n    y[...] =", "returns None"),
        ("    return np.where(x >= 0, 1 / (1 + small), small / (1 + small))",
         "    y = np.zeros_like(x)\n    y[...] = np.where(x >= 0, 1 / (1 + small), small / (1 + small))\n    return y",
         "fractions are cut off"),
    ],
    "sigmoid_gradient": [
        ("g * y * (1 - y)", "y * (1 - y)", "chain rule"),
        ("g * y * (1 - y)", "g * y", "factor 1 − σ"),
        ("g * y * (1 - y)", "g * (1 - y)", "factor σ(x) is missing"),
        ("g * y * (1 - y)", "g * x * (1 - x)", "of x itself"),
        ("g * y * (1 - y)", "g * (1 - y * y)", "gradient of tanh"),
        ("g * y * (1 - y)", "-g * y * (1 - y)", "sign is flipped"),
        ("g * y * (1 - y)", "g * np.exp(-x) / (1 + np.exp(-x)) ** 2", "overflows"),
    ],
    "mul_gradient": [
        ("da = summed(g * b, a.shape)", "da = g * b", "da: it is not summed over what was broadcast"),
        ("db = summed(g * a, b.shape)", "db = g * a", "db: it is not summed over what was broadcast"),
        ("da = summed(g * b, a.shape)", "da = summed(g * a, a.shape)", "da: a and b are exchanged"),
        ("db = summed(g * a, b.shape)", "db = summed(g, b.shape)", "db: the factor a is missing"),
        ("return da, db", "return db, da", "order is wrong"),
        (".sum(axis", ".mean(axis", "db: it is averaged over what was broadcast"),
        ("da = summed(g * b, a.shape)", "da = summed(0 * g + b, a.shape)", "da: the factor g is missing"),
        ("return da, db", "return da", "one ndarray, and should return a tuple of 2"),
    ],
    "softmax": [
        ("np.exp(z - z.max(axis=1, keepdims=True))", "np.exp(z)", "overflows for large logits"),
        ("z.max(axis=1, keepdims=True)", "z.max()", "maximum of the whole batch"),
        ("e.sum(axis=1, keepdims=True)", "e.sum()", "runs over the whole batch"),
        ("axis=1", "axis=0", "down the columns"),
        ("return e / e.sum(axis=1, keepdims=True)", "return e", "largest exponential"),
        ("return e /", "return 1 - e /", DIFFERS),
        ("    e = np.exp(z - z.max(axis=1, keepdims=True))", "    z -= z.max(axis=1, keepdims=True)\n    e = np.exp(z)",
         "changes its input z in place"),
        ("return e / e.sum(axis=1, keepdims=True)", "return np.log(e / e.sum(axis=1, keepdims=True))",
         "one step too many"),
        ("return e / e.sum(axis=1, keepdims=True)", "return z / z.sum(axis=1, keepdims=True)",
         "exponential is missing"),
        ("return e / e.sum(axis=1, keepdims=True)", "return z", "it is the input z, unchanged"),
    ],
    "cross_entropy": [
        ("losses.mean()", "losses.sum()", "division by N is missing"),
        ("-(y * log_a).sum(axis=1)\n    return losses.mean()", "-(y * log_a)\n    return losses.mean()",
         "number of classes too"),
        ("losses = -", "losses = ", "minus sign"),
        ("z - z.max(axis=1, keepdims=True)", "z", "overflows for large logits"),
        ("return losses.mean()", "return losses", "one loss a sample"),
        ("return losses.mean()", "return losses.sum() / z.shape[1]", "as on the slide"),
        ("-(y * log_a)", "-(y * np.log(np.exp(log_a)))", "rounded to 0"),
        ("-(y * log_a)", "-(y * np.exp(log_a))", "logarithm is missing"),
        ("-(y * log_a)", "-(y * log_a / np.log(2))", "base 2"),
        ("-(y * log_a)", "-(y * np.log(np.exp(log_a) + 1e-12))", "caps the loss"),
    ],
    "cross_entropy_gradient": [
        ("(a - y) / len(z)", "a - y", "division by N is missing"),
        ("(a - y) / len(z)", "(y - a) / len(z)", "a − y, not y − a"),
        ("(a - y) / len(z)", "(a - y) / a.size", "number of classes too"),
        ("(a - y) / len(z)", "(z - y) / len(z)", "softmax is missing"),
        ("(a - y) / len(z)", "a / len(z)", "− y is missing"),
        ("(a - y) / len(z)", "(a - y) * a * (1 - a) / len(z)", "cancels"),
        ("z - z.max(axis=1, keepdims=True)", "z", "overflows"),
        ("(a - y) / len(z)", "(y - a)",
         "division by N is missing: the loss is a mean over the samples; and besides, the sign is flipped"),
    ],
    "im2col": [
        ("    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))\n", "",
         "raises ValueError: could not broadcast"),
        ("i * stride : i * stride + kernel_height, j * stride : j * stride + kernel_width",
         "i : i + kernel_height, j : j + kernel_width", "start one pixel apart"),
        ("return result", "return result.transpose(0, 2, 1)", "transposed"),
        ("window.reshape(n, -1)", "window.transpose(0, 2, 3, 1).reshape(n, -1)", "order (KH, KW, C)"),
        ("i * columns + j", "j * rows + i", "windows run down"),
        ("window.reshape(n, -1)", "window.swapaxes(2, 3).reshape(n, -1)", "down its columns"),
        ("(padding, padding), (padding, padding)))", "(padding, padding), (padding, padding)), mode='edge')",
         "repeats the border"),
        (") // stride + 1", ") // stride", "last row and column of windows"),
    ],
    "conv2d": [
        ("    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))\n"
         "    oh = (height + 2 * padding - kh) // stride + 1\n    ow = (width + 2 * padding - kw) // stride + 1",
         "    oh = (height - kh) // stride + 1\n    ow = (width - kw) // stride + 1", "padding is missing"),
        (" // stride + 1\n    ow = (width + 2 * padding - kw) // stride + 1",
         " + 1\n    ow = (width + 2 * padding - kw) + 1\n    stride = 1", "stride is ignored"),
        (" + b[filter]", "", "bias is forgotten"),
        ("w[filter])", "w[filter, :, ::-1, ::-1])", "kernel is flipped"),
        ("x[image, :, i", "x[0, :, i", "every image is the first"),
        ("x[image, :, i * stride : i * stride + kh, j * stride : j * stride + kw]\n"
         "                    y[image, filter, i, j] = (window * w[filter])",
         "x[image, 0, i * stride : i * stride + kh, j * stride : j * stride + kw]\n"
         "                    y[image, filter, i, j] = (window * w[filter, 0])", "only the first channel"),
        ("y[image, filter, i, j] = (window * w[filter]).sum() + b[filter]",
         "y[image, filter, i, j] = (window * w[filter] + b[filter]).sum()", "inside the sum: it belongs outside"),
        ("return y", "return y.transpose(0, 1, 3, 2)", "rows and columns exchanged"),
        ("(window * w[filter]).sum()", "(window * w[filter]).mean()", "mean over each window"),
        ("(padding, padding), (padding, padding)))", "(padding, padding), (padding, padding)), mode='edge')",
         "repeats the border"),
        ("b[filter]", "b[0]", "bias of the first filter"),
        ("return y", "return y.astype(np.float16)", "float16"),
    ],
    "conv2d_gradient": [
        ("g.sum(axis=(0, 2, 3))", "g.sum(axis=(2, 3))", "db: it is not summed over the batch"),
        ("g.sum(axis=(0, 2, 3))", "g.mean(axis=(0, 2, 3))", "db: it is averaged"),
        ("g.sum(axis=(0, 2, 3))", "g.sum(axis=0)", "db: it is not summed over the positions"),
        ("    dx = dx[:, :, padding : padding + height, padding : padding + width]\n", "",
         "dx: the padding is not cut"),
        ("dx[image, :, rows, columns] +=", "dx[image, :, rows, columns] =", "dx: windows and filters overwrite"),
        ("* w[filter]\n", "* w[filter][:, ::-1, ::-1]\n", "dx: the kernel is flipped"),
        ("return dx, dw, db", "return dx, dw / n, db", "dw: it is divided by the number of images"),
        ("* x[image, :, rows, columns]", "* x[0, :, rows, columns]", "dw: every image is taken to be the first"),
        ("return dx, dw, db", "return dx, dw[:, :, ::-1, ::-1], db", "dw: it is flipped"),
        ("return dx, dw, db", "return dx, db, dw", "order is wrong"),
        ("return dx, dw, db", "return -dx, dw, db", "dx: the sign is flipped"),
        ("return dx, dw, db", "return dx, dw", "returns 2 values, and should return 3"),
    ],
    "avg_pool2d": [
        ("window.mean(axis=(2, 3))", "window.sum(axis=(2, 3))", "division is missing"),
        ("window.mean(axis=(2, 3))", "window.max(axis=(2, 3))", "maximum of each window"),
        ("window.mean(axis=(2, 3))", "window.sum(axis=(2, 3)) / size",
         "length of a window's side"),
        ("window.mean(axis=(2, 3))", "window.sum(axis=(2, 3)) // size**2", "fractions are cut off"),
        ("def avg_pool2d(x, size, stride):", "def avg_pool2d(x, size, stride):\n    stride = size",
         "size of the window"),
        ("def avg_pool2d(x, size, stride):", "def avg_pool2d(x, size, stride):\n    stride = 1", "stride is ignored"),
        ("def avg_pool2d(x, size, stride):", "def avg_pool2d(x, size):", "it takes (x, size), and is called with"),
        ("return y", "return y.swapaxes(2, 3)", "rows and columns exchanged"),
        ("// stride + 1", "// stride", "last row and column"),
    ],
    "avg_pool2d_gradient": [
        (" / size**2", "", "division by size² is missing"),
        (" / size**2", " / size", "length of a window's side"),
        ("] += share", "] = share", "overwrite each other"),
        ("i * stride : i * stride + size, j * stride : j * stride + size] += share",
         "i * stride, j * stride] += share[:, :, 0, 0] * size**2", "first pixel of each window"),
        ("return dx", "return -dx", "sign is flipped"),
        ("    dx = np.zeros(x.shape)", "    stride = size\n    dx = np.zeros(x.shape)", "size of the window"),
        ("size**2", "stride**2", "stride squared"),
    ],
    "conv2d_parameters": [
        (" + 1", "", "biases are forgotten"),
        ("out_channels * one_filter", "one_filter", "number of filters"),
        ("kernel_height * kernel_width", "kernel_height**2", "square by its height"),
        ("in_channels * kernel_height", "kernel_height", "input channels are forgotten"),
        ("kernel_height * kernel_width", "(kernel_height + kernel_width)", "should be multiplied"),
        ("out_channels * one_filter", "out_channels * one_filter / 1", "a float"),
        ("+ 1\n    return out_channels * one_filter", "\n    return out_channels * one_filter + 1", "one bias"),
        ("return out_channels * one_filter", "return out_channels * one_filter + 1", "one too many"),
    ],
    "local_response_norm": [
        ("alpha * total", "alpha / n * total", "alpha is divided by n"),
        (" ** 2)", ")", "squares are missing"),
        ("(k + alpha * total) ** beta", "(k + alpha * total)", "beta is forgotten"),
        ("x[:, c] / (k", "x[:, c] * (k", "multiplies where it should divide"),
        ("first : last + 1", "first : last", "lacks its last channel"),
        ("n // 2), min", "n), min", DIFFERS),
        ("x[:, first : last + 1]", "x", "sum runs over all channels"),
        ("(k + alpha", "(1 + alpha", "k is taken to be 1"),
    ],
    "grouped_conv2d_cost": [
        ("in_channels // groups", "in_channels", "parameters: the groups are ignored"),
        ("weights + out_channels", "weights", "parameters: the biases are forgotten"),
        ("weights * height * width", "parameters * height * width", "mult_adds: the biases are counted"),
        ("weights * height * width", "weights * height * height", "mult_adds: the output is taken to be square"),
        ("weights * height * width", "weights", "mult_adds: the positions are forgotten"),
        ("weights * height * width", "2 * weights * height * width", "mult_adds: a multiplication and an addition"),
        ("return parameters, mult_adds", "return mult_adds, parameters", "order is wrong"),
        ("in_channels // groups", "in_channels / groups", "parameters: its value is right, but a float"),
    ],
    "max_pool2d": [
        ("row * w + column", "best", "switches: they count within the window"),
        ("row * w + column", "column * h + row", "switches: they are column"),
        ("row * w + column", "row * ow + column", "switches: they use the width of the output"),
        ("row * w + column", "row * w + column + 1", "switches: they count from 1"),
        ("window.max(axis=2)", "window.mean(axis=2)", "y: it is the mean"),
        ("window.max(axis=2)", "np.maximum(0, window.max(axis=2))", "y: the maximum is at least 0"),
        ("window.argmax(axis=2)", "size**2 - 1 - window[:, :, ::-1].argmax(axis=2)", "take the last: the first counts"),
        ("window.max(axis=2)", "np.abs(window).max(axis=2)", "y: it is the largest absolute value"),
        ("np.zeros((n, c, oh, ow), int)", "np.zeros((n, c, oh, ow))", "switches: its value is right, but a float"),
        ("    return y, switches", "    return y", "one ndarray, and should return a tuple of 2"),
    ],
    "unpool2d": [
        ("] += g", "] = g", "overwrite each other"),
        ("= switches[image, channel, i, j]", "= switches[image, channel, i, j] - 1", "counted from 1"),
        ("= switches[image, channel, i, j]", "= switches[image, 0, i, j]", "switches of the first channel"),
        ("= switches[image, channel, i, j]", "= switches[0, channel, i, j]", "switches of the first image"),
        ("+= g[image, channel, i, j]", "+= 1", "holds 1 at the switches"),
        ("+= g[image, channel, i, j]", "+= g[image, 0, i, j]", "values of the first channel"),
        ("    return x", "    return x.reshape(n, c, -1)", "stay flat"),
        ("    return x", "    return 2 * x", "2 times the right one"),
    ],
    "receptive_field": [
        ("        step *= stride\n", "", "strides are ignored"),
        ("        pixels += (kernel - 1) * step\n        step *= stride\n",
         "        step *= stride\n        pixels += (kernel - 1) * step\n", "own stride counts for its own window"),
        ("(kernel - 1) * step", "kernel * step", "adds kernel steps"),
        ("pixels, step = 1, 1", "pixels, step = 0, 1", "first pixel is forgotten"),
        ("in layers:", "in reversed(layers):", "from its last layer"),
        ("step *= stride", "step = stride", "only the stride of the layer before"),
        ("step *= stride", "step += stride - 1", "strides add up"),
        ("return pixels", "return pixels**2", "pixels of the square"),
        ("pixels += (kernel - 1) * step\n        step *= stride", "pixels *= kernel", "kernels are multiplied"),
    ],
    "inception_cost": [
        ("kernel**2", "kernel", "naive: the kernels count 3 and 5"),
        (" * height * width", "", "naive: the positions are forgotten"),
        ("    bottlenecks += cost(in_channels, p, 1)\n", "", "bottlenecks: the projection behind the pool"),
        ("f1, r3, f3, r5, f5", "f1, r5, f3, r3, f5", "bottlenecks: r3 and r5 are exchanged"),
        ("cost(r3, f3, 3)", "cost(r5, f3, 3)", DIFFERS),
        ("cost(in_channels, r3, 1) + cost(r3, f3, 3)\n    bottlenecks += cost(in_channels, r5, 1) + cost(r5, f5, 5)",
         "cost(r3, f3, 3) + cost(r5, f5, 5)", "bottlenecks: two bottlenecks are forgotten"),
        ("    bottlenecks = cost(in_channels, f1, 1)", "    bottlenecks = 0", "bottlenecks: the 1 × 1 branch"),
        ("    naive = cost(in_channels, f1, 1) +", "    naive =", "naive: the 1 × 1 branch"),
        ("return naive, bottlenecks", "return bottlenecks, naive", "order is wrong"),
        ("return naive, bottlenecks", "return 2 * naive, bottlenecks", "naive: a multiplication and an addition"),
    ],
    "chain_gradient": [
        (" * weight\n", "\n", "weights are missing"),
        ("y * (1 - y) * weight", "weight", "slopes are missing"),
        ("        x = y\n", "", "every layer sees x₀"),
        ("gradient *=", "gradient +=", "layers are added"),
        ("y * (1 - y) * weight", "y * weight", "σ stands in place of its slope"),
        ("y * (1 - y) * weight", "weight / 4", "1/4 is taken for every layer"),
        ("in w:", "in w[::-1]:", "reverse order"),
        ("return gradient", "return x", "value of the chain"),
        ("in w:", "in w[:-1]:", "last layer is missing"),
        ("return gradient", "return -gradient", "sign is flipped"),
    ],
    "clip_grad_norm": [
        ("np.sqrt((dw**2).sum() + (db**2).sum())", "(dw**2).sum() + (db**2).sum()", "root is missing"),
        ("min(1, max_norm / norm)", "max_norm / norm", "short gradients are lengthened"),
        ("return dw * scale, db * scale", "return np.clip(dw, -max_norm, max_norm), np.clip(db, -max_norm, max_norm)",
         "every entry is clipped"),
        ("np.sqrt((dw**2).sum() + (db**2).sum())", "np.linalg.norm(dw) + np.linalg.norm(db)",
         "norms of the arrays are added"),
        ("np.sqrt((dw**2).sum() + (db**2).sum())", "np.abs(dw).sum() + np.abs(db).sum()", "Σ |x|"),
        ("np.sqrt((dw**2).sum() + (db**2).sum())", "np.linalg.norm(dw)",
         "dw: it is clipped by the norm of this array"),
        ("return dw * scale, db * scale", "return dw, db", "not clipped at all"),
        ("return dw * scale, db * scale", "dw *= scale\n    db *= scale\n    return dw, db",
         "changes its input dw in place"),
        ("return dw * scale, db * scale", "return dw * scale, db", "db: it is not clipped at all"),
        ("return dw * scale, db * scale", "return db * scale, dw * scale", "order is wrong"),
    ],
    "residual_block_gradient": [
        ("dx = g + back @ w1", "dx = back @ w1", "dx: the identity path is missing"),
        ("dx = g + back @ w1", "dx = g", "dx: only the identity path"),
        ("(g @ w2) * on", "g @ w2", "dx: the derivative of the ReLU is missing"),
        ("back.T @ x", "x.T @ back", "dw1: it is transposed"),
        ("g.T @ np.maximum(hidden, 0)", "g.T @ hidden", "dw2: the ReLU is missing"),
        ("back.T @ x", "back.T @ x / len(x)", "dw1: it is divided by the number of images"),
        ("dx = g + back @ w1", "dx = g * (back @ w1)", "dx: the paths are multiplied"),
        ("on = hidden > 0", "on = hidden >= 0", "dx: a gradient passes the ReLU where W₁ x is exactly 0"),
        ("dx = g + back @ w1", "dx = 1 + back @ w1", "dx: the identity path passes 1"),
        ("g.T @ np.maximum(hidden, 0)", "np.maximum(hidden, 0).T @ g", "dw2: it is transposed"),
        ("return dx, dw1, dw2", "return dw1, dw2, dx", "order is wrong"),
    ],
    "batch_norm": [
        ("(0, 2, 3)", "0", "over the batch alone"),
        ("(0, 2, 3)", "(2, 3)", "over each image alone"),
        ("(0, 2, 3)", "(0, 1, 2, 3)", "over everything"),
        ("x.var(axis=(0, 2, 3), keepdims=True)", "x.var(axis=(0, 2, 3), keepdims=True, ddof=1)", "unbiased"),
        ("np.sqrt(variance + eps)", "(variance + eps)", "root is missing"),
        ("np.sqrt(variance + eps)", "(np.sqrt(variance) + eps)", "belongs under the root"),
        (" + beta[:, None, None]", "", "beta is forgotten"),
        ("gamma[:, None, None] * x_hat", "x_hat", "gamma is forgotten"),
        ("[:, None, None]", "", "gamma and beta run along the columns"),
        ("x - mean", "x", "mean is not subtracted"),
        ("variance + eps", "variance", "ε is forgotten"),
    ],
    "batch_norm_gradient": [
        ("inner = g - g.mean(axis=axes, keepdims=True) - x_hat * (g * x_hat).mean(axis=axes, keepdims=True)",
         "inner = g", "dx: mean and variance are taken for constants"),
        (" - x_hat * (g * x_hat).mean(axis=axes, keepdims=True)", "", "dx: the term through the variance"),
        ("g - g.mean(axis=axes, keepdims=True) - x_hat", "g - x_hat", "dx: the term through the mean"),
        ("gamma[:, None, None] / np", "1 / np", "dx: gamma is forgotten"),
        ("dgamma = (g * x_hat).sum(axis=axes)", "dgamma = (g * x).sum(axis=axes)", "dgamma: x stands where x̂"),
        ("dbeta = g.sum(axis=axes)", "dbeta = g.mean(axis=axes)", "dbeta: it is averaged"),
        ("dbeta = g.sum(axis=axes)", "dbeta = g.sum(axis=0)", "dbeta: it is not summed over rows"),
        ("return dx, dgamma, dbeta", "return dx, dbeta, dgamma", "order is wrong"),
        ("g.mean(axis=axes, keepdims=True)", "g.sum(axis=axes, keepdims=True)", DIFFERS),
    ],
}

def made(source):
    """The function that `source` defines."""
    room = {"np": np}
    exec(compile(source, "homework.py", "exec"), room)
    return next(value for value in room.values() if inspect.isfunction(value))


def spoilt(name, was, became):
    source = answers.SOLUTIONS[name]
    assert was in source, f"the right answer to {name} has no {was!r}"
    return made(source.replace(was, became))


def failure(name, function):
    with pytest.raises(check.ExerciseError) as raised:
        check.exercise(name, function)
    return raised.value


every_exercise = pytest.mark.parametrize("name", EXERCISES)


# Right and wrong answers

@every_exercise
def test_the_right_answer_passes(name):
    confirmation = check.exercise(name, getattr(answers, name))
    assert confirmation == f"{name}: right in all {len(EXERCISES[name].solved)} cases."


@pytest.mark.parametrize("name, was, became, words", [
    pytest.param(name, *row, id=f"{name}: {row[2]}") for name, rows in SPOILT.items() for row in rows
])
def test_a_spoilt_answer_gets_its_diagnosis(name, was, became, words):
    error = failure(name, spoilt(name, was, became))
    assert words in error.diagnosis and str(error).startswith(f"{name}: {error.diagnosis}\n")


@every_exercise
def test_at_least_five_mistakes_have_diagnoses_of_their_own(name):
    told = [failure(name, spoilt(name, was, became)).diagnosis for was, became, _ in SPOILT[name]]
    assert len({diagnosis for diagnosis in told if DIFFERS not in diagnosis}) >= 5


@every_exercise
def test_the_mistakes_of_the_table_are_told_apart(name):
    """Each entry differs from the right answer, and from every other entry, in some case."""
    exercise = EXERCISES[name]
    for position, output in enumerate(exercise.outputs):
        for words, variant in exercise.mistakes[output.name].items():
            parameters = list(inspect.signature(variant).parameters)
            got = []
            for case in exercise.solved:
                try:
                    with np.errstate(all="ignore"):
                        value = variant(**{parameter: case.arguments[parameter] for parameter in parameters})
                except (ValueError, IndexError, ZeroDivisionError):
                    continue
                value = value.numpy() if isinstance(value, dl.Tensor) else np.asarray(value)
                got.append(Answer(value, case.right[position], case))
            assert not all(answer.is_right for answer in got)
            assert diagnose(exercise, output.name, got) == words


def test_minidls_own_functions_are_right_answers():
    assert check.exercise("conv2d", F.conv2d) and check.exercise("sigmoid", lambda x: F.sigmoid(dl.tensor(x)))


@pytest.mark.parametrize("name", [name for name in EXERCISES if isinstance(EXERCISES[name].reference, Gradient)])
def test_the_reference_gradients_agree_with_finite_differences(name):
    exercise = EXERCISES[name]
    for case in exercise.solved[:6]:
        arguments = tuple(case.arguments.values())
        for position, right in enumerate(case.right):
            for index in np.ndindex(right.shape):
                slope = exercise.reference.slope(arguments, position, index)
                assert slope == pytest.approx(right[index], rel=1e-5, abs=1e-7)


# The figures of the lecture

def test_the_costs_are_those_that_minidl_counts():
    cost, parameters = (EXERCISES[name].reference for name in ("grouped_conv2d_cost", "conv2d_parameters"))
    assert parameters(3, 96, 11, 11) == 34_944 == cost(3, 96, 11, 1, 55, 55)[0]
    assert cost(96, 256, 5, 2, 27, 27)[0] == 307_456
    counted = dl.summary(dl.nn.Conv2d(6, 12, 3, padding=1, groups=3), (6, 4, 5), measure_peak=False)
    assert cost(6, 12, 3, 3, 4, 5) == (counted.total_params, counted.total_mult_adds)


def test_the_cost_of_an_inception_module_is_what_minidl_counts():
    channels, f1, (r3, f3), (r5, f5), p = MODULES["3a"]
    module = models.googlenet(aux_logits=False).inception3a
    counted = dl.summary(module, (channels, 28, 28), measure_peak=False)
    naive, bottlenecks = EXERCISES["inception_cost"].reference(channels, f1, r3, f3, r5, f5, p, 28, 28)
    assert bottlenecks == counted.total_mult_adds and naive > 2 * bottlenecks


def test_the_receptive_field_is_what_minidl_follows():
    net = dl.nn.Sequential(dl.nn.Conv2d(1, 1, 5), dl.nn.AvgPool2d(2), dl.nn.Conv2d(1, 1, 5), dl.nn.AvgPool2d(2))
    (*_, last) = dl.summary(net, (1, 32, 32), measure_peak=False).layers
    layers = [(5, 1), (2, 2), (5, 1), (2, 2)]
    assert last.receptive_field == (EXERCISES["receptive_field"].reference(layers),) * 2


# What a message says

def test_a_failure_shows_the_smallest_case_and_what_came():
    message = str(failure("conv2d", spoilt("conv2d", " + b[filter]", "")))
    assert "Wrong in 13 of 13 cases. The smallest one: one pixel, a 1 × 1 kernel" in message
    assert re.search(r"x +=.*\n +w +=.*\n +b +=.*\n +stride  = 1\n +padding = 0\n", message)
    assert re.search(r"expected y = .*\ngot y +=", message) and "y[0, 0, 0, 0] should be" in message


def test_a_wrong_gradient_is_contradicted_by_finite_differences():
    message = str(failure("sigmoid_gradient", lambda g, x: g * x))
    right = re.search(r"should be (\S+) and is", message)
    slope = re.search(r"Finite differences of the loss give (\S+) there", message)
    assert float(right[1]) == pytest.approx(float(slope[1]), rel=1e-4)


def test_of_several_outputs_it_is_said_which_are_right():
    message = str(failure("conv2d_gradient", spoilt("conv2d_gradient", "g.sum(axis=(0, 2, 3))", "g.sum(axis=(2, 3))")))
    assert "Right: dx, dw. Wrong: db." in message


def test_what_wrong_cases_share_is_said_where_no_mistake_is_known():
    def wrong_at_a_stride(x, w, b, stride, padding):
        return answers.conv2d(x, w, b, stride, padding) * (1 if stride == 1 else np.pi + x[0, 0, 0, 0])

    error = failure("conv2d", wrong_at_a_stride)
    assert DIFFERS in error.diagnosis and "It is wrong exactly where stride > 1." in str(error)


def test_a_case_that_fails_is_a_wrong_one():
    """NumPy's own error is shown, and what the cases share is said of all of them."""
    def without_keepdims(z):
        e = np.exp(z - z.max(axis=1, keepdims=True))
        return e / e.sum(axis=1)

    message = str(failure("softmax", without_keepdims))
    assert "It is wrong exactly where N > 1." in message and "Wrong in 7 of 9 cases." in message
    assert "In 5 of these cases it raises ValueError: operands could not be broadcast" in message


@pytest.mark.parametrize("loss, words", [
    (lambda z, y: -(y * np.log(overflowing_softmax(z))).sum(), "the division by N is missing"),
    (lambda z, y: -(y * np.log(overflowing_softmax(z))).mean(), "divided by the number of classes too"),
])
def test_a_mistake_is_known_beside_an_overflow(loss, words):
    diagnosis = failure("cross_entropy", loss).diagnosis
    assert words in diagnosis and "and besides, in some cases it is not finite" in diagnosis


def overflowing_softmax(z):
    e = np.exp(z)
    return e / e.sum(axis=1, keepdims=True)


def test_the_message_in_the_readme_is_a_real_one():
    readme = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    shown = re.search(r"```\nExerciseError: (conv2d_gradient.*?)\n    \.\.\.\n```", readme, re.DOTALL)[1]
    error = failure("conv2d_gradient", spoilt("conv2d_gradient", "g.sum(axis=(0, 2, 3))", "g.sum(axis=(2, 3))"))
    assert str(error).startswith(shown + "\n")


def test_where_the_wrong_entries_lie_is_said():
    message = str(failure("conv2d", spoilt("conv2d", "for j in range(ow)", "for j in range(oh)")))
    assert DIFFERS in message and "All that is wrong lies in y[:, :, :, 2:4], and is 0: is it ever written?" in message
    message = str(failure("sigmoid", lambda x: answers.sigmoid(x) + (np.arange(x.size).reshape(x.shape) == 2)))
    assert "All that is wrong lies in y[2:3]." in message


def test_finite_differences_are_not_called_upon_at_a_kink():
    message = str(failure("residual_block_gradient", spoilt("residual_block_gradient", "hidden > 0", "hidden >= 0")))
    assert "kink of the ReLU" in message and "Finite differences" not in message


def test_a_large_array_is_not_printed():
    message = str(failure("conv2d", lambda x, w, b, stride, padding: answers.conv2d(x, w, b, stride, padding) * (
        1 + (len(b) > 3))))
    assert "w       = an array of shape (4, 3, 3, 2)" in message and len(message) < 3000


GENERAL = [
    (lambda z: np.pi * answers.softmax(z), "it is 3.142 times the right one"),
    (lambda z: answers.softmax(z) / z.shape[1], "it is 1/C of the right one"),
    (lambda z: answers.softmax(z) * len(z), "it is N times the right one"),
    (lambda z: answers.softmax(z).T, "the axes are transposed|the last two axes are transposed"),
    (lambda z: answers.softmax(z).ravel(), "its values are right, but its shape is not"),
    (lambda z: answers.softmax(z)[:, :, None] * np.array([0.5, 0.5]), "it is not summed over axis 2"),
    (lambda z: 0 * z, "it is zero everywhere"),
    (lambda z: answers.softmax(z) - 1, "it is one too few"),
    (lambda z: answers.softmax(z).sum(), "it is summed over everything"),
    (lambda z: answers.softmax(z) / np.where(z > 900, 0, 1), "it is not finite"),
]


@pytest.mark.parametrize("wrong, words", GENERAL, ids=[words for _, words in GENERAL])
def test_mistakes_that_happen_everywhere_are_known(wrong, words):
    assert re.match(words, failure("softmax", wrong).diagnosis)


def wrong_list(z):
    return [[1.0], [1.0, 2.0]]


def stops(z):
    raise SystemExit(3)


def divides(z):
    number = 0
    return 1 / number


def blank(z):
    raise NotImplementedError


def asks_too_much(z):
    return memoryview(z)[0]


UNUSABLE = [
    (blank, "it is not done yet"),
    (asks_too_much, "it raises NotImplementedError: multi-dimensional sub-views are not implemented (line "),
    (lambda z: ..., "it is not done yet"),
    (lambda z: None, "it returns None"),
    (lambda z: "a", "it returns <U1 values"),
    (lambda z: [None], "it returns object values, and should return real numbers: a part of it is None?"),
    (lambda z: z * 1j, "it returns complex128 values"),
    (wrong_list, "different lengths"),
    (stops, "it calls sys.exit"),
    (divides, "it raises ZeroDivisionError: division by zero (line {line}: return 1 / number)"),
    (lambda: 1, "it takes (), and is called with (z)"),
    (lambda z, dim: z, "it takes (z, dim), and is called with (z)"),
]


@pytest.mark.parametrize("function, words", UNUSABLE, ids=[words for _, words in UNUSABLE])
def test_what_is_no_answer_is_called_so(function, words):
    line = inspect.getsourcelines(divides)[1] + 2
    assert words.format(line=line) in failure("softmax", function).diagnosis


def test_a_function_that_refuses_whole_numbers_is_told_that_they_are_some():
    def of_floats_only(z):
        if z.dtype.kind != "f":
            raise TypeError("no softmax of int64")
        return answers.softmax(z)

    error = failure("softmax", of_floats_only)
    assert "it raises TypeError: no softmax of int64" in error.diagnosis
    assert "z holds whole numbers here (dtype int64)" in str(error) and "z = np.asarray(z, float)" in str(error)
    assert "whole numbers" not in str(failure("softmax", divides))


def test_an_error_inside_numpy_or_minidl_names_the_students_line():
    def wrong(x, w, b, stride, padding):
        return F.conv2d(x, w[:, :, None], b)

    assert "return F.conv2d(x, w[:, :, None], b)" in failure("conv2d", wrong).diagnosis


def test_a_wrong_value_counts_before_an_error_in_a_larger_case():
    def wrong(x, size, stride):
        if len(x) > 1:
            raise ValueError("too many")
        return answers.avg_pool2d(x, size, stride) * size**2

    assert "division is missing" in failure("avg_pool2d", wrong).diagnosis


@every_exercise
def test_arguments_are_as_its_signature_says(name):
    exercise = EXERCISES[name]
    assert list(inspect.signature(getattr(answers, name)).parameters) == [of.name for of in exercise.parameters]
    assert set(exercise.mistakes) == {output.name for output in exercise.outputs}
    assert len({case.title for case in exercise.solved}) == len(exercise.solved) >= 6


def test_the_list_has_every_exercise_by_unit():
    listed = check.exercises()
    assert [entry.name for entry in listed] == list(EXERCISES)
    assert len({entry.unit for entry in listed}) == 10
    assert all(entry.signature.startswith(f"{entry.name}(") and ") -> " in entry.signature for entry in listed)


def test_an_unknown_exercise_is_an_error_that_names_the_others():
    with pytest.raises(ValueError, match=r"no exercise 'conv'.*softmax.*conv2d"):
        check.exercise("conv", print)
    with pytest.raises(TypeError, match="must be a function; got ndarray"):
        check.exercise("softmax", np.ones(2))


def test_an_answer_is_judged_the_same_at_every_call():
    assert str(failure("softmax", np.exp)) == str(failure("softmax", np.exp))
