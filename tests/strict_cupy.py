"""A strict stand-in for CuPy that runs on the CPU, so that code for a GPU can be tested where there is none.

Arrays wrap NumPy's without being one: what would call NumPy on a GPU array, mix the two, or use a name or an option
that CuPy 14 lacks raises. So does some of what CuPy lets pass: indices out of range, a place assigned twice, NumPy
arrays in CuPy's functions, writing to what is broadcast. Fresh memory is full of NaN. Kernels are compiled as C++ and
really run (see `strict_cupy_kernels`); that NVRTC accepts them, and how fast they are, only CUDA can tell.
"""

import ctypes
import functools
import inspect
import shutil
import sys
import time
import types
import warnings
import weakref
from contextlib import nullcontext
from importlib.machinery import ModuleSpec

import numpy as np

NUMBERS = (int, float, complex, np.number, np.bool_)

ALIVE = weakref.WeakValueDictionary()
"""All arrays of ours by id, since a kernel may reach memory by its address."""

silent = np.errstate(all="ignore")
"""Decorates what computes: a GPU never warns."""

CUDARuntimeError = type("CUDARuntimeError", (RuntimeError,), {})
OutOfMemoryError = type("OutOfMemoryError", (MemoryError,), {})
CompileException = type("CompileException", (Exception,), {})


def install(monkeypatch):
    """Until the test ends, `import cupy` gives the stand-in, which is returned."""
    for name, one in modules().items():
        monkeypatch.setitem(sys.modules, name, one)
    return module()


def module():
    """The stand-in for the module `cupy`."""
    return modules()["cupy"]


def cupyx():
    """The stand-in for the module `cupyx`."""
    return modules()["cupyx"]


@functools.cache
def compiler():
    """The path of a C++ compiler, without which no kernel runs; None if there is none."""
    return next(filter(None, map(shutil.which, ("g++", "c++", "clang++"))), None)


# Graphs


CAPTURED = []
"""The steps of the graph that is being captured, in a list; none if there is none."""


def remember(step):
    """`step`, which the graph that is being captured does in each launch."""
    if CAPTURED:
        CAPTURED[0].append(step)
    return step


def remembered(compute, result):
    """`result`, which `compute` gave, as NumPy's arrays, and will give anew in each launch."""
    def again():
        for ours, values in zip(*(x if isinstance(x, (tuple, list)) else [x] for x in (result, compute()))):
            ours._array[...] = values

    remember(again)
    return result


def refuse_capture(what):
    if CAPTURED:
        raise CUDARuntimeError(f"cudaErrorStreamCaptureUnsupported: operation not permitted when stream is capturing: "
                               f"{what}")


class Graph:
    """What was computed between `begin_capture` and `end_capture`: not then, but whenever it is launched."""

    def __init__(self, steps):
        self._steps = steps

    def launch(self, stream=None):
        refuse_capture("launch")
        for step in self._steps:
            step()


# From NumPy's arrays to ours and back


def new(array, base=None):
    """`array` behind a wrapper: a view of the memory of `base`, or an owner."""
    if array.dtype.kind not in "biufc":
        raise ValueError(f"Unsupported dtype {array.dtype}")
    self = object.__new__(ndarray)
    self._array, self._base = array, base
    ALIVE[id(self)] = self
    MEMORY._used += self._allocated()
    return self


def poisoned(array):
    """`array` with conspicuous values, so that reading what nobody has written is noticed."""
    array.fill({"f": np.nan, "c": np.nan, "b": True}.get(array.dtype.kind) or np.iinfo(array.dtype).max)
    return array


def operand(value):
    """What NumPy computes with in place of an array of ours or a number; TypeError for all else, NumPy's arrays too."""
    if isinstance(value, ndarray):
        return value._array
    if isinstance(value, NUMBERS):
        return value
    raise TypeError(f"Unsupported type {type(value)}")


def raw(value):
    """`operand` for all that arguments can be: shapes, dtypes, indices, words, and lists of them."""
    if isinstance(value, (list, tuple)):
        return type(value)(map(raw, value))
    if value is None or value is Ellipsis or isinstance(value, (str, np.dtype, type, slice, range)):
        return value
    return operand(value)


def wrapped(result, sources=(), keeps_order=False):
    """NumPy's result as ours: one of `sources`, a view of one, or an owner of memory, in C order as CuPy gives it."""
    if isinstance(result, (tuple, list)):
        return type(result)(wrapped(part, sources, keeps_order) for part in result)
    if isinstance(result, NUMBERS):
        result = np.asarray(result)  # CuPy never returns a scalar
    if not isinstance(result, np.ndarray):
        return result
    for source in sources:
        if result is source._array:
            return source
        if _owner(result) is _owner(source._array):
            return new(result, source if source.base is None else source.base)
    fresh = result.flags.owndata and (keeps_order or result.flags.c_contiguous)
    return new(result if fresh else result.copy(order="K" if keeps_order else "C"))


def _owner(array):
    while getattr(array, "base", None) is not None:
        array = array.base
    return array


def _ours(values):
    for value in values:
        if isinstance(value, ndarray):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _ours(value)


@silent
def _run(function, args, options):
    if function.__name__ not in ("mean", "var", "std"):
        return function(*args, **options)
    with warnings.catch_warnings():  # of the mean of nothing
        warnings.simplefilter("ignore", RuntimeWarning)
        return function(*args, **options)


# Functions and methods that are NumPy's but for their parameters

FUNCTIONS = """
    all amax amin any argmax argmin max min: a, axis=None, out=None, keepdims=False
    mean prod sum: a, axis=None, dtype=None, out=None, keepdims=False
    std var: a, axis=None, dtype=None, out=None, ddof=0, keepdims=False
    cumsum: a, axis=None, dtype=None, out=None
    argsort sort: a, axis=-1, kind=None
    round around: a, decimals=0, out=None
    clip: a, a_min, a_max, out=None
    take: a, indices, axis=None, out=None
    take_along_axis: a, indices, axis
    repeat: a, repeats, axis=None
    roll: a, shift, axis=None
    count_nonzero flip squeeze: a, axis=None
    nonzero: a
    unique: ar, return_index=False, return_inverse=False, return_counts=False, axis=None
    allclose isclose: a, b, rtol=1e-05, atol=1e-08, equal_nan=False
    array_equal: a1, a2, equal_nan=False
    nan_to_num: x, copy=True, nan=0.0, posinf=None, neginf=None
    matmul: x1, x2, /, out=None
    inner vdot: a, b
    outer: a, b, out=None
    tensordot: a, b, axes=2
    einsum: *operands, dtype=None, optimize=False
    arange: start, stop=None, step=1, dtype=None
    linspace: start, stop, num=50, endpoint=True, retstep=False, dtype=None, axis=0
    eye: N, M=None, k=0, dtype=float, order='C'
    ones zeros: shape, dtype=float, order='C'
    full: shape, fill_value, dtype=None, order='C'
    ones_like zeros_like: a, dtype=None, order='K', subok=None, shape=None
    full_like: a, fill_value, dtype=None, order='K', subok=None, shape=None
    copy: a, order='K'
    ravel: a, order='C'
    reshape: a, newshape, order='C', *, copy=None
    transpose: a, axes=None
    expand_dims: a, axis
    moveaxis: a, source, destination
    swapaxes: a, axis1, axis2
    broadcast_to: array, shape
    concatenate stack: tup, axis=0, out=None, *, dtype=None, casting='same_kind'
    hstack vstack: tup, *, dtype=None, casting='same_kind'
    split array_split: ary, indices_or_sections, axis=0
    tile: A, reps
    pad: array, pad_width, mode='constant', **kwargs
    diag: v, k=0
    tril triu: m, k=0
    can_cast: from_, to, casting='safe'
    promote_types: type1, type2, /
    result_type: *arrays_and_dtypes
    may_share_memory shares_memory: a, b, max_work=None
"""
METHODS = """
    astype: self, dtype, order='K', casting=None, copy=True
    clip: self, min=None, max=None, out=None
    copy flatten ravel: self, order='C'
    diagonal: self, offset=0, axis1=0, axis2=1
    reshape: self, *shape, order='C', copy=None
    transpose: self, *axes
    view: self, dtype=None
"""
METHODS_LIKE_FUNCTIONS = """
    all any argmax argmin argsort cumsum max mean min nonzero prod repeat round sort squeeze std sum swapaxes take var
""".split()
UFUNCS = """
    abs absolute add arctan bitwise_and bitwise_or bitwise_xor ceil copysign cos cosh divide equal exp exp2 expm1 fabs
    floor floor_divide fmax fmin greater greater_equal hypot invert isfinite isinf isnan left_shift less less_equal log
    log10 log1p log2 logical_and logical_not logical_or logical_xor maximum minimum mod multiply negative not_equal
    power reciprocal remainder right_shift rint sign signbit sin sinh sqrt square subtract tan tanh true_divide trunc
""".split()
CONSTANTS = """
    bool_ complex64 complex128 dtype e finfo float16 float32 float64 floating generic iinfo inf inexact int8 int16 int32
    int64 integer intp issubdtype nan newaxis number pi signedinteger uint8 uint16 uint32 uint64 unsignedinteger
""".split()

ARRAYS = set("a a1 a2 A ar array ary b m prototype v x x1 x2".split())
"""The parameters that must be arrays, where CuPy might take more."""
KEEP_ORDER = set("""
    asfortranarray astype copy empty empty_like eye flatten full full_like ones ones_like ravel reshape sort zeros
    zeros_like
""".split())
NOT_ARRAYS = {"can_cast", "may_share_memory", "promote_types", "result_type", "shares_memory"}
"""The functions whose results are left as they are."""


def declared(name, parameters, function):
    """`function` of NumPy for arrays of ours, under a name and parameters of CuPy's: no others are accepted.

    It gets what has no default by position, and what was given of the rest by name.
    """
    signature = inspect.signature(eval(f"lambda {parameters}: None"))

    def call(*args, **kwargs):
        positional, named = [], {}
        for key, value in signature.bind(*args, **kwargs).arguments.items():
            parameter = signature.parameters[key]
            if key in ARRAYS and not isinstance(value, ndarray):
                raise TypeError(f"{name}: {key} must be a cupy.ndarray, not {type(value)}")
            if parameter.kind is parameter.VAR_POSITIONAL:
                positional += value
            elif parameter.kind is parameter.VAR_KEYWORD:
                named |= value
            elif parameter.default is parameter.empty:
                positional.append(value)
            else:
                named[key] = value
        sources = list(_ours((*positional, *named.values())))
        compute = functools.partial(_run, function, raw(positional), {key: raw(x) for key, x in named.items()})
        result = compute()
        return result if name in NOT_ARRAYS else remembered(compute, wrapped(result, sources, name in KEEP_ORDER))

    call.__name__, call.__signature__ = name, signature
    return call


def table(text):
    """(name, parameters) for each name of a table as above."""
    lines = (line.partition(":")[::2] for line in text.strip().splitlines())
    return [(name, parameters.strip()) for names, parameters in lines for name in names.split()]


class ufunc:
    """One of CuPy's: no `where`, no `initial`, `reduce` of sums and products only, and results in C order."""

    _ATOMIC = {"add": "int32 uint32 uint64 float16 float32 float64", "subtract": "int32 uint32",
               **dict.fromkeys(("maximum", "minimum"), "int32 uint32 uint64 float32 float64"),
               **dict.fromkeys(("bitwise_and", "bitwise_or", "bitwise_xor"), "int32 int64 uint32 uint64")}

    def __init__(self, name):
        self._numpy = getattr(np, name)
        self._key = self._numpy.__name__
        self.name, self.nin, self.nout = f"cupy_{self._key}", self._numpy.nin, self._numpy.nout

    def __call__(self, *args, out=None, dtype=None, casting="same_kind"):
        if not self.nin <= len(args) <= self.nin + 1:
            raise TypeError(f"Wrong number of arguments for {self.name!r}: {len(args)}")
        out = args[self.nin] if len(args) > self.nin else out
        if out is not None and not isinstance(out, ndarray):
            raise TypeError(f"Output arguments must be cupy.ndarray, not {type(out)}")
        options = {"out": None if out is None else out._array, "dtype": dtype, "casting": casting, "order": "C"}
        compute = functools.partial(_run, self._numpy, list(map(operand, args[: self.nin])), options)
        if out is None:
            return remembered(compute, wrapped(compute()))
        remember(compute)()
        return out

    def reduce(self, array, axis=0, dtype=None, out=None, keepdims=False):
        method = {"add": "sum", "multiply": "prod"}.get(self._key)
        if method is None:
            raise NotImplementedError(f"`{self.name}.reduce` is not supported yet")
        return getattr(array, method)(axis, dtype, out, keepdims)

    @silent
    def at(self, a, indices, b=None):
        if a.dtype.name not in self._ATOMIC.get(self._key, "").split():
            raise (TypeError if self._key in self._ATOMIC else NotImplementedError)(f"{self.name}.at of {a.dtype}")
        remember(functools.partial(self._numpy.at, a._array, _index(indices), raw(b)))()


# Arrays


class ndarray:
    """`cupy.ndarray`: memory that NumPy cannot reach but through `get` and `set`."""

    __slots__ = ("_array", "_base", "__weakref__")
    __array_ufunc__ = None  # NumPy's ufuncs refuse, and its operators hand over to ours, which refuse its arrays
    __hash__ = None

    def __new__(cls, shape, dtype=float, order="C"):
        return new(poisoned(np.empty(shape, dtype, order)))

    def __array__(self, *_, **__):
        raise TypeError("Implicit conversion to a NumPy array is not allowed. "
                        "Please use `.get()` to construct a NumPy array explicitly.")

    __array_function__ = __array__

    def _allocated(self):
        return -(-self._array.nbytes // 512) * 512 if self._base is None else 0

    def __del__(self):
        MEMORY._used -= self._allocated()

    base = property(lambda self: self._base)
    device = property(lambda self: Device(0))
    data = property(lambda self: types.SimpleNamespace(ptr=self._array.ctypes.data))
    T = property(lambda self: self.transpose())

    @property
    def flags(self):
        names = ("c_contiguous", "f_contiguous", "fnc", "forc")
        flags = {name: getattr(self._array.flags, name) for name in names}
        return types.SimpleNamespace(**flags, owndata=self._base is None)

    def get(self, stream=None, order="C", out=None, blocking=True):
        refuse_capture("get")
        if out is None:
            return self._array.copy(order=order)
        if not isinstance(out, np.ndarray) or (out.dtype, out.shape) != (self.dtype, self.shape):
            raise TypeError(f"out must be a numpy.ndarray of {self.dtype} and shape {self.shape}")
        out[...] = self._array
        return out

    def set(self, arr, stream=None):
        refuse_capture("set")
        if not isinstance(arr, np.ndarray) or arr.dtype != self.dtype:
            raise TypeError(f"only a numpy.ndarray of {self.dtype} can be set")
        if arr.shape != self.shape:
            raise ValueError(f"an array of shape {arr.shape} cannot be set to one of shape {self.shape}")
        if not self.flags.forc:
            raise RuntimeError("Cannot set to non-contiguous array")
        self._array[...] = arr

    def fill(self, value):
        remember(functools.partial(self._array.fill, operand(value)))()

    def dot(self, b, out=None):
        return dot(self, b, out)

    def item(self):
        refuse_capture("item")
        return self._array.item()

    def tolist(self):
        refuse_capture("tolist")
        return self._array.tolist()

    def __getitem__(self, index):
        index = _index(index)
        if not any(map(_is_list, index)):
            return wrapped(self._array[index], [self])
        compute = functools.partial(self._array.__getitem__, index)
        return remembered(compute, wrapped(compute()))

    @silent
    def __setitem__(self, index, value):
        index, value = _index(index), operand(value)
        if np.size(value) > 1 and any(_is_list(part) and np.asarray(part).dtype != bool for part in index):
            places = np.arange(self.size).reshape(self.shape)[index]
            if np.unique(places).size < places.size:
                raise ValueError("x[index] = values with a place twice in index: CuPy does not say which value stays")
        remember(functools.partial(self._array.__setitem__, index, value))()

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __format__(self, specification):
        return format(self._array if self.ndim else self._array[()], specification)

    def __deepcopy__(self, memo):
        return self.copy()

    __copy__ = __pos__ = lambda self: self.copy()


def _index(index):
    """An index for NumPy, under which integers too give views."""
    index = raw(index if isinstance(index, tuple) else (index,))
    return index if any(part is Ellipsis for part in index) else (*index, Ellipsis)


def _is_list(part):
    return isinstance(part, (np.ndarray, list))


def _operator(function, forward=True, in_place=False):
    def operator(self, other):
        # What has no ufuncs wants its own operators to be used, and CuPy lets it.
        if not isinstance(other, ndarray) and getattr(type(other), "__array_ufunc__", 0) is None:
            return NotImplemented
        first, second = (self, other) if forward else (other, self)
        return function(first, second, self) if in_place else function(first, second)

    return operator


def _populate():
    """Gives `ndarray` what NumPy's arrays have: attributes, conversions, methods and operators."""
    for name in ("shape", "dtype", "ndim", "size", "nbytes", "itemsize", "strides"):
        setattr(ndarray, name, property(lambda self, name=name: getattr(self._array, name)))
    for name in ("__bool__", "__int__", "__float__", "__repr__", "__str__"):
        setattr(ndarray, name, lambda self, name=name: refuse_capture(name) or getattr(self._array, name)())
    ndarray.__len__ = lambda self: len(self._array)
    functions = dict(table(FUNCTIONS))
    like = [(name, "self" + functions[name].removeprefix("a")) for name in METHODS_LIKE_FUNCTIONS]
    for name, parameters in [*table(METHODS), *like]:
        setattr(ndarray, name, declared(name, parameters, getattr(np.ndarray, name)))
    for name, function in {"neg": ufunc("negative"), "abs": ufunc("absolute"), "invert": ufunc("invert")}.items():
        setattr(ndarray, f"__{name}__", lambda self, function=function: function(self))
    for name, function in {"lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal", "eq": "equal",
                           "ne": "not_equal"}.items():
        setattr(ndarray, f"__{name}__", _operator(ufunc(function)))
    arithmetic = {"add": "add", "sub": "subtract", "mul": "multiply", "truediv": "true_divide", "pow": "power",
                  "floordiv": "floor_divide", "mod": "remainder", "and": "bitwise_and", "or": "bitwise_or",
                  "xor": "bitwise_xor", "lshift": "left_shift", "rshift": "right_shift"}
    for name, function in arithmetic.items():
        setattr(ndarray, f"__{name}__", _operator(ufunc(function)))
        setattr(ndarray, f"__r{name}__", _operator(ufunc(function), forward=False))
        setattr(ndarray, f"__i{name}__", _operator(ufunc(function), in_place=True))
    matmul = declared("matmul", functions["matmul"], np.matmul)
    ndarray.__matmul__, ndarray.__rmatmul__ = _operator(matmul), _operator(matmul, forward=False)


_populate()


# Functions that are not NumPy's, or not quite


@silent
def array(obj, dtype=None, copy=True, order="K", subok=False, ndmin=0, *, blocking=False):
    copied = True if copy or isinstance(obj, np.ndarray) else None  # NumPy's memory is never shared
    if not isinstance(obj, ndarray):
        refuse_capture("array of what is not on the GPU")
    compute = functools.partial(np.array, _transferred(obj), dtype, copy=copied, order=order, ndmin=ndmin)
    return remembered(compute, wrapped(compute(), list(_ours([obj])), True))


def _transferred(obj):
    if isinstance(obj, (list, tuple)):
        return [_transferred(part) for part in obj]
    return obj._array if isinstance(obj, ndarray) else obj


def asarray(a, dtype=None, order=None, *, copy=None, blocking=False):
    return array(a, dtype, bool(copy), order or "K")


def asnumpy(a, stream=None, order="C", out=None, *, blocking=True):
    return a.get(stream, order, out) if isinstance(a, ndarray) else np.asarray(a, order=order)


def get_array_module(*args):
    return module() if any(isinstance(arg, ndarray) for arg in args) else np


def where(condition, x=None, y=None):
    if x is None and y is None:
        return condition.nonzero()
    if not isinstance(condition, ndarray):
        raise TypeError(f"where: condition must be a cupy.ndarray, not {type(condition)}")
    compute = functools.partial(np.where, operand(condition), operand(x), operand(y))
    return remembered(compute, wrapped(compute()))


@silent
def copyto(dst, src, casting="same_kind", where=None):
    mask = True if where is None else operand(where)
    remember(functools.partial(np.copyto, dst._array, operand(src), casting, where=mask))()


@silent
def dot(a, b, out=None):
    if out is not None and (out.dtype != a.dtype or not out.flags.c_contiguous):
        raise ValueError("dot: out must have the dtype of the result and lie in C order")
    compute = functools.partial(np.dot, operand(a), operand(b), None if out is None else out._array)
    if out is None:
        return remembered(compute, wrapped(compute()))
    remember(compute)()
    return out


@silent
def gemm(transa, transb, a, b, out=None, alpha=1.0, beta=0.0):
    """out = alpha op(a) op(b) + beta out; as cuBLAS it does not read `out` where beta is 0."""
    if a.dtype.char not in "fd" or a.dtype != b.dtype or (out is not None and out.dtype != a.dtype):
        raise TypeError("invalid dtype")
    left, right = ({"N": x._array, "T": x._array.T}[trans] for trans, x in ((transa, a), (transb, b)))
    if a.ndim != 2 or b.ndim != 2 or left.shape[1] != right.shape[0]:
        raise ValueError(f"gemm: shapes {left.shape} and {right.shape} do not fit")
    if out is None:
        out, beta = ndarray((len(left), right.shape[1]), a.dtype, "F"), 0.0
    if out.shape != (len(left), right.shape[1]) or not out.flags.forc:
        raise ValueError(f"gemm: out must be contiguous and of shape {(len(left), right.shape[1])}")
    scalar, result = a.dtype.type, out._array

    def multiply():
        result[...] = scalar(alpha) * (left @ right) + (scalar(beta) * result if beta else 0)

    remember(multiply)()
    return out


def gemm_ex(
    handle, transa, transb, m, n, k, alpha, a, a_type, lda, b, b_type, ldb, beta, c, c_type, ldc, compute, algo
):
    """`cublas.gemmEx` in float32: C = alpha op(A) op(B) + beta C of matrices that lie by columns, by address."""
    def matrix(address, rows, columns, distance):
        if distance < max(1, rows):
            raise ValueError(f"gemmEx: columns of {rows} rows cannot be {distance} apart")
        memory = (ctypes.c_float * (distance * (columns - 1) + rows)).from_address(address)
        return np.lib.stride_tricks.as_strided(np.frombuffer(memory, np.float32), (rows, columns), (4, 4 * distance))

    if {a_type, b_type, c_type} != {0} or compute not in (75, 77):
        raise ValueError(f"gemmEx: types {(a_type, b_type, c_type)} and compute type {compute} are not float32's")
    left = matrix(a, k, m, lda).T if transa else matrix(a, m, k, lda)
    right = matrix(b, n, k, ldb).T if transb else matrix(b, k, n, ldb)
    scale, keep = (matrix(address, 1, 1, 1)[0, 0] for address in (alpha, beta))
    result = matrix(c, m, n, ldc)

    def multiply():
        result[...] = scale * (left @ right) + (keep * result if keep else 0)

    remember(multiply)()


# Devices, streams, memory


class Device:
    """There is one, number 0."""

    mem_info = (1 << 30, 1 << 30)
    compute_capability = "90"

    def __init__(self, device=0):
        self.id = int(device)

    def use(self):
        if self.id:
            raise CUDARuntimeError("cudaErrorInvalidDevice: invalid device ordinal")
        return self

    def __eq__(self, other):
        return isinstance(other, Device) and self.id == other.id

    __hash__ = None
    __enter__ = use
    __exit__ = synchronize = lambda self, *exception: None


class Stream:
    """Whatever is launched is done at once."""

    def __init__(self, null=False, non_blocking=False, ptds=False):
        self.ptr, self.done = 0, True

    def record(self, event=None):
        return (event or Event()).record(self)

    def begin_capture(self, mode=None):
        refuse_capture("begin_capture")
        if self is Stream.null:
            raise CUDARuntimeError("cudaErrorStreamCaptureUnsupported: the default stream cannot be captured")
        self._before = [(x, x._array.copy()) for x in list(ALIVE.values()) if x.base is None]
        CAPTURED.append([])

    def end_capture(self):
        """Whatever was written meanwhile was not: memory is as before, and what is new holds nothing yet."""
        graph, there_before = Graph(CAPTURED.pop()), {id(x) for x, _ in self._before}
        for x in list(ALIVE.values()):
            if x.base is None and id(x) not in there_before:
                poisoned(x._array)
        for x, values in self._before:
            x._array[...] = values
        self._before = []
        return graph

    use = __enter__ = lambda self: self
    __exit__ = synchronize = wait_event = lambda self, *_: None


class Event:
    done = True

    def __init__(self, block=False, disable_timing=False, interprocess=False):
        pass

    def record(self, stream=None):
        self._time = time.perf_counter()
        return self

    def synchronize(self):
        pass


class MemoryPool:
    """Counts the bytes of the arrays that are alive, so that a test can see memory being kept."""

    _used = 0
    used_bytes = total_bytes = lambda self: self._used
    free_bytes = n_free_blocks = lambda self: 0

    def free_all_blocks(self, stream=None):
        pass

    def malloc(self, size):
        raise NotImplementedError("the stand-in's arrays are NumPy's memory")


MEMORY = MemoryPool()
Stream.null = Stream(null=True)


# The modules


def names():
    """What the module `cupy` has of arrays."""
    from strict_cupy_kernels import ElementwiseKernel, ReductionKernel

    return {
        **{name: getattr(np, name) for name in CONSTANTS},
        **{name: ufunc(name) for name in UFUNCS},
        **{name: declared(name, parameters, getattr(np, name)) for name, parameters in table(FUNCTIONS)},
        **{one.__name__: one for one in (
            ElementwiseKernel, ReductionKernel, array, asarray, asnumpy, copyto, dot, get_array_module, ndarray, ufunc,
            where,
            declared("ascontiguousarray", "a, dtype=None", lambda a, dtype=None: np.asarray(a, dtype, "C")),
            declared("asfortranarray", "a, dtype=None", lambda a, dtype=None: np.asarray(a, dtype, "F")),
            declared("empty", "shape, dtype=float, order='C'", lambda *args, **kw: poisoned(np.empty(*args, **kw))),
            declared("empty_like", "prototype, dtype=None, order='K', subok=None, shape=None",
                     lambda *args, **kw: poisoned(np.empty_like(*args, **kw))),
        )},
    }


@functools.cache
def modules():
    """All that goes into `sys.modules`, by name."""
    made = {}

    def make(name, **contents):
        made[name] = types.ModuleType(name)
        made[name].__spec__ = ModuleSpec(name, None)
        vars(made[name]).update(contents)
        return made[name]

    properties = {"name": b"stand-in", "major": 9, "minor": 0, "multiProcessorCount": 1, "warpSize": 32,
                  "totalGlobalMem": Device.mem_info[1]}
    tricks = np.lib.stride_tricks
    make("cupy", **names(), __version__="14.2.0", is_available=lambda: True, get_default_memory_pool=lambda: MEMORY,
         cuda=make(
             "cupy.cuda", device=make("cupy.cuda.device", get_cublas_handle=lambda: 1), Device=Device, Stream=Stream,
             Event=Event, MemoryPool=MemoryPool, Graph=Graph, is_available=lambda: True,
             using_allocator=lambda allocator: nullcontext(),
             get_current_stream=lambda device_id=-1: Stream.null,
             get_elapsed_time=lambda start_event, end_event: 1e3 * (end_event._time - start_event._time),
             runtime=make(
                 "cupy.cuda.runtime", CUDARuntimeError=CUDARuntimeError, getDeviceCount=lambda: 1, getDevice=lambda: 0,
                 deviceSynchronize=lambda: None, CUDA_R_32F=0,
                 driverGetVersion=lambda: 12080, runtimeGetVersion=lambda: 12080,
                 getDeviceProperties=lambda device: dict(properties)),
             memory=make("cupy.cuda.memory", OutOfMemoryError=OutOfMemoryError, MemoryPool=MemoryPool),
             compiler=make("cupy.cuda.compiler", CompileException=CompileException)),
         lib=make("cupy.lib", stride_tricks=make(
             "cupy.lib.stride_tricks",
             as_strided=declared("as_strided", "x, shape=None, strides=None", tricks.as_strided),
             sliding_window_view=declared("sliding_window_view", "x, window_shape, axis=None",
                                          tricks.sliding_window_view))),
         linalg=make("cupy.linalg", norm=declared("norm", "x, ord=None, axis=None, keepdims=False", np.linalg.norm)))
    # As in CuPy, `cupy.cublas` is there only for who imports it: from cupy import cublas
    make("cupy.cublas", gemm=gemm)
    libraries = make("cupy_backends.cuda.libs", cublas=make(
        "cupy_backends.cuda.libs.cublas", gemmEx=gemm_ex, CUBLAS_COMPUTE_32F_FAST_16BF=75,
        CUBLAS_COMPUTE_32F_FAST_TF32=77, CUBLAS_GEMM_DEFAULT_TENSOR_OP=99))
    make("cupy_backends", cuda=make("cupy_backends.cuda", libs=libraries))
    make("cupyx", errstate=lambda *, divide=None, over=None, under=None, invalid=None, linalg=None: nullcontext(),
         empty_pinned=lambda shape, dtype=float, order="C": np.empty(shape, dtype, order))
    return made
