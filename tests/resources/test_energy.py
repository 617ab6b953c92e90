"""Energy of a block, of epochs and phases, and of models side by side, by counters that the test turns."""

import functools

import numpy as np
import pytest
from counters import Clock, Powercap

import tinynet as tn
from tinynet.errors import ArgumentError
from tinynet.meters.energy import Meter
from tinynet.meters.models import ProcessorModel, WorkModel
from tinynet.resources import energy as block
from tinynet.resources import metering
from tinynet.resources.metering import Candidate, EnergyComparison, EnergyLedger, compare_energy, machine_meter
from tinynet.train import Callback, CSVLog

RNG = np.random.default_rng(0)
X = RNG.normal(size=(50, 3)).astype("float32")
DATA = X, X.argmax(axis=1)
STEPS = 4  # in an epoch, of batches of 16: the last has 2 samples


class Machine:
    def __init__(self, folder):
        self.clock, self.tree = Clock(), Powercap(folder / "powercap", {"intel-rapl:0": "package-0"})
        self.meter = functools.partial(Meter, self.tree.root, clock=self.clock)

    def use(self, joules, seconds=1.0):
        self.clock.now += seconds
        self.tree["intel-rapl:0"] = int((self.tree.root / "intel-rapl:0/energy_uj").read_text()) + round(joules * 1e6)


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


class Costs(Callback):
    """A step takes 2 J; and 7 J pass after the last one and before the row, which are the validation's."""

    def __init__(self, machine):
        self.machine = machine

    def on_step(self, run):
        self.machine.use(2.0)

    def on_epoch(self, run):
        if "valid_loss" in run.history[-1]:
            self.machine.use(7.0)


def train(*callbacks, **options):
    tn.seed(0)
    model = tn.nn.Sequential(tn.nn.Dense(3, 8, "relu"), tn.nn.Dense(8, 3))
    options = {"epochs": 2, "batch_size": 16} | options
    history = tn.fit(model, DATA, loss="cross_entropy", optimizer="adam", callbacks=callbacks, **options)
    return model, history


# ---- a block ----


def test_a_block_is_metered_from_its_beginning_to_its_end(machine):
    machine.use(5.0)
    with block(machine.meter()) as used:
        assert used.joules == 0
        machine.use(3.0)
        assert used.joules == 3
    machine.use(9.0)
    assert (used.joules, used.provenance, used.seconds, used.why) == (3, "measured", 1.0, None)
    assert used.uncertainty == pytest.approx(3e-3) and used.parts[0].joules == 3
    assert str(used) == "3 J ± 3 mJ in 1 s, measured"


def test_a_block_that_fails_is_metered_too(machine):
    with pytest.raises(ZeroDivisionError), block(machine.meter()) as used:
        machine.use(3.0)
        1 / 0  # noqa: B018
    machine.use(9.0)
    assert used.joules == 3


def test_a_block_on_this_machine_has_a_number_that_says_where_it_is_from():
    with tn.resources.energy() as used:
        sum(range(100_000))
    assert used.provenance in ("measured", "modelled") and used.joules >= 0
    assert used.provenance in str(used)


def test_a_block_without_a_model_may_have_none(tmp_path):
    with block(Meter(tmp_path / "none")) as used:
        pass
    assert used.joules is None and used.provenance == "unavailable" and "does not exist" in str(used)


def test_gpus_are_metered_where_the_work_is_done_on_them(monkeypatch):
    assert not machine_meter(tn.get_backend("numpy")).gpus
    monkeypatch.setattr(metering, "CuPyBackend", type(tn.get_backend("numpy")))
    assert machine_meter(tn.get_backend("numpy")).gpus


# ---- epochs ----


def test_epochs_are_booked_by_phase_and_sample_and_added_to_the_history(machine, tmp_path):
    ledger = EnergyLedger(machine.meter())
    log = CSVLog(tmp_path / "log.csv")
    _, history = train(Costs(machine), ledger, log, valid=DATA)
    assert history["joules"] == [15, 15] and history["joules_validation"] == [7, 7]
    assert history["joules_per_sample"] == [8 / 50, 8 / 50] and history["energy_provenance"] == ["measured"] * 2
    epoch = ledger.epochs[1]
    assert (epoch.whole.joules, epoch.training.joules, epoch.validation.joules, epoch.samples) == (15, 8, 7, 50)
    assert str(ledger).splitlines()[1].split() == ["1", "15", "J", "8", "J", "7", "J", "160", "mJ", "measured"]
    assert "measured" in repr(history) and (tmp_path / "log.csv").read_text().count(",measured") == 2


def test_without_validation_there_is_one_phase(machine):
    ledger = EnergyLedger(machine.meter())
    _, history = train(Costs(machine), ledger)
    assert history["joules"] == [8, 8] and "joules_validation" not in history.columns
    assert ledger.epochs[0].validation is None and ledger.epochs[0].training.joules == 8


def test_epochs_whose_energy_is_not_known_say_so(machine, tmp_path):
    class Vanish(Callback):
        def on_step(self, run):
            if run.step == STEPS + 1:
                machine.tree.vanish("intel-rapl:0")
                machine.use = lambda joules: None

    ledger = EnergyLedger(machine.meter())
    _, history = train(Costs(machine), Vanish(), ledger)
    assert history["joules"] == [8, None] and history["joules_per_sample"] == [8 / 50, None]
    assert history["energy_provenance"] == ["measured", "unavailable"]
    assert "the counter is gone" in str(ledger) and "joules=None" in repr(history)


def test_work_of_programs_is_modelled_and_evaluations_are_not_passed_off_as_nothing(tmp_path):
    meter = Meter(tmp_path / "none", model=WorkModel(flop=(1e9, 1e9), byte=(0, 0)))  # a millijoule for a flop

    class Cost(Callback):
        def on_begin(self, run):
            self.flops = 0

        def on_step(self, run):
            self.flops += run.program.cost[0]

    cost, ledger = Cost(), EnergyLedger(meter)
    _, history = train(cost, ledger, epochs=1)
    assert history["joules"] == [pytest.approx(cost.flops * 1e-3)] and history["energy_provenance"] == ["modelled"]
    _, history = train(EnergyLedger(meter), epochs=1, valid=DATA)
    assert history["joules"] == [None] and history["joules_per_sample"] == [pytest.approx(cost.flops * 1e-3 / 50)]
    assert history["energy_provenance"] == ["incomplete"]


# ---- comparisons ----


def candidate(name, machine, joules, correct=40, meter=None):
    with block(machine.meter() if meter is None else meter) as used:
        machine.use(joules)
    return Candidate(name, 16, 50, correct, 2, used.reading)


def test_candidates_are_compared_by_joules_for_each_right_answer(machine):
    small, large = candidate("small", machine, 8.0, correct=40), candidate("large", machine, 18.0, correct=45)
    found = EnergyComparison([small, large])
    assert (small.joules_per_correct, large.joules_per_correct) == (8 / 80, 18 / 90)
    assert found.comparable and found.best is small
    lines = str(found).splitlines()
    assert lines[1].split() == ["small", "16", "80.00%", "100", "mJ", "1", "x", "measured"]
    assert lines[2].split() == ["large", "16", "90.00%", "200", "mJ", "2", "x", "measured"] and len(lines) == 3


def test_measured_and_modelled_are_not_compared(machine, tmp_path):
    modelled = Meter(tmp_path / "none", model=ProcessorModel(), clock=machine.clock, processor_seconds=machine.clock)
    found = EnergyComparison([candidate("a", machine, 8.0), candidate("b", machine, 8.0, meter=modelled)])
    assert not found.comparable and found.best is None
    assert "not comparable" in str(found) and " x " not in str(found)
    assert "measured" in str(found) and "energy modelled: processor seconds" in str(found)


def test_a_model_that_is_never_right_has_no_figure(machine):
    never, sometimes = candidate("never", machine, 1.0, correct=0), candidate("sometimes", machine, 8.0)
    found = EnergyComparison([never, sometimes])
    assert never.joules_per_correct is None and found.best is sometimes


def test_models_and_batch_sizes_in_one_call(machine, monkeypatch):
    model, _ = train(epochs=3)
    other = tn.nn.Dense(3, 3)
    passes = []

    class Counted:
        """Lets a pass over the data take a joule for each batch."""

        def __init__(self, made, size):
            self.made, self.size = made, size

        def __call__(self):
            passes.append(self.size)
            machine.use(-(-50 // self.size), seconds=0.4)
            return self.made()

    made = metering.evaluation
    monkeypatch.setattr(metering, "evaluation", lambda *args, **options: Counted(made(*args, **options), args[4]))
    found = compare_energy({"a": model, "b": other}, DATA, batch_size=(10, 50), seconds=1.0, meter=machine.meter())
    assert [(each.name, each.batch_size, each.passes) for each in found.candidates] == [
        ("a", 10, 3), ("a", 50, 3), ("b", 10, 3), ("b", 50, 3),
    ]  # fmt: skip
    assert passes == [10] * 4 + [50] * 4 + [10] * 4 + [50] * 4
    right = int((tn.predict(model, X).argmax(axis=1) == DATA[1]).sum())
    first, second = found.candidates[:2]
    assert first.correct == second.correct == right > 0
    assert first.joules_per_correct == 5 / right and second.joules_per_correct == 1 / right


def test_one_model_on_this_machine():
    found = compare_energy(tn.nn.Dense(3, 3), DATA, seconds=0)
    assert len(found.candidates) == 1 and found.candidates[0].passes == 1 and "model" in str(found)


@pytest.mark.parametrize(
    ("models", "data", "options", "message"),
    [
        ({}, DATA, {}, "0 models"),
        (tn.nn.Dense(3, 3), (X[:0], DATA[1][:0]), {}, "0 samples"),
        (tn.nn.Dense(3, 3), DATA, {"batch_size": 0}, "batch_size=0"),
        (tn.nn.Dense(3, 3), DATA, {"batch_size": []}, "batch_size="),
        (tn.nn.Dense(3, 3), DATA, {"seconds": -1}, "seconds=-1"),
        (tn.nn.Dense(3, 3), (X, X), {}, "integer classes"),
        (tn.nn.Dense(3, 3), 7, {}, "Dataset or a pair"),
    ],
)
def test_what_cannot_be_compared_is_refused(models, data, options, message):
    with pytest.raises(ArgumentError, match=message):
        compare_energy(models, data, **options)
