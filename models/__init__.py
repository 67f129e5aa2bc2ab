"""The lecture's architectures, one family a file. `available` lists them, `build` makes one by name."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from typing import Any

from minidl import nn
from minidl.training import Preset

from . import alexnet as _alexnet
from . import googlenet as _googlenet
from . import lenet as _lenet
from . import neocognitron as _neocognitron
from . import resnet as _resnet
from . import vgg as _vgg
from . import zfnet as _zfnet
from .alexnet import alexnet
from .googlenet import googlenet
from .lenet import lenet5
from .neocognitron import neocognitron
from .resnet import (
    plain18,
    plain20,
    plain32,
    plain34,
    plain44,
    plain56,
    resnet18,
    resnet20,
    resnet32,
    resnet34,
    resnet44,
    resnet50,
    resnet56,
    resnet101,
    resnet110,
    resnet152,
)
from .vgg import vgg11, vgg13, vgg16, vgg19
from .zfnet import zfnet

FACTORIES: dict[str, Callable[..., nn.Module]] = {
    factory.__name__: factory
    for factory in (
        neocognitron, lenet5, alexnet, zfnet, vgg11, vgg13, vgg16, vgg19, googlenet,
        resnet18, resnet34, resnet50, resnet101, resnet152, plain18, plain34,
        resnet20, resnet32, resnet44, resnet56, resnet110, plain20, plain32, plain44, plain56,
    )
}
PRESETS: dict[str, Preset] = {
    name: preset
    for family in (_neocognitron, _lenet, _alexnet, _zfnet, _vgg, _googlenet, _resnet)
    for name, preset in family.PRESETS.items()
}

__all__ = ["available", "build", "fitted", "input_channels", "preset", *FACTORIES]


def available() -> list[str]:
    """The names that `build` knows, in the order of the lecture."""
    return list(FACTORIES)


def build(name: str, **options: Any) -> nn.Module:
    """The network `name` with its factory's options. Raises ValueError for an unknown name, with the nearest ones."""
    return FACTORIES[_known(name)](**options)


def input_channels(name: str, **options: Any) -> int:
    """The channels of the images that ``build(name, **options)`` takes."""
    defaults = inspect.signature(FACTORIES[_known(name)]).parameters
    return options.get("in_channels", defaults["in_channels"].default)


def fitted(name: str, options: dict[str, Any], **images: Any) -> dict[str, Any]:
    """`options` of `name`, and beside them what else it has to be told of its `images`.

    These are num_classes, in_channels and input_size; networks that take images of any size have no such option.
    """
    defaults = inspect.signature(FACTORIES[_known(name)]).parameters
    told = {key: value for key, value in images.items() if key in defaults and defaults[key].default != value}
    return told | options


def preset(name: str, variant: str | None = None) -> Preset:
    """How `name`, or its `variant` where that needs other numbers, is trained by default.

    Raises ValueError for an unknown name, with the nearest ones.
    """
    return PRESETS.get(f"{_known(name)}/{variant}", PRESETS[name])


def _known(name: str) -> str:
    if name in FACTORIES:
        return name
    near = difflib.get_close_matches(name, FACTORIES, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(available())}"
    raise ValueError(f"there is no model {name!r}; {hint}")
