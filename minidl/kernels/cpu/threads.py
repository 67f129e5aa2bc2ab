"""One thread pool for all kernels, and BLAS held to one thread while it works.

Work is cut by its shape alone, never by the number of threads, so that results are bit-identical
with any number of them. Where no thread can be had, the calling thread does all the work.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from concurrent.futures.thread import ThreadPoolExecutor  # imported here: its lock is taken at a fork before ours
from functools import cache
from typing import Any

import threadpoolctl

from .memory import keep_freed_memory


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
    that all tasks together go through, is enough. The first exception is raised here, and ends the work."""
    keep_freed_memory()
    left = deque(tasks)  # safe to share between threads, with and without an interpreter lock
    most = get_num_threads()
    helpers = min(most, len(left)) - 1 if size >= ENOUGH_BYTES else 0

    def work() -> None:
        try:
            while True:
                try:
                    task = left.popleft()
                except IndexError:
                    return
                function(*task)
        except BaseException:
            left.clear()
            raise

    with single_threaded_blas() as held:
        futures = _submitted(held.shared(work), helpers, most - 1) if helpers > 0 else []
        try:
            work()
        finally:
            # A helper that has not woken up yet finds no task left: there is no need to wait for it.
            errors = [future.exception() for future in futures if not future.cancel()]
        for error in errors:
            if error is not None:
                raise error


# ---------------------------------------------------------------------------------------------
# The pool
# ---------------------------------------------------------------------------------------------

_current_pool: ThreadPoolExecutor | None = None


def _submitted(work: Callable[[], None], count: int, pool_size: int) -> list[Future[None]]:
    """`work`, handed to up to `count` threads of the pool: to fewer where the system, or Python's end, refuses them."""
    global _current_pool
    futures: list[Future[None]] = []
    try:
        for _ in range(count):
            futures.append(_pool(pool_size).submit(work))
    except RuntimeError:
        pool, _current_pool = _current_pool, None  # work may wait in its queue, and no thread would ever take it out
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)
    return futures


def _pool(size: int) -> ThreadPoolExecutor:
    """The one pool. For another `size` it makes way for a new one, and its threads end when they have nothing to do."""
    global _current_pool
    with _holding:
        if _current_pool is None or _current_pool._max_workers != size:
            if _current_pool is not None:
                _current_pool.shutdown(wait=False)
            _current_pool = ThreadPoolExecutor(size, thread_name_prefix="minidl")
        return _current_pool


# ---------------------------------------------------------------------------------------------
# BLAS
# ---------------------------------------------------------------------------------------------

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


_holding = threading.Condition(threading.RLock())
"""Around every change below, and around a fork. A signal handler that computes may come in the middle of one."""

_holds: dict[int, weakref.ref[single_threaded_blas]] = {}
"""The `single_threaded_blas` blocks that threads are in, by their ids."""

_holders = 0
"""Their number."""

_threads_before: list[int] | None = None
"""What BLAS was set to before the first of them; None while there are none."""

_forking = False


class _Thread(threading.local):
    hold = 0
    """The id of the block that this thread is in, or works for."""


_thread = _Thread()


class single_threaded_blas:
    """``with single_threaded_blas():`` BLAS works on one thread; the last of concurrent blocks sets what was before.

    A block within another of the same thread does nothing. Ctrl-C may come between any two lines here: a block that it
    cuts off ends when its object is deleted.
    """

    __slots__ = ("__weakref__",)

    def __enter__(self) -> single_threaded_blas:
        global _holders, _threads_before
        if _thread.hold in _holds:
            return self
        key = id(self)
        with _holding:
            while _forking:
                _holding.wait()
            _thread.hold = key
            _holds[key] = weakref.ref(self, lambda _: _end_block(key))
            _holders = len(_holds)
            if _threads_before is None:
                _threads_before = [ask() for ask, _ in _blas_libraries()]
            if _holders == 1:
                for _, change in _blas_libraries():
                    change(1)
        return self

    def __exit__(self, *exception: Any) -> None:
        if id(self) in _holds:
            _end_block(id(self))

    def shared(self, function: Callable[[], None]) -> Callable[[], None]:
        """`function` for another thread, which works in this block as long as the block lasts."""
        hold = _thread.hold

        def within() -> None:
            _thread.hold = hold
            function()

        return within


def _end_block(key: int) -> None:
    global _holders, _threads_before
    with _holding:
        if _thread.hold == key:
            _thread.hold = 0
        _holds.pop(key, None)
        _holders = len(_holds)
        if _holders == 0 and _threads_before is not None:
            for (_, change), number in zip(_blas_libraries(), _threads_before):
                change(number)
            _threads_before = None
        if _forking:
            _holding.notify_all()


# ---------------------------------------------------------------------------------------------
# Fork: a child has the memory of its parent, and of its threads only the one that forked
# ---------------------------------------------------------------------------------------------

def _before_fork() -> None:
    """Wait until no other thread is in BLAS, whose locks the child would find closed, and let none in."""
    global _forking
    _holding.acquire()
    _forking = True
    _holding.wait_for(lambda: _holds.keys() <= {_thread.hold})


def _after_fork_in_parent() -> None:
    global _forking
    _forking = False
    _holding.notify_all()
    _holding.release()


def _after_fork_in_child() -> None:
    global _holding, _current_pool, _forking
    _holding, _current_pool, _forking = threading.Condition(threading.RLock()), None, False


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child
    )
