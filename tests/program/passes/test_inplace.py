"""``write_in_place``: a result takes the memory of an input that dies with it, and of no other."""

import numpy as np
import pytest
from graphs import after, same_bits, traced

import tinynet as tn
from tinynet.program.passes import apply_activations, fuse_elementwise, remove_dead, write_in_place

X = np.linspace(-1, 2, 6, dtype=np.float32).reshape(2, 3)
SQUARE = np.linspace(-1, 2, 9, dtype=np.float32).reshape(3, 3)


def shared(step, *args, **options):
    """Names of operations whose result lies in the memory of an input."""
    _, _, graph = after(write_in_place, step, *args, **options)
    return [
        each.op.name for each in graph
        if not each.view and not each.op.updates
        and {graph.storage(r) for r in each.inputs} & {graph.storage(r) for r in each.outputs}
    ]  # fmt: skip


def test_a_chain_runs_in_one_piece_of_memory():
    found = traced(lambda x: tn.tanh(tn.exp(x * 2.0) + 1.0), X)
    graph = found.graph.copy()
    write_in_place(graph)
    assert len(graph.lifetimes()) == 2  # the input, and one for all results
    same_bits(found.run(graph), found.run())


def test_the_second_operand_will_do():
    assert shared(lambda x: x - tn.exp(x), X) == ["subtract"]


@pytest.mark.parametrize("step", [
    lambda x: (y := x * 2.0, tn.exp(y), y + 1.0)[1:][0] + y,  # read later
    lambda x: (y := x * 2.0, tn.exp(y)),  # an output
    lambda x: tn.exp(x),  # an argument
    lambda x: (x * 2.0)[0] + x,  # another shape
    lambda x: tn.matmul(x * 2.0, SQUARE * 1.0),  # a product reads all of its input for each number
    lambda x: (x * 2.0).astype("float64"),  # another size
    lambda x: (x * 2.0) > 1.0,
    lambda x: (x * 2.0).sum(),
], ids=["read later", "output", "argument", "shape", "product", "cast", "comparison", "sum"])  # fmt: skip
def test_memory_that_is_still_wanted_or_does_not_fit_is_left_alone(step):
    assert not [name for name in shared(step, X) if name not in ("add", "multiply")]


def test_a_tensor_outside_is_never_written_over():
    w = tn.tensor(X)
    assert shared(lambda x: tn.exp(w), X) == []


def test_what_is_read_in_two_layouts_at_once_is_left_alone():
    def both(x):
        y = x * 2.0
        return y + y.T

    assert shared(both, SQUARE) == []

    def reversed_too(x):
        y = x * 2.0
        return y - y[::-1]

    assert shared(reversed_too, SQUARE) == []


def test_a_view_is_not_written_over_for_its_elements_lie_otherwise():
    assert shared(lambda x: tn.exp((x * 2.0).T), SQUARE) == []
    assert shared(lambda x: tn.exp((x * 2.0)[::-1]), SQUARE) == []
    assert shared(lambda x: tn.exp(tn.broadcast_to((x * 2.0)[:1], (3, 3))), SQUARE) == []


def test_a_view_that_is_read_later_keeps_the_whole():
    def step(x):
        y = x * 2.0
        view = y.T
        z = tn.exp(y)
        return z + view

    assert "exp" not in shared(step, SQUARE)


def test_a_broadcast_operand_is_left_alone_in_a_fused_chain_too():
    def step(x):
        row = tn.exp(x[0])
        return (x * 2.0 + row) * tn.tanh(x)

    for first in ((), (apply_activations, fuse_elementwise)):
        found = traced(step, X)
        graph = found.simplified()
        for each in first:
            each(graph)
        write_in_place(graph)
        same_bits(found.run(graph), found.run())


def test_the_gradient_of_cross_entropy_takes_the_memory_of_the_logits_only_where_they_die():
    target = np.array([0, 2])

    def step(x, w):
        w = w.detach().requires_grad_()
        logits = x @ w
        rows = tn.softmax_cross_entropy(logits, target)
        return tn.ops.softmax_cross_entropy_grad(logits, target, rows), logits.sum()

    assert "softmax_cross_entropy_grad" not in shared(step, X, SQUARE)
    assert "softmax_cross_entropy_grad" in shared(lambda x, w: step(x, w)[0], X, SQUARE, first=(remove_dead,))
