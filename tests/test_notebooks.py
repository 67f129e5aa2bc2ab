"""Each notebook of the lecture runs from top to bottom, and shows what it was committed with."""

import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("[0-9]*.ipynb"))
SECONDS = 120
"""That one may take on two cores."""


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request):
    return request.param


def cells(path, kind):
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == kind]


def text(cell):
    return "".join(cell["source"])


def test_there_is_one_a_unit():
    assert [path.stem[:2] for path in NOTEBOOKS] == [f"{unit:02d}" for unit in range(12)]


def test_it_was_committed_as_it_ran(path):
    """In order, from a fresh start, without errors or warnings, and small enough to open at once."""
    code = cells(path, "code")
    assert [cell["execution_count"] for cell in code] == [*range(1, len(code) + 1)]
    outputs = [output for cell in code for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert not ["".join(output["text"]) for output in outputs if output.get("name") == "stderr"]
    assert path.stat().st_size < 1.5e6


def test_it_asks_questions_and_names_no_place_of_its_author(path):
    """Who commits a notebook has run this test where it was written."""
    assert sum("?" in text(cell) for cell in cells(path, "markdown")) >= 3
    places = map(str, (Path.home(), FOLDER.parent, tempfile.gettempdir(), sys.prefix))
    assert not [place for place in places if f"{place}{os.sep}" in path.read_text(encoding="utf-8")]


def test_its_links_lead_somewhere(path):
    words = "\n".join(text(cell) for cell in cells(path, "markdown"))
    links, named = re.findall(r"\]\(([^)#]+)\)", words), re.findall(r"`((?:tests|minidl|models)/[\w/.]+)`", words)
    assert links and not [link for link in links if not (link.startswith("http") or (FOLDER / link).exists())]
    assert not [name for name in named if not (FOLDER.parent / name).exists()]


@pytest.mark.notebook
def test_it_runs_from_top_to_bottom(path):
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(path, as_version=4)
    start = time.perf_counter()
    nbclient.NotebookClient(notebook, timeout=SECONDS, resources={"metadata": {"path": FOLDER}}).execute()
    assert time.perf_counter() - start < SECONDS
    assert not [output["text"] for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs
                if output.get("name") == "stderr"]
