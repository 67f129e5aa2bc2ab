"""The weights that torchvision publishes, trained on ImageNet: by name, from the official address, checked.

Each file carries the first digits of its sha256 in its name. It is kept in ``weights`` under
`minidl.data.cache_folder()`, and read by `minidl.load`, which executes nothing in it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from minidl import load, nn
from minidl.data import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    CenterCrop,
    Compose,
    Normalize,
    Resize,
    Transform,
    cache_folder,
    download,
)

ADDRESS = "https://download.pytorch.org/models/"

FILES = {
    "alexnet": "alexnet-owt-7be5be79.pth",
    "vgg11": "vgg11-8a719046.pth",
    "vgg13": "vgg13-19584684.pth",
    "vgg16": "vgg16-397923af.pth",
    "vgg19": "vgg19-dcbb9e9d.pth",
    "vgg11_bn": "vgg11_bn-6002323d.pth",
    "vgg13_bn": "vgg13_bn-abd245e5.pth",
    "vgg16_bn": "vgg16_bn-6c64b313.pth",
    "vgg19_bn": "vgg19_bn-c79401a0.pth",
    "googlenet": "googlenet-1378be20.pth",
    "resnet18": "resnet18-f37072fd.pth",
    "resnet34": "resnet34-b627a593.pth",
    "resnet50": "resnet50-0676ba61.pth",
    "resnet101": "resnet101-63fe2227.pth",
    "resnet152": "resnet152-394f9c45.pth",
}
"""torchvision's IMAGENET1K_V1; its documentation lists the accuracies."""

Network = TypeVar("Network", bound=nn.Module)


def load_published(
    make: Callable[[], Network], name: str, weights: str | None, *, fits: bool, num_classes: int, in_channels: int
) -> Network:
    """What `make` makes, with the published weights `name` in evaluation mode, or as it is where `weights` is None.

    It gets what the weights need as `preprocessing`, a transform for images in [0, 1]. `fits` says whether they belong
    to the variant that was chosen.

    Raises ValueError for other `weights` than ``"imagenet"``, for a variant that they are not of, and for another
    number of classes or channels; OSError when they cannot be downloaded, with the place to put the file at by hand.
    """
    if weights is None:
        return make()
    if weights != "imagenet":
        raise ValueError(f"{name}: there are no published weights {weights!r}; choose 'imagenet'. "
                         "A file of your own goes in by model.load_state_dict(minidl.load(path))")
    if not fits:
        raise ValueError(f"{name}: the published weights belong to variant='torchvision'; choose that")
    if (num_classes, in_channels) != (1000, 3):
        raise ValueError(f"{name}: the published weights tell 1000 classes apart in 3 channels; got num_classes="
                         f"{num_classes}, in_channels={in_channels}. Load them so, and replace the last layer")
    path = cache_folder() / "weights" / FILES[name]
    checksum = path.stem.rpartition("-")[2]
    download(ADDRESS + path.name, path, checksum)
    model, state = make(), load(path)
    if name == "googlenet" and not model.aux_logits:
        state = {key: value for key, value in state.items() if not key.startswith("aux")}
    model.load_state_dict(state)
    model.preprocessing = preprocessing(name)
    return model.eval()


SIDE = 224


def preprocessing(name: str, crop: Transform | None = None) -> Compose:
    """What the published weights `name` were trained to see: the central 224 × 224 of 256 pixels' shorter side.

    `crop` may be another, such as ``TenCrop(224)``.
    """
    # GoogLeNet's come from TensorFlow, whose images lay between −1 and 1.
    mean, std = ((0.5,) * 3, (0.5,) * 3) if name == "googlenet" else (IMAGENET_MEAN, IMAGENET_STD)
    return Compose([Resize(256), crop or CenterCrop(SIDE), Normalize(mean, std)])
