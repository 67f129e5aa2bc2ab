"""The kernels of the stand-in for CuPy: their bodies are compiled for the CPU, with every index checked.

What raises here and passes on a GPU: an index out of range, a result that depends on the order of the threads, `return`
in the loop over elements, a fraction given for a whole number.
"""

import atexit
import ctypes
import functools
import hashlib
import math
import re
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from strict_cupy import ALIVE, CompileException, compiler, ndarray, operand, remember, silent

C_TYPES = {"bool": "bool", "int8": "signed char", "int16": "short", "int32": "int", "int64": "long long",
           "uint8": "unsigned char", "uint16": "unsigned short", "uint32": "unsigned int",
           "uint64": "unsigned long long", "float16": "float16", "float32": "float", "float64": "double"}

PRELUDE = r"""
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#define __device__
#define __host__
#define __forceinline__ inline
#define __restrict__ __restrict

class float16 {  // with exactly the conversions of CuPy's, so that what is ambiguous there is so here
  unsigned short bits;
 public:
  float16() {}
  float16(float v) {
    bits = signbit(v) ? 0x8000 : 0, v = fabsf(v);
    int e;
    frexpf(v, &e);
    if (v != v) bits |= 0x7e00;
    else if (v >= 65520) bits |= 0x7c00;
    else if (v < 0x1p-14f) bits |= (int)rintf(ldexpf(v, 24));
    else bits |= ((e + 14) << 10) + (int)rintf(ldexpf(v, 11 - e)) - 1024;
  }
  explicit float16(bool v) : float16(float(v)) {}
  explicit float16(double v) : float16(float(v)) {}
  explicit float16(int v) : float16(float(v)) {}
  explicit float16(unsigned v) : float16(float(v)) {}
  explicit float16(long long v) : float16(float(v)) {}
  explicit float16(unsigned long long v) : float16(float(v)) {}
  operator float() const {
    const int e = bits >> 10 & 31, m = bits & 1023;
    const float v = e == 31 ? (m ? NAN : INFINITY) : e ? ldexpf(1024 + m, e - 25) : ldexpf(m, -24);
    return bits >> 15 ? -v : v;
  }
  float16& operator=(const float16&) = default;
  float16(const float16&) = default;
  template <class T> float16& operator=(const T& v) { return *this = static_cast<float16>(v); }
  template <class T> float16& operator+=(const T& v) { return *this = *this + v; }
  template <class T> float16& operator-=(const T& v) { return *this = *this - v; }
  template <class T> float16& operator*=(const T& v) { return *this = *this * v; }
  template <class T> float16& operator/=(const T& v) { return *this = *this / v; }
};

// As in CUDA, a NaN loses against a number.
template <class A, class B> auto min(A a, B b) -> decltype(a + b) { return a != a || b < a ? b : a; }
template <class A, class B> auto max(A a, B b) -> decltype(a + b) { return a != a || b > a ? b : a; }
inline float rsqrt(float x) { return 1 / sqrtf(x); }
inline double rsqrt(double x) { return 1 / sqrt(x); }
#define rsqrtf rsqrt
#define __expf expf
#define __logf logf
#define __powf powf
#define __fdividef(x, y) ((x) / (y))
inline unsigned long long __umul64hi(unsigned long long x, unsigned long long y) {
  return (unsigned __int128)x * y >> 64;
}
template <class T> T __ldg(const T* p) { return *p; }
template <class T> T atomicAdd(T* p, T v) { T old = *p; *p += v; return old; }
template <class T> T atomicMax(T* p, T v) { T old = *p; if (v > old) *p = v; return old; }
template <class T> T atomicMin(T* p, T v) { T old = *p; if (v < old) *p = v; return old; }

struct CIndexer {
  ptrdiff_t _size;
  ptrdiff_t size() const { return _size; }
};

template <class T, int _ndim> struct CArray {
  static const int ndim = _ndim;
  char* _data;
  const ptrdiff_t* _geometry;  // size, whether in C order without gaps, shape, strides
  ptrdiff_t* _error;           // whether there was one; argument, index, size
  int _argument;
  ptrdiff_t size() const { return _geometry[0]; }
  const ptrdiff_t* shape() const { return _geometry + 2; }
  const ptrdiff_t* strides() const { return _geometry + 2 + ndim; }
  T& _at(ptrdiff_t i) const {
    ptrdiff_t offset = 0;
    if (_geometry[1]) offset = i * (ptrdiff_t)sizeof(T);
    else for (int k = ndim; k-- > 0; i /= shape()[k]) offset += i % shape()[k] * strides()[k];
    return *(T*)(_data + offset);
  }
  T& _outside(ptrdiff_t i, ptrdiff_t size) const {
    alignas(16) static char nowhere[16];
    if (!_error[0]) _error[0] = 1, _error[1] = _argument, _error[2] = i, _error[3] = size;
    return *(T*)nowhere;
  }
  T& operator[](ptrdiff_t i) const { return 0 <= i && i < size() ? _at(i) : _outside(i, size()); }
  template <class Int, int D> T& operator[](const Int (&index)[D]) const {
    static_assert(D == ndim, "one index for each axis");
    ptrdiff_t i = 0;
    for (int k = 0; k < D; ++k) {
      if (index[k] < 0 || index[k] >= shape()[k]) return _outside(index[k], shape()[k]);
      i = i * shape()[k] + index[k];
    }
    return _at(i);
  }
};
"""


class Parameter(NamedTuple):
    name: str
    type: str
    """A letter that stands for a type, or a type of C."""
    dtype: np.dtype | None
    """None for a letter."""
    raw: bool
    const: bool


def parameters(text, const):
    result = []
    for part in filter(None, map(str.strip, text.split(","))):
        *flags, kind, name = part.split()
        if not set(flags) <= {"raw", "_non_const"}:
            raise ValueError(f"unknown keyword in {part!r}")
        dtype = None if len(kind) == 1 else np.dtype(kind)
        c_type = kind if dtype is None else C_TYPES[dtype.name]
        result.append(Parameter(name, c_type, dtype, "raw" in flags, const and "_non_const" not in flags))
    return tuple(result)


@functools.cache
def _folder():
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    return Path(folder.name)


@functools.cache
def compiled(source):
    """The function `run` of a C++ source."""
    if compiler() is None:
        raise RuntimeError("the stand-in for CuPy needs a C++ compiler (g++ or clang++) to run kernels")
    path = _folder() / f"{hashlib.sha256(source.encode()).hexdigest()}.cpp"
    path.write_text(source)
    command = [compiler(), "-std=c++17", "-O1", "-w", "-ffp-contract=off", "-shared", "-fPIC"]
    done = subprocess.run([*command, path, "-o", path.with_suffix(".so")], capture_output=True, text=True)
    if done.returncode:
        raise CompileException(f"{done.stderr}\n{source.removeprefix(PRELUDE)}")
    return ctypes.CDLL(path.with_suffix(".so")).run


class Kernel:
    """What both kinds of kernels share: parameters, their types, and the way to C++ and back."""

    def __init__(self, in_params, out_params, name, preamble):
        if not re.fullmatch(r"[A-Za-z_]\w*", name):
            raise ValueError(f"Invalid kernel name: {name!r}")
        self.in_params, self.out_params = parameters(in_params, True), parameters(out_params, False)
        self.params = self.in_params + self.out_params
        self.nin, self.nout, self.nargs = len(self.in_params), len(self.out_params), len(self.params)
        self.name, self.preamble = name, preamble

    def values(self, args):
        """NumPy's arrays and the numbers behind the arguments."""
        if len(args) not in (self.nin, self.nargs):
            raise TypeError(f"Wrong number of arguments for {self.name!r}. It must be either {self.nin} or "
                            f"{self.nargs} (with outputs), but given {len(args)}.")
        if not all(isinstance(arg, ndarray) for arg in args[self.nin :]):
            raise TypeError(f"{self.name}: output arguments must be cupy.ndarray")
        return list(map(operand, args))

    def types(self, values):
        """The dtype of each letter, and that of each parameter."""
        letters = {}
        for parameter, value in sorted(zip(self.params, values), key=lambda pair: pair[0].const):  # outputs first
            if isinstance(value, np.ndarray):
                expected = parameter.dtype or letters.setdefault(parameter.type, value.dtype)
                if value.dtype != expected:
                    raise TypeError(f"Type is mismatched. {self.name}: {parameter.name} is {value.dtype}, "
                                    f"not {expected}")
        try:
            return letters, [p.dtype or letters[p.type] for p in self.params]
        except KeyError as letter:
            raise TypeError(f"{self.name}: no array says what the type {letter} is") from None

    def shape(self, values, size=-1):
        """The shape that arrays which are not raw broadcast to, or else `size`."""
        shapes = [x.shape for p, x in zip(self.params, values) if isinstance(x, np.ndarray) and not p.raw]
        if shapes and size != -1:
            raise ValueError(f"{self.name}: 'size' can be used only if all of the ndarray are 'raw'.")
        if not shapes and size == -1:
            raise ValueError(f"{self.name}: Loop size is undecided.")
        return np.broadcast_shapes(*shapes) if shapes else (size,)

    def outputs(self, given, dtypes, shape, sized):
        """The output arrays, made if none are given; `sized` if the caller said how large they are."""
        if not given:
            if any(p.raw for p in self.out_params) and not sized:
                raise ValueError(f"{self.name}: Output array size is Undecided")
            return [ndarray(shape, dtype) for dtype in dtypes[self.nin :]]
        for parameter, out in zip(self.out_params, given):
            if not parameter.raw and out.shape != shape:
                raise ValueError(f"{self.name}: Out shape is mismatched: {shape} is written to {out.shape}")
            if not operand(out).flags.writeable:
                raise ValueError(f"{self.name}: {parameter.name} is broadcast, so that threads would share its places")
        return given

    def source(self, letters, values, body):
        """The C++ for one combination of types. An array is `name` if it is raw, else `_raw_name`."""
        declared = [
            f"CArray<{'const ' * p.const}{p.type}, {x.ndim}> {'' if p.raw else '_raw_'}{p.name} = "
            f"{{_data[{k}], _geometry[{k}], _error, {k}}};" if isinstance(x, np.ndarray) else
            f"const {p.type} {p.name} = *(const {p.type}*)_data[{k}];"
            for k, (p, x) in enumerate(zip(self.params, values))
        ]
        typedefs = [f"typedef {C_TYPES[dtype.name]} {letter};" for letter, dtype in sorted(letters.items())]
        arguments = "const ptrdiff_t* _sizes, char** _data, const ptrdiff_t** _geometry, ptrdiff_t* _error"
        function = [f'extern "C" void run({arguments}) {{', *declared, *body, "}"]
        return "\n".join([PRELUDE, *typedefs, self.preamble, *function, ""])

    @silent
    def launch(self, source, values, dtypes, *sizes):
        data, geometry, kept = (ctypes.c_void_p * self.nargs)(), (ctypes.c_void_p * self.nargs)(), []
        for k, (parameter, value, dtype) in enumerate(zip(self.params, values, dtypes)):
            if isinstance(value, np.ndarray):
                kept.append(np.array([value.size, value.flags.c_contiguous, *value.shape, *value.strides], np.intp))
                data[k], geometry[k] = value.ctypes.data, kept[-1].ctypes.data
                continue
            if parameter.raw or (np.asarray(value).dtype.kind == "f" and dtype.kind != "f"):
                raise TypeError(f"{self.name}: {value!r} for {'raw ' * parameter.raw}{dtype} {parameter.name}")
            kept.append(np.array(value, dtype))
            data[k] = kept[-1].ctypes.data
        error = (ctypes.c_ssize_t * 4)()
        compiled(source)((ctypes.c_ssize_t * len(sizes))(*sizes), data, geometry, error)
        if error[0]:
            raise IndexError(f"{self.name}: {self.params[error[1]].name}[{error[2]}] is outside of {error[3]} elements")


TRIED_TWICE = 1 << 20
"""Elements that a kernel is tried on in both orders; on more, where that would take seconds, in one."""


def elements(params, values, index):
    """C++ that declares, by the names of the parameters, the elements at `index` of arrays that are not raw."""
    return [f"{'const ' * p.const}{p.type}& {p.name} = _raw_{p.name}._at({index});"
            for p, x in zip(params, values) if isinstance(x, np.ndarray) and not p.raw]


def reached(tables):
    """The arrays whose addresses stand in tables that a kernel is given."""
    addresses = {int(address) for table in tables for address in table.flat}
    return [x._array for x in list(ALIVE.values()) if x.data.ptr in addresses and x.nbytes] if addresses else []


class ElementwiseKernel(Kernel):
    """`cupy.ElementwiseKernel`. Runs twice, from the first element and from the last, and expects the same bits, unless
    there are very many."""

    def __init__(self, in_params, out_params, operation, name="kernel", reduce_dims=True, preamble="", no_return=False,
                 return_tuple=False, *, loop_prep="", after_loop="", options=()):
        super().__init__(in_params, out_params, name, preamble)
        if any(p.name == "i" for p in self.params):
            raise ValueError("Can not use 'i' as a parameter name")
        if re.search(r"\breturn\s*;", operation):
            raise ValueError(f"{name}: a thread that returns leaves the loop over its elements; write continue")
        self.operation, self.loop_prep, self.after_loop = operation, loop_prep, after_loop
        self.no_return, self.return_tuple = no_return, return_tuple

    def __call__(self, *args, size=-1, stream=None, block_size=128):
        values = self.values(args)
        letters, dtypes = self.types(values)
        shape = self.shape(values, size)
        outs = self.outputs(args[self.nin :], dtypes, shape, size != -1)
        if math.prod(shape):
            ins = [np.broadcast_to(x, shape) if isinstance(x, np.ndarray) and not p.raw else x
                   for p, x in zip(self.in_params, values)]
            values = ins + list(map(operand, outs))
            remember(functools.partial(self._run, letters, values, dtypes, math.prod(shape)))()
        if self.no_return:
            return None
        return tuple(outs) if self.return_tuple or self.nout != 1 else outs[0]

    def _run(self, letters, values, dtypes, count):
        source = self.source(letters, values, [
            "const CIndexer _ind = {_sizes[0]};", f"{self.loop_prep};",
            "for (ptrdiff_t _k = 0; _k < _ind.size(); ++_k) {",
            "const ptrdiff_t i = _sizes[1] ? _ind.size() - 1 - _k : _k;",
            *elements(self.params, values, "i"), f"{self.operation};", "}", f"{self.after_loop};",
        ])
        if count > TRIED_TWICE:
            return self.launch(source, values, dtypes, count, False)
        written = [x for p, x in zip(self.params, values) if isinstance(x, np.ndarray) and not p.const]
        written += reached(x for p, x in zip(self.params, values) if p.raw and p.dtype == np.uint64)
        before = [x.copy() for x in written]
        self.launch(source, values, dtypes, count, False)
        forwards = [x.tobytes() for x in written]
        for x, old in zip(written, before):
            x[...] = old
        self.launch(source, values, dtypes, count, True)
        if forwards != [x.tobytes() for x in written]:
            raise RuntimeError(f"{self.name}: the result depends on the order in which the threads run")


class ReductionKernel(Kernel):
    """`cupy.ReductionKernel`. Four threads share each result, each from the identity, and join theirs two by two."""

    def __init__(self, in_params, out_params, map_expr, reduce_expr, post_map_expr, identity, name="reduce_kernel",
                 reduce_type=None, reduce_dims=True, preamble="", options=()):
        super().__init__(in_params, out_params, name, preamble)
        self.map_expr, self.reduce_expr, self.post_map_expr = map_expr, reduce_expr, post_map_expr
        self.identity = "" if identity is None else str(identity)
        self.reduce_type = reduce_type or self.out_params[0].type

    def __call__(self, *args, out=None, axis=None, keepdims=False, stream=None):
        if out is not None:
            if len(args) != self.nin or self.nout != 1:
                raise ValueError("cannot specify 'out' as both a positional and keyword argument")
            args = (*args, out)
        values = self.values(args)
        letters, dtypes = self.types(values)
        shape = self.shape(values[: self.nin])
        axes = range(len(shape)) if axis is None else np.atleast_1d(axis).tolist()
        reduced = tuple(sorted(np.lib.array_utils.normalize_axis_tuple(axes, len(shape))))
        order = reduced + tuple(a for a in range(len(shape)) if a not in reduced)
        if any(p.raw for p in self.in_params) and list(order) != sorted(order):
            raise NotImplementedError("Illegal conditions")  # so says CuPy
        result = tuple(1 if a in reduced else n for a, n in enumerate(shape) if keepdims or a not in reduced)
        outs = self.outputs(args[self.nin :], dtypes, result, False)
        if math.prod(result):
            if not self.identity and 0 in shape:
                raise ValueError(f"zero-size array to reduction operation {self.name} which has no identity")
            ins = [np.broadcast_to(x, shape).transpose(order) if isinstance(x, np.ndarray) and not p.raw else x
                   for p, x in zip(self.in_params, values)]
            values = ins + list(map(operand, outs))
            remember(functools.partial(self._run, letters, values, dtypes, math.prod(shape), math.prod(result)))()
        return outs[0] if self.nout == 1 else tuple(outs)

    def _run(self, letters, values, dtypes, in_size, out_size):
        source = self.source(letters, values, [
            f"#define REDUCE(a, b) ({self.reduce_expr})", f"#define POST_MAP(a) ({self.post_map_expr})",
            f"typedef {self.reduce_type} _type_reduce;", "typedef int IndexT;",
            "const CIndexer _in_ind = {_sizes[0]}, _out_ind = {_sizes[1]};",
            "for (ptrdiff_t _i = 0; _i < _out_ind.size(); ++_i) {", "_type_reduce _parts[4];",
            "for (int _thread = 0; _thread < 4; ++_thread) {",
            f"_type_reduce _s = _type_reduce({self.identity});",
            "for (IndexT _J = _thread; _J < _in_ind.size() / _out_ind.size(); _J += 4) {",
            *elements(self.in_params, values, "_J * _out_ind.size() + _i"),
            f"_type_reduce _a = static_cast<_type_reduce>({self.map_expr});", "_s = REDUCE(_s, _a);", "}",
            "_parts[_thread] = _s;", "}",
            "for (int _half = 2; _half; _half /= 2) for (int _thread = 0; _thread < _half; ++_thread) {",
            "_type_reduce _a = _parts[_thread], _b = _parts[_thread + _half];",
            "_parts[_thread] = REDUCE(_a, _b);", "}", "_type_reduce _s = _parts[0];",
            *elements(self.out_params, values[self.nin :], "_i"), "POST_MAP(_s);", "}",
        ])
        self.launch(source, values, dtypes, in_size, out_size)
