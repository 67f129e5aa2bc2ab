"""What every factory takes and refuses: sizes, classes, channels, variants, published weights; and how it starts."""

import hashlib
import re

import numpy as np
import pytest

import minidl as dl
import models
from minidl import nn
from minidl.data import CenterCrop, Normalize, Resize
from models.published import FILES, preprocessing

SMALLEST = [("alexnet", {}, 67), ("alexnet", {"variant": "torchvision"}, 63), ("zfnet", {"filters": (8, 8, 8)}, 63),
            ("vgg11", {}, 32), ("googlenet", {}, 31), ("googlenet", {"variant": "torchvision"}, 15),
            ("resnet18", {}, 1), ("resnet50", {}, 1), ("plain18", {}, 1), ("resnet20", {}, 1), ("plain20", {}, 1)]


def image(side, channels=3, count=1):
    return dl.tensor(np.random.default_rng(side).standard_normal((count, channels, side, side), np.float32))


@pytest.mark.parametrize("name, options, side", SMALLEST)
def test_the_smallest_image_works_and_one_pixel_less_is_told_so(name, options, side):
    model = models.build(name, num_classes=3, **options).eval()
    with dl.no_grad():
        assert model(image(side)).shape == (1, 3)
        for larger in (side + 1, side + 17):
            assert np.isfinite(model(image(larger)).data).all()
        if side > 1:
            with pytest.raises(ValueError, match=rf"at least {side} × {side} pixels; got \(1, 3, {side - 1}, .*Resize"):
                model(image(side - 1))


def test_googlenets_heads_need_larger_images_while_it_is_trained():
    model = models.googlenet(num_classes=3)
    assert [part.shape for part in model(image(79))] == [(1, 3)] * 3
    with pytest.raises(ValueError, match="at least 79 × 79 pixels"):
        model(image(78))
    assert models.googlenet(num_classes=3, aux_logits=False)(image(78)).shape == (1, 3)


def test_googlenet_gives_its_parts_in_network_order():
    output = models.googlenet(num_classes=3)(image(96))
    assert output._fields == ("logits", "aux1", "aux2") and output[0] is output.logits


@pytest.mark.parametrize("weight", [0.0, 0.3, 2.0])
def test_googlenets_loss_adds_the_heads(weight):
    model, labels = models.googlenet(num_classes=3, aux_weight=weight), dl.tensor(np.array([1, 2]))
    output = model(image(96, count=2))
    each = [dl.functional.cross_entropy(part, labels).item() for part in output]
    assert model.criterion(output, labels).item() == pytest.approx(each[0] + weight * (each[1] + each[2]), rel=1e-6)
    model.eval()
    logits = model(image(96, count=2))
    assert model.criterion(logits, labels).item() == dl.functional.cross_entropy(logits, labels).item()


@pytest.mark.usefixtures("blank_weights")
@pytest.mark.parametrize("name", [name for name in models.available() if name not in ("lenet5", "neocognitron")])
def test_classes_and_channels_are_free(name):
    parameters = list(models.build(name, num_classes=4, in_channels=2).parameters())
    assert parameters[0].shape[1] == 2 and parameters[-1].shape == (4,)


@pytest.mark.parametrize("shape", [(3, 96, 96), (96, 96), (1, 1, 3, 96, 96)])
def test_what_is_no_batch_of_images_is_refused(shape):
    with pytest.raises(ValueError, match=re.escape(f"takes images (N, C, H, W); got shape {shape}")):
        models.googlenet()(dl.tensor(np.zeros(shape, np.float32)))


def test_images_of_another_number_of_channels_are_refused():
    with pytest.raises(ValueError, match="input has 1 channels"):
        models.resnet20()(image(32, channels=1))


@pytest.mark.parametrize("name, options, complaint", [
    ("alexnet", {"variant": "tf"}, "alexnet: there is no variant 'tf'; choose 'paper' or 'torchvision'"),
    ("googlenet", {"variant": "v3"}, "googlenet: there is no variant 'v3'"),
    ("resnet50", {"variant": "v2"}, "resnet50: there is no variant 'v2'"),
    ("googlenet", {"aux_weight": -1}, "aux_weight must be a number ≥ 0; got -1"),
    ("zfnet", {"filters": (1, 2)}, r"such as \(512, 1024, 512\); got \(1, 2\)"),
    ("resnet20", {"num_classes": 0}, "got 0"),
])
def test_options_that_a_model_does_not_have_are_refused(name, options, complaint):
    with pytest.raises(ValueError, match=complaint):
        models.build(name, **options)


def test_every_model_has_a_preset_and_a_public_name():
    assert len(models.available()) == 25
    for name in models.available():
        assert models.preset(name).epochs > 0 and getattr(models, name) is models.FACTORIES[name]
        assert models.FACTORIES[name].__doc__


# Initialisation

PIXEL_STD = 255 * np.mean([0.229, 0.224, 0.225])
"""The papers' pixels go from 0 to 255; normalised ones have the deviation 1, and the first layer makes up for it."""


def deviations(model):
    return [float(layer.weight.data.std()) for layer in model.modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]


def test_alexnet_starts_as_in_the_paper():
    dl.manual_seed(0)
    model = models.alexnet(num_classes=100)
    first, *others = deviations(model)
    np.testing.assert_allclose([first / PIXEL_STD, *others], 0.01, rtol=0.02)
    layers = [layer for layer in model.modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]
    assert [set(layer.bias.data.tolist()) for layer in layers] == [{0}, {1}, {0}, {1}, {1}, {1}, {1}, {0}]


def test_zfnet_starts_as_in_the_paper():
    dl.manual_seed(0)
    model = models.zfnet(num_classes=100, filters=(64, 64, 64))
    first, *others = deviations(model)
    np.testing.assert_allclose([first / PIXEL_STD, *others], 0.01, rtol=0.02)
    assert all(not layer.bias.data.any() for layer in model.modules() if isinstance(layer, (nn.Conv2d, nn.Linear)))


def test_vgg_starts_as_glorot_and_bengio():
    dl.manual_seed(0)
    model = models.vgg11(num_classes=100)
    layers = [layer for layer in model.modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]
    fans = [w.shape[0] * np.prod(w.shape[2:], dtype=int) + w[0].size for w in (layer.weight for layer in layers)]
    first, *others = deviations(model)
    np.testing.assert_allclose([first / PIXEL_STD, *others], np.sqrt(2 / np.array(fans)), rtol=0.05)
    assert all(not layer.bias.data.any() for layer in layers)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet20", "plain20"])
def test_resnets_start_as_he_and_others(name):
    dl.manual_seed(0)
    layers = [layer for layer in models.build(name).modules() if isinstance(layer, nn.Conv2d)]
    fan_out = [layer.weight.shape[0] * np.prod(layer.weight.shape[2:], dtype=int) for layer in layers]
    actual = [float(layer.weight.data.std()) for layer in layers]
    np.testing.assert_allclose(actual, np.sqrt(2 / np.array(fan_out)), rtol=0.12)
    assert all(layer.bias is None for layer in layers)


def test_googlenets_biases_are_caffes():
    model = models.googlenet(num_classes=5)
    for path, layer in model.named_modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            classifies = path in ("fc", "aux1.fc2", "aux2.fc2")
            assert set(layer.bias.data.tolist()) == {0.0 if classifies else np.float32(0.2)}, path


# Plain and residual

def test_a_plain_network_is_a_residual_one_without_its_shortcuts():
    residual, plain = models.resnet20(), models.plain20()
    state = residual.state_dict()
    plain.load_state_dict(state)
    x = image(32)
    with dl.no_grad():
        assert not np.allclose(residual.eval()(x).data, plain.eval()(x).data)
        for block in (module for module in residual.modules() if hasattr(module, "downsample")):
            block.downsample = None
        np.testing.assert_array_equal(residual(x).data, plain(x).data)


def test_a_block_whose_convolutions_are_zero_passes_its_input_on():
    model = models.resnet20().eval()
    block = model.layer1[0]
    block.bn2.weight.data[...] = 0
    x = dl.tensor(np.abs(np.random.default_rng(0).standard_normal((2, 16, 8, 8), np.float32)))
    np.testing.assert_array_equal(block(x).data, x.data)


def test_option_A_drops_pixels_and_adds_channels_of_zeros():
    shortcut = models.resnet20().layer2[0].downsample
    x = np.random.default_rng(0).standard_normal((2, 16, 5, 6), np.float32)
    y = shortcut(dl.tensor(x)).data
    assert y.shape == (2, 32, 3, 3) and not y[:, :8].any() and not y[:, 24:].any()
    np.testing.assert_array_equal(y[:, 8:24], x[:, :, ::2, ::2])


# Published weights

@pytest.fixture
def published(tmp_path, monkeypatch):
    """A file as torchvision publishes them, of ResNet-18, in the cache; gives the weights."""
    torch = pytest.importorskip("torch")
    monkeypatch.setenv("MINIDL_HOME", str(tmp_path))
    dl.manual_seed(3)
    state = models.resnet18(variant="torchvision").state_dict()
    (tmp_path / "weights").mkdir()
    torch.save({key: torch.tensor(value.numpy()) for key, value in state.items()}, tmp_path / "file")
    digest = hashlib.sha256((tmp_path / "file").read_bytes()).hexdigest()
    monkeypatch.setitem(FILES, "resnet18", f"resnet18-{digest[:8]}.pth")
    (tmp_path / "file").rename(tmp_path / "weights" / FILES["resnet18"])
    return state


def test_published_weights_come_from_the_cache_with_their_preprocessing(published):
    model = models.resnet18(variant="torchvision", weights="imagenet")
    assert all((value.data == published[key].data).all() for key, value in model.state_dict().items())
    assert not model.training
    photograph = np.random.default_rng(0).random((1, 3, 300, 400), np.float32)
    seen = model.preprocessing(photograph, None)
    assert seen.shape == (1, 3, 224, 224) and abs(seen.mean()) < 1


def test_without_network_one_is_told_where_to_put_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv("MINIDL_HOME", str(tmp_path))
    monkeypatch.setattr("models.published.ADDRESS", "http://127.0.0.1:9/")
    place = tmp_path / "weights" / "vgg16-397923af.pth"
    with pytest.raises(OSError, match=re.escape(f"put the file at {place} by hand (sha256 397923af)")):
        models.vgg16(weights="imagenet")
    assert list((tmp_path / "weights").iterdir()) == []


@pytest.mark.parametrize("name, options, complaint", [
    ("resnet50", {"weights": "imagenet"}, "belong to variant='torchvision'"),
    ("vgg16", {"weights": "imagenet", "num_classes": 10}, "1000 classes apart in 3 channels; got num_classes=10"),
    ("resnet18", {"weights": "imagenet", "in_channels": 1}, "got num_classes=1000, in_channels=1"),
    ("alexnet", {"weights": "imagenet"}, "belong to variant='torchvision'"),
    ("vgg11", {"weights": "places"}, "vgg11: there are no published weights 'places'; choose 'imagenet'"),
])
def test_weights_that_do_not_fit_are_refused_before_the_network_is_asked(name, options, complaint):
    with pytest.raises(ValueError, match=complaint):
        models.build(name, **options)


def test_where_both_variants_are_the_same_either_takes_the_weights(published):
    model = models.resnet18(weights="imagenet")
    np.testing.assert_array_equal(model.fc.weight.data, published["fc.weight"].data)


def test_weights_from_before_batches_were_counted_load():
    model, other = models.resnet20(), models.resnet20()
    state = {key: value for key, value in model.state_dict().items() if not key.endswith("num_batches_tracked")}
    assert other.load_state_dict(state) == ([], [])
    np.testing.assert_array_equal(other.conv1.weight.data, model.conv1.weight.data)


def test_the_preprocessing_is_torchvisions():
    steps = preprocessing("resnet50").transforms
    assert steps == [Resize(256), CenterCrop(224), Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
    # torchvision's GoogLeNet takes such images and turns them to (p − 0.5) / 0.5 by itself
    pixels = np.random.default_rng(0).random((1, 3, 2, 2))
    usual, googles = (preprocessing(name).transforms[-1](pixels, None) for name in ("resnet50", "googlenet"))
    mean, std = (np.reshape(values, (3, 1, 1)) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    np.testing.assert_allclose(usual * (std / 0.5) + (mean - 0.5) / 0.5, googles)


def test_every_file_carries_its_checksum():
    assert len(FILES) == 15
    assert all(re.fullmatch(rf"{name.split('_')[0]}.*-[0-9a-f]{{8}}\.pth", file) for name, file in FILES.items())
