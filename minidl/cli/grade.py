"""``minidl grade``: a teacher's summary over a folder of submissions."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

from tqdm import tqdm

from ..check.grading import Grade, Limits
from ..check.grading import grade as grades_of
from ..io import write_atomically

WIDTH = 100
"""Characters of a diagnosis in the table; the JSON has all of it."""


def grade(options: argparse.Namespace) -> int:
    """Exit status 0 once every submission has its grade, whatever it is."""
    limits = Limits(options.seconds, options.memory)
    with tqdm(desc="submissions", unit="", leave=False, disable=None) as progress:
        grades = grades_of(options.folder, limits, options.jobs, lambda _: progress.update())
    if options.json:
        _write(grades, options.json)
    for line in _table(grades):
        print(line)
    return 0


def _table(grades: list[Grade]) -> list[str]:
    """A heading per student, a line per exercise, and what holds for all."""
    width = max((len(verdict.exercise) for grade in grades for verdict in grade.verdicts), default=0)
    lines = []
    for grade in grades:
        lines.append(f"{grade.student}: {grade.passed} of {len(grade.verdicts)} passed")
        lines += [f"  note: {_short(note)}" for note in grade.notes]
        for verdict in grade.verdicts:
            said = verdict.status + (f": {verdict.diagnosis}" if verdict.status in ("wrong", "stopped") else "")
            lines.append(f"  {verdict.exercise:<{width}}  {_short(said)}")
    everything = [verdict for grade in grades for verdict in grade.verdicts]
    lines.append("")
    for name in dict.fromkeys(verdict.exercise for verdict in everything):
        passed = sum(verdict.exercise == name and verdict.status == "passed" for verdict in everything)
        lines.append(f"{name:<{width}}  passed by {passed} of {len(grades)}")
    if unlimited := dict.fromkeys(name for grade in grades for name in grade.unlimited):
        lines.append(f"note: this system does not limit {', '.join(unlimited)}; the submissions ran without that limit")
    return lines


def _short(text: str) -> str:
    return text if len(text) <= WIDTH else f"{text[: WIDTH - 1]}…"


def _write(grades: list[Grade], path: Path) -> None:
    rows = [{**dataclasses.asdict(grade), "passed": grade.passed} for grade in grades]
    write_atomically(path, lambda part: part.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8"))
