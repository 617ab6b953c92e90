"""``mask_from_output``: x > 0 reads max(x, 0) instead of x, so that x can die."""

import numpy as np
import pytest
from graphs import after, same_bits, traced

import tinynet as tn
from tinynet.program.passes import mask_from_output

SPECIAL = np.array([0.0, -0.0, np.nan, np.inf, -np.inf, 1e-45, -3.5, 2.0], np.float32)


def reads(graph):
    """The operation that made what each comparison compares."""
    makers = graph.makers()
    return [
        graph.instructions[makers[each.inputs[0]]].op.name for each in graph if each.op.name.startswith("greater")
    ]


def test_the_mask_is_read_from_the_output_and_is_the_same_for_all_numbers():
    def step(x):
        z = x * 2.0
        return tn.relu(z), tn.where(z > 0.0, x, 0.0)

    _, _, graph = after(mask_from_output, step, SPECIAL)
    assert reads(graph) == ["relu"]


@pytest.mark.parametrize("compare", [lambda z: z >= 0.0, lambda z: z > 1.0, lambda z: z > z[0]])
def test_other_comparisons_read_what_they_read(compare):
    def step(x):
        z = x * 2.0
        return tn.relu(z), tn.where(compare(z), x, 0.0)

    assert reads(after(mask_from_output, step, SPECIAL)[2]) == ["multiply"]


def test_other_activations_and_a_rectifier_that_comes_later_do_not_lend_their_output():
    def step(x):
        z = x * 2.0
        mask = z > 0.0
        return tn.relu(z), tn.where(mask, x, 0.0)

    assert reads(after(mask_from_output, step, SPECIAL)[2]) == ["multiply"]

    def leaky(x):
        z = x * 2.0
        return tn.leaky_relu(z), tn.where(z > 0.0, x, 0.0)

    assert reads(after(mask_from_output, leaky, SPECIAL)[2]) == ["multiply"]


def test_what_is_written_over_in_between_is_read_itself():
    def of_input(x):
        z = x * 2.0
        y = tn.relu(z)
        tn.ops.assign(z, -z)
        return y, tn.where(z > 0.0, x, 0.0)

    assert reads(after(mask_from_output, of_input, SPECIAL)[2]) == ["multiply"]

    def of_output(x):
        z = x * 2.0
        y = tn.relu(z)
        tn.ops.assign(y, -z)
        return y, tn.where(z > 0.0, x, 0.0)

    assert reads(after(mask_from_output, of_output, SPECIAL)[2]) == ["multiply"]


def test_a_parameter_that_the_step_updates_is_read_itself():
    w = tn.tensor(SPECIAL)

    def step(x):
        y = tn.relu(w)
        tn.ops.gd(w, x, tn.tensor(np.float32(3)))
        return y, tn.where(w > 0.0, x, 0.0)

    found = traced(step, SPECIAL[::-1].copy())
    graph = found.graph.copy()
    mask_from_output(graph)
    same_bits(found.run(graph), found.run())
