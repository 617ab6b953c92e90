"""The examples run, and print what their texts say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
SCRIPTS = sorted(path.stem for path in EXAMPLES.glob("*.py"))


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """printed(name): what an example prints. It has a folder of its own for what it writes."""
    found: dict[str, str] = {}

    def run(name: str) -> str:
        if name not in found:
            command = [sys.executable, str(EXAMPLES / f"{name}.py")]
            folder = tmp_path_factory.mktemp(name)
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
            assert done.returncode == 0, done.stderr
            found[name] = done.stdout
        return found[name]

    return run


@pytest.mark.parametrize("name", SCRIPTS)
def test_example_runs_and_says_how(name, printed):
    assert printed(name)
    assert f"examples/{name}.py" in (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")


def test_gradient_descent_shows_the_right_cost_and_gradients(printed):
    lines = printed("gradient_descent").splitlines()
    assert lines[0] == "at w = b = 0: J = 18.667, dJ/dw = -18.667, dJ/db = -8.000"
    assert lines[1] == "after   0 steps: J = 18.666666, w = 0.0000, b = 0.0000"
    assert re.fullmatch(r"after 300 steps: J = 0\.000000, w = 1\.999\d, b = 0\.000\d", lines[-1])


def test_adam_begins_with_steps_of_its_learning_rate(printed):
    lines = printed("adam").splitlines()
    assert lines[0] == "gradients at w = b = 0: -18.667 and -8.000"
    assert lines[1] == "after   1 steps: w = 0.10000, b = 0.10000; by hand 0.10000 and 0.10000"
    assert lines[2].startswith("after   2 steps: w = 0.1997")


def test_csv_regression_grows_its_batches_within_its_memory_and_finds_the_prices(printed):
    text = printed("csv_regression")
    whole, within = (int(found.replace(",", "")) for found in re.findall(r"takes ([\d,]+)", text))
    assert within <= 10_000 < whole
    sizes = [int(found.replace(",", "")) for found in re.findall(r"batches of +([\d,]+)", text)]
    assert sizes == [32, 32, 64, 64, 128, 128, 256, 256, 512, 512, 1024, 1024]
    assert float(re.findall(r"held-out R2 ([\d.]+)", text)[-1]) > 0.96
    for name, right in (("area", 1200), ("rooms", 9000), ("age", -800)):
        found = int(re.search(rf"{name} *: *(-?[\d,]+) per unit", text)[1].replace(",", ""))
        assert abs(found - right) < 0.05 * abs(right)


def test_large_data_trains_in_a_part_of_the_memory_that_the_data_takes(printed):
    text = printed("large_data")
    assert re.search(r"^200,000 rows of 100 numbers, 80\.8 MB on disk", text, re.MULTILINE)
    assert float(re.search(r"R2 ([\d.]+)", text)[1]) > 0.95
    grown = re.search(r"memory grew by ([\d.]+) MB", text)
    assert grown is None or float(grown[1]) < 64


def test_constrained_stays_within_16_megabytes_and_trains_as_without(printed):
    text = printed("constrained")
    assert float(re.search(r"takes ([\d.]+) MB in all", text)[1]) > 16
    within, without = re.findall(r"loss ([\d.]+)", text)
    assert abs(float(within) - float(without)) < 2e-3
    assert "It is taken in parts" in text
    assert float(re.search(r"([\d.]+)% of the held-out", text)[1]) > 90


def test_real_time_loses_nothing_that_it_accepted(printed):
    text = printed("real_time")
    answered, refused = map(int, re.search(r"(\d+) answered, (\d+) refused", text).groups())
    assert answered + refused == 359
    assert re.search(r"9\d% of 359 digits are right", text)
    assert "99 %" in text


def test_memory_budget_draws_two_maps_and_comes_to_the_same_losses(printed):
    for whole, parts in re.findall(r"loss ([\d.]+), within 1MiB ([\d.]+)", printed("memory_budget")):
        assert abs(float(whole) - float(parts)) < 1e-5
