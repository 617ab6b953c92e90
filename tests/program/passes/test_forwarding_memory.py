"""Forwarded results and memory: plans, batches in parts, tensors that overlap, and steps that write a lot."""

import forwarding_runs
import numpy as np
import pytest
from forwarding_runs import array, results
from graphs import close, names, same_bits, traced

import tinynet as tn
from tinynet.errors import RangeError
from tinynet.program import Program
from tinynet.program.compile import compiled, simplify
from tinynet.program.passes import forward_results, fuse_elementwise
from tinynet.program.plan import MemoryPlan

target = forwarding_runs.target  # the fixture

# ---- the memory ----


def test_the_plan_knows_that_the_temporary_is_gone(target):
    x, y, out = (tn.tensor(array(1000, 100)) for _ in range(3))
    found = traced(lambda: tn.ops.assign(out, x * tn.sigmoid(x) + y))
    graph = found.simplified()
    fuse_elementwise(graph)
    before = MemoryPlan(graph, target).workspace_bytes
    forward_results(graph)
    plan = Program(graph, target=target).plan
    assert plan.workspace_bytes == before - 400_000 and not plan.offsets
    for fuse in (True, False):
        whole = MemoryPlan(compiled(found.graph, fuse), target)
        assert whole.workspace_bytes < 400_000 * (1 if fuse else 2)


def test_a_batch_in_parts_is_written_part_by_part(target):
    w, out = tn.tensor(array(30, 20)), tn.tensor(array(512, 20))

    def step(x):
        tn.ops.assign(out, tn.tanh(x @ w) * 2.0)
        return out.sum()

    x = array(512, 30)
    expected = step(tn.tensor(x)).numpy()
    after = out.numpy().copy()
    captured = tn.capture(step, memory="64KiB", executor=target)
    for _ in range(3):
        tn.ops.assign(out, 0.0 * after)
        np.testing.assert_allclose(captured(x).numpy(), expected, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(out.numpy(), after, rtol=1e-5, atol=1e-6)
    assert captured.program(x).plan.workspace_bytes <= 64 * 1024


# ---- tensors outside, as they are ----


@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "plain"])
@pytest.mark.parametrize("how", ["backwards", "shifted", "a row", "a product", "the same"])
def test_tensors_outside_that_share_memory(target, how, fuse):
    """Each is one of its own to the graph; that they overlap shows when the program meets them."""
    if target == "native" and not fuse:
        pytest.skip("compiled kernels are for fused programs here")
    start = array(41, 5)
    memory = tn.tensor(start)
    w, other = {
        "backwards": lambda: (memory, memory[::-1]), "shifted": lambda: (memory[1:], memory[:-1]),
        "a row": lambda: (memory, memory[3]), "a product": lambda: (memory[:5], memory[2:7]),
        "the same": lambda: (memory, memory[:]),
    }[how]()  # fmt: skip

    def step():
        tn.ops.assign(w, other @ other if how == "a product" else tn.tanh(other) * 2.0 + w)

    captured = tn.capture(step, memory="1GiB", fuse=fuse, executor=target)
    step()
    expected = memory.numpy().copy()
    for _ in range(4):
        tn.ops.assign(memory, start)
        captured()
        np.testing.assert_allclose(memory.numpy(), expected, rtol=1e-5, atol=1e-6)


def test_neighbours_in_one_piece_of_memory_are_no_overlap(target):
    memory = tn.tensor(array(2, 4096))
    a, b = memory[0], memory[1]
    captured = tn.capture(lambda: tn.ops.assign(a, tn.exp(b)), memory="1GiB", executor=target)
    captured()
    (each,) = captured.program().graph
    assert each.op._takes(a.array, [b.array]) and not each.op._takes(a.array, [memory.array[0, 1:]])
    np.testing.assert_allclose(a.numpy(), np.exp(b.numpy()), rtol=1e-6)


def test_tensors_outside_that_do_not_lie_side_by_side(target):
    w, x, m = tn.tensor(array(6, 4)).T, tn.tensor(array(4, 6)), tn.tensor(array(6, 6))
    assert not w.array.flags.c_contiguous

    def step():
        tn.ops.assign(w, x @ m)
        return w.sum()

    captured = tn.capture(step, executor=target)
    for _ in range(4):
        captured()
        np.testing.assert_allclose(w.numpy(), x.numpy() @ m.numpy(), rtol=1e-5, atol=1e-5)
    batch, xs = tn.tensor(array(6, 4, 2)).T, tn.tensor(array(2, 4, 6))
    captured = tn.capture(lambda: tn.ops.assign(batch, xs @ m), executor=target)
    for _ in range(4):
        captured()
        np.testing.assert_allclose(batch.numpy(), xs.numpy() @ m.numpy(), rtol=1e-5, atol=1e-5)
    losses, logits = tn.tensor(array(4, 2))[::2, ::2], tn.tensor(array(2, 1, 6))
    labels = tn.softmax(tn.tensor(array(2, 1, 6)))
    captured = tn.capture(lambda: tn.ops.assign(losses, tn.softmax_cross_entropy(logits, labels)), executor=target)
    for _ in range(4):
        captured()
        np.testing.assert_allclose(losses.numpy(), tn.softmax_cross_entropy(logits, labels).numpy(), rtol=1e-5)
    captured = tn.capture(lambda: tn.ops.assign(w, x * 2.0 + w * 0.0), executor=target)
    for _ in range(4):
        captured()
        np.testing.assert_array_equal(w.numpy(), x.numpy() * 2)


# ---- errors come first ----


def test_indices_that_do_not_exist_leave_the_tensor_as_it_was(target):
    out, table = tn.tensor(array(4, 3)), tn.tensor(array(5, 3))
    start = out.numpy().copy()

    def given(i):
        tn.ops.assign(out, tn.take(table, i))

    def computed(i):
        tn.ops.assign(out, tn.take(table, i * 2))

    good, bad = np.array([0, 2, 1, 0]), np.array([0, 2, 1, 9])
    for step in (given, computed):
        captured = tn.capture(step, executor=target)
        for _ in range(4):
            captured(good)
        assert "assign[take]" in names(captured.program(good).graph)
        np.testing.assert_array_equal(out.numpy(), table.numpy()[good * (2 if step is computed else 1)])
        tn.ops.assign(out, start)
        for _ in range(2):
            with pytest.raises(RangeError):
                captured(bad)
            np.testing.assert_array_equal(out.numpy(), start)


# ---- whatever comes ----

SHAPE = (4, 3)
MADE = (
    lambda a, b: tn.tanh(a),
    lambda a, b: a * 0.5 - b,
    lambda a, b: tn.where(a > b, a, b),
    lambda a, b: tn.softmax(a),
    lambda a, b: a - b.mean(axis=0, keepdims=True),
    lambda a, b: tn.tanh(a @ (b.T @ b)),
    lambda a, b: a[::-1],
    lambda a, b: a.T.reshape(SHAPE),
    lambda a, b: tn.concatenate([a[1:], b[:1]]),
    lambda a, b: a[0] + b * 0.25,
)
WRITTEN = (
    lambda w, a, b: tn.ops.assign(w, a),
    lambda w, a, b: tn.ops.assign(w, tn.tanh(w + a)),
    lambda w, a, b: tn.ops.assign(w[1:3], a[:2] * 0.5),
    lambda w, a, b: tn.ops.assign(w[1:3], tn.tanh(w[1:3] * a[:2])),
    lambda w, a, b: tn.ops.assign(w.T, (a * b).T + 0.5),
    lambda w, a, b: tn.ops.assign(w[::-1], tn.tanh(b)),
    lambda w, a, b: tn.ops.assign(w[0], tn.tanh(a.sum(axis=0))),
    lambda w, a, b: tn.ops.accumulate(w, tn.tanh(a) * 0.1),
)


@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "plain"])
def test_random_steps_that_write_a_lot(target, fuse):
    """Every bit is that of the graph before the pass; numbers are those of eager mode."""
    given = pytest.importorskip("hypothesis")
    from hypothesis import strategies as st

    kinds = len(MADE) + len(WRITTEN)
    choice = st.tuples(st.integers(0, kinds - 1), *(st.integers(0, 99) for _ in range(3)))

    def holds(choices):
        x, y, first, second = (np.linspace(i - 2, 1.5 - i, 12).reshape(SHAPE) for i in range(4))
        tensors = tn.tensor(first), tn.tensor(second)

        def step(x, y):
            values = [x, y, *tensors]
            for which, i, j, k in choices:
                a, b = values[-1 - i % len(values)], values[-1 - j % len(values)]
                if which < len(MADE):
                    values.append(MADE[which](a, b))
                else:
                    WRITTEN[which - len(MADE)]((x, *tensors, values[-1])[k % 4], a, b)
            return values[-1] if len(values) > 4 else x * 0.5, values[len(values) // 2] * 2.0

        found = traced(step, tn.tensor(x), tn.tensor(y))
        graph = found.graph.copy()
        simplify(graph)
        if fuse:
            fuse_elementwise(graph)
        before = graph.copy()
        forward_results(graph)
        same_bits(results(found, graph, target), results(found, before, target))
        close(results(found, compiled(found.graph, fuse), target), found.run(), rtol=1e-9, atol=1e-9)
        inputs = tn.tensor(x), tn.tensor(y)
        eager = [each.numpy().copy() for each in step(*inputs)]
        close(found.run(), [*eager, *(t.numpy() for t in (*inputs, *found.tensors.values()))], rtol=1e-9, atol=1e-9)

    @given.settings(deadline=None, max_examples=60, suppress_health_check=list(given.HealthCheck), derandomize=True)
    @given.given(st.lists(choice, min_size=1, max_size=14))
    def run(choices):
        holds(choices)

    run()
