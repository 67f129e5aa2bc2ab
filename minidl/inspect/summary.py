"""A network in numbers, a row a layer: shapes, neurons, parameters, multiply-adds, memory and receptive fields.

Everything is counted while an image goes through: the multiply-adds from the convolutions and products that really
run, so groups, branches and auxiliary heads count as what they are. Claims F2 to F13.
"""

from __future__ import annotations

import copy
import os
import tracemalloc
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import functional as F
from ..autograd import Tensor, no_grad, observe_operations
from ..io import write_atomically
from ..nn import Module, Parameter
from ..nn.module import dtype_and_device, leaving_as_found
from ..optim import SGD
from .receptive_field import Field, field_after

CONVOLUTIONS = ("conv2d", "conv_transpose2d")


class Layer(NamedTuple):
    """One row: a layer, each time it is used."""

    name: str
    """Its path, as in `state_dict`."""
    kind: str
    output_shape: tuple[int, ...]
    neurons: int
    """Outputs of its convolutions and linear maps, for one image."""
    parameters: int
    """Its own; of a layer that is used again, counted the first time."""
    mult_adds: int
    """Of its convolutions and matrix products, for the whole batch."""
    activation_bytes: int
    """Of its convolutions' outputs, for the whole batch, as the lecture counts memory (claim F10)."""
    receptive_field: tuple[int, int] | None
    """Pixels of the input, (vertical, horizontal), that one output depends on, padding included."""


@dataclass(frozen=True)
class Summary:
    """The layers in the order in which they run, and their totals; prints as a table, renders as one in a notebook."""

    model: str
    input_shape: tuple[int, ...]
    layers: Sequence[Layer]
    total_params: int
    """All parameters of the model, also those of layers that did not run."""
    idle: Sequence[str] = ()
    """Modules with parameters that did not run, such as auxiliary heads in evaluation mode."""
    training_peak_bytes: int | None = None
    """The most memory that arrays took during a training step: weights, gradients, momentum, activations, workspace."""
    total_neurons: int = field(init=False)
    total_mult_adds: int = field(init=False)
    total_activation_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        for name in ("neurons", "mult_adds", "activation_bytes"):
            object.__setattr__(self, f"total_{name}", sum(getattr(layer, name) for layer in self.layers))

    def __str__(self) -> str:
        rows = [[*HEADER], *map(_cells, self.layers), self._total_cells()]
        widths = [max(len(row[i]) for row in rows) for i in range(len(HEADER))]
        lines = ["  ".join(cell.ljust(w) if i < 3 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths)))
                 .rstrip() for row in rows]
        rule = "─" * max(map(len, lines))
        return "\n".join([self._title(), rule, lines[0], rule, *lines[1:-1], rule, lines[-1], *self._notes()])

    def _repr_html_(self) -> str:
        import html

        def row(cells: Iterable[str], tag: str) -> str:
            aligned = ("left" if i < 3 else "right" for i in range(len(HEADER)))
            return "<tr>" + "".join(f'<{tag} style="text-align:{side};white-space:nowrap">{html.escape(cell)}</{tag}>'
                                    for side, cell in zip(aligned, cells)) + "</tr>"

        body = "".join(row(_cells(layer), "td") for layer in self.layers)
        notes = "".join(f"<div>{html.escape(note)}</div>" for note in self._notes())
        head, foot = row(HEADER, "th"), row(self._total_cells(), "th")
        return (f'<div><b>{html.escape(self._title())}</b><table style="font-variant-numeric:tabular-nums">'
                f"<thead>{head}</thead><tbody>{body}</tbody><tfoot>{foot}</tfoot></table>{notes}</div>")

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write the rows, as plain numbers and with a header, to `path`; atomically. Raises OSError if it cannot."""
        import csv

        def write(part: Path) -> None:
            with open(part, "w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow(Layer._fields)
                for layer in self.layers:
                    seen = layer.receptive_field
                    writer.writerow([*layer[:2], _by(layer.output_shape), *layer[3:7], _by(seen) if seen else ""])

        write_atomically(path, write)

    def _title(self) -> str:
        batch, *rest = self.input_shape
        return f"{self.model} on {batch} image{'s' if batch > 1 else ''} of {_by(rest)}"

    def _total_cells(self) -> list[str]:
        return ["total", "", "", f"{self.total_neurons:,}", f"{self.total_params:,}", _scaled(self.total_mult_adds),
                _bytes(self.total_activation_bytes), ""]

    def _notes(self) -> list[str]:
        notes = []
        if self.idle:
            counted = self.total_params - sum(layer.parameters for layer in self.layers)
            notes.append(f"not run: {', '.join(self.idle)}, with {counted:,} of the parameters")
        if self.training_peak_bytes is not None:
            notes.append(f"a training step takes {_bytes(self.training_peak_bytes)} at its peak: weights, gradients, "
                         "momentum, activations, workspace")
        return notes


HEADER = ("layer", "kind", "output", "neurons", "parameters", "mult-adds", "memory", "field")


def _cells(layer: Layer) -> list[str]:
    def unless_zero(value: int, text: str) -> str:
        return text if value else ""

    seen = layer.receptive_field
    shown = "" if seen is None else str(seen[0]) if seen[0] == seen[1] else _by(seen)
    return [layer.name, layer.kind, _by(layer.output_shape[1:]), unless_zero(layer.neurons, f"{layer.neurons:,}"),
            unless_zero(layer.parameters, f"{layer.parameters:,}"),
            unless_zero(layer.mult_adds, _scaled(layer.mult_adds)),
            unless_zero(layer.activation_bytes, _bytes(layer.activation_bytes)), shown]


def _by(sizes: Sequence[int]) -> str:
    return "×".join(map(str, sizes))


def _scaled(count: int) -> str:
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size:
            return f"{count / size:.4g} {unit}"
    return str(count)


def _bytes(count: int) -> str:
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:.2f} {unit}"
    return f"{count} B"


# ---------------------------------------------------------------------------------------------
# Counting
# ---------------------------------------------------------------------------------------------

def summary(model: Module, input_size: Sequence[int], batch_size: int = 1, measure_peak: bool = True) -> Summary:
    """Send `batch_size` images of `input_size` = (C, H, W) through `model`, and count what each layer does.

    Layers run as in evaluation, and the model stays as it is: no statistics move. Its hooks run once. Containers keep
    their mode, so a GoogLeNet in training mode shows its auxiliary heads. A module may return a tensor, or tuples,
    lists and dicts of them: its row shows the first.

    `measure_peak` also runs two training steps of a copy, with momentum, and takes the second's peak of array memory by
    `tracemalloc`. The loss is the model's `criterion(output, labels)` if it has one, else the cross-entropy of the
    first tensor, or its sum if it has no classes. The peak is None on a GPU, and where no step can be made: all
    parameters are frozen, recording is off, or the copy raises an error, as batch normalisation does of one image.

    Raises ValueError for a `batch_size` below 1 or an `input_size` that is none, and what the model raises for such an
    input.
    """
    if batch_size < 1:
        raise ValueError(f"summary: batch_size must be at least 1; got {batch_size}")
    if not isinstance(input_size, (tuple, list)) or not 1 <= len(input_size) <= 3:
        raise ValueError(f"summary: input_size is (C, H, W) of one image, without the batch; got {input_size!r}")
    with leaving_as_found(model):
        x = _images(model, input_size, batch_size)
        trace = _Trace(model, x)
        peak = _training_peak(model, x) if measure_peak else None
    parameters = list(model.named_parameters())
    return Summary(
        type(model).__name__, (batch_size, *input_size), tuple(trace.layers()),
        sum(value.size for _, value in parameters), _idle(parameters, trace.counted), peak,
    )


def _idle(parameters: Sequence[tuple[str, Any]], counted: set[Any]) -> tuple[str, ...]:
    """The paths of the largest modules of which no parameter was counted."""
    ran = [name for name, value in parameters if value in counted]
    idle: dict[str, None] = {}
    for name, value in parameters:
        if value not in counted:
            parts = name.split(".")
            paths = [".".join(parts[: i + 1]) for i in range(len(parts))]
            idle[next(p for p in paths if not any(other == p or other.startswith(f"{p}.") for other in ran))] = None
    return tuple(idle)


def _images(model: Module, input_size: Sequence[int], batch_size: int) -> Tensor:
    dtype, device = dtype_and_device(model)
    values = np.random.default_rng(0).standard_normal((batch_size, *input_size)).astype(dtype)
    return Tensor(values).to(device)


@dataclass
class _Call:
    """One call of a module while it runs."""

    name: str
    module: Module
    parameters: int
    has_calls: bool = False
    output_shape: tuple[int, ...] = ()
    neurons: int = 0
    mult_adds: int = 0
    activation_bytes: int = 0
    field: Field | None = None


class _Trace:
    """Runs a model once, and notes the calls of its modules, with the operations that each itself performs.

    Leaves its layers in evaluation mode.
    """

    def __init__(self, model: Module, x: Tensor):
        self.names = {module: name for name, module in model.named_modules()}
        self.calls: list[_Call] = []
        self.running: list[_Call] = []
        self.counted: set[Any] = set()
        self.fields: dict[int, tuple[weakref.ref[Tensor], Field]] = {}
        self.batch = len(x)
        self._see(x, Field())
        hooks = [hook for module in model.modules() for hook in
                 (module.register_forward_pre_hook(self._enter), module.register_forward_hook(self._leave))]
        try:
            with no_grad(), observe_operations(self._observe):
                for module in self.names:
                    if next(module.children(), None) is None:
                        module.training = False
                model(x)
        finally:
            for hook in hooks:
                hook.remove()

    def layers(self) -> Iterable[Layer]:
        """The calls of modules that contain no others, or that compute or own something themselves."""
        for call in self.calls:
            if not call.has_calls or call.parameters or call.mult_adds:
                yield Layer(call.name, _kind(call.module), call.output_shape, call.neurons, call.parameters,
                            call.mult_adds, call.activation_bytes, call.field.size if call.field else None)

    def _enter(self, module: Module, inputs: tuple[Any, ...]) -> None:
        own = [value for value in module._own(Parameter).values() if value not in self.counted]
        self.counted.update(own)
        if self.running:
            self.running[-1].has_calls = True
        self.running.append(_Call(self.names[module], module, sum(value.size for value in own)))
        self.calls.append(self.running[-1])

    def _leave(self, module: Module, inputs: tuple[Any, ...], output: Any) -> None:
        while (call := self.running.pop()).module is not module:
            pass  # one that raised an error, which was caught above it
        first = _first_tensor(output)
        if first is not None:
            call.output_shape, call.field = first.shape, self._field_of(first)

    def _observe(self, operation: str, arguments: dict[str, Any], result: Tensor) -> None:
        known = [(x, seen) for x in _tensors(arguments) if (seen := self._field_of(x)) is not None]
        fields = [field_after(operation, arguments, x, seen, result) for x, seen in known]
        for other in fields[1:]:
            fields[0] = fields[0].join(other)
        if fields:
            self._see(result, fields[0])
        if not self.running:
            return
        call = self.running[-1]
        call.mult_adds += _mult_adds(operation, arguments, result)
        if operation in (*CONVOLUTIONS, "linear"):
            call.neurons += result.size // self.batch
        if operation in CONVOLUTIONS:
            call.activation_bytes += result.data.nbytes

    def _see(self, tensor: Tensor, seen: Field) -> None:
        self.fields[id(tensor)] = weakref.ref(tensor), seen

    def _field_of(self, tensor: Tensor) -> Field | None:
        reference, seen = self.fields.get(id(tensor), (None, None))
        return seen if reference is not None and reference() is tensor else None


def _first_tensor(output: Any) -> Tensor | None:
    """The first tensor of an output, in tuples, lists and dicts of any depth."""
    if isinstance(output, Tensor):
        return output
    parts = output.values() if isinstance(output, Mapping) else output if isinstance(output, (tuple, list)) else ()
    return next((found for part in parts if (found := _first_tensor(part)) is not None), None)


def _tensors(arguments: dict[str, Any]) -> list[Tensor]:
    values = [value for given in arguments.values() for value in (given if isinstance(given, tuple) else (given,))]
    return [value for value in values if isinstance(value, Tensor)]


def _mult_adds(operation: str, arguments: dict[str, Any], result: Tensor) -> int:
    """Each output of a convolution or a product is a sum of so many products; additions and the rest count nothing."""
    if operation == "conv2d":
        return result.size * (arguments["weight"].size // len(arguments["weight"]))
    if operation == "conv_transpose2d":
        return arguments["input"].size * (arguments["weight"].size // len(arguments["weight"]))
    if operation == "linear":
        return result.size * arguments["weight"].shape[1]
    if operation == "matmul":
        return result.size * arguments["a"].shape[-1]
    return 0


def _kind(module: Module) -> str:
    """Its class, and the window that it slides."""
    options = vars(module)
    if "kernel_size" not in options:
        return type(module).__name__
    size, stride = options["kernel_size"], options.get("stride") or 1
    text = f"{type(module).__name__} {_by(size if isinstance(size, (tuple, list)) else (size, size))}"
    text += f"/{_by(stride) if isinstance(stride, (tuple, list)) else stride}" if stride not in (1, (1, 1)) else ""
    return text + (f" in {options['groups']} groups" if options.get("groups", 1) > 1 else "")


def _training_peak(model: Module, x: Tensor) -> int | None:
    """The most that arrays took while a copy of `model` was trained for a step, momentum there from the step before.

    None on a GPU, whose memory `tracemalloc` does not see, and where no step can be made.
    """
    if x.device != "cpu":
        return None
    tracing = tracemalloc.is_tracing()
    if not tracing:
        tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    try:
        trained = copy.deepcopy(model).train()
        for module in trained.modules():
            module._forward_hooks = module._forward_pre_hooks = ()
        optimizer = SGD(trained.parameters(), lr=0.0, momentum=0.9)
        for _ in range(2):
            tracemalloc.reset_peak()
            optimizer.zero_grad()
            _loss(trained, x).backward()
            optimizer.step()
        return tracemalloc.get_traced_memory()[1] - before + x.data.nbytes
    except Exception:  # of the model, which need not be one to train: its forward pass above went well
        return None
    finally:
        if not tracing:
            tracemalloc.stop()


def _loss(model: Module, x: Tensor) -> Tensor:
    output = model(x)
    first = _first_tensor(output)
    if first is None:
        raise ValueError("the model's output has no tensor")
    labels = Tensor(np.zeros((*first.shape[:1], *first.shape[2:]), np.int64)).to(first.device)
    if hasattr(model, "criterion"):
        return model.criterion(output, labels)
    return F.cross_entropy(first, labels) if first.ndim > 1 else first.sum()
