"""Rows, what each has to reach, and the page that a run leaves.

A row compares tinynet with what stands beside it in one workload: cells as ``bench.timing.cells`` makes them, less is
better, ratios above 1 where tinynet needs less. A target is the least such ratio.
"""

from __future__ import annotations

from typing import NamedTuple

from ..report import cell_text, quantity
from ..timing import BASE

RATES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1, ""))


class Target(NamedTuple):
    """The least ratio of what ``against`` needs to what tinynet needs."""

    against: str
    least: float


def row(section: str, workload: str, unit: str, cells: dict, work: tuple[float, str] | None = None,
        targets: tuple[Target, ...] = (), note: str = "") -> dict:  # fmt: skip
    """A row.

    Args:
        unit: "s" or "bytes", of the medians of the cells.
        work: what a call does, as a number and its unit, "B" or "flop"; gives rates.
    """
    judged = [target._asdict() | judge(cells, target) for target in targets]
    made = {"section": section, "workload": workload, "unit": unit, "cells": cells, "targets": judged, "note": note}
    return made if work is None else made | {"work": {"amount": work[0], "unit": work[1]}}


def judge(cells: dict, target: Target) -> dict:
    """The ratio that was found, and whether it is enough; None where one of the two was not measured."""
    ratio = cells.get(target.against, {}).get("ratio", {}).get("median")
    return {"ratio": ratio, "met": None if ratio is None else ratio >= target.least}


def rate_text(made: dict, seconds: float) -> str:
    amount, unit = made["work"]["amount"] / seconds, made["work"]["unit"]
    scale, prefix = next((each for each in RATES if amount >= each[0]), RATES[-1])
    return f"{amount / scale:.3g} {prefix}{unit}/s"


def _cell(made: dict, name: str) -> str:
    cell = made["cells"].get(name)
    text = cell_text(cell and cell | {"name": name}, made["unit"])
    if cell and "work" in made and "median" in cell:
        text += f" {rate_text(made, cell['median'])}"
    return text


def _target(judged: dict) -> str:
    found = "not measured"
    if judged["met"] is not None:
        found = f"{judged['ratio']:.2f}x, {'met' if judged['met'] else 'MISSED'}"
    return f"{judged['against']} at least {judged['least']:.2f}x: {found}"


def markdown_table(rows: list[dict]) -> str:
    lines = [["section", "workload", "tinynet", "beside it", "targets", "note"]]
    for made in rows:
        beside = [f"{name} {_cell(made, name)}" for name in made["cells"] if name != BASE]
        targets = [_target(each) for each in made["targets"]]
        lines.append([
            made["section"], made["workload"], _cell(made, BASE), "; ".join(beside) or "-", "; ".join(targets) or "-",
            made["note"] or "-",
        ])  # fmt: skip
    head, *body = lines
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *body])


def checks_text(lines: list[dict]) -> str:
    """How many checks passed, and each one that did not, with its reason."""
    failed = [line for line in lines if not line["passed"]]
    passed = len(lines) - len(failed)
    text = f"{passed} of {len(lines)} checks passed in {sum(line['seconds'] for line in lines):.0f} s of work."
    return "\n".join([text, *(f"- **{line['group']}, {line['name']}**: {line['reason']}" for line in failed)])


def states(rows: list[dict]) -> list[str]:
    """What was not measured, and why, in full."""
    return [
        f"- {made['section']} {made['workload']}, {name}: {cell['state']}"
        for made in rows for name, cell in made["cells"].items() if "state" in cell
    ]  # fmt: skip


def markdown(result: dict) -> str:
    """The whole page."""
    device = result["device"]
    about = ", ".join(f"{name} {value}" for name, value in device["versions"].items() if value)
    lines = [
        f"# On a GPU: {result['name']}", "", f"`{result['command']}`, {result['date']}", "",
        f"{device['name']}, compute capability {device['capability']}, {quantity(device['memory_bytes'], 'bytes')}; "
        f"driver {device['driver']}; {about}.", "",
    ]  # fmt: skip
    if result["checks"]:
        lines += [checks_text(result["checks"]), ""]
    lines += [
        "Medians; ± is half the distance of the quartiles; in brackets what stands beside needs, over what tinynet "
        "needs, of the same rounds. Who computes something else is not timed.", "",
        markdown_table(result["rows"]), "",
        *(f"- {name} is missing: {reason}." for name, reason in result["missing"].items()),
        *states(result["rows"]),
    ]  # fmt: skip
    return "\n".join(lines).rstrip() + "\n"
