"""``--memory``, ``--time``, ``--energy``: what a run was allowed and what it used, in the summary and in files."""

import json

import pytest

from tinynet.cli import main, train


def run(*args):
    return main([str(arg) for arg in args])


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_summary_and_the_metrics_say_what_was_used(folder, capsys):
    budgets = ("--memory", "400kB", "--time", "0.2s", "--energy", "1MJ")
    assert run("train", "digits", "--epochs", 100_000, "--out", "run", *budgets) == 0
    out = capsys.readouterr().out
    assert "the time budget is used up: " in out
    found = metrics(folder)["budgets"]
    assert found["memory"]["limit_bytes"] == 400_000
    assert 0 < found["memory"]["used_bytes"] <= found["memory"]["planned_bytes"] <= 400_000
    assert found["time"]["limit_seconds"] == 0.2 and found["time"]["used_seconds"] >= 0.19
    assert found["energy"]["limit_joules"] == 1e6 and found["energy"]["provenance"] in ("measured", "modelled")
    assert found["energy"]["used_joules"] > 0
    lines = {line.split()[0]: line for line in out.splitlines() if line}
    assert " of 400 kB for a step (" in lines["memory"]
    assert " of 200 ms" in lines["time"] and " of 1 MJ (" in lines["energy"]
    assert ("energy is estimated here, from" in out) == (found["energy"]["provenance"] == "modelled")
    assert not (folder / "run/checkpoint.safetensors").exists()


def test_without_budgets_nothing_is_said_of_them(folder, capsys):
    assert run("train", "digits", "--epochs", 1, "--out", "run") == 0
    assert "budgets" not in metrics(folder)
    assert not {"memory", "time", "energy"} & {line.split()[0] for line in capsys.readouterr().out.splitlines() if line}


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [("--time", "3x", "seconds"), ("--energy", "2kB", "joules"), ("--memory", "1s", "bytes")],
)
def test_a_budget_that_cannot_be_read_leaves_nothing_behind(folder, capsys, option, value, said):
    assert run("train", "digits", option, value, "--out", "run") == 1
    assert f"expected {said}" in capsys.readouterr().err and not (folder / "run").exists()


class Interrupt(train.training.Callback):
    def on_step(self, run):
        if run.step == 50:
            run.stop("interrupted")


def interrupted(monkeypatch, *options):
    with monkeypatch.context() as patch:
        patch.setattr(train.training, "Progress", Interrupt)
        assert run("train", "digits", "--epochs", 3, "--out", "run", *options) == 130


def metrics(folder):
    return json.loads((folder / "run/metrics.json").read_text())


def test_resume_goes_on_within_what_is_left(folder, monkeypatch):
    """The settings hold the budgets, and the checkpoint what was used of them."""
    interrupted(monkeypatch, "--time", "1h", "--energy", "9MJ")
    before = metrics(folder)["budgets"]
    assert run("resume", "run") == 0
    after = metrics(folder)["budgets"]
    assert after["time"]["limit_seconds"] == 3600 and after["time"]["used_seconds"] > before["time"]["used_seconds"]
    assert after["energy"]["limit_joules"] == 9e6 and after["energy"]["used_joules"] > before["energy"]["used_joules"]


def test_runs_from_before_there_were_budgets_can_be_gone_on_with(folder, monkeypatch):
    interrupted(monkeypatch)
    config = json.loads((folder / "run/config.json").read_text())
    config["settings"] = {k: v for k, v in config["settings"].items() if k not in ("memory", "time", "energy")}
    (folder / "run/config.json").write_text(json.dumps(config))
    assert run("resume", "run") == 0
    assert "budgets" not in metrics(folder)
