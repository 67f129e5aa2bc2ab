"""``minidl experiment depth``: plain networks cannot be deep, residual ones can (claims F15 and D7)."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .. import plot
from ..autograd import Tensor
from ..backend import get_device
from ..data.dataset import spread
from ..inspect import gradient_norms
from ..io import discard_parts, locked
from ..training import Configuration, Diverged, Run
from ..training.configuration import differences, read_json, write_json
from ..training.run import CONFIG, EXPERIMENT, METRICS, check_free, make_folder, remove_empty
from ..training.table import read_table, write_table
from ..training.trainer import MEASUREMENTS
from .assembly import check_fit, configure, refuse_beside_resume, trainer_of, training_images, within_budget
from .train import attended, say_if_tested_on_the_same

NETWORKS = ("plain20", "plain56", "resnet20", "resnet56")
"""He et al. 2016, figure 6, with the shallowest and the deepest of both kinds that have a twin."""

GRADIENTS = "gradients.csv"
"""The gradients of one run in its folder, and those of all runs in the folder of the experiment."""

EXPERIMENT_FILES = (EXPERIMENT, "curves.csv", GRADIENTS, "depth.png", "gradients.png")

Rows = list[dict[str, Any]]


def depth(options: argparse.Namespace) -> int:
    """Train the four networks from each seed; keep what they did in tables and pictures.

    A seed decides the order and the variation of the images, the same for all four, and the weights.
    """
    folder, configurations = _resumed(options) if options.resume else _begun(options)
    runs = {_name(each.model, each.seed): each for each in configurations}
    with locked(folder / EXPERIMENT), attended() as received:
        discard_parts(folder, EXPERIMENT_FILES)
        for name, configuration in runs.items():
            there = (folder / name / CONFIG).exists()
            run = Run.open(folder / name) if there else Run.create(folder / name, configuration)
            if changes := differences(dataclasses.asdict(configuration), dataclasses.asdict(run.configuration)):
                raise ValueError(f"{run.folder} holds another run than {folder / EXPERIMENT} says ({changes}); move "
                                 "one of them away")
            try:
                with run.locked():
                    finished = _train(run, runs, received, options)
            except Diverged as error:
                raise Diverged(f"{name}: {error}") from None
            if not finished:
                print("interrupted; go on with: minidl experiment depth --resume "
                      f"{shlex.quote(str(folder))}", flush=True)
                return 128 + received()
        curves, gradients = _tabulate(folder, runs)
        _draw(folder, curves, gradients)
    for row in {(row["network"], row["seed"]): row for row in curves}.values():  # the last of each
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
    names = [*EXPERIMENT_FILES, *(_name(network, seed) for seed in range(seeds) for network in NETWORKS)]
    check_free(folder, names)
    configurations = within_budget([
        configure(argparse.Namespace(**vars(options) | {"model": name, "seed": seed, "option": None}))
        for seed in range(seeds) for name in NETWORKS
    ], options)
    for each in configurations[: len(NETWORKS)]:
        trainer = trainer_of(each, workers=0)
        check_fit(trainer, len(each.classes))  # a mistake leaves nothing behind
    say_if_tested_on_the_same(trainer)
    new = make_folder(folder)
    try:
        write_json(folder / EXPERIMENT, [dataclasses.asdict(each) for each in configurations], new=True)
    except BaseException:
        remove_empty(new)
        raise
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
    configurations = [Configuration.of(each, path) for each in values]
    if other := [each.model for each in configurations if each.model not in NETWORKS]:
        raise ValueError(f"{path} is damaged: {other[0]!r} is not one of the networks {', '.join(NETWORKS)}")
    return folder, configurations


def _name(model: str, seed: int) -> str:
    """The folder of a run."""
    return f"{model}-seed{seed}"


def _train(
    run: Run, runs: dict[str, Configuration], stop: Callable[[], object], options: argparse.Namespace
) -> bool:
    """Train one of `runs`, printing its epochs and bringing the tables up to date; whether it came to its end.

    The gradients before the first epoch and after each are written before the state they belong to: after a kill in
    between, they are computed again, and are the same. Raises ValueError if some that belong to a state are missing.
    """
    trainer = trainer_of(run.configuration, options.workers)
    run.resume(trainer)
    discard_parts(run.folder, [GRADIENTS])
    dataset = training_images(run.configuration, varied=False)
    few = spread(dataset, min(run.configuration.batch_size, len(dataset)))
    images, labels = (Tensor(array).to(get_device()) for array in few.fetch(range(len(few)), np.random.default_rng(0)))
    path = run.folder / GRADIENTS
    rows: Rows = []

    def measure() -> None:
        norms = gradient_norms(trainer.model, images, labels, trainer.criterion)
        epoch = len(trainer.history)
        rows.extend({"epoch": epoch, "layer": layer, "norm": norm} for layer, norm in norms.items())
        write_table(path, rows)

    if run.has_state:
        rows += [row for row in _gradients(run.folder) if row["epoch"] <= len(trainer.history)]
        layers = [name.removesuffix(".weight") for name, value in trainer.model.named_parameters() if value.ndim > 1]
        expected = [(epoch, layer) for epoch in range(len(trainer.history) + 1) for layer in layers]
        if [(row["epoch"], row["layer"]) for row in rows] != expected:
            raise ValueError(f"{path} is incomplete: the run has come to epoch {len(trainer.history)}; start it again "
                             "in a new folder")
    else:
        measure()
    for row in run.epochs(trainer, stop, options.save_every, options.quiet, after_epoch=measure):
        _tabulate(run.folder.parent, runs)
        print(f"{run.folder.name:16} epoch {row['epoch']:3d}/{trainer.epochs}   "
              f"error: training {1 - row['train_accuracy']:6.2%}, test {1 - row['test_accuracy']:6.2%}   "
              f"{row['seconds']:,.0f} s", flush=True)
    return trainer.finished


def _gradients(folder: Path) -> list[dict[str, Any]]:
    """The rows of the gradients of the run in `folder`, those that there are."""
    path = folder / GRADIENTS
    return read_table(path, {"epoch": int, "layer": str, "norm": float}) if path.exists() else []


def _tabulate(folder: Path, runs: dict[str, Configuration]) -> tuple[Rows, Rows]:
    """What all runs measured: the rows of both tables, which it writes."""
    curves: Rows = []
    gradients: Rows = []
    for name, configuration in runs.items():
        network = {"network": configuration.model, "seed": configuration.seed}
        if (folder / name / METRICS).exists():
            curves += [network | _errors(row) for row in read_table(folder / name / METRICS, MEASUREMENTS)]
            gradients += [network | row for row in _gradients(folder / name)]
    write_table(folder / "curves.csv", curves)
    write_table(folder / GRADIENTS, gradients)
    return curves, gradients


def _errors(row: dict[str, Any]) -> dict[str, Any]:
    errors = {f"{part}_error": 1 - row[f"{part}_accuracy"] for part in ("train", "test")}
    return {name: row[name] for name in ("epoch", "lr", "train_loss", "test_loss", "seconds")} | errors


def _draw(folder: Path, curves: Rows, gradients: Rows) -> None:
    if not importlib.util.find_spec("matplotlib"):
        print("depth.png and gradients.png are drawn where matplotlib is installed: pip install 'minidl[plot]'")
        return
    plot.errors_by_depth(curves).save(folder / "depth.png")
    plot.gradients_by_depth(gradients).save(folder / "gradients.png")
