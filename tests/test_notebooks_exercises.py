"""The exercise notebooks: solved, every cell passes; as handed out, every check says that it is not done yet."""

import inspect
import json
import re
from pathlib import Path

import pytest
from answers import SOLUTIONS

from minidl import check

FOLDER = Path(__file__).parent.parent / "notebooks" / "exercises"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def code(path):
    return ["".join(cell["source"]) for cell in read(path)["cells"] if cell["cell_type"] == "code"]


def solved(source):
    """A cell with its blank filled in."""
    if "raise NotImplementedError" not in source:
        return source
    return SOLUTIONS[re.match(r"def (\w+)", source)[1]]


@every_notebook
def test_a_notebook_with_its_blanks_filled_in_passes(path):
    room = {}
    for source in code(path):
        exec(solved(source), room)
    assert sum("check.exercise(" in source for source in code(path)) == sum("def " in source for source in code(path))


@every_notebook
def test_a_notebook_as_handed_out_says_that_it_is_not_done_yet(path):
    room, checks = {}, 0
    for source in code(path):
        if not source.startswith("check.exercise("):
            exec(source, room)
            continue
        checks += 1
        with pytest.raises(check.ExerciseError, match="it is not done yet"):
            exec(source, room)
    assert checks >= 1


@every_notebook
def test_a_notebook_shows_signatures_with_shapes_and_questions(path):
    room = {}
    for source in code(path)[1:]:
        if source.startswith("def "):
            exec(source, room)
            name = re.match(r"def (\w+)", source)[1]
            assert inspect.signature(room[name]).parameters.keys() == _parameters(name)
            assert room[name].__doc__
    text = "".join("".join(cell["source"]) for cell in read(path)["cells"] if cell["cell_type"] == "markdown")
    assert "## Questions\n\n1. " in text and "\n2. " in text


def _parameters(name):
    room = {"np": __import__("numpy")}
    exec(SOLUTIONS[name], room)
    return inspect.signature(room[name]).parameters.keys()


@every_notebook
def test_a_notebook_is_valid_and_holds_no_outputs(path):
    notebook = read(path)
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in notebook["cells"]
               if cell["cell_type"] == "code")
    pytest.importorskip("nbformat").validate(notebook)


def test_there_is_a_notebook_a_unit_with_all_its_exercises():
    units = list(dict.fromkeys(entry.unit for entry in check.exercises()))
    assert [path.stem for path in NOTEBOOKS] == [re.sub(r"[ -]", "_", unit.lower()).replace("lenet_5", "lenet5")
                                                 for unit in units]
    for path, unit in zip(NOTEBOOKS, units):
        asked = re.findall(r'check\.exercise\("(\w+)"', "\n".join(code(path)))
        assert asked == [entry.name for entry in check.exercises() if entry.unit == unit]
