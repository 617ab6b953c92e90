"""Data sets on disk: written whole or not at all, read row by row as arrays in memory are."""

import copy
import errno
import json
import os
import pickle
import threading

import numpy as np
import pytest

import tinynet as tn
from tinynet.data import Dataset, Loader, StoredArray, store, stored
from tinynet.data import disk as disk_module
from tinynet.errors import ArgumentError, DataError, DTypeError, RangeError, ShapeError

N = 57
X = np.random.default_rng(0).standard_normal((N, 3, 2)).astype(np.float32)
Y = np.arange(N) % 5


def chunks(size=10):
    for start in range(0, N, size):
        yield X[start : start + size], Y[start : start + size]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "set"


@pytest.fixture
def data(path):
    return store(path, chunks(), classes="abcde")


# ---- writing ----


@pytest.mark.parametrize("given", [
    lambda path: Dataset(X, Y),
    lambda path: (X, Y),
    lambda path: [Dataset(X[:20], Y[:20]), (X[20:], Y[20:])],
    lambda path: chunks(1),
    lambda path: (part for part in [(X[:0], Y[:0]), (X, Y), (X[:0], Y[:0])]),
    lambda path: Dataset(X[::-1], Y[::-1])[::-1],
    lambda path: store(f"{path}-before", (X, Y)),
    lambda path: store(f"{path}-before", (np.concatenate([X, X]), np.concatenate([Y, Y])))[N:],
])  # fmt: skip
def test_what_is_stored_comes_back(path, given):
    data = store(path, given(path))
    for array, expected, name in ((data.x, X, "x"), (data.y, Y, "y")):
        assert isinstance(array, StoredArray) and array.dtype == expected.dtype
        np.testing.assert_array_equal(np.asarray(array), expected)
        np.testing.assert_array_equal(np.load(path / f"{name}.npy"), expected)
    assert sorted(os.listdir(path)) == ["dataset.json", "x.npy", "y.npy"]
    assert repr(data) == "Dataset(57 samples, x (3, 2) float32, y () int64)"


@pytest.mark.parametrize("dtype", ["<f4", "<f8", ">f4", "<f2", "u1", "<i2", "?", "<c8"])
def test_dtypes_are_kept(path, dtype):
    x = np.array([[0, 1], [1, 0], [1, 1]]).astype(dtype)
    data = store(path, (x, Y[:3]))
    assert data.x.dtype == x.dtype
    np.testing.assert_array_equal(np.asarray(data.x), x)


def test_names_classes_and_preprocessor_are_kept(path, write_csv):
    file = write_csv("size,colour,kind\n" + "".join(f"{i},{'rb'[i % 2]},{'xy'[i % 2]}\n" for i in range(20)))
    train, _ = tn.data.csv(file, "kind")
    data = store(path, train)
    assert data.names == train.names and data.classes == train.classes == ("x", "y")
    assert data.preprocessor == train.preprocessor
    assert data[:5].names == train.names


def test_many_rows_of_one_column_and_rows_of_nothing(path):
    y = np.arange(300_001)
    np.testing.assert_array_equal(np.asarray(store(path, (y, y)).x), y)
    empty = store(f"{path}-2", (np.zeros((4, 0)), np.zeros(4)))
    assert np.asarray(empty.x).shape == (4, 0) and next(iter(Loader(empty, 4)))[0].shape == (4, 0)


@pytest.mark.parametrize(("given", "error", "said"), [
    (lambda: X, ArgumentError, "got ndarray"),
    (lambda: 3, ArgumentError, "got int"),
    (lambda: [X, Y], ArgumentError, "chunk 0: expected a Dataset or a tuple"),
    (list, ArgumentError, "at least one row"),
    (lambda: [(X[:0], Y[:0])], ArgumentError, "at least one row"),
    (lambda: [(X, Y), (X[:, :2], Y)], ShapeError, r"chunk 1: expected rows of x of shape \(3, 2\)"),
    (lambda: [(X, Y), (X, Y.astype(np.int32))], DTypeError, "chunk 1: expected y of int64"),
    (lambda: [(X, Y), (X, Y[:4])], ShapeError, "57 rows in x and 4 in y"),
    (lambda: [(X, Y), (X, Y + 1)], RangeError, "class indices from 0 to 4"),
    (lambda: (np.array([{}]), Y[:1]), DTypeError, "Python objects"),
    (lambda: (np.array(["a"]), Y[:1]), DTypeError, "x of numbers"),
])  # fmt: skip
def test_what_cannot_be_stored_leaves_nothing_behind(tmp_path, path, given, error, said):
    with pytest.raises(error, match=said):
        store(path, given(), classes="abcde")
    assert os.listdir(tmp_path) == []


def test_an_error_of_the_source_is_its_own_and_leaves_nothing_behind(tmp_path, path):
    def source():
        yield X, Y
        raise OSError(errno.EIO, "the source is gone")

    with pytest.raises(OSError, match="the source is gone") as caught:
        store(path, source())
    assert not isinstance(caught.value, DataError) and os.listdir(tmp_path) == []


def test_a_disk_that_is_full_is_told_and_leaves_nothing_behind(tmp_path, path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match="No space left"):
        store(path, (X, Y))
    assert os.listdir(tmp_path) == []


def test_what_exists_is_not_written_over(path):
    path.mkdir()
    with pytest.raises(DataError, match="does not exist yet"):
        store(path, (X, Y))
    with pytest.raises(DataError, match="No such file"):
        store(path / "no" / "folder", (X, Y))
    assert os.listdir(path) == []


# ---- opening ----


def test_a_folder_that_was_not_finished_is_not_opened(data, path):
    (path / "dataset.json").unlink()
    with pytest.raises(DataError, match="not finished"):
        stored(path)
    with pytest.raises(DataError, match="No such file"):
        stored(path / "nowhere")


@pytest.mark.parametrize(("change", "said"), [
    ({"rows": 58}, "58 rows"), ({"rows": None}, "rows, an integer"), ({"rows": True}, "rows, an integer"),
    ({"version": 2}, "got format 'tinynet.dataset', version 2"), ({"format": "other"}, "got format 'other'"),
    ({"classes": "abc"}, "classes, a list"), ({"names": [1]}, "names, a list"), ({"preprocessor": {}}, "preprocessor"),
])  # fmt: skip
def test_a_description_that_is_wrong_is_refused(data, path, change, said):
    file = path / "dataset.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(DataError, match=said):
        stored(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "\udcff"])
def test_a_description_that_is_no_record_is_refused(data, path, text):
    (path / "dataset.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(DataError, match=r"dataset\.json"):
        stored(path)


def test_files_that_are_not_theirs_are_refused(data, path):
    file = path / "x.npy"
    whole = file.read_bytes()
    for content, said in (
        (whole[:-1], "cut short"), (b"", "npy file"), (b"\x93NUMPY\x03\x00" + whole[8:], "version 1 or 2"),
        (whole[:9], "npy file"), (b"a" * 500, "npy file"),
    ):  # fmt: skip
        file.write_bytes(content)
        with pytest.raises(DataError, match=said):
            stored(path)
    for array in (np.asfortranarray(X[:, 0]), np.float32(3), np.array([{}] * N)):
        np.save(file, array)
        with pytest.raises(DataError, match="rows of numbers"):
            stored(path)
    file.unlink()
    with pytest.raises(DataError, match="No such file"):
        stored(path)


# ---- reading ----


def test_slices_read_nothing_and_come_as_the_rows_they_are(data):
    part = data[10:50][5:-2]
    assert part.on_disk and len(part) == 33 and part.classes == tuple("abcde")
    np.testing.assert_array_equal(np.asarray(part.x), X[15:48])
    np.testing.assert_array_equal(np.asarray(part.y), Y[15:48])
    assert len(data[60:]) == len(data[5:3]) == 0
    np.testing.assert_array_equal(data.x[::-7], X[::-7])


@pytest.mark.parametrize("rows", [
    [3], [5, 4, 3], [0, 56, 0, -1, -57], [], [[1, 2], [2, 1]], 4, -1, np.uint8(200) % 57, list(range(57)),
])  # fmt: skip
def test_index_arrays_pick_rows(data, rows):
    rows = np.asarray(rows, dtype=None if np.size(rows) else int)
    np.testing.assert_array_equal(data.x[rows], X[rows])
    np.testing.assert_array_equal(data.x[20:].take(np.abs(rows) % 30), X[20:][np.abs(rows) % 30])


def test_a_data_set_of_picked_rows_is_in_memory(data):
    picked = data[Y == 2]
    assert not picked.on_disk
    np.testing.assert_array_equal(picked.x, X[Y == 2])
    x, y = data[7]
    np.testing.assert_array_equal(x, X[7])
    assert y == Y[7] and isinstance(y, np.int64)


def test_it_looks_like_an_array(data):
    assert (data.x.shape, data.x.ndim, data.x.size, data.x.nbytes) == (X.shape, 3, X.size, X.nbytes)
    assert np.asarray(data.x, dtype=np.float64).dtype == np.float64
    with pytest.raises(ValueError, match="without a copy"):
        np.asarray(data.x, copy=False)
    assert "shape (57, 3, 2), float32" in repr(data.x)


@pytest.mark.parametrize(("key", "error"), [
    (57, RangeError), (-58, RangeError), ([0, 57], RangeError), ([0.5], DTypeError), ("x", DTypeError),
    ([True] * 57, DTypeError),
])  # fmt: skip
def test_rows_that_there_are_not_are_refused(data, key, error):
    with pytest.raises(error, match="StoredArray"):
        data.x[key]


def test_reading_into_what_does_not_fit_is_refused(data):
    with pytest.raises(RangeError, match="5 to 60"):
        data.x.read(5, 60)
    for out in (np.empty((3, 3, 2)), np.empty((2, 3, 2), np.float32), np.empty((6, 3, 2), np.float32)[::2]):
        with pytest.raises(ShapeError, match="contiguous out"):
            data.x.read(0, 3, out)
    with pytest.raises(RangeError, match="axis 0"):
        data.x.take([0], axis=1)


def test_copies_open_the_file_again(data):
    for other in (pickle.loads(pickle.dumps(data.x[5:20])), copy.deepcopy(data.x[5:20])):
        np.testing.assert_array_equal(np.asarray(other), X[5:20])


def test_threads_read_side_by_side(path, monkeypatch):
    x = np.arange(200_000).reshape(-1, 10)
    for preadv in (True, False):
        if not preadv:
            monkeypatch.delattr(os, "preadv", raising=False)
        data, wrong = store(f"{path}-{preadv}", (x, x[:, 0])), []

        def look(start, data=data, wrong=wrong):
            for _ in range(20):
                wrong += [1] * bool((data.x.read(start, start + 5000) != x[start : start + 5000]).any())

        threads = [threading.Thread(target=look, args=(start,)) for start in (0, 7000, 15_000)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        assert not wrong


def test_short_reads_are_continued(data, monkeypatch):
    whole = disk_module._File._read_at
    monkeypatch.setattr(disk_module._File, "_read_at", lambda file, view, at: whole(file, view[:100], at))
    np.testing.assert_array_equal(np.asarray(data.x), X)


def test_a_file_cut_short_while_it_is_read_is_told_with_the_batch(data, path):
    loader = Loader(data, 10, shuffle=False)
    os.truncate(path / "x.npy", data.x.nbytes // 2)
    with pytest.raises(DataError, match=r"epoch 0, batch \d \(rows 20 to 29\).*x\.npy, rows 20 to 29.*cut short"):
        list(loader)


# ---- use ----


@pytest.mark.parametrize("shuffle", [True, "rows", False])
def test_a_loader_gives_every_row_once(data, shuffle):
    loader = Loader(data, (4, 9), shuffle, prefetch=2)
    assert loader.shuffle == {True: "blocks"}.get(shuffle, shuffle)
    for _ in range(2):
        x, y = (np.concatenate(parts) for parts in zip(*loader))
        assert sorted(x[:, 0, 0]) == sorted(X[:, 0, 0])
        assert (np.bincount(y) == np.bincount(Y)).all()


def test_a_loader_can_be_stored_which_mixes_rows_once_and_for_all(data, tmp_path):
    mixed = store(tmp_path / "mixed", Loader(data, 10, shuffle="rows"))
    order = np.concatenate([x[:, 0, 0] for x, _ in Loader(data, N, shuffle="rows")])
    np.testing.assert_array_equal(np.asarray(mixed.x)[:, 0, 0], order)


def test_a_split_at_random_is_refused(data):
    with pytest.raises(ArgumentError, match="by slices"):
        data.split(0.5)


def test_training_and_evaluating_are_those_of_the_same_rows_in_memory(path):
    x, y = X.reshape(N, 6), (X.sum(axis=(1, 2)) > 0).astype(np.int64)
    on_disk, results = store(path, (x, y)), []
    for data in (on_disk, Dataset(x, y)):
        tn.seed(0)
        model = tn.nn.Sequential(tn.nn.Dense(6, 8, "relu"), tn.nn.Dense(8, 2))
        loader = Loader(data[:40], 8, shuffle="blocks")
        history = tn.fit(
            model, loader, loss="cross_entropy", optimizer="adam", epochs=3, valid=data[40:], capture=False
        )
        results.append((history[-1]["loss"], history[-1]["valid_loss"], tn.predict(model, data).tolist()))
        results[-1] += (tn.evaluate(model, data, "cross_entropy"),)
    assert results[0] == results[1]
