"""Reading pickles without executing them.

A pickle is a program for a small stack machine, and several of its instructions call whatever function they name. The
machine here knows numbers, text and plain containers, and the functions on its caller's allow list. Anything else that
a pickle names or makes becomes an inert `Unknown`.

`pickle.Unpickler` with a `find_class` of our own executes nothing either, but it hashes whatever a pickle uses as a
key: 200 kB of nested tuples overflow the stack and end the process, and 1.4 kB of doubled tuples, or 100,000 numbers
with the same hash, keep it busy for hours. Here a dict is a list of its keys and values, and nothing is hashed.
"""

from __future__ import annotations

import os
import pickletools
import struct
import sys
from collections.abc import Callable, Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any, BinaryIO

from .contents import Dict, Unknown

LONGEST = 1 << 20
"""Bytes of the longest text or number that is read; longer ones become `Unknown`."""

ALLOWANCE = 48 << 20
"""Bytes that any pickle may take in memory, as the machine counts them; twice its length comes on top."""

MOST_INSTRUCTIONS = 3_000_000
"""Instructions in a pickle: a few seconds' worth. PyTorch writes about 32 per tensor."""

LENGTHS = {pickletools.TAKEN_FROM_ARGUMENT4: "<i", pickletools.TAKEN_FROM_ARGUMENT4U: "<I",
           pickletools.TAKEN_FROM_ARGUMENT8U: "<Q"}
"""Kinds of arguments that begin with their length and may be long → how the length is written."""

OPCODES = {opcode.code.encode("latin-1"): opcode for opcode in pickletools.opcodes}
MARK = object()
"""Where on the stack the items of a container begin."""


def read_pickle(file: BinaryIO, allowed: Mapping[str, Any], persistent: Callable[[Any], Any]) -> Any:
    """The object that the pickle at the position of `file` describes; `file` is left behind it.

    `allowed` maps names such as ``"collections.OrderedDict"`` to what stands for them: the pickle may call functions,
    and only name anything else. ``persistent(identity)`` gives the object outside the pickle with that name. Dicts
    become `Dict`, and what is not allowed becomes `Unknown`. Memory and time are proportional to the pickle's length.
    Raises ValueError for a pickle that is damaged or cut short, or that would take far more memory than its length.
    """
    program = SimpleNamespace(read=file.read, readline=partial(file.readline, LONGEST), tell=file.tell, seek=file.seek)
    machine, start, limit = _Machine(allowed, persistent), file.tell(), ALLOWANCE
    try:
        for _ in range(MOST_INSTRUCTIONS):
            code = program.read(1)
            if code not in OPCODES:
                raise ValueError(f"there is no instruction {code!r}" if code else "it has no end")
            opcode = OPCODES[code]
            argument = _argument(opcode, program)
            if opcode.name == "STOP":
                return machine.pop()
            if opcode.name not in STEPS:
                raise ValueError(f"it has the instruction {opcode.name}, which no checkpoint needs")
            STEPS[opcode.name](machine, argument)
            if machine.memory > limit:
                limit = ALLOWANCE + 2 * (file.tell() - start)
                if machine.memory > limit:
                    raise ValueError("it makes far more objects than a checkpoint of its length has")
    except (ArithmeticError, LookupError, OSError, RecursionError, TypeError, ValueError, struct.error) as error:
        raise ValueError(f"its pickle is damaged: {str(error)[:200] or type(error).__name__}") from None
    raise ValueError(f"its pickle has more than {MOST_INSTRUCTIONS:,} instructions")


def _argument(opcode: pickletools.OpcodeInfo, program: Any) -> Any:
    if opcode.arg is None:
        return None
    if length_format := LENGTHS.get(opcode.arg.n):
        at = program.tell()
        (length,) = struct.unpack(length_format, program.read(struct.calcsize(length_format)))
        if length > LONGEST:
            program.seek(length, os.SEEK_CUR)
            return Unknown(f"a text or number of {length:,} bytes")
        program.seek(at)
    return opcode.arg.reader(program)


class _Machine:
    """A stack, a memo of what may be needed again, and about how many bytes of memory all of it took."""

    def __init__(self, allowed: Mapping[str, Any], persistent: Callable[[Any], Any]):
        self.allowed, self.persistent = allowed, persistent
        self.stack: list[Any] = []
        self.memo: list[Any] = []
        self.memory = 0

    def push(self, value: Any) -> None:
        self.stack.append(value)
        self.memory += sys.getsizeof(value) + 16  # and two references to it

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is MARK:
            raise ValueError("a mark stands where a value belongs")
        return value

    def pop_to_mark(self) -> list[Any]:
        at = len(self.stack) - 1
        while self.stack[at] is not MARK:
            at -= 1
            if at < 0:
                raise ValueError("there is no mark")
        items = self.stack[at + 1 :]
        del self.stack[at:]
        return items

    def name(self, name: str) -> None:
        self.push(self.allowed[name] if name in self.allowed else Unknown(name))

    def call(self, function: Any, arguments: Any) -> None:
        if isinstance(function, Unknown):
            return self.push(Unknown(function.name))
        if not callable(function) or not isinstance(arguments, tuple):
            raise TypeError("something is called that is no function")
        # The same long list, given to function after function, would take time without end.
        self.memory += sum(8 * len(argument) for argument in arguments if hasattr(argument, "__len__"))
        self.push(function(*arguments))

    def extend(self, items: list[Any], kinds: tuple[type, ...]) -> None:
        container = self.stack[-1]
        if type(container) not in kinds:
            raise TypeError(f"a {type(container).__name__} stands where a {kinds[0].__name__} belongs")
        container.extend(items)

    def memoize(self, index: int | None) -> None:
        index = len(self.memo) if index is None else index
        if not 0 <= index <= len(self.memo) + 1:
            raise ValueError("its memo has holes")  # picklers count from 0, and Python 2's from 1
        self.memo.extend([None] * (index + 1 - len(self.memo)))
        self.memo[index] = self.stack[-1]
        self.memory += 16

    def fetch(self, index: int) -> None:
        self.stack.append(self.memo[index])
        self.memory += 16


Step = Callable[[_Machine, Any], object]


def _constant(value: Any) -> Step:
    return lambda machine, _: machine.push(value)


def _tuple(count: int) -> Step:
    return lambda machine, _: machine.push(tuple(reversed([machine.pop() for _ in range(count)])))


def _set_item(machine: _Machine, _: Any) -> None:
    value, key = machine.pop(), machine.pop()
    machine.extend([key, value], (Dict, Unknown))


def _new_dict(machine: _Machine, _: Any) -> None:
    items = machine.pop_to_mark()
    machine.push(Dict())
    machine.extend(items, (Dict,))


def _frozenset(machine: _Machine, _: Any) -> None:
    machine.pop_to_mark()
    machine.push(Unknown("frozenset"))


def _stack_name(machine: _Machine, _: Any) -> None:
    name, module = machine.pop(), machine.pop()
    if not (isinstance(name, str) and isinstance(module, str)):
        raise TypeError("a name is no text")
    machine.name(f"{module}.{name}")


def _call(machine: _Machine, _: Any) -> None:
    arguments, function = machine.pop(), machine.pop()
    machine.call(function, arguments)


def _call_with_keywords(machine: _Machine, _: Any) -> None:
    machine.pop()
    _call(machine, _)


def _call_to_mark(machine: _Machine, _: Any) -> None:
    function, *arguments = machine.pop_to_mark()
    machine.call(function, tuple(arguments))


def _call_by_name(machine: _Machine, name: str) -> None:
    arguments = machine.pop_to_mark()
    machine.name(name.replace(" ", "."))
    machine.call(machine.pop(), tuple(arguments))


STEPS: dict[str, Step] = {
    **dict.fromkeys(("PROTO", "FRAME"), lambda machine, _: None),
    "NONE": _constant(None), "NEWTRUE": _constant(True), "NEWFALSE": _constant(False),
    **dict.fromkeys(
        ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
         "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES",
         "BINBYTES8", "BYTEARRAY8"),
        lambda machine, value: machine.push(value)),
    "EMPTY_TUPLE": _constant(()), "TUPLE1": _tuple(1), "TUPLE2": _tuple(2), "TUPLE3": _tuple(3),
    "EMPTY_LIST": lambda machine, _: machine.push([]), "EMPTY_DICT": lambda machine, _: machine.push(Dict()),
    "EMPTY_SET": lambda machine, _: machine.push(Unknown("set")),
    "MARK": lambda machine, _: machine.push(MARK),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.pop_to_mark())),
    "LIST": lambda machine, _: machine.push(machine.pop_to_mark()),
    "DICT": _new_dict,
    "FROZENSET": _frozenset,
    "APPEND": lambda machine, _: machine.extend([machine.pop()], (list, Unknown)),
    "APPENDS": lambda machine, _: machine.extend(machine.pop_to_mark(), (list, Unknown)),
    "ADDITEMS": lambda machine, _: machine.extend(machine.pop_to_mark(), (Unknown,)),
    "SETITEM": _set_item,
    "SETITEMS": lambda machine, _: machine.extend(machine.pop_to_mark(), (Dict, Unknown)),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), lambda machine, index: machine.memoize(index)),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda machine, index: machine.fetch(index)),
    "POP": lambda machine, _: machine.stack.pop(), "POP_MARK": lambda machine, _: machine.pop_to_mark(),
    "DUP": lambda machine, _: machine.push(machine.stack[-1]),
    "GLOBAL": lambda machine, name: machine.name(name.replace(" ", ".")), "STACK_GLOBAL": _stack_name,
    "REDUCE": _call, "NEWOBJ": _call, "NEWOBJ_EX": _call_with_keywords, "OBJ": _call_to_mark, "INST": _call_by_name,
    "BUILD": lambda machine, _: machine.pop(),  # attributes, such as the versions that PyTorch notes on a state_dict
    "BINPERSID": lambda machine, _: machine.push(machine.persistent(machine.pop())),
}
"""What each instruction does. Those that are missing name objects outside the pickle in ways that PyTorch does not."""
