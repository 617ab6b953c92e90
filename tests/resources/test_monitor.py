"""Monitor: samples by a clock that the test turns, in memory and as lines of JSON."""

import json
import math

import numpy as np
import pytest
from counters import Clock, Powercap

import tinynet as tn
from tinynet.errors import ArgumentError
from tinynet.meters.energy import Meter
from tinynet.resources import Monitor
from tinynet.train import Callback, Checkpoint

NAMES = {
    "time", "step", "epoch", "loss", "lr", "batch_size", "samples_per_second", "resident_bytes", "arena_bytes", "cpu",
    "gpu", "joules", "provenance", "energy_note", "gradient_norm",
}  # fmt: skip
X = np.random.default_rng(0).normal(size=(80, 3)).astype("float32")


class Passes(Callback):
    """A tenth of a second passes in each step; placed before the monitor."""

    def __init__(self, clock):
        self.clock = clock

    def on_step(self, run):
        self.clock.now += 0.1


def train(clock, monitor, **options):
    tn.seed(0)
    model = tn.nn.Sequential(tn.nn.Dense(3, 8, "relu"), tn.nn.Dense(8, 3))
    options = {"epochs": 2, "batch_size": 16} | options
    callbacks = [Passes(clock), monitor, *options.pop("more", ())]
    tn.fit(model, (X, X.argmax(axis=1)), loss="cross_entropy", optimizer="adam", callbacks=callbacks, **options)
    return model


def test_samples_come_by_the_clock_and_one_at_the_end(tmp_path):
    clock, path = Clock(), tmp_path / "monitor.jsonl"
    monitor = Monitor(path, every=0.35, clock=clock)
    train(clock, monitor)
    samples = [json.loads(line) for line in path.read_text().splitlines()]
    assert samples == list(monitor.samples)
    assert [each["step"] for each in samples] == [4, 8, 10] and [each["epoch"] for each in samples] == [1, 2, 2]
    for each in samples:
        assert each.keys() == NAMES
        assert each["samples_per_second"] == pytest.approx(160) and each["batch_size"] == 16
        assert each["arena_bytes"] > 0 and each["lr"] == pytest.approx(1e-3) and math.isfinite(each["loss"])
        assert each["gpu"] is None and each["cpu"] >= 0


def test_energy_is_that_of_the_meter_and_says_where_it_is_from(tmp_path):
    clock = Clock()
    tree = Powercap(tmp_path / "powercap", {"intel-rapl:0": "package-0"})
    monitor = Monitor(every=0.35, clock=clock, meter=Meter(tree.root, clock=clock))

    class Uses(Callback):
        def on_step(self, run):
            tree["intel-rapl:0"] = run.step * 3_000_000

    train(clock, monitor, more=[Uses()])
    assert [(each["joules"], each["provenance"]) for each in monitor.samples] == [
        (9.0, "measured"), (21.0, "measured"), (30.0, "measured")
    ]  # fmt: skip
    unknown = Monitor(every=0.35, clock=clock, meter=Meter(tmp_path / "nowhere", clock=clock))
    train(clock, unknown)
    assert unknown.samples[0]["joules"] is None and unknown.samples[0]["provenance"] == "unavailable"
    assert "nowhere" in unknown.samples[0]["energy_note"]


@pytest.mark.parametrize("options", [{"capture": False}, {"watch": "raise"}], ids=["eager", "watched"])
def test_the_norm_is_that_of_the_gradients_where_they_exist(options):
    clock, norms = Clock(), []

    class Norm(Callback):
        def on_step(self, run):
            grads = run.watch.gradients() if run.watch else [p.grad for p in run.optimizer.params]
            norms.append(math.sqrt(sum(float(np.square(g.numpy(), dtype="float64").sum()) for g in grads)))

    monitor = Monitor(every=0.35, clock=clock)
    train(clock, monitor, more=[Norm()], **options)
    assert monitor.samples[0]["gradient_norm"] == pytest.approx(norms[3]) and norms[3] > 0
    fused = Monitor(every=0.35, clock=clock)
    train(clock, fused)
    assert fused.samples[0]["gradient_norm"] is None


class AtSteps(Callback):
    """The norm of the gradients after each step, by the run and by hand."""

    def on_begin(self, run):
        self.found, self.right = [], []

    def on_step(self, run):
        self.found.append(run.gradient_norm())
        x, y = map(tn.tensor, run.batch)
        params = run.model.parameters()
        before = [p._grad for p in params]
        run.model.eval()  # without dropout, by hand and then by the run
        run.optimizer.zero_grad()
        tn.losses.cross_entropy(run.model(x), y).backward()
        self.right.append(math.sqrt(sum(float((p.grad.numpy() ** 2).sum()) for p in params)))
        for p, grad in zip(params, before):
            p._grad = grad
        run.model.train()


@pytest.mark.parametrize("options", [{}, {"capture": False}, {"memory": "100kB"}, {"clip_norm": 1e-3}])
def test_a_run_tells_the_norm_of_its_gradients_before_any_clipping(options):
    norms = AtSteps()
    train(Clock(), Monitor(), more=[norms], **options)
    assert norms.found == pytest.approx(norms.right, rel=1e-4)
    assert len(norms.found) == 10


@pytest.mark.parametrize("capture", [True, False])
def test_to_be_told_the_norm_changes_nothing(capture):
    def trained(*callbacks):
        tn.seed(0)
        model = tn.nn.Sequential(tn.nn.Dense(3, 8, "relu"), tn.nn.Dropout(0.5), tn.nn.Dense(8, 3))
        tn.fit(model, (X, X.argmax(axis=1)), loss="cross_entropy", optimizer="adam", epochs=3, batch_size=16,
               callbacks=callbacks, capture=capture)  # fmt: skip
        return [p.numpy().tobytes() for p in model.parameters()], model[1].counter.item()

    clock = Clock()
    looked_on = Monitor(every=0.05, clock=clock, gradients=True)
    assert trained(Passes(clock), looked_on) == trained()
    assert all(each["gradient_norm"] > 0 for each in looked_on.samples) and len(looked_on.samples) == 15


def test_a_resumed_run_goes_on_with_the_file_and_a_new_one_replaces_it(tmp_path):
    clock, path = Clock(), tmp_path / "monitor.jsonl"
    steps = lambda: [json.loads(line)["step"] for line in path.read_text().splitlines()]
    train(clock, Monitor(path, every=0.35, clock=clock), epochs=1, more=[Checkpoint(tmp_path / "run")])
    assert steps() == [4, 5]
    train(clock, Monitor(path, every=0.35, clock=clock), resume=tmp_path / "run")
    assert steps() == [4, 5, 9, 10]
    train(clock, Monitor(path, every=0.35, clock=clock), epochs=1)
    assert steps() == [4, 5]


def test_samples_in_memory_are_bounded(tmp_path):
    clock, path = Clock(), tmp_path / "monitor.jsonl"
    monitor = Monitor(path, every=0.05, clock=clock, most=3)
    train(clock, monitor)
    assert [each["step"] for each in monitor.samples] == [8, 9, 10] and len(path.read_text().splitlines()) == 10


@pytest.mark.parametrize("options", [{"every": 0}, {"most": 0}, {"every": float("nan")}])
def test_numbers_out_of_range_are_refused(options):
    with pytest.raises(ArgumentError, match="Monitor: expected every above 0 and most of at least 1"):
        Monitor(**options)


def test_the_file_of_another_run_stays_until_this_one_has_begun(tmp_path):
    path = tmp_path / "monitor.jsonl"
    path.write_text("of another run\n")

    class Refuses(Callback):
        def on_begin(self, run):
            raise ArgumentError("Refuses", expected="a", got="b")

    with pytest.raises(ArgumentError):
        train(Clock(), Monitor(path), more=[Refuses()])
    assert path.read_text() == "of another run\n"
    with pytest.raises(ArgumentError, match="a path in a folder that exists"):
        train(Clock(), Monitor(tmp_path / "none" / "monitor.jsonl"))


def test_a_line_that_was_cut_short_goes_when_the_run_goes_on(tmp_path):
    from tinynet.resources.lines import open_lines

    path = tmp_path / "lines"
    for before, kept in (("", ""), ("a\n", "a\n"), ("a\nb", "a\n"), ("b", "")):
        path.write_text(before)
        with open_lines(path) as file:
            file.write("c\n")
        assert path.read_text() == f"{kept}c\n"


def test_a_monitor_of_ones_own_has_its_steps(tmp_path):
    class Counts(Monitor):
        steps = 0

        def on_step(self, run):
            self.steps += 1
            super().on_step(run)

    clock = Clock()
    monitor = Counts(every=0.35, clock=clock)
    train(clock, monitor)
    assert monitor.steps == 10 and len(monitor.samples) == 3
