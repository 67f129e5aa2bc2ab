"""Module: a part of a network that owns parameters and other modules, and the containers of modules."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from ..autograd import Tensor, device_or_dtype
from ..backend import Array, device_of, generator, get_device, to_device
from ..tasklocal import TaskLocal, adding

T = TypeVar("T")
Self = TypeVar("Self", bound="Module")


class Parameter(Tensor):
    """A tensor that a module learns: a leaf that needs a gradient, found by `Module.parameters`."""

    __slots__ = ()

    def __init__(self, data: Tensor | Array, requires_grad: bool = True):
        super().__init__(data.data if isinstance(data, Tensor) else data, requires_grad)

    def __repr__(self) -> str:
        return f"Parameter containing:\n{super().__repr__()}"


class IncompatibleKeys(NamedTuple):
    """What a loaded state and a module do not have in common."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class RemovableHandle:
    """A function that a module calls around its `forward`, until `remove`, or the end of a ``with`` block."""

    def __init__(self, module: Module, place: str, function: Callable[..., Any]):
        self.module, self.place, self.function = module, place, function
        setattr(module, place, (*getattr(module, place), self))

    def remove(self) -> None:
        """Call it no more; nothing happens the second time."""
        left = tuple(hook for hook in getattr(self.module, self.place) if hook is not self)
        setattr(self.module, self.place, left)

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *exception: Any) -> None:
        self.remove()


_Observer = tuple[Callable[["Module"], None], Callable[["Module"], None]]
_observers: TaskLocal[tuple[_Observer, ...]] = TaskLocal(())


@contextmanager
def observe_modules(enter: Callable[[Module], None], leave: Callable[[Module], None]) -> Iterator[None]:
    """Call ``enter(module)`` before each module of this thread or asyncio task runs, and ``leave(module)`` after it.

    With `minidl.autograd.observe_operations` they say in which module an operation ran. No `leave` follows an error.
    """
    with adding(_observers, (enter, leave)):
        yield


@contextmanager
def keeping_modes(model: Module) -> Iterator[None]:
    """Inside, `model` may be put into training or evaluation mode; afterwards every module is in its own again."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def leaving_as_found(model: Module) -> Iterator[None]:
    """Inside, `model` may see images in any mode; afterwards its modes, buffers and gradients and the random numbers to
    come are as they were."""
    random = generator().bit_generator.state
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    buffers = [(buffer, buffer.data.copy()) for buffer in model.buffers()]
    with keeping_modes(model):
        try:
            yield
        finally:
            generator().bit_generator.state = random
            for parameter, gradient in gradients:
                parameter.grad = gradient
            for buffer, value in buffers:
                buffer.data[...] = value


class Module:
    """The base of all layers and networks. Assign parameters and modules as attributes; write `forward`.

    As in PyTorch: `module(x)` calls `forward(x)`, and names in `state_dict` are attribute paths such
    as ``"features.0.weight"``.
    """

    training: bool = True
    _buffer_names: tuple[str, ...] = ()
    _forward_hooks: tuple[RemovableHandle, ...] = ()
    _forward_pre_hooks: tuple[RemovableHandle, ...] = ()

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Parameters, buffers and modules are attributes that only their assignment declares."""

    def forward(self, *inputs: Any) -> Any:
        raise TypeError(f"{type(self).__name__} has no forward(); define what it computes from its input")

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        for enter, _ in _observers.get():
            enter(self)
        for hook in self._forward_pre_hooks:
            replaced = hook.function(self, inputs)
            if replaced is not None:
                inputs = replaced if isinstance(replaced, tuple) else (replaced,)
        output = self.forward(*inputs, **options)
        for hook in self._forward_hooks:
            replaced = hook.function(self, inputs, output)
            output = output if replaced is None else replaced
        for _, leave in _observers.get():
            leave(self)
        return output

    def register_forward_pre_hook(self, hook: Callable[[Any, tuple[Any, ...]], Any]) -> RemovableHandle:
        """Call ``hook(module, inputs)`` before each `forward`; what it returns, unless None, replaces the inputs."""
        return RemovableHandle(self, "_forward_pre_hooks", hook)

    def register_forward_hook(self, hook: Callable[[Any, tuple[Any, ...], Any], Any]) -> RemovableHandle:
        """Call ``hook(module, inputs, output)`` after each `forward`; what it returns, unless None, is the new output.

        ``remove()`` of what this returns ends it. So the feature maps of any layer can be seen, or changed.
        """
        return RemovableHandle(self, "_forward_hooks", hook)

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(vars(self).get(name), Parameter) and not (value is None or isinstance(value, Parameter)):
            raise TypeError(f"{type(self).__name__}.{name} is a parameter; {type(value).__name__} would be lost to "
                            "parameters() and state_dict(). Assign nn.Parameter(...), or copy into it under no_grad()")
        super().__setattr__(name, value)

    # What it owns

    def register_buffer(self, name: str, tensor: Tensor | None) -> None:
        """State that is saved and moved with the module but not learned, such as running statistics."""
        self._buffer_names = (*self._buffer_names, name)
        setattr(self, name, tensor)

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The modules directly inside this one, in the order of assignment."""
        return ((name, value) for name, value in vars(self).items() if isinstance(value, Module))

    def children(self) -> Iterator[Module]:
        return (child for _, child in self.named_children())

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module and all below it, each with its path; one that is used in several places comes once."""
        return _once(self._paths(prefix))

    def _paths(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """As `named_modules`, with every path of a shared module, as `state_dict` needs."""
        yield prefix, self
        for name, child in self.named_children():
            yield from child._paths(f"{prefix}.{name}" if prefix else name)

    def modules(self) -> Iterator[Module]:
        return (module for _, module in self.named_modules())

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """All parameters with their paths; one that is used in several places comes once."""
        return _once(self._named_state(lambda module: module._own_parameters()))

    def parameters(self) -> Iterator[Parameter]:
        return (parameter for _, parameter in self.named_parameters())

    def named_buffers(self) -> Iterator[tuple[str, Tensor]]:
        return _once(self._named_state(lambda module: module._own_buffers()))

    def buffers(self) -> Iterator[Tensor]:
        return (buffer for _, buffer in self.named_buffers())

    def _own_parameters(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if isinstance(value, Parameter)}

    def _own_buffers(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self._buffer_names if getattr(self, name) is not None}

    def _named_state(self, own: Callable[[Module], dict[str, Any]]) -> Iterator[tuple[str, Any]]:
        for path, module in self._paths():
            for name, value in own(module).items():
                yield f"{path}.{name}" if path else name, value

    # Saving and loading

    def state_dict(self) -> dict[str, Tensor]:
        """Every parameter and buffer by name, sharing memory with the module; the keys are PyTorch's."""
        state = self._named_state(lambda module: module._own_parameters() | module._own_buffers())
        return {name: value.detach() for name, value in state}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> IncompatibleKeys:
        """Copy values by name into the parameters and buffers; returns (missing_keys, unexpected_keys), as PyTorch.

        Raises ValueError naming all keys that are missing, unexpected or of another shape, before anything
        is changed; with `strict=False` missing and unexpected keys are passed over.
        """
        own = self.state_dict()
        # States from before PyTorch 0.4.1, as some published ones are, count no batches; PyTorch lets that pass, too.
        optional = "num_batches_tracked"
        keys = IncompatibleKeys(
            [name for name in own if name not in state_dict and name.rpartition(".")[2] != optional],
            [name for name in state_dict if name not in own],
        )
        problems = []
        if strict:
            problems += [f"missing: {name}" for name in keys.missing_keys]
            problems += [f"unexpected: {name}" for name in keys.unexpected_keys]
        values = {name: _array(state_dict[name]) for name in own if name in state_dict}
        problems += [f"{name} has shape {value.shape}, the model's has {own[name].shape}"
                     for name, value in values.items() if value.shape != own[name].shape]
        problems += [f"{name} holds {value.dtype}, not numbers"
                     for name, value in values.items() if value.dtype.kind not in "fiub"]
        if problems:
            raise ValueError(f"the state does not fit {type(self).__name__}:\n  " + "\n  ".join(problems))
        for name, value in values.items():
            target = own[name]
            target.copy_(to_device(value, target.device))
        return keys

    # Modes, devices, gradients

    def train(self: Self, mode: bool = True) -> Self:
        """Training mode for this module and all below it: dropout drops, batch norm uses the batch."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self: Self) -> Self:
        """Evaluation mode: `train(False)`."""
        return self.train(False)

    def to(self: Self, device: str | None = None, dtype: Any = None) -> Self:
        """Move all parameters and buffers to `device` and convert the floating-point ones to `dtype`, in place."""
        device, dtype = device_or_dtype(device, dtype)
        if dtype is not None and np.dtype(dtype).kind != "f":
            raise TypeError(f"to: only floating-point dtypes; got {np.dtype(dtype)}")
        for tensor in (*self.parameters(), *self.buffers()):
            for holder in (tensor, tensor.grad):
                if holder is not None:
                    array = to_device(holder.data, device or device_of(holder.data))
                    holder.data = array.astype(dtype, copy=False) if dtype and array.dtype.kind == "f" else array
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients (`.grad` becomes None), or fill them with zeros in place."""
        for parameter in self.parameters():
            if set_to_none:
                parameter.grad = None
            elif parameter.grad is not None:
                parameter.grad.copy_(0.0)

    def requires_grad_(self: Self, requires_grad: bool = True) -> Self:
        """Freeze (False) or unfreeze all parameters."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def apply(self: Self, function: Callable[[Module], None]) -> Self:
        """Call `function` on every module, children first."""
        for child in self.children():
            child.apply(function)
        function(self)
        return self

    # How it prints

    def extra_repr(self) -> str:
        """The constructor's arguments that are kept as attributes, those at their default left out."""
        shown = []
        for name, parameter in inspect.signature(type(self).__init__).parameters.items():
            if not hasattr(self, name):
                continue
            value = getattr(self, name)
            variadic = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
            switch = isinstance(parameter.default, bool)  # the attribute may be what it switched on, such as `bias`
            if name == "self" or variadic or (isinstance(value, (Module, Tensor)) and not switch):
                continue
            if switch and not isinstance(value, bool):
                value = value is not None
            if parameter.default is parameter.empty:
                shown.append(repr(value))
            elif value != parameter.default:
                shown.append(f"{name}={value!r}")
        return ", ".join(shown)

    def __repr__(self) -> str:
        children = [f"({name}): {child!r}".replace("\n", "\n  ") for name, child in self.named_children()]
        body = "\n  " + "\n  ".join(children) + "\n" if children else self.extra_repr()
        return f"{type(self).__name__}({body})"


class Sequential(Module):
    """Modules applied one after the other; takes modules, or one dict of names to modules."""

    def __init__(self, *modules: Any):
        named = modules[0] if len(modules) == 1 and isinstance(modules[0], Mapping) else dict(enumerate(modules))
        for name, module in named.items():
            _add(self, str(name), module)

    def forward(self, x: Any) -> Any:
        for module in self.children():
            x = module(x)
        return x

    def __len__(self) -> int:
        return sum(1 for _ in self.children())

    def __iter__(self) -> Iterator[Module]:
        return self.children()

    def __getitem__(self, index: int | slice) -> Any:
        children = list(self.named_children())
        return Sequential(dict(children[index])) if isinstance(index, slice) else children[index][1]

    def append(self, module: Module) -> Sequential:
        _add(self, str(len(self)), module)
        return self


class ModuleList(Module):
    """A list whose modules are found by `parameters` and `state_dict`."""

    def __init__(self, modules: Iterable[Module] = ()):
        for module in modules:
            self.append(module)

    def append(self, module: Module) -> ModuleList:
        _add(self, str(len(self)), module)
        return self

    def __len__(self) -> int:
        return sum(1 for _ in self.children())

    def __iter__(self) -> Iterator[Module]:
        return self.children()

    def __getitem__(self, index: int) -> Module:
        return list(self.children())[index]


def _add(container: Module, name: str, module: Any) -> None:
    if not isinstance(module, Module):
        raise TypeError(f"{type(container).__name__} holds modules; got {type(module).__name__} for {name!r}")
    if not name or "." in name or (hasattr(container, name) and not isinstance(getattr(container, name), Module)):
        raise ValueError(f"{type(container).__name__}: {name!r} cannot be the name of a module: "
                         "it is empty, has a dot or exists")
    setattr(container, name, module)


def _once(named: Iterable[tuple[str, T]]) -> Iterator[tuple[str, T]]:
    """Each value once, under its first name."""
    seen = set()
    for name, value in named:
        if value not in seen:
            seen.add(value)
            yield name, value


def _array(value: Any) -> Array:
    return value.data if isinstance(value, Tensor) else np.asarray(value)


def new_parameter(*shape: int) -> Parameter:
    """A float32 parameter on the default device, to be filled by an initialiser."""
    return Parameter(to_device(np.zeros(shape, np.float32), get_device()))
