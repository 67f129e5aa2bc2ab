"""What each command takes. What the commands do is in `train`, `measure`, `step_through`, `bench`, `grade` and
`experiment`."""

from __future__ import annotations

import argparse
import ast
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .. import __version__
from ..backend import PRECISIONS
from ..check.grading import Limits
from ..data.catalog import SOURCES
from ..data.recipes import AUGMENTATIONS
from ..training.schedule import SCHEDULES
from .bench import NETWORKS, bench
from .experiment import depth
from .grade import grade
from .measure import evaluate, info, predict, summary
from .step_through import step_through
from .train import train

STOPPING = (
    "Ctrl-C, SIGTERM and SIGHUP save the run and stop; a second Ctrl-C stops at once. A run that was stopped, or\n"
    "killed at any moment, goes on with --resume and ends the same to the last bit.\n\n"
    "The exit status is 0 when the training is complete, even if its output could not be written; 1 if it diverged,\n"
    "2 for a mistake, 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP."
)


def parser() -> argparse.ArgumentParser:
    """The parser of the command line.

    Among the options that it gives, `command` is the function to call with them, and `keeps_files` says whether its
    results are in files, so that it goes on where what it prints cannot be written.
    """
    import models

    whole = argparse.ArgumentParser(
        prog="minidl", description="Build, train and measure the networks of the lecture on CNN architectures."
    )
    whole.add_argument("--version", action="version", version=f"minidl {__version__}")
    machine = argparse.ArgumentParser(add_help=False)
    machine.add_argument("--device", metavar="NAME", help="cpu, gpu or gpu:N (default: MINIDL_DEVICE, else cpu)")
    machine.add_argument(
        "--threads", type=int, metavar="N", help="CPU threads (default: MINIDL_NUM_THREADS, else all processors)"
    )
    machine.add_argument(
        "--precision", choices=PRECISIONS, help="of a GPU's matrix products: float32, TF32, bfloat16 (default: highest)"
    )
    commands = whole.add_subparsers(required=True, metavar="COMMAND")

    def command(
        name: str, function: Callable[[argparse.Namespace], int], help: str, epilog: str = ""
    ) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name, help=help, description=help, epilog=epilog, parents=[machine],
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.set_defaults(command=function, keeps_files=False)
        return added

    training = command(
        "train", train, "Train a model, and keep the run in a folder.",
        "examples:\n"
        "  minidl train lenet5                          on the bundled digits\n"
        "  minidl train lenet5 --data mnist             downloads MNIST the first time\n"
        "  minidl train lenet5 --data mnist:FOLDER      the four idx files in FOLDER\n"
        "  minidl train resnet20 --data cifar10 --time-budget 60\n"
        "                                               as many epochs as fit into an hour\n"
        "  minidl train resnet18 --data imagefolder:FOLDER --input-size 128 --batch-size 32 --lr 0.0125\n"
        "                                               photographs in FOLDER/train/CLASS and FOLDER/val/CLASS\n"
        "  minidl train lenet5 --option variant=1998    an option of the model\n"
        "  minidl train --resume runs/NAME              go on after Ctrl-C or a crash\n\n"
        + STOPPING,
    )
    training.add_argument("model", nargs="?", help="the model's name, such as lenet5")
    training.add_argument("--seed", type=int, metavar="N", help="of everything random (default: 0)")
    training.add_argument(
        "--cuda-graph", action="store_true", help="launch each step on a GPU as one graph; not for dropout"
    )
    experiments = command(
        "experiment", depth, "Train plain and residual networks of 20 and 56 layers side by side.",
        "A run for each network and seed; tables (curves.csv, gradients.csv) and pictures (depth.png, gradients.png)\n"
        "of them all.\n\n"
        "examples:\n"
        "  minidl experiment depth --data cifar10 --time-budget 120\n"
        "  minidl experiment depth --data digits --input-size 16 --epochs 8\n"
        "                                               a small one, in a minute or two\n"
        "  minidl experiment depth --resume runs/depth  go on after Ctrl-C or a crash\n\n"
        + STOPPING,
    )
    experiments.add_argument("experiment", choices=("depth",), help="plain against residual networks")
    experiments.add_argument("--seeds", type=int, metavar="N", help="0 to N − 1, each a run (default: 1)")
    for subcommand, what in ((training, "run"), (experiments, "experiment")):
        subcommand.set_defaults(keeps_files=True)
        _add_recipe(subcommand, what)
    evaluation = command(
        "evaluate", evaluate, "Measure runs on their test images: loss, top-1 and top-5 error.",
        "examples:\n"
        "  minidl evaluate runs/NAME --ten-crop         the softmax averaged over corners, middle and mirror images\n"
        "  minidl evaluate runs/ONE runs/TWO            each, and the ensemble of both\n"
        "  minidl evaluate vgg16 --data imagefolder:FOLDER\n"
        "                                               the published weights, on photographs by WordNet id",
    )
    published = "a run folder, or the name of a model for its published weights"
    evaluation.add_argument("subjects", nargs="+", metavar="RUN", help=published)
    evaluation.add_argument("--data", metavar="NAME", help="other images than the run's own, as for train")
    evaluation.add_argument("--ten-crop", action="store_true", help="average over ten crops of each photograph")
    prediction = command(
        "predict", predict, "Say what a model sees in images.",
        "Images are files that Pillow reads (pip install 'minidl[images]'). Drawings are framed as in training\n"
        "(a digit of the bundled set fills its frame), bright strokes on a dark ground; --invert for dark ones\n"
        "on paper.\n\n"
        "examples:\n"
        "  minidl predict runs/NAME digit.png\n"
        "  minidl predict resnet50 cat.jpg              the published weights, downloaded the first time",
    )
    prediction.add_argument("subject", metavar="RUN", help=published)
    prediction.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="an image file")
    prediction.add_argument("--invert", action="store_true", help="dark strokes on a bright ground")
    stepping = command(
        "step-through", step_through, "Look at one forward and backward pass, an operation at a time, in a browser.",
        "examples:\n"
        "  minidl step-through lenet5                   fresh weights, the first test digit; open backward.html\n"
        "  minidl step-through runs/NAME --index 7      trained weights, another digit\n"
        "  minidl step-through resnet50 --input-size 64 modules are folded; a click opens one\n"
        "  minidl step-through lenet5 --text            in the terminal",
    )
    stepping.add_argument("subject", metavar="RUN", help="a run folder, or the name of a model for fresh weights")
    stepping.add_argument("--out", metavar="FILE", default="backward.html", help="the page (default: backward.html)")
    stepping.add_argument("--data", metavar="NAME", help="the images, as for train (default: the run's, or digits)")
    stepping.add_argument("--index", type=int, default=0, metavar="N", help="which test image (default: 0)")
    stepping.add_argument("--input-size", type=int, metavar="N", help="pixels a side (default: what it was made for)")
    stepping.add_argument("--text", action="store_true", help="print the steps instead of writing the page")
    for subcommand in (evaluation, prediction, stepping):
        subcommand.add_argument("--best", action="store_true", help="the weights of the best epoch instead of the last")
    counting = command(
        "summary", summary, "Count a model's neurons, parameters, multiply-adds and memory, layer by layer.",
        "examples:\n"
        "  minidl summary alexnet\n"
        "  minidl summary resnet50 --option variant=torchvision --batch-size 8 --csv resnet50.csv",
    )
    counting.add_argument("model", help=f"one of {', '.join(models.available())}")
    counting.add_argument("--input-size", type=int, metavar="N", help="pixels a side (default: what it was made for)")
    counting.add_argument("--batch-size", type=int, default=1, metavar="N", help="images at once (default: 1)")
    counting.add_argument("--csv", metavar="FILE", help="also write the rows to FILE")
    for subcommand in (training, counting, stepping):
        subcommand.add_argument(
            "--option", type=_assignment, action="append", metavar="NAME=VALUE", help="an option of the model"
        )
    timing = command(
        "bench", bench, "Measure the time and memory of inference and of a training step.",
        "examples:\n"
        "  minidl bench --against torch                 the networks of the record, each beside its twin in PyTorch\n"
        "  minidl bench resnet18 --batch 32             one network\n"
        "  minidl bench alexnet/torchvision --profile   which operations the time goes into",
    )
    timing.add_argument(
        "models", nargs="*", metavar="MODEL", help=f"a name, or name/variant (default: {', '.join(NETWORKS)})"
    )
    timing.add_argument("--batch", type=int, metavar="N", help="images at once (default: 4 to 64, by network)")
    timing.add_argument("--input-size", type=int, metavar="N", help="pixels a side (default: what it was made for)")
    timing.add_argument("--against", choices=("torch",), help="also measure the same network in PyTorch, in turn")
    timing.add_argument("--pairs", type=int, default=7, metavar="N", help="bursts of each (default: 7)")
    timing.add_argument("--cuda-graph", action="store_true", help="of minidl, measure training steps as CUDA graphs")
    timing.add_argument("--json", type=Path, metavar="FILE", help="also write the results to FILE")
    timing.add_argument("--profile", action="store_true", help="the time of a training step by operation, instead")
    grading = command(
        "grade", grade, "Check a folder of submissions to the exercises, and say what is wrong with each.",
        "A submission is a .py file, a notebook, or a folder of them; its name is the student's. A function answers\n"
        "the exercise of the same name (minidl.check.exercises() lists them). Notebooks run as plain scripts, cell by\n"
        "cell. A statement that fails is noted, and the next one runs.\n\n"
        "Each submission runs in a process of its own, on a copy in a temporary folder, and is judged outside it.\n"
        "Only regular files of up to 64 MiB are copied, and the temporary folder may take 512 MiB. The files of a\n"
        "folder can import each other; no file replaces a module of Python, whatever its name. The limits are for\n"
        "accidents: it is no sandbox, a submission has your rights. What you do not trust, grade in a container.\n\n"
        "The exit status is 0 once all are graded, whatever the grades; 2 for a mistake in the command.\n\n"
        "examples:\n"
        "  minidl grade submissions\n"
        "  minidl grade submissions --seconds 30 --memory 1024 --json grades.json",
    )
    limits = Limits()
    grading.add_argument("folder", type=Path, metavar="FOLDER", help="one file or folder in it for each student")
    grading.add_argument(
        "--seconds", type=float, default=limits.seconds, metavar="X",
        help=f"to load a submission, and again for each exercise (default: {limits.seconds:g})",
    )
    grading.add_argument(
        "--memory", type=int, default=limits.memory, metavar="MIB",
        help=f"MiB of address space per submission (default: {limits.memory})",
    )
    grading.add_argument("--jobs", type=int, metavar="N", help="submissions at once (default: all processors)")
    grading.add_argument("--json", type=Path, metavar="FILE", help="also write the grades, with full messages, to FILE")
    command("info", info, "Show versions, BLAS, threads and devices.")
    return whole


def _add_recipe(parser: argparse.ArgumentParser, what: str) -> None:
    """The options of `train` and of `experiment`: on what to train, and how."""
    parser.add_argument("--data", metavar="NAME", help=f"{', '.join(SOURCES)}; or NAME:FOLDER (default: digits)")
    parser.add_argument("--images", type=int, metavar="N", help="train on so many of the images (default: all)")
    parser.add_argument("--resume", metavar="FOLDER", help=f"go on with the {what} in it, as that was configured")
    default = "runs/MODEL-DATA-TIME" if what == "run" else "runs/depth"
    parser.add_argument("--out", metavar="FOLDER", help=f"the folder of the {what} (default: {default})")
    parser.add_argument(
        "--time-budget", type=float, metavar="MINUTES", help="instead of --epochs: as many as fit into this time"
    )
    for name, kind, help in (
        ("input-size", int, "pixels a side that the images are brought to"),
        ("epochs", int, "passes over the training images"),
        ("batch-size", int, "images in a step"),
        ("lr", float, "the highest learning rate"),
        ("momentum", float, "of SGD"),
        ("weight-decay", float, "of the weights; biases and normalisation have none"),
        ("warmup", float, "epochs in which the learning rate rises; not for one_cycle"),
        ("gamma", float, "what the schedule steps multiplies the learning rate by"),
        ("shift", int, "pixels by which training images are moved at random"),
    ):
        letter = "X" if kind is float else "N"
        parser.add_argument(f"--{name}", type=kind, metavar=letter, help=f"{help} (default: the model's own)")
    parser.add_argument("--schedule", choices=SCHEDULES, help="of the learning rate (default: the model's own)")
    parser.add_argument(
        "--milestones", type=float, nargs="+", metavar="X",
        help="where steps does so, as shares of the training (default: the model's own)",
    )
    parser.add_argument(
        "--augment", choices=AUGMENTATIONS, help="how photographs are varied (default: the model's own)"
    )
    parser.add_argument(
        "--workers", type=int, metavar="N",
        help="threads that prepare batches ahead (default: 1 for a folder of photographs, else 0)",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.add_argument(
        "--save-every", type=_minutes, default=10.0, metavar="MINUTES",
        help="also save within an epoch, this often; 0 saves after every batch (default: 10)",
    )


def _minutes(text: str) -> float:
    minutes = float(text)
    if not minutes >= 0:
        raise argparse.ArgumentTypeError(f"must be a number of minutes from 0; got {text}")
    return minutes


def _assignment(text: str) -> tuple[str, Any]:
    """``name=value``, the value as JSON (true, null) or Python's numbers, tuples and lists if it is some, else text."""
    name, equals, value = text.partition("=")
    if not (name.isidentifier() and equals):
        raise argparse.ArgumentTypeError(f"must be NAME=VALUE; got {text!r}")
    if name == "variant":
        return name, value
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(value)
        except (ValueError, SyntaxError):
            continue
        return name, list(found) if isinstance(found, tuple) else found
    return name, value
