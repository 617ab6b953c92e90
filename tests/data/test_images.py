"""digits and mnist: shapes, scaling, provenance, and files that do not fit each other."""

import gzip

import numpy as np
import pytest

from tinynet.data import digits, mnist
from tinynet.errors import DataError

TEN = tuple("0123456789")


def test_digits_are_rows_in_the_unit_interval_with_ten_classes():
    train, test = digits()
    assert train.x.shape == (1438, 64) and test.x.shape == (359, 64)
    for part in (train, test):
        assert part.x.dtype == np.float32 and part.y.dtype == np.int64 and part.y.shape == (len(part),)
        assert part.x.min() == 0 and part.x.max() == 1 and part.classes == TEN


def test_digits_are_split_in_proportion_and_always_alike():
    train, test = digits()
    counts = np.bincount(train.y) + np.bincount(test.y)
    assert np.abs(np.bincount(test.y) - 0.2 * counts).max() <= 1
    np.testing.assert_array_equal(digits()[1].x, test.x)
    # The split is stored, so that it cannot drift; these are its first samples.
    assert (train.y[:8].tolist(), test.y[:8].tolist()) == ([0, 1, 2, 3, 4, 6, 7, 8], [5, 6, 6, 7, 0, 5, 6, 8])


def test_digits_are_those_of_scikit_learn():
    source = pytest.importorskip("sklearn.datasets").load_digits()
    train, test = digits()
    ours = np.column_stack([np.concatenate([train.y, test.y]), 16 * np.concatenate([train.x, test.x])])
    theirs = np.column_stack([source.target, source.data])
    np.testing.assert_array_equal(ours[np.lexsort(ours.T)], theirs[np.lexsort(theirs.T)])


def test_mnist_reads_gzip_files_and_scales(small_mnist):
    train, test = mnist(small_mnist)
    assert train.x.shape == (6, 6) and test.x.shape == (4, 6)
    raw = np.frombuffer(gzip.decompress((small_mnist / "train-images-idx3-ubyte.gz").read_bytes())[16:], np.uint8)
    np.testing.assert_array_equal(train.x, raw.reshape(6, 6).astype(np.float32) / np.float32(255))
    assert train.x.dtype == np.float32 and train.y.dtype == np.int64 and train.classes == test.classes == TEN


@pytest.mark.parametrize("style", ["{}", "dotted", "dotted.gz"])
def test_mnist_finds_plain_and_dotted_names(small_mnist, style):
    expected = mnist(small_mnist)[0].x
    for path in list(small_mnist.iterdir()):
        content, name = path.read_bytes(), path.name.removesuffix(".gz")
        path.unlink()
        if style.startswith("dotted"):
            name = name.replace("-idx", ".idx")
        if style.endswith(".gz"):
            (small_mnist / f"{name}.gz").write_bytes(content)
        else:
            (small_mnist / name).write_bytes(gzip.decompress(content))
    np.testing.assert_array_equal(mnist(str(small_mnist))[0].x, expected)


def test_mnist_of_another_checksum_is_refused_unless_told_otherwise(small_mnist, idx_bytes):
    path = small_mnist / "t10k-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(idx_bytes(np.arange(4, dtype=np.uint8))))
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte.gz: expected MD5 .*, got [0-9a-f]{32}.*verify=False"):
        mnist(small_mnist)
    assert mnist(small_mnist, verify=False)[1].y.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(("name", "array", "words"), [
    ("train-labels-idx1-ubyte.gz", np.zeros(5, np.uint8), "train-labels.*expected 6 labels.*got 5"),
    ("train-labels-idx1-ubyte.gz", np.full(6, 10, np.uint8), "train-labels.*labels from 0 to 9, got 10"),
    ("train-labels-idx1-ubyte.gz", np.zeros((6, 3, 2), np.uint8), "train-labels.*1 dimension, got uint8 with 3"),
    ("train-images-idx3-ubyte.gz", np.zeros((6, 3, 2), np.float32), "train-images.*uint8 .*got float32"),
    ("t10k-images-idx3-ubyte.gz", np.zeros((4, 3, 3), np.uint8), "6 pixels.*got 9"),
])  # fmt: skip
def test_mnist_files_that_do_not_fit_are_refused(small_mnist, name, array, words, idx_bytes):
    (small_mnist / name).write_bytes(gzip.compress(idx_bytes(array)))
    with pytest.raises(DataError, match=words):
        mnist(small_mnist, verify=False)


def test_mnist_files_without_an_image_are_read(small_mnist, idx_bytes):
    for part in ("train", "t10k"):
        (small_mnist / f"{part}-images-idx3-ubyte.gz").write_bytes(
            gzip.compress(idx_bytes(np.zeros((0, 3, 2), np.uint8)))
        )
        (small_mnist / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx_bytes(np.zeros(0, np.uint8))))
    assert mnist(small_mnist, verify=False)[0].x.shape == (0, 6)


def test_mnist_names_the_file_that_is_missing(small_mnist):
    (small_mnist / "t10k-images-idx3-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte\.gz, t10k-images\.idx3-ubyte.*none of them"):
        mnist(small_mnist)
    with pytest.raises(DataError, match="no such folder"):
        mnist(small_mnist / "absent")


def test_the_published_mnist_passes_its_checksums(mnist_folder):
    train, test = mnist(mnist_folder)
    assert train.x.shape == (60000, 784) and test.x.shape == (10000, 784)
    assert train.y[:5].tolist() == [5, 0, 4, 1, 9] and test.y[:5].tolist() == [7, 2, 1, 0, 4]
    assert train.x.max() == 1 and train.x.min() == 0
