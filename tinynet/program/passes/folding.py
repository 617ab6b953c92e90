"""Constants and shapes folded: numbers that are known are computed now, and what changes nothing is left out.

All of it keeps every bit: constants are computed by the kernels that would have run, and only a factor of one is left
out (x + 0 is not x for a negative zero).
"""

from __future__ import annotations

from tinynet.backend import get_backend

from ..graph import CONSTANT, Graph, Instruction


def fold(graph: Graph) -> None:
    """Computes instructions on single constant numbers, and drops views, casts and factors that change nothing."""
    backend = get_backend(graph.backend)
    updated = {graph.storage(r) for each in graph.instructions for r in each.targets}
    made: dict[int, Instruction] = {}
    new: dict[int, int] = {}
    kept = []
    for each in graph.instructions:
        inputs = tuple(new.get(r, r) for r in each.inputs)
        each = each.with_(inputs=inputs) if inputs != each.inputs else each
        out = each.outputs[0]
        same = None if each.op.updates or graph.storage(out) in updated else _unchanged(graph, each, made)
        if same is not None and graph.storage(same) not in updated:
            new[out] = same
        elif _is_constant(graph, each):
            _compute(graph, each, backend)
        else:
            kept.append(each)
            made[out] = each
            if each.view:
                graph.registers[out].storage = graph.storage(each.inputs[0])
    graph.instructions = kept
    graph.replace(new)
    graph.verify("fold")


def number_of(graph: Graph, register: int) -> float | int | bool | None:
    """The value of a constant of one element, else None."""
    found = graph.registers[register]
    return found.value if found.kind == CONSTANT and found.storage == register else None


def _unchanged(graph: Graph, each: Instruction, made: dict[int, Instruction]) -> int | None:
    """The register that holds exactly what the instruction computes, or None."""
    out, first = graph.spec(each.outputs[0]), each.inputs[0]
    if len(each.outputs) > 1:
        return None
    if each.op.name in ("multiply", "divide"):
        a, b = each.inputs
        if graph.spec(a) == out and number_of(graph, b) == 1:
            return a
        if each.op.name == "multiply" and graph.spec(b) == out and number_of(graph, a) == 1:
            return b
        return None
    if each.op.name == "transpose":
        axes, before = each.attributes["axes"], made.get(first)
        if axes == tuple(range(len(axes))):
            return first
        if before is not None and before.op.name == "transpose":
            back = tuple(before.attributes["axes"][i] for i in axes)
            return before.inputs[0] if back == tuple(range(len(axes))) else None
        return None
    if graph.spec(first) == out and each.op.name in ("reshape", "broadcast_to", "sum_to", "cast", "alias"):
        return first
    return None


def _is_constant(graph: Graph, each: Instruction) -> bool:
    return (
        not each.op.updates and each.op.bounds is None and len(each.outputs) == 1
        and graph.spec(each.outputs[0]).size == 1 and all(number_of(graph, r) is not None for r in each.inputs)
    )  # fmt: skip


def _compute(graph: Graph, each: Instruction, backend) -> None:
    """Turns the result of an instruction on constants into a constant."""
    register, operands = graph.registers[each.outputs[0]], [graph.constants[r] for r in each.inputs]
    if each.view:
        array = backend.copy(each.op.view(backend, *operands, **each.attributes)[0])
    else:
        array = backend.empty(*register.spec)
        with backend.quiet():
            each.op.kernel(backend.target, register.spec.dtype)(array, *operands, **each.attributes)
    register.kind, register.value = CONSTANT, backend.to_host(array).item()
    register.storage, register.name = register.index, f"{register.value:g}"
    graph.constants[register.index] = array
