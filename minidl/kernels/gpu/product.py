"""Matrix products: cuBLAS's, in float32 unless `set_float32_matmul_precision` lets them be rounder and faster."""

from __future__ import annotations

import cupy
import numpy as np

from ...backend import get_float32_matmul_precision

COMPUTE_TYPES = {"high": "CUBLAS_COMPUTE_32F_FAST_TF32", "medium": "CUBLAS_COMPUTE_32F_FAST_16BF"}
SCALARS = np.array([1, 0], np.float32)
"""By which cuBLAS multiplies the product and what was there before."""


def matmul(a: cupy.ndarray, b: cupy.ndarray) -> cupy.ndarray:
    """a (…, M, K) · b (…, K, N) → (…, M, N), broadcasting the leading axes as NumPy does.

    A product of two float32 matrices is as precise as `minidl.set_float32_matmul_precision` says.
    """
    compute_type = COMPUTE_TYPES.get(get_float32_matmul_precision())
    if compute_type is None or a.ndim != 2 or b.ndim != 2 or a.dtype != "f" or b.dtype != "f" or not a.size * b.size:
        return cupy.matmul(a, b)
    return _rounded(a, b, compute_type)


def _rounded(a: cupy.ndarray, b: cupy.ndarray, compute_type: str) -> cupy.ndarray:
    from cupy_backends.cuda.libs import cublas  # loads the library

    # cuBLAS reads matrices by columns: what it is given and writes are the transposes, (A B)ᵀ = Bᵀ Aᵀ.
    (m, k), n, single = a.shape, b.shape[1], cupy.cuda.runtime.CUDA_R_32F
    (a, lda, turned_a), (b, ldb, turned_b) = _by_columns(a), _by_columns(b)
    y = cupy.empty((m, n), a.dtype)
    one, zero = SCALARS.ctypes.data, SCALARS[1:].ctypes.data
    cublas.gemmEx(
        cupy.cuda.device.get_cublas_handle(), int(turned_b), int(turned_a), n, m, k, one, b.data.ptr, single, ldb,
        a.data.ptr, single, lda, zero, y.data.ptr, single, n, getattr(cublas, compute_type),
        cublas.CUBLAS_GEMM_DEFAULT_TENSOR_OP,
    )
    return y


def _by_columns(x: cupy.ndarray) -> tuple[cupy.ndarray, int, bool]:
    """A contiguous `x`, the distance of its columns as cuBLAS sees it, and whether it has to transpose it."""
    if x.flags.f_contiguous and not x.flags.c_contiguous:
        return x, x.shape[0], True
    return cupy.ascontiguousarray(x), x.shape[1], False
