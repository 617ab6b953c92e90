"""The compiled product: exact on integers, in every layout and at every edge, within its operands, always the same."""

import itertools
import sys

import native_checks
import numpy as np
import pytest
from native_checks import COLUMNS, DTYPES, ROWS, WIDTHS, exact, guarded, integers, laid_out, run, width_or_skip

native = native_checks.native  # the fixture
LAYOUTS = ("rows", "columns", "every other", "backwards")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", WIDTHS)
def test_every_size_and_transposition_is_exact(native, width, dtype):
    width_or_skip(native, width)
    for m, k, n in itertools.product(ROWS, (0, 1, 2, 17), COLUMNS):
        a, b = integers((m, k), 0, dtype), integers((k, n), 1, dtype)
        correct = exact(a, b)
        for left, right in itertools.product(("rows", "columns"), repeat=2):
            out = laid_out(np.full((m, n), np.nan, dtype), "rows")
            run(native, out, laid_out(a, left), laid_out(b, right), width=width)
            np.testing.assert_array_equal(out, correct, err_msg=f"{m} x {k} x {n}, A by {left}, B by {right}")


# Blocks of k, of columns, packed and not: around where the choices change
LARGE = (
    (191, 801, 130), (193, 513, 1030), (200, 1601, 65), (7, 1025, 1100), (300, 600, 1100),
    (1, 900, 1500), (900, 700, 1), (330, 300, 13), (203, 333, 777), (2050, 600, 10), (1100, 1031, 31), (1033, 1027, 64),
    (1050, 1040, 201), (33, 1100, 1301),
)  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", LARGE, ids=str)
def test_blocks_meet(native, shape, dtype):
    m, k, n = shape
    a, b = integers((m, k), 0, dtype), integers((k, n), 1, dtype)
    correct = exact(a, b)
    for left, right in itertools.product(LAYOUTS[:2], repeat=2):
        out = run(native, np.full((m, n), np.nan, dtype), laid_out(a, left), laid_out(b, right))
        np.testing.assert_array_equal(out, correct, err_msg=f"A by {left}, B by {right}")


def test_a_product_that_threads_may_share_can_be_made_by_one(native):
    shapes = ((24, 5000, 130), (200, 900, 700), (96, 700, 700), (2050, 600, 10), (203, 333, 777), (1100, 1031, 31))
    for m, k, n in shapes:
        a, b = integers((m, k), 0), integers((k, n), 1)
        for left, right in itertools.product(LAYOUTS[:2], repeat=2):
            out = run(native, np.full((m, n), np.nan, "float32"), laid_out(a, left), laid_out(b, right), threads=2)
            np.testing.assert_array_equal(out, exact(a, b), err_msg=f"A by {left}, B by {right}")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="guard pages are set up for Linux only")
def test_a_part_of_the_rows_is_a_product_too(native):
    """Whoever cuts a product into strips of rows has a last one that may be low."""
    from tinynet.kernels.cpu.native import product

    k, n, width = 300, 130, native.widths()[0]
    b = integers((k, n), 1)
    for rows, end in itertools.product((1, 5, 11, 13, 31), (False, True)):
        a = guarded((k, rows), "float32", end)
        a[...] = integers((rows, k), 0).T
        whole = native.Product(np.empty((48, n), "float32"), np.empty((k, 48), "float32").T, b)
        room, out = np.empty(whole.scratch_bytes, "uint8"), np.full((rows, n), np.nan, "float32")
        words = np.array((*whole._before, *whole._after))
        words[[0, 3, 4, 5, 9]] = rows, a.ctypes.data, *a.T.strides, out.ctypes.data
        product.kernel(4, width)(words.ctypes.data, room.ctypes.data)
        np.testing.assert_array_equal(out, exact(a.T, b))


@pytest.mark.parametrize("left", LAYOUTS)
@pytest.mark.parametrize("right", LAYOUTS)
@pytest.mark.parametrize("shape", [(1, 37, 70), (70, 37, 1), (1, 5, 1), (13, 37, 70), (200, 40, 33)], ids=str)
def test_operands_in_any_layout(native, shape, left, right):
    m, k, n = shape
    a, b = integers((m, k), 0), integers((k, n), 1)
    out = laid_out(np.zeros((m, n), "float32"), "rows")
    run(native, out, laid_out(a, left), laid_out(b, right))
    np.testing.assert_array_equal(out, exact(a, b))
    assert np.isnan(out.base[[0, -1]]).all() and np.isnan(out.base[:, [0, 1, 2, -3, -2, -1]]).all()


def test_one_row_repeated(native):
    a, b = np.broadcast_to(integers((1, 20), 0), (8, 20)), np.broadcast_to(integers((1, 30), 1), (20, 30))
    np.testing.assert_array_equal(run(native, np.empty((8, 30), "float32"), a, b), exact(a, b))


def test_matrices_against_vectors(native):
    for dtype, count, k in itertools.product(DTYPES, (1, 3, 4, 5, 70), (1, 7, 8, 16, 31, 33, 100)):
        matrix, vector = integers((count, k), 0, dtype), integers((k, 1), 1, dtype)
        for layout, held in itertools.product(LAYOUTS, ("rows", "every other")):
            a, x = laid_out(matrix, layout), laid_out(vector, held)
            for adds in (False, True):
                column = laid_out(np.ones((count, 1), dtype), "rows")
                run(native, column, a, x, accumulate=adds)
                np.testing.assert_array_equal(column, exact(matrix, vector) + adds, err_msg=f"{layout}, {held}")
                row = np.ones((1, count), dtype)
                run(native, row, x.T, a.T, accumulate=adds)
                np.testing.assert_array_equal(row, exact(matrix, vector).T + adds, err_msg=f"{layout}, {held}")


@pytest.mark.parametrize("shape", [(13, 37, 70), (200, 1700, 70), (6, 0, 64)], ids=str)
def test_accumulating_adds_to_what_is_there(native, shape):
    m, k, n = shape
    a, b, before = integers((m, k), 0), integers((k, n), 1), integers((m, n), 2)
    for right in ("rows", "columns"):
        out = before.copy()
        run(native, out, a, laid_out(b, right), accumulate=True)
        np.testing.assert_array_equal(out, before + exact(a, b))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_nan_and_infinities_go_where_the_reference_has_them(native, width, odd):
    width_or_skip(native, width)
    a, b = integers((9, 20), 0), integers((20, 70), 1)
    a[4, 7] = b[3, 66] = odd
    b[7, 5], a[2, 3] = 0, np.inf
    with np.errstate(invalid="ignore"):
        correct = exact(a, b)
    for left, right in itertools.product(LAYOUTS[:2], repeat=2):
        out = run(native, np.empty((9, 70), "float32"), laid_out(a, left), laid_out(b, right), width=width)
        np.testing.assert_array_equal(out, correct)


# A vector on either side, whole tiles and parts, a copied A and a packed slab of it, turned and not
SMALL = (
    (7, 19, 67), (1, 19, 67), (67, 19, 1), (13, 5, 16), (200, 9, 35), (31, 9, 70), (195, 3, 1027), (195, 47, 10),
)  # fmt: skip


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="guard pages are set up for Linux only")
@pytest.mark.parametrize("end", [False, True], ids=["begins at a guard page", "ends at a guard page"])
@pytest.mark.parametrize("width", WIDTHS)
def test_no_byte_outside_an_operand_is_touched(native, width, end):
    width_or_skip(native, width)
    for dtype, (m, k, n) in itertools.product(DTYPES, SMALL):
        a, b = integers((m, k), 0, dtype), integers((k, n), 1, dtype)
        for left, right in itertools.product((False, True), repeat=2):
            x = guarded(a.T.shape if left else a.shape, dtype, end)
            y = guarded(b.T.shape if right else b.shape, dtype, end)
            x[...], y[...] = (a.T if left else a), (b.T if right else b)
            out, bias, mask = guarded((m, n), dtype, end), guarded((n,), dtype, end), guarded((m, n), dtype, end)
            bias[...], mask[...] = 1, 1
            product = native.Product(
                out, x.T if left else x, y.T if right else y, bias=bias, mask=mask, activation="relu", width=width
            )
            product(guarded((product.scratch_bytes,), "uint8", end))
            np.testing.assert_array_equal(out, np.maximum(exact(a, b) + 1, 0))


@pytest.mark.parametrize("m, n", [(200, 70), (40, 300)], ids=["B is packed", "the product is turned"])
def test_the_same_bits_each_time_in_every_layout_and_width(native, m, n):
    """Each element is one chain of multiply-adds in the order of k, however the product is cut."""
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(shape).astype("float32") for shape in ((m, 1700), (1700, n)))
    first = run(native, np.empty((m, n), "float32"), a, b)
    np.testing.assert_allclose(first, exact(a, b), rtol=0, atol=1e-3)
    for width in native.widths():
        for left, right in itertools.product(LAYOUTS, repeat=2):
            out = np.empty((m, n), "float32")
            run(native, out, laid_out(a, left), laid_out(b, right), width=width)
            assert out.tobytes() == first.tobytes(), f"{width}, A {left}, B {right}"
    part = run(native, np.empty((5, 9), "float32"), a[7:12], b[:, 50:59])
    assert part.tobytes() == np.ascontiguousarray(first[7:12, 50:59]).tobytes()


@pytest.fixture
def streamed(native, monkeypatch):
    """One row times any B reads rows of B."""
    from tinynet.kernels.cpu.native import plan

    monkeypatch.setattr(plan, "STREAM_FROM", 0)
    monkeypatch.setattr(plan, "LEAST_STREAMED", 0)
    for cut in (plan.blocks, plan.shared):
        cut.cache_clear()
    yield plan.STREAMED
    for cut in (plan.blocks, plan.shared):
        cut.cache_clear()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_one_row_times_rows_that_are_read_from_end_to_end(native, streamed, width, dtype):
    width_or_skip(native, width)
    rng = np.random.default_rng(0)
    for k, n in itertools.product((1, 2, 3, 4, 5, 8, 30), (2, 15, 16, 17, 70, 300)):
        a, b = rng.standard_normal((1, k)).astype(dtype), rng.standard_normal((k, n)).astype(dtype)
        bias, mask, before = (rng.standard_normal(n).astype(dtype) for _ in range(3))
        for left, options in itertools.product(
            ("rows", "every other"),
            ({}, {"bias": bias}, {"accumulate": True}, {"accumulate": True, "bias": bias, "activation": "relu"},
             {"bias": bias, "activation": "tanh", "mask": mask[None]}),
        ):  # fmt: skip
            one, two = before[None].copy(), np.repeat(before[None], 2, axis=0)
            product = native.Product(one, laid_out(a, left), b, width=width, **options)
            assert product._before[13] == streamed
            product()
            masks = {"mask": np.repeat(mask[None], 2, axis=0)} if "mask" in options else {}
            native.matmul(two, np.repeat(a, 2, axis=0), b, width=width, **(options | masks))
            assert one.tobytes() == two[:1].tobytes(), f"{k} x {n}, {left}, {options}"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="guard pages are set up for Linux only")
@pytest.mark.parametrize("end", [False, True], ids=["begins at a guard page", "ends at a guard page"])
def test_rows_that_are_read_from_end_to_end_are_read_no_further(native, streamed, end):
    for dtype, n in itertools.product(DTYPES, (67, 300)):
        a, b = integers((1, 21), 0, dtype), guarded((21, n), dtype, end)
        b[...], out = integers((21, n), 1, dtype), guarded((1, n), dtype, end)
        native.matmul(out, a, b)
        np.testing.assert_array_equal(out, exact(a, b))


def test_scratch_is_known_from_shapes(native):
    for (m, k, n), dtype in itertools.product(((0, 3, 4), (1, 90, 70), (70, 90, 1), (9, 90, 70), *LARGE), DTYPES):
        for left, right in itertools.product((False, True), repeat=2):
            most = native.scratch_bytes(m, k, n, dtype, transpose_a=left, transpose_b=right)
            a = laid_out(np.zeros((m, k), dtype), "columns" if left else "rows")
            b = laid_out(np.zeros((k, n), dtype), "columns" if right else "rows")
            assert native.Product(np.zeros((m, n), dtype), a, b).scratch_bytes <= most
    assert native.scratch_bytes(128, 512, 512, "float32") == 0


def test_bad_input_is_refused_and_changes_nothing(native):
    a, b, out = integers((4, 5), 0), integers((5, 6), 1), np.full((4, 6), 7, "float32")
    read_only = out.copy()
    read_only.flags.writeable = False
    crooked = np.frombuffer(bytearray(4 * 20 + 1), "float32", offset=1).reshape(4, 5)
    for bad, said in (
        ((out, a, b[:4]), "shape|\\(m, n\\)"), ((out[:3], a, b), "\\(m, n\\)"),
        ((out, a.astype("float64"), b), "float64"), ((out.astype("int32"), a, b), "int32"),
        ((np.zeros((6, 4), "float32").T, a, b), "side by side"),
        ((read_only, a, b), "read-only"), ((out, crooked, b), "multiples"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            native.matmul(*bad)
    square = integers((6, 6), 0)
    for bad, said in (
        ({"bias": np.zeros(5, "float32")}, "bias"), ({"mask": np.zeros((4, 5), "float32")}, "mask"),
        ({"activation": "gelu"}, "activation"), ({"width": 1024}, "width"),
        ({"bias": np.zeros(12, "float32")[::2]}, "side by side"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            native.matmul(out, a, b, **bad)
    with pytest.raises(ValueError, match="memory of a"):
        native.matmul(square, square, integers((6, 6), 1))
    with pytest.raises(ValueError, match="scratch"):
        native.matmul(out, a, np.asfortranarray(b))
    assert (out == 7).all()
