"""``forward_results``: what is written over a tensor is computed there, bit for bit, or copied as before."""

import forwarding_runs
import numpy as np
import pytest
from forwarding_runs import array, copies, results
from graphs import close, names, traced

import tinynet as tn
from tinynet.program.passes import forward_results, fuse_elementwise, tile_updates
from tinynet.program.plan import workspace_bound

forwarded = forwarding_runs.forwarded  # a fixture
target = forwarding_runs.target  # a fixture

# ---- where it is done ----


def test_a_chain_goes_straight_into_its_tensor(forwarded):
    x, y, out = (tn.tensor(array(300, 70)) for _ in range(3))
    now, graph = forwarded(lambda: tn.ops.assign(out, x * tn.ops.sigmoid(x) + y), fuse=True)
    assert now == ["assign[a * (1 / (1 + exp(-a))) + b]"]
    assert not graph.lifetimes() and graph.written() == {graph.instructions[0].outputs[0]}
    each = graph.instructions[0]
    assert each.op.cost(*graph.operands(each))[1] == 3 * 300 * 70 * 4  # what is written over is not read


@pytest.mark.parametrize("n", [0, 1, 7, 4096, 16384, 16385, 100_003])
def test_blocks_of_all_sizes(forwarded, n):
    x, out = tn.tensor(array(n)), tn.tensor(array(n))
    assert forwarded(lambda: tn.ops.assign(out, tn.gelu(x)))[0] == ["assign[gelu]"]
    now, _ = forwarded(lambda: tn.ops.assign(out, tn.tanh(out * 2.0) + out), fuse=True)
    assert now == ["assign[tanh(a * 2.0) + a]"]


@pytest.mark.parametrize("step", [
    lambda w, x: x @ (x.T @ x),
    lambda w, x: tn.ops.linear(x, (x.T @ x), x[0], activation="tanh"),
    lambda w, x: tn.softmax(x),
    lambda w, x: tn.concatenate([x[2:], x[:2]]),
    lambda w, x: tn.take(x, tn.tensor(np.array([3, 1, 2, 0, 0]))),
    lambda w, x: x.astype("float64").astype("float32"),
    lambda w, x: x.T.reshape(5, 4),
    lambda w, x: tn.where(x > 0.0, x, 2.0),
    lambda w, x: tn.broadcast_to(x[0], (5, 4)) * 1.5,
], ids=["product", "layer", "softmax", "join", "gather", "cast", "copying view", "choice", "row"])  # fmt: skip
def test_whatever_makes_the_value_writes_it(forwarded, step):
    w, x = tn.tensor(array(5, 4)), tn.tensor(array(5, 4))
    now, _ = forwarded(lambda: tn.ops.assign(w, step(w, x)))
    assert copies(now) == 0 and now[-1].startswith("assign[")


def test_a_sum_over_rows_goes_into_a_row(forwarded):
    row, x = tn.tensor(array(4)), tn.tensor(array(300, 4))
    assert forwarded(lambda: tn.ops.assign(row, (x * 2.0).sum(axis=0)), fuse=True)[0] == ["assign[sum(a * 2.0)]"]
    total = tn.tensor(array())
    assert copies(forwarded(lambda: tn.ops.assign(total, x.mean()))[0]) == 0


@pytest.mark.parametrize("dtype", ["float64", "int64", "int32", "bool"])
def test_all_element_types(forwarded, dtype):
    x = tn.tensor((array(6, 5) * 5).astype(dtype))
    out = tn.tensor(x.numpy()[::-1].copy())
    now, _ = forwarded(lambda: tn.ops.assign(out, tn.logical_not(x) if dtype == "bool" else x * x + x), fuse=True)
    assert copies(now) == 0


def test_an_operation_may_write_over_the_tensor_that_it_reads_element_by_element(forwarded):
    w, x = tn.tensor(array(5, 5)), tn.tensor(array(5, 5))
    assert copies(forwarded(lambda: tn.ops.assign(w, tn.exp(w)))[0]) == 0
    assert copies(forwarded(lambda: tn.ops.assign(w, w * w - x), fuse=True)[0]) == 0
    assert copies(forwarded(lambda: tn.ops.assign(w, tn.softmax(w)))[0]) == 0  # a record says who may
    assert copies(forwarded(lambda: tn.ops.assign(w, tn.where(x > 0.0, w, x)))[0]) == 1

    def through_equal_views(w):
        w[1:3] = w[1:3] * 2.0 + x[:2]

    now, graph = forwarded(lambda: through_equal_views(w), fuse=True)
    assert copies(now) == 0 and graph.instructions[-1].inputs[0] in graph.instructions[-1].inputs[1:]


@pytest.mark.parametrize("step", [
    lambda w, x: w[::-1] * 2.0,
    lambda w, x: w.T * 2.0,
    lambda w, x: w[0] * x,
    lambda w, x: w + w[::-1],
    lambda w, x: w @ x,
    lambda w, x: w.T.reshape(5, 5),
    lambda w, x: tn.concatenate([w[2:], w[:2]]),
], ids=["backwards", "transposed", "its row", "both ways", "product", "copying view", "parts"])  # fmt: skip
def test_what_reads_the_tensor_in_another_way_is_copied(forwarded, step):
    w, x = tn.tensor(array(5, 5)), tn.tensor(array(5, 5))
    assert copies(forwarded(lambda: tn.ops.assign(w, step(w, x)))[0]) == 1


def test_parts_of_a_tensor_are_written_where_they_lie(forwarded):
    w, x, m = tn.tensor(array(6, 5)), tn.tensor(array(3, 5)), tn.tensor(array(5, 5))

    def rows():
        w[1:4] = x @ m
        w[4] = (x * 2.0).sum(axis=0)

    def columns():
        w[::2, 1:3] = tn.exp(x[:, :2])
        w[::-2, ::-1] = x * 3.0
        w.T[0] = tn.tanh(w[:, 1])

    now, _ = forwarded(rows)
    assert copies(now) == 0
    now, _ = forwarded(columns)
    assert copies(now) == 1 and now[-1] == "assign"  # the last one reads another part: only shapes would tell it apart

    def product():
        w[::2] = x @ m  # most kernels write side by side only

    assert copies(forwarded(product)[0]) == 1


def test_arguments_and_copies_within_the_step_are_tensors_too(forwarded):
    def argument(x, y):
        x[...] = tn.tanh(y) * x
        return x.sum()

    assert copies(forwarded(argument, tn.tensor(array(4, 5)), array(4, 5), fuse=True)[0]) == 0

    def copy(x, y):
        kept = x * 1.5
        tn.ops.assign(kept, x @ y)
        return kept + 1.0

    assert copies(forwarded(copy, array(4, 5), array(5, 5))[0]) == 0


def test_products_are_still_used_up_tile_by_tile(target):
    w, rate = tn.zeros((13, 5), "float64"), tn.tensor(np.float64(0.1))

    def step(a, b):
        tn.ops.assign(w, (a @ b) * 2.0 + w)
        tn.ops.gd(w, (a * a) @ b, rate)

    found = traced(step, array(13, 4, dtype=np.float64), array(4, 5, dtype=np.float64))
    graph = found.simplified()
    for each in (fuse_elementwise, forward_results):
        each(graph)
    tile_updates(graph, 2 * 5 * 8)
    assert [name for name in names(graph) if "[" in name] == ["assign[a * 2.0 + b][matmul]", "gd[matmul]"]
    close(results(found, graph, target), found.run(), rtol=1e-12, atol=1e-13)


# ---- what stands between ----


def test_what_reads_the_old_values_comes_first(forwarded):
    w, x = tn.tensor(array(4, 4)), tn.tensor(array(4, 4))

    def step():
        new = tn.exp(x)
        old = w.sum()
        tn.ops.assign(w, new)
        return old

    now, _ = forwarded(step)
    assert now == ["sum", "assign[exp]"]


def test_what_was_moved_reads_what_was_moved(forwarded):
    w, v, x = (tn.tensor(array(4, 4)) for _ in range(3))

    def step():
        first = tn.exp(x)
        second = first @ first
        old = w.sum()
        tn.ops.assign(w, second)
        tn.ops.assign(v, first)
        return old

    assert forwarded(step)[0] == ["assign[exp]", "sum", "assign[matmul]"]


def test_two_tensors_that_change_places_take_one_copy(forwarded):
    a, b = tn.tensor(array(4, 4)), tn.tensor(array(4, 4))

    def step():
        new_a, new_b = b * 2.0, a * 3.0
        tn.ops.assign(a, new_a)
        tn.ops.assign(b, new_b)

    assert sorted(forwarded(step)[0]) == ["assign", "assign[multiply]", "multiply"]


def test_an_operand_that_is_written_in_between_keeps_its_value(forwarded):
    w, v, x = (tn.tensor(array(4, 4)) for _ in range(3))

    def step():
        new = tn.exp(v)
        old = w + 1.0
        tn.ops.assign(v, x * 2.0)
        tn.ops.assign(w, new)
        return old

    assert forwarded(step)[0] == ["exp", "add", "assign[multiply]", "assign"]


def test_a_tensor_that_is_written_in_between_is_written_last_by_the_last(forwarded):
    w, x = tn.tensor(array(4, 4)), tn.tensor(array(4, 4))

    def step():
        new = tn.exp(x)
        tn.ops.accumulate(w, x)
        middle = w * 2.0
        tn.ops.assign(w[1:], new[1:] * 1.0)
        tn.ops.assign(w, new)
        return middle

    forwarded(step)


def test_nothing_waits_that_would_keep_more_memory_than_it_saves(forwarded):
    w, x = tn.tensor(array(40)), tn.tensor(array(40, 400))

    def step():
        new = (x * 2.0).sum(axis=1)  # of a large temporary
        old = w * 3.0
        tn.ops.assign(w, new)
        return old

    now, graph = forwarded(step)
    assert now == ["multiply", "sum", "multiply", "assign"]
    assert workspace_bound(graph, "numpy") < 45_000 * 4 / 2


# ---- who else reads the value ----


def test_who_else_reads_the_value_reads_the_tensor(forwarded):
    v, p, g = (tn.tensor(array(50, 4)) for _ in range(3))

    def step():  # an optimizer by hand
        velocity = 0.9 * v + g
        tn.ops.assign(p, p - 0.1 * velocity)
        tn.ops.assign(v, velocity)
        return velocity

    for fuse in (False, True):
        now, graph = forwarded(step, fuse=fuse)
        assert copies(now) == 0
        assert graph.storage(graph.outputs[0]) in graph.written()


def test_a_value_that_is_wanted_after_the_next_write_is_kept(forwarded):
    w, x = tn.tensor(array(4, 4)), tn.tensor(array(4, 4))

    def read_later():
        new = tn.exp(x)
        tn.ops.assign(w, new)
        tn.ops.accumulate(w, x)
        return new + 0.0

    def output():
        new = tn.exp(x)
        tn.ops.assign(w, new)
        w[0] = 3.0
        return new

    def read_by_the_next_write():
        new = tn.exp(x)
        tn.ops.assign(w, new)
        tn.ops.accumulate(w, new)

    for step in (read_later, output, read_by_the_next_write):
        now, _ = forwarded(step)
        assert now[:2] == ["exp", "assign"]


def test_a_value_for_two_tensors_is_computed_into_the_first(forwarded):
    a, b, x = (tn.tensor(array(4, 4)) for _ in range(3))

    def step():
        new = tn.exp(x)
        tn.ops.assign(a, new)
        tn.ops.assign(b, new)
        tn.ops.accumulate(b, new)

    assert forwarded(step)[0] == ["assign[exp]", "assign", "accumulate"]


def test_values_that_are_viewed_or_written_over_are_kept(forwarded):
    w, x = tn.tensor(array(4, 4)), tn.tensor(array(4, 4))

    def viewed():
        new = tn.exp(x)
        tn.ops.assign(w, new)
        return new[0] * 2.0

    def updated():
        new = tn.exp(x)
        tn.ops.accumulate(new, x)
        tn.ops.assign(w, new)

    def a_view():
        tn.ops.assign(w, tn.exp(x).T)

    for step in (viewed, updated, a_view):
        assert copies(forwarded(step)[0]) == 1


def test_values_of_another_shape_are_spread_by_a_copy(forwarded):
    w, x = tn.tensor(array(4, 4)), tn.tensor(array(4))
    assert copies(forwarded(lambda: tn.ops.assign(w, tn.exp(x)))[0]) == 1
    assert copies(forwarded(lambda: tn.ops.assign(w, tn.exp(x).reshape(4, 1)))[0]) == 1
    assert copies(forwarded(lambda: tn.ops.assign(w, x.sum()))[0]) == 1
