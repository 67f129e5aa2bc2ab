"""``minidl experiment depth``: plain networks cannot be deep, residual ones can (claims F15 and D7)."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import plot
from ..autograd import Tensor
from ..backend import get_device
from ..data.dataset import spread
from ..inspect import gradient_norms
from ..io import discard_parts
from ..training import Configuration, Diverged, Run, Trainer
from ..training.configuration import read_json, write_json
from ..training.run import EXPERIMENT, check_free, make_folder
from ..training.table import read_table, write_table
from .assembly import check_fit, configure, refuse_beside_resume, trainer_of, training_images, within_budget
from .train import attended, say_if_tested_on_the_same

NETWORKS = ("plain20", "plain56", "resnet20", "resnet56")
"""He et al. 2016, figure 6, with the shallowest and the deepest of both kinds that have a twin."""


def depth(options: argparse.Namespace) -> int:
    """Train the four networks from each seed; keep what they did in tables and pictures.

    A seed decides the order and the variation of the images, the same for all four, and the weights.
    """
    folder, configurations = _resumed(options) if options.resume else _begun(options)
    runs = {_name(each): each for each in configurations}
    with attended() as interrupted:
        for name, configuration in runs.items():
            there = (folder / name / "config.json").exists()
            run = Run.open(folder / name) if there else Run.create(folder / name, configuration)
            if run.configuration != configuration:
                raise ValueError(f"{run.folder} holds another run than {folder / EXPERIMENT} says; move one "
                                 "of them away")
            trainer = trainer_of(configuration, options.workers)
            run.resume(trainer)
            try:
                for row in _epochs(run, trainer, interrupted, options.quiet):
                    print(f"{name:16} epoch {row['epoch']:3d}/{trainer.epochs}   "
                          f"error: training {1 - row['train_accuracy']:6.2%}, test {1 - row['test_accuracy']:6.2%}   "
                          f"{row['seconds']:,.0f} s", flush=True)
                    _tabulate(folder, runs)
            except Diverged as error:
                raise Diverged(f"{name}: {error}") from None
            if not trainer.finished:
                print(f"interrupted; go on with: minidl experiment depth --resume {shlex.quote(str(folder))}")
                return 130
    _tabulate(folder, runs)
    _draw(folder)
    for row in _last_rows(read_table(folder / "curves.csv")):
        print(f"{row['network']:10} seed {row['seed']}: after epoch {row['epoch']} the training error is "
              f"{row['train_error']:.2%}, the test error {row['test_error']:.2%}")
    print(f"kept in {folder}")
    return 0


def _begun(options: argparse.Namespace) -> tuple[Path, list[Configuration]]:
    """The folder of a new experiment, and its runs."""
    seeds = 1 if options.seeds is None else options.seeds
    if seeds < 1:
        raise ValueError(f"there must be at least 1 seed; got {seeds}")
    folder = Path(options.out or "runs/depth")
    check_free(folder)
    configurations = within_budget([
        configure(argparse.Namespace(**vars(options) | {"model": name, "seed": seed, "option": None}))
        for seed in range(seeds) for name in NETWORKS
    ], options)
    for each in configurations[: len(NETWORKS)]:
        trainer = trainer_of(each, workers=0)
        check_fit(trainer, len(each.classes))  # a mistake leaves nothing behind
    say_if_tested_on_the_same(trainer)
    make_folder(folder)
    write_json(folder / EXPERIMENT, [dataclasses.asdict(each) for each in configurations])
    return folder, configurations


def _resumed(options: argparse.Namespace) -> tuple[Path, list[Configuration]]:
    """The folder of an experiment that was begun, and its runs."""
    refuse_beside_resume(options, "seeds")
    folder = Path(options.resume)
    path = folder / EXPERIMENT
    if not path.is_file():
        raise FileNotFoundError(f"there is no experiment in {folder}: it has no {EXPERIMENT}")
    values = read_json(path)
    if not isinstance(values, list) or not values:
        raise ValueError(f"{path} is damaged: expected a list of runs")
    discard_parts(folder)
    return folder, [Configuration.of(each, path) for each in values]


def _name(configuration: Configuration) -> str:
    return f"{configuration.model}-seed{configuration.seed}"


def _epochs(run: Run, trainer: Trainer, stop: Callable[[], bool], quiet: bool) -> Iterator[dict[str, float]]:
    """Train and keep the run, yielding the row of each epoch; with the gradients before the first and after each.

    They are written before the state they belong to: whatever a kill comes between is done again, and is the same.
    Raises ValueError where those that belong to a state are missing.
    """
    path = run.folder / "gradients.csv"
    rows = [row for row in read_table(path) if row["epoch"] <= len(trainer.history)] if path.exists() else []
    if trainer.history and (not rows or rows[-1]["epoch"] < len(trainer.history)):
        raise ValueError(f"{path} is incomplete: the run has come to epoch {len(trainer.history)}; start it again in a "
                         "new folder")
    dataset = training_images(run.configuration, varied=False)
    few = spread(dataset, min(run.configuration.batch_size, len(dataset)))
    images, labels = (Tensor(array).to(get_device()) for array in few.fetch(range(len(few)), np.random.default_rng(0)))

    def measure() -> None:
        norms = gradient_norms(trainer.model, images, labels, trainer.criterion)
        epoch = len(trainer.history)
        rows.extend({"epoch": epoch, "layer": layer, "norm": norm} for layer, norm in norms.items())
        write_table(path, rows)

    if not rows:
        measure()
    for row in trainer.epochs_to_go(stop, quiet):
        measure()
        run.save(trainer)
        yield row
    if not trainer.between_epochs:
        run.save(trainer)


def _tabulate(folder: Path, runs: dict[str, Configuration]) -> None:
    """What all runs measured, in one table each."""
    curves, gradients = [], []
    for name, configuration in runs.items():
        network = {"network": configuration.model, "seed": configuration.seed}
        if (folder / name / "metrics.csv").exists():
            curves += [network | _errors(row) for row in read_table(folder / name / "metrics.csv")]
            gradients += [network | row for row in read_table(folder / name / "gradients.csv")]
    write_table(folder / "curves.csv", curves)
    write_table(folder / "gradients.csv", gradients)


def _errors(row: dict[str, Any]) -> dict[str, Any]:
    errors = {f"{part}_error": 1 - row[f"{part}_accuracy"] for part in ("train", "test")}
    return {name: row[name] for name in ("epoch", "lr", "train_loss", "test_loss", "seconds")} | errors


def _draw(folder: Path) -> None:
    if not importlib.util.find_spec("matplotlib"):
        print("depth.png and gradients.png are drawn where matplotlib is installed: pip install 'minidl[plot]'")
        return
    curves, gradients = read_table(folder / "curves.csv"), read_table(folder / "gradients.csv")
    plot.errors_by_depth(curves).save(folder / "depth.png")
    plot.gradients_by_depth(gradients).save(folder / "gradients.png")


def _last_rows(curves: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({(row["network"], row["seed"]): row for row in curves}.values())
