"""Standard output and standard error, as the commands use them: in UTF-8, and prepared for a writing that fails."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO


class OutputError(OSError):
    """The output of a command cannot be written."""

    @property
    def closed(self) -> bool:
        """Whether its reader went away, as ``| head`` does. Windows calls that an invalid argument."""
        return self.errno in (errno.EPIPE, errno.EINVAL)


class Output:
    """`stream`, for a command to write to.

    The first failure to write raises `OutputError` if the output is `needed`; if not, it is said on stderr. From then
    on everything that is written is lost without a word.
    """

    def __init__(self, stream: TextIO, needed: bool):
        self.stream, self.needed, self.lost = stream, needed, False
        if isinstance(stream, io.TextIOWrapper) and not stream.closed:
            # Pipes and files get UTF-8 whatever the locale: Windows' cp1252 lacks what tables and formulas are made of.
            # A terminal is written to in its own encoding, with "?" for what that lacks.
            stream.reconfigure(encoding=None if stream.isatty() else "utf-8", errors="replace")

    def write(self, text: str) -> int:
        self._try(self.stream.write, text)
        return len(text)

    def flush(self) -> None:
        self._try(self.stream.flush)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def _try(self, function: Any, *arguments: Any) -> None:
        if self.lost:
            return
        try:
            function(*arguments)
        except (OSError, ValueError) as error:  # ValueError: it is closed
            self.lost = True
            _send_to_nowhere(self.stream)
            reason = getattr(error, "strerror", None) or str(error)
            if self.needed:
                raise OutputError(getattr(error, "errno", None), f"the output cannot be written: {reason}") from error
            print(f"minidl: the output cannot be written ({reason}); the command goes on without it", file=sys.stderr)


@contextmanager
def console() -> Iterator[Output]:
    """Let `sys.stdout`, which this gives, and `sys.stderr` be an `Output` each, until the block ends."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the shell; the next file that is opened would take its place
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w", encoding="utf-8"))
    before: Any = sys.stdout, sys.stderr
    streams: Any = Output(sys.stdout, needed=True), Output(sys.stderr, needed=False)
    sys.stdout, sys.stderr = streams
    try:
        yield streams[0]
    finally:
        sys.stdout, sys.stderr = before


def _send_to_nowhere(stream: TextIO) -> None:
    """Let the file of `stream` be the null device: Python writes out what the stream still holds when it ends."""
    with suppress(AttributeError, OSError, ValueError):  # a stream without a file
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
