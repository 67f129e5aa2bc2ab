"""Damaged and hostile files: each is read or refused by one clear error, soon, and with no more memory than is due.

The files are read in a process of its own, this file run as a script, whose memory is limited and measured.
"""

import collections
import gzip
import io
import json
import os
import random
import re
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
import warnings
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from minidl.data import cifar10, mnist, read_gray, read_idx, read_rgb
from minidl.data.images import MAX_PIXELS

MEMORY = 4 << 30
"""Bytes that the process which reads the files may have."""

SLACK = 64 << 20
"""Bytes that any file may take."""

SECONDS = 10.0

INFLATED = 1032
"""Bytes that one byte of deflated data can stand for, at most."""

NUMBERS = [0, 1, 0x7F, 0xFF, 0xFFFF, 0x10000, 60000, 0x7FFFFFFF, 0xFFFFFFFF]


def damaged(content, rng):
    """`content` with one to three kinds of damage, most of them near its beginning."""
    content = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 3])):
        if len(content) < 8:
            break
        place = rng.randrange(min(rng.choice([30, 200, 1000, len(content)]), len(content)))
        kind = rng.choice(["bit", "byte", "cut", "insert", "delete", "repeat", "zeros", ">I", "<I", ">H", "<H"])
        if kind == "bit":
            content[place] ^= 1 << rng.randrange(8)
        elif kind == "byte":
            content[place] = rng.randrange(256)
        elif kind == "cut":
            del content[place + 1 :]
        elif kind == "insert":
            content[place:place] = rng.randbytes(rng.randrange(1, 30))
        elif kind == "delete":
            del content[place : place + rng.randrange(1, 40)]
        elif kind == "repeat":
            content[place:place] = content[place : place + rng.randrange(1, 200)]
        elif kind == "zeros":
            content[place : place + 16] = bytes(16)
        else:
            size = struct.calcsize(kind)
            content[place : place + size] = struct.pack(kind, rng.choice(NUMBERS) & (256**size - 1))
    return bytes(content)


# Files, as (name, content, function that reads a path, bytes of memory that it may take)


def images(count, rng):
    from PIL import Image

    noise = np.random.default_rng(0).integers(0, 256, (15, 20, 3), np.uint8)
    photograph = Image.fromarray(noise.repeat(4, 0).repeat(4, 1))
    exif = Image.Exif()
    exif[0x0112] = 6
    variants = [("JPEG", {"progressive": True}), ("JPEG", {"exif": exif}), ("PNG", {"exif": exif}),
                ("TIFF", {"compression": "tiff_lzw"}), ("TIFF", {"compression": "tiff_deflate"}),
                ("GIF", {"save_all": True, "append_images": [photograph.rotate(90)] * 2})]
    Image.init()
    intact = []
    for kind, options in [*((kind, {}) for kind in sorted(Image.SAVE)), *variants]:
        for mode in "1", "L", "LA", "P", "I;16", "F", "RGB", "RGBA", "CMYK":
            file = io.BytesIO()
            words = Image.fromarray(noise[..., 0].astype(np.uint16) * 257)
            with suppress(Exception):  # not every format has every mode
                image = words if mode == "I;16" else photograph.convert(mode)
                image.save(file, kind, **options)
                intact.append((f"{kind}-{mode}", file.getvalue()))
    for number in range(count):
        name, content = intact[number * 7919 % len(intact)]
        yield name, damaged(content, rng), read_image(number), as_many_pixels_as_it_says


def read_image(number):
    return lambda path: read_rgb(path) if number % 3 else read_gray(path, 28, invert=bool(number & 1))


def as_many_pixels_as_it_says(path):
    """Three times what its pixels take as float32, three channels each."""
    from PIL import Image

    with suppress(Exception), Image.open(path) as image:
        return 3 * 12 * min(image.width * image.height, MAX_PIXELS)
    return 0


def arrays(count, rng):
    pictures, labels = random_numbers((20, 28, 28), 256), random_numbers(20, 10)
    plain = [idx(pictures, 8), idx(labels, 8), idx(pictures.astype(">f4"), 0x0D), idx(labels.astype(">i4"), 0x0C)]
    intact = [*plain, *map(gzip.compress, plain)]
    for number in range(count):
        yield "idx", damaged(intact[number % len(intact)], rng), read_idx, honest
    for number in range(count // 4):
        yield "mnist", damaged(plain[number % 2], rng), read_mnist(plain, number % 2), honest


def idx(array, code):
    return bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def random_numbers(shape, high):
    return np.random.default_rng(1).integers(0, high, shape).astype(np.uint8)


def read_mnist(plain, number):
    def read(path):
        names = ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"]
        folder = path.parent / "mnist"
        folder.mkdir(exist_ok=True)
        (folder / names[number]).write_bytes(path.read_bytes())
        (folder / names[1 - number]).write_bytes(plain[1 - number])
        return mnist(root=folder)

    return read


def honest(path):
    """Three times what the bytes of the file can stand for."""
    content = path.read_bytes()
    return 3 * len(content) * (INFLATED if content[:2] == b"\x1f\x8b" else 1)


def photographs(count, rng):
    rows = random_numbers((12, 3073), 10).tobytes()
    for number in range(count):
        if number % 2:
            yield "cifar", damaged(rows, rng), read_cifar("test_batch.bin"), honest
        else:
            tar = archive(rows)
            content = gzip.compress(damaged(tar, rng)) if number % 4 else damaged(gzip.compress(tar), rng)
            yield "cifar archive", content, read_cifar("cifar-10-binary.tar.gz"), honest


def archive(content, **options):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        member = tarfile.TarInfo("cifar-10-batches-bin/test_batch.bin")
        member.size, member.pax_headers = len(content), options
        tar.addfile(member, io.BytesIO(content))
    return file.getvalue()


def read_cifar(name):
    def read(path):
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            path.rename(Path(folder, name))
            return cifar10(False, folder)

    return read


def bombs(count, rng):
    """Small files that say they are, or become, large ones."""
    dots = zlib.compress(b"\0\xaa" * 8)
    row = b"\0" + b"\xaa" * 1625
    huge = png(13000, 13000, zlib.compress(row * 13000, 9))
    icon = struct.pack("<3H4B2H2I", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(huge), 22) + huge
    text = zlib.compress(bytes(20 << 20))
    pictures = {
        "13,000 × 13,000 pixels": huge,
        "60,000 × 60,000 pixels": png(60000, 60000, dots),
        "2,000,000,000 rows": png(1, 2_000_000_000, dots),
        "an icon with a larger image": icon,
        "a text": png(8, 8, dots, zTXt=b"a\0\0" + text),
        "a colour profile": png(8, 8, dots, iCCP=b"a\0\0" + text),
        "a program": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n{} loop\n%%EOF\n",
    }
    for name, content in pictures.items():
        for reader in 0, 1:  # in gray and in colour
            yield name, content, read_image(reader), lambda path: 128 << 20
    zeros = gzip.compress(bytes([0, 0, 8, 1]) + struct.pack(">I", 0xFFFFFFFF) + bytes(40 << 20))
    yield "an idx file with too few zeros", zeros, read_idx, honest
    tar = bytearray(archive(bytes(3073)))
    tar[124:136] = struct.pack(">4xQ", 1 << 40)
    tar[124] = 0x80
    tar[148:156] = b"%06o\0 " % (sum(tar[:148]) + 8 * 32 + sum(tar[156:512]))
    yield "a member of 1 TiB", gzip.compress(bytes(tar)), read_cifar("cifar-10-binary.tar.gz"), honest
    yield ("a long comment", gzip.compress(archive(bytes(3073), comment="x" * (8 << 20))),
           read_cifar("cifar-10-binary.tar.gz"), honest)


def png(width, height, pixels, **chunks):
    """A PNG of one bit per pixel."""
    header = struct.pack(">2I5B", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in [(b"IHDR", header), *((kind.encode(), content) for kind, content in chunks.items()),
                              (b"IDAT", pixels), (b"IEND", b"")]
    )


KINDS = {"images": images, "arrays": arrays, "photographs": photographs, "bombs": bombs}


# The process that reads them


def main(kind, count, seed):
    """Read the files, and print what became of them as JSON: counts, and what was wrong."""
    with suppress(ImportError, ValueError):  # macOS refuses, Windows has no limits
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    counts, wrong = collections.Counter(), []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "file")
        for number, (name, content, read, allowance) in enumerate(KINDS[kind](count, random.Random(seed))):
            path.write_bytes(content)
            allowed = SLACK + allowance(path)
            before, started = peak_memory(), time.perf_counter()
            outcome, complaint = attempt(read, path, warn="error" if number % 2 else "ignore")
            seconds, taken = time.perf_counter() - started, peak_memory(reset=False) - before
            counts[outcome] += 1
            if complaint or seconds > SECONDS or taken > allowed:
                wrong.append(f"{name} {number}: {complaint}, {seconds:.1f} s, {taken >> 20} of {allowed >> 20} MiB")
    print(json.dumps({"counts": counts, "wrong": wrong}))


def attempt(read, path, warn):
    """Whether the file at `path` is read or refused, and what is wrong with how it is refused."""
    with warnings.catch_warnings():
        warnings.simplefilter(warn)
        try:
            read(path)
        except ValueError as error:
            is_clear = str(path.parent) in str(error) and "\n" not in str(error)
            return "refused", "" if is_clear else f"it says {str(error)!r}"
        except BaseException as error:
            return "escaped", repr(error)
    return "read", ""


def peak_memory(reset=True):
    """Bytes: the most that this process has had since the last reset; 0 where the system does not say."""
    with suppress(OSError):
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) << 10
    return 0


# The tests


def read_all(kind, count, seed, timeout):
    done = subprocess.run([sys.executable, __file__, kind, str(count), str(seed)], capture_output=True, text=True,
                          timeout=timeout, env={**os.environ, "PYTHONWARNINGS": "ignore"})
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["wrong"] == [] and result["counts"].get("escaped", 0) == 0
    return result["counts"]


@pytest.mark.parametrize("kind, count", [("images", 60), ("arrays", 48), ("photographs", 20)])
def test_some_damaged_files_are_read_or_refused(kind, count):
    if kind == "images":
        pytest.importorskip("PIL", reason="needs Pillow")
    assert read_all(kind, count, 0, 60)["refused"] > count // 4


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind, count", [("images", 500), ("arrays", 200), ("photographs", 100)])
def test_thousands_of_damaged_files_are_read_or_refused(kind, count, seed):
    if kind == "images":
        pytest.importorskip("PIL", reason="needs Pillow")
    assert read_all(kind, count, seed + 1, 600)["refused"] > count // 4


def test_small_files_that_become_large_ones_are_refused_for_little():
    pytest.importorskip("PIL", reason="needs Pillow")
    counts = read_all("bombs", 0, 0, 60)
    assert counts["refused"] >= 10


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
