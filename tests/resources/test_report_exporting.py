"""Traces are what Perfetto reads, and event files are what TensorBoard reads."""

from __future__ import annotations

import itertools
import json
import struct

import numpy as np
import pytest
from run_folders import write_run

import tinynet as tn
from tinynet.errors import ArgumentError, DataError, MissingExtraError
from tinynet.resources import TensorBoard, chrome_trace

QUICK = 0.01


def program():
    w = tn.tensor(np.ones((8, 8), np.float32))
    step = tn.capture(lambda x: tn.relu(x @ w).sum(), executor="numpy", fuse=False)
    x = tn.tensor(np.ones((4, 8), np.float32))
    step(x), step(x)
    return step.program(x)


def fit(*callbacks, epochs=3, **how):
    tn.seed(0)
    x = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    model = tn.nn.Sequential(tn.nn.Dense(4, 2))
    return tn.fit(
        model, (x, x[:, :2]), loss="mse", optimizer="gd", epochs=epochs, valid=(x, x[:, :2]), callbacks=callbacks, **how
    )  # fmt: skip


def valid_events(path):
    """The events of a trace, after a look at what the format demands of each."""
    trace = json.loads(path.read_text())
    for event in trace["traceEvents"]:
        assert event["ph"] in "XMC" and isinstance(event["name"], str) and {"pid", "tid", "args"} <= event.keys()
        if event["ph"] != "M":
            assert isinstance(event["ts"], (int, float)) and event["ts"] >= 0
        if event["ph"] == "X":
            assert event["dur"] >= 0 and event["cat"]
        if event["ph"] == "C":
            assert all(isinstance(value, (int, float)) for value in event["args"].values())
    return trace["traceEvents"]


def test_a_program_becomes_complete_events_end_to_end(tmp_path):
    made = program()
    chrome_trace(made, tmp_path / "trace.json", QUICK)
    events = [event for event in valid_events(tmp_path / "trace.json") if event["ph"] == "X"]
    assert [event["name"] for event in events] == [each.op.name for each in made.graph if not each.view]
    for before, after in itertools.pairwise(events):
        assert after["ts"] == pytest.approx(before["ts"] + before["dur"], rel=1e-6)
    assert events[0]["args"]["flops"] == 512 and events[0]["args"]["shapes"] == [[4, 8], [8, 8]]
    assert "test_report_exporting.py" in events[0]["args"]["line"]


def test_the_counter_is_what_lives_by_the_plan(tmp_path):
    chrome_trace(write_run(tmp_path / "run"), tmp_path / "trace.json")
    live = [event["args"]["live bytes"] for event in valid_events(tmp_path / "trace.json") if event["ph"] == "C"]
    assert live == [8192, 57344, 24576, 24576, 57344, 57344, 57344, 0]


def test_a_run_under_way_can_be_traced(tmp_path):
    class Trace(tn.train.Callback):
        def on_epoch(self, run):
            chrome_trace(run, tmp_path / "trace.json", QUICK)

    fit(Trace())
    assert any(event["ph"] == "X" for event in valid_events(tmp_path / "trace.json"))


def test_what_has_no_program_is_one_error_and_no_file(tmp_path):
    class Trace(tn.train.Callback):
        def on_epoch(self, run):
            chrome_trace(run, tmp_path / "trace.json")

    with pytest.raises(DataError, match="a run whose steps are programs"):
        fit(Trace(), capture=False)
    folder = write_run(tmp_path / "run", without=("instructions.json",))
    with pytest.raises(DataError, match=r"expected instructions\.json.*Record\(folder\)"):
        chrome_trace(folder, tmp_path / "trace.json")
    assert not (tmp_path / "trace.json").exists()


# ---- TensorBoard ----


def scalars(folder):
    """(tag, step) -> value, of all event files: records of a length, its checksum, the event, its checksum."""
    from tensorboardX.proto.event_pb2 import Event

    found = {}
    for path in folder.iterdir():
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            event = Event.FromString(data[12 : 12 + length])
            found |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
            data = data[16 + length :]
    return found


def test_tensorboard_gets_every_number_of_the_history(tmp_path):
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")
    history = fit(TensorBoard(tmp_path / "events", every=1e-9), epochs=3)
    found = scalars(tmp_path / "events")
    for row in history:
        for name in ("loss", "lr", "samples_per_second"):
            assert found[f"train/{name}", row["epoch"]] == pytest.approx(row[name], rel=1e-6)
        for name in ("loss", "r2"):
            assert found[f"valid/{name}", row["epoch"]] == pytest.approx(row[f"valid_{name}"], rel=1e-6)
    assert [step for tag, step in sorted(found) if tag == "step/loss"] == [1, 2, 3, 4, 5, 6]


def test_between_epochs_the_loss_is_looked_at_now_and_then(tmp_path):
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")
    fit(TensorBoard(tmp_path / "events", every=1e6), epochs=2)
    assert [step for tag, step in scalars(tmp_path / "events") if tag == "step/loss"] == [1]


def test_without_the_package_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tensorboardX", None)
    with pytest.raises(MissingExtraError, match=r"tinynet\[tensorboard\]"):
        fit(TensorBoard(tmp_path / "events"))
    assert not (tmp_path / "events").exists()


def test_the_interval_has_to_be_positive(tmp_path):
    with pytest.raises(ArgumentError, match="every, in seconds, above 0"):
        TensorBoard(tmp_path, every=0)
