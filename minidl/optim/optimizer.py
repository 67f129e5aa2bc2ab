"""The part of an optimizer that is not its formula: groups of parameters, their state, saving and loading."""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ..autograd import Tensor
from ..backend import DeviceError, device_of, is_array, is_writeable, to_device

Params = Iterable[Tensor] | Iterable[dict[str, Any]]


class Optimizer:
    """Parameters in groups, each group with its own options; a subclass adds `step`. As `torch.optim.Optimizer`.

    A subclass takes what `step` changes from `updates`, and may check options in `check_options`.

    `params` are tensors, or dicts ``{"params": tensors, "lr": 0.01, ...}`` whose options override
    `defaults`. `param_groups` is the list of those dicts, complete, and may be changed between steps;
    `state` holds what a subclass remembers about each parameter, as numbers and arrays of its shape.
    Raises TypeError for what is not tensors, or is unordered; ValueError for no parameters, for a
    tensor that is the result of an operation and for the same parameter twice.
    """

    def __init__(self, params: Params, defaults: dict[str, Any]):
        if isinstance(params, (Tensor, set)) or not isinstance(params, Iterable):
            raise TypeError(f"{type(self).__name__} takes a list of tensors or of dicts; got a "
                            f"{type(params).__name__}. Of a network, pass network.parameters()")
        self.check_options(defaults)
        self.defaults = defaults
        self.state: defaultdict[Tensor, dict[str, Any]] = defaultdict(dict)
        self.param_groups: list[dict[str, Any]] = []
        groups: list[Any] = list(params)
        if not groups:
            raise ValueError(f"{type(self).__name__} got no parameters; was a generator used up before?")
        for group in groups if isinstance(groups[0], dict) else [{"params": groups}]:
            self.add_param_group(group)

    def add_param_group(self, group: dict[str, Any]) -> None:
        """Optimize further parameters: ``{"params": tensors, ...}``, with `defaults` for the options left out."""
        if not isinstance(group, dict) or "params" not in group:
            raise TypeError(f'a parameter group is a dict {{"params": tensors, ...}}; got {group!r}')
        params = group["params"]
        if isinstance(params, set):
            raise TypeError("a set of parameters has no order, and their state is saved by position; use a list")
        params = [params] if isinstance(params, Tensor) else list(params)
        seen = {param for other in self.param_groups for param in other["params"]}
        for index, param in enumerate(params):
            if not isinstance(param, Tensor):
                raise TypeError(f"an optimizer changes tensors; parameter {index} is a {type(param).__name__}. "
                                "Of a network, pass network.parameters()")
            if not param.is_leaf:
                raise ValueError(f"parameter {index}, of shape {param.shape}, is the result of an operation and "
                                 "receives no gradient of its own; optimize the tensors that it was computed from")
            if param in seen:
                raise ValueError(f"parameter {index}, of shape {param.shape}, was already given; list each one once")
            seen.add(param)
        group = {**self.defaults, **group, "params": params}
        self.check_options(group)
        self.param_groups.append(group)

    def check_options(self, options: Mapping[str, Any]) -> None:
        """Raise ValueError for options of a group that make no sense, such as a negative rate; by default none do."""

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients (`.grad` becomes None), or fill them with zeros in place."""
        for group in self.param_groups:
            for param in group["params"]:
                if set_to_none:
                    param.grad = None
                elif param.grad is not None:
                    param.grad.data.fill(0)
                    param.grad.bump_version()

    def step(self) -> None:
        """Change every parameter that has a gradient, in place."""
        raise NotImplementedError(f"{type(self).__name__} has no step()")

    def updates(self) -> list[tuple[dict[str, Any], list[Tensor]]]:
        """Each group, with those of its parameters that have a gradient, after a look at all that `step` will need.

        Raises ValueError for bad options, for a gradient or state of another shape and for read-only memory; TypeError
        for what is not a tensor, and for a gradient of another dtype; DeviceError for a gradient or state on another
        device.
        """
        found: list[tuple[dict[str, Any], list[Tensor]]] = []
        index = 0
        for group in self.param_groups:
            self._check_group(group, "a parameter group")
            ready = []
            for param in group["params"]:
                if not isinstance(param, Tensor):
                    raise TypeError(f"an optimizer changes tensors; parameter {index} is a {type(param).__name__}")
                if param.grad is not None:
                    self._check_ready(param, f"parameter {index}, of shape {param.shape},")
                    ready.append(param)
                index += 1
            found.append((group, ready))
        return found

    def _check_group(self, group: Mapping[str, Any], what: str) -> None:
        if missing := sorted({"params", *self.defaults} - group.keys()):
            raise ValueError(f"{what} lacks {', '.join(missing)}, an option of {type(self).__name__}")
        self.check_options(group)

    def _check_ready(self, param: Tensor, which: str) -> None:
        w = param.data
        if not isinstance(param.grad, Tensor):
            raise TypeError(f"{which} has a {type(param.grad).__name__} as its .grad; make a tensor of it with "
                            "minidl.tensor(...)")
        if not is_writeable(w):
            raise ValueError(f"{which} is in read-only memory, as of np.load(path, mmap_mode='r'), and cannot be "
                             "changed; make it of a copy: nn.Parameter(array.copy())")
        if param.grad.dtype != w.dtype:
            raise TypeError(f"{which} is {w.dtype}, and its .grad {param.grad.dtype}; convert one of them with "
                            ".to(dtype)")
        state = {name: value for name, value in self.state.get(param, {}).items() if is_array(value) and value.ndim}
        for name, array in {".grad": param.grad.data, **state}.items():
            if array.shape != w.shape:
                raise ValueError(f"{which} cannot be changed by its {name} of shape {array.shape}")
            if device_of(array) != device_of(w):
                raise DeviceError(f"{which} is on {device_of(w)!r}, and its {name} on {device_of(array)!r}; move the "
                                  "network first, then make the optimizer")

    def state_dict(self) -> dict[str, Any]:
        """``{"state": {index: {name: array}}, "param_groups": [{"params": [indices], ...}]}``, as in PyTorch.

        Parameters are counted through all groups. The arrays are the live ones, not copies.
        """
        groups = self.param_groups
        params = [param for group in groups for param in group["params"]]
        position = {param: index for index, param in enumerate(params)}
        return {
            "state": {position[param]: dict(values) for param, values in self.state.items()},
            "param_groups": [{**group, "params": [position[param] for param in group["params"]]} for group in groups],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Copy in a `state_dict`, converted to each parameter's dtype and device; the next step then continues from it.

        Whole numbers keep their dtype, and so does ``"step"``, PyTorch's count of steps. Raises ValueError, and changes
        nothing, if it belongs to other groups, shapes or options, or is damaged.
        """
        groups, saved = self.param_groups, _saved_groups(state_dict)
        sizes, saved_sizes = ([len(group["params"]) for group in side] for side in (groups, saved))
        if sizes != saved_sizes:
            raise ValueError(f"the saved groups have {saved_sizes} parameters, those of this optimizer have {sizes}")
        for group in saved:
            self._check_group(group, "a saved group")
        owners = {
            index: param
            for group, saved_group in zip(groups, saved, strict=True)
            for param, index in zip(group["params"], saved_group["params"], strict=True)
        }
        state: defaultdict[Tensor, dict[str, Any]] = defaultdict(dict)
        for index, values in state_dict["state"].items():
            if index not in owners:
                raise ValueError(f"there is saved state for parameter {index!r}, which is in none of the saved groups")
            if not isinstance(values, Mapping):
                raise ValueError(f"the saved state of parameter {index} must be a dict; got {values!r}")
            param = owners[index]
            for name, value in values.items():
                state[param][name] = _copy_for(param, name, value, f"{name} of parameter {index}")
        self.state = state
        self.param_groups = [
            {**copy.deepcopy({name: value for name, value in new.items() if name != "params"}), "params": old["params"]}
            for old, new in zip(groups, saved, strict=True)
        ]

    def __repr__(self) -> str:
        lines = []
        for index, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {index}")
            lines += [f"    {name}: {group[name]}" for name in sorted(group) if name != "params"]
        return "\n".join([f"{type(self).__name__} (", *lines, ")"])


def number(value: Any) -> float:
    """`value`, a number, array or tensor, as a plain float; NaN for anything that is not one number."""
    try:
        value = value.item() if hasattr(value, "item") else value
        return math.nan if isinstance(value, (str, bytes, bool)) else float(value)
    except (TypeError, ValueError):
        return math.nan


def _saved_groups(state_dict: Any) -> list[Mapping[str, Any]]:
    """The groups of a `state_dict`, if it is one at all; else ValueError."""
    if not isinstance(state_dict, Mapping):
        raise ValueError(f"this is not an optimizer's state_dict: it is a {type(state_dict).__name__}")
    if missing := sorted({"state", "param_groups"} - state_dict.keys()):
        raise ValueError(f"this is not an optimizer's state_dict: it lacks {', '.join(missing)}")
    groups = state_dict["param_groups"]
    if not isinstance(state_dict["state"], Mapping) or not isinstance(groups, (list, tuple)):
        raise ValueError("this is not an optimizer's state_dict: 'state' must be a dict, and 'param_groups' a list")
    for group in groups:
        if not (isinstance(group, Mapping) and isinstance(group.get("params"), (list, tuple))):
            raise ValueError(f"a saved group must be a dict with a list of 'params'; got {group!r}")
    positions = [index for group in groups for index in group["params"]]
    if not all(isinstance(index, int) for index in positions) or len(set(positions)) < len(positions):
        raise ValueError(f"the saved groups must number each parameter once; got {positions}")
    return list(groups)


def _copy_for(param: Tensor, name: str, value: Any, what: str) -> Any:
    """`value` as state of `param`, in memory of its own; an array on the device of `param`, floats of its dtype."""
    if isinstance(value, Tensor):
        value = value.data
    elif hasattr(value, "__array__") and not (is_array(value) or isinstance(value, np.generic)):
        value = np.asarray(value)  # a tensor of PyTorch's
    if not is_array(value):
        return copy.deepcopy(value)
    if value.dtype.kind not in "fiub":
        raise ValueError(f"the saved {what} holds {value.dtype}, not numbers")
    if value.ndim and value.shape != param.shape:
        raise ValueError(f"the saved {what} has shape {value.shape}; the parameter has shape {param.shape}")
    value = value.astype(param.dtype if value.dtype.kind == "f" and name != "step" else value.dtype)
    return to_device(value, param.device)
