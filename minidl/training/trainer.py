"""The training loop: a model, an optimizer, a schedule and two loaders, and a state that can be kept and resumed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from .. import functional as F
from ..autograd import Tensor
from ..backend import generator, memory_for
from ..data import DataLoader
from ..nn import Module
from ..optim import SGD, LRScheduler
from .capture import CapturedPass
from .evaluation import evaluate
from .structure import check_structure, shortened

READ_EVERY = 10
"""Batches after which a GPU is asked for the losses: it computes on meanwhile."""


MEASUREMENTS = {
    "epoch": int, "lr": float, "train_loss": float, "train_accuracy": float, "test_loss": float, "test_accuracy": float,
    "seconds": float, "images_per_second": float,
}
"""Names and types of the measurements in a row."""


class Diverged(RuntimeError):
    """The loss became infinite or not a number."""


class Trainer:
    """Trains `model` for `epochs` epochs, one step of `schedule` a batch.

    The loss is cross-entropy, or what the model's own ``criterion(output, labels)`` says where it has one, as GoogLeNet
    with its auxiliary heads. Of an output that is a tuple the first part is the logits.

    `capture`: on a GPU, batches after the first run as one CUDA graph, see `CapturedPass`.

    `epochs_to_go` runs it; `state` and `load_state` keep everything that the rest of the training depends on, also in
    the middle of an epoch: a run that is resumed ends bit-identical to one that was not stopped.
    """

    def __init__(
        self,
        model: Module,
        optimizer: SGD,
        schedule: LRScheduler | None,
        train: DataLoader,
        test: DataLoader,
        epochs: int,
        capture: bool = False,
    ):
        for part, loader in (("training", train), ("test", test)):
            if not len(loader):
                raise ValueError(f"there are no {part} images: an epoch would hold no batch")
        self.model, self.optimizer, self.schedule = model, optimizer, schedule
        self.train, self.test, self.epochs = train, test, epochs
        self.criterion = getattr(model, "criterion", F.cross_entropy)
        self.history: list[dict[str, float]] = []
        self._epoch_so_far = _Sums()
        self._pass = CapturedPass(self._compute, list(model.parameters())) if capture else self._compute

    @property
    def finished(self) -> bool:
        return len(self.history) >= self.epochs

    @property
    def between_epochs(self) -> bool:
        """Whether the weights are still those that the last row of `history` was measured with."""
        return self._epoch_so_far.images == 0

    def epochs_to_go(
        self,
        stop: Callable[[], object] = lambda: False,
        quiet: bool = False,
        pause: Callable[[], object] = lambda: False,
    ) -> Iterator[dict[str, float]]:
        """Train, yielding a row of measurements after each epoch. Ends early once `stop()` or `pause()` is true.

        `stop` is asked before and after each batch of training, and before each batch of the test; a test that it ends
        is done again by the next call. `pause` is asked only after each batch of training: a caller that saves and
        calls again always gets on. In both cases `state` holds every batch that was trained.

        A row holds epoch, lr (of its last batch), train_loss, train_accuracy (both while training), test_loss,
        test_accuracy, seconds and images_per_second. Raises `Diverged` for a loss that is not finite; on the CPU a
        batch with such a loss changes no weight, on a GPU up to `READ_EVERY` batches may have done so.
        """
        while not self.finished:
            if not self._train_epoch(stop, pause, quiet):
                return
            try:
                test = evaluate(self.model, _until(stop, self.test))
            except _Stopped:
                return
            self._check_finite("the loss on the test images", test.loss)
            sums, self._epoch_so_far = self._epoch_so_far, _Sums()
            self.history.append({
                "epoch": len(self.history) + 1,
                "lr": sums.lr,
                "train_loss": sums.loss / sums.images,
                "train_accuracy": sums.correct / sums.images,
                "test_loss": test.loss,
                "test_accuracy": test.accuracy,
                "seconds": sums.seconds,
                "images_per_second": sums.images / sums.seconds,
            })
            yield self.history[-1]

    def _train_epoch(self, stop: Callable[[], object], pause: Callable[[], object], quiet: bool) -> bool:
        """Train one epoch, or the rest of it; whether it was finished."""
        if self._epoch_so_far.trained:
            return True
        self.model.train()
        device = next(self.model.parameters()).device
        sums, title = self._epoch_so_far, f"epoch {len(self.history) + 1}/{self.epochs}"
        total = len(self.train.dataset)
        hidden = quiet or None  # None: shown on a terminal only
        with tqdm(desc=title, total=total, initial=sums.images, unit=" images", leave=False, disable=hidden) as bar:
            if stop():
                return False
            started = time.perf_counter()
            self.train.load_state_dict(self.train.state_dict())  # go on in an epoch that was left
            unread: list[tuple[Tensor, Tensor, int]] = []
            left = len(self.train) - self.train.state_dict()["batch"]
            for images, labels in self.train:
                with memory_for(len(labels)):
                    unread.append((*self._train_batch(images.to(device), labels.to(device)), len(labels)))
                left -= 1
                stopped = bool(stop() or pause())
                if device == "cpu" or stopped or left == 0 or len(unread) == READ_EVERY:
                    bar.update(self._read(unread))
                    unread.clear()
                    sums.seconds += time.perf_counter() - started
                    started = time.perf_counter()
                    mean, share = sums.loss / sums.images, sums.correct / sums.images
                    bar.set_postfix_str(f"loss {mean:.4f}, accuracy {share:.1%}", refresh=False)
                if stopped:
                    return False
        sums.trained = True
        return True

    def _read(self, batches: list[tuple[Tensor, Tensor, int]]) -> int:
        """Add up the losses and the right answers of batches, for which a GPU has to be waited for; their images."""
        before, sums = self._epoch_so_far.images, self._epoch_so_far
        for loss, correct, count in batches:
            self._check_finite("the loss", value := loss.item())
            sums.loss += value * count
            sums.correct += int(correct)
            sums.images += count
        return sums.images - before

    def _train_batch(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        self.optimizer.zero_grad()
        loss, correct = self._pass(images, labels)
        self.optimizer.step()
        self._epoch_so_far.lr = self.optimizer.param_groups[0]["lr"]
        if self.schedule is not None:
            self.schedule.step()
        return loss, correct

    def _compute(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The loss and the right answers of a batch, and every gradient."""
        output = self.model(images)
        logits = output[0] if isinstance(output, tuple) else output
        loss = self.criterion(output, labels)
        if loss.device == "cpu":  # before a weight changes; a GPU would stand still meanwhile
            self._check_finite("the loss", loss.item())
        loss.backward()
        return loss.detach(), (logits.argmax(axis=1) == labels).sum()

    def _check_finite(self, what: str, value: float) -> None:
        if not math.isfinite(value):
            rate = self._epoch_so_far.lr or self.optimizer.param_groups[0]["lr"]  # of the last step, if there was one
            raise Diverged(
                f"{what} became {value} in epoch {len(self.history) + 1}, after {self._epoch_so_far.images} images, "
                f"at a learning rate of {rate:g}: the steps are too large, or the data holds values that are not "
                f"finite. Try a rate of {rate / 10:g}"
            )

    # Keeping and resuming

    def state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """(tensors by name, JSON values) that `load_state` goes on from."""
        optimizer = self.optimizer.state_dict()
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for index, buffers in optimizer["state"].items():
            tensors |= {f"optimizer.{index}.{name}": value for name, value in buffers.items()}
        return tensors, {
            "history": self.history,
            "epoch_so_far": asdict(self._epoch_so_far),
            "param_groups": optimizer["param_groups"],
            "schedule": None if self.schedule is None else self.schedule.state_dict(),
            "train": self.train.state_dict(),
            "random": generator().bit_generator.state,
        }

    def load_state(self, tensors: dict[str, Any], values: dict[str, Any]) -> None:
        """Go on from what `state` gave. Raises ValueError for a state of another model, or with parts missing or wrong.

        `values` are checked before anything is changed.
        """
        self._check_values(values)
        state: dict[int, dict[str, Any]] = {}
        for name, value in tensors.items():
            kind, _, rest = name.partition(".")
            if kind == "optimizer":
                index, _, buffer = rest.partition(".")
                if not (index.isdecimal() and buffer):
                    raise ValueError(f"there is a tensor {name!r}; expected optimizer.INDEX.NAME, such as "
                                     "optimizer.0.momentum_buffer")
                state.setdefault(int(index), {})[buffer] = value.data
        self.model.load_state_dict(model_state(tensors))
        self.optimizer.load_state_dict({"state": state, "param_groups": values["param_groups"]})
        if self.schedule is not None:
            self.schedule.load_state_dict(values["schedule"])
        self.train.load_state_dict(values["train"])
        generator().bit_generator.state = values["random"]
        self.history = list(values["history"])
        self._epoch_so_far = _Sums(**values["epoch_so_far"])

    def _check_values(self, values: Any) -> None:
        """Raise ValueError unless these could be the values of `state` of this trainer, or of one like it."""
        own = self.state()[1]
        if isinstance(values, dict) and isinstance(values.get("epoch_so_far"), dict):
            values["epoch_so_far"].setdefault("trained", False)  # states of earlier versions
        rows = values.get("history") if isinstance(values, dict) else None
        row = {name: kind() for name, kind in MEASUREMENTS.items()}
        check_structure(values, own | {"history": [row] * len(rows) if isinstance(rows, list) else []})
        numbers = [row["epoch"] for row in values["history"]]
        if numbers != [*range(1, len(numbers) + 1)] or len(numbers) > self.epochs:
            raise ValueError(f"its rows are of the epochs {shortened(numbers)}; expected 1, 2, … up to {self.epochs}")
        for group, saved in zip(own["param_groups"], values["param_groups"]):
            if group["params"] != saved["params"]:
                raise ValueError(f"a group of the optimizer has the parameters {saved['params']}; this one has "
                                 f"{group['params']}")
        sums, place = values["epoch_so_far"], values["train"]
        batches = len(self.train) if sums["trained"] else place["batch"]
        images = min(batches * self.train.batch_size, len(self.train.dataset))
        if sums["images"] != images or sums["correct"] > images or (images and not sums["seconds"] > 0):
            raise ValueError(f"{sums['images']} images were seen and {sums['correct']} recognised in {batches} batches "
                             f"and {sums['seconds']} seconds; expected {images} images")
        if self._offsets(own) != self._offsets(values):
            raise ValueError("the numbers of epochs, batches and steps that were done do not belong together")
        try:
            np.random.default_rng().bit_generator.state = values["random"]
        except OverflowError as error:
            raise ValueError(f"the state of the random numbers is wrong: {error}") from None

    def _offsets(self, values: dict[str, Any]) -> tuple[int, int]:
        """How far the loader is ahead of the history, in epochs, and of the schedule, in batches: both never change."""
        place, trained = values["train"], values["epoch_so_far"]["trained"]
        batches = place["epoch"] * len(self.train) + place["batch"]
        steps = batches if self.schedule is None else values["schedule"].get("last_epoch", batches)
        return place["epoch"] - trained - len(values["history"]), batches - steps


def model_state(tensors: dict[str, Any]) -> dict[str, Any]:
    """The model's part of the tensors that `Trainer.state` gave."""
    return {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}


@dataclass
class _Sums:
    """What the running epoch has added up, the learning rate it has come to, and whether only its test is left."""

    loss: float = 0.0
    correct: int = 0
    images: int = 0
    seconds: float = 0.0
    lr: float = 0.0
    trained: bool = False


class _Stopped(Exception):
    """A test on the test images was ended."""


def _until(stop: Callable[[], object], batches: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    """`batches`; raises `_Stopped` once `stop()`."""
    for batch in batches:
        if stop():
            raise _Stopped
        yield batch
