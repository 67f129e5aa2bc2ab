"""Damaged and hostile checkpoints, and a reader that watches what they do to the process that reads them.

``python tests/hostile.py bombs FOLDER`` reads every file of the folder, each in a process of its own where the system
can fork, and ``python tests/hostile.py damage FOLDER COUNT SEED`` reads COUNT damaged versions of each of its files.
Both print lines of JSON.
"""

import codecs
import json
import os
import re
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np

import minidl as dl

SECONDS = 10
"""Of computing, after which a process is ended, whatever it does."""

FREE_BYTES = 64 << 20
"""That any file may take in memory, beside three times what it holds."""

EXECUTING = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.remove", "os.rename", "os.mkdir",
             "shutil.", "subprocess.", "socket.", "ctypes.", "pickle.find_class", "import", "exec", "code.__new__")
"""Audit events that no reading of a file may cause."""


# Watching

class Watch:
    """What one reading does: events, seconds, and by how many bytes the process grows."""

    events: list = []
    is_armed = False

    def __enter__(self):
        self.events.clear()
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
        if self.can_measure:
            Path("/proc/self/clear_refs").write_text("5")  # the high-water mark falls to what is in memory now
        self.before, self.start = self._memory("VmHWM"), time.process_time()
        Watch.is_armed = True
        return self

    def __exit__(self, *_):
        Watch.is_armed = False
        self.seconds, self.bytes = time.process_time() - self.start, self._memory("VmHWM") - self.before
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_PROF, 0)

    can_measure = Path("/proc/self/clear_refs").exists()

    def _memory(self, field):
        """Bytes; 0 where the system does not say."""
        if not self.can_measure:
            return 0
        return int(re.search(rf"{field}:\s+(\d+)", Path("/proc/self/status").read_text())[1]) << 10


def listen(event, arguments):
    if Watch.is_armed and event.startswith(EXECUTING):
        Watch.events.append(f"{event} {str(arguments)[:80]}")


def read(path):
    """What becomes of the file: a dict of the state or the error, and of what was wrong with the reading itself."""
    state, error = None, ""
    with Watch() as watch:
        try:
            state = dl.load(path)
        except (ValueError, FileNotFoundError) as refused:
            error = str(refused)
        except BaseException as escaped:
            error = f"{type(escaped).__name__} escaped: {escaped}"
    length = path.stat().st_size
    wrong = [f"{event} was executed" for event in watch.events]
    if error and (not error.startswith(f"{path} ") or "\n" in error or len(error) > len(str(path)) + 1000):
        wrong.append(f"says {error[:300]}")
    if watch.bytes > 3 * length + FREE_BYTES:
        wrong.append(f"takes {watch.bytes >> 20:,} MiB for {length:,} bytes")
    if watch.seconds > SECONDS:
        wrong.append(f"takes {watch.seconds:.1f} s")
    return {"state": state, "error": error, "wrong": wrong, "seconds": watch.seconds, "bytes": watch.bytes}


# Damage

HUGE = (0, 1, 0x7F, 0xFF, 0xFFFF, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 40, 1 << 62, (1 << 63) - 1, 1 << 63,
        (1 << 64) - 1)
SIGNATURES = re.compile(rb"PK|\x80\x02|\x93NUMPY|storage|^|$")
PATCHES = {"digit": [b"99999", b"-1", b"9" * 20, b"0", b"1e9", b"1.5", b"9" * 5000],
           "letter": [bytes([byte]) for byte in b'{}[]",:\\0QRZcob.)(\xff\n']}


KINDS = ["flip", "flip", "flips", "cut", "insert", "delete", "overwrite", "zeros", "repeat", "swap", "huge", "huge",
         "digit", "letter"]


def damaged(content, rng):
    """`content` damaged in one to three places: half of them behind a signature, where sizes and offsets are."""
    signatures = [match.start() for match in SIGNATURES.finditer(content)]
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        at = int(rng.choice(signatures) + rng.integers(60) if rng.random() < 0.5 else rng.integers(1 << 20))
        content = _damaged_at(content, at % max(1, len(content)), rng)
    return content


def _damaged_at(content, at, rng):
    length, other = int(rng.integers(1, 40)), int(rng.integers(1 << 20)) % max(1, len(content))
    kind = rng.choice(KINDS)
    if kind in ("flip", "flips"):
        content = bytearray(content)
        for place in [at] if kind == "flip" else rng.integers(0, max(1, len(content)), 9):
            content[place : place + 1] = (byte ^ 1 << int(rng.integers(8)) for byte in content[place : place + 1])
        return bytes(content)
    if kind == "cut":
        return content[:at]
    if kind == "insert":
        return content[:at] + rng.bytes(length) + content[at:]
    if kind == "delete":
        return content[:at] + content[at + length :]
    if kind == "repeat":
        return content[: at + 5 * length] + content[at:]
    if kind == "swap":
        first, last = sorted((at, other))
        return content[:first] + content[last : last + length] + content[first + length : last] \
            + content[first : first + length] + content[last + length :]
    if kind in ("digit", "letter"):
        pattern = rb"\d" if kind == "digit" else rb"[a-z]"
        at = int(rng.choice([match.start() for match in re.finditer(pattern, content[:3000])] or [0]))
        return content[:at] + bytes(rng.choice(PATCHES[kind])) + content[at + 1 :]
    if kind == "huge":
        width = int(rng.choice([4, 8]))
        patch = (HUGE[rng.integers(len(HUGE))] % (1 << 8 * width)).to_bytes(width, "little")
    else:
        patch = bytes(length) if kind == "zeros" else rng.bytes(length)
    return content[:at] + patch + content[at + len(patch) :]


def is_same(state, expected):
    return state.keys() == expected.keys() and all(
        tensor.dtype == expected[name].dtype and tensor.shape == expected[name].shape
        and np.array_equal(tensor.data, expected[name].data) for name, tensor in state.items())


def is_sound(state):
    """Whether it is a state at all; a format without a checksum may have lost any value."""
    return all(isinstance(name, str) and (0 in tensor.shape or np.isscalar(tensor.data[(-1,) * tensor.ndim]))
               for name, tensor in state.items())


def try_damage(path, count, seed):
    """What becomes of `count` damaged versions of the file, counted, and what was wrong with the first of each kind."""
    content, rng = path.read_bytes(), np.random.default_rng([seed, *path.name.encode()])
    expected, has_checksum = dl.load(path), not path.name.startswith(("plain", "legacy"))
    mutant = path.with_name(f"damaged-{path.name}")
    outcomes, wrong, slowest, largest = Counter(), {}, 0.0, 0
    for index in range(count):
        mutant.write_bytes(damaged(content, rng))
        outcome = read(mutant)
        state, slowest, largest = outcome["state"], max(slowest, outcome["seconds"]), max(largest, outcome["bytes"])
        if state is None:
            outcomes["refused"] += 1
        elif is_same(state, expected):
            outcomes["read as it was"] += 1
        else:
            outcomes["read as something else"] += 1
            if has_checksum:
                outcome["wrong"].append("reads as something else")
            elif not is_sound(state):
                outcome["wrong"].append("is not a state")
        for complaint in outcome["wrong"]:
            wrong.setdefault(complaint, index)
    mutant.unlink()
    return {"name": path.name, "outcomes": outcomes, "wrong": wrong, "seconds": slowest, "bytes": largest}


# The process that reads

def explode(path):
    """Read a bomb in a process of its own, and print what became of it, be it the end of that process."""
    process = os.fork() if hasattr(os, "fork") else 0
    if process:
        _, status = os.waitpid(process, 0)
        if status:
            print(json.dumps({"name": path.name, "wrong": [f"ends the process with status {status}"]}), flush=True)
        return
    outcome = read(path)
    outcome["tensors"] = outcome.pop("state") is not None
    print(json.dumps({"name": path.name, **outcome}), flush=True)
    if hasattr(os, "fork"):
        os._exit(0)


def main(what, folder, *numbers):
    paths = sorted(Path(folder).iterdir())
    for path in (Path(__file__).parent / "checkpoints").glob("[elz]*.*"):
        dl.load(path)  # imports what reading needs
    for encoding in "ascii", "latin-1", "raw_unicode_escape", "unicode_escape":
        codecs.lookup(encoding)
    sys.addaudithook(listen)
    for path in paths:
        if what == "bombs":
            explode(path)
        else:
            print(json.dumps(try_damage(path, *map(int, numbers))), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
