"""The loader: every image once, in an order that threads, stops and resumes do not change."""

import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minidl.backend
from minidl.autograd import Tensor
from minidl.data import ArrayDataset, DataLoader, RandomShift, Subset, digits
from minidl.data.dataset import spread


def numbered(count, transform=None):
    """Images of one pixel that hold their own index, as their labels do."""
    numbers = np.arange(count)
    return ArrayDataset(numbers.reshape(-1, 1, 1, 1), numbers, transform, scale=1)


class Single:
    """A data set that knows single samples only, and may fail at one of them."""

    def __init__(self, count, fails_at=None, delay=0.0):
        self.count = count
        self.fails_at = fails_at
        self.delay = delay
        self.read = []

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        self.read.append(index)
        time.sleep(self.delay)
        if index == self.fails_at:
            raise OSError(f"cannot read {index}")
        return np.full((1, 2, 2), index, np.float32), index


def labels(loader):
    return [labels.data.tolist() for _, labels in loader]


def flat(batches):
    return [label for batch in batches for label in batch]


def same(first, second):
    """Whether two lists of batches agree bit for bit."""
    return len(first) == len(second) and all(
        np.array_equal(a.data, b.data) and a.dtype == b.dtype
        for one, other in zip(first, second)
        for a, b in zip(one, other)
    )


def notes(error, expected):
    """Whether `error` has the `expected` notes; Python 3.10 knows none."""
    return not hasattr(error, "add_note") or error.__notes__ == expected


def threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("minidl-loader")]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    assert threads() == []


# What an epoch holds


@given(st.integers(0, 30), st.integers(1, 12), st.booleans(), st.booleans(), st.integers(0, 2))
def test_an_epoch_is_every_image_once(count, batch_size, shuffle, drop_last, num_workers):
    loader = DataLoader(numbered(count), batch_size, shuffle, drop_last=drop_last, num_workers=num_workers, seed=1)
    batches = labels(loader)
    assert len(batches) == len(loader)
    assert all(len(batch) == batch_size for batch in batches[:-1])
    served = sorted(flat(batches))
    assert len(set(served)) == len(served) == (count - count % batch_size if drop_last else count)


def test_without_shuffle_the_order_is_that_of_the_data():
    assert labels(DataLoader(numbered(5), 2)) == [[0, 1], [2, 3], [4]]
    assert labels(DataLoader(numbered(5), 2, drop_last=True)) == [[0, 1], [2, 3]]
    assert labels(DataLoader(numbered(2))) == [[0], [1]]


def test_batches_are_tensors_of_images_and_labels():
    images, classes = next(iter(DataLoader(digits(), 32)))
    assert type(images) is Tensor and type(classes) is Tensor
    assert images.shape == (32, 1, 8, 8) and images.dtype == np.float32
    assert classes.shape == (32,) and classes.dtype == np.int64


def test_images_keep_their_labels():
    for images, classes in DataLoader(numbered(50), 8, shuffle=True, num_workers=2):
        np.testing.assert_array_equal(images.data[:, 0, 0, 0], classes.data)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("dataset, drop_last", [(numbered(0), False), (Single(0), False), (numbered(3), True)])
def test_nothing_to_serve_is_an_epoch_without_batches(dataset, drop_last, num_workers):
    loader = DataLoader(dataset, 4, shuffle=True, num_workers=num_workers, drop_last=drop_last)
    assert len(loader) == 0 and list(loader) == []
    assert loader.epoch == 1


def test_a_plain_data_set_is_stacked():
    (images, classes), rest = DataLoader(Single(5), 3)
    assert images.shape == (3, 1, 2, 2) and images.dtype == np.float32
    assert classes.data.tolist() == [0, 1, 2] and classes.dtype == np.int64
    assert rest[0].shape == (2, 1, 2, 2)


def test_a_list_of_samples_is_a_data_set():
    samples = [(np.zeros((1, 2, 2)), 7), (np.ones((1, 2, 2)), 8)]
    assert labels(DataLoader(samples, 2)) == [[7, 8]]


# Order and chance


@pytest.mark.parametrize("dataset", [digits(transform=RandomShift(2)), Single(100)], ids=["fetch", "single"])
def test_any_number_of_threads_gives_the_same_batches(dataset):
    epochs = []
    for num_workers in 0, 1, 3:
        loader = DataLoader(dataset, 16, shuffle=True, num_workers=num_workers, seed=3)
        epochs.append([list(loader), list(loader)])
    for first, second in epochs[1:]:
        assert same(first, epochs[0][0]) and same(second, epochs[0][1])


def test_slow_and_fast_samples_come_in_order():
    class Uneven(Single):
        def __getitem__(self, index):
            time.sleep(0.003 * (index % 3))
            return super().__getitem__(index)

    assert flat(labels(DataLoader(Uneven(30), num_workers=3))) == list(range(30))


def test_each_epoch_has_its_own_order_and_its_own_chance():
    loader = DataLoader(numbered(40), 40, shuffle=True, seed=0)
    assert len({tuple(*labels(loader)) for _ in range(5)}) == 5
    loader = DataLoader(digits(transform=RandomShift(2)), 64, seed=0)
    assert not same(list(loader), list(loader))


def test_each_batch_has_its_own_chance():
    seen = []

    def transform(images, rng):
        seen.append(rng.random())
        return images

    loader = DataLoader(numbered(20), 2, shuffle=True, seed=0)
    order = np.random.default_rng(np.random.SeedSequence(0, spawn_key=(0,))).permutation(20)
    assert flat(labels(loader)) == order.tolist()
    loader = DataLoader(numbered(20, transform), 2, shuffle=True, seed=0)
    list(loader), list(loader)
    # Not even the first batch draws what the epoch's order was drawn from.
    seen.append(np.random.default_rng(np.random.SeedSequence(0, spawn_key=(0,))).random())
    assert len(set(seen)) == 21


def test_another_seed_is_another_order():
    first, again, other = (labels(DataLoader(numbered(40), 8, shuffle=True, seed=seed)) for seed in (1, 1, 2))
    assert first == again != other


def test_without_a_seed_manual_seed_decides(monkeypatch):
    orders = []
    for seed in 1, 1, 2:
        monkeypatch.setattr(minidl.backend, "_generator", np.random.default_rng(seed))
        orders.append(labels(DataLoader(numbered(40), 8, shuffle=True)))
    assert orders[0] == orders[1] != orders[2]


def test_a_look_at_one_batch_does_not_change_the_epoch():
    loader = DataLoader(numbered(40), 8, shuffle=True, seed=1)
    first = next(iter(loader))[1].data.tolist()
    assert labels(loader) == labels(DataLoader(numbered(40), 8, shuffle=True, seed=1))
    assert first == labels(DataLoader(numbered(40), 8, shuffle=True, seed=1))[0]


# Going on after a stop


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("stop", [1, 3, 7])
def test_a_resumed_epoch_goes_on_with_the_same_bits(stop, num_workers):
    def loader(seed):
        data = digits(train=False, transform=RandomShift(1))
        return DataLoader(data, 50, shuffle=True, num_workers=num_workers, seed=seed)

    whole = loader(9)
    epochs = [list(whole) for _ in range(3)]
    assert len(epochs[0]) == 8

    stopped = loader(9)
    list(stopped)
    for count, _ in enumerate(stopped, 1):
        if count == stop:
            state = stopped.state_dict()
            break
    assert state == stopped.state_dict() == {"seed": 9, "epoch": 1, "batch": stop}

    resumed = loader(1)
    resumed.load_state_dict(state)
    assert resumed.state_dict() == state
    assert same(list(resumed), epochs[1][stop:])
    assert same(list(resumed), epochs[2])


def test_a_stop_after_the_last_batch_resumes_at_the_end_of_the_epoch():
    loader = DataLoader(numbered(6), 3, shuffle=True, seed=0)
    states = [loader.state_dict() for _ in loader]
    assert states[-1] == {"seed": 0, "epoch": 0, "batch": 2}
    assert loader.state_dict() == {"seed": 0, "epoch": 1, "batch": 0}
    expected = labels(loader)
    loader.load_state_dict(states[-1])
    assert labels(loader) == []
    assert labels(loader) == expected


def test_only_the_next_iteration_is_a_resumed_one():
    loader = DataLoader(numbered(6), 1)
    loader.load_state_dict({"seed": 0, "epoch": 4, "batch": 4})
    iterator = iter(loader)
    assert next(iterator)[1].data.tolist() == [4]
    iterator.close()
    assert flat(labels(loader)) == list(range(6))
    assert loader.epoch == 5


@pytest.mark.parametrize("state, complaint", [
    ({"seed": 0, "epoch": 0}, r"has the keys seed, epoch and batch; this one has \['epoch', 'seed'\]"),
    ({"seed": 0, "epoch": 0, "batch": 4}, "4 batches were handed out, but an epoch has 3"),
    ({"seed": 0, "epoch": -1, "batch": 0}, "epoch is -1; expected a whole number, 0 or more"),
    ({"seed": "x", "epoch": 0, "batch": 0}, "seed is 'x'"),
])
def test_a_state_that_cannot_be_is_refused_and_changes_nothing(state, complaint):
    loader = DataLoader(numbered(6), 2, shuffle=True, seed=5)
    with pytest.raises(ValueError, match=complaint):
        loader.load_state_dict(state)
    assert loader.state_dict() == {"seed": 5, "epoch": 0, "batch": 0}


# Threads


@pytest.mark.parametrize("num_workers, prefetch_factor", [(1, 1), (1, 3), (2, 2)])
def test_no_more_is_prepared_ahead_than_was_asked_for(num_workers, prefetch_factor):
    dataset = Single(40)
    ahead = num_workers * prefetch_factor
    for served, _ in enumerate(DataLoader(dataset, num_workers=num_workers, prefetch_factor=prefetch_factor), 1):
        expected = min(served + ahead, 40)
        deadline = time.monotonic() + 5
        while len(dataset.read) < expected and time.monotonic() < deadline:
            time.sleep(0.0005)
        time.sleep(0.001)  # a batch too many would be read now
        assert len(dataset.read) == expected


def test_threads_read_at_the_same_time():
    barrier = threading.Barrier(3, timeout=5)

    class Together(Single):
        def __getitem__(self, index):
            barrier.wait()  # breaks unless three samples are being read at once
            return super().__getitem__(index)

    assert len(list(DataLoader(Together(6), num_workers=3))) == 6


def test_leaving_early_stops_the_threads_and_the_reading():
    dataset = Single(1000, delay=0.001)
    for _ in DataLoader(dataset, 2, num_workers=3):
        assert threads()
        break
    assert threads() == []
    assert len(dataset.read) <= 2 * (1 + 3 * 2)


def test_an_exception_of_the_caller_stops_the_threads():
    with pytest.raises(ZeroDivisionError):
        for _ in DataLoader(Single(100), 2, num_workers=2):
            raise ZeroDivisionError
    assert threads() == []


@pytest.mark.parametrize("num_workers", [0, 1, 3])
def test_an_exception_of_the_data_set_arrives_as_it_is_and_in_its_turn(num_workers):
    loader = DataLoader(Single(20, fails_at=13), 2, num_workers=num_workers)
    served = []
    with pytest.raises(OSError, match="cannot read 13") as caught:
        for _, classes in loader:
            served += classes.data.tolist()
    assert served == list(range(12))
    assert threads() == []
    assert loader.state_dict()["batch"] == 6
    assert notes(caught.value, ["while reading sample 13", "while preparing batch 6 of epoch 0, samples [12 13]"])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_exception_of_a_transform_says_which_batch(num_workers):
    def transform(images, rng):
        if images.max() == 5:
            raise FloatingPointError("five")
        return images

    with pytest.raises(FloatingPointError, match="five") as caught:
        list(DataLoader(numbered(9, transform), 2, num_workers=num_workers))
    assert notes(caught.value, ["while preparing batch 2 of epoch 0, samples [4 5]"])


# Mistakes


def test_images_of_different_sizes_are_refused():
    samples = [(np.zeros((1, 2, 2)), 0), (np.zeros((1, 2, 3)), 0)]
    with pytest.raises(ValueError, match=r"sample 1 has the shape \(1, 2, 3\), but sample 0 .* \(1, 2, 2\)"):
        list(DataLoader(samples, 2))
    assert len(list(DataLoader(samples, 1))) == 2


@pytest.mark.parametrize("name, value, least", [
    ("batch_size", 0, 1),
    ("batch_size", 2.5, 1),
    ("batch_size", None, 1),
    ("num_workers", -1, 0),
    ("prefetch_factor", 0, 1),
    ("seed", -1, 0),
    ("seed", "lucky", 0),
])
def test_numbers_that_make_no_sense_are_refused(name, value, least):
    with pytest.raises(ValueError, match=f"{name} is {value!r}; expected a whole number, {least} or more"):
        if value is None:  # a seed may be None, a batch size not
            DataLoader(numbered(3), None)
        DataLoader(numbered(3), **{name: value})


def test_what_pytorch_takes_in_other_places_must_be_named():
    with pytest.raises(TypeError, match="positional"):
        DataLoader(numbered(3), 1, False, 2)


# A part of a data set

def test_a_subset_has_the_images_it_was_given_in_that_order():
    subset = Subset(numbered(10), [7, 2, 2])
    assert len(subset) == 3 and labels(DataLoader(subset, 2)) == [[7, 2], [2]]
    assert subset[1][1] == 2 and subset[-1][1] == 2
    with pytest.raises(IndexError):
        subset[3]
    assert labels(DataLoader(Subset(numbered(3), []), 2)) == []


def test_negative_indices_of_a_subset_count_from_the_end():
    assert labels(DataLoader(Subset(numbered(10), [-1, 0, -10]), 3)) == [[9, 0, 0]]
    assert Subset(list("abc"), [-1])[0] == "c"


def test_a_mask_chooses_the_samples_of_a_subset():
    data = numbered(10)
    for mask in data.labels >= 7, (data.labels >= 7).tolist(), Tensor(data.labels) >= 7:
        assert labels(DataLoader(Subset(data, mask), 5)) == [[7, 8, 9]]
    assert len(Subset(data, data.labels > 9)) == 0


@pytest.mark.parametrize("dataset", [
    [(np.full((1, 2, 2), i), i) for i in range(4)], Single(4), numbered(4), Subset(Single(6), [0, 1, 2, 3]),
], ids=["list", "single", "fetch", "subset"])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_any_data_set_has_subsets(dataset, num_workers):
    loader = DataLoader(Subset(dataset, [2, 1, 3]), 2, num_workers=num_workers)
    assert labels(loader) == [[2, 1], [3]]
    assert [images.data[:, 0, 0, 0].tolist() for images, _ in loader] == [[2, 1], [3]]


@pytest.mark.parametrize("indices, error, complaint", [
    ([0, 3], IndexError, "index 3; the data set has 3 samples, 0 to 2"),
    ([0, -4], IndexError, "index -4; the data set has 3 samples, 0 to 2"),
    (np.array([2**63], np.uint64), IndexError, "index 9223372036854775808"),
    ([True, False], IndexError, r"the mask has the shape \(2,\); the data set has 3 samples"),
    ([0.9, 1.2], TypeError, "indices are float64; expected whole numbers"),
    ([None], TypeError, "indices are object; expected whole numbers"),
    (["a"], TypeError, "expected whole numbers"),
    ([[0, 1]], ValueError, r"indices have the shape \(1, 2\)"),
    (1, ValueError, r"indices have the shape \(\)"),
])
def test_a_subset_of_what_is_not_there_is_refused(indices, error, complaint):
    for dataset in numbered(3), list(range(3)):
        with pytest.raises(error, match=complaint):
            Subset(dataset, indices)


@pytest.mark.parametrize("indices, error", [([0.5], TypeError), ([True, False, True], TypeError), ([3], IndexError)])
def test_a_batch_of_what_is_not_there_is_refused(indices, error):
    with pytest.raises(error):
        numbered(3).fetch(indices, np.random.default_rng(0))


def test_a_subset_leaves_chance_and_classes_to_its_data_set():
    data = digits(transform=RandomShift(2))
    subset = Subset(data, np.arange(20, 40))
    rng, again = np.random.default_rng(3), np.random.default_rng(3)
    for mine, theirs in zip(subset.fetch([0, 5], rng), data.fetch([20, 25], again)):
        np.testing.assert_array_equal(mine, theirs)
    assert subset.classes == data.classes


@given(count=st.integers(1, 40), asked=st.integers(1, 40))
def test_spread_images_are_evenly_apart(count, asked):
    if asked > count:
        with pytest.raises(ValueError, match=f"{asked} images were asked for; the data set has {count}"):
            spread(numbered(count), asked)
        return
    indices = spread(numbered(count), asked).indices
    gaps = set(np.diff([*indices, count]).tolist())
    assert len(indices) == asked and indices[0] == 0 and gaps <= {count // asked, count // asked + 1}
