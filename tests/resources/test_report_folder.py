"""A run's folder is read as it is, and whatever is damaged in it is one error that names the place."""

from __future__ import annotations

import json

import pytest
from run_folders import write_run

from tinynet.errors import DataError
from tinynet.resources import write_report
from tinynet.resources.report.folder import read


def test_what_is_there_is_read_and_what_is_not_is_none(tmp_path):
    whole = read(write_run(tmp_path / "whole"))
    assert whole.name == "whole" and all(value is not None for value in whole)
    assert len(whole.samples) == 59 and whole.samples[0]["provenance"] == "modelled"
    assert [each["to"] for each in whole.decisions] == [16, 32]
    part = read(write_run(tmp_path / "part", without=("plan.json", "monitor.jsonl")))
    assert part.plan is None and part.samples is None and part.history == whole.history


def test_a_folder_without_a_run_is_refused(tmp_path):
    for path, got in ((tmp_path / "none", "no such folder"), (tmp_path, "a folder without any of config.json")):
        with pytest.raises(DataError, match=got):
            read(path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="got a file"):
        read(tmp_path / "file")


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("history.json", "{", "history.json: expected JSON"),
        ("history.json", "[]", "expected an object"),
        ("history.json", '{"stopped": null}', "a field 'epochs'"),
        ("history.json", '{"epochs": [{"epoch": -1}]}', "epochs 0, epoch: expected an integer from 0"),
        ("history.json", '{"epochs": [{"epoch": 1, "loss": [1]}]}', "epochs 0, loss: expected a number"),
        ("history.json", '{"epochs": ' + "[" * 100_000, "expected JSON"),
        ("history.json", '{"epochs": [{"epoch": 1' + "0" * 5000 + "}]}", "expected JSON"),
        ("history.json", '{"epochs": [{"epoch": 1, "loss": 1' + "0" * 400 + "}]}", "expected a number"),
        ("config.json", '{"chosen": 3}', "chosen: expected an object"),
        ("metrics.json", '"text"', "expected an object"),
        ("monitor.jsonl", '{"time": 1}\n{"time"\n{"time": 2}\n', "monitor.jsonl, line 2: expected JSON"),
        ("monitor.jsonl", '{"time": 1, "loss": "x"}\n', "line 1, loss: expected a number"),
        ("monitor.jsonl", '{"time": true}\n', "line 1, time: expected a number"),
        ("decisions.jsonl", '{"time": 1}\n', "a field 'what'"),
        ("plan.json", '{"tensors": [{}], "peak_bytes": 1, "lower_bound_bytes": 1}', "tensors 0: expected a field 'na"),
        ("plan.json", '{"tensors": [], "peak_bytes": 1.5, "lower_bound_bytes": 1}', "peak_bytes: expected an integer"),
        ("instructions.json", '{"instructions": [], "step_seconds": 1, "roofline": []}', "roofline: expected an obj"),
    ],
)
def test_a_damaged_file_is_one_error_and_writes_nothing(tmp_path, name, text, words):
    folder = write_run(tmp_path / "run")
    (folder / name).write_text(text)
    with pytest.raises(DataError) as caught:
        write_report(folder)
    assert words in str(caught.value) and str(folder / name) in str(caught.value)
    assert len(str(caught.value)) < 600 and not (folder / "report.html").exists()


def test_bytes_that_are_no_text_are_an_error(tmp_path):
    folder = write_run(tmp_path / "run")
    (folder / "monitor.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"monitor\.jsonl: expected text in UTF-8"):
        read(folder)


def test_lifetimes_that_end_before_they_begin_are_an_error(tmp_path):
    folder = write_run(tmp_path / "run")
    plan = json.loads((folder / "plan.json").read_text())
    plan["tensors"][0] |= {"first": 5, "last": 2}
    (folder / "plan.json").write_text(json.dumps(plan))
    with pytest.raises(DataError, match=r"plan\.json: expected a memory plan"):
        write_report(folder)


def test_a_line_that_is_being_written_is_left_out(tmp_path):
    folder = write_run(tmp_path / "run")
    with open(folder / "monitor.jsonl", "a") as file:
        file.write('{"time": 17')
    assert len(read(folder).samples) == 59


def test_numbers_that_are_not_finite_are_unknown(tmp_path):
    folder = write_run(tmp_path / "run")
    (folder / "history.json").write_text('{"epochs": [{"epoch": 1, "loss": NaN}, {"epoch": 2, "loss": 1e999}]}')
    assert [row["loss"] for row in read(folder).history["epochs"]] == [None, None]
    assert "Loss" not in write_text(folder).split("Throughput")[0].split('id="learning"')[1].split("<figcaption>")[0]


def write_text(folder):
    with open(write_report(folder)) as file:
        return file.read()
