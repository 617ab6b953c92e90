"""``tinynet report``: where it writes, and that every mistake is one line."""

from __future__ import annotations

import pytest
from run_folders import write_run

from tinynet.cli import main


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_report_lies_in_the_run_or_where_it_is_asked_for(folder, capsys):
    write_run(folder / "one"), write_run(folder / "two", batch=64)
    assert main(["report", "one"]) == 0
    assert capsys.readouterr().out.split() == ["report", "in", "one/report.html"]
    assert main(["report", "one", "two", "-o", "both.html"]) == 0
    assert "both.html" in capsys.readouterr().out
    assert "<h1>Run one</h1>" in (folder / "one/report.html").read_text()
    assert "<h1>Runs one and two</h1>" in (folder / "both.html").read_text()


def test_a_run_of_the_command_line_has_a_report(folder, capsys):
    assert main(["train", "digits", "--epochs", "1", "--hidden", "8", "--out", "run"]) == 0
    assert main(["report", "run"]) == 0
    text = (folder / "run/report.html").read_text()
    assert "was trained on digits for 1 epoch in batches of 32 with Adam" in text and "<strong>Loss</strong>" in text


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["none"], "none: expected the folder of a run"),
        (["run", "none"], "none: expected the folder of a run"),
        (["run", "-o", "no/such/file.html"], "no folder no/such. Make it."),
        (["damaged"], "damaged/history.json: expected JSON"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(folder, capsys, args, words):
    write_run(folder / "run"), write_run(folder / "damaged")
    (folder / "damaged/history.json").write_text("[")
    assert main(["report", *args]) == 1
    error = capsys.readouterr().err
    assert error.startswith("tinynet report: ") and words in error and len(error.splitlines()) == 1
    assert not list(folder.rglob("*.html")) and not list(folder.rglob(".tinynet-*"))
