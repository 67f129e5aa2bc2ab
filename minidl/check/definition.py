"""What an exercise is: a signature with shapes, a reference, cases that grow, and the mistakes one makes."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from ..autograd import Tensor

Draw = Callable[..., np.ndarray]
"""``draw(2, 3)``: random normal numbers of shape (2, 3), rounded so that a small case can be read."""

Cases = Callable[[Draw], Iterator[tuple[str, tuple[Any, ...]]]]
"""Yields (title, arguments), from the smallest to the largest; the same ones at every call, in memory of their own."""


class Quantity(NamedTuple):
    """A parameter or an output: its name and what its axes are called, none for a number."""

    name: str
    axes: tuple[str, ...]


class Case(NamedTuple):
    """One call, and the right answer to it, an array an output."""

    title: str
    arguments: dict[str, Any]
    right: tuple[np.ndarray, ...]
    sizes: dict[str, int]
    """The length of every axis by its letter, and every whole number among the arguments by its name."""


@dataclass(frozen=True)
class Exercise:
    """One function to write."""

    signature: str
    """``name(x (N, C, H, W), stride) -> y (N, C, OH, OW)``"""
    reference: Callable[..., Any]
    cases: Cases
    mistakes: Mapping[str, Mapping[str, Callable[..., Any]]]
    """For each output, in words, what one mistake makes of it: a function of those arguments that it still looks at."""

    @property
    def name(self) -> str:
        return self.signature.partition("(")[0]

    @cached_property
    def parameters(self) -> tuple[Quantity, ...]:
        return _quantities(self.signature.partition("(")[2].partition(") ->")[0])

    @cached_property
    def outputs(self) -> tuple[Quantity, ...]:
        return _quantities(self.signature.partition(") ->")[2])

    @property
    def returns(self) -> str:
        """What the function returns, as one writes it: ``y``, or ``(dx, dw, db)``."""
        names = ", ".join(output.name for output in self.outputs)
        return f"({names})" if len(self.outputs) > 1 else names

    @cached_property
    def solved(self) -> tuple[Case, ...]:
        """Every case with its right answer. Its arguments are for reading; `fresh_arguments` are for a student."""
        return tuple(self._solve(title, arguments) for title, arguments in self._drawn())

    def fresh_arguments(self) -> list[tuple[Any, ...]]:
        """The arguments of every case anew, for a function that may change them."""
        return [arguments for _, arguments in self._drawn()]

    def _drawn(self) -> Iterator[tuple[str, tuple[Any, ...]]]:
        rng = np.random.default_rng(0)
        return self.cases(lambda *shape: np.asarray(rng.standard_normal(shape).round(2)))

    def _solve(self, title: str, arguments: tuple[Any, ...]) -> Case:
        sizes: dict[str, int] = {}
        for (name, axes), value in zip(self.parameters, arguments):
            if isinstance(value, int):
                sizes[name] = value
            elif len(axes) == np.ndim(value):
                sizes.update(zip(axes, np.shape(value)))
        returned = self.reference(*arguments)
        right = tuple(map(as_array, returned if len(self.outputs) > 1 else (returned,)))
        return Case(title, dict(zip([parameter.name for parameter in self.parameters], arguments)), right, sizes)


def _quantities(text: str) -> tuple[Quantity, ...]:
    return tuple(Quantity(name, tuple(axes.replace(" ", "").split(",")) if axes else ())
                 for name, axes in re.findall(r"(\w+)(?: \(([^()]*)\))?", text))


def as_array(value: Any) -> np.ndarray:
    """A NumPy array of a number, an array or a minidl tensor."""
    return value.numpy() if isinstance(value, Tensor) else np.asarray(value)


class Gradient:
    """The gradients of `forward` by autograd: (g, *arguments) → ∂L/∂input for each of `inputs`, L = Σ g · forward.

    Called without g, L is `forward` itself, a loss.
    """

    def __init__(self, forward: Callable[..., Any], *inputs: str):
        self.forward, self.names = forward, list(inspect.signature(forward).parameters)
        self.positions = [self.names.index(name) for name in inputs]

    def __call__(self, *arguments: Any) -> Any:
        g, own = self._split(arguments)
        for position in self.positions:
            own[position] = Tensor(np.array(own[position], np.float64), requires_grad=True)
        self.forward(*own).backward(*g)
        gradients = tuple(own[position].grad for position in self.positions)
        return gradients if len(gradients) > 1 else gradients[0]

    def slope(self, arguments: tuple[Any, ...], output: int, index: tuple[int, ...], step: float = 1e-5) -> float:
        """∂L/∂(one entry) of the input that `output` belongs to, by central differences."""
        g, own = self._split(arguments)
        position = self.positions[output]
        losses = []
        for moved in (step, -step):
            x = np.array(own[position], np.float64)
            x[index] += moved
            y = as_array(self.forward(*own[:position], x, *own[position + 1:]))
            losses.append(float((y * g[0]).sum()) if g else float(y))
        return (losses[0] - losses[1]) / (2 * step)

    def _split(self, arguments: tuple[Any, ...]) -> tuple[tuple[Any, ...], list[Any]]:
        count = len(arguments) - len(self.names)
        return arguments[:count], list(arguments[count:])


def with_cotangents(forward: Callable[..., Any], cases: Cases) -> Cases:
    """The cases of `forward`, each with a random g = ∂L/∂output before its arguments."""

    def drawn(draw: Draw) -> Iterator[tuple[str, tuple[Any, ...]]]:
        for title, arguments in cases(draw):
            yield title, (draw(*as_array(forward(*arguments)).shape), *arguments)

    return drawn
