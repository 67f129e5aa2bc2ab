"""What comes in through the door for arrays, beside what tests/test_operations_table.py tries on every operation."""

import numpy as np
import pytest
from cases import mentions, pytorch

import minidl as dl
from minidl.arrays import DTYPES, from_python, plain, promoted

LISTS = {
    "Python's floats": ([0.1, 2.0], "float32"),
    "NumPy's doubles": ([np.float64(0.1)], "float64"),
    "NumPy's singles": ([np.float32(0.1)], "float32"),
    "NumPy's halves": ([np.float16(0.1)], "float16"),
    "a half and a Python float": ([np.float16(0.1), 2.0], "float32"),
    "a single and a Python float": ([np.float32(0.1), 2.0], "float32"),
    "a double and a Python float": ([2.0, np.float64(0.1)], "float64"),
    "a whole NumPy number and a Python float": ([np.int64(1), 2.5], "float32"),
    "a double, nested": ([[1, 2.0], [np.float64(3), 4]], "float64"),
    "whole numbers": ([1, 2], "int64"),
    "small whole numbers of NumPy": ([np.int8(1), np.int8(2)], "int8"),
    "bools": ([True, False], "bool"),
    "bools and whole numbers": ([True, 2], "int64"),
    "nothing": ([], "float32"),
}


@pytest.mark.parametrize("data, dtype", LISTS.values(), ids=LISTS)
def test_a_list_has_the_dtype_of_its_numbers(data, dtype):
    for made in (dl.tensor(data), dl.Tensor(data)):
        np.testing.assert_array_equal(made.data, np.array(data, dtype), strict=True)


@pytest.mark.parametrize("data, dtype", LISTS.values(), ids=LISTS)
def test_pytorch_says_the_same(data, dtype):
    assert str(pytorch().tensor(data).dtype) == f"torch.{dtype}"


def test_tensors_in_lists_keep_their_dtype():
    assert dl.tensor([dl.tensor(1.0), dl.tensor(2.0)]).dtype == np.float32
    assert dl.tensor([dl.tensor(1.0, dtype="float64"), 2.0]).dtype == np.float64


@pytest.mark.parametrize("data", [1j, "1", None, [1, None], {1: 2}, 2**70, [[1, "2"]], np.longdouble(1)], ids=repr)
def test_what_is_not_a_number_of_a_tensor_is_refused(data):
    with pytest.raises(TypeError, match="a tensor holds"):
        dl.tensor(data)


def test_a_ragged_list_is_refused():
    with pytest.raises(ValueError):
        dl.tensor([[1.0, 2.0], [3.0]])


def test_a_plain_array_is_not_copied_and_a_foreign_byte_order_is():
    array = np.arange(3.0)
    assert plain(array) is array
    swapped = array.astype(">f8")
    assert plain(swapped).dtype == np.float64 and plain(swapped).dtype.isnative
    assert np.shares_memory(plain(array.view(np.memmap)), array)
    assert all(dtype.isnative for dtype in DTYPES)


def test_a_tensor_may_be_read_only():
    array = np.ones(3)
    array.flags.writeable = False
    x = dl.Tensor(array, requires_grad=True)
    (x * 2).sum().backward()
    assert x.grad.data.tolist() == [2, 2, 2]
    with pytest.raises(ValueError, match="read-only"):
        x.detach()[0] = 1.0


@pytest.mark.parametrize("number", [True, 2, 2.5, np.float64(2.5), np.int8(3)], ids=repr)
def test_a_number_takes_the_dtype_of_floats(number):
    assert (dl.tensor([1.0, 2.0]) * number).dtype == np.float32
    assert (number * dl.tensor(np.ones(2, np.float16))).dtype == np.float16


def test_what_is_no_number_cannot_be_computed_with():
    for other in ("1", None, 1j, [1.0]):
        with pytest.raises(TypeError, match=mentions(type(other).__name__)):
            dl.tensor([1, 2]) + other
        with pytest.raises(TypeError, match=mentions(type(other).__name__)):
            other * dl.tensor([1.0, 2.0])


def test_promotion_converts_what_it_must_and_nothing_else():
    single, whole = np.ones(2, np.float32), np.ones(2, np.int64)
    assert promoted(single, 2.5) == (single, 2.5)
    a, b = promoted(single, whole)
    assert a is single and b.dtype == np.float32
    assert from_python(3).dtype == np.int64


def test_to_takes_a_device_a_dtype_or_a_tensor():
    x = dl.tensor([1.0])
    for wanted in ("float64", "<f8", ">f8", np.float64, np.dtype("d"), float, dl.tensor([1.0], dtype="float64")):
        assert x.to(wanted).dtype == np.float64 and x.to(wanted).device == "cpu"
    assert x.to("cpu") is x
    for wanted, said in (("bfloat16", "float16, float32 and float64"), (3, "a device, a dtype or a tensor")):
        with pytest.raises(TypeError, match=said):
            x.to(wanted)
    for dtype in ("complex64", np.longdouble, object):
        with pytest.raises(TypeError):
            x.to(dtype)
    with pytest.raises(dl.DeviceError, match="there is no device"):
        x.to("tpu")
