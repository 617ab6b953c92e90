"""Native kernels of optimizer updates, of writing in place, and of dropout."""

import native_checks
import numpy as np
import pytest
from native_runs import DTYPES, SIZES, assert_close, bound, cases, complete, is_compiled, on_threads, reference, run

from tinynet import kernels
from tinynet.kernels.reference.random import random_bits

native = native_checks.native  # the fixture

UPDATES = ("gd", "gd_momentum", "adam")
WRITING = ("accumulate", "assign")
STEADY = {"float32": 1e-6, "float64": 1e-13}


def parameters(count, n, dtype, seed=0):
    return list(np.random.default_rng(seed).uniform(0.1, 1, (count, n)).astype(dtype))


def operands(name, n, dtype):
    count = {"gd": 2, "gd_momentum": 3, "adam": 4}[name]
    rates = [np.asarray(0.05, dtype)] + [np.asarray(3, "int64")] * (name == "adam")
    return [*parameters(count, n, dtype), *rates], {"momentum": 0.9} if name == "gd_momentum" else {}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [*UPDATES, *WRITING, "dropout"])
def test_samples_are_as_the_reference_computes_them(native, name, dtype):
    for arrays, attributes in cases(name, SIZES, dtype):
        expected = reference(name, arrays, attributes)
        assert_close(run(name, arrays, attributes), expected, attributes)
        assert_close(run(name, arrays, attributes, fresh=True), expected, attributes)
        assert_close(run(name, arrays, attributes, "rows", declined=None), expected, attributes)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", UPDATES)
def test_two_hundred_steps_are_those_of_the_reference(native, name, dtype):
    """Rates and steps change under a bound kernel, which reads them when it runs."""
    every = {
        "gd": [{"weight_decay": d} for d in (0.0, 0.1)],
        "gd_momentum": [{"momentum": 0.9, "nesterov": n, "weight_decay": d} for n in (False, True) for d in (0.0, 0.1)],
        "adam": [{"weight_decay": d, "decoupled": c} for d, c in ((0.0, False), (0.1, False), (0.1, True))],
    }[name]
    for options in every:
        arrays, _ = operands(name, 37, dtype)
        arrays[2:-2] = [np.zeros_like(each) for each in arrays[2:-2]] if name == "adam" else arrays[2:-2]
        attributes, _ = complete(name, arrays, options)
        mine, theirs = ([each.copy() for each in arrays] for _ in range(2))
        outputs = {"gd": (0,), "gd_momentum": (0, 2), "adam": (0, 2, 3)}[name]
        out = [tuple(each[i] for i in outputs) if len(outputs) > 1 else each[0] for each in (mine, theirs)]
        calls, *_ = bound(name, out[0], mine, attributes)
        slow, rng = kernels.find(name, "reference"), np.random.default_rng(1)
        for step in range(1, 201):
            for each in (mine, theirs):
                each[1 + 1 + (name != "gd") + (name == "adam")][...] = 0.01 / (1 + step / 100)
                if name == "adam":
                    each[5][...] = step
            slope = rng.standard_normal(37).astype(dtype)
            mine[1][...] = theirs[1][...] = slope
            for function, arguments in calls:
                function(*arguments)
            slow(out[1], *theirs, **attributes)
        np.testing.assert_allclose(mine[0], theirs[0], rtol=STEADY[dtype], atol=STEADY[dtype], err_msg=str(options))


@pytest.mark.parametrize("dtype", DTYPES)
def test_adam_at_the_ends_of_the_numbers(native, dtype):
    """Second moments of 0, denormal, huge, infinite; gradients that are not finite; eps of 0."""
    tiny, huge = np.finfo(dtype).tiny, np.finfo(dtype).max
    v = np.array([0, 0, tiny / 8, tiny, 1e-20, 1, 1e20, huge / 4, np.inf, 1, 1, 1, np.nan, 0] * 2, dtype)
    g = np.array([0, 1, 0, 0, 1e-10, 1, 1, 1, 1, np.nan, np.inf, -np.inf, 1, 0] * 2, dtype)
    p, m = np.full(v.shape, 2, dtype), np.full(v.shape, 0.5, dtype)
    m[13] = 0
    for eps, step in ((1e-8, 1), (1e-8, 10**6), (0.0, 2)):
        arrays = [p, g, m, v, np.asarray(0.01, dtype), np.asarray(step)]
        got = run("adam", arrays, {"eps": eps})
        expected = reference("adam", arrays, {"eps": eps})
        ok = ~((v < 2 * tiny) & (v > 0)) | (eps > 0)  # a quotient by a denormal root may overflow earlier
        for one, other in zip(got, expected):
            note = f"{eps} {step}: denormal numbers are taken as zero"
            np.testing.assert_allclose(one[ok], other[ok], rtol=1e-5, atol=tiny, equal_nan=True, err_msg=note)


@pytest.mark.parametrize("step", [1, 2, 3, 10, 999, 1000, 54321, 10**9])
def test_corrections_of_adam_are_exact_at_any_step(native, step):
    arrays = [np.zeros(1), np.ones(1), np.ones(1), np.ones(1), np.asarray(1.0), np.asarray(step)]
    (got, *_), (expected, *_) = (each("adam", arrays, {"eps": 0.0}) for each in (run, reference))
    np.testing.assert_allclose(got, expected, rtol=1e-14)


@pytest.mark.parametrize("name", UPDATES)
def test_a_gradient_without_decay_does_not_see_the_parameter(native, name):
    arrays, attributes = operands(name, 20, "float32")
    arrays[0][3] = np.inf
    for rate in (np.inf, 0.05):
        arrays[-1 - (name == "adam")] = np.asarray(rate, "float32")
        got = run(name, arrays, attributes)
        assert_close(got, reference(name, arrays, attributes))
    assert all(np.isfinite(each).all() for each in got[1:])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [*UPDATES, "accumulate", "assign", "dropout"])
def test_threads_change_no_bit(native, name, dtype, monkeypatch):
    n = 10_007
    if name in UPDATES:
        arrays, attributes = operands(name, n, dtype)
    else:
        arrays, attributes = parameters(2, n, dtype), {}
        if name == "dropout":
            arrays, attributes = [arrays[0], np.asarray(3)], {"p": 0.3, "seed": 9, "offset": 3}
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
    assert_close(results[0], reference(name, arrays, attributes))


# ---- writing in place ----


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "int32", "uint64", "complex64"])
def test_assigns_what_has_bytes_of_four_or_eight(native, dtype):
    for n in SIZES:
        for value in (np.arange(n), np.asarray(7), np.arange(1)):
            (got,) = run("assign", [np.zeros(n, dtype), value.astype(dtype)])
            np.testing.assert_array_equal(got, np.broadcast_to(value, n))
    (got,) = run("assign", [np.zeros((), dtype), np.asarray(5, dtype)])
    assert got == 5


def test_copies_what_is_long(native):
    value = np.arange(300_001, dtype="float32")
    for x in (value, np.broadcast_to(value, (2, value.size))):
        np.testing.assert_array_equal(run("assign", [np.zeros_like(x), x])[0], x)


def test_assigns_rows_that_repeat_or_lie_apart(native):
    x, bias = np.zeros((9, 21), "float32"), np.arange(21, dtype="float32")
    for layout in ("line", "rows"):
        for value in (bias, bias[None], np.ones((9, 21), "float32")):
            (got,) = run("assign", [x, value], layout=layout)
            np.testing.assert_array_equal(got, np.broadcast_to(value, x.shape))
            (got,) = run("accumulate", [x + 1, value], layout=layout)
            np.testing.assert_array_equal(got, 1 + np.broadcast_to(value, x.shape))


def test_what_is_declined_is_computed_all_the_same(native):
    x, column = np.arange(12, dtype="float32").reshape(3, 4), np.arange(3, dtype="float32")[:, None]
    for name in WRITING:
        (got,) = run(name, [x, column], declined=True)
        np.testing.assert_array_equal(got, np.broadcast_to(column, x.shape) + (x if name == "accumulate" else 0))
    (got,) = run("assign", [np.zeros(5, bool), np.ones(5, bool)], declined=True)
    assert got.all()
    x = np.arange(100, dtype="float32")  # over a part of itself
    kernels.find("assign", "native", "float32")(x[1:], x[1:], x[:-1])
    np.testing.assert_array_equal(x, [0, *range(99)])
    p = np.ones((4, 6), "float32")[:, ::2]
    kernels.find("gd", "native", "float32")(p, p, np.ones((4, 3), "float32"), np.float32(0.5), weight_decay=0.0)
    np.testing.assert_array_equal(p, np.full((4, 3), 0.5))


# ---- dropout ----


@pytest.mark.parametrize("dtype", DTYPES)
def test_masks_of_dropout_are_those_of_the_reference(native, dtype):
    """Of every seed, stream and step, at any place of a larger array, to the last bit."""
    places = [(n, offset) for n in (1, 2, 3, 4, 5, 31, 32, 33, 63, 65, 130, 1000) for offset in (0, 1, 2, 3, 4, 6, 9)]
    rare = [(0, 0, 0), (2**64 - 1, 2**32 - 1, 2**40 + 5), (12345678901234567890, 77, 2**31), (7, 1, -1)]
    for i, (n, offset) in enumerate([*places, (40, 2**34 - 6), (40, 2**40 + 3)]):
        seed, stream, step = rare[i % len(rare)]
        x = np.linspace(1, 2, n).astype(dtype)
        attributes = {"p": 0.37, "seed": seed, "stream": stream, "offset": offset}
        got = run("dropout", [x, np.asarray(step)], attributes)
        expected = reference("dropout", [x, np.asarray(step)], attributes)
        np.testing.assert_array_equal(got[0], expected[0], err_msg=str((n, attributes)))


def test_dropout_at_the_ends_of_its_probability(native):
    x = np.array([1, np.nan, np.inf, -3], "float32")
    for p in (0.0, 1.0, 1 - 2**-24):
        attributes = {"p": p, "seed": 1}
        assert_close(
            run("dropout", [x, np.asarray(0)], attributes), reference("dropout", [x, np.asarray(0)], attributes)
        )


def test_dropout_reads_its_step_when_it_runs_and_may_write_over_its_input(native):
    x, step = np.ones(1000, "float32"), np.zeros((), "int64")
    calls, *_ = bound("dropout", x, [x, step], {"p": 0.5, "seed": 3, "stream": 2, "offset": 0})
    assert is_compiled(calls)
    for step[...] in (1, 2, 10**10):
        x[...] = 1
        for function, arguments in calls:
            function(*arguments)
        kept = random_bits(x, step, 3, 2) >= 2**31
        np.testing.assert_array_equal(x, np.where(kept, 2, 0))
