"""Which curves a run has: columns of its history and samples of its monitor, made into charts.

With two runs, colours tell the runs apart, and a line's name begins with its run's letter. What was trained on is drawn
thin, what was held out strong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from tinynet.meters.units import show_joules

from .charts import Chart, Point, Series, known
from .energy import Told
from .folder import RunFolder, is_number

_CLOCK = 1e8  # seconds: a time beyond is one of the calendar, and is counted from the first sample
_PERCENT = ("accuracy",)
_MANY = 30  # times from the least to the greatest, from which powers of ten show more


class View(NamedTuple):
    """A run of the report: its letter, empty if it is the only one; its look; and its folder."""

    letter: str
    look: str
    run: RunFolder


def learning(views: Sequence[View]) -> list[Chart]:
    """The loss, and each other column that the history has of held-out data."""
    losses = []
    for view in views:
        losses += _series(view, "train", _column(view.run, "loss"), "thin")
        losses += _series(view, "valid", _column(view.run, "valid_loss"))
        losses += _series(view, "test", _at_the_end(view.run, "loss"))
    charts = _chart("Loss", "", "epoch", losses, log=None, whole=True)
    for name in _names(views):
        found = []
        for view in views:
            points = _column(view.run, f"valid_{name}")
            found += _series(view, "valid", points, factor=100 if name in _PERCENT else 1)
            found += _series(view, "test", _at_the_end(view.run, name), factor=100 if name in _PERCENT else 1)
        unit = "%" if name in _PERCENT else ""
        title = {"r2": "R²"}.get(name, name.replace("_", " ").capitalize())
        charts += _chart(title, unit, "epoch", found, show=_percent if unit else _three, whole=True)
    if not charts:
        found = [each for view in views for each in _series(view, "", sampled(view.run, "loss", "step"), "thin")]
        charts = _chart("Loss", "of single batches", "step", found, log=None, whole=True)
    norms = [each for view in views for each in _series(view, "", sampled(view.run, "gradient_norm", "step"))]
    return charts + _chart("Norm of the gradients", "", "step", norms, log=None, whole=True)


def pace(views: Sequence[View]) -> list[Chart]:
    """The learning rate, the batch size and the throughput: by the monitor's samples where all runs have them."""
    rates = _sampled_or_by_epoch(views, "lr", "step")
    # an epoch's last batch, which may be smaller, is among the samples too: the history knows better
    by_epoch = all(known(_column(view.run, "batch_size")) for view in views)
    sizes = _by_epoch(views, "batch_size") if by_epoch else _sampled_or_by_epoch(views, "batch_size", "step")
    speeds = _sampled_or_by_epoch(views, "samples_per_second", "time")
    return [
        *_chart("Learning rate", "", *rates, zero=True, whole=True),
        *_chart("Batch size", "samples", *sizes, zero=True, whole=True, stairs=True),
        *_chart("Throughput", "samples per second", *speeds, zero=True, whole=speeds[0] == "epoch", show=_round),
    ]


def _sampled_or_by_epoch(views: Sequence[View], name: str, across: str) -> tuple[str, list[Series]]:
    """What is across, and a line for each view."""
    points = [sampled(view.run, name, across) for view in views]
    if not all(len(known(their)) > 1 for their in points):
        return _by_epoch(views, name)
    words = "seconds" if across == "time" else across
    return words, [each for view, their in zip(views, points) for each in _series(view, "", their)]


def _by_epoch(views: Sequence[View], name: str) -> tuple[str, list[Series]]:
    return "epoch", [each for view in views for each in _series(view, "", _column(view.run, name))]


def used(views: Sequence[View]) -> list[Chart]:
    """The memory and the processors that the run held."""
    resident = [each for view in views for each in _series(view, "", sampled(view.run, "resident_bytes", "time"))]
    size, unit = _byte_unit(resident)
    resident = [each._replace(points=[(x, y and y / size) for x, y in each.points]) for each in resident]
    cores = [each for view in views for each in _series(view, "", sampled(view.run, "cpu", "time"))]
    return [
        *_chart("Resident memory", unit, "seconds", resident, zero=True),
        *_chart("Processors in use", "cores", "seconds", cores, zero=True),
    ]


def energy(views: Sequence[tuple[View, Told]]) -> list[Chart]:
    """The energy used so far; each line is named with its provenance."""
    found = []
    for view, told in views:
        start = start_of(told.points[0][0]) if told.points else 0
        found += _series(view, told.provenance or "", [(at - start, joules) for at, joules in told.points])
    return _chart("Energy", "joules since the beginning", "seconds", found, show=show_joules, zero=True)


def sampled(run: RunFolder, name: str, across: str) -> list[Point]:
    """A quantity of the monitor's samples, by "step" or by "time" in seconds."""
    samples = [each for each in run.samples or () if each[across] is not None]
    start = start_of(samples[0]["time"]) if samples and across == "time" else 0
    return sorted(((each[across] - start, each[name]) for each in samples), key=lambda point: point[0])


def start_of(first: float) -> float:
    """Where times begin of which this is the first."""
    return first if first > _CLOCK else 0


def _column(run: RunFolder, name: str) -> list[Point]:
    rows = run.history["epochs"] if run.history else ()
    values = ((row["epoch"], row.get(name)) for row in rows)
    return sorted(((at, value if is_number(value) else None) for at, value in values), key=lambda point: point[0])


def _at_the_end(run: RunFolder, name: str) -> list[Point]:
    """What the test came to, after the last epoch."""
    test = (run.metrics or {}).get("test")
    value = test.get(name) if isinstance(test, dict) else None
    last = max((row["epoch"] for row in run.history["epochs"]), default=None) if run.history else None
    return [(last, value)] if is_number(value) and last is not None else []


def _names(views: Sequence[View]) -> list[str]:
    """The columns of held-out data beside the loss, in the order of their first appearance."""
    rows = [row for view in views if view.run.history for row in view.run.history["epochs"]]
    found = dict.fromkeys(name.removeprefix("valid_") for row in rows for name in row if name.startswith("valid_"))
    return [name for name in found if name != "loss"]


def _series(view: View, name: str, points: Sequence[Point], more: str = "", factor: float = 1) -> list[Series]:
    """The line of a view, if there is any point to it."""
    if not known(points):
        return []
    points = [(x, None if y is None else y * factor) for x, y in points]
    return [Series(f"{view.letter} {name}".strip(), points, f"{view.look} {more}".strip())]


def _chart(title: str, unit: str, across: str, series: list[Series], log: bool | None = False, **how) -> list[Chart]:
    """A chart of the series, if there are any. With log None, by powers of ten where that shows more."""
    if not series:
        return []
    if log is None:
        ys = [y for each in series for _, y in known(each.points)]
        log = min(ys) > 0 and max(ys) / min(ys) >= _MANY
    return [Chart(title, unit, across, series, log=log, **({"show": _three} | how))]


def _byte_unit(series: list[Series]) -> tuple[int, str]:
    most = max((y for each in series for _, y in known(each.points)), default=0)
    units = ((10**9, "GB"), (10**6, "MB"), (10**3, "kB"))
    return next(((size, unit) for size, unit in units if most >= size), (1, "bytes"))


def _three(number: float) -> str:
    return f"{number:,.3g}" if abs(number) < 1e3 else _round(number)


def _round(number: float) -> str:
    return f"{number:,.0f}"


_percent: Callable[[float], str] = lambda number: f"{number:.4g}\u00a0%"
