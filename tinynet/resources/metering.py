"""What training and prediction take in joules: a block of code, an epoch and its phases, one model beside another.

Every figure says whether it was measured or modelled. Counting is done by ``tinynet.meters.energy``; budgets that end a
run are in ``tinynet.train.budgets``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from tinynet.backend import INTEGERS, Backend, CuPyBackend, get_backend
from tinynet.errors import ArgumentError
from tinynet.meters.energy import INCOMPLETE, Energy, Meter, Part
from tinynet.meters.models import ProcessorModel
from tinynet.meters.units import show_joules
from tinynet.nn import Module
from tinynet.program.listing import table
from tinynet.train import Callback
from tinynet.train.budgets import Work
from tinynet.train.evaluating import as_dataset, evaluation

_MANY = 1000  # passes, of which each shape of batch is worth a program
_NUMBERS = frozenset({1, 2, 3, 4})  # columns of both tables


def machine_meter(backend: Backend | None = None) -> Meter:
    """A meter for work on a backend, the one in use by default: of the machine's counters, with those of GPUs where the
    work is done on one; where they do not cover it, it models by processor seconds."""
    backend = get_backend() if backend is None else backend
    return Meter(model=ProcessorModel(), gpus=isinstance(backend, CuPyBackend))


def _meter_for(model: Module) -> Meter:
    first = next(iter(model.parameters()), None)
    return machine_meter(None if first is None else first.backend)


class Use:
    """What a block of code has used so far; after it, what it used in all. Attributes as those of ``Energy``."""

    def __init__(self, meter: Meter):
        self._meter, self._final = meter.start(), None

    @property
    def reading(self) -> Energy:
        return self._meter.read() if self._final is None else self._final

    @property
    def joules(self) -> float | None:
        return self.reading.joules

    @property
    def provenance(self) -> str:
        return self.reading.provenance

    @property
    def uncertainty(self) -> float | None:
        return self.reading.uncertainty

    @property
    def seconds(self) -> float:
        return self.reading.seconds

    @property
    def parts(self) -> tuple[Part, ...]:
        return self.reading.parts

    @property
    def why(self) -> str | None:
        return self.reading.why

    def __str__(self) -> str:
        return str(self.reading)

    def end(self) -> None:
        self._final = self.reading
        self._meter.stop()


@contextlib.contextmanager
def energy(meter: Meter | None = None) -> Iterator[Use]:
    """Meters a block of code: ``with tn.resources.energy() as used: ...; print(used)``.

    Args:
        meter: counts; by default ``machine_meter()``. ``Meter()`` without a model measures or says why it cannot.
    """
    used = Use(machine_meter() if meter is None else meter)
    try:
        yield used
    finally:
        used.end()


@dataclass(frozen=True)
class EpochEnergy:
    """The energy of an epoch: of all of it, of its training steps, and of the evaluation after them (None without)."""

    epoch: int
    whole: Energy
    training: Energy
    validation: Energy | None
    samples: int

    @property
    def per_sample(self) -> float | None:
        """Joules of training for each sample trained on; None where the joules are not known."""
        return None if self.training.joules is None else self.training.joules / self.samples


class EnergyLedger(Callback):
    """Books the energy of each epoch, by phase and by sample, and adds it to the history.

    The row of an epoch gets "joules" (of all of it), "joules_validation" (where there is validation data),
    "joules_per_sample" (of training), and "energy_provenance", which says where they are from; None where they are not
    known. In the first epoch after a resumption only what came after it is booked.

    Args:
        meter: counts; by default ``machine_meter`` for the model's backend.

    Put it before the callbacks that write the history (``Checkpoint``, ``CSVLog``).

    Attributes:
        epochs: an ``EpochEnergy`` for each. ``print(ledger)`` shows them as a table.
    """

    def __init__(self, meter: Meter | None = None):
        self._given, self.epochs = meter, []

    def on_begin(self, run):
        meter = _meter_for(run.model) if self._given is None else self._given
        self._meter, self._work, self.epochs = meter.start(), Work(meter), []
        self._begin, self._trained, self._samples = meter.read(), None, 0

    def on_step(self, run):
        self._samples += len(run.batch[0])
        self._work.step(run)

    def on_validation(self, run):
        self._trained = self._meter.read()

    def on_epoch(self, run):
        now = self._meter.read()
        trained = now if self._trained is None else self._trained
        whole, validation = now - self._begin, None if self._trained is None else now - trained
        if validation is not None and validation.joules is None and whole.joules is not None:
            # of the evaluation a model by counted work is told nothing
            whole = replace(whole, joules=None, uncertainty=None, provenance=INCOMPLETE, why=validation.why)
        epoch = EpochEnergy(run.epoch, whole, trained - self._begin, validation, self._samples)
        self.epochs.append(epoch)
        row = run.history[-1]
        row["joules"] = epoch.whole.joules
        if validation is not None:
            row["joules_validation"] = validation.joules
        row["joules_per_sample"] = epoch.per_sample
        row["energy_provenance"] = epoch.whole.provenance
        self._begin, self._trained, self._samples = now, None, 0

    def on_end(self, run):
        self._meter.stop()

    def __str__(self) -> str:
        rows = [("epoch", "joules", "training", "validation", "per sample", "provenance")]
        for each in self.epochs:
            validation = None if each.validation is None else each.validation.joules
            numbers = (each.whole.joules, each.training.joules, validation, each.per_sample)
            rows.append((str(each.epoch), *map(_shown, numbers), each.whole.provenance))
        return "\n".join([table(rows, _NUMBERS), *_reasons(each.whole for each in self.epochs)])


@dataclass(frozen=True)
class Candidate:
    """One model at one batch size, in a comparison.

    Attributes:
        name, batch_size: which.
        samples, correct: of the data, and those whose class it gets right.
        passes: over the data, while its energy was counted.
        energy: of these passes.
    """

    name: str
    batch_size: int
    samples: int
    correct: int
    passes: int
    energy: Energy

    @property
    def joules_per_correct(self) -> float | None:
        """Joules for each sample that was classified right; None where the joules are not known, or none is right."""
        if self.energy.joules is None or not self.correct:
            return None
        return self.energy.joules / (self.passes * self.correct)


class EnergyComparison:
    """Candidates side by side; ``print`` shows them as a table.

    Attributes:
        candidates: in the order given.
        comparable: whether all of their energies are known, from one kind of source.
        best: the candidate with the fewest joules per correct sample; None if they are not comparable.
    """

    def __init__(self, candidates: Sequence[Candidate]):
        self.candidates = tuple(candidates)
        kinds = {each.energy.provenance for each in self.candidates}
        self.comparable = len(kinds) == 1 and all(each.energy.joules is not None for each in self.candidates)
        known = [each for each in self.candidates if each.joules_per_correct is not None]
        self.best = min(known, key=lambda each: each.joules_per_correct, default=None) if self.comparable else None

    def __str__(self) -> str:
        rows = [("model", "batch", "right", "joules per right sample", "of the best", "provenance")]
        for each in self.candidates:
            joules, best = each.joules_per_correct, None if self.best is None else self.best.joules_per_correct
            ratio = f"{joules / best:.3g} x" if joules is not None and best else "-"
            right = f"{each.correct / each.samples:.2%}"
            rows.append((each.name, str(each.batch_size), right, _shown(joules), ratio, each.energy.provenance))
        notes = _reasons(each.energy for each in self.candidates)
        if not self.comparable:
            notes.insert(0, "not comparable: not all figures are known from one kind of source")
        return "\n".join([table(rows, _NUMBERS), *notes])


def compare_energy(
    models: Module | Mapping[str, Module], data, *, batch_size: int | Sequence[int] = 1024, seconds: float = 1.0,
    meter: Meter | None = None,
) -> EnergyComparison:  # fmt: skip
    """Compares classifiers, or batch sizes, by the joules that a correct prediction takes.

    Each model predicts all of the data at each batch size: once to count what is right and to make its programs, then
    for some seconds while the energy is counted. What is measured is that of the machine, so that nothing else should
    run on it.

    Args:
        models: name -> model, or one model.
        data: a ``Dataset`` or a pair (x, y), with integer classes.
        batch_size: one, or several.
        seconds: how long each is metered, at least one pass. Counters show little of less than a second.
        meter: counts; by default ``machine_meter`` for the model's backend.

    Raises:
        ArgumentError: no model, no samples, targets that are not classes, or numbers out of range.
    """
    models = {"model": models} if isinstance(models, Module) else dict(models)
    data = as_dataset("compare_energy", data)
    sizes = [batch_size] if isinstance(batch_size, INTEGERS) else list(batch_size)
    if not (models and sizes and len(data)) or min(sizes) < 1 or not seconds >= 0:
        raise ArgumentError(
            "compare_energy", expected="models, samples, batch sizes of at least 1, and seconds of at least 0",
            got=f"{len(models)} models, {len(data)} samples, batch_size={batch_size!r}, seconds={seconds!r}",
        )  # fmt: skip
    if data.y.dtype.kind not in "iu":
        raise ArgumentError(
            "compare_energy", expected="integer classes as targets, which can be right", got=f"{data.y.dtype.name}"
        )
    return EnergyComparison(
        [_candidate(name, model, data, size, seconds, meter) for name, model in models.items() for size in sizes]
    )


def _candidate(name: str, model: Module, data, size: int, seconds: float, meter: Meter | None) -> Candidate:
    # the sum of the outputs stands for the loss, which costs more and does not count
    run = evaluation("compare_energy", model, data, lambda output, y: output.sum(), size, passes=_MANY)
    correct = round(run()["accuracy"] * len(data))
    passes = 0
    with energy(_meter_for(model) if meter is None else meter) as used:
        while not passes or used.seconds < seconds:
            run()
            passes += 1
    return Candidate(name, size, len(data), correct, passes, used.reading)


def _shown(joules: float | None) -> str:
    return "-" if joules is None else show_joules(joules)


def _reasons(energies: Iterable[Energy]) -> list[str]:
    """What figures are based on, or why there are none; each once."""
    return list(dict.fromkeys(f"energy {each.provenance}: {each.why}" for each in energies if each.why))
