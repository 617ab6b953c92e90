"""read_idx: every dtype of the format, and every way in which a file can be wrong."""

import gzip
import struct
import tracemalloc

import numpy as np
import pytest

from tinynet.data import read_idx
from tinynet.errors import DataError


def write(tmp_path, content, name="array.idx"):
    path = tmp_path / name
    path.write_bytes(content)
    return path


def refused(path, *words):
    """The file is refused; the message names it, what was expected and what came, and holds the words."""
    with pytest.raises(DataError) as caught:
        read_idx(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: expected ") and ", got " in message and caught.value.mend
    for word in words:
        assert word in message
    return message


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "int32", "float32", "float64"])
def test_every_dtype_comes_back_in_native_order(tmp_path, dtype, packed, idx_bytes):
    array = (np.random.default_rng(0).standard_normal((3, 2, 4)) * 100).astype(dtype)
    content = idx_bytes(array)
    path = write(tmp_path, gzip.compress(content) if packed else content, "array.idx.gz" if packed else "array.idx")
    back = read_idx(path)
    np.testing.assert_array_equal(back, array, strict=True)
    assert back.dtype.isnative and back.flags.writeable


def test_gzip_is_recognised_whatever_the_name(tmp_path, idx_bytes):
    path = write(tmp_path, gzip.compress(idx_bytes(np.arange(3, dtype=np.uint8))), "array.idx")
    assert read_idx(str(path)).tolist() == [0, 1, 2]


def test_an_array_without_elements_is_read(tmp_path, idx_bytes):
    assert read_idx(write(tmp_path, idx_bytes(np.zeros((0, 5), np.int16)))).shape == (0, 5)


def test_a_file_cut_anywhere_is_refused(tmp_path, idx_bytes):
    content = idx_bytes(np.arange(30, dtype=np.int16).reshape(5, 6))
    for length in range(len(content)):
        refused(write(tmp_path, content[:length]))


def test_a_gzip_file_cut_anywhere_is_refused(tmp_path, idx_bytes):
    content = gzip.compress(idx_bytes(np.random.default_rng(0).integers(0, 256, (5, 6), dtype=np.uint8)))
    for length in range(len(content)):
        refused(write(tmp_path, content[:length], "array.gz"))


def test_an_unpacked_file_cut_and_packed_again_is_refused(tmp_path, idx_bytes):
    content = idx_bytes(np.arange(30, dtype=np.int16).reshape(5, 6))
    for length in range(len(content)):
        refused(write(tmp_path, gzip.compress(content[:length])))


def test_the_message_tells_both_lengths(tmp_path, idx_bytes):
    content = idx_bytes(np.zeros((5, 6), np.int32))
    refused(write(tmp_path, content[:-7]), "120 bytes of data, for 5 x 6 of int32", "got 113")
    refused(write(tmp_path, content + b"x"), "120 bytes", "got 121")
    refused(write(tmp_path, gzip.compress(content + b"x")), "120 bytes", "got more")


def test_another_magic_number_is_refused(tmp_path):
    refused(write(tmp_path, b"<!DOCTYPE html>"), "magic number", "3c 21 44 4f", "page")
    refused(write(tmp_path, b"\0\0\x0a\x01\0\0\0\0"), "00 00 0a 01")
    refused(write(tmp_path, b"\0\1\x08\x01\0\0\0\0"), "00 01 08 01")


@pytest.mark.parametrize("ndim", [0, 33, 255])
def test_dimensions_that_no_array_has_are_refused(tmp_path, ndim):
    refused(write(tmp_path, struct.pack(">HBB", 0, 8, ndim) + b"\0" * 4 * ndim), "1 to 32 dimensions", str(ndim))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("shape", [(2**32 - 1,), (2**31, 2**31), (2**32 - 1,) * 32, (0, 2**32 - 1, 2**32 - 1)])
def test_absurd_dimensions_cost_no_memory(tmp_path, shape, packed):
    content = struct.pack(f">HBB{len(shape)}I", 0, 0x0E, len(shape), *shape)
    path = write(tmp_path, gzip.compress(content) if packed else content)
    tracemalloc.start()
    refused(path, "4294967295" if shape[-1] == 2**32 - 1 else "2147483648")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


def test_a_header_within_what_gzip_could_hold_allocates_only_what_it_does_hold(tmp_path):
    content = struct.pack(">HBBI", 0, 8, 1, 90_000_000) + np.random.default_rng(0).bytes(100_000)
    path = write(tmp_path, gzip.compress(content))
    tracemalloc.start()
    refused(path, "90000000", "only 100000")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


def test_a_name_that_promises_gzip_is_held_to_it(tmp_path, idx_bytes):
    refused(write(tmp_path, idx_bytes(np.zeros(3, np.uint8)), "array.gz"), "gzip", "take .gz off")


def test_a_damaged_gzip_stream_is_refused(tmp_path, idx_bytes):
    content = bytearray(gzip.compress(idx_bytes(np.random.default_rng(0).integers(0, 256, 999, dtype=np.uint8))))
    content[500] ^= 0xFF
    refused(write(tmp_path, bytes(content)))
    content[2] = 7  # no compression method
    refused(write(tmp_path, bytes(content)), "intact gzip")


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    refused(tmp_path / "absent.idx", "No such file")
    refused(tmp_path, "directory")
