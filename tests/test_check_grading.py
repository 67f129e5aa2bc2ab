"""minidl grade: every submission gets its grade, and none, however hostile, spoils those of others."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from answers import SOLUTIONS

import minidl
from minidl.check.calling import Outcome
from minidl.check.grading import Limits, grade, plain
from minidl.check.submission import decode, encode
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
    cells = ["%matplotlib inline\nimport numpy as np", "%%timeit\nboom", "1 / 0", "!ls\n" + SOLUTIONS["softmax"],
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
    with pytest.raises(ValueError, match="takes a folder.*anna.py is none"):
        grade(path)


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
