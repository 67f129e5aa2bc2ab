"""States on disk: what was saved comes back, PyTorch reads it, and no damage and no full disk goes unnoticed."""

import gzip
import os
import pickle
import re
import subprocess
import sys
import tarfile
import zipfile
from io import BytesIO

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as arrays

import minidl as dl
from minidl.io import load_with_metadata, write_atomically

DTYPES = "bool uint8 uint16 uint32 uint64 int8 int16 int32 int64 float16 float32 float64".split()


def assert_same_state(actual, expected):
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert isinstance(actual[name], dl.Tensor)
        array = np.asarray(value)
        assert (actual[name].dtype, actual[name].shape) == (array.dtype, array.shape), name
        np.testing.assert_array_equal(actual[name].data, array, err_msg=name)


# What was saved comes back

@given(st.dictionaries(st.text(max_size=9), st.sampled_from(DTYPES).flatmap(
    lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, min_side=0, max_side=3))), max_size=4))
def test_every_dtype_and_shape_comes_back(tmp_path_factory, state):
    path = tmp_path_factory.mktemp("state") / "state.safetensors"
    dl.save(state, path)
    assert_same_state(dl.load(path), state)


NUMBERS = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


@pytest.mark.parametrize("array", [NUMBERS.T, NUMBERS[:, ::-1, ::2], np.broadcast_to(NUMBERS[0, 0], (3, 4)),
                                   np.asfortranarray(NUMBERS[0]), NUMBERS.astype(">f4")],
                         ids=["transposed", "strided", "broadcast", "Fortran", "big-endian"])
def test_memory_in_any_order_comes_back(tmp_path, array):
    dl.save({"a": array}, tmp_path / "a")
    assert_same_state(dl.load(tmp_path / "a"), {"a": array.astype(np.float32)})


def test_tensors_and_arrays_may_be_mixed_and_needing_a_gradient_is_not_saved(tmp_path):
    tensor, scalar = dl.tensor(NUMBERS, requires_grad=True), np.float32(3)
    dl.save({"tensor": tensor, "array": NUMBERS, "shared": NUMBERS, "scalar": scalar}, tmp_path / "a")
    loaded = dl.load(tmp_path / "a")
    assert_same_state(loaded, {"tensor": NUMBERS, "array": NUMBERS, "shared": NUMBERS, "scalar": scalar})
    assert not any(tensor.requires_grad for tensor in loaded.values())


def test_what_was_loaded_is_ones_own_and_outlives_the_file(tmp_path):
    dl.save({"a": NUMBERS}, tmp_path / "a")
    loaded = dl.load(tmp_path / "a")["a"]
    dl.save({"a": NUMBERS + 1}, tmp_path / "a")
    loaded.data[0] = 0
    np.testing.assert_array_equal(loaded.data[1], NUMBERS[1])
    np.testing.assert_array_equal(dl.load(tmp_path / "a")["a"].data, NUMBERS + 1)


@pytest.mark.parametrize("state", [{}, {"a": NUMBERS}])
@pytest.mark.parametrize("metadata", [None, {}, {"training": '{"epoch": 3}', "Ä\n": "", "": "\0"}])
def test_text_beside_the_tensors_comes_back(tmp_path, state, metadata):
    dl.save(state, tmp_path / "a", metadata)
    loaded, text = load_with_metadata(tmp_path / "a")
    assert_same_state(loaded, state)
    assert text == (metadata or {})


def test_a_models_state_goes_into_another_model(tmp_path):
    one, other = dl.nn.BatchNorm2d(3), dl.nn.BatchNorm2d(3)
    one(dl.tensor(np.random.default_rng(0).standard_normal((4, 3, 2, 2)).astype(np.float32)))
    dl.save(one.state_dict(), tmp_path / "a")
    other.load_state_dict(dl.load(tmp_path / "a"))
    assert_same_state(other.state_dict(), {name: tensor.data for name, tensor in one.state_dict().items()})


# What PyTorch writes and reads

def test_pytorch_reads_what_save_writes_and_the_reverse(tmp_path):
    torch, peer = pytest.importorskip("torch"), pytest.importorskip("safetensors.torch")
    state = {dtype: NUMBERS.astype(dtype) for dtype in DTYPES} | {"one": np.array(3.0), "none": NUMBERS[:0]}
    dl.save(state, tmp_path / "ours", {"some": "text"})
    theirs = peer.load_file(tmp_path / "ours")
    assert theirs.keys() == state.keys()
    for name, array in state.items():
        assert torch.equal(theirs[name], torch.from_numpy(array)), name
    peer.save_file(theirs, tmp_path / "theirs", metadata={"format": "pt"})
    loaded, text = load_with_metadata(tmp_path / "theirs")
    assert_same_state(loaded, state)
    assert text == {"format": "pt"}


def test_bfloat16_becomes_float32_exactly(tmp_path):
    torch, peer = pytest.importorskip("torch"), pytest.importorskip("safetensors.torch")
    numbers = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16).view(torch.bfloat16).reshape(256, 256)  # all
    peer.save_file({"a": numbers, "b": numbers[3, 4].clone(), "c": numbers[:0]}, tmp_path / "a")
    loaded = dl.load(tmp_path / "a")
    assert loaded["a"].dtype == loaded["b"].dtype == loaded["c"].dtype == np.float32
    np.testing.assert_array_equal(loaded["a"].data.view(np.uint32), numbers.float().numpy().view(np.uint32))
    assert loaded["b"].shape == () and loaded["b"].item() == numbers[3, 4].item() and loaded["c"].shape == (0, 256)


@pytest.mark.parametrize("dtype", ["float8_e5m2", "complex64"])
def test_numbers_that_no_tensor_can_hold_are_said_to_be_that(tmp_path, dtype):
    torch, peer = pytest.importorskip("torch"), pytest.importorskip("safetensors.torch")
    peer.save_file({"fine": torch.zeros(2), "b.weight": torch.zeros(2, dtype=getattr(torch, dtype))}, tmp_path / "a")
    with pytest.raises(ValueError, match="'b.weight' as (F8_E5M2|C64), .* Convert it to F32") as caught:
        dl.load(tmp_path / "a")
    assert str(tmp_path / "a") in str(caught.value) and "damaged" not in str(caught.value)


# What cannot be saved

@pytest.mark.parametrize("state, complaint", [
    ({"a": [1.0, 2.0]}, "to tensors or arrays; got 'a': list"),
    ({"model": {"a": NUMBERS}, "epoch": 3}, "got 'model': dict"),
    (dl.nn.Linear(2, 2), r"got Linear. Write minidl.save\(model.state_dict\(\), path\)"),
    ([NUMBERS], r"maps names to .*; got list. Write minidl.save\({'name': tensor}, path\)"),
    (dl.tensor(NUMBERS), "got Tensor. Write"),
    (NUMBERS, "got ndarray. Write"),
    (None, "got NoneType. Write"),
    ({"a": NUMBERS, "b": None}, "got 'b': NoneType"),
    ({1: NUMBERS}, "maps names .* got 1: ndarray"),
    ({"__metadata__": NUMBERS}, "not '__metadata__'"),  # safetensors keeps its text under that name
    ({"a": NUMBERS.astype(object)}, "'a' is object"),
    ({"a": NUMBERS.astype(complex)}, "'a' is complex128"),
    ({"a": np.array(["text"])}, "'a' is <U4"),
])
def test_what_is_no_state_is_refused_and_nothing_written(tmp_path, state, complaint):
    with pytest.raises(TypeError, match=complaint):
        dl.save(state, tmp_path / "a")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("metadata, complaint", [
    ({"epoch": 3}, r"maps text to text; got 'epoch': 3. Write str\(value\) or json.dumps"),
    ({3: "epoch"}, "got 3: 'epoch'"),
])
def test_metadata_that_is_no_text_is_refused(tmp_path, metadata, complaint):
    with pytest.raises(TypeError, match=complaint):
        dl.save({"a": NUMBERS}, tmp_path / "a", metadata)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_more_than_load_reads_is_not_written(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    state = {f"{index:05}": NUMBERS[0, 0] for index in range(16_300)}
    dl.save(state, path)
    assert len(dl.load(path)) == 16_300
    path.unlink()
    with pytest.raises(ValueError, match="at most 16,384 tensors and texts; got 16,500"):
        dl.save(state | {f"more{index}": NUMBERS for index in range(200)}, path)
    with pytest.raises(ValueError, match=r"at most 8 MiB of names and metadata; got 8.6 MiB"):
        dl.save({f"{index}" + "n" * 60_000: NUMBERS for index in range(150)}, path)
    assert os.listdir(tmp_path) == []


# Whole or not at all

def broken_write(part):
    part.write_bytes(b"half of it")
    raise OSError(28, "No space left on device")


def interrupted_write(part):
    part.write_bytes(b"half of it")
    raise KeyboardInterrupt


@pytest.mark.parametrize("write, error", [(broken_write, OSError), (interrupted_write, KeyboardInterrupt)])
@pytest.mark.parametrize("before", [b"what was there", None])
def test_a_failing_write_leaves_what_was_there_and_nothing_else(tmp_path, write, error, before):
    path = tmp_path / "file"
    if before:
        path.write_bytes(before)
    with pytest.raises(error) as caught:
        write_atomically(path, write)
    assert os.listdir(tmp_path) == (["file"] if before else [])
    assert not before or path.read_bytes() == before
    if error is OSError:
        assert str(caught.value).startswith(f"could not write {path}: No space left on device. What was there")


FULL_DISK = """
import resource, sys
import numpy as np
import minidl as dl
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
try:
    dl.save({"a": np.zeros(1000)}, sys.argv[1])
except OSError as error:
    print(error)
"""


def test_a_full_disk_leaves_the_old_state(tmp_path):
    pytest.importorskip("resource")  # Windows has no limit on the size of a file
    path = tmp_path / "state"
    dl.save({"a": NUMBERS}, path)
    # In a process of its own: a limit that was lowered cannot be raised again.
    said = subprocess.run([sys.executable, "-c", FULL_DISK, path], capture_output=True, text=True, check=True)
    assert said.stdout.startswith(f"could not write {path}: ") and "File too large" in said.stdout
    assert os.listdir(tmp_path) == ["state"]
    assert_same_state(dl.load(path), {"a": NUMBERS})


@pytest.mark.parametrize("place, complaint", [
    ("file/state", "{0} is a file, not a folder"),
    ("nowhere/state", r"there is no folder {0}; make it first, with os.makedirs\('{0}'\)"),
    ("no/where/state.npz", r"there is no folder {0}; make it first"),
    ("folder", "it is a folder; name a file in it, such as .*folder.model.safetensors"),
])
def test_a_place_that_cannot_be_written_to_is_named(tmp_path, place, complaint):
    path = tmp_path / place
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "folder").mkdir()
    complaint = complaint.format(re.escape(str(path.parent)))
    with pytest.raises(OSError, match=f"could not write {re.escape(str(path))}: {complaint}"):
        dl.save({"a": NUMBERS}, path)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"] and os.listdir(tmp_path / "folder") == []


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".th", ".pkl", ".ckpt", ".bin"])
def test_save_writes_no_pickles_and_says_what_instead(tmp_path, suffix):
    instead = re.escape(str(tmp_path / "a.safetensors"))
    with pytest.raises(ValueError, match=f"no pickles; name it {instead}, which PyTorch opens with safetensors.torch"):
        dl.save({"a": NUMBERS}, tmp_path / f"a{suffix}")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["a.npy", "a.weights.h5", "a.onnx", "a.zip", "A.JSON", "a.csv", "a.txt", "a.mat"])
def test_save_does_not_write_safetensors_under_the_name_of_another_format(tmp_path, name):
    instead = re.escape(f"{tmp_path / name[:name.rindex('.')]}.safetensors or ")
    with pytest.raises(ValueError, match=rf"no \{name[name.rindex('.'):].lower()}; name it {instead}.*\.npz"):
        dl.save({"a": NUMBERS}, tmp_path / name)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["a.safetensors", "a.npz", "A.NPZ", "a", "resnet-0.95", "a.best"])
def test_save_writes_under_any_other_name(tmp_path, name):
    dl.save({"a": NUMBERS}, tmp_path / name)
    assert_same_state(dl.load(tmp_path / name), {"a": NUMBERS})


@pytest.mark.skipif(os.name != "posix", reason="skipped: only POSIX has a umask")
@pytest.mark.parametrize("umask, mode", [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_a_file_may_be_read_by_whom_the_umask_lets(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        dl.save({"a": NUMBERS}, tmp_path / "a")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == mode


# Damage

STATE = {"conv.weight": NUMBERS, "conv.bias": np.ones(3, np.float32), "steps": np.array(7), "none": NUMBERS[:0]}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "state.safetensors"
    dl.save(STATE, path, {"training": '{"epoch": 3}'})
    return path.read_bytes()


def flip(content, at, bit):
    return content[: (at := at % len(content))] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :]


def overwrite(content, at, patch):
    return content[: (at := at % len(content))] + patch + content[at + len(patch) :]


places, patches = st.integers(0, 10**6), st.binary(min_size=1, max_size=40)
damages = st.one_of(
    st.builds(lambda at, bit: lambda content: flip(content, at, bit), places, st.integers(0, 7)),
    st.builds(lambda at, patch: lambda content: overwrite(content, at, patch), places, patches),
    st.builds(lambda at: lambda content: content[: at % len(content)], places),
    st.builds(lambda patch: lambda content: content + patch, patches),
    st.builds(lambda garbage: lambda content: garbage, st.binary(max_size=200)),
)


@given(damages)
def test_a_damaged_file_is_refused_in_one_sentence_or_the_damage_did_not_matter(saved, tmp_path_factory, damage):
    path = tmp_path_factory.mktemp("damaged") / "state"
    path.write_bytes(damage(saved))
    try:
        loaded = dl.load(path)
    except ValueError as error:
        assert str(error).startswith(f"{path} is ") and "\n" not in str(error)
    else:
        assert_same_state(loaded, STATE)


def differing(contents, path):
    """Those of the contents of a file that load as another state, or with another text."""
    wrong = []
    for content in contents:
        path.write_bytes(content)
        try:
            loaded, text = load_with_metadata(path)
            assert_same_state(loaded, STATE)
            assert text == {"training": '{"epoch": 3}'}
        except ValueError:
            continue
        except AssertionError:
            wrong.append(content)
    return wrong


def test_no_flipped_bit_and_no_cut_gets_through(saved, tmp_path):
    cuts = (saved[:at] for at in range(len(saved)))
    flips = (flip(saved, at, bit) for at in range(len(saved)) for bit in range(8))
    assert differing([*cuts, *flips], tmp_path / "state") == []


@pytest.mark.parametrize("name", ["minidl.crc32", "minidl.format"])
def test_a_checksum_whose_name_is_damaged_is_missed(saved, tmp_path, name):
    start, path = saved.index(name.encode()), tmp_path / "state"
    for at in range(start, start + len(name)):
        damaged = overwrite(saved, at, b"x")
        path.write_bytes(damaged[:-1] + b"\7")  # and a number elsewhere
        with pytest.raises(ValueError, match="checksum"):
            dl.load(path)


def test_one_sound_beginning_of_a_name_is_enough_to_miss_the_checksum(saved, tmp_path):
    damaged = saved.replace(b"minidl.format", b"minitl.format").replace(b"minidl.crc32", b"minidl.cr{32")
    assert damaged != saved
    (tmp_path / "state").write_bytes(damaged[:-1] + b"\7")
    with pytest.raises(ValueError, match="checksum"):
        dl.load(tmp_path / "state")


def test_a_tensor_listed_twice_is_noticed(tmp_path):
    entry = '"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}'
    for header in f"{{{entry},{entry}}}", f'{{"__metadata__":{{"b":"\\"","b":":"}},{entry}}}':
        (tmp_path / "a").write_bytes(len(header).to_bytes(8, "little") + header.encode() + b"1")
        with pytest.raises(ValueError, match="two entries of one name"):
            dl.load(tmp_path / "a")


def test_a_file_without_a_checksum_and_one_from_before_the_format_was_noted_are_read(tmp_path):
    peer = pytest.importorskip("safetensors.numpy")
    arrays = {name: np.asarray(array) for name, array in STATE.items()}
    peer.save_file(arrays, tmp_path / "a", {"format": "pt"})
    assert_same_state(dl.load(tmp_path / "a"), STATE)
    peer.save_file({"a": np.arange(3.0)}, tmp_path / "a", {"minidl.crc32": "6eabc9c1", "epoch": "3"})
    loaded, text = load_with_metadata(tmp_path / "a")
    assert_same_state(loaded, {"a": np.arange(3.0)})
    assert text == {"epoch": "3"}
    peer.save_file({"a": np.arange(3.0) + 1}, tmp_path / "a", {"minidl.crc32": "6eabc9c1", "epoch": "3"})
    with pytest.raises(ValueError, match="checksum"):
        dl.load(tmp_path / "a")


def test_a_missing_file_is_named(tmp_path):
    for path in tmp_path / "missing", tmp_path:
        with pytest.raises(FileNotFoundError, match=f"there is no file {re.escape(str(path))}"):
            dl.load(path)
    dl.save({"a": NUMBERS}, tmp_path / "best.safetensors")
    with pytest.raises(FileNotFoundError, match="it is a folder. Name a file in it, such as .*best.safetensors"):
        dl.load(tmp_path)


def npy():
    file = BytesIO()
    np.save(file, NUMBERS)
    return file.getvalue()


def in_zip(**contents):
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as opened:
        for name, content in contents.items():
            opened.writestr(name, content)
    return file.getvalue()


def in_tar():
    file = BytesIO()
    with tarfile.open(fileobj=file, mode="w") as opened:
        opened.addfile(tarfile.TarInfo("weights.pth"))
    return file.getvalue()


OTHERS = {
    "nothing": (b"", "is empty: .* cut short. Write or download it again"),
    "Git LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a Git LFS pointer.* git lfs pull"),
    "HTML": (b"\n<!DOCTYPE html>\n<html>...", "is a web page.* Download the file itself"),
    "XML": (b"<?xml version='1.0'?><Error>AccessDenied</Error>", "is a web page"),
    "an answer in words": (b"Entry not found", "is .* not a state's file: it is text, which begins with 'Entry not f"),
    "JSON": (b'{"epoch": 3}\n', "is .* it is text, which begins with '{"),
    "one array": (npy(), r"is a single NumPy array \(.npy\).* Write numpy.savez"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(100), "is an HDF5 file.* Read it with h5py"),
    "ONNX": (b"\x08\x08\x12\x07pytorch\x1a\x052.1.0:", "looks like an ONNX file"),
    "gzip": (gzip.compress(npy()), "is compressed. Unpack it"),
    "tar": (in_tar(), "is a tar archive. Unpack it"),
    "zip": (in_zip(**{"a.pth": b"abc", "b": b""}), "is a zip archive without arrays .* 'a.pth', 'b'. .* unpack it"),
    "other bytes": (bytes(range(255, 0, -1)), "is damaged, or not a state's file"),
    "another pickle": (pickle.dumps({"a": 1}), "is a pickle, but not one that torch.save wrote"),
}


@pytest.mark.parametrize("content, kind", OTHERS.values(), ids=OTHERS)
def test_a_file_of_another_kind_is_called_what_it_is(tmp_path, content, kind):
    for name in "a.pth", "a.safetensors":
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{re.escape(str(tmp_path / name))} {kind}") as caught:
            dl.load(tmp_path / name)
        assert str(caught.value).isprintable()
        with pytest.raises(ValueError):
            load_with_metadata(tmp_path / name)


class Trap:
    def __reduce__(self):
        return pytest.fail, ("a file was executed",)


def test_a_pickle_is_refused_and_not_executed(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ValueError, match="asks for _pytest.outcomes._Fail, .* nothing in it was executed"):
        dl.load(tmp_path / "a.safetensors")
