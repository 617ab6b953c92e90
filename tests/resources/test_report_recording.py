"""What is recorded of a run is its program and its times, and recording changes nothing of the run."""

from __future__ import annotations

import json

import numpy as np
import pytest

import tinynet as tn
from tinynet.errors import ArgumentError
from tinynet.resources import Record, write_report
from tinynet.resources.recording import complete, described_instructions, described_plan, roofline

QUICK = 0.01  # seconds, of each measurement


class Look(tn.train.Callback):
    """Keeps the run."""

    def on_begin(self, run):
        self.run, self.before = run, run.program


def fit(*callbacks, rows=70, epochs=3, **how):
    tn.seed(0)
    x = np.random.default_rng(0).normal(size=(rows, 6)).astype(np.float32)
    model = tn.nn.Sequential(tn.nn.Dense(6, 16, "relu"), tn.nn.Dropout(0.1), tn.nn.Dense(16, 3))
    history = tn.fit(
        model, (x, np.arange(rows) % 3), loss="cross_entropy", optimizer="adam", epochs=epochs, batch_size=32,
        callbacks=callbacks, **how,
    )  # fmt: skip
    return model, history


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A folder that was recorded into, the run, and the model as trained."""
    folder, look = tmp_path_factory.mktemp("runs") / "run", Look()
    model, _ = fit(look, Record(folder, QUICK))
    return folder, look, model


def read(folder, name):
    return json.loads((folder / name).read_text())


def test_a_run_shows_the_program_of_its_last_batch(recorded):
    _, look, _ = recorded
    assert look.before is None, "before the first step there is none"
    assert [tuple(look.run.program.graph.spec(r).shape) for r in look.run.program.graph.inputs] == [(6, 6), (6,)]
    eager = Look()
    fit(eager, capture=False, epochs=1)
    assert eager.run.program is None


def test_the_plan_is_that_of_the_largest_batch(recorded):
    folder, look, _ = recorded
    written = read(folder, "plan.json")
    assert written["rows"] == 32
    x = np.zeros((32, 6), np.float32)
    program = look.run.program_of(x, np.zeros(32, np.int64))
    assert written["peak_bytes"] == program.plan.peak_bytes > look.run.program.plan.peak_bytes
    assert written["arena_bytes"] == program.arena_bytes == written["peak_bytes"], "measured as it was predicted"
    assert len(written["tensors"]) == len(program.plan.tensors)
    assert written["parameter_bytes"] == 4 * (6 * 16 + 16 + 16 * 3 + 3)
    assert written["started"] <= written["ended"] and written["started"].endswith("Z")
    assert described_plan(program).items() <= written.items()


def test_each_instruction_is_there_with_its_costs(recorded):
    folder, look, _ = recorded
    written = read(folder, "instructions.json")
    program = look.run.program_of(np.zeros((32, 6), np.float32), np.zeros(32, np.int64))
    computing = [i for i, each in enumerate(program.graph.instructions) if not each.view]
    assert [row["place"] for row in written["instructions"]] == computing
    assert written["executor"] == program.target and written["step_seconds"] > 0
    assert sum(row["flops"] for row in written["instructions"]) == program.cost[0]
    assert all(row["seconds"] > 0 for row in written["instructions"])
    assert {row["phase"] for row in written["instructions"]} == {"forward", "backward", "update"}
    assert any([32, 6] in row["shapes"] for row in written["instructions"])


def test_recording_leaves_the_run_as_it_would_have_been(recorded, tmp_path):
    _, look, model = recorded
    plain, history = fit()
    for ours, theirs in zip(model.parameters(), plain.parameters()):
        assert np.array_equal(ours.numpy(), theirs.numpy())
    assert look.run.history["loss"] == history["loss"]
    assert model.training and look.run.optimizer.params[0].grad is None


def test_a_model_that_ends_in_eval_mode_is_recorded_too(tmp_path):
    tn.seed(0)
    model = tn.nn.Sequential(tn.nn.Dense(4, 2), tn.nn.Dropout(0.5)).eval()
    x = np.ones((64, 4), np.float32)
    tn.fit(model, (x, x[:, :2]), loss="mse", optimizer="gd", epochs=2, callbacks=[Record(tmp_path, QUICK)])
    assert not model.training and "dropout" in (tmp_path / "instructions.json").read_text()


def test_eager_runs_and_broken_ones_leave_nothing(tmp_path):
    fit(Record(tmp_path / "eager", QUICK), capture=False, epochs=1)

    class Break(tn.train.Callback):
        def on_step(self, run):
            run.within_step = True
            raise RuntimeError("in a step")

    with pytest.raises(RuntimeError, match="in a step"):
        fit(Record(tmp_path / "broken", QUICK), Break())
    assert not (tmp_path / "eager").exists() and not (tmp_path / "broken").exists()


def test_seconds_have_to_be_positive(tmp_path):
    for seconds in (0, -1, float("nan")):
        with pytest.raises(ArgumentError, match="seconds above 0"):
            Record(tmp_path, seconds)


def test_the_limits_say_what_is_not_known():
    limits = roofline("cuda", "float32", QUICK)
    assert limits["flop_per_s"] is None and "cuda kernels are not measured" in limits["unknown"][0]
    limits = roofline("numpy", "float32", QUICK)
    assert limits["bytes_per_s"] > 1e6 and limits["threads"] >= 1
    assert (limits["flop_per_s"] is None) == bool(limits["unknown"])


def test_any_captured_program_can_be_described():
    w = tn.tensor(np.ones((8, 8), np.float32))
    step = tn.capture(lambda x: (x @ w).sum(), executor="numpy")
    x = tn.tensor(np.ones((4, 8), np.float32))
    step(x), step(x)
    rows = described_instructions(step.program(x), QUICK)["instructions"]
    assert rows[0]["name"] == "matmul" and rows[0]["shapes"] == [[4, 8], [8, 8]] and rows[0]["flops"] == 512


def test_the_report_shows_what_was_recorded(recorded):
    folder, look, _ = recorded
    look.run.history.save(folder / "history.json")
    with open(write_report(folder)) as file:
        text = file.read()
    assert "was planned to take" in text and "Roofline" in text and "instructions.json</code> is missing" not in text


def test_limits_that_were_left_out_are_measured_later_on_the_same_processor(tmp_path):
    fit(Record(tmp_path, QUICK, limits=False))
    written = read(tmp_path, "instructions.json")
    assert written["roofline"]["flop_per_s"] is None and len(written["roofline"]["unknown"]) == 1
    plan = read(tmp_path, "plan.json")
    (tmp_path / "plan.json").write_text(json.dumps(plan | {"processor": "another one"}))
    assert not complete(tmp_path, QUICK)
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    assert complete(tmp_path, QUICK)
    after = read(tmp_path, "instructions.json")
    assert after["roofline"]["bytes_per_s"] > 0 and after["instructions"] == written["instructions"]
    assert not complete(tmp_path, QUICK), "once is enough"
    (tmp_path / "instructions.json").write_text("[]")
    assert not complete(tmp_path, QUICK) and not complete(tmp_path / "none", QUICK)


def test_the_record_of_another_run_does_not_stay(tmp_path):
    fit(Record(tmp_path, QUICK, limits=False))
    fit(Record(tmp_path, QUICK, limits=False), capture=False)  # has no program
    assert not (tmp_path / "plan.json").exists() and not (tmp_path / "instructions.json").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(ArgumentError, match="a path where one can be made"):
        fit(Record(tmp_path / "file"))
