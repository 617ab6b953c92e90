"""``tinynet plan``: its numbers are those of the plan, and what does not fit is said with what would."""

from __future__ import annotations

import itertools
import re

import pytest

import tinynet as tn
from tinynet.cli import main
from tinynet.memory.units import as_bytes

LAYERS = "20,16,16,4"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def model(*sizes, activation="relu"):
    pairs = list(itertools.pairwise(sizes))
    return tn.nn.Sequential(
        *(tn.nn.Dense(n, m, activation if i < len(pairs) - 1 else None) for i, (n, m) in enumerate(pairs))
    )


def plan(capsys, *args):
    status = main(["plan", "--layers", LAYERS, *map(str, args)])
    return status, capsys.readouterr()


def number(text: str, label: str) -> int:
    return int(re.search(rf"^{label} +([\d,]+) bytes", text, re.MULTILINE)[1].replace(",", ""))


def test_the_table_says_what_the_plan_says(capsys):
    status, printed = plan(capsys, "--batch", 48)
    expected = tn.plan(model(20, 16, 16, 4), "cross_entropy", "adam", 48)
    assert status == 0
    assert number(printed.out, "parameters") == 4 * (20 * 16 + 16 + 16 * 16 + 16 + 16 * 4 + 4)
    assert number(printed.out, "peak of the arena") == expected.peak_bytes
    assert number(printed.out, "lower bound") == expected.lower_bound_bytes == expected.peak_bytes
    assert number(printed.out, "workspace") == expected.workspace_bytes
    assert number(printed.out, "all together") == expected.total_bytes
    assert number(printed.out, "batch") >= 48 * (20 * 4 + 8)


def test_moments_follow_the_optimizer_and_sizes_the_dtype(capsys):
    both = number(plan(capsys)[1].out, "moments")
    assert both >= 2 * 4 * (20 * 16 + 16 + 16 * 16 + 16 + 16 * 4 + 4)
    assert number(plan(capsys, "--optimizer", "gd")[1].out, "moments") == 0
    wide = plan(capsys, "--dtype", "float64")[1].out
    assert number(wide, "parameters") == 2 * number(plan(capsys)[1].out, "parameters")


def test_within_a_budget_it_says_what_is_done_and_the_largest_batch_without(capsys):
    free = number(plan(capsys, "--batch", 4096)[1].out, "workspace")
    status, printed = plan(capsys, "--batch", 4096, "--memory", free // 3)
    assert status == 0 and number(printed.out, "workspace") <= free // 3
    assert "the batch of 4,096 in" in printed.out
    most = int(re.search(r"nothing cut or made again: ([\d,]+)", printed.out)[1].replace(",", ""))
    within = plan(capsys, "--batch", most, "--memory", free // 3)[1].out.split("largest")[0]
    assert "nothing cut or made again" in within
    assert "parts of" in plan(capsys, "--batch", most + 1, "--memory", free // 3)[1].out


def test_a_budget_that_is_too_small_names_one_that_is_not(capsys):
    status, printed = plan(capsys, "--batch", 4096, "--memory", 100)
    assert status == 1
    least = int(re.search(r"at least ([\d,]+) bytes", printed.err)[1].replace(",", ""))
    assert plan(capsys, "--batch", 4096, "--memory", least)[0] == 0


def test_it_draws_the_map_and_lists_the_tensors(capsys, folder):
    status, printed = plan(capsys, "--svg", "map.svg", "--tensors", "--dropout", 0.1, "--loss", "mse")
    assert status == 0 and (folder / "map.svg").read_text().startswith("<svg")
    assert "alive" in printed.out and "dropout" in printed.out


@pytest.mark.parametrize("wrong", [["--memory", "lots"], ["--batch", "0"], ["--layers", "7"]])
def test_mistakes_are_one_line(capsys, wrong):
    assert main(["plan", "--layers", LAYERS, *wrong]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_train_keeps_to_a_budget_and_says_how(capsys):
    assert main(["train", "digits", "--epochs", "1", "--batch", "256", "--memory", "150kB", "--out", "run"]) == 0
    printed = capsys.readouterr().out
    took = re.search(r"a step of 256 takes ([\d.]+) MiB", printed)[1]
    assert float(took) * 2**20 <= as_bytes("150kB", "test") * 1.01 and "parts of" in printed
