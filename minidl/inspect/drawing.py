"""The recorded graph in the languages that draw graphs: Mermaid and Graphviz's DOT."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from .trace import ModuleCall, Operation, Trace, Value, by_shape


def mermaid(trace: Trace) -> str:
    """A flowchart for Mermaid, which Markdown shows on GitHub and in notebooks; a box a module."""
    def quoted(text: str) -> str:
        return '"' + "".join(c if c.isalnum() or c in " ×·.,_" else f"#{ord(c)};" for c in text) + '"'

    lines = ["flowchart TD"]
    lines += _boxes(trace, lambda name, call: f"subgraph {name} [{quoted(_title(call))}]", "end",
                    lambda name, operation: f"{name}[{quoted(_label(operation))}]")
    leaves, edges = _edges(trace)
    lines += [f"  {name}([{quoted(_named(value))}])" for value, name in leaves.items()]
    lines += [f"  {source} -->|{quoted(by_shape(value.shape))}| {target}" for source, value, target in edges]
    return "\n".join(lines) + "\n"


def dot(trace: Trace) -> str:
    """A digraph for Graphviz: ``dot -Tsvg``; a cluster a module."""
    def quoted(text: str) -> str:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    lines = ["digraph {", "  node [shape=box]"]
    lines += _boxes(trace, lambda name, call: f"subgraph cluster_{name} {{ label={quoted(_title(call))}", "}",
                    lambda name, operation: f"{name} [label={quoted(_label(operation))}]")
    leaves, edges = _edges(trace)
    lines += [f"  {name} [shape=oval, label={quoted(_named(value))}]" for value, name in leaves.items()]
    lines += [f"  {source} -> {target} [label={quoted(by_shape(value.shape))}]" for source, value, target in edges]
    return "\n".join([*lines, "}"]) + "\n"


def _boxes(
    trace: Trace, opened: Callable[[str, ModuleCall], str], closed: str, drawn: Callable[[str, Operation], str]
) -> Iterator[str]:
    """The operations, inside the modules of several operations in which they ran."""
    inside: list[ModuleCall] = []
    number = 0
    for index, operation in enumerate(trace.operations):
        around = trace.groups_of(operation)
        while inside and inside[-1] not in around:
            inside.pop()
            yield "  " * (len(inside) + 1) + closed
        for call in around[len(inside) :]:
            yield "  " * (len(inside) + 1) + opened(f"m{number}", call)
            inside.append(call)
            number += 1
        yield "  " * (len(inside) + 1) + drawn(f"o{index}", operation)
    for depth in range(len(inside), 0, -1):
        yield "  " * depth + closed


def _edges(trace: Trace) -> tuple[dict[Value, str], list[tuple[str, Value, str]]]:
    """The values that no operation made, with a name each, and from where to where every value goes."""
    made = {operation.result: f"o{index}" for index, operation in enumerate(trace.operations)}
    leaves: dict[Value, str] = {}
    edges = []
    for index, operation in enumerate(trace.operations):
        for given in operation.inputs:
            source = made.get(given.value) or leaves.setdefault(given.value, f"v{len(leaves)}")
            edges.append((source, given.value, f"o{index}"))
    return leaves, edges


def _title(call: ModuleCall) -> str:
    return f"{call.path} · {call.kind}" if call.path else call.kind


def _label(operation: Operation) -> str:
    return f"{operation.path} · {operation.name}" if operation.path else operation.name


def _named(value: Value) -> str:
    return f"{value.name or value.kind} {by_shape(value.shape)}"
