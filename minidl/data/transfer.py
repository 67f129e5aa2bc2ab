"""Batches on their way to a GPU: copied one ahead, while the one before is computed on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from ..backend import gpu
from .collate import map_arrays


def moved(batches: Iterable[Any], device: str) -> Iterator[Any]:
    """The batches with their arrays on `device`.

    To a GPU they go on a stream of their own, from page-locked memory, which the GPU reads while it computes.
    """
    if device == "cpu":
        yield from batches
        return
    copier, ahead = _Copier(device), None
    for batch in batches:
        upcoming = copier.send(batch)
        if ahead is not None:
            yield copier.receive(ahead)
        ahead = upcoming
    if ahead is not None:
        yield copier.receive(ahead)


class _Copier:
    def __init__(self, device: str):
        import cupyx  # only where there is a GPU

        self.empty_pinned = cupyx.empty_pinned
        self.cupy, self.device = gpu(device)
        with self.device:
            self.stream = self.cupy.cuda.Stream(non_blocking=True)

    def send(self, batch: Any) -> tuple[Any, Any, list[np.ndarray]]:
        """Start copying: the batch with the arrays that arrive, the event of their arrival, what is read until then."""
        locked: list[np.ndarray] = []

        def start(source: np.ndarray) -> Any:
            buffer = self.empty_pinned(source.shape, source.dtype)
            buffer[...] = source
            locked.append(buffer)
            array = self.cupy.empty(source.shape, source.dtype)
            # The pool may hand out memory whose previous contents are still in use: wait for the compute stream.
            self.stream.wait_event(self.cupy.cuda.get_current_stream().record())
            array.set(buffer, stream=self.stream)
            return array

        with self.device:
            return map_arrays(start, batch), self.stream.record(), locked

    def receive(self, sent: tuple[Any, Any, list[np.ndarray]]) -> Any:
        batch, arrival, _ = sent
        arrival.synchronize()
        return batch
