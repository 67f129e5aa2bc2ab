"""Data sets by name: the right images, prepared as a network wants them, and what is asked for wrongly refused."""

import os
import re

import numpy as np
import pytest
from test_data_idx import idx_bytes

from minidl.data import (
    ArrayDataset,
    Compose,
    DataLoader,
    Fit,
    ImageFolder,
    Normalize,
    digits,
    open_dataset,
    read_rgb,
)
from minidl.data.catalog import SOURCES, find_source
from minidl.data.recipes import AUGMENTATIONS, RECIPES

Image = pytest.importorskip("PIL.Image", reason="needs Pillow")

RNG = np.random.default_rng(0)
# published with torchvision's weights
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def seeded(seed):
    return np.random.default_rng(seed)


def flat(path, *colour):
    """A photograph of one colour, 50 pixels wide and 40 high."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (50, 40), colour).save(path)


def noise(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(1).integers(256, size=(40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def root(tmp_path):
    """Two training images and one test image of each class."""
    flat(tmp_path / "train" / "cat" / "1.png", 10, 20, 30)
    flat(tmp_path / "train" / "cat" / "2.png", 40, 50, 60)
    noise(tmp_path / "train" / "dog" / "1.png")
    noise(tmp_path / "train" / "dog" / "2.png")
    flat(tmp_path / "val" / "cat" / "3.png", 70, 80, 90)
    flat(tmp_path / "val" / "dog" / "3.png", 0, 128, 255)
    return tmp_path


def files(data):
    return [path.relative_to(data.root).as_posix() for path, _ in data.samples]


def test_train_and_val_are_told_apart(root):
    train, test = (open_dataset(f"imagefolder:{root}", part, 32) for part in (True, False))
    assert isinstance(train, ImageFolder) and isinstance(test, ImageFolder)
    assert files(train) == ["cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png"]
    assert files(test) == ["cat/3.png", "dog/3.png"]
    assert train.classes == test.classes == ("cat", "dog")
    images, labels = next(iter(DataLoader(train, 4)))
    assert images.shape == (4, 3, 32, 32) and labels.numpy().tolist() == [0, 0, 1, 1]


def test_folders_of_classes_alone_are_trained_and_tested_on(root):
    name = f"imagefolder:{root / 'train'}"
    train, test = (open_dataset(name, part, 32) for part in (True, False))
    assert files(train) == files(test) == ["cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png"]
    np.testing.assert_array_equal(train.fetch(range(4), RNG)[0], test.fetch(range(4), RNG)[0])


@pytest.mark.parametrize("missing, kept", [("val", "train"), ("train", "val")])
def test_half_of_train_and_val_is_not_taken_for_both(root, missing, kept):
    (root / missing).rename(root.parent / f"{root.name} elsewhere")
    assert len(open_dataset(f"imagefolder:{root}", kept == "train", 32)) > 0
    images = {"train": "training images (train, training)",
              "val": "test images (val, valid, validation, test, testing)"}[missing]
    complaint = f"{root / kept} is there, but no folder for the {images.replace(' (', ' beside it (')}"
    with pytest.raises(FileNotFoundError, match=f"^{re.escape(complaint)}$"):
        open_dataset(f"imagefolder:{root}", missing == "train", 32)


@pytest.mark.parametrize("train, test", [
    ("training", "validation"), ("Train", "Val"), ("TRAIN", "TEST"), ("train", "valid"), ("Training", "testing"),
])
def test_the_parts_may_have_other_names(root, train, test):
    (root / "train").rename(root / train)
    (root / "val").rename(root / test)
    trained, tested = (open_dataset(f"imagefolder:{root}", part, 32) for part in (True, False))
    assert trained.folders == tested.folders == ("cat", "dog")
    assert (len(trained), len(tested)) == (4, 2)


def test_of_several_parts_to_test_on_the_validation_images_are_taken(root):
    flat(root / "test" / "cat" / "1.png", 1, 2, 3)
    assert files(open_dataset(f"imagefolder:{root}", False, 32)) == ["cat/3.png", "dog/3.png"]


def test_test_images_that_are_not_sorted_into_classes_are_refused(root):
    for path in list((root / "val").rglob("*.png")):
        path.rename(root / "val" / f"{path.parent.name}.png")
        path.parent.rmdir()
    assert len(open_dataset(f"imagefolder:{root}", True, 32)) == 4
    with pytest.raises(FileNotFoundError, match=re.escape(f"{root / 'val'} has no folders; expected one folder")):
        open_dataset(f"imagefolder:{root}", False, 32)


def test_classes_may_be_called_train_and_test(tmp_path):
    for name in "bus", "test", "train":
        flat(tmp_path / name / "1.png", 1, 2, 3)
    assert open_dataset(f"imagefolder:{tmp_path}", True, 32).classes == ("bus", "test", "train")


@pytest.mark.parametrize("name", ["imagefolder", "mnist", "fashion_mnist", "cifar10"])
def test_a_folder_may_be_in_the_home_folder(name, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert find_source(f"{name}:~/pets") == (SOURCES[name], os.path.join(str(tmp_path), "pets"))


@pytest.mark.parametrize("part", ["train", "val"])
def test_a_class_that_is_in_one_of_train_and_val_only_shifts_no_label(root, part):
    """It is refused, or the labels of the others are the same in both."""
    flat(root / part / "bird" / "1.png", 1, 2, 3)
    try:
        both = [open_dataset(f"imagefolder:{root}", train, 32) for train in (True, False)]
    except ValueError as error:
        assert "bird" in str(error)
    else:
        labels = [{path.parent.name: label for path, label in data.samples} for data in both]
        assert all(labels[0][name] == labels[1][name] for name in ("cat", "dog"))


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=re.escape(f"there is no folder {tmp_path / 'nothing'}")):
        open_dataset(f"imagefolder:{tmp_path / 'nothing'}", True, 32)
    with pytest.raises(FileNotFoundError, match=re.escape(f"{tmp_path} has no folders")):
        open_dataset(f"imagefolder:{tmp_path}", True, 32)


def test_a_path_may_have_a_colon(tmp_path):
    flat(tmp_path / "a:b" / "cat" / "1.png", 10, 20, 30)
    assert len(open_dataset(f"imagefolder:{tmp_path / 'a:b'}", True, 32)) == 1


# Preparation


def test_photographs_are_normalised_as_those_of_imagenet(root):
    images, _ = open_dataset(f"imagefolder:{root}", False, 32).fetch([0, 1], RNG)
    assert images.dtype == np.float32 and images.shape == (2, 3, 32, 32)
    for image, colour in zip(images, [(70, 80, 90), (0, 128, 255)]):
        expected = (np.array(colour) / 255 - MEAN) / STD
        np.testing.assert_allclose(image, np.broadcast_to(expected[:, None, None], (3, 32, 32)), atol=1e-5)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_frames_photographs_before_they_are_normalised(root, recipe):
    data = open_dataset(f"imagefolder:{root}", True, 24, recipe)
    images, _ = data.fetch([2], seeded(4))
    framed = Compose(RECIPES[recipe](24))(read_rgb(root / "train" / "dog" / "1.png")[None], seeded(4))
    np.testing.assert_allclose(images, (framed - MEAN[:, None, None]) / STD[:, None, None], rtol=1e-5, atol=1e-5)
    assert images.shape == ((1, 10, 3, 24, 24) if recipe == "ten_crop" else (1, 3, 24, 24))


@pytest.mark.parametrize("recipe", AUGMENTATIONS)
def test_shift_moves_photographs_of_every_recipe(root, recipe):
    data = open_dataset(f"imagefolder:{root}", True, 24, recipe, shift=3)
    again = data.fetch([2], seeded(1))[0]
    np.testing.assert_array_equal(data.fetch([2], seeded(1))[0], again)
    assert any(not np.array_equal(data.fetch([2], seeded(seed))[0], again) for seed in range(2, 6))


def test_shift_moves_black_in_from_the_border(root):
    still = open_dataset(f"imagefolder:{root}", True, 24).fetch([2], RNG)[0]
    black = np.float32(-MEAN / STD)[:, None, None]
    padded = np.broadcast_to(black, (3, 28, 28)).copy()
    padded[:, 2:-2, 2:-2] = still[0]
    windows = [padded[:, top : top + 24, left : left + 24] for top in range(5) for left in range(5)]
    moved = open_dataset(f"imagefolder:{root}", True, 24, shift=2).fetch([2] * 300, seeded(1))[0]
    found = {next(i for i, window in enumerate(windows) if np.allclose(image, window, atol=1e-5)) for image in moved}
    assert found == set(range(25))


def test_ten_views_are_not_shifted(root):
    images, _ = open_dataset(f"imagefolder:{root}", False, 24, "ten_crop").fetch([0], RNG)
    assert images.shape == (1, 10, 3, 24, 24)
    with pytest.raises(ValueError, match="ten crops are for measuring, .* got shift=2"):
        open_dataset(f"imagefolder:{root}", False, 24, "ten_crop", shift=2)


def test_an_unknown_recipe_is_refused(root):
    with pytest.raises(ValueError, match="resnett"):
        open_dataset(f"imagefolder:{root}", True, 24, "resnett")


@pytest.mark.parametrize("recipe", ["alexnet", "ten_crop", "nonsense"])
@pytest.mark.parametrize("name", ["digits", "mnist", "fashion_mnist"])
def test_recipes_are_for_photographs(name, recipe):
    with pytest.raises(ValueError, match=f"the recipe '{recipe}' is for photographs, .* drawings are varied by shift"):
        open_dataset(name, True, 32, recipe)


# Drawings


def test_digits_come_as_before():
    for train in True, False:
        data = open_dataset("digits", train, 32)
        expected = digits(train, Compose([Fit(32), Normalize([0.3051], [0.3762])]))
        assert isinstance(data, ArrayDataset) and len(data) == len(expected)
        for ours, theirs in zip(data.fetch(range(50), RNG), expected.fetch(range(50), RNG)):
            np.testing.assert_array_equal(ours, theirs)
    assert repr(open_dataset("digits", True, 32, shift=2).transform) == (
        "Compose(transforms=[Fit(size=32), RandomShift(pixels=2), Normalize(mean=[0.3051], std=[0.3762])])"
    )


def test_the_statistics_of_the_digits_are_theirs():
    images, _ = digits().fetch(range(1442), RNG)
    source, _ = find_source("digits")
    assert abs(images.mean() - source.mean) < 1e-4 and abs(images.std() - source.std) < 1e-4


@pytest.mark.parametrize("name, mean, std", [("mnist", 0.1307, 0.3081), ("fashion_mnist", 0.2860, 0.3530)])
def test_mnist_comes_from_a_folder_as_before(tmp_path, name, mean, std):
    pixels = np.random.default_rng(2).integers(256, size=(3, 28, 28), dtype=np.uint8)
    for part in "train", "t10k":
        (tmp_path / f"{part}-images-idx3-ubyte").write_bytes(idx_bytes(pixels if part == "train" else pixels[:1]))
        (tmp_path / f"{part}-labels-idx1-ubyte").write_bytes(
            idx_bytes(np.array([7, 1, 2][: 3 if part == "train" else 1], np.uint8))
        )
    images, labels = open_dataset(f"{name}:{tmp_path}", True, 32).fetch(range(3), RNG)
    expected = (np.pad(pixels / 255, ((0, 0), (2, 2), (2, 2))) - mean) / std
    np.testing.assert_allclose(images[:, 0], expected, atol=1e-5)
    assert labels.tolist() == [7, 1, 2] and len(open_dataset(f"{name}:{tmp_path}", False, 32)) == 1


# Names


@pytest.mark.parametrize("name, folder", [
    ("digits", None), ("digits:", None), ("mnist", None), ("mnist:", None), ("mnist:a/b", "a/b"),
    ("imagefolder:a", "a"), ("imagefolder:C:\\a", "C:\\a"), ("fashion_mnist:/a b", "/a b"),
])
def test_a_name_may_have_a_folder(name, folder):
    assert find_source(name) == (SOURCES[name.partition(":")[0]], folder)


@pytest.mark.parametrize("name, complaint", [
    ("imagefolder", "the data set 'imagefolder' is a folder of yours; write imagefolder:PATH"),
    ("imagefolder:", "the data set 'imagefolder' is a folder of yours; write imagefolder:PATH"),
    ("digits:a/b", "the data set 'digits' comes with minidl and takes no folder; got 'a/b'"),
    ("mnits", "there is no data set 'mnits'; did you mean mnist"),
    ("imagefoldr:a", "there is no data set 'imagefoldr'; did you mean imagefolder?"),
    ("digit", "there is no data set 'digit'; did you mean digits"),
    ("zzz", "there is no data set 'zzz'; there are digits, mnist, fashion_mnist, cifar10, imagefolder"),
    ("", "there is no data set ''; there are digits, "),
    (":a", "there is no data set ''; there are digits, "),
])
def test_a_name_that_does_not_fit_is_refused_with_a_hint(name, complaint):
    for ask in (find_source, lambda name: open_dataset(name, True, 32)):
        with pytest.raises(ValueError, match=re.escape(complaint)):
            ask(name)


# Single images


def test_one_image_is_read_as_those_of_the_set_are(tmp_path):
    noise(tmp_path / "1.png")
    source, _ = find_source("imagefolder:a")
    np.testing.assert_array_equal(source.read(tmp_path / "1.png", invert=False), read_rgb(tmp_path / "1.png"))
    for name, size in ("digits", 8), ("mnist", 28), ("fashion_mnist", 28):
        drawing = find_source(name)[0].read(tmp_path / "1.png", invert=False)
        assert drawing.shape == (1, size, size) and drawing.dtype == np.float32


def test_photographs_are_not_inverted(tmp_path):
    noise(tmp_path / "1.png")
    with pytest.raises(ValueError, match="invert is for drawings; a photograph is shown as it is"):
        find_source("imagefolder:a")[0].read(tmp_path / "1.png", invert=True)
