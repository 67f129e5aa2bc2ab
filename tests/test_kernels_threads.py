"""One pool of threads, and BLAS on one thread meanwhile: whatever forks, interrupts, ends or refuses threads."""

import _thread
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest

import minidl as dl
from minidl import functional as F
from minidl.kernels.cpu import threads
from minidl.kernels.cpu.threads import parallel, single_threaded_blas

RNG = np.random.default_rng(0)
IMAGES = dl.tensor(RNG.standard_normal((8, 16, 32, 32)).astype(np.float32))
FILTERS = dl.tensor(RNG.standard_normal((16, 16, 3, 3)).astype(np.float32))
LARGE = 1e9
"""Bytes that are worth threads."""

forking = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


@pytest.fixture(autouse=True)
def two_threads(monkeypatch):
    monkeypatch.setattr(threads, "_num_threads", 2)


@pytest.fixture
def busy():
    """Three threads that compute without pause."""
    stop = threading.Event()

    def compute():
        while not stop.is_set():
            F.conv2d(IMAGES, FILTERS)

    workers = [threading.Thread(target=compute) for _ in range(3)]
    for worker in workers:
        worker.start()
    yield
    stop.set()
    for worker in workers:
        worker.join()


def blas_threads():
    return [ask() for ask, _ in threads._blas_libraries()]


def run_python(code):
    """What a new process prints; its exit status must be 0."""
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.split()


def status_of(child, seconds=30):
    """The exit status of a child process, or "hangs"."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "hangs"


# ---------------------------------------------------------------------------------------------
# Fork
# ---------------------------------------------------------------------------------------------

@forking
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_40_children_made_while_the_parent_computes_compute_the_same(busy):
    right = F.conv2d(IMAGES, FILTERS).data
    ends = []
    for _ in range(40):
        child = os.fork()
        if child == 0:
            same = np.array_equal(F.conv2d(IMAGES, FILTERS).data, right)
            os._exit(0 if same and not threads._holders else 1)
        ends.append(status_of(child))
    assert ends == [0] * 40


@forking
def test_after_a_fork_blas_has_its_threads_again_in_both():
    before = blas_threads()
    child = os.fork()
    if child == 0:
        F.conv2d(IMAGES, FILTERS)
        os._exit(0 if blas_threads() == before else 1)
    assert status_of(child) == 0
    F.conv2d(IMAGES, FILTERS)
    assert blas_threads() == before


@forking
def test_a_child_forked_inside_a_block_is_in_it_alone():
    with single_threaded_blas():
        child = os.fork()
        if child == 0:
            os._exit(threads._holders)
    assert status_of(child) == 1
    assert threads._holders == 0


@forking
@pytest.mark.skipif(sys.platform != "linux", reason="reads the memory of a process in /proc")
def test_500_convolutions_in_a_child_take_no_more_memory_than_a_few():
    grown = run_python("""
        import os, re
        import minidl as dl, numpy as np
        from minidl import functional as F
        dl.set_num_threads(2)
        x, w = (dl.tensor(np.ones(shape, np.float32)) for shape in ((16, 32, 32, 32), (32, 32, 3, 3)))
        memory = lambda: int(re.search(r"VmRSS:\\s+(\\d+)", open("/proc/self/status").read())[1]) // 1024
        F.conv2d(x, w, padding=1)
        child = os.fork()
        if child == 0:
            for step in range(500):
                F.conv2d(x, w, padding=1)
                if step == 5:
                    before = memory()
            print(memory() - before, flush=True)
            os._exit(0)
        os.waitpid(child, 0)
    """)
    assert int(grown[0]) < 50


# ---------------------------------------------------------------------------------------------
# The end of Python, and systems without threads
# ---------------------------------------------------------------------------------------------

def test_a_thread_computes_on_when_the_main_thread_has_ended():
    assert run_python("""
        import threading, time
        import minidl as dl, numpy as np
        from minidl import functional as F
        dl.set_num_threads(2)
        x, w = (dl.tensor(np.ones(shape, np.float32)) for shape in ((8, 32, 64, 64), (32, 32, 3, 3)))
        right = F.conv2d(x, w).data
        def train():
            time.sleep(0.2)
            print(np.array_equal(F.conv2d(x, w).data, right))
        threading.Thread(target=train).start()
    """) == ["True"]


def test_kernels_work_at_exit_and_when_objects_are_deleted():
    assert run_python("""
        import atexit
        import minidl as dl, numpy as np
        from minidl import functional as F
        dl.set_num_threads(2)
        x, w = (dl.tensor(np.ones(shape, np.float32)) for shape in ((8, 32, 64, 64), (32, 32, 3, 3)))
        class Last:
            def __del__(self, F=F, x=x, w=w):
                print(F.conv2d(x, w).shape[0])
        last = Last()
        atexit.register(lambda: print(F.conv2d(x, w).shape[0]))
    """) == ["8", "8"]


def test_where_no_thread_can_be_had_the_caller_does_the_work(monkeypatch):
    def refuse(*_):
        raise RuntimeError("can't start new thread")

    right = F.conv2d(IMAGES, FILTERS).data
    monkeypatch.setattr(threads, "_the_pool", threads._Pool())
    monkeypatch.setattr(threads._thread, "start_new_thread", refuse)
    done = []
    parallel(lambda i: done.append(i), [(i,) for i in range(9)], LARGE)
    assert done == list(range(9))
    np.testing.assert_array_equal(F.conv2d(IMAGES, FILTERS).data, right)


def test_threads_that_never_wake_up_are_not_waited_for(monkeypatch):
    monkeypatch.setattr(threads, "_the_pool", threads._Pool())
    monkeypatch.setattr(threads._thread, "start_new_thread", lambda *_: None)
    done = []
    parallel(lambda i: done.append(i), [(i,) for i in range(9)], LARGE)
    assert done == list(range(9))
    assert threads._the_pool._work_queue.get().function is None  # no array is kept


# ---------------------------------------------------------------------------------------------
# Numbers of threads, errors, Ctrl-C
# ---------------------------------------------------------------------------------------------

def test_there_is_one_pool_whatever_numbers_were_asked_for():
    before = _thread._count()
    for number in range(2, 31):
        dl.set_num_threads(number)
        parallel(lambda _: time.sleep(0.001), [(i,) for i in range(4)], LARGE)
    assert _thread._count() >= 29
    dl.set_num_threads(2)
    parallel(lambda _: None, [(0,), (1,)], LARGE)
    end = time.monotonic() + 10
    while time.monotonic() < end and _thread._count() > max(before, 1):
        time.sleep(0.01)
    assert _thread._count() <= max(before, 1) and threads._the_pool._size == 1


def test_every_task_is_done_once_however_many_threads_take_them():
    dl.set_num_threads(8)
    for _ in range(20):
        done = []
        parallel(done.append, [(i,) for i in range(500)], LARGE)
        assert sorted(done) == list(range(500))


def test_the_first_error_ends_the_work_and_is_raised():
    done = []

    def work(i):
        if i == 3:
            raise ValueError("the third")
        time.sleep(0.001)
        done.append(i)

    before = blas_threads()
    with pytest.raises(ValueError, match="the third"):
        parallel(work, [(i,) for i in range(1000)], LARGE)
    assert len(done) < 100
    assert (threads._holders, blas_threads()) == (0, before)


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="this system has no timer that interrupts")
def test_ctrl_c_in_a_kernel_leaves_blas_with_its_threads():
    interrupted, holders, *rest = run_python("""
        import random, signal
        import minidl as dl, numpy as np
        from minidl import functional as F
        from minidl.kernels.cpu import threads
        dl.set_num_threads(2)
        x, w = (dl.tensor(np.ones(shape, np.float32)) for shape in ((8, 16, 32, 32), (16, 16, 3, 3)))
        right, rng, interrupted = F.conv2d(x, w).data, random.Random(1), 0
        before = [ask() for ask, _ in threads._blas_libraries()]
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        for _ in range(400):
            try:
                signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-5, 2e-3))
                for _ in range(100):
                    F.conv2d(x, w)
            except KeyboardInterrupt:
                interrupted += 1
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        after = [ask() for ask, _ in threads._blas_libraries()]
        print(interrupted, threads._holders, after == before, np.array_equal(F.conv2d(x, w).data, right))
    """)
    assert int(interrupted) > 300
    assert (holders, *rest) == ("0", "True", "True")


def test_a_block_that_was_cut_off_ends_with_its_object():
    before, block = blas_threads(), single_threaded_blas()
    block.__enter__()
    assert blas_threads() == [1] * len(before)
    del block
    assert (threads._holders, blas_threads()) == (0, before)


def test_a_signal_handler_may_compute_in_the_middle_of_a_change():
    with threads._holding:
        assert (dl.tensor([1.0]) @ dl.tensor([2.0])).item() == 2
