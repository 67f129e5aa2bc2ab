"""Stepping through one forward and backward pass: a page for the browser or the notebook, a text for the terminal."""

from __future__ import annotations

import importlib.resources
import inspect
import json
import os
from collections.abc import Callable, Iterator
from typing import Any

from ..autograd import OPERATIONS, Operand, Tensor
from ..io import write_atomically
from . import drawing
from .excerpt import Excerpt
from .formula import typeset
from .trace import Input, ModuleCall, Operation, Trace, Value, by_shape, trace

HEIGHT = 760
"""Of the page in a notebook, in pixels."""


def step_through(loss: Tensor | Callable[[], Tensor], gradient: Operand | None = None) -> StepThrough:
    """Look at the forward and the backward pass of `loss`, one operation at a time.

    ``step_through(lambda: F.cross_entropy(net(images), labels))`` runs the function once, as it stands (random numbers
    are drawn, running statistics move), and sees every value and the module of every operation. A `loss` tensor shows
    what its graph still holds: structure, formulas, shapes, leaves and all gradients. Either way the gradients are
    those of `backward_steps`; every `.grad` stays as it was, and the graph can be walked no second time.

    `gradient` is ∂L/∂loss, needed unless the loss is a single number.
    Raises TypeError for what is neither, or a function that returns no tensor; ValueError for a loss that no operation
    computed; and what `backward_steps` raises.
    """
    return StepThrough(trace(loss, gradient))


class StepThrough:
    """A forward and a backward pass to look at: shows itself in a notebook, prints as text, and saves as a page.

    The page needs nothing but a browser. Of arrays with more than `trace.limit` entries it shows evenly spaced ones,
    the same number along each longer axis; statistics are of the whole array. Modules fold into one step each.
    """

    def __init__(self, trace: Trace):
        self.trace = trace

    def html(self) -> str:
        """The page, in one piece: styles, script and data."""
        template = importlib.resources.files(__package__).joinpath("step_through.html").read_text(encoding="utf-8")
        before, _, after = template.partition("{{pass}}")
        data = json.dumps(_page(self.trace), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        return before + data.replace("<", "\\u003c") + after

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the page to `path`, atomically. Raises OSError if it cannot."""
        write_atomically(path, lambda part: part.write_text(self.html(), encoding="utf-8"))

    def _repr_html_(self) -> str:
        page = self.html().replace("&", "&amp;").replace("'", "&#39;")
        return (f"<iframe srcdoc='{page}' title='Backward pass' sandbox='allow-scripts' loading='lazy' "
                f"style='width:100%;height:{HEIGHT}px;border:0'></iframe>")

    def text(self) -> str:
        """Every step, forward and then backward, with formulas, shapes and statistics."""
        return "\n".join(_lines(self.trace))

    __str__ = text

    def __repr__(self) -> str:
        return f"<StepThrough of {self.trace.title}: {len(self.trace.operations)} operations>"

    def mermaid(self) -> str:
        """The graph as a Mermaid flowchart."""
        return drawing.mermaid(self.trace)

    def dot(self) -> str:
        """The graph in Graphviz's language."""
        return drawing.dot(self.trace)


# ---------------------------------------------------------------------------------------------
# The terminal
# ---------------------------------------------------------------------------------------------

def _lines(trace: Trace) -> Iterator[str]:
    numbers = {operation: number for number, operation in enumerate(trace.operations, 1)}
    yield f"{trace.title}: {len(trace.operations)} operations, loss {_said(trace.loss.excerpt)}"
    if any(operation.result.excerpt is None for operation in trace.operations):
        yield "Values marked as not kept are seen where a function that computes the loss is stepped through."
    yield "\nForward"
    for operation in trace.operations:
        yield f"\n{_heading(operation, numbers)}\n     {operation.formula.value}{_in_brackets(_options(operation))}"
        for given in operation.inputs:
            named = f"{given.symbol} {given.value.name or given.argument}"
            yield f"     {named:<32} {_described(given.value, given.value.excerpt)}"
        yield f"     {operation.formula.result + ' value':<32} {_described(operation.result, operation.result.excerpt)}"
    yield "\nBackward"
    for operation in trace.backward:
        yield f"\n{_heading(operation, numbers)}"
        result, symbol = operation.result, operation.formula.result
        if len(result.contributions) > 1:
            for part in result.contributions:
                yield f"     {'part from ' + _place(part.operation, numbers):<32} {_described(result, part.gradient)}"
        yield f"     {'g = ∂L/∂' + symbol + ' in':<32} {_described(result, result.gradient)}"
        for given in operation.inputs:
            yield from _sent(operation, given)


def _sent(operation: Operation, given: Input) -> Iterator[str]:
    """The gradient by one input, if it needs one; with the last part of a leaf's, their sum."""
    parts = given.value.contributions
    for number, part in enumerate(parts, 1):
        if part.operation is operation and part.position == given.position:
            yield from (f"     {formula}" for formula in operation.formula.gradients_of(given.symbol))
            of_several = f", part {number} of {len(parts)}" if len(parts) > 1 else ""
            yield f"     {'∂L/∂' + given.symbol + ' out' + of_several:<32} {_described(given.value, part.gradient)}"
            if number == len(parts) > 1 and given.value.kind != "result":
                yield f"     {'their sum':<32} {_described(given.value, given.value.gradient)}"


def _heading(operation: Operation, numbers: dict[Operation, int]) -> str:
    return f"{numbers[operation]:>3}  {_place(operation, {})}"


def _place(operation: Operation, numbers: dict[Operation, int]) -> str:
    number = f"{numbers[operation]} " if operation in numbers else ""
    return f"{number}{operation.path} · {operation.name}" if operation.path else f"{number}{operation.name}"


def _described(value: Value, shown: Excerpt | None) -> str:
    return f"{by_shape(value.shape):<16} {_said(shown)}"


def _said(shown: Excerpt | None) -> str:
    return "not kept" if shown is None else str(shown)


def _in_brackets(text: str) -> str:
    return f"     ({text})" if text else ""


# ---------------------------------------------------------------------------------------------
# The page
# ---------------------------------------------------------------------------------------------

def _page(trace: Trace) -> dict[str, Any]:
    """What the page's script reads: operations, values and modules refer to each other by their places in the lists."""
    values: dict[Value, int] = {}
    for operation in trace.operations:
        for value in (*(given.value for given in operation.inputs), operation.result):
            values.setdefault(value, len(values))
    groups = {call: number for number, call in enumerate(dict.fromkeys(
        call for operation in trace.operations for call in trace.groups_of(operation)))}
    numbers = {operation: number for number, operation in enumerate(trace.operations)}
    return {
        "title": trace.title,
        "limit": trace.limit,
        "loss": values[trace.loss],
        "operations": [_operation(operation, trace, values, groups) for operation in trace.operations],
        "values": [_value(value, numbers) for value in values],
        "modules": [_module(call, trace, groups) for call in groups],
    }


def _operation(
    operation: Operation, trace: Trace, values: dict[Value, int], groups: dict[ModuleCall, int]
) -> dict[str, Any]:
    around = trace.groups_of(operation)
    label = "" if operation.module in around else _relative(operation.path, around)
    return {
        "name": operation.name, "options": _options(operation), "path": operation.path, "label": label,
        "kind": operation.module.kind if operation.module else "", "module": groups[around[-1]] if around else -1,
        "formula": typeset(operation.formula.value), "symbol": typeset(operation.formula.result),
        "walked": operation.walked, "result": values[operation.result],
        "inputs": [{
            "argument": given.argument, "symbol": typeset(given.symbol), "value": values[given.value],
            "position": given.position, "formulas": list(map(typeset, operation.formula.gradients_of(given.symbol))),
        } for given in operation.inputs],
    }


def _value(value: Value, numbers: dict[Operation, int]) -> dict[str, Any]:
    """A single contribution is the gradient itself and stands there only."""
    several = len(value.contributions) > 1
    return {
        "name": value.name, "kind": value.kind, "shape": value.shape, "dtype": value.dtype,
        "data": value.excerpt.as_json() if value.excerpt else None,
        "gradient": value.gradient.as_json() if value.gradient else None,
        "contributions": [{
            "operation": numbers[part.operation], "position": part.position,
            "gradient": part.gradient.as_json() if several else None,
        } for part in value.contributions],
    }


def _module(call: ModuleCall, trace: Trace, groups: dict[ModuleCall, int]) -> dict[str, Any]:
    around = trace.groups_around(call.parent)
    return {"path": call.path, "label": _relative(call.path, around) or call.kind, "kind": call.kind,
            "parent": groups[around[-1]] if around else -1}


def _relative(path: str, around: list[ModuleCall]) -> str:
    """The end of a path, as it is called inside the module around it."""
    outer = around[-1].path if around else ""
    return path.removeprefix(outer).lstrip(".") if outer and path.startswith(outer) else path


def _options(operation: Operation) -> str:
    """The arguments that are not tensors, those at their default left out."""
    known = OPERATIONS.get(operation.name)
    defaults = {name: p.default for name, p in inspect.signature(known).parameters.items()} if known else {}
    shown = (f"{name}={value!r}" for name, value in operation.options.items() if value is not defaults.get(name)
             and not (isinstance(value, (int, float, str)) and value == defaults.get(name)))
    return ", ".join(text if len(text) <= 80 else text[:79] + "…" for text in shown)
