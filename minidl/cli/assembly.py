"""From the options of a command to what they describe: a configuration, and its images, model and trainer."""

from __future__ import annotations

import argparse
import dataclasses
import time
from typing import Any

import numpy as np

from .. import functional as F
from ..autograd import Tensor, no_grad
from ..backend import get_device, manual_seed
from ..data import BatchDataset, DataLoader, open_dataset
from ..data.catalog import find_source
from ..data.dataset import spread
from ..nn import Module
from ..nn.module import leaving_as_found
from ..optim import SGD
from ..training import Configuration, Trainer, evaluate
from ..training.configuration import differences
from ..training.schedule import schedule

TUNABLE = (
    "input_size", "epochs", "batch_size", "lr", "momentum", "weight_decay", "schedule", "warmup", "milestones", "gamma",
    "augment", "shift",
)
"""What a model's preset decides unless the command line does."""

SELF_ORGANISING_IMAGES = 2000
"""That a neocognitron sees before its readout is trained: about a minute."""

PROBE_SECONDS = 4
"""For which batches are timed before a budget is divided into epochs."""

EVALUATION_PIXELS = 250 * 32 * 32
"""In a batch of test images."""


def configure(options: argparse.Namespace) -> Configuration:
    """What the options say, and where they say nothing what suits the model and the images."""
    import models

    model_options = dict(options.option or ())
    preset = models.preset(options.model, model_options.get("variant"))
    given = {name: getattr(options, name, None) for name in TUNABLE}
    if given["input_size"] is None:
        given["input_size"] = model_options.get("input_size")
    values = {name: getattr(preset, name) if value is None else value for name, value in given.items()}
    values["milestones"] = list(values["milestones"])
    for name in ("milestones", "gamma"):
        if given[name] is not None and values["schedule"] != "steps":
            raise ValueError(f"{_option(name)} is for --schedule steps; this training has {values['schedule']}")
    data = options.data or "digits"
    if given["augment"] is None:
        values["augment"] = find_source(data)[0].suited(values["augment"])
    dataset = open_dataset(data, False, values["input_size"])
    classes = class_names(dataset)
    if len(classes) < 2:
        raise ValueError(f"{data} has the one class {classes[0]!r}, and nothing to tell apart; a folder of photographs "
                         "holds one folder for each class")
    model_options = models.fitted(
        options.model, model_options, num_classes=len(classes), in_channels=dataset[0][0].shape[0],
        input_size=values["input_size"],
    )
    return Configuration(
        model=options.model, model_options=model_options, data=data, seed=options.seed or 0,
        images=getattr(options, "images", None), classes=classes, **values,
    )


def refuse_beside_resume(options: argparse.Namespace, *more: str) -> None:
    """Raise ValueError for an option that was decided when the run began."""
    decided = ("data", "images", "out", "time_budget", *TUNABLE, *more)
    if given := [name for name in decided if getattr(options, name) is not None]:
        raise ValueError(f"--resume goes on as it was configured; leave out {', '.join(map(_option, given))}")


def _option(name: str) -> str:
    """How the command line calls `name`."""
    return name if name == "model" else f"--{name.replace('_', '-')}"


def within_budget(configurations: list[Configuration], options: argparse.Namespace) -> list[Configuration]:
    """These runs; under ``--time-budget`` with as many epochs each as fit into it together, by a few batches' time.

    Raises ValueError where not even one does, and for a budget beside ``--epochs``.
    """
    minutes = options.time_budget
    if minutes is None:
        return configurations
    if options.epochs is not None:
        raise ValueError(f"a time budget decides the epochs; leave out --epochs {options.epochs}")
    if not 0 < minutes < float("inf"):
        raise ValueError(f"a time budget is a number of minutes above 0; got {minutes}")
    different = {each.model: each for each in configurations}.values()
    seeds = len(configurations) // len(different)  # which change nothing that takes time
    started, preparation, seconds = time.perf_counter(), 0.0, 0.0
    for each in different:
        begun = time.perf_counter()
        trainer = trainer_of(each, options.workers)
        preparation += seeds * (time.perf_counter() - begun)
        seconds += seeds * _seconds_an_epoch(trainer)
    before = time.perf_counter() - started + preparation  # for the runs themselves it is done again
    epochs = int((60 * minutes - before) / seconds)
    what = "an epoch" if len(configurations) == 1 else f"an epoch of each of the {len(configurations)} runs"
    if epochs < 1:
        raise ValueError(f"{what} takes about {seconds / 60:.1f} minutes here, after {before / 60:.1f} minutes of "
                         f"preparation, which a time budget of {minutes:g} minutes does not hold; give more, or take "
                         "fewer --images or a smaller --input-size")
    print(f"{what} takes about {seconds:.1f} s here: {epochs} fit into {minutes:g} minutes", flush=True)
    return [dataclasses.replace(each, epochs=epochs) for each in configurations]


def _seconds_an_epoch(trainer: Trainer) -> float:
    """What an epoch takes, the evaluation included, by a few batches, of which the first warms up."""
    times = [time.perf_counter()]

    def measured() -> bool:
        times.append(time.perf_counter())
        return len(times) > 2 and times[-1] - times[1] > PROBE_SECONDS

    for _ in trainer.epochs_to_go(quiet=True, pause=measured):
        break
    counted = times[1:] if len(times) > 2 else times
    training = len(trainer.train) * (counted[-1] - counted[0]) / (len(counted) - 1)
    images: Any = trainer.test.dataset
    few = DataLoader(spread(images, min(len(images), trainer.test.batch_size)), trainer.test.batch_size, seed=0)
    started = time.perf_counter()
    evaluate(trainer.model, few)
    return training + len(images) / len(few.dataset) * (time.perf_counter() - started)


def trainer_of(
    configuration: Configuration, workers: int | None = None, cuda_graph: bool = False, fresh: bool = True
) -> Trainer:
    """The trainer of a run from its beginning; everything random in it follows from the seed.

    A model that organises itself, as the neocognitron, has done so, if it is `fresh` and no state is to be loaded.
    `workers` None is what the data needs.
    """
    manual_seed(configuration.seed)
    model = build(configuration)
    if fresh and hasattr(model, "self_organise"):
        dataset = training_images(configuration, varied=False)
        few = spread(dataset, min(SELF_ORGANISING_IMAGES, len(dataset)))
        print(f"{configuration.model} organises itself by {len(few):,} images, without labels", flush=True)
        images, _ = few.fetch(range(len(few)), np.random.default_rng(configuration.seed))
        model.self_organise(Tensor(images).to(get_device()))
    optimizer = SGD(
        _decayed(model, configuration.weight_decay), configuration.lr, configuration.momentum
    )
    dataset = training_images(configuration, varied=True)
    test = test_loader(configuration)
    if class_names(dataset) != class_names(test.dataset):
        raise ValueError(f"the training images show {', '.join(class_names(dataset))}, the test images "
                         f"{', '.join(class_names(test.dataset))}; both need the same folders")
    check_classes(configuration, dataset)
    loader = DataLoader(
        dataset, configuration.batch_size, shuffle=True, seed=configuration.seed, device=get_device(),
        num_workers=find_source(configuration.data)[0].workers if workers is None else workers,
    )
    rates = schedule(
        optimizer, configuration.schedule, configuration.epochs, len(loader), configuration.warmup,
        configuration.milestones, configuration.gamma,
    )
    return Trainer(model, optimizer, rates, loader, test, configuration.epochs, cuda_graph)


def _decayed(model: Module, weight_decay: float) -> list[dict[str, Any]]:
    """The parameters in two groups: weights decay; what is one number a channel, as biases and normalisation's, not."""
    parameters = list(model.parameters())
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1]},
    ]
    return [group for group in groups if group["params"]]


def training_images(configuration: Configuration, varied: bool) -> BatchDataset:
    """The training images of a run, `varied` at random as it says or as they are."""
    recipe, shift = (configuration.augment, configuration.shift) if varied else ("none", 0)
    dataset = open_dataset(configuration.data, True, configuration.input_size, recipe, shift)
    return dataset if configuration.images is None else spread(dataset, configuration.images)


def test_loader(configuration: Configuration, recipe: str = "none") -> DataLoader:
    """The test images of a run, in their own order."""
    dataset = open_dataset(configuration.data, False, configuration.input_size, recipe)
    return DataLoader(dataset, evaluation_batch(configuration.input_size), seed=0)


def build(configuration: Configuration) -> Module:
    """The model of a run, with fresh weights."""
    import models

    return models.build(configuration.model, **configuration.model_options).to(get_device())


def class_names(dataset: Any) -> list[str]:
    """What the labels of a data set from the catalog stand for."""
    return list(dataset.classes)


def check_classes(configuration: Configuration, dataset: Any) -> None:
    """Raise ValueError unless `dataset` shows the classes that the run tells apart, in the same order."""
    now = class_names(dataset)
    if changes := differences({"classes": configuration.classes or now}, {"classes": now}):
        raise ValueError(f"{configuration.data} does not show the classes of the run ({changes}), so its labels mean "
                         "something else. Give the folders their names back, or name other images")


def evaluation_batch(input_size: int) -> int:
    """How many test images go through a network at once."""
    return max(1, EVALUATION_PIXELS // input_size**2)


def check_fit(trainer: Trainer, classes: int) -> None:
    """Let the model see a test image twice, as if it were of the last class, as in evaluation and as in training.

    Too few channels, pixels or classes fail here.
    """
    image, _ = trainer.test.dataset[0]
    images, labels = (Tensor(np.stack([x, x])).to(get_device()) for x in (image, np.array(classes - 1)))
    with leaving_as_found(trainer.model), no_grad():
        F.cross_entropy(trainer.model.eval()(images).to("cpu"), labels.to("cpu"))  # a GPU would not complain
        trainer.criterion(trainer.model.train()(images), labels)
