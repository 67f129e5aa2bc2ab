"""``minidl step-through``: one training step on one image, to look at an operation at a time."""

from __future__ import annotations

import argparse
import dataclasses
import os
from pathlib import Path

import numpy as np

from .. import functional as F
from ..autograd import Tensor
from ..backend import get_device, manual_seed
from ..data import open_dataset
from ..inspect import step_through as look
from ..nn import Module
from ..training import Configuration, Run
from .assembly import build, check_classes, class_names, configure


def step_through(options: argparse.Namespace) -> int:
    model, configuration = _subject(options)
    dataset = open_dataset(configuration.data, False, configuration.input_size)
    check_classes(configuration, dataset)
    if not 0 <= options.index < len(dataset):
        raise ValueError(f"--index counts the {len(dataset):,} test images of {configuration.data} from 0; "
                         f"got {options.index}")
    image, label = dataset[options.index]
    images, labels = (Tensor(np.stack([x])).to(get_device()) for x in (image, np.asarray(label)))
    criterion = getattr(model, "criterion", F.cross_entropy)
    steps = look(lambda: criterion(model.train()(images), labels))
    labelled = f"labelled {class_names(dataset)[label]}"
    shown = f"{options.subject} on test image {options.index} of {configuration.data}, {labelled}"
    if options.text:
        print(f"{shown}\n\n{steps}")
        return 0
    steps.save(options.out)
    print(f"{shown}: {len(steps.trace.operations)} operations forward, {len(steps.trace.backward)} back; "
          f"open {options.out} ({os.path.getsize(options.out) / 1e6:.1f} MB) in a browser")
    return 0


def _subject(options: argparse.Namespace) -> tuple[Module, Configuration]:
    """A run's model with its weights, or a new one by its name with those that a training from seed 0 starts with."""
    folder = Path(options.subject)
    if not folder.exists() and len(folder.parts) == 1:
        if options.best:
            raise ValueError(f"--best is for runs; {options.subject} is the name of a model, with fresh weights")
        configuration = configure(argparse.Namespace(**vars(options), model=options.subject, seed=0))
        manual_seed(configuration.seed)
        return build(configuration), configuration
    run = Run.open(folder)
    if given := [name for name in ("input_size", "option") if getattr(options, name) is not None]:
        raise ValueError(f"a run is as it was configured; leave out {', '.join(given)}")
    model, configuration = build(run.configuration), run.configuration
    run.load_weights(model, options.best)
    return model, dataclasses.replace(configuration, data=options.data or configuration.data)
