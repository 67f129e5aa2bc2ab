"""One thread pool for all kernels, and BLAS held to one thread while it works.

Work is cut by its shape alone, never by the number of threads, so that results are bit-identical
with any number of them.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

import threadpoolctl

from .memory import keep_freed_memory

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor


def _available_processors() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        return os.cpu_count() or 1


def _threads_at_start() -> int:
    asked = os.environ.get("MINIDL_NUM_THREADS")
    if not asked:
        return _available_processors()
    if not asked.isdecimal() or int(asked) < 1:
        raise ValueError(f"MINIDL_NUM_THREADS must be a whole number of at least 1; got {asked!r}")
    return int(asked)


_num_threads: int | None = None  # until somebody asks


def get_num_threads() -> int:
    """How many threads the CPU kernels use: ``MINIDL_NUM_THREADS``, else the processors available."""
    global _num_threads
    if _num_threads is None:
        _num_threads = _threads_at_start()
    return _num_threads


def set_num_threads(number: int) -> None:
    """Use `number` threads in the CPU kernels. Results do not depend on it. Raises ValueError below 1."""
    global _num_threads
    if not isinstance(number, int) or number < 1:
        raise ValueError(f"set_num_threads: needs a whole number, at least 1 thread; got {number!r}")
    _num_threads = number


ENOUGH_BYTES = 6 << 20
"""Below so much memory to go through, waking a thread costs more than it saves."""

PRODUCT_BYTES = 0.25
"""The memory that is gone through while a matrix product does one multiply-add."""


def parallel(function: Callable[..., object], tasks: Iterable[tuple[Any, ...]], size: float = ENOUGH_BYTES) -> None:
    """Call ``function(*task)`` for every task, BLAS held to one thread; spread over the threads if `size`, the bytes
    that all tasks together go through, is enough. The first exception is raised here."""
    keep_freed_memory()
    tasks = list(tasks)
    most = get_num_threads()
    helpers = min(most, len(tasks)) - 1 if size >= ENOUGH_BYTES else 0
    with single_threaded_blas():
        if helpers < 1:
            for task in tasks:
                function(*task)
            return
        queue = iter(tasks)  # the interpreter lock makes taking the next item atomic

        def work() -> None:
            for task in queue:
                function(*task)

        futures = [_pool(most - 1).submit(work) for _ in range(helpers)]
        try:
            work()
        finally:
            # A helper that has not woken up yet finds nothing left to do: there is no need to wait for it.
            errors = [future.exception() for future in futures if not future.cancel()]
        for error in errors:
            if error is not None:
                raise error


@cache
def _pool(size: int) -> ThreadPoolExecutor:
    from concurrent.futures import ThreadPoolExecutor  # costs time to import, and many programs need no threads

    return ThreadPoolExecutor(size, thread_name_prefix="minidl")


@cache
def _blas_libraries() -> list[tuple[Callable[[], int], Callable[[int], object]]]:
    """For each, what asks and what sets its number of threads."""
    libraries = threadpoolctl.ThreadpoolController().select(user_api="blas").lib_controllers
    return [_ask_and_set(library) for library in libraries]


def _ask_and_set(library: Any) -> tuple[Callable[[], int], Callable[[int], object]]:
    # threadpoolctl 3.8 sets OpenBLAS's number for the thread that did so first and no other, since a process has but
    # one. Here a lock does that work, so we call OpenBLAS ourselves, which is quicker, too.
    if library.internal_api == "openblas" and library.threading_layer != "openmp":
        for name in library.check_symbols:
            if hasattr(library.dynlib, name):
                return getattr(library.dynlib, name), getattr(library.dynlib, name.replace("get", "set"))
    return library.get_num_threads, library.set_num_threads


_holding = threading.Lock()
_holders = 0
_threads_before: list[int] = []


@contextmanager
def single_threaded_blas() -> Iterator[None]:
    """Hold BLAS to one thread; the last of all concurrent holders restores what was set before."""
    global _holders, _threads_before
    counted = False
    try:
        with _holding:
            _holders += 1
            counted = True
            if _holders == 1:
                _threads_before = [ask() for ask, _ in _blas_libraries()]
                _set_blas_threads([1] * len(_threads_before))
        yield
    finally:
        with _holding:
            _holders -= counted
            if counted and _holders == 0:
                _set_blas_threads(_threads_before)


def _set_blas_threads(numbers: list[int]) -> None:
    for (_, change), number in zip(_blas_libraries(), numbers):
        change(number)
