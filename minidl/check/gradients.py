"""gradcheck: a recorded gradient against central differences, entry by entry, in float64.

The output is weighted by a random cotangent c, L = Σ c · f(x), so that no symmetry of f can hide a
mistake (the rows of a softmax sum to 1: with c = 1 its gradient is 0, and so is a wrong one).

One step h is too long where f bends within it or is not finite, and too short where rounding hides the slope. So an
entry is called wrong only if the slopes over two steps, the second a tenth of the first, agree with each other and
contradict the recorded gradient.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..autograd import Tensor, no_grad, recorded_nodes
from ..backend import Array, array_module, is_array, to_device


class GradcheckError(AssertionError):
    """A gradient that finite differences contradict."""


class NondifferentiableError(ValueError):
    """A point at which finite differences find no slope: a kink, the end of the domain, or too much rounding."""


STEPS = 6
"""Most steps tried per entry, each a tenth of the one before."""


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

    `inputs`: a tensor or array, or a sequence of them. Tensors with requires_grad=True are checked and the rest is
    constant, as in PyTorch; if there are none, all that holds floats is checked: tensors, arrays and Python floats.
    Tensors and arrays of floats reach `fn` as float64 tensors; anything else is passed on as it is. `fn` returns a
    tensor or a tuple of them.

    An entry passes if |recorded − numerical| ≤ rtol · max(|recorded|, |numerical|) + atol · max(1, the largest entry),
    plus the rounding error of the outputs over the step. The first step is eps · max(1, |entry|). Where the function is
    not finite or not smooth so near, or contradicts the gradient, shorter steps follow, down to 10⁻⁵ times the first.
    Of an input with more than `max_entries` entries, that many are drawn, and one random direction through all of them.

    Other leaves that `fn` uses, such as the weights of a layer, are not checked and get gradients too.

    Raises `GradcheckError` with the worst entry, both values, the input that owns it and the likely mistake;
    `NondifferentiableError` where finite differences find no slope: at a kink, or next to one or to the end of the
    domain; ValueError for a function that is random, not finite or gives nothing to check.
    """
    given = list(inputs) if isinstance(inputs, (tuple, list)) else [inputs]
    marked = any(isinstance(x, Tensor) and x.requires_grad and x.dtype.kind == "f" for x in given)
    arguments = [_as_float64(x, checked=not marked or isinstance(x, Tensor) and x.requires_grad) for x in given]
    checked = [i for i, x in enumerate(arguments) if isinstance(x, Tensor) and x.requires_grad]
    if not checked:
        raise ValueError("gradcheck: none of the inputs holds floats; there is nothing to differentiate")
    rng = np.random.default_rng(seed)
    try:
        outputs = _outputs(fn, arguments)
    except RuntimeError as error:
        if marked or len(checked) == 1:
            raise
        raise RuntimeError(f"{error}. gradcheck asks for the gradient of every input that holds floats; to check only "
                           "some, make these tensors with requires_grad=True") from error
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
    middle, failures, unsettled = [y.data for y in outputs], [], []
    for index in checked:
        wrong, unclear = _compare(fn, arguments, index, middle, cotangents, rng, eps, rtol, atol, max_entries)
        failures += wrong
        unsettled += unclear
    if failures:
        raise GradcheckError(max(failures)[1])
    if unsettled:
        raise NondifferentiableError(unsettled[0])
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
) -> tuple[list[tuple[float, str]], list[str]]:
    """For one input: (how many tolerances off, message) for the worst entry, and a message per entry left unclear."""
    x = arguments[index]
    recorded = np.zeros(x.shape) if x.grad is None else to_device(x.grad.data, "cpu")
    name = _name(fn, index)
    values = to_device(x.data, "cpu")
    places: list[str] = []
    found_values: list[float] = []
    slopes: list[Slope] = []
    for place, direction in _directions(x.shape, rng, max_entries):
        chosen = direction != 0  # elsewhere 0 · ∞ would be NaN
        step = eps * max(1.0, float(np.abs(values * direction).max(initial=0.0)))
        moved = functools.partial(_moved, fn, arguments, index, direction)
        places.append(place)
        found_values.append(float(recorded[chosen] @ direction[chosen]))
        estimates = _slopes(moved, middle, cotangents, step, f"{name} {place}")
        slopes.append(_settled(estimates, found_values[-1], rtol, atol))
    found, numerical = np.array(found_values), np.array([slope.value for slope in slopes])
    rounding = np.array([slope.rounding for slope in slopes])
    is_settled = np.array([slope.settled for slope in slopes], bool)
    scale = max(1.0, float(np.abs(numerical).max(initial=0.0)))
    tolerance = rtol * np.maximum(np.abs(found), np.abs(numerical)) + atol * scale + rounding * is_settled
    with np.errstate(invalid="ignore"):
        excess = np.abs(found - numerical) / tolerance
    excess[~np.isfinite(found)] = np.inf
    unclear = [f"finite differences do not settle for {name} {places[i]}: they came to {numerical[i]:.8g}, and "
               f"{found[i]:.8g} is recorded. Rounding hides the slope, or the function bends sharply; move the point"
               for i in np.flatnonzero((excess > 1) & ~is_settled)]
    is_wrong = (excess > 1) & is_settled
    if not is_wrong.any():
        return [], unclear
    worst = int(np.where(is_wrong, excess, 0).argmax())
    message = (f"the gradient for {name} is wrong {places[worst]}: recorded {found[worst]:.8g}, "
               f"finite differences give {numerical[worst]:.8g}; {int(is_wrong.sum())} of {len(places)} "
               f"checked entries differ.{_likely_mistake(recorded, found, numerical)}")
    return [(float(excess[worst]), message)], unclear


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


class Slope(NamedTuple):
    """dL/dt at t = 0, found by finite differences."""

    value: float
    rounding: float
    """How far off the rounding of the outputs may have carried it."""
    settled: bool = True
    """Whether it agrees with the recorded gradient, or the next shorter step confirmed it."""


def _slopes(
    f: Callable[[float], list[Array]], middle: list[Array], cotangents: list[Array], h: float, place: str
) -> Iterator[Slope]:
    """dL/dt over those of the steps h, h/10, ... that are finite and show f to be smooth.

    Outputs are subtracted before they are weighted: those that do not move add no rounding error.
    Raises NondifferentiableError where there is no such step.
    """
    jump, slope = math.inf, math.inf
    found, reason = False, f"the function is not finite next to {place}: is it the end of its domain?"
    for step in h / 10.0 ** np.arange(STEPS):
        ahead, behind = f(step), f(-step)
        right = sum(float((c * (a - m)).sum()) for c, a, m in zip(cotangents, ahead, middle)) / step
        left = sum(float((c * (m - b)).sum()) for c, m, b in zip(cotangents, middle, behind)) / step
        if not (math.isfinite(left) and math.isfinite(right)):
            continue
        before, jump, change, slope = jump, abs(right - left), abs((left + right) / 2 - slope), (left + right) / 2
        smooth = jump <= 1e-3 * max(abs(left), abs(right)) + 1e-6
        curved = jump < 0.2 * before and change < 0.01 * before  # the step shrank tenfold, and so did the jump
        if smooth or curved:
            found = True
            yield Slope(slope, _rounding(cotangents, ahead, middle, behind) / step)
        reason = (f"the function has a kink for {place}, or bends too sharply: slope {left:.6g} on one side, "
                  f"{right:.6g} on the other (ReLU at 0, or a tie in a maximum?)")
    if not found:
        raise NondifferentiableError(f"{reason}; move the point away from it")


def _rounding(cotangents: list[Array], ahead: list[Array], middle: list[Array], behind: list[Array]) -> float:
    """The rounding error of the weighted outputs that move, or of all where none does."""
    weighted = [c * m for c, m in zip(cotangents, middle)]
    moved = [wm * (a != b) for wm, a, b in zip(weighted, ahead, behind)]
    squares = sum(float((wm * wm).sum()) for wm in moved) or sum(float((wm * wm).sum()) for wm in weighted)
    return 4 * float(np.finfo(np.float64).eps) * math.sqrt(squares)


def _settled(slopes: Iterator[Slope], found: float, rtol: float, atol: float) -> Slope:
    """The first slope that agrees with `found`, or else the first that the next one confirms."""
    last = None
    for slope in slopes:
        difference, larger = abs(slope.value - found), max(abs(slope.value), abs(found))
        tolerance = rtol * larger + atol
        lost = slope.rounding > 1e-3 * larger + 1e-6
        if difference <= tolerance or difference <= tolerance + slope.rounding and not lost:
            return slope
        if lost:
            return slope._replace(settled=False)
        if last and not abs(slope.value - last.value) > 0.1 * difference:  # NaN is contradicted by every slope
            return last
        last = slope
    assert last is not None
    return last._replace(settled=False)


def _moved(fn: Callable[..., Any], arguments: list[Any], index: int, direction: np.ndarray, t: float) -> list[Array]:
    moved = list(arguments)
    x = arguments[index].data
    moved[index] = Tensor(x + _like(x, direction * t))
    with no_grad(), np.errstate(all="ignore"):  # the step may leave the domain
        return [y.data for y in _outputs(fn, moved)]


def _outputs(fn: Callable[..., Any], arguments: Sequence[Any]) -> list[Tensor]:
    result = fn(*arguments)
    outputs = list(result) if isinstance(result, (tuple, list)) else [result]
    if not outputs or not all(isinstance(y, Tensor) for y in outputs):
        raise ValueError(f"gradcheck: the function must return a tensor or a tuple of tensors; got {result!r}")
    return outputs


def _as_float64(x: Any, checked: bool) -> Any:
    """A tensor in float64 of what holds floats, which needs a gradient if it is `checked`; all else as it is."""
    if isinstance(x, Tensor) or is_array(x):
        array = x.data if isinstance(x, Tensor) else x
        return Tensor(array.astype(np.float64), requires_grad=checked) if array.dtype.kind == "f" else x
    return Tensor(np.array(x, np.float64), requires_grad=True) if isinstance(x, float) and checked else x


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
