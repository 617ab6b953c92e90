"""``hoist_updates``: updates as early as they may be, and never before a reader of the old value."""

import numpy as np
import pytest
from graphs import after, names, same_bits, traced
from zoo import ZOO, batch, build

import tinynet as tn
from tinynet.program.passes import fold, hoist_updates, remove_dead, share_common

X = np.linspace(-1, 2, 12, dtype=np.float32).reshape(4, 3)
BIG = np.linspace(-1, 1, 1200, dtype=np.float32).reshape(4, 300)
CLEAN = (remove_dead, fold, share_common)


def hoisted(step, *args):
    before, now, graph = after(hoist_updates, step, *args, first=CLEAN)
    assert sorted(before) == sorted(now)
    return before, now, graph


def waits(graph):
    """How far behind the maker of its gradient each update of a parameter stands, but for the last two."""
    makers = graph.makers()
    found = [i - makers[each.inputs[1]] for i, each in enumerate(graph) if each.op.updates and len(each.inputs) > 2]
    return sorted(found)[2:]


@pytest.mark.parametrize("optimizer", ["momentum", "adam", "decay"])
def test_each_parameter_is_updated_where_its_gradient_is_there(optimizer):
    """All updates stand at the end before; afterwards each stands right behind what makes its gradient."""
    found = traced(build("deep", "mse", optimizer)[1], *batch(1, "deep", n=64))
    graph = found.simplified()
    updates = [i for i, each in enumerate(graph) if each.op.updates and len(each.inputs) > 2]
    assert updates == list(range(len(graph) - len(updates), len(graph)))
    now = graph.copy()
    hoist_updates(now)
    same_bits(found.run(now), found.run(graph))
    assert sorted(names(now)) == sorted(names(graph))
    assert max(waits(now)) == 1 and min(waits(graph)) > 10


def test_the_count_of_steps_moves_up_before_the_first_update():
    found = traced(build("tanh", "mse", "adam")[1], *batch(1, "tanh"))
    graph = found.simplified()
    hoist_updates(graph)
    order = names(graph)
    assert order.index("assign") < order.index("adam")
    same_bits(found.run(graph), found.run())


@pytest.mark.parametrize("name", ZOO)
def test_all_updates_of_the_zoo_keep_their_bits(name):
    found = traced(build(name, "ce", "adam", clip=1.0)[1], *batch(1, name, "ce"))
    graph = found.simplified()
    hoist_updates(graph)
    same_bits(found.run(graph), found.run())


def test_a_second_forward_pass_after_the_step_sees_the_new_value_and_the_first_the_old():
    w = tn.tensor(BIG[:3].copy(), requires_grad=True)
    opt = tn.optim.GD([w], lr=0.1)

    def step(x):
        opt.zero_grad()
        before = x @ w
        before.mean().backward()
        opt.step()
        return before, x @ w

    _, now, _ = hoisted(step, X)
    assert now.index("gd") > now.index("matmul") and now.count("matmul") == 3


def test_an_update_waits_for_every_reader_of_the_old_value_through_views_too():
    w = tn.tensor(BIG.copy())

    def step(g):
        view = w[1:3]
        whole = tn.exp(w)
        part = tn.exp(view)
        tn.ops.gd(w, g, tn.tensor(np.float32(0.1)))
        return whole, part, tn.exp(w[0])

    _, now, _ = hoisted(step, BIG)
    place = now.index("gd")
    assert now[:place].count("exp") == 2 and now[place:].count("exp") == 1


def test_a_shared_weight_is_updated_after_its_last_use():
    w = tn.tensor(BIG[:3, :3].copy(), requires_grad=True)
    opt = tn.optim.GD([w], lr=0.1)

    def step(x):
        opt.zero_grad()
        loss = tn.tanh(tn.tanh(tn.tanh(x @ w) @ w) @ w).mean()
        loss.backward()
        opt.step()
        return loss

    hoisted(step, X)


def test_an_update_passes_what_does_not_touch_it():
    w = tn.tensor(BIG.copy())

    def step(g):
        first = g * 2.0
        a = tn.tanh(g)
        b = tn.exp(a)
        tn.ops.gd(w, first, tn.tensor(np.float32(0.1)))
        return b

    assert hoisted(step, BIG)[1] == ["multiply", "gd", "tanh", "exp"]


def test_two_writes_keep_their_order_and_what_is_between_them_stays_between():
    w = tn.tensor(BIG.copy())

    def step(x):
        tn.ops.assign(w, x * 2.0)
        middle = tn.exp(w)
        tn.ops.assign(w, x * 3.0)
        tn.ops.accumulate(w, x)
        return middle, tn.exp(w)

    _, now, _ = hoisted(step, BIG)
    assert [name for name in now if name != "multiply"] == ["assign", "exp", "assign", "accumulate", "exp"]


def test_small_results_wait_for_the_writes_before_them():
    count, w = tn.zeros(()), tn.tensor(BIG.copy())

    def step(x):
        first = count + 1.0
        tn.ops.assign(count, first)
        second = count * 10.0
        tn.ops.assign(count, second)
        tn.ops.gd(w, x, count)
        return first, second, tn.exp(w)

    hoisted(step, BIG)


def test_small_results_wait_for_a_write_that_waits_itself():
    count = tn.zeros(())

    def step(x):
        tn.ops.assign(count, (tn.exp(x) * x).sum())
        return count * 2.0

    _, now, _ = hoisted(step, BIG)
    assert now == ["exp", "multiply", "sum", "assign", "multiply"]


def test_an_argument_that_is_written_is_written_after_it_is_read():
    def step(x, y):
        z = tn.exp(x)
        x[...] = y
        return z, x * 2.0

    hoisted(step, tn.tensor(BIG), BIG + 1)
