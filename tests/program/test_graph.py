"""The verifier finds every kind of damage to a graph, and names the pass after which it was found."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import names, traced
from zoo import ZOO, batch, build

import tinynet as tn
from tinynet.errors import CaptureError
from tinynet.ops import Spec, lookup
from tinynet.program.compile import compiled
from tinynet.program.graph import CONSTANT, EXTERNAL, INPUT, TEMPORARY, Graph, Instruction

FLOAT = np.dtype("float32")
VECTOR = Spec((3,), FLOAT)


class Bench:
    """A small graph that is sound: x, a parameter p and a number c; t = x * p, v = t[0:2], u = exp(t), p += t."""

    def __init__(self):
        self.graph = g = Graph("numpy")
        self.x, self.p = g.add(VECTOR, INPUT), g.add(VECTOR, EXTERNAL)
        self.c = g.add(Spec((), FLOAT), CONSTANT, value=2.0)
        g.constants[self.c] = np.float32(2.0)
        self.t, self.u = g.add(VECTOR, TEMPORARY), g.add(VECTOR, TEMPORARY)
        self.v = g.add(Spec((2,), FLOAT), TEMPORARY, storage=self.t)
        g.inputs = [self.x]
        self.add("multiply", (self.x, self.p), (self.t,))
        self.add("getitem", (self.t,), (self.v,), view=True, index=((0, 2, 1),))
        self.add("exp", (self.t,), (self.u,))
        self.add("accumulate", (self.p, self.t), (self.p,))
        g.outputs = [self.u, self.v]

    def add(self, name, inputs, outputs, view=False, at=None, **attributes):
        each = Instruction(lookup(name), inputs, outputs, attributes, view, "line.py:7")
        self.graph.instructions.insert(len(self.graph) if at is None else at, each)

    def refused(self, match):
        with pytest.raises(CaptureError, match=match):
            self.graph.verify("a pass")


def test_a_sound_graph_passes():
    Bench().graph.verify()


def test_an_input_that_nobody_has_made_yet():
    bench = Bench()
    bench.graph.instructions.reverse()
    bench.refused(r"graph after a pass, instruction 0: accumulate \(line.py:7\)")
    bench = Bench()
    bench.graph.instructions.pop(0)
    bench.refused("registers that have a value")


def test_a_result_of_another_shape_or_type():
    bench = Bench()
    for spec in (Spec((2,), FLOAT), Spec((3,), np.dtype("float64"))):
        bench.add("tanh", (bench.u,), (bench.graph.add(spec, TEMPORARY),))
        bench.refused("expected results")
        bench.graph.instructions.pop()


def test_an_output_without_a_value():
    bench = Bench()
    bench.graph.outputs.append(bench.graph.add(VECTOR, TEMPORARY))
    bench.refused("outputs with a value")


def test_an_update_whose_result_is_another_register():
    bench = Bench()
    bench.add("accumulate", (bench.p, bench.t), (bench.t,))
    bench.refused("the registers it updates")


def test_an_update_of_a_number():
    bench = Bench()
    bench.add("assign", (bench.c, bench.c), (bench.c,))
    bench.refused("a tensor to write over")


def test_a_view_in_other_memory_than_what_it_is_a_view_of():
    bench = Bench()
    bench.graph.registers[bench.v].storage = bench.v
    bench.refused("in the memory of its input")


def test_reading_what_has_been_written_over():
    """u takes the memory of t, which the update, and the view that is an output, still read."""
    bench = Bench()
    bench.graph.registers[bench.u].storage = bench.t
    bench.refused("none any more")
    bench.graph.instructions.pop()  # the update; the output is left
    bench.refused("outputs with a value")
    bench.graph.outputs = [bench.u]
    bench.graph.verify()


def test_reading_a_view_of_what_has_been_written_over():
    bench = Bench()
    bench.graph.registers[bench.u].storage = bench.t
    bench.graph.instructions.pop()
    bench.graph.outputs = [bench.u]
    bench.add("square", (bench.v,), (bench.graph.add(Spec((2,), FLOAT), TEMPORARY),))
    bench.refused("none any more")


def test_writing_over_a_parameter_does_not_take_its_value_away():
    bench = Bench()
    bench.add("exp", (bench.p,), (bench.graph.add(VECTOR, TEMPORARY),))
    bench.graph.verify()


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("name", ZOO)
def test_leaving_out_any_instruction_that_makes_something_is_found(name, fuse):
    found = traced(build(name, "ce", "adam")[1], *batch(1, name, "ce"))
    graph = compiled(found.simplified(), fuse)
    whole = list(graph.instructions)
    for i, each in enumerate(whole):
        graph.instructions = [*whole[:i], *whole[i + 1 :]]
        if not each.op.updates:
            with pytest.raises(CaptureError):
                graph.verify()
    graph.instructions = whole
    graph.verify()


def test_a_graph_is_shown_with_names_shapes_and_attributes():
    found = traced(lambda x: tn.sum(x * 2.0, axis=0), np.ones((2, 3), np.float32))
    assert names(found.graph) == ["multiply", "sum"]
    text = str(found.graph)
    assert "x0:float32[2, 3]" in text and "axis=(0,)" in text and text.splitlines()[-1].startswith("outputs")


def test_what_conflicts_and_what_does_not():
    bench = Bench()
    multiply, view, exp, update = bench.graph.instructions
    conflict = bench.graph.conflict
    assert conflict(multiply, exp) and conflict(multiply, view) and conflict(multiply, update)
    assert not conflict(view, exp) and not conflict(exp, view)
    assert not conflict(exp, update)
    bench.add("square", (bench.v,), (bench.graph.add(Spec((2,), FLOAT), TEMPORARY),))
    assert conflict(view, bench.graph.instructions[-1])
    bench.add("assign", (bench.t, bench.u), (bench.t,))
    assert conflict(view, bench.graph.instructions[-1]) and conflict(bench.graph.instructions[-1], exp)
