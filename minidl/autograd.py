"""Tensors that remember how they were computed, and the backward pass over that memory.

An operation is a function from arrays to ``(value, gradients)``: its value and, side by side with
it, one function per input that turns ∂L/∂value into ∂L/∂input. `differentiable` lifts it to
tensors and records a `Node` whenever some input needs a gradient. `backward_steps` walks the nodes
from the loss to the leaves; `Tensor.backward` is that walk, run to its end.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import operator
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, TypeVar, Union, overload

import numpy as np

from .arrays import Kind, admitted, check_same_dtype, from_python, is_half, narrowed, plain, remember_last, widened
from .backend import Array, DeviceError, array_module, device_of, get_device, is_array, to_device
from .inplace import Guard, Version, same_memory
from .kernels import kernels_of
from .tasklocal import TaskLocal, adding, within

Operand = Union["Tensor", Array, float]
Self = TypeVar("Self", bound="Tensor")
Arguments = ParamSpec("Arguments")

OPERATIONS: dict[str, Callable[..., Tensor]] = {}
"""Every differentiable operation by name; the files of `minidl.functional` fill it."""


# ---------------------------------------------------------------------------------------------
# Recording
# ---------------------------------------------------------------------------------------------

class _Recording:
    """Whether operations are recorded, and who observes them."""

    def __init__(self) -> None:
        self.blocks = TaskLocal(0)
        """The number of `no_grad` blocks around what runs."""
        self.observing: TaskLocal[tuple[Observer, ...]] = TaskLocal(())

    @property
    def enabled(self) -> bool:
        return not self.blocks.get()

    @property
    def observers(self) -> tuple[Observer, ...]:
        return self.observing.get()


_recording = _Recording()


class no_grad:
    """Record no operations in a ``with no_grad():`` block, or in a function below ``@no_grad()``.

    It holds for the thread, or the asyncio task, that runs the block. A new thread records; a new task starts as the
    task that made it. Of a decorated generator only the body is not recorded: the loop over its values is. But a
    generator that yields inside a ``with no_grad():`` block of its own stops the recording of that loop, too.
    """

    def __new__(cls, function: Callable[..., Any] | None = None) -> Any:
        return super().__new__(cls) if function is None else cls()(function)  # also @no_grad without ()

    def __enter__(self) -> no_grad:
        _recording.blocks.set(_recording.blocks.get() + 1)
        return self

    def __exit__(self, *exception: Any) -> None:
        _recording.blocks.set(max(0, _recording.blocks.get() - 1))  # a generator may be closed in another task

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return within(self, function)


def is_grad_enabled() -> bool:
    """Whether operations are being recorded in this thread or asyncio task."""
    return _recording.enabled


Observer = Callable[[str, dict[str, Any], "Tensor"], None]


@contextmanager
def observe_operations(observer: Observer) -> Iterator[None]:
    """Call ``observer(operation, arguments, result)`` after each operation of this thread or asyncio task.

    `arguments` are those of the call by name, defaults included.
    """
    with adding(_recording.observing, observer):
        yield


GradientFunction = Callable[[Array], Array]
_order = itertools.count()


class Node:
    """One recorded operation: where its inputs came from, and a gradient function for each.

    A node holds the nodes (or leaf tensors) its inputs came from, not the inputs: what stays in
    memory until the backward pass is only what the gradient functions themselves captured.
    """

    __slots__ = ("formula", "gradients", "guards", "input_dtypes", "input_shapes", "operation", "order", "shape",
                 "dtype", "sources", "__weakref__")

    def __init__(
        self, operation: str, formula: str, inputs: Sequence[Any], gradients: Sequence[Any], result: Tensor,
        watched: Sequence[Any],
    ):
        self.operation = operation
        self.formula = formula
        self.order = next(_order)
        self.shape, self.dtype = result.shape, result.dtype
        self.sources = tuple((x.node or x) if _needs_gradient(x) else None for x in inputs)
        self.input_shapes = tuple(x.shape if isinstance(x, Tensor) else () for x in inputs)
        self.input_dtypes = tuple(x.dtype if isinstance(x, Tensor) else None for x in inputs)
        # What only an input without a gradient would need is not kept.
        self.gradients: Sequence[GradientFunction | None] | None = tuple(
            function if source is not None else None for function, source in zip(gradients, self.sources)
        )
        self.guards = [Guard(x.version, x.data) for x in watched if isinstance(x, Tensor)]

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise RuntimeError("only a leaf tensor can be deep-copied or pickled; detach() this one first")

    def input_gradient(self, index: int, g: Array) -> Array:
        """∂L/∂input from g = ∂L/∂value: summed over what was broadcast, its shape and dtype checked."""
        assert self.gradients is not None
        function = self.gradients[index]
        assert function is not None
        gradient = function(g)
        if not (is_array(gradient) or isinstance(gradient, np.generic)):
            raise RuntimeError(f"the gradient of {self.operation} for input {index} must be an array; its function "
                               f"returned {gradient!r}")
        shape, dtype = self.input_shapes[index], self.input_dtypes[index]
        if gradient.shape != shape and gradient.shape == self.shape and _broadcasts(shape, self.shape):
            gradient = sum_to_shape(gradient, shape)
        if gradient.dtype != dtype and gradient.dtype == self.dtype:
            gradient = gradient.astype(dtype)  # the adjoint of a dtype promotion
        if gradient.shape != shape or gradient.dtype != dtype:
            raise RuntimeError(
                f"the gradient of {self.operation} for input {index} has shape {gradient.shape} and dtype "
                f"{gradient.dtype}; the input has shape {shape} and dtype {dtype}"
            )
        return gradient

    def check_unchanged(self) -> None:
        """Refuse to go on if memory that a gradient function captured was changed in place meanwhile."""
        for guard in self.guards:
            if changes := guard.changes(self.gradients):
                raise RuntimeError(
                    f"a value that the gradient of {self.operation} needs was changed in place {changes} time(s) after "
                    "it was used (by an optimizer step, x += y or x[...] = y); change it after backward(), or work on "
                    "a copy: x = x.clone()"
                )

    def release(self) -> None:
        """Let go of everything captured; a second backward pass is told so."""
        self.gradients = None
        self.sources = ()
        self.guards = []


def _broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    """Whether an array of `shape` broadcasts to exactly the shape `to`."""
    return len(shape) <= len(to) and all(n in (1, m) for n, m in zip(reversed(shape), reversed(to)))


def sum_to_shape(array: Array, shape: tuple[int, ...]) -> Array:
    """Sum `array` over the axes along which `shape` was broadcast: the adjoint of broadcasting."""
    added = array.ndim - len(shape)
    stretched = tuple(i + added for i, n in enumerate(shape) if n == 1 and array.shape[i + added] != 1)
    return kernels_of(array).sum_over(array, tuple(range(added)) + stretched).reshape(shape)


@overload
def differentiable(operation: Callable[Arguments, Any], /) -> Callable[Arguments, Tensor]: ...


@overload
def differentiable(
    *, widen: bool = False, **kinds: Kind
) -> Callable[[Callable[Arguments, Any]], Callable[Arguments, Tensor]]: ...


def differentiable(
    operation: Callable[..., Any] | None = None, /, *, widen: bool = False, **kinds: Kind
) -> Callable[..., Any]:
    """Lift ``operation(*arrays, **options) -> (value, gradients)`` from arrays to tensors.

    The i-th of `gradients` belongs to the i-th argument and maps g = ∂L/∂value to ∂L/∂argument; None
    marks an argument that has no gradient. It returns a new array, or g or a view of g, and never writes
    to g. Plain arrays pass through as constants, and so do numbers. The docstring opens with the formula.

    ``@differentiable(input=FLOATS, weight=FLOATS)`` says which arguments must be arrays and what `minidl.arrays` lets
    them hold; those that are `NUMBERS` or `FLOATS` have one dtype. With `widen`, float16 on the CPU is computed in
    float32, and value and gradients are rounded.

    A tensor that was changed in place by an optimizer, ``x += y``, ``x[...] = y`` or `copy_` while a gradient function
    still needs it is noticed in the backward pass. Not noticed is what writes to the array itself, as
    ``x.data[...] = y`` or ``x.numpy()[...] = y`` do, and a change of an array that a gradient function reaches through
    an attribute of an object: work on a copy there, or call `Tensor.bump_version`.
    """
    if operation is None:
        return functools.partial(differentiable, widen=widen, **kinds)
    signature = inspect.signature(operation)
    names = list(signature.parameters)
    optional = {name for name, parameter in signature.parameters.items() if parameter.default is None}
    places = [(names.index(name), name, kind) for name, kind in kinds.items()]
    alike = [name for name, kind in kinds.items() if kind in (Kind.NUMBERS, Kind.FLOATS)]
    name, formula = operation.__name__, inspect.cleandoc(operation.__doc__ or "").partition("\n\n")[0]

    def admit(parameter: str, kind: Kind, x: Any) -> Any:
        absent = x is None and (parameter in optional or kind is Kind.BUFFER)
        return x if absent else admitted(operation.__name__, parameter, kind, x)

    @functools.wraps(operation)
    def apply(*arguments: Any, **options: Any) -> Tensor:
        if any(isinstance(option, Tensor) for option in options.values()):
            bound = signature.bind(*arguments, **options)
            bound.apply_defaults()
            arguments, options = bound.args, bound.kwargs
        arrays = [_unwrap(argument) for argument in arguments]
        constants = {option: _unwrap(x) if isinstance(x, Tensor) or is_array(x) else x for option, x in options.items()}
        for index, parameter, kind in places:
            if index < len(arrays):
                arrays[index] = admit(parameter, kind, arrays[index])
            elif parameter in constants:
                constants[parameter] = admit(parameter, kind, constants[parameter])
        _check_one_device(name, [*arrays, *constants.values()])
        if len(alike) > 1:
            given = dict(zip(names, arrays)) | constants
            check_same_dtype(name, **{parameter: given.get(parameter) for parameter in alike})
        narrow = widen and any(map(is_half, (*arrays, *constants.values())))
        if narrow:
            arrays = [x if kinds.get(names[i]) is Kind.BUFFER else widened(x) for i, x in enumerate(arrays)]
            constants = {key: x if kinds.get(key) is Kind.BUFFER else widened(x) for key, x in constants.items()}
        returned = operation(*arrays, **constants)
        if not (isinstance(returned, tuple) and len(returned) == 2 and isinstance(returned[1], tuple)):
            raise TypeError(f"{name} must return (value, gradients) with a tuple of gradient functions, one for each "
                            "input; a tuple of one ends in a comma: return y, (lambda g: ...,)")
        value, gradients = _narrowed(*returned) if narrow else returned
        result = Tensor(value)
        for x in arguments:
            if isinstance(x, Tensor) and same_memory(result.data, x.data):
                result.version = x.version
        if _recording.enabled and result.data.dtype.kind == "f":
            needed = [key for key, x in (*enumerate(arguments), *options.items()) if _needs_gradient(x)]
            for key in needed:
                if not isinstance(key, int) or key >= len(gradients) or gradients[key] is None:
                    argument = names[key] if isinstance(key, int) else key
                    raise RuntimeError(f"{name} has no gradient for its argument {argument!r}; "
                                       "pass it detached: x.detach()")
            if needed:
                result.requires_grad = True
                watched = (*arguments, *options.values(), result)
                result.node = Node(name, formula, arguments[: len(gradients)], gradients, result, watched)
        if _recording.observers:
            bound = signature.bind(*arguments, **options)
            bound.apply_defaults()
            for observe in _recording.observers:
                observe(name, bound.arguments, result)
        return result

    if str(operation.__module__).startswith(f"{__package__}."):  # a function of the user's never replaces ours
        OPERATIONS[name] = apply
    return apply


def _narrowed(value: Array, gradients: tuple[Any, ...]) -> tuple[Array, tuple[Any, ...]]:
    """What an operation returned for widened arguments, in float16: the value, and each gradient."""
    wide = remember_last(widened)

    def around(gradient: GradientFunction) -> GradientFunction:
        return lambda g: narrowed(gradient(wide(g)))

    return narrowed(value), tuple(gradient and around(gradient) for gradient in gradients)


def _needs_gradient(argument: Any) -> bool:
    return isinstance(argument, Tensor) and argument.requires_grad


def _unwrap(argument: Any) -> Any:
    """The array of a tensor; a NumPy scalar as a plain number, so that it does not promote float32; else as it is."""
    if isinstance(argument, Tensor):
        return argument.data
    if isinstance(argument, np.generic):
        return argument.item()
    if is_array(argument):
        return plain(argument)
    return argument


def _check_one_device(operation: str, arrays: Sequence[Any]) -> None:
    kinds = {type(array) for array in arrays if is_array(array)}
    if kinds <= {np.ndarray}:
        return
    places = [(device_of(array), array.shape) for array in arrays if is_array(array)]
    if len({device for device, _ in places}) > 1:
        described = " and ".join(f"a tensor of shape {shape} on {device!r}" for device, shape in places)
        raise DeviceError(f"{operation} got {described}; move them to one device with x.to(device)")


# ---------------------------------------------------------------------------------------------
# The backward pass
# ---------------------------------------------------------------------------------------------

class Step(NamedTuple):
    """One step of the backward pass: one node, the gradient that came in and those that go out."""

    operation: str
    formula: str
    gradient: Array
    """∂L/∂value of this operation, complete: summed over all its uses."""
    input_gradients: tuple[Array | None, ...]
    """∂L/∂input for each input; None for one that needs no gradient."""
    node: Node


def backward_steps(loss: Tensor, gradient: Operand | None = None) -> Iterator[Step]:
    """Run the backward pass from `loss` one operation at a time, newest first.

    An operation is recorded after its inputs, so newest first is a topological order: when a node's
    turn comes, every use of its value has already sent its gradient. The sums arrive in the leaves'
    `.grad` (added to what is there) when the last step is done; an unfinished walk changes no `.grad`, but the
    operations it passed are released, so another walk needs a new loss.

    `gradient` is ∂L/∂loss, of the shape of `loss`; default 1 for a single number.
    Raises RuntimeError for a loss that records nothing, for several numbers without `gradient`, for a
    graph walked before, and for a needed value changed in place; ValueError for a wrong shape.
    """
    if not loss.requires_grad:
        raise RuntimeError("backward() from a tensor that needs no gradient: none of its inputs has "
                           "requires_grad=True, or it was computed under no_grad()")
    pending: dict[Node | Tensor, Array] = {loss.node or loss: _seed(loss, gradient)}
    borrowed: set[Node | Tensor] = {loss.node or loss}  # whose pending array may be someone else's memory
    for node in recorded_nodes(loss):
        if node.gradients is None:
            raise RuntimeError(f"backward() came to {node.operation} a second time: what its gradient needs was "
                               "released after the first. Compute the loss again, or add the losses "
                               "and call backward() once")
        node.check_unchanged()
        g = pending.pop(node)
        input_gradients: list[Array | None] = []
        for index, source in enumerate(node.sources):
            if source is None:
                input_gradients.append(None)
                continue
            contribution = node.input_gradient(index, g)
            input_gradients.append(contribution)
            if source in pending:
                pending[source] = kernels_of(g).pointwise(array_module(g).add, pending[source], contribution)
                borrowed.discard(source)
            else:
                pending[source] = contribution
                if array_module(g).may_share_memory(contribution, g):
                    borrowed.add(source)
        step = Step(node.operation, node.formula, g, tuple(input_gradients), node)
        node.release()
        g = contribution = input_gradients = None  # type: ignore[assignment]  # freed as soon as the step is let go
        yield step
        del step
    for leaf, total in pending.items():
        assert isinstance(leaf, Tensor)
        if leaf.grad is not None:
            total = leaf.grad.data + total
        elif leaf in borrowed:
            total = total.copy()
        leaf.grad = Tensor(total)


def _seed(loss: Tensor, gradient: Operand | None) -> Array:
    xp = array_module(loss.data)
    if gradient is None:
        if loss.data.size != 1:
            raise RuntimeError(f"backward() from a tensor of shape {loss.shape} needs gradient= an array of that "
                               "shape; only a single number has the default 1. Did you mean loss.sum() or loss.mean()?")
        return xp.ones_like(loss.data)
    array = xp.asarray(_unwrap(gradient), dtype=loss.dtype)
    if array.shape != loss.shape:
        raise ValueError(f"backward() got a gradient of shape {array.shape} for a tensor of shape {loss.shape}")
    return array


def recorded_nodes(loss: Tensor) -> list[Node]:
    """The operations that `loss` was computed by, newest first: the order of the backward pass."""
    found: set[Node] = set()
    waiting = [loss.node]
    while waiting:
        node = waiting.pop()
        if isinstance(node, Node) and node not in found:
            found.add(node)
            waiting.extend(source for source in node.sources if isinstance(source, Node))
    return sorted(found, key=lambda node: node.order, reverse=True)


# ---------------------------------------------------------------------------------------------
# Tensor
# ---------------------------------------------------------------------------------------------

PYTORCH_METHODS = {
    "view": "its methods are NumPy's; write x.reshape(...)",
    "permute": "its methods are NumPy's; write x.transpose(...)",
    "unsqueeze": "its methods are NumPy's; write x[:, None]",
    "squeeze": "its methods are NumPy's; write x.reshape(...) or x[:, 0]",
    "dim": "its methods are NumPy's; write x.ndim",
    "numel": "its methods are NumPy's; write x.size",
    "float": "write x.to('float32')",
    "double": "write x.to('float64')",
    "long": "write x.to('int64')",
    "cpu": "write x.to('cpu')",
    "cuda": "write x.to('gpu')",
    "matmul": "write x @ y",
    "pow": "write x ** y",
}
"""What those look for who come from PyTorch, and where it is."""


class Tensor:
    """An array, whether it needs a gradient, and the operation it came from.

    Wraps `data`, a NumPy or CuPy array of any dtype of `minidl.arrays.DTYPES`, without copying it, or as a copy if its
    bytes are not in this machine's order; `minidl.tensor` makes one from anything else. Operators and methods follow
    NumPy: broadcasting, slicing, `axis`, `keepdims`. Who writes to `.data` or `.numpy()` directly calls `bump_version`;
    see `differentiable` for what a backward pass notices. Raises TypeError for data that is not numbers, or
    `requires_grad` for other than floats.
    """

    __slots__ = ("data", "requires_grad", "grad", "node", "version", "__weakref__")
    __array_ufunc__ = None  # NumPy's operators hand over to ours: array * tensor is tensor.__rmul__(array)

    def __init__(self, data: Array, requires_grad: bool = False):
        data = plain(data) if is_array(data) else from_python(data)
        if requires_grad and data.dtype.kind != "f":
            raise TypeError(f"only floats can have a gradient; got dtype {data.dtype}")
        self.data: Array = data
        self.requires_grad = requires_grad
        self.grad: Tensor | None = None
        self.node: Node | None = None
        self.version = Version()

    # What it is

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @property
    def dtype(self) -> np.dtype:
        return self.data.dtype

    @property
    def ndim(self) -> int:
        return self.data.ndim

    @property
    def size(self) -> int:
        """The number of entries."""
        return self.data.size

    @property
    def device(self) -> str:
        """``"cpu"``, ``"gpu"`` or ``"gpu:N"``."""
        return device_of(self.data)

    @property
    def is_leaf(self) -> bool:
        """Whether it was made by hand rather than by a recorded operation; leaves receive `.grad`."""
        return self.node is None

    @property
    def T(self) -> Tensor:
        return self.transpose()

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            hint = f": {PYTORCH_METHODS[name]}" if name in PYTORCH_METHODS else ""
            raise AttributeError(f"a tensor has no {name!r}{hint}")

    def __len__(self) -> int:
        return len(self.data)

    def __repr__(self) -> str:
        values = to_device(self.data, "cpu")
        body = np.array2string(values, separator=", ", precision=4, threshold=1000, prefix="tensor(")
        notes = "" if self.dtype in (np.float32, np.int64, np.bool_) else f", dtype={self.dtype}"
        notes += "" if self.device == "cpu" else f", device={self.device!r}"
        if self.node:
            notes += f", operation={self.node.operation}"
        elif self.requires_grad:
            notes += ", requires_grad=True"
        return f"tensor({body}{notes})"

    # Out of the graph

    def numpy(self) -> np.ndarray:
        """The values as a NumPy array: the tensor's own memory on the CPU, a copy from a GPU.

        Raises RuntimeError for a tensor that needs a gradient, as PyTorch does: `x.detach().numpy()`.
        """
        if self.requires_grad:
            raise RuntimeError("numpy() of a tensor that needs a gradient would lose it silently; "
                               "write x.detach().numpy()")
        return to_device(self.data, "cpu")

    def item(self) -> float:
        """The single value as a Python number; ValueError if there are more."""
        if self.size != 1:
            raise ValueError(f"item() needs a tensor of one value; this one has shape {self.shape}")
        return self.data.item()

    def detach(self) -> Tensor:
        """The same memory, outside the graph."""
        result = Tensor(self.data)
        result.version = self.version
        return result

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __bool__(self) -> bool:
        return bool(self.item())

    def __format__(self, specification: str) -> str:
        return format(self.item(), specification) if specification else repr(self)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.numpy(), dtype=dtype) if copy else np.asarray(self.numpy(), dtype=dtype)

    def __index__(self) -> int:
        if self.ndim or self.dtype.kind not in "iu":
            raise TypeError(f"only a whole number can be an index; got a tensor of shape {self.shape} and dtype "
                            f"{self.dtype}")
        return int(self.item())

    # In the graph

    def backward(self, gradient: Operand | None = None) -> None:
        """Add ∂self/∂leaf to the `.grad` of every leaf; see `backward_steps` for `gradient` and the errors raised."""
        deque(backward_steps(self, gradient), maxlen=0)  # keeps no step alive while the next one runs

    def requires_grad_(self: Self, requires_grad: bool = True) -> Self:
        """Set `requires_grad` of a leaf, in place."""
        if self.node is not None:
            raise RuntimeError("requires_grad can be set on leaves only; "
                               f"this tensor is the result of {self.node.operation}")
        if requires_grad and self.dtype.kind != "f":
            raise TypeError(f"only floats can have a gradient; got dtype {self.dtype}")
        self.requires_grad = requires_grad
        return self

    # Changing memory in place

    def bump_version(self) -> None:
        """Say that `.data` was written to in place: a backward pass that needs the old values then refuses."""
        self.version.count += 1

    def __setitem__(self, index: Any, value: Operand) -> None:
        if _recording.enabled and (self.requires_grad or (isinstance(value, Tensor) and value.requires_grad)):
            raise RuntimeError("x[...] = y cannot be recorded where a gradient is needed; write it under no_grad(), "
                               "or build a new tensor from the parts with cat()")
        array = _unwrap(value)
        _check_one_device("x[...] = y", [self.data, array])
        self.data[index_parts(index, self.device)] = array
        self.bump_version()

    def copy_(self: Self, source: Operand) -> Self:
        """Overwrite the values in place with those of `source`, broadcast and converted to this dtype."""
        self[...] = source
        return self

    def _in_place(self, operation: str, other: Operand) -> Tensor:
        """Writes to the memory of x where nothing is recorded; where it is, x becomes the name of a new tensor."""
        recorded = self.requires_grad or (isinstance(other, Tensor) and other.requires_grad)
        if not (_recording.enabled and recorded):
            result = OPERATIONS[operation](self.detach(), other)
            if not np.can_cast(result.dtype, self.dtype, "same_kind"):
                raise TypeError(f"in-place {operation} gives {result.dtype}, which a tensor of {self.dtype} "
                                "cannot hold; write x = x + y")
            return self.copy_(result)
        if self.requires_grad and self.node is None:
            raise RuntimeError("a leaf that needs a gradient cannot be changed in place while recording; "
                               "update it under no_grad(), or write x = x + y")
        return OPERATIONS[operation](self, other)

    def __iadd__(self, other: Operand) -> Tensor:
        return self._in_place("add", other)

    def __isub__(self, other: Operand) -> Tensor:
        return self._in_place("sub", other)

    def __imul__(self, other: Operand) -> Tensor:
        return self._in_place("mul", other)

    def __itruediv__(self, other: Operand) -> Tensor:
        return self._in_place("div", other)

    # The operations of minidl.functional behind Python's operators and NumPy's methods

    def __add__(self, other: Operand) -> Tensor:
        return OPERATIONS["add"](self, other)

    def __radd__(self, other: Operand) -> Tensor:
        return OPERATIONS["add"](other, self)

    def __sub__(self, other: Operand) -> Tensor:
        return OPERATIONS["sub"](self, other)

    def __rsub__(self, other: Operand) -> Tensor:
        return OPERATIONS["sub"](other, self)

    def __mul__(self, other: Operand) -> Tensor:
        return OPERATIONS["mul"](self, other)

    def __rmul__(self, other: Operand) -> Tensor:
        return OPERATIONS["mul"](other, self)

    def __truediv__(self, other: Operand) -> Tensor:
        return OPERATIONS["div"](self, other)

    def __rtruediv__(self, other: Operand) -> Tensor:
        return OPERATIONS["div"](other, self)

    def __pow__(self, other: Operand) -> Tensor:
        return OPERATIONS["pow"](self, other)

    def __rpow__(self, other: Operand) -> Tensor:
        return OPERATIONS["pow"](other, self)

    def __matmul__(self, other: Operand) -> Tensor:
        return OPERATIONS["matmul"](self, other)

    def __rmatmul__(self, other: Operand) -> Tensor:
        return OPERATIONS["matmul"](other, self)

    def __neg__(self) -> Tensor:
        return OPERATIONS["neg"](self)

    def __abs__(self) -> Tensor:
        return OPERATIONS["abs"](self)

    def __getitem__(self, index: Any) -> Tensor:
        return OPERATIONS["getitem"](self, index=index_parts(index, self.device))

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def abs(self) -> Tensor:
        return OPERATIONS["abs"](self)

    def exp(self) -> Tensor:
        return OPERATIONS["exp"](self)

    def log(self) -> Tensor:
        return OPERATIONS["log"](self)

    def sqrt(self) -> Tensor:
        return OPERATIONS["sqrt"](self)

    def tanh(self) -> Tensor:
        return OPERATIONS["tanh"](self)

    def sigmoid(self) -> Tensor:
        return OPERATIONS["sigmoid"](self)

    def relu(self) -> Tensor:
        return OPERATIONS["relu"](self)

    def sum(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Tensor:
        return OPERATIONS["sum"](self, axis=axis, keepdims=keepdims)

    def mean(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Tensor:
        return OPERATIONS["mean"](self, axis=axis, keepdims=keepdims)

    def var(self, axis: int | tuple[int, ...] | None = None, ddof: int = 0, keepdims: bool = False) -> Tensor:
        return OPERATIONS["var"](self, axis=axis, ddof=ddof, keepdims=keepdims)

    def max(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Tensor:
        return OPERATIONS["max"](self, axis=axis, keepdims=keepdims)

    def min(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Tensor:
        return OPERATIONS["min"](self, axis=axis, keepdims=keepdims)

    def argmax(self, axis: int | None = None) -> Tensor:
        """The place of the first largest value along `axis`, or of all values. Raises ValueError for nothing."""
        if not (self.size if axis is None or not self.ndim else self.shape[axis]):
            raise ValueError(f"argmax: a tensor of shape {self.shape} is empty along axis {axis}: nothing has no "
                             "maximum")
        return Tensor(self.data.argmax(axis=axis))

    def reshape(self, *shape: Any) -> Tensor:
        return OPERATIONS["reshape"](self, shape=_varargs(shape))

    def transpose(self, *axes: Any) -> Tensor:
        return OPERATIONS["transpose"](self, axes=_varargs(axes) or None)

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Tensor:
        """Join the axes from `start_dim` to `end_dim`, both included, into one, as in PyTorch."""
        return OPERATIONS["flatten"](self, start_dim=start_dim, end_dim=end_dim)

    def clone(self) -> Tensor:
        """A copy in memory of its own, through which gradients flow."""
        return OPERATIONS["clone"](self)

    def to(self, device: str | None = None, dtype: Any = None) -> Tensor:
        """This tensor on `device` and in `dtype`; itself if nothing changes. Gradients flow back through it."""
        device, dtype = device_or_dtype(device, dtype)
        same = (device is None or device == self.device) and (dtype is None or np.dtype(dtype) == self.dtype)
        return self if same else OPERATIONS["to"](self, device=device, dtype=dtype)

    # Comparisons have no gradient

    def _comparable(self, other: Any) -> Any:
        array = _unwrap(other)
        _check_one_device("a comparison", [self.data, array])
        return array

    def __eq__(self, other: Any) -> Tensor:  # type: ignore[override]
        return Tensor(self.data == self._comparable(other))

    def __ne__(self, other: Any) -> Tensor:  # type: ignore[override]
        return Tensor(self.data != self._comparable(other))

    def __lt__(self, other: Operand) -> Tensor:
        return Tensor(self.data < self._comparable(other))

    def __le__(self, other: Operand) -> Tensor:
        return Tensor(self.data <= self._comparable(other))

    def __gt__(self, other: Operand) -> Tensor:
        return Tensor(self.data > self._comparable(other))

    def __ge__(self, other: Operand) -> Tensor:
        return Tensor(self.data >= self._comparable(other))

    __hash__ = object.__hash__


def index_parts(index: Any, device: str) -> tuple[Any, ...]:
    """An index as a tuple whose parts are whole numbers, slices, None, Ellipsis, and arrays on `device`.

    Every sequence is an array of places. As in PyTorch, a GPU's tensor takes indices of the CPU.
    """
    return tuple(_index_part(part, device) for part in (index if isinstance(index, tuple) else (index,)))


def _index_part(part: Any, device: str) -> Any:
    if part is None or part is Ellipsis or isinstance(part, (int, slice, np.bool_)):
        return part
    if isinstance(part, Tensor):
        array = part.data
    elif is_array(part):
        array = plain(part)
    elif hasattr(part, "__index__") and not hasattr(part, "__len__"):
        return operator.index(part)
    else:
        array = np.asarray(part)
        if not array.size:
            array = array.astype(np.intp)  # an empty list has no dtype of its own
    if array.dtype.kind not in "iub":
        raise IndexError(f"an index is whole numbers, slices, None, ... or bools; got {part!r}")
    return to_device(array, device) if device != "cpu" else array


def device_or_dtype(device: Any, dtype: Any) -> tuple[str | None, Any]:
    """The arguments of `to`, as in PyTorch: the first may be a device, a dtype, or a tensor whose both are meant."""
    if isinstance(device, Tensor):
        return device.device, device.dtype
    if device is None or (isinstance(device, str) and device.startswith(("cpu", "gpu"))):
        return device, dtype
    try:
        return None, np.dtype(device)
    except TypeError:
        if not isinstance(device, str):
            raise TypeError(f"to: takes a device, a dtype or a tensor; got {device!r}") from None
        if device.startswith(("bfloat", "float", "complex", "int", "uint")):
            raise TypeError(f"to: there is no dtype {device!r}; floats are float16, float32 and float64") from None
        return device, dtype


def _varargs(values: tuple[Any, ...]) -> tuple[int, ...]:
    """``f(2, 3)`` and ``f((2, 3))`` mean the same, as in NumPy."""
    return tuple(values[0]) if len(values) == 1 and isinstance(values[0], (tuple, list)) else values


def tensor(data: Any, requires_grad: bool = False, dtype: Any = None, device: str | None = None) -> Tensor:
    """Make a tensor from a copy of `data`: a number, nested lists of numbers, an array or a tensor.

    Python floats become float32; arrays, tensors and NumPy's numbers, also in lists, keep their dtype unless `dtype` is
    given. `device` defaults to the default device, an array's own for an array. Raises TypeError for what is not
    numbers, ValueError for ragged lists, `DeviceError` for a device that cannot be used.
    """
    if isinstance(data, Tensor):
        data = data.data
    if is_array(data):
        array, device = array_module(data).array(plain(data), dtype=dtype, copy=True), device or device_of(data)
    else:
        array, device = from_python(data, dtype), device or get_device()
    return Tensor(to_device(array, device), requires_grad=requires_grad)
