"""The folder of a run: ``config.json``, ``metrics.csv``, ``last.safetensors``, ``best.safetensors``, ``curves.png``."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import safetensors

from .. import plot
from ..data import Subset
from ..io import discard_parts, load_with_metadata, locked, save
from ..nn import Module
from .configuration import Configuration, differences
from .signals import finish_first
from .structure import shortened
from .table import write_table
from .trainer import Trainer, model_state

CONFIG, LAST, BEST, METRICS, CURVES = (
    "config.json", "last.safetensors", "best.safetensors", "metrics.csv", "curves.png",
)
RUN_FILES = (CONFIG, LAST, BEST, METRICS, CURVES)

EXPERIMENT = "experiment.json"
"""What an experiment, a folder of runs, has in place of a configuration."""

PICTURE_SECONDS = 10
"""Fewest seconds between redraws of curves.png; a redraw takes half a second, as long as a short epoch."""

RECORD = "run"
"""Metadata key, in both states, of what the run was made with: its configuration and facts about its data, as JSON."""


class Run:
    """A training run on disk. Every file is written atomically, so a run that is killed at any moment can be resumed.

    ``last.safetensors`` holds everything that the rest of the training depends on, ``best.safetensors`` the weights of
    the epoch with the highest test accuracy. Both also hold what the run was made with.
    """

    def __init__(self, folder: Path, configuration: Configuration):
        self.folder, self.configuration = folder, configuration
        self._drawn = -math.inf
        self._new_folders: list[Path] = []
        self._written: set[str] = set()

    @classmethod
    def create(cls, folder: str | os.PathLike[str], configuration: Configuration) -> Run:
        """A new run in `folder`, which may exist and hold other files.

        Raises FileExistsError if it holds a file that a run writes, OSError if it cannot be made or written to.
        """
        run = cls(Path(folder), configuration)
        check_free(run.folder)
        run._new_folders = make_folder(run.folder)
        try:
            discard_parts(run.folder, RUN_FILES)
            configuration.write(run.folder / CONFIG, new=True)
        except BaseException:
            run.discard()
            raise
        run._written.add(CONFIG)
        return run

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Run:
        """The run in `folder`. Raises FileNotFoundError if there is none, ValueError for a damaged configuration, or
        one that differs from what the run was made with."""
        path = Path(folder) / CONFIG
        if not path.is_file():
            raise FileNotFoundError(f"there is no run in {folder}: it has no {CONFIG}; train makes run folders")
        run = cls(Path(folder), Configuration.read(path))
        for name in (LAST, BEST):
            run._check_configuration(run.folder / name)
        return run

    @property
    def has_state(self) -> bool:
        """Whether there is a checkpoint to go on from."""
        return (self.folder / LAST).exists()

    def locked(self) -> AbstractContextManager[None]:
        """Keep other processes from training this run meanwhile. Raises BlockingIOError if another one does so."""
        return locked(self.folder / CONFIG)

    def discard(self) -> None:
        """Remove the files, and the folders if they are empty then, that this object made."""
        for name in self._written:
            (self.folder / name).unlink(missing_ok=True)
        remove_empty(self._new_folders)

    # Training and keeping

    def epochs(
        self,
        trainer: Trainer,
        stop: Callable[[], object] = lambda: False,
        save_every: float = 10.0,
        quiet: bool = False,
        after_epoch: Callable[[], object] = lambda: None,
    ) -> Iterator[dict[str, float]]:
        """Train, yielding the row of each epoch once it is saved; ends early, saved, once `stop()` is true.

        Within an epoch the run is saved every `save_every` minutes; 0 means after every batch. `after_epoch` is called
        after each epoch, before it is saved. Raises what `Trainer.epochs_to_go` and `save` raise.
        """
        saved = time.monotonic()

        def due() -> bool:
            return time.monotonic() - saved >= 60 * save_every

        while not trainer.finished:
            for row in trainer.epochs_to_go(stop, quiet, pause=due):
                after_epoch()
                self.save(trainer)
                saved = time.monotonic()
                yield row
            if not (trainer.between_epochs and self.has_state):
                self.save(trainer)
                saved = time.monotonic()
            if stop():
                return

    def save(self, trainer: Trainer) -> None:
        """Keep the state of the training and what was measured; raises OSError if that cannot be written.

        A Ctrl-C meanwhile takes effect afterwards.
        """
        with finish_first():
            tensors, values = trainer.state()
            record = {RECORD: json.dumps({
                "configuration": dataclasses.asdict(self.configuration), "data": _facts(trainer),
            })}
            history = trainer.history
            best = max((row["test_accuracy"] for row in history), default=0.0)
            if history and trainer.between_epochs and history[-1]["test_accuracy"] >= best:
                save(trainer.model.state_dict(), self.folder / BEST, record)
                self._written.add(BEST)
            save(tensors, self.folder / LAST, record | {"training": json.dumps(values)})
            self._record(trainer)

    def _record(self, trainer: Trainer) -> None:
        if not trainer.history:
            return
        write_table(self.folder / METRICS, trainer.history)
        if importlib.util.find_spec("matplotlib") and (trainer.finished or self._picture_is_old()):
            title = f"{self.configuration.model} on {self.configuration.data.partition(':')[0]}"
            plot.curves(trainer.history, title).save(self.folder / CURVES)
            self._drawn = time.monotonic()

    def _picture_is_old(self) -> bool:
        return time.monotonic() - self._drawn > PICTURE_SECONDS

    def resume(self, trainer: Trainer) -> None:
        """Put `trainer` where the run stopped; at the start, if it stopped before its first checkpoint.

        Raises ValueError if the checkpoint is damaged, of another model, or of other data.
        """
        discard_parts(self.folder, RUN_FILES)
        if not self.has_state:
            return
        path = self.folder / LAST
        tensors, metadata = load_with_metadata(path)
        if changes := differences(_record_of(metadata, path).get("data", {}), _facts(trainer)):
            raise ValueError(f"the images of {self.configuration.data} have changed since {path} was written "
                             f"({changes}). Put them back, or train a new run")
        try:
            trainer.load_state(tensors, _json(metadata.get("training")))
        except ValueError as error:
            raise ValueError(f"{path} does not hold the state of this run: {error}") from None
        self._record(trainer)  # a kill may have come between the state and the table

    def load_weights(self, model: Module, best: bool = False) -> None:
        """Load the weights of the last (or best) epoch into `model`. Raises FileNotFoundError if there are none yet."""
        path = self.folder / (BEST if best else LAST)
        tensors, _ = load_with_metadata(path)
        try:
            model.load_state_dict(tensors if best else model_state(tensors))
        except ValueError as error:
            raise ValueError(f"{path} does not hold the weights of this run: {error}") from None

    def _check_configuration(self, path: Path) -> None:
        """Raise ValueError if the state in `path` is of a run with another configuration."""
        try:
            with safetensors.safe_open(path, framework="np") as file:
                metadata = file.metadata() or {}
        except (OSError, safetensors.SafetensorError):
            return  # missing or damaged: whoever loads it says so
        was = _record_of(metadata, path).get("configuration", {})
        now = dataclasses.asdict(self.configuration)
        if str(was.get("data")).partition(":")[0] == now["data"].partition(":")[0]:
            was["data"] = now["data"]  # the folder of the images may have been moved
        if changes := differences(was, now):
            raise ValueError(f"{self.folder / CONFIG} has changed since {path.name} was written ({changes}). Put the "
                             "old values back, or train a new run")


def _facts(trainer: Trainer) -> dict[str, Any]:
    """What can be known of the images of a training without reading them all."""
    dataset: Any = trainer.train.dataset
    whole = dataset.dataset if isinstance(dataset, Subset) else dataset
    facts = {"training images": len(whole), "test images": len(trainer.test.dataset)}
    folders = getattr(whole, "folders", None)
    return facts if folders is None else facts | {"class folders": list(folders)}


def _record_of(metadata: dict[str, str], path: Path) -> dict[str, Any]:
    """What the run with this state was made with; nothing where an earlier version of minidl kept no record."""
    record = _json(metadata.get(RECORD, "{}"))
    if not isinstance(record, dict) or not all(isinstance(part, dict) for part in record.values()):
        raise ValueError(f"{path} is damaged: its record of the run is {shortened(record)}")
    return record


def _json(text: str | None) -> Any:
    """The value of a text in a state; None where there is no such text, or it is not JSON."""
    try:
        return None if text is None else json.loads(text)
    except (ValueError, RecursionError):
        return None


def check_free(folder: Path, names: Iterable[str] = RUN_FILES) -> None:
    """Raise FileExistsError if `folder` holds a run, an experiment, or one of `names`, which would be overwritten."""
    for name, what in ((CONFIG, "a run"), (EXPERIMENT, "an experiment")):
        if os.path.lexists(folder / name):
            raise FileExistsError(f"there is {what} in {folder} already; go on with --resume {folder}, or name another "
                                  "folder with --out")
    for name in names:
        if os.path.lexists(folder / name):
            raise FileExistsError(f"{folder / name} exists and would be overwritten; name another folder with --out")


def make_folder(folder: Path) -> list[Path]:
    """Make the folder of a run, and those above it; the new ones, from the inside out.

    Raises OSError, with advice, where that cannot be.
    """
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"cannot make the run folder {folder}: {error.strerror}; name another with --out") from error
    return new


def remove_empty(folders: Iterable[Path]) -> None:
    """Remove those of `folders` that are empty."""
    for folder in folders:
        with suppress(OSError):  # it holds something
            folder.rmdir()
