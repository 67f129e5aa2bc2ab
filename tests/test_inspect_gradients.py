"""The gradient that reaches each layer: its norm, and a model that stays as it was."""

import numpy as np
import pytest

import minidl as dl
import models
from minidl import backend, nn
from minidl import functional as F
from minidl.inspect import gradient_norms

RNG = np.random.default_rng(0)
IMAGES = dl.tensor(RNG.standard_normal((3, 1, 5, 4)))
LABELS = dl.tensor(np.array([1, 0, 1]))


@pytest.fixture
def net():
    dl.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(),
                         nn.Linear(12, 2)).to("float64")


def test_norms_are_those_of_the_weights_by_finite_differences():
    dl.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(12, 2)).to("float64")
    norms = gradient_norms(net, IMAGES, LABELS)
    assert list(norms) == ["0", "3"]
    for name, norm in norms.items():
        weight, gradient = net[int(name)].weight.data, []
        for place in np.ndindex(weight.shape):
            losses = []
            for sign in (1, -1):
                weight[place] += sign * 1e-6
                losses.append(F.cross_entropy(net(IMAGES), LABELS).item())
                weight[place] -= sign * 1e-6
            gradient.append((losses[0] - losses[1]) / 2e-6)
        assert norm == pytest.approx(np.linalg.norm(gradient), rel=1e-6)


def test_the_model_is_left_as_it_was_found(net):
    net.eval()
    for parameter in net.parameters():
        parameter.grad = dl.tensor(np.ones(parameter.shape))
    state = {name: value.data.copy() for name, value in net.state_dict().items()}
    random = backend.generator().bit_generator.state
    first = gradient_norms(net, IMAGES, LABELS)
    assert backend.generator().bit_generator.state == random
    assert all(np.array_equal(net.state_dict()[name].data, value) for name, value in state.items())
    assert not any(module.training for module in net.modules())
    assert all((parameter.grad.data == 1).all() for parameter in net.parameters())
    assert gradient_norms(net, IMAGES, LABELS) == first  # the same dropout, and the statistics of the batch


def test_gradients_are_left_where_the_loss_cannot_be_computed(net):
    for parameter in net.parameters():
        parameter.grad = dl.tensor(np.ones(parameter.shape))
    with pytest.raises(ValueError, match="label"):
        gradient_norms(net, IMAGES, dl.tensor(np.array([1, 0, 7])))
    assert all((parameter.grad.data == 1).all() for parameter in net.parameters())


def test_a_frozen_layer_has_none_and_a_criterion_may_be_the_models_own(net):
    net[0].requires_grad_(False)
    assert list(gradient_norms(net, IMAGES, LABELS, lambda y, _: (y * y).sum())) == ["5"]


def test_plain_gradients_grow_towards_the_image_and_residual_ones_less():
    """Erratum of D7: with batch normalisation a plain stack's gradient explodes towards the image."""
    images, labels = dl.tensor(RNG.standard_normal((8, 3, 16, 16)).astype(np.float32)), dl.tensor(np.arange(8))
    spread = {}
    for name in ("plain56", "resnet56"):
        dl.manual_seed(0)
        norms = np.array(list(gradient_norms(models.build(name), images, labels).values()))
        spread[name] = norms[1] / norms[-2]
    assert spread["plain56"] > 10 * spread["resnet56"]
