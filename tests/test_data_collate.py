"""Samples of any structure become batches, as PyTorch's default collation makes them."""

import collections
import threading

import numpy as np
import pytest
import strict_cupy
from hypothesis import given
from hypothesis import strategies as st

import minidl.backend
from minidl import tensor
from minidl.autograd import Tensor
from minidl.data import DataLoader, Subset, default_collate

Pair = collections.namedtuple("Pair", "image label")


def plain(batch):
    """`batch` with (dtype, values) for its tensors, ours or PyTorch's, and lists for tuples, as PyTorch makes them."""
    if isinstance(batch, Tensor) or type(batch).__module__ == "torch":
        array = batch.numpy()
        return array.dtype.name, array.tolist()
    if isinstance(batch, collections.abc.Mapping):
        return type(batch), {key: plain(value) for key, value in batch.items()}
    if isinstance(batch, (list, tuple)):
        return list if type(batch) is tuple else type(batch), [plain(value) for value in batch]
    return batch


SAMPLES = {
    "images with labels": [(np.full((1, 2, 2), i, np.float32), i) for i in range(3)],
    "triples": [(np.ones((2, 2), np.uint8), 3, 0.5), (np.zeros((2, 2), np.uint8), 4, 1.5)],
    "arrays": [np.arange(4, dtype=np.int16).reshape(2, 2), np.ones((2, 2), np.int16)],
    "arrays of no axis": [np.array(1, np.float32), np.array(2, np.float32)],
    "whole numbers": [1, 2, 3],
    "floats": [0.5, 1.0],
    "bools": [True, False],
    "NumPy's numbers": [np.float32(0.5), np.float32(1.5)],
    "NumPy's bools": [np.True_, np.False_],
    "texts": ["a", "bc"],
    "bytes": [b"a", b"bc"],
    "NumPy's texts": [np.str_("a"), np.str_("b")],
    "dicts": [{"image": np.ones(2), "name": "a"}, {"image": np.zeros(2), "name": "b"}],
    "ordered dicts": [collections.OrderedDict(b=1, a=2.0), collections.OrderedDict(b=3, a=4.0)],
    "dicts with a default": [collections.defaultdict(int, a=1), collections.defaultdict(int, a=2)],
    "named tuples": [Pair(np.ones(3), 1), Pair(np.zeros(3), 2)],
    "lists": [[1, 2.0], [3, 4.0]],
    "nested": [{"pair": (np.ones(2), {"deep": [1, "x"]})}, {"pair": (np.zeros(2), {"deep": [2, "y"]})}],
    "ranges": [range(2), range(2)],
    "one": [(1, "a")],
}


@pytest.mark.parametrize("samples", SAMPLES.values(), ids=SAMPLES)
def test_samples_are_collated_as_by_pytorch(samples):
    torch_data = pytest.importorskip("torch.utils.data", reason="needs PyTorch")
    expected = plain(torch_data.default_collate(samples))
    assert plain(default_collate(samples)) == expected
    (batch,) = DataLoader(samples, len(samples))
    assert plain(batch) == expected


@given(st.recursive(
    st.sampled_from([1, 2.5, True, "text", np.float32(3), np.arange(2)]),
    lambda inner: st.lists(inner, max_size=3) | st.lists(inner, max_size=3).map(tuple)
    | st.dictionaries(st.sampled_from("abc"), inner, max_size=3), max_leaves=8,
), st.integers(1, 3))
def test_any_structure_is_collated_as_by_pytorch(sample, count):
    torch_data = pytest.importorskip("torch.utils.data", reason="needs PyTorch")
    assert plain(default_collate([sample] * count)) == plain(torch_data.default_collate([sample] * count))


def test_tensors_of_any_library_are_stacked():
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    for make in tensor, torch.tensor:
        batch = default_collate([make([1.0, 2.0]), make([3.0, 4.0])])
        assert type(batch) is Tensor and batch.numpy().tolist() == [[1, 2], [3, 4]] and batch.dtype == np.float32


def test_a_tuple_stays_a_tuple():
    ((images, labels),) = DataLoader(SAMPLES["images with labels"], 3)
    assert images.shape == (3, 1, 2, 2) and labels.data.tolist() == [0, 1, 2]
    assert type(default_collate([(1, 2)])) is tuple and type(default_collate([[1, 2]])) is list
    assert default_collate(SAMPLES["dicts with a default"]).default_factory is int


def test_an_unlabelled_image_is_one_tensor():
    (batch,) = DataLoader([np.zeros((2, 4, 4), np.float32)] * 3, 3)
    assert batch.shape == (3, 2, 4, 4)


def test_the_samples_stay_as_they_are():
    samples = [{"a": [1, np.ones(2)]}, {"a": [2, np.zeros(2)]}]
    default_collate(samples)
    assert samples[0]["a"][0] == 1 and samples[0]["a"][1].tolist() == [1, 1]


# Samples that do not go together


@pytest.mark.parametrize("samples, complaint", [
    ([np.ones(2), np.ones(3)], r"^sample 1 has the shape \(3,\), but sample 0 of the same batch has the shape \(2,\)"),
    ([1, np.ones(3)], r"sample 1 has the shape \(3,\), .* has the shape \(\)"),
    ([(1, 2), (1, 2, 3)], "^sample 1 is a tuple of 3 items, but sample 0 of the same batch is a tuple of 2 items"),
    ([{"a": 1}, {"b": 1}], "sample 1 is a dict with the keys 'b', .* is a dict with the keys 'a'"),
    ([{"a": 1}, {"a": 1, "b": 2}], "sample 1 is a dict with the keys 'a', 'b'"),
    ([1, "a"], "sample 1 is a text, .* is numbers"),
    ([1, None], "sample 1 is a NoneType, .* is numbers"),
    ([(1, 2), {"a": 1}], "sample 1 is a dict with the keys 'a', .* is a tuple of 2 items"),
    ([{"a": (1, np.ones(2))}, {"a": (1, np.ones(3))}], r"^\['a'\]\[1\] of sample 1 has the shape \(3,\)"),
])
def test_samples_that_differ_are_one_error_that_names_them(samples, complaint):
    with pytest.raises(ValueError, match=complaint):
        default_collate(samples)
    complaint = complaint.replace("sample 1", "sample 3").replace("sample 0", "sample 2")
    with pytest.raises(ValueError, match=complaint):
        list(DataLoader([samples[0], samples[0], *samples], 2))


@pytest.mark.parametrize("sample, complaint", [
    (None, "sample 0 is None, a NoneType; a batch is made of tensors, arrays, numbers"),
    ({1, 2}, "sample 0 is {1, 2}, a set"),
    (1j, "sample 0 is 1j, a complex"),
    (np.array("a"), "sample 0 is array"),
    (np.array([None]), "sample 0 is array"),
    ((1, [object()]), r"^\[1\]\[0\] of sample 0 is <object"),
])
def test_what_cannot_be_collated_is_one_error_that_names_it(sample, complaint):
    with pytest.raises(TypeError, match=complaint):
        default_collate([sample, sample])
    with pytest.raises(TypeError, match=complaint):
        list(DataLoader([sample, sample], 2))


def test_a_batch_of_nothing_is_refused():
    with pytest.raises(ValueError, match="no samples"):
        default_collate([])


@pytest.mark.parametrize("dataset", [iter([1, 2]), (i for i in range(3)), 5, None, {1, 2}])
def test_what_has_no_length_and_no_samples_is_refused(dataset):
    with pytest.raises(TypeError, match="a data set has a length and a sample for each index; got"):
        DataLoader(dataset)


# A collate_fn


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_collate_fn_gets_the_samples_and_makes_the_batch(num_workers):
    texts = ["a", "bcd", "ef"]

    def padded(samples):
        assert type(samples) is list
        lengths = np.array([len(text) for text in samples])
        codes = np.array([[ord(letter) for letter in text.ljust(3)] for text in samples], np.float32)
        return {"codes": tensor(codes), "lengths": lengths, "texts": samples, "extra": None}

    first, rest = DataLoader(texts, 2, collate_fn=padded, num_workers=num_workers)
    assert type(first["codes"]) is Tensor and first["codes"].shape == (2, 3)
    assert type(first["lengths"]) is Tensor and first["lengths"].data.tolist() == [1, 3]
    assert first["texts"] == ["a", "bcd"] and first["extra"] is None and rest["texts"] == ["ef"]


def test_a_collate_fn_gets_the_samples_of_a_data_set_that_knows_batches():
    from minidl.data import digits

    (first, *_) = DataLoader(digits(), 4, collate_fn=default_collate)
    (expected, *_) = DataLoader(digits(), 4)
    for one, other in zip(first, expected):
        np.testing.assert_array_equal(one.data, other.data)


def test_a_batch_of_any_structure_goes_to_the_gpu(monkeypatch):
    strict_cupy.install(monkeypatch)
    samples = [{"image": np.full((2, 2), i, np.float32), "more": (i, [f"text {i}"])} for i in range(5)]
    for collate_fn in None, default_collate:
        batches = list(DataLoader(samples, 2, device="gpu", collate_fn=collate_fn))
        for batch, numbers in zip(batches, [[0, 1], [2, 3], [4]]):
            assert batch["image"].device == batch["more"][0].device == "gpu"
            assert batch["image"].to("cpu").data[:, 0, 0].tolist() == numbers
            assert batch["more"][0].to("cpu").data.tolist() == numbers
            assert list(batch["more"][1][0]) == [f"text {number}" for number in numbers]


# Random numbers of data sets that are read one by one


class Noisy:
    """Draws from the generator that minidl's own data sets draw from."""

    def __len__(self):
        return 23

    def __getitem__(self, index):
        return index, minidl.backend.generator().random(3)


def epochs(num_workers, seed=3, collate_fn=None, dataset=None):
    loader = DataLoader(dataset or Noisy(), 4, shuffle=True, num_workers=num_workers, seed=seed, collate_fn=collate_fn)
    return [[(index.data.tolist(), noise.data.tolist()) for index, noise in loader] for _ in range(2)]


def test_a_seed_decides_what_samples_draw_whatever_the_number_of_workers():
    expected = epochs(0)
    drawn = {tuple(row) for batches in expected for _, noise in batches for row in noise}
    assert len(drawn) == 2 * 23
    for num_workers in 0, 1, 3:
        assert epochs(num_workers) == expected != epochs(num_workers, seed=4)
        assert epochs(num_workers, collate_fn=default_collate) == expected
        assert epochs(num_workers, dataset=Subset(Noisy(), range(23))) == expected


def test_a_loader_leaves_the_generator_of_everything_else_alone():
    generator = minidl.backend.generator()
    before = generator.bit_generator.state
    iterator = iter(DataLoader(Noisy(), 4, seed=0))
    next(iterator)
    assert minidl.backend.generator() is generator and generator.bit_generator.state == before
    iterator.close()


def test_each_thread_draws_from_its_own_generator():
    seen = {}

    def draw(name):
        with minidl.backend.drawing_from(np.random.default_rng(name)):
            barrier.wait()
            seen[name] = minidl.backend.generator().random()

    barrier = threading.Barrier(3, timeout=5)
    threads = [threading.Thread(target=draw, args=(name,)) for name in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {name: np.random.default_rng(name).random() for name in range(3)}
