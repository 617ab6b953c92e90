"""What the tests of the native kernels share: the kernels, compiled once into a folder of this run; operands in memory
whose surroundings are watched."""

import ctypes
import mmap
import os

import numpy as np
import pytest

WIDTHS = (512, 256, 128)
DTYPES = ("float32", "float64")
# 0, 1, a prime, and around the heights and widths of tiles: 6 rows, 2 to 64 columns
ROWS = (0, 1, 2, 5, 6, 7, 13)
COLUMNS = (0, 1, 3, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 127)


@pytest.fixture(scope="session")
def native(tmp_path_factory):
    """The package, its compiled code in a folder that all workers of this run share."""
    pytest.importorskip("numba", reason="numba is not installed")
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    os.environ["TINYNET_CACHE"] = str(base / "native")
    from tinynet.kernels.cpu import native

    return native


def width_or_skip(native, width):
    if width not in native.widths():
        pytest.skip(f"this processor has no vectors of {width} bits")
    return width


def integers(shape, seed, dtype="float32"):
    """Numbers whose products and sums are exact: the result is the reference's to the bit."""
    return np.random.default_rng(seed).integers(-3, 4, shape).astype(dtype)


def exact(a, b):
    return a.astype("float64") @ b.astype("float64")


def run(native, out, a, b, **options):
    """The product with scratch of exactly the size that it asks for, with NaN in it and around it."""
    product = native.Product(out, a, b, **options)
    room = np.full(product.scratch_bytes + 128, 255, "uint8")  # bytes 255 are NaN in every float type
    product(room[64 : 64 + product.scratch_bytes])
    assert (room[:64] == 255).all() and (room[-64:] == 255).all(), "scratch was left"
    return out


def laid_out(x, layout):
    """A copy of a matrix in memory that is larger, with NaN around every row."""
    (m, n), pad = x.shape, 3
    if layout == "rows":
        held = np.full((m + 2, n + 2 * pad), np.nan, x.dtype)
        view = held[1 : m + 1, pad : pad + n]
    elif layout == "columns":
        held = np.full((n + 2, m + 2 * pad), np.nan, x.dtype)
        view = held[1 : n + 1, pad : pad + m].T
    elif layout == "every other":
        held = np.full((2 * m + 2, 2 * n + 2), np.nan, x.dtype)
        view = held[1 : 2 * m + 1 : 2, 1 : 2 * n + 1 : 2]
    else:
        held = np.full((m + 2, n + 2), np.nan, x.dtype)
        view = held[1 : m + 1, 1 : n + 1][::-1, ::-1]
    view[...] = x
    return view


def guarded(shape, dtype, end=True):
    """An array that touches a page which may not be touched, with its end or with its beginning."""
    libc = ctypes.CDLL(None, use_errno=True)
    page, nbytes = mmap.PAGESIZE, int(np.prod(shape)) * np.dtype(dtype).itemsize
    middle = -(-nbytes // page) * page
    held = mmap.mmap(-1, middle + 2 * page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(held))
    for guard in (start, start + page + middle):
        assert libc.mprotect(ctypes.c_void_p(guard), ctypes.c_size_t(page), mmap_none()) == 0
    at = page + (middle - nbytes if end else 0)
    return np.frombuffer(held, dtype, count=int(np.prod(shape)), offset=at).reshape(shape)


def mmap_none() -> int:
    return 0  # PROT_NONE
