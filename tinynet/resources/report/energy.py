"""The energy of a run, in words that say where it is from. A number without a provenance is not shown, and numbers of
different provenance are not added up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tinynet.meters.units import show_joules

from .charts import Point
from .folder import RunFolder, is_number

_SAID = {
    "measured": "measured by counters, which count all that runs on the machine",
    "modelled": "modelled, that is estimated and not measured",
}
_NOTES = 3  # of the notes that samples carry


class Told(NamedTuple):
    """What a run tells of its energy.

    Attributes:
        words: sentences.
        joules, provenance: None if there is no number, or no single provenance.
        points: seconds, and joules since the beginning; empty without a number.
    """

    words: str
    joules: float | None = None
    provenance: str | None = None
    points: Sequence[Point] = ()


def told(run: RunFolder) -> Told | None:
    """By the monitor's samples; without joules in those, by the history's columns; None if neither speaks of energy."""
    by_samples = None if run.samples is None else _of_samples(run.samples)
    if by_samples is not None and by_samples.joules is not None:
        return by_samples
    rows = [row for row in run.history["epochs"] if "joules" in row] if run.history else []
    return _of_history(rows) if rows else by_samples


def _of_samples(samples: Sequence[dict]) -> Told:
    given = [each for each in samples if each["joules"] is not None and each["time"] is not None]
    notes = list(dict.fromkeys(each["energy_note"] for each in given or samples if each["energy_note"]))
    because = f" As the monitor notes: {'; '.join(notes[:_NOTES]).rstrip('.')}." if notes else ""
    kinds = list(dict.fromkeys(str(each["provenance"]) for each in given or samples))
    refusal = _refusal(kinds, bool(given))
    if refusal is not None:
        return Told(f"{refusal}{because or ' The samples do not say why.' * (not given)}")
    points = _added_up([(each["time"], each["joules"]) for each in given])
    (begin, first), (end, last) = points[0], points[-1]
    power = f", {(last - first) / (end - begin):,.3g} W on average between first and last sample" if end > begin else ""
    return Told(f"{show_joules(last)} were {_SAID[kinds[0]]}{power}.{because}", last, kinds[0], points)


def _of_history(rows: Sequence[dict]) -> Told:
    given = [row for row in rows if is_number(row["joules"])]
    kinds = list(dict.fromkeys(str(row.get("energy_provenance")) for row in given or rows))
    refusal = _refusal(kinds, bool(given))
    if refusal is None and len(given) < len(rows):
        refusal = f"No sum is given, since {len(rows) - len(given)} of {len(rows)} epochs have no joules."
    if refusal is not None:
        return Told(refusal)
    points, seconds, joules = [], 0.0, 0.0
    for row in given:
        seconds += row["seconds"] if is_number(row.get("seconds")) else 0
        joules += row["joules"]
        points.append((seconds, joules))
    return Told(f"{show_joules(joules)} in all epochs were {_SAID[kinds[0]]}.", joules, kinds[0], points)


def _added_up(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The joules since the beginning, of a run that was taken up again as well: that counts from 0 once more."""
    found, before, last = [], 0.0, 0.0
    for at, joules in points:
        if joules < last:
            before += last
        last = joules
        found.append((at, before + joules))
    return found


def _refusal(kinds: Sequence[str], given: bool) -> str | None:
    """Why there is no number; None if there is one."""
    if not given and "incomplete" in kinds:
        return "No number is shown, since counters covered only a part of the machine."
    if not given:
        return "The energy is unavailable: it was neither measured nor modelled."
    if len(kinds) > 1:
        return f"No sum is given, since the numbers are of several kinds: {', then '.join(kinds)}."
    if kinds[0] not in _SAID:
        return f"No number is shown, since the provenance of the joules is told as {kinds[0]!r}."
    return None
