"""Checkpoints made by hand, byte for byte, as PyTorch and NumPy would never write them."""

import pickle
import pickletools
import struct
import zipfile
from io import BytesIO

PROTOCOL = b"\x80\x02"
ONE = struct.pack("<f", 1)


# Pieces of a pickle: each puts one value on the stack

def text(value):
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def value_of(value):
    """The pickle of a value, or a dict or list of values; bytes are pieces of a pickle."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, dict):
        return b"}" + b"".join(value_of(key) + value_of(part) + b"s" for key, part in value.items())
    if isinstance(value, list):
        return b"]" + b"".join(value_of(part) + b"a" for part in value)
    return pickletools.optimize(pickle.dumps(value, 2))[2:-1]


def name_of(dotted):
    return "c{}\n{}\n".format(*dotted.rsplit(".", 1)).encode()


def call(function, *arguments):
    return name_of(function) + b"(" + b"".join(map(value_of, arguments)) + b"tR"


def tensor(length=1, offset=0, shape=(1,), strides=(1,), kind="FloatStorage", rebuild="_rebuild_tensor_v2", rest=b"",
           view=b"", key="0"):
    storage = b"(%b%b%b%b%b%btQ" % (
        text("storage"), name_of(f"torch.{kind}"), text(key), text("cpu"), value_of(length), view)
    rest = rest or (b"\x89)" if rebuild.endswith("v2") else b"")
    place = b"".join(map(value_of, (offset, shape, strides)))
    return name_of(f"torch._utils.{rebuild}") + b"(" + storage + place + rest + b"tR"


def state_of(*tensors):
    return value_of({f"t{index}": program for index, program in enumerate(tensors)}) + b"."


# Files

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


LAYOUT = "{'descr': %s, 'fortran_order': %s, 'shape': %s, }"


def npy(header, data=ONE):
    head = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + data


def npz(header, data=ONE, compression=zipfile.ZIP_STORED):
    return zip_of({"a.npy": npy(header, data)}, compression)


def zip_of(records, compression=zipfile.ZIP_STORED):
    file = BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in records.items():
            archive.writestr(name, content)
    return file.getvalue()
