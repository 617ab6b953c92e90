"""``Record``: what a run's program is and where its time goes, written into the run's folder for the report.

    plan.json           the memory plan of the step, and the memory of the process beside it
    instructions.json   each instruction timed, beside what the machine has been measured to do at most

What is in them is said by ``described_plan`` and ``described_instructions``, which take any captured program.
"""

from __future__ import annotations

import functools
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

from tinynet.errors import ArgumentError, CaptureError
from tinynet.meters import memory
from tinynet.program import Program
from tinynet.train import Callback
from tinynet.train.safetensors import atomic_write

from . import machine, measure, software
from .facts import Unknown

_FEWEST, _MOST = 3, 50  # repetitions of a step, to take medians of
_COPIED = 64 * 2**20  # bytes, at most: a run should not wait for its record
_LATER = "the limits of the machine were left for later"


class Record(Callback):
    """Writes ``plan.json`` and ``instructions.json`` at the end of a run, and holds nothing up before.

    The program is that of the largest batch that the run had. Timing it changes nothing of the model or the optimizer.
    A run whose steps are eager has no program, and one that fails within a step is left as it is: nothing is written.

    Args:
        folder: of the run; made if it is not there.
        seconds: about how long to time the step, and each of the two limits of the machine.
        limits: whether to measure those, which takes seconds and some memory the first time in a process. What is left
            out here, ``complete`` measures later.

    Raises:
        ArgumentError: seconds that are not positive.
    """

    def __init__(self, folder: str | os.PathLike, seconds: float = 0.2, limits: bool = True):
        if not seconds > 0:
            raise ArgumentError("Record", expected="seconds above 0", got=repr(seconds))
        self.folder, self.seconds, self.limits = Path(folder), seconds, limits

    def on_begin(self, run):
        if self.folder.exists() and not self.folder.is_dir():
            raise ArgumentError(
                "Record", expected="a folder, or a path where one can be made", got=f"a file, {self.folder}"
            )
        self._rows, self._batch = 0, None
        self._started, self._resident = time.time(), memory.resident()

    def on_step(self, run):
        if self._rows == 0 and run.step == 1:  # what is there is of another run
            for name in ("plan.json", "instructions.json"):
                (self.folder / name).unlink(missing_ok=True)
        if len(run.batch[0]) > self._rows:
            self._rows, self._batch = len(run.batch[0]), run.batch

    def on_end(self, run):
        if run.within_step or self._batch is None or run.program_of is None:
            return
        ended, resident, peak = time.time(), memory.resident(), memory.peak()
        training = run.model.training
        run.model.train()  # a program is of one mode
        try:
            program = run.program_of(*self._batch)
            instructions = described_instructions(program, self.seconds, self.limits)
        except CaptureError:  # what the step can reach has been changed since: that program is no more
            return
        finally:
            run.model.train(training)
        parameters = run.optimizer.params
        described = {
            "started": _moment(self._started), "ended": _moment(ended), "rows": self._rows, "processor": _processor(),
            **described_plan(program), "arena_bytes": program.arena_bytes,
            "parameter_bytes": sum(p.nbytes for p in parameters),
            "resident_at_begin": self._resident, "resident_at_end": resident, "resident_peak": peak,
        }  # fmt: skip
        self.folder.mkdir(parents=True, exist_ok=True)
        _write(self.folder / "plan.json", described)
        _write(self.folder / "instructions.json", instructions)


def described_plan(program: Program) -> dict:
    """The memory plan of a program as plain values, all sizes in bytes and all lifetimes in instructions."""
    plan = program.plan
    return {
        "alignment": plan.alignment, "peak_bytes": plan.peak_bytes, "lower_bound_bytes": plan.lower_bound_bytes,
        "input_bytes": plan.input_bytes, "workspace_bytes": plan.workspace_bytes, "notes": list(program.notes),
        "tensors": [
            {"name": t.name, "tag": t.tag, "bytes": t.nbytes, "offset": t.offset, "first": t.first, "last": t.last}
            for t in plan.tensors
        ],
    }  # fmt: skip


def complete(folder: str | os.PathLike, seconds: float = 0.2) -> bool:
    """Measures the limits that a ``Record`` of a run has left out, if this is the processor of the run.

    Returns:
        Whether it did. Files that are missing or are not a record are left as they are.
    """
    folder = Path(folder)
    try:
        plan, instructions = (json.loads((folder / name).read_bytes()) for name in ("plan.json", "instructions.json"))
        limits = instructions["roofline"]
        if limits["unknown"] != [_LATER] or plan["processor"] != _processor():
            return False
        instructions["roofline"] = roofline(str(instructions["executor"]), str(limits["dtype"]), seconds)
    except (OSError, ValueError, LookupError, TypeError):  # of which the report itself speaks
        return False
    _write(folder / "instructions.json", instructions)
    return True


def described_instructions(program: Program, seconds: float = 0.2, limits: bool = True) -> dict:
    """The instructions of a program as plain values: what each is, takes and moves; and the machine's limits.

    Args:
        program: of a captured step, for arguments (``captured.program(*args)``).
        seconds: about how long to time it, and each of the limits.
        limits: whether to measure those.

    Returns:
        executor; step_seconds, the median of whole steps; instructions: place, name, shapes, kernel, line, phase,
        seconds (median), flops, bytes; roofline: see ``roofline``.

    Raises:
        CaptureError: a program that knows no arguments.
    """
    once = program.profile(1)  # which touches everything for the first time
    took = 2 * max(once.seconds, sum(t.seconds for t in once.timings), 1e-6)
    profile = program.profile(min(max(int(seconds / took), _FEWEST), _MOST))
    graph = program.graph
    rows = []
    for timing in profile.timings:
        each = graph.instructions[timing.place]
        shapes = [list(graph.spec(register).shape) for register in each.inputs]
        rows.append({
            "place": timing.place, "name": timing.name, "shapes": shapes, "kernel": program.target_of(timing.place),
            "line": timing.line, "phase": each.phase, "seconds": timing.seconds, "flops": timing.flops,
            "bytes": timing.nbytes,
        })  # fmt: skip
    dtypes = {str(graph.spec(each.outputs[0]).dtype) for each in graph.instructions}
    dtype = "float64" if "float64" in dtypes else "float32"
    roof = roofline(program.target, dtype, seconds) if limits else _limits(dtype) | {"unknown": [_LATER]}
    return {
        "executor": program.target, "step_seconds": profile.seconds, "instructions": rows, "roofline": roof,
    }  # fmt: skip


def _limits(dtype: str) -> dict:
    return {"threads": 1, "dtype": dtype, "flop_per_s": None, "bytes_per_s": None, "unknown": []}


def roofline(target: str, dtype: str, seconds: float = 0.2) -> dict:
    """What the processor does at most, measured once in a process: multiply-adds that wait for nothing, bytes copied.

    Args:
        target: of the program; there are no limits measured but for processors.
        dtype: "float32" or "float64".
        seconds: for each of the two.

    Returns:
        threads; flop_per_s, the peak of one core times the threads; bytes_per_s, of a copy by all of them; either is
        None where it cannot be had, with the reason in ``unknown``.
    """
    found = _limits(dtype)
    if target not in ("numpy", "native"):
        return found | {"unknown": [f"the limits of what runs {target} kernels are not measured"]}
    count = found["threads"] = software.threads()["count"] if target == "native" else machine.usable()

    def limit(name: str, probe: Callable[[], float]) -> None:
        try:
            found[name] = probe()
        except Unknown as reason:
            found["unknown"].append(f"{name.replace('_', ' ')}: {reason}")

    limit("flop_per_s", lambda: 1e9 * count * measure.peak(seconds)[f"{dtype}_gflop_per_s"])
    limit("bytes_per_s", lambda: _bandwidth(seconds, count))
    return found


@functools.cache
def _bandwidth(seconds: float, threads: int) -> float:
    speeds = measure.copy_bandwidth(seconds / 2, threads, min(measure.copy_bytes(quick=False), _COPIED))
    return 1e9 * (speeds["all_threads_gb_per_s"] or speeds["one_thread_gb_per_s"])


def _processor() -> str | None:
    try:
        return machine.model()
    except Unknown:
        return None


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _write(path: Path, value: dict) -> None:
    atomic_write(path, [json.dumps(value, indent=1).encode()])
