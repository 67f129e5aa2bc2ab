"""The kernels on CuPy, with sources of our own: no cuDNN, no atomic addition, the same bits in every run."""

from .convolution import conv2d, conv2d_bias_gradient, conv2d_input_gradient, conv2d_weight_gradient
from .dropout import dropout
from .loss import label_losses, label_losses_gradient, log_softmax
from .normalization import normalize_channels, normalize_channels_gradient, scale_channels
from .pointwise import pointwise
from .pooling import max_pool2d, max_pool2d_gradient, sum_pool2d, sum_pool2d_gradient
from .product import matmul
from .reduction import sum_over
from .response import local_response_norm, local_response_norm_gradient
from .scatter import scatter_add
from .update import sgd

__all__ = [
    "conv2d", "conv2d_bias_gradient", "conv2d_input_gradient", "conv2d_weight_gradient", "dropout", "label_losses",
    "label_losses_gradient", "local_response_norm", "local_response_norm_gradient", "log_softmax", "matmul",
    "max_pool2d", "max_pool2d_gradient", "normalize_channels", "normalize_channels_gradient", "pointwise",
    "scale_channels", "scatter_add", "sgd", "sum_over", "sum_pool2d", "sum_pool2d_gradient",
]
