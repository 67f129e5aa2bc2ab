"""The idx reader: every type and shape comes back as it was written, and no damaged file gets through."""

import gzip
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minidl.data import read_idx

CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def idx_bytes(array):
    """`array` as the bytes of an idx file."""
    header = struct.pack(f">2xBB{array.ndim}I", CODES[array.dtype.str[1:]], array.ndim, *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


IMAGES = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "numbers"


@given(
    st.sampled_from(sorted(CODES)).flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_side=0, max_side=5))),
    st.booleans(),
)
def test_what_was_written_comes_back(tmp_path_factory, array, zipped):
    path = tmp_path_factory.getbasetemp() / "any.idx"
    path.write_bytes(gzip.compress(idx_bytes(array)) if zipped else idx_bytes(array))
    found = read_idx(path)
    assert found.dtype == array.dtype and found.dtype.isnative
    np.testing.assert_array_equal(found, array)


def test_the_header_is_that_of_the_specification(path):
    path.write_bytes(bytes([0, 0, 0x0B, 2, 0, 0, 0, 1, 0, 0, 0, 2, 0x01, 0x02, 0xFF, 0xFE]))
    assert read_idx(path).tolist() == [[258, -2]]


def test_gzip_is_told_by_content_and_not_by_name(tmp_path):
    zipped, plain = tmp_path / "zipped-ubyte", tmp_path / "plain-ubyte.gz"
    zipped.write_bytes(gzip.compress(idx_bytes(IMAGES)))
    plain.write_bytes(idx_bytes(IMAGES))
    for path in zipped, plain:
        np.testing.assert_array_equal(read_idx(path), IMAGES)


def test_the_array_can_be_written_to(path):
    path.write_bytes(idx_bytes(IMAGES))
    array = read_idx(path)
    array += 1
    np.testing.assert_array_equal(array, IMAGES + 1)


@pytest.mark.parametrize("zip_it", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize("content, complaint", [
    (b"", r"not an idx file: it starts with the bytes ''"),
    (b"\0\0\x08", r"not an idx file: it starts with the bytes '00 00 08'"),
    (b"\x89PNG\r\n", r"starts with the bytes '89 50 4e 47'; expected 00 00, a type \(08, 09, 0b, 0c, 0d, 0e\)"),
    (b"\0\0\x0a\x01\0\0\0\0", r"starts with the bytes '00 00 0a 01'"),
    (idx_bytes(IMAGES)[:10], r"cut short: its header holds 1 of 3 sizes"),
    (idx_bytes(IMAGES)[:-1], r"\(2, 3, 4\) numbers of 1 byte\(s\), so 24 bytes are expected after it, but 23 bytes"),
    (idx_bytes(IMAGES) + b"\0", r"24 bytes are expected after it, but more follow"),
    (bytes([0, 0, 8, 65]) + 65 * b"\0\0\0\1" + b"\7", r"65 dimensions of sizes .* but "),
    (bytes([0, 0, 8, 4]) + bytes(4) + 12 * b"\xff", r"4 dimensions of sizes .* but "),
])
def test_a_malformed_file_is_one_clear_error(path, zip_it, content, complaint):
    path.write_bytes(zip_it(content))
    with pytest.raises(ValueError, match=complaint) as caught:
        read_idx(path)
    assert str(path) in str(caught.value)


def test_a_gzip_that_is_cut_anywhere_is_refused(path):
    intact = gzip.compress(idx_bytes(IMAGES))
    for length in range(len(intact)):
        path.write_bytes(intact[:length])
        with pytest.raises(ValueError, match="numbers"):
            read_idx(path)


def test_no_bit_that_changes_a_number_gets_through_a_gzip(path):
    intact = gzip.compress(idx_bytes(IMAGES))
    harmless = 0  # the date, the system, and what fills the last byte of the numbers
    for bit in range(8 * len(intact)):
        damaged = bytearray(intact)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            np.testing.assert_array_equal(read_idx(path), IMAGES)
            harmless += 1
        except ValueError as error:
            assert str(path) in str(error)
    assert harmless < 8 * 8


def test_rubbish_behind_a_gzip_is_refused(path):
    path.write_bytes(gzip.compress(idx_bytes(IMAGES)) + b"rubbish")
    with pytest.raises(ValueError, match="is damaged: .*; expected an intact gzip"):
        read_idx(path)


@pytest.mark.parametrize("zip_it", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_a_header_that_promises_too_much_costs_no_memory(path, zip_it):
    path.write_bytes(zip_it(bytes([0, 0, 0x0E, 3]) + 12 * b"\xff" + b"four"))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="but 4 bytes follow"):
            read_idx(path)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_a_gzip_that_unpacks_to_far_more_than_promised_costs_no_memory(path):
    path.write_bytes(gzip.compress(idx_bytes(IMAGES) + bytes(64 << 20)))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="more follow"):
            read_idx(path)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_a_missing_file_is_said_to_be_missing(path):
    with pytest.raises(FileNotFoundError, match="numbers"):
        read_idx(path)
