"""The kernels in NumPy, on a pool of threads."""

from .convolution import conv2d, conv2d_input_gradient, conv2d_weight_gradient
from .memory import keep_freed_memory
from .pooling import max_pool2d, max_pool2d_gradient, sum_pool2d, sum_pool2d_gradient
from .product import matmul
from .threads import get_num_threads, parallel, set_num_threads, single_threaded_blas

__all__ = [
    "conv2d", "conv2d_input_gradient", "conv2d_weight_gradient", "get_num_threads", "matmul", "max_pool2d",
    "max_pool2d_gradient", "parallel", "set_num_threads", "single_threaded_blas", "sum_pool2d", "sum_pool2d_gradient",
]

keep_freed_memory()
