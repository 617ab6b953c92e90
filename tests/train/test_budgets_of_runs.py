"""Runs that end when their time or energy is used up. The clock and the counters are turned by hand, step by step."""

import functools
import json
import sys

import numpy as np
import pytest
from counters import Clock, Powercap

import tinynet as tn
from tinynet.backend import NumPyBackend
from tinynet.errors import ArgumentError, CheckpointError
from tinynet.meters.energy import Meter
from tinynet.meters.models import ProcessorModel, WorkModel
from tinynet.train import Budget, Callback, Checkpoint, budgets, safetensors

RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 3)).astype("float32")
DATA = X, (X @ np.array([[1.0], [-2.0], [0.5]])).astype("float32")
STEPS = 4  # in an epoch, of batches of 16


class Machine(Callback):
    """Lets time and energy pass: a step takes a second at 10 W, a validation three, unless told otherwise."""

    def __init__(self, folder=None, step=1.0, first=None, validation=3.0, watts=10.0):
        self.clock, self.step, self.validation, self.watts = Clock(), step, validation, watts
        self.first = step if first is None else first
        self.tree = None if folder is None else Powercap(folder / "powercap", {"intel-rapl:0": "package-0"})
        self.steps = self.reads = 0

    def meter(self, **options):
        meter = Meter(self.tree.root, clock=self.clock, **options)
        read = meter.read

        def counted():
            self.reads += 1
            return read()

        meter.read = counted
        return meter

    def on_begin(self, run):
        self.run, self.begun = run, run.step

    def on_step(self, run):
        self.steps += 1
        self._pass(self.first if self.steps == 1 else self.step)

    def on_epoch(self, run):
        if "valid_loss" in run.history[-1]:
            self._pass(self.validation)

    def _pass(self, seconds):
        self.clock.now += seconds
        if self.tree is not None:
            self.tree["intel-rapl:0"] = round(self.clock.now * self.watts * 1e6)


class Score(Callback):
    """Gives epochs scores of the test's own, and keeps what the model was then."""

    def __init__(self, name, *scores):
        self.name, self.scores, self.states = name, scores, []

    def on_epoch(self, run):
        run.history[-1][self.name] = self.scores[run.epoch - 1]
        self.states.append(bits(run.model))

    def on_end(self, run):
        self.last = bits(run.model)


class Stop(Callback):
    def __init__(self, step):
        self.step = step

    def on_step(self, run):
        if run.step == self.step:
            run.stop("enough")


def bits(model):
    return {name: value.tobytes() for name, value in model.state_dict().items()}


def train(*callbacks, **options):
    tn.seed(3)
    model = tn.nn.Sequential(tn.nn.Dense(3, 8, "tanh"), tn.nn.Dense(8, 1))
    options = {"epochs": 50, "batch_size": 16, "loss": "mse", "optimizer": "adam"} | options
    return model, tn.fit(model, DATA, callbacks=callbacks, **options)


def timed(machine, time, *callbacks, **options):
    budget = Budget(time, clock=machine.clock)
    model, history = train(machine, *callbacks, budget, **options)
    return model, history, budget


# ---- time ----


@pytest.mark.parametrize(("time", "steps"), [("10.5s", 10), (10, 10), ("0.1 s", 1), (1, 1), ("1 min", 60)])
def test_no_step_is_begun_that_would_exceed_the_time(time, steps):
    machine = Machine()
    _, history, budget = timed(machine, time)
    assert machine.steps == steps and budget.used().seconds == steps
    assert len(history) == steps // STEPS
    assert history.stopped == f"the time budget is used up: {budget.shown()['time']}"


def test_a_long_first_step_does_not_count_as_what_steps_take():
    machine = Machine(first=5.0)
    timed(machine, "10s")
    assert machine.steps == 6  # 5 + 5 x 1


def test_a_step_that_was_slow_once_is_no_forecast():
    class Hiccup(Callback):
        def on_step(self, run):
            machine.clock.now += 40.0 if run.step == 3 else 0.0

    machine = Machine()
    timed(machine, "60s", Hiccup())
    assert machine.steps >= 18  # of 20 that fit


def test_fit_takes_the_budget_itself(monkeypatch):
    machine = Machine()
    monkeypatch.setattr("tinynet.train.loop.Budget", functools.partial(Budget, clock=machine.clock))
    _, history = train(machine, time="10.5s")
    assert machine.steps == 10
    assert history.stopped == "the time budget is used up: 10 s of 10.5 s"


def test_a_budget_that_suffices_changes_nothing():
    plain, expected = train(epochs=3, valid=DATA)
    machine = Machine()
    model, history, budget = timed(machine, "1h", epochs=3, valid=DATA)
    assert bits(model) == bits(plain) and history.stopped is None
    assert history["loss"] == expected["loss"] and budget.used().seconds == 3 * (STEPS + 3)


def test_the_time_of_a_last_validation_is_kept_back():
    machine = Machine()
    _, history, _ = timed(machine, "12.5s", valid=DATA)
    assert len(history) == 1 and machine.steps == STEPS + 2  # 4 + 3 + 2, and 3 to evaluate what was learnt since


def test_what_another_callback_stops_is_not_the_budgets():
    score = Score("loss", 0.0, 1.0)
    model, history, _ = timed(Machine(), "1h", score, Stop(2 * STEPS))
    assert history.stopped == "enough" and bits(model) == score.states[1]


# ---- what is kept ----


def test_a_run_cut_in_its_first_epoch_keeps_the_latest():
    score = Score("loss")
    model, history, _ = timed(Machine(), "2s", score, valid=DATA)
    plain, _ = train(Stop(2))
    assert len(history) == 0 and bits(model) == bits(plain) == score.last


@pytest.mark.parametrize(("name", "valid"), [("valid_loss", DATA), ("loss", None)])
@pytest.mark.parametrize(
    ("scores", "best"), [((-1.0, -3.0, -2.0), 1), ((-3.0, -2.0, -1.0), 0), ((9e9, 9e9, 9e9), None)]
)
def test_the_best_epoch_is_kept_or_what_was_learnt_since_if_that_is_better(name, valid, scores, best):
    score = Score(name, *scores)
    machine = Machine(validation=0.0)
    model, history, _ = timed(machine, 3 * STEPS + 2, score, valid=valid)
    assert machine.steps == 3 * STEPS + 2 and len(history) == 3
    assert bits(model) == (score.last if best is None else score.states[best])
    assert score.last not in score.states


def test_at_the_end_of_an_epoch_too_the_best_is_kept():
    score = Score("loss", -1.0, -3.0, -2.0)
    model, history, _ = timed(Machine(), 3 * STEPS, score)
    assert len(history) == 3 and bits(model) == score.states[1]


def test_parameters_are_copied_only_when_they_are_better(monkeypatch):
    copies = []
    state_dict = tn.nn.Sequential.state_dict
    monkeypatch.setattr(tn.nn.Sequential, "state_dict", lambda self: copies.append(run()) or state_dict(self))
    machine = Machine()
    run = lambda: machine.run.epoch

    class Script(Score):
        def on_epoch(self, run):
            run.history[-1]["loss"] = self.scores[run.epoch - 1]

        def on_end(self, run):
            pass

    timed(machine, 4 * STEPS, Script("loss", 3.0, 4.0, 2.0, 2.0))
    assert copies == [1, 3]


def test_the_checkpoint_holds_the_latest_and_a_larger_budget_goes_on(tmp_path):
    path = tmp_path / "run"
    score = Score("loss", *range(-9, 0))
    model, _, _ = timed(Machine(), 2 * STEPS + 1, score, Checkpoint(path))
    assert bits(model) == score.states[0] and bits(tn.load(path)) == score.last
    machine = Machine()
    model, _, budget = timed(machine, 3 * STEPS, resume=path)
    assert machine.steps == STEPS - 1 and budget.used().seconds == 3 * STEPS
    plain, _ = train(epochs=3)
    assert bits(model) == bits(plain)


# ---- what was used before a resumption ----


def test_time_before_an_interruption_counts(tmp_path):
    path = tmp_path / "run"
    machine = Machine()
    _, history, _ = timed(machine, "30s", Stop(6), Checkpoint(path), valid=DATA)
    assert history.stopped == "enough"
    machine = Machine()
    _, history, budget = timed(machine, "30s", Checkpoint(path), resume=path, valid=DATA)
    whole = Machine()
    timed(whole, "30s", valid=DATA)
    assert 6 + machine.steps == whole.steps and budget.used().seconds == whole.clock.now


def test_a_run_with_nothing_left_takes_no_step(tmp_path):
    path = tmp_path / "run"
    timed(Machine(), "8s", Checkpoint(path))
    machine = Machine()
    model, history, _ = timed(machine, "8s", resume=path)
    assert machine.steps == 0 and history.stopped == "the time budget is used up: 8 s of 8 s"
    assert bits(model) == bits(tn.load(path))


def test_epochs_of_a_run_without_a_budget_count_as_long_as_they_took(tmp_path):
    path = tmp_path / "run"
    _, history = train(Stop(2 * STEPS), Checkpoint(path))
    seconds = sum(history["seconds"])
    _, _, budget = timed(Machine(), seconds + 2.5, resume=path)
    assert budget.used().seconds == pytest.approx(seconds + 2)


@pytest.mark.parametrize(
    "used", [None, {}, [], [1.0], ["1", None, None, None], [1.0, "x", None, None], [1.0, 2.0, 3.0, 0.0]]
)
def test_a_file_whose_use_is_nonsense_is_refused(tmp_path, used):
    path = tmp_path / "run"
    timed(Machine(), "8s", Checkpoint(path))
    tensors, metadata = safetensors.read(path)
    described = json.loads(metadata["tinynet.run"])
    assert described["used"] == [8.0, None, None, None]
    described["used"] = used
    metadata = {name: text for name, text in metadata.items() if name != "tinynet.sha256"}
    safetensors.write(path, tensors, metadata | {"tinynet.run": json.dumps(described)})
    with pytest.raises(CheckpointError, match="run"):
        train(resume=path)


# ---- energy ----


def test_no_step_is_begun_that_would_exceed_the_energy(tmp_path):
    machine = Machine(tmp_path)
    budget = Budget(energy="105 J", meter=machine.meter(), clock=machine.clock)
    _, history = train(machine, budget)
    assert machine.steps == 10
    assert history.stopped == "the energy budget is used up: 100 J of 105 J (measured, ± 10 mJ)"
    assert budget.used() == (10.0, 100.0, "measured", pytest.approx(0.01))


def test_counters_are_read_seldom_and_in_time(tmp_path):
    machine = Machine(tmp_path, step=0.02)
    budget = Budget(energy=40, meter=machine.meter(), clock=machine.clock)
    train(machine, budget, epochs=500)
    assert machine.steps == pytest.approx(200, abs=1) and machine.reads < 40


def test_power_that_rises_is_noticed(tmp_path):
    class Rise(Callback):
        def on_step(self, run):
            if run.step == 100:  # all later energy comes ten times as fast
                machine.tree["intel-rapl:0"] = round(machine.clock.now * 1e7)
                machine._pass = faster

    def faster(seconds):
        machine.clock.now += seconds
        machine.tree["intel-rapl:0"] = round((1.0 + (machine.clock.now - 1.0) * 10) * 1e7)

    machine = Machine(tmp_path, step=0.01)
    budget = Budget(energy=110, meter=machine.meter(), clock=machine.clock)
    train(machine, Rise(), budget, epochs=500)
    assert budget.used().joules <= 110 + 1  # a step takes one joule then


def test_whichever_budget_is_used_up_first(tmp_path):
    machine = Machine(tmp_path)
    _, history = train(machine, Budget("20s", "55J", meter=machine.meter(), clock=machine.clock))
    assert machine.steps == 5
    assert history.stopped == "the energy budget is used up: 5 s of 20 s, 50 J of 55 J (measured, ± 10 mJ)"


def test_where_nothing_counts_energy_it_is_modelled_and_said(tmp_path, monkeypatch):
    machine, busy = Machine(), Clock()
    made = functools.partial(Meter, tmp_path / "none", clock=machine.clock, processor_seconds=busy)
    monkeypatch.setattr(budgets, "Meter", made)

    class Work(Callback):
        def on_step(self, run):
            busy.now += 2.0

    with pytest.warns(UserWarning, match="kept by an estimate, from processor seconds at 3.5 to 12 W") as warned:
        _, history = train(machine, Work(), Budget(energy=100, clock=machine.clock))
    assert len(warned) == 1 and machine.steps == 6  # of 15.5 J
    assert "93 J of 100 J (modelled, ± 51 J)" in history.stopped


def test_a_gpu_without_a_counter_has_no_energy_budget(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setattr(budgets, "CuPyBackend", NumPyBackend)
    monkeypatch.setattr(budgets, "Meter", functools.partial(Meter, tmp_path / "none"))
    machine = Machine()
    with pytest.raises(ArgumentError, match=r"energy budget: expected a counter.*tinynet\[gpu\].*does not cover GPUs"):
        train(machine, Budget(energy=100))
    assert machine.steps == 0


def test_a_counter_that_vanishes_ends_the_run_or_makes_it_modelled(tmp_path):
    class Vanish(Callback):
        def on_step(self, run):
            if run.step == 3:
                machine.tree.vanish("intel-rapl:0")
                machine.tree = None

    machine = Machine(tmp_path / "a")
    budget = Budget(energy=1000, meter=machine.meter(), clock=machine.clock)
    _, history = train(machine, Vanish(), budget)
    assert machine.steps == 3 and "cannot be watched any more" in history.stopped and "is gone" in history.stopped
    assert budget.used()[1:3] == (None, "unavailable")
    machine = Machine(tmp_path / "b")
    meter = machine.meter(model=ProcessorModel((10, 10)), processor_seconds=machine.clock)
    _, history = train(machine, Vanish(), Budget(energy=105, meter=meter, clock=machine.clock))
    assert machine.steps == 10 and "(modelled, ± 0 J)" in history.stopped


def test_work_that_programs_count_can_be_the_measure(tmp_path):
    meter = Meter(tmp_path / "none", model=WorkModel(flop=(1e9, 1e9), byte=(0, 0)))  # a millijoule for a flop
    machine = Machine()
    seen = []

    class Cost(Callback):
        def on_step(self, run):
            seen.append(run.program.cost[0] * 1e-3)

    train(machine, Cost(), Budget(energy=1e9, meter=meter), epochs=1)
    machine = Machine()
    budget = Budget(energy=10.5 * seen[0], meter=meter, clock=machine.clock)
    train(machine, budget)
    assert budget.used().joules == pytest.approx(10 * seen[0]) and machine.steps == 10


def test_work_that_nobody_counts_cannot_be_watched(tmp_path):
    meter = Meter(tmp_path / "none", model=WorkModel())
    machine = Machine()
    _, history = train(machine, Budget(energy=1, meter=meter, clock=machine.clock), capture=False)
    assert machine.steps == 1 and "cannot be watched any more" in history.stopped and "told of none" in history.stopped


def test_energy_before_an_interruption_counts_with_where_it_is_from(tmp_path):
    path = tmp_path / "run"
    machine = Machine(tmp_path / "a")
    train(machine, Stop(6), Checkpoint(path), Budget(energy=105, meter=machine.meter(), clock=machine.clock))
    machine = Machine()
    model = ProcessorModel((5, 15))
    meter = Meter(tmp_path / "none", model=model, clock=machine.clock, processor_seconds=machine.clock)
    budget = Budget(energy=105, meter=meter, clock=machine.clock)
    train(machine, budget, resume=path)
    assert machine.steps == 4
    assert budget.used() == (10.0, 100.0, "measured+modelled", pytest.approx(20 + 0.01))


def test_energy_that_was_not_counted_before_is_said_to_be_missing(tmp_path):
    path = tmp_path / "run"
    timed(Machine(), "8s", Checkpoint(path))
    machine = Machine(tmp_path)
    with pytest.warns(UserWarning, match="before the resumption is not known"):
        train(machine, Budget(energy=35, meter=machine.meter(), clock=machine.clock), resume=path)
    assert machine.steps == 3


# ---- mistakes ----


@pytest.mark.parametrize("options", [{"time": "3 parsecs"}, {"time": 0}, {"energy": "2 kB"}, {"energy": -1}])
def test_budgets_that_cannot_be_read_are_refused_before_anything_is_done(options):
    tn.seed(3)
    model = tn.nn.Dense(3, 1)
    before = bits(model)
    with pytest.raises(ArgumentError, match=r"budget: expected (seconds|joules) above 0"):
        tn.fit(model, DATA, loss="mse", optimizer="adam", epochs=1, **options)
    assert bits(model) == before


def test_a_budget_of_nothing_is_a_mistake():
    with pytest.raises(ArgumentError, match="time, energy or both"):
        Budget()
    with pytest.raises(ArgumentError, match="has begun"):
        Budget("1s").used()
