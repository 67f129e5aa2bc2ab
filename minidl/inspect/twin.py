"""A recorded computation in PyTorch: replayed by the functions of the same names."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch

from .recording import Recording, Value, values_in

OTHER_NAMES: dict[str, Callable[..., Any]] = {
    "add": operator.add,
    "concatenate": torch.cat,
    "div": operator.truediv,
    "getitem": operator.getitem,
    "matmul": operator.matmul,
    "mul": operator.mul,
    "neg": operator.neg,
    "pad_constant": lambda x, amounts, value: torch.nn.functional.pad(
        x, [side for pair in reversed(amounts) for side in pair], value=value
    ),
    "sub": operator.sub,
}
"""Operations that PyTorch has no function for, or one with other arguments."""

IN_PLACE: dict[str, Callable[..., Any]] = {"add": operator.iadd, "relu": torch.relu_}
"""What torchvision's networks do in place."""

FRESH = ("batch_norm", "conv2d", "linear")
"""Operations whose gradients do not look at their own output, so that the next may overwrite it."""


class Step(NamedTuple):
    function: Callable[..., Any]
    positional: tuple[Any, ...]
    named: dict[str, Any]
    result: int
    freed: tuple[int, ...]
    """The values that no later step reads."""


class Twin(torch.nn.Module):
    """The recorded computation as a PyTorch module; its parameters share the memory of the recorded arrays.

    As torchvision writes its networks, a ReLU or sum works in place where nothing else needs its input.
    Raises NotImplementedError for an operation that PyTorch has no function for.
    """

    def __init__(self, recording: Recording):
        super().__init__()
        self.held: dict[int, torch.Tensor] = {}
        for number, array in recording.parameters.items():
            parameter = torch.nn.Parameter(torch.from_numpy(array))
            self.register_parameter(f"value{number}", parameter)
            self.held[number] = parameter
        for number, array in recording.constants.items():
            self.held[number] = torch.from_numpy(array)
        self.steps = list(_steps(recording))

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        values = {**self.held, **dict(enumerate(inputs))}
        for function, positional, named, result, freed in self.steps:
            values[result] = function(*_filled(positional, values), **_filled(named, values))
            for number in freed:
                del values[number]
        return values[self.steps[-1].result]


def _filled(argument: Any, values: dict[int, torch.Tensor]) -> Any:
    if isinstance(argument, Value):
        return values[argument.number]
    if isinstance(argument, (tuple, list)):
        return type(argument)(_filled(part, values) for part in argument)
    if isinstance(argument, dict):
        return {name: _filled(part, values) for name, part in argument.items()}
    return argument


def _steps(recording: Recording) -> Iterator[Step]:
    reads = [values_in(call.arguments) for call in recording.calls]
    last_read = {number: i for i, numbers in enumerate(reads) for number in numbers}
    made_by = {call.result: call.operation for call in recording.calls}
    for i, (name, arguments, result) in enumerate(recording.calls):
        freed = tuple(number for number in reads[i] if last_read[number] == i and number in made_by)
        values = tuple(arguments.values())
        if name in IN_PLACE and values[0] in map(Value, freed) and made_by[values[0].number] in FRESH:
            yield Step(IN_PLACE[name], tuple(x for x in values if isinstance(x, Value)), {}, result, freed)
        elif name in OTHER_NAMES:
            yield Step(OTHER_NAMES[name], values, {}, result, freed)
        elif hasattr(torch.nn.functional, name):
            yield Step(getattr(torch.nn.functional, name), (), arguments, result, freed)
        elif hasattr(torch, name):
            yield Step(getattr(torch, name), values, {}, result, freed)
        else:
            raise NotImplementedError(f"PyTorch has no function {name!r}, so this computation has no twin there")
