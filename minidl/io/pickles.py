"""Reading pickles without executing them.

A pickle is a program for a small stack machine, and two of its instructions call any function there is. The machine
here knows numbers, text, plain containers, and the names that its caller lends it; it refuses any other.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, BinaryIO

PLAIN = (str, bytes, int, float, type(None))
"""What may be a key: to hash a tuple of tuples takes a stack as deep as it is, and time for all of its parts."""


def plain_dict(items: Iterable[Any] = ()) -> dict[Any, Any]:
    """A dict of (key, value) pairs, or of a dict's items. Raises TypeError for a key that is no number and no text."""
    pairs = [(key, value) for key, value in (items.items() if isinstance(items, dict) else items)]
    if not all(isinstance(key, PLAIN) for key, _ in pairs):
        raise TypeError("a key is no number and no text")
    return dict(pairs)


class Refused(ValueError):
    """The pickle asks for something that is no plain container and was not lent to it."""

    def __init__(self, wanted: str):
        super().__init__(wanted if wanted.isprintable() and len(wanted) < 200 else ascii(wanted[:200]))


class _Mark:
    """Where on the stack the items of a container begin."""


def read_pickle(file: BinaryIO, lent: Mapping[str, Any], persistent: Callable[[Any], Any]) -> Any:
    """The object that the pickle at the position of `file` describes; `file` is left behind it.

    `lent` maps names such as ``"collections.OrderedDict"`` to what stands for them: a function may be called by the
    pickle, anything else only be named. ``persistent(identity)`` gives the object outside the pickle with that name.
    Memory and time are proportional to the pickle's length. Raises `Refused` naming what else was asked for, and
    ValueError for a pickle that is damaged or cut short.
    """
    machine = _Machine(lent, persistent)
    try:
        for opcode, argument, _ in pickletools.genops(file):
            if opcode.name == "STOP":
                return machine.pop()
            step = STEPS.get(opcode.name)
            if step is None:
                raise Refused(f"the pickle instruction {opcode.name}")
            step(machine, argument)
    except Refused:
        raise
    except (AttributeError, IndexError, KeyError, OverflowError, RecursionError, TypeError, ValueError) as error:
        raise ValueError(f"its pickle is damaged: {str(error)[:200] or type(error).__name__}") from None
    raise ValueError("its pickle has no end")


class _Machine:
    """A stack, and a memo of what may be needed again."""

    def __init__(self, lent: Mapping[str, Any], persistent: Callable[[Any], Any]):
        self.lent, self.persistent = lent, persistent
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.pushed = self.passed = 0

    def push(self, value: Any) -> None:
        self.stack.append(value)
        self.pushed += 1

    def pop(self) -> Any:
        value = self.stack.pop()
        if isinstance(value, _Mark):
            raise ValueError("a mark stands where a value belongs")
        return value

    def pop_to_mark(self) -> list[Any]:
        at = len(self.stack) - 1
        while not isinstance(self.stack[at], _Mark):
            at -= 1
            if at < 0:
                raise ValueError("there is no mark")
        items = self.stack[at + 1 :]
        del self.stack[at:]
        return items

    def top(self, kind: type) -> Any:
        if not isinstance(self.stack[-1], kind):
            raise TypeError(f"a {type(self.stack[-1]).__name__} stands where a {kind.__name__} belongs")
        return self.stack[-1]

    def name(self, name: str) -> None:
        if name not in self.lent:
            raise Refused(name)
        self.push(self.lent[name])

    def call(self) -> None:
        arguments, function = self.pop(), self.pop()
        if not callable(function) or not isinstance(arguments, tuple):
            raise TypeError("something is called that is no function")
        # The same long list, given to function after function, would take memory without end.
        self.passed += sum(len(argument) for argument in arguments if hasattr(argument, "__len__"))
        if self.passed > 2 * self.pushed + 100:
            raise ValueError("the same items are used over and over")
        self.push(function(*arguments))

    def build(self) -> None:
        """Attributes of an object, such as the versions that PyTorch notes on a state_dict: passed over."""
        self.pop()
        self.top(dict)

    def extend(self) -> None:
        items = self.pop_to_mark()
        self.top(list).extend(items)

    def update(self, items: list[Any]) -> None:
        if len(items) % 2:
            raise ValueError("a key has no value")
        self.top(dict).update(plain_dict(zip(items[::2], items[1::2])))

    def fetch(self, index: int) -> None:
        self.push(self.memo[index])


def _tuple(count: int) -> Callable[[_Machine, Any], None]:
    def step(machine: _Machine, _: Any) -> None:
        machine.push(tuple(reversed([machine.pop() for _ in range(count)])))

    return step


def _constant(value: Any) -> Callable[[_Machine, Any], None]:
    return lambda machine, _: machine.push(value)


def _dict(machine: _Machine, _: Any) -> None:
    items = machine.pop_to_mark()
    machine.push({})
    machine.update(items)


def _append(machine: _Machine, _: Any) -> None:
    item = machine.pop()
    machine.top(list).append(item)


def _set_item(machine: _Machine, _: Any) -> None:
    value, key = machine.pop(), machine.pop()
    machine.update([key, value])


def _memoize(machine: _Machine, index: Any) -> None:
    machine.memo[len(machine.memo) if index is None else index] = machine.stack[-1]


def _stack_name(machine: _Machine, _: Any) -> None:
    name, module = machine.pop(), machine.pop()
    if not all(isinstance(part, (str, int, float)) for part in (name, module)):
        raise TypeError("a name is no text")
    machine.name(f"{module}.{name}")


STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    **dict.fromkeys(("PROTO", "FRAME"), lambda machine, _: None),
    "NONE": _constant(None), "NEWTRUE": _constant(True), "NEWFALSE": _constant(False),
    **dict.fromkeys(
        ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
         "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES",
         "BINBYTES8"),
        lambda machine, value: machine.push(value)),
    "EMPTY_TUPLE": _constant(()), "TUPLE1": _tuple(1), "TUPLE2": _tuple(2), "TUPLE3": _tuple(3),
    "EMPTY_LIST": lambda machine, _: machine.push([]), "EMPTY_DICT": lambda machine, _: machine.push({}),
    "MARK": lambda machine, _: machine.stack.append(_Mark()),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.pop_to_mark())),
    "LIST": lambda machine, _: machine.push(machine.pop_to_mark()),
    "DICT": _dict,
    "APPEND": _append, "APPENDS": lambda machine, _: machine.extend(),
    "SETITEM": _set_item, "SETITEMS": lambda machine, _: machine.update(machine.pop_to_mark()),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), _memoize),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda machine, index: machine.fetch(index)),
    "GLOBAL": lambda machine, name: machine.name(name.replace(" ", ".")), "STACK_GLOBAL": _stack_name,
    "REDUCE": lambda machine, _: machine.call(), "BUILD": lambda machine, _: machine.build(),
    "BINPERSID": lambda machine, _: machine.push(machine.persistent(machine.pop())),
}
"""What each instruction does; those that are missing make objects of classes, or sets, which no state holds."""
