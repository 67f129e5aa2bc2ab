"""Deconvolution and occlusion, beside naive loops and what must hold of them."""

import numpy as np
import oracles
import pytest
from cases import assert_close, mentions

import minidl as dl
import models
from minidl import functional as F
from minidl import nn
from minidl.inspect import deconvnet, occlusion

RNG = np.random.default_rng(0)


@pytest.fixture
def net():
    dl.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, stride=2, padding=1), nn.ReLU(), nn.LocalResponseNorm(3), nn.MaxPool2d(2), nn.Dropout(),
        nn.Conv2d(3, 4, 2), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 2 * 3, 5),
    ).to("float64")


def test_each_operation_is_undone_as_the_paper_says(net):
    """By hand: the same with loops over filters and switches."""
    image = RNG.standard_normal((2, 12, 15))
    first, second = net[0], net[5]
    x1 = oracles.conv2d(image[None], first.weight.data, first.bias.data, stride=2, padding=1)
    relu1 = np.maximum(x1, 0)
    normed = F.local_response_norm(dl.tensor(relu1), 3).data
    pooled = oracles.max_pool2d(normed, 2)
    x2 = np.maximum(oracles.conv2d(pooled, second.weight.data, second.bias.data), 0)
    channel = int(x2.max(axis=(0, 2, 3)).argmax())
    signal = np.zeros_like(x2)
    place = (0, channel, *np.unravel_index(x2[0, channel].argmax(), x2.shape[2:]))
    signal[place] = x2[place]
    signal = np.maximum(signal, 0)
    signal = oracles.conv2d_gradients(pooled, second.weight.data, signal)[0]
    signal = np.maximum(oracles.max_pool2d_gradient(normed, signal, kernel_size=2), 0)
    signal = oracles.conv2d_gradients(image[None], first.weight.data, signal, stride=2, padding=1)[0]
    assert_close(deconvnet(net, image, "6", channel).data, signal[0])
    assert np.abs(signal).max() > 0


def test_of_a_linear_network_it_is_the_transpose():
    conv = nn.Conv2d(1, 2, (3, 2), bias=False).to("float64")
    image = dl.tensor(RNG.standard_normal((1, 6, 5)))
    net = nn.Sequential(conv)
    y = float(conv(image[None]).data[0, 1, 2, 3])
    projected = deconvnet(net, image, "0", 1, (2, 3)).data
    expected = np.zeros((1, 6, 5))
    expected[:, 2:5, 3:5] = y * conv.weight.data[1]
    assert_close(projected, expected)


def test_nothing_outside_the_receptive_field_is_lit(net):
    image = RNG.standard_normal((2, 12, 15))
    projected = deconvnet(net, image, "0", 0, (2, 3)).data
    outside = np.ones((12, 15), bool)
    outside[3:6, 5:8] = False
    assert not projected[:, outside].any()


def test_the_model_is_left_as_it_was(net):
    net.train()
    net[2].eval()
    before = [module.training for module in net.modules()]
    deconvnet(net, RNG.standard_normal((2, 12, 15)), "1", 0)
    occlusion(net, RNG.standard_normal((1, 2, 12, 15)), [0], 12)
    assert [module.training for module in net.modules()] == before
    assert all(parameter.grad is None for parameter in net.parameters())
    assert deconvnet(net, RNG.standard_normal((2, 12, 15)), "1", 0).requires_grad is False


@pytest.mark.parametrize("name, side, layer", [
    ("zfnet", 95, "features.13"), ("alexnet", 99, "features.13"), ("vgg11", 64, "features.19")])
def test_the_last_feature_maps_of_the_lecture_s_networks_can_be_looked_into(name, side, layer, blank_weights):
    """What is lit lies in the receptive field of the unit, and somewhere in it."""
    model = models.build(name)
    for conv in model.features:
        if isinstance(conv, nn.Conv2d):
            conv.weight.data[...] = RNG.standard_normal(conv.weight.shape, np.float32) / np.sqrt(conv.weight[0].size)
    image = RNG.standard_normal((3, side, side), np.float32)
    maps = nn.Sequential(*list(model.features)[: int(layer.partition(".")[2]) + 1]).eval()(dl.tensor(image[None])).data
    channel = int(maps[0, :, 0, 0].argmax())
    projected = deconvnet(model, image, layer, channel, (0, 0)).data
    counted = dl.summary(model, (3, side, side), measure_peak=False).layers
    (seen,) = [row.receptive_field for row in counted if row.name == layer]
    assert projected.shape == (3, side, side) and maps[0, channel, 0, 0] > 0 and projected.any()
    assert not projected[:, seen[0]:].any() and not projected[:, :, seen[1]:].any()


@pytest.mark.parametrize("arguments, values", [
    (("9", 0), ["'9'", "8"]), (("0", 3), [0, 2, 3]), (("0", 0, (6, 0)), ["6 × 8", "(6, 0)"]), (("8", 0), ["(1, 5)"]),
])
def test_a_unit_that_is_not_there_is_refused(net, arguments, values):
    with pytest.raises(ValueError, match=mentions(*values)):
        deconvnet(net, RNG.standard_normal((2, 12, 15)), *arguments)


def test_a_layer_that_does_not_run_is_refused(net):
    net[0].spare = nn.Conv2d(1, 1, 1)
    with pytest.raises(ValueError, match=r"'0\.spare' does not run"):
        deconvnet(net, np.zeros((2, 12, 15)), "0.spare", 0)


def test_what_cannot_be_undone_is_named():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    with pytest.raises(ValueError, match="cannot undo batch_norm"):
        deconvnet(net, np.zeros((1, 5, 5)), "1", 0)


@pytest.mark.parametrize("size, stride", [(1, 1), (3, 2), (4, 5)])
def test_occlusion_is_a_loop_over_squares(net, size, stride):
    images, labels = RNG.standard_normal((2, 2, 12, 15)), np.array([1, 4])
    found = occlusion(net, images, dl.tensor(labels), size, stride, value=0.5)
    net.eval()
    rows, columns = (range(0, side - size + 1, stride) for side in (12, 15))
    assert found.shape == (2, len(rows), len(columns))
    for (n, i, j), value in np.ndenumerate(found):
        covered = images[n].copy()
        covered[:, rows[i] : rows[i] + size, columns[j] : columns[j] + size] = 0.5
        a = oracles.softmax(net(dl.tensor(covered[None])).data, 1)
        assert_close(value, a[0, labels[n]])


def test_covering_what_the_network_ignores_changes_nothing():
    linear = nn.Linear(9, 2).to("float64")
    linear.weight.data.reshape(2, 3, 3)[:, :2, :2] = 0
    image = RNG.standard_normal((1, 1, 3, 3))
    (found,) = occlusion(nn.Sequential(nn.Flatten(), linear), image, [0], 2)
    uncovered = F.softmax(linear(dl.tensor(image.reshape(1, 9))), 1).data[0, 0]
    assert found[0, 0] == uncovered and (found.flat[1:] != uncovered).all()


def test_images_of_another_dtype_are_taken_and_an_empty_batch_too(net):
    image = RNG.integers(0, 5, (1, 2, 12, 15))
    assert_close(occlusion(net, image, [0], 12), occlusion(net, image.astype(float), [0], 12))
    assert_close(deconvnet(net, image[0], "6", 0).data, deconvnet(net, image[0].astype(float), "6", 0).data)
    assert occlusion(net, np.zeros((0, 2, 12, 15)), [], 3, 4).shape == (0, 3, 4)


@pytest.mark.parametrize("images, labels, values", [
    ((2, 2, 12, 15), [0], [(2, 2, 12, 15), (1,)]), ((2, 12, 15), [0, 1], [(2, 12, 15)]),
    ((2, 2, 12, 15), [0, 5], ["0 to 4", [0, 5]]), ((2, 2, 12, 15), [-1, 0], [[-1, 0]]),
])
def test_labels_that_fit_no_image_or_no_class_are_refused(net, images, labels, values):
    with pytest.raises(ValueError, match=mentions(*values)):
        occlusion(net, np.zeros(images), labels, 12)


def test_a_mistake_leaves_no_hook_and_where_nothing_is_recorded_there_is_no_way_back(net):
    with pytest.raises(ValueError, match=mentions((1, 2, 12, 15))):
        deconvnet(net, np.zeros((1, 2, 12, 15)), "6", 0)
    assert not any(module._forward_hooks for module in net.modules())
    with dl.no_grad(), pytest.raises(RuntimeError, match=r"no_grad\(\)"):
        deconvnet(net, np.zeros((2, 12, 15)), "6", 0)


@pytest.mark.parametrize("size, stride", [(0, 1), (4, 1), (2, 0)])
def test_a_square_that_does_not_fit_is_refused(size, stride):
    with pytest.raises(ValueError, match=mentions(size, "3 × 5")):
        occlusion(nn.Linear(15, 2), np.zeros((1, 1, 3, 5)), [0], size, stride)


def test_a_model_without_parameters_is_looked_into_as_well():
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    likely = occlusion(model, np.ones((1, 2, 4, 4)), np.array([0]), size=4)
    np.testing.assert_allclose(likely, [[[0.5]]], rtol=1e-6)
