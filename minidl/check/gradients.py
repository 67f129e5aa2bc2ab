"""gradcheck: a recorded gradient against central differences, entry by entry, in float64.

The output is weighted by a random cotangent c, L = Σ c · f(x), so that no symmetry of f can hide a
mistake (the rows of a softmax sum to 1: with c = 1 its gradient is 0, and so is a wrong one).
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ..autograd import Tensor, no_grad, recorded_nodes
from ..backend import Array, array_module, is_array, to_device


class GradcheckError(AssertionError):
    """A gradient that finite differences contradict."""


class NondifferentiableError(ValueError):
    """A point at which the function has a kink: its one-sided slopes differ, and no gradient is right."""


def gradcheck(
    fn: Callable[..., Any],
    inputs: Any,
    *,
    eps: float = 1e-5,
    rtol: float = 1e-6,
    atol: float = 1e-8,
    max_entries: int = 1000,
    seed: int = 0,
) -> bool:
    """Compare the gradient of ``fn(*inputs)`` with finite differences; True, or an error that says where it is wrong.

    `inputs`: a tensor or array, or a sequence of them. Floats are checked, in float64 whatever their dtype; anything
    else is passed on as it is. `fn` returns a tensor or a tuple of them. An entry passes if
    |recorded − numerical| ≤ rtol · max(|recorded|, |numerical|) + atol · max(1, the largest entry). Of an input with
    more than `max_entries` entries, that many are drawn, and one random direction through all of them.

    Other leaves that `fn` uses, such as the weights of a layer, are not checked and get gradients too.

    Raises `GradcheckError` with the worst entry, both values, the input that owns it and the likely mistake;
    `NondifferentiableError` where the function has a kink too near for finite differences to pass it by; ValueError for
    a function that is random, not finite or gives nothing to check.
    """
    arguments = [_as_float64(x) for x in (inputs if isinstance(inputs, (tuple, list)) else (inputs,))]
    checked = [i for i, x in enumerate(arguments) if isinstance(x, Tensor) and x.requires_grad]
    if not checked:
        raise ValueError("gradcheck: none of the inputs holds floats; there is nothing to differentiate")
    rng = np.random.default_rng(seed)
    outputs = _outputs(fn, arguments)
    cotangents = [_like(y.data, rng.standard_normal(y.shape)) for y in outputs]
    if not all(bool(np.isfinite(to_device(y.data, "cpu")).all()) for y in outputs):
        raise ValueError("gradcheck: the function is not finite at this point; move the point")
    again = _outputs(fn, arguments)
    if any(not bool((a.data == b.data).all()) for a, b in zip(outputs, again)):
        raise ValueError("gradcheck: two calls gave different values; make the function deterministic "
                         "(dropout: minidl.manual_seed inside the function, or evaluation mode)")
    loss: Any = 0.0
    for y, c in zip(outputs, cotangents):
        loss = loss + (y * Tensor(c)).sum()
    if not (isinstance(loss, Tensor) and loss.requires_grad):
        raise GradcheckError("gradcheck: the output does not depend on the inputs through recorded operations; "
                             "was it computed from .data, or under no_grad()?")
    for node in recorded_nodes(loss):
        node.gradients = [function and _watched(function, node.operation) for function in node.gradients or ()]
    loss.backward()
    middle, failures = [y.data for y in outputs], []
    for index in checked:
        failures += _compare(fn, arguments, index, middle, cotangents, rng, eps, rtol, atol, max_entries)
    if failures:
        raise GradcheckError(max(failures)[1])
    return True


def _watched(gradient: Callable[[Array], Array], operation: str) -> Callable[[Array], Array]:
    """`gradient`, which is found out if it writes to g: other inputs, and other operations, are to get g as it was."""
    def watched(g: Array) -> Array:
        before = g.copy()
        result = gradient(g)
        if not bool(((g == before) | (before != before)).all()):  # NaN is never equal
            raise GradcheckError(f"gradcheck: a gradient function of {operation} changes g in place; "
                                 "work on a copy, or write g = g * 2 for g *= 2")
        return result

    return watched


def _compare(
    fn: Callable[..., Any], arguments: list[Any], index: int, middle: list[Array], cotangents: list[Array],
    rng: np.random.Generator, eps: float, rtol: float, atol: float, max_entries: int,
) -> list[tuple[float, str]]:
    """(how many tolerances off, message) for the worst entry of one input, or nothing."""
    x = arguments[index]
    recorded = np.zeros(x.shape) if x.grad is None else to_device(x.grad.data, "cpu")
    name = _name(fn, index)
    values = to_device(x.data, "cpu")
    places, found_values, slopes = [], [], []
    for place, direction in _directions(x.shape, rng, max_entries):
        chosen = direction != 0  # elsewhere 0 · ∞ would be NaN
        step = eps * max(1.0, float(np.abs(values * direction).max(initial=0.0)))
        moved = functools.partial(_moved, fn, arguments, index, direction)
        places.append(place)
        found_values.append(float(recorded[chosen] @ direction[chosen]))
        slopes.append(_slope(moved, middle, cotangents, step, f"{name} {place}"))
    found, numerical = np.array(found_values), np.array(slopes)
    scale = max(1.0, float(np.abs(numerical).max(initial=0.0)))
    tolerance = rtol * np.maximum(np.abs(found), np.abs(numerical)) + atol * scale
    with np.errstate(invalid="ignore"):
        excess = np.abs(found - numerical) / tolerance
    excess[~(np.isfinite(found) & np.isfinite(numerical))] = np.inf
    if not (excess > 1).any():
        return []
    worst = int(excess.argmax())
    message = (f"the gradient for {name} is wrong {places[worst]}: recorded {found[worst]:.8g}, "
               f"finite differences give {numerical[worst]:.8g}; {int((excess > 1).sum())} of {len(places)} "
               f"checked entries differ.{_likely_mistake(recorded, found, numerical)}")
    return [(float(excess[worst]), message)]


def _directions(shape: tuple[int, ...], rng: np.random.Generator, max_entries: int) -> Iterator[tuple[str, np.ndarray]]:
    """Unit vectors, each with a description; a sample of them and one random direction for a large input."""
    entries = np.arange(int(np.prod(shape)))
    if len(entries) > max_entries:
        entries = np.sort(rng.choice(entries, max_entries, replace=False))
        random = rng.standard_normal(shape)
        yield "along a random direction", random / np.linalg.norm(random)
    for entry in entries:
        direction = np.zeros(shape)
        direction.flat[entry] = 1
        yield f"at index {tuple(int(i) for i in np.unravel_index(entry, shape))}", direction


def _slope(
    f: Callable[[float], list[Array]], middle: list[Array], cotangents: list[Array], h: float, place: str
) -> float:
    """dL/dt at t = 0. Outputs are subtracted before they are weighted: those that do not move add no rounding error."""
    jump, slope = math.inf, math.inf
    for step in (h, h / 10, h / 100):
        ahead, behind = f(step), f(-step)
        right = sum(float((c * (a - m)).sum()) for c, a, m in zip(cotangents, ahead, middle)) / step
        left = sum(float((c * (m - b)).sum()) for c, m, b in zip(cotangents, middle, behind)) / step
        before, jump, change, slope = jump, abs(right - left), abs((left + right) / 2 - slope), (left + right) / 2
        smooth = jump <= 1e-3 * max(abs(left), abs(right)) + 1e-6
        curved = jump < 0.2 * before and change < 0.01 * before  # the step shrank tenfold, and so did the jump
        if smooth or curved or math.isnan(slope):
            return slope
    raise NondifferentiableError(f"the function has a kink for {place}: slope {left:.6g} on one side, {right:.6g} "
                                 "on the other (ReLU at 0, or a tie in a maximum?); move the point away from it")


def _moved(fn: Callable[..., Any], arguments: list[Any], index: int, direction: np.ndarray, t: float) -> list[Array]:
    moved = list(arguments)
    x = arguments[index].data
    moved[index] = Tensor(x + _like(x, direction * t))
    with no_grad():
        return [y.data for y in _outputs(fn, moved)]


def _outputs(fn: Callable[..., Any], arguments: Sequence[Any]) -> list[Tensor]:
    result = fn(*arguments)
    outputs = list(result) if isinstance(result, (tuple, list)) else [result]
    if not outputs or not all(isinstance(y, Tensor) for y in outputs):
        raise ValueError(f"gradcheck: the function must return a tensor or a tuple of tensors; got {result!r}")
    return outputs


def _as_float64(x: Any) -> Any:
    if isinstance(x, Tensor) or is_array(x):
        array = x.data if isinstance(x, Tensor) else x
        return Tensor(array.astype(np.float64), requires_grad=True) if array.dtype.kind == "f" else x
    return Tensor(np.array(x, np.float64), requires_grad=True) if isinstance(x, float) else x


def _like(array: Array, values: np.ndarray) -> Array:
    return array_module(array).asarray(values, dtype=np.float64)


def _name(fn: Callable[..., Any], index: int) -> str:
    try:
        names = list(inspect.signature(fn).parameters)
    except (TypeError, ValueError):
        names = []
    return f"input {index}" + (f" ({names[index]})" if index < len(names) else "")


def _likely_mistake(recorded: np.ndarray, found: np.ndarray, numerical: np.ndarray) -> str:
    def same(a: np.ndarray, b: np.ndarray) -> bool:
        return bool(np.allclose(a, b, rtol=1e-4, atol=1e-6 * max(1.0, float(np.abs(b).max(initial=0)))))

    if not (np.isfinite(found).all() and np.isfinite(numerical).all()):
        return ""
    if not found.any():
        return " The recorded gradient is zero everywhere: is the path to this input cut?"
    ratio = float(found @ numerical) / max(float(numerical @ numerical), 1e-300)
    if same(found, ratio * numerical):
        if same(found, -numerical):
            return " The sign is flipped."
        return f" It is {ratio:.6g} times the right one everywhere: a missing factor?"
    if recorded.ndim >= 2 and recorded.size == len(numerical):
        right = numerical.reshape(recorded.shape)
        if recorded.shape[-1] == recorded.shape[-2] and same(recorded, right.swapaxes(-1, -2)):
            return " It is the transpose of the right one."
    return ""
