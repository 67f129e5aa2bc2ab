"""``minidl evaluate``, ``predict``, ``summary`` and ``info``: what a trained network, and this machine, can do."""

from __future__ import annotations

import argparse
import dataclasses
import os
import platform
from pathlib import Path

import numpy as np
import threadpoolctl

from .. import __version__
from .. import functional as F
from ..autograd import Tensor, no_grad
from ..backend import DeviceError, describe_gpu, get_device
from ..data import DataLoader, ImageFolder, TenCrop, imagenet_classes
from ..data.catalog import Photographs, Source, find_source
from ..data.folder import find_parts
from ..inspect import summary as count
from ..kernels.cpu.threads import get_num_threads
from ..nn import Module
from ..training import Evaluation, Run, ensemble, score
from ..training import predict as predictions_of
from .assembly import build, check_classes, class_names, evaluation_batch, test_loader

BAR = 20
"""Characters of a probability of 1."""


def evaluate(options: argparse.Namespace) -> int:
    predictions = []
    subjects = [(subject, *_subject(subject, options)) for subject in options.subjects]
    if len({(data, *class_names(loader.dataset)) for _, _, loader, data in subjects}) > 1:
        raise ValueError("an ensemble sees one data set; these were trained on "
                         f"{', '.join(data for *_, data in subjects)}; name one with --data")
    for subject, model, loader, data in subjects:
        predictions.append(predictions_of(model, loader))
        classes = predictions[-1].log_probabilities.shape[1]
        print(f"{subject} on the {len(loader.dataset):,} test images of {data}: "
              f"{_described(score(predictions[-1]), classes)}")
    if len(predictions) > 1:
        print(f"the ensemble of these {len(predictions)}: {_described(score(ensemble(predictions)), classes)}")
    return 0


def _described(result: Evaluation, classes: int) -> str:
    top5 = f", top-5 error {1 - result.top5_accuracy:.2%}" if classes > 5 else ""
    return f"loss {result.loss:.4f}, accuracy {result.accuracy:.2%}, top-1 error {1 - result.accuracy:.2%}{top5}"


def _subject(subject: str, options: argparse.Namespace) -> tuple[Module, DataLoader, str]:
    """The model that a run or a name stands for, and the images it is measured on."""
    if _is_published(subject):
        return _published_subject(subject, options)
    run = Run.open(subject)
    configuration = run.configuration
    if options.data is not None:
        configuration = dataclasses.replace(configuration, data=options.data)
    model = build(configuration)
    run.load_weights(model, options.best)
    loader = test_loader(configuration, "ten_crop" if options.ten_crop else "none")
    check_classes(configuration, loader.dataset)
    return model, loader, configuration.data


def _published_subject(name: str, options: argparse.Namespace) -> tuple[Module, DataLoader, str]:
    kind, _, folder = (options.data or "").partition(":")
    if kind != "imagefolder" or not folder:
        raise ValueError(f"the published weights of {name} are measured on photographs in folders named by WordNet id; "
                         "add --data imagefolder:FOLDER")
    from models.published import SIDE, preprocessing

    transform = preprocessing(name, TenCrop(SIDE)) if options.ten_crop else preprocessing(name)
    root = Path(folder).expanduser()
    dataset = ImageFolder(find_parts(root)[1] or root, transform, folders=list(imagenet_classes()))
    return _published(name, options), DataLoader(dataset, evaluation_batch(SIDE), seed=0), options.data


def _is_published(subject: str) -> bool:
    """Whether `subject` names published weights and no run. Raises ValueError for a model that has none."""
    import models
    from models.published import FILES

    if (Path(subject) / "config.json").exists():
        return False
    if subject in models.available() and subject not in FILES:
        raise ValueError(f"there are no published weights of {subject}, only of {', '.join(FILES)}; "
                         f"train it: minidl train {subject}")
    return subject in FILES


def _published(name: str, options: argparse.Namespace) -> Module:
    """A model with its published weights. VGG has one form only, with or without batch normalisation."""
    import models

    if options.best:
        raise ValueError(f"--best is for runs; the published weights of {name} have one form")
    model, _, batch_norm = name.partition("_")
    form = {"batch_norm": bool(batch_norm)} if model.startswith("vgg") else {"variant": "torchvision"}
    return models.build(model, **form, weights="imagenet").to(get_device())


def predict(options: argparse.Namespace) -> int:
    source: Source
    if _is_published(options.subject):
        model, classes = _published(options.subject, options), list(imagenet_classes().values())
        source, prepare = Photographs(), model.preprocessing
    else:
        run = Run.open(options.subject)
        model, classes = build(run.configuration), run.configuration.classes
        run.load_weights(model, options.best)
        source, _ = find_source(run.configuration.data)
        prepare = source.preparation(run.configuration.input_size)
    unused = np.random.default_rng(0)  # nothing in the preparation is random
    images = [prepare(source.read(path, options.invert)[np.newaxis], unused) for path in options.images]
    for path, image in zip(options.images, images):
        with no_grad():
            (shares,) = F.softmax(model.eval()(Tensor(image).to(get_device())), dim=1).to("cpu").numpy()
        names = classes or [str(label) for label in range(len(shares))]
        best = np.argsort(-shares, kind="stable")[:5]
        width = max(len(names[label]) for label in best)
        print(path)
        for label in best:
            print(f"  {names[label]:<{width}} {shares[label]:6.1%} {'█' * round(BAR * shares[label])}".rstrip())
    return 0


def summary(options: argparse.Namespace) -> int:
    import models

    chosen = dict(options.option or ())
    preset = models.preset(options.model, chosen.get("variant"))
    size = options.input_size or chosen.get("input_size") or preset.input_size
    model = models.build(options.model, **models.fitted(options.model, chosen, input_size=size)).to(get_device())
    channels = models.input_channels(options.model, **chosen)
    counted = count(model, (channels, size, size), options.batch_size)
    if options.csv:
        counted.to_csv(options.csv)
    print(counted)
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
        print(f"GPU: {describe_gpu()}")
    except DeviceError as error:
        print(f"GPU: none; {str(error).removeprefix('a GPU was asked for, but ')}")
    return 0
