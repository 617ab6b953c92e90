"""``fuse_elementwise``: chains of elementwise operations become one, and keep their bits; sums at the end round."""

import numpy as np
import pytest
from graphs import after, same_bits, traced, unchanged

import tinynet as tn
from tinynet.program.passes import fold, fuse_elementwise, remove_dead

SPECIAL = np.array([[0.0, -0.0, np.nan, np.inf], [-np.inf, 1e-45, -3.5, 2.0]], np.float32)
X = np.linspace(-1, 2, 12, dtype=np.float32).reshape(4, 3)
ROW = np.linspace(1, 3, 3, dtype=np.float32)


def fused(step, *args, **options):
    _, now, graph = after(fuse_elementwise, step, *args, **options)
    return now, graph


@pytest.mark.parametrize("x", [X, SPECIAL, X.astype(np.float64), X[:0], X[:1, :1]], ids=str)
def test_a_chain_becomes_one_instruction_of_the_same_bits(x):
    now, graph = fused(lambda x: tn.tanh(tn.maximum(x * 2.0 + 0.1, x)) / 3.0, x)
    assert len(now) == 1 and graph.instructions[0].inputs == (graph.inputs[0],)


def test_numbers_keep_the_rounding_of_their_type():
    def step(x):
        return (x * np.float32(0.1) + np.float32(1) / np.float32(3)) * 0.7 - 1e-3

    assert len(fused(step, X)[0]) == 1


def test_choices_and_truths_are_part_of_a_chain():
    def step(x, y):
        return tn.where(tn.logical_and(x > 0.0, y < 1.5), x * y, tn.where(x == y, 1.0, 0.0))

    now, _ = fused(step, SPECIAL, SPECIAL[::-1].copy())
    assert len(now) == 1
    now, _ = fused(lambda x: tn.where(tn.logical_and(x > 0.0, True), x * 2.0, tn.where(tn.tensor(False), x, 1.0)), X)
    assert now[-1].startswith("where(")
    now, graph = fused(lambda x: x * 2.0 > 1.0, X)
    assert len(now) == 1 and graph.spec(graph.outputs[0]).dtype == bool


def test_whole_numbers_overflow_as_they_did():
    x = np.array([2**62, -(2**62), 3, -5])
    assert len(fused(lambda x: (x * 4 + 7) * x - x, x)[0]) == 1
    small = np.array([200, 100, 3], np.uint8)
    assert len(fused(lambda x: (x * 2 + 100) * x, small)[0]) == 1


def test_rows_and_columns_are_broadcast_within_a_chain():
    now, graph = fused(lambda x, row: (x * row + row) * 2.0, X, ROW)
    assert len(now) == 1 and len(graph.instructions[0].inputs) == 2
    fused(lambda row: (row * 2.0).reshape(3, 1) * row + 1.0, ROW)


def test_a_smaller_result_is_computed_once_and_not_for_each_row():
    now, _ = fused(lambda x, row: x * tn.exp(row), X, ROW)
    assert now == ["exp", "multiply"]


@pytest.mark.parametrize("reduce", [tn.sum, tn.mean, tn.max, tn.min])
@pytest.mark.parametrize("how", [
    {}, {"axis": 0}, {"axis": 1, "keepdims": True}, {"axis": (0, 1), "keepdims": True},
], ids=str)  # fmt: skip
def test_a_reduction_ends_a_chain(reduce, how):
    now, graph = fused(lambda x: reduce(x * x - 1.0, **how), X, exact=False)
    assert len(now) == 1 and now[0].startswith(f"{reduce.name}(")
    assert graph.spec(graph.outputs[0]).shape == np.sum(X, **{"axis": None, **how}).shape


def test_a_sum_to_a_smaller_shape_ends_a_chain():
    for shape in ((3,), (4, 1), (1, 3), ()):
        now, _ = fused(lambda x, shape=shape: tn.ops.sum_to(x * x, shape=shape), X, exact=False)
        assert len(now) == 1
    cube = np.linspace(0, 1, 24, dtype=np.float32).reshape(2, 3, 4)
    now, _ = fused(lambda x: tn.ops.sum_to(x * x, shape=(1, 4)), cube, exact=False)
    assert now == ["multiply", "sum_to"]  # an axis that goes and one that stays at 1: no one reduction


def test_a_reduction_does_not_take_in_a_broadcast_that_no_input_shows():
    now, _ = fused(lambda row: tn.sum(tn.broadcast_to(row, (4, 3)) * row), ROW, exact=False)
    assert now[-1].startswith("sum")
    now, _ = fused(lambda a: tn.sum((a + 0.0) * tn.broadcast_to(tn.tensor(2.0), (4, 1, 1))), X[0], exact=False)


@pytest.mark.parametrize("step", [
    lambda x: (y := tn.exp(x), tn.tanh(y), tn.sqrt(y))[1:],
    lambda x: (y := tn.exp(x), tn.tanh(y)),
    lambda x: tn.tanh(tn.exp(x)[1:]),
    lambda x: tn.tanh(tn.exp(x).T),
    lambda x: tn.tanh(tn.softmax(x)),
    lambda x: tn.exp(x.sum(axis=0)),
    lambda x: (y := tn.exp(x), tn.sum(y), y)[1:],
    lambda x: tn.var(tn.exp(x), axis=0),
    lambda x: tn.argmax(tn.exp(x), axis=0),
], ids=["two readers", "output", "part", "transposed", "softmax", "after a sum", "sum of an output", "var",
        "argmax"])  # fmt: skip
def test_what_is_wanted_whole_stays_whole(step):
    unchanged(fuse_elementwise, step, X)


def test_one_reader_that_reads_twice_is_one_reader():
    assert len(fused(lambda x: (y := tn.exp(x)) * y, X)[0]) == 1


def test_a_write_between_maker_and_reader_keeps_them_apart():
    w = tn.tensor(X)

    def of_operand(x):
        y = x * w
        tn.ops.assign(w, w + w)
        return tn.tanh(y)

    now, _ = fused(of_operand, X)
    assert "multiply" in now and "tanh" in now

    def of_result(x):
        y = x * 2.0
        tn.ops.assign(y, x)
        return tn.tanh(y)

    assert fused(of_result, X)[0][1:] == ["assign", "tanh"]

    def through_a_view(x):
        y = x * 2.0
        tn.ops.assign(y[0], x[1])
        return tn.tanh(y)

    assert fused(through_a_view, X)[0][-2:] == ["assign", "tanh"]

    def of_sum(x):
        y = x * w
        tn.ops.assign(w, w + w)
        return y.sum()

    assert "multiply" in fused(of_sum, X)[0]


def test_an_operand_of_a_longer_chain_that_is_written_before_its_end_keeps_the_chain_apart():
    """The first member reads w before the write; the last comes after it, with a member of its own in between."""
    w = tn.tensor(X)

    def step(x):
        a = x * w
        b = tn.exp(a)
        tn.ops.assign(w, x)
        return tn.tanh(b) + w

    fused(step, X + 1)


def test_a_value_that_is_written_over_is_not_part_of_a_chain_but_what_writes_it_may_read_one():
    w = tn.tensor(X)

    def step(x):
        tn.ops.assign(w, tn.exp(x) * w + 1.0)
        return w * 1.0

    now, _ = fused(step, X)
    assert now.count("assign") == 1 and len(now) == 3


def test_numbers_that_lend_their_shape_stay_operands():
    def step(x):
        return tn.exp(x * tn.broadcast_to(tn.tensor(2.0), (4, 3)))

    _, graph = fused(step, ROW[:1])
    assert graph.spec(graph.outputs[0]).shape == (4, 3)
    for first in ((), (fold, remove_dead)):
        found = traced(lambda x: x + tn.tensor(np.full((1, 1, 1), 2, np.float32)) * 3.0, ROW)
        graph = found.graph.copy()
        for each in first:
            each(graph)
        fuse_elementwise(graph)
        same_bits(found.run(graph), found.run())
        assert graph.spec(graph.outputs[0]).shape == (1, 1, 3)


def test_a_number_that_the_step_writes_over_is_no_number():
    rate = tn.tensor(2.0)

    def step(x):
        y = x * rate
        tn.ops.assign(rate, rate * 2.0)
        return tn.exp(x * rate) + y

    fused(step, X)


def test_long_chains_are_cut_and_keep_their_bits():
    def step(x):
        for i in range(150):
            x = tn.tanh(x * 1.01) + float(i % 3)
        return x

    now, _ = fused(step, X)
    assert 1 < len(now) < 20

    def many(*xs):
        total = xs[0]
        for each in xs[1:]:
            total = total + each
        return total

    now, graph = fused(many, *(X + i for i in range(30)))
    assert 1 < len(now) < 10 and all(len(each.inputs) <= 12 for each in graph)


def test_gradients_of_a_chain_are_the_same_bits():
    def step(x):
        x = x.detach().requires_grad_()
        y = tn.gelu(tn.softplus(x) * 2.0) + tn.silu(x)
        y.sum().backward()
        return x.grad

    before, now, _ = after(fuse_elementwise, step, X, first=(remove_dead, fold))
    assert len(now) < len(before) / 3
