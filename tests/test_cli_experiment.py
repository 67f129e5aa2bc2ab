"""The experiment about depth: what it keeps, and that a stop or a kill at any moment changes nothing of it."""

import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import minidl as dl
import models
from minidl import backend
from minidl.cli import main
from minidl.data import digits
from minidl.data.catalog import open_dataset
from minidl.training import Configuration
from minidl.training.table import read_table

NETWORKS = ["plain20", "plain56", "resnet20", "resnet56"]
SMALL = ["experiment", "depth", "--data", "digits", "--input-size", "8", "--images", "60", "--batch-size", "20",
         "--epochs", "2", "--lr", "0.01", "--quiet"]


@pytest.fixture(autouse=True)
def settings_of_the_process(monkeypatch):
    monkeypatch.setattr(backend, "_generator", backend._generator)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)  # pictures take longest


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An experiment that nobody disturbed."""
    folder = tmp_path_factory.mktemp("experiments") / "depth"
    assert main([*SMALL, "--out", str(folder)]) == 0
    return folder


def files(folder):
    """All files and folders but the pictures, which are drawn where matplotlib is installed."""
    return {path.relative_to(folder) for path in folder.rglob("*") if path.suffix != ".png"}


def kept(folder):
    """All that a seed decides."""
    curves = [{**row, "seconds": None} for row in read_table(folder / "curves.csv")]
    return curves, read_table(folder / "gradients.csv")


def test_it_keeps_the_errors_of_each_network_and_epoch(folder):
    curves = read_table(folder / "curves.csv")
    assert [(row["network"], row["seed"], row["epoch"]) for row in curves] == [
        (name, 0, epoch) for name in NETWORKS for epoch in (1, 2)
    ]
    for row in curves:
        run = read_table(folder / f"{row['network']}-seed0" / "metrics.csv")[row["epoch"] - 1]
        assert row["train_error"] == 1 - run["train_accuracy"] and row["test_error"] == 1 - run["test_accuracy"]
        assert 60 * row["train_error"] == pytest.approx(round(60 * row["train_error"]))  # of 60 images


def test_it_keeps_the_gradient_of_each_layer_from_the_start_on(folder):
    gradients = read_table(folder / "gradients.csv")
    for name in NETWORKS:
        model = models.build(name, in_channels=1)
        layers = [key.removesuffix(".weight") for key, value in model.named_parameters() if value.ndim > 1]
        rows = [row for row in gradients if row["network"] == name]
        assert [row["layer"] for row in rows] == 3 * layers and len(layers) == int(name[-2:])
        assert [row["epoch"] for row in rows] == [epoch for epoch in range(3) for _ in layers]
    (first,) = [row for row in gradients if (row["network"], row["epoch"], row["layer"]) == ("plain20", 0, "conv1")]
    dl.manual_seed(0)
    model = models.build("plain20", in_channels=1)
    images, labels = open_dataset("digits", True, 8).fetch(np.arange(60) * 1442 // 60, np.random.default_rng(0))
    few = np.arange(20) * 60 // 20
    dl.functional.cross_entropy(model(dl.tensor(images[few])), dl.tensor(labels[few])).backward()
    assert first["norm"] == pytest.approx(np.linalg.norm(model.conv1.weight.grad.data), rel=1e-5)


def test_all_networks_of_a_seed_have_the_same_images_and_recipe(folder):
    configurations = [Configuration.read(folder / f"{name}-seed0" / "config.json") for name in NETWORKS]
    assert len({json.dumps({**vars(each), "model": ""}) for each in configurations}) == 1
    assert configurations[0].images == 60 < len(digits())


def test_seeds_are_runs_of_their_own(tmp_path):
    assert main([*SMALL, "--epochs", "1", "--seeds", "2", "--out", str(tmp_path)]) == 0
    curves = read_table(tmp_path / "curves.csv")
    assert [(row["network"], row["seed"]) for row in curves] == [(n, seed) for seed in (0, 1) for n in NETWORKS]
    assert len({row["train_loss"] for row in curves}) == 8


def test_a_finished_one_is_tabulated_again(folder, capsys):
    before = kept(folder)
    (folder / "curves.csv").unlink()
    assert main(["experiment", "depth", "--resume", str(folder)]) == 0
    assert kept(folder) == before
    assert capsys.readouterr().out.count("after epoch 2 the training error is") == 4


@pytest.mark.parametrize("arguments, complaint", [
    (["--resume", "nowhere"], "there is no experiment in nowhere: it has no experiment.json"),
    (["--resume", "nowhere", "--epochs", "3"], "leave out --epochs"),
    (["--resume", "nowhere", "--seeds", "5"], "leave out --seeds"),
    (["--seeds", "0"], "there must be at least 1 seed; got 0"),
    (["--data", "digits", "--images", "9999"], "9,999 images were asked for; the data set has 1,442"),
    (["--epochs", "1", "--time-budget", "1"], "a time budget decides the epochs; leave out --epochs 1"),
])
def test_mistakes_leave_nothing_behind(arguments, complaint, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["experiment", "depth", *arguments]) == 2
    assert complaint in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_there_is_one_experiment_in_a_folder_or_one_run(folder, capsys):
    assert main([*SMALL, "--out", str(folder)]) == 2
    assert f"an experiment in {folder} already; go on with --resume {folder}" in capsys.readouterr().err
    assert main(["train", "lenet5", "--out", str(folder)]) == 2
    assert f"an experiment in {folder} already" in capsys.readouterr().err
    assert main([*SMALL, "--out", str(folder / "plain20-seed0")]) == 2
    assert f"a run in {folder / 'plain20-seed0'} already" in capsys.readouterr().err


def test_a_folder_that_cannot_be_is_named(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main([*SMALL, "--images", "20", "--out", str(tmp_path / "file")]) == 2
    assert f"cannot make the run folder {tmp_path / 'file'}: File exists; name another" in capsys.readouterr().err


def test_a_run_of_another_experiment_is_not_taken_for_its_own(folder, tmp_path, capsys):
    copy = shutil.copytree(folder, tmp_path / "copy")
    runs = json.loads((copy / "experiment.json").read_text())
    (copy / "experiment.json").write_text(json.dumps([{**each, "lr": 0.02} for each in runs]))
    assert main(["experiment", "depth", "--resume", str(copy)]) == 2
    said = f"{copy / 'plain20-seed0'} holds another run than {copy / 'experiment.json'} says (lr: 0.02 then, 0.01 now)"
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("name", ["curves.csv", "gradients.csv", "depth.png", "gradients.png", "plain20-seed0"])
def test_a_folder_with_a_name_that_an_experiment_writes_is_refused(tmp_path, capsys, name):
    (tmp_path / name).write_text("precious")
    assert main([*SMALL, "--out", str(tmp_path)]) == 2
    assert f"{tmp_path / name} exists and would be overwritten" in capsys.readouterr().err
    assert (tmp_path / name).read_text() == "precious" and len(list(tmp_path.iterdir())) == 1


def test_missing_gradients_are_not_passed_over(folder, tmp_path, capsys):
    shutil.copytree(folder, tmp_path / "copy")
    (tmp_path / "copy" / "plain56-seed0" / "gradients.csv").unlink()
    assert main(["experiment", "depth", "--resume", str(tmp_path / "copy")]) == 2
    assert "gradients.csv is incomplete: the run has come to epoch 2" in capsys.readouterr().err


def test_a_network_that_diverges_is_named(tmp_path, capsys):
    assert main([*SMALL, "--lr", "1e30", "--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("minidl: plain20-seed0: the loss became ")


@pytest.mark.parametrize("content", ["", "{}", "[]", "[1]", '[{"model": "plain20"}]', 100_000 * "["])
def test_a_damaged_list_of_runs_is_refused_with_its_path(content, tmp_path, capsys):
    (tmp_path / "experiment.json").write_text(content)
    assert main(["experiment", "depth", "--resume", str(tmp_path)]) == 2
    assert str(tmp_path / "experiment.json") in capsys.readouterr().err


def test_a_network_of_no_experiment_is_refused_before_a_folder_is_made(folder, tmp_path, capsys):
    runs = json.loads((folder / "experiment.json").read_text())
    (tmp_path / "experiment.json").write_text(json.dumps([{**runs[0], "model": "../lenet5"}]))
    assert main(["experiment", "depth", "--resume", str(tmp_path)]) == 2
    assert f"{tmp_path / 'experiment.json'} is damaged: '../lenet5' is not one of" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["experiment.json"]


# What it shows

def training_errors(folder):
    """Of each network, after its last epoch."""
    return {row["network"]: row["train_error"] for row in read_table(folder / "curves.csv")}


def test_F15_deep_plain_networks_do_worse_on_what_they_are_trained_on():
    """The results beside notebook 11, on 20,000 images of CIFAR-10."""
    error = training_errors(Path(__file__).parents[1] / "notebooks" / "depth")
    assert error["plain56"] > error["plain20"] + 0.1
    assert error["resnet56"] < error["plain56"] and error["resnet56"] < error["resnet20"] + 0.01


@pytest.mark.slow
def test_F15_so_they_do_on_the_digits(tmp_path):
    command = "experiment depth --data digits --input-size 8 --epochs 4 --batch-size 32 --lr 0.02 --schedule cosine"
    assert main([*command.split(), "--warmup", "1", "--quiet", "--out", str(tmp_path)]) == 0
    error = training_errors(tmp_path)
    assert error["plain56"] > error["plain20"] + 0.2 and error["resnet56"] < error["plain56"] - 0.2


# Stopped, and killed

def start(*arguments):
    return subprocess.Popen([sys.executable, "-m", "minidl", *arguments], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])


@pytest.mark.skipif(sys.platform == "win32", reason="skipped: Windows sends no SIGINT to one process")
def test_ctrl_c_leaves_an_experiment_that_goes_on(folder, tmp_path, capsys):
    stopped = tmp_path / "my experiment"
    process = start(*SMALL, "--out", str(stopped))
    next(line for line in process.stdout if line.startswith("plain56"))
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert process.returncode == 130 and "Traceback" not in err
    command = re.search(r"interrupted; go on with: minidl (experiment depth --resume .+)", out)[1]
    assert main([*shlex.split(command), "--quiet"]) == 0
    assert kept(stopped) == kept(folder)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="skipped: Windows has no SIGKILL")
def test_killed_at_random_moments_it_ends_as_if_nothing_had_happened(folder, tmp_path):
    expected, kills, chance, experiment = kept(folder), 0, random.Random(0), 0
    while kills < int(os.environ.get("MINIDL_TEST_KILLS", "20")):
        experiment += 1
        killed, options = tmp_path / str(experiment), ["--out", str(tmp_path / str(experiment))]
        command = [*SMALL, *options]
        while True:
            process, started = start(*command), time.perf_counter()
            moment = started + chance.uniform(0.3, 4.0)
            while process.poll() is None and time.perf_counter() < moment:
                time.sleep(0.005)
            if process.poll() is not None:
                out, err = process.communicate()
                assert process.returncode == 0, err
                break
            process.kill()
            process.communicate()
            kills += 1
            if (killed / "experiment.json").exists():
                command = ["experiment", "depth", "--resume", str(killed), "--quiet", "--save-every", "0"]
        assert kept(killed) == expected
        assert files(killed) == files(folder)
