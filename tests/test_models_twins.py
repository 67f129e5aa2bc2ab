"""Every architecture, in every form, beside an independent PyTorch twin with the same random weights."""

import numpy as np
import pytest

import minidl as dl
import models
from minidl import nn

CLASSES = 7
slow = pytest.mark.slow
"""The deep and the wide: they differ from their smaller siblings, which always run, in the counts of a table."""

# model, options, side of the images; each at a size that it was not made for, too
CASES = [
    ("alexnet", {}, 67), ("alexnet", {"variant": "torchvision"}, 63), ("zfnet", {"filters": (24, 40, 16)}, 63),
    ("vgg11", {}, 32), ("vgg11", {"batch_norm": True}, 37),
    ("googlenet", {}, 97), ("googlenet", {"aux_logits": False}, 64), ("googlenet", {"variant": "torchvision"}, 64),
    ("resnet18", {}, 41), ("resnet50", {}, 64), ("resnet50", {"variant": "torchvision"}, 64), ("plain18", {}, 40),
    ("resnet20", {}, 32), ("plain20", {}, 32), ("resnet32", {}, 17),
    *(pytest.param(*case, marks=slow) for case in [
        ("alexnet", {}, 227), ("alexnet", {"variant": "torchvision"}, 224), ("zfnet", {}, 224), ("vgg13", {}, 40),
        ("vgg16", {}, 224), ("vgg16", {"batch_norm": True}, 40), ("vgg19", {}, 40), ("googlenet", {}, 224),
        ("googlenet", {"variant": "torchvision"}, 224),
        ("googlenet", {"variant": "torchvision", "aux_logits": False}, 64),
        ("resnet18", {"variant": "torchvision"}, 224), ("resnet34", {}, 40),
        ("resnet34", {"variant": "torchvision"}, 40), ("resnet101", {}, 64),
        ("resnet101", {"variant": "torchvision"}, 64), ("resnet152", {}, 64),
        ("resnet152", {"variant": "torchvision"}, 64), ("plain34", {}, 40), ("resnet44", {}, 32), ("resnet56", {}, 32),
        ("resnet110", {}, 32), ("plain32", {}, 32), ("plain44", {}, 32), ("plain56", {}, 32),
    ]),
]


def pair(name, options, side):
    """The network with weights that no initialiser left at 0 or 1, where a mistake could hide, and its twin.

    Where rounding decides, both are in float64: under batch normalisation over a few values, which magnifies it, and
    at full size and in GoogLeNet, where some of so many signs and maxima fall on the other side in float32, PyTorch's
    too.
    """
    torch = pytest.importorskip("torch")
    from twins import twin

    torch.set_num_threads(1)
    dl.manual_seed(1)
    ours = models.build(name, num_classes=CLASSES, **options)
    rng = np.random.default_rng(2)
    for key, value in ours.state_dict().items():
        if key.endswith("running_var"):
            value.data[...] = rng.uniform(0.5, 2, value.shape)
        elif value.dtype == np.float32 and value.ndim == 1:
            value.data += 0.1 * rng.standard_normal(value.shape, np.float32)
    theirs = twin(name, num_classes=CLASSES, **options)
    state = [torch.tensor(value.numpy()) for value in ours.state_dict().values()]
    theirs.load_state_dict(dict(zip(theirs.state_dict(), state, strict=True)))
    for module in (*ours.modules(), *theirs.modules()):
        if type(module).__name__ == "Dropout":
            module.p = 0.0
    if side >= 224 or name == "googlenet" or any(isinstance(module, nn.BatchNorm2d) for module in ours.modules()):
        ours, theirs = ours.to("float64"), theirs.double()
    return torch, ours, theirs


def assert_relative(actual, expected, bound, what):
    scale = max(np.abs(expected).max(), 1e-30)
    worst = np.abs(actual - expected).max(initial=0) / scale
    assert worst <= bound, f"{what} is off by {worst:.1e} of its largest value"


def parts(output):
    return output if isinstance(output, tuple) else (output,)


@pytest.mark.parametrize("name, options, side", CASES)
def test_logits_and_every_gradient_agree(name, options, side):
    torch, ours, theirs = pair(name, options, side)
    dtype = next(ours.parameters()).dtype
    images = np.random.default_rng(side).standard_normal((3, 3, side, side + 3)).astype(dtype)
    labels = np.array([3, 0, 6])
    ours.eval(), theirs.eval()
    with dl.no_grad(), torch.no_grad():
        assert_relative(ours(dl.tensor(images)).data, theirs(torch.tensor(images)).numpy(), 1e-4, "evaluation")
    ours.train(), theirs.train()
    output, peers = ours(dl.tensor(images)), parts(theirs(torch.tensor(images)))
    for index, (part, peer) in enumerate(zip(parts(output), peers, strict=True)):
        assert_relative(part.data, peer.detach().numpy(), 1e-4, f"output {index}")
    getattr(ours, "criterion", dl.functional.cross_entropy)(output, dl.tensor(labels)).backward()
    losses = [torch.nn.functional.cross_entropy(peer, torch.tensor(labels)) for peer in peers]
    sum(weight * loss for weight, loss in zip((1.0, 0.3, 0.3), losses)).backward()
    gradients = [parameter.grad.numpy() for parameter in theirs.parameters()]
    largest = max(np.abs(gradient).max() for gradient in gradients)
    for (key, parameter), expected in zip(ours.named_parameters(), gradients, strict=True):
        if np.abs(expected).max() > 1e-6 * largest:  # a bias before batch normalisation has a gradient of rounding only
            assert_relative(parameter.grad.data, expected, 1e-3, f"the gradient of {key}")
    for (key, buffer), expected in zip(ours.named_buffers(), theirs.buffers(), strict=True):
        assert_relative(buffer.data, expected.numpy(), 1e-4, key)


PUBLISHED = ["alexnet", "vgg11", "vgg13", "vgg16", "vgg19", "vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn", "googlenet",
             "resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]


@pytest.mark.usefixtures("blank_weights")
@pytest.mark.parametrize("name", PUBLISHED)
def test_keys_and_shapes_are_torchvisions(name):
    pytest.importorskip("torch")  # the list stands beside the twins
    from twins import published_shapes

    name, _, batch_norm = name.partition("_")
    options = {"batch_norm": bool(batch_norm)} if name.startswith("vgg") else {"variant": "torchvision"}
    ours = {key: value.shape for key, value in models.build(name, **options).state_dict().items()}
    expected = published_shapes(f"{name}_bn" if batch_norm else name)
    assert ours == expected and list(ours) == list(expected)
