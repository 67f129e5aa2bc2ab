"""The lecture's architectures, one family a file. `available` lists them, `build` makes one by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any

from minidl import nn
from minidl.training import Preset

from . import lenet
from .lenet import lenet5

__all__ = ["available", "build", "lenet5", "preset"]

FACTORIES: dict[str, Callable[..., nn.Module]] = {"lenet5": lenet5}
PRESETS: dict[str, Preset] = {**lenet.PRESETS}


def available() -> list[str]:
    """The names that `build` knows."""
    return sorted(FACTORIES)


def build(name: str, **options: Any) -> nn.Module:
    """The network `name` with its factory's options. Raises ValueError for an unknown name, with the nearest ones."""
    return FACTORIES[_known(name)](**options)


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
