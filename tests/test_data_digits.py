"""The bundled digits and the data set that holds them."""

import numpy as np
import pytest

import minidl.backend
from minidl.data import ArrayDataset, BatchDataset, RandomShift, digits

RNG = np.random.default_rng(0)


def test_the_digits_are_those_of_the_source():
    source = pytest.importorskip("sklearn.datasets").load_digits()
    rank = np.array([np.sum(source.target[:i] == label) for i, label in enumerate(source.target)])
    test = rank % 5 == 4
    for train, chosen in (True, ~test), (False, test):
        np.testing.assert_array_equal(digits(train).images[:, 0], source.images[chosen])
        np.testing.assert_array_equal(digits(train).labels, source.target[chosen])


def test_the_split_is_the_documented_one():
    train, test = digits(), digits(train=False)
    assert train.images.shape == (1442, 1, 8, 8) and test.images.shape == (355, 1, 8, 8)
    assert np.bincount(train.labels).tolist() == [143, 146, 142, 147, 145, 146, 145, 144, 140, 144]
    assert np.bincount(test.labels).tolist() == [35, 36, 35, 36, 36, 36, 36, 35, 34, 36]
    assert train.classes == tuple("0123456789")


def test_images_are_bytes_in_memory_and_floats_from_black_to_white_when_asked_for():
    data = digits()
    assert data.images.dtype == np.uint8 and data.images.max() == 16
    images, labels = data.fetch(range(len(data)), RNG)
    assert images.dtype == np.float32 and (images.min(), images.max()) == (0, 1)
    assert labels.dtype == np.int64
    np.testing.assert_array_equal(images * 16, data.images)


def test_one_item_is_a_batch_of_one():
    data = digits()
    image, label = data[7]
    images, labels = data.fetch([7], RNG)
    assert image.shape == (1, 8, 8) and type(label) is int
    np.testing.assert_array_equal(image, images[0])
    assert label == labels[0]
    np.testing.assert_array_equal(data[-1][0], data[1441][0])


def test_a_data_set_ends():
    with pytest.raises(IndexError, match="1442"):
        digits()[1442]
    assert len(list(digits(train=False))) == 355


def test_a_transform_gets_the_whole_batch_and_the_generator():
    calls = []

    def transform(images, rng):
        calls.append((images.shape, images.dtype, rng))
        return images + 1

    rng = np.random.default_rng()
    images, _ = digits(transform=transform).fetch([3, 1, 4], rng)
    assert calls == [((3, 1, 8, 8), np.float32, rng)]
    np.testing.assert_array_equal(images, digits().fetch([3, 1, 4], rng)[0] + 1)


def test_single_items_draw_from_the_generator_that_manual_seed_seeds(monkeypatch):
    monkeypatch.setattr(minidl.backend, "_generator", np.random.default_rng(5))
    data = digits(transform=RandomShift(3))
    image, _ = data[0]
    np.testing.assert_array_equal(image, data.fetch([0], np.random.default_rng(5))[0][0])


def test_the_repr_says_how_much_of_what():
    assert repr(digits(transform=RandomShift(1))) == (
        "ArrayDataset(1442 images of 1×8×8, transform=RandomShift(pixels=1))"
    )


BYTES = np.zeros((4, 3, 2, 2), np.uint8)


def test_scale_is_the_largest_number_of_bytes_and_words_and_1_for_floats():
    words = np.full(BYTES.shape, 65535)
    for images, white in ((BYTES + 255, 1), (BYTES + 51, 0.2), (BYTES.astype(float) + 0.5, 0.5),
                          (words.astype(np.uint16), 1), (words.astype(">u2"), 1), (words.astype("<u2"), 1)):
        batch, _ = ArrayDataset(images, range(4)).fetch([0, 1], RNG)
        assert batch.dtype == np.float32
        np.testing.assert_array_equal(batch, np.full((2, 3, 2, 2), white, np.float32))


@pytest.mark.parametrize("dtype", ["int8", "int16", "int64", "uint32", "uint64"])
def test_other_whole_numbers_need_a_scale(dtype):
    with pytest.raises(ValueError, match=f"images are {dtype}, whose value of white is not known; .*scale=255"):
        ArrayDataset(BYTES.astype(dtype), range(4))
    batch, _ = ArrayDataset(BYTES.astype(dtype) + 51, range(4), scale=102).fetch([0], RNG)
    np.testing.assert_array_equal(batch, np.float32(0.5))


def test_images_are_not_copied():
    images = BYTES.copy()
    assert ArrayDataset(images, range(4)).images is images


def test_an_array_data_set_knows_batches():
    assert isinstance(digits(), BatchDataset)
    assert not isinstance([(0, 0)], BatchDataset)


def test_an_empty_data_set_is_a_data_set():
    data = ArrayDataset(BYTES[:0], [], classes=["none"])
    assert len(data) == 0
    assert data.fetch([], RNG)[0].shape == (0, 3, 2, 2)


@pytest.mark.parametrize("arguments, error, complaint", [
    ({"images": BYTES[0], "labels": [0] * 3}, ValueError, r"have the shape \(3, 2, 2\); expected \(N, C, H, W\)"),
    ({"images": BYTES, "labels": [0] * 3}, ValueError, r"labels have the shape \(3,\); expected \(4,\)"),
    ({"images": BYTES, "labels": [[0]] * 4}, ValueError, r"labels have the shape \(4, 1\); expected \(4,\)"),
    ({"images": BYTES, "labels": [0.5] * 4}, TypeError, r"labels are float64; expected whole numbers"),
    ({"images": BYTES.astype(object), "labels": [0] * 4}, TypeError, r"images are object"),
    ({"images": BYTES, "labels": [0, 1, 2, 0], "classes": "ab"}, ValueError, r"label 2 of image 2; expected 0 to 1"),
    ({"images": BYTES, "labels": [0, -1, 1, 0], "classes": "ab"}, ValueError, r"label -1 of image 1; .* for 2 classes"),
    ({"images": BYTES, "labels": [0] * 4, "scale": 0}, ValueError, r"scale is 0; expected the value of white, above 0"),
])
def test_what_does_not_fit_together_is_refused(arguments, error, complaint):
    with pytest.raises(error, match=complaint):
        ArrayDataset(**arguments)
