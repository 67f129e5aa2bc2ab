"""Devices, seeds and threads: where arrays live, what is random, and results that depend on neither cores nor luck."""

import os
import statistics
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import threadpoolctl
from cases import mentions

import minidl as dl
import minidl.functional as F
from minidl import backend, nn
from minidl.backend import DeviceError
from minidl.kernels.cpu import parallel, single_threaded_blas


@pytest.fixture(autouse=True)
def no_default_device(monkeypatch):
    monkeypatch.setattr(backend, "_process_device", None)
    monkeypatch.delenv("MINIDL_DEVICE", raising=False)


@pytest.fixture(autouse=True)
def threads_as_before():
    before = dl.get_num_threads()
    yield
    dl.set_num_threads(before)


def run_python(code, **environment):
    """The output of `code` in an interpreter of its own."""
    environment = {**os.environ, **environment}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    return result.stdout + result.stderr


# A pretended GPU


class GpuArray:
    """Memory that NumPy cannot reach, as CuPy's: a wrapper, and no subclass that NumPy would quietly accept."""

    base = None

    def __init__(self, array, index):
        self._array, self.device = array, SimpleNamespace(id=index)
        self.shape, self.dtype, self.ndim, self.size = array.shape, array.dtype, array.ndim, array.size

    def __array__(self, *_, **__):
        raise TypeError("Implicit conversion to a NumPy array is not allowed")

    def __len__(self):
        return len(self._array)

    def get(self):
        return self._array.copy()

    def astype(self, dtype, copy=True):
        return GpuArray(self._array.astype(dtype, copy=copy), self.device.id)

    def __setitem__(self, index, value):
        assert isinstance(value, GpuArray), "CuPy refuses NumPy arrays here"
        self._array[index] = value._array


class CurrentDevice:
    """`cupy.cuda.Device`: inside the block, new arrays are made on this one."""

    index = 0

    def __init__(self, index):
        self._index = index

    def __enter__(self):
        self._outer, CurrentDevice.index = CurrentDevice.index, self._index

    def __exit__(self, *_):
        CurrentDevice.index = self._outer


def as_gpu_array(array):
    return GpuArray((array.get() if isinstance(array, GpuArray) else np.array(array)), CurrentDevice.index)


def pretend_cupy(monkeypatch, count):
    cupy = ModuleType("cupy")
    cupy.__version__ = "14.2.0"
    cupy.ndarray, cupy.asarray = GpuArray, as_gpu_array
    cupy.cuda = SimpleNamespace(Device=CurrentDevice, runtime=SimpleNamespace(getDeviceCount=count))
    monkeypatch.setitem(sys.modules, "cupy", cupy)


@pytest.fixture
def two_gpus(monkeypatch):
    pretend_cupy(monkeypatch, lambda: 2)


# Device names

DOORS = {
    "tensor": lambda name: dl.tensor(1.0, device=name),
    "to": lambda name: dl.tensor(1.0).to(name),
    "Module.to": lambda name: nn.Linear(1, 1).to(name),
    "set_device": dl.set_device,
    "device": dl.device,
}


@pytest.mark.parametrize("name", ["cuda", "GPU", "gpu:", "gpu:-1", "gpu:x", "gpu:1 ", "cpu:0"])
@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
def test_an_unknown_device_is_refused_with_the_names_there_are(door, name):
    with pytest.raises(DeviceError, match=mentions(repr(name), "'cpu'", "'gpu'", "'gpu:N'")):
        door(name)
    assert dl.get_device() == "cpu"


@pytest.mark.parametrize("name", [None, 0, ("gpu",)])
def test_a_device_is_named_by_a_string(name):
    with pytest.raises(DeviceError, match=mentions(repr(name))):
        dl.set_device(name)


@pytest.mark.parametrize("name, canonical", [("gpu", "gpu"), ("gpu:0", "gpu"), ("gpu:1", "gpu:1"), ("cpu", "cpu")])
def test_a_device_has_one_name(two_gpus, name, canonical):
    assert dl.tensor([1.0, 2.0], device=name).device == canonical
    dl.set_device(name)
    assert dl.get_device() == canonical


def test_a_gpu_beyond_the_last_is_refused_with_their_number(two_gpus):
    with pytest.raises(DeviceError, match=mentions("gpu:2", "2 GPU", "gpu:1")):
        dl.tensor(1.0, device="gpu:2")


# A GPU that is not there


def test_importing_minidl_does_not_import_cupy(tmp_path):
    (tmp_path / "cupy.py").write_text("print('imported')")
    code = "import minidl, models, minidl.data, minidl.cli; minidl.tensor([1.0]) @ minidl.tensor([2.0]); print('done')"
    path = os.pathsep.join([str(tmp_path), *sys.path])
    assert run_python(code, PYTHONPATH=path).split() == ["done"]


@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
def test_without_cupy_the_error_says_what_to_install(monkeypatch, door):
    monkeypatch.setitem(sys.modules, "cupy", None)  # Python's way to say that there is no such module
    with pytest.raises(DeviceError, match=mentions("CuPy", "pip install 'minidl[gpu]'", "'cpu'")):
        door("gpu")
    assert dl.get_device() == "cpu"


@pytest.mark.parametrize(
    "error", ["ImportError('no libnvrtc')", "OSError('no CUDA')", "AttributeError('numpy has no attribute int')"]
)
def test_a_cupy_that_cannot_be_imported_is_quoted(monkeypatch, tmp_path, error):
    (tmp_path / "cupy.py").write_text(f"raise {error}")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    with pytest.raises(DeviceError, match=mentions(error.split("'")[1], "pip install 'minidl[gpu]'")):
        dl.set_device("gpu")
    assert (dl.tensor(1.0) + 1).item() == 2  # and the CPU works on


def test_a_cupy_without_a_driver_is_quoted(monkeypatch):
    def count():
        raise RuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected")

    pretend_cupy(monkeypatch, count)
    with pytest.raises(DeviceError, match=mentions("CuPy 14.2.0", "cudaErrorNoDevice", "nvidia-smi", "'cpu'")):
        dl.set_device("gpu")
    assert dl.get_device() == "cpu" and (dl.tensor(1.0) + 1).item() == 2


def test_a_driver_that_shows_no_gpu_is_an_error(monkeypatch):
    pretend_cupy(monkeypatch, lambda: 0)
    with pytest.raises(DeviceError, match=mentions("none", "'cpu'")):
        dl.set_device("gpu:1")


# The default device


def test_the_block_comes_before_set_device_and_that_before_the_environment(monkeypatch, two_gpus):
    assert dl.get_device() == "cpu"
    monkeypatch.setenv("MINIDL_DEVICE", "gpu:1")
    assert dl.get_device() == "gpu:1"
    dl.set_device("gpu")
    assert dl.get_device() == "gpu"
    with dl.device("cpu"):
        assert dl.get_device() == "cpu"
        with dl.device("gpu:1"):
            assert dl.get_device() == "gpu:1" == dl.tensor(1.0).device
        assert dl.get_device() == "cpu"
    assert dl.get_device() == "gpu"


@pytest.mark.parametrize("value, error", [("", None), ("cpu", None), ("tpu", DeviceError)])
def test_the_environment_names_a_device_or_nothing(monkeypatch, value, error):
    monkeypatch.setenv("MINIDL_DEVICE", value)
    if error is None:
        assert dl.tensor(1.0).device == "cpu"
    else:
        with pytest.raises(error, match=value):
            dl.tensor(1.0)


def test_a_block_ends_with_an_exception(two_gpus):
    with pytest.raises(KeyError), dl.device("gpu"):
        raise KeyError
    assert dl.get_device() == "cpu"


def test_a_block_may_be_entered_again_inside_itself(two_gpus):
    block = dl.device("gpu")
    with block:
        with block:
            assert dl.get_device() == "gpu"
        assert dl.get_device() == "gpu"
    assert dl.get_device() == "cpu"


def test_a_block_holds_in_its_own_thread_and_set_device_in_all(two_gpus):
    with dl.device("gpu"), ThreadPoolExecutor(1) as pool:
        assert pool.submit(dl.get_device).result() == "cpu"
        dl.set_device("gpu:1")
        assert pool.submit(dl.get_device).result() == "gpu:1"
        assert dl.get_device() == "gpu"


def test_an_array_stays_where_it_is_and_numbers_go_to_the_default_device(two_gpus):
    with dl.device("gpu"):
        assert dl.tensor([1.0]).device == "gpu"
        assert dl.tensor(np.ones(2)).device == "cpu"
        assert dl.tensor(np.ones(2), device="gpu:1").device == "gpu:1"
        layer = nn.BatchNorm2d(3)
        assert {tensor.device for tensor in layer.state_dict().values()} == {"gpu"}


# Between devices


def test_values_travel_there_and_back(two_gpus):
    x = dl.tensor([1.0, 2.0])
    there = x.to("gpu:1")
    assert there.device == "gpu:1" and repr(there) == "tensor([1., 2.], device='gpu:1')"
    np.testing.assert_array_equal(there.numpy(), x.data)
    assert there.to("gpu").device == "gpu" and there.to("cpu").device == "cpu"
    assert x.to("cpu") is x and there.to("gpu:1") is there
    assert there.to("cpu", np.float64).dtype == np.float64


def test_a_module_travels_with_all_it_owns(two_gpus):
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    before = {name: tensor.data.copy() for name, tensor in net.state_dict().items()}
    weight = net[0].weight
    weight.grad = dl.tensor(np.ones(weight.shape, np.float32))
    assert net.to("gpu") is net and net[0].weight is weight
    assert {tensor.device for tensor in [*net.parameters(), *net.buffers(), weight.grad]} == {"gpu"}
    for name, tensor in net.to("cpu").state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), before[name])


def assign(x, y):
    x[...] = y


@pytest.mark.parametrize(
    "mix",
    [
        pytest.param(lambda x, y: x + y, id="add"),
        pytest.param(lambda x, y: x @ y, id="matmul"),
        pytest.param(lambda x, y: F.cat([x, y]), id="cat"),
        pytest.param(lambda x, y: F.mse_loss(target=y, input=x), id="by name"),
        pytest.param(lambda x, y: F.linear(x, weight=y), id="linear"),
        pytest.param(lambda x, y: x == y, id="=="),
        pytest.param(lambda x, y: x < y, id="<"),
        pytest.param(assign, id="x[...] ="),
    ],
)
@pytest.mark.parametrize("devices", [("cpu", "gpu"), ("gpu", "cpu"), ("gpu", "gpu:1")], ids=" and ".join)
def test_tensors_on_two_devices_are_both_named(two_gpus, mix, devices):
    x, y = (dl.tensor(np.ones((n, 2)), device=device) for n, device in zip((2, 3), devices, strict=True))
    with pytest.raises(DeviceError, match=mentions(*map(repr, devices), "(2, 2)", "(3, 2)", ".to(device)")):
        mix(x, y)


# What `import minidl` costs


def test_importing_minidl_imports_nothing_heavy():
    heavy = {"cupy", "PIL", "matplotlib", "torch", "scipy", "models", "pytest"}
    loaded = run_python("import sys, minidl; print(*{name.partition('.')[0] for name in sys.modules})").split()
    assert "minidl" in loaded and not heavy & set(loaded)


def test_importing_minidl_adds_little_to_numpy():
    # The processor's time, which other work on the machine does not stretch.
    timed = "import time, numpy; start = time.process_time(); import minidl; print(time.process_time() - start)"
    run_python(timed)  # writes the bytecode
    assert statistics.median(float(run_python(timed)) for _ in range(5)) < 0.2


# Random numbers


def draws():
    layer = nn.Linear(4, 3)
    x = F.dropout(dl.tensor(np.ones((4, 4), np.float32)))
    y = nn.init.normal_(dl.tensor(np.zeros(5)))
    return [layer.weight.data, layer.bias.data, x.data, y.data, backend.generator().permutation(10)]


def test_the_same_seed_gives_the_same_numbers_and_another_does_not():
    dl.manual_seed(3)
    first = draws()
    dl.manual_seed(4)
    other = draws()
    dl.manual_seed(3)
    for a, b, c in zip(first, draws(), other, strict=True):
        np.testing.assert_array_equal(a, b)
        assert not np.array_equal(a, c)


def test_manual_seed_returns_the_generator_in_use():
    assert dl.manual_seed(3) is backend.generator()


@pytest.mark.parametrize("seed, error", [(-1, ValueError), (1.5, TypeError), ("a", TypeError)])
def test_a_seed_is_a_whole_number_of_at_least_0(seed, error):
    before = backend.generator()
    with pytest.raises(error):
        dl.manual_seed(seed)
    assert backend.generator() is before


# Threads


@pytest.mark.parametrize("number", [0, -1, 1.5, "2", None])
def test_the_number_of_threads_is_a_whole_number_of_at_least_1(number):
    before = dl.get_num_threads()
    with pytest.raises((ValueError, TypeError), match=mentions(repr(number))):
        dl.set_num_threads(number)
    assert dl.get_num_threads() == before


def test_the_number_of_threads_may_come_from_the_environment():
    code = "import minidl; print(minidl.get_num_threads())"
    assert run_python(code, MINIDL_NUM_THREADS="3").strip() == "3"
    assert int(run_python(code, MINIDL_NUM_THREADS="")) >= 1
    for bad in ("0", "two"):
        assert "MINIDL_NUM_THREADS" in run_python(code, MINIDL_NUM_THREADS=bad)


@pytest.fixture
def blas():
    """How many threads BLAS uses; two before the test begins."""

    def number():
        return {lib["num_threads"] for lib in threadpoolctl.threadpool_info() if lib["user_api"] == "blas"}

    if not number():
        pytest.skip("NumPy's BLAS does not tell its number of threads")
    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        yield number


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize("tasks", [0, 1, 2, 50])
def test_every_task_is_done_once(threads, tasks):
    dl.set_num_threads(threads)
    done = np.zeros(tasks, int)

    def work(index):
        done[index] += 1

    parallel(work, ((index,) for index in range(tasks)))
    assert (done == 1).all()


def test_blas_has_one_thread_while_the_kernels_work(blas):
    dl.set_num_threads(2)
    seen = []
    parallel(lambda _: seen.append(blas()), [(0,), (1,)])
    assert seen == [{1}, {1}] and blas() == {2}


def test_blas_has_one_thread_whichever_thread_calls(blas):
    parallel(lambda: None, [()])  # this thread has been the first
    seen = []
    with ThreadPoolExecutor(1) as pool:
        pool.submit(parallel, lambda: seen.append(blas()), [()]).result()
    assert seen == [{1}] and blas() == {2}


@pytest.mark.parametrize("failing", ["caller", "helper"])
def test_the_exception_of_a_worker_reaches_the_caller(blas, failing):
    dl.set_num_threads(2)
    caller, both = threading.current_thread(), threading.Barrier(2)

    def work(_):
        both.wait(5)  # each thread has one task
        if (threading.current_thread() is caller) == (failing == "caller"):
            raise KeyError(failing)

    with pytest.raises(KeyError, match=failing):
        parallel(work, [(0,), (1,)])
    assert blas() == {2}
    parallel(lambda _: None, [(0,), (1,)])  # the pool has survived


def test_the_last_of_several_callers_restores_blas(blas):
    first_is_in, second_is_in, first_is_out = (threading.Event() for _ in range(3))

    def first():
        with single_threaded_blas():
            first_is_in.set()
            assert second_is_in.wait(5)
        first_is_out.set()

    def second():
        assert first_is_in.wait(5)
        with single_threaded_blas():
            second_is_in.set()
            assert first_is_out.wait(5)
            return blas()

    with ThreadPoolExecutor(2) as pool:
        outer, inner = pool.submit(first), pool.submit(second)
        outer.result()
        assert inner.result() == {1}
    assert blas() == {2}


def test_many_callers_at_once_leave_blas_as_it_was(blas):
    dl.set_num_threads(3)

    def work(index):
        assert blas() == {1}
        if index == 5:
            raise KeyError(index)

    def call(_):
        for _ in range(3):
            with pytest.raises(KeyError):
                parallel(work, [(index,) for index in range(8)])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(call, range(4)))
    assert blas() == {2}


def normal(*shape):
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)


# large enough to be cut into several pieces
CUT = {
    "conv2d": lambda x: F.conv2d(x, dl.tensor(normal(16, 8, 3, 3), requires_grad=True), padding=1),
    "conv2d, groups": lambda x: F.conv2d(x, dl.tensor(normal(16, 4, 3, 3), requires_grad=True), stride=2, groups=2),
    "conv_transpose2d": lambda x: F.conv_transpose2d(x, dl.tensor(normal(8, 4, 3, 3), requires_grad=True)),
    "max_pool2d": lambda x: F.max_pool2d(x, 3, 2),
    "avg_pool2d": lambda x: F.avg_pool2d(x, 3, 2, padding=1),
    "matmul": lambda x: x.reshape(8, -1) @ dl.tensor(normal(8 * 32 * 32, 100), requires_grad=True),
    "linear": lambda x: F.linear(x.reshape(256, -1), dl.tensor(normal(300, 256), requires_grad=True)),
}


@pytest.mark.parametrize("operation", CUT.values(), ids=CUT)
def test_results_do_not_depend_on_the_number_of_threads(operation, monkeypatch):
    monkeypatch.setattr("minidl.kernels.cpu.threads.ENOUGH_BYTES", 0)  # small as these are, let threads work on them

    def bits(threads):
        dl.set_num_threads(threads)
        x = dl.tensor(normal(8, 8, 32, 32), requires_grad=True)
        y = operation(x)
        *_, step = dl.backward_steps(y, normal(*y.shape))
        return [array.tobytes() for array in (y.data, x.grad.data, *step.input_gradients) if array is not None]

    assert bits(1) == bits(2) == bits(3)
