"""A program as text: the listing, the explanation of how it came about, and the profile. Nothing here changes one."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from typing import NamedTuple

from tinynet.kernels import link
from tinynet.memory.units import show_bytes
from tinynet.ops.fused import Tiled

from .graph import EXTERNAL

_WIDEST = 44  # of an instruction's text; chains can be long


def table(rows: list[tuple[str, ...]], right: frozenset[int]) -> str:
    """Rows in columns, those in ``right`` aligned to the right."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join(
        "  ".join(c.rjust(w) if k in right else c.ljust(w) for k, (c, w) in enumerate(zip(row, widths))).rstrip()
        for row in rows
    )


def shortened(text: str, width: int = _WIDEST) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def listing(program) -> str:
    """See ``Program.listing``."""
    graph, plan = program.graph, program.plan
    rows = [("", "instruction", "operands", "result", "offset", "bytes", "scratch", "flops", "kernel", "line")]
    for i, each in enumerate(graph.instructions):
        at = plan.offsets.get(graph.storage(each.outputs[0]))
        flops = 0 if each.view else each.op.cost(*graph.operands(each), **each.attributes)[0]
        rows.append((
            str(i), shortened(each.op.name), " ".join(graph.registers[r].name for r in each.inputs),
            " ".join(repr(graph.registers[r]) for r in each.outputs), "" if at is None else f"{at:,}",
            "" if each.view else f"{sum(graph.spec(r).nbytes for r in each.outputs):,}",
            f"{plan.scratch[i][1]:,}" if i in plan.scratch else "", "" if each.view else f"{flops:,}",
            "view" if each.view else program.target_of(i), each.line,
        ))  # fmt: skip
    return f"{table(rows, frozenset({0, 4, 5, 6, 7}))}\n{summary(plan)}"


def summary(plan) -> str:
    return (
        f"arena {plan.peak_bytes:,} bytes, lower bound {plan.lower_bound_bytes:,}; of it the arguments "
        f"{plan.input_bytes:,}, workspace {plan.workspace_bytes:,}"
    )


def explain(program) -> str:
    """See ``Program.explain``."""
    graph, plan = program.graph, program.plan
    flops, moved = program.cost
    computing = [each for each in graph.instructions if not each.view]
    kernels: dict[str, list[str]] = {}
    for i, each in enumerate(graph.instructions):
        if not each.view:
            kernels.setdefault(program.target_of(i), []).append(each.op.name)
    outside = sum(r.spec.nbytes for r in graph.registers if r.kind == EXTERNAL and r.storage == r.index)
    lines = [
        f"{len(computing)} instructions and {len(graph) - len(computing)} views, {flops:,} flops, {moved:,} bytes read "
        "and written",
        f"arena {show_bytes(plan.peak_bytes)}: arguments {show_bytes(plan.input_bytes)}, workspace "
        f"{show_bytes(plan.workspace_bytes)}; lower bound {show_bytes(plan.lower_bound_bytes)}; tensors outside "
        f"{show_bytes(outside)}",
        *program.notes,
        *(note for function, _ in program._linked if (note := getattr(function, "note", ""))),
    ]
    for target, names in kernels.items():
        if target != program.target:
            what = ", which take memory as they go" if target == "reference" else ""
            lines.append(f"on {target} kernels{what}: {', '.join(sorted(set(names)))}")
    chosen = {program.note_of(i): each for i, each in enumerate(graph.instructions) if program.note_of(i)}
    if chosen:
        lines.append("products whose kernel was chosen by measurement:")
        for note, each in chosen.items():  # what is made in tiles was timed for one of them
            tile = "a tile of it " * isinstance(each.op, Tiled)
            lines.append(f"   {_product_text(graph, each)}  {tile}{note}")
    merged = Counter(shortened(each.op.name, 100) for each in computing if not each.op.name.isidentifier())
    if merged:
        lines.append("made of several operations, and how often:")
        lines += [f"{count:6}  {name}" for name, count in merged.items()]
    return "\n".join(lines)


def _product_text(graph, each) -> str:
    shapes = [graph.spec(r).shape for r in each.inputs]
    return f"{shortened(each.op.name)} {' '.join('x'.join(map(str, shape)) for shape in shapes if len(shape) > 1)}"


class Timing(NamedTuple):
    """One instruction: its place, text and line, median seconds of a call, and the rates that come to."""

    place: int
    name: str
    line: str
    seconds: float
    flops: int
    nbytes: int


class Profile(NamedTuple):
    """Where the time of a step goes.

    Attributes:
        timings: one for each instruction that computes, in order.
        seconds: the median of a whole step, its instructions timed together.
    """

    timings: list[Timing]
    seconds: float

    def __str__(self) -> str:
        rows = [("", "instruction", "µs", "part", "GFLOP/s", "GB/s", "line")]
        total = sum(t.seconds for t in self.timings) or 1.0
        for t in sorted(self.timings, key=lambda t: -t.seconds):
            per = t.seconds or 1e-9
            rows.append((
                str(t.place), shortened(t.name), f"{t.seconds * 1e6:.1f}", f"{t.seconds / total:.0%}",
                f"{t.flops / per / 1e9:.1f}", f"{t.nbytes / per / 1e9:.1f}", t.line,
            ))  # fmt: skip
        return f"{table(rows, frozenset({0, 2, 3, 4, 5}))}\nwhole step {self.seconds * 1e6:,.1f} µs"


def profile(program, inputs, externals, repeats: int) -> Profile:
    """See ``Program.profile``; inputs and externals as for ``Program.run``."""
    backend, graph = program.backend, program.graph
    written = graph.written()
    state = {r: backend.copy(array) if graph.storage(r) in written else array for r, array in externals.items()}
    inputs = [backend.copy(array) for array in inputs]
    program.fill(inputs, state)
    starts = [0, *program._ends[:-1]]
    parts = [link(program._code[begin:end], program.target)[0] for begin, end in zip(starts, program._ends)]
    times: list[list[float]] = [[] for _ in parts]
    whole = []
    with backend.quiet():
        for _ in range(repeats):
            program.fill(inputs, state)
            backend.synchronize()
            begin = time.perf_counter()
            program.execute()
            backend.synchronize()
            whole.append(time.perf_counter() - begin)
            program.fill(inputs, state)  # slots of arguments have had other uses by now
            for part, seconds in zip(parts, times):
                begin = time.perf_counter()
                for function, arguments in part:
                    function(*arguments)
                backend.synchronize()
                seconds.append(time.perf_counter() - begin)
    program.bound = None  # the next run binds its own arrays again
    timings = []
    for i, (each, seconds) in enumerate(zip(graph.instructions, times)):
        if not each.view:
            flops, nbytes = each.op.cost(*graph.operands(each), **each.attributes)
            timings.append(Timing(i, each.op.name, each.line, statistics.median(seconds), flops, nbytes))
    return Profile(timings, statistics.median(whole))
