"""Which mistake explains a wrong answer: hypotheses, each a prediction of what one would get by it.

First come the mistakes that an exercise lists itself, then those that can happen in any. A hypothesis is believed when
it agrees with the answer in every case.
"""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from .definition import Case, Exercise, as_array


class Answer(NamedTuple):
    """One output in one case: what came, and what is right."""

    got: np.ndarray
    right: np.ndarray
    case: Case

    @property
    def is_right(self) -> bool:
        return same(self.got, self.right) and not (self.right.dtype.kind in "iu" and self.got.dtype.kind == "f")


def same(got: np.ndarray, expected: np.ndarray) -> bool:
    """Equal in shape and, but for rounding, in value; counts exactly."""
    if got.shape != expected.shape:
        return False
    if expected.dtype.kind in "iub":
        return bool((got == expected).all())
    largest = np.abs(expected[np.isfinite(expected)]).max(initial=1.0)
    return bool(np.allclose(got, expected, rtol=1e-6, atol=1e-9 * largest, equal_nan=True))


NOT_FINITE = "it is not finite: something overflows, or there is a division by 0 or a logarithm of 0"


def diagnose(exercise: Exercise, output: str, answers: Sequence[Answer]) -> str | None:
    """The mistake that explains the wrong ones among `answers`, in words, or None."""
    if words := _explanation(exercise, output, answers):
        return words
    finite = [answer for answer in answers if np.isfinite(answer.got).all()]
    if len(finite) < len(answers) and not all(answer.is_right for answer in finite):
        if words := _explanation(exercise, output, finite):
            return f"{words}; and besides, in some cases {NOT_FINITE}"
    return None


def _explanation(exercise: Exercise, output: str, answers: Sequence[Answer]) -> str | None:
    """The mistake, or the two, that all of `answers` agree with."""
    predictions: dict[str, list[Answer]] = {}
    for words, variant in exercise.mistakes[output].items():
        predicted = [answer._replace(right=value) for answer in answers
                     if (value := _predict(variant, answer.case)) is not None]
        if _explains(predicted, answers):
            return words
        predictions[words] = predicted
    if general := _general(answers):
        return general
    for words, predicted in predictions.items():
        if len(predicted) == len(answers):
            with np.errstate(all="ignore"):
                if second := _transformed(predicted) or _factor(predicted):
                    return f"{words}; and besides, {second}"
    return None


def _explains(predicted: Sequence[Answer], answers: Sequence[Answer]) -> bool:
    """Every prediction came true, among them that of the smallest case that is wrong."""
    smallest = next(answer.case.title for answer in answers if not answer.is_right)
    return (any(answer.case.title == smallest for answer in predicted)
            and all(same(answer.got, answer.right) for answer in predicted))


def _predict(variant: Callable[..., Any], case: Case) -> np.ndarray | None:
    """What one gets by this mistake; None where it gets nowhere."""
    arguments = {name: case.arguments[name] for name in inspect.signature(variant).parameters}
    try:
        with np.errstate(all="ignore"):
            return as_array(variant(**arguments))
    except (ValueError, IndexError, ZeroDivisionError):
        return None


# ---------------------------------------------------------------------------------------------
# Mistakes that can happen in any exercise
# ---------------------------------------------------------------------------------------------

TRANSFORMED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "the sign is flipped": lambda right: -right,
    "it is zero everywhere": lambda right: np.zeros_like(right),
    "it is one too many": lambda right: right + 1,
    "it is one too few": lambda right: right - 1,
    "the last two axes are transposed": lambda right: right.swapaxes(-1, -2),
    "the axes are transposed, in reverse order": lambda right: right.T,
    "the first two axes are exchanged": lambda right: right.swapaxes(0, 1),
}


def _general(answers: Sequence[Answer]) -> str | None:
    with np.errstate(all="ignore"):
        for hypothesis in (_an_input, _float_counts, _transformed, _single_precision, _truncated, _factor, _unsummed,
                           _oversummed, _reshaped, _not_finite):
            if words := hypothesis(answers):
                return words
    return None


def _an_input(answers: Sequence[Answer]) -> str | None:
    for name, value in answers[0].case.arguments.items():
        if isinstance(value, np.ndarray) and all(same(got, case.arguments[name]) for got, _, case in answers):
            return f"it is the input {name}, unchanged"
    return None


def _transformed(answers: Sequence[Answer]) -> str | None:
    for words, transform in TRANSFORMED.items():
        try:
            if all(same(answer.got, transform(answer.right)) for answer in answers):
                return words
        except ValueError:  # too few axes
            continue
    return None


def _float_counts(answers: Sequence[Answer]) -> str | None:
    if any(not answer.is_right and same(answer.got, answer.right) for answer in answers):
        return "its value is right, but a float: count in whole numbers, and divide them by //"
    return None


def _single_precision(answers: Sequence[Answer]) -> str | None:
    for answer in answers:
        got, right = answer.got, answer.right
        near = got.shape == right.shape and np.allclose(got, right, rtol=2e-3, atol=2e-3, equal_nan=True)
        if not (answer.is_right or near and got.dtype.itemsize < 8 and got.dtype.kind == "f"):
            return None
    dtype = next(answer.got.dtype for answer in answers if not answer.is_right)
    return f"it is computed in {dtype}, and loses digits: keep the float64 of the input"


def _truncated(answers: Sequence[Answer]) -> str | None:
    for answer in answers:
        if answer.right.dtype.kind != "f" or not (answer.is_right or any(
                same(answer.got, rounded(answer.right)) for rounded in (np.trunc, np.floor, np.round))):
            return None
    return "its fractions are cut off: an integer division //, or a result written into an array of whole numbers"


def _factor(answers: Sequence[Answer]) -> str | None:
    """got = factor · right, with one factor for all cases, or one that is a length, a count or a product of two."""
    factors = []
    for got, right, case in answers:
        norm = float((right.astype(float) ** 2).sum())
        if got.shape != right.shape or not (np.isfinite(got).all() and math.isfinite(norm)):
            return None
        if norm:
            factor = float((got * right.astype(float)).sum()) / norm
            if not same(got.astype(float), factor * right.astype(float)):
                return None
            factors.append((factor, case.sizes))
        elif got.any():
            return None
    if not factors or all(factor == 0 for factor, _ in factors):
        return None
    if np.allclose([factor for factor, _ in factors], factors[0][0], rtol=1e-5):
        return f"it is {factors[0][0]:.4g} times the right one: a factor too many or too few"
    common = sorted(set.intersection(*(set(sizes) for _, sizes in factors)))
    for count in (1, 2, 3):
        for product in itertools.combinations_with_replacement(common, count):
            name = "·".join(product)
            name = f"({name})" if count > 1 else name
            lengths = [math.prod(sizes[letter] for letter in product) for _, sizes in factors]
            if np.allclose([factor for factor, _ in factors], lengths, rtol=1e-5):
                return f"it is {name} times the right one: the division by {name} is missing"
            if all(lengths) and np.allclose([factor for factor, _ in factors], np.divide(1, lengths), rtol=1e-5):
                return f"it is 1/{name} of the right one: divided by {name} where it should not be"
    return None


def _unsummed(answers: Sequence[Answer]) -> str | None:
    """Sums of what came are right: the axes are named that are still there."""
    found = None
    for got, right, _ in answers:
        if got.ndim == 0 or got.size <= right.size or got.ndim > right.ndim + 4:
            if same(got.reshape(right.shape) if got.size == right.size else got, right):
                continue
            return None
        for count in range(1, got.ndim + 1):
            chosen = next((axes for axes in itertools.combinations(range(got.ndim), count)
                           if same(got.sum(axis=axes), right)
                           or same(got.sum(axis=axes, keepdims=True), right)), None)
            if chosen is not None:
                break
        else:
            return None
        found = found or chosen
    if found is None:
        return None
    return f"it is not summed over axis {' and '.join(map(str, found))}, and so has more entries than the right one"


def _oversummed(answers: Sequence[Answer]) -> str | None:
    if all(answer.got.size == 1 and same(answer.got.reshape(()), answer.right.sum()) for answer in answers):
        return "it is summed over everything, one number where there should be an array"
    return None


def _reshaped(answers: Sequence[Answer]) -> str | None:
    if all(answer.got.size == answer.right.size and same(answer.got.reshape(answer.right.shape), answer.right)
           for answer in answers):
        return "its values are right, but its shape is not"
    return None


def _not_finite(answers: Sequence[Answer]) -> str | None:
    if all(answer.is_right or np.isfinite(answer.right).all() and not np.isfinite(answer.got).all()
           for answer in answers):
        return NOT_FINITE
    return None


# ---------------------------------------------------------------------------------------------
# Where no hypothesis fits: what the wrong cases have in common
# ---------------------------------------------------------------------------------------------

def common_ground(exercise: Exercise, wrong: Sequence[bool]) -> str:
    """What tells the wrong cases from the right ones, as `stride > 1`; empty if nothing does."""
    traits = [_traits(exercise, case) for case in exercise.solved]
    names = [name for name in traits[0] if all(name in of for of in traits)]
    if exact := [name for name in names if [of[name] for of in traits] == list(wrong)]:
        return f"It is wrong exactly where {' and '.join(exact)}."
    necessary = [name for name in names if all(of[name] for of, bad in zip(traits, wrong) if bad)]
    rarest = min(necessary, key=lambda name: sum(of[name] for of in traits), default=None)
    if rarest is None or all(of[rarest] for of in traits):
        return ""
    return f"It is wrong only where {rarest}, though not always there."


def _traits(exercise: Exercise, case: Case) -> dict[str, bool]:
    traits: dict[str, bool] = {}
    for name, size in case.sizes.items():
        smallest = min(other.sizes.get(name, size) for other in exercise.solved)
        traits[f"{name} > {smallest}"] = size > smallest
    for a, b in (("H", "W"), ("KH", "KW"), ("height", "width")):
        if a in case.sizes and b in case.sizes:
            traits[f"{a} and {b} differ"] = case.sizes[a] != case.sizes[b]
    for name, value in case.arguments.items():
        if isinstance(value, np.ndarray):
            traits[f"{name} is not contiguous in memory"] = not value.flags["C_CONTIGUOUS"]
            traits[f"{name} holds large numbers"] = bool(np.abs(value).max(initial=0) > 100)
            traits[f"{name} holds whole numbers (dtype {np.dtype(int)})"] = value.dtype.kind == "i"
    return traits
