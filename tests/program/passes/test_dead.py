"""``remove_dead``: what reaches neither an output nor a tensor that outlives the step is left out."""

import numpy as np
from graphs import after, names, traced

import tinynet as tn
from tinynet.program.passes import remove_dead

X = np.linspace(-1, 2, 6, dtype=np.float32).reshape(2, 3)


def test_what_nobody_reads_is_dropped_with_all_that_only_it_read():
    def step(x):
        tn.tanh(tn.exp(x)).sum()
        return x * 2

    before, now, _ = after(remove_dead, step, X)
    assert before == ["exp", "tanh", "sum", "multiply"] and now == ["multiply"]


def test_writes_to_tensors_that_outlive_the_step_stay_through_views_too():
    state, other = tn.zeros((2, 3)), tn.zeros((3,))

    def step(x):
        tn.ops.assign(state[0], x[1] * 3)
        tn.ops.assign(other, other + 1)

    before, now, _ = after(remove_dead, step, X)
    assert now == before and now.count("assign") == 2


def test_writes_to_an_argument_stay():
    def step(x):
        x[0] = x[1] + 1

    _, now, _ = after(remove_dead, step, tn.tensor(X))
    assert now.count("assign") == 1


def test_a_write_to_a_copy_that_nobody_reads_goes():
    def step(x):
        y = x * 2
        tn.ops.assign(y, x)
        return x + 1

    assert after(remove_dead, step, X)[1] == ["add"]


def test_a_write_to_a_copy_that_is_read_through_a_view_stays():
    def step(x):
        y = x * 2
        row = y[0]
        tn.ops.assign(y, x)
        return row + 1

    assert after(remove_dead, step, X)[1] == ["multiply", "getitem", "assign", "add"]


def test_a_write_whose_value_is_read_only_before_goes_with_the_copy_or_stays_but_never_changes_numbers():
    def step(x):
        y = x * 2
        z = y + 1
        tn.ops.assign(y, x)
        return z

    after(remove_dead, step, X)


def test_gradients_that_nobody_asked_for_are_not_computed():
    w = tn.ones((3, 2), requires_grad=True)

    def step(x):
        tn.tanh(x @ w).sum().backward()
        loss = (x * 2).sum()
        w.grad = None
        return loss

    found = traced(step, X)
    remove_dead(found.graph)
    assert names(found.graph) == ["multiply", "sum"]
