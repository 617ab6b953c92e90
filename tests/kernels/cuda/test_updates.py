"""Optimizer updates for CUDA, run on a processor."""

import numpy as np
import pytest
from native_runs import DTYPES, assert_close, cases, complete, reference
from runs import bound, run

from tinynet import kernels

UPDATES = ("gd", "gd_momentum", "adam")
SIZES = (0, 1, 2, 7, 8, 9, 33, 255, 256, 257, 511, 512, 513)  # twice as many elements: around packs and blocks
LAYOUTS = ("line", "aligned")
STEADY = {"float32": 1e-6, "float64": 1e-13}

pytestmark = pytest.mark.usefixtures("harness")


def operands(name, n, dtype, seed=0):
    count = {"gd": 2, "gd_momentum": 3, "adam": 4}[name]
    rates = [np.asarray(0.05, dtype)] + [np.asarray(3, "int64")] * (name == "adam")
    arrays = list(np.random.default_rng(seed).uniform(0.1, 1, (count, n)).astype(dtype))
    return [*arrays, *rates], {"momentum": 0.9} if name == "gd_momentum" else {}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", UPDATES)
def test_samples_are_as_the_reference_computes_them(name, dtype):
    for arrays, attributes in cases(name, SIZES, dtype):
        expected = reference(name, arrays, attributes)
        for layout in LAYOUTS:
            assert_close(run(name, arrays, attributes, layout, orders=("forward",)), expected, attributes)
        assert_close(run(name, arrays, attributes, "aligned", fresh=True), expected, attributes)
        assert_close(run(name, arrays, attributes, "rows", declined=None, orders=("forward",)), expected, attributes)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", UPDATES)
def test_more_than_all_blocks_take_at_once(monkeypatch, name, dtype):
    """Blocks go on where the others end."""
    import importlib

    monkeypatch.setattr(importlib.import_module("tinynet.kernels.cuda.updates"), "MOST_BLOCKS", 3)
    for n in (3 * 1024 + 5, 7 * 1024 + 2, 9 * 512):
        arrays, attributes = operands(name, n, dtype)
        for layout in LAYOUTS:
            found = run(name, arrays, attributes, layout, orders=("forward",))
            assert_close(found, reference(name, arrays, attributes))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", UPDATES)
def test_fifty_steps_are_those_of_the_reference(harness, name, dtype):
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
        calls = bound(name, out[0], mine, attributes)
        slow, rng = kernels.find(name, "reference"), np.random.default_rng(1)
        for step in range(1, 51):
            for each in (mine, theirs):
                each[1 + 1 + (name != "gd") + (name == "adam")][...] = 0.01 / (1 + step / 100)
                if name == "adam":
                    each[5][...] = step
            slope = rng.standard_normal(37).astype(dtype)
            mine[1][...] = theirs[1][...] = slope
            harness.run(calls, ("forward",))
            slow(out[1], *theirs, **attributes)
        np.testing.assert_allclose(mine[0], theirs[0], rtol=STEADY[dtype], atol=STEADY[dtype], err_msg=str(options))


@pytest.mark.parametrize("dtype", DTYPES)
def test_adam_at_the_ends_of_the_numbers(dtype):
    """Second moments of 0, denormal, huge, infinite; gradients that are not finite; eps of 0."""
    tiny, huge = np.finfo(dtype).tiny, np.finfo(dtype).max
    v = np.array([0, 0, tiny / 8, tiny, 1e-20, 1, 1e20, huge / 4, np.inf, 1, 1, 1, np.nan, 0] * 2, dtype)
    g = np.array([0, 1, 0, 0, 1e-10, 1, 1, 1, 1, np.nan, np.inf, -np.inf, 1, 0] * 2, dtype)
    p, m = np.full(v.shape, 2, dtype), np.full(v.shape, 0.5, dtype)
    m[13] = 0
    for eps, step in ((1e-8, 1), (1e-8, 10**6), (0.0, 2)):
        arrays = [p, g, m, v, np.asarray(0.01, dtype), np.asarray(step)]
        for layout in LAYOUTS:
            got = run("adam", arrays, {"eps": eps}, layout)
            expected = reference("adam", arrays, {"eps": eps})
            for one, other in zip(got, expected):
                np.testing.assert_allclose(one, other, rtol=1e-5, atol=tiny, equal_nan=True, err_msg=f"{eps} {step}")


@pytest.mark.parametrize("step", [1, 2, 3, 10, 999, 1000, 54321, 10**9])
def test_corrections_of_adam_are_exact_at_any_step(step):
    arrays = [np.zeros(1), np.ones(1), np.ones(1), np.ones(1), np.asarray(1.0), np.asarray(step)]
    (got, *_), (expected, *_) = (each("adam", arrays, {"eps": 0.0}) for each in (run, reference))
    np.testing.assert_allclose(got, expected, rtol=1e-14)


@pytest.mark.parametrize("name", UPDATES)
def test_a_gradient_without_decay_does_not_see_the_parameter(name):
    arrays, attributes = operands(name, 20, "float32")
    arrays[0][3] = np.inf
    for rate in (np.inf, 0.05):
        arrays[-1 - (name == "adam")] = np.asarray(rate, "float32")
        got = run(name, arrays, attributes)
        assert_close(got, reference(name, arrays, attributes))
    assert all(np.isfinite(each).all() for each in got[1:])


def test_what_is_no_line_is_computed_all_the_same():
    p = np.ones((4, 6), "float32")[:, ::2]
    kernels.find("gd", "cuda", "float32")(p, p, np.ones((4, 3), "float32"), np.float32(0.5), weight_decay=0.0)
    np.testing.assert_array_equal(p, np.full((4, 3), 0.5))
