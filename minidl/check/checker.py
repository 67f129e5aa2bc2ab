"""check.exercise: a student's function against the reference, and an error that says what kind of mistake it is."""

from __future__ import annotations

import itertools
import re
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from .calling import NOT_DONE, Outcome, call
from .catalog import EXERCISES, UNITS
from .definition import Case, Exercise, Gradient
from .mistakes import Answer, common_ground, diagnose

SHOWN = 36
"""Entries of the largest array that a message prints."""


class ExerciseError(AssertionError):
    """An answer that is not right yet. The message explains it; `diagnosis` is its first sentence, for a table."""

    def __init__(self, exercise: str, diagnosis: str, details: str):
        super().__init__(f"{exercise}: {diagnosis}\n{details}".rstrip())
        self.exercise, self.diagnosis = exercise, diagnosis


class Listed(NamedTuple):
    """An exercise in the list."""

    name: str
    unit: str
    signature: str


def exercises() -> tuple[Listed, ...]:
    """Every exercise, in the order of the lecture: its name, its unit and its signature with shapes."""
    return tuple(Listed(exercise.name, unit, exercise.signature)
                 for unit, entries in UNITS.items() for exercise in entries)


def exercise(name: str, function: Callable[..., Any]) -> str:
    """Check a student's answer to the exercise `name`; returns a line that confirms it.

    `function` is called with the arguments of the exercise's signature, numbers and NumPy arrays in float64 (in some
    cases of whole numbers), in cases that grow from a single value to batches. It returns arrays or numbers (minidl
    tensors will do), a tuple of them if the signature says so, and leaves its inputs as they are. `exercises()` lists
    the signatures.

    Raises `ExerciseError` with the kind of mistake, the smallest case that shows it, and what was expected and came
    instead; ValueError for a name that there is no exercise for, TypeError for something that cannot be called.
    """
    chosen = find(name)
    if not callable(function):
        raise TypeError(f"check.exercise: the answer to {name!r} must be a function; got {type(function).__name__}")
    return judge(chosen, local(chosen, function))


def find(name: str) -> Exercise:
    """The exercise of this name. Raises ValueError for one that there is not."""
    if name not in EXERCISES:
        raise ValueError(f"there is no exercise {name!r}; there are {', '.join(EXERCISES)}")
    return EXERCISES[name]


def local(chosen: Exercise, function: Callable[..., Any]) -> Callable[[int], Outcome]:
    """What `function` gives in the case of a number, called in this process."""
    arguments, names = chosen.fresh_arguments(), [parameter.name for parameter in chosen.parameters]
    return lambda position: call(function, arguments[position], names, len(chosen.outputs))


def judge(chosen: Exercise, answer: Callable[[int], Outcome]) -> str:
    """The verdict on a function that gives ``answer(number of the case)``: a confirming line, or ExerciseError."""
    cases, outcomes = chosen.solved, []
    for position, case in enumerate(cases):
        outcomes.append(answer(position))
        if outcomes[-1].complaint and not _has_wrong_values(cases, outcomes):
            raise _complaint(chosen, case, outcomes[-1])
    for position in range(len(cases)):
        for output in range(len(chosen.outputs)):
            values, case = outcomes[position].values, cases[position]
            if values is not None and not Answer(values[output], case.right[output], case).is_right:
                raise _wrong(chosen, output, position, outcomes)
    return f"{chosen.name}: right in all {len(cases)} cases."


def _has_wrong_values(cases: Sequence[Case], outcomes: Sequence[Outcome]) -> bool:
    return any(not Answer(got, right, case).is_right for case, outcome in zip(cases, outcomes)
               for got, right in zip(outcome.values or (), case.right))


def _complaint(chosen: Exercise, case: Case, outcome: Outcome) -> ExerciseError:
    if outcome.complaint == NOT_DONE:
        return ExerciseError(chosen.name, NOT_DONE, f"Write {chosen.signature}")
    details = [f"Signature: {chosen.signature}", _describe_case(chosen, case), *_whole_numbers(chosen, case)]
    return ExerciseError(chosen.name, outcome.complaint, "\n".join(details))


def _whole_numbers(chosen: Exercise, case: Case) -> list[str]:
    """A hint for each argument that holds whole numbers in this case and floats in others."""
    return [f"{name} holds whole numbers here (dtype {value.dtype}), which some functions refuse: begin with "
            f"{name} = np.asarray({name}, float)"
            for name, value in case.arguments.items() if isinstance(value, np.ndarray) and value.dtype.kind == "i"
            and any(np.asarray(other.arguments[name]).dtype.kind == "f" for other in chosen.solved)]


def _wrong(chosen: Exercise, output: int, position: int, outcomes: Sequence[Outcome]) -> ExerciseError:
    name, case = chosen.outputs[output].name, chosen.solved[position]
    returned = [(of, outcome.values) for of, outcome in zip(chosen.solved, outcomes) if outcome.values is not None]
    answers = [Answer(values[output], of.right[output], of) for of, values in returned]
    right = {answer.case.title for answer in answers if answer.is_right}
    wrong = [of.title not in right for of in chosen.solved]
    answer = next(answer for answer in answers if answer.case is case)
    diagnosis = _order(chosen, returned) or diagnose(chosen, name, answers)
    lines = []
    if diagnosis is None:
        shapes = f" in shape, {answer.got.shape} instead of {answer.right.shape},"
        diagnosis = (f"it differs from the reference{shapes if answer.got.shape != answer.right.shape else ''} "
                     "by no mistake known here")
        lines.append(common_ground(chosen, wrong))
    if len(chosen.outputs) > 1:
        diagnosis = f"{name}: {diagnosis}"
        lines.append(_verdicts(chosen, returned))
    lines += [f"Wrong in {sum(wrong)} of {len(wrong)} cases. {_describe_case(chosen, case)}",
              _describe_difference(chosen, output, answer), _describe_failures(outcomes)]
    return ExerciseError(chosen.name, diagnosis, "\n".join(filter(None, lines)))


def _order(chosen: Exercise, returned: Sequence[tuple[Case, tuple[np.ndarray, ...]]]) -> str | None:
    """Right outputs in a wrong order."""
    for order in itertools.permutations(range(len(chosen.outputs))):
        if all(Answer(values[i], case.right[j], case).is_right
               for case, values in returned for i, j in enumerate(order)):
            names = ", ".join(chosen.outputs[j].name for j in order)
            return f"the order is wrong: it returns ({names}), and should return {chosen.returns}"
    return None


def _verdicts(chosen: Exercise, returned: Sequence[tuple[Case, tuple[np.ndarray, ...]]]) -> str:
    right = [output.name for i, output in enumerate(chosen.outputs)
             if all(Answer(values[i], case.right[i], case).is_right for case, values in returned)]
    wrong = [output.name for output in chosen.outputs if output.name not in right]
    return f"Right: {', '.join(right) or 'none'}. Wrong: {', '.join(wrong)}."


# ---------------------------------------------------------------------------------------------
# What a message shows
# ---------------------------------------------------------------------------------------------

def _describe_case(chosen: Exercise, case: Case) -> str:
    lines = [f"The smallest one: {case.title}"]
    width = max(map(len, case.arguments))
    for name, value in case.arguments.items():
        lines.append(f"    {name:<{width}} = {_described(value, width + 7)}")
    return "\n".join(lines)


def _describe_difference(chosen: Exercise, output: int, answer: Answer) -> str:
    name = chosen.outputs[output].name
    got, right = answer.got, answer.right
    width = len(f"expected {name}")
    lines = [f"{f'expected {name}':<{width}} = {_described(right, width + 3)}",
             f"{f'got {name}':<{width}} = {_described(got, width + 3)}"]
    if got.shape == right.shape and right.ndim:
        with np.errstate(all="ignore"):
            gap = np.where(np.isfinite(got), np.abs(got - right.astype(float)), np.inf)
        index = tuple(int(i) for i in np.unravel_index(int(gap.argmax()), gap.shape))
        entry = f"{name}[{', '.join(map(str, index))}]"
        lines.append(f"The largest difference: {entry} should be {right[index]:.6g} and is {got[index]:.6g}.")
        if isinstance(chosen.reference, Gradient):
            slope = chosen.reference.slope(tuple(answer.case.arguments.values()), output, index)
            if abs(slope - right[index]) <= 1e-4 * max(1.0, abs(slope)):  # not at a kink
                lines.append(f"Finite differences of the loss give {slope:.6g} there.")
        lines += _describe_region(name, got, right)
    return "\n".join(lines)


def _describe_failures(outcomes: Sequence[Outcome]) -> str:
    """The first complaint, where an answer does not come in every case."""
    complaints = [outcome.complaint for outcome in outcomes if outcome.complaint]
    return f"In {len(complaints)} of these cases {complaints[0]}." if complaints else ""


def _describe_region(name: str, got: np.ndarray, right: np.ndarray) -> list[str]:
    """The block that holds all wrong entries, where it is not the whole array."""
    wrong = ~np.isclose(got, right, rtol=1e-6, atol=1e-9)
    if not wrong.any():
        return []
    block = [(int(places.min()), int(places.max()) + 1) for places in np.nonzero(wrong)]
    if all(last - first == size for (first, last), size in zip(block, right.shape)):
        return []
    slices = [f"{first}:{last}" if last - first < size else ":" for (first, last), size in zip(block, right.shape)]
    zero = ", and is 0: is it ever written?" if not got[wrong].any() else "."
    return [f"All that is wrong lies in {name}[{', '.join(slices)}]{zero}"]


def _described(value: Any, indent: int) -> str:
    if not isinstance(value, np.ndarray) or value.ndim == 0:
        return str(value)
    if value.size > SHOWN or not value.size:
        return f"an array of shape {value.shape}"
    text = re.sub(r"\n+", "\n", np.array2string(value, precision=4, suppress_small=True, max_line_width=100))
    return textwrap.indent(text, " " * indent).lstrip() + (f"   shape {value.shape}" if value.ndim > 1 else "")
