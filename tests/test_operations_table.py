"""Every operation on every kind of array: the right value and gradient, or one clear error.

`ROWS` holds ordinary calls of all operations, each written once, true of minidl and PyTorch alike. The tests vary the
input (memory layout, dtype, subclass, nothing, a single number) and compare with the same call on plain float64.
`WHOLE`, `BESIDE`, `EMPTY` and `SINGLE` are tables of what PyTorch does; the tests at the end, which need PyTorch, check
them against PyTorch itself.
"""

import array
import copy
import functools
import inspect
import linecache
import types
import warnings
from collections import UserList, deque
from pathlib import Path
from typing import Any, NamedTuple

import cases
import numpy as np
import pytest

import minidl as dl
from minidl import functional as F

RNG = np.random.default_rng(1)  # not the numbers of `cases.cotangent`


class Row(NamedTuple):
    """One call of (library, *leaves, *constants); floats among the leaves get a gradient."""

    call: Any
    leaves: tuple
    constants: tuple = ()
    algorithm: str | None = None


def row(call, *leaves, constants=(), algorithm=None):
    return Row(call, leaves, constants, algorithm)


IMAGE, FILTERS, PER_CHANNEL = RNG.standard_normal((2, 3, 5, 4)), RNG.standard_normal((3, 3, 2, 3)), RNG.random(3) + 0.5
SMALL = RNG.standard_normal((3, 3, 3, 3))
SCORES, OTHERS, SHARES = RNG.standard_normal((4, 3)), RNG.standard_normal((4, 3)), RNG.uniform(0.1, 0.9, (4, 3))
POSITIVE, STACK = RNG.uniform(0.5, 2, (4, 3)), RNG.standard_normal((2, 3, 4))
LABELS = np.array([2, 0, 1, 1])

# The first word of a name is the operation.
ROWS = {
    "abs": row(lambda F, x: F.abs(x), SCORES),
    "neg": row(lambda F, x: -x, SCORES),
    "exp": row(lambda F, x: F.exp(x), SCORES),
    "log": row(lambda F, x: F.log(x), POSITIVE),
    "sqrt": row(lambda F, x: F.sqrt(x), POSITIVE),
    "sigmoid": row(lambda F, x: F.sigmoid(x), SCORES),
    "tanh": row(lambda F, x: F.tanh(x), SCORES),
    "relu": row(lambda F, x: F.relu(x), SCORES),
    "clone": row(lambda F, x: F.clone(x), SCORES),
    "to": row(lambda F, x: F.to(x, dtype=np.float32), SCORES),
    "add": row(lambda F, x, y: x + y, SCORES, PER_CHANNEL),
    "sub": row(lambda F, x, y: x - y, SCORES, PER_CHANNEL),
    "mul": row(lambda F, x, y: x * y, SCORES, PER_CHANNEL),
    "div": row(lambda F, x, y: x / y, SCORES, PER_CHANNEL),
    "pow": row(lambda F, x, y: x**y, POSITIVE, PER_CHANNEL),
    "eq": row(lambda F, x, y: x == y, SCORES, OTHERS),
    "lt": row(lambda F, x, y: x < y, SCORES, OTHERS),
    "sum": row(lambda F, x: F.sum(x), SCORES),
    "sum axis=0": row(lambda F, x: F.sum(x, axis=0), SCORES),
    "mean": row(lambda F, x: F.mean(x), SCORES),
    "mean axis=0": row(lambda F, x: F.mean(x, axis=0), SCORES),
    "var": row(lambda F, x: F.var(x), SCORES),
    "var axis=0": row(lambda F, x: F.var(x, axis=0, ddof=1), SCORES),
    "max": row(lambda F, x: F.max(x), SCORES),
    "max axis=0": row(lambda F, x: F.max(x, axis=0), SCORES),
    "min": row(lambda F, x: F.min(x), SCORES),
    "min axis=1": row(lambda F, x: F.min(x, axis=1), SCORES),
    "argmax": row(lambda F, x: x.argmax(), SCORES),
    "argmax axis=0": row(lambda F, x: x.argmax(0), SCORES),
    "reshape": row(lambda F, x: F.reshape(x, shape=(3, -1)), SCORES),
    "flatten": row(lambda F, x: F.flatten(x), SCORES),
    "transpose": row(lambda F, x: F.transpose(x, axes=(1, 0)), SCORES),
    "getitem": row(lambda F, x: x[1:], SCORES),
    "getitem twice": row(lambda F, x: x[[0, 0]], SCORES),
    "getitem array": row(lambda F, x, i: x[i], SCORES, constants=(LABELS,)),
    "cat": row(lambda F, x, y: F.cat([x, y], 1), SCORES, OTHERS),
    "pad": row(lambda F, x: F.pad(x, (1, 2, 0, 1)), IMAGE),
    "pad reflect": row(lambda F, x: F.pad(x, (1, 2, 0, 1), mode="reflect"), IMAGE),
    "pad circular": row(lambda F, x: F.pad(x, (1, 2, 0, 1), mode="circular"), IMAGE),
    "matmul": row(lambda F, x, y: x @ y, SCORES, SCORES[:3]),
    "matmul vector": row(lambda F, x, y: x @ y, SCORES, PER_CHANNEL),
    "matmul stack": row(lambda F, x, y: x @ y, STACK, STACK.reshape(2, 4, 3)),
    "linear": row(lambda F, x, w, b: F.linear(x, w, b), SCORES, FILTERS[:2, :, 0, 0], PER_CHANNEL[:2]),
    "conv2d": row(lambda F, x, w, b: F.conv2d(x, w, b, stride=2, padding=1), IMAGE, FILTERS, PER_CHANNEL),
    "conv2d winograd": row(lambda F, x, w: F.conv2d(x, w, padding=1), IMAGE, SMALL, algorithm="winograd"),
    "conv2d groups": row(lambda F, x, w: F.conv2d(x, w, groups=3), IMAGE, FILTERS[:, :1]),
    "conv2d dilation": row(lambda F, x, w: F.conv2d(x, w, dilation=2), IMAGE, SMALL[..., :2, :2]),
    "conv_transpose2d": row(lambda F, x, w, b: F.conv_transpose2d(x, w, b, stride=2), IMAGE, FILTERS, PER_CHANNEL),
    "im2col": row(lambda F, x: F.im2col(x, (2, 3), padding=1), IMAGE),
    "col2im": row(lambda F, x: F.col2im(x, (2, 6), (2, 2)), IMAGE.reshape(2, 12, 5)),
    "max_pool2d": row(lambda F, x: F.max_pool2d(x, 3, stride=2, padding=1), IMAGE),
    "avg_pool2d": row(lambda F, x: F.avg_pool2d(x, (2, 3), padding=1, ceil_mode=True), IMAGE),
    "adaptive_avg_pool2d": row(lambda F, x: F.adaptive_avg_pool2d(x, (2, 3)), IMAGE),
    "local_response_norm": row(lambda F, x: F.local_response_norm(x, 2, alpha=1.0), IMAGE),
    "batch_norm": row(
        lambda F, x, w, b: F.batch_norm(x, None, None, w, b, training=True), IMAGE, PER_CHANNEL, PER_CHANNEL
    ),
    "batch_norm eval": row(
        lambda F, x, w, b, mean, var: F.batch_norm(x, mean, var, w, b),
        IMAGE, PER_CHANNEL, PER_CHANNEL, constants=(SHARES[0], PER_CHANNEL),
    ),
    "dropout": row(lambda F, x: F.dropout(x, 0.5), IMAGE),
    "dropout eval": row(lambda F, x: F.dropout(x, training=False), IMAGE),
    "softmax": row(lambda F, x: F.softmax(x, -1), SCORES),
    "log_softmax": row(lambda F, x: F.log_softmax(x, 0), SCORES),
    "cross_entropy": row(lambda F, x, y: F.cross_entropy(x, y), SCORES, constants=(LABELS,)),
    "cross_entropy weighted": row(
        lambda F, x, y, w: F.cross_entropy(x, y, w, label_smoothing=0.1, reduction="sum"),
        SCORES, constants=(LABELS, PER_CHANNEL),
    ),
    "cross_entropy shares": row(lambda F, x, y: F.cross_entropy(x, y, reduction="none"), SCORES, SHARES),
    "nll_loss": row(lambda F, x, y, w: F.nll_loss(x, y, w), SCORES, constants=(LABELS, PER_CHANNEL)),
    "binary_cross_entropy": row(lambda F, x, y: F.binary_cross_entropy(x, y), SHARES, 1 - SHARES),
    "binary_cross_entropy weighted": row(
        lambda F, x, y, w: F.binary_cross_entropy(x, y, w, reduction="sum"), SHARES, 1 - SHARES, constants=(POSITIVE,)
    ),
    "binary_cross_entropy_with_logits": row(
        lambda F, x, y, w, p: F.binary_cross_entropy_with_logits(x, y, w, pos_weight=p),
        SCORES, SHARES, constants=(POSITIVE, PER_CHANNEL),
    ),
    "mse_loss": row(lambda F, x, y: F.mse_loss(x, y), SCORES, OTHERS),
    "mse_loss none": row(lambda F, x, y: F.mse_loss(x, y, reduction="none"), SCORES, OTHERS),
}
OPERATORS = ("neg", "add", "sub", "mul", "div", "pow", "eq", "lt", "argmax", "getitem", "matmul")  # called without F

every_row = pytest.mark.parametrize("name", ROWS)


def each(argument, values):
    """The test, for each of the values in turn: a thousand tests of their own would take longer than what they do."""
    def decorate(test):
        @functools.wraps(test)
        def looped(**arguments):
            for value in values:
                try:
                    test(**arguments, **{argument: value})
                except Exception as error:
                    raise AssertionError(f"with {argument} {value}: {error}") from error

        parameters = inspect.signature(test).parameters.values()
        looped.__signature__ = inspect.Signature([p for p in parameters if p.name != argument])
        return looped

    return decorate



def operation(name):
    return name.split()[0]


def test_every_operation_has_a_row():
    methods_without_function = {"argmax", "eq", "lt"}
    assert {operation(name) for name in ROWS} == set(F.__all__) - {"conv_algorithm"} | methods_without_function


# A call, and what comes of it


def seeded_dropout(*arguments, **options):
    dl.manual_seed(0)
    return F.dropout(*arguments, **options)


MINIDL = types.SimpleNamespace(**{**vars(F), "dropout": seeded_dropout})


def leaf(data):
    return dl.tensor(data, requires_grad=data.dtype.kind == "f")


def wrapped(data):
    """A tensor in the memory that `data` has."""
    return dl.Tensor(data, requires_grad=data.dtype.kind == "f")


def given(data):
    return data


def evaluate(row, leaves, constants=(), doors=None):
    """The arrays of the value and of the gradients of a random cotangent; `doors` says how each leaf comes in."""
    doors = doors or [leaf] * len(leaves)
    with F.conv_algorithm(row.algorithm), np.errstate(all="ignore"):
        tensors = [door(data) for door, data in zip(doors, leaves)]
        result = row.call(MINIDL, *tensors, *(dl.tensor(data) if doors[0] is leaf else data for data in constants))
        if result.requires_grad:
            result.backward(dl.tensor(cases.cotangent(result.shape).astype(result.dtype)))
    return [result.data, *(x.grad.data for x in tensors if isinstance(x, dl.Tensor) and x.grad is not None)]


def converted(dtype, arrays):
    """Floats in another precision; labels as they are."""
    return [data.astype(dtype) if data.dtype.kind == "f" else data for data in arrays]


def plain(data):
    """The same numbers, rows first in native, writable memory of their own."""
    return np.array(data, data.dtype.newbyteorder("="), order="C", subok=False)


def check_arrays(found, expected, tolerance):
    """Plain native arrays of the same shapes and dtypes; the same numbers up to `tolerance` of the largest."""
    assert len(found) == len(expected)
    for what, ours, right in zip(("value", *["gradient"] * len(found)), found, expected):
        assert type(ours) is np.ndarray and ours.dtype.isnative, f"{what} is a {type(ours)} of {ours.dtype!r}"
        assert (ours.shape, ours.dtype) == (right.shape, right.dtype), f"{what} is {ours.dtype} {ours.shape}"
        largest = np.abs(right[np.isfinite(right)].astype(float)).max(initial=0)
        smallest = 2 * np.finfo(right.dtype).smallest_subnormal if right.dtype.kind == "f" else 0
        with np.errstate(all="ignore"):
            np.testing.assert_allclose(ours, right, rtol=tolerance, atol=tolerance * largest + smallest, err_msg=what)


def check_clear(caught, name, *words):
    """Raised by minidl in words of its own, not inside NumPy, and `words` are among them.

    NumPy's words are clear enough for axes, indices and shapes that are not there.
    """
    last, message = caught.traceback[-1], f"{caught.type.__name__}: {caught.value}"
    source = linecache.getline(str(last.path), last.lineno + 1)
    ours = "minidl" in Path(last.path).parts and source.lstrip().startswith("raise")
    older = (DeprecationWarning,) * (np.lib.NumpyVersion(np.__version__) < "2.3.0")  # of an index beyond nothing
    assert issubclass(caught.type, (TypeError, ValueError, IndexError, *older)), message
    assert ours or isinstance(caught.value, np.exceptions.AxisError) or operation(name) in ("getitem", "reshape"), (
        f"in NumPy's words, {message}")
    assert all(word in message for word in words), f"{words} not in {message}"


REFUSALS = (TypeError, ValueError, IndexError, ArithmeticError, RuntimeError, Warning)


def check_outcome(name, compute, outcome, oracle, words=(), tolerance=1e-5):
    """`outcome` is what must come: a dtype, "refused", or "either" of a refusal and the right value in any dtype.

    `words` belong to the refusal. `oracle` gives the value in float64 and the gradients.
    """
    try:
        found = compute()
    except REFUSALS:
        caught = pytest.ExceptionInfo.from_current()
        assert outcome in ("refused", "either"), f"refused, where PyTorch gives {outcome}: {caught.value}"
        check_clear(caught, name, *words)
        return
    assert outcome != "refused", f"computed {found[0].dtype}, where PyTorch refuses"
    value, *gradients = oracle()
    check_arrays(found, [as_dtype(value, found[0].dtype if outcome == "either" else outcome), *gradients], tolerance)


def as_dtype(value, dtype):
    """float64 in another dtype; whole numbers wrap around."""
    return (value.round(9).astype(np.int64) if np.dtype(dtype).kind in "iu" else value).astype(dtype)


# Memory: whatever holds the numbers


def unaligned(data):
    """A field of packed records, one byte off."""
    records = np.zeros(data.shape, [("flag", "u1"), ("number", data.dtype)])
    records["number"] = data
    return records["number"]


def read_only(data):
    data = data.copy()
    data.flags.writeable = False
    return data


class Peculiar(np.ndarray):
    """An ndarray subclass with arithmetic of its own, as np.matrix and arrays with units have."""

    def __array_ufunc__(self, *_, **__):
        raise AssertionError("the arithmetic of a subclass was used")

    def __array_function__(self, *_, **__):
        raise AssertionError("the functions of a subclass were used")


KINDS = {
    **cases.LAYOUTS,
    "one row again and again": lambda data: np.broadcast_to(data[:1], data.shape),
    "read-only": read_only,
    "unaligned": unaligned,
    "big-endian": lambda data: data.astype(data.dtype.newbyteorder(">")),
    "big-endian float32": lambda data: data.astype(f">{data.dtype.kind}4"),
    "np.matrix": lambda data: data.view(np.matrix) if data.ndim == 2 else data,
    "memmap": lambda data: data.copy().view(np.memmap),
    "subclass": lambda data: data.copy().view(Peculiar),
}
DOORS = ["tensor", "Tensor", "array"]

BEFORE_OURS = {("pow", "np.matrix"), ("eq", "mask"), ("lt", "mask")}
"""Operators that such an array on the left runs itself, without asking the tensor on the right."""


def ways_in(name, door, kind=None):
    """How the leaves come in: all as tensors, or one of them as a plain array beside tensors."""
    count = len(ROWS[name].leaves)
    if door != "array":
        return [[leaf if door == "tensor" else wrapped] * count]
    if count == 1 and operation(name) in OPERATORS:
        return []  # NumPy's own operator
    first = int((operation(name), kind) in BEFORE_OURS)
    return [[given if i == place else wrapped for i in range(count)] for place in range(first, count)]


@every_row
@each("kind", KINDS)
def test_memory_changes_nothing(name, kind):
    """By every door: values and gradients of a plain array, and inputs untouched."""
    leaves, constants = ([KINDS[kind](data) for data in part] for part in ROWS[name][1:3])
    value, *gradients = evaluate(ROWS[name], [*map(plain, leaves)], [*map(plain, constants)])
    before = [data.tobytes() for data in (*leaves, *constants)]
    for doors in (doors for door in DOORS for doors in ways_in(name, door, kind)):
        expected = [value, *(gradient for gradient, door in zip(gradients, doors) if door is not given)]
        tolerance = 1e-12 if value.dtype == np.float64 else 1e-5
        check_arrays(evaluate(ROWS[name], leaves, constants, doors), expected, tolerance)
    assert before == [data.tobytes() for data in (*leaves, *constants)]


NOT_NUMBERS = {
    "longdouble": lambda data: data.astype(np.longdouble),
    "complex128": lambda data: data.astype(np.complex128),
    "object": lambda data: data.astype(object),
    "str": lambda data: data.astype(str),
    "mask": np.ma.masked_array,
}


@every_row
@each("kind", NOT_NUMBERS)
def test_other_arrays_are_refused(name, kind):
    """Precisions that no kernel has, complex numbers, objects, text, and masks that would be lost."""
    if kind == "longdouble" and np.dtype(np.longdouble).itemsize == 8:
        return  # here it is float64
    shown = {"longdouble": np.dtype(np.longdouble).name, "str": "<U"}.get(kind, kind)
    leaves, constants = ROWS[name].leaves, ROWS[name].constants
    for door in (dl.tensor, dl.Tensor):
        with pytest.raises(TypeError, match=shown):
            door(NOT_NUMBERS[kind](leaves[0]))
    for doors in ways_in(name, "array", kind):
        odd = [NOT_NUMBERS[kind](data) if door is given else data for data, door in zip(leaves, doors)]
        with pytest.raises(TypeError, match=shown):
            evaluate(ROWS[name], odd, constants, doors)


# Sums

LONG, OFFSETS = 5000, (0, 300)
THIRDS = np.arange(LONG) % 3
SUMS = {  # more terms than float16 can add up one by one; of the leaves, the shapes
    "sum": row(lambda F, x: F.sum(x), (LONG,)),
    "mean": row(lambda F, x: F.mean(x), (LONG,)),
    "mean axis=0": row(lambda F, x: F.mean(x, axis=0), (LONG, 3)),
    "var": row(lambda F, x: F.var(x, axis=0), (LONG, 3)),
    "add": row(lambda F, x, y: x + y, (LONG, 3), (3,)),
    "mul": row(lambda F, x, y: x * y, (LONG, 3), (3,)),
    "div": row(lambda F, x, y: x / y, (LONG, 3), (3,)),
    "matmul": row(lambda F, x, y: x @ y, (3, LONG), (LONG, 2)),
    "linear": row(lambda F, x, w, b: F.linear(x, w, b), (LONG, 3), (2, 3), (2,)),
    "conv2d 3x3": row(lambda F, x, w, b: F.conv2d(x, w, b), (2, 8, 32, 32), (8, 8, 3, 3), (8,)),
    "conv2d": row(lambda F, x, w, b: F.conv2d(x, w, b, stride=2), (2, 3, 96, 50), (2, 3, 2, 3), (2,)),
    "conv_transpose2d": row(lambda F, x, w, b: F.conv_transpose2d(x, w, b), (2, 3, 50, 50), (3, 2, 2, 3), (2,)),
    "avg_pool2d": row(lambda F, x: F.avg_pool2d(x, 64), (1, 64, 64)),
    "adaptive_avg_pool2d": row(lambda F, x: F.adaptive_avg_pool2d(x, 1), (1, 64, 64)),
    "local_response_norm": row(lambda F, x: F.local_response_norm(x, 9, alpha=1.0), (1, 9, 2)),
    "batch_norm": row(lambda F, x, w, b: F.batch_norm(x, None, None, w, b, training=True), (LONG, 3), (3,), (3,)),
    "softmax": row(lambda F, x: F.softmax(x, 0), (LONG, 2)),
    "log_softmax": row(lambda F, x: F.log_softmax(x, 0), (LONG, 2)),
    "cross_entropy": row(lambda F, x, y: F.cross_entropy(x, y), (LONG, 3), constants=(THIRDS,)),
    "nll_loss": row(lambda F, x, y: F.nll_loss(x, y), (LONG, 3), constants=(THIRDS,)),
    "binary_cross_entropy": row(lambda F, x, y: F.binary_cross_entropy(x, y), (LONG,), (LONG,)),
    "binary_cross_entropy_with_logits": row(
        lambda F, x, y: F.binary_cross_entropy_with_logits(x, y), (LONG,), (LONG,)
    ),
    "mse_loss": row(lambda F, x, y: F.mse_loss(x, y), (LONG, 3), (LONG, 3)),
    "getitem": row(lambda F, x, i: x[i], (3,), constants=(THIRDS,)),
    "pad": row(lambda F, x: F.pad(x, (LONG, LONG), mode="replicate"), (1, 3)),
}


def halves(name, offset=0):
    """Leaves for `SUMS`, exact in float16: numbers around `offset`."""
    rng = np.random.default_rng(0)
    offset = 0 if "binary" in name else offset
    return [(offset + rng.uniform(0.1, 0.9, shape)).astype(np.float16) for shape in SUMS[name].leaves]


def as_halves(name, arrays):
    """Rounded to float16; `to`, comparisons and `argmax` keep the dtype that they give."""
    value, *gradients = arrays
    with np.errstate(over="ignore"):
        return [value.astype(FIXED.get(name, np.float16)), *(gradient.astype(np.float16) for gradient in gradients)]


def where_finite(found, expected):
    """`found` with the expected infinities: float16 may overflow where its range ends."""
    return [np.where(np.isinf(right), right, ours) for ours, right in zip(found, expected)]


@every_row
def test_float16(name):
    """As float64 on the same numbers, within the rounding of float16: values and gradients."""
    leaves, constants = (converted(np.float16, part) for part in ROWS[name][1:3])
    expected = evaluate(ROWS[name], converted(np.float64, leaves), converted(np.float64, constants))
    check_arrays(evaluate(ROWS[name], leaves, constants), as_halves(name, expected), 2e-3)


@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("name", SUMS)
def test_float16_adds_up_in_float32(name, offset):
    """Long sums neither stop at 2,048 nor overflow on the way to a finite result."""
    leaves, constants = halves(name, offset), SUMS[name].constants
    expected = as_halves(name, evaluate(SUMS[name], converted(np.float64, leaves), constants))
    found = evaluate(SUMS[name], leaves, constants)
    check_arrays(where_finite(found, expected), expected, 2e-3)


MILLION = 1_000_000
EQUAL_ROWS = {  # a sum over a million equal rows of three: of the leaf, or of the gradient that arrives
    "sum axis=0": lambda x: x.sum(axis=0).data / MILLION,
    "mean axis=0": lambda x: x.mean(axis=0).data,
    "mean of columns": lambda x: x.T.mean(axis=1).data,
    "mean of a stack": lambda x: x.reshape(1000, 1000, 3).mean(axis=(0, 1)).data,
    "adaptive_avg_pool2d": lambda x: F.adaptive_avg_pool2d(x.T.reshape(3, 1000, 1000), 1).data.ravel(),
    "batch_norm": lambda x: running_mean(x),
    "gradient of add": lambda x: arriving(x, lambda b: dl.tensor(x.data) + b),
    "gradient of mul": lambda x: arriving(x, lambda b: dl.tensor(np.ones_like(x.data)) * b),
    "gradient of a bias": lambda x: arriving(
        x, lambda b: F.linear(dl.tensor(np.zeros((MILLION, 1), x.dtype)), dl.tensor(np.zeros((3, 1), x.dtype)), b)
    ),
    "gradient of batch_norm": lambda x: arriving(
        x, lambda b: F.batch_norm(x, dl.tensor(x.data[0]), dl.tensor(x.data[0]), None, b)
    ),
    "gradient of a choice": lambda x: arriving(x, lambda b: b.reshape(1, 3)[np.zeros(MILLION, int)]),
}


def arriving(x, function):
    """The gradient of a vector of three, by a million, where x arrives at the result."""
    vector = dl.tensor(np.ones(3, x.dtype), requires_grad=True)
    function(vector).backward(dl.Tensor(x.data))
    return vector.grad.data / MILLION


def running_mean(x):
    mean = dl.tensor(np.zeros(3, x.dtype))
    F.batch_norm(x, mean, dl.tensor(np.ones(3, x.dtype)), training=True, momentum=1.0)
    return mean.data


@pytest.mark.parametrize("layout, dtype, tolerance", [
    ("rows first", "float32", 1e-6), ("columns first", "float32", 1e-6), ("rows first", "float64", 1e-14),
])
@pytest.mark.parametrize("name", EQUAL_ROWS)
def test_sums_are_as_good_as_pairwise(name, layout, dtype, tolerance):
    """Along whichever axis, in whichever layout: added one by one, float32 would be off by a percent."""
    if (name, dtype) == ("gradient of a choice", "float64"):
        tolerance = 1e-10  # float64's places are added one by one
    numbers = np.array([0.1, 0.7, 1.3], dtype)
    x = dl.Tensor(cases.LAYOUTS[layout](np.tile(numbers, (MILLION, 1))))
    np.testing.assert_allclose(EQUAL_ROWS[name](x), numbers, rtol=tolerance)


# Whole numbers and bools

FIXED = {"to": "float32", "argmax": "int64", "argmax axis=0": "int64", "eq": "bool", "lt": "bool"}
"""The dtype of a result that does not follow the dtype of the input."""

WHOLE = {  # for whole numbers and for bools: the "same" dtype, another one, "refused", or "either": see `check_outcome`
    "abs": "same refused", "neg": "same refused", "exp": "float32 float32", "log": "float32 float32",
    "sqrt": "float32 float32", "sigmoid": "float32 float32", "tanh": "float32 float32", "relu": "same refused",
    "clone": "same same", "to": "float32 float32", "add": "same same", "sub": "same refused", "mul": "same same",
    "div": "float32 float32", "pow": "same refused", "eq": "bool bool", "lt": "bool bool", "sum": "int64 int64",
    "mean": "float32 float32", "var": "float32 float32", "max": "same same", "min": "same same",
    "argmax": "int64 either", "reshape": "same same", "flatten": "same same", "transpose": "same same",
    "getitem": "same same", "cat": "same same", "pad": "same same", "pad reflect": "same either",
    "matmul": "same refused", "linear": "same refused", "conv2d": "same refused", "conv2d dilation": "either refused",
    "conv_transpose2d": "either refused", "im2col": "either same", "col2im": "either same",
    "max_pool2d": "same refused", "avg_pool2d": "either refused", "adaptive_avg_pool2d": "refused refused",
    "local_response_norm": "either refused", "batch_norm": "refused refused", "dropout": "refused refused",
    "dropout eval": "same same", "softmax": "refused refused", "log_softmax": "refused refused",
    "cross_entropy": "refused refused", "nll_loss": "refused refused", "binary_cross_entropy": "refused refused",
    "binary_cross_entropy_with_logits": "refused refused", "mse_loss": "refused refused",
}
COMPUTED_HERE = ("mean", "var")
"""PyTorch refuses these; NumPy's users expect them."""

BESIDE = {  # each argument in turn holds whole numbers, all others float32; after a slash: what holds for bools
    "add": "float32 float32", "sub": "float32/refused float32/refused", "mul": "float32 float32",
    "div": "float32 float32", "pow": "float32 float32/either", "eq": "bool bool", "lt": "bool bool",
    "getitem array": "same float32", "cat": "float32 float32", "matmul": "refused refused",
    "linear": "refused refused refused", "conv2d": "refused refused refused",
    "conv_transpose2d": "refused refused refused", "batch_norm": "refused refused refused refused refused",
    "cross_entropy": "refused float32/refused refused", "cross_entropy shares": "refused refused",
    "nll_loss": "refused float32/refused refused", "binary_cross_entropy": "refused refused float32",
    "binary_cross_entropy_with_logits": "refused refused float32 float32/either", "mse_loss": "float32 float32",
}
WHOLE_DTYPES = ["int8", "int16", "int32", "int64", "uint8", "bool", "uint16", "uint32", "uint64"]
IN_NUMPY_ONLY = ("uint16", "uint32", "uint64")
"""PyTorch computes little with them; where it does, so may we."""


def outcome_of(name, dtype, place=None):
    """What PyTorch makes of `dtype` in all arguments, or in the one at `place`."""
    words = (table := WHOLE if place is None else BESIDE).get(name) or table[operation(name)]
    if place is None:
        outcome = words.split()[dtype == "bool"]
    else:
        outcome = words.split()[place].partition("/")[2 * (dtype == "bool")] or words.split()[place]
    outcome = dtype if outcome == "same" else outcome
    return "either" if dtype in IN_NUMPY_ONLY and outcome != "refused" else outcome


def whole(data, dtype):
    """Small whole numbers or bools in place of floats; labels in another dtype."""
    if data.dtype.kind != "f":
        return data.astype(dtype)
    return data > 0 if dtype == "bool" else np.rint(np.abs(data) * 2 + 1).astype(dtype)


def all_whole(name, dtype):
    """Leaves and constants, all numbers in them whole, and the same as float64; labels are int64 in both."""
    parts = [[whole(data, dtype) if data.dtype.kind == "f" else data for data in part] for part in ROWS[name][1:3]]
    doubles = [[data.astype(float) if before.dtype.kind == "f" else data for data, before in zip(part, given)]
               for part, given in zip(parts, ROWS[name][1:3])]
    return parts, doubles


def one_whole(name, place, dtype):
    """Leaves and constants with whole numbers at `place` and float32 elsewhere, and the same as float64."""
    arrays = [*ROWS[name].leaves, *ROWS[name].constants]
    mixed = [whole(data, dtype) if i == place else converted(np.float32, [data])[0] for i, data in enumerate(arrays)]
    doubles = [data if before.dtype.kind != "f" else data.astype(float) for data, before in zip(mixed, arrays)]
    count = len(ROWS[name].leaves)
    return (mixed[:count], mixed[count:]), (doubles[:count], doubles[count:])


PLACES = [(name, place) for name, row in ROWS.items() for place in range(len(row.leaves) + len(row.constants))
          if len(row.leaves) + len(row.constants) > 1]


@every_row
@each("dtype", WHOLE_DTYPES)
def test_whole_numbers(name, dtype):
    """What PyTorch gives, or one TypeError that says what to write."""
    parts, doubles = all_whole(name, dtype)
    check_outcome(name, lambda: evaluate(ROWS[name], *parts), outcome_of(name, dtype),
                  lambda: evaluate(ROWS[name], *doubles)[:1], ["TypeError", operation(name), dtype, 'to("float32")'])


@pytest.mark.parametrize("name, place", PLACES)
@each("dtype", ["int64", "uint8", "bool"])
def test_whole_numbers_beside_floats(name, place, dtype):
    """One argument is whole: promoted as in PyTorch, gradients of the others included, or refused."""
    parts, doubles = one_whole(name, place, dtype)
    outcome = outcome_of(name, dtype, place)
    labels = [*ROWS[name].leaves, *ROWS[name].constants][place].dtype.kind == "i"

    def oracle():
        value, *gradients = evaluate(ROWS[name], *doubles)
        others = [gradient.astype(np.float32) for i, gradient in enumerate(gradients) if i != place]
        return [value] if outcome == dtype else [value, *others]

    check_outcome(name, lambda: evaluate(ROWS[name], *parts), outcome, oracle,
                  ["TypeError", operation(name), dtype, "" if labels else 'to("float32")'])


PROMOTIONS = [  # two operands in either order, and the dtype of what comes of them; "0-d" counts less, numbers least
    ("int64", 2, "int64"), ("int64", 2.5, "float32"), ("uint8", 2, "uint8"), ("uint8", True, "uint8"),
    ("int8", 2.5, "float32"), ("bool", 2, "int64"), ("bool", True, "bool"), ("bool", 2.5, "float32"),
    ("float16", 2, "float16"), ("float16", 2.5, "float16"), ("float32", 2.5, "float32"), ("float64", 2.5, "float64"),
    ("float32", np.float64(2.5), "float32"), ("int64", np.float64(2.5), "float32"), ("uint8", np.int64(2), "uint8"),
    ("uint8", "int8", "int16"), ("uint8", "int64", "int64"), ("int32", "int64", "int64"), ("bool", "uint8", "uint8"),
    ("float32", "int64", "float32"), ("float16", "int64", "float16"), ("float64", "uint8", "float64"),
    ("float16", "float32", "float32"), ("float32", "float64", "float64"), ("float32", "bool", "float32"),
    ("float32", "float64 0-d", "float32"), ("float16", "float64 0-d", "float16"), ("float16", "int64 0-d", "float16"),
    ("int64", "float64 0-d", "float64"), ("int64", "float16 0-d", "float16"), ("uint8", "int64 0-d", "uint8"),
    ("int8", "uint8 0-d", "int8"), ("bool", "int64 0-d", "int64"), ("int64 0-d", 2.5, "float32"),
    ("float32 0-d", "float64 0-d", "float64"), ("int64 0-d", "float64 0-d", "float64"), ("float16 0-d", 2, "float16"),
]
ARITHMETIC = {"add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b,
              "div": lambda a, b: a / b, "pow": lambda a, b: a**b}


def operand(given):
    """An array where a dtype is named, one number where it ends in 0-d; else the number itself."""
    if not isinstance(given, str):
        return given
    dtype, _, single = given.partition(" ")
    return np.array(2 if single else [1, 2, 3]).astype(dtype)


@pytest.mark.parametrize("left, right, dtype", [*PROMOTIONS, *((b, a, dtype) for a, b, dtype in PROMOTIONS)])
@each("name", ARITHMETIC)
def test_promotion_is_pytorchs(left, right, dtype, name):
    """Values, and gradients, each in the dtype of its leaf."""
    a, b = operand(left), operand(right)
    bools = any(np.asarray(x).dtype == bool for x in (a, b))
    if bools and (name == "sub" or (name == "pow" and dtype == "bool")):
        return  # refused: see WHOLE
    dtype = "float32" if name == "div" and "float" not in dtype else dtype
    expected = ARITHMETIC[name](*(np.asarray(x).astype(float) for x in (a, b))).astype(dtype)
    doubles = [leaf(np.asarray(x).astype(float)) for x in (a, b)]
    ARITHMETIC[name](*doubles).backward(dl.tensor(np.ones(expected.shape)))
    tensors = [leaf(x) if isinstance(x, np.ndarray) else x for x in (a, b)]
    result = ARITHMETIC[name](*tensors)
    pairs = [(tensors[0], b), (a, tensors[1])] if all(isinstance(x, dl.Tensor) for x in tensors) else []
    for same in (result, *(ARITHMETIC[name](*pair) for pair in pairs)):
        check_arrays([same.data], [np.asarray(expected)], 2e-3 if dtype == "float16" else 1e-6)
    assert result.requires_grad == any(isinstance(x, dl.Tensor) and x.requires_grad for x in tensors)
    if result.requires_grad:
        result.backward(dl.tensor(np.ones(result.shape, result.dtype)))
    for x, double in zip(tensors, doubles):
        if isinstance(x, dl.Tensor) and x.requires_grad:
            check_arrays([x.grad.data], [double.grad.data.astype(x.dtype)], 2e-3 if dtype == "float16" else 1e-3)


@pytest.mark.parametrize("dtype, name, number, wrapped_around", [
    ("uint8", "add", 300, [45, 46, 47]), ("uint8", "add", -2, [255, 0, 1]), ("uint8", "mul", -1, [255, 254, 253]),
    ("int8", "mul", 1000, [-24, -48, -72]), ("int64", "add", 2**70, None), ("uint8", "pow", -1, None),
    ("int64", "pow", -1, None), ("float16", "add", 1e9, [np.inf] * 3), ("float32", "mul", 1e300, [np.inf] * 3),
])
def test_numbers_beyond_the_dtype(dtype, name, number, wrapped_around):
    """Wrapped or infinite as in PyTorch, or one error; neither OverflowError nor a warning of NumPy."""
    x = dl.tensor(np.array([1, 2, 3], dtype))
    outcome = "refused" if wrapped_around is None else "either"
    with np.errstate(over="ignore"):
        check_outcome(name, lambda: [ARITHMETIC[name](x, number).data], outcome, lambda: [np.array(wrapped_around)])


def test_comparisons_beyond_the_dtype_are_true_to_the_numbers():
    x = dl.tensor(np.array([1, 2], np.uint8))
    assert [(x > -1).data.all(), (x < 300).data.all(), (x == 258).data.any()] == [True, True, False]


# Nothing, and a single number

EMPTY = {  # without rows, without columns, without anything, where that is not just an empty result
    "sum": "0 0 0", "sum axis=0": "0 empty empty", "mean": "nan nan nan", "mean axis=0": "nan empty empty",
    "var": "nan nan nan", "var axis=0": "nan empty empty", "max": "refused refused refused",
    "max axis=0": "refused empty either", "min": "refused refused refused", "min axis=1": "empty refused either",
    "argmax": "refused refused refused", "argmax axis=0": "refused empty either",
    "getitem twice": "refused empty refused", "pad": "empty 0 empty", "pad reflect": "empty refused either",
    "pad circular": "empty refused either", "matmul": "empty refused empty", "matmul vector": "empty 0 empty",
    "matmul stack": "empty refused empty", "linear": "empty value empty", "conv2d": "empty refused either",
    "conv_transpose2d": "empty either either", "im2col": "empty refused either", "col2im": "empty refused refused",
    "max_pool2d": "empty refused either", "avg_pool2d": "empty either either",
    "adaptive_avg_pool2d": "empty refused either", "batch_norm": "empty empty either",
    "cross_entropy": "either refused either", "cross_entropy weighted": "0 refused either",
    "cross_entropy shares": "empty 0 empty", "nll_loss": "either refused either",
    "binary_cross_entropy": "either either either", "binary_cross_entropy weighted": "0 0 0",
    "binary_cross_entropy_with_logits": "either either either", "mse_loss": "either either either",
    "mse_loss none": "empty empty empty",
}
CUTS = {
    "rows": lambda data, first: data[:0] if len(data) == len(first) else data,
    "columns": lambda data, first: data[..., :0] if data.shape[-1] == first.shape[-1] else data,
    "anything": lambda data, first: data[(slice(0),) * data.ndim],
}


def cut(name, kind):
    return [[CUTS[kind](data, ROWS[name].leaves[0]) for data in part] for part in ROWS[name][1:3]]


def outcome_without(name, kind):
    words = EMPTY.get(name) or EMPTY.get(operation(name), "empty empty empty")
    return words.split()[[*CUTS].index(kind)]


@every_row
@each("kind", CUTS)
def test_nothing(name, kind):
    """Without rows, columns or anything: PyTorch's value and gradients of the right shape, or one clear error."""
    leaves, constants = cut(name, kind)
    outcome = outcome_without(name, kind)
    try:
        value, *gradients = evaluate(ROWS[name], leaves, constants)
    except REFUSALS:
        assert outcome in ("refused", "either"), f"refused, where PyTorch gives {outcome}"
        check_clear(pytest.ExceptionInfo.from_current(), name)
        return
    assert outcome != "refused", f"computed {value}, where there is no answer"
    assert not gradients or [gradient.shape for gradient in gradients] == [data.shape for data in leaves]
    if outcome in ("empty", "0", "nan"):
        assert value.size == 0 if outcome == "empty" else value.size
        np.testing.assert_array_equal(value, np.full(value.shape, float(outcome) if value.size else 0))


OF_A_SINGLE_NUMBER = (
    *("abs", "neg", "exp", "log", "sqrt", "sigmoid", "tanh", "relu", "clone", "to", "add", "sub", "mul", "div", "pow"),
    *("eq", "lt", "sum", "sum axis=0", "mean", "mean axis=0", "var", "var axis=0", "max", "max axis=0", "min"),
    *("argmax", "argmax axis=0", "flatten", "dropout", "dropout eval", "softmax", "log_softmax", "mse_loss"),
    *("mse_loss none", "binary_cross_entropy", "binary_cross_entropy weighted", "binary_cross_entropy_with_logits"),
)
"""What has a value where every argument is 0-d; all else is refused."""


def single(name, shape=()):
    return [[data.flat[:1].reshape(shape) for data in part] for part in ROWS[name][1:3]]


@every_row
@each("door", DOORS)
def test_a_single_number(name, door):
    """All arguments 0-d: the value and gradients of arrays of one number, or one clear error."""
    for doors in ways_in(name, door):
        outcome = FIXED.get(name, "float64") if name in OF_A_SINGLE_NUMBER else "refused"

        def oracle(doors=doors):
            value, *gradients = evaluate(ROWS[name], *single(name, (1,)))
            kept = [gradient for gradient, door in zip(gradients, doors) if door is not given]
            return [value.reshape((1,) * (name == "flatten")), *(gradient.reshape(()) for gradient in kept)]

        check_outcome(name, lambda doors=doors: evaluate(ROWS[name], *single(name), doors), outcome, oracle)


# NaN and infinities


@pytest.mark.parametrize("axis, first", [(None, [[0, 1, 0], [0, 0, 0]]), (0, [[0, 1, 1], [1, 0, 0]]),
                                         (1, [[0, 1, 0], [1, 0, 0]])])
@pytest.mark.parametrize("name", ["max", "min"])
def test_the_first_nan_is_the_extreme(name, axis, first):
    sign = 1 if name == "max" else -1
    x = leaf(np.array([[1, np.nan, 3], [np.nan, np.nan, 0]]) * sign)
    y = getattr(x, name)(axis=axis)
    y.backward(dl.tensor(np.ones(y.shape)))
    np.testing.assert_array_equal(y.data, {None: np.nan, 0: [np.nan, np.nan, 3 * sign], 1: [np.nan] * 2}[axis])
    assert x.grad.data.tolist() == first
    if name == "max":
        assert x.argmax(axis).data.tolist() == {None: 1, 0: [1, 0, 0], 1: [1, 0]}[axis]


def test_a_window_with_nan_gives_its_gradient_to_the_last():
    image = np.arange(16.0).reshape(1, 4, 4)
    image[0, 1, 0] = image[0, 1, 1] = image[0, 2, 3] = np.nan
    x = leaf(image)
    y = F.max_pool2d(x, 2)
    y.backward(dl.tensor(np.array([[[1.0, 2], [3, 4]]])))
    np.testing.assert_array_equal(y.data, [[[np.nan, 7], [13, np.nan]]])
    assert x.grad.data.tolist() == [[[0, 0, 0, 0], [0, 1, 0, 2], [0, 0, 0, 4], [0, 3, 0, 0]]]


def test_relu_lets_the_gradient_through_at_nan():
    x = leaf(np.array([np.nan, -1, 2, 0.0, -0.0, np.inf, -np.inf]))
    y = F.relu(x)
    y.backward(dl.tensor(np.array([1.0, np.nan, 3, np.inf, 5, 6, 7])))
    np.testing.assert_array_equal(y.data, [np.nan, 0, 2, 0, 0, np.inf, 0])
    np.testing.assert_array_equal(x.grad.data, [1, 0, 3, 0, 0, 6, 0])


@pytest.mark.parametrize("base, exponent, towards_base, towards_exponent", [
    (0, 2, 0, 0), (0, 1, 1, 0), (0, 0, 0, 0), (0, -1, -np.inf, -np.inf), (0, 0.5, np.inf, 0), (2, 0, 0, np.log(2)),
    (-1, 2, -2, np.nan), (np.inf, 0, 0, np.inf), (np.nan, 0, 0, np.nan), (1, np.inf, np.inf, 0),
])
def test_powers_at_the_edge(base, exponent, towards_base, towards_exponent):
    a, b = leaf(np.array(float(base))), leaf(np.array(float(exponent)))
    with np.errstate(all="ignore"):
        (a**b).backward()
    np.testing.assert_allclose([a.grad.item(), b.grad.item()], [towards_base, towards_exponent])


# Indices

CHOSEN = np.array([True, False, True, True])
INDICES = {
    "list": [0, 0, 2], "tuple in a tuple": ((0, 0, 2),), "tuples": ((0, 0, 2), (1, 1, 0)), "nested": [[0, 0], [1, 2]],
    "nested tuple": (((0, 0), (1, 2)),), "array.array": array.array("q", [0, 0, 2]), "range": range(3),
    "range and list": (range(3), [0, 0, 0]), "deque": deque([0, 0, 2]), "UserList": UserList([0, 0, 2]),
    "memoryview": memoryview(bytes([0, 0, 2])), "uint8": np.array([0, 0, 2], np.uint8),
    "big-endian": np.array([0, 0, 2], ">i4"), "two axes": np.array([[0, 0], [1, 2]]), "negative": [-1, -1, 3],
    "tensor": dl.tensor(np.array([0, 0, 2])), "tensors": (dl.tensor([0, 0, 2]), dl.tensor([1, 1, 0])),
    "list of tensors": [dl.tensor(0), dl.tensor(0), dl.tensor(2)], "NumPy's numbers": [np.int8(0), np.int64(0)],
    "0-d array": np.array(1), "0-d tensor": dl.tensor(1), "mask": CHOSEN, "list mask": CHOSEN.tolist(),
    "mask in a tuple": (tuple(CHOSEN.tolist()),), "tensor mask": dl.tensor(CHOSEN), "two-axes mask": np.eye(4, 3) > 0,
    "mask and list": (CHOSEN, [0, 0, 1]), "slice and list": (slice(1, None), [0, 0]),
    "list and step": ([0, 0], slice(None, None, -2)), "new axis": (None, [0, 0], None), "ellipsis": (..., [0, 0]),
    "True": True, "False": False, "empty": [], "empty tuple": ((),), "nothing": (),
    "broadcast": ([[0], [0]], [1, 1, 2]), "one number": (1, [0, 0]),
}


def numpys(index):
    if isinstance(index, (tuple, list)):
        return type(index)(map(numpys, index))
    return index.data if isinstance(index, dl.Tensor) else index


@pytest.mark.parametrize("kind", INDICES)
def test_every_index_adds_up_its_gradient(kind):
    """NumPy's choice; a place chosen twice gets both gradients."""
    index = INDICES[kind]
    x = leaf(SCORES)
    y = x[index]
    expected = SCORES[numpys(index)]
    g = cases.cotangent(expected.shape)
    y.backward(dl.tensor(g))
    gradient = np.zeros(SCORES.shape)
    np.add.at(gradient, numpys(index), g)
    check_arrays([y.data, x.grad.data], [np.asarray(expected), gradient], 1e-15)


@pytest.mark.parametrize("kind", ["list", "nested", "array.array", "deque", "UserList", "uint8", "mask", "tensor"])
def test_an_index_may_change_afterwards(kind):
    index = copy.deepcopy(INDICES[kind])
    before, after = leaf(SCORES), leaf(SCORES)
    before[index].sum().backward()
    y = after[index]
    (index.data if kind == "tensor" else index)[0] = index[1]
    y.sum().backward()
    check_arrays([after.grad.data], [before.grad.data], 0)


NO_INDICES = [4, [0, 4], 0.5, [0.5], np.array([1.0]), "a", ["a"], (0, 0, 0), CHOSEN[:3]]


@pytest.mark.parametrize("index", NO_INDICES, ids=str)
def test_other_indices_are_refused(index):
    with pytest.raises(IndexError):
        leaf(SCORES)[index]


# The tables against PyTorch itself


def pytorchs():
    """PyTorch's functions under the names and with the arguments that `ROWS` uses."""
    torch = cases.pytorch()
    T = torch.nn.functional
    renamed = {
        "im2col": T.unfold, "col2im": T.fold,
        "to": lambda x, dtype: x.to(getattr(torch, np.dtype(dtype).name)),
        "reshape": lambda x, shape: x.reshape(shape), "transpose": lambda x, axes: x.permute(axes),
        "var": lambda x, axis=None, ddof=0: x.var(axis, correction=ddof),
        "max": lambda x, axis=None: x.max() if axis is None else x.max(axis).values,
        "min": lambda x, axis=None: x.min() if axis is None else x.min(axis).values,
    }
    return types.SimpleNamespace(**{name: renamed.get(name) or getattr(T, name, None) or getattr(torch, name, None)
                                    for name in F.__all__})


def evaluate_pytorch(row, leaves, constants=()):
    """As `evaluate`, of PyTorch."""
    torch, library = cases.pytorch(), pytorchs()
    tensors = [torch.tensor(data).requires_grad_(data.dtype.kind == "f") for data in leaves]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = row.call(library, *tensors, *map(torch.tensor, constants))
    if result.requires_grad:
        result.backward(torch.tensor(cases.cotangent(tuple(result.shape))).to(result.dtype))
    return [result.detach().numpy(), *(x.grad.numpy() for x in tensors if x.grad is not None)]


def check_pytorch(compute, outcome, oracle):
    """PyTorch does as the table says; where that is "either", anything."""
    try:
        found = compute()
    except (RuntimeError, TypeError, ValueError, IndexError, NotImplementedError) as error:
        assert outcome in ("refused", "either"), error
        return
    if outcome != "either":
        assert outcome != "refused", f"PyTorch computes {found[0].dtype}"
        value, *gradients = oracle()
        check_arrays(found[:1], [as_dtype(value, outcome)], 1e-5)
        check_arrays(found[1:], [gradient.astype(ours.dtype) for ours, gradient in zip(found[1:], gradients)], 1e-5)


PYTORCHS_DTYPES = [dtype for dtype in WHOLE_DTYPES if dtype not in IN_NUMPY_ONLY]
COARSER = ("batch_norm", "local_response_norm", "nll_loss", "getitem", "pad", "pow", "var")
"""Where PyTorch's half itself is further from float64 than 2e-3, or missing."""


@pytest.mark.slow
@pytest.mark.parametrize("dtype", PYTORCHS_DTYPES)
@every_row
def test_whole_numbers_are_pytorchs(name, dtype):
    parts, doubles = all_whole(name, dtype)
    outcome = "refused" if operation(name) in COMPUTED_HERE else outcome_of(name, dtype)
    check_pytorch(lambda: evaluate_pytorch(ROWS[name], *parts), outcome, lambda: evaluate(ROWS[name], *doubles)[:1])


@pytest.mark.slow
@pytest.mark.parametrize("name, place", PLACES)
@each("dtype", ["int64", "uint8", "bool"])
def test_whole_numbers_beside_floats_are_pytorchs(name, place, dtype):
    if name == "getitem array" and dtype == "uint8":
        pytest.skip("to PyTorch a mask, as of old")
    parts, doubles = one_whole(name, place, dtype)
    check_pytorch(lambda: evaluate_pytorch(ROWS[name], *parts)[:1], outcome_of(name, dtype, place),
                  lambda: evaluate(ROWS[name], *doubles)[:1])


@pytest.mark.slow
@every_row
def test_nothing_is_pytorchs(name):
    for kind in CUTS:
        outcome = outcome_without(name, kind)
        try:
            value, *gradients = evaluate_pytorch(ROWS[name], *cut(name, kind))
        except (RuntimeError, IndexError, ValueError):
            assert outcome in ("refused", "either")
            continue
        if outcome not in ("either", "refused"):
            check_arrays(evaluate(ROWS[name], *cut(name, kind)), [value, *gradients], 1e-12)


@pytest.mark.slow
@every_row
def test_a_single_number_is_pytorchs(name):
    outcome = FIXED.get(name, float) if name in OF_A_SINGLE_NUMBER else "refused"
    check_pytorch(lambda: evaluate_pytorch(ROWS[name], *single(name)), "either" if name == "dropout" else outcome,
                  lambda: evaluate(ROWS[name], *single(name)))


@pytest.mark.slow
@pytest.mark.parametrize("left, right, dtype", PROMOTIONS)
def test_promotions_are_pytorchs(left, right, dtype):
    torch = cases.pytorch()
    a, b = (torch.tensor(x) if isinstance(x, np.ndarray) else x.item() if isinstance(x, np.generic) else x
            for x in (operand(left), operand(right)))
    assert str(torch.result_type(a, b)) == f"torch.{dtype}"


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ROWS if operation(name) not in (*COARSER, "dropout")])
def test_float16_rounds_as_pytorchs(name):
    """What `test_float16` asks for is what PyTorch's half gives."""
    leaves, constants = (converted(np.float16, part) for part in ROWS[name][1:3])
    expected = evaluate(ROWS[name], converted(np.float64, leaves), converted(np.float64, constants))
    check_arrays(evaluate_pytorch(ROWS[name], leaves, constants), as_halves(name, expected), 2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in SUMS if operation(name) not in COARSER])
def test_long_sums_of_float16_are_pytorchs(name):
    for offset in OFFSETS:
        leaves, constants = halves(name, offset), SUMS[name].constants
        expected = as_halves(name, evaluate(SUMS[name], converted(np.float64, leaves), constants))
        check_arrays(where_finite(evaluate_pytorch(SUMS[name], leaves, constants), expected), expected, 2e-3)


EDGES = np.array([np.nan, np.inf, -np.inf, -0.0, 0.0, 1.0, -1.0, 0.5, 3.0, 1e-320, 1e200])
OF_ONE = ("abs", "neg", "exp", "log", "sqrt", "sigmoid", "tanh", "relu", "max", "min", "sum", "mean", "softmax")


@pytest.mark.parametrize("name", OF_ONE)
def test_not_finite_numbers_are_pytorchs(name):
    for number in EDGES:
        if name == "max" and number == 1:
            continue  # PyTorch shares the gradient among equals
        leaves = [np.array([[1.0, number, -2.0]])]
        check_same_at_edges(ROWS[name], leaves)


@pytest.mark.parametrize("name", ["add", "sub", "mul", "div", "pow"])
def test_pairs_of_not_finite_numbers_are_pytorchs(name):
    for left in EDGES:
        check_same_at_edges(ROWS[name], [np.full(EDGES.shape, left), EDGES])


def check_same_at_edges(row, leaves):
    """The same numbers, NaNs, infinities, and the same sign of zeros."""
    ours, theirs = evaluate(row, leaves), evaluate_pytorch(row, leaves)
    check_arrays(ours, theirs, 1e-12)
    assert (np.signbit(ours[0]) == np.signbit(theirs[0]))[theirs[0] == 0].all(), "the sign of a zero"
