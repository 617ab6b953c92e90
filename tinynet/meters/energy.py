"""``Meter``: the energy that was used since it was started, and ``Energy``, a reading that says where it is from.

A number is "measured", by counters of the machine; "modelled", by arithmetic with a stated uncertainty; or there is
none, and ``provenance`` is "unavailable", or "incomplete" where counters cover only a part. A part is never passed off
as the whole, and nothing is ever 0 because it is unknown. Counters count all that runs on the machine, not this
process alone; a model speaks of this process.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from tinynet.errors import ArgumentError

from . import nvml as gpu
from . import processor, rapl
from .models import Model
from .units import show_joules, show_seconds

_UNTOLD = "the model goes by counted work, and was told of none"
MEASURED, MODELLED, INCOMPLETE, UNAVAILABLE = "measured", "modelled", "incomplete", "unavailable"


@dataclass(frozen=True)
class Part:
    """What one source gave: joules, or None and why."""

    source: str
    joules: float | None
    why: str | None = None

    def __str__(self) -> str:
        return f"{self.source} {'unavailable: ' + str(self.why) if self.joules is None else show_joules(self.joules)}"


@dataclass(frozen=True)
class Energy:
    """A reading. One taken later minus one taken earlier by the same meter is what was used between the two.

    Attributes:
        joules: None if ``provenance`` is "unavailable" or "incomplete".
        provenance: "measured", "modelled", "incomplete" or "unavailable".
        uncertainty: in joules, to either side. Modelled: half of the model's range. Measured: what counters may hold
            back until their next update, at the mean power since the start; the calibration of counters is not
            published. None if measured for less than that.
        seconds: how long.
        parts: what each counter gave.
        why: what a model is based on, or why there is no number; None if measured.
        told: how often a model that goes by counted work was told of some; None for other readings.
    """

    joules: float | None
    provenance: str
    uncertainty: float | None
    seconds: float
    parts: tuple[Part, ...] = ()
    why: str | None = None
    told: int | None = None

    @property
    def watts(self) -> float | None:
        """The mean power; None without joules or time."""
        return None if self.joules is None or self.seconds <= 0 else self.joules / self.seconds

    def __sub__(self, earlier: Energy) -> Energy:
        before = {part.source: part.joules for part in earlier.parts}
        parts = []
        for part in self.parts:
            known = part.joules is not None and before.get(part.source) is not None
            parts.append(Part(part.source, part.joules - before[part.source], None) if known else part)
        seconds = self.seconds - earlier.seconds
        if self.told is not None and self.told == earlier.told:
            return Energy(None, UNAVAILABLE, None, seconds, tuple(parts), _UNTOLD)
        if earlier.told == 0:  # whose joules are None, not 0
            earlier = replace(earlier, joules=0.0, uncertainty=0.0, provenance=MODELLED)
        if self.joules is None or earlier.joules is None:
            unknown = self if self.joules is None else earlier
            return Energy(None, unknown.provenance, None, seconds, tuple(parts), unknown.why)
        if self.provenance != earlier.provenance:  # a counter vanished in between, and a model took over
            why = f"{earlier.provenance} at the beginning and {self.provenance} at the end ({self.why or earlier.why})"
            return Energy(None, INCOMPLETE, None, seconds, tuple(parts), why)
        # a model errs in its factors, and so in the difference as a whole; two readings of a counter err apart
        within = self.uncertainty
        if self.provenance == MODELLED:
            within -= earlier.uncertainty
        return Energy(self.joules - earlier.joules, self.provenance, within, seconds, tuple(parts), self.why)

    def __str__(self) -> str:
        if self.joules is None:
            return f"energy {self.provenance}: {self.why}"
        about = "" if self.uncertainty is None else f" ± {show_joules(self.uncertainty)}"
        how = f"modelled from {self.why}" if self.provenance == MODELLED else self.provenance
        parts = f" ({', '.join(map(str, self.parts))})" if self.provenance == MEASURED and len(self.parts) > 1 else ""
        return f"{show_joules(self.joules)}{about} in {show_seconds(self.seconds)}, {how}{parts}"


class Meter:
    """Joules since ``start``.

    Args:
        root: the folder of the powercap counters.
        nvml: the module ``pynvml``, or what stands for it; with None it is imported if ``gpus`` are to be metered.
        model: what to estimate with where counters do not cover everything; with None there is no estimate.
        gpus: whether GPUs do some of the work. Those that do none are not metered.
        clock: seconds.
        processor_seconds: see ``tinynet.meters.processor``.

    Counters go round. A thread looks at them in half of the time in which 2 kW would drive one round (every 66 s for
    the usual 262 kJ), until ``stop`` or until the meter is forgotten. A reading takes some tens of microseconds for
    each counter.
    """

    def __init__(
        self, root: str | Path = rapl.ROOT, nvml=None, model: Model | None = None, *, gpus: bool = False,
        clock: Callable[[], float] = time.monotonic, processor_seconds: Callable[[], float] = processor.seconds,
    ):  # fmt: skip
        self.root, self.model, self.gpus = Path(root), model, gpus or nvml is not None
        self._nvml, self._clock, self._processor_seconds = nvml, clock, processor_seconds
        self._lock, self._stop, self._began, self._in_use = threading.RLock(), None, None, False
        self._flops = self._bytes = self._told = 0

    def start(self) -> Meter:
        """Begins to count, at 0, and returns the meter.

        Raises:
            ArgumentError: somebody else has started it, and not stopped it yet: that count would be lost.
        """
        with self._lock:
            if self._in_use:
                raise ArgumentError(
                    "Meter.start", expected="a meter that nobody else counts with", got="one that is in use",
                    mend="give each its own Meter, or stop() this one first",
                )  # fmt: skip
            self._in_use = True
            self._began, self._busy = self._clock(), self._processor_seconds()
            self._flops = self._bytes = self._told = 0
            zones = rapl.counted(rapl.zones(self.root))
            self._zones = [(name, rapl.Account(zone, self._began)) for name, zone in zones]
            self._boards = gpu.accounts(self._nvml) if self.gpus else []
        every = min((account.every for _, account in self._zones if account.every and not account.why), default=None)
        if every is not None:
            self._stop = threading.Event()
            looking = (weakref.ref(self), self._stop, every)
            threading.Thread(target=_look, args=looking, name="tinynet energy meter", daemon=True).start()
        return self

    def stop(self) -> None:
        """Ends the thread. ``read`` still works, within the time in which a counter cannot go round twice."""
        self._in_use = False
        if self._stop is not None:
            self._stop.set()
            self._stop = None

    def work(self, flops: float, nbytes: float) -> None:
        """Adds counted work, for a model that goes by it (``WorkModel``): that of a program is its ``cost``."""
        self._flops, self._bytes, self._told = self._flops + flops, self._bytes + nbytes, self._told + 1

    def read(self) -> Energy:
        """What was used since ``start``.

        Raises:
            ArgumentError: the meter was not started.
        """
        if self._began is None:
            raise ArgumentError("Meter.read", expected="a meter that was started", got="one that was not")
        with self._lock:
            now = self._clock()
            zones = [Part(name, account.joules(now), account.why) for name, account in self._zones]
            boards = [Part(board.name, board.joules(), board.why) for board in self._boards]
        seconds, parts = now - self._began, (*zones, *boards)
        missing = self._missing(parts)
        if not missing:
            late = [(part.joules, rapl.UPDATED) for part in zones] + [(part.joules, gpu.UPDATED) for part in boards]
            longest = max(interval for _, interval in late)
            within = sum(joules * interval for joules, interval in late) / seconds if seconds >= longest else None
            return Energy(sum(joules for joules, _ in late), MEASURED, within, seconds, parts)
        if self.model is not None and self.gpus and not self.model.covers_gpus:
            missing += f"; and the model ({self.model.basis}) does not cover GPUs"
        elif self.model is not None and self.model.by_work and not self._told:
            return Energy(None, UNAVAILABLE, None, seconds, parts, f"{missing}; and {_UNTOLD}", 0)
        elif self.model is not None:
            used = self._processor_seconds() - self._busy
            joules, within = self.model.joules(self._flops, self._bytes, used)
            told = self._told if self.model.by_work else None
            return Energy(joules, MODELLED, within, seconds, parts, f"{self.model.basis}, since {missing}", told)
        counted = any(part.joules is not None for part in parts)
        return Energy(None, INCOMPLETE if counted else UNAVAILABLE, None, seconds, parts, missing)

    def _missing(self, parts: tuple[Part, ...]) -> str | None:
        """What counters do not cover, in words; None if nothing."""
        reasons: dict[str, list[str]] = {}
        if not self._zones:
            there = "has no counter of a processor" if self.root.is_dir() else "does not exist"
            reasons[f"{self.root} {there}, as in most virtual machines"] = []
        for part in parts:
            if part.joules is None:
                reasons.setdefault(part.why, []).append(part.source)
        text = "; ".join(f"{', '.join(names)}: {why}" if names else why for why, names in reasons.items())
        counted = ", ".join(str(part) for part in parts if part.joules is not None)
        return f"{text}; only {counted}" if text and counted else text or None


def _look(meter: weakref.ref, stop: threading.Event, every: float) -> None:
    """Reads a meter's counters often enough to see them go round, for as long as anybody holds the meter."""
    while not stop.wait(every):
        held = meter()
        if held is None:
            return
        held.read()
        del held
