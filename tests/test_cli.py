"""The command line: what it prints, what it leaves on the disk, and one line for every mistake."""

import csv
import gzip
import json
import os
import re
import shutil
import signal
import sys
import time

import numpy as np
import pytest
from test_data_idx import idx_bytes

import minidl as dl
import models
from minidl import backend, nn
from minidl.cli import assembly, main
from minidl.cli.assembly import check_fit, trainer_of
from minidl.cli.train import attended
from minidl.data import digits, open_dataset
from minidl.kernels.cpu import threads
from minidl.training import Configuration, Run, Trainer
from models.neocognitron import Neocognitron
from models.published import preprocessing

FILES = {"best.safetensors", "config.json", "curves.png", "last.safetensors", "metrics.csv"}


@pytest.fixture(autouse=True)
def settings_of_the_process(monkeypatch):
    """Put back after each test what a command changes for the whole process."""
    monkeypatch.setattr(threads, "_num_threads", threads._num_threads)
    monkeypatch.setattr(backend, "_process_device", backend._process_device)
    monkeypatch.setattr(backend, "_generator", backend._generator)
    monkeypatch.setattr(backend, "_precision", backend._precision)


@pytest.fixture
def minidl(capsys):
    """Run one command; gives its exit status, and what it printed to stdout and to stderr."""

    def run(*arguments):
        capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        return status, *capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of four epochs on the bundled digits; nobody changes it."""
    folder = tmp_path_factory.mktemp("runs") / "trained"
    assert main(["train", "lenet5", "--epochs", "4", "--quiet", "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def run(trained, tmp_path):
    """A copy of it, to be damaged."""
    return shutil.copytree(trained, tmp_path / "run")


def metrics(folder):
    with open(folder / "metrics.csv", newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def assert_mistake(result, complaint):
    status, out, err = result
    assert status == 2 and out == ""
    assert err.startswith("minidl: ") and err.count("\n") == 1 and "Traceback" not in err
    assert complaint in err


# Help

@pytest.mark.parametrize("command, options", [
    ("", "train experiment evaluate predict step-through summary bench info --version"),
    ("train", "model --data --images --resume --out --time-budget --input-size --augment --epochs --batch-size --lr "
              "--momentum --weight-decay --shift --schedule --warmup --milestones --gamma --seed --workers --option "
              "--save-every --cuda-graph --quiet --device --precision --threads"),
    ("experiment", "depth --data --images --resume --out --time-budget --input-size --augment --epochs --batch-size "
                   "--lr --momentum --weight-decay --shift --schedule --warmup --milestones --gamma --seeds --workers "
                   "--save-every --quiet --device --precision --threads"),
    ("evaluate", "RUN --data --ten-crop --best --device --precision --threads"),
    ("step-through", "RUN --out --data --index --input-size --text --best --option --device --precision --threads"),
    ("predict", "RUN IMAGE --invert --best --device --precision --threads"),
    ("summary", "model --input-size --batch-size --option --csv --device --precision --threads"),
    ("info", "--device --precision --threads"),
])
def test_help_names_every_option(capsys, command, options):
    with pytest.raises(SystemExit) as end:
        main([*command.split(), "--help"])
    assert end.value.code == 0
    out, err = capsys.readouterr()
    shown = set(re.findall(r"(?<![\w-])(--[a-z-]+)", out)) - {"--help"}
    assert shown == {option for option in options.split() if option.startswith("--")}
    assert all(option in out for option in options.split())
    assert err == ""


# What the commands do

@pytest.mark.usefixtures("trained")  # the very first picture may have Matplotlib speak of its fonts
def test_train_prints_each_epoch_and_keeps_the_documented_files(minidl, tmp_path):
    pytest.importorskip("matplotlib")
    folder = tmp_path / "run"
    status, out, err = minidl("train", "lenet5", "--epochs", 1, "--quiet", "--out", folder)
    assert (status, err) == (0, "")
    (row,) = metrics(folder)
    number, accuracy, speed = dl.get_num_threads(), row["test_accuracy"], row["images_per_second"]
    assert out.splitlines() == [
        f"lenet5, 61,706 parameters, on digits: 1,442 training and 355 test images, {number} thread(s), cpu",
        f"epoch   1/1   training: loss {row['train_loss']:.4f}, accuracy {row['train_accuracy']:6.2%}   "
        f"test: loss {row['test_loss']:.4f}, accuracy {accuracy:6.2%}   {speed:,.0f} images/s",
        f"test accuracy {accuracy:.2%} after {row['seconds']:.1f} s of training; kept in {folder}",
    ]
    assert set(os.listdir(folder)) == FILES


def test_without_out_a_run_has_a_folder_of_its_own_below_runs(minidl, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, out, _ = minidl("train", "lenet5", "--epochs", 1, "--quiet", "--batch-size", 721)
    (folder,) = (tmp_path / "runs").iterdir()
    assert re.fullmatch(r"lenet5-digits-\d{8}-\d{6}", folder.name)
    assert out.endswith(f"kept in {folder.relative_to(tmp_path)}\n")


def test_options_reach_the_configuration_and_the_model(minidl, tmp_path):
    options = {"epochs": 1, "batch_size": 200, "lr": 0.002, "momentum": 0.5, "weight_decay": 0.0, "shift": 0,
               "schedule": "steps", "warmup": 0.5, "gamma": 0.3, "images": 800, "seed": 7}
    arguments = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", value)]
    arguments += ["--milestones", 0.25, 0.5, "--option", "variant=1998", "--workers", 1, "--threads", 1,
                  "--device", "cpu", "--quiet"]
    status, out, _ = minidl("train", "lenet5", "--out", tmp_path / "run", *arguments)
    assert status == 0 and out.startswith("lenet5, 60,000 parameters, ") and "1 thread(s), cpu" in out
    assert dl.get_num_threads() == 1
    assert Configuration.read(tmp_path / "run" / "config.json") == Configuration(
        model="lenet5", model_options={"variant": "1998"}, data="digits", input_size=32, classes=list("0123456789"),
        milestones=[0.25, 0.5], **options)
    assert ": 800 training and 355 test images" in out


def test_a_time_budget_is_kept_and_becomes_a_number_of_epochs(minidl, tmp_path, monkeypatch):
    monkeypatch.setattr(assembly, "PROBE_SECONDS", 0.3)
    started = time.perf_counter()
    status, out, _ = minidl("train", "lenet5", "--time-budget", 0.05, "--images", 300, "--out", tmp_path / "run",
                            "--quiet")
    seconds = time.perf_counter() - started
    epochs = int(re.search(r"an epoch takes about \d\.\d s here: (\d+) fit into 0.05 minutes", out)[1])
    assert status == 0 and Configuration.read(tmp_path / "run" / "config.json").epochs == epochs
    rows = metrics(tmp_path / "run")
    assert len(rows) == epochs >= 2 and rows[-1]["lr"] < 1e-3  # the schedule came to its end
    assert 0.5 < seconds < 15  # a loaded machine is late; this says only that it stops


@pytest.mark.parametrize("budget, complaint", [
    (1e-6, r"an epoch takes about \d\.\d minutes here, after \d\.\d minutes of preparation, which a time budget of "
           "1e-06 minutes does not hold"),
    (-1, "a time budget is a number of minutes above 0; got -1"),
    ("nan", "a time budget is a number of minutes above 0; got nan"),
])
def test_a_time_budget_that_holds_nothing_is_refused(minidl, tmp_path, monkeypatch, budget, complaint):
    monkeypatch.setattr(assembly, "PROBE_SECONDS", 0)
    status, _, err = minidl("train", "lenet5", "--time-budget", budget, "--out", tmp_path / "run")
    assert status == 2 and re.search(complaint, err) and not (tmp_path / "run").exists()


def test_a_time_budget_holds_what_a_network_learns_by_itself_and_its_pixels_are_those_of_the_images(
    minidl, tmp_path, monkeypatch
):
    organise = Neocognitron.self_organise
    monkeypatch.setattr(assembly, "_seconds_an_epoch", lambda trainer: 0.5)
    monkeypatch.setattr(Neocognitron, "self_organise", lambda net, images: time.sleep(0.6) or organise(net, images))
    status, out, _ = minidl("train", "neocognitron", "--time-budget", 0.05, "--images", 20, "--input-size", 12,
                            "--option", "planes=[2,2,2]", "--option", "places=4", "--out", tmp_path / "run", "--quiet")
    epochs = int(re.search(r"(\d+) fit into 0.05 minutes", out)[1])
    assert status == 0 and epochs <= 3  # of the 3 seconds it took 0.6 twice
    assert Configuration.read(tmp_path / "run" / "config.json").model_options["input_size"] == 12
    monkeypatch.setattr(Neocognitron, "self_organise", None)  # what was learned is loaded
    assert minidl("train", "--resume", tmp_path / "run")[0] == 0


def test_only_weights_decay(tmp_path):
    trainer = trainer_of(configuration := Configuration(
        model="resnet20", data="digits", input_size=8, epochs=1, batch_size=2, lr=0.1, momentum=0.0, weight_decay=0.5,
        schedule="constant", shift=0, seed=0, model_options={"in_channels": 1}), 0)
    before = {name: value.data.copy() for name, value in trainer.model.named_parameters()}
    for parameter in trainer.model.parameters():
        parameter.grad = dl.tensor(np.zeros(parameter.shape, np.float32))
    trainer.optimizer.step()
    decay = np.float32(1 - configuration.lr * configuration.weight_decay)
    for name, value in trainer.model.named_parameters():
        weight = name.startswith(("conv", "linear.weight")) or ".conv" in name
        np.testing.assert_allclose(value.data, before[name] * (decay if weight else 1), rtol=1e-6)


def test_a_finished_run_says_so_when_resumed_and_stays_as_it_is(minidl, run):
    before = {path: path.read_bytes() for path in run.iterdir()}
    assert minidl("train", "--resume", run) == (0, f"{run} is finished: 4 of 4 epochs\n", "")
    assert {path: path.read_bytes() for path in run.iterdir()} == before


def top5_error(run):
    """By sorting, image by image."""
    model = models.lenet5().eval()
    Run.open(run).load_weights(model)
    data = open_dataset("digits", False, 32)
    images, labels = data.fetch(np.arange(len(data)), None)
    with dl.no_grad():
        logits = model(dl.tensor(images)).numpy()
    return np.mean([label not in np.argsort(-row)[:5] for row, label in zip(logits, labels)])


def test_evaluate_measures_what_training_measured(minidl, trained):
    last = metrics(trained)[-1]
    accuracy, top5 = last["test_accuracy"], top5_error(trained)
    assert minidl("evaluate", trained) == (0, (
        f"{trained} on the 355 test images of digits: loss {last['test_loss']:.4f}, accuracy {accuracy:.2%}, "
        f"top-1 error {1 - accuracy:.2%}, top-5 error {top5:.2%}\n"), "")


def test_best_takes_the_weights_of_the_best_epoch(minidl, run):
    _, last, _ = minidl("evaluate", run)
    state = {name: tensor.data * 0 for name, tensor in dl.load(run / "best.safetensors").items()}
    dl.save(state, run / "best.safetensors")  # a network of zeros says 0 to every image
    status, best, _ = minidl("evaluate", "--best", run)
    assert (status, f"loss {np.log(10):.4f}, accuracy {35 / 355:.2%}" in best) == (0, True)
    assert minidl("evaluate", run)[1] == last


def test_info_says_with_what_it_runs(minidl, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)  # a machine without CuPy
    status, out, err = minidl("info", "--threads", 3)
    assert (status, err) == (0, "")
    for expected in (f"minidl {dl.__version__}", f"NumPy {np.__version__}", "Python 3.", "BLAS: ", "threads: 3 of ",
                     "default device: cpu", "GPU: none; ", "CuPy cannot be imported", "pip install 'minidl[gpu]'"):
        assert expected in out


# Prediction

@pytest.fixture
def pictures(tmp_path):
    """The first test image of a seven, in several files."""
    Image = pytest.importorskip("PIL.Image")
    data = digits(train=False)
    gray = np.round(data.images[np.argmax(data.labels == 7), 0] * (255 / 16)).astype(np.uint8)
    clear, large = np.zeros_like(gray), gray.repeat(20, axis=0).repeat(20, axis=1)
    noise = np.minimum(large, 255 - large)
    noisy = large.copy()
    noisy[::2] += noise[::2]  # the mean of each square remains
    noisy[1::2] -= noise[1::2]
    arrays = {
        "as it is": gray,
        "enlarged": large,
        "noisy": noisy,
        "narrow": large[:, 20:-20],  # the outer columns are black, as is the margin that replaces them
        "coloured": np.stack([gray] * 3, axis=-1),
        "dark on bright": 255 - gray,
        "dark on nothing": np.stack([clear, clear, clear, gray], axis=-1),
        "bright on nothing": np.stack([~clear, ~clear, ~clear, gray], axis=-1),
    }
    paths = {name: tmp_path / f"{name}.png" for name in arrays}
    for name, array in arrays.items():
        Image.fromarray(array).save(paths[name])
    paths["turned"] = tmp_path / "turned.png"
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: the camera was held turned, show the picture turned clockwise
    Image.fromarray(np.rot90(large)).save(paths["turned"], exif=exif)
    return paths


def guesses(text):
    """What is printed for each image: its path, then the five likeliest classes with their shares."""
    blocks = [lines.splitlines() for lines in re.split(r"\n(?=\S)", text.strip())]
    return [(path, [re.fullmatch(r"  (\d) +(\d+\.\d)%( █*)?", line).group(1, 2) for line in five])
            for path, *five in blocks]


@pytest.mark.parametrize("names, invert", [
    (["as it is", "enlarged", "noisy", "narrow", "turned", "coloured", "bright on nothing"], []),
    (["dark on bright", "dark on nothing"], ["--invert"]),
])
@pytest.mark.parametrize("best", [[], ["--best"]])
def test_predict_sees_what_is_in_an_image(minidl, trained, pictures, names, invert, best):
    status, out, err = minidl("predict", *invert, *best, trained, *(pictures[name] for name in names))
    assert (status, err) == (0, "")
    for name, (path, five) in zip(names, guesses(out), strict=True):
        assert path == str(pictures[name]) and len(five) == 5
        shares = [float(share) for _, share in five]
        assert five[0][0] == "7" and shares[0] > 50 and shares == sorted(shares, reverse=True)
    assert len({tuple(five) for _, five in guesses(out)}) == 1  # it is the same image each time


def test_the_bars_of_predict_are_as_long_as_the_shares(minidl, trained, pictures):
    lines = minidl("predict", trained, pictures["as it is"])[1].splitlines()[1:]
    assert [line.count("█") for line in lines] == [round(float(line.split()[1][:-1]) / 5) for line in lines]


def test_predict_without_invert_is_not_the_same(minidl, trained, pictures):
    seen = [guesses(minidl("predict", trained, pictures[name])[1])[0][1] for name in ("as it is", "dark on bright")]
    assert seen[0] != seen[1]


def test_predict_drops_nothing_out(minidl, tmp_path, pictures, monkeypatch):
    monkeypatch.setitem(models.FACTORIES, "lenet5", lambda: nn.Sequential(models.lenet5(), nn.Dropout(0.5)))
    minidl("train", "lenet5", "--epochs", 1, "--quiet", "--out", tmp_path / "run")
    _, out, _ = minidl("predict", tmp_path / "run", *[pictures["as it is"]] * 9)
    assert len({tuple(five) for _, five in guesses(out)}) == 1


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-30])


@pytest.mark.parametrize("damage, complaint", [
    (lambda path: path.unlink(), "there is no image {}"),
    (lambda path: path.write_text("no image"), "{} is not an image that can be read: "),
    (lambda path: path.write_bytes(b""), "{} is not an image that can be read: "),
    (cut_short, "{} is not an image that can be read: "),
], ids=["missing", "not an image", "empty", "truncated"])
def test_an_image_that_cannot_be_read_is_named(minidl, trained, pictures, damage, complaint):
    path = pictures["as it is"]
    damage(path)
    assert_mistake(minidl("predict", trained, pictures["coloured"], path), complaint.format(path))


def test_predict_without_pillow_names_the_extra(minidl, trained, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert_mistake(minidl("predict", trained, "image.png"), "pip install 'minidl[images]'")


# Photographs

@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Folders of two of ImageNet's classes that their colour tells apart; ``train`` and ``val``."""
    image = pytest.importorskip("PIL.Image")
    root, rng = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    for part, count in (("train", 6), ("val", 3)):
        for channel, folder in enumerate(("n01440764", "n02102040")):
            (root / part / folder).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 90, (40 + number, 50, 3), np.uint8)
                pixels[..., 2 * channel] += 150
                image.fromarray(pixels).save(root / part / folder / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def photographer(photographs, tmp_path_factory):
    """Two runs on them, of a network small enough for a test."""
    runs = [tmp_path_factory.mktemp("photographers") / name for name in ("one", "two")]
    for seed, folder in enumerate(runs):
        assert main(["train", "resnet20", "--data", f"imagefolder:{photographs}", "--epochs", "6", "--batch-size", "4",
                     "--lr", "0.02", "--augment", "alexnet", "--quiet", "--out", str(folder), "--seed", str(seed)]) == 0
    return runs


def test_a_network_fits_itself_to_the_classes_of_a_folder(photographer):
    configuration = Configuration.read(photographer[0] / "config.json")
    assert configuration.model_options == {"num_classes": 2} and configuration.augment == "alexnet"
    assert configuration.classes == ["tench", "English springer"]
    assert metrics(photographer[0])[-1]["test_accuracy"] == 1


def test_what_only_training_needs_is_missed_before_there_is_a_folder(minidl, photographs, tmp_path):
    status, _, err = minidl("train", "googlenet", "--data", f"imagefolder:{photographs}", "--input-size", 64,
                            "--out", tmp_path / "run")
    assert status == 2 and "at least 79 × 79 pixels" in err  # for the auxiliary heads
    assert not (tmp_path / "run").exists()


def test_looking_whether_the_model_fits_changes_nothing(photographs):
    values = {"model": "resnet20", "model_options": {"num_classes": 2}, "data": f"imagefolder:{photographs}", "seed": 0,
              "classes": ["tench", "English springer"], "input_size": 32, "epochs": 1, "batch_size": 2, "lr": 0.1,
              "momentum": 0.9, "weight_decay": 0.0, "schedule": "constant", "augment": "none", "shift": 0}
    trainer = trainer_of(Configuration(**values), 0)
    state, random = trainer.state(), backend.generator().bit_generator.state
    before = {name: value.data.copy() for name, value in state[0].items()}
    check_fit(trainer, 2)
    assert backend.generator().bit_generator.state == random
    assert all(np.array_equal(trainer.state()[0][name].data, value) for name, value in before.items())


def test_runs_are_evaluated_alone_and_together_and_on_ten_crops(minidl, photographer, photographs):
    status, out, err = minidl("evaluate", "--ten-crop", *photographer)
    assert (status, err) == (0, "") and "6 test images" in out
    one, two, both = (float(re.search(r"loss (\d\.\d+)", line)[1]) for line in out.splitlines())
    assert min(one, two) <= both <= max(one, two) and "the ensemble of these 2: loss" in out
    assert "top-5" not in out  # of two classes
    other = minidl("evaluate", photographer[0], "--data", f"imagefolder:{photographs / 'train'}")[1]
    assert "the 12 test images" in other
    mistaken = minidl("evaluate", photographer[0], "--data", "digits")
    assert_mistake(mistaken, "does not show the classes of the run (classes: ['tench', 'English springer'] then, ['0',")


def test_predict_names_what_is_in_a_photograph(minidl, photographer, photographs):
    path = photographs / "val" / "n02102040" / "0.png"
    status, out, _ = minidl("predict", photographer[0], path)
    first, best, second = out.splitlines()
    assert status == 0 and first == str(path)
    assert re.fullmatch(r"  English springer +\d+\.\d% █+", best) and second.startswith("  tench ")
    assert_mistake(minidl("predict", "--invert", photographer[0], path), "invert is for drawings")


@pytest.mark.parametrize("data, complaint", [
    ("imagefolder", "is a folder of yours; write imagefolder:PATH"),
    ("imagefolder:{tmp}/nowhere", "there is no folder {tmp}/nowhere"),
    ("imagefolder:{tmp}", "{tmp} has no folders"),
])
def test_a_folder_that_is_none_is_named(minidl, tmp_path, data, complaint):
    result = minidl("train", "resnet20", "--data", data.format(tmp=tmp_path))
    assert_mistake(result, complaint.format(tmp=tmp_path))


def test_augmentation_is_for_photographs(minidl):
    assert_mistake(minidl("train", "lenet5", "--augment", "vgg"), "the recipe 'vgg' is for photographs")


def test_published_weights_are_measured_and_predict(minidl, monkeypatch, photographs):
    def resnet(num_classes=1000, in_channels=3, variant="paper", weights=None):
        assert (variant, weights) == ("torchvision", "imagenet")
        dl.manual_seed(0)
        network = models.resnet20(1000).eval()
        network.preprocessing = preprocessing("resnet18")
        return network

    monkeypatch.setitem(models.FACTORIES, "resnet18", resnet)
    status, out, _ = minidl("evaluate", "resnet18", "--data", f"imagefolder:{photographs}")
    assert status == 0 and re.match(r"resnet18 on the 6 test images of imagefolder:.*: loss .* top-5 error \d+", out)
    tenfold = minidl("evaluate", "--ten-crop", "resnet18", "--data", f"imagefolder:{photographs}")[1]
    assert tenfold != out and tenfold.startswith("resnet18 on the 6 test images")
    out = minidl("predict", "resnet18", photographs / "val" / "n01440764" / "0.png")[1]
    names = [line.strip().rsplit("  ", 1)[0].strip() for line in out.splitlines()[1:]]
    assert len(names) == 5
    assert_mistake(minidl("evaluate", "resnet18"), "add --data imagefolder:FOLDER")
    assert_mistake(minidl("predict", "--best", "resnet18", "cat.jpg"), "--best is for runs")
    assert_mistake(minidl("predict", "resnet20", "cat.jpg"), "no published weights of resnet20, only of alexnet, vgg11")


def test_the_same_images_for_both_are_said_to_be_that(minidl, photographs, tmp_path):
    _, out, _ = minidl("train", "resnet20", "--data", f"imagefolder:{photographs / 'val'}", "--epochs", 1, "--quiet",
                       "--out", tmp_path / "run")
    assert "there is no folder val: the test images are the training images" in out
    _, out, _ = minidl("train", "resnet20", "--data", f"imagefolder:{photographs / 'val'}", "--epochs", 1, "--quiet",
                       "--images", 2, "--out", tmp_path / "few")
    assert "there is no folder val: the test images are the training images" in out
    shutil.copytree(photographs / "val", tmp_path / "one too high" / "photographs")
    one_too_high = minidl("train", "resnet20", "--data", f"imagefolder:{tmp_path / 'one too high'}")
    assert_mistake(one_too_high, f"open {tmp_path / 'one too high' / 'photographs'} if those are the classes")


def test_runs_on_other_data_are_no_ensemble(minidl, photographer, trained):
    assert_mistake(minidl("evaluate", photographer[0], trained), "an ensemble sees one data set; these were trained on")


# Summary

def test_summary_prints_the_table_and_writes_it(minidl, tmp_path):
    status, out, err = minidl("summary", "lenet5", "--batch-size", 2, "--csv", tmp_path / "lenet5.csv")
    assert (status, err) == (0, "") and out.startswith("LeNet5 on 2 images of 1×32×32\n")
    written = (tmp_path / "lenet5.csv").read_text(encoding="utf-8")
    assert "61,706" in out and written.startswith("name,kind,output_shape")


def test_summary_takes_options_and_sizes(minidl):
    out = minidl("summary", "resnet20", "--input-size", 64, "--option", "num_classes=5")[1]
    assert "CifarResNet on 1 image of 3×64×64" in out and "269,397" in out
    assert_mistake(minidl("summary", "resnet20", "--option", "depth=3"), "depth")
    assert "62,357,608" in minidl("summary", "zfnet", "--option", "filters=(384, 384, 256)")[1]
    for size in (["--input-size", 20], ["--option", "input_size=20"]):
        assert "24×20×20" in minidl("summary", "neocognitron", *size)[1]
    assert_mistake(minidl("summary", "resnt20"), "did you mean")


# Mistakes

@pytest.fixture
def mnist(tmp_path):
    """MNIST's four files with three images each, of which one is cut short."""
    folder = tmp_path / "mnist"
    folder.mkdir()
    for part in "train", "t10k":
        for name, shape in ("images-idx3", (3, 28, 28)), ("labels-idx1", (3,)):
            (folder / f"{part}-{name}-ubyte.gz").write_bytes(gzip.compress(idx_bytes(np.zeros(shape, np.uint8))))
    cut_short(folder / "t10k-images-idx3-ubyte.gz")
    return folder


@pytest.mark.parametrize("arguments, complaint", [
    ("", "train needs a model (neocognitron, lenet5"),
    ("lenet", "there is no model 'lenet'; did you mean lenet5"),
    ("lenet5 --data minst", "there is no data set 'minst'; did you mean mnist"),
    ("lenet5 --data digits:folder", "'digits' comes with minidl and takes no folder"),
    ("lenet5 --data mnist:{tmp}/nowhere", "/nowhere has neither t10k-images-idx3-ubyte.gz nor t10k-images-"),
    ("lenet5 --data mnist:{tmp}/mnist", "t10k-images-idx3-ubyte.gz is damaged: "),
    ("lenet5 --option depth=3", "depth"),
    ("lenet5 --option variant=1999", "there is no variant '1999'"),
    ("lenet5 --option num_classes=9", "label 9 is out of range"),
    ("lenet5 --option in_channels=3", "expects 3"),
    ("lenet5 --option num_classes=many", "got 'many'"),
    ("lenet5 --device gpu", "a GPU was asked for"),
    ("lenet5 --device tpu", "there is no device 'tpu'"),
    ("lenet5 --threads 0", "at least 1 thread; got 0"),
    ("lenet5 --workers -1", "num_workers is -1"),
    ("lenet5 --epochs -1", "epochs must be a whole number of at least 1; got -1"),
    ("lenet5 --batch-size 0", "batch_size must be a whole number of at least 1; got 0"),
    ("lenet5 --lr -0.1", "lr must be a number ≥ 0; got -0.1"),
    ("lenet5 --lr nan", "lr must be a number ≥ 0; got nan"),
    ("lenet5 --momentum -1", "momentum must be a number ≥ 0"),
    ("lenet5 --momentum 1.5", "momentum must be below 1, or no step is ever forgotten; got 1.5"),
    ("lenet5 --milestones 0.5", "--milestones is for --schedule steps; this training has one_cycle"),
    ("resnet20 --schedule cosine --gamma 0.5", "--gamma is for --schedule steps; this training has cosine"),
    ("neocognitron --option planes=8", "planes must be three numbers of at least 1; got 8"),
    ("lenet5 --weight-decay inf", "weight_decay must be a number ≥ 0"),
    ("lenet5 --shift -2", "shift must be a whole number of at least 0"),
    ("lenet5 --seed -1", "seed must be a whole number of at least 0"),
])
def test_a_mistake_is_said_in_one_line_and_leaves_nothing(minidl, mnist, tmp_path, monkeypatch, arguments, complaint):
    monkeypatch.setitem(sys.modules, "cupy", None)  # a machine without a GPU
    words = [word.format(tmp=tmp_path) for word in arguments.split()]
    assert_mistake(minidl("train", *words, "--out", tmp_path / "run"), complaint)
    assert os.listdir(tmp_path) == ["mnist"]


def test_a_training_that_fails_before_it_kept_anything_leaves_nothing(minidl, photographs, tmp_path):
    shutil.copytree(photographs, tmp_path / "photographs")
    broken = next((tmp_path / "photographs" / "train").rglob("*.png"))
    broken.write_bytes(b"no picture")
    words = ["--epochs", 1, "--quiet", "--out", tmp_path / "run"]
    status, _, err = minidl("train", "resnet20", "--data", f"imagefolder:{tmp_path / 'photographs'}", *words)
    assert status == 2 and str(broken) in err
    status, _, err = minidl("train", "lenet5", "--lr", 1e30, *words)
    assert status == 1 and "at a learning rate of" in err
    assert os.listdir(tmp_path) == ["photographs"]


@pytest.mark.parametrize("place", ["file", "file/run"])
def test_a_run_folder_that_cannot_be_made_is_named(minidl, tmp_path, place):
    (tmp_path / "file").write_text("no folder")
    path = tmp_path / place
    assert_mistake(minidl("train", "lenet5", "--out", path), f"cannot make the run folder {path}: ")
    assert os.listdir(tmp_path) == ["file"] and (tmp_path / "file").read_text() == "no folder"


def test_a_run_is_not_trained_over(minidl, run):
    before = {path: path.read_bytes() for path in run.iterdir()}
    assert_mistake(minidl("train", "lenet5", "--out", run), f"a run in {run} already; go on with --resume {run}")
    assert {path: path.read_bytes() for path in run.iterdir()} == before


def half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[-1000] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("command", [["train", "--resume"], ["evaluate"], ["predict"]], ids=" ".join)
@pytest.mark.parametrize("name, damage, complaint", [
    ("config.json", lambda path: path.unlink(), "there is no run in "),
    ("config.json", half, "config.json is damaged"),
    ("config.json", lambda path: path.write_text("{}"), "config.json is not the configuration of a run"),
    ("last.safetensors", half, "last.safetensors is damaged"),
    ("last.safetensors", flip_a_bit, "last.safetensors is damaged"),
    ("last.safetensors", lambda path: path.write_text("garbage"), "last.safetensors is damaged"),
], ids=["no config", "half a config", "empty config", "half a checkpoint", "flipped bit", "garbage"])
def test_a_damaged_run_is_said_in_one_line(minidl, run, command, name, damage, complaint):
    damage(run / name)
    image = ["image.png"] if command == ["predict"] else []
    assert_mistake(minidl(*command, run, *image), complaint)


@pytest.mark.parametrize("command", [["train", "--resume"], ["evaluate"]], ids=" ".join)
def test_a_missing_run_is_named(minidl, tmp_path, command):
    path = tmp_path / "nowhere"
    assert_mistake(minidl(*command, path), f"there is no run in {path}: it has no config.json")


@pytest.mark.parametrize("arguments, complaint", [
    ([], "required: COMMAND"),
    (["fly"], "invalid choice: 'fly'"),
    (["train", "lenet5", "--epochs", "many"], "--epochs: invalid int value: 'many'"),
    (["train", "lenet5", "--schedule", "step"], "--schedule: invalid choice: 'step'"),
    (["train", "lenet5", "--option", "variant"], "--option: must be NAME=VALUE; got 'variant'"),
    (["evaluate"], "required: RUN"),
])
def test_a_line_that_is_no_command_gets_the_usage(capsys, arguments, complaint):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    out, err = capsys.readouterr()
    assert (end.value.code, out) == (2, "")
    assert err.startswith("usage: minidl") and complaint in err


# What may happen during training

def test_a_checkpoint_that_cannot_be_written_is_named_and_what_was_written_before_is_removed(
    minidl, tmp_path, monkeypatch
):
    replace = os.replace

    def full(part, target):
        if target.name == "last.safetensors":
            raise OSError(28, "No space left on device")
        replace(part, target)

    monkeypatch.setattr(os, "replace", full)
    path = tmp_path / "runs" / "run" / "last.safetensors"
    status, out, err = minidl("train", "lenet5", "--images", 60, "--epochs", 2, "--quiet", "--out", path.parent)
    assert (status, err.count("\n")) == (2, 1)
    assert err.startswith(f"minidl: could not write {path}: No space left on device")
    assert os.listdir(tmp_path) == []


def test_a_training_that_diverges_says_so_in_one_line(minidl, tmp_path):
    status, out, err = minidl("train", "lenet5", "--lr", 1e36, "--quiet", "--out", tmp_path / "run")
    assert status == 1
    assert re.fullmatch(r"minidl: the loss became (nan|inf) in epoch 1, .*Try a rate of .*\n", err)


@pytest.fixture
def ctrl_c():
    """Ctrl-C raises KeyboardInterrupt, also where the shell started pytest in the background, deaf to it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield signal.default_int_handler
    signal.signal(signal.SIGINT, before)


def test_a_second_ctrl_c_stops_at_once(ctrl_c):
    with attended() as interrupted:
        assert not interrupted()
        signal.raise_signal(signal.SIGINT)
        assert interrupted()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is ctrl_c


def test_ctrl_c_within_an_epoch_keeps_the_place(minidl, tmp_path, monkeypatch):
    train_batch, batches = Trainer._train_batch, []

    def train_batch_and_press(*arguments):
        batches.append(arguments)
        if len(batches) == 60:  # in the second of three epochs of 46 batches
            signal.raise_signal(signal.SIGINT)
        return train_batch(*arguments)

    monkeypatch.setattr(Trainer, "_train_batch", train_batch_and_press)
    status, out, err = minidl("train", "lenet5", "--epochs", 3, "--quiet", "--out", tmp_path / "run")
    assert status == 130 and "Traceback" not in err
    assert out.endswith(f"interrupted in epoch 2 of 3; go on with: minidl train --resume {tmp_path / 'run'}\n")
    assert len(metrics(tmp_path / "run")) == 1
    assert minidl("train", "--resume", tmp_path / "run", "--quiet")[0] == 0
    assert [row["epoch"] for row in metrics(tmp_path / "run")] == [1, 2, 3]
    assert len(batches) == 3 * 46  # none of them twice


# bench

def test_bench_measures_both_passes(minidl, tmp_path):
    status, out, _ = minidl("bench", "lenet5", "--batch", 2, "--pairs", 1, "--json", tmp_path / "bench.json")
    assert status == 0
    rows = [line.split() for line in out.splitlines() if line.startswith("lenet5")]
    assert [row[1:3] for row in rows] == [["2", "inference"], ["2", "training"]]
    results = json.loads((tmp_path / "bench.json").read_text())
    assert results["matrix_product_gflops"] > 0
    for row in results["rows"]:
        assert row["milliseconds_per_image"] > 0 and 0 < row["share_of_matrix_product"] < 1.5
        assert row["ratio"] is None and (row["peak_bytes"] or 1) > 0
        flops = 2 * 416_520 * (3 if row["work"] == "training" else 1)  # claim F1's network
        assert row["gflops"] == pytest.approx(flops / row["milliseconds_per_image"] / 1e6, rel=1e-6)


def test_bench_against_pytorch(minidl):
    pytest.importorskip("torch")
    status, out, _ = minidl("bench", "lenet5", "--batch", 2, "--pairs", 2, "--against", "torch")
    assert status == 0
    assert re.search(r"^lenet5 +2 training .* \d+\.\d\d \(\d+\.\d\d to \d+\.\d\d\)$", out, re.MULTILINE)
    assert re.search(r"^training: geometric mean of the ratios \d+\.\d\d$", out, re.MULTILINE)


def test_bench_says_where_the_time_goes(minidl):
    status, out, _ = minidl("bench", "lenet5", "--batch", 2, "--profile")
    assert status == 0
    for row in ("conv2d, forward", "conv2d, backward", "avg_pool2d, backward", "SGD", "all"):
        assert re.search(rf"^  {row} +[\d.]+ ms +[\d.]+%$", out, re.MULTILINE)


def test_bench_watches_the_gpu(monkeypatch, tmp_path):
    bench, smi = sys.modules["minidl.cli.bench"], tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\nwhile :; do echo 80; sleep 0.05; done\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert bench._busy(lambda: None) is None  # on the CPU
    monkeypatch.setattr(bench, "get_device", lambda: "gpu")
    assert bench._busy(lambda: time.sleep(0.3)) == 0.8


def test_the_precision_of_products_is_set(minidl):
    assert minidl("info", "--precision", "high")[0] == 0
    assert dl.get_float32_matmul_precision() == "high"
    with pytest.raises(ValueError, match="highest, high, medium; got 'low'"):
        dl.set_float32_matmul_precision("low")


def test_a_graph_needs_a_gpu(minidl, tmp_path):
    status, _, err = minidl("train", "lenet5", "--cuda-graph", "--out", tmp_path / "run")
    assert (status, list(tmp_path.iterdir())) == (2, []) and "on a GPU only" in err


def test_bench_of_what_is_not_there(minidl, monkeypatch):
    status, _, err = minidl("bench", "lenet6")
    assert status == 2 and "there is no model 'lenet6'; did you mean lenet5" in err
    status, _, err = minidl("bench", "lenet5/2024", "--pairs", 1)
    assert status == 2 and "there is no variant '2024'" in err
    for option in ("--pairs", "--batch"):
        assert minidl("bench", "lenet5", option, 0)[::2] == (2, f"minidl: {option} must be at least 1; got 0\n")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    status, _, err = minidl("bench", "lenet5", "--against", "torch")
    assert status == 2 and "pip install torch" in err
