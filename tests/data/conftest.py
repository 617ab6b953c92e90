"""Files for the tests of the data room: written small, damaged on purpose, or found beside the checkout."""

import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest

IDX_CODES = {"uint8": 0x08, "int8": 0x09, "int16": 0x0B, "int32": 0x0C, "float32": 0x0D, "float64": 0x0E}
MNIST_FOLDER = Path(__file__).resolve().parent / "../../../shared/data/mnist"


def _idx_bytes(array):
    header = struct.pack(">HBB", 0, IDX_CODES[array.dtype.name], array.ndim)
    header += struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


@pytest.fixture
def idx_bytes():
    """Makes the content of the IDX file of an array."""
    return _idx_bytes


@pytest.fixture
def write_csv(tmp_path):
    """Writes text (or bytes) to a CSV file and returns its path."""

    def write(content, name="table.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.fixture
def small_mnist(tmp_path, monkeypatch):
    """A folder with six training and four test images of 3 x 2 pixels, whose checksums count as the canonical ones."""
    from tinynet.data import images

    rng = np.random.default_rng(0)
    sums = {}
    for part, n in (("train", 6), ("t10k", 4)):
        for name, array in (
            (f"{part}-images-idx3-ubyte", rng.integers(0, 256, (n, 3, 2), dtype=np.uint8)),
            (f"{part}-labels-idx1-ubyte", rng.integers(0, 10, n, dtype=np.uint8)),
        ):
            content = _idx_bytes(array)
            (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content))
            sums[name] = hashlib.md5(content).hexdigest()
    monkeypatch.setattr(images, "_MNIST_MD5", sums)
    return tmp_path


@pytest.fixture
def mnist_folder():
    """The real MNIST, where it lies beside the checkout."""
    if not MNIST_FOLDER.is_dir():
        pytest.skip("MNIST is not at ../shared/data/mnist")
    return MNIST_FOLDER
