"""``fold``: numbers that are known are computed, and views and factors that change nothing are left out, to the bit."""

import numpy as np
import pytest
from graphs import after, names, same_bits, traced, unchanged

import tinynet as tn
from tinynet.errors import RangeError
from tinynet.program.passes import fold, remove_dead

SPECIAL = np.array([0.0, -0.0, np.nan, np.inf, -np.inf, 1e-45, -3.5], np.float32)
X = np.linspace(-1, 2, 6, dtype=np.float32).reshape(2, 3)


def test_operations_on_numbers_are_computed_once_in_the_type_in_which_they_ran():
    def step(x):
        third = tn.tensor(np.float32(1)) / 3.0
        return x * (third * 3.0 + tn.exp(third))

    before, now, graph = after(fold, step, X)
    assert before == ["divide", "multiply", "exp", "add", "multiply"] and now == ["multiply"]
    factor = graph.registers[graph.instructions[0].inputs[1]].value
    third = np.float32(1) / np.float32(3)
    assert factor == np.float32(third * np.float32(3)) + np.exp(third)


@pytest.mark.parametrize("step", [lambda x: x * 1.0, lambda x: 1.0 * x, lambda x: x / 1.0], ids=["x*1", "1*x", "x/1"])
def test_a_factor_of_one_is_left_out_whatever_the_numbers(step):
    def whole(x):
        return tn.tanh(step(x))

    assert after(fold, whole, SPECIAL)[1] == ["tanh"]


@pytest.mark.parametrize("step", [
    lambda x: x + 0.0, lambda x: 0.0 + x, lambda x: x - 0.0, lambda x: x * 0.0, lambda x: 1.0 / x, lambda x: x * -1.0,
    lambda x: x**1.0, lambda x: tn.negative(-x), lambda x: tn.maximum(x, x),
], ids=["x+0", "0+x", "x-0", "x*0", "1/x", "x*-1", "x**1", "--x", "max(x,x)"])  # fmt: skip
def test_what_could_change_a_signed_zero_or_a_nan_stays(step):
    unchanged(fold, step, SPECIAL)


def test_a_factor_of_one_that_lends_its_shape_stays():
    ones = tn.ones((1, 1, 1))
    unchanged(fold, lambda x: x * ones, X)

    def step(x):
        return tn.tanh(x * tn.ones((2, 1, 1)))  # not a single number

    assert "multiply" in after(fold, step, X)[1]

    def lent(x):
        return tn.tanh(x * tn.tensor(np.ones((1, 1, 1), np.float32)))

    assert after(fold, lent, X)[1] == ["multiply", "tanh"]


@pytest.mark.parametrize("view", [
    lambda x: x.reshape(2, 3), lambda x: tn.broadcast_to(x, (2, 3)), lambda x: x.T.T, lambda x: x.astype("float32"),
    lambda x: tn.transpose(tn.transpose(x.reshape(2, 1, 3), (1, 2, 0)), (2, 0, 1)).reshape(2, 3),
], ids=["reshape", "broadcast", "transposed twice", "cast", "rotated"])  # fmt: skip
def test_views_and_casts_that_change_nothing_are_left_out(view):
    def folded(graph):
        fold(graph)
        remove_dead(graph)

    _, now, _ = after(folded, lambda x: tn.tanh(view(x)), X)
    assert [name for name in now if name != "reshape"] == ["tanh"]


@pytest.mark.parametrize("view", [
    lambda x: x.T, lambda x: x.reshape(3, 2), lambda x: x.T.reshape(2, 3), lambda x: x[::-1][::-1],
    lambda x: tn.transpose(tn.transpose(x.reshape(1, 2, 3), (1, 2, 0)), (1, 2, 0)), lambda x: x.astype("float64"),
])  # fmt: skip
def test_views_and_casts_that_change_something_stay(view):
    unchanged(fold, lambda x: tn.exp(view(x)), X)


def test_turning_a_cube_twice_is_not_turning_it_back():
    cube = np.arange(8, dtype=np.float32).reshape(2, 2, 2)
    unchanged(fold, lambda x: tn.exp(tn.transpose(tn.transpose(x, (1, 2, 0)), (1, 2, 0))), cube)


def test_a_copy_of_what_is_written_later_stays_a_copy():
    w = tn.tensor(X)

    def step(x):
        old = w * 1.0
        tn.ops.assign(w, x)
        return old + w

    unchanged(fold, step, X + 5)

    def own(x):
        copy = x * 1.0
        tn.ops.assign(copy, x + 1)
        return copy + x

    unchanged(fold, own, X)


def test_numbers_that_are_written_over_are_no_numbers():
    count = tn.zeros((), "float32")

    def step(x):
        tn.ops.assign(count, count + 1.0)
        return x * count

    unchanged(fold, step, X)


def test_whole_numbers_and_truths_are_folded_in_their_own_type():
    def step(x, i):
        return i + tn.tensor(np.int64(3)) * 2, tn.where(tn.tensor(2.0) > 1.0, 1.0, 0.0) * 2.0 + x

    found = traced(step, X[0], np.arange(3))
    graph = found.graph.copy()
    fold(graph)
    same_bits(found.run(graph), found.run())
    assert names(graph) == ["add", "add"]


def test_an_index_is_checked_by_the_program_and_not_lost_in_the_pass():
    def step(x, index=0):
        return x * tn.take(tn.tensor(np.float32([2.0])), tn.tensor(np.array(index)))

    unchanged(fold, step, X)
    found = traced(lambda x: step(x, 5), X)
    fold(found.graph)
    with pytest.raises(RangeError, match="indices"):
        found.run()
