"""Photographs in folders: small trees made here, and Imagenette where it lies beside the repository."""

import os
import re
from pathlib import Path

import numpy as np
import pytest

import minidl.backend
from minidl.data import (
    BatchDataset,
    CenterCrop,
    Compose,
    DataLoader,
    ImageFolder,
    PCAJitter,
    RandomHorizontalFlip,
    RandomResizedCrop,
    Resize,
    TenCrop,
    imagenet_classes,
    read_rgb,
)
from minidl.data.folder import EXTENSIONS

Image = pytest.importorskip("PIL.Image", reason="needs Pillow")

RNG = np.random.default_rng(0)
IMAGENETTE = Path(__file__).parents[2] / "shared" / "data" / "imagenette2-160"


def save(path, shade=0, width=4, height=3, **options):
    """An image of one gray shade; returns `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (shade,) * 3).save(path, **options)
    return path


def noise(path, height, width):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(height * width).integers(256, size=(height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def root(tmp_path):
    """Two cats, and three dogs of which one lies deeper; each file has a shade of its own."""
    for shade, name in enumerate(["dog/b.png", "dog/a.png", "cat/2.png", "cat/10.png", "dog/more/0.png"]):
        save(tmp_path / name, 50 * shade)
    return tmp_path


def names(data):
    return [(path.relative_to(data.root).as_posix(), label) for path, label in data.samples]


def shades(images):
    return np.round(images[:, 0, 0, 0] * 255).astype(int).tolist()


def test_images_come_by_class_then_by_name(root):
    data = ImageFolder(root)
    assert data.classes == data.folders == ("cat", "dog")
    assert names(data) == [("cat/10.png", 0), ("cat/2.png", 0), ("dog/a.png", 1), ("dog/b.png", 1),
                           ("dog/more/0.png", 1)]
    assert len(data) == 5
    assert data.labels.dtype == np.int64 and data.labels.tolist() == [0, 0, 1, 1, 1]


def test_a_batch_has_the_images_and_labels_asked_for(root):
    images, labels = ImageFolder(root).fetch([4, 0, 2, 0, -2], RNG)
    assert images.shape == (5, 3, 3, 4) and images.dtype == np.float32
    assert shades(images) == [200, 150, 50, 150, 0]
    assert labels.dtype == np.int64 and labels.tolist() == [1, 0, 1, 0, 1]
    images, labels = ImageFolder(root).fetch(np.array([1, 3]), RNG)
    assert shades(images) == [100, 0] and labels.tolist() == [0, 1]


def test_one_item_is_a_batch_of_one(root):
    data = ImageFolder(root)
    image, label = data[3]
    assert image.shape == (3, 3, 4) and type(label) is int and label == 1
    np.testing.assert_array_equal(image, data.fetch([3], RNG)[0][0])
    np.testing.assert_array_equal(image, read_rgb(root / "dog" / "b.png"))
    np.testing.assert_array_equal(data[-1][0], data[np.int64(4)][0])


def test_a_data_set_ends(root):
    data = ImageFolder(root)
    assert [label for _, label in data] == [0, 0, 1, 1, 1]
    with pytest.raises(IndexError):
        data[5]
    with pytest.raises(TypeError):
        data[1.0]


def test_an_empty_batch_is_empty(root):
    images, labels = ImageFolder(root, Resize(4)).fetch([], RNG)
    assert len(images) == len(labels) == 0
    assert images.dtype == np.float32 and labels.dtype == np.int64


def test_an_image_folder_knows_batches(root):
    assert isinstance(ImageFolder(root), BatchDataset)


def test_the_repr_says_how_much_of_what_from_where(root):
    assert repr(ImageFolder(root, Resize(8))) == (
        f"ImageFolder(5 images of 2 classes in {str(root)!r}, transform=Resize(size=8))"
    )
    assert repr(ImageFolder(str(root))).endswith("transform=None)")


@pytest.mark.parametrize("extension", sorted(EXTENSIONS))
def test_every_extension_is_read_in_either_case(tmp_path, extension):
    options = {"lossless": True} if extension == ".webp" else {}
    mode = "L" if extension == ".pgm" else "RGB"
    for name in f"a{extension}", f"b{extension.upper()}":
        path = tmp_path / "class" / name
        path.parent.mkdir(exist_ok=True)
        Image.new(mode, (16, 16), 0 if mode == "L" else (0, 0, 0)).save(path, **options)
    images, _ = ImageFolder(tmp_path).fetch([0, 1], RNG)
    assert images.shape == (2, 3, 16, 16) and not images.any()


def test_what_is_no_image_is_passed_over(root):
    for name in "cat/notes.txt", "cat/boxes.xml", "cat/.DS_Store", "cat/png", "dog/a.png.part", "README.md", "1.png":
        (root / name).write_bytes(b"not an image")
    assert len(ImageFolder(root)) == 5


def test_hidden_folders_are_no_classes(root):
    save(root / ".cache" / "1.png")
    (root / ".empty").mkdir()
    assert ImageFolder(root).classes == ("cat", "dog")


def test_a_folder_named_like_an_image_is_no_image(root):
    save(root / "cat" / "series.png" / "1.png", 250)
    data = ImageFolder(root)
    assert names(data)[2] == ("cat/series.png/1.png", 0) and len(data) == 6
    assert shades(data.fetch(range(6), RNG)[0])[2] == 250


def test_a_class_may_be_a_link_to_a_folder(root, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    save(elsewhere / "1.png", 250)
    (root / "bird").symlink_to(elsewhere)
    assert names(ImageFolder(root))[0] == ("bird/1.png", 0)


def link(path, target):
    try:
        path.symlink_to(target, target_is_directory=True)
    except OSError:
        pytest.skip("this system does not let this user make links")


def test_links_are_followed_as_by_os_walk(root, tmp_path_factory):
    store = tmp_path_factory.mktemp("store")
    save(store / "1.png"), save(store / "deep" / "2.png")
    link(root / "cat" / "more", store)
    link(root / "cat" / "again", store)
    link(root / "bird", store)
    link(root / "dog" / "one.png", root / "cat" / "2.png")
    walked = [Path(folder, name) for folder, _, names in os.walk(root, followlinks=True) for name in names]
    assert sorted(path for path, _ in ImageFolder(root).samples) == sorted(walked)
    assert ("cat/more/deep/2.png", 1) in names(ImageFolder(root))


@pytest.mark.parametrize("target", [".", "..", "../..", "../cat", "../../.."])
def test_a_link_back_to_where_it_is_ends(root, target):
    link(root / "cat" / "loop", Path(target))
    assert len(ImageFolder(root)) == 5


def test_two_folders_that_are_linked_to_each_other_end(root):
    for name in "a", "b":
        save(root / "cat" / name / "1.png")
    link(root / "cat" / "a" / "other", root / "cat" / "b")
    link(root / "cat" / "b" / "other", root / "cat" / "a")
    assert sorted(name for name, label in names(ImageFolder(root)) if label == 0 and "/a" in name[:5]) == [
        "cat/a/1.png", "cat/a/other/1.png"]


@pytest.mark.parametrize("place", ["bird", "cat/more", "cat/3.png"])
def test_a_broken_link_is_named(root, place):
    link(root / place, root / "gone")
    with pytest.raises(FileNotFoundError, match=re.escape(f"{root / place} is a link to {root / 'gone'}, which")):
        ImageFolder(root)


def test_what_unpackers_and_systems_leave_is_passed_over(root):
    save(root / "__MACOSX" / "cat" / "._1.png")
    save(root / "@eaDir" / "cat" / "1.png")
    save(root / "cat" / "__MACOSX" / "1.png")
    save(root / "cat" / "._1.png")
    for name in "Thumbs.db", "cat/Thumbs.db", "desktop.ini", "cat/desktop.ini", ".DS_Store", "cat/.DS_Store":
        (root / name).write_bytes(b"")
    assert ImageFolder(root).classes == ("cat", "dog") and len(ImageFolder(root)) == 5


def test_the_home_folder_may_be_written_as_a_tilde(root, monkeypatch):
    monkeypatch.setenv("HOME", str(root.parent))
    monkeypatch.setenv("USERPROFILE", str(root.parent))
    assert len(ImageFolder(f"~/{root.name}")) == 5


@pytest.mark.parametrize("parts", [["training", "validation"], ["Train", "Val"], ["train", "test"], ["train"]])
@pytest.mark.parametrize("classes", ["", "cat/"])
def test_parts_of_a_data_set_are_not_classes(tmp_path, parts, classes):
    for part in parts:
        save(tmp_path / part / f"{classes}1.png")
    with pytest.raises(ValueError, match=r"\(" + ", ".join(sorted(parts)) + r"\) are named as parts of a data set"):
        ImageFolder(tmp_path)
    assert ImageFolder(tmp_path, folders=sorted(parts)).classes == tuple(sorted(parts))


@pytest.mark.parametrize("outer", [["pets"], ["fold1", "fold2"]])
def test_folders_that_all_hold_the_classes_are_not_classes(tmp_path, outer):
    for folder in outer:
        for inner in "cat", "dog":
            save(tmp_path / folder / inner / "1.png")
    if len(outer) > 1:
        save(tmp_path / outer[-1] / "bird" / "1.png")
    with pytest.raises(ValueError, match=re.escape(f"the same folders (cat, dog); open {tmp_path / outer[0]} if")):
        ImageFolder(tmp_path)
    assert ImageFolder(tmp_path, folders=outer).classes == tuple(outer)
    save(tmp_path / outer[0] / "1.png")
    assert ImageFolder(tmp_path).classes == tuple(outer)


def test_the_images_of_a_class_may_be_in_a_folder_that_all_classes_have(tmp_path):
    """As in Tiny ImageNet: ``n01443537/images/n01443537_0.JPEG``."""
    for name in "n01443537", "n01629819":
        save(tmp_path / name / "images" / "0.JPEG")
    assert ImageFolder(tmp_path).folders == ("n01443537", "n01629819")


@pytest.mark.parametrize("name", ["Löwe", "two words", "a.b"])
def test_a_class_may_have_any_name(root, name):
    save(root / name / "mit ß.png", 250)
    data = ImageFolder(root)
    assert name in data.classes and len(data) == 6


def test_wordnet_ids_are_named_by_their_words(tmp_path):
    for folder in "n02102040", "n01440764", "mine", "n99999999":
        save(tmp_path / folder / "1.png")
    data = ImageFolder(tmp_path)
    assert data.folders == ("mine", "n01440764", "n02102040", "n99999999")
    assert data.classes == ("mine", "tench", "English springer", "n99999999")


def test_folders_ask_for_other_labels(root):
    data = ImageFolder(root, folders=["dog", "bird", "cat"])
    assert data.classes == ("dog", "bird", "cat")
    assert names(data)[0] == ("cat/10.png", 2) and names(data)[-1] == ("dog/more/0.png", 0)
    assert data.labels.tolist() == [2, 2, 0, 0, 0] and data[2][1] == 0


def test_all_of_imagenet_s_folders_give_imagenet_s_labels(tmp_path):
    for folder in "n02099601", "n02123045", "n01440764", "n15075141":
        save(tmp_path / folder / "1.png")
    data = ImageFolder(tmp_path, folders=list(imagenet_classes()))
    assert len(data.classes) == 1000
    assert data.labels.tolist() == [0, 207, 281, 999]
    assert [data.classes[label] for label in data.labels][:2] == ["tench", "golden retriever"]


def test_a_folder_that_no_label_is_asked_for_is_refused(root):
    with pytest.raises(ValueError, match=f"^{re.escape(str(root))} has the folder 'dog', which is no.* the 1 classes"):
        ImageFolder(root, folders=["cat"])
    with pytest.raises(ValueError, match="has the folder 'cat', which is no.* the 1000 classes"):
        ImageFolder(root, folders=list(imagenet_classes()))


def test_a_folder_that_is_not_there_is_named(tmp_path):
    for path in tmp_path / "nothing", str(tmp_path / "nothing"), save(tmp_path / "a.png"):
        with pytest.raises(FileNotFoundError, match=f"^there is no folder {re.escape(str(path))}$"):
            ImageFolder(path)


def test_a_folder_without_folders_is_refused(tmp_path):
    save(tmp_path / "1.png")
    (tmp_path / ".hidden").mkdir()
    with pytest.raises(FileNotFoundError, match=re.escape(
        f"{tmp_path} has no folders; expected one folder of images for each class"
    )):
        ImageFolder(tmp_path)


def test_a_class_without_images_is_named(root):
    (root / "bird").mkdir()
    (root / "bird" / "notes.txt").touch()
    with pytest.raises(FileNotFoundError, match=re.escape(f"{root / 'bird'} holds no image (.bmp, ")):
        ImageFolder(root)


def test_images_of_one_size_need_no_transform_and_of_two_sizes_do(root):
    noise(root / "cat" / "3.png", 6, 9)
    data = ImageFolder(root)
    assert data.fetch([2], RNG)[0].shape == (1, 3, 6, 9)
    with pytest.raises(ValueError, match=re.escape("have the shapes (3, 3, 4) and (3, 6, 9); let the transform")):
        data.fetch(range(6), RNG)
    with pytest.raises(ValueError, match=re.escape("have the shapes (3, 8, 10) and (3, 8, 12)")):
        ImageFolder(root, Resize(8)).fetch([0, 2], RNG)


def test_a_transform_brings_images_to_one_size(root):
    path = noise(root / "cat" / "3.png", 6, 9)
    transform = Compose([Resize(8), CenterCrop(8)])
    images, labels = ImageFolder(root, transform).fetch(range(6), RNG)
    assert images.shape == (6, 3, 8, 8) and labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert shades(images[[0, 1, 3, 4, 5]]) == [150, 100, 50, 0, 200]
    np.testing.assert_array_equal(images[2:3], transform(read_rgb(path)[None], RNG))


def test_a_transform_may_make_many_views_of_an_image(root):
    data = ImageFolder(root, TenCrop(2))
    assert data.fetch([0, 1], RNG)[0].shape == (2, 10, 3, 2, 2)
    assert data[0][0].shape == (10, 3, 2, 2)


def test_a_transform_gets_each_image_alone_and_the_generator(root):
    noise(root / "cat" / "3.png", 6, 9)
    calls = []

    def transform(images, rng):
        calls.append((images.shape, images.dtype, rng))
        return images[..., :2, :2] + 1

    rng = np.random.default_rng()
    images, _ = ImageFolder(root, transform).fetch([2, 0, 5], rng)
    assert calls == [(shape, np.float32, rng) for shape in [(1, 3, 6, 9), (1, 3, 3, 4), (1, 3, 3, 4)]]
    assert images.shape == (3, 3, 2, 2) and images.min() >= 1


VARIED = Compose([RandomResizedCrop(8), RandomHorizontalFlip(), PCAJitter()])


def test_random_numbers_come_from_the_generator_alone(tmp_path):
    noise(tmp_path / "class" / "1.png", 20, 30)
    data = ImageFolder(tmp_path, VARIED)
    first, again, other = (data.fetch([0, 0], np.random.default_rng(seed))[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert not np.array_equal(first[0], first[1])


def test_single_items_draw_from_the_generator_that_manual_seed_seeds(tmp_path, monkeypatch):
    noise(tmp_path / "class" / "1.png", 20, 30)
    data = ImageFolder(tmp_path, VARIED)
    monkeypatch.setattr(minidl.backend, "_generator", np.random.default_rng(5))
    np.testing.assert_array_equal(data[0][0], data.fetch([0], np.random.default_rng(5))[0][0])


def test_threads_change_nothing(tmp_path):
    for number in range(23):
        noise(tmp_path / f"class {number % 3}" / f"{number}.png", 15 + number, 40 - number)
    epochs = []
    for workers in 0, 2:
        loader = DataLoader(ImageFolder(tmp_path, VARIED), 5, shuffle=True, num_workers=workers, seed=3)
        epochs.append([[(images.numpy(), labels.numpy()) for images, labels in loader] for _ in range(2)])
    alone, together = epochs
    assert [len(batches) for batches in alone] == [len(batches) for batches in together] == [5, 5]
    for batches, others in zip(alone, together):
        for (images, labels), (other_images, other_labels) in zip(batches, others):
            np.testing.assert_array_equal(images, other_images)
            np.testing.assert_array_equal(labels, other_labels)
    assert not np.array_equal(alone[0][0][0], alone[1][0][0])
    assert sorted(np.concatenate([labels for _, labels in alone[0]])) == sorted(ImageFolder(tmp_path).labels)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_file_is_named(root, workers):
    path = noise(root / "dog" / "c.jpg", 40, 50)
    path.write_bytes(path.read_bytes()[:900])
    data = ImageFolder(root, Compose([Resize(4), CenterCrop(4)]))
    assert data.fetch([0, 1, 2, 3, 5], RNG)[0].shape == (5, 3, 4, 4)
    with pytest.raises(ValueError, match=re.escape(f"{path} is not an image that can be read: ")):
        list(DataLoader(data, 2, num_workers=workers))


def test_a_file_that_has_gone_is_named(root):
    data = ImageFolder(root)
    (root / "cat" / "10.png").unlink()
    with pytest.raises(FileNotFoundError, match=re.escape(str(root / "cat" / "10.png"))):
        data[0]


# The classes of ImageNet


def test_imagenet_has_a_thousand_classes_in_the_order_of_their_ids():
    ids, words = list(imagenet_classes()), list(imagenet_classes().values())
    assert len(ids) == 1000
    assert ids == sorted(ids) and all(re.fullmatch(r"n\d{8}", wordnet_id) for wordnet_id in ids)
    assert len(set(words)) == 1000 and all(word and word == word.strip() for word in words)


@pytest.mark.parametrize("label, wordnet_id, word", [
    (0, "n01440764", "tench"), (1, "n01443537", "goldfish"), (207, "n02099601", "golden retriever"),
    (217, "n02102040", "English springer"), (281, "n02123045", "tabby"), (388, "n02510455", "giant panda"),
    (482, "n02979186", "cassette player"), (701, "n03888257", "parachute"), (954, "n07753592", "banana"),
    (999, "n15075141", "toilet tissue"),
])
def test_a_label_of_imagenet_is_the_published_one(label, wordnet_id, word):
    assert list(imagenet_classes().items())[label] == (wordnet_id, word)


# Real photographs


WORDS = {"tench", "English springer", "cassette player", "chain saw", "church", "French horn", "garbage truck",
         "gas pump", "golf ball", "parachute"}


@pytest.mark.parametrize("part, count", [("train", 100), ("val", 50)])
def test_imagenette_has_ten_classes_of_equal_size(part, count):
    if not IMAGENETTE.exists():
        pytest.skip("skipped: data not found")
    data = ImageFolder(IMAGENETTE / part)
    assert set(data.classes) == WORDS and data.classes[0] == "tench"
    assert np.bincount(data.labels).tolist() == [count] * 10
    labelled = ImageFolder(IMAGENETTE / part, folders=list(imagenet_classes()))
    assert [labelled.classes[label] for label in labelled.labels] == [data.classes[label] for label in data.labels]
    assert sorted(set(labelled.labels.tolist())) == [0, 217, 482, 491, 497, 566, 569, 571, 574, 701]


def test_all_photographs_of_imagenette_can_be_read():
    if not IMAGENETTE.exists():
        pytest.skip("skipped: data not found")
    data, gray = ImageFolder(IMAGENETTE / "val"), 0
    for image, (path, _) in zip((image for image, _ in data), data.samples):
        with Image.open(path) as file:
            assert image.shape == (3, file.height, file.width)
            gray += file.mode == "L"
            assert file.mode != "L" or np.array_equal(image[0], image[1]) and np.array_equal(image[1], image[2])
        assert image.dtype == np.float32 and 0 <= image.min() < image.max() <= 1
    assert gray > 0
