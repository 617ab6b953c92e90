"""The two data sets of handwritten digits: one embedded in the package, one read from a folder.

Both come as (train, test), images flattened to rows and scaled to [0, 1]. The binary format is read in
:mod:`.idx`; nothing is ever downloaded.
"""

from __future__ import annotations

import os

import numpy as np

from tinynet.errors import DataError

from .dataset import Dataset
from .idx import read_idx, read_verified

__all__ = ["digits", "mnist"]

_CLASSES = tuple("0123456789")

# MD5 of the unpacked files as published by LeCun and Cortes.
_MNIST_MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}


def digits() -> tuple[Dataset, Dataset]:
    """The 8x8 optical digits of UCI: 1,797 images, embedded in the package.

    Returns:
        (train, test): 1,438 and 359 images. ``x`` is float32 of shape (n, 64), each image row by row, pixels 0..16
        divided by 16; ``y`` is int64 of shape (n,), the digit. The split, 80 to 20 and stratified by digit, was
        drawn once with seed 0 and is stored with the images: it is the same everywhere and for ever.

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository,
    1998, https://doi.org/10.24432/C50P49 (its test set), licensed CC BY 4.0. Stored as ``digits.npz``: "images"
    uint8 (1797, 64), "labels" uint8 (1797,), and "test", the bits of a mask over the images, packed.
    """
    path = os.path.join(os.path.dirname(__file__), "digits.npz")
    with np.load(path, allow_pickle=False) as file:
        images, labels = file["images"], file["labels"]
        in_test = np.unpackbits(file["test"], count=len(labels)).astype(bool)
    data = Dataset(images.astype(np.float32) / np.float32(16), labels.astype(np.int64), classes=_CLASSES)
    return data[~in_test], data[in_test]


def mnist(root, verify: bool = True) -> tuple[Dataset, Dataset]:
    """MNIST from the four IDX files in the folder ``root``.

    Args:
        root: folder with train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and
            t10k-labels-idx1-ubyte, each plain or with .gz, also spelled with a dot (train-images.idx3-ubyte).
        verify: hold the MD5 of the unpacked bytes against the published files. Without it, other data in the same
            files (Fashion-MNIST, a cut-down copy) can be read.

    Returns:
        (train, test): 60,000 and 10,000 images. ``x`` is float32 of shape (n, 784), each image row by row, pixels
        0..255 divided by 255; ``y`` is int64 of shape (n,), the digit.

    Raises:
        DataError: a file is missing, damaged, of another checksum, or the files do not fit each other. The message
            names the file.
    """
    root = os.fspath(root)
    train = _read_pair(root, "train-images-idx3-ubyte", "train-labels-idx1-ubyte", verify)
    test = _read_pair(root, "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte", verify)
    if train.x.shape[1] != test.x.shape[1]:
        raise DataError(
            root,
            expected=f"test images of {train.x.shape[1]} pixels, as the training images have",
            got=str(test.x.shape[1]),
            mend="take all four files from one data set",
        )
    return train, test


def _read_pair(root: str, images_name: str, labels_name: str, verify: bool) -> Dataset:
    images_path, images = _read_bytes(root, images_name, 3, verify)
    labels_path, labels = _read_bytes(root, labels_name, 1, verify)
    if len(images) != len(labels):
        raise DataError(
            labels_path,
            expected=f"{len(images)} labels, one for each image in {images_path}",
            got=str(len(labels)),
            mend="take both files from one data set",
        )
    if len(labels) and labels.max() >= len(_CLASSES):
        raise DataError(
            labels_path, expected="labels from 0 to 9", got=str(labels.max()), mend="check that this file holds labels"
        )
    # Not reshape(n, -1): it cannot infer the length of a row when there are no images.
    x = images.reshape(len(images), images.shape[1] * images.shape[2]).astype(np.float32)
    x /= np.float32(255)
    return Dataset(x, labels.astype(np.int64), classes=_CLASSES)


def _read_bytes(root: str, name: str, ndim: int, verify: bool) -> tuple[str, np.ndarray]:
    """The path and the array of one of the four files: uint8 with ``ndim`` dimensions."""
    dotted = name.replace("-idx", ".idx")
    names = [name, f"{name}.gz", dotted, f"{dotted}.gz"]
    path = next((path for path in (os.path.join(root, name) for name in names) if os.path.isfile(path)), None)
    if path is None:
        raise DataError(
            root,
            expected=f"one of {', '.join(names)}",
            got="none of them" if os.path.isdir(root) else "no such folder",
            mend="put the four files of MNIST into one folder and pass its path",
        )
    array = read_verified(path, _MNIST_MD5[name]) if verify else read_idx(path)
    if array.dtype != np.uint8 or array.ndim != ndim:
        raise DataError(
            path,
            expected=f"uint8 with {ndim} dimension{'s' * (ndim > 1)}",
            got=f"{array.dtype} with {array.ndim}",
            mend="check that images and labels are not swapped",
        )
    return path, array
