"""Batches on their way to a GPU: copied one ahead, while the one before is computed on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from ..backend import Array, gpu

Batch = tuple[Array, ...]


def moved(batches: Iterable[tuple[np.ndarray, ...]], device: str) -> Iterator[Batch]:
    """The batches on `device`. To a GPU they go on a stream of their own, from page-locked memory, which the GPU reads
    while it computes."""
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

    def send(self, batch: tuple[np.ndarray, ...]) -> tuple[Batch, Any, list[np.ndarray]]:
        """Start copying: the arrays that the batch arrives in, the event of its arrival, what is read until then."""
        locked = [self.empty_pinned(array.shape, array.dtype) for array in batch]
        with self.device:
            arrays = tuple(self.cupy.empty(array.shape, array.dtype) for array in batch)
            # What lay in this memory before may still be computed on.
            self.stream.wait_event(self.cupy.cuda.get_current_stream().record())
            for array, buffer, source in zip(arrays, locked, batch):
                buffer[...] = source
                array.set(buffer, stream=self.stream)
            return arrays, self.stream.record(), locked

    def receive(self, sent: tuple[Batch, Any, list[np.ndarray]]) -> Batch:
        arrays, arrival, _ = sent
        arrival.synchronize()
        return arrays
