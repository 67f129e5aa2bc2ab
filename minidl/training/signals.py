"""Signals around a training: it stops between two batches, and no save is cut short."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

STOPPING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
"""Ctrl-C, the end that others ask for, and the loss of the terminal."""


@contextmanager
def stop_on_signal() -> Iterator[Callable[[], int]]:
    """Gives a function: the number of the first signal of `STOPPING` that came, 0 before.

    A SIGINT that is not the first signal raises KeyboardInterrupt at once; other signals are ignored from then on.
    Under nohup, SIGHUP stays ignored. Python handles signals in the main thread only; in another one the function
    always gives 0.
    """
    received: list[int] = []

    def remember(number: int, _: Any) -> None:
        received.append(number)
        if number == signal.SIGINT and len(received) > 1:
            raise KeyboardInterrupt

    with _handled_by(remember, STOPPING):
        yield lambda: received[0] if received else 0


@contextmanager
def finish_first() -> Iterator[None]:
    """Let Ctrl-C wait until the block has ended."""
    pressed: list[int] = []
    with _handled_by(lambda number, _: pressed.append(number), [signal.SIGINT]):
        yield
    if pressed:
        signal.raise_signal(signal.SIGINT)


@contextmanager
def _handled_by(handler: Callable[[int, Any], None], numbers: list[signal.Signals]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        for number in numbers:
            # Python cannot set None again: a handler that it did not install.
            if not (before[number] is None or (number != signal.SIGINT and before[number] == signal.SIG_IGN)):
                signal.signal(number, handler)
        yield
    finally:
        for number in numbers:
            if before[number] is not None:
                signal.signal(number, before[number])
