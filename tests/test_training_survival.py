"""Runs survive: a kill at any file operation or moment, signals, and changes of what they were made with."""

import builtins
import csv
import dataclasses
import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import types

import numpy as np
import pytest

import minidl as dl
from minidl import backend
from minidl.cli import main
from minidl.cli.assembly import trainer_of
from minidl.io import load_with_metadata
from minidl.kernels.cpu import threads
from minidl.training import Run, Trainer
from minidl.training.signals import finish_first, stop_on_signal

TIMES = {"seconds", "images_per_second"}  # what no seed decides
COMMAND = ["train", "lenet5", "--images", "50", "--batch-size", "20", "--epochs", "2", "--quiet"]
BATCHES = 2 * 3


@pytest.fixture(autouse=True)
def settings_of_the_process(monkeypatch):
    monkeypatch.setattr(threads, "_num_threads", threads._num_threads)
    monkeypatch.setattr(backend, "_generator", backend._generator)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)  # pictures take longest


def kept(folder):
    """All that a seed decides in the files of a run, by the files' names."""
    found = {}
    for path in folder.iterdir():
        if path.suffix == ".safetensors":
            tensors, text = load_with_metadata(path)
            values = json.loads(text.get("training", "null"))
            if values:
                del values["epoch_so_far"]["seconds"]
                values["history"] = without_times(values["history"])
            found[path.name] = {name: value.data.tobytes() for name, value in tensors.items()}, text["run"], values
        elif path.suffix == ".csv":
            with open(path, newline="") as file:
                found[path.name] = without_times(csv.DictReader(file))
        else:
            found[path.name] = None if path.suffix == ".png" else path.read_bytes()
    return found


def without_times(rows):
    return [{name: value for name, value in row.items() if name not in TIMES} for row in rows]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The folder of a run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("runs") / "undisturbed"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("importlib.util.find_spec", lambda name: None)
        assert main([*COMMAND, "--out", str(folder)]) == 0
    return folder


# Within an epoch

@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_that_is_saved_after_every_batch_is_the_same(tmp_path, undisturbed, workers, monkeypatch):
    batches, save = [], Run.save

    def noted(run, trainer):
        save(run, trainer)
        text = load_with_metadata(run.folder / "last.safetensors")[1]["training"]
        batches.append((len(trainer.history), json.loads(text)["train"]["batch"]))

    monkeypatch.setattr(Run, "save", noted)
    options = ["--save-every", "0", "--workers", str(workers), "--out", str(tmp_path / "run")]
    assert main([*COMMAND, *options]) == 0
    assert batches == [(0, 1), (0, 2), (0, 3), (1, 0), (1, 1), (1, 2), (1, 3), (2, 0)]
    assert kept(tmp_path / "run") == kept(undisturbed)


def test_within_an_epoch_a_run_is_saved_every_few_minutes(undisturbed, monkeypatch):
    now, saves, train_batch = [0.0], [], Trainer._train_batch

    def slow(*arguments):
        now[0] += 240  # four minutes
        return train_batch(*arguments)

    monkeypatch.setattr(Trainer, "_train_batch", slow)
    monkeypatch.setattr("minidl.training.run.time", types.SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(Run, "save", lambda run, trainer: saves.append(trainer.train.state_dict()["batch"]))
    run = Run.open(undisturbed)
    for minutes, expected in (10, [3, 0, 3, 0]), (5, [2, 0, 2, 0]), (float("inf"), [0, 0]):
        saves.clear()
        list(run.epochs(trainer_of(run.configuration, 0), save_every=minutes, quiet=True))
        assert saves == expected


@pytest.mark.parametrize("minutes", ["-1", "nan", "soon"])
def test_minutes_are_a_number_from_0(capsys, minutes):
    with pytest.raises(SystemExit):
        main([*COMMAND, "--save-every", minutes])
    assert "--save-every: " in capsys.readouterr().err


# Killed at a file operation

class Killed(BaseException):
    """Takes the place of SIGKILL: from that moment on, nothing on the disk changes."""


@pytest.fixture
def kill(monkeypatch):
    """``kill(n)``: the nth file operation from now on, and all that follow, raise `Killed`; gives their counter."""
    counter = types.SimpleNamespace(done=0, limit=None)

    def guarded(function, changes=lambda *_, **__: True):
        def call(*arguments, **options):
            if changes(*arguments, **options):
                counter.done += 1
                if counter.limit is not None and counter.done > counter.limit:
                    raise Killed
            return function(*arguments, **options)

        return call

    def writes(file, mode="r", *_, **__):
        return not isinstance(file, int) and any(letter in mode for letter in "wxa+")

    for module, name in (builtins, "open"), (io, "open"):
        monkeypatch.setattr(module, name, guarded(getattr(module, name), writes))
    for name in ("replace", "link", "unlink", "mkdir", "rmdir", "fsync"):
        monkeypatch.setattr(os, name, guarded(getattr(os, name)))

    def begin(limit):
        counter.done, counter.limit = 0, limit
        return counter

    return begin


def train_in(folder, configuration, save_every):
    """Begin a run, or go on with the one that is there."""
    run = Run.open(folder) if (folder / "config.json").exists() else Run.create(folder, configuration)
    trainer = trainer_of(configuration, workers=0)
    with run.locked():
        run.resume(trainer)
        for _ in run.epochs(trainer, save_every=save_every, quiet=True):
            pass


@pytest.mark.parametrize("save_every, step", [
    (10, 3), pytest.param(10, 1, marks=pytest.mark.slow), pytest.param(0, 1, marks=pytest.mark.slow),
])
def test_a_run_that_was_killed_at_any_file_operation_resumes_and_ends_the_same(
    tmp_path, kill, undisturbed, save_every, step
):
    configuration, expected = Run.open(undisturbed).configuration, kept(undisturbed)
    counter = kill(None)
    train_in(tmp_path / "all", configuration, save_every)
    operations = counter.done
    assert operations > 20
    for limit in range(0, operations, step):
        folder = tmp_path / str(limit)
        kill(limit)
        with pytest.raises(Killed):
            train_in(folder, configuration, save_every)
        kill(None)
        train_in(folder, configuration, save_every)
        assert kept(folder) == expected, f"killed at operation {limit + 1} of {operations}"


# Stopped by a signal

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


@pytest.fixture(autouse=True)
def handlers():
    """Signals act as in a new process, also where the shell started pytest in the background."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def at_call(monkeypatch, owner, name, number, signals):
    """Let the calling of a function for the `number`th time raise `signals`."""
    function, calls = getattr(owner, name), []

    def call(*arguments, **options):
        calls.append(arguments)
        if len(calls) == number:
            for each in signals:
                signal.raise_signal(each)
        return function(*arguments, **options)

    monkeypatch.setattr(owner, name, call)
    return calls


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_a_signal_saves_the_run_and_its_number_is_in_the_status(tmp_path, monkeypatch, capsys, undisturbed, number):
    folder = tmp_path / "my run"
    batches = at_call(monkeypatch, Trainer, "_train_batch", 2, [number])
    assert main([*COMMAND, "--out", str(folder)]) == 128 + number
    assert len(batches) == 2  # the running batch ends, and no other begins
    assert capsys.readouterr().out.endswith(
        f"interrupted in epoch 1 of 2; go on with: minidl train --resume '{folder}'\n")
    assert main(["train", "--resume", str(folder), "--quiet"]) == 0
    assert len(batches) == BATCHES and kept(folder) == kept(undisturbed)


def test_a_signal_during_the_test_of_an_epoch_saves_what_was_trained(tmp_path, monkeypatch, undisturbed):
    monkeypatch.setattr("minidl.cli.assembly.EVALUATION_PIXELS", 50 * 32 * 32)
    at_call(monkeypatch, sys.modules["minidl.training.evaluation"], "_log_softmax", 3, [signal.SIGTERM])
    batches = at_call(monkeypatch, Trainer, "_train_batch", 0, [])
    folder = tmp_path / "run"
    assert main([*COMMAND, "--out", str(folder)]) == 143
    values = json.loads(load_with_metadata(folder / "last.safetensors")[1]["training"])
    assert len(batches) == 3 and values["epoch_so_far"]["images"] == 50 and values["history"] == []
    assert main(["train", "--resume", str(folder), "--quiet"]) == 0
    assert len(batches) == BATCHES and kept(folder).keys() == kept(undisturbed).keys()
    for name in ("last.safetensors", "best.safetensors"):
        assert kept(folder)[name][0] == kept(undisturbed)[name][0]


def test_ctrl_c_twice_during_a_save_stops_after_it(tmp_path, monkeypatch, undisturbed):
    folder = tmp_path / "run"
    at_call(monkeypatch, sys.modules["minidl.training.run"], "save", 2, [signal.SIGINT] * 3)  # last, after epoch 1
    assert main([*COMMAND, "--out", str(folder)]) == 130
    assert [row["epoch"] for row in kept(folder)["metrics.csv"]] == ["1"]
    assert main(["train", "--resume", str(folder), "--quiet"]) == 0
    assert kept(folder) == kept(undisturbed)


def test_a_second_ctrl_c_in_a_batch_leaves_what_was_saved_before(tmp_path, monkeypatch, undisturbed):
    folder = tmp_path / "run"
    at_call(monkeypatch, Trainer, "_train_batch", 5, [signal.SIGINT] * 2)
    assert main([*COMMAND, "--save-every", "0", "--out", str(folder)]) == 130
    assert json.loads(load_with_metadata(folder / "last.safetensors")[1]["training"])["train"]["batch"] == 1
    assert main(["train", "--resume", str(folder), "--quiet"]) == 0
    assert kept(folder) == kept(undisturbed)


def test_only_a_second_ctrl_c_stops_at_once():
    for first in SIGNALS:
        with stop_on_signal() as received:
            assert received() == 0
            signal.raise_signal(first)
            for number in set(SIGNALS) - {signal.SIGINT}:
                signal.raise_signal(number)  # a terminal that is closed may send SIGHUP twice
            assert received() == first
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="skipped: Windows has no SIGHUP")
def test_under_nohup_the_loss_of_the_terminal_stops_nothing():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with stop_on_signal() as received:
        signal.raise_signal(signal.SIGHUP)
        assert received() == 0
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def test_in_another_thread_signals_are_left_alone():
    seen = []

    def work():
        with stop_on_signal() as received, finish_first():
            seen.append((received(), signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(0, signal.SIG_DFL)]


def test_ctrl_c_waits_for_the_end_of_a_block():
    steps = []
    with pytest.raises(KeyboardInterrupt), finish_first():
        signal.raise_signal(signal.SIGINT)
        steps.append("done")
    assert steps == ["done"]


# Killed at random moments

KILLS = int(os.environ.get("MINIDL_TEST_KILLS", "20"))
"""How often the slow test below kills or stops a training: 200 take half an hour."""

STARTED = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); sys.argv[0] = 'minidl'; " \
          "from minidl.cli import main; sys.exit(main())"


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="skipped: Windows has no SIGKILL")
def test_stopped_at_random_moments_runs_end_as_if_nothing_had_happened(tmp_path, capsys):
    chance, counts = random.Random(0), dict.fromkeys([signal.SIGKILL, *SIGNALS], 0)
    variants = [
        ["--epochs", "4", "--images", "700"], ["--epochs", "4", "--images", "700", "--workers", "1"],
        ["--epochs", "6", "--images", "200", "--batch-size", "50", "--save-every", "0"],
    ]

    def start(*arguments):
        return subprocess.Popen([sys.executable, "-c", STARTED, *arguments, "--quiet", "--threads", "1"],
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    expected, seconds = [], []
    for number, options in enumerate(variants):
        started = time.perf_counter()
        out, err = start("train", "lenet5", *options, "--out", str(tmp_path / f"whole{number}")).communicate()
        seconds.append(time.perf_counter() - started)
        expected.append(kept(tmp_path / f"whole{number}"))
    experiment = 0
    while sum(counts.values()) < KILLS:
        experiment += 1
        variant = experiment % len(variants)
        folder = tmp_path / str(experiment)
        stops = chance.randint(1, 5)
        while True:
            begun = (folder / "config.json").exists()
            more = ["--workers", "1"] if variant == 1 else ["--save-every", "0"] if variant == 2 else []
            process = start("train", *(["--resume", str(folder), *more] if begun
                                       else ["lenet5", *variants[variant], "--out", str(folder)]))
            try:
                moment = chance.uniform(0.3, 0.5 + seconds[variant]) if stops else None
                out, err = process.communicate(timeout=moment)
                assert process.returncode == 0, err
                break
            except subprocess.TimeoutExpired:
                stops -= 1
                number = chance.choice([signal.SIGKILL, signal.SIGKILL, *SIGNALS])
                counts[number] += 1
                process.send_signal(number)
                out, err = process.communicate(timeout=60)
                assert "Traceback" not in err or "<frozen site>" in err, err  # Python itself was starting
        assert kept(folder) == expected[variant], folder
        shutil.rmtree(folder)
    with capsys.disabled():
        print({number.name: count for number, count in counts.items()}, "in", experiment, "runs")


# What a run was made with

@pytest.fixture
def run(tmp_path, undisturbed):
    return shutil.copytree(undisturbed, tmp_path / "run")


CHANGES = {"lr": 0.1, "seed": 7, "momentum": 0.8, "weight_decay": 0.5, "batch_size": 25, "epochs": 3, "shift": 0,
           "schedule": "cosine", "images": 40, "input_size": 30, "classes": list("9876543210"), "model": "resnet20",
           "model_options": {"variant": "1998"}, "data": "mnist"}


@pytest.mark.parametrize("command", [["train", "--resume"], ["evaluate"], ["predict"], ["step-through"]], ids=" ".join)
@pytest.mark.parametrize("names", [*([name] for name in CHANGES), ["lr", "momentum", "seed"]], ids=" ".join)
def test_an_edited_configuration_is_refused_with_both_values(run, capsys, no_network, command, names):
    path = run / "config.json"
    before = json.loads(path.read_text())
    path.write_text(json.dumps(before | {name: CHANGES[name] for name in names}))
    assert main([*command, str(run), *(["image.png"] if command == ["predict"] else [])]) == 2
    err = capsys.readouterr().err
    changes = "; ".join(f"{name}: {before[name]!r} then, {CHANGES[name]!r} now" for name in names)
    assert err.count("\n") == 1 and f"{path} has changed since last.safetensors was written ({changes})" in err


def test_best_weights_know_the_configuration_as_well(run, capsys):
    (run / "last.safetensors").unlink()
    path = run / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"classes": list("9876543210")}))
    assert main(["evaluate", "--best", str(run)]) == 2
    assert "has changed since best.safetensors was written (classes: ['0', '1'" in capsys.readouterr().err


def test_a_run_from_before_there_were_records_goes_on(run, undisturbed, monkeypatch):
    at_call(monkeypatch, Trainer, "_train_batch", 5, [signal.SIGTERM])
    shutil.rmtree(run)
    assert main([*COMMAND, "--out", str(run)]) == 143
    for name in ("last.safetensors", "best.safetensors"):
        tensors, text = load_with_metadata(run / name)
        values = json.loads(text.pop("training", "{}"))
        if values:
            del values["epoch_so_far"]["trained"]  # and from before a test could be stopped
        dl.save(tensors, run / name, {"training": json.dumps(values)})
    assert main(["train", "--resume", str(run), "--quiet"]) == 0
    assert kept(run) == kept(undisturbed)


def test_a_record_that_is_none_is_refused_with_its_path(run, capsys):
    tensors, text = load_with_metadata(run / "last.safetensors")
    for record in ("[]", "{", '{"data": 3}', "null"):
        dl.save(tensors, run / "last.safetensors", text | {"run": record})
        assert main(["train", "--resume", str(run)]) == 2
        assert f"{run / 'last.safetensors'} is damaged: its record of the run is " in capsys.readouterr().err


@pytest.fixture
def photographs(tmp_path):
    """Six photographs of cats and of dogs, to train on and to test, and a run that was stopped in its first epoch."""
    image = pytest.importorskip("PIL.Image")
    for part in ("train", "val"):
        for channel, name in enumerate(("cat", "dog")):
            (tmp_path / "photos" / part / name).mkdir(parents=True)
            for number in range(6):
                pixels = np.full((32, 32, 3), 20 * number, np.uint8)
                pixels[..., channel] = 255
                image.fromarray(pixels).save(tmp_path / "photos" / part / name / f"{number}.png")
    with pytest.MonkeyPatch.context() as patch:
        at_call(patch, Trainer, "_train_batch", 2, [signal.SIGTERM])
        assert main(["train", "resnet20", "--data", f"imagefolder:{tmp_path / 'photos'}", "--batch-size", "4", "--lr",
                     "0.01", "--epochs", "1", "--augment", "none", "--quiet", "--out", str(tmp_path / "run")]) == 143
    return tmp_path / "photos"


def rename(photos, old, new):
    for part in ("train", "val"):
        (photos / part / old).rename(photos / part / new)


def add(photos):
    for part in ("train", "val"):
        shutil.copytree(photos / part / "cat", photos / part / "axolotl")


@pytest.mark.parametrize("change, classes", [
    (lambda photos: rename(photos, "cat", "zebra"), ["dog", "zebra"]), (add, ["axolotl", "cat", "dog"]),
    (lambda photos: (rename(photos, "cat", "x"), rename(photos, "x", "elk")), ["dog", "elk"]),
], ids=["renamed", "added", "in another order"])
def test_other_class_folders_are_refused_with_both_lists(tmp_path, capsys, photographs, change, classes):
    change(photographs)
    for command in ["train", "--resume"], ["evaluate"], ["step-through"]:
        assert main([*command, str(tmp_path / "run")]) == 2
        err = capsys.readouterr().err
        assert f"(classes: ['cat', 'dog'] then, {classes} now)" in err and err.count("\n") == 1


def test_classes_that_share_a_name_are_told_apart_by_their_folders(tmp_path, capsys, photographs):
    run = Run.open(tmp_path / "run")
    tensors, text = load_with_metadata(tmp_path / "run" / "last.safetensors")
    record = json.loads(text["run"])
    record["data"]["class folders"] = ["n02012849", "n03126707"]  # a crane, and a crane
    dl.save(tensors, tmp_path / "run" / "last.safetensors", text | {"run": json.dumps(record)})
    with pytest.raises(ValueError, match=r"class folders: \['n02012849', 'n03126707'\] then, \['cat', 'dog'\] now"):
        run.resume(trainer_of(run.configuration, 0))


def test_other_images_are_refused_on_resuming_and_may_be_evaluated(tmp_path, capsys, photographs):
    shutil.copy(photographs / "train" / "cat" / "0.png", photographs / "train" / "cat" / "new.png")
    shutil.copy(photographs / "val" / "cat" / "0.png", photographs / "val" / "cat" / "new.png")
    assert main(["train", "--resume", str(tmp_path / "run")]) == 2
    assert re.search(r"the images of .* have changed .*test images: 12 then, 13 now; training images: 12 then, 13 now",
                     capsys.readouterr().err)
    assert main(["evaluate", str(tmp_path / "run")]) == 0
    assert "on the 13 test images" in capsys.readouterr().out


def test_a_folder_of_images_may_be_moved(tmp_path, photographs):
    photographs.rename(tmp_path / "moved")
    path = tmp_path / "run" / "config.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"data": f"imagefolder:{tmp_path / 'moved'}"}))
    assert main(["train", "--resume", str(tmp_path / "run"), "--quiet"]) == 0


# Whose files they are

@pytest.mark.parametrize("name", ["config.json", "metrics.csv", "last.safetensors", "best.safetensors", "curves.png",
                                  "experiment.json"])
def test_a_folder_that_holds_a_name_of_a_run_is_refused(tmp_path, capsys, name):
    (tmp_path / name).write_text("precious")
    assert main([*COMMAND, "--out", str(tmp_path)]) == 2
    complaint = f"{name} exists and would be overwritten|there is an? (run|experiment) in"
    assert re.search(complaint, capsys.readouterr().err)
    assert (tmp_path / name).read_text() == "precious" and os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("disturb, status", [
    (lambda patch: patch.setattr(Trainer, "_train_batch", lambda *_: int("x")), 2),
    (lambda patch: at_call(patch, Trainer, "_train_batch", 2, [signal.SIGINT] * 2), 130),
    (lambda patch: at_call(patch, Trainer, "_train_batch", 4, [signal.SIGINT]), 130),
    (lambda patch: None, 0),
], ids=["failure", "Ctrl-C twice", "Ctrl-C", "end"])
def test_files_of_others_stay_whatever_happens(tmp_path, monkeypatch, disturb, status):
    mine = {".film.mp4.part": "film", "notes.txt": "notes", ".tmpAbCdEf": "?", "model.safetensors": "weights"}
    for name, content in mine.items():
        (tmp_path / name).write_text(content)
    disturb(monkeypatch)
    assert main([*COMMAND, "--out", str(tmp_path)]) == status
    assert {name: (tmp_path / name).read_text() for name in mine} == mine
    ours = {"config.json", "last.safetensors", "best.safetensors", "metrics.csv"} if os.listdir(tmp_path) else set()
    assert set(os.listdir(tmp_path)) - set(mine) in (set(), ours)
    if (tmp_path / "config.json").exists():
        assert main(["train", "--resume", str(tmp_path), "--quiet"]) == 0
        assert {name: (tmp_path / name).read_text() for name in mine} == mine


def test_runs_that_begin_at_once_are_runs_of_their_own(tmp_path, monkeypatch, undisturbed):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("minidl.cli.train.time.strftime", lambda _: "now")
    for _ in range(3):
        assert main(COMMAND) == 0
    assert sorted(os.listdir("runs")) == ["lenet5-digits-now", "lenet5-digits-now-2", "lenet5-digits-now-3"]
    configuration = Run.open(undisturbed).configuration
    Run.create("run", configuration)
    monkeypatch.setattr("minidl.training.run.check_free", lambda _: None)  # two that look at the same moment
    with pytest.raises(FileExistsError, match="config.json exists already"):
        Run.create("run", dataclasses.replace(configuration, seed=3))
    assert Run.open("run").configuration == configuration and os.listdir("run") == ["config.json"]


def test_an_empty_folder_of_the_users_stays(tmp_path):
    assert main([*COMMAND, "--lr", "1e30", "--out", str(tmp_path)]) == 1
    assert tmp_path.is_dir() and not os.listdir(tmp_path)


def test_a_run_that_another_process_trains_is_refused(run, capsys):
    before = kept(run)
    with Run.open(run).locked():
        assert main(["train", "--resume", str(run)]) == 2
    assert f"another process is at work in {run}" in capsys.readouterr().err
    assert kept(run) == before
