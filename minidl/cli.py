"""The command line: train, evaluate, predict, info. ``minidl COMMAND --help`` says what each one takes."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import shlex
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import threadpoolctl

from . import __version__
from . import functional as F
from .autograd import Tensor, no_grad
from .backend import DeviceError, check_device, get_device, manual_seed, set_device
from .data import DataLoader
from .data.catalog import SOURCES, find_source, open_dataset, preparation
from .data.images import read_gray
from .kernels.cpu.threads import get_num_threads, set_num_threads
from .nn import Module
from .optim import SGD, CosineAnnealingLR, LRScheduler, OneCycleLR
from .training import Configuration, Diverged, Run, Trainer, evaluate
from .training.configuration import SCHEDULES

EVALUATION_BATCH = 250
TUNABLE = ("epochs", "batch_size", "lr", "momentum", "weight_decay", "schedule", "shift")
"""What a model's preset decides unless the command line does."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit status is 0, 1 for a training that diverged, 2 for a mistake, 130 for Ctrl-C."""
    options = _parser().parse_args(arguments)
    try:
        if options.threads is not None:
            set_num_threads(options.threads)
        if options.device is not None:
            set_device(options.device)
        return options.command(options)
    except Diverged as error:
        print(f"minidl: {error}", file=sys.stderr)
        return 1
    except (ValueError, TypeError, OSError, DeviceError, ModuleNotFoundError) as error:
        print(f"minidl: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


# ---------------------------------------------------------------------------------------------
# train
# ---------------------------------------------------------------------------------------------

def train(options: argparse.Namespace) -> int:
    import models

    if options.resume:
        decided = ("model", "data", "out", "seed", "option", *TUNABLE)
        if given := [name for name in decided if getattr(options, name) is not None]:
            raise ValueError(f"--resume goes on as the run was configured; leave out {', '.join(given)}")
        run = Run.open(options.resume)
        trainer = _trainer(run.configuration, options.workers)
        run.resume(trainer)
        if trainer.finished:
            print(f"{run.folder} is finished: {trainer.epochs} of {trainer.epochs} epochs")
            return 0
    else:
        if options.model is None:
            raise ValueError(f"train needs a model ({', '.join(models.available())}), or --resume RUN")
        configuration = _configure(options)
        trainer = _trainer(configuration, options.workers)
        _check_fit(trainer, configuration)  # before the folder: a mistake leaves nothing behind
        run = Run.create(options.out or _new_folder(configuration), configuration)
    parameters = sum(p.size for p in trainer.model.parameters())
    print(f"{run.configuration.model}, {parameters:,} parameters, on {run.configuration.data}: "
          f"{len(trainer.train.dataset):,} training and {len(trainer.test.dataset):,} test images, "
          f"{get_num_threads()} thread(s), {get_device()}")
    if trainer.history:
        print(f"going on after epoch {len(trainer.history)} of {trainer.epochs}")
    with _interrupts() as interrupted, warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # NumPy's, of an overflow: Diverged says it once, with advice
        for row in trainer.epochs_to_go(interrupted, quiet=options.quiet):
            print(f"epoch {row['epoch']:3d}/{trainer.epochs}   "
                  f"training: loss {row['train_loss']:.4f}, accuracy {row['train_accuracy']:6.2%}   "
                  f"test: loss {row['test_loss']:.4f}, accuracy {row['test_accuracy']:6.2%}   "
                  f"{row['images_per_second']:,.0f} images/s", flush=True)
            run.save(trainer)
        if not trainer.finished:
            run.save(trainer)
            print(f"interrupted in epoch {len(trainer.history) + 1} of {trainer.epochs}; "
                  f"go on with: minidl train --resume {shlex.quote(str(run.folder))}")
            return 130
    last, seconds = trainer.history[-1], sum(row["seconds"] for row in trainer.history)
    if not importlib.util.find_spec("matplotlib"):
        print("curves.png is drawn where matplotlib is installed: pip install 'minidl[plot]'")
    print(f"test accuracy {last['test_accuracy']:.2%} after {seconds:.1f} s of training; kept in {run.folder}")
    return 0


def _configure(options: argparse.Namespace) -> Configuration:
    import models

    model_options = dict(options.option or ())
    preset = models.preset(options.model, model_options.get("variant"))
    given = {name: getattr(options, name) for name in TUNABLE}
    values = {name: getattr(preset, name) if value is None else value for name, value in given.items()}
    return Configuration(
        model=options.model, model_options=model_options, data=options.data or "digits",
        input_size=preset.input_size, seed=options.seed or 0, **values,
    )


def _new_folder(configuration: Configuration) -> Path:
    name = f"{configuration.model}-{configuration.data.partition(':')[0]}-{time.strftime('%Y%m%d-%H%M%S')}"
    return Path("runs") / name


def _trainer(configuration: Configuration, workers: int) -> Trainer:
    """The trainer of a run from its beginning; everything random in it follows from the seed."""
    manual_seed(configuration.seed)
    model = _build(configuration)
    optimizer = SGD(
        model.parameters(), configuration.lr, configuration.momentum, weight_decay=configuration.weight_decay
    )
    dataset = open_dataset(configuration.data, True, configuration.input_size, configuration.shift)
    loader = DataLoader(
        dataset, configuration.batch_size, shuffle=True, num_workers=workers, seed=configuration.seed
    )
    steps = configuration.epochs * len(loader)
    schedule: LRScheduler | None = None
    if configuration.schedule == "one_cycle":
        schedule = OneCycleLR(optimizer, configuration.lr, total_steps=steps, cycle_momentum=False)
    elif configuration.schedule == "cosine":
        schedule = CosineAnnealingLR(optimizer, steps)
    return Trainer(model, optimizer, schedule, loader, _test_loader(configuration), configuration.epochs)


def _check_fit(trainer: Trainer, configuration: Configuration) -> None:
    """Let the model see a test image, as if it were of the last class: too few channels or classes fail here."""
    image, _ = trainer.test.dataset[0]
    last = len(find_source(configuration.data)[0].classes) - 1
    with no_grad():
        logits = trainer.model.eval()(Tensor(image[np.newaxis]).to(get_device()))
        F.cross_entropy(logits, Tensor(np.array([last])).to(get_device()))


def _build(configuration: Configuration) -> Module:
    import models

    return models.build(configuration.model, **configuration.model_options).to(get_device())


def _test_loader(configuration: Configuration) -> DataLoader:
    return DataLoader(open_dataset(configuration.data, False, configuration.input_size), EVALUATION_BATCH, seed=0)


@contextmanager
def _interrupts() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C was pressed, as a function: training then stops between two batches. A second stops at once."""
    pressed = []

    def remember(*_: Any) -> None:
        pressed.append(True)
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, remember)
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, before)


# ---------------------------------------------------------------------------------------------
# evaluate, predict, info
# ---------------------------------------------------------------------------------------------

def evaluate_run(options: argparse.Namespace) -> int:
    run = Run.open(options.run)
    model = _build(run.configuration)
    run.load_weights(model, options.best)
    loader = _test_loader(run.configuration)
    result = evaluate(model, loader)
    print(f"{run.configuration.model} on the {len(loader.dataset):,} test images of {run.configuration.data}: "
          f"loss {result.loss:.4f}, accuracy {result.accuracy:.2%}, error {1 - result.accuracy:.2%}")
    return 0


def predict(options: argparse.Namespace) -> int:
    run = Run.open(options.run)
    source, _ = find_source(run.configuration.data)
    prepare = preparation(source, run.configuration.input_size)
    model = _build(run.configuration).eval()
    run.load_weights(model, options.best)
    images = np.stack([read_gray(path, source.size, options.invert) for path in options.images])
    classes = source.classes
    with no_grad():
        prepared = prepare(images[:, None], np.random.default_rng(0))
        shares = F.softmax(model(Tensor(prepared).to(get_device())), dim=1).to("cpu").numpy()
    width = max(len(str(path)) for path in options.images)
    for path, row in zip(options.images, shares):
        best = np.argsort(-row, kind="stable")[:3]
        guesses = "   ".join(f"{classes[i]} {row[i]:6.1%}" for i in best)
        print(f"{path!s:<{width}}   {guesses}   {'█' * round(20 * row[best[0]])}")
    return 0


def info(options: argparse.Namespace) -> int:
    print(f"minidl {__version__}, Python {platform.python_version()}, NumPy {np.__version__}, {platform.platform()}")
    for library in threadpoolctl.threadpool_info():
        if library["user_api"] == "blas":
            kernels = library.get("architecture", "unknown kernels")
            print(f"BLAS: {library['internal_api']} {library['version']} ({kernels})")
    print(f"threads: {get_num_threads()} of {os.cpu_count()} processors")
    print(f"default device: {get_device()}")
    try:
        print(f"GPU: usable as {check_device('gpu')!r}")
    except DeviceError as error:
        print(f"GPU: none; {str(error).removeprefix('a GPU was asked for, but ')}")
    return 0


# ---------------------------------------------------------------------------------------------
# What the commands take
# ---------------------------------------------------------------------------------------------

def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="minidl", description="Build, train and measure the networks of the lecture on CNN architectures."
    )
    parser.add_argument("--version", action="version", version=f"minidl {__version__}")
    machine = argparse.ArgumentParser(add_help=False)
    machine.add_argument("--device", metavar="NAME", help="cpu, gpu or gpu:N (default: MINIDL_DEVICE, else cpu)")
    machine.add_argument(
        "--threads", type=int, metavar="N", help="CPU threads (default: MINIDL_NUM_THREADS, else all processors)"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(
        name: str, function: Callable[[argparse.Namespace], int], help: str, epilog: str = ""
    ) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name, help=help, description=help, epilog=epilog, parents=[machine],
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.set_defaults(command=function)
        return added

    training = command(
        "train", train, "Train a model, and keep the run in a folder.",
        "examples:\n"
        "  minidl train lenet5                          on the bundled digits\n"
        "  minidl train lenet5 --data mnist             downloads MNIST the first time\n"
        "  minidl train lenet5 --data mnist:FOLDER      the four idx files in FOLDER\n"
        "  minidl train lenet5 --option variant=1998    an option of the model\n"
        "  minidl train --resume runs/NAME              go on after Ctrl-C or a crash",
    )
    training.add_argument("model", nargs="?", help="the model's name, such as lenet5")
    training.add_argument("--data", metavar="NAME", help=f"{', '.join(SOURCES)}, or NAME:FOLDER (default: digits)")
    training.add_argument("--resume", metavar="RUN", help="go on with the run in this folder, as it was configured")
    training.add_argument("--out", metavar="FOLDER", help="the run's folder (default: runs/MODEL-DATA-TIME)")
    for name, kind, help in (
        ("epochs", int, "passes over the training images"),
        ("batch-size", int, "images in a step"),
        ("lr", float, "the highest learning rate"),
        ("momentum", float, "of SGD"),
        ("weight-decay", float, "of SGD"),
        ("shift", int, "pixels by which training images are moved at random"),
    ):
        letter = "X" if kind is float else "N"
        training.add_argument(f"--{name}", type=kind, metavar=letter, help=f"{help} (default: the model's own)")
    training.add_argument("--schedule", choices=SCHEDULES, help="of the learning rate (default: the model's own)")
    training.add_argument("--seed", type=int, metavar="N", help="of everything random (default: 0)")
    training.add_argument(
        "--workers", type=int, default=0, metavar="N", help="threads that prepare batches ahead (default: 0)"
    )
    training.add_argument(
        "--option", type=_assignment, action="append", metavar="NAME=VALUE", help="an option of the model"
    )
    training.add_argument("--quiet", action="store_true", help="no progress bar")

    evaluation = command("evaluate", evaluate_run, "Measure a run's model on the test images.")
    evaluation.add_argument("run", metavar="RUN", help="a run folder")
    prediction = command(
        "predict", predict, "Say what a run's model sees in images.",
        "Images are files that Pillow reads (pip install 'minidl[images]'), framed as the training images are\n"
        "(a digit of the bundled set fills its frame), bright strokes on a dark ground; --invert for dark ones\n"
        "on paper.",
    )
    prediction.add_argument("run", metavar="RUN", help="a run folder")
    prediction.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="an image file")
    prediction.add_argument("--invert", action="store_true", help="dark strokes on a bright ground")
    for subcommand in (evaluation, prediction):
        subcommand.add_argument("--best", action="store_true", help="the weights of the best epoch instead of the last")
    command("info", info, "Show versions, BLAS, threads and devices.")
    return parser


def _assignment(text: str) -> tuple[str, Any]:
    """``name=value``, the value as JSON if it is some (numbers, true, null), else as text."""
    name, equals, value = text.partition("=")
    if not (name.isidentifier() and equals):
        raise argparse.ArgumentTypeError(f"must be NAME=VALUE; got {text!r}")
    if name == "variant":
        return name, value
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
