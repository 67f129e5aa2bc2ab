"""What the command line writes to: pipes that are closed, full disks, terminals that are gone, old encodings."""

import io
import os
import re
import subprocess
import sys

import pytest

import minidl as dl
from minidl import backend
from minidl.cli import main
from minidl.cli.output import console
from minidl.kernels.cpu import threads
from minidl.training.table import read_table

pytestmark = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="skipped: /dev/full is needed, as Linux has it")

TRAINING = ["train", "lenet5", "--images", "50", "--batch-size", "20", "--epochs", "2", "--threads", "1"]


def start(*arguments, **options):
    return subprocess.Popen([sys.executable, "-m", "minidl", *arguments], **options)


def run(*arguments, **options):
    return subprocess.run([sys.executable, "-m", "minidl", *arguments], capture_output=True, **options)


def closed_pipe():
    """The end of a pipe to write to, whose other end is closed."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing


def kept(folder):
    rows = [{**row, "seconds": 0, "images_per_second": 0} for row in read_table(folder / "metrics.csv")]
    return rows, {name: value.data.tobytes() for name, value in dl.load(folder / "last.safetensors").items()}


# Training goes on

@pytest.fixture(autouse=True)
def settings_of_the_process(monkeypatch):
    monkeypatch.setattr(threads, "_num_threads", threads._num_threads)
    monkeypatch.setattr(backend, "_generator", backend._generator)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)  # pictures take longest


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "undisturbed"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("importlib.util.find_spec", lambda name: None)
        assert main([*TRAINING, "--quiet", "--out", str(folder)]) == 0
    return folder


def check_complete(folder, undisturbed):
    assert kept(folder) == kept(undisturbed)
    assert set(os.listdir(folder)) - {"curves.png"} == set(os.listdir(undisturbed))


def test_a_training_whose_reader_goes_away_comes_to_its_end(tmp_path, undisturbed):
    with start(*TRAINING, "--out", str(tmp_path / "run"), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline().startswith(b"lenet5, ")
        process.stdout.close()
        err = process.stderr.read().decode()
    assert process.returncode == 0
    assert re.fullmatch(r"minidl: the output cannot be written \(Broken pipe\); the command goes on without it\n", err)
    check_complete(tmp_path / "run", undisturbed)


@pytest.mark.parametrize("output, errors", [
    ("/dev/full", "closed pipe"), pytest.param("closed pipe", "/dev/full", marks=pytest.mark.slow),
])
def test_so_does_one_whose_output_and_errors_cannot_be_written(tmp_path, undisturbed, output, errors):
    ends = [closed_pipe() if name == "closed pipe" else os.open(name, os.O_WRONLY) for name in (output, errors)]
    with start(*TRAINING, "--out", str(tmp_path / "run"), stdout=ends[0], stderr=ends[1]) as process:
        for end in ends:
            os.close(end)
    assert process.returncode == 0
    check_complete(tmp_path / "run", undisturbed)


@pytest.mark.slow
def test_so_does_one_that_the_shell_gave_no_output_at_all(tmp_path, undisturbed):
    command = '"$@" <&- >&- 2>&-'
    words = [sys.executable, "-m", "minidl", *TRAINING, "--out", str(tmp_path / "run")]
    assert subprocess.run(["sh", "-c", command, "sh", *words]).returncode == 0
    check_complete(tmp_path / "run", undisturbed)


@pytest.mark.slow
def test_so_does_one_whose_terminal_is_gone_with_its_progress_bar(tmp_path, undisturbed):
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    process = start(*TRAINING, "--out", str(tmp_path / "run"), stdout=theirs, stderr=theirs)
    os.close(theirs)
    seen = b""
    while b"images/s" not in seen:  # the bar, or a row
        seen += os.read(ours, 1000)
    os.close(ours)
    assert process.wait() == 0
    check_complete(tmp_path / "run", undisturbed)


class Broken:
    """A stream that takes a number of texts, then fails."""

    def __init__(self, texts, error):
        self.left, self.error, self.taken = texts, error, []

    def write(self, text):
        if not self.left:
            raise self.error
        self.left -= 1
        self.taken.append(text)

    def flush(self):
        pass


@pytest.mark.parametrize("texts, error", [
    (0, BrokenPipeError(32, "Broken pipe")), (1, OSError(5, "Input/output error")), (3, OSError(28, "No space left")),
    (5, ValueError("I/O operation on closed file")),
], ids=repr)
def test_wherever_the_output_of_a_training_breaks_nothing_is_lost(tmp_path, undisturbed, monkeypatch, texts, error):
    stream = Broken(texts, error)
    monkeypatch.setattr(sys, "stdout", stream)
    assert main([*TRAINING, "--quiet", "--out", str(tmp_path / "run")]) == 0
    assert len(stream.taken) == texts
    check_complete(tmp_path / "run", undisturbed)


def test_a_row_is_printed_when_it_is_saved(tmp_path, monkeypatch):
    class Looking(Broken):
        def write(self, text):
            if found := re.match(r"epoch +(\d)", text):
                assert [row["epoch"] for row in read_table(tmp_path / "run" / "metrics.csv")][-1] == int(found[1])
                self.taken.append(found[1])

    stream = Looking(0, None)
    monkeypatch.setattr(sys, "stdout", stream)
    assert main([*TRAINING, "--quiet", "--out", str(tmp_path / "run")]) == 0
    assert stream.taken == ["1", "2"]


@pytest.mark.slow
def test_grades_and_measurements_that_go_to_a_file_are_complete_without_output(tmp_path, monkeypatch):
    (tmp_path / "class").mkdir()
    (tmp_path / "class" / "ada.py").write_text("def sigmoid(x):\n    return x\n")
    commands = {"grades": ["grade", tmp_path / "class"], "times": ["bench", "lenet5", "--batch", 1, "--pairs", 1]}
    for name, command in commands.items():
        monkeypatch.setattr(sys, "stdout", Broken(0, BrokenPipeError(32, "Broken pipe")))
        assert main([str(word) for word in [*command, "--json", tmp_path / f"{name}.json"]]) == 0
        assert (tmp_path / f"{name}.json").stat().st_size > 100


# Other commands end

@pytest.mark.parametrize("command, statuses", [(["summary", "lenet5"], {141}), (["--help"], {0, 141})], ids=str)
def test_a_command_whose_reader_went_away_ends_quietly(command, statuses):
    end = closed_pipe()
    with start(*command, stdout=end, stderr=subprocess.PIPE) as process:
        os.close(end)
        assert process.stderr.read() == b""
    assert process.returncode in statuses  # argparse passes over an error when it prints help


def test_a_command_whose_output_does_not_fit_on_the_disk_says_so_in_one_line():
    with open("/dev/full", "wb") as full, start("summary", "lenet5", stdout=full, stderr=subprocess.PIPE) as process:
        assert process.stderr.read() == b"minidl: the output cannot be written: No space left on device\n"
    assert process.returncode == 2


# Encodings

@pytest.mark.parametrize("settings, command, shown", [
    ({"PYTHONIOENCODING": "cp1252"}, ["summary", "lenet5"], "1×32×32"),
    ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, ["step-through", "lenet5", "--text"], "∂L/∂"),
], ids=str)
def test_pipes_get_utf_8_whatever_the_locale(settings, command, shown):
    result = run(*command, env=os.environ | settings)
    assert (result.returncode, result.stderr) == (0, b"") and shown in result.stdout.decode()


def test_a_terminal_keeps_its_encoding_and_shows_question_marks(monkeypatch):
    class Terminal(io.TextIOWrapper):
        def isatty(self):
            return True

    terminal = Terminal(io.BytesIO(), encoding="latin-1")
    monkeypatch.setattr(sys, "stdout", terminal)
    with console():
        print("1×2 → █")
    terminal.flush()
    assert terminal.buffer.getvalue() == b"1\xd72 ? ?\n"


# Errors

@pytest.mark.parametrize("error, status, said", [
    (KeyboardInterrupt(), 130, ""), (MemoryError(), 2, "minidl: there is not enough memory."),
    (OverflowError("too large"), 2, "minidl: too large\n"), (RecursionError("too deep"), 2, "minidl: too deep\n"),
    (ValueError("two\nlines"), 2, "minidl: two lines\n"), (BrokenPipeError(32, "Broken pipe"), 2, "minidl: [Errno 32]"),
], ids=repr)
def test_errors_are_one_line(monkeypatch, capsys, error, status, said):
    def fail(*_):
        raise error

    monkeypatch.setattr("minidl.cli.measure.count", fail)
    assert main(["summary", "lenet5"]) == status
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(said) and err.count("\n") == (1 if said else 0)


def test_development_mode_shows_where_an_error_was_raised():
    result = run("summary", "lenet6", env=os.environ | {"PYTHONDEVMODE": "1"})
    assert b"Traceback" in result.stderr and b"did you mean lenet5" in result.stderr


@pytest.mark.parametrize("module", ["numpy", "tqdm"])  # imported by minidl, and only by its command line
def test_ctrl_c_during_the_imports_ends_quietly(tmp_path, module):
    (tmp_path / f"{module}.py").write_text("raise KeyboardInterrupt")
    path = os.pathsep.join([str(tmp_path), *sys.path])
    for command in ["-m", "minidl"], ["-c", "import sys; sys.argv[0] = 'bin/minidl'; from minidl.cli import main; "
                                            "sys.exit(main())"]:
        result = subprocess.run([sys.executable, *command, "summary", "lenet5"], capture_output=True,
                                env=os.environ | {"PYTHONPATH": path})
        assert (result.returncode, result.stdout, result.stderr) == (130, b"", b"")


def test_in_other_programs_ctrl_c_is_as_ever(tmp_path):
    code = "import sys, minidl; assert sys.excepthook is sys.__excepthook__; raise KeyboardInterrupt"
    assert b"KeyboardInterrupt" in subprocess.run([sys.executable, "-c", code], capture_output=True).stderr


def test_a_large_image_is_one_line_without_a_warning_of_pillow(tmp_path, undisturbed):
    image = pytest.importorskip("PIL.Image").new("1", (10_000, 10_000))  # more pixels than Pillow lets pass silently
    image.save(tmp_path / "large.png")
    ended = run("predict", undisturbed, tmp_path / "large.png", encoding="utf-8")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.count("\n") == 1 and "the limit is 89,478,485" in ended.stderr
