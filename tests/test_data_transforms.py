"""The transforms: against what one would do to each image by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidl.data import (
    CenterCrop,
    Compose,
    Fit,
    Normalize,
    PCAJitter,
    RandomCrop,
    RandomHorizontalFlip,
    RandomResize,
    RandomResizedCrop,
    RandomShift,
    Resize,
    TenCrop,
    digits,
)

RNG = np.random.default_rng(0)


def images(count, channels, height, width):
    return np.random.default_rng(1).random((count, channels, height, width), np.float32) + 1


def shifted(image, down, right):
    """`image` (C, H, W) moved pixel by pixel, zeros behind it."""
    moved = np.zeros_like(image)
    for channel, row, column in np.ndindex(image.shape):
        if 0 <= row + down < image.shape[1] and 0 <= column + right < image.shape[2]:
            moved[channel, row + down, column + right] = image[channel, row, column]
    return moved


def test_normalize_treats_each_channel_by_its_own():
    batch = images(4, 2, 3, 5)
    normal = Normalize([0.5, -1], [2, 0.25])(batch, RNG)
    assert normal.dtype == np.float32
    np.testing.assert_array_equal(normal[:, 0], (batch[:, 0] - np.float32(0.5)) / 2)
    np.testing.assert_array_equal(normal[:, 1], (batch[:, 1] + 1) * 4)


def test_normalize_with_the_statistics_of_the_data_makes_them_0_and_1():
    batch, _ = digits().fetch(range(500), RNG)
    normal = Normalize([batch.mean()], [batch.std()])(batch, RNG)
    assert abs(normal.mean()) < 1e-5 and abs(normal.std() - 1) < 1e-5


@given(st.integers(1, 9), st.integers(1, 9), st.integers(9, 40))
def test_fit_makes_each_pixel_a_square_in_the_middle_of_zeros(height, width, size):
    batch = images(2, 3, height, width)
    factor = size // max(height, width)
    fitted = Fit(size)(batch, RNG)
    assert fitted.shape == (2, 3, size, size) and fitted.dtype == np.float32
    rows, columns = (np.flatnonzero(fitted[0, 0].any(axis)) for axis in (1, 0))
    for length, found in (height, rows), (width, columns):
        before, after = found[0], size - 1 - found[-1]
        assert len(found) == factor * length
        assert after - before in (0, 1)
    inside = fitted[:, :, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    np.testing.assert_array_equal(inside, np.kron(batch, np.ones((factor, factor), np.float32)))


def test_fit_brings_mnist_to_32_as_in_1998():
    batch = images(1, 1, 28, 28)
    np.testing.assert_array_equal(Fit(32)(batch, RNG), np.pad(batch, ((0, 0), (0, 0), (2, 2), (2, 2))))


def test_fit_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="images of 8×33 pixels do not fit into 32×32"):
        Fit(32)(images(1, 1, 8, 33), RNG)


@given(st.integers(0, 5), st.integers(0, 100))
def test_random_shift_moves_each_image_and_never_too_far(pixels, seed):
    batch = images(3, 2, 4, 3)
    moved = RandomShift(pixels)(batch, np.random.default_rng(seed))
    assert moved.shape == batch.shape and moved.dtype == batch.dtype
    reach = range(-pixels, pixels + 1)
    for before, after in zip(batch, moved):
        assert any(np.array_equal(shifted(before, down, right), after) for down in reach for right in reach)


def test_random_shift_takes_every_shift_equally_often():
    dots = np.zeros((4500, 1, 3, 3), np.float32)
    dots[:, :, 1, 1] = 1
    counts = RandomShift(1)(dots, np.random.default_rng(3)).sum(axis=(0, 1))
    assert counts.sum() == 4500
    assert np.abs(counts - 500).max() < 100  # 4.7 standard deviations of a binomial


def test_random_numbers_come_from_the_generator_alone():
    batch = images(20, 1, 5, 5)
    first, again, other = (RandomShift(2)(batch, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


COMPUTING = [Normalize([0.5], [2.0]), PCAJitter(), Resize(4), Resize(8), RandomResize(3, 9), RandomResizedCrop(4)]
MOVING = [Fit(9), RandomShift(1), CenterCrop(4), RandomCrop(4, padding=1), RandomHorizontalFlip(), TenCrop(4)]


@pytest.mark.parametrize("dtype", ["uint8", "int64", "bool"])
@pytest.mark.parametrize("transform", COMPUTING, ids=repr)
def test_transforms_that_compute_refuse_whole_numbers(transform, dtype):
    """They would take 0 to 255 for 0 to 1."""
    for count in 0, 2:
        with pytest.raises(TypeError, match=rf'got images of {dtype}. Write images.astype\("float32"\) / 255'):
            transform(images(count, 1, 8, 8).astype(dtype), RNG)


@pytest.mark.parametrize("dtype", ["uint8", "int64", "float16", "float64"])
@pytest.mark.parametrize("transform", MOVING, ids=repr)
def test_transforms_that_only_move_pixels_take_any_numbers(transform, dtype):
    pixels = np.random.default_rng(2).integers(1, 200, (3, 3, 8, 8))
    moved = transform(pixels.astype(dtype), np.random.default_rng(5))
    assert moved.dtype == dtype
    np.testing.assert_array_equal(moved, transform(pixels.astype(np.float32), np.random.default_rng(5)))


@pytest.mark.parametrize("dtype", ["float16", "float64", ">f4"])
@pytest.mark.parametrize("transform", [Normalize([0.5], [2.0]), Resize(4), RandomResizedCrop(4)], ids=repr)
def test_transforms_that_compute_take_any_floats(transform, dtype):
    if not isinstance(transform, Normalize):
        pytest.importorskip("PIL", reason="needs Pillow")
    batch = images(2, 1, 8, 8)
    expected = transform(batch, np.random.default_rng(5))
    np.testing.assert_allclose(transform(batch.astype(dtype), np.random.default_rng(5)), expected, atol=2e-3)


def test_compose_goes_from_the_first_to_the_last():
    batch = images(2, 1, 4, 4)
    composed = Compose([Fit(10), Normalize([0.5], [2])])(batch, RNG)
    np.testing.assert_array_equal(composed, Normalize([0.5], [2])(Fit(10)(batch, RNG), RNG))
    assert composed[0, 0, 0, 0] == -0.25  # the zeros around the image were normalised too


@pytest.mark.parametrize("transform", [Fit(32), Normalize([0.5], [2.0]), RandomShift(2), Compose([Fit(9)])])
@pytest.mark.parametrize("count", [0, 3])
def test_transforms_leave_their_input_alone_and_take_an_empty_batch(transform, count):
    batch = images(count, 1, 8, 8)
    before = batch.copy()
    assert len(transform(batch, np.random.default_rng(0))) == count
    np.testing.assert_array_equal(batch, before)


def test_a_repr_reads_like_the_constructor():
    transform = Compose([Fit(32), RandomShift(2), Normalize([0.1], [0.3])])
    assert repr(transform) == (
        "Compose(transforms=[Fit(size=32), RandomShift(pixels=2), Normalize(mean=[0.1], std=[0.3])])"
    )
    assert eval(repr(transform)) == transform


@pytest.mark.parametrize("make, complaint", [
    (lambda: Fit(0), "size is 0"),
    (lambda: RandomShift(-1), "pixels is -1"),
    (lambda: Normalize([0, 0], [1]), "2 means, 1 standard deviations"),
    (lambda: Normalize([0], [0]), r"std is \[0\]; every standard deviation must be above 0"),
    (lambda: Normalize([0, 0, 0], [1, 1, 1])(images(2, 1, 4, 4), RNG), r"\(2, 1, 4, 4\) have 1 channels; .* expects 3"),
])
def test_options_that_make_no_sense_are_refused(make, complaint):
    with pytest.raises(ValueError, match=complaint):
        make()
