"""Kernels for CUDA that work on rows, run on a processor: softmax, cross-entropy, layer norm."""

import importlib
import itertools

import numpy as np
import pytest
from native_runs import DTYPES, SIZES, assert_close, cases, complete, reference
from runs import bound, run

ENTROPIES = ("softmax_cross_entropy", "softmax_cross_entropy_grad", "softmax_cross_entropy_both")
ON_ROWS = ("softmax", "log_softmax", *ENTROPIES, "layer_norm")
# around what the lanes of each version keep, around the threads of a block, and around 16 bytes
COLUMNS = (1, 2, 3, 7, 15, 16, 17, 33, 255, 256, 257, 1023, 1024)
LONG = (1025, 1027, 1028, 4099)
ROWS = (1, 3, 4, 5, 15, 16, 17)
LABELS = ("int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8")
LAYOUTS = ("line", "rows", "aligned", "aligned rows")


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


pytestmark = pytest.mark.usefixtures("harness")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ON_ROWS)
def test_samples_are_as_the_reference_computes_them(name, dtype):
    for arrays, attributes in cases(name, SIZES, dtype):
        for layout in LAYOUTS:
            assert_close(run(name, arrays, attributes, layout, declined=None), reference(name, arrays, attributes))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ON_ROWS)
def test_rows_of_any_number_and_length(name, dtype, layout):
    shapes = [(5, n) for n in COLUMNS] + [(2, n) for n in LONG] + [(m, n) for m in ROWS for n in (3, 40)]
    for (m, n), indexed in itertools.product(shapes, kinds(name)):
        arrays, attributes = operands(name, m, n, dtype, m + n, indexed)
        orders = ("forward", "shuffled") if n in LONG else ("forward",)
        expected = reference(name, arrays, attributes)
        assert_close(run(name, arrays, attributes, layout, orders=orders), expected, f"{m} x {n}")


def test_each_version_is_launched_for_its_rows():
    """Wide ones where all rows begin at a multiple of 16 bytes, and only there."""
    launch = importlib.import_module("tinynet.kernels.cuda.launch")
    held = np.zeros(2**16, "float32")[: 2**14]
    start = -held.ctypes.data % 16 // 4
    for (shape, offset), version in {
        ((3, 16), 0): "8x2", ((3, 17), 0): "32x8", ((3, 256), 0): "32x8", ((3, 257), 0): "32x32",
        ((3, 1024), 1): "32x32", ((3, 1028), 0): "block_wide", ((3, 1025), 0): "block", ((1, 1025), 0): "block_wide",
        ((3, 1028), 1): "block", ((0, 8), 0): None,
    }.items():  # fmt: skip
        x = held[start + offset :][: shape[0] * shape[1]].reshape(shape)
        calls = bound("softmax", x, [x], {"axis": -1})
        assert all(function is launch.run for function, _ in calls)
        assert [each.function for _, (each,) in calls] == ([f"softmax_{version}_f32"] if version else [])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ON_ROWS)
def test_nan_and_infinities_stay_in_their_rows(name, dtype):
    for n, indexed, layout in itertools.product((5, 16, 40, 1040), kinds(name), ("line", "aligned")):
        arrays, attributes = operands(name, 19, n, dtype, indexed=indexed)
        x, m = arrays[0], n - 1
        x[1, 2], x[3, 0], x[5, m], x[7] = np.nan, np.inf, -np.inf, -np.inf
        x[9], x[11, :2] = np.nan, (np.inf, -np.inf)
        x[12], x[14], x[16] = -np.inf, -np.inf, -np.inf
        x[12, 0], x[14, m], x[16, 0], x[16, m] = np.nan, 1, np.nan, 1
        if name != "layer_norm":  # whose squares overflow
            x[13, m], x[15, 1], x[17] = 1e30, -1e30, 1e30
        got = run(name, arrays, attributes, layout, orders=("forward",))
        assert_close(got, reference(name, arrays, attributes), n)


@pytest.mark.parametrize("columns", [3, 3000])
@pytest.mark.parametrize("name", ["softmax_cross_entropy", "softmax_cross_entropy_both"])
def test_an_impossible_class_without_probability_is_no_loss(name, columns):
    logits, target = np.full((4, columns), -np.inf, "float32"), np.zeros((4, columns), "float32")
    logits[:, :3] = [[0, -np.inf, 1], [2, -np.inf, 0], [np.nan, 0, 0], [0, 2, 1]]
    target[:, :3] = [[0.5, 0, 0.5], [0.5, 0.5, 0], [0, 0, 0], [0, np.inf, 0]]
    arrays = [logits, target] if name.endswith("entropy") else [logits, target, np.ones(4, "float32")]
    got = run(name, arrays)
    expected = reference(name, arrays)
    assert_close(got[:1], expected[:1])
    assert_close([each[:3] for each in got], [each[:3] for each in expected])
    assert np.isfinite(got[0][0]) and got[0][2] == 0 and np.isinf(got[0][1::2]).all()


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("name", ENTROPIES)
def test_labels_of_every_integer_type(name, labels):
    for columns in (100, 1100):
        arrays, attributes = operands(name, 20, 100, "float32")
        arrays[0] = np.random.default_rng(1).uniform(-4, 4, (20, columns)).astype("float32")
        arrays[1] = arrays[1].astype(labels)
        expected = reference(name, [arrays[0], arrays[1].astype("int64"), *arrays[2:]], attributes)
        assert_close(run(name, arrays, attributes, orders=("forward",)), expected)


@pytest.mark.parametrize("labels", ["int64", "int8", "uint8", "uint64"])
@pytest.mark.parametrize("name", ENTROPIES)
def test_a_label_out_of_range_touches_nothing(name, labels):
    """The program has checked them; memory is safe even if somebody has not."""
    wrong = {"uint8": [255, 3, 100, 128, 2, 127], "uint64": [2**64 - 1, 3, 2**63, 100, 2, 2**32]}
    target = np.array(wrong.get(labels, [-1, 3, 100, -128, 2, 127]), labels)
    arrays, _ = operands(name, 6, 3, "float32")
    arrays[1] = target
    assert_close(run(name, arrays), reference(name, arrays))
    arrays[0] = np.random.default_rng(0).uniform(-4, 4, (6, 1030)).astype("float32")
    arrays[1] = np.array([-1, 1030, 2**40, -(2**63), 2, 1029])
    assert_close(run(name, arrays), reference(name, arrays))


@pytest.mark.parametrize("name", ENTROPIES[1:])
def test_gradients_of_any_stride(harness, name):
    """One number for all rows, as the gradient of a mean is; every other one; and read-only views of more axes."""
    for shape in ((20, 10), (2, 10, 10), (2, 1030)):
        logits = np.random.default_rng(0).standard_normal(shape).astype("float32")
        target = np.zeros(shape[:-1], "int64")
        apart = np.arange(40, dtype="float32")[: 2 * target.size : 2].reshape(shape[:-1])
        for g in (np.broadcast_to(np.float32(0.25), shape[:-1]), apart):
            attributes, outputs = complete(name, [logits, target, g], {})
            out = tuple(np.empty(*spec) for spec in outputs)
            harness.run(bound(name, out[0] if len(out) == 1 else out, [logits, target, g], attributes))
            assert_close(out, reference(name, [logits, target, g]))


@pytest.mark.parametrize("name", ["softmax", "log_softmax", *ENTROPIES[1:]])
def test_results_over_their_inputs(name):
    for n, indexed, layout in itertools.product((10, 40, 300, 1028), kinds(name), LAYOUTS):
        arrays, attributes = operands(name, 5, n, "float32", indexed=indexed)
        assert_close(run(name, arrays, attributes, layout, over=0), reference(name, arrays, attributes), n)


@pytest.mark.parametrize("columns", [10, 1000, 3000, 3001])
def test_layer_norm_of_numbers_far_from_zero(columns):
    """Differences are taken first: of 10,000.3 and 10,000.2, float32 has two digits behind the point, no more."""
    x = np.random.default_rng(0).standard_normal((5, columns)) + 1e4
    x[1, 0], x[2, columns // 2] = 0, 1e4 + 30  # the first one, or another, is nothing like the rest
    arrays = [x.astype("float32"), np.ones(columns, "float32"), np.zeros(columns, "float32")]
    arrays[0][1] -= 1e4
    assert_close(run("layer_norm", arrays, layout="aligned"), reference("layer_norm", arrays))


def test_long_rows_are_as_exact_as_short_ones():
    """Sums of partial sums: the error does not grow with the length."""
    x = np.random.default_rng(0).uniform(-9, 9, (1, 60_000)).astype("float32")
    for name, attributes in (("softmax", {"axis": -1}), ("log_softmax", {"axis": -1})):
        got = run(name, [x], attributes, "aligned", orders=("forward",))
        np.testing.assert_allclose(got, reference(name, [x], attributes), rtol=2e-6)
    got = run("softmax_cross_entropy", [x, np.array([7])], layout="aligned", orders=("forward",))
    np.testing.assert_allclose(got, reference("softmax_cross_entropy", [x, np.array([7])]), rtol=1e-6)


def test_what_is_declined_is_computed_all_the_same():
    x = np.random.default_rng(0).standard_normal((6, 8)).astype("float32")
    labels, ones = np.zeros(6, "int64"), np.ones(6, "float32")
    for name, arrays, attributes in (
        ("softmax", [x], {"axis": 0}), ("softmax", [x.T], {"axis": 1}), ("layer_norm", [x.T, ones, ones], {}),
        ("softmax_cross_entropy", [x[:, ::2], labels], {}), ("softmax_cross_entropy", [x[:, ::-1], labels], {}),
    ):  # fmt: skip
        attributes, (spec,) = complete(name, arrays, attributes)
        out = np.empty(*spec)
        launch = importlib.import_module("tinynet.kernels.cuda.launch")
        for function, arguments in bound(name, out, arrays, attributes):
            assert function is not launch.run
            function(*arguments)
        assert_close([out], reference(name, arrays, attributes), name)
