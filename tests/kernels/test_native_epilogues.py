"""Epilogues of the compiled product; the ladder that leads to it; and what is kept where."""

import itertools
import os
import subprocess
import sys

import native_checks
import numpy as np
import pytest
from native_checks import DTYPES, WIDTHS, exact, integers, laid_out, run, width_or_skip

from tinynet import kernels

native = native_checks.native  # the fixture


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "shape", [(13, 37, 70), (200, 1700, 70), (20, 1100, 70), (1, 37, 70), (70, 37, 1), (5, 0, 9)], ids=str
)
def test_epilogues_are_what_the_operations_would_do_one_by_one(native, shape, dtype):
    (m, k, n) = shape
    a, b = integers((m, k), 0, dtype), integers((k, n), 1, dtype)
    before, bias, mask = integers((m, n), 2, dtype), integers((n,), 3, dtype), integers((m, n), 4, dtype)
    for adds, with_bias, relu, with_mask, right in itertools.product((False, True), repeat=5):
        correct = exact(a, b) + (before if adds else 0) + (bias if with_bias else 0)
        correct = np.maximum(correct, 0) if relu else correct
        correct = np.where(mask > 0, correct, 0) if with_mask else correct
        out = laid_out(before, "rows")
        run(
            native, out, a, laid_out(b, "columns" if right else "rows"), accumulate=adds,
            bias=bias if with_bias else None, activation="relu" if relu else None,
            mask=laid_out(mask, "rows") if with_mask else None,
        )  # fmt: skip
        np.testing.assert_array_equal(out, correct, err_msg=f"{adds} {with_bias} {relu} {with_mask} {right}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "relu"])
def test_activations_err_by_two_units_in_the_last_place_and_keep_nan(native, activation, width, dtype):
    width_or_skip(native, width)
    tiny = np.finfo(dtype).tiny
    x = np.concatenate([np.linspace(-30, 30, 60_001), np.linspace(-800, 800, 999), np.linspace(-0.7, 0.7, 997),
                        np.logspace(-35, 0, 500), -np.logspace(-35, 0, 500),
                        [0.0, -0.0, tiny, 1e30, -1e30, np.inf, -np.inf, np.nan]]).astype(dtype)  # fmt: skip
    out = run(native, np.empty((1, x.size), dtype), np.ones((1, 1), dtype), x[None], activation=activation, width=width)
    wide = x.astype("longdouble")
    with np.errstate(over="ignore", under="ignore"):
        correct = {"tanh": np.tanh(wide), "sigmoid": 1 / (1 + np.exp(-wide)), "relu": np.maximum(wide, 0)}[activation]
        rounded = correct.astype(dtype)
    assert np.isnan(out[0, -1])
    sure = np.isfinite(rounded)
    np.testing.assert_array_equal(out[0][np.isinf(rounded)], rounded[np.isinf(rounded)])
    error = np.abs(out[0][sure] - correct[sure]) / np.spacing(np.abs(rounded[sure]))
    limit = 2 if np.finfo(wide.dtype).eps < np.finfo(dtype).eps else 4  # what it is compared with errs as well
    assert error.max() <= limit, x[sure][error.argmax()]


def test_relu_and_mask_treat_nan_as_the_reference_does(native):
    x = np.float32([[np.nan, -1, 0, 2, np.inf, -np.inf]])
    out, one = np.empty_like(x), np.ones((1, 1), "float32")
    correct = np.empty_like(x)
    kernels.find("relu", "reference")(correct, x)
    np.testing.assert_array_equal(run(native, out, one, x, activation="relu"), correct)
    mask = np.float32([[1, np.nan, -1, 1, 0, 1]])
    np.testing.assert_array_equal(run(native, out, one, x, mask=mask), np.where(mask > 0, x, 0))


def test_every_step_of_the_ladder_is_exact(native):
    from tinynet.kernels.cpu.native import ladder

    for m, k, n in ((1, 1, 1), (7, 5, 3), (9, 130, 67), (13, 300, 270)):
        a, b, row = integers((m, k), 0), integers((k, n), 1), integers((8192 + n,), 2)
        for name in ladder.STEPS:
            out = np.full((m, n), np.nan, "float32")
            correct = ladder.expected(name, a, b, row)
            ladder.step(name)(out, a, b, row.copy())
            np.testing.assert_array_equal(out, correct, err_msg=f"{name}, {m} x {k} x {n}")


def test_the_peak_is_a_plausible_number(native):
    assert 1e8 < native.peak("float32", seconds=0.01) < 1e13


def python(code, **environment):
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | environment, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_libraries_are_loaded_when_they_are_needed_and_not_before(native):
    look = "print(*[name in sys.modules for name in ('llvmlite', 'numba')]); "
    code = f"import sys, tinynet, tinynet.kernels.cpu.native as n; {look} n.widths; {look} n.peak; {look}"
    assert python(code).splitlines() == ["False False", "True False", "True True"]


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="folders have no owner here")
def test_compiled_code_is_kept_in_a_folder_of_this_user_alone(native, tmp_path):
    code = "from tinynet.kernels.cpu.native import machine; print(machine.cache_folder())"
    folder = python(code, TINYNET_CACHE=str(tmp_path / "cache"))
    assert os.stat(folder).st_mode & 0o777 == 0o700
    os.chmod(folder, 0o755)
    assert python(code, TINYNET_CACHE=str(tmp_path / "cache")) == "None"
    os.rmdir(folder)
    os.symlink(tmp_path, folder)
    assert python(code, TINYNET_CACHE=str(tmp_path / "cache")) == "None"
    (tmp_path / "file").touch()
    assert python(code, TINYNET_CACHE=str(tmp_path / "file")) == "None"
