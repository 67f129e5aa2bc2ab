"""``minidl train``: a run that ends, or goes on another day."""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import shlex
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..backend import get_device
from ..data import Subset
from ..kernels.cpu.threads import get_num_threads
from ..training import Configuration, Run, Trainer
from ..training.run import check_free
from ..training.signals import stop_on_signal
from .assembly import check_fit, configure, refuse_beside_resume, trainer_of, within_budget


def train(options: argparse.Namespace) -> int:
    import models

    if options.resume:
        refuse_beside_resume(options, "model", "seed", "option")
        run = Run.open(options.resume)
        with run.locked():
            trainer = trainer_of(run.configuration, options.workers, options.cuda_graph, fresh=not run.has_state)
            run.resume(trainer)
            if trainer.finished:
                print(f"{run.folder} is finished: {trainer.epochs} of {trainer.epochs} epochs")
                return 0
            return _train(run, trainer, options)
    if options.model is None:
        raise ValueError(f"train needs a model ({', '.join(models.available())}), or --resume RUN")
    if options.out:
        check_free(Path(options.out))
    (configuration,) = within_budget([configure(options)], options)
    trainer = trainer_of(configuration, options.workers, options.cuda_graph)
    check_fit(trainer, len(configuration.classes))  # before the folder: a mistake leaves nothing behind
    run = Run.create(options.out, configuration) if options.out else _new_run(configuration)
    try:
        with run.locked():
            return _train(run, trainer, options)
    except BaseException:
        if not run.has_state:
            run.discard()
        raise


def _train(run: Run, trainer: Trainer, options: argparse.Namespace) -> int:
    """Train to the end, or until a signal comes, and print every epoch; the exit status."""
    parameters = sum(p.size for p in trainer.model.parameters())
    print(f"{run.configuration.model}, {parameters:,} parameters, on {run.configuration.data}: "
          f"{len(trainer.train.dataset):,} training and {len(trainer.test.dataset):,} test images, "
          f"{get_num_threads()} thread(s), {get_device()}")
    say_if_tested_on_the_same(trainer)
    if trainer.history:
        print(f"going on after epoch {len(trainer.history)} of {trainer.epochs}")
    with attended() as received:
        for row in run.epochs(trainer, received, options.save_every, options.quiet):
            print(f"epoch {row['epoch']:3d}/{trainer.epochs}   "
                  f"training: loss {row['train_loss']:.4f}, accuracy {row['train_accuracy']:6.2%}   "
                  f"test: loss {row['test_loss']:.4f}, accuracy {row['test_accuracy']:6.2%}   "
                  f"{row['images_per_second']:,.0f} images/s", flush=True)
        if not trainer.finished:
            print(f"interrupted in epoch {len(trainer.history) + 1} of {trainer.epochs}; "
                  f"go on with: minidl train --resume {shlex.quote(str(run.folder))}", flush=True)
            return 128 + received()
    last, seconds = trainer.history[-1], sum(row["seconds"] for row in trainer.history)
    if not importlib.util.find_spec("matplotlib"):
        print("curves.png is drawn where matplotlib is installed: pip install 'minidl[plot]'")
    print(f"test accuracy {last['test_accuracy']:.2%} after {seconds:.1f} s of training; kept in {run.folder}")
    return 0


def say_if_tested_on_the_same(trainer: Trainer) -> None:
    """Say so where the test images are those that the training images are taken from."""
    dataset: Any = trainer.train.dataset
    whole = dataset.dataset if isinstance(dataset, Subset) else dataset
    if getattr(whole, "root", None) == getattr(trainer.test.dataset, "root", ()):
        print("there is no folder val: the test images are the training images")


def _new_run(configuration: Configuration) -> Run:
    """A run in a folder below ``runs``, named by model, data and time; numbered if others began in the same second."""
    name = f"{configuration.model}-{configuration.data.partition(':')[0]}-{time.strftime('%Y%m%d-%H%M%S')}"
    names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    while True:
        with suppress(FileExistsError):
            return Run.create(Path("runs") / next(names), configuration)


@contextmanager
def attended() -> Iterator[Callable[[], int]]:
    """Around a training: gives what `stop_on_signal` gives, and hides NumPy's warnings of an overflow, of which
    `Diverged` says more."""
    with stop_on_signal() as received, warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        yield received
