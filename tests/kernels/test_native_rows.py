"""Native kernels that work on rows: softmax, cross-entropy, layer norm, the mean of squares; and those that copy."""

import importlib
import itertools
import os

import native_checks
import numpy as np
import pytest
from native_checks import guarded, width_or_skip
from native_runs import DTYPES, SIZES, assert_close, cases, complete, on_threads, reference, run

from tinynet import kernels

native = native_checks.native  # the fixture

ENTROPIES = ("softmax_cross_entropy", "softmax_cross_entropy_grad", "softmax_cross_entropy_both")
ON_ROWS = ("softmax", "log_softmax", *ENTROPIES, "layer_norm")
MOVING = (
    "one_hot", "alias", "broadcast_to", "reshape", "expand_dims", "squeeze", "transpose", "concatenate", "stack", "pad",
    "getitem", "setitem_zeros",
)  # fmt: skip
# around the lanes of every vector, and around the rows of a group
COLUMNS = (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 1000)
ROWS = (1, 2, 7, 8, 9, 15, 16, 17, 37)
LABELS = ("int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8")


def operands(name, rows, columns, dtype, seed=0, indexed=True):
    rng = np.random.default_rng(seed)
    x = rng.uniform(-4, 4, (rows, columns)).astype(dtype)
    if name == "layer_norm":
        return [x, *rng.uniform(0.5, 1.5, (2, columns)).astype(dtype)], {}
    if name.endswith("softmax"):
        return [x], {"axis": -1}
    target = rng.integers(0, columns, rows) if indexed else rng.dirichlet(np.ones(columns), rows).astype(dtype)
    return [x, target] if name == "softmax_cross_entropy" else [x, target, rng.uniform(-1, 1, rows).astype(dtype)], {}


def kinds(name):
    return (True, False) if name in ENTROPIES else (True,)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [*ON_ROWS, "mse", *MOVING])
def test_samples_are_as_the_reference_computes_them(native, name, dtype):
    for arrays, attributes in cases(name, SIZES, dtype):
        for layout in ("line", "rows"):
            assert_close(run(name, arrays, attributes, layout, declined=None), reference(name, arrays, attributes))


@pytest.mark.parametrize("layout", ["line", "rows"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ON_ROWS)
def test_rows_of_any_number_and_length(native, name, dtype, layout):
    shapes = [(17, n) for n in COLUMNS] + [(m, n) for m in ROWS for n in (3, 16, 40)]
    for (m, n), indexed in itertools.product(shapes, kinds(name)):
        arrays, attributes = operands(name, m, n, dtype, m + n, indexed)
        expected = reference(name, arrays, attributes)
        assert_close(run(name, arrays, attributes, layout), expected, f"{m} x {n}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ON_ROWS)
def test_nan_and_infinities_stay_in_their_rows(native, name, dtype):
    for n, indexed in itertools.product((5, 16, 40), kinds(name)):
        arrays, attributes = operands(name, 23, n, dtype, indexed=indexed)
        x, m = arrays[0], n - 1
        x[1, 2], x[3, 0], x[5, m], x[7] = np.nan, np.inf, -np.inf, -np.inf
        x[9], x[11, :2] = np.nan, (np.inf, -np.inf)
        if name != "layer_norm":  # whose squares overflow
            x[13, m], x[15, 1], x[17] = 1e30, -1e30, 1e30
        assert_close(run(name, arrays, attributes), reference(name, arrays, attributes), n)


@pytest.mark.parametrize("name", ["softmax_cross_entropy", "softmax_cross_entropy_both"])
def test_an_impossible_class_without_probability_is_no_loss(native, name):
    logits = np.array([[0, -np.inf, 1], [2, -np.inf, 0], [np.nan, 0, 0], [0, 2, 1]], "float32")
    target = np.array([[0.5, 0, 0.5], [0.5, 0.5, 0], [0, 0, 0], [0, np.inf, 0]], "float32")
    arrays = [logits, target] if name.endswith("entropy") else [logits, target, np.ones(4, "float32")]
    got = run(name, arrays)
    assert_close(got, reference(name, arrays))
    assert np.isfinite(got[0][0]) and got[0][2] == 0 and np.isinf(got[0][1::2]).all()


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("name", [*ENTROPIES, "one_hot"])
def test_labels_of_every_integer_type(native, name, labels):
    if name == "one_hot":
        arrays, attributes = [np.arange(20) % 10], {"classes": 10, "dtype": np.dtype("float32")}
    else:
        arrays, attributes = operands(name, 20, 100, "float32")
    arrays[name != "one_hot"] = arrays[name != "one_hot"].astype(labels)
    assert_close(run(name, arrays, attributes), reference(name, arrays, attributes))


@pytest.mark.parametrize("labels", ["int64", "int8", "uint8"])
@pytest.mark.parametrize("name", [*ENTROPIES, "one_hot"])
def test_a_label_out_of_range_touches_nothing(native, name, labels):
    """The program has checked them; memory is safe even if somebody has not."""
    wrong = np.array([-1, 3, 100, -128, 2, 127] if labels != "uint8" else [255, 3, 100, 128, 2, 127]).astype(labels)
    if name == "one_hot":
        (got,) = run(name, [wrong], {"classes": 3, "dtype": np.dtype("float32")})
        np.testing.assert_array_equal(got.sum(axis=1), wrong == 2)
        return
    arrays, _ = operands(name, 6, 3, "float32")
    assert_close(run(name, [arrays[0], wrong, *arrays[2:]]), reference(name, [arrays[0], wrong, *arrays[2:]]))


@pytest.mark.parametrize("name", ENTROPIES[1:])
def test_gradients_of_any_stride(native, name):
    """One number for all rows, as the gradient of a mean is; every other one; and read-only views of more axes."""
    for shape in ((20, 10), (2, 10, 10)):
        logits = np.random.default_rng(0).standard_normal(shape).astype("float32")
        target = np.zeros(shape[:-1], "int64")
        apart = np.arange(40, dtype="float32")[::2].reshape(shape[:-1])
        for g in (np.broadcast_to(np.float32(0.25), shape[:-1]), apart):
            attributes, outputs = complete(name, [logits, target, g], {})
            out = tuple(np.empty(*spec) for spec in outputs)
            kernels.find(name, "native", "float32")(out[0] if len(out) == 1 else out, logits, target, g, **attributes)
            assert_close(out, reference(name, [logits, target, g]))


@pytest.mark.parametrize("name", ["softmax", "log_softmax", *ENTROPIES[1:]])
def test_results_over_their_inputs(native, name):
    for n, indexed in itertools.product((10, 16, 40), kinds(name)):
        arrays, attributes = operands(name, 20, n, "float32", indexed=indexed)
        for layout in ("line", "rows"):
            expected = reference(name, arrays, attributes)
            assert_close(run(name, arrays, attributes, layout, over=0), expected)


def test_layer_norm_of_numbers_far_from_zero(native):
    """The mean is taken off twice: what its rounding has left is gone, as it is in the reference's double precision."""
    x = np.random.default_rng(0).standard_normal((5, 3000)) + 1e4
    arrays = [x.astype("float32"), np.ones(3000, "float32"), np.zeros(3000, "float32")]
    assert_close(run("layer_norm", arrays), reference("layer_norm", arrays))


def test_the_mean_of_squares_of_many_numbers(native):
    for n in (4095, 4096, 4097, 70_001):
        arrays = list(np.random.default_rng(n).uniform(-1, 1, (2, n)).astype("float32"))
        np.testing.assert_allclose(run("mse", arrays), reference("mse", arrays), rtol=2e-7)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the pages are guarded with what Unix has for that")
@pytest.mark.parametrize("end", [True, False], ids=["end", "beginning"])
@pytest.mark.parametrize("name", ON_ROWS)
def test_nothing_is_read_or_written_beyond_an_array(native, name, end):
    for (m, n), indexed in itertools.product(((5, 3), (17, 16), (3, 37)), kinds(name)):
        arrays, attributes = operands(name, m, n, "float32", indexed=indexed)
        attributes, outputs = complete(name, arrays, attributes)
        out = tuple(guarded(spec.shape, spec.dtype, end) for spec in outputs)
        inputs = [guarded(each.shape, each.dtype, end) for each in arrays]
        for held, each in zip(inputs, arrays):
            held[...] = each
        kernels.find(name, "native", "float32")(out[0] if len(out) == 1 else out, *inputs, **attributes)
        assert_close(out, reference(name, arrays, attributes))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [*ON_ROWS, "mse", "one_hot", "transpose"])
def test_threads_change_no_bit(native, name, dtype, monkeypatch):
    for indexed in kinds(name):
        if name == "mse":
            arrays, attributes = list(np.random.default_rng(0).uniform(-1, 1, (2, 2**20 + 5)).astype(dtype)), {}
        elif name == "one_hot":
            arrays, attributes = [np.arange(1000) % 10], {"classes": 10, "dtype": np.dtype(dtype)}
        elif name == "transpose":
            arrays, attributes = [np.random.default_rng(0).uniform(-1, 1, (333, 217)).astype(dtype)], {"axes": (1, 0)}
        else:
            arrays, attributes = operands(name, 333, 37, dtype, indexed=indexed)
        results = []
        for count in (1, 2, 3):
            pool = on_threads(monkeypatch, count)
            try:
                results.append(run(name, arrays, attributes))
            finally:
                pool.set_threads(None)
        for other in results[1:]:
            for one, two in zip(results[0], other):
                np.testing.assert_array_equal(one, two)
        np.testing.assert_allclose(results[0][-1], reference(name, arrays, attributes)[-1], rtol=2e-4, atol=1e-6)


def test_transposes_any_rows(native):
    for m, n in itertools.product((1, 2, 8, 15, 16, 17, 40), repeat=2):
        for dtype in ("float32", "float64", "int32", "int64"):
            x = np.arange(m * n).reshape(m, n).astype(dtype)
            (got,) = run("transpose", [x], {"axes": (1, 0)})
            np.testing.assert_array_equal(got, x.T)
    x = np.arange(120).reshape(2, 3, 4, 5).astype("float32")
    for axes in itertools.permutations(range(4)):
        (got,) = run("transpose", [x], {"axes": axes}, declined=None)
        np.testing.assert_array_equal(got, x.transpose(axes))


def test_pieces_of_arrays_are_copied_by_compiled_code(native):
    x, y = np.arange(24, dtype="float32").reshape(4, 6), np.ones((4, 3), "float32")
    for name, arrays, attributes in (
        ("concatenate", [x, y], {"axis": 1}), ("stack", [x, x], {"axis": 0}), ("stack", [x, x], {"axis": 1}),
        ("getitem", [x], {"index": ((1, 3, 1), (2, 5, 1))}), ("getitem", [x], {"index": (1, 2)}),
        ("pad", [x], {"widths": ((1, 2), (0, 3)), "value": 5.0}),
        ("setitem_zeros", [y], {"index": ((0, 4, 1), (2, 5, 1)), "shape": (4, 6)}),
    ):  # fmt: skip
        np.testing.assert_array_equal(run(name, arrays, attributes), reference(name, arrays, attributes))


def test_what_is_declined_is_computed_all_the_same(native):
    x = np.random.default_rng(0).standard_normal((6, 8)).astype("float32")
    labels, ones = np.zeros(6, "int64"), np.ones(6, "float32")
    for name, arrays, attributes in (
        ("softmax", [x], {"axis": 0}), ("softmax", [x.T], {"axis": 1}), ("layer_norm", [x.T, ones, ones], {}),
        ("softmax_cross_entropy", [x[:, ::2], labels], {}), ("softmax_cross_entropy", [x[:, ::-1], labels], {}),
        ("mse", [x.T, x.T], {}), ("mse", [x[:, :3], x[:, :3]], {}),
    ):  # fmt: skip
        attributes, (spec,) = complete(name, arrays, attributes)
        out = np.empty(*spec)
        kernels.find(name, "native", "float32")(out, *arrays, **attributes)
        assert_close([out], reference(name, arrays, attributes), name)


# ---- shorter vectors than this processor's ----


@pytest.fixture(scope="module", params=(256, 128))
def narrow(native, request):
    """The operations of this file alone, compiled for vectors of another width, in place of the library."""
    width_or_skip(native, request.param)
    library = importlib.import_module("tinynet.kernels.cpu.native.library")
    compiling = importlib.import_module("tinynet.kernels.cpu.native.code.compiling")
    for name in ("entropy", "rows", "updates", "randomness", "lines"):
        importlib.import_module(f"tinynet.kernels.cpu.native.code.{name}")
    chosen = (
        "softmax", "log_softmax", "layer_norm", "entropy_both_indices", "entropy_both_rows", "adam", "dropout",
        "transpose_4", "accumulate_one", "accumulate", "fill_4", "copy_4",
    )  # fmt: skip
    made = {name: library._makers[name](4, request.param) for name in chosen}
    found = library.Library(list(made), compiling.object_code(made))
    patch = pytest.MonkeyPatch()
    patch.setattr(library, "load", lambda size, width=None: found)
    yield request.param
    patch.undo()


def test_on_shorter_vectors(narrow):
    for name in ("softmax", "log_softmax", "layer_norm", "softmax_cross_entropy_both"):
        for (m, n), indexed in itertools.product(((9, 3), (17, 8), (6, 33)), kinds(name)):
            arrays, attributes = operands(name, m, n, "float32", indexed=indexed)
            assert_close(run(name, arrays, attributes), reference(name, arrays, attributes), f"{name} {m} x {n}")
    for name in ("adam", "dropout", "accumulate", "transpose"):
        for arrays, attributes in cases(name, (0, 1, 7, 64)):
            if attributes.get("weight_decay") and not attributes.get("decoupled"):
                continue
            assert_close(run(name, arrays, attributes, declined=None), reference(name, arrays, attributes), name)
