"""Micro-batches: a step over parts of its batch computes what the whole step computes, or is refused."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from graphs import close, names, same_bits, traced
from zoo import ZOO, batch, build

import tinynet as tn
from tinynet.errors import PlanError
from tinynet.program.batching import in_parts, rows_of
from tinynet.program.compile import compiled
from tinynet.program.plan import workspace_bound

pytestmark = pytest.mark.usefixtures("any_program_backend")

TIGHT = {"rtol": 1e-11, "atol": 1e-13}  # float64: sums of parts round otherwise than sums of rows
N = 13  # rows; not a multiple of anything
X = np.linspace(-1, 2, 6 * N).reshape(N, 6)


def whole_and_parts(step, *args, parts=(2, 3, 5, 13), fuse=(True, False)):
    """Compares the program of the whole batch with those of parts of it: results, and the state that they leave."""
    found = traced(step, *args)
    base = found.simplified()
    expected, rows = found.run(), rows_of(base)
    for count in parts:
        for fused in fuse:
            graph = compiled(base, fused, lambda g, count=count: in_parts(g, rows, count))
            close(found.run(graph), expected, **TIGHT)
    return base, rows


def refused(step, *args, match="rows do not stand alone|for each of its rows|pass a write"):
    with pytest.raises(PlanError, match=match):
        rows_of(traced(step, *args).simplified())


LOSSES = {
    "mse": "mse",
    "ce": "ce",
    "smoothed": lambda p, t: tn.losses.cross_entropy(p, t, label_smoothing=0.1),
    "summed": lambda p, t: ((p - t) ** 2).sum(),
    "mean of rows": lambda p, t: tn.mean(((p - t) ** 2).sum(axis=-1)),
    "both": lambda p, t: tn.losses.mse(p, t) + (tn.tanh(p) * 0.1).mean(),
}


@pytest.mark.parametrize("kind", ["mse", "ce"])
@pytest.mark.parametrize("name", ZOO)
def test_the_zoo_in_parts(name, kind):
    """Dropout has the mask of the whole batch; clipping by norm sees the whole gradient."""
    step = build(name, kind, "adam", clip=0.5, dtype="float64", outputs=True)[1]
    whole_and_parts(step, *batch(0, name, kind, "float64", n=N), parts=(2, 5))


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("name", ["normalised", "inner axis"])
def test_losses_of_all_kinds_in_parts(name, kind):
    step = build(name, LOSSES[kind], "momentum", dtype="float64")[1]
    whole_and_parts(step, *batch(0, name, "ce" if kind in ("ce", "smoothed") else "mse", "float64", n=N))


def test_parts_are_of_equal_size_but_for_the_last():
    base, rows = whole_and_parts(build("tanh", "mse", "momentum", dtype="float64")[1],
                                 *batch(0, "tanh", "mse", "float64", n=N), parts=(4,))  # fmt: skip
    graph = in_parts(base, rows, 4)
    sizes = [graph.spec(each.outputs[0]).shape[0] for each in graph if each.op.name == "linear"][::2]
    assert sizes == [4, 4, 4, 1] and rows.n == N
    assert names(in_parts(base, rows, 13)).count("linear") == 26


def test_weights_are_updated_once_after_the_last_part():
    base, rows = whole_and_parts(build("tanh", "mse", "adam", dtype="float64")[1],
                                 *batch(0, "tanh", "mse", "float64", n=N), parts=(3,))  # fmt: skip
    order = names(in_parts(base, rows, 3))
    assert order.count("adam") == 4 and max(i for i, n in enumerate(order) if n == "linear") < order.index("adam")
    assert order.count("accumulate") == 2 * 5  # four gradients and the loss


def test_results_made_of_rows_are_put_together():
    w = tn.tensor(np.linspace(-1, 1, 18).reshape(6, 3))

    def step(x):
        y = tn.tanh(x @ w)
        return y, y.T, y.sum(axis=1), y.mean(), y[:, 1], tn.stack([y, y], axis=0), y.reshape(1, N, 3)

    whole_and_parts(step, X)


def test_an_argument_that_is_a_result_and_rows_that_are_returned_twice():
    def step(x):
        y = x * 2.0
        return y, y, x.T

    whole_and_parts(step, X)


def test_several_arguments_are_cut_together_and_shorter_ones_are_not():
    def step(x, y, shift, scale):
        return ((x * scale + shift - y) ** 2).sum(), (x * y).sum(axis=1)

    whole_and_parts(step, X, X[::-1].copy(), X[0].copy(), np.array(2.5))


def test_what_does_not_depend_on_rows_is_computed_once():
    w = tn.tensor(np.linspace(-1, 1, 18).reshape(6, 3))

    def step(x):
        return (x @ tn.tanh(w)).sum(axis=1)

    base, rows = whole_and_parts(step, X)
    assert names(in_parts(base, rows, 5)).count("tanh") == 1


def test_rows_of_a_shared_table_and_gradients_that_add_up_in_it():
    table = tn.tensor(np.linspace(-1, 1, 20).reshape(5, 4), requires_grad=True)
    opt = tn.optim.GD([table], lr=0.1)

    def step(words):
        opt.zero_grad()
        loss = tn.tanh(tn.take(table, words)).mean()
        loss.backward()
        opt.step()
        return loss

    whole_and_parts(step, np.arange(2 * N).reshape(N, 2) % 5)


def test_a_mask_of_dropout_is_that_of_the_whole_batch():
    tn.seed(3)
    layer = tn.nn.Dropout(0.5)

    def step(x):
        return layer(x), layer(tn.tanh(x)).sum()

    whole_and_parts(step, X)
    found = traced(step, X)
    base = found.simplified()
    same_bits(found.run(in_parts(base, rows_of(base), 4))[:1], found.run()[:1])


def test_parts_take_less_memory():
    found = traced(build("wide", "ce", "adam")[1], *batch(0, "wide", "ce", n=1024))
    base = found.simplified()
    rows = rows_of(base)
    bounds = [workspace_bound(compiled(base, True), "numpy")]
    for parts in (2, 4, 8, 16):
        graph = compiled(base, True, lambda g, parts=parts: in_parts(g, rows, parts))
        bounds.append(workspace_bound(graph, "numpy"))
    assert all(fewer < 0.75 * more for more, fewer in itertools.pairwise(bounds))


# ---- what cannot be cut ----


def test_statistics_of_the_batch_that_rows_need():
    refused(lambda x: (x - x.mean(axis=0)).sum(axis=1), X)
    refused(lambda x: (x * x.sum()).mean(), X)
    refused(lambda x: x / tn.sqrt(tn.var(x, axis=0)), X)
    refused(lambda x: tn.softmax(x, axis=0), X)
    refused(lambda x: x.max(axis=0), X)
    refused(lambda x: x @ x.T, X)
    refused(lambda x: x[::-1] + x, X)
    refused(lambda x: x[:4].sum(), X)
    refused(lambda x: x[1:] - x[:-1], X)


def test_a_gradient_that_depends_on_the_loss_of_the_whole_batch():
    refused(build("tanh", lambda p, t: tn.losses.mse(p, t) ** 2, "momentum")[1], *batch(0, "tanh", n=N))


def test_a_loss_that_is_squared_without_a_gradient_can_be_cut():
    whole_and_parts(lambda x: x.mean() ** 2 + tn.exp(x.sum(axis=0) * 0.01).mean(), X)


def test_a_state_that_is_written_row_by_row():
    state = tn.zeros((N, 6), "float64")

    def step(x):
        tn.ops.assign(state, state * 0.5 + x)
        return state.sum()

    refused(step, X)


def test_an_argument_that_is_written():
    def step(x):
        x[...] = x * 2.0
        return x.sum()

    refused(step, tn.tensor(X))


def test_a_state_that_is_written_from_a_sum_can_be_cut():
    state = tn.zeros((6,), "float64")

    def step(x):
        tn.ops.assign(state, state * 0.5 + x.mean(axis=0))
        return state.sum()

    whole_and_parts(step, X)


def test_a_second_forward_pass_after_the_update():
    """Its rows would have to wait for the update, and the update for the last rows."""
    w = tn.tensor(np.linspace(-1, 1, 18).reshape(6, 3), requires_grad=True)
    opt = tn.optim.GD([w], lr=0.1)

    def step(x):
        opt.zero_grad()
        (x @ w).mean().backward()
        opt.step()
        return (x @ w).sum()

    refused(step, X)


def test_an_update_from_what_does_not_depend_on_rows_before_the_rows():
    w = tn.tensor(np.linspace(-1, 1, 18).reshape(6, 3))

    def step(x):
        tn.ops.assign(w, w * 2.0)
        return (x @ w).sum()

    whole_and_parts(step, X)

    def after(x):
        y = (x @ w).sum()
        tn.ops.assign(w, w * 2.0)
        return y

    refused(after, X, match="pass a write")


def test_one_row_or_none_cannot_be_cut():
    for n in (0, 1):
        refused(lambda x: x.sum(), X[:n], match="at least two rows")
    refused(lambda x: x * 2.0, np.array(3.0), match="at least two rows")


def test_the_reason_names_the_operation_and_its_line():
    with pytest.raises(PlanError, match=r"micro-batches, softmax \(test_batching\.py:\d+\)"):
        rows_of(traced(lambda x: tn.softmax(x, axis=0), X).simplified())
