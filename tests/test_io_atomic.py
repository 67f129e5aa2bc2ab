"""Files that are replaced as a whole, what a kill leaves of them, and folders that one process at a time works in."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy

import minidl as dl
from minidl.io import atomic, discard_parts, locked, serialize, write_atomically
from minidl.io.serialize import write_safetensors


def write(part):
    part.write_text("new")


# Where it is written to

@pytest.mark.skipif(sys.platform == "win32", reason="skipped: Windows lets only some users make links")
def test_a_link_stays_and_the_file_it_points_to_is_replaced(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "a" / "file")
    (tmp_path / "dangling").symlink_to(tmp_path / "a" / "other")
    for name in ("link", "dangling"):
        write_atomically(tmp_path / name, write)
        assert (tmp_path / name).is_symlink()
    assert {path.name: path.read_text() for path in (tmp_path / "a").iterdir()} == {"file": "new", "other": "new"}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="skipped: Windows has no named pipes in folders")
def test_what_is_not_a_regular_file_is_written_to_and_stays_what_it_is(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with subprocess.Popen(["cat", tmp_path / "pipe"], stdout=subprocess.PIPE, text=True) as reader:
        write_atomically(tmp_path / "pipe", write)
        assert reader.communicate()[0] == "new"
    assert (tmp_path / "pipe").is_fifo() and os.listdir(tmp_path) == ["pipe"]


# Windows

@pytest.mark.parametrize("failures, succeeds", [(2, True), (3, False)])
def test_a_file_that_another_program_holds_is_tried_again(tmp_path, monkeypatch, failures, succeeds):
    replace, calls = os.replace, []

    def held(*arguments):
        calls.append(arguments)
        if len(calls) <= failures:
            raise PermissionError(13, "Access is denied")
        replace(*arguments)

    monkeypatch.setattr(atomic, "REPLACE_PAUSES", (0.001, 0.001))
    monkeypatch.setattr(os, "replace", held)
    path = tmp_path / "file"
    path.write_text("old")
    if succeeds:
        write_atomically(path, write)
    else:
        with pytest.raises(OSError, match="could not write .*file: Access is denied"):
            write_atomically(path, write)
    assert len(calls) == 3 and path.read_text() == ("new" if succeeds else "old") and os.listdir(tmp_path) == ["file"]


# What a kill leaves

def test_only_half_written_parts_of_the_named_files_are_discarded(tmp_path):
    ours = [".a.csv.1.part", ".b.json.99999.part"]
    others = [".film.mp4.part", ".a.csv.part", ".a.csv.x.part", ".a.csv.1.part.bak", "a.csv.1.part", ".axcsv.1.part",
              ".c.json.1.part", ".tmpAbC123", "a.csv"]
    for name in [*ours, *others]:
        (tmp_path / name).write_text("")
    (tmp_path / ".a.csv.2.part").mkdir()
    discard_parts(tmp_path, ["a.csv", "b.json"])
    assert sorted(os.listdir(tmp_path)) == sorted([*others, ".a.csv.2.part"])


def test_a_state_is_written_through_one_part_whose_name_discarding_knows(tmp_path, monkeypatch):
    seen = []

    def killed(path, arrays, text):
        write_safetensors(path, arrays, text)
        seen.extend(os.listdir(tmp_path))
        raise KeyboardInterrupt

    monkeypatch.setattr("minidl.io.states.write_safetensors", killed)
    with pytest.raises(KeyboardInterrupt):
        dl.save({"a": np.zeros(3)}, tmp_path / "last.safetensors")
    assert seen == [f".last.safetensors.{os.getpid()}.part"]


def test_a_state_is_what_safetensors_reads_and_writes_with_every_array_aligned(tmp_path):
    rng, text = np.random.default_rng(0), {"text": 'ß "\\\t\0'}
    arrays = {f"{dtype} ä\n": rng.integers(0, 2, (3, 3)).astype(dtype) for dtype in serialize.NAMES}
    arrays |= {"scalar": np.array(1.5), "none": np.zeros((0, 4), np.int8)}
    write_safetensors(tmp_path / "ours", arrays, text)
    safetensors.numpy.save_file(arrays, tmp_path / "theirs", metadata=text)
    with safetensors.safe_open(tmp_path / "ours", framework="np") as file:
        assert file.metadata() == text and set(file.keys()) == set(arrays)
        for name, array in arrays.items():
            read = file.get_tensor(name)
            assert (read.dtype, read.shape, read.tobytes()) == (array.dtype, array.shape, array.tobytes()), name
    assert os.path.getsize(tmp_path / "ours") == os.path.getsize(tmp_path / "theirs")
    content = (tmp_path / "ours").read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    assert length % 8 == 0 and all(
        header[name]["data_offsets"][0] % array.itemsize == 0 for name, array in arrays.items())


# One process at a time

def test_a_folder_is_refused_to_a_second_process_until_the_first_has_ended(tmp_path):
    path = tmp_path / "file"
    path.write_text("content")
    hold = "import sys, pathlib, minidl.io\nwith minidl.io.locked(pathlib.Path(sys.argv[1])): print(1); input()"
    with subprocess.Popen([sys.executable, "-c", hold, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(BlockingIOError, match="another process is at work in "), locked(path):
            pass
        assert path.read_text() == "content"  # others may read it
        other.kill()
    with locked(path):
        pass
    assert os.listdir(tmp_path) == ["file"] and path.read_text() == "content"
