"""Checkpoints of PyTorch and NumPy are read as they were meant, and hostile or broken ones do no harm."""

import json
import os
import pickle
import re
import struct
import subprocess
import sys
import tracemalloc
import zipfile
from collections import Counter, OrderedDict
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

import minidl as dl
from minidl.io.dtypes import DTYPES

FIXTURES = Path(__file__).parent / "checkpoints"
CHECKPOINTS = ["zip.pth", "legacy.pth", "zip.th", "legacy.th"]
every_checkpoint = pytest.mark.parametrize("name", CHECKPOINTS)
NUMBERS = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


def assert_state(loaded, expected):
    assert loaded.keys() == expected.keys()
    for name, array in expected.items():
        assert isinstance(loaded[name], dl.Tensor)
        assert (loaded[name].dtype, loaded[name].shape) == (array.dtype, array.shape), name
        np.testing.assert_array_equal(loaded[name].data, array, err_msg=name)


def refusal(path):
    with pytest.raises(ValueError) as caught:
        dl.load(path)
    message = str(caught.value)
    assert message.startswith(str(path)) and "\n" not in message and len(message) < len(str(path)) + 1000
    return message


def assert_right_or_refused(path, expected):
    try:
        loaded = dl.load(path)
    except ValueError:
        assert refusal(path)
    else:
        assert_state(loaded, expected)


# What PyTorch wrote: tests/checkpoints/make.py

@pytest.fixture(scope="module")
def expected():
    with np.load(FIXTURES / "expected.npz") as archive:
        return dict(archive)


@pytest.fixture(scope="module")
def weights(expected):
    return {name: array for name, array in expected.items() if name not in ("images", "logits")}


@every_checkpoint
def test_pytorchs_weights_are_exactly_what_is_loaded(name, weights):
    assert_state(dl.load(FIXTURES / name), weights)


@every_checkpoint
def test_the_loaded_net_computes_pytorchs_logits(name, expected):
    nn = dl.nn
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
    net.load_state_dict(dl.load(FIXTURES / name))
    with dl.no_grad():
        logits = net.eval()(dl.tensor(expected["images"]))
    np.testing.assert_allclose(logits.data, expected["logits"], rtol=1e-5, atol=1e-5)


def test_pytorch_is_not_needed():
    code = "import sys; sys.modules['torch'] = None\n" \
           "import minidl\n" \
           "for path in sys.argv[1:]: print(len(minidl.load(path)))\n" \
           "assert [name for name in sys.modules if name.startswith('torch')] == ['torch']"
    said = subprocess.run([sys.executable, "-c", code, *(FIXTURES / name for name in CHECKPOINTS)],
                          capture_output=True, text=True)
    assert said.stdout.split() == ["9"] * 4, said.stderr


def test_the_content_decides_not_the_name(tmp_path, weights):
    for index, name in enumerate([*CHECKPOINTS, "expected.npz"]):
        path = tmp_path / f"{index}.safetensors"
        path.write_bytes((FIXTURES / name).read_bytes())
        assert dl.load(path).keys() >= weights.keys()


def test_a_safetensors_file_that_happens_to_begin_as_a_zip_is_none(tmp_path):
    path = tmp_path / "state"
    for padding in range(18_900, 19_300, 8):  # the file begins with its header's length: 19,280 is "PK"
        dl.save({"a": NUMBERS}, path, {"text": "x" * padding})
        if path.read_bytes().startswith(b"PK"):
            break
    assert path.read_bytes().startswith(b"PK")
    assert_state(dl.load(path), {"a": NUMBERS})


@every_checkpoint
def test_a_cut_checkpoint_is_refused(tmp_path, name):
    content = (FIXTURES / name).read_bytes()
    for end in range(0, len(content), len(content) // 40):
        (tmp_path / "a").write_bytes(content[:end])
        assert refusal(tmp_path / "a")


# What PyTorch writes here and now

@pytest.fixture(scope="module")
def torch():
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    return torch


@pytest.fixture(params=["zip", "legacy"])
def write(request, torch, tmp_path):
    """Let PyTorch write, in either format; gives the path."""
    def write(content):
        path = tmp_path / f"{request.param}.pth"
        torch.save(content, path, _use_new_zipfile_serialization=request.param == "zip")
        return path

    write.format = request.param
    return write


def test_every_dtype_comes_back(torch, write):
    # PyTorch itself cannot read the unsigned ones in its old format.
    names = [name for name in DTYPES.values() if write.format == "zip" or name not in ("uint16", "uint32", "uint64")]
    arrays = {name: np.array([0, 1, 100]).astype(name) for name in names}
    assert_state(dl.load(write({name: torch.from_numpy(array) for name, array in arrays.items()})), arrays)


def test_an_unsigned_tensor_in_the_old_format_is_refused_by_what_it_is(torch, tmp_path):
    torch.save({"a": torch.zeros(2, dtype=torch.uint16)}, tmp_path / "a", _use_new_zipfile_serialization=False)
    assert re.search("uint16|UntypedStorage", refusal(tmp_path / "a"))


def test_views_are_views_of_one_memory_again(torch, write):
    base = torch.from_numpy(NUMBERS)
    views = {
        "base": base, "transposed": base.permute(2, 0, 1), "strided": base[:, ::2, 1::2], "offset": base[1, 1:],
        "expanded": base[0, 0, :2].expand(5, 2), "one": base[1, 2, 3], "alias": base.view(6, 4),
        "parameter": torch.nn.Parameter(base[0]),
    }
    arrays = {name: np.asarray(view.detach()) for name, view in views.items()}
    loaded = dl.load(write(views))
    assert_state(loaded, arrays)
    assert all(np.shares_memory(loaded["base"].data, tensor.data) for tensor in loaded.values())
    loaded["base"].data[1, 2, 3] = -1
    assert loaded["one"].item() == loaded["alias"].data[5, 3] == -1


def test_what_shares_no_memory_stays_apart(torch, write):
    loaded = dl.load(write({"a": torch.ones(3), "b": torch.ones(3)}))
    assert not np.shares_memory(loaded["a"].data, loaded["b"].data)


@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3), (1, 1), (1,) * 20])
def test_shapes_without_a_length_or_with_many(torch, write, shape):
    array = np.ones(shape)
    assert_state(dl.load(write({"a": torch.from_numpy(array)})), {"a": array})


def test_a_state_dict_of_a_module_and_names_of_any_language(torch, write):
    net = torch.nn.Sequential(OrderedDict(größe=torch.nn.Linear(2, 3), 重み=torch.nn.BatchNorm1d(3)))
    for state in net.state_dict(), net.state_dict(keep_vars=True), OrderedDict(net.state_dict()):
        assert_state(dl.load(write(state)), {name: value.detach().numpy() for name, value in state.items()})


def test_a_tensor_that_is_to_be_negated_is_negated_or_refused(torch, write):
    path = write({"a": torch.tensor([1 + 2j]).conj().imag})
    assert torch.load(path)["a"].tolist() == [-2]
    assert_right_or_refused(path, {"a": np.array([-2], np.float32)})


def test_tensors_of_a_gpu_come_to_the_cpu(torch, write, monkeypatch):
    monkeypatch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
    path = write({"a": torch.from_numpy(NUMBERS)})
    assert b"cuda:0" in path.read_bytes()
    assert_state(dl.load(path), {"a": NUMBERS})


def test_big_endian_records_come_back(torch, tmp_path):
    state = {"a": torch.arange(3.0), "b": torch.tensor(2), "c": torch.tensor([True]), "d": torch.ones(2).half()}
    torch.save(state, tmp_path / "little")
    with zipfile.ZipFile(tmp_path / "little") as little, zipfile.ZipFile(tmp_path / "big", "w") as big:
        for record in little.infolist():
            content = little.read(record)
            if "/data/" in record.filename:
                size = list(state.values())[int(Path(record.filename).name)].element_size()
                content = np.frombuffer(content, f"V{size}").view((np.uint8, size))[..., ::-1].tobytes()
            big.writestr(record.filename, b"big" if record.filename.endswith("byteorder") else content)
    assert_state(dl.load(tmp_path / "big"), {name: tensor.numpy() for name, tensor in state.items()})


def test_the_old_format_is_little_endian_whatever_machine_wrote_it(torch, tmp_path):
    path = tmp_path / "legacy"
    torch.save({"a": torch.arange(3.0)}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    swapped = re.sub(rb"(?<=little_endianq.)\x88", b"\x89", content)
    assert len(swapped) == len(content) and swapped != content
    path.write_bytes(swapped)
    assert_state(dl.load(path), {"a": torch.load(path)["a"].numpy()})


# Where the model's state lies

NESTS = {
    "alone": lambda state: state,
    "state_dict": lambda state: {"epoch": 3, "arch": "lenet", "state_dict": state, "best": 91.7},
    "model": lambda state: {"args": {"lr": 0.1, "steps": [1, 2]}, "model": state},
    "another name": lambda state: {"lenet5": state, "done": True, "history": [0.5, None]},
    "two deep": lambda state: {"trainer": {"network_of_mine": state}, "version": (1, 2)},
    "three deep": lambda state: {"a": {"b": {"c": state}}},
    "beside an average": lambda state: {"model": state, "model_ema": {name + "2": state[name] for name in state}},
}


@pytest.mark.parametrize("nest", NESTS.values(), ids=NESTS)
def test_the_state_is_found_wherever_it_lies(torch, write, nest):
    state = {"a": torch.from_numpy(NUMBERS)}
    assert_state(dl.load(write(nest(state))), {"a": NUMBERS})
    assert_state(dl.load(write(nest({f"module.{name}": value for name, value in state.items()}))), {"a": NUMBERS})


@pytest.mark.parametrize("beside", ["best_acc1", "rng_state", "loss"])
def test_a_tensor_beside_the_state_is_not_taken_for_it(torch, write, beside):
    # PyTorch's own ImageNet example saves its best accuracy as a tensor.
    content = {"epoch": 3, "state_dict": {"a": torch.from_numpy(NUMBERS)}, beside: torch.tensor(91.7)}
    assert_state(dl.load(write(content)), {"a": NUMBERS})


def test_what_lies_beside_the_state_does_not_matter(torch, write):
    adam = {"state": {0: {"step": torch.tensor(1.0), "exp_avg": torch.ones(2, dtype=torch.bfloat16)}},
            "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.999), "amsgrad": False, "maximize": None, "params": [0]}]}
    content = {"state_dict": {"a": torch.from_numpy(NUMBERS)}, "optimizer": adam, "text": "ü", "large": 1 << 70}
    assert_state(dl.load(write(content)), {"a": NUMBERS})


def test_a_schedule_in_steps_may_lie_beside_the_state(torch, write):
    schedule = {"milestones": Counter([3, 6]), "gamma": 0.1, "last_epoch": 0}  # as MultiStepLR.state_dict() has it
    assert_state(dl.load(write({"state_dict": {"a": torch.from_numpy(NUMBERS)}, "schedule": schedule})), {"a": NUMBERS})


def test_numbers_that_no_tensor_can_be_are_refused_by_name(torch, write):
    for dtype in torch.bfloat16, torch.complex64:
        message = refusal(write({"fine": torch.ones(2), "b.weight": torch.ones(2, dtype=dtype)}))
        assert f"'b.weight' as {str(dtype).removeprefix('torch.')}, which no tensor can be" in message


def test_several_states_are_refused(torch, write):
    ones = torch.ones(2)
    assert "the states of several models" in refusal(write({"generator": {"a": ones}, "critic": {"a": ones + 1}}))


def test_an_empty_state_is_a_state(torch, write):
    for state in {}, OrderedDict(), torch.nn.ReLU().state_dict():
        assert dl.load(write(state)) == {}


@pytest.mark.parametrize("content", [[1, 2], 3, None, {"epoch": 3}, {"a": {}}, "text"], ids=repr)
def test_what_holds_no_state_is_refused(torch, write, content):
    assert f"no names with tensors, but a {type(content).__name__}" in refusal(write(content))


def test_a_whole_module_is_refused_by_its_class(torch, write):
    message = refusal(write(torch.nn.Sequential(torch.nn.Linear(2, 2))))
    assert "asks for torch.nn.modules.container.Sequential, " in message and "state_dict() alone" in message


# Pickles made by hand

def text(value):
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value):
    return pickle.dumps(value, 2)[2:-1]


def name_of(dotted):
    return "c{}\n{}\n".format(*dotted.rsplit(".", 1)).encode()


def tensor(length=1, offset=0, shape=(1,), strides=(1,), kind="FloatStorage", rebuild="_rebuild_tensor_v2", rest=b"",
           view=b""):
    storage = b"(%b%b%b%b%b%btQ" % (
        text("storage"), name_of(f"torch.{kind}"), text("0"), text("cpu"), number(length), view)
    shape, strides = (part if isinstance(part, bytes) else number(part) for part in (shape, strides))
    rest = rest or (b"\x89)" if rebuild.endswith("v2") else b"")
    return name_of(f"torch._utils.{rebuild}") + b"(" + storage + number(offset) + shape + strides + rest + b"tR"


def state_of(*tensors):
    return b"}" + b"".join(text(f"t{index}") + program + b"s" for index, program in enumerate(tensors)) + b"."


PROTOCOL = b"\x80\x02"
ONE = struct.pack("<f", 1)


def in_zip(program, storage=ONE, byteorder=None, compression=zipfile.ZIP_STORED):
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", PROTOCOL + program)
        archive.writestr("archive/data/0", storage)
        if byteorder is not None:
            archive.writestr("archive/byteorder", byteorder, compression)
    return file.getvalue()


ONLY_KEY = b"]" + text("0") + b"a."


def in_legacy(program, storage=ONE, keys=ONLY_KEY, length=None):
    head = (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True})
    return (b"".join(pickle.dumps(part, 2) for part in head) + PROTOCOL + program + PROTOCOL + keys
            + struct.pack("<q", len(storage) // 4 if length is None else length) + storage)


def in_the_open(program):
    return PROTOCOL + program


every_container = pytest.mark.parametrize("container", [in_zip, in_legacy, in_the_open])


@pytest.mark.parametrize("container", [in_zip, in_legacy])
def test_pickles_by_hand_are_like_pytorchs(tmp_path, container):
    (tmp_path / "a").write_bytes(container(state_of(tensor())))
    assert_state(dl.load(tmp_path / "a"), {"t0": np.ones(1, np.float32)})


def test_a_storage_that_is_part_of_another_as_before_0_4(tmp_path):
    values = np.arange(6, dtype=np.float32)
    part = b"(" + text("1") + number(2) + number(3) + b"t"
    content = in_legacy(state_of(tensor(6, 0, (3,), rebuild="_rebuild_tensor", view=part),
                                 tensor(6, 0, (6,), rebuild="_rebuild_tensor", view=b"N")), values.tobytes())
    (tmp_path / "a").write_bytes(content)
    assert_state(dl.load(tmp_path / "a"), {"t0": values[2:5], "t1": values})


def test_an_ordered_dict_as_python_2_pickled_it(tmp_path):
    pair = b"](U\x01a" + tensor() + b"e"  # a list of lists, and names of bytes
    (tmp_path / "a").write_bytes(in_legacy(name_of("collections.OrderedDict") + b"](" + pair + b"e\x85R."))
    assert_state(dl.load(tmp_path / "a"), {"a": np.ones(1, np.float32)})


COMMAND = "echo > executed"


class Call:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


CALL = text(COMMAND) + b"\x85R."
TRAPS = {
    "GLOBAL": (name_of("os.system") + CALL, "asks for os.system, "),
    "protocol 0": (f"cos\nsystem\n(S'{COMMAND}'\ntR.".encode(), "asks for os.system, "),
    "STACK_GLOBAL": (text("os") + text("system") + b"\x93" + CALL, "asks for os.system, "),
    "STACK_GLOBAL of the memo": (text("system") + b"q\x00" + text("os") + b"h\x00\x93" + CALL, "asks for os.system, "),
    "inside a state": (b"}" + text("a") + name_of("os.system") + text(COMMAND) + b"\x85Rs.", "asks for os.system, "),
    "INST": (f"(S'{COMMAND}'\nios\nsystem\n.".encode(), "instruction INST"),
    "OBJ": (b"(" + name_of("os.system") + text(COMMAND) + b"o.", "asks for os.system, "),
    "importer": (name_of("importlib.import_module") + text("os") + b"\x85R.", "asks for importlib.import_module, "),
    **{f"{name} by protocol {protocol}": (pickle.dumps(Call(function, argument), protocol), f"asks for {asked}, ")
       for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
       for name, function, argument, asked in [
           ("os.system", os.system, COMMAND, f"{os.name}.system"),
           ("eval", eval, "open('executed', 'w')", "builtins.eval" if protocol > 2 else "__builtin__.eval")]},
}
PLAIN = name_of("collections.OrderedDict")
REFUSED = {
    "what a lent name holds": (text("torch._utils") + text("_rebuild_tensor_v2.__globals__") + b"\x93.",
                               "asks for torch._utils._rebuild_tensor_v2.__globals__, "),
    "a method of what is lent": (text("collections") + text("OrderedDict.fromkeys") + b"\x93.",
                                 "asks for collections.OrderedDict.fromkeys, "),
    "OBJ of what is lent": (b"(" + PLAIN + b"o.", "instruction OBJ"),
    "NEWOBJ": (PLAIN + b")\x81.", "instruction NEWOBJ"),
    "NEWOBJ_EX": (PLAIN + b")}\x92.", "instruction NEWOBJ_EX"),
    "EXT1": (b"\x82\x01.", "instruction EXT1"),
    "EXT2": (b"\x83\x01\x00.", "instruction EXT2"),
    "EXT4": (b"\x84\x01\x00\x00\x00.", "instruction EXT4"),
    "PERSID": (b"Pstorage\n.", "instruction PERSID"),
    "attributes of a function": (PLAIN + b"}" + text("__code__") + b"Nsb.", "a function stands where a dict belongs"),
    "a call of text": (text("os.system") + CALL, "called that is no function"),
    "a call of a dtype": (name_of("torch.FloatStorage") + b")R.", "called that is no function"),
    "a call without arguments": (PLAIN + b"NR.", "called that is no function"),
    "another persistent object": (b"(" + text("module") + text("a") + b"tQ.", "no storage"),
    "a persistent number": (b"K\x01Q.", "no storage"),
    "a storage of no kind": (b"(" + text("storage") + b"K\x01" + text("0") + text("cpu") + b"K\x01tQ.", "no known way"),
    "a name of no text": (b"K\x01K\x02\x93.", "asks for 1.2, "),
    "a name in two lines": (text("os\nis") + text("fine") + b"\x93.", "asks for "),
    "a name in an alphabet that is none": (b"X\x03\0\0\0\xed\xa0\x80" + text("a") + b"\x93.", "asks for "),
    "a name with an escape": (b"cos\\d\nsystem\n.", ""),
    "a text with an escape": (b"S'\\d'\n.", ""),
    "a very long name": (b"c" + b"a" * 10_000 + b"\nb\n.", "aaaa"),
    "a very long number": (b"F" + b"\xff" * 10_000 + b"\n.", ""),
    "an unknown instruction": (b"\xff.", "damaged"),
    "no end": (b"}", ""),
    "nothing on the stack": (b".", "damaged"),
    "a mark as the result": (b"(.", "a mark stands where a value belongs"),
    "no mark": (b"}e.", "damaged"),
    "a memo that is empty": (b"h\x05.", "damaged"),
    "a key without a value": (b"}(K\x01u.", "a key has no value"),
    "a key that is a list": (b"}]K\x01s.", "damaged"),
}


@every_container
@pytest.mark.parametrize("program, complaint", (TRAPS | REFUSED).values(), ids=TRAPS | REFUSED)
def test_nothing_is_executed_and_what_was_asked_for_is_said(tmp_path, monkeypatch, container, program, complaint):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.pth").write_bytes(container(program))
    message = refusal(tmp_path / "a.pth")
    assert complaint in message and message.isprintable()
    assert os.listdir(tmp_path) == ["a.pth"]


@pytest.mark.parametrize("program", [program for program, _ in TRAPS.values()], ids=TRAPS)
def test_pickle_itself_would_have_fallen_into_the_trap(tmp_path, monkeypatch, program):
    monkeypatch.chdir(tmp_path)
    result = pickle.loads(program)
    if result is not os:
        getattr(result, "close", int)()
        assert os.path.exists("executed")


def test_a_pickle_without_its_first_byte_is_not_executed_either(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.pth").write_bytes(TRAPS["protocol 0"][0])
    assert refusal(tmp_path / "a.pth") and os.listdir(tmp_path) == ["a.pth"]


def test_attributes_are_passed_over(tmp_path):
    attributes = b"}" + text("__class__") + name_of("torch.FloatStorage") + b"sb"
    (tmp_path / "a").write_bytes(in_zip(b"}" + attributes + text("t0") + tensor() + b"s."))
    assert_state(dl.load(tmp_path / "a"), {"t0": np.ones(1, np.float32)})


def test_a_pickle_in_numpys_archive_is_not_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("a.npz", fine=np.ones(2), bad=np.array([Call(os.system, COMMAND)], dtype=object))
    assert "'bad' as object, which no tensor can be" in refusal(tmp_path / "a.npz")
    assert os.listdir(tmp_path) == ["a.npz"]


IMPOSSIBLE = {
    "a value beyond the storage": in_zip(state_of(tensor(1, 1))),
    "a row beyond the storage": in_zip(state_of(tensor(1, 0, (2,), (1,)))),
    "an offset without end": in_zip(state_of(tensor(1, 1 << 80))),
    "an offset before the storage": in_zip(state_of(tensor(1, -1))),
    "a negative stride": in_zip(state_of(tensor(1, 0, (1,), (-1,)))),
    "a stride without end": in_zip(state_of(tensor(1, 0, (1,), (1 << 70,)))),
    "a shape of no numbers": in_zip(state_of(tensor(shape=text("ab"), strides=text("ab")))),
    "as many axes as no array has": in_zip(state_of(tensor(shape=(1,) * 65, strides=(1,) * 65))),
    "nothing, as often as can be": in_zip(state_of(tensor(shape=(0, 1 << 62), strides=(1, 1)))),
    "a storage of another length": in_zip(state_of(tensor(2))),
    "a storage of another name": in_zip(state_of(tensor()).replace(text("0"), text("1"))),
    "a storage of two dtypes": in_zip(state_of(tensor(), tensor(kind="IntStorage"))),
    "the old format without the storage": in_legacy(state_of(tensor()), b""),
    "the old format with another length": in_legacy(state_of(tensor()), length=2),
    "the old format with a length beyond any disk": in_legacy(state_of(tensor(1 << 60)), length=1 << 60),
    "the old format with a length beyond any number": in_legacy(state_of(tensor(1 << 62)), length=1 << 62),
    "the old format with keys that are a number": in_legacy(state_of(tensor()), keys=b"K\x01."),
    "the old format with keys that are lists": in_legacy(state_of(tensor()), keys=b"]]a."),
    "the old format with a key of no storage": in_legacy(state_of(tensor()), keys=b"]" + text("1") + b"a."),
    "the old format without keys": in_legacy(state_of(tensor()), keys=b"]."),
    "a byte order that is none": in_zip(state_of(tensor()), byteorder=b"middle"),
    "another pickle": pickle.dumps({"a": 1}),
    "a record's name in two lines": in_zip(state_of(tensor())).replace(b"archive/", b"arch\nve/")[:-60] + bytes(60),
}


@pytest.mark.parametrize("content", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_what_cannot_be_is_refused(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    assert refusal(tmp_path / "a").isprintable()


# Files that ask for more than they are

def doubled(make):
    """Something that holds twice what holds twice what …"""
    steps = (b"q" + bytes([index]) + b"h" + bytes([index]) + make for index in range(60))
    return b"(" * 60 + b"N" + b"".join(steps)


def in_memo(index, value):
    return value + b"q" + bytes([index])


def dicts_of_one_dict(width, depth):
    level = b"}q\x00"
    for index in range(depth):
        keys = b"".join(b"M" + struct.pack("<H", key) + b"h" + bytes([index]) for key in range(width))
        level += in_memo(index + 1, b"}(" + keys + b"u")
    return level + b"."


def repeated_call(function, argument, count=10_000):
    return in_memo(0, name_of(function)) + in_memo(1, argument) + b"](" + b"h\x00h\x01\x85R" * count + b"e."


def pairs_of_numbers(opening, closing, count=10_000):
    return opening + b"".join(b"M" + struct.pack("<H", key) + b"N\x86" for key in range(count)) + closing


def npz(header, data=ONE, compression=zipfile.ZIP_STORED):
    head = header.encode() + b"\n"
    file = BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("a.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + data)
    return file.getvalue()


def npz_that_claims(size):
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({size},), }}"
    content = npz(header, bytes(1000), zipfile.ZIP_DEFLATED)
    in_directory = content.rindex(b"PK\x01\x02") + 24
    (real,) = struct.unpack_from("<I", content, in_directory)
    claimed = struct.pack("<I", real - 1000 + size)
    return content[:in_directory] + claimed + content[in_directory + 4 :]


BOMBS = {
    "a memo far away": in_zip(b"}r\x00\x00\x00\x80j\x00\x00\x00\x80."),
    "a memo farther away": in_zip(b"}p99999999999999999999\n."),
    "text of 4 GB": in_zip(b"X\xff\xff\xff\xffabc."),
    "text of 4 GB in the old format": in_legacy(b"X\xff\xff\xff\xffabc."),
    "text of 8 EB": in_zip(b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7fabc."),
    "a number of 2 GB": in_legacy(b"\x8b\xff\xff\xff\x7fabc."),
    "one list in a list, often": in_zip(in_memo(0, b"]") + b"(" + b"h\x00" * 100_000 + b"e."),
    "a dict in itself": in_zip(b"}q\x00" + text("a") + b"h\x00s."),
    "a dict in itself, often": in_zip(
        b"}q\x00(" + b"".join(b"M" + struct.pack("<H", key) + b"h\x00" for key in range(1000)) + b"u."),
    "dicts of one dict": in_zip(dicts_of_one_dict(1000, 3)),
    "100,000 tuples, nested": in_zip(b")" + b"\x85" * 100_000 + b"."),
    "10,000 lists, nested": in_zip(b"]" * 10_000 + b"a" * 9999 + b"."),
    "200,000 tuples, nested, as a key": in_zip(b"})" + b"\x85" * 200_000 + b"Ns."),
    "200,000 tuples, nested, as a key of an OrderedDict": in_zip(
        name_of("collections.OrderedDict") + b"]()" + b"\x85" * 200_000 + b"N\x86e\x85R."),
    "doubling tuples": in_zip(doubled(b"t") + b"."),
    "doubling tuples as a key": in_zip(b"}" + doubled(b"t") + b"Ns."),
    "doubling lists as a dtype": in_zip(doubled(b"l") + b"qd" + state_of(
        tensor(rebuild="_rebuild_tensor_v3", rest=b"\x89)hd"))),
    "doubling tuples as a storage's key": in_legacy(b"}.", keys=b"]" + doubled(b"t") + b"a."),
    "doubling lists as a shape": in_zip(doubled(b"l") + b"qd" + state_of(tensor(shape=b"hd"))),
    "doubling tuples as a name": in_zip(doubled(b"t") + text("system") + b"\x93."),
    "one dict of many items, often": in_zip(
        repeated_call("collections.OrderedDict", pairs_of_numbers(b"](", b"e"))),
    "one dict of many items in a tuple, often": in_zip(
        repeated_call("collections.OrderedDict", pairs_of_numbers(b"(", b"t"))),
    "one long text, often": in_zip(repeated_call("torch.Size", text("a" * 10_000))),
    "numbers of many digits, multiplied": in_zip(
        in_memo(0, b"\x8b" + struct.pack("<I", 100_000) + b"\x7f" * 100_000) + in_memo(1, b"(" + b"h\x00" * 1000 + b"t")
        + state_of(tensor(shape=b"h\x01", strides=b"h\x01"))),
    "two lengths of one storage": in_legacy(state_of(tensor(1 << 32), tensor())),
    "a byte order of 16 MB": in_zip(state_of(tensor()), byteorder=bytes(1 << 24), compression=zipfile.ZIP_DEFLATED),
    "an array of 1 GB in 1 kB": npz_that_claims(1 << 30),
}
WATCHED = """
import json, signal, sys, tracemalloc
import minidl as dl
for path in sys.argv[1:]:
    for traced in False, True:
        if hasattr(signal, "setitimer"):  # ends this process after so many seconds of computing, inside C as well
            signal.setitimer(signal.ITIMER_PROF, 20 if traced else 2)
        traced and tracemalloc.start()
        try:
            outcome = {"loaded": len(dl.load(path))}
        except BaseException as error:
            outcome = {"error": type(error).__name__, "message": str(error)}
        outcome["peak"] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    print(json.dumps(outcome), flush=True)
"""


@pytest.fixture(scope="module")
def explosions(tmp_path_factory):
    """What became of each bomb, loaded in a process of its own that may crash or be ended."""
    folder = tmp_path_factory.mktemp("bombs")
    for name, content in BOMBS.items():
        (folder / name).write_bytes(content)
    outcomes = {}
    while left := [name for name in BOMBS if name not in outcomes]:
        child = subprocess.run([sys.executable, "-W", "error", "-c", WATCHED, *(folder / name for name in left)],
                               capture_output=True, text=True, timeout=120)
        outcomes |= zip(left, map(json.loads, child.stdout.splitlines()))
        if child.returncode:
            name = next(name for name in left if name not in outcomes)
            outcomes[name] = {"error": f"the process ended with {child.returncode}", "message": child.stderr[-300:]}
    return folder, outcomes


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_takes_neither_time_nor_memory(explosions, name):
    folder, outcomes = explosions
    outcome = outcomes[name]
    if "loaded" not in outcome:
        assert outcome["error"] == "ValueError", outcome
        assert outcome["message"].startswith(f"{folder / name} ") and len(outcome["message"]) < 1000
    # An instruction of one byte may make an object of 80.
    assert outcome["peak"] <= 100 * len(BOMBS[name]) + (2 << 20)


# NumPy's archives made by hand

LAYOUT = "{'descr': %s, 'fortran_order': %s, 'shape': %s, }"
HEADERS = {
    "a shape that does not end": LAYOUT % ("'<f4'", False, "(1,"),
    "a shape of other numbers": LAYOUT % ("'<f4'", False, "(1.5,)"),
    "a shape below zero": LAYOUT % ("'<f4'", False, "(-1, -1)"),
    "a shape without end": LAYOUT % ("'<f4'", False, f"({2**62}, 0)"),
    "another size": LAYOUT % ("'<f4'", False, "(2,)"),
    "as many axes as no array has": LAYOUT % ("'<f4'", False, f"({'1, ' * 65})"),
    "text": LAYOUT % ("'<U1'", False, "(1,)"),
    "letters": LAYOUT % ("'a4'", False, "(1,)"),
    "objects": LAYOUT % ("'|O'", False, "(1,)"),
    "complex numbers": LAYOUT % ("'<c8'", False, "(1,)"),
    "fields": LAYOUT % ("[('x', '<f4')]", False, "(1,)"),
    "half of a dtype": LAYOUT % ("()", False, "(1,)"),
    "a field of one word": LAYOUT % ("[('x',)]", False, "(1,)"),
    "no dtype": LAYOUT % ("None", False, "(1,)"),
    "an escape": LAYOUT % ("'<\\d4'", False, "(1,)"),
    "another key": "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), 1: 2}",
    "no key": "{[]: 1}",
    "no dict": "3",
    "a call": "__import__('os').system('echo > executed')",
    "lines": "  1\n 2\n3",
    "brackets": "(" * 5000,
    "signs": "-" * 9000 + "1",
    "length": " " * 20_000,
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_a_header_of_another_kind_is_refused(tmp_path, monkeypatch, header):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.npz").write_bytes(npz(header))
    assert refusal(tmp_path / "a.npz").isprintable()
    assert os.listdir(tmp_path) == ["a.npz"]


@pytest.mark.parametrize("shape", ["(1L,)", "(True,)"])
def test_a_shape_of_odd_numbers_is_read_without_a_warning_or_refused(tmp_path, shape):
    (tmp_path / "a.npz").write_bytes(npz(LAYOUT % ("'<f4'", False, shape)))
    assert_right_or_refused(tmp_path / "a.npz", {"a": np.ones(1, np.float32)})


ZIP_FIELDS = {  # where a file's directory is damaged: from which signature, how far behind it, by which bytes
    "a method that is bzip2's": (b"PK\x01\x02", 10, b"\x0c\x00"),
    "a method that is LZMA's": (b"PK\x01\x02", 10, b"\x0e\x00"),
    "a method that is none": (b"PK\x01\x02", 10, b"\x63\x00"),
    "encryption": (b"PK\x01\x02", 8, b"\x01\x00"),
    "another checksum": (b"PK\x01\x02", 16, b"abcd"),
    "another size": (b"PK\x01\x02", 24, b"\xff\xff\xff\x7f"),
    "a record elsewhere": (b"PK\x01\x02", 42, b"\xff\xff\xff\x7f"),
    "a directory elsewhere": (b"PK\x05\x06", 16, b"\xff\xff\x00\x00"),
    "a directory of another size": (b"PK\x05\x06", 12, b"\xff\xff\x00\x00"),
    "a directory of no size": (b"PK\x05\x06", 12, b"\x00\x00"),
    "a name in two lines": (b"PK\x01\x02", 46, b"\n"),
}


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "deflated"])
@pytest.mark.parametrize("signature, behind, patch", ZIP_FIELDS.values(), ids=ZIP_FIELDS)
def test_a_damaged_directory_is_refused(tmp_path, compression, signature, behind, patch):
    content = bytearray(npz(LAYOUT % ("'<f4'", False, "(1,)"), ONE, compression))
    at = content.rindex(signature) + behind
    content[at : at + len(patch)] = patch
    (tmp_path / "a").write_bytes(content)
    assert refusal(tmp_path / "a").isprintable()


def test_a_record_that_the_directory_hides_is_missed(tmp_path):
    np.savez(tmp_path / "a", a=NUMBERS, b=NUMBERS)
    content = bytearray((tmp_path / "a.npz").read_bytes())
    first, second, end = content.index(b"PK\1\2"), content.rindex(b"PK\1\2"), content.rindex(b"PK\5\6")
    content[first + 32] = end - second  # the length of the first record's comment
    (tmp_path / "a.npz").write_bytes(content)
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        assert archive.namelist() == ["a.npy"]
    assert refusal(tmp_path / "a.npz")


@pytest.mark.parametrize("shape", [[0, 2**63], [0, 2**62], [1] * 65], ids=["wide", "empty", "axes"])
def test_a_safetensors_shape_that_no_array_has_is_refused(tmp_path, shape):
    header = json.dumps({"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, 0 if 0 in shape else 4]}}).encode()
    (tmp_path / "a").write_bytes(struct.pack("<Q", len(header)) + header + (b"" if 0 in shape else ONE))
    assert refusal(tmp_path / "a")


# Damage

MUTANTS = {"zip.pth": 250, "legacy.pth": 250, "zip.th": 150, "legacy.th": 150, "stored.npz": 400,
           "compressed.npz": 400, "ours.safetensors": 400}
HUGE = [0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, 1 << 24, 1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 1]
SIGNATURES = re.compile(rb"PK|\x80\x02|\x93NUMPY|storage|^")


def mutant(content, rng):
    """`content` damaged in one place: half of the places lie behind a signature, where sizes and offsets are."""
    near = [match.start() for match in SIGNATURES.finditer(content)]
    at = int(rng.choice(near) + rng.integers(60) if rng.random() < 0.5 else rng.integers(len(content))) % len(content)
    kind = int(rng.integers(6))
    if kind == 0:
        return content[:at] + bytes([content[at] ^ 1 << int(rng.integers(8))]) + content[at + 1 :]
    if kind == 1:
        return content[:at]
    patch = rng.bytes(int(rng.integers(1, 40)))
    if kind == 2:
        return content[:at] + patch + content[at:]
    if kind in (3, 4):
        width = 4 * (kind - 2)
        patch = (HUGE[int(rng.integers(len(HUGE)))] % (1 << 8 * width)).to_bytes(width, "little")
    return content[:at] + patch + content[at + len(patch) :]


@pytest.mark.parametrize("name", MUTANTS)
def test_damage_is_found_or_does_not_matter(name, weights, tmp_path):
    path, rng = tmp_path / name, np.random.default_rng(0)
    if name.endswith(".npz"):
        (np.savez if name == "stored.npz" else np.savez_compressed)(path, **weights)
    elif name == "ours.safetensors":
        dl.save(weights, path, {"epoch": "3"})
    else:
        path.write_bytes((FIXTURES / name).read_bytes())
    content = path.read_bytes()
    assert_state(dl.load(path), weights)  # and lets modules be imported before memory is measured
    wrong = {}
    for index in range(MUTANTS[name]):
        damaged = mutant(content, rng)
        path.write_bytes(damaged)
        tracemalloc.start()
        try:
            loaded = dl.load(path)
        except ValueError as error:
            if not str(error).startswith(f"{path} ") or "\n" in str(error):
                wrong.setdefault(f"says {error}", index)
        except Exception as error:
            wrong.setdefault(f"{type(error).__name__}: {error}", index)
        else:
            if not has_what_was_saved(loaded, weights, name):
                wrong.setdefault("loads something else", index)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        if peak > 2 * len(damaged) + (1 << 20):
            wrong.setdefault(f"takes {peak:,} bytes", index)
    assert wrong == {}


def has_what_was_saved(loaded, weights, name):
    if name.startswith("legacy"):  # it has no checksums, so that any value may have changed
        return all(isinstance(key, str) and isinstance(tensor, dl.Tensor)
                   and (0 in tensor.shape or np.isscalar(tensor.data[(-1,) * tensor.ndim]))
                   for key, tensor in loaded.items())
    return loaded.keys() == weights.keys() and all(
        tensor.dtype == weights[key].dtype and np.array_equal(tensor.data, weights[key])
        for key, tensor in loaded.items())


# Large files

STREAMED = """
import sys, tracemalloc
from pathlib import Path
import numpy as np
import minidl as dl

def high_water():
    status = Path("/proc/self/status")
    return int(status.read_text().split("VmHWM:")[1].split()[0]) << 10 if status.exists() else 0

path, saves = sys.argv[1], sys.argv[2] == "save"
state = {"a": np.arange(12 << 20, dtype=np.float32).reshape(4, -1), "b": np.ones(2 << 20)} if saves else {}
tracemalloc.start()
before = high_water()
dl.save(state, path) if saves else dl.load(path)
print(tracemalloc.get_traced_memory()[1], high_water() - before)
"""


@pytest.fixture
def large(tmp_path):
    """Where a large file may be, for as long as the test."""
    yield tmp_path / "large"
    for path in tmp_path.iterdir():
        path.unlink()


def peaks(path, what):
    child = subprocess.run([sys.executable, "-c", STREAMED, path, what], capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
    return max(map(int, child.stdout.split())) / path.stat().st_size


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".zip", ".legacy"])
def test_a_large_file_is_never_in_memory_twice(large, suffix, request):
    path = large.with_suffix(suffix)
    state = {"a": np.arange(12 << 20, dtype=np.float32).reshape(4, -1), "b": np.ones(2 << 20)}
    if suffix in (".zip", ".legacy"):
        torch = request.getfixturevalue("torch")
        torch.save({name: torch.from_numpy(array) for name, array in state.items()}, path,
                   _use_new_zipfile_serialization=suffix == ".zip")
    else:
        dl.save(state, path)
    assert path.stat().st_size >= 64 << 20
    assert peaks(path, "load") < 1.3


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_saving_takes_no_memory(large, suffix):
    assert peaks(large.with_suffix(suffix), "save") < 0.3


# What save writes

NAMES = ["file", "a/b", "", "../a", "a.npy", "größe", "self", "arr_0", "a\nb", " ", "a\\b"]


def test_a_state_comes_back_from_numpys_archive_under_any_name(tmp_path):
    state = {name: np.full((2, index), index, np.float32) for index, name in enumerate(NAMES)}
    dl.save(state, tmp_path / "a.npz")
    assert_state(dl.load(tmp_path / "a.npz"), state)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("names", [["a" * 70_000], ["\ud800"], ["a\0b", "a\0c"]], ids=["long", "surrogate", "NUL"])
def test_a_name_that_a_file_cannot_hold_is_refused(tmp_path, suffix, names):
    path, state = tmp_path / f"a{suffix}", {name: np.full(2, index) for index, name in enumerate(names)}
    try:
        dl.save(state, path)
    except ValueError:
        assert os.listdir(tmp_path) == []
    else:
        assert_state(dl.load(path), state)


def test_numpy_reads_what_save_writes_and_the_reverse(tmp_path):
    arrays = {dtype: NUMBERS.astype(dtype) for dtype in DTYPES.values()} | {
        "one": np.array(3.0), "none": NUMBERS[:0], "columns": np.asfortranarray(NUMBERS[0]), "tensor": NUMBERS}
    dl.save(arrays | {"tensor": dl.tensor(NUMBERS)}, tmp_path / "ours.npz")
    with np.load(tmp_path / "ours.npz") as theirs:
        assert_state({name: dl.Tensor(theirs[name]) for name in theirs}, arrays)
    for write in np.savez, np.savez_compressed:
        write(tmp_path / "theirs.npz", big=NUMBERS.astype(">f4"), **arrays)
        assert_state(dl.load(tmp_path / "theirs.npz"), {"big": NUMBERS, **arrays})


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".th", ".pkl", ".ckpt"])
def test_save_writes_no_pickles_and_says_what_instead(tmp_path, suffix):
    with pytest.raises(ValueError, match=r"no pickles; name .*safetensors, which PyTorch opens with safetensors.torch"):
        dl.save({"a": NUMBERS}, tmp_path / f"a{suffix}")
    assert os.listdir(tmp_path) == []


def test_an_archive_of_numpy_holds_no_metadata(tmp_path):
    with pytest.raises(ValueError, match=r"holds no metadata; name .*a.npz \.safetensors"):
        dl.save({"a": NUMBERS}, tmp_path / "a.npz", {"epoch": "3"})
    assert os.listdir(tmp_path) == []
    dl.save({"a": NUMBERS}, tmp_path / "a.npz", {})
    assert_state(dl.load(tmp_path / "a.npz"), {"a": NUMBERS})
