"""Which part of what a file holds is the model's state: names to tensors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from typing import Any

from .dtypes import MOST_TENSORS

STATE_NAMES = ("state_dict", "model_state_dict", "model", "net", "network", "module", "weights", "params")
"""Names under which training scripts keep a model's state among other things."""

WRAPPERS = ("module.", "_orig_mod.")
"""Prefixes of all names: of `torch.nn.DataParallel` and `swa_utils.AveragedModel`, and of `torch.compile`."""

AVERAGED = "n_averaged"
"""The tensor that `AveragedModel` adds beside the wrapped names."""

TENSOR_BUILDERS = ("torch._utils._rebuild", "torch._tensor.", "torch.nn.parameter.")
"""What the names of functions begin with that make tensors of other kinds, such as sparse or quantized ones."""

DEEPEST = 10
"""Levels of dicts and lists that are searched."""

LONGEST_LIST = 100
"""Items of the longest list that is searched; longer ones are histories."""

Path = tuple[str, ...]


class Unknown:
    """An object of a class, or from a function, that is not allowed. Its parts are dropped."""

    __slots__ = ("name",)

    def __init__(self, name: str):
        self.name = name if name.isprintable() and len(name) < 200 else ascii(name[:200])

    def extend(self, items: list[Any]) -> None:
        """Drop its items as well."""


class Dict(list):
    """A dict, as its keys and values in turn."""

    __slots__ = ()

    def extend(self, items: Any) -> None:
        if len(items) % 2:
            raise ValueError("a key has no value")
        super().extend(items)

    def pairs(self) -> Iterator[tuple[Any, Any]]:
        items = iter(self)
        return zip(items, items)


class Refused(ValueError):
    """A file that is whole but is not read as a state. The message continues after the file's path."""

    @classmethod
    def because_of(cls, unknown: Unknown) -> Refused:
        return cls(f"asks for {unknown.name}, which is neither a tensor nor a plain container; it was refused, and "
                   "nothing in it was executed. Save the model's state_dict() alone")


def find_state(content: Any, key: str | None = None) -> dict[str, Any]:
    """The tensors by name that are the model's state in `content`, or in the part of it that `key` names.

    `content` is made of `Dict`, lists, tuples and tensors, which are whatever has a shape. `Unknown` and anything else
    are left out. The state may be at any of 10 levels. Optimizers and lone tensors beside it, such as a best accuracy,
    are not taken for it; of several states, the one with a usual name is taken. A prefix that a wrapper put in front of
    all names is removed. Raises `Refused` for no state, or for several, with the keys to choose from.
    """
    if key is not None:
        content = _below(content, key)
        if isinstance(content, Dict) and _holds_tensors(content):
            return _state_of(content)
    states: dict[Path, Dict] = {}
    first_unknown = unknown_model = None
    for path, part in _parts(content, (key,) if key else (), set()):
        if isinstance(part, Unknown):
            first_unknown = first_unknown or part
            unknown_model = part if len(path) == 1 and path[0] in STATE_NAMES else unknown_model
        elif isinstance(part, Dict) and _holds_tensors(part):
            states[path] = part
    if any(path[:1] and path[0] in STATE_NAMES for path in states):
        unknown_model = None
    if unknown := unknown_model or (None if states else first_unknown):
        raise Refused(f"{Refused.because_of(unknown)}{_choice(states)}")
    found = _likeliest(states)
    if len(found) > 1:
        raise Refused(f"holds the states of several models{_choice(found)}")
    if found:
        return _state_of(*found.values())
    if isinstance(content, Dict) and not content:
        return {}
    kind = "dict" if isinstance(content, Dict) else "tensor" if _is_tensor(content) else type(content).__name__
    raise Refused(f"holds no state of a model: expected names with tensors, got {kind}. Save the model's state_dict()")


def as_content(arrays: Mapping[str, Any]) -> Dict:
    """The content of a file that is just names and arrays."""
    return Dict(chain.from_iterable(arrays.items()))


def _is_tensor(value: Any) -> bool:
    return hasattr(value, "shape")


def _items(part: Any) -> Iterable[tuple[str, Any]]:
    """What a dict or a short list contains, by name. Keys that are neither text nor whole numbers name nothing."""
    if isinstance(part, Dict):
        return ((str(name), value) for name, value in part.pairs()
                if isinstance(name, str) or isinstance(name, int) and abs(name) < 1 << 63)
    if isinstance(part, (list, tuple)) and len(part) <= LONGEST_LIST:
        return ((str(index), value) for index, value in enumerate(part))
    return ()


def _holds_tensors(part: Dict) -> bool:
    return any(_is_tensor(value) for _, value in _items(part))


def _parts(part: Any, path: Path, seen: set[int]) -> Iterator[tuple[Path, Any]]:
    """`part` and the dicts, lists and unknown objects in it, each once, by the names that lead there. No optimizers."""
    if id(part) in seen or len(path) > DEEPEST or _is_optimizer(part):
        return
    seen.add(id(part))
    yield path, part
    for name, value in _items(part):
        if isinstance(value, (list, tuple, Unknown)):
            yield from _parts(value, (*path, name), seen)


def _is_optimizer(part: Any) -> bool:
    return any(name == "param_groups" and isinstance(value, list) for name, value in _items(part))


def _below(content: Any, key: str) -> Any:
    """The part of `content` that `key` names: names joined by dots, each of which may contain dots itself.

    A dict's names that begin with the key and a dot are a part as well. Raises `Refused` where there is none.
    """
    found = list(_matches(content, key))
    if len(found) == 1:
        return found[0]
    names = ", ".join(repr(name[:80]) for name, _ in islice(_items(content), 8))
    raise Refused(f"holds {'several parts' if found else 'nothing'} named {key!r}; its first names are {names}")


def _matches(part: Any, key: str) -> Iterator[Any]:
    if not key:
        yield part
        return
    inside = Dict()
    for name, value in _items(part):
        if name == key:
            yield value
        elif key.startswith(f"{name}."):
            yield from _matches(value, key[len(name) + 1 :])
        elif name.startswith(f"{key}."):
            inside.extend([name[len(key) + 1 :], value])
    if inside:
        yield inside


def _likeliest(states: dict[Path, Dict]) -> dict[Path, Dict]:
    """Those of the states that may be the model's: one, unless the user has to choose."""
    for level in range(DEEPEST):
        if any(path[level : level + 1] and path[level] in STATE_NAMES for path in states):
            states = {path: part for path, part in states.items()
                      if (path[level] in STATE_NAMES if len(path) > level else _names_layers(part))}
    outer = {path[:length] for path in states for length in range(len(path))}
    around_layers = {path[:length] for path, part in states.items() if _has_layers(part) for length in range(len(path))}
    # Tensors beside a state, such as an image to look at while training, are not the network.
    states = {path: part for path, part in states.items() if path not in outer or _names_layers(part)
              or _has_layers(part) and path not in around_layers}
    # Neither are dicts of single values and statistics.
    return {path: part for path, part in states.items()
            if _names_layers(part) or _has_layers(part) and path not in outer} or states


def _has_layers(part: Dict) -> bool:
    return _names_layers(part) or any(len(value.shape) > 1 for _, value in _items(part) if _is_tensor(value))


def _names_layers(part: Dict) -> bool:
    return any("." in name or name == "weight" for name, value in _items(part) if _is_tensor(value))


def _choice(states: dict[Path, Dict]) -> str:
    """How to choose one of `states`, in words."""
    keys = [".".join(path) for path in states]
    shown = ", ".join(f"{key[:80]!r} (tensors: {sum(_is_tensor(value) for _, value in _items(part))})"
                      for key, part in zip(keys[:8], states.values()))
    more = f" and {len(keys) - 8:,} more" if len(keys) > 8 else ""
    return f". Choose one, such as minidl.load(path, key={keys[0][:80]!r}): {shown}{more}" if keys else ""


def _state_of(part: Dict) -> dict[str, Any]:
    """The tensors of `part` by name, without the prefix of a wrapper."""
    for _, value in _items(part):
        if isinstance(value, Unknown) and value.name.startswith(TENSOR_BUILDERS):
            raise Refused.because_of(value)
    tensors = list(islice((item for item in _items(part) if _is_tensor(item[1])), MOST_TENSORS + 1))
    if len(tensors) > MOST_TENSORS:
        raise Refused(f"holds more than {MOST_TENSORS:,} tensors; at most as many are read")
    state = dict(tensors)
    if len(state) < len(tensors):
        ((twice, _),) = Counter(name for name, _ in tensors).most_common(1)
        raise Refused(f"holds two tensors named {twice!r}, as a text and as a number. Rename one of them")
    return _unwrapped(state)


def _unwrapped(state: dict[str, Any]) -> dict[str, Any]:
    for prefix in WRAPPERS * DEEPEST:
        names = [name for name in state if name != AVERAGED or prefix != "module."]
        if names and all(name.startswith(prefix) for name in names):
            state = {name.removeprefix(prefix): state[name] for name in names}
    return state
