"""Checkpoints of PyTorch and NumPy are read as they were meant, and hostile or broken ones do no harm."""

import argparse
import datetime
import functools
import json
import os
import pickle
import re
import struct
import subprocess
import sys
import zipfile
from collections import Counter, OrderedDict, defaultdict, deque
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from handmade import LAYOUT, ONE, call, in_legacy, in_the_open, in_zip, name_of, npz, state_of, tensor, text, value_of

import minidl as dl
from minidl.io.dtypes import DTYPES

FIXTURES = Path(__file__).parent / "checkpoints"
CHECKPOINTS = [f"{kind}{content}" for kind in ("zip", "legacy")
               for content in (".pth", ".th", "_extras.th", "_bfloat16.pth")]
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
    assert said.stdout.split() == ["9"] * len(CHECKPOINTS), said.stderr


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


def test_an_unsigned_tensor_comes_back_from_the_old_format_where_pytorch_cannot_read_it(torch, tmp_path):
    array = np.array([0, 1, 65535], np.uint16)
    torch.save({"a": torch.from_numpy(array)}, tmp_path / "a", _use_new_zipfile_serialization=False)
    assert_state(dl.load(tmp_path / "a"), {"a": array})


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


@pytest.mark.parametrize("dtype", ["complex64", "float8_e5m2"])
def test_numbers_that_no_tensor_can_be_are_refused_by_name(torch, write, dtype):
    message = refusal(write({"fine": torch.ones(2), "b.weight": torch.ones(2).to(getattr(torch, dtype))}))
    assert re.search(f"'b.weight' as .*{dtype}, which no tensor can be. Convert it to float32", message)


def test_bfloat16_becomes_float32_exactly(torch, write):
    numbers = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)  # all there are
    loaded = dl.load(write({"a": numbers.reshape(256, 256), "b": numbers[7:9], "c": numbers[5]}))
    assert loaded["a"].dtype == loaded["c"].dtype == np.float32 and loaded["c"].shape == ()
    np.testing.assert_array_equal(loaded["a"].data.view(np.uint32).ravel(), numbers.float().numpy().view(np.uint32))
    assert np.shares_memory(loaded["a"].data, loaded["b"].data)


def test_an_empty_state_is_a_state(torch, write):
    for state in {}, OrderedDict(), torch.nn.ReLU().state_dict():
        assert dl.load(write(state)) == {}


@pytest.mark.parametrize("content", [[1, 2], 3, None, {"epoch": 3}, {"a": {}}, "text"], ids=repr)
def test_what_holds_no_state_is_refused(torch, write, content):
    assert f"expected names with tensors, got {type(content).__name__}." in refusal(write(content))


def test_a_whole_module_is_refused_by_its_class(torch, write):
    message = refusal(write(torch.nn.Sequential(torch.nn.Linear(2, 2))))
    assert "asks for torch.nn.modules.container.Sequential, " in message and "state_dict() alone" in message


# Pickles made by hand

every_container = pytest.mark.parametrize("container", [in_zip, in_legacy, in_the_open])


@pytest.mark.parametrize("container", [in_zip, in_legacy])
def test_pickles_by_hand_are_like_pytorchs(tmp_path, container):
    (tmp_path / "a").write_bytes(container(state_of(tensor())))
    assert_state(dl.load(tmp_path / "a"), {"t0": np.ones(1, np.float32)})


def test_a_storage_that_is_part_of_another_as_before_0_4(tmp_path):
    values = np.arange(6, dtype=np.float32)
    part = b"(" + text("1") + value_of(2) + value_of(3) + b"t"
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
    "inside a state": (b"}" + text("a") + name_of("os.system") + text(COMMAND) + b"\x85Rs.", ""),
    "INST": (f"(S'{COMMAND}'\nios\nsystem\n.".encode(), "asks for os.system, "),
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
    "what an allowed name holds": (text("torch._utils") + text("_rebuild_tensor_v2.__globals__") + b"\x93.",
                               "asks for torch._utils._rebuild_tensor_v2.__globals__, "),
    "a method of what is allowed": (text("collections") + text("OrderedDict.fromkeys") + b"\x93.",
                                 "asks for collections.OrderedDict.fromkeys, "),
    "a call of an allowed function with other arguments": (b"(" + name_of("torch.Size") + b"K\x01o.", "damaged"),
    "EXT1": (b"\x82\x01.", "instruction EXT1"),
    "EXT2": (b"\x83\x01\x00.", "instruction EXT2"),
    "EXT4": (b"\x84\x01\x00\x00\x00.", "instruction EXT4"),
    "PERSID": (b"Pstorage\n.", "instruction PERSID"),
    "attributes of a function": (PLAIN + b"}" + text("__code__") + b"Nsb.", ""),
    "a call of text": (text("os.system") + CALL, "called that is no function"),
    "a call of a dtype": (name_of("torch.FloatStorage") + b")R.", "called that is no function"),
    "a call without arguments": (PLAIN + b"NR.", "called that is no function"),
    "another persistent object": (b"(" + text("module") + text("a") + b"tQ.", "no storage"),
    "a persistent number": (b"K\x01Q.", "no storage"),
    "a storage of no kind": (b"(" + text("storage") + b"K\x01" + text("0") + text("cpu") + b"K\x01tQ.", "no dtype"),
    "a storage of no name": (b"(" + text("storage") + b"K\x01K\x01" + text("cpu") + b"K\x01tQ.", "no known way"),
    "a name of no text": (b"K\x01K\x02\x93.", "a name is no text"),
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
    "a key that is a list": (b"}]K\x01s.", ""),
    "a memo with holes": (b"}q\x09.", "memo has holes"),
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


# What lies beside the state, in files made by hand

SCALAR, MATRIX, VECTOR = tensor(shape=(), strides=()), tensor(4, 0, (2, 2), (2, 1)), tensor(4, 0, (4,), (1,))
LAYER = {"weight": MATRIX, "bias": VECTOR}
NETWORK = {"conv.weight": MATRIX, "conv.bias": VECTOR}
OPTIMIZER = {"state": {0: {"exp_avg": MATRIX, "step": SCALAR}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
FOUR = np.arange(4, dtype=np.float32)
in_both_formats = pytest.mark.parametrize("container", [in_zip, in_legacy])


def write_by_hand(path, content, container):
    program = value_of(content).replace(tensor()[:-1], tensor(4)[:-1]).replace(SCALAR, tensor(4, 0, (), ()))
    path.write_bytes(container(program + b".", FOUR.tobytes()))
    return path


FOUND = {  # the content, and the names of what is found in it
    "a network beside its accuracy": ({"my_net": LAYER, "best_acc": SCALAR, "epoch": 3}, LAYER),
    "beside the random state": ({"my_net": LAYER, "rng": {"cpu": VECTOR, "gpu": VECTOR}}, LAYER),
    "beside a matrix of confusion": ({"my_net": LAYER, "confusion": MATRIX}, LAYER),
    "beside a matrix, under a usual name": ({"state_dict": {"a": VECTOR}, "confusion": MATRIX}, {"a": VECTOR}),
    "beside a history": ({"my_net": LAYER, "history": [{"loss": SCALAR}] * 3}, LAYER),
    "beside an optimizer": ({"my_net": LAYER, "optim": OPTIMIZER, "others": [OPTIMIZER]}, LAYER),
    "two deep, beside an average": ({"trainer": {"model": LAYER, "model_ema": NETWORK}}, LAYER),
    "in a list": ([LAYER, OPTIMIZER], LAYER),
    "statistics beside layers": (LAYER | {"stats": {"mean": VECTOR}}, LAYER),
    "an object beside the state, under a usual name": ({"state_dict": LAYER, "model": call("nets.Net")}, LAYER),
    "a number among the tensors": (LAYER | {"updates": 3, "name": "net"}, LAYER),
}
UNCLEAR = {  # the content, and what is said
    "two networks": ({"encoder": LAYER, "decoder": LAYER | {"a": SCALAR}, "loss": SCALAR},
                     r"the states of several models. Choose one, such as minidl.load\(path, key='encoder'\): "
                     r"'encoder' \(tensors: 2\), 'decoder' \(tensors: 3\)$"),
    "two networks, each with its state": ({"g": {"state_dict": LAYER}, "d": {"state_dict": LAYER | {"a": SCALAR}}},
                                          "key='g.state_dict'.*'d.state_dict'"),
    "two networks under a usual name": ({"model": {"a": LAYER, "b": NETWORK}, "ema": NETWORK}, "'model.a'.*'model.b'"),
    "layers beside layers": (NETWORK | {"head": LAYER}, r"'' \(tensors: 2\), 'head'"),
    "many networks": ({f"fold{index}": LAYER | {str(index): SCALAR} for index in range(20)}, "'fold7'.* and 12 more$"),
    "one name twice": ({0: MATRIX, "0": VECTOR}, "two tensors named '0', as a text and as a number"),
    "an object under a usual name": ({"model": call("nets.Net"), "ema": LAYER}, "asks for nets.Net, .*key='ema'"),
    "an object instead of the state": ({"net": call("nets.Net"), "optimizer": OPTIMIZER}, "asks for nets.Net, "),
    "a dict of another class": ({"net": call("nets.Dict", LAYER)}, "asks for nets.Dict, "),
    "a tensor of another kind": (LAYER | {"a": call("torch._utils._rebuild_sparse_tensor", 1)},
                                 "asks for torch._utils._rebuild_sparse_tensor, "),
    "an optimizer": (OPTIMIZER, "expected names with tensors, got dict"),
    "one tensor": (MATRIX, "expected names with tensors, got tensor"),
}


@in_both_formats
@pytest.mark.parametrize("content, state", FOUND.values(), ids=FOUND)
def test_the_network_is_told_from_what_lies_beside_it(tmp_path, container, content, state):
    loaded = dl.load(write_by_hand(tmp_path / "a", content, container))
    arrays = {MATRIX: FOUR.reshape(2, 2), VECTOR: FOUR, SCALAR: FOUR[0]}
    assert_state(loaded, {name: arrays[program] for name, program in state.items()})


@in_both_formats
@pytest.mark.parametrize("content, complaint", UNCLEAR.values(), ids=UNCLEAR)
def test_what_may_be_meant_is_said_where_it_is_unclear(tmp_path, container, content, complaint):
    assert re.search(complaint, refusal(write_by_hand(tmp_path / "a", content, container)))


@in_both_formats
def test_a_key_names_one_of_several_states(tmp_path, container):
    content = {"gan": {"generator": LAYER, "critic": NETWORK}, "a.b": {"c": {"module.x": MATRIX}}, 0: {"y": VECTOR}}
    path = write_by_hand(tmp_path / "a", content, container)
    names = {"gan.generator": ["weight", "bias"], "gan.critic": ["conv.weight", "conv.bias"], "a.b.c": ["x"],
             "a.b": ["x"], "0": ["y"], "gan.critic.conv": ["weight", "bias"]}
    assert {key: list(dl.load(path, key=key)) for key in names} == names
    with pytest.raises(TypeError, match="key must be text, such as 'gan.generator'; got 0"):
        dl.load(path, key=0)
    for key, complaint in {"gan": r"key='gan.generator'\).*'gan.critic'", "gan.x": "nothing named 'gan.x'; its first "
                           "names are 'gan', 'a.b', '0'", "gan.generator.bias": "got tensor"}.items():
        with pytest.raises(ValueError, match=complaint):
            dl.load(path, key=key)


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_a_key_names_the_beginning_of_names(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    dl.save(dict.fromkeys(["encoder.weight", "encoder.0.bias", "encoders", "decoder.weight"], NUMBERS), path)
    assert_state(dl.load(path, key="encoder"), {"weight": NUMBERS, "0.bias": NUMBERS})
    with pytest.raises(ValueError, match="nothing named 'head'; its first names are .*encoder.weight"):
        dl.load(path, key="head")


def names_of(prefix, averaged=False):
    return [f"{prefix}{name}" for name in ("weight", "bias")] + ["n_averaged"] * averaged


PREFIXES = {
    "DataParallel": (names_of("module."), names_of("")),
    "torch.compile": (names_of("_orig_mod."), names_of("")),
    "DataParallel of torch.compile": (names_of("module._orig_mod."), names_of("")),
    "torch.compile of DataParallel": (names_of("_orig_mod.module."), names_of("")),
    "AveragedModel": (names_of("module.", True), names_of("")),
    "AveragedModel of both": (names_of("module.module._orig_mod.", True), names_of("")),
    "torch.compile of AveragedModel": ([*names_of("_orig_mod.module."), "_orig_mod.n_averaged"], names_of("")),
    "a prefix of one name only": ([*names_of("module."), "bias"], [*names_of("module."), "bias"]),
    "a compiled part": (names_of("_orig_mod.", True), names_of("_orig_mod.", True)),
    "no prefix": (names_of("modules.", True), names_of("modules.", True)),
    "n_averaged alone": (["n_averaged"], ["n_averaged"]),
}


@pytest.mark.parametrize("names, expected", PREFIXES.values(), ids=PREFIXES)
@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".zip", ".legacy"])
def test_prefixes_of_wrappers_are_removed_in_every_format(tmp_path, suffix, names, expected):
    path = tmp_path / f"a{suffix}"
    if suffix in (".zip", ".legacy"):
        write_by_hand(path, dict.fromkeys(names, VECTOR), in_zip if suffix == ".zip" else in_legacy)
    else:
        dl.save(dict.fromkeys(names, FOUR), path)
    assert_state(dl.load(path), dict.fromkeys(expected, FOUR))


class Config:
    """A class of the user's."""

    def __init__(self):
        self.lr, self.layers = 0.1, [1, 2]

    def __setstate__(self, state):
        pytest.fail("a class of the user's was used")


ITSELF = []
ITSELF.append((ITSELF,))
EXTRAS = {
    "a set": {1, (2, 3)}, "a frozenset": frozenset("ab"), "a Namespace": argparse.Namespace(lr=0.1, device="cpu"),
    "a number of NumPy's": np.float64(0.9), "an array": np.zeros((3, 4)), "an array of objects": np.array([{}, None]),
    "a large array": np.arange(200_000.0), "a path": PurePosixPath("/x"), "a defaultdict": defaultdict(list, {1: [2]}),
    "a Counter": Counter("abca"), "a deque": deque([1, 2]), "a date": datetime.datetime(2026, 1, 1),
    "a time": datetime.timedelta(1), "a dtype": np.dtype("f4"), "a function": print, "a method": [].append,
    "a partial function": functools.partial(print, 1), "a class": Config, "an object": Config(),
    "a large number": 1 << 500, "a state of another class": OrderedDict(a=Config()), "an exception": ValueError("x"),
    "tuples as keys": {(1, (2, 3)): 4}, "odd keys": {None: 1, 1.5: 2, True: 3, b"a": 4}, "a complex number": 1 + 2j,
    "a range": range(3), "a slice": slice(3), "bytes": b"abc", "a bytearray": bytearray(b"abc"),
    "a list in itself": ITSELF,
}


@in_both_formats
@pytest.mark.parametrize("extra", EXTRAS.values(), ids=EXTRAS)
def test_what_is_unknown_beside_the_state_is_left_out(tmp_path, container, extra):
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        program = pickle.dumps(extra, protocol)[2:-1]
        for content in {"extra": program, "net": LAYER}, {"net": LAYER, "extra": program}, LAYER | {"extra": program}:
            path = write_by_hand(tmp_path / "a", content, container)
            assert_state(dl.load(path), {"weight": FOUR.reshape(2, 2), "bias": FOUR})


PYTORCHS = {
    "a device": call("torch.device", "cuda", 0), "a dtype": name_of("torch.float8_e5m2"),
    "a size": call("torch.Size", (1, 2)),
    "a whole network": call("torch.nn.Linear") + value_of({"training": True, "_parameters": LAYER}) + b"b",
    "bfloat16": tensor(2, kind="BFloat16Storage", key="1"),
    "complex numbers": tensor(1, kind="ComplexFloatStorage", key="1"),
    "quantized numbers": call("torch._utils._rebuild_qtensor", tensor(4, kind="QInt8Storage", key="1")),
}


@pytest.mark.parametrize("extra", PYTORCHS.values(), ids=PYTORCHS)
def test_what_is_pytorchs_beside_the_state_is_left_out(tmp_path, extra):
    path = write_by_hand(tmp_path / "a", {"before": extra, "my_net": LAYER, "after": extra}, in_zip)
    assert_state(dl.load(path), {"weight": FOUR.reshape(2, 2), "bias": FOUR})


def test_a_class_that_the_old_format_names_with_its_source_is_left_out(tmp_path):
    net = b"(" + text("module") + name_of("nets.Net") + text("nets.py") + text("import os") + b"tQ)\x81}b"
    path = write_by_hand(tmp_path / "a", {"net": LAYER, "whole": net}, in_legacy)
    assert list(dl.load(path)) == ["weight", "bias"]
    assert "asks for nets.Net, " in refusal(write_by_hand(path, net, in_legacy))


def test_a_tensor_with_attributes_or_of_a_class_of_its_own_is_a_tensor(tmp_path):
    build, arguments = tensor(4, 0, (4,), (1,)).removesuffix(b"R").split(b"(", 1)
    wrapped = call("torch._tensor._rebuild_from_type_v2", build, name_of("nets.Tensor"), b"(" + arguments, {"note": 3})
    assert_state(dl.load(write_by_hand(tmp_path / "a", {"a": wrapped}, in_zip)), {"a": FOUR})


def test_text_beside_numpys_arrays_is_left_out(tmp_path):
    np.savez(tmp_path / "a.npz", w=NUMBERS, epoch=3, name="lenet", tags=np.array([b"a", b"bc"]))
    assert_state(dl.load(tmp_path / "a.npz"), {"w": NUMBERS, "epoch": np.array(3)})
    np.savez(tmp_path / "a.npz", name="lenet")
    assert "without arrays of numbers; it holds 'name' as text" in refusal(tmp_path / "a.npz")


def test_what_else_is_in_numpys_archive_is_left_out(tmp_path):
    np.savez(tmp_path / "a.npz", w=NUMBERS)
    with zipfile.ZipFile(tmp_path / "a.npz", "a") as archive:
        archive.writestr("readme.txt", "text")
    assert_state(dl.load(tmp_path / "a.npz"), {"w": NUMBERS})


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


# NumPy's archives made by hand

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


# Large files

STREAMED = """
import sys, tracemalloc
from pathlib import Path, PurePosixPath
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


def test_the_form_of_zip_files_for_large_archives_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 100)
    np.savez(tmp_path / "a.npz", a=NUMBERS, b=NUMBERS[0])
    content = (tmp_path / "a.npz").read_bytes()
    assert b"PK\6\6" in content
    assert_state(dl.load(tmp_path / "a.npz"), {"a": NUMBERS, "b": NUMBERS[0]})
    for at in range(content.index(b"PK\6\6"), len(content)):
        (tmp_path / "a.npz").write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        assert_right_or_refused(tmp_path / "a.npz", {"a": NUMBERS, "b": NUMBERS[0]})


def test_numpy_reads_what_save_writes_and_the_reverse(tmp_path):
    arrays = {dtype: NUMBERS.astype(dtype) for dtype in DTYPES.values()} | {
        "one": np.array(3.0), "none": NUMBERS[:0], "columns": np.asfortranarray(NUMBERS[0]), "tensor": NUMBERS}
    dl.save(arrays | {"tensor": dl.tensor(NUMBERS)}, tmp_path / "ours.npz")
    with np.load(tmp_path / "ours.npz") as theirs:
        assert_state({name: dl.Tensor(theirs[name]) for name in theirs}, arrays)
    for write in np.savez, np.savez_compressed:
        write(tmp_path / "theirs.npz", big=NUMBERS.astype(">f4"), **arrays)
        assert_state(dl.load(tmp_path / "theirs.npz"), {"big": NUMBERS, **arrays})


def test_an_archive_of_numpy_holds_no_metadata(tmp_path):
    with pytest.raises(ValueError, match=r"holds no metadata; name it .*a\.safetensors"):
        dl.save({"a": NUMBERS}, tmp_path / "a.npz", {"epoch": "3"})
    assert os.listdir(tmp_path) == []
    dl.save({"a": NUMBERS}, tmp_path / "a.npz", {})
    assert_state(dl.load(tmp_path / "a.npz"), {"a": NUMBERS})
