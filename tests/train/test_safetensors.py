"""What the safetensors files promise: values survive, damage always shows, hostile files cost nothing."""

import contextlib
import errno
import json
import os
import stat

import numpy as np
import pytest
from layout import entry, plain, traced

from tinynet.errors import ArgumentError, CheckpointError
from tinynet.train import safetensors as files

DTYPES = ["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?"]
posix = pytest.mark.skipif(os.name != "posix", reason="permissions and links as POSIX has them")


@pytest.fixture
def library():
    return pytest.importorskip("safetensors.numpy", reason="the safetensors library is not installed")


def sample(dtype, shape=(3, 5)):
    """Values over the whole range of the type, among them NaN, infinity and minus zero."""
    size, dtype = int(np.prod(shape)), np.dtype(dtype)
    values = np.frombuffer(np.random.default_rng(7).bytes(size * dtype.itemsize), dtype).copy()
    if dtype.kind == "b":
        values = values.view("u1") > 99
    elif dtype.kind == "f" and size > 3:
        values[:4] = [np.nan, np.inf, -np.inf, -0.0]
    return values.reshape(shape)


def assert_same(found, expected):
    """Equal to the bit, whatever the memory order and the byte order of `expected`."""
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        native = array.astype(array.dtype.newbyteorder("="))
        assert (found[name].dtype, found[name].shape) == (native.dtype, native.shape), name
        assert found[name].tobytes() == native.tobytes(), name


SMALL = {"0.weight": np.arange(6, dtype="f4").reshape(2, 3), "0.bias": np.array([True, False])}


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small.safetensors"
    files.write(path, SMALL, {"about": "grün"})
    return path


@pytest.mark.parametrize("shape", [(3, 5), (), (0,), (0, 3), (3, 0, 2), (1, 1, 1), (1,) * 64, (7, 1, 3)])
def test_every_dtype_and_shape_survives_in_order(tmp_path, shape):
    tensors = {f"of {dtype}": sample(dtype, shape) for dtype in DTYPES}
    files.write(tmp_path / "m", tensors, {"b": "2", "a": "1"})
    for checksums in ("require", "if present"):
        found, metadata = files.read(tmp_path / "m", checksums)
        assert_same(found, tensors)
        assert list(found) == list(tensors) and list(metadata.items()) == [("b", "2"), ("a", "1")]
        for array in found.values():
            flags = array.flags
            assert flags.owndata and flags.aligned and flags.writeable and flags.c_contiguous and array.dtype.isnative


@pytest.mark.parametrize("dtype", ["f8", "f4", "f2", "i8", "u4", "i2", "u1", "?"])
def test_strided_and_foreign_arrays_survive(tmp_path, dtype):
    grid = sample(dtype, (6, 8))
    tensors = {
        "transposed": grid.T,
        "larger than a block": np.tile(grid, (90, 300)).T,
        "strided": grid[::2, 1::3],
        "backwards": grid[::-1, ::-1],
        "repeated": np.broadcast_to(grid[0], (4, 8)),
        "unaligned and read-only": np.frombuffer(b"x" + grid.tobytes(), grid.dtype, offset=1),
        "big endian": grid.astype(grid.dtype.newbyteorder(">")),
        "big endian and strided": grid.astype(grid.dtype.newbyteorder(">")).T[::-2],
    }
    files.write(tmp_path / "m", tensors, {})
    assert_same(files.read(tmp_path / "m", "require")[0], tensors)


def test_names_and_metadata_may_be_any_script(tmp_path):
    tensors = {name: sample("f4") for name in ("größe", "重み.0", 'a "quoted" {name}', "x" * 1000)}
    metadata = {"": "", "ключ": '\0\n\t"\\ 🙂', "__metadata__": "{}", "tinynet.model": "{}"}
    files.write(tmp_path / "m", tensors, metadata)
    found, about = files.read(tmp_path / "m", "require")
    assert_same(found, tensors)
    assert about == metadata


def test_a_boolean_of_foreign_bytes_is_written_as_one(tmp_path):
    files.write(tmp_path / "m", {"b": np.frombuffer(b"\x00\x02\x01", bool)}, {})
    assert files.read(tmp_path / "m")[0]["b"].view(np.uint8).tolist() == [0, 1, 1]


def test_the_data_begins_at_64_bytes_and_every_tensor_at_its_items(tmp_path):
    path = tmp_path / "m"
    files.write(path, {dtype: sample(dtype) for dtype in ("u1", "f8", "f2", "f4")}, {})
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    assert (8 + length) % 64 == 0
    header = json.loads(raw[8 : 8 + length])
    assert all(header[dtype]["data_offsets"][0] % int(dtype[1]) == 0 for dtype in ("u1", "f8", "f2", "f4"))


def test_any_arrays_survive(tmp_path):
    hypothesis = pytest.importorskip("hypothesis")
    st = pytest.importorskip("hypothesis.strategies")
    hnp = pytest.importorskip("hypothesis.extra.numpy")
    scalars = st.one_of(hnp.floating_dtypes(sizes=(16, 32, 64), endianness="?"), hnp.integer_dtypes(endianness="?"),
                        hnp.unsigned_integer_dtypes(endianness="?"), hnp.boolean_dtypes())  # fmt: skip
    arrays = hnp.arrays(scalars, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
    names = st.text(min_size=1, max_size=20).filter(
        lambda name: name.isprintable() and name != "__metadata__" and not any(x in name for x in ("/", "\\", ".."))
    )
    text = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
    keys = text.filter(lambda key: not key.startswith("tinynet."))  # hypothesis takes words from the sources

    @hypothesis.settings(max_examples=100, deadline=None)
    @hypothesis.given(st.dictionaries(names, arrays, max_size=4), st.dictionaries(keys, text), st.booleans())
    def check(tensors, metadata, transposed):
        tensors = {name: array.T if transposed else array for name, array in tensors.items()}
        files.write(tmp_path / "m", tensors, metadata)
        found, about = files.read(tmp_path / "m", "require")
        assert_same(found, tensors)
        assert about == metadata

    check()


def test_the_library_reads_our_files(tmp_path, library):
    safetensors = pytest.importorskip("safetensors")
    tensors = {f"of {dtype}": sample(dtype) for dtype in DTYPES}
    tensors |= {"scalar": np.array(3.5), "nothing": np.zeros((0, 4), "f4"), "turned": sample("f4").T}
    tensors |= {"größe": np.arange(5, dtype=">i4")}
    files.write(tmp_path / "m", tensors, {"ключ": "\0 🙂"})
    found = library.load_file(tmp_path / "m")
    assert_same(found, tensors)
    with safetensors.safe_open(tmp_path / "m", framework="np") as file:
        assert file.metadata()["ключ"] == "\0 🙂"


def test_we_read_the_librarys_files(tmp_path, library):
    tensors = {f"of {dtype}": sample(dtype) for dtype in DTYPES}
    tensors |= {"scalar": np.array(3.5), "nothing": np.zeros((0, 4), "f4"), "größe": sample("f2")}
    for metadata in (None, {}, {"ключ": "\0 🙂", "a": "b"}):
        library.save_file(tensors, tmp_path / "m", metadata)
        found, about = files.read(tmp_path / "m")
        assert_same(found, tensors)
        assert about == (metadata or {})


def test_our_file_rewritten_by_the_library_is_refused_until_its_marks_are_dropped(tmp_path, library, small):
    safetensors = pytest.importorskip("safetensors")
    with safetensors.safe_open(small, framework="np") as file:
        metadata = file.metadata()
    changed = {name: array + array for name, array in SMALL.items()}
    library.save_file(changed, small, metadata)
    for checksums in ("require", "if present"):
        with pytest.raises(CheckpointError):
            files.read(small, checksums)
    library.save_file(changed, small, {"about": metadata["about"]})
    assert files.read(small)[0].keys() == SMALL.keys()


@pytest.mark.parametrize("checksums", ["require", "if present"])
def test_every_flipped_bit_shows(tmp_path, small, checksums):
    raw, path = bytearray(small.read_bytes()), tmp_path / "damaged"
    for byte, bit in np.ndindex(len(raw), 8):
        raw[byte] ^= 1 << bit
        path.write_bytes(raw)
        with pytest.raises(CheckpointError):
            files.read(path, checksums)
            pytest.fail(f"bit {bit} of byte {byte} flipped, and the file was read")
        raw[byte] ^= 1 << bit


@pytest.mark.parametrize("checksums", ["require", "if present", None])
def test_a_file_cut_or_grown_anywhere_shows(tmp_path, small, checksums):
    path = tmp_path / "damaged"
    if checksums is None:  # another program's, whose layout alone must show it
        small = plain(small, {"a": entry(), "b": entry((3,), (8, 11), "U8")}, b"12345678abc")
        assert files.read(small)[0]["b"].tobytes() == b"abc"
    raw = small.read_bytes()
    for damaged in [raw[:length] for length in range(len(raw))] + [raw + b"\0"]:
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError):
            files.read(path, checksums or "if present")


def test_damaged_data_names_the_file_and_the_tensor(small):
    raw = bytearray(small.read_bytes())
    raw[-1] ^= 1
    small.write_bytes(raw)
    with pytest.raises(CheckpointError, match="checksum") as caught:
        files.read(small)
    assert caught.value.where == f"{small}, tensor '0.bias'"
    assert caught.value.expected and caught.value.got and caught.value.mend


def test_a_file_without_checksums_is_not_taken_where_they_are_required(tmp_path):
    path = plain(tmp_path / "m", {"a": entry()}, bytes(8))
    assert files.read(path, "if present")[0]["a"].tolist() == [0, 0]
    with pytest.raises(CheckpointError, match="if present"):
        files.read(path, "require")


@pytest.mark.parametrize("key", ["tinynet.sha256", "tinynet.checksums", "tinynet.version", "TinyNet"])
def test_a_file_that_names_tinynet_is_not_taken_without_checksums(tmp_path, key):
    path = plain(tmp_path / "m", {"a": entry(), "__metadata__": {key: "0" * 64}}, bytes(8))
    with pytest.raises(CheckpointError, match="tinynet"):
        files.read(path)


def test_a_file_that_shrinks_while_it_is_read_shows(small, monkeypatch):
    size = os.path.getsize(small)
    check = files._check_entries

    def shrink(*args):
        os.truncate(small, size - 1)
        return check(*args)

    monkeypatch.setattr(files, "_check_entries", shrink)
    with pytest.raises(CheckpointError, match="shorter"):
        files.read(small)


def test_neither_writing_nor_reading_copies_the_model(tmp_path):
    big = np.ones((2000, 2000))
    with traced() as peak:
        files.write(tmp_path / "m", {"straight": big, "turned": big.T, "foreign": big.view(">f8")}, {})
    assert peak() < big.nbytes / 4
    with traced() as peak:
        files.read(tmp_path / "m")
    assert peak() < 3.1 * big.nbytes


def fail(*_):
    raise OSError(errno.EIO, "the disk failed")


@pytest.mark.parametrize("step", ["fsync", "chmod", "replace", "midway"])
def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, small, step):
    old = small.read_bytes()
    blocks = files._blocks
    if step == "midway":
        monkeypatch.setattr(files, "_blocks", lambda array: fail() if array.dtype == bool else blocks(array))
    else:
        monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="the disk failed"):
        files.write(small, {name: ~array if array.dtype == bool else -array for name, array in SMALL.items()}, {})
    assert os.listdir(tmp_path) == [small.name]
    assert small.read_bytes() == old


def interrupted():
    yield b"new" * 100_000
    raise KeyboardInterrupt


@pytest.mark.parametrize("chunks, error", [(interrupted(), KeyboardInterrupt), (["text"], TypeError),
                                           (b"bytes", TypeError), ([b"fine", 3], TypeError)])  # fmt: skip
def test_a_source_that_fails_midway_leaves_the_old_file_and_no_other(tmp_path, chunks, error):
    (tmp_path / "log").write_bytes(b"old")
    with pytest.raises(error):
        files.atomic_write(tmp_path / "log", chunks)
    assert os.listdir(tmp_path) == ["log"] and (tmp_path / "log").read_bytes() == b"old"


def test_atomic_write_joins_chunks_of_any_kind_under_a_bare_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files.atomic_write("log", iter([b"a", bytearray(b"b"), memoryview(b"c"), b""]))
    assert (tmp_path / "log").read_bytes() == b"abc" and os.listdir(tmp_path) == ["log"]


@posix
def test_the_file_is_private_while_written_and_then_as_the_umask_gives(tmp_path):
    path, during = tmp_path / "log", []

    def chunks():
        (temporary,) = [name for name in os.listdir(tmp_path) if name != "log"]
        during.append(stat.S_IMODE(os.stat(tmp_path / temporary).st_mode))
        yield b"x"

    before = os.umask(0o027)
    try:
        files.atomic_write(path, chunks())
        assert os.umask(0o027) == 0o027
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        path.chmod(0o604)
        files.atomic_write(path, chunks())
    finally:
        os.umask(before)
    assert during == [0o600, 0o600]
    assert stat.S_IMODE(path.stat().st_mode) == 0o604


@posix
def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "latest").symlink_to(tmp_path / "models" / "7")
    files.atomic_write(tmp_path / "latest", [b"seven"])
    assert (tmp_path / "latest").is_symlink() and (tmp_path / "models" / "7").read_bytes() == b"seven"


@posix
@pytest.mark.parametrize("code", [errno.EINVAL, errno.EIO])
def test_a_folder_that_cannot_be_synced_is_no_failure_but_a_failing_disk_is(tmp_path, monkeypatch, code):
    def no_folders(handle):
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(code, "not this folder")

    monkeypatch.setattr(os, "fsync", no_folders)
    with pytest.raises(OSError, match="not this folder") if code == errno.EIO else contextlib.nullcontext():
        files.atomic_write(tmp_path / "log", [b"new"])
    assert (tmp_path / "log").read_bytes() == b"new"


def test_missing_files_and_unknown_words_are_refused_in_their_own_way(small):
    with pytest.raises(FileNotFoundError):
        files.read(small.parent / "none")
    with pytest.raises(FileNotFoundError):
        files.write(small.parent / "none" / "m", SMALL, {})
    with pytest.raises(ArgumentError, match="require"):
        files.read(small, "ignore")
