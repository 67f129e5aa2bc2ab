"""Differentiable operations, each with its gradients beside it. Names, arguments and defaults are PyTorch's; the
arguments of reductions and of `transpose` are NumPy's.

Every operation takes tensors (arrays, and in arithmetic numbers, count as constants) and returns a tensor. To add one,
write a function from arrays to ``(value, gradients)`` under `@differentiable`; see any file here.
"""

from ..kernels.cpu.convolution import conv_algorithm
from .activation import log_softmax, relu, sigmoid, softmax, tanh
from .arithmetic import abs, add, clone, div, exp, log, mul, neg, pow, sqrt, sub, to
from .convolution import col2im, conv2d, conv_transpose2d, im2col
from .linear import linear, matmul
from .loss import binary_cross_entropy, binary_cross_entropy_with_logits, cross_entropy, mse_loss, nll_loss
from .normalization import batch_norm, local_response_norm
from .pooling import adaptive_avg_pool2d, avg_pool2d, max_pool2d
from .reduction import max, mean, min, sum, var
from .regularization import dropout
from .shape import cat, flatten, getitem, pad, reshape, transpose

__all__ = [
    "abs", "adaptive_avg_pool2d", "add", "avg_pool2d", "batch_norm", "binary_cross_entropy",
    "binary_cross_entropy_with_logits", "cat", "clone", "col2im", "conv2d", "conv_algorithm", "conv_transpose2d",
    "cross_entropy", "div", "dropout", "exp", "flatten", "getitem", "im2col", "linear", "local_response_norm", "log",
    "log_softmax", "matmul", "max", "max_pool2d", "mean", "min", "mse_loss", "mul", "neg", "nll_loss", "pad", "pow",
    "relu", "reshape", "sigmoid", "softmax", "sqrt", "sub", "sum", "tanh", "to", "transpose", "var",
]
