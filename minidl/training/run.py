"""The folder of a run: ``config.json``, ``metrics.csv``, ``last.safetensors``, ``best.safetensors``, ``curves.png``."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import time
from contextlib import suppress
from pathlib import Path

from .. import plot
from ..io import discard_parts, load_with_metadata, save
from ..nn import Module
from .configuration import Configuration
from .table import write_table
from .trainer import Trainer, model_state

LAST, BEST = "last.safetensors", "best.safetensors"

EXPERIMENT = "experiment.json"
"""What an experiment, a folder of runs, has in place of a configuration."""

PICTURE_SECONDS = 10
"""Between one drawing of the curves and the next: it takes half a second, which may be an epoch."""


class Run:
    """A training run on disk. Every file is written atomically, so a run that is killed at any moment can be resumed.

    ``last.safetensors`` holds everything that the rest of the training depends on, ``best.safetensors`` the weights of
    the epoch with the highest test accuracy.
    """

    def __init__(self, folder: Path, configuration: Configuration):
        self.folder, self.configuration = folder, configuration
        self._drawn = -math.inf

    @classmethod
    def create(cls, folder: str | os.PathLike[str], configuration: Configuration) -> Run:
        """A new run in `folder`. Raises FileExistsError if there is a run already, OSError if it cannot be made."""
        folder = Path(folder)
        check_free(folder)
        make_folder(folder)
        configuration.write(folder / "config.json")
        return cls(folder, configuration)

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Run:
        """The run in `folder`. Raises FileNotFoundError if there is none, ValueError for a damaged configuration."""
        folder = Path(folder)
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(f"there is no run in {folder}: it has no config.json; train makes run folders")
        return cls(folder, Configuration.read(folder / "config.json"))

    @property
    def has_state(self) -> bool:
        """Whether there is a checkpoint to go on from."""
        return (self.folder / LAST).exists()

    def discard(self) -> None:
        """Leave nothing of a run that has come to no checkpoint."""
        discard_parts(self.folder)
        for name in ("config.json", BEST):
            (self.folder / name).unlink(missing_ok=True)
        with suppress(OSError):  # what else lies there stays
            self.folder.rmdir()

    def save(self, trainer: Trainer) -> None:
        """Keep the state of the training and what was measured; raises OSError if that cannot be written."""
        tensors, values = trainer.state()
        history = trainer.history
        best = max((row["test_accuracy"] for row in history), default=0.0)
        if history and trainer.between_epochs and history[-1]["test_accuracy"] >= best:
            save(trainer.model.state_dict(), self.folder / BEST)
        save(tensors, self.folder / LAST, {"training": json.dumps(values)})
        self._record(trainer)

    def _record(self, trainer: Trainer) -> None:
        if not trainer.history:
            return
        write_table(self.folder / "metrics.csv", trainer.history)
        if importlib.util.find_spec("matplotlib") and (trainer.finished or self._picture_is_old()):
            title = f"{self.configuration.model} on {self.configuration.data.partition(':')[0]}"
            plot.curves(trainer.history, title).save(self.folder / "curves.png")
            self._drawn = time.monotonic()

    def _picture_is_old(self) -> bool:
        return time.monotonic() - self._drawn > PICTURE_SECONDS

    def resume(self, trainer: Trainer) -> None:
        """Put `trainer` where the run stopped; at the start, if it stopped before its first checkpoint.

        Raises ValueError if the checkpoint is damaged or of another model.
        """
        discard_parts(self.folder)
        if not self.has_state:
            return
        path = self.folder / LAST
        tensors, metadata = load_with_metadata(path)
        try:
            trainer.load_state(tensors, json.loads(metadata["training"]))
        except (KeyError, ValueError) as error:
            raise ValueError(f"{path} does not hold the state of this run: {error}") from None
        self._record(trainer)  # a kill may have come between the state and the table

    def load_weights(self, model: Module, best: bool = False) -> None:
        """Load the weights of the last (or best) epoch into `model`. Raises FileNotFoundError if there are none yet."""
        path = self.folder / (BEST if best else LAST)
        tensors, _ = load_with_metadata(path)
        model.load_state_dict(tensors if best else model_state(tensors))


def check_free(folder: Path) -> None:
    """Raise FileExistsError if there is a run or an experiment in `folder` already."""
    for name, what in (("config.json", "a run"), (EXPERIMENT, "an experiment")):
        if (folder / name).exists():
            raise FileExistsError(f"there is {what} in {folder} already; go on with --resume {folder}, or name another "
                                  "folder with --out")


def make_folder(folder: Path) -> None:
    """Make the folder of a run, and those above it. Raises OSError, with advice, where that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"cannot make the run folder {folder}: {error.strerror}; name another with --out") from error
