"""The stand-in for CuPy refuses what CuPy refuses, computes what NumPy computes, and offers nothing that CuPy lacks."""

import copy
import gc
import operator
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import strict_cupy
from cases import LAYOUTS

cupy = strict_cupy.module()
needs_compiler = pytest.mark.skipif(strict_cupy.compiler() is None, reason="kernels need a C++ compiler")


def on_gpu(*shape, dtype="float32"):
    return cupy.asarray(np.random.default_rng(0).standard_normal(shape).astype(dtype))


def check_same(ours, numpys):
    assert isinstance(ours, cupy.ndarray)
    assert ours.dtype == numpys.dtype and ours.shape == numpys.shape
    np.testing.assert_array_equal(ours.get(), numpys)


# NumPy and CuPy do not mix

BINARY = [operator.add, operator.sub, operator.mul, operator.truediv, operator.floordiv, operator.mod, operator.pow,
          operator.lt, operator.le, operator.gt, operator.ge, operator.eq, operator.ne]
BITS = [operator.and_, operator.or_, operator.xor, operator.lshift, operator.rshift]
IN_PLACE = [operator.iadd, operator.isub, operator.imul, operator.itruediv, operator.ifloordiv, operator.imod,
            operator.ipow]


@pytest.mark.parametrize("function", [
    np.asarray, np.array, np.sum, np.exp, np.sqrt, np.isfinite, np.ascontiguousarray, np.zeros_like, np.shape,
    lambda x: np.add(x, x), lambda x: np.maximum(x, 0), lambda x: np.concatenate([x, x]), lambda x: np.asarray([x]),
    lambda x: np.matmul(x, x), lambda x: np.add(1.0, 2.0, out=x), lambda x: np.zeros(3).__setitem__(..., x),
    lambda x: np.result_type(x, 0), lambda x: np.where(x, x, x), lambda x: np.dot(np.ones(3), x),
    lambda x: np.copyto(np.ones(3), x), lambda x: np.ones(3).dot(x), lambda x: np.add.reduce(x), memoryview,
])
def test_numpy_refuses_an_array_of_a_gpu(function):
    with pytest.raises(TypeError):
        function(cupy.ones(3))


@pytest.mark.parametrize("other", [np.ones(3, "float32"), np.array(2.0)], ids=["three", "0-d"])
@pytest.mark.parametrize("function", [*BINARY, *IN_PLACE, operator.matmul])
def test_operators_refuse_numpys_arrays_on_either_side(function, other):
    with pytest.raises(TypeError):
        function(cupy.ones(3, "float32"), other)
    with pytest.raises(TypeError):
        function(other.copy(), cupy.ones(3, "float32"))


@pytest.mark.parametrize("function", [
    lambda x, n: x.__setitem__(..., n), lambda x, n: x.__setitem__(0, np.array(1.0)), lambda x, n: x[np.array([0, 1])],
    lambda x, n: x[n > 0], lambda x, n: x[..., np.array(0)], lambda x, n: cupy.exp(n), lambda x, n: cupy.sum(n),
    lambda x, n: cupy.where(x > 0, x, n), lambda x, n: cupy.where(n > 0, x, x), lambda x, n: cupy.matmul(x, n),
    lambda x, n: cupy.concatenate([x, n]), lambda x, n: cupy.maximum(x, 0, out=n), lambda x, n: x.sum(out=n),
    lambda x, n: cupy.add.at(x, [0], n), lambda x, n: cupy.add.at(x, np.array([0]), 1), lambda x, n: x.dot(n),
    lambda x, n: cupy.take(x, np.array([0])), lambda x, n: x.fill(n), lambda x, n: x.clip(n, 1),
    lambda x, n: cupy.copyto(x, n), lambda x, n: cupy.zeros_like(n), lambda x, n: cupy.may_share_memory(x, n),
    lambda x, n: cupy.broadcast_to(n, (2, 3)), lambda x, n: cupy.ascontiguousarray(n), lambda x, n: cupy.full(3, n),
])
def test_functions_and_indices_refuse_numpys_arrays(function):
    with pytest.raises(TypeError):
        function(cupy.ones(3), np.ones(3))


@pytest.mark.parametrize("value", [[1.0, 2.0, 3.0], None, "1", object()])
def test_operators_refuse_what_is_no_number(value):
    for function in (operator.add, operator.eq, lambda x, v: x.__setitem__(..., v), cupy.multiply):
        with pytest.raises(TypeError):
            function(cupy.ones(3), value)


def test_a_class_without_ufuncs_keeps_its_own_operators():
    class Tensor:
        __array_ufunc__ = None

        def __radd__(self, other):
            return "mine"

    assert cupy.ones(3) + Tensor() == "mine"


# Transfers


@pytest.mark.parametrize("layout", LAYOUTS)
def test_arrays_go_to_the_gpu_and_back_as_copies(layout):
    array = LAYOUTS[layout](np.arange(12.0).reshape(3, 4))
    there = cupy.asarray(array)
    back = there.get()
    check_same(there, array)
    array[...] = 0
    assert back.any() and there.get().any()
    back[...] = 0
    assert there.get().any()


def test_set_wants_the_same_shape_and_dtype():
    x = cupy.zeros((2, 3), "float32")
    x.set(np.ones((2, 3), "float32"))
    check_same(x, np.ones((2, 3), "float32"))
    for wrong, error in ((np.ones((2, 3)), TypeError), (np.ones(3, "float32"), ValueError), (x, TypeError)):
        with pytest.raises(error):
            x.set(wrong)
    with pytest.raises(RuntimeError):
        cupy.zeros((2, 4))[:, ::2].set(np.ones((2, 2)))


def test_asarray_of_an_array_of_the_gpu_is_that_array():
    x = cupy.arange(3)
    assert cupy.asarray(x) is x and cupy.ascontiguousarray(x) is x and x.astype(x.dtype, copy=False) is x
    assert cupy.array(x) is not x and not cupy.shares_memory(cupy.array(x), x)
    check_same(cupy.asarray([x[0], x[2]]), np.array([0, 2]))
    with pytest.raises(ValueError, match="Unsupported dtype object"):
        cupy.asarray([{}])


# Values


@pytest.mark.parametrize("function", BINARY, ids=lambda function: function.__name__)
@pytest.mark.parametrize("other", [2, 2.5, True, np.float32(3), np.float64(3), np.int64(3)], ids=repr)
def test_numbers_are_welcome_and_promote_as_in_numpy(function, other):
    for dtype in ("float32", "float16", "int32"):
        array = np.arange(1, 4).astype(dtype)
        check_same(function(cupy.asarray(array), other), function(array, other))
        check_same(function(other, cupy.asarray(array)), function(other, array))


@pytest.mark.parametrize("function", BITS, ids=lambda function: function.__name__)
def test_bits(function):
    a, b = np.array([5, 6, 7]), np.array([1, 2, 3])
    check_same(function(cupy.asarray(a), cupy.asarray(b)), function(a, b))
    check_same(~cupy.asarray(a), ~a)


def test_in_place_operators_write_to_the_same_memory():
    x = cupy.ones(4, "float32")
    view = x[1:]
    view += 2
    check_same(x, np.array([1, 3, 3, 3], "float32"))
    with pytest.raises(TypeError):
        cupy.arange(3).__iadd__(0.5)


@pytest.mark.parametrize("function", [
    lambda xp, x: x.sum(), lambda xp, x: x.max(), lambda xp, x: x.mean(axis=1), lambda xp, x: x.argmax(),
    lambda xp, x: x[0, 1], lambda xp, x: xp.linalg.norm(x), lambda xp, x: x.any(), lambda xp, x: xp.count_nonzero(x),
    lambda xp, x: xp.einsum("ij,kj->ik", x, x), lambda xp, x: xp.tensordot(x, x, axes=((0,), (0,))),
    lambda xp, x: xp.pad(x, ((1, 0), (0, 2)), mode="constant", constant_values=7), lambda xp, x: xp.stack([x, x], 1),
    lambda xp, x: x.transpose(1, 0).reshape(2, -1), lambda xp, x: xp.take(x, [1, 0, 1], axis=1), lambda xp, x: x[x > 0],
    lambda xp, x: x.std(axis=0, ddof=1), lambda xp, x: xp.where(x > 0, 1, x), lambda xp, x: xp.clip(x, -0.5, 0.5),
    lambda xp, x: xp.moveaxis(x, 0, 1), lambda xp, x: xp.add.reduce(x, axis=1), lambda xp, x: xp.unique(x),
    lambda xp, x: xp.lib.stride_tricks.sliding_window_view(x, 2, axis=1), lambda xp, x: xp.full((2, 2), 3, "int8"),
    lambda xp, x: xp.arange(2, 9, 3), lambda xp, x: xp.allclose(x, x) if xp is cupy else np.True_, lambda xp, x: -x,
    lambda xp, x: xp.log(x * 0), lambda xp, x: x[:0].mean(axis=0), lambda xp, x: x / 0, lambda xp, x: x.round(1),
])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_results_are_those_of_numpy_as_arrays_even_of_one_number(function):
    x = on_gpu(3, 4)
    with np.errstate(all="ignore"):
        expected = np.asarray(function(np, x.get()))
    check_same(function(cupy, x), expected)


def test_a_gpu_never_warns():
    x = cupy.zeros(2, "float32")
    assert np.isnan((x / x).get()).all() and np.isinf(cupy.log(x).get()).all() and np.isnan(x[:0].mean().get())
    large = cupy.full((1, 1), 1e30, "float32")
    (large * 1e30).astype("int32")
    assert np.isinf((large @ large).get()) and np.isinf(large.dot(large).get())
    cupy.zeros(1, "int32")[...] = large[0]
    cupy.array(large, "int32")


def test_numbers_come_out_of_single_values_only():
    x = cupy.full((1,), 2.5)
    assert (x.sum().item(), float(x[0]), int(x[0]), bool(x[0] > 2), f"{x[0]:.2f}") == (2.5, 2.5, 2, True, "2.50")
    assert not hasattr(x, "__index__")
    for wrong in (lambda: [1, 2][cupy.asarray(1)], lambda: range(cupy.asarray(1)), lambda: hash(x)):
        with pytest.raises(TypeError):
            wrong()
    with pytest.raises(ValueError):
        bool(cupy.ones(2))


def test_fresh_memory_is_conspicuous():
    for fresh in (cupy.empty((2, 2)), cupy.ndarray(3, "float16"), cupy.empty_like(cupy.zeros(2))):
        assert np.isnan(fresh.get()).all()
    assert (cupy.empty(2, "int32").get() == 2**31 - 1).all()


# Memory: owners, views, order


def test_views_name_the_owner_of_their_memory():
    x = cupy.zeros((4, 6))
    assert x.base is None and x.flags.owndata
    for view in (x[1], x[1, 2], x.T, x[:, ::2].T, x.reshape(2, -1)[1:], x.view("int64"), x[None], cupy.broadcast_to(
            x, (2, 4, 6)), x.ravel(), cupy.lib.stride_tricks.as_strided(x, (2, 2), (8, 8)), cupy.split(x, 2)[1], x[:0]):
        assert view.base is x and not view.flags.owndata
    for owner in (x.copy(), x + 0, x[[0, 1]], x[x == 0], x.T.reshape(-1), x.flatten(), cupy.tensordot(x, x, 2),
                  x[cupy.asarray(0)]):
        assert owner.base is None
    x[1, 2] += 1
    x[3][...] = 2
    assert x.sum().item() == 13
    assert cupy.may_share_memory(x, x[1]) is True


def test_results_lie_in_c_order_whatever_their_operands_do():
    x = on_gpu(3, 4, 5).transpose(2, 0, 1)
    for result in (x + 1, cupy.exp(x), x > 0, x.sum(axis=0), cupy.where(x > 0, x, 0), x.copy(), x[[0, 1]],
                   cupy.take(x, [1, 0], axis=0), cupy.concatenate([x, x])):
        assert result.flags.c_contiguous
    for result in (cupy.empty_like(x), cupy.zeros_like(x), x.astype("float64"), cupy.copy(x)):
        assert result.strides == tuple(n // 4 * result.itemsize for n in x.strides)


def test_memory_in_use_is_counted():
    pool = cupy.get_default_memory_pool()
    gc.collect()
    before = pool.used_bytes()
    x = cupy.zeros(1000, "float32")
    view = x[1:]
    assert pool.used_bytes() == before + 4096
    del x
    assert pool.used_bytes() == before + 4096
    del view
    assert pool.used_bytes() == before


def test_a_deep_copy_has_memory_of_its_own():
    x = cupy.ones(2)
    y = copy.deepcopy(x)
    y += 1
    assert x.sum().item() == 2


# What CuPy lacks, and what it lets pass and we do not


def test_what_cupy_lacks_is_missing():
    for name in ("errstate", "vecdot", "nditer", "insert", "block", "unstack", "object_"):
        assert not hasattr(cupy, name)
    assert not hasattr(cupy, "cublas")  # until it is imported
    x = cupy.ones(3)
    for wrong in (lambda: x.sum(where=x > 0), lambda: x.max(initial=0), lambda: cupy.add(x, x, where=x > 0),
                  lambda: cupy.sum(x, initial=1), lambda: cupy.take(x, [0], mode="clip"), lambda: x.item(0),
                  lambda: cupy.einsum("i->", x, out=x)):
        with pytest.raises(TypeError):
            wrong()


def test_ufuncs_reduce_sums_and_products_only_and_scatter_what_atomics_can():
    x = cupy.asarray(np.array([1, 2, 3], "float32"))
    assert cupy.multiply.reduce(x).item() == 6
    with pytest.raises(NotImplementedError):
        cupy.maximum.reduce(x)
    cupy.add.at(x, [0, 0, 2], 1)
    check_same(x, np.array([3, 2, 4], "float32"))
    with pytest.raises(TypeError):
        cupy.add.at(x.astype("int64"), [0], 1)
    with pytest.raises(NotImplementedError):
        cupy.multiply.at(x, [0], 1)


def test_what_is_undefined_raises():
    x = cupy.arange(4.0)
    for index in ([4], [-5], cupy.asarray([0, 9])):
        with pytest.raises(IndexError):
            x[index]
        with pytest.raises(IndexError):
            x[index] = 0
    with pytest.raises(ValueError, match="twice"):
        x[[0, -4]] = cupy.ones(2)
    x[[0, -4]] = 7
    x[[0, 1]] = cupy.ones(2)
    check_same(x, np.array([1.0, 1, 2, 3]))
    with pytest.raises(ValueError, match="read-only"):
        cupy.broadcast_to(x, (2, 4))[...] = 0


# Devices, cuBLAS, modules


def test_the_device_its_streams_and_events():
    runtime, x = cupy.cuda.runtime, cupy.ones(2)
    assert cupy.is_available() and runtime.getDeviceCount() == 1 and x.device.id == 0
    assert isinstance(runtime.getDeviceProperties(0)["name"], bytes)
    with cupy.cuda.Device(0) as device, cupy.cuda.Stream(non_blocking=True) as stream:
        start = stream.record()
        stream.wait_event(start)
        device.synchronize()
        assert cupy.cuda.get_elapsed_time(start, stream.record()) >= 0
    with pytest.raises(runtime.CUDARuntimeError):
        cupy.cuda.Device(1).use()
    assert issubclass(cupy.cuda.memory.OutOfMemoryError, MemoryError)


def test_it_can_be_imported(monkeypatch):
    assert strict_cupy.install(monkeypatch) is cupy
    import cupy as imported
    from cupy import cublas
    from cupyx import empty_pinned, errstate

    assert imported is cupy and callable(cublas.gemm)
    with errstate(divide="ignore"):
        assert type(empty_pinned((2, 3), "float32")) is np.ndarray


@pytest.mark.parametrize("transa", "NT")
@pytest.mark.parametrize("transb", "NT")
@pytest.mark.parametrize("order", "CF")
def test_gemm_accumulates(transa, transb, order):
    gemm = strict_cupy.modules()["cupy.cublas"].gemm
    a, b = on_gpu(2, 3) if transa == "N" else on_gpu(3, 2), on_gpu(3, 4) if transb == "N" else on_gpu(4, 3)
    product = (a if transa == "N" else a.T).get() @ (b if transb == "N" else b.T).get()
    assert gemm(transa, transb, a, b).flags.f_contiguous
    out = cupy.asarray(np.ones((2, 4), "float32", order=order))
    assert gemm(transa, transb, a, b, out=out, alpha=2.0, beta=3.0) is out
    np.testing.assert_allclose(out.get(), 2 * product + 3, rtol=1e-6)
    gemm(transa, transb, a, b, out=cupy.empty((2, 4), "float32", order), beta=0.0)
    for wrong, error in ((cupy.ones((2, 4)), TypeError), (cupy.ones((4, 4), "float32"), ValueError),
                         (cupy.ones((2, 8), "float32")[:, ::2], ValueError)):
        with pytest.raises(error):
            gemm(transa, transb, a, b, out=wrong)


# Kernels


@needs_compiler
def test_elements_broadcast_and_scalars_take_the_type_of_the_arrays():
    scale = cupy.ElementwiseKernel("T x, T y, T factor, int32 n", "T z", "z = x * factor + y + n + _ind.size()",
                                   "scale")
    x, y = on_gpu(3, 1, 4).transpose(2, 0, 1), on_gpu(3, 1)
    z = scale(x, y, np.float64(0.5), 2)
    np.testing.assert_allclose(z.get(), x.get() * 0.5 + y.get() + 2 + 12, rtol=1e-6)
    assert z.dtype == "float32" and z.flags.c_contiguous
    out = cupy.empty((4, 3, 1), "float32", order="F")
    assert scale(x, y, 0.5, 2, out) is out
    check_same(out, z.get())
    assert scale(x[:0], y, 0.5, 2).shape == (0, 3, 1)
    with pytest.raises(TypeError, match="mismatched"):
        scale(x, y.astype("float64"), 0.5, 2)
    with pytest.raises(TypeError, match="numpy.ndarray"):
        scale(x, y.get(), 0.5, 2)
    with pytest.raises(TypeError, match="0.5 for int32 n"):
        scale(x, y, 0.5, 0.5)
    with pytest.raises(TypeError, match="Wrong number of arguments"):
        scale(x, y)
    with pytest.raises(ValueError, match="Out shape"):
        scale(x, y, 0.5, 2, cupy.empty((1, 3, 1), "float32"))
    with pytest.raises(ValueError, match="undecided"):
        cupy.ElementwiseKernel("float32 x", "float32 y", "y = x")(1.0)


@needs_compiler
@pytest.mark.parametrize("layout", LAYOUTS)
def test_raw_arrays_are_indexed_in_c_order_whatever_their_strides(layout):
    array = np.asarray(LAYOUTS[layout](np.arange(12.0).reshape(3, 4)))
    gather = cupy.ElementwiseKernel(
        "raw T x, raw int64 at", "T flat, T pair",
        "flat = x[at[i]]; const ptrdiff_t pair_index[] = {at[i] / x.shape()[1], at[i] % x.shape()[1]}; "
        "pair = x[pair_index] + x.size() - 12 + x.ndim - 2", "gather")
    at = np.array([11, 0, 5, 5])
    flat, pair = gather(cupy.asarray(array), cupy.asarray(at), size=4)
    check_same(flat, array.ravel()[at])
    check_same(pair, array.ravel()[at])


@needs_compiler
def test_a_raw_output_is_written_where_the_kernel_says():
    reverse = cupy.ElementwiseKernel("T x", "raw T y", "y[_ind.size() - 1 - i] = x", "reverse")
    x, y = cupy.arange(4), cupy.zeros((2, 4), "int64").T[:, :1]
    reverse(x, y)
    check_same(y, np.array([[3], [2], [1], [0]]))
    with pytest.raises(ValueError, match="Undecided"):
        reverse(x)


@needs_compiler
@pytest.mark.parametrize("index", [-1, 4, 2**40])
def test_an_index_out_of_range_raises(index):
    read = cupy.ElementwiseKernel("raw T x, int64 at", "raw T y", "y[i] = x[at]", "read")
    with pytest.raises(IndexError, match=rf"read: x\[{index}\] is outside of 4"):
        read(cupy.arange(4), index, cupy.zeros(2, "int64"), size=2)
    with pytest.raises(IndexError, match=r"read: y\[2\]"):
        read(cupy.arange(4), 0, cupy.zeros(2, "int64"), size=3)


@needs_compiler
def test_what_depends_on_the_order_of_the_threads_raises():
    shift = cupy.ElementwiseKernel("raw T x", "raw T y", "y[i] = i ? x[i - 1] : T(0)", "shift")
    x = cupy.arange(4.0)
    check_same(shift(x, size=4), np.array([0.0, 0, 1, 2]))
    with pytest.raises(RuntimeError, match="shift: the result depends on the order"):
        shift(x, x, size=4)
    x = cupy.arange(4.0)
    last = cupy.ElementwiseKernel("T x", "raw T y", "y[0] = x", "last")
    with pytest.raises(RuntimeError, match="order"):
        last(x, cupy.zeros(1))
    count = cupy.ElementwiseKernel("T x", "raw int32 y", "atomicAdd(&y[x > 1], 1)", "count")
    y = cupy.zeros(2, "int32")
    count(x, y)
    check_same(y, np.array([2, 2], "int32"))
    with pytest.raises(ValueError, match="continue"):
        cupy.ElementwiseKernel("T x", "T y", "if (x < 0) return; y = x")
    with pytest.raises(ValueError, match="share"):
        cupy.ElementwiseKernel("T x", "T y", "y = x")(x, cupy.broadcast_to(cupy.zeros(1), 4))


@needs_compiler
def test_in_place_kernels_preambles_and_several_results():
    step = cupy.ElementwiseKernel(
        "T g, T lr", "T w, T v", "v = decay(v) + g; if (g == 0) continue; w -= lr * v", "step",
        preamble="__device__ T decay(T v) { return T(0.5) * v; }", loop_prep="const int one = 1")
    g, w, v = cupy.asarray([0.0, 1, 2]), cupy.ones(3), cupy.ones(3)
    first, second = step(g, 0.1, w, v)
    assert first is w and second is v
    np.testing.assert_allclose(w.get(), [1, 0.85, 0.75])
    silent = cupy.ElementwiseKernel("T x", "T y", "y = x", no_return=True)
    assert silent(g) is None
    assert isinstance(cupy.ElementwiseKernel("T x", "T y", "y = x", return_tuple=True)(g), tuple)


@needs_compiler
def test_what_does_not_compile_is_shown():
    for operation in ("y = nonsense", "x[0] = 1; y = 0"):  # an input is constant
        with pytest.raises(cupy.cuda.compiler.CompileException, match="error"):
            cupy.ElementwiseKernel("raw T x", "T y", operation)(cupy.ones(2), size=2)
    with pytest.raises(TypeError, match="what the type 'S' is"):
        cupy.ElementwiseKernel("T x, S s", "T y", "y = x")(cupy.ones(2), 1)
    for wrong in (lambda: cupy.ElementwiseKernel("T i", "T y", "y = i"),
                  lambda: cupy.ElementwiseKernel("T x", "T y", "y = x", "not a name"),
                  lambda: cupy.ElementwiseKernel("shared T x", "T y", "y = x")):
        with pytest.raises(ValueError):
            wrong()


@needs_compiler
def test_device_functions_and_how_they_treat_nan():
    f = cupy.ElementwiseKernel(
        "T x", "T smallest, T inverse, bool bad",
        "smallest = min(max(x, T(1)), T(2)); inverse = rsqrt(x) + exp(T(0)) - pow(T(2), T(0)); bad = isnan(x)", "f")
    x = np.array([0.25, 1.5, 4, np.nan], "float32")
    smallest, inverse, bad = f(cupy.asarray(x))
    check_same(smallest, np.array([1, 1.5, 2, 1], "float32"))
    np.testing.assert_allclose(inverse.get(), x**-0.5, rtol=1e-6)
    check_same(bad, np.isnan(x))


@needs_compiler
def test_half_precision_is_stored_rounded_and_computed_in_single():
    halves = np.arange(2**16, dtype="uint16").view("float16")
    with np.errstate(all="ignore"):
        singles = halves.astype("float32")
        between = np.concatenate([singles, (singles[1:] + singles[:-1]) / 2, [1e-30, 65519, 65520, 1e30]])
        between = between.astype("float32")
        rounded = between.astype("float16")
    check_same(cupy.ElementwiseKernel("float16 x", "float32 y", "y = x")(cupy.asarray(halves)), singles)
    check_same(cupy.ElementwiseKernel("float32 x", "float16 y", "y = x")(cupy.asarray(between)), rounded)
    choose = cupy.ElementwiseKernel("T x, bool plus", "T y", "y = plus ? x + x : x", "choose")
    with pytest.raises(cupy.cuda.compiler.CompileException):  # as on a GPU: x + x is a float, x is a float16
        choose(cupy.asarray(halves), True)


@needs_compiler
@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axis", [None, 0, -1, 1, (0, 2), (1, 2), ()])
def test_reductions_along_axes(axis, keepdims):
    squares = cupy.ReductionKernel("T x, T centre, T factor", "T y", "(x - centre) * (x - centre)", "a + b",
                                   "y = a * factor", "0", "squares")
    x = on_gpu(3, 4, 5, dtype="float64").transpose(1, 2, 0)
    centre = x.mean(axis=0, keepdims=True)
    expected = 0.5 * ((x - centre).get() ** 2).sum(axis=axis, keepdims=keepdims)
    result = squares(x, centre, 0.5, axis=axis, keepdims=keepdims)
    assert result.shape == expected.shape
    np.testing.assert_allclose(result.get(), expected)
    out = cupy.empty(expected.shape)
    assert squares(x, centre, 0.5, out=out, axis=axis, keepdims=keepdims) is out
    check_same(out, result.get())


@needs_compiler
def test_what_reductions_start_from_and_what_they_refuse():
    largest = cupy.ReductionKernel("T x", "T y", "x", "max(a, b)", "y = a", "-INFINITY", "largest")
    check_same(largest(cupy.asarray([3.0, 1, 2])), np.array(3.0))
    check_same(largest(cupy.zeros((0, 2)), axis=0), np.full(2, -np.inf))
    assert largest(cupy.zeros((0, 2)), axis=1).shape == (0,)
    no_identity = cupy.ReductionKernel("T x", "T y", "x", "a + b", "y = a", None)
    with pytest.raises(ValueError, match="no identity"):
        no_identity(cupy.zeros(0))
    wrong_identity = cupy.ReductionKernel("T x", "T y", "x", "a + b", "y = a", "1")
    assert wrong_identity(cupy.ones(8)).item() != 9  # each thread adds it
    mean = cupy.ReductionKernel("float32 x", "float32 y", "x", "a + b", "y = a / (_in_ind.size() / _out_ind.size())",
                                "0", "mean", reduce_type="double")
    check_same(mean(cupy.asarray(np.array([[2**24, 1, 1, -(2**24)]], "float32")), axis=1), np.array([0.5], "float32"))
    with pytest.raises(np.exceptions.AxisError):
        largest(cupy.ones(3), axis=1)
    with pytest.raises(NotImplementedError):
        cupy.ReductionKernel("T x, raw T y", "T z", "x + y[0]", "a + b", "z = a", "0")(
            cupy.ones((2, 2)), cupy.ones(1), axis=1)


# Against the real one

COMPARE = """
import inspect, re, sys, types
try:
    import cupy, cupyx, cupy.lib.stride_tricks
except Exception as error:
    sys.exit(f"skip: {error}")
import strict_cupy

def parameters(function):
    "The names of a function's parameters; None for one that takes any."
    try:
        given = inspect.signature(function).parameters.values()
        return None if any(p.kind is p.VAR_KEYWORD for p in given) else {p.name for p in given}
    except (TypeError, ValueError):  # Cython writes the signature into the docstring
        listed = re.match(r"[\\w.]+\\((.*)\\)", function.__doc__ or "")
        parts = [] if listed is None or "**" in listed[1] else re.split(", ", listed[1])
        return {re.split("[=:]", part)[0].split()[-1] for part in parts if part} or None

def compare(path, ours, theirs):
    for name, one in vars(ours).items():
        where, own = f"{path}.{name}", name.startswith("_") and not (name.endswith("__") and inspect.isfunction(one))
        if own or name == "__del__":
            continue
        if not hasattr(theirs, name):
            print(where, "is not in CuPy")
        elif isinstance(one, types.ModuleType) or inspect.isclass(one) and one.__module__.startswith("strict"):
            compare(where, one, getattr(theirs, name))
        elif isinstance(one, strict_cupy.ufunc):
            if not isinstance(getattr(theirs, name), cupy.ufunc):
                print(where, "is not a ufunc of CuPy's")
        elif inspect.isfunction(one) and not name.startswith("_"):
            known, (*listed,) = parameters(getattr(theirs, name)), inspect.signature(one).parameters.values()
            named = {p.name for p in listed if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)} - {"self"}
            if known is not None and not named <= known:
                print(where, "takes", named - known, "and CuPy's takes", known)

compare("cupy", strict_cupy.module(), cupy)
compare("cupyx", strict_cupy.cupyx(), cupyx)
"""


def test_the_real_cupy_has_every_name_and_parameter():
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", COMPARE], cwd=Path(__file__).parent,
                          capture_output=True, text=True)
    if done.stderr.startswith("skip: "):
        pytest.skip(f"needs CuPy: {done.stderr[6:].strip()}")
    assert done.returncode == 0, done.stderr
    assert not done.stdout
