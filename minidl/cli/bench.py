"""``minidl bench``: what inference and a training step take, beside PyTorch.

Every engine runs in a process of its own, as a user would have it, and they take turns: a burst of the one, a burst of
the other. A ratio is the median over such pairs, with its quartiles.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import multiprocessing
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from .. import functional as F
from ..autograd import Tensor, backward_steps, no_grad, observe_operations
from ..backend import (
    get_device,
    get_float32_matmul_precision,
    gpu,
    manual_seed,
    set_device,
    set_float32_matmul_precision,
)
from ..inspect import summary
from ..inspect.recording import Recording, record
from ..io import write_atomically
from ..kernels.cpu import get_num_threads, set_num_threads
from ..nn import Module
from ..optim import SGD
from ..training import CapturedPass

NETWORKS = (
    "lenet5", "alexnet/torchvision", "vgg16", "googlenet/torchvision", "resnet18", "resnet50", "alexnet", "googlenet",
)
"""What is measured unless models are named."""

BATCHES = {"lenet5": 64, "alexnet": 32, "vgg16": 4, "resnet18": 16}
"""Images at once; of any other network 8."""

PASSES = ("inference", "training")
BURST_SECONDS = 0.2
BUSY_SECONDS = 2.0
"""For which a GPU is watched."""

MATRIX = 2048
"""The size of the square matrices whose product says how fast the machine is."""

HEADER = f"{'network':<22}{'batch':>6} {'':9}  {'ms/image':>9}  {'GFLOP/s':>7}  {'of product':>10}  {'peak':>9}"

Work = dict[str, Callable[[int], float]]
"""By the name of the work: runs so many steps of it, and says how many seconds one takes."""


@dataclass(frozen=True)
class Subject:
    """A network on a batch: everything a process needs to build it."""

    name: str
    variant: str | None
    batch: int
    input_size: int

    def build(self) -> tuple[Module, Tensor, Tensor]:
        """The model, images and labels, the same in every process."""
        import models

        manual_seed(0)
        options = {} if self.variant is None else {"variant": self.variant}
        model = models.build(self.name, **options).to(get_device())
        channels, rng = models.input_channels(self.name, **options), np.random.default_rng(0)
        images = rng.standard_normal((self.batch, channels, self.input_size, self.input_size)).astype(np.float32)
        return model, Tensor(images).to(get_device()), Tensor(rng.integers(0, 10, self.batch)).to(get_device())

    def __str__(self) -> str:
        return self.name if self.variant is None else f"{self.name}/{self.variant}"


@dataclass(frozen=True)
class Measurement:
    """One row. `ratio` is (lower quartile, median, upper quartile) of minidl's time over the other's.

    `gflops` counts a training step as three inferences: the products forward, and for both gradients. `gpu_busy` is
    the share of the time in which a GPU computed, as nvidia-smi sees it.
    """

    network: str
    batch: int
    input_size: int
    work: str
    milliseconds_per_image: float
    gflops: float
    share_of_matrix_product: float
    peak_bytes: int | None
    gpu_busy: float | None = None
    against: str | None = None
    against_milliseconds_per_image: float | None = None
    against_peak_bytes: int | None = None
    ratio: tuple[float, float, float] | None = None


def bench(options: argparse.Namespace) -> int:
    for name in ("batch", "pairs"):
        if (given := getattr(options, name)) is not None and given < 1:
            raise ValueError(f"--{name} must be at least 1; got {given}")
    subjects = [_subject(name, options) for name in options.models or NETWORKS]
    if options.against and not importlib.util.find_spec(options.against):
        raise ModuleNotFoundError("PyTorch is not installed here; install it: pip install torch")
    if options.profile:
        for subject in subjects:
            print(f"{subject}, batch {subject.batch}: a training step, by operation\n{profile(subject)}")
        return 0
    rate = matrix_product_rate()
    print(f"{_machine()}\nproducts of {MATRIX} × {MATRIX} matrices run at {rate:.0f} GFLOP/s")
    print(HEADER + (f"  {options.against:>9}  {'peak':>9}  ratio (quartiles)" if options.against else ""))
    measurements = []
    for subject in subjects:
        for row in _measure(subject, options, rate):
            print(_row(row), flush=True)
            measurements.append(row)
    if options.against:
        for work in PASSES:
            ratios = [row.ratio[1] for row in measurements if row.work == work and row.ratio]
            print(f"{work}: geometric mean of the ratios {np.exp(np.mean(np.log(ratios))):.2f}")
    if options.json:
        results = {"machine": _machine(), "matrix_product_gflops": rate, "rows": [asdict(row) for row in measurements]}
        write_atomically(options.json, lambda part: part.write_text(json.dumps(results, indent=1), encoding="utf-8"))
    return 0


def _subject(text: str, options: argparse.Namespace) -> Subject:
    import models

    name, _, variant = text.partition("/")
    size = options.input_size or models.preset(name, variant or None).input_size
    return Subject(name, variant or None, options.batch or BATCHES.get(name, 8), size)


def _machine() -> str:
    return (f"minidl {__version__}, Python {platform.python_version()}, NumPy {np.__version__}, "
            f"{platform.machine()}, {get_num_threads()} thread(s), {get_device()}")


def _row(row: Measurement) -> str:
    def peak(count: int | None) -> str:
        return "" if count is None else f"{count / 1e6:,.0f} MB"

    text = (f"{row.network:<22}{row.batch:6d} {row.work:9}  {row.milliseconds_per_image:9.2f}  {row.gflops:7.1f}  "
            f"{row.share_of_matrix_product:10.0%}  {peak(row.peak_bytes):>9}")
    if row.ratio is not None:
        low, middle, high = row.ratio
        text += (f"  {row.against_milliseconds_per_image:9.2f}  {peak(row.against_peak_bytes):>9}  "
                 f"{middle:.2f} ({low:.2f} to {high:.2f})")
    return text if row.gpu_busy is None else f"{text}  GPU busy {row.gpu_busy:.0%}"


def matrix_product_rate() -> float:
    """GFLOP/s of large float32 matrix products, on the CPU with all threads: the best of several."""
    a = Tensor(np.ones((MATRIX, MATRIX), np.float32)).to(get_device())
    return max(2 * MATRIX**3 / _seconds(lambda: _wait(F.matmul(a, a)), 1) / 1e9 for _ in range(5))


# ---------------------------------------------------------------------------------------------
# The engines, each in a process of its own
# ---------------------------------------------------------------------------------------------

def _measure(subject: Subject, options: argparse.Namespace, rate: float) -> Iterator[Measurement]:
    against, pairs = options.against, options.pairs
    model, images, labels = subject.build()
    recordings = dict(zip(PASSES, _recordings(model, images, labels))) if against else {}
    multiply_adds = summary(model.eval(), images.shape[1:], measure_peak=False).total_mult_adds
    del model
    precision = get_float32_matmul_precision()
    make = [partial(_minidl, subject, get_num_threads(), precision, options.cuda_graph)]
    if against:
        arrays = images.to("cpu").numpy(), labels.to("cpu").numpy()
        make.append(partial(_pytorch, recordings, *arrays, get_num_threads(), precision))
    with ExitStack() as processes:
        engines = [processes.enter_context(_process(work)) for work in make]
        for work in PASSES:
            for engine in engines:
                engine(work, 1)
            steps = max(1, round(BURST_SECONDS / engines[0](work, 1)[0]))
            runs = np.array([[engine(work, steps)[0] for engine in engines] for _ in range(pairs)])
            milliseconds = 1000 * np.median(runs, axis=0) / subject.batch
            gflops = 2 * multiply_adds * (3 if work == "training" else 1) / milliseconds[0] / 1e6
            peaks = [engine(work, 1)[1] for engine in engines]
            beside: dict[str, Any] = {}
            busy = _busy(partial(engines[0], work, max(1, round(BUSY_SECONDS * steps / BURST_SECONDS))))
            if against:
                beside = {
                    "against": against, "against_milliseconds_per_image": milliseconds[1],
                    "against_peak_bytes": peaks[1],
                    "ratio": tuple(np.percentile(runs[:, 0] / runs[:, 1], [25, 50, 75])),
                }
            yield Measurement(str(subject), subject.batch, subject.input_size, work, milliseconds[0], gflops,
                              gflops / rate, peaks[0], busy, **beside)


def _recordings(model: Module, images: Tensor, labels: Tensor) -> Iterator[Recording]:
    yield record(model.eval(), images)
    yield record(lambda x, y: _loss(model.train(), x, y), images, labels)


def _loss(model: Module, images: Tensor, labels: Tensor) -> Tensor:
    return getattr(model, "criterion", F.cross_entropy)(model(images), labels)


def _minidl(subject: Subject, threads: int, precision: str, cuda_graph: bool) -> Work:
    set_num_threads(threads)
    set_float32_matmul_precision(precision)
    model, images, labels = subject.build()
    optimizer = SGD(model.parameters(), lr=1e-6, momentum=0.9)

    def inference(steps: int) -> float:
        model.eval()
        with no_grad():
            return _seconds(lambda: _wait(model(images)), steps)

    def training(steps: int) -> float:
        model.train()
        return _seconds(step, steps)

    def compute(images: Tensor, labels: Tensor) -> tuple[Tensor]:
        loss = _loss(model, images, labels)
        loss.backward()
        return (loss.detach(),)

    pass_ = CapturedPass(compute, list(model.parameters())) if cuda_graph else compute

    def step() -> None:
        optimizer.zero_grad()
        pass_(images, labels)
        optimizer.step()
        _wait(next(model.parameters()))

    return {"inference": inference, "training": training}


def _wait(tensor: Tensor) -> None:
    """Until a GPU has computed it."""
    if tensor.device != "cpu":
        tensor.detach().reshape(-1)[:1].numpy()


def _pytorch(
    recordings: dict[str, Recording], images: np.ndarray, labels: np.ndarray, threads: int, precision: str
) -> Work:
    import torch

    from ..inspect.twin import Twin

    torch.set_num_threads(threads)
    device = "cpu" if get_device() == "cpu" else "cuda"
    torch.set_float32_matmul_precision(precision)
    torch.backends.cudnn.allow_tf32 = precision != "highest"
    x, y = torch.from_numpy(images).to(device), torch.from_numpy(labels).to(device)
    networks = {work: Twin(recording).to(device) for work, recording in recordings.items()}
    optimizer = torch.optim.SGD(networks["training"].parameters(), lr=1e-6, momentum=0.9)

    def inference(steps: int) -> float:
        with torch.no_grad():
            return _seconds(lambda: wait(networks["inference"](x)), steps)

    def training(steps: int) -> float:
        return _seconds(step, steps)

    def step() -> None:
        optimizer.zero_grad()
        networks["training"](x, y).backward()
        optimizer.step()
        wait(next(networks["training"].parameters()))

    def wait(tensor: Any) -> None:
        if device != "cpu":
            tensor.reshape(-1)[:1].cpu()

    return {"inference": inference, "training": training}


@contextmanager
def _process(make: Callable[[], Work]) -> Iterator[Callable[[str, int], tuple[float, int | None]]]:
    """``run(work, steps)`` in another process: the seconds a step takes, and the peak memory of the process so far."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, make, get_device()), daemon=True)
    process.start()
    there.close()

    def run(work: str, steps: int) -> tuple[float, int | None]:
        here.send((work, steps))
        answer = here.recv()
        if isinstance(answer, BaseException):
            raise answer
        return answer

    try:
        yield run
    finally:
        here.close()
        process.join()


def _serve(connection: Connection, make: Callable[[], Work], device: str) -> None:
    set_device(device)
    work: Work | None = None
    with suppress(EOFError, KeyboardInterrupt):
        while True:
            name, steps = connection.recv()
            try:
                if work is None:
                    work = make()
                    _forget_peak()
                connection.send((work[name](steps), _peak()))
            except Exception as error:
                connection.send(error)


def _seconds(function: Callable[[], Any], steps: int) -> float:
    start = time.perf_counter()
    for _ in range(steps):
        function()
    return (time.perf_counter() - start) / steps


def _busy(work: Callable[[], Any]) -> float | None:
    """The share of the time of `work` in which the GPU computed; None on the CPU, or without nvidia-smi."""
    command = shutil.which("nvidia-smi")
    if get_device() == "cpu" or command is None:
        return None
    index = get_device().partition(":")[2] or "0"
    query = [command, "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", f"--id={index}", "-lms", "100"]
    with subprocess.Popen(query, stdout=subprocess.PIPE, text=True) as watch:
        work()
        watch.terminate()
        assert watch.stdout is not None
        shares = [int(line) for line in watch.stdout.read().split() if line.isdecimal()]
    inside = shares[len(shares) // 4 :]  # nvidia-smi looks back
    return sum(inside) / len(inside) / 100 if inside else None


def _forget_peak() -> None:
    """Let the kernel count the most resident memory of this process from here on (Linux; not of a GPU's memory)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int | None:
    """The most resident memory of this process in bytes, or what it reserved of a GPU's; None if that is unknown."""
    if get_device() != "cpu":
        if "torch" in sys.modules:
            return sys.modules["torch"].cuda.max_memory_reserved()
        return gpu(get_device())[0].get_default_memory_pool().total_bytes()
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return None


# ---------------------------------------------------------------------------------------------
# Where a step's time goes
# ---------------------------------------------------------------------------------------------

def profile(subject: Subject, steps: int = 3) -> str:
    """Milliseconds of a training step by operation and direction, the largest first."""
    model, images, labels = subject.build()
    optimizer = SGD(model.parameters(), lr=1e-6, momentum=0.9)
    spent: dict[str, float] = {}
    last = time.perf_counter()

    def count(what: str) -> None:
        nonlocal last
        now = time.perf_counter()
        spent[what] = spent.get(what, 0.0) + now - last
        last = now

    for step in range(steps + 1):
        if step == 1:  # the first is to warm up
            spent.clear()
        optimizer.zero_grad()
        last = time.perf_counter()
        with observe_operations(lambda operation, arguments, result: count(f"{operation}, forward")):
            loss = _loss(model.train(), images, labels)
        for done in backward_steps(loss):
            count(f"{done.operation}, backward")
        count("sums of gradients")
        optimizer.step()
        count("SGD")
    total = sum(spent.values())
    rows = sorted(spent.items(), key=lambda item: -item[1])
    return "\n".join(f"  {what:<32}{1000 * seconds / steps:9.2f} ms  {seconds / total:6.1%}"
                     for what, seconds in [*rows, ("all", total)])
