"""Hostile and damaged checkpoints do no harm: nothing is executed, and they take neither much memory nor much time."""

import json
import shutil
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from handmade import LAYOUT, in_legacy, in_zip, name_of, npy, npz, state_of, tensor, text, value_of, zip_of
from safetensors.numpy import save_file

import minidl as dl

HERE = Path(__file__).parent


def watched(what, folder, *numbers):
    """What the reader in tests/hostile.py prints, a dict per file by its name."""
    child = subprocess.run([sys.executable, HERE / "hostile.py", what, folder, *map(str, numbers)], capture_output=True,
                           text=True, timeout=3600)
    assert child.returncode == 0, child.stderr[-2000:]
    return {outcome["name"]: outcome for outcome in map(json.loads, child.stdout.splitlines())}


# Damage

CHECKPOINTS = ["zip.pth", "zip.th", "legacy.pth", "zip_bfloat16.pth", "zip_extras.th", "legacy_extras.th"]
FILES = ["ours.safetensors", "plain.safetensors", "stored.npz", "compressed.npz", *CHECKPOINTS]


def write_files(folder):
    with np.load(HERE / "checkpoints" / "expected.npz") as archive:
        weights = {name: array for name, array in archive.items() if name not in ("images", "logits")}
    dl.save(weights, folder / "ours.safetensors", {"epoch": "3"})
    save_file(weights, folder / "plain.safetensors")
    np.savez(folder / "stored.npz", **weights)
    np.savez_compressed(folder / "compressed.npz", **weights)
    for name in CHECKPOINTS:
        shutil.copy(HERE / "checkpoints" / name, folder)


@pytest.mark.parametrize("count", [60, pytest.param(2000, marks=pytest.mark.slow)])
def test_damage_is_found_or_does_not_matter(tmp_path, count):
    write_files(tmp_path)
    outcomes = watched("damage", tmp_path, count, 0)
    assert {name: outcome["wrong"] for name, outcome in outcomes.items()} == {name: {} for name in FILES}
    for name, outcome in outcomes.items():
        print(name, outcome["outcomes"], f"{outcome['seconds']:.2f} s", f"{outcome['bytes']:,} bytes")
        assert sum(outcome["outcomes"].values()) == count and outcome["outcomes"]["refused"] > count / 2


# Bombs: pickles

def memo(index, value):
    return value + b"q" + bytes([index])


def doubled(make, count=60):
    """Something that holds twice what holds twice what …"""
    steps = (b"q" + bytes([index]) + b"h" + bytes([index]) + make for index in range(count))
    return b"(" * count + b"N" + b"".join(steps)


def dicts_of_one_dict(width, depth):
    level = b"}q\x00"
    for index in range(depth):
        keys = b"".join(b"M" + struct.pack("<H", key) + b"h" + bytes([index]) for key in range(width))
        level += memo(index + 1, b"}(" + keys + b"u")
    return level


def called_often(function, argument, count=10_000):
    return memo(0, name_of(function)) + memo(1, argument) + b"](" + b"h\x00h\x01\x85R" * count + b"e"


def pairs(opening, closing, key=lambda index: index, count=10_000):
    return opening + b"".join(b"M" + struct.pack("<H", key(index)) + b"N\x86" for index in range(count)) + closing


def numbers_of_one_hash(count):
    return [value_of(index * sys.hash_info.modulus) for index in range(1, count)]


def nested_calls(depth, count):
    """A tensor of a class of its own of a tensor of a class of its own …, made again and again."""
    build = name_of("torch._tensor._rebuild_from_type_v2")
    arguments = memo(0, build) + b"0" + memo(1, b")") + b"0"
    for index in range(depth):
        arguments += b"(h\x00NNh" + bytes([index % 250 + 1]) + b"tq" + bytes([(index + 1) % 250 + 1]) + b"0"
    return arguments + b"](" + (b"h\x00h" + bytes([depth % 250 + 1]) + b"R") * count + b"e"


PICKLES = {
    "a memo far away": b"}r\x00\x00\x00\x80j\x00\x00\x00\x80",
    "a memo farther away": b"}p99999999999999999999\n",
    "a memo at places of one hash": b"N" + b"".join(
        b"p%d\n" % (index * sys.hash_info.modulus) for index in range(1, 50_000)),
    "text of 4 GB": b"X\xff\xff\xff\xffabc", "text of 8 EB": b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7fabc",
    "bytes of 4 EB": b"\x8e" + struct.pack("<Q", 1 << 62) + b"abc",
    "a bytearray of 32 GB": b"\x96" + struct.pack("<Q", 1 << 35) + b"abc",
    "a frame without end": b"\x95" + b"\xff" * 8 + b"}", "a number of 2 GB": b"\x8b\xff\xff\xff\x7fabc",
    "a number of fewer bytes than none": b"\x8b\xfb\xff\xff\xffabc",
    "a number of 100,000 digits": b"L" + b"9" * 100_000 + b"L\n", "another": b"I" + b"9" * 100_000 + b"\n",
    "one list in a list, often": memo(0, b"]") + b"(" + b"h\x00" * 100_000 + b"e",
    "a list in itself": b"]q\x00h\x00a", "a dict in itself": b"}q\x00" + text("a") + b"h\x00s",
    "a dict in itself, often": b"}q\x00("
        + b"".join(b"M" + struct.pack("<H", key) + b"h\x00" for key in range(1000)) + b"u",
    "dicts of one dict": dicts_of_one_dict(1000, 3),
    "tuples in tuples": b")" + b"\x85" * 100_000, "lists in lists": b"]" * 100_000 + b"a" * 99_999,
    "dicts in dicts": b"}" + b"K\x01}" * 50_000 + b"s" * 50_000,
    "objects of objects": name_of("a.b") + b")\x81" * 50_000,
    "tuples in tuples as a key": b"})" + b"\x85" * 100_000 + b"Ns",
    "tuples in tuples as a key of an OrderedDict":
        name_of("collections.OrderedDict") + b"]()" + b"\x85" * 100_000 + b"N\x86e\x85R",
    "tuples in tuples in a set": b"\x8f()" + b"\x85" * 100_000 + b"\x90",
    "tuples in tuples in a frozenset": b"()" + b"\x85" * 100_000 + b"\x91",
    "doubled tuples": doubled(b"t"), "doubled tuples as a key": b"}" + doubled(b"t") + b"Ns",
    "doubled tuples in a set": b"\x8f(" + doubled(b"t") + b"\x90",
    "doubled tuples in a frozenset": b"(" + doubled(b"t") + b"\x91",
    "doubled dicts": dicts_of_one_dict(2, 60),
    "doubled lists as a dtype": doubled(b"l") + b"q\x3c0" + state_of(
        tensor(rebuild="_rebuild_tensor_v3", rest=b"\x89)h\x3c"))[:-1],
    "doubled lists as a shape": doubled(b"l") + b"q\x3c0" + state_of(tensor(shape=b"h\x3c"))[:-1],
    "doubled tuples as a shape": doubled(b"t") + b"q\x3c0" + state_of(tensor(shape=b"h\x3c", strides=b"h\x3c"))[:-1],
    "doubled tuples as a name": doubled(b"t") + text("system") + b"\x93",
    "100,000 keys of one hash": b"}(" + b"N".join(numbers_of_one_hash(100_000)) + b"Nu",
    "100,000 items of a set of one hash": b"\x8f(" + b"".join(numbers_of_one_hash(100_000)) + b"\x90",
    "one dict of many items, often": called_often("collections.OrderedDict", pairs(b"](", b"e")),
    "one dict of one item, often": called_often("collections.OrderedDict", pairs(b"](", b"e", lambda index: 0)),
    "one dict of many items in a tuple, often": called_often("collections.OrderedDict", pairs(b"(", b"t")),
    "one Counter, often": called_often("collections.Counter", dicts_of_one_dict(1000, 1)),
    "one long text as a size, often": called_often("torch.Size", text("a" * 10_000)),
    "one long list as a size, often": called_often("torch.Size", b"](" + b"K\x01" * 10_000 + b"e"),
    "tensors in tensors": nested_calls(200, 50_000),
    "numbers of many digits, multiplied": memo(0, b"\x8b" + struct.pack("<I", 100_000) + b"\x7f" * 100_000)
        + memo(1, b"(" + b"h\x00" * 1000 + b"t") + state_of(tensor(shape=b"h\x01", strides=b"h\x01"))[:-1],
    "one tensor under 100,000 names": memo(0, tensor()) + b"0}("
        + b"".join(b"J" + struct.pack("<i", key) + b"h\x00" for key in range(100_000)) + b"u",
    "10,000 states": memo(0, tensor()) + b"0}("
        + b"".join(b"M" + struct.pack("<H", key) + b"}K\x00h\x00s" for key in range(10_000)) + b"u",
    "names of 10 kB": b"c" + b"a" * 10_000 + b"\nb\n",
    "50,000 objects": b"(" + b"".join(b"ca\n%d\n" % index for index in range(50_000)) + b"l",
    **{f"{name} of {kind}": program for kind, name, program in [
        ("ones", "a tensor of 4 TB", state_of(tensor(1, 0, (1 << 40,), (0,)))[:-1]),
        ("ones", "a tensor of 4 YB", state_of(tensor(1, 0, (1 << 40, 1 << 40), (0, 0)))[:-1]),
        ("nothing", "a tensor of 4 EB", state_of(tensor(1, 0, (0, 1 << 62), (1, 1)))[:-1]),
        ("axes", "a tensor", state_of(tensor(1, 0, (1,) * 65, (1,) * 65))[:-1]),
        ("many axes", "a tensor", state_of(tensor(1, 0, (1,) * 100_000, (1,) * 100_000))[:-1]),
        ("one value far away", "a tensor", state_of(tensor(1, (1 << 63) - 1))[:-1])]},
    "the registry of copyreg": b"\x82\x01", "a buffer outside": b"\x97",
}
LARGE_PICKLES = {
    "20 MB of dicts": lambda: b"(" + b"}" * (20 << 20) + b"l", "20 MB of marks": lambda: b"(" * (20 << 20),
    "20 MB of tuples in tuples": lambda: b")" + b"\x85" * (20 << 20),
    "20 MB of places of a memo": lambda: b"N" + b"\x94" * (20 << 20),
    "20 MB of lists in lists": lambda: b"]" * (10 << 20) + b"a" * ((10 << 20) - 1),
    "20 MB of one place of a memo": lambda: b"N" + b"q\x00" * (10 << 20),
    "20 MB of protocols": lambda: b"\x80\x02" * (10 << 20),
    "20 MB of what is dropped": lambda: b"N0" * (10 << 20), "20 MB of copies": lambda: b"N" + b"2" * (20 << 20),
    "20 MB of floats": lambda: b"(" + (b"G" + bytes(8)) * (20 << 20 >> 3) + b"l",
    "20 MB of a number": lambda: b"\x8b" + struct.pack("<i", 20 << 20) + b"\xff" * (20 << 20),
    "20 MB of digits": lambda: b"L" + b"9" * (20 << 20) + b"L\n",
    "20 MB of text with one wide letter": lambda: text("a" * (20 << 20) + "😀"),
    "20 MB of a line with one wide letter": lambda: b"V" + b"a" * (20 << 20) + b"\\U0001F600\n",
    "20 MB of short texts with a wide letter": lambda: b"(" + text("a" * 900 + "😀") * (20 << 10) + b"l",
    "20 MB of objects": lambda: b"(" + (name_of("a.b") + b")\x81") * (3 << 20) + b"l",
    "20 MB of sets": lambda: b"(" + b"\x8f" * (20 << 20) + b"l",
    "20 MB of names": lambda: b"}(" + b"".join(b"X\x06\0\0\0%06dN" % index for index in range(1_600_000)) + b"u",
}


# Bombs: archives

def zip_end(count, size, start):
    return struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, count & 0xFFFF, count & 0xFFFF, size, start, 0)


def directory_entry(name, crc, packed, unpacked, start, method=8):
    sizes = struct.pack("<III", crc, packed, unpacked)
    return b"PK\1\2" + struct.pack("<HHHHHH", 20, 20, 0, method, 0, 0x21) + sizes \
        + struct.pack("<HHHHHII", len(name), 0, 0, 0, 0, 0, start) + name


def local_header(name, crc, packed, unpacked, method=8):
    return struct.pack("<4sHHHHHIIIHH", b"PK\3\4", 20, 0, method, 0, 0x21, crc, packed, unpacked, len(name), 0) + name


def padded_npy(size):
    header = LAYOUT % ("'|u1'", False, f"({size},)")
    return npy(header + " " * (117 - len(header)), b"")


def stored_block(content):
    """The beginning of a block of deflate that holds `content` as it is."""
    return b"\0" + struct.pack("<HH", len(content), len(content) ^ 0xFFFF)


def quoted(count, size):
    """An archive of arrays that share their content: each quotes the next one's header, and the last holds zeros.

    After David Fifield, A better zip bomb, 2019.
    """
    names = [b"t%d.npy" % index for index in range(count)]
    plain = padded_npy(size) + bytes(size)
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    content = deflate.compress(plain) + deflate.flush()
    entries = [(zlib.crc32(plain), len(content), len(plain))]
    header = local_header(names[-1], *entries[0])
    lengths = [len(header + content)]
    for name in reversed(names[:-1]):
        own = padded_npy(len(header) + len(plain))
        content = stored_block(own) + own + stored_block(header) + header + content
        plain = own + header + plain
        entries.insert(0, (zlib.crc32(plain), len(content), len(plain)))
        header = local_header(name, *entries[0])
        lengths.insert(0, len(header + content))
    file = header + content
    directory = b"".join(directory_entry(name, *entry, len(file) - length)
                         for name, entry, length in zip(names, entries, lengths))
    return file + directory + zip_end(count, len(directory), len(file))


def listed_often(content, count):
    """A zip file with one record, listed `count` times."""
    end = content.rindex(b"PK\5\6")
    (start,) = struct.unpack_from("<I", content, end + 16)
    directory = content[start:end] * count
    return content[:start] + directory + zip_end(count, len(directory), start)


def empty_records(count, name=b"x", large=False):
    first = local_header(name, 0, 0, 0, 0)
    directory = directory_entry(name, 0, 0, 0, 0, 0) * count
    end = zip_end(1 if large else count, 46 if large else len(directory), len(first))
    if large:  # the true numbers stand in the records for large archives
        at = len(first) + len(directory)
        end = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, count, count, len(directory), len(first)) \
            + struct.pack("<4sIQI", b"PK\6\7", 0, at, 1) + end
    return first + directory + end


def npz_that_claims(size):
    content = npz(LAYOUT % ("'|u1'", False, f"({size},)"), bytes(1000), zipfile.ZIP_DEFLATED)
    in_directory = content.rindex(b"PK\1\2") + 24
    (real,) = struct.unpack_from("<I", content, in_directory)
    return content[:in_directory] + struct.pack("<I", real - 1000 + size) + content[in_directory + 4 :]


def zeros(size, count=1):
    return zip_of({f"{index}.npy": padded_npy(size) + bytes(size) for index in range(count)}, zipfile.ZIP_DEFLATED)


def slow_headers(count):
    header = "{" + "'descr': '<f4', " * 29 + "'fortran_order': False, 'shape': (0,)}"
    return zip_of({f"{index}.npy": npy(header, b"") for index in range(count)}, zipfile.ZIP_DEFLATED)


ARCHIVES = {
    "a byte order of 16 MB": lambda: in_zip(
        state_of(tensor()), byteorder=bytes(1 << 24), compression=zipfile.ZIP_DEFLATED),
    "a byte order listed often": lambda: in_zip(state_of(tensor()), byteorder=b"little" * 1000),
    "an array of 1 GB in 1 kB": lambda: npz_that_claims(1 << 30),
    "an array of 4 EB": lambda: npz(LAYOUT % ("'|u1'", False, f"({1 << 62},)")),
    "an array of no rows of 4 EB": lambda: npz(LAYOUT % ("'|u1'", False, f"(0, {1 << 62})"), b""),
    "an array of 1,000 axes": lambda: npz(LAYOUT % ("'<f4'", False, "(1," + "1," * 500 + ")")),
    "100 records that quote each other": lambda: quoted(100, 4 << 20),
    "one record listed 3,000 times": lambda: listed_often(zeros(20 << 20), 3000),
    "one small record listed 20,000 times": lambda: listed_often(npz(LAYOUT % ("'<f4'", False, "(1,)")), 20_000),
    "two arrays of one name": lambda: listed_often(npz(LAYOUT % ("'<f4'", False, "(1,)")), 2),
    "1,000 slow headers": lambda: slow_headers(1000),
    "a storage listed often": lambda: listed_often(zip_of({"archive/data/0": bytes(1000)}), 60_000),
    "a pickle that is compressed": lambda: zip_of(
        {"a/data.pkl": b"\x80\x02}" + b"N0" * (1 << 20) + b"."}, zipfile.ZIP_DEFLATED),
    "a pickle listed twice": lambda: listed_often(zip_of({"a/data.pkl": b"\x80\x02}."}), 2),
    "an end in an end": lambda: b"PK\3\4" + bytes(30) + b"PK\5\6" + bytes(14) + b"PK\5\6"[:4],
    "only an end": lambda: b"PK\5\6" + bytes(18), "half of an end": lambda: b"PK\5\6" + bytes(9),
    "two letters": lambda: b"PK",
    "a comment of 64 kB": lambda: b"PK\5\6" + bytes(16) + b"\xff\xff" + b"PK\5\6" * 16383,
}
LARGE_ARCHIVES = {
    "12 records that quote each other": lambda: quoted(12, 60 << 20),
    "400,000 empty records": lambda: empty_records(400_000),
    "400,000 empty records of arrays": lambda: empty_records(400_000, b"x.npy"),
    "400,000 empty records of PyTorch's": lambda: empty_records(400_000, b"a/data.pkl"),
    "400,000 records behind a large archive's end": lambda: empty_records(400_000, large=True),
    "60,000 empty records": lambda: empty_records(60_000),
    "16,000 arrays of one name": lambda: empty_records(16_000, b"x.npy"),
    **{f"{count:,} arrays": lambda count=count: zip_of(
        {f"{index}.npy": npy(LAYOUT % ("'<f4'", False, "(1,)")) for index in range(count)})
       for count in (16_000, 40_000)},
    "16,000 arrays with slow headers": lambda: slow_headers(16_000),
    "60,000 storages": lambda: zip_of({"a/data.pkl": b"\x80\x02" + state_of(tensor())}
                                      | {f"a/data/{index}": struct.pack("<f", 1) for index in range(60_000)}),
}


# Bombs: safetensors

def safetensors(header, data=b""):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(header)) + header + data


def one(shape=(1,), offsets=(0, 4), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def many(count, **others):
    return {f"t{index}": one((0,), (0, 0)) for index in range(count)} | others


SAFETENSORS = {
    "a shape of 4 YB": lambda: safetensors({"x": one((1 << 40, 1 << 40))}, b"1234"),
    "no rows of 4 EB": lambda: safetensors({"x": one((0, 1 << 62), (0, 0))}),
    "no rows of 4 EB of 4 EB": lambda: safetensors({"x": one((0, 1 << 62, 1 << 62), (0, 0))}),
    "a shape below zero": lambda: safetensors({"x": one((-1,))}, b"1234"),
    "places in turn": lambda: safetensors({"x": one((1,), (4, 0))}, b"1234"),
    "two tensors in one place": lambda: safetensors({"x": one(), "y": one()}, b"1234"),
    "a hole": lambda: safetensors({"x": one((1,), (4, 8))}, b"12345678"),
    "100 axes": lambda: safetensors({"x": one((1,) * 100)}, b"1234"),
    "1,000,000 axes": lambda: safetensors({"x": one((1,) * 1_000_000)}, b"1234"),
    "one name twice": lambda: safetensors(b'{"x":%b,"x":%b}' % ((json.dumps(one()).encode(),) * 2), b"1234"),
    "lists in lists": lambda: safetensors(b'{"__metadata__":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "metadata of numbers": lambda: safetensors({"__metadata__": {"a": 1}}),
    "bools of other numbers": lambda: safetensors({"x": one((4,), (0, 4), "BOOL")}, b"\0\2\xff\1"),
    "a header beyond any file": lambda: struct.pack("<Q", (1 << 64) - 1) + b"{}",
    "a header beyond this file": lambda: struct.pack("<Q", 50 << 20) + b"{" + b" " * 100,
    "no header": lambda: bytes(8) + b"{", "one letter": lambda: b"P", "a pickle of one byte": lambda: b"\x80",
}
LARGE_SAFETENSORS = {
    "200,000 tensors": lambda: safetensors(many(200_000)), "1,000,000 tensors": lambda: safetensors(many(1_000_000)),
    "16,000 tensors": lambda: safetensors(many(16_000)),
    "100,000 tensors with escaped keys": lambda: safetensors(
        json.dumps(many(100_000)).replace("dtype", r"\u0064type").encode()),
    "1,000,000 texts": lambda: safetensors({"__metadata__": {f"{index}": "" for index in range(1_000_000)}}),
    "a text of 40 MB": lambda: safetensors({"__metadata__": {"a": "{" * (40 << 20)}}),
    **{f"a text of {size} MB with a wide letter": lambda size=size: safetensors(
        json.dumps({"__metadata__": {"a": "a" * ((size << 20) - 100) + "😀"}}, ensure_ascii=False).encode())
       for size in (8, 20)},
    "700,000 short texts": lambda: safetensors(
        b'{"__metadata__":{%b}}' % b",".join(b'"%x":""' % index for index in range(700_000))),
    "spaces of 90 MB": lambda: safetensors(b"{}" + b" " * (90 << 20)),
    "spaces of 200 MB": lambda: safetensors(b"{}" + b" " * (200 << 20)),
}

BOMBS = {
    **{f"{name}, zip": (lambda program=program: in_zip(program + b".")) for name, program in PICKLES.items()},
    "keys of doubled tuples, legacy": lambda: in_legacy(b"}.", keys=b"]" + doubled(b"t") + b"a."),
    "300,000 keys, legacy": lambda: in_legacy(
        state_of(tensor()), keys=b"](" + text("0") + b"q\0" + b"h\0" * 300_000 + b"e."),
    "two lengths of one storage, legacy": lambda: in_legacy(state_of(tensor(1 << 32), tensor())),
    "a storage of 4 TB, legacy": lambda: in_legacy(state_of(tensor(1 << 40)), length=1 << 40),
    **ARCHIVES, **SAFETENSORS,
}
LARGE_BOMBS = {
    **{f"{name}, legacy": (lambda program=program: in_legacy(program + b".")) for name, program in PICKLES.items()},
    **{f"{name}, zip": (lambda program=program: in_zip(program() + b".")) for name, program in LARGE_PICKLES.items()},
    **{f"{name}, legacy": (lambda program=program: in_legacy(program() + b"."))
       for name, program in LARGE_PICKLES.items()},
    **LARGE_ARCHIVES, **LARGE_SAFETENSORS,
}


@pytest.fixture(scope="module")
def explosions(tmp_path_factory):
    """What became of the small bombs."""
    folder = tmp_path_factory.mktemp("bombs")
    for name, content in BOMBS.items():
        (folder / name).write_bytes(content())
    yield watched("bombs", folder)
    shutil.rmtree(folder)


@pytest.mark.parametrize("name", BOMBS)
def test_a_small_bomb_takes_neither_memory_nor_time(explosions, name):
    assert explosions[name]["wrong"] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE_BOMBS)
def test_a_large_bomb_takes_neither_memory_nor_time(tmp_path, name):
    (tmp_path / name).write_bytes(LARGE_BOMBS[name]())
    (outcome,) = watched("bombs", tmp_path).values()
    (tmp_path / name).unlink()
    print(outcome)
    assert outcome["wrong"] == []
