"""One forward and one backward pass as data: every operation, what it read and made, and the gradients that came back.

A node of the graph keeps neither its inputs nor its output. Who wants to see them has the computation run under
observation: ``trace(function)``. Of a loss that was computed before, only what its graph holds can be told.
"""

from __future__ import annotations

import inspect
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..autograd import OPERATIONS, Node, Operand, Tensor, backward_steps, observe_operations, recorded_nodes
from ..backend import Array, is_array
from ..nn import Module, Parameter
from ..nn.module import observe_modules
from .excerpt import Excerpt, excerpt, shown_shape
from .formula import SUBSCRIPTS, Formula, parse

LIMIT = 8192
"""The most entries that are shown of one array."""

BUDGET = 600_000
"""The most entries of all arrays together; where they are more, the limit of one is halved until they fit."""


@dataclass(eq=False)
class ModuleCall:
    """One time that a module ran."""

    path: str
    """As in `state_dict`; empty for the whole network."""
    kind: str
    """The module's class."""
    parent: ModuleCall | None


class Contribution(NamedTuple):
    """What one use of a value adds to its gradient."""

    operation: Operation
    position: int
    gradient: Excerpt


@dataclass(eq=False)
class Value:
    """A tensor of the pass, or a plain array that an operation was given."""

    name: str
    """The path of a parameter or buffer; empty for others."""
    kind: str
    """``"parameter"``, ``"leaf"``, ``"constant"`` (it needs no gradient) or ``"result"`` of an operation."""
    shape: tuple[int, ...]
    dtype: str
    array: Array | None = None
    """Only while the trace is made."""
    excerpt: Excerpt | None = None
    """None where the values were not kept."""
    gradient: Excerpt | None = None
    """∂L/∂value, complete."""
    contributions: list[Contribution] = field(default_factory=list)
    """In the order in which they arrive."""


class Input(NamedTuple):
    position: int
    """Among the arguments of the operation, as in `Node.sources`."""
    argument: str
    symbol: str
    """What the operation's formula calls it."""
    value: Value


@dataclass(eq=False)
class Operation:
    name: str
    formula: Formula
    inputs: list[Input]
    """The tensors and arrays among its arguments."""
    options: dict[str, Any]
    """The other arguments that are not None."""
    result: Value
    module: ModuleCall | None = None
    """The innermost module in which it ran."""
    walked: bool = False
    """Whether the backward pass came through."""

    @property
    def path(self) -> str:
        """The path of the module in which it ran; of a whole network, its class."""
        return (self.module.path or self.module.kind) if self.module else ""


@dataclass(eq=False)
class Trace:
    title: str
    operations: Sequence[Operation]
    """In the order in which they ran."""
    backward: Sequence[Operation]
    """In the order in which the backward pass came through."""
    loss: Value
    limit: int
    """The most entries that are shown of one array."""

    def __post_init__(self) -> None:
        self._sizes = Counter(call for operation in self.operations for call in _around(operation.module))

    def groups_of(self, operation: Operation) -> list[ModuleCall]:
        """The modules of more than one operation around it, the outermost first."""
        return self.groups_around(operation.module)

    def groups_around(self, call: ModuleCall | None) -> list[ModuleCall]:
        """This module and those around it, as far as they have more than one operation, the outermost first."""
        return [outer for outer in _around(call) if self._sizes[outer] > 1]


def _around(call: ModuleCall | None) -> list[ModuleCall]:
    return [*_around(call.parent), call] if call else []


def by_shape(shape: Sequence[int]) -> str:
    """``6×28×28``; of a single number ``()``."""
    return "×".join(map(str, shape)) or "()"


def trace(loss: Tensor | Callable[[], Tensor], gradient: Operand | None = None) -> Trace:
    """The forward pass to `loss` and the backward pass from it. Raises what `step_through` does."""
    observation = _Observation()
    if not isinstance(loss, Tensor):
        if not callable(loss):
            raise TypeError("step_through needs a loss tensor, or a function without arguments that computes it; got "
                            f"{type(loss).__name__}")
        with observation.of_everything():
            computed = loss()
        if not isinstance(computed, Tensor):
            raise TypeError("step_through: the function must return the loss, one tensor; got "
                            f"{type(computed).__name__}")
        loss = computed
    if loss.requires_grad and loss.node is None:
        raise ValueError("step_through: no operation computed this loss, it is a leaf, with nothing to step through")
    return _Walk(loss, gradient, observation).trace


# ---------------------------------------------------------------------------------------------
# Forward, under observation
# ---------------------------------------------------------------------------------------------

class _Seen(NamedTuple):
    operation: str
    arguments: dict[str, Any]
    result: Tensor
    module: ModuleCall | None


class _Observation:
    """The operations that ran, in order, each with its module; tensors stay alive, so that an id stands for one."""

    def __init__(self) -> None:
        self.seen: list[_Seen] = []
        self.names: dict[int, str] = {}
        self.roots: list[Module] = []
        self.running: list[tuple[Module, ModuleCall]] = []
        self.paths: dict[Module, str] = {}

    @contextmanager
    def of_everything(self) -> Iterator[None]:
        with observe_modules(self._enter, self._leave), observe_operations(self._observe):
            yield

    def _enter(self, module: Module) -> None:
        if not self.running:
            self.roots.append(module)
            self.paths = {inner: path for path, inner in module.named_modules()}
            state = (*module.named_parameters(), *module.named_buffers())
            self.names.update({id(tensor): path for path, tensor in state})
        parent = self.running[-1][1] if self.running else None
        call = ModuleCall(self.paths.get(module, type(module).__name__), type(module).__name__, parent)
        self.running.append((module, call))

    def _leave(self, module: Module) -> None:
        while self.running and self.running.pop()[0] is not module:
            pass  # one that raised an error, which was caught above it

    def _observe(self, operation: str, arguments: dict[str, Any], result: Tensor) -> None:
        self.seen.append(_Seen(operation, arguments, result, self.running[-1][1] if self.running else None))


# ---------------------------------------------------------------------------------------------
# Backward
# ---------------------------------------------------------------------------------------------

class _Walk:
    """Puts together what was observed and what the graph holds, and runs the backward pass over both."""

    def __init__(self, loss: Tensor, gradient: Operand | None, observation: _Observation):
        self.names = observation.names
        self.values: dict[Any, Value] = {}
        self.by_node: dict[Node, Operation] = {}
        nodes = recorded_nodes(loss)
        leaves = {id(x): x for node in nodes for x in node.sources if isinstance(x, Tensor)}
        observed = {seen.result.node for seen in observation.seen}
        for seen in observation.seen:
            self._value(seen.result).kind = "result"
        earlier = [self._recorded(node) for node in reversed(nodes) if node not in observed]
        operations = [*earlier, *map(self._observed, observation.seen)]
        result = self._value(loss)
        self.limit = self._limit(operations)
        for value in self.values.values():
            if value.array is not None:
                value.excerpt, value.array = excerpt(value.array, self.limit), None
        backward = self._backward(loss, gradient, list(leaves.values()))
        title = ", ".join(dict.fromkeys(type(module).__name__ for module in observation.roots))
        self.trace = Trace(title or (backward[0].name if backward else ""), operations, backward, result, self.limit)

    def _backward(self, loss: Tensor, gradient: Operand | None, leaves: Sequence[Tensor]) -> list[Operation]:
        """Walk from `loss`; every `.grad` is afterwards what it was."""
        walked = []
        before = [leaf.grad for leaf in leaves]
        try:
            for leaf in leaves:
                leaf.grad = None
            for step in backward_steps(loss, gradient):
                operation = self.by_node[step.node]
                operation.walked = True
                self._arrived(operation.result, step.gradient)
                for given in operation.inputs:
                    sent = step.input_gradients[given.position] if given.position < len(step.input_gradients) else None
                    if sent is not None:
                        contribution = Contribution(operation, given.position, excerpt(sent, self.limit))
                        given.value.contributions.append(contribution)
                walked.append(operation)
            for leaf in leaves:
                assert leaf.grad is not None, "the walk came to its end"
                self._arrived(self._value(leaf), leaf.grad.data)
        finally:
            for leaf, grad in zip(leaves, before):
                leaf.grad = grad
        return walked

    def _arrived(self, value: Value, gradient: Array) -> None:
        parts = value.contributions
        value.gradient = parts[0].gradient if len(parts) == 1 else excerpt(gradient, self.limit)

    def _limit(self, operations: Sequence[Operation]) -> int:
        uses = Counter(given.value for operation in operations for given in operation.inputs)
        copies = [(value.shape, (value.array is not None) + (value.kind != "constant") * (
            1 + (uses[value] > 1) * uses[value])) for value in self.values.values()]
        limit = LIMIT
        while limit > 1 and sum(math.prod(shown_shape(shape, limit)) * count for shape, count in copies) > BUDGET:
            limit //= 2
        return limit

    def _observed(self, seen: _Seen) -> Operation:
        node = seen.result.node
        formula = parse(node.formula if node else _documented(seen.operation))
        operation = Operation(seen.operation, formula, [], {}, self._value(seen.result), seen.module)
        position = 0
        for name, argument in seen.arguments.items():
            several = isinstance(argument, tuple) and any(isinstance(part, Tensor) for part in argument)
            for number, part in enumerate(argument if several else (argument,)):
                if isinstance(part, Tensor) or is_array(part):
                    shown = f"{name}[{number}]" if several else name
                    symbol = _numbered(number + 1) if several else formula.symbol(name)
                    operation.inputs.append(Input(position, shown, symbol, self._value(part)))
                elif part is not None:
                    operation.options[name] = part
                position += 1
        if node is not None:
            self.by_node[node] = operation
        return operation

    def _recorded(self, node: Node) -> Operation:
        """An operation of which there is only its node."""
        formula = parse(node.formula)
        operation = Operation(node.operation, formula, [], {}, self._made_by(node))
        given = zip(_arguments(node, formula), node.sources, node.input_shapes, node.input_dtypes)
        for position, ((name, symbol), source, shape, dtype) in enumerate(given):
            if isinstance(source, Node):
                value = self._made_by(source)
            elif isinstance(source, Tensor):
                value = self._value(source)
            elif dtype is not None:
                value = self._keep((node, position), Value("", "constant", shape, str(dtype)))
            else:
                continue  # a number, or nothing
            operation.inputs.append(Input(position, name, symbol, value))
        self.by_node[node] = operation
        return operation

    def _made_by(self, node: Node) -> Value:
        return self._keep(node, Value("", "result", node.shape, str(node.dtype)))

    def _value(self, tensor: Tensor | Array) -> Value:
        if not isinstance(tensor, Tensor):
            return self._keep(id(tensor), Value("", "constant", tensor.shape, str(tensor.dtype), tensor))
        if tensor.node is not None:
            value = self._made_by(tensor.node)
            value.array = tensor.data
            return value
        kind = "parameter" if isinstance(tensor, Parameter) else "leaf" if tensor.requires_grad else "constant"
        name = self.names.get(id(tensor), "")
        return self._keep(id(tensor), Value(name, kind, tensor.shape, str(tensor.dtype), tensor.data))

    def _keep(self, key: Any, value: Value) -> Value:
        return self.values.setdefault(key, value)


def _documented(operation: str) -> str:
    known = OPERATIONS.get(operation)
    return inspect.cleandoc(known.__doc__ or "").partition("\n\n")[0] if known else ""


def _arguments(node: Node, formula: Formula) -> list[tuple[str, str]]:
    """The names and symbols of a node's inputs."""
    if node.operation not in OPERATIONS:
        return [(_numbered(i + 1), _numbered(i + 1)) for i in range(len(node.sources))]
    names: list[tuple[str, str]] = []
    for name, parameter in inspect.signature(OPERATIONS[node.operation]).parameters.items():
        if parameter.kind is parameter.VAR_POSITIONAL:
            return [*names, *((f"{name}[{i}]", _numbered(i + 1)) for i in range(len(node.sources) - len(names)))]
        names.append((name, formula.symbol(name)))
    return names


def _numbered(number: int) -> str:
    """x₁, x₂, …"""
    return "x" + "".join(SUBSCRIPTS[int(digit)] for digit in str(number))
