"""One thread pool for all kernels, and BLAS held to one thread while it works.

Work is cut by its shape alone, never by the number of threads, so that results are bit-identical
with any number of them. Where no thread can be had, the calling thread does all the work.
"""

from __future__ import annotations

import _thread
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from functools import cache
from queue import SimpleQueue
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
"""Bytes to go through below which waking a thread costs more than it saves."""

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
        jobs: list[_Job] = []
        try:
            if helpers > 0:
                _pool(most - 1).take_on(jobs, held.shared(work), helpers)
            work()
        finally:
            left.clear()
            for job in jobs:
                job.finish()
        for job in jobs:
            if job.error is not None:
                raise job.error


# ---------------------------------------------------------------------------------------------
# The pool. It waits on plain locks and a queue written in C: Python's executors wait on conditions written in Python,
# and Ctrl-C in the middle of one leaves it locked.
# ---------------------------------------------------------------------------------------------

class _Job:
    """A function for a thread of the pool to call, if one comes to it in time."""

    __slots__ = ("function", "taken", "done", "error")

    def __init__(self, function: Callable[[], None]):
        self.function: Callable[[], None] | None = function
        self.taken, self.done = threading.Lock(), threading.Lock()
        self.done.acquire()
        self.error: BaseException | None = None

    def run(self) -> None:
        function = self.function
        if function is None or not self.taken.acquire(blocking=False):
            return
        try:
            function()
        except BaseException as error:
            self.error = error
        finally:
            self.function = function = None  # and all arrays that it holds
            self.done.release()

    def finish(self) -> None:
        """Wait until it is done, or take it back if no thread has begun."""
        if self.taken.acquire(blocking=False):
            self.function = None
        else:
            self.done.acquire()


class _Pool:
    """Threads that do jobs. They end with the process, or when there are to be fewer."""

    def __init__(self) -> None:
        self._work_queue: SimpleQueue[_Job | None] = SimpleQueue()
        self._size = 0

    def resize(self, size: int) -> None:
        """Have `size` threads, or as many as the system gives."""
        for _ in range(self._size - size):
            self._work_queue.put(None)
            self._size -= 1
        try:
            while self._size < size:
                _thread.start_new_thread(_do_jobs, (self._work_queue,))
                self._size += 1
        except RuntimeError:  # none can be had, or Python comes to its end
            pass

    def take_on(self, jobs: list[_Job], work: Callable[[], None], count: int) -> None:
        """Add to `jobs` as many as there are threads, and at most `count`, which do `work`."""
        for _ in range(min(count, self._size)):
            jobs.append(_Job(work))
            self._work_queue.put(jobs[-1])


def _do_jobs(queue: SimpleQueue[_Job | None]) -> None:
    while (job := queue.get()) is not None:
        job.run()
        del job


_the_pool = _Pool()


def _pool(size: int) -> _Pool:
    """The one pool, with `size` threads."""
    if _the_pool._size != size:
        with _holding:
            _the_pool.resize(size)
    return _the_pool


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


_own = _Thread()


class single_threaded_blas:
    """``with single_threaded_blas():`` BLAS works on one thread; the last of concurrent blocks sets what was before.

    A block within another of the same thread does nothing. Ctrl-C may come between any two lines here: a block that it
    cuts off ends when its object is deleted.
    """

    __slots__ = ("__weakref__",)

    def __enter__(self) -> single_threaded_blas:
        global _holders, _threads_before
        if _own.hold in _holds:
            return self
        key = id(self)
        with _holding:
            while _forking:
                _holding.wait()
            _own.hold = key
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
        hold = _own.hold

        def within() -> None:
            _own.hold = hold
            function()

        return within


def _end_block(key: int) -> None:
    global _holders, _threads_before
    with _holding:
        if _own.hold == key:
            _own.hold = 0
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
    _holding.wait_for(lambda: _holds.keys() <= {_own.hold})


def _after_fork_in_parent() -> None:
    global _forking
    _forking = False
    _holding.notify_all()
    _holding.release()


def _after_fork_in_child() -> None:
    global _holding, _the_pool, _forking
    _holding, _the_pool, _forking = threading.Condition(threading.RLock()), _Pool(), False


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child
    )
