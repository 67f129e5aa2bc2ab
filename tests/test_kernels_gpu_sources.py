"""Every kernel of the GPU is compiled by NVRTC for an A100 and an H100, as CuPy would; that needs CuPy, but no GPU."""

import importlib
import importlib.util
import pkgutil
from pathlib import Path

import numpy as np
import pytest

cupy = pytest.importorskip("cupy", reason="CuPy is not installed", exc_type=ImportError)
pytest.importorskip("nvidia", reason="needs the packages nvidia-cuda-nvrtc, -runtime and -cccl")

from cupy._core import _kernel, _reduction  # noqa: E402
from cupy._core._carray import Indexer  # noqa: E402
from cupy.cuda import compiler  # noqa: E402

from minidl.kernels import gpu  # noqa: E402

NDARRAY, INDEXER, SCALAR = 1, 2, 3  # CuPy's kinds of arguments
HEADERS = "#include <cupy/complex.cuh>\n#include <cupy/carray.cuh>\n#include <cupy/atomics.cuh>\n"


def kernels():
    for module in pkgutil.iter_modules(gpu.__path__):
        for value in vars(importlib.import_module(f"{gpu.__name__}.{module.name}")).values():
            if isinstance(value, (cupy.ElementwiseKernel, cupy.ReductionKernel)):
                yield pytest.param(value, id=value.name)


def folders():
    yield Path(cupy.__file__).parent / "_core/include"
    for place in importlib.util.find_spec("nvidia").submodule_search_locations:
        yield from (*Path(place).glob("*/include"), *Path(place).glob("*/include/cccl"))


def source(kernel, dtype):
    """What CuPy generates for arrays of one dtype."""
    def argument(parameter):
        if parameter.name.endswith("_ind"):
            return _kernel._ArgInfo(INDEXER, Indexer, None, 1, True, True)
        if parameter.dtype is not None:
            kind = np.dtype(parameter.dtype).type
            if parameter.raw:
                return _kernel._ArgInfo(NDARRAY, cupy.ndarray, kind, 1, True, True)
            return _kernel._ArgInfo(SCALAR, kind, kind, 0, True, True)
        return _kernel._ArgInfo(NDARRAY, cupy.ndarray, dtype.type, 1, True, True)

    parameters = kernel.params if isinstance(kernel, cupy.ElementwiseKernel) else kernel._params
    arguments, types = tuple(map(argument, parameters)), _kernel._TypeMap((("T", dtype.type), ("IndexT", np.int64)))
    if isinstance(kernel, cupy.ElementwiseKernel):
        return _kernel._get_elementwise_kernel_code(
            arguments, types, parameters, kernel.operation, kernel.name, kernel.preamble
        )
    return _reduction._ReductionKernel_get_cached_function_code(
        kernel.nin, kernel.nout, parameters, arguments, types, kernel.name, 512, "T", kernel.identity,
        kernel.map_expr, kernel.reduce_expr, kernel.post_map_expr, kernel.preamble, kernel.options
    )


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("kernel", [*kernels()])
def test_nvrtc_compiles_the_kernel(kernel, dtype):
    program = HEADERS + source(kernel, np.dtype(dtype))
    for architecture in ("compute_80", "compute_90"):
        options = (f"-arch={architecture}", "-std=c++17", *(f"-I{folder}" for folder in folders()))
        ptx, _ = compiler._NVRTCProgram(program, f"{kernel.name}.cu").compile(options)
        assert kernel.name.encode() in ptx
