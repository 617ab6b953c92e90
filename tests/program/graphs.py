"""Graphs for tests of passes: a function traced, run before and after a pass, and compared.

``traced(step, *args)`` writes a call down without evaluating it: nothing that the step writes to is changed. What the
step reaches in its closure (parameters, states) are the graph's externals.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tinynet import kernels
from tinynet.program import Program
from tinynet.program.calls import Call, Results
from tinynet.program.compile import simplify
from tinynet.program.graph import Graph
from tinynet.program.guards import Guards
from tinynet.program.trace import Trace

TARGETS = [
    "numpy",
    pytest.param("native", marks=pytest.mark.skipif(not kernels.available("native"), reason="numba is not installed")),
]


class Traced:
    """A graph, and arrays to run it and its likes on.

    Attributes:
        graph: as traced.
        inputs: the arrays of the call.
        state: register -> array, for the tensors outside that it reads or writes, as they are before the step.
        tensors: register -> those tensors themselves.
    """

    def __init__(self, step: Callable, *args, keep_grads: bool = False):
        call = Call(args, {})
        with Trace(call.leaves, Guards(step, *call.objects), call.backend, shapes=True) as trace:
            result = step(*call.args)
        Results(result, trace, call, keep_grads)
        self.graph = trace.graph
        self.graph.verify()
        self.inputs = [np.array(leaf.array) for leaf in call.leaves]
        self.state = {r: np.array(tensor.array) for r, tensor in trace.externals.items()}
        self.tensors = dict(trace.externals)

    def simplified(self) -> Graph:
        """A copy of the graph as it is when fusion and all that follows begins."""
        graph = self.graph.copy()
        simplify(graph)
        return graph

    def run(self, graph: Graph | None = None) -> list[np.ndarray]:
        """Outputs, then inputs, then state, after a run on copies."""
        graph = graph or self.graph
        inputs, state = [np.array(x) for x in self.inputs], {r: np.array(x) for r, x in self.state.items()}
        outputs = Program(graph.copy(), effort=0).run(inputs, state)
        return [*outputs, *inputs, *state.values()]


def traced(step: Callable, *args, **options) -> Traced:
    return Traced(step, *args, **options)


def names(graph: Graph) -> list[str]:
    """The operations of a graph, in order."""
    return [each.op.name for each in graph]


def same_bits(ours, theirs) -> None:
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        np.testing.assert_array_equal(a.view(f"u{a.itemsize}"), b.view(f"u{b.itemsize}"), f"{a}\n{b}")


def close(ours, theirs, rtol=1e-5, atol=1e-6) -> None:
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


def after(change: Callable[[Graph], None], step: Callable, *args, first=(), exact=True, **options):
    """(operations before, operations after, graph after) a pass; results are the same.

    Args:
        first: passes that come before it.
        exact: whether every bit has to stay, or results to be near.
    """
    found = traced(step, *args, **options)
    graph = found.graph.copy()
    for each in first:
        each(graph)
    before = graph.copy()
    change(graph)
    graph.verify("a pass under test")
    (same_bits if exact else close)(found.run(graph), found.run(before))
    same_bits(found.run(before), found.run()) if not first else close(found.run(before), found.run())
    return names(before), names(graph), graph


def unchanged(change, step, *args, **options) -> None:
    """The pass leaves the graph of this step as it is."""
    before, now, _ = after(change, step, *args, **options)
    assert now == before
