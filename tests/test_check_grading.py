"""minidl grade: every submission gets its grade, and none, however hostile, spoils those of others."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from answers import SOLUTIONS

import minidl
from minidl.check import files, grading
from minidl.check.calling import Outcome
from minidl.check.cells import python_of
from minidl.check.grading import Limits, grade, plain
from minidl.check.submission import decode, encode, limit
from minidl.cli import main

NUMPY = "import numpy as np\n"
SOFTMAX = NUMPY + SOLUTIONS["softmax"]
WRONG = NUMPY + "def softmax(z):\n    return np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)\n"
QUICK = Limits(seconds=4.0, memory=512)


def notebook(*sources, **others):
    cells = [{"cell_type": "code", "source": source, "metadata": {}, "outputs": []} for source in sources]
    return json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5, **others})


def submit(folder, **submissions):
    """A file for each name, `name` or `name_ipynb`."""
    for name, text in submissions.items():
        path = folder / (name.removesuffix("_ipynb") + (".ipynb" if name.endswith("_ipynb") else ".py"))
        path.write_text(text, encoding="utf-8")
    return folder


def graded(folder, limits=QUICK, **submissions):
    return {grade.student: grade for grade in grade(submit(folder, **submissions), limits)}


def verdicts(grade):
    return {verdict.exercise: verdict for verdict in grade.verdicts}


def softmax_of(grade):
    return verdicts(grade)["softmax"]


# Honest submissions

def test_each_exercise_of_each_student_is_judged(tmp_path):
    both = SOFTMAX + SOLUTIONS["receptive_field"]
    grades = graded(tmp_path, anna=both, berta=WRONG, carl="import numpy")
    assert [verdict.status for verdict in grades["anna"].verdicts] == ["passed", "passed"]
    assert softmax_of(grades["berta"]).diagnosis.startswith("it overflows for large logits")
    assert "The smallest one: logits of ±1000" in softmax_of(grades["berta"]).message
    assert verdicts(grades["berta"])["receptive_field"].status == "missing"
    assert [verdict.status for verdict in grades["carl"].verdicts] == ["missing", "missing"]
    assert list(verdicts(grades["anna"])) == ["softmax", "receptive_field"]  # the order of the lecture
    assert [grades[name].passed for name in ("anna", "berta", "carl")] == [2, 0, 0]


@pytest.mark.slow
def test_all_right_answers_pass(tmp_path):
    (grade,) = graded(tmp_path, anna=NUMPY + "\n".join(SOLUTIONS.values())).values()
    assert grade.passed == len(SOLUTIONS) == len(grade.verdicts)


def test_a_notebook_runs_cell_by_cell_without_ipython(tmp_path):
    cells = ["%matplotlib inline\nimport numpy as np", "%%bash\nboom", "1 / 0", "!ls\n" + SOLUTIONS["softmax"],
             "from minidl import check\ncheck.exercise('softmax', lambda z: z)", "softmax?"]
    grade = graded(tmp_path, anna_ipynb=notebook(*cells))["anna"]
    assert softmax_of(grade).status == "passed"
    assert [note.partition(":")[0] for note in grade.notes] == [
        "anna.ipynb, cell 1", "anna.ipynb, cell 2", "anna.ipynb, cell 3 raises ZeroDivisionError", "anna.ipynb, cell 4",
        "anna.ipynb, cell 6",
    ]
    assert "skipped '%matplotlib inline'" in grade.notes[0] and "(line 1: 1 / 0)" in grade.notes[2]


def test_a_folder_is_one_submission_whose_files_see_each_other(tmp_path):
    folder = tmp_path / "dora"
    (folder / ".ipynb_checkpoints").mkdir(parents=True)
    submit(folder, shared="def largest(z):\n    return z.max(axis=1, keepdims=True)\n",
           a_homework=NUMPY + "from shared import largest\ndef softmax(z):\n    e = np.exp(z - largest(z))\n"
                              "    return e / e.sum(axis=1, keepdims=True)\n",
           part2_ipynb=notebook(SOLUTIONS["receptive_field"]))
    submit(folder / ".ipynb_checkpoints", old=WRONG)
    (tmp_path / "notes.txt").write_text("not a submission")
    (only,) = grade(tmp_path, QUICK)
    assert only.student == "dora" and only.passed == 2 and only.notes == ()


def test_of_two_definitions_the_last_counts_and_it_is_said(tmp_path):
    (tmp_path / "emil").mkdir()
    submit(tmp_path / "emil", a=WRONG, b=SOFTMAX)
    (only,) = grade(tmp_path, QUICK)
    assert only.passed == 1 and only.notes == ("softmax is defined again in b.py, which counts",)


def test_minidls_own_function_is_no_answer(tmp_path):
    grades = graded(tmp_path, anna="from minidl.functional import conv2d", berta=SOFTMAX)
    assert grades["anna"].passed == 0 and "minidl's own function, which does not count" in grades["anna"].notes[0]


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", '{"cells": 3}', '{"cells": [3]}', '{"worksheets": []}'])
def test_a_notebook_that_is_none_is_noted(tmp_path, text):
    grade = graded(tmp_path, anna_ipynb=text)["anna"]
    assert "anna.ipynb cannot be read" in grade.notes[0] and not grade.verdicts


def test_a_file_that_is_no_python_is_noted(tmp_path):
    (tmp_path / "latin.py").write_bytes(b"x = '\xff\xfe'")
    grades = graded(tmp_path, anna="def softmax(z)\n    return z")
    assert "raises SyntaxError" in grades["anna"].notes[0] and "cannot be read" in grades["latin"].notes[0]


def test_of_what_could_not_be_loaded_nothing_is_called_missing(tmp_path):
    grades = graded(tmp_path, anna="def softmax(z)\n    return z", berta=SOFTMAX, carl="def soft_max(z): return z")
    assert softmax_of(grades["anna"]).status == "not loaded"
    assert "raises SyntaxError" in softmax_of(grades["anna"]).diagnosis
    assert softmax_of(grades["carl"]).status == "missing"


def test_submissions_of_one_name_are_told_apart(tmp_path):
    grades = graded(tmp_path, anna=SOFTMAX, anna_ipynb=notebook(WRONG), berta=SOFTMAX)
    assert {name: grade.passed for name, grade in grades.items()} == {"anna.ipynb": 0, "anna.py": 1, "berta": 1}


def test_a_file_is_no_folder_of_submissions(tmp_path):
    path = submit(tmp_path, anna=SOFTMAX) / "anna.py"
    with pytest.raises(ValueError, match="takes a folder.*anna.py is not a folder"):
        grade(path)


LOOKS_UP_ITS_MODULE = """
from __future__ import annotations
import dataclasses, inspect, pickle, typing
@dataclasses.dataclass
class Settings:
    rate: float
    parent: Settings | None = None
class Pair(typing.NamedTuple):
    a: Settings
assert pickle.loads(pickle.dumps(Settings(0.1))) == Settings(0.1)
assert typing.get_type_hints(Pair)["a"] is Settings
assert "rate: float" in inspect.getsource(Settings)
"""

SCRIPT = """
import argparse, inspect
argparse.ArgumentParser().parse_args()
def f(x: int): ...
assert inspect.signature(f).parameters['x'].annotation is int
if __name__ == '__main__':
    raise ValueError
"""

IPYTHON = """%%capture
%%time
%load_ext autoreload
files = !ls *.py
for file in files:
    !cat {file}
    %time size = len(file)
%time three = 3
assert three == 3
timed = %timeit -o sum([1, 2])
import numpy as np
np.exp?
?np.exp
!pip install numpy \\
    scipy
pip install scipy
get_ipython().run_line_magic("matplotlib", "inline")
if "google.colab" in str(get_ipython()):
    raise SystemExit
display(three)
text = '''
%magic
Is it right?
'''
assert text.split() == ["%magic", "Is", "it", "right?"]
seven = (10
    % 3)
"""

EXPORTED = "get_ipython().system('ls')\nget_ipython().run_cell_magic('time', '', " + repr(SOFTMAX) + ")\n"

THREADS = "from concurrent.futures import ThreadPoolExecutor\nassert ThreadPoolExecutor(2).submit(int).result() == 0\n"

HONEST = {  # by file: its bytes; what is above the function raises nothing
    "bom.py": b"\xef\xbb\xbf" + SOFTMAX.encode(),
    "latin1.py": "# -*- coding: latin-1 -*-\nassert len('Übung') == 5\n".encode("latin-1") + SOFTMAX.encode(),
    "upper.PY": SOFTMAX.encode(),
    "script.py": (SCRIPT + SOFTMAX).replace("\n", "\r\n").encode(),
    "looks_up_its_module.py": (LOOKS_UP_ITS_MODULE + SOFTMAX).encode(),
    "exported.py": EXPORTED.encode(),
    "notebook_bom.ipynb": b"\xef\xbb\xbf" + notebook(None, [], SOFTMAX.splitlines(keepends=True)).encode(),
    "notebook_utf16.ipynb": notebook(
        "from __future__ import annotations", "def f(x: Later): ...\n" + SOFTMAX).encode("utf-16"),
    "random.py": (
        "import resource\nassert resource.getrlimit(resource.RLIMIT_AS)[0] == 512 << 20\n" + SOFTMAX).encode(),
    "numpy.py": SOFTMAX.encode(),
    "minidl.py": SOFTMAX.encode(),
    "sitecustomize.py": SOFTMAX.encode(),
}


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("honest")
    for name, source in HONEST.items():
        (folder / name).write_bytes(source)
    return {grade.student: grade for grade in grade(folder, QUICK)}


@pytest.mark.parametrize("name", HONEST)
def test_a_right_submission_passes_whatever_its_form_and_name(honest, name):
    grade = honest[name.partition(".")[0]]
    assert softmax_of(grade).status == "passed" and grade.notes == ()


def test_what_only_ipython_runs_is_skipped_and_the_rest_runs(tmp_path):
    grade = graded(tmp_path, anna_ipynb=notebook(IPYTHON + SOLUTIONS["softmax"]))["anna"]
    assert softmax_of(grade).status == "passed"
    assert grade.notes == ("anna.ipynb, cell 1: skipped '%load_ext autoreload' and 7 more, which only IPython runs",)


@pytest.mark.parametrize(
    "source, python",
    [
        ("x = !ls -l", "x = []"), ("a.b, c[0] = !ls", "a.b, c[0] = []"), ("if 1:\n  !!ls", "if 1:\n  pass"),
        ("x = %timeit -o f()", "x = None"), ("%time x = f()", "x = f()"), ("y = %time f()", "y = f()"),
        ("np.exp?", "pass"), ("np.exp??  # help", "pass"), ("?np.exp", "pass"), ("%pip install x", "pass"),
        ("!a \\\n b \\\n c\nx = 1", "pass\n\n\nx = 1"), ("!echo don't", "pass"), ("\n%%time\nx = 1", "\n\nx = 1"),
        ("%%timeit n = 3\nx = 1", "\nx = 1"), ("%%bash\nls", ""), ("%%\nx", ""), ("y = (x\n % 3)", "y = (x\n % 3)"),
        ("x = 7 %% 3", "x = 7 %% 3"), ("f(", "f("), ("x = 1\0", "x = 1\0"),
        ("'''\n%x\n!y\nz?\n'''", "'''\n%x\n!y\nz?\n'''"),
    ],
    ids=repr,
)
def test_ipythons_syntax_becomes_python_with_the_same_line_numbers(source, python):
    assert python_of(source)[0] == python


def test_a_statement_that_fails_ends_nothing_but_itself(tmp_path):
    source = "import no_such_module\nn = int(input())\n" + SOFTMAX + "print(n)\n" * 5
    grade = graded(tmp_path, anna=source)["anna"]
    assert softmax_of(grade).status == "passed"
    assert [note.partition(" raises ")[2].partition(":")[0] for note in grade.notes[:3]] == [
        "ModuleNotFoundError", "EOFError", "NameError"]
    assert grade.notes[3:] == ("anna.py: 4 more statements fail",)


def test_the_files_of_a_folder_import_each_other_and_read_what_is_beside_them(tmp_path):
    for name, source in {
        "answers.py": "from helpers import two\nfrom . import models\nfrom parts.deep import three\n"
                      "import models, random, test.tools\nassert random.four + 4 == test.tools.eight\n" + SOFTMAX,
        "helpers.py": "from models import two\n", "models.py": "two = 2\n", "parts/deep.py": "three = 3\n",
        "random.py": "four = 4\n", "test/__init__.py": "", "test/tools.py": "eight = 8\n",
        "week1/b.py": "from utils import five\n", "week1/utils.py": "five = 5\n",
        "week1/a/c.py": "from utils import six\n", "week1/a/utils.py": "six = 6\n",
        "week2/b.py": "from utils import seven\nassert open('data.txt').read() == '7'\n",
        "week2/utils.py": "seven = 7\n", "week2/data.txt": "7",
    }.items():
        path = tmp_path / "dora" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    (only,) = grade(tmp_path, QUICK)
    assert only.passed == 1 and only.notes == ()


def test_no_file_of_a_submission_replaces_a_module_of_python(tmp_path):
    folder = tmp_path / "emma"
    (folder / "tools").mkdir(parents=True)
    submit(folder / "tools", __init__=THREADS + "import csv, random\nrandom.Random(0)\n")
    submit(folder, **dict.fromkeys(sys.stdlib_module_names, "raise ValueError('not this')"),
           answers="import tools\nimport minidl\n" + SOFTMAX.replace("return", "np.random.default_rng(0)\n    return"))
    (only,) = grade(tmp_path, QUICK)
    assert only.passed == 1 and not any("answers.py" in note for note in only.notes)


def test_no_submission_is_a_module_for_another(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)  # as `python -m minidl grade .` has it
    source = ("import importlib.util, wave\nassert wave.Wave_read\nassert importlib.util.find_spec('carl') is None\n"
              + SOFTMAX)
    grades = graded(tmp_path, anna=source, wave=SOFTMAX, carl=SOFTMAX)
    assert [(grade.passed, grade.notes) for grade in grades.values()] == [(1, ())] * 3


def test_a_folder_of_submissions_from_which_this_process_imports_is_refused(tmp_path, monkeypatch):
    submit(tmp_path, code=SOFTMAX)
    module = ModuleType("code")
    module.__file__ = str(tmp_path / "code.py")
    monkeypatch.setitem(sys.modules, "code", module)
    with pytest.raises(ValueError, match="code.py in .* was imported as a module.*from another folder"):
        grade(tmp_path)


def test_an_encoding_that_python_does_not_run_is_noted(tmp_path):
    (tmp_path / "anna.py").write_bytes(SOFTMAX.encode("utf-16"))
    (tmp_path / "berta.py").write_text("# coding: no-such-code\n" + SOFTMAX)
    (tmp_path / "carl.ipynb").write_text("[" * 100_000)
    notes = [grade.notes[0] for grade in grade(tmp_path, QUICK)]
    assert "UTF-16" in notes[0] and all("save it as UTF-8" in note for note in notes[:2]) and "nested" in notes[2]


# Hostile submissions

HOSTILE = {
    "ends by sys.exit when loaded": (SOFTMAX + "import sys; sys.exit(3)", "passed", "", "calls sys.exit"),
    "ends its process when loaded": (SOFTMAX + "import os; os._exit(3)", "not loaded", "", "with exit status 3"),
    "loops when loaded": ("while True: pass", "not loaded", "", "it takes longer than 4 s"),
    "fails when loaded": (SOFTMAX + "1 / 0", "passed", "", "raises ZeroDivisionError"),
    "prints without end when loaded": ("while True: print('x' * 10**6)", "not loaded", "", "prints more than 10 MiB"),
    "kills itself": (
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "not loaded", "", "crashed: Killed"),
    "loops": ("def softmax(z):\n    while True: pass", "stopped", "it takes longer than 4 s", ""),
    "prints 100 MB": (
        "def softmax(z):\n    print('x' * 10**8)\n    return z", "stopped", "prints more than 10 MiB", ""),
    "eats memory": (NUMPY + "def softmax(z):\n    kept = []\n    while True: kept.append(np.ones(10**7))", "wrong",
                    "it raises MemoryError", ""),
    "asks for much memory": (NUMPY + "def softmax(z): return np.ones(10**11)", "wrong", "it raises MemoryError", ""),
    "returns very much": (NUMPY + "def softmax(z): return np.ones(10**6)", "stopped", "returns more than 1 MiB", ""),
    "calls sys.exit": ("import sys\ndef softmax(z): sys.exit(0)", "wrong", "it calls sys.exit", ""),
    "calls os._exit": ("import os\ndef softmax(z): os._exit(0)", "stopped", "ended itself, with exit status 0", ""),
    "recurses": ("def softmax(z): return softmax(z)", "wrong", "it raises RecursionError", ""),
    "reads standard input": ("def softmax(z): return input()", "wrong", "it raises EOFError", ""),
    "is interrupted": ("def softmax(z): raise KeyboardInterrupt", "stopped", "its process crashed: Interrupt", ""),
    "speaks to the terminal": ("def softmax(z): raise ValueError('\\x1b[2J\\nconv2d passed\\ud800')", "wrong",
                               "it raises ValueError: [2J conv2d passed", ""),
    "leaves threads running": (
        SOFTMAX + "import threading, time\nthreading.Thread(target=lambda: time.sleep(1000)).start()",
        "passed", "", ""),
    "leaves processes running": (
        SOFTMAX + "import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', 'import time; time.sleep(1000)'])",
        "passed", "", ""),
    "changes the checker": (
        "import minidl.check.checker as c, minidl.check.mistakes as m, minidl.check.calling as k\n"
        "c.judge = c.exercise = lambda *_: 'passed'\nm.same = lambda *_: True\nm.Answer.is_right = True\n"
        "def softmax(z): return z", "wrong", "it is the input z, unchanged", ""),
    "prints a verdict": (
        "def softmax(z):\n    print('{\"status\": \"passed\"}')\n    print('softmax: right in all 9 cases.')\n"
        "    return z",
        "wrong", "it is the input z, unchanged", ""),
    "sends a verdict": (
        "import os\ndef softmax(z):\n    for fd in range(3, 20):\n"
        "        try: os.write(fd, b'{\"status\": \"passed\"}\\n')\n"
        "        except OSError: pass\n    return z", "stopped", "something that is no answer", ""),
    "sends nonsense": (
        "import os\nfor fd in range(3, 20):\n    try: os.write(fd, b'[' * 10**5 + b'\\n')\n    except OSError: pass",
        "not loaded", "", "something that is no answer"),
    "closes every file": ("import os\ndef softmax(z):\n    os.closerange(0, 100)\n    return z", "stopped", "", ""),
    "removes its folder": (SOFTMAX + "import shutil, os\nshutil.rmtree(os.getcwd())", "passed", "", ""),
    "looks for secrets": ("import os\ndef softmax(z): raise ValueError(os.environ.get('PASSWORD'))", "wrong",
                          "it raises ValueError: None", ""),
}


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """The grades of all of them together, and of an honest one before and after."""
    folder = tmp_path_factory.mktemp("hostile")
    os.environ["PASSWORD"] = "secret"
    try:
        sources = {name: source for name, (source, *_) in HOSTILE.items()}
        return graded(folder, QUICK, **sources, **{"0 honest": SOFTMAX, "~ honest": WRONG})
    finally:
        del os.environ["PASSWORD"]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_submission_is_reported(hostile, name):
    _, status, diagnosis, note = HOSTILE[name]
    verdict = softmax_of(hostile[name])
    assert verdict.status == status and diagnosis in verdict.diagnosis
    assert any(note in said for said in hostile[name].notes) if note else not hostile[name].notes
    assert all(text.isprintable() for text in (verdict.diagnosis, *hostile[name].notes))


def test_hostile_submissions_harm_no_other(hostile):
    names = list(hostile)
    assert (names[0], names[-1]) == ("0 honest", "~ honest") and names == sorted(names)
    assert softmax_of(hostile["0 honest"]).status == "passed"
    assert softmax_of(hostile["~ honest"]).diagnosis.startswith("it overflows")


def test_after_an_exercise_that_was_stopped_the_others_are_judged(tmp_path):
    source = SOFTMAX + SOLUTIONS["receptive_field"] + "import os\ndef cross_entropy(z, y): os._exit(1)\n"
    (only,) = graded(tmp_path, anna=source).values()
    assert [(v.exercise, v.status) for v in only.verdicts] == [
        ("softmax", "passed"), ("cross_entropy", "stopped"), ("receptive_field", "passed")]


def test_no_process_that_a_submission_started_outlives_it(tmp_path):
    pid = tmp_path / "pid"
    source = (f"import os, subprocess, sys\nchild = subprocess.Popen([sys.executable, '-c', 'while True: pass'])\n"
              f"open({str(pid)!r}, 'w').write(str(child.pid))\nwhile True: pass\n")
    (tmp_path / "submissions").mkdir()
    graded(tmp_path / "submissions", Limits(seconds=1.0), anna=source)
    assert not _is_running(int(pid.read_text()))


def test_a_submission_does_not_outlive_a_grader_that_is_killed(tmp_path):
    pid = tmp_path / "pid"
    (tmp_path / "submissions").mkdir()
    submit(tmp_path / "submissions",
           anna=f"import os\nopen({str(pid)!r}, 'w').write(str(os.getpid()) + '.')\nwhile True: pass")
    grader = subprocess.Popen(
        [sys.executable, "-m", "minidl", "grade", str(tmp_path / "submissions"), "--seconds", "60"],
        env=os.environ | {"PYTHONPATH": str(Path(minidl.__file__).parent.parent), "TMPDIR": str(tmp_path)})
    while not (pid.exists() and pid.read_text().endswith(".")):
        assert grader.poll() is None
        time.sleep(0.05)
    grader.kill()
    grader.wait()
    assert not _is_running(int(pid.read_text()[:-1]))


def _is_running(pid):
    """Whether it computes; one that was killed may wait for its parent to look."""
    for _ in range(250):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return False
        if state == "Z":
            return False
        time.sleep(0.02)
    return True


def test_the_submissions_themselves_stay_as_they_are(tmp_path):
    source = SOFTMAX + "open(__file__, 'w').write('changed')"
    graded(tmp_path, anna=source)
    assert (tmp_path / "anna.py").read_text() == source and list(tmp_path.iterdir()) == [tmp_path / "anna.py"]


# Files and disk

def copied(folder, source, room=2**30):
    target = folder / "copy"
    notes = files.copy(source, target, room)
    return {str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()}, notes


def test_of_a_folder_only_regular_files_are_copied(tmp_path):
    folder = tmp_path / "dora"
    for name in (".git", "env/lib", "__pycache__", "pack"):
        (folder / name).mkdir(parents=True)
        submit(folder / name, a=SOFTMAX)
    (folder / "env" / "pyvenv.cfg").touch()
    submit(folder / "pack", __init__="")
    submit(tmp_path, outside=SOFTMAX)
    links = {"up": "..", "b.py": "../outside.py", "zero.py": "/dev/zero", "nowhere": "no", "loop": "loop"}
    for name, target in links.items():
        (folder / name).symlink_to(target)
    os.mkfifo(folder / "fifo")
    with open(folder / "sparse", "wb") as file:
        file.truncate(2**40)
    names, (note,) = copied(tmp_path, folder)
    assert names == {"b.py", "pack/a.py", "pack/__init__.py"}
    assert note == "left out: up (a link to a folder) and 5 more"
    assert (tmp_path / "copy" / "b.py").read_text() == SOFTMAX


def test_of_a_folder_with_too_much_the_answers_are_copied_first(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_FILES", 5)
    (tmp_path / "dora").mkdir()
    for i in range(9):
        (tmp_path / "dora" / f"{i}.txt").write_bytes(bytes(100))
    submit(tmp_path / "dora", z=SOFTMAX)
    names, notes = copied(tmp_path, tmp_path / "dora")
    assert names == {"z.py", "0.txt", "1.txt", "2.txt", "3.txt"}
    assert notes == ["left out: 4.txt (more than 5 files) and 4 more"]
    names, notes = copied(tmp_path / "dora", tmp_path / "dora", room=files.BLOCK)
    assert names == {"z.py"} and "and 8 more" in notes[0]


@pytest.mark.parametrize("kind", ["a device", "a pipe", "a socket", "a huge file", "nothing"])
def test_what_is_no_regular_file_of_a_bounded_size_is_not_copied(tmp_path, kind):
    source = tmp_path / "anna.py"
    if kind == "a pipe":
        os.mkfifo(source)
    elif kind == "a socket":
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(source))
    elif kind == "a huge file":
        with open(source, "wb") as file:
            file.truncate(2**40)
    else:
        source.symlink_to("/dev/zero" if kind == "a device" else "nowhere")
    with pytest.raises((OSError, ValueError), match="not a regular file|larger than 64 MiB|No such file"):
        files.copy(source, tmp_path / "copy", 2**30)
    assert not (tmp_path / "copy").exists()


def test_submissions_that_fill_the_disk_harm_no_other_and_leave_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(grading, "DISK", 16 * 2**20)
    monkeypatch.setattr(grading.tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mallory.py").symlink_to("/dev/zero")
    write = "for i in range({}):\n    open(f'f{{i}}', 'wb').write(bytes({}))\n"
    deep = "import os\nfor i in range(1100):\n    os.mkdir('d')\n    os.chdir('d')\n"
    grades = graded(tmp_path / "folder", files=write.format(10**9, 10**5), file=write.format(1, 9 * 2**20) + SOFTMAX,
                    deep=deep + SOFTMAX, honest=SOFTMAX)
    assert [grades[name].passed for name in ("honest", "deep", "file")] == [1, 1, 1]
    assert "File too large" in grades["file"].notes[0]
    assert grades["files"].notes == ("it could not be loaded: it takes more than 16 MiB on disk",)
    assert grades["mallory"].notes == ("it could not be loaded: not a regular file",)
    assert list((tmp_path / "temporary").iterdir()) == []


def test_a_file_without_bytes_takes_room_too(tmp_path):
    for i in range(10):
        (tmp_path / str(i)).touch()
    assert files.takes_more(tmp_path, 9 * files.BLOCK) and not files.takes_more(tmp_path, 11 * files.BLOCK)


# Limits

def test_a_limit_that_the_system_refuses_is_skipped(monkeypatch):
    import resource

    limits = {}

    def setrlimit(kind, values):
        if kind == resource.RLIMIT_AS:
            raise ValueError("current limit exceeds maximum limit")
        if kind == resource.RLIMIT_CORE:
            raise OSError("not here")
        limits[kind] = values

    monkeypatch.setattr(resource, "setrlimit", setrlimit)
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (3, 5) if kind == resource.RLIMIT_CPU else (-1, -1))
    monkeypatch.setattr(resource, "RLIM_INFINITY", -1)
    assert limit(2**30, 2**20, 60) == ["memory", "core dumps"]
    assert limits == {resource.RLIMIT_FSIZE: (2**20, 2**20), resource.RLIMIT_CPU: (5, 5)}


def test_the_command_says_once_which_limit_is_missing(tmp_path, monkeypatch, capsys):
    *command, start = grading._command(sys.path)
    refuse = ("import resource; old = resource.setrlimit\ndef setrlimit(kind, limits):\n"
              "    if kind == resource.RLIMIT_AS: raise ValueError\n    old(kind, limits)\n"
              "resource.setrlimit = setrlimit\n")
    monkeypatch.setattr(grading, "_command", lambda modules: [*command, refuse + start])
    (tmp_path / "folder").mkdir()
    submit(tmp_path / "folder", anna=SOFTMAX, berta=WRONG)
    assert main(["grade", str(tmp_path / "folder"), "--json", str(tmp_path / "grades.json")]) == 0
    out, _ = capsys.readouterr()
    assert out.splitlines()[-2:] == [
        "softmax  passed by 1 of 2", "note: this system does not limit memory; the submissions ran without that limit"]
    rows = json.loads((tmp_path / "grades.json").read_text(encoding="utf-8"))
    assert [row["unlimited"] for row in rows] == [["memory"], ["memory"]]


# The channel

@pytest.mark.parametrize("values", [
    (np.arange(6.0).reshape(2, 3).T,), (np.float32(2),), (np.zeros((0, 3)), np.array(1)),
])
def test_an_outcome_survives_the_channel(values):
    values = tuple(map(np.asarray, values))
    read = decode(json.loads(json.dumps(encode(Outcome(values)))), len(values))
    assert all(a.dtype == b.dtype and a.shape == b.shape and (a == b).all() for a, b in zip(read.values, values))


def _array(**changes):
    return {"values": [{"dtype": "<f8", "shape": [1], "data": "AAAAAAAAAAA="} | changes], "complaint": ""}


@pytest.mark.parametrize("message", [
    {}, {"values": None, "complaint": ""}, {"values": 3, "complaint": ""}, {"values": [3], "complaint": ""},
    {"values": [], "complaint": ""}, {"values": None, "complaint": 3}, _array(shape=[10**12]), _array(shape=[-1, -1]),
    _array(shape=["1"]), _array(shape=[True]), _array(shape=[1] * 40), _array(shape=7), _array(dtype="O"),
    _array(dtype="V8"), _array(dtype="no such"), _array(data="?"), _array(data=3), _array(dtype="<c16"),
], ids=str)
def test_an_answer_that_is_none_is_refused(message):
    with pytest.raises(ValueError):
        decode(message, 1)


def test_text_of_a_submission_is_made_plain():
    assert plain("a\x1b[31m\n\tb\u202e\ud800é") == "a [31m b é" and len(plain("x" * 10**6)) <= 2000


# The command

def test_the_command_prints_a_table_and_writes_json(tmp_path, capsys):
    folder = tmp_path / "submissions"
    folder.mkdir()
    submit(folder, anna=SOFTMAX, berta=WRONG, carl="import os; os._exit(3)")
    assert main(["grade", str(folder), "--seconds", "5", "--jobs", "2", "--json", str(tmp_path / "grades.json")]) == 0
    out, err = capsys.readouterr()
    first, _, table = out.partition("\nberta")
    assert first == "anna: 1 of 1 passed\n  softmax  passed"
    assert table.splitlines() == [
        ": 0 of 1 passed",
        "  softmax  wrong: it overflows for large logits: subtract the maximum of each row first, which changes "
        "nothing",
        "carl: 0 of 1 passed",
        "  note: it could not be loaded: its process ended itself, with exit status 3",
        "  softmax  not loaded",
        "",
        "softmax  passed by 1 of 3",
    ]
    anna, berta, carl = json.loads((tmp_path / "grades.json").read_text(encoding="utf-8"))
    assert anna["student"] == "anna" and anna["passed"] == 1 and anna["verdicts"][0]["status"] == "passed"
    assert "expected a" in berta["verdicts"][0]["message"] and carl["notes"]


@pytest.mark.parametrize("options, complaint", [
    (["nowhere"], "nowhere"),
    (["empty"], "no submissions in"),
    (["full", "--seconds", "0"], "seconds of a submission must be more than 0; got 0"),
    (["full", "--memory", "10"], "at least 256 MiB"),
    (["full", "--jobs", "0"], "got 0 jobs"),
])
def test_a_mistake_in_the_command_is_one_line(tmp_path, capsys, monkeypatch, options, complaint):
    monkeypatch.chdir(tmp_path)
    for name in ("empty", "full"):
        Path(name).mkdir()
    submit(Path("full"), anna=SOFTMAX)
    assert main(["grade", *options]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("minidl: ") and err.count("\n") == 1 and complaint in err


def test_help_says_what_it_is_not(capsys):
    with pytest.raises(SystemExit) as end:
        main(["grade", "--help"])
    out, _ = capsys.readouterr()
    assert end.value.code == 0 and "no sandbox" in out
    assert all(option in out for option in ("--seconds", "--memory", "--jobs", "--json", "exit status"))
