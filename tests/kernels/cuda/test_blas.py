"""cuBLAS, called through a library that is none (``fake_blas``): arguments, and the order of calls."""

import importlib
import itertools
from pathlib import Path

import numpy as np
import pytest
from fake_blas import Library, handle_of, product_of
from product_checks import exact, integers, placed

blas = importlib.import_module("tinynet.kernels.cuda.blas")
products = importlib.import_module("tinynet.kernels.cuda.products")


# ---- arguments ----


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_products_of_every_layout(dtype):
    handle = handle_of(Library())
    sizes = [(1, 1, 1), (5, 4, 3), (3, 4, 5), (1, 7, 4), (7, 1, 4), (4, 3, 1), (1, 1, 6), (6, 1, 1), (1, 6, 1)]
    for (m, n, k), turned in itertools.product(sizes, itertools.product((False, True), repeat=3)):
        a, b = placed(integers((m, k), dtype), turned[0]), placed(integers((k, n), dtype, 1), turned[1])
        out = placed(np.full((m, n), 77, dtype), turned[2])
        handle.multiply(blas.gemm(product_of(out, a, b), "float32"), 5)
        np.testing.assert_array_equal(out, exact(a, b), f"{m} x {k} x {n}, {turned}")


def test_arguments_of_the_four_cases():
    """Row by row, C (3 x 4) = A (3 x 5) B (5 x 4) is, column by column, C^T (4 x 3) = B^T A^T: B goes first."""
    out = np.zeros((3, 4), "float32")
    for a_turned, b_turned in itertools.product((False, True), repeat=2):
        a, b = (np.zeros((5, 3), "float32").T if a_turned else np.zeros((3, 5), "float32")), np.zeros((5, 4), "float32")
        b = np.zeros((4, 5), "float32").T if b_turned else b
        found = blas.gemm(product_of(out, a, b), "float32")
        assert (found.a, found.b, found.c) == tuple(each.ctypes.data for each in (b, a, out))
        assert (found.rows, found.columns, found.depth) == (4, 3, 5)
        assert (found.a_operation, found.a_leading) == ((1, 5) if b_turned else (0, 4))
        assert (found.b_operation, found.b_leading) == ((1, 3) if a_turned else (0, 5))
        assert found.c_leading == 4 and found.batch == 1


def test_batches():
    handle = handle_of(Library())
    for a_turned, b_turned in itertools.product((False, True), repeat=2):
        a, b = placed(integers((3, 4, 5)), a_turned), placed(integers((3, 5, 2), seed=1), b_turned)
        out = np.full((3, 4, 2), 77, "float32")
        handle.multiply(blas.gemm(product_of(out, a, b), "float32"), 5)
        np.testing.assert_array_equal(out, exact(a, b))
        handle.multiply(blas.gemm(product_of(out, a, b[1]), "float32"), 5)  # the same matrix each time
        np.testing.assert_array_equal(out, exact(a, b[1]))


def test_what_cublas_does_not_take():
    a, b, out = integers((6, 8)), integers((8, 6)), np.zeros((6, 6), "float32")
    taken = lambda *arrays: blas.gemm(product_of(*arrays), "float32") is not None
    assert taken(out, a, b)
    assert not taken(out[::2, ::2], a[::2], b[:, ::2])  # the elements of C lie apart in both directions
    assert not taken(out[:, :3], a, b[:, ::2])
    assert not taken(out, a[::-1], b) and not taken(out, a[:, ::-1], b)
    assert not taken(out, np.broadcast_to(a[0], a.shape), b)  # rows that are one and the same
    assert not taken(out, a[:, :0], b[:0])
    far = product_of(out, a, b)._replace(a=products.View(a.ctypes.data, 2**31, 1))  # more than an int holds
    assert blas.gemm(far, "float32") is None


@pytest.mark.parametrize(("dtype", "precision", "compute", "math"), [
    ("float32", "float32", 68, 0), ("float32", "tf32", 77, 3), ("float32", "bf16", 75, 0),
    ("float64", "float32", 70, 0), ("float64", "tf32", 70, 0),
])  # fmt: skip
def test_precisions(dtype, precision, compute, math):
    library, a = Library(), integers((3, 3), dtype)
    out = np.zeros((3, 3), dtype)
    handle_of(library).multiply(blas.gemm(product_of(out, a, a.T), precision), 5)
    assert library.compute == compute
    ((_, mode),) = [arguments for name, arguments in library.calls if name == "cublasSetMathMode"]
    assert mode.value == math


# ---- the order of calls ----


def test_the_workspace_is_set_after_every_new_stream_and_before_any_product():
    library, a, out = Library(), integers((3, 3)), np.zeros((3, 3), "float32")
    handle = handle_of(library)
    assert library.names == ["Create", "SetStream", "SetWorkspace"]  # all that allocates, before any capture
    product = product_of(out, a, a.T)
    first, second = blas.gemm(product, "float32"), blas.gemm(product, "tf32")
    library.calls.clear()
    for arguments in (first, first, second):
        handle.multiply(arguments, 5)
    assert library.names == ["SetMathMode", "GemmEx", "GemmEx", "SetMathMode", "GemmEx"]
    library.calls.clear()
    handle.multiply(second, 6)
    handle.multiply(second, 6)
    handle.multiply(second, 5)
    assert library.names == ["SetStream", "SetWorkspace", "GemmEx", "GemmEx", "SetStream", "SetWorkspace", "GemmEx"]
    streams = [arguments[1].value for name, arguments in library.calls if name == "cublasSetStream_v2"]
    assert streams == [6, 5]
    handle.close()
    handle.close()
    assert library.names[-1] == "Destroy" and library.names.count("Destroy") == 1


def test_failures_are_named():
    with pytest.raises(blas.BlasError, match="cublasCreate_v2: CUBLAS_STATUS_NOT_INITIALIZED"):
        blas.Handle(Library(cublasCreate_v2=1), 1024)
    library, a, out = Library(cublasGemmEx=13), integers((3, 3)), np.zeros((3, 3), "float32")
    arguments = blas.gemm(product_of(out, a, a.T), "float32")
    handle = handle_of(library)
    with pytest.raises(blas.BlasError, match="cublasGemmEx: CUBLAS_STATUS_EXECUTION_FAILED"):
        handle.multiply(arguments, 5)
    library.fails = {"cublasSetWorkspace_v2": 99}
    with pytest.raises(blas.BlasError, match="cublasSetWorkspace_v2: CUBLAS_STATUS_99"):
        handle.multiply(arguments, 6)
    library.fails = {}
    library.calls.clear()
    handle.multiply(arguments, 6)
    assert library.names[:2] == ["SetStream", "SetWorkspace"], "the workspace is missing still"
    np.testing.assert_array_equal(out, exact(a, a.T))


def test_where_the_library_is_found(tmp_path):
    def load(*there):
        def one(name):
            asked.append(name)
            if name not in there:
                raise OSError(name)
            return name

        return one

    wheel = tmp_path / "cu13" / "lib"
    wheel.mkdir(parents=True)
    for name in ("libcublas.so.12", "libcublas.so.13", "libcublasLt.so.13"):
        (wheel / name).touch()
    asked = []
    assert blas.find(13, load(str(wheel / "libcublas.so.13")), [wheel]) == str(wheel / "libcublas.so.13")
    assert asked == [str(wheel / "libcublas.so.13")]
    assert blas.find(12, load("libcublas.so.12"), [wheel]) == "libcublas.so.12"
    assert blas.find(12, load("libcublas.so"), []) == "libcublas.so"
    assert blas.find(12, load(), [wheel, Path("/nowhere")]) is None
