"""A run for other people's viewers: ``TensorBoard``, and ``chrome_trace`` for Perfetto and chrome://tracing."""

from __future__ import annotations

import json
import os
import time

from tinynet.errors import ArgumentError, DataError, import_extra
from tinynet.program import Program
from tinynet.train import Callback, Run
from tinynet.train.safetensors import atomic_write

from .recording import described_instructions, described_plan
from .report.folder import read


class TensorBoard(Callback):
    """Writes losses, metrics, learning rates and throughput for TensorBoard, by tensorboardX.

    After each epoch: every number of its row in the history, ``valid_*`` under "valid/", all else under "train/".
    Between, now and then: the last batch's loss and the learning rate under "step/". All is on disk at the end.

    Args:
        folder: in which ``tensorboard --logdir`` finds it.
        every: seconds between two looks at the loss, which wait for the device.

    Raises:
        ArgumentError: seconds that are not positive.
        MissingExtraError: at the beginning of a run, where tensorboardX is not installed.
    """

    def __init__(self, folder: str | os.PathLike, every: float = 1.0):
        if not every > 0:
            raise ArgumentError("TensorBoard", expected="every, in seconds, above 0", got=repr(every))
        self.folder, self.every = folder, every

    def on_begin(self, run):
        package = import_extra("tensorboardX", "TensorBoard", "tensorboard")
        self._writer, self._next = package.SummaryWriter(os.fspath(self.folder)), 0.0

    def on_step(self, run):
        if time.perf_counter() >= self._next:
            self._writer.add_scalar("step/loss", run.loss.item(), run.step)
            self._writer.add_scalar("step/lr", run.optimizer.lr, run.step)
            self._next = time.perf_counter() + self.every

    def on_epoch(self, run):
        for name, value in run.history[-1].items():
            if name != "epoch" and isinstance(value, (int, float)):
                part = "valid/" if name.startswith("valid_") else "train/"
                self._writer.add_scalar(part + name.removeprefix("valid_"), value, run.epoch)

    def on_end(self, run):
        self._writer.close()


def chrome_trace(source: Program | Run | str | os.PathLike, path: str | os.PathLike, seconds: float = 0.2) -> None:
    """Writes a step of a program as a trace in Chrome's JSON format, which Perfetto (ui.perfetto.dev) shows.

    One track has the instructions, end to end: each lasts the median of its times, and carries its operands' shapes,
    kernel, line, flops, bytes and rates. A counter beside it has the bytes of the arena that live, by the plan.

    Args:
        source: the program of a captured step (``captured.program(*args)``), a run under way, or the folder of one that
            ``Record`` has written into.
        path: of the file.
        seconds: about how long to time a program; a folder's times are as they were measured.

    Raises:
        CaptureError: a program that knows no arguments.
        DataError: a run that has no program, or a folder without its instructions.
    """
    program = source.program if isinstance(source, Run) else source
    if program is None:
        raise DataError(
            "chrome_trace", expected="a run whose steps are programs", got="one without a program",
            mend="call it after the first step of a fit with capture=True",
        )  # fmt: skip
    if isinstance(program, Program):
        instructions, plan = described_instructions(program, seconds), described_plan(program)
    else:
        folder = read(program)
        instructions, plan = folder.instructions, folder.plan
        if instructions is None:
            raise DataError(
                f"{program}", expected="instructions.json", got="a run without it",
                mend="pass tn.resources.Record(folder) among the callbacks of tn.fit",
            )  # fmt: skip
    trace = {
        "traceEvents": trace_events(instructions, plan), "displayTimeUnit": "ns",
        "otherData": {"executor": instructions["executor"], "step_seconds": instructions["step_seconds"]},
    }  # fmt: skip
    atomic_write(path, [json.dumps(trace).encode()])


def trace_events(instructions: dict, plan: dict | None) -> list[dict]:
    """The events of ``chrome_trace``, in microseconds; of ``described_instructions`` and ``described_plan`` give."""
    place = {"pid": 1, "tid": 1}
    events = [
        {"name": "process_name", "ph": "M", **place, "args": {"name": "tinynet"}},
        {"name": "thread_name", "ph": "M", **place, "args": {"name": "instructions, median times"}},
    ]
    at = 0.0
    for row in instructions["instructions"]:
        seconds, flops, moved = row["seconds"] or 0.0, row["flops"] or 0, row["bytes"] or 0
        rates = {"GFLOP/s": flops / seconds / 1e9, "GB/s": moved / seconds / 1e9} if seconds else {}
        told = {name: row[name] for name in ("place", "shapes", "kernel", "line", "flops", "bytes")}
        if plan is not None:
            live = sum(t["bytes"] for t in plan["tensors"] if t["first"] <= row["place"] <= t["last"])
            events.append({"name": "arena", "ph": "C", "ts": at, **place, "args": {"live bytes": live}})
        events.append({
            "name": row["name"], "cat": row["phase"] or "step", "ph": "X", "ts": at, "dur": seconds * 1e6, **place,
            "args": told | rates,
        })  # fmt: skip
        at += seconds * 1e6
    return events
