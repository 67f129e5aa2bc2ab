"""Training: it learns; a seed decides every bit; a run that was stopped or killed ends as if it had not been."""

import csv
import dataclasses
import itertools
import json
import re
import shlex
import signal
import subprocess
import sys
import time
import types

import numpy as np
import pytest

import minidl as dl
import models
from minidl import backend, nn
from minidl.cli import main
from minidl.cli.assembly import trainer_of
from minidl.data import ArrayDataset, DataLoader, catalog, digits
from minidl.io import load_with_metadata
from minidl.kernels.cpu import threads
from minidl.optim import SGD
from minidl.training import Configuration, Diverged, Evaluation, Run, Trainer, evaluate

TIMES = {"seconds", "images_per_second"}  # what no seed decides
DIGITS = Configuration(model="lenet5", data="digits", input_size=32, epochs=3, batch_size=32, lr=0.05, momentum=0.9,
                       weight_decay=1e-4, schedule="one_cycle", shift=2, seed=0)


def changed(configuration=DIGITS, **changes):
    return Configuration(**{**vars(configuration), **changes})


@pytest.fixture(autouse=True)
def settings_of_the_process(monkeypatch):
    """Put back after each test what training changes for the whole process."""
    monkeypatch.setattr(threads, "_num_threads", threads._num_threads)
    monkeypatch.setattr(backend, "_generator", backend._generator)


def few_digits(train=True, transform=None):
    data = digits(train, transform)
    return ArrayDataset(data.images[:90], data.labels[:90], transform, data.classes, scale=16)


def tiny(width=4):
    """A network that also has statistics and draws random numbers while it trains."""
    return nn.Sequential(nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                         nn.Dropout(0.3), nn.Linear(9 * width, 10))


@pytest.fixture
def small(monkeypatch):
    """A run of three epochs of five batches each, the last one not full; without the picture, which takes longest."""
    monkeypatch.setitem(catalog.SOURCES, "digits", dataclasses.replace(catalog.SOURCES["digits"], open=few_digits))
    monkeypatch.setitem(models.FACTORIES, "tiny", tiny)
    monkeypatch.setattr("minidl.plot.curves", lambda *_: types.SimpleNamespace(save=lambda path: None))
    return changed(model="tiny", input_size=8, batch_size=20)


def asked(times):
    """A `stop` that agrees after having been asked so often: it is, before each epoch and after each of its batches."""
    answers = itertools.chain([False] * times, itertools.repeat(True))
    return lambda: next(answers)


def train(trainer, stop=lambda: False):
    for _ in trainer.epochs_to_go(stop, quiet=True):
        pass
    return trainer


def bits(tensors):
    return {name: np.asarray(getattr(value, "data", value)).tobytes() for name, value in tensors.items()}


def without_times(rows):
    return [{name: value for name, value in row.items() if name not in TIMES} for row in rows]


def state_of(trainer):
    """All that a seed decides: weights, momenta, statistics, rates, the place in the data, random numbers, history."""
    tensors, values = trainer.state()
    return bits(tensors), {**values, "history": without_times(values["history"]), "epoch_so_far": None}


# It learns, and the seed decides how

@pytest.mark.parametrize("shift", [0, 2])
def test_a_run_sees_normalised_images_moved_on_black_ground(shift):
    source = catalog.SOURCES["digits"]
    data = catalog.open_dataset("digits", train=True, input_size=32, shift=shift)
    images, _ = data.fetch(range(len(data)), np.random.default_rng(0))
    assert images.shape == (1442, 1, 32, 32)
    assert images.min() == pytest.approx(-source.mean / source.std)  # nothing is darker than black, the margin included
    assert (images[:, 0, 0, 0] == images.min()).all()
    if shift == 0:
        assert (images.mean(), images.std()) == pytest.approx((0, 1), abs=2e-3)


@pytest.mark.parametrize("changes, accuracy", [
    ({"epochs": 4}, 0.93),
    ({"epochs": 3, "model_options": {"variant": "1998"}, "lr": 0.002}, 0.9),
])
def test_lenet5_learns_the_digits(changes, accuracy):
    trainer = train(trainer_of(changed(**changes), workers=0))
    assert trainer.finished
    assert [row["epoch"] for row in trainer.history] == [*range(1, changes["epochs"] + 1)]
    assert trainer.history[-1]["test_accuracy"] > accuracy
    assert trainer.history[-1]["train_loss"] < trainer.history[0]["train_loss"] / 3
    for row in trainer.history:
        assert row["images_per_second"] == pytest.approx(1442 / row["seconds"])


@pytest.mark.parametrize("model, size", [("lenet5", 32), ("tiny", 8)])
def test_the_same_seed_gives_the_same_bits_whatever_the_number_of_threads(small, model, size, monkeypatch):
    monkeypatch.setattr("minidl.kernels.cpu.threads.ENOUGH_BYTES", 0)  # let threads work on small batches too

    def bits_of(seed, number, workers=0):
        dl.set_num_threads(number)
        return state_of(train(trainer_of(changed(small, model=model, input_size=size, seed=seed), workers)))

    first = bits_of(seed=0, number=2)
    for again in bits_of(0, 2), bits_of(0, 1), bits_of(0, 3), bits_of(0, 2, workers=2):
        assert again == first
    tensors, values = bits_of(seed=1, number=2)
    assert tensors != first[0] and values["history"] != first[1]["history"]


@pytest.mark.parametrize("schedule, first, last", [("one_cycle", 1 / 25, 0), ("cosine", 1, 0), ("constant", 1, 1)])
def test_the_rate_follows_the_schedule_batch_by_batch(small, schedule, first, last):
    trainer, rates = trainer_of(changed(small, schedule=schedule, lr=2.0, epochs=1, batch_size=1), workers=0), []
    train(trainer, lambda: rates.append(trainer.optimizer.param_groups[0]["lr"]))
    assert (rates[0], max(rates), rates[-2]) == pytest.approx((2 * first, 2, 2 * last), abs=0.01)


def test_a_row_holds_the_rate_that_its_epoch_was_trained_with(small):
    trainer = trainer_of(changed(small, schedule="steps", milestones=[0.5], lr=0.02, epochs=2), workers=0)
    train(trainer)
    assert [row["lr"] for row in trainer.history] == pytest.approx([0.02, 0.002])


class Fixed(nn.Module):
    """Logits that no step changes: the pixels times fixed numbers, plus a parameter that is always 0."""

    def __init__(self):
        self.zero = nn.Parameter(np.zeros(10, np.float32))
        self.mixing = np.random.default_rng(0).standard_normal((64, 10)).astype(np.float32)

    def forward(self, x):
        return x.reshape(len(x), -1) @ dl.tensor(self.mixing) + self.zero


def by_hand(data):
    images, labels = data.fetch(range(len(data)), np.random.default_rng())
    logits = images.reshape(len(images), -1).astype(float) @ Fixed().mixing
    losses = np.log(np.exp(logits).sum(axis=1)) - logits[range(len(labels)), labels]
    return losses.mean(), np.mean(logits.argmax(axis=1) == labels)


def test_a_row_measures_loss_and_accuracy_as_one_does_by_hand():
    train_data, test_data, model = few_digits(), few_digits(train=False), Fixed()
    trainer = Trainer(model, SGD(model.parameters(), lr=0.0), None, DataLoader(train_data, 20, shuffle=True),
                      DataLoader(test_data, 40), epochs=1)  # 90 images: batches of 20 and of 40 leave a rest
    (row,) = trainer.epochs_to_go(quiet=True)
    assert (row["train_loss"], row["train_accuracy"]) == pytest.approx(by_hand(train_data))
    assert (row["test_loss"], row["test_accuracy"]) == pytest.approx(by_hand(test_data))
    assert row.keys() == {"epoch", "lr", "train_loss", "train_accuracy", "test_loss", "test_accuracy", *TIMES}


@pytest.mark.parametrize("empty", ["training", "test"])
def test_a_data_set_without_images_is_refused_before_training(empty):
    some, none = DataLoader(few_digits(), 20), DataLoader(ArrayDataset(np.zeros((0, 1, 8, 8)), []), 20)
    loaders = {"train": none, "test": some} if empty == "training" else {"train": some, "test": none}
    model = Fixed()
    with pytest.raises(ValueError, match=f"there are no {empty} images"):
        Trainer(model, SGD(model.parameters()), None, **loaders, epochs=1)


# Stopped and resumed

@pytest.mark.parametrize("options", [
    {"schedule": "one_cycle"}, {"schedule": "cosine"}, {"schedule": "constant"}, {"shift": 0, "momentum": 0.0},
    {"model": "lenet5", "input_size": 32, "epochs": 2},
], ids=str)
@pytest.mark.parametrize("batches", [1, 2, 5, 6, 7])  # an epoch has 5: 5 stops before its test, 6 between two epochs
def test_a_run_resumed_from_disk_ends_as_if_it_had_not_been_stopped(small, tmp_path, options, batches):
    configuration = changed(small, **options)
    run, sessions, finished = Run.create(tmp_path / "run", configuration), 0, False
    while not finished:
        trainer = trainer_of(configuration, workers=sessions % 2)  # who prepares the batches does not matter
        run.resume(trainer)
        run.save(train(trainer, asked(batches)))
        sessions, finished = sessions + 1, trainer.finished
    assert sessions > 1
    assert state_of(trainer) == state_of(train(trainer_of(configuration, workers=0)))


@pytest.mark.parametrize("batches", [1, 3, 5, 6])
def test_a_trainer_that_was_stopped_goes_on_as_if_it_had_not_been(small, batches):
    trainer = trainer_of(small, workers=0)
    while not trainer.finished:
        train(trainer, asked(batches)).model.eval()  # somebody may try it in between
    assert state_of(trainer) == state_of(train(trainer_of(small, workers=0)))


# Killed and resumed: the command line in a process of its own

OPTIONS = ["lenet5", "--epochs", "3", "--quiet"]


def start(folder):
    """A training process, once its run folder is there."""
    command = [sys.executable, "-m", "minidl", "train", *OPTIONS, "--out", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not (folder / "config.json").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)
    return process


def kept(folder):
    """All that a seed decides in the files of a run."""
    with open(folder / "metrics.csv", newline="") as file:
        return bits(dl.load(folder / "last.safetensors")), without_times(csv.DictReader(file))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """What a run that nobody touched has kept, and the seconds it took."""
    folder = tmp_path_factory.mktemp("runs") / "uninterrupted"
    process, started = start(folder), time.perf_counter()
    out, err = process.communicate()
    assert process.returncode == 0, err
    return kept(folder), time.perf_counter() - started


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="skipped: Windows has no SIGKILL")
@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.9])
def test_a_killed_run_resumes_and_ends_as_if_it_had_not_been(tmp_path, uninterrupted, share):
    expected, seconds = uninterrupted
    folder = tmp_path / "run"
    process = start(folder)
    time.sleep(share * seconds)  # a machine is never as fast twice: the moment is random enough
    process.kill()
    process.communicate()
    assert main(["train", "--resume", str(folder), "--quiet"]) == 0
    assert kept(folder) == expected


@pytest.mark.skipif(sys.platform == "win32", reason="skipped: Windows sends no SIGINT to one process")
def test_ctrl_c_leaves_a_run_that_resumes_and_says_how(tmp_path, uninterrupted):
    folder = tmp_path / "my run"  # the space must not break the command that is shown
    process = start(folder)
    next(line for line in process.stdout if line.startswith("epoch   1/3"))
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert process.returncode == 130 and "Traceback" not in err
    command = re.search(r"interrupted in epoch \d of 3; go on with: minidl (train --resume .+)", out)[1]
    assert main([*shlex.split(command), "--quiet"]) == 0
    assert kept(folder) == uninterrupted[0]


# Diverged

@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, of the overflow that is provoked here
def test_a_loss_that_diverges_is_said_with_epoch_rate_and_advice_and_the_weights_are_kept(small):
    trainer = trainer_of(changed(small, model="lenet5", input_size=32, lr=1e30, schedule="constant"), workers=0)
    after_batches = []
    with pytest.raises(Diverged, match=r"the loss became (nan|inf) in epoch 1, after [246]0 images, "
                                       r"at a learning rate of 1e\+30: .* Try a rate of 1e\+29"):
        train(trainer, lambda: after_batches.append(bits(trainer.model.state_dict())))
    assert bits(trainer.model.state_dict()) == after_batches[-1] != after_batches[0]


def test_a_model_that_only_the_test_images_show_to_have_diverged(small, monkeypatch):
    monkeypatch.setattr("minidl.training.trainer.evaluate", lambda *_: Evaluation(float("nan"), 0.1, 0.5))
    trainer = trainer_of(changed(small, epochs=1), workers=0)
    with pytest.raises(Diverged, match="the loss on the test images became nan in epoch 1, after 90 images, at a "):
        train(trainer)
    assert trainer.history == []  # and no checkpoint is written of it


def test_images_that_are_not_finite_are_suspected_too(small):
    images = few_digits().images.astype(np.float32)
    images[7, 0, 3, 3] = np.nan
    trainer = trainer_of(small, workers=0)
    trainer.train.dataset = ArrayDataset(images, few_digits().labels)
    with pytest.raises(Diverged, match="in epoch 1, .* or the data holds values that are not finite"):
        train(trainer)


# Evaluation

class Broken(ArrayDataset):
    def fetch(self, indices, rng):
        raise OSError("the disk is gone")


@pytest.mark.parametrize("data, error", [
    (few_digits(), None),
    (Broken(np.zeros((3, 1, 8, 8)), [0, 1, 2]), OSError),
    (ArrayDataset(np.zeros((0, 1, 8, 8)), []), ValueError),
])
def test_evaluation_puts_the_mode_of_every_module_back(data, error):
    model = tiny().train()
    model[1].eval()  # a frozen batch norm stays frozen
    modes, before = [module.training for module in model.modules()], bits(model.state_dict())
    if error is None:
        assert 0 <= evaluate(model, DataLoader(data, 40)).accuracy <= 1
    else:
        with pytest.raises(error):
            evaluate(model, DataLoader(data, 40))
    assert [module.training for module in model.modules()] == modes
    assert bits(model.state_dict()) == before  # and no statistics moved
    assert dl.is_grad_enabled()


def test_evaluation_drops_nothing_out():
    model, loader = tiny(), DataLoader(few_digits(), 40)
    assert evaluate(model.train(), loader) == evaluate(model.eval(), loader)


# The configuration

@pytest.mark.parametrize("changes", [{}, {"model_options": {"variant": "1998"}, "seed": 10**30, "lr": 0}])
def test_a_configuration_comes_back_from_disk(tmp_path, changes):
    path = tmp_path / "config.json"
    changed(**changes).write(path)
    assert Configuration.read(path) == changed(**changes)
    assert json.loads(path.read_text()) == vars(changed(**changes))


WRONG = [
    *((name, value) for name in ("epochs", "batch_size", "input_size") for value in (0, -1, 2.0, True, "3", None)),
    *((name, value) for name in ("shift", "seed") for value in (-1, 0.5, False, None)),
    *((name, value) for name in ("lr", "momentum", "weight_decay")
      for value in (-0.1, float("nan"), float("inf"), True, "0.1", None)),
    *(("schedule", value) for value in ("step", None, ["cosine"])),
    ("model", 5), ("data", None), ("model_options", None), ("model_options", ["variant"]),
]


@pytest.mark.parametrize("name, value", WRONG)
def test_a_value_out_of_range_is_refused_by_name_also_from_disk(tmp_path, name, value):
    with pytest.raises(ValueError, match=rf"^{name} must .*; got {re.escape(repr(value))}"):
        changed(**{name: value})
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**vars(DIGITS), name: value}))
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))} does not fit: {name} must "):
        Configuration.read(path)


@pytest.mark.parametrize("content, complaint", [
    (json.dumps(vars(DIGITS))[:-9], "damaged: not JSON"),
    ("", "damaged: not JSON"),
    ("\xff", "damaged: not JSON"),  # no UTF-8
    ("[" * 100_000, "damaged: not JSON"),
    ("[1, 2]", "not the configuration of a run: needs .* found list"),
    (json.dumps({"model": "lenet5"}), r"not the configuration of a run: needs \['batch_size', .*found \['model'\]"),
    (json.dumps({**vars(DIGITS), "speed": 1}), "not the configuration of a run: needs .*found .*'speed'"),
], ids=["cut short", "empty", "not text", "nested", "a list", "keys missing", "unknown key"])
def test_a_configuration_that_is_none_is_refused_with_its_path(tmp_path, content, complaint):
    path = tmp_path / "config.json"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))} is {complaint}"):
        Run.open(tmp_path)


def test_model_options_may_be_left_out(tmp_path):
    values = {name: value for name, value in vars(DIGITS).items() if name != "model_options"}
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert Run.open(tmp_path).configuration == DIGITS


# The folder of a run

def test_there_is_one_run_in_a_folder(tmp_path):
    Run.create(tmp_path / "a" / "b", DIGITS)
    with pytest.raises(FileExistsError, match="there is a run in .* already; go on with --resume "):
        Run.create(tmp_path / "a" / "b", changed(epochs=7))
    assert Run.open(tmp_path / "a" / "b").configuration == DIGITS
    with pytest.raises(FileNotFoundError, match="there is no run in .*: it has no config.json"):
        Run.open(tmp_path)


def test_a_run_that_never_saved_resumes_at_the_start(small, tmp_path):
    trainer = trainer_of(small, workers=0)
    before = state_of(trainer)
    run = Run.create(tmp_path, small)
    run.resume(trainer)
    assert state_of(trainer) == before
    with pytest.raises(FileNotFoundError, match="there is no file .*last.safetensors"):
        run.load_weights(trainer.model)


def test_metrics_are_the_history_digit_by_digit(small, tmp_path):
    trainer, run = train(trainer_of(small, workers=0)), Run.create(tmp_path, small)
    run.save(trainer)
    with open(tmp_path / "metrics.csv", newline="") as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    assert rows == trainer.history


def test_a_table_that_a_kill_left_behind_the_state_is_mended(small, tmp_path):
    trainer, run = trainer_of(small, workers=0), Run.create(tmp_path, small)
    for row in trainer.epochs_to_go(quiet=True):
        run.save(trainer)
        if row["epoch"] == 2:
            behind = (tmp_path / "metrics.csv").read_bytes()
    whole = (tmp_path / "metrics.csv").read_bytes()
    (tmp_path / "metrics.csv").write_bytes(behind)
    run.resume(trainer_of(small, workers=0))
    assert (tmp_path / "metrics.csv").read_bytes() == whole != behind


def test_best_holds_the_weights_of_the_best_epoch_and_last_those_of_the_last_batch(small, tmp_path, monkeypatch):
    accuracies = iter([0.5, 0.9, 0.9, 0.7])
    monkeypatch.setattr("minidl.training.trainer.evaluate", lambda *_: Evaluation(1.0, next(accuracies), 1.0))
    trainer, run = trainer_of(changed(small, epochs=5), workers=0), Run.create(tmp_path, small)
    after_epoch = []
    for _ in trainer.epochs_to_go(quiet=True):
        run.save(trainer)
        after_epoch.append(bits(trainer.model.state_dict()))
        if len(after_epoch) in (2, 3):  # Ctrl-C in the epoch after the best one: its weights are not the best ones
            train(trainer, asked(2))
            run.save(trainer)
        if len(after_epoch) == 4:
            break
    assert bits(dl.load(tmp_path / "best.safetensors")) == after_epoch[2]  # of equals, the later one
    model = tiny()
    for best, expected in (True, after_epoch[2]), (False, after_epoch[3]):
        run.load_weights(model, best=best)
        assert bits(model.state_dict()) == expected


@pytest.mark.parametrize("damage", [
    lambda tensors, values: (tensors, {}),
    lambda tensors, values: (tensors, []),
    lambda tensors, values: (tensors, {**values, "schedule": None}),
    lambda tensors, values: (tensors, {**values, "schedule": {}}),
    lambda tensors, values: (tensors, {**values, "train": {"epoch": 1}}),
    lambda tensors, values: (tensors, {**values, "train": {**values["train"], "batch": 99}}),
    lambda tensors, values: (tensors, {**values, "random": {}}),
    lambda tensors, values: (tensors, {**values, "random": None}),
    lambda tensors, values: (tensors, {**values, "history": None}),
    lambda tensors, values: (tensors, {**values, "epoch_so_far": {"lost": 1}}),
    lambda tensors, values: (tensors, {**values, "param_groups": []}),
    lambda tensors, values: (tensors, {**values, "param_groups": [1]}),
    lambda tensors, values: (tensors, {**values, "history": values["history"] * 2}),
    lambda tensors, values: (tensors, {**values, "history": []}),
    lambda tensors, values: (tensors, {**values, "history": [{**values["history"][0], "test_accuracy": "x"}]}),
    lambda tensors, values: (tensors, {**values, "history": [{**values["history"][0], "seconds": float("nan")}]}),
    lambda tensors, values: (tensors, {**values, "epoch_so_far": {**values["epoch_so_far"], "images": 10**30}}),
    lambda tensors, values: (tensors, {**values, "epoch_so_far": {**values["epoch_so_far"], "seconds": 0}}),
    lambda tensors, values: (tensors, {**values, "epoch_so_far": {**values["epoch_so_far"], "trained": True}}),
    lambda tensors, values: (tensors, {**values, "schedule": {**values["schedule"], "last_epoch": 10**30}}),
    lambda tensors, values: (tensors, {**values, "schedule": {**values["schedule"], "last_epoch": True}}),
    lambda tensors, values: (tensors, {**values, "train": {**values["train"], "epoch": 7}}),
    lambda tensors, values: (tensors, {**values, "random": {**values["random"], "uinteger": 10**60}}),
    lambda tensors, values: (tensors, {**values, "param_groups": [
        {**group, "params": group["params"][::-1]} for group in values["param_groups"]]}),
    lambda tensors, values: (tensors, {**values, "param_groups": [
        {**group, "lr": None} for group in values["param_groups"]]}),
    lambda tensors, values: ({n: t for n, t in tensors.items() if n != "model.0.bias"}, values),
    lambda tensors, values: ({**tensors, "model.0.bias": np.zeros(7)}, values),
    lambda tensors, values: ({**tensors, "optimizer.x.momentum_buffer": np.zeros(7)}, values),
    lambda tensors, values: ({**tensors, "optimizer.0.momentum_buffer": np.zeros(7)}, values),
    lambda tensors, values: ({**tensors, "optimizer.99.momentum_buffer": np.zeros(7)}, values),
])
def test_a_checkpoint_that_does_not_fit_the_run_is_refused_with_its_path(small, tmp_path, damage):
    run, path = Run.create(tmp_path, small), tmp_path / "last.safetensors"
    run.save(train(trainer_of(small, workers=0), asked(8)))
    tensors, text = load_with_metadata(path)
    tensors, values = damage(tensors, json.loads(text["training"]))
    dl.save(tensors, path, {"training": json.dumps(values)})
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))} does not hold the state of this run: "):
        run.resume(trainer_of(small, workers=0))


@pytest.mark.parametrize("text", [{}, {"training": "{"}, {"training": "3"}])
def test_a_checkpoint_without_its_text_is_refused_with_its_path(small, tmp_path, text):
    dl.save(trainer_of(small, workers=0).state()[0], tmp_path / "last.safetensors", text)
    with pytest.raises(ValueError, match="last.safetensors does not hold the state of this run"):
        Run(tmp_path, small).resume(trainer_of(small, workers=0))


# The picture

@pytest.fixture
def no_matplotlib(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)


def test_without_matplotlib_a_run_has_no_picture(tmp_path, no_matplotlib):
    assert main(["train", "lenet5", "--epochs", "1", "--quiet", "--out", str(tmp_path / "run")]) == 0
    names = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert names == ["best.safetensors", "config.json", "last.safetensors", "metrics.csv"]
