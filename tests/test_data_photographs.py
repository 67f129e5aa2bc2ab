"""The transforms of photographs and the papers' recipes: against what one would do to each pixel by hand."""

import math
import re
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidl.data import (
    CenterCrop,
    Compose,
    PCAJitter,
    RandomCrop,
    RandomHorizontalFlip,
    RandomResize,
    RandomResizedCrop,
    Resize,
    TenCrop,
)
from minidl.data.photographs import resize
from minidl.data.recipes import AUGMENTATIONS, RECIPES, evaluation, ten_crop

pytest.importorskip("PIL", reason="needs Pillow")

RNG = np.random.default_rng(0)
RANDOM = [RandomResize(6, 15), RandomCrop(5), RandomCrop(9, padding=3), RandomResizedCrop(6), RandomHorizontalFlip(),
          PCAJitter()]
ALL = [Resize(7), CenterCrop(5), TenCrop(5), *RANDOM]
sides = st.integers(1, 30)


def seeded(seed):
    return np.random.default_rng(seed)


def photographs(count, height, width, channels=3):
    return seeded(height * width).random((count, channels, height, width), np.float32)


def numbered(count, height, width):
    """`count` equal images whose pixels are all different: a crop tells where it is from."""
    return np.tile(np.arange(1, height * width + 1, dtype=np.float32).reshape(1, 1, height, width), (count, 1, 1, 1))


def window(image, top, left, size):
    """The `size` × `size` pixels from row `top` and column `left` of `image` (C, H, W), zeros around it."""
    cut = np.zeros((len(image), size, size), image.dtype)
    for channel, row, column in np.ndindex(cut.shape):
        if 0 <= top + row < image.shape[1] and 0 <= left + column < image.shape[2]:
            cut[channel, row, column] = image[channel, top + row, left + column]
    return cut


def weights(old, new):
    """The shares (new, old) of the old pixels of a line in the new ones: a triangle over each new one's place.

    Its slopes reach to the middle of the next pixel, of the old ones or of the new ones, whichever are further apart.
    """
    scale, shares = old / new, np.zeros((new, old))
    for i in range(new):
        for j in range(old):
            distance = abs((j + 0.5) - (i + 0.5) * scale)
            shares[i, j] = max(0, 1 - distance / max(scale, 1))
    return shares / shares.sum(axis=1, keepdims=True)


def scaled(images, height, width):
    down, across = weights(images.shape[2], height), weights(images.shape[3], width)
    return np.einsum("ih,nchw,jw->ncij", down, images.astype(np.float64), across)


# Resizing


@given(sides, sides, sides, sides)
def test_resize_weighs_the_pixels_around(height, width, new_height, new_width):
    images = photographs(2, height, width, channels=2)
    resized = resize(images, (new_height, new_width))
    assert resized.dtype == np.float32 and resized.shape == (2, 2, new_height, new_width)
    np.testing.assert_allclose(resized, scaled(images, new_height, new_width), rtol=0, atol=2e-6)
    assert images.min() - 1e-6 <= resized.min() and resized.max() <= images.max() + 1e-6


@given(sides, sides)
def test_resize_to_the_same_size_changes_nothing(height, width):
    images = photographs(2, height, width)
    np.testing.assert_array_equal(resize(images, (height, width)), images)


@given(sides, sides, sides, sides, st.floats(-2, 2, width=32))
def test_a_constant_image_stays_constant(height, width, new_height, new_width, shade):
    images = np.full((1, 1, height, width), shade, np.float32)
    np.testing.assert_allclose(resize(images, (new_height, new_width)), shade, rtol=1e-6, atol=1e-30)


@given(sides, sides, sides, sides, st.floats(-3, 3), st.floats(-3, 3))
def test_resize_is_linear(height, width, new_height, new_width, a, b):
    one, other = photographs(2, height, width)[:, None]
    size = new_height, new_width
    mixed = resize((a * one + b * other).astype(np.float32), size)
    np.testing.assert_allclose(mixed, a * resize(one, size) + b * resize(other, size), rtol=0, atol=1e-5)


@given(st.sampled_from([2, 4, 6]), st.integers(3, 8))
def test_a_smaller_image_averages_blocks_and_their_neighbours(factor, blocks):
    """The triangle over a block of equal pixels has 3/4 of its area there, and 1/8 over each neighbour."""
    line = seeded(factor).random(blocks)
    small = resize(np.tile(line.repeat(factor), (1, 1, factor, 1)).astype(np.float32), (1, blocks))[0, 0, 0]
    np.testing.assert_allclose(small[1:-1], line[:-2] / 8 + line[1:-1] * 3 / 4 + line[2:] / 8, atol=1e-6)


def test_a_smaller_image_skips_no_pixel():
    stripes = np.tile(np.array([0, 1], np.float32), (1, 1, 16, 8))
    np.testing.assert_allclose(resize(stripes, (8, 8))[..., 1:-1], 0.5, atol=1e-6)
    dots = np.zeros((64, 1, 8, 8), np.float32)
    dots[np.arange(64), 0, np.arange(64) // 8, np.arange(64) % 8] = 1
    assert (resize(dots, (3, 3)).max(axis=(1, 2, 3)) > 0).all()


@given(sides, sides, st.integers(1, 40))
def test_resize_keeps_the_ratio_as_torchvision_does(height, width, size):
    short, long = sorted((height, width))
    longer = int(long * size / short)
    resized = Resize(size)(photographs(2, height, width), RNG)
    assert resized.shape == (2, 3, *((size, longer) if height <= width else (longer, size)))


def test_resize_of_photographs_of_imagenet():
    assert [Resize(256)(np.zeros((1, 1, *shape), np.float32), RNG).shape[2:] for shape in
            [(375, 500), (500, 375), (333, 500), (256, 300), (500, 500)]] == [
            (256, 341), (341, 256), (256, 384), (256, 300), (256, 256)]


def test_random_resize_is_resize_to_any_of_its_sizes():
    images, generator = photographs(2, 10, 17), seeded(4)
    counts = Counter()
    for _ in range(400):
        resized = RandomResize(8, 12)(images, generator)
        counts[resized.shape[2]] += 1
        np.testing.assert_array_equal(resized, Resize(resized.shape[2])(images, RNG))
    assert sorted(counts) == [8, 9, 10, 11, 12]
    assert min(counts.values()) > 40  # 5 standard deviations below 80
    assert RandomResize(9, 9)(images, generator).shape == (2, 3, 9, 15)


# Crops


@given(sides, sides, st.data())
def test_the_centre_is_in_the_middle(height, width, data):
    size = data.draw(st.integers(1, min(height, width)))
    images = photographs(2, height, width)
    crops = CenterCrop(size)(images, RNG)
    places = [(top, left) for top in {(height - size) // 2, (height - size + 1) // 2}
              for left in {(width - size) // 2, (width - size + 1) // 2}]
    assert any(np.array_equal(crops, [window(image, *place, size) for image in images]) for place in places)


@given(sides, sides, st.integers(0, 4), st.integers(0, 99), st.data())
def test_a_random_crop_is_a_window_of_the_padded_image(height, width, padding, seed, data):
    size = data.draw(st.integers(1, min(height, width) + 2 * padding))
    images = photographs(3, height, width, channels=2) + 1
    crops = RandomCrop(size, padding)(images, seeded(seed))
    assert crops.shape == (3, 2, size, size) and crops.dtype == np.float32
    tops, lefts = (range(-padding, side + padding - size + 1) for side in (height, width))
    bordered = np.pad(images, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    for image, crop in zip(bordered, crops):
        assert any(np.array_equal(crop, image[:, top + padding :, left + padding :][:, :size, :size])
                   for top in tops for left in lefts)


@pytest.mark.parametrize("padding", [0, 1])
def test_random_crops_are_from_everywhere_equally_often(padding):
    images = numbered(6000, 4, 5)
    crops = RandomCrop(3, padding)(images, seeded(2))
    counts = Counter(crop.tobytes() for crop in crops)
    tops, lefts = (range(-padding, side + padding - 2) for side in (4, 5))
    everywhere = {window(images[0], top, left, 3).tobytes() for top in tops for left in lefts}
    assert set(counts) == everywhere
    expected = 6000 / len(everywhere)
    assert max(abs(count - expected) for count in counts.values()) < 5 * math.sqrt(expected)


@given(sides, sides, st.data())
def test_ten_views_come_in_order_corners_centre_and_mirror_images(height, width, data):
    size = data.draw(st.integers(1, min(height, width)))
    images = photographs(2, height, width)
    views = TenCrop(size)(images, RNG)
    assert views.shape == (2, 10, 3, size, size) and views.dtype == np.float32
    bottom, right = height - size, width - size
    for image, ten in zip(images, views):
        for view, (top, left) in zip(ten, [(0, 0), (0, right), (bottom, 0), (bottom, right)]):
            np.testing.assert_array_equal(view, window(image, top, left, size))
        np.testing.assert_array_equal(ten[4], CenterCrop(size)(image[None], RNG)[0])
        np.testing.assert_array_equal(ten[5:], ten[:5, :, :, ::-1])


# Parts of any size and shape


def test_parts_keep_within_scale_and_ratio():
    transform, generator = RandomResizedCrop(8, scale=(0.1, 0.6), ratio=(1 / 2, 3)), seeded(5)
    height, width = 120, 100
    parts = np.array([transform._part(height, width, generator) for _ in range(4000)])
    top, left, h, w = parts.T
    assert (top >= 0).all() and (left >= 0).all() and (top + h <= height).all() and (left + w <= width).all()
    # sides are whole pixels: half a pixel more or less of each
    assert ((h + 0.5) * (w + 0.5) >= 0.1 * height * width).all()
    assert ((h - 0.5) * (w - 0.5) <= 0.6 * height * width).all()
    assert ((w + 0.5) / (h - 0.5) >= 1 / 2).all() and ((w - 0.5) / (h + 0.5) <= 3).all()
    share, ratio = h * w / (height * width), w / h
    assert share.min() < 0.11 and share.max() > 0.58
    assert ratio.min() < 0.52 and ratio.max() > 2.7


def test_areas_are_even_and_ratios_even_in_their_logarithm():
    transform, generator = RandomResizedCrop(8, scale=(0.05, 0.35)), seeded(6)
    _, _, h, w = np.array([transform._part(400, 400, generator) for _ in range(4000)]).T
    share, logarithm = h * w / 400**2, np.log(w / h) / math.log(4 / 3)
    for values, low, high in (share, 0.05, 0.35), (logarithm, -1, 1):
        counts, _ = np.histogram(values, bins=4, range=(low, high))
        assert np.abs(counts - 1000).max() < 150  # 5 standard deviations


def test_parts_are_from_everywhere_equally_often():
    transform, generator = RandomResizedCrop(2, scale=(0.25, 0.25), ratio=(1, 1)), seeded(7)
    counts = Counter(transform._part(4, 4, generator) for _ in range(3600))
    assert sorted(counts) == [(top, left, 2, 2) for top in range(3) for left in range(3)]
    assert max(abs(count - 400) for count in counts.values()) < 100


def test_the_whole_image_may_be_a_part():
    transform = RandomResizedCrop(6, scale=(1, 1), ratio=(1, 1))
    images = photographs(2, 9, 9)
    np.testing.assert_array_equal(transform(images, RNG), resize(images, (6, 6)))


@pytest.mark.parametrize("height, width, part", [
    (30, 100, (0, 30, 30, 40)),  # 4/3 of 30 wide
    (100, 30, (30, 0, 40, 30)),  # 4/3 of 30 high
    (50, 50, (0, 0, 50, 50)),
    (50, 60, (0, 0, 50, 60)),
    (1, 9, (0, 4, 1, 1)),
    (1, 1, (0, 0, 1, 1)),
])
def test_where_no_part_fits_the_middle_is_taken(height, width, part):
    assert RandomResizedCrop(8, scale=(4, 5))._part(height, width, RNG) == part


@given(sides, sides, st.integers(1, 20), st.integers(0, 99))
def test_a_part_is_cut_out_and_resized(height, width, size, seed):
    transform = RandomResizedCrop(size)
    images = photographs(3, height, width, channels=2)
    crops = transform(images, seeded(seed))
    assert crops.shape == (3, 2, size, size) and crops.dtype == np.float32
    generator = seeded(seed)
    for image, crop in zip(images, crops):
        top, left, h, w = transform._part(height, width, generator)
        np.testing.assert_array_equal(crop, resize(image[None, :, top : top + h, left : left + w], (size, size))[0])


# Mirror images and colours


def test_each_image_is_mirrored_or_not():
    images = photographs(1000, 3, 4)
    flipped = RandomHorizontalFlip(0.3)(images, seeded(8))
    mirrored = 0
    for before, after in zip(images, flipped):
        mirrored += np.array_equal(after, before[:, :, ::-1])
        assert np.array_equal(after, before) or np.array_equal(after, before[:, :, ::-1])
    assert abs(mirrored - 300) < 5 * math.sqrt(1000 * 0.3 * 0.7)
    np.testing.assert_array_equal(RandomHorizontalFlip(0)(images, RNG), images)
    np.testing.assert_array_equal(RandomHorizontalFlip(1)(images, RNG), images[..., ::-1])


# The components of ImageNet's colours, as published with AlexNet's first copies: roots of eigenvalues in 0 to 255.
ROOTS = np.array([55.46, 4.794, 1.148]) / 255
COMPONENTS = np.array([[-0.5675, -0.5808, -0.5836], [0.7192, -0.0045, -0.6948], [0.4009, -0.8140, 0.4203]])


@given(sides, sides, st.integers(0, 99))
def test_jitter_adds_one_colour_to_an_image(height, width, seed):
    images = photographs(3, height, width)
    jittered = PCAJitter()(images, seeded(seed))
    assert jittered.dtype == np.float32 and jittered.shape == images.shape
    added = jittered.astype(np.float64) - images
    np.testing.assert_allclose(added, np.broadcast_to(added[:, :, :1, :1], added.shape), atol=1e-6)
    assert len(np.unique(added[:, 0, 0, 0])) == 3


@pytest.mark.parametrize("std", [0.1, 0.5])
def test_jitter_spreads_along_the_components_of_imagenet(std):
    colours = PCAJitter(std)(np.zeros((50_000, 3, 1, 1), np.float32), seeded(9))[:, :, 0, 0].astype(np.float64)
    alphas = colours @ COMPONENTS.T / ROOTS / std  # of a standard normal distribution each, and unrelated
    assert np.abs(alphas.mean(axis=0)).max() < 0.03
    np.testing.assert_allclose(np.cov(alphas.T), np.eye(3), atol=0.04)
    np.testing.assert_allclose((alphas**4).mean(axis=0), 3, atol=0.2)
    expected = COMPONENTS.T @ np.diag((std * ROOTS) ** 2) @ COMPONENTS
    np.testing.assert_allclose(np.cov(colours.T), expected, atol=0.03 * expected.max())


def test_no_jitter_is_no_change():
    images = photographs(2, 3, 4)
    np.testing.assert_array_equal(PCAJitter(0)(images, RNG), images)


# All of them


@pytest.mark.parametrize("transform", ALL, ids=repr)
@pytest.mark.parametrize("count", [0, 1, 3])
def test_shapes_hold_for_every_count(transform, count):
    made = [transform(photographs(n, 12, 9), seeded(1)) for n in (count, 2)]
    assert made[0].shape == (count, *made[1].shape[1:]) and made[0].dtype == np.float32


@pytest.mark.parametrize("transform", [t for t in ALL if not isinstance(t, PCAJitter)], ids=repr)
@pytest.mark.parametrize("channels", [1, 4])
def test_any_number_of_channels_is_treated_as_three_are(transform, channels):
    images = photographs(2, 12, 9, channels=4)
    whole = transform(images, seeded(1))
    few = transform(images[:, :channels], seeded(1))
    np.testing.assert_array_equal(few, whole[..., :channels, :, :])


@pytest.mark.parametrize("transform", ALL, ids=repr)
def test_the_layout_of_the_input_changes_nothing(transform):
    images = photographs(4, 12, 9)
    expected = transform(images, seeded(1))
    views = {
        "columns first": np.asfortranarray(images),
        "pixels with their channels": np.ascontiguousarray(images.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
        "mirrored twice": np.ascontiguousarray(images[..., ::-1])[..., ::-1],
        "every second row": images.repeat(2, axis=2)[:, :, ::2],
    }
    for name, view in views.items():
        assert not view.flags.c_contiguous, name
        np.testing.assert_array_equal(transform(view, seeded(1)), expected, err_msg=name)


@pytest.mark.parametrize("transform", ALL, ids=repr)
def test_the_input_is_left_alone(transform):
    images = photographs(3, 12, 9)
    before = images.copy()
    images.flags.writeable = False
    transform(images, seeded(1))
    np.testing.assert_array_equal(images, before)


@pytest.mark.parametrize("transform", RANDOM, ids=repr)
def test_random_numbers_come_from_the_generator_alone(transform):
    images = photographs(8, 12, 9)
    first, again, other = (transform(images, seeded(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert first.shape != other.shape or not np.array_equal(first, other)


@pytest.mark.parametrize("transform", [t for t in RANDOM if not isinstance(t, RandomResize)], ids=repr)
def test_each_image_of_a_batch_is_drawn_on_its_own(transform):
    made = transform(np.repeat(photographs(1, 12, 9), 12, axis=0), seeded(1))
    assert len({image.tobytes() for image in made}) > (1 if isinstance(transform, RandomHorizontalFlip) else 6)


@pytest.mark.parametrize("transform", [Resize(7), CenterCrop(5), TenCrop(5)], ids=repr)
def test_what_leaves_nothing_to_chance_takes_no_random_number(transform):
    np.testing.assert_array_equal(*(transform(photographs(3, 12, 9), rng) for rng in (seeded(1), None)))


@pytest.mark.parametrize("transform", ALL, ids=repr)
def test_a_repr_reads_like_the_constructor(transform):
    assert eval(repr(transform)) == transform


def test_they_work_one_after_the_other():
    composed = Compose([Resize(8), RandomCrop(6, padding=1), RandomHorizontalFlip(), PCAJitter(), TenCrop(4)])
    images = photographs(2, 12, 9)
    generator, expected = seeded(3), images
    for transform in composed.transforms:
        expected = transform(expected, generator)
    np.testing.assert_array_equal(composed(images, seeded(3)), expected)


SMALL = photographs(1, 6, 9)


@pytest.mark.parametrize("make, complaint", [
    (lambda: Resize(0), "Resize: the size is 0; expected 1 or more pixels"),
    (lambda: RandomResize(0, 5), "RandomResize: the size is 0; expected 1 or more pixels"),
    (lambda: RandomResize(5, 4), "RandomResize: max_size is 4; expected min_size=5 or more"),
    (lambda: CenterCrop(-3), "CenterCrop: the size is -3; expected 1 or more pixels"),
    (lambda: RandomCrop(0), "RandomCrop: the size is 0; expected 1 or more pixels"),
    (lambda: RandomCrop(3, padding=-1), "RandomCrop: padding is -1; expected 0 or more pixels"),
    (lambda: RandomResizedCrop(0), "RandomResizedCrop: the size is 0; expected 1 or more pixels"),
    (lambda: RandomResizedCrop(3, scale=(0, 1)), "scale is (0, 1); expected two numbers above 0, in order"),
    (lambda: RandomResizedCrop(3, scale=(0.5, 0.1)), "scale is (0.5, 0.1); expected two numbers above 0, in order"),
    (lambda: RandomResizedCrop(3, ratio=(-1, 1)), "ratio is (-1, 1); expected two numbers above 0, in order"),
    (lambda: RandomResizedCrop(3, ratio=(2, 1)), "RandomResizedCrop: ratio is (2, 1)"),
    (lambda: RandomResizedCrop(3, ratio=(math.nan, 1)), "RandomResizedCrop: ratio is (nan, 1)"),
    (lambda: RandomHorizontalFlip(1.5), "RandomHorizontalFlip: p is a probability; got 1.5"),
    (lambda: RandomHorizontalFlip(-0.1), "RandomHorizontalFlip: p is a probability; got -0.1"),
    (lambda: RandomHorizontalFlip(math.nan), "RandomHorizontalFlip: p is a probability; got nan"),
    (lambda: TenCrop(0), "TenCrop: the size is 0; expected 1 or more pixels"),
    (lambda: CenterCrop(7)(SMALL, RNG), "CenterCrop(7): images of 6×9 pixels are too small; put Resize(7) in front"),
    (lambda: RandomCrop(8)(SMALL, RNG), "RandomCrop(8): images of 6×9 pixels are too small; put Resize(8) in front"),
    (lambda: RandomCrop(9, padding=1)(SMALL, RNG), "RandomCrop(9): images of "),
    (lambda: TenCrop(7)(SMALL[:0], RNG), "TenCrop(7): images of 6×9 pixels are too small; put Resize(7) in front"),
    (lambda: PCAJitter()(SMALL[:, :1], RNG), "PCAJitter needs red, green and blue; got images (1, 1, 6, 9)"),
])
def test_what_makes_no_sense_is_refused(make, complaint):
    with pytest.raises(ValueError, match=re.escape(complaint)):
        make()


def test_a_narrow_image_does_not_become_a_giant():
    with pytest.raises(ValueError, match="images of 1×500000 pixels would become 256×128000000; at most 89,478,485"):
        Resize(256)(np.zeros((1, 3, 1, 500_000), np.float32), RNG)


def test_resizing_without_pillow_tells_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ModuleNotFoundError, match=re.escape("pip install 'minidl[images]'")):
        Resize(4)(SMALL, RNG)


# Recipes


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("size", [32, 112, 224])
@pytest.mark.parametrize("height, width", [(150, 210), (90, 60)])
def test_a_recipe_makes_images_of_the_size_asked_for(name, size, height, width):
    images, recipe = photographs(2, height, width), Compose(RECIPES[name](size))
    first, again, other = (recipe(images, seeded(seed)) for seed in (1, 1, 2))
    assert first.shape == (2, *([10] if name == "ten_crop" else []), 3, size, size) and first.dtype == np.float32
    np.testing.assert_array_equal(first, again)
    assert np.array_equal(first, other) == (name in ("none", "ten_crop"))


def test_networks_are_trained_by_every_recipe_but_the_one_that_tests_them():
    assert sorted(AUGMENTATIONS) == ["alexnet", "cifar", "inception", "none", "resnet", "vgg"]
    assert sorted(RECIPES) == sorted([*AUGMENTATIONS, "ten_crop"])


def test_the_papers_sizes_are_the_papers():
    """The shorter sides that the papers name, at the 224 pixels that their networks take."""
    assert RECIPES["none"](224) == [Resize(256), CenterCrop(224)]
    assert RECIPES["ten_crop"](224) == [Resize(256), TenCrop(224)]
    assert RECIPES["alexnet"](224)[:2] == [Resize(256), RandomCrop(224)]
    assert RECIPES["vgg"](224)[:2] == [RandomResize(256, 512), RandomCrop(224)]
    assert RECIPES["resnet"](224)[:2] == [RandomResize(256, 480), RandomCrop(224)]
    assert RECIPES["inception"](224)[0] == RandomResizedCrop(224, scale=(0.08, 1), ratio=(3 / 4, 4 / 3))
    assert RECIPES["cifar"](32)[2] == RandomCrop(32, padding=4)
    assert RECIPES["cifar"](224)[2] == RandomCrop(224, padding=28)


@given(st.integers(1, 300), st.sampled_from(sorted(RECIPES)))
def test_a_recipe_of_any_size_leaves_room_for_its_crop(size, name):
    for transform in RECIPES[name](size):
        if isinstance(transform, (Resize, RandomResize)):
            assert getattr(transform, "size", getattr(transform, "min_size", 0)) >= size


def test_the_middle_of_256_pixels_is_tested():
    images = photographs(1, 256, 256)
    np.testing.assert_array_equal(Compose(evaluation(224))(images, RNG), images[:, :, 16:240, 16:240])
    views = Compose(ten_crop(224))(images, RNG)
    np.testing.assert_array_equal(views[:, 3], images[:, :, 32:, 32:])
    np.testing.assert_array_equal(views[:, 4], images[:, :, 16:240, 16:240])
