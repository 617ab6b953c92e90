"""Matrix products for CUDA, run on a processor: every step of the ladder, in every layout.

Most operands are small integers: their products and sums are exact, so that a result is right to the bit or wrong.
"""

import importlib
import itertools
import re

import numpy as np
import pytest
from native_runs import assert_close, cases, reference
from product_checks import (
    DTYPES,
    IDS,
    LAYOUTS,
    STEPS,
    exact,
    finished,
    integers,
    launches,
    operands,
    placed,
)
from runs import bound, run

import tinynet as tn

products = importlib.import_module("tinynet.kernels.cuda.products")
matrices = importlib.import_module("tinynet.kernels.cuda.matrices")
precision = importlib.import_module("tinynet.kernels.precision")
launch = importlib.import_module("tinynet.kernels.cuda.launch")

# m, n, k: around the tile of a step, and around its depth
SIZES = {
    "naive": [(1, 1, 1), (2, 3, 0), (7, 31, 2), (8, 32, 5), (9, 33, 7), (17, 65, 3)],
    "shared": [(1, 1, 1), (2, 3, 0), (31, 33, 31), (32, 32, 32), (33, 31, 33), (5, 65, 3)],
    "registers": [(1, 1, 1), (2, 3, 0), (63, 65, 15), (64, 64, 16), (65, 63, 17), (5, 129, 3)],
    "vectors": [(1, 1, 1), (2, 3, 0), (63, 65, 15), (64, 64, 16), (65, 63, 33), (20, 129, 3)],
    "tensor": [(1, 1, 1), (2, 3, 0), (63, 65, 31), (64, 64, 32), (65, 63, 33), (20, 129, 50)],
}
LARGE = [(127, 129, 15), (128, 128, 8), (129, 127, 33)]  # around the large tile
NARROW = [(127, 16, 15), (128, 15, 16), (129, 2, 33), (3, 10, 9)]

pytestmark = pytest.mark.usefixtures("harness")


@pytest.fixture
def large_tiles(monkeypatch):
    """The large tile for every product, and its depth in one piece."""
    monkeypatch.setattr(products, "ENOUGH", 1)


# ---- every step ----


@pytest.mark.parametrize(("step", "dtype", "exactness"), STEPS, ids=IDS)
def test_products_of_every_size_and_layout(harness, step, dtype, exactness):
    for (m, n, k), (a_turned, b_turned, aligned) in itertools.product(SIZES[step], LAYOUTS):
        out, a, b = operands(m, n, k, dtype, a_turned, b_turned, aligned)
        harness.run(launches(step, exactness, out, a, b), orders=("shuffled",))
        np.testing.assert_array_equal(out, exact(a, b), f"{m} x {k} x {n}, {a_turned} {b_turned} {aligned}")


@pytest.mark.parametrize(("step", "exactness"), [
    ("vectors", "float32"), ("tensor", "tf32"), ("tensor", "bf16"), ("tensor", "of_bf16")
])  # fmt: skip
def test_products_of_large_tiles(harness, large_tiles, step, exactness):
    for (m, n, k), (a_turned, b_turned, aligned) in itertools.product(LARGE, LAYOUTS):
        if not aligned and (m < n or a_turned != b_turned):
            continue
        out, a, b = operands(m, n, k, "float32", a_turned, b_turned, aligned)
        (one,) = launches(step, exactness, out, a, b)
        assert "_128x128_" in one.function or (not aligned and step == "tensor")
        harness.run([one], orders=("forward",))
        np.testing.assert_array_equal(out, exact(a, b), f"{m} x {k} x {n}, {a_turned} {b_turned} {aligned}")


def test_narrow_products_and_flat_ones(harness):
    """A product with few columns has a tile of its own; one with few rows is computed as its transpose."""
    for (m, n, k), (a_turned, b_turned, aligned) in itertools.product(NARROW, LAYOUTS):
        for m, n in ((m, n), (n, m)):  # noqa: B020
            out, a, b = operands(m, n, k, "float32", a_turned, b_turned, aligned)
            (one,) = launches("vectors", "float32", out, a, b)
            assert ("_128x16_" in one.function) is (max(m, n) > 16)
            harness.run([one], orders=("forward",))
            np.testing.assert_array_equal(out, exact(a, b), f"{m} x {k} x {n}, {a_turned} {b_turned} {aligned}")


@pytest.mark.parametrize(("step", "dtype", "exactness"), STEPS, ids=IDS)
def test_no_order_of_threads_matters(harness, step, dtype, exactness):
    out, a, b = operands(67, 70, 70, dtype, False, False, True)
    harness.run(launches(step, exactness, out, a, b))
    np.testing.assert_array_equal(out, exact(a, b))


def test_any_strides(harness):
    for step, dtype, exactness in STEPS:
        held = integers((60, 90), dtype)
        for a, b in ((held[::2, ::3], held[30::-1, 1::4]), (held[::-1, ::-1][:7, :31], held[:31].T[5:36, ::2])):
            b = b[: a.shape[1]]
            out = np.full((b.shape[1], a.shape[0]), 77, dtype).T  # turned as well
            harness.run(launches(step, exactness, out, a, b), orders=("forward",))
            np.testing.assert_array_equal(out, exact(a, b), f"{step} {dtype}")


def test_kernels_are_chosen_by_how_operands_lie(large_tiles):
    names = ("deep_flat", "deep_deep", "flat_flat", "flat_deep")
    for ways, (a_turned, b_turned) in zip(names, itertools.product((False, True), repeat=2)):
        for step, exactness, prefix in (
            ("vectors", "float32", "vectors"), ("tensor", "tf32", "tensor_tf32"), ("tensor", "bf16", "tensor_bf16"),
            ("tensor", "of_bf16", "tensor_of_bf16"),
        ):  # fmt: skip
            (one,) = launches(step, exactness, *operands(30, 40, 20, "float32", a_turned, b_turned, True))
            assert one.function == f"product_{prefix}_128x128_{ways}_f32" and one.file == f"product_{step}"
            (one,) = launches(step, exactness, *operands(30, 40, 20, "float32", a_turned, b_turned, False))
            assert "any_any" in one.function


# ---- what is done to a product ----


@pytest.mark.parametrize(("step", "dtype", "exactness"), [*STEPS, ("matvec", "float32", ""), ("matvec", "float64", "")])
def test_bias_activation_and_mask(harness, step, dtype, exactness):
    for (m, n), aligned in itertools.product([(1, 40), (40, 1)] if step == "matvec" else [(66, 22)], (False, True)):
        out, a, b = operands(m, n, 6, dtype, False, False, aligned)
        bias = placed(integers((1, n), dtype, 3), False, aligned)[0]
        mask = placed(integers((m, n), dtype, 4), False, aligned)
        for which, activation in itertools.product(range(4), products.ACTIVATIONS):
            extra = bias if which % 2 else None, activation, mask if which // 2 else None
            out[...] = 77
            harness.run(launches(step, exactness, out, a / 8, b, *extra), orders=("forward",))
            expected = finished(exact(a / 8, b), *extra)
            tolerance = 4e-7 if dtype == "float32" else 1e-15
            np.testing.assert_allclose(out, expected, rtol=tolerance, atol=tolerance, err_msg=str((m, n, extra[1:])))


def test_a_mask_may_be_the_memory_of_the_result(harness):
    for aligned in (False, True):
        out, a, b = operands(40, 44, 9, aligned=aligned)
        out[...] = integers((40, 44), seed=5)
        expected = np.where(out > 0, exact(a, b), 0)
        harness.run(launches("vectors", "float32", out, a, b, mask=out))
        np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("exactness", [*precision.PRECISIONS, "of_bf16"])
def test_nothing_that_is_not_a_number_gets_lost_or_spreads(harness, exactness):
    """NaN and infinities make NaN and infinities where they go in, and nowhere else: not from beyond an edge either."""
    step = "vectors" if exactness == "float32" else "tensor"
    for a_turned, b_turned, aligned in LAYOUTS:
        _, a, b = operands(67, 21, 19, "float32", a_turned, b_turned, aligned)
        for each in (a, b):
            each.flags.writeable = True
        a[66, 18], a[3, 0], b[0, 20], b[18, 5], b[4, 2] = np.nan, np.inf, -np.inf, np.inf, np.nan
        out = np.full((67, 21), 77, "float32")
        harness.run(launches(step, exactness, out, a, b, activation="relu"), orders=("forward",))
        with np.errstate(invalid="ignore"):
            np.testing.assert_array_equal(out, finished(exact(a, b), None, "relu"))
    assert np.isnan(out[:, 2]).all() and np.isnan(out[66]).all()


# ---- the operations ----


@pytest.mark.parametrize("layout", ["line", "rows", "aligned", "aligned rows"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["matmul", "linear", "masked_matmul"])
def test_operations_are_as_the_reference_computes_them(name, dtype, layout):
    for arrays, attributes in cases(name, (0, 1, 2, 17, 33), dtype):
        got = run(name, arrays, attributes, layout, orders=("shuffled",))
        assert_close(got, reference(name, arrays, attributes), [each.shape for each in arrays])


@pytest.mark.parametrize("exactness", ["tf32", "bf16"])
@pytest.mark.parametrize("name", ["matmul", "linear", "masked_matmul"])
def test_operations_in_other_precisions(name, exactness):
    with precision.using_precision(exactness):
        for arrays, attributes in cases(name, (17, 33)):
            got, expected = run(name, arrays, attributes, orders=("forward",)), reference(name, arrays, attributes)
            np.testing.assert_allclose(got[0], expected[0], rtol=0.05, atol=0.05)
        for dtype, step in (("float32", f"product_tensor_{exactness}_"), ("float64", "product_vectors_")):
            arrays = [integers((40, 40), dtype)] * (2 + (name == "masked_matmul"))
            attributes = {"activation": None} if name == "linear" else {}
            ((_, (one,)),) = bound(name, np.zeros((40, 40), dtype), arrays, attributes)
            assert one.function.startswith(step)
    assert precision.precision() == "float32"


def test_precisions_are_those_that_there_are():
    with pytest.raises(ValueError, match="expected one of float32, tf32, bf16, got 'fp8'"):
        precision.set_precision("fp8")
    assert precision.set_precision("tf32") == "float32" and precision.set_precision("float32") == "tf32"
    out, a, b = operands(40, 40, 3)
    (product,) = matrices.products(out, a, b)
    assert products.step_for(product, "tf32") == "tensor"
    assert products.step_for(product._replace(n=10), "bf16") == "vectors"  # reading takes all the time


@pytest.mark.parametrize("dtype", DTYPES)
def test_batches(harness, dtype):
    pairs = [
        ((5, 3, 4), (5, 4, 6)), ((5, 3, 4), (4, 6)), ((3, 4), (5, 4, 6)), ((2, 1, 3, 4), (3, 4, 6)),
        ((2, 3, 3, 4), (2, 3, 4, 6)), ((2, 3, 3, 4), (2, 1, 4, 6)), ((1, 3, 4), (2, 4, 6)), ((2, 3, 4), (4,)),
        ((4,), (2, 4, 6)), ((0, 3, 4), (0, 4, 6)), ((2, 3, 0), (2, 0, 6)), ((70, 3, 2), (70, 2, 3)),
    ]  # fmt: skip
    for first, second in pairs:
        for turned in (False, True):
            a, b = integers(first, dtype), integers(second, dtype, 1)
            if turned and min(a.ndim, b.ndim) > 1:
                a, b = placed(a, True), placed(b, True)
            expected = exact(a, b)
            out = np.full(expected.shape, 77, dtype)
            calls = bound("matmul", out, [a, b], {})
            harness.run(calls, orders=("forward",))
            np.testing.assert_array_equal(out, expected, f"{first} {second}")
            mask = integers(expected.shape, dtype, 2)
            harness.run(bound("masked_matmul", out, [a, b, mask], {}), orders=("forward",))
            np.testing.assert_array_equal(out, np.where(mask > 0, expected, 0), f"{first} {second}")


def test_a_batch_is_one_launch_where_one_stride_does():
    one = lambda a, b: len(bound("matmul", np.zeros(np.matmul(a, b).shape, "float32"), [a, b], {}))
    a = integers((2, 3, 4, 5))
    assert one(a, integers((2, 3, 5, 4))) == 1
    assert one(a, integers((5, 4))) == 1  # more rows of one product
    assert one(a, integers((2, 1, 5, 4))) == 2
    assert one(a[:, ::2], integers((2, 2, 5, 4))) == 2  # two strides
    assert one(a[:, :1], integers((2, 3, 5, 4))) == 2


def test_more_batches_than_a_grid_has_places(harness, monkeypatch):
    monkeypatch.setattr(products, "LARGEST_Z", 4)
    a, b = integers((11, 3, 4)), integers((11, 4, 3), seed=1)
    out = np.full((11, 3, 3), 77, "float32")
    calls = bound("matmul", out, [a, b], {})
    assert [one.grid[2] for _, (one,) in calls] == [4, 4, 3]
    harness.run(calls, orders=("forward",))
    np.testing.assert_array_equal(out, exact(a, b))


def test_what_is_declined(monkeypatch):
    arrays = [integers((4, 4)), integers((4, 4), seed=1)]
    for over in (0, 1):
        run("matmul", arrays, over=over, declined=True)
    out, a, b = operands(4, 4, 4)
    assert matrices.products(out, out.T, b) is None
    assert matrices.products(out, a, out[::-1]) is None
    assert matrices.products(out, a, b, bias=out[0]) is None
    monkeypatch.setattr(matrices, "MOST", 1)
    run("matmul", [integers((2, 1, 3, 4)), integers((3, 4, 5))], declined=True)


# ---- precision ----


@pytest.mark.parametrize(("exactness", "bits", "error"), [
    ("tf32", 10, 3e-4), ("bf16", 7, 3e-3), ("of_bf16", 7, 3e-3)
])  # fmt: skip
def test_operands_are_rounded_and_sums_are_not(harness, exactness, bits, error):
    rng = np.random.default_rng(3)
    a, b = rng.uniform(-1, 1, (70, 100)).astype("float32"), rng.uniform(-1, 1, (100, 66)).astype("float32")
    away_from_0 = lambda x: np.copysign(np.floor(np.abs(x) + 0.5), x)  # ties
    nearest = away_from_0 if exactness == "tf32" else np.rint

    def rounded(x):
        fraction, exponent = np.frexp(x.astype("float64"))
        return np.ldexp(nearest(np.ldexp(fraction, bits + 1)), exponent - bits - 1)

    for a_turned, b_turned, aligned in LAYOUTS:
        first, second = placed(a, a_turned, aligned), placed(b, b_turned, aligned)
        out = np.full((70, 66), 77, "float32")
        harness.run(launches("tensor", exactness, out, first, second), orders=("forward",))
        expected, true = rounded(a) @ rounded(b), exact(a, b)
        np.testing.assert_allclose(out, expected, rtol=1e-6, atol=2e-6)
        assert error / 10 < np.linalg.norm(out - true) / np.linalg.norm(true) < error


# ---- faults that are put in ----


@pytest.mark.parametrize(("file", "line", "fault"), [
    ("product_shared", r"sum \+= a_tile.*\n( *__syncthreads\(\);)", "race"),
    ("product_shared", r"( *__syncthreads\(\);)\n#pragma", "race: reads|no thread of the block has written"),
    ("product_registers", r"b_tile\[b_k \* STRIDE \+ b_c\] = b;\n *}\n( *__syncthreads\(\);)", "race|no thread"),
    ("product_vectors", r"wait_copies<0>\(\);\n( *__syncthreads\(\);)", "race|no thread"),
    ("product_vectors", r"( *wait_copies<0>\(\);)\n", "no thread|copies on their way"),
    ("product_tensor", r"( *__syncthreads\(\);)  // the tile is there", "race|no thread"),
], ids=["shared, after", "shared, before", "registers, before", "vectors", "vectors, copies", "tensor"])  # fmt: skip
def test_a_missing_barrier_is_found(harness, file, line, fault):
    text = (launch.CODE / f"{file}.cu").read_text()
    (found,) = re.finditer(line, text)
    text = text[: found.start(1)] + text[found.end(1) :]
    kept = {"product_vectors": "64, 64, 4, 4, 3", "product_tensor": "bf16, float, 64, 64"}.get(file)
    if kept:  # one tile is enough: each kernel takes a while to build
        entries = r"^(ALL_WAYS|VECTORS|PACKED_WAYS|TENSOR)\((?!.*#)(?!.*%s).*\)\n" % re.escape(kept)  # noqa: UP031
        text = re.sub(entries, "", text, flags=re.MULTILINE)
    step = file.removeprefix("product_")
    out, a, b = operands(66, 65, 40, "float32", False, False, True)
    (one,) = launches(step, "bf16", out, a, b)
    broken = one._replace(file=launch.keep_source(text))
    with pytest.raises(harness.HarnessError, match=fault):
        harness.run([broken])


def test_every_operation_has_these_kernels():
    for name in ("matmul", "linear", "masked_matmul"):
        for dtype in DTYPES:
            assert tn.kernels.find(name, "cuda", dtype).target == "cuda"
