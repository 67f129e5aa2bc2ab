"""Module: a part of a network that owns parameters and other modules, and the containers of modules."""

from __future__ import annotations

import copy
import inspect
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from ..autograd import Tensor, device_or_dtype
from ..backend import Array, device_of, generator, get_device, is_array, is_writeable, to_device
from ..tasklocal import TaskLocal, adding

T = TypeVar("T")
Self = TypeVar("Self", bound="Module")
C = TypeVar("C", bound="_Container")


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
    """Restore modes, buffers and gradients of `model`, and the random state, on exit."""
    random = generator().bit_generator.state
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    buffers = [(module, name, buffer, buffer.data, buffer.data.copy())
               for module in model.modules() for name, buffer in module._own(Tensor).items()]
    with keeping_modes(model):
        try:
            yield
        finally:
            generator().bit_generator.state = random
            for parameter, gradient in gradients:
                parameter.grad = gradient
            for module, name, buffer, array, values in buffers:
                if is_writeable(array):
                    array[...] = values
                buffer.data = array
                module._hold(Tensor, name, buffer)


class Module:
    """The base of all layers and networks. Assign parameters and modules as attributes; write `forward`.

    As in PyTorch: `module(x)` calls `forward(x)`, and names in `state_dict` are attribute paths such
    as ``"features.0.weight"``.
    """

    training: bool = True
    _owned: Mapping[str, type] = {}
    """What each name stands for, in the order of assignment: a Parameter, a Tensor (that is, a buffer) or a Module."""
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

    # What it owns

    def __setattr__(self, name: str, value: Any) -> None:
        held = self._owned.get(name)
        kind = next((kind for kind in (Parameter, Module) if isinstance(value, kind)), held)
        if kind is None or inspect.isdatadescriptor(getattr(type(self), name, None)):
            super().__setattr__(name, value)
        elif value is None or (isinstance(value, kind) and (kind is held or held is not Parameter)):
            self._hold(kind, name, value)
        else:
            word, advice = _KINDS[held or kind]
            raise TypeError(f"{type(self).__name__}.{name} is a {word}: cannot assign a {type(value).__name__} to it. "
                            f"{advice}")

    def __delattr__(self, name: str) -> None:
        super().__delattr__(name)
        vars(self)["_owned"] = {other: kind for other, kind in self._owned.items() if other != name}

    def register_buffer(self, name: str, tensor: Tensor | None) -> None:
        """State that is saved and moved with the module but not learned, such as running statistics.

        None holds the name for a tensor that is assigned later. Raises TypeError for what is not a tensor; KeyError for
        a name that is empty, has a dot or is that of another attribute.
        """
        self._register(Tensor, name, tensor)

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """What assigning a parameter does; None holds the name. Raises as `register_buffer` does."""
        self._register(Parameter, name, param)

    def add_module(self, name: str, module: Module | None) -> None:
        """What assigning a module does; None holds the name. Raises as `register_buffer` does."""
        self._register(Module, name, module)

    def _register(self, kind: type, name: str, value: Any) -> None:
        word, advice = _KINDS[kind]
        if not isinstance(name, str):
            raise TypeError(f"the name of a {word} must be a string; got {name!r}")
        if not (value is None or isinstance(value, kind)):
            raise TypeError(f"cannot assign a {type(value).__name__} to the {word} {name!r}. {advice}")
        self._hold(kind, name, value, taken=hasattr(self, name))

    def _hold(self, kind: type, name: str, value: Any, taken: bool = False) -> None:
        if self._owned.get(name) is not kind:
            word, _ = _KINDS[kind]
            if not name or "." in name:
                raise KeyError(f"{type(self).__name__}: {name!r} cannot be the name of a {word}: it is empty or has a "
                               "dot")
            if taken or hasattr(Module, name) or inspect.isroutine(getattr(type(self), name, None)):
                raise KeyError(f"{type(self).__name__}: attribute {name!r} already exists; give the {word} another "
                               "name")
            owned = {other: held for other, held in self._owned.items() if other != name}
            vars(self)["_owned"] = {**owned, name: kind}  # a shallow copy of this module keeps the old dict
        vars(self)[name] = value

    def _own(self, kind: type) -> dict[str, Any]:
        """Its parameters, buffers or modules by name, without those that are None."""
        named = ((name, vars(self).get(name)) for name, held in self._owned.items() if held is kind)
        return {name: value for name, value in named if value is not None}

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The modules directly inside this one, in the order of assignment; one with several names comes once."""
        return _once(self._own(Module).items())

    def children(self) -> Iterator[Module]:
        return (child for _, child in self.named_children())

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module and all below it, each with its path; one that is used in several places comes once."""
        return _once(self._paths(prefix))

    def _paths(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """As `named_modules`, with every path of a shared module, as `state_dict` needs."""
        yield prefix, self
        for name, child in self._own(Module).items():
            yield from child._paths(f"{prefix}.{name}" if prefix else name)

    def modules(self) -> Iterator[Module]:
        return (module for _, module in self.named_modules())

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """All parameters with their paths; one that is used in several places comes once."""
        return _once(self._named_state(lambda module: module._own(Parameter)))

    def parameters(self) -> Iterator[Parameter]:
        return (parameter for _, parameter in self.named_parameters())

    def named_buffers(self) -> Iterator[tuple[str, Tensor]]:
        return _once(self._named_state(lambda module: module._own(Tensor)))

    def buffers(self) -> Iterator[Tensor]:
        return (buffer for _, buffer in self.named_buffers())

    def _named_state(self, own: Callable[[Module], dict[str, Any]]) -> Iterator[tuple[str, Any]]:
        for path, module in self._paths():
            for name, value in own(module).items():
                yield f"{path}.{name}" if path else name, value

    # Saving and loading

    def state_dict(self) -> dict[str, Tensor]:
        """Every parameter and buffer by name, sharing memory with the module; the keys are PyTorch's."""
        state = self._named_state(lambda module: module._own(Parameter) | module._own(Tensor))
        return {name: value.detach() for name, value in state}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> IncompatibleKeys:
        """Copy values by name into the parameters and buffers; returns (missing_keys, unexpected_keys), as PyTorch.

        A value is converted to the dtype and moved to the device of what it overwrites. Raises ValueError naming all
        keys that are missing, unexpected, of another shape or not numbers, and TypeError for what is not a dict, before
        anything is changed; with `strict=False` missing and unexpected keys are passed over.
        """
        if not isinstance(state_dict, Mapping):
            advice = "; pass its state_dict()" if isinstance(state_dict, Module) else ""
            raise TypeError("load_state_dict takes a dict of names to tensors; got a "
                            f"{type(state_dict).__name__}{advice}")
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
        values = {}
        for name, target in own.items():
            if name in state_dict:
                try:
                    values[name] = _fitted(state_dict[name], target.data)
                except ValueError as error:
                    problems.append(f"{name} {error}")
        if problems:
            raise ValueError(f"the state does not fit {type(self).__name__}:\n  " + "\n  ".join(problems))
        owners = {id(_owner(target.data)) for target in own.values()}
        for name, value in values.items():
            if id(_owner(value)) in owners and value is not own[name].data:
                values[name] = value.copy()  # before its memory is overwritten
        for name, value in values.items():
            target = own[name]
            target.copy_(to_device(value, target.device))
        return keys

    # Modes, devices, gradients

    def train(self: Self, mode: bool = True) -> Self:
        """Training mode for this module and all below it: dropout drops, batch norm uses the batch.

        Raises ValueError unless `mode` is True or False.
        """
        if not isinstance(mode, bool):
            raise ValueError(f"train: mode must be True or False; got {mode!r}")
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
        children = [f"({name}): {child!r}".replace("\n", "\n  ") for name, child in self._own(Module).items()]
        body = "\n  " + "\n  ".join(children) + "\n" if children else self.extra_repr()
        return f"{type(self).__name__}({body})"


_KINDS = {
    Parameter: ("parameter", "Assign an nn.Parameter or None, or copy into it under no_grad()"),
    Tensor: ("buffer", "Assign a tensor, as minidl.tensor(...) makes one, or None"),
    Module: ("module", "Assign a module or None"),
}
"""What a module owns: the word for it, and what can take its place."""


class _Container(Module):
    """Modules in an order, by number: what `Sequential` and `ModuleList` share.

    A slice is a container of the same class with everything else that the whole has; it has no hooks. Indices are those
    of a list. Deleting and inserting number all modules anew, from 0.
    """

    def __len__(self) -> int:
        return len(self._own(Module))

    def __iter__(self) -> Iterator[Module]:
        return iter(self._own(Module).values())

    def __getitem__(self, index: int | slice) -> Any:
        if not isinstance(index, slice):
            return getattr(self, self._name(index))
        part = copy.copy(self)  # and not type(self)(...): a subclass may have another constructor
        part._forward_hooks = part._forward_pre_hooks = ()
        part._replace(dict(list(self._own(Module).items())[index]))
        return part

    def __setitem__(self, index: int, module: Module) -> None:
        self._add(self._name(index), module)

    def __delitem__(self, index: int | slice) -> None:
        modules = list(self)
        del modules[index if isinstance(index, slice) else self._position(index)]
        self._replace(_numbered(modules))

    def append(self: C, module: Module) -> C:
        number = len(self)
        while hasattr(self, str(number)):  # a slice keeps its numbers
            number += 1
        self._add(str(number), module)
        return self

    def extend(self: C, modules: Iterable[Module]) -> C:
        modules = list(modules)
        for number, module in enumerate(modules, len(self)):
            self._check(str(number), module)
        for module in modules:
            self.append(module)
        return self

    __iadd__ = extend

    def insert(self: C, index: int, module: Module) -> C:
        """Put `module` in front of the one at `index`; IndexError for one past the end."""
        position = index if index == len(self) else self._position(index)
        self._check(str(position), module)
        self._replace(_numbered([*self[:position], module, *self[position:]]))
        return self

    def pop(self, key: int | slice) -> Any:
        """Take out one module, or a slice."""
        taken = self[key]
        del self[key]
        return taken

    def _position(self, index: int) -> int:
        number, length = operator.index(index), len(self)
        if not -length <= number < length:
            raise IndexError(f"index {number} is out of range: {type(self).__name__} holds {length} modules")
        return number % length

    def _name(self, index: int) -> str:
        return list(self._own(Module))[self._position(index)]

    def _replace(self, modules: Mapping[str, Module]) -> None:
        for name in self._own(Module):
            delattr(self, name)
        for name, module in modules.items():
            self._add(name, module)

    def _add(self, name: str, module: Any) -> None:
        self._check(name, module)
        self.add_module(name, module)

    def _check(self, name: str, module: Any) -> None:
        if not isinstance(module, Module):
            raise TypeError(f"{type(self).__name__} holds modules; got {type(module).__name__} for {name!r}")


class Sequential(_Container):
    """Modules applied one after the other; takes modules, or one dict of names to modules. A slice keeps the names."""

    def __init__(self, *modules: Any):
        named = modules[0] if len(modules) == 1 and isinstance(modules[0], Mapping) else _numbered(modules)
        for name, module in named.items():
            self._add(name, module)

    def forward(self, x: Any) -> Any:
        for module in self:
            x = module(x)
        return x


class ModuleList(_Container):
    """A list whose modules are found by `parameters` and `state_dict`. A slice is numbered from 0."""

    def __init__(self, modules: Iterable[Module] | None = None):
        if modules is not None:
            self.extend(modules)

    def __getitem__(self, index: int | slice) -> Any:
        found = super().__getitem__(index)
        if isinstance(index, slice):
            found._replace(_numbered(found))
        return found


def _numbered(modules: Iterable[Module]) -> dict[str, Module]:
    return {str(number): module for number, module in enumerate(modules)}


def _once(named: Iterable[tuple[str, T]]) -> Iterator[tuple[str, T]]:
    """Each value once, under its first name."""
    seen = set()
    for name, value in named:
        if value not in seen:
            seen.add(value)
            yield name, value


def _fitted(value: Any, target: Array) -> Array:
    """`value` as an array of the shape and dtype of `target`; ValueError tells why it cannot be."""
    try:
        array = value.data if isinstance(value, Tensor) else value if is_array(value) else np.asarray(value)
    except Exception as error:
        raise ValueError(f"cannot be read as an array: {error}") from None
    if array.dtype.kind not in "fiub":
        raise ValueError(f"holds {array.dtype}, not numbers")
    if array.shape == (1,) and target.shape == ():
        array = array.reshape(())  # as PyTorch before 0.4 saved single numbers
    if array.shape != target.shape:
        raise ValueError(f"has shape {array.shape}, the model's has {target.shape}")
    if not is_writeable(target):
        raise ValueError("cannot be overwritten: the model's memory is read-only")
    return array.astype(target.dtype, copy=False)


def _owner(array: Array) -> Array:
    """The array that owns the memory which `array` views."""
    while is_array(array.base):
        array = array.base
    return array


def dtype_and_device(model: Module) -> tuple[np.dtype, str]:
    """Those of the first parameter of floats; float32 and the default device for a model without any."""
    for parameter in model.parameters():
        if parameter.dtype.kind == "f":
            return parameter.dtype, parameter.device
    return np.dtype(np.float32), get_device()


def new_parameter(*shape: int) -> Parameter:
    """A float32 parameter on the default device, to be filled by an initialiser."""
    return Parameter(to_device(np.zeros(shape, np.float32), get_device()))
