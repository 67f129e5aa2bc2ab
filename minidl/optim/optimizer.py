"""The part of an optimizer that is not its formula: groups of parameters, their state, saving and loading."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from ..autograd import Tensor
from ..backend import is_array, to_device

Params = Iterable[Tensor] | Iterable[dict[str, Any]]


class Optimizer:
    """Parameters in groups, each group with its own options; a subclass adds `step`. As `torch.optim.Optimizer`.

    `params` are tensors, or dicts ``{"params": tensors, "lr": 0.01, ...}`` whose options override
    `defaults`. `param_groups` is the list of those dicts, complete, and may be changed between steps;
    `state` holds what a subclass remembers about each parameter, as numbers and arrays of its shape.
    Raises TypeError for what is not tensors, or is unordered; ValueError for no parameters, for a
    tensor that is the result of an operation and for the same parameter twice.
    """

    def __init__(self, params: Params, defaults: dict[str, Any]):
        if isinstance(params, (Tensor, set)):
            raise TypeError(f"{type(self).__name__} takes a list of tensors or of dicts; got a {type(params).__name__}")
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
        self.param_groups.append({**self.defaults, **group, "params": params})

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

        Raises ValueError, and changes nothing, if it belongs to other groups, shapes or options.
        """
        if missing := sorted({"state", "param_groups"} - state_dict.keys()):
            raise ValueError(f"this is no optimizer's state: it lacks {', '.join(missing)}")
        groups, saved = self.param_groups, state_dict["param_groups"]
        sizes, saved_sizes = ([len(group["params"]) for group in side] for side in (groups, saved))
        if sizes != saved_sizes:
            raise ValueError(f"the saved groups have {saved_sizes} parameters, those of this optimizer have {sizes}")
        for group in saved:
            if missing := sorted(self.defaults.keys() - group.keys()):
                raise ValueError(f"a saved group lacks {', '.join(missing)}; was it saved by a {type(self).__name__}?")
        owners = {
            index: param
            for group, saved_group in zip(groups, saved, strict=True)
            for param, index in zip(group["params"], saved_group["params"], strict=True)
        }
        state: defaultdict[Tensor, dict[str, Any]] = defaultdict(dict)
        for index, values in state_dict["state"].items():
            if index not in owners:
                raise ValueError(f"there is saved state for parameter {index!r}, which is in none of the saved groups")
            param = owners[index]
            for name, value in values.items():
                state[param][name] = _copy_for(param, value, f"{name} of parameter {index}")
        self.state = state
        self.param_groups = [{**new, "params": group["params"]} for group, new in zip(groups, saved, strict=True)]

    def __repr__(self) -> str:
        lines = []
        for index, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {index}")
            lines += [f"    {name}: {group[name]}" for name in sorted(group) if name != "params"]
        return "\n".join([f"{type(self).__name__} (", *lines, ")"])


def _copy_for(param: Tensor, value: Any, what: str) -> Any:
    """`value` as state of `param`: an array in memory of its own, of the dtype and device of `param`."""
    if not is_array(value):
        return value
    if value.shape != param.shape:
        raise ValueError(f"the saved {what} has shape {value.shape}; the parameter has shape {param.shape}")
    return to_device(value.astype(param.dtype), param.device)
