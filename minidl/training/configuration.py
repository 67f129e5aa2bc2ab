"""Everything that decides how a run ends, as a small JSON file."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

from ..data.recipes import AUGMENTATIONS
from ..io import write_atomically
from .schedule import SCHEDULES
from .structure import shortened


@dataclass(frozen=True)
class Configuration:
    """What a run trains, on what, and how; with the seed it determines the weights to the last bit.

    `data` is a name that `minidl.data.open_dataset` knows, and `classes` names what the model tells apart. `images`
    limits the training images to so many, spread evenly over the set; None takes all. The rest is as in `Preset`.
    Raises ValueError for a value out of its range.
    """

    model: str
    data: str
    input_size: int
    epochs: int
    batch_size: int
    lr: float
    momentum: float
    weight_decay: float
    schedule: str
    shift: int
    seed: int
    augment: str = "none"
    warmup: float = 0.0
    milestones: list[float] = field(default_factory=list)
    gamma: float = 0.1
    images: int | None = None
    model_options: dict[str, Any] = field(default_factory=dict)
    classes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name, low in (("input_size", 1), ("epochs", 1), ("batch_size", 1), ("shift", 0), ("seed", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < low:
                raise ValueError(f"{name} must be a whole number of at least {low}; got {value!r}")
        if self.images is not None and (type(self.images) is not int or self.images < 1):
            raise ValueError(f"images must be a whole number of at least 1, or null for all; got {self.images!r}")
        for name in ("lr", "momentum", "weight_decay", "warmup", "gamma"):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value < float("inf"):
                raise ValueError(f"{name} must be a number ≥ 0; got {value!r}")
        if self.momentum >= 1:
            raise ValueError(f"momentum must be below 1, or no step is ever forgotten; got {self.momentum}")
        for name in ("model", "data"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"{name} must be a name; got {getattr(self, name)!r}")
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}; got {self.schedule!r}")
        if self.warmup and self.schedule == "one_cycle":
            raise ValueError(f"one_cycle warms up by itself; got warmup={self.warmup}")
        shares = self.milestones
        if not isinstance(shares, list) or not all(isinstance(x, float) and 0 < x < 1 for x in shares):
            raise ValueError(f"milestones must be shares of the training between 0 and 1; got {shares!r}")
        if sorted(shares) != shares:
            raise ValueError(f"milestones must rise; got {shares!r}")
        if self.augment not in AUGMENTATIONS:
            raise ValueError(f"augment must be one of {', '.join(AUGMENTATIONS)}; got {self.augment!r}")
        if not isinstance(self.classes, list) or not all(isinstance(name, str) for name in self.classes):
            raise ValueError(f"classes must be a list of names; got {self.classes!r}")
        if not isinstance(self.model_options, dict):
            raise ValueError(f"model_options must map names to values; got {self.model_options!r}")

    def write(self, path: Path, new: bool = False) -> None:
        """Write this configuration to `path` as JSON, as `write_json` does."""
        write_json(path, dataclasses.asdict(self), new)

    @classmethod
    def read(cls, path: Path) -> Configuration:
        """Read what `write` wrote. Raises FileNotFoundError, or ValueError for a file that is damaged or wrong."""
        return cls.of(read_json(path), path)

    @classmethod
    def of(cls, values: Any, path: Path) -> Configuration:
        """The configuration with these values by name, which stood in `path`. Raises ValueError if they are wrong."""
        known = {f.name for f in dataclasses.fields(cls)}
        required = {f.name for f in dataclasses.fields(cls) if f.default is f.default_factory is dataclasses.MISSING}
        if not isinstance(values, dict) or not required <= set(values) <= known:
            found = sorted(values) if isinstance(values, dict) else type(values).__name__
            raise ValueError(f"{path} is not the configuration of a run: needs {sorted(required)}; found {found}")
        try:
            return cls(**values)
        except ValueError as error:
            raise ValueError(f"{path} does not fit: {error}") from None


def differences(was: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """In words, the names whose value in `now` is not the one in `was`, with both values; empty if there are none.

    Names that `now` lacks are passed over. Of long lists, the first entry that differs is named.
    """
    changes = []
    for name in was.keys() & now.keys():
        old, new = was[name], now[name]
        if old == new:
            continue
        if isinstance(old, list) and isinstance(new, list) and len(f"{old}{new}") > 200:
            index, old, new = next((i, *pair) for i, pair in enumerate(zip_longest(old, new)) if pair[0] != pair[1])
            name = f"{name}[{index}]"
        changes.append(f"{name}: {shortened(old)} then, {shortened(new)} now")
    return "; ".join(sorted(changes))


def write_json(path: Path, values: Any, new: bool = False) -> None:
    """Write `values` to `path`, atomically; with `new`, raise FileExistsError if there is such a file already."""
    text = json.dumps(values, indent=2) + "\n"
    write_atomically(path, lambda part: part.write_text(text, encoding="utf-8"), new)


def read_json(path: Path) -> Any:
    """What stands in `path`. Raises FileNotFoundError, or ValueError for a file that is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: not JSON ({error})") from None
