"""A computation as data: the operations in order, their arguments, and which values each one reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ..autograd import Tensor, no_grad, observe_operations


class Value(NamedTuple):
    """Stands for a tensor among the arguments of a call."""

    number: int


class Call(NamedTuple):
    operation: str
    arguments: dict[str, Any]
    result: int


@dataclass
class Recording:
    """Calls over numbered values: first the inputs, then constants and parameters and the results as they came up."""

    inputs: int
    calls: list[Call] = field(default_factory=list)
    parameters: dict[int, np.ndarray] = field(default_factory=dict)
    constants: dict[int, np.ndarray] = field(default_factory=dict)


def record(function: Callable[..., Any], *inputs: Tensor) -> Recording:
    """The operations of ``function(*inputs)``. Arrays are those of the tensors themselves, not copies.

    What depends on shapes, values or modes is recorded as it is this time.
    """
    recording = Recording(len(inputs))
    numbers = {id(x): number for number, x in enumerate(inputs)}
    alive: list[Tensor] = []  # an id stands for its tensor only as long as that lives

    def placed(argument: Any) -> Any:
        if isinstance(argument, (tuple, list)):
            return type(argument)(placed(part) for part in argument)
        if not isinstance(argument, Tensor):
            return argument
        if id(argument) not in numbers:
            kept = recording.parameters if argument.requires_grad else recording.constants
            kept[number_of(argument)] = argument.detach().to("cpu").numpy()
        return Value(numbers[id(argument)])

    def number_of(tensor: Tensor) -> int:
        alive.append(tensor)
        return numbers.setdefault(id(tensor), len(numbers))

    def observe(operation: str, arguments: dict[str, Any], result: Tensor) -> None:
        arguments = {name: placed(argument) for name, argument in arguments.items()}
        recording.calls.append(Call(operation, arguments, number_of(result)))

    with no_grad(), observe_operations(observe):
        function(*inputs)
    return recording


def values_in(argument: Any) -> set[int]:
    """The numbers of the values in an argument, in tuples, lists and dicts too."""
    if isinstance(argument, Value):
        return {argument.number}
    parts = argument.values() if isinstance(argument, dict) else argument
    return {n for part in parts for n in values_in(part)} if isinstance(argument, (tuple, list, dict)) else set()
