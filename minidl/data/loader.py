"""Batches from a data set, in an order that a seed and the epoch decide, prepared ahead by threads."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from itertools import islice
from typing import Any

import numpy as np

from .. import backend
from ..autograd import Tensor
from .collate import map_arrays
from .dataset import Dataset, fetch, note, read
from .transfer import moved


class DataLoader:
    """Iterating over it yields a data set once, in batches: (images, labels), tensors (n, C, H, W) and (n,).

    `dataset` has a length and a sample for each index, as a list has. Samples of any structure become batches of the
    same structure by `default_collate`, or by `collate_fn`, which is called with a list of samples. Either way arrays
    and tensors come as tensors on `device`, at any depth in tuples, lists and dicts.

    The arguments that PyTorch has mean what they mean there: batches have `batch_size` samples and
    the last one what is left, unless `drop_last`; `shuffle` draws a new order for each epoch.
    `num_workers` threads (PyTorch has processes; NumPy does not need them, as it releases the
    interpreter lock) keep up to `num_workers` · `prefetch_factor` batches ready, so a data set is
    read by several threads at once; 0 prepares each batch when it is asked for. To a GPU a batch is copied while the
    one before is computed on.

    Order and random numbers follow from `seed`, the epoch and the batch alone, whatever
    `num_workers`; without a `seed`, one is drawn from the generator that `minidl.manual_seed` seeds.
    So does what a data set draws in its ``__getitem__``, or `collate_fn`, from `minidl.backend.generator()`. Numbers
    from ``np.random`` and ``random`` do not: their generators are shared by all threads, so they repeat only with
    ``num_workers=0`` and a seed of their own.
    An iteration that is left early starts over in the next one; one that ends makes the next an
    epoch further. `state_dict` and `load_state_dict` go on in the middle of an epoch.

    Raises `ValueError` for a number that is not whole or too small, and for samples of one batch that differ in shape
    or structure; `TypeError` for what is not a data set or cannot be collated. An exception of the data set reaches
    the caller as it is, with a note of the batch or sample (from Python 3.11 on).
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int = 1,
        shuffle: bool = False,
        *,
        num_workers: int = 0,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        drop_last: bool = False,
        prefetch_factor: int = 2,
        seed: int | None = None,
        device: str = "cpu",
    ):
        if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
            raise TypeError(f"a data set has a length and a sample for each index; got {dataset!r:.60}, a "
                            f"{type(dataset).__name__}. Write list(...) of what can only be iterated over")
        self.dataset = dataset
        self.collate_fn = collate_fn
        self.batch_size = _whole("batch_size", batch_size, 1)
        self.shuffle = shuffle
        self.num_workers = _whole("num_workers", num_workers, 0)
        self.drop_last = drop_last
        self.prefetch_factor = _whole("prefetch_factor", prefetch_factor, 1)
        self.device = backend.check_device(device)
        self.seed = int(backend.generator().integers(2**63)) if seed is None else _whole("seed", seed, 0)
        self.epoch = 0
        self._handed_out = 0  # batches of the running epoch
        self._start = 0  # where the next iteration begins: not at 0 only after load_state_dict

    def __len__(self) -> int:
        """The number of batches in an epoch."""
        whole, rest = divmod(len(self.dataset), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[Any]:
        epoch, count = self.epoch, len(self.dataset)
        start, self._start = self._start, 0
        self._handed_out = start
        order = self._generator(epoch).permutation(count) if self.shuffle else np.arange(count)
        prepare = functools.partial(self._prepare, order, epoch)
        batches = range(start, len(self))
        with closing(_map_ahead(prepare, batches, self.num_workers, self.prefetch_factor)) as prepared:
            for arrays in moved(prepared, self.device):
                self._handed_out += 1
                yield map_arrays(Tensor, arrays)
        self.epoch, self._handed_out = epoch + 1, 0

    def state_dict(self) -> dict[str, int]:
        """The place reached: the seed, the epoch, and how many of its batches have been handed out."""
        return {"seed": self.seed, "epoch": self.epoch, "batch": self._handed_out}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Let the next iteration go on where `state` was taken, given the same data set, batch size and `shuffle`.

        Raises `ValueError`, and changes nothing, for a state that this loader cannot have been in.
        """
        if set(state) != {"seed", "epoch", "batch"}:
            raise ValueError(f"a loader's state has the keys seed, epoch and batch; this one has {sorted(state)}")
        seed, epoch, batch = (_whole(key, state[key], 0) for key in ("seed", "epoch", "batch"))
        if batch > len(self):
            raise ValueError(f"the state says that {batch} batches were handed out, but an epoch has {len(self)}; "
                             "use the data set and the batch size that it was taken with")
        self.seed, self.epoch, self._handed_out, self._start = seed, epoch, batch, batch

    def _prepare(self, order: np.ndarray, epoch: int, batch: int) -> Any:
        """A batch with arrays for tensors."""
        indices = order[batch * self.batch_size : (batch + 1) * self.batch_size]
        rng = self._generator(epoch, batch)
        try:
            if self.collate_fn is None:
                return fetch(self.dataset, indices, rng)
            with backend.drawing_from(rng):
                collated = self.collate_fn(read(self.dataset, indices))
            return map_arrays(lambda array: backend.to_device(array, "cpu"), collated)
        except Exception as error:
            note(error, f"while preparing batch {batch} of epoch {epoch}, samples "
                        f"{np.array2string(indices, threshold=8)}")
            raise

    def _generator(self, *place: int) -> np.random.Generator:
        """Random numbers for an epoch, or for a batch in it: streams that do not overlap."""
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=place))


def _map_ahead(
    function: Callable[[int], Any], items: Iterable[int], workers: int, prefetch_factor: int
) -> Generator[Any, None, None]:
    """`map(function, items)`, in order, with up to `workers` · `prefetch_factor` results made ahead by threads."""
    if workers == 0:
        yield from map(function, items)
        return
    from concurrent.futures import ThreadPoolExecutor  # costs time to import, and many programs need no threads

    remaining = iter(items)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="minidl-loader")
    try:
        waiting = deque(pool.submit(function, item) for item in islice(remaining, workers * prefetch_factor))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(function, item) for item in islice(remaining, 1))
            yield result
    finally:  # also when the caller leaves early: no thread outlives the iteration
        pool.shutdown(cancel_futures=True)


def _whole(name: str, value: int, least: int) -> int:
    if not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"{name} is {value!r}; expected a whole number, {least} or more")
    return int(value)
