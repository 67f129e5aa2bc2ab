"""Settings that hold for one thread, or one asyncio task, only; and functions that run within such a setting."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class TaskLocal(threading.local, Generic[T]):
    """A value that each thread and each asyncio task sets for itself, with `get()` and `set(value)`.

    A new task starts from the value of the task that made it. A new thread starts from `default`. There is one context
    variable per thread, so this is also true of a thread that inherits the context of another, as in
    `asyncio.to_thread` and in free-threaded Python.
    """

    def __init__(self, default: T):
        variable: ContextVar[T] = ContextVar("variable", default=default)
        self.get, self.set = variable.get, variable.set


@contextmanager
def adding(values: TaskLocal[tuple[T, ...]], value: T) -> Iterator[None]:
    """Have `value` among `values` for a ``with`` block."""
    values.set((*values.get(), value))
    try:
        yield
    finally:
        left = list(values.get())
        if value in left:  # not where a generator is closed in another task
            left.remove(value)
        values.set(tuple(left))


def within(context: AbstractContextManager[Any], function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, run inside ``with context:``; `context` must be reusable.

    A generator leaves the context at each `yield`, and enters it again for the next value. It may be asynchronous, and
    so may a plain function.
    """
    @functools.wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        with context:
            return function(*arguments, **options)

    @functools.wraps(function)
    async def call_async(*arguments: Any, **options: Any) -> Any:
        with context:
            return await function(*arguments, **options)

    @functools.wraps(function)
    def generate(*arguments: Any, **options: Any) -> Any:
        generator = function(*arguments, **options)
        try:
            with context:
                value = next(generator)
            while True:
                try:
                    sent = yield value
                except BaseException as error:  # from throw(), or from close()
                    with context:
                        value = generator.throw(error)
                else:
                    with context:
                        value = generator.send(sent)
        except StopIteration as end:
            return end.value

    @functools.wraps(function)
    async def generate_async(*arguments: Any, **options: Any) -> Any:
        generator = function(*arguments, **options)
        try:
            with context:
                value = await anext(generator)
            while True:
                try:
                    sent = yield value
                except BaseException as error:  # from athrow(), or from aclose()
                    with context:
                        value = await generator.athrow(error)
                else:
                    with context:
                        value = await generator.asend(sent)
        except StopAsyncIteration:
            return

    if inspect.isgeneratorfunction(function):
        return generate
    if inspect.isasyncgenfunction(function):
        return generate_async
    return call_async if inspect.iscoroutinefunction(function) else call
