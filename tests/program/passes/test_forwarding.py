"""``forward_results``: what is written over a tensor is computed there, bit for bit, or copied as before."""

import numpy as np
import pytest
from graphs import close, names, same_bits, traced

import tinynet as tn
from tinynet import kernels
from tinynet.errors import RangeError
from tinynet.program import Program
from tinynet.program.compile import compiled, simplify
from tinynet.program.passes import forward_results, fuse_elementwise, remove_dead, tile_updates
from tinynet.program.plan import MemoryPlan, workspace_bound

RNG = np.random.default_rng(2)
TARGETS = [
    "numpy",
    pytest.param("native", marks=pytest.mark.skipif(not kernels.available("native"), reason="numba is not installed")),
]


def array(*shape, dtype=np.float32):
    return RNG.normal(size=shape).astype(dtype)


@pytest.fixture(params=TARGETS, autouse=True)
def target(request):
    return request.param


@pytest.fixture
def forwarded(target):
    """(names, graph) of a step after the pass, or the passes ``first`` and it; it has kept every bit of the results."""

    def run(step, *args, first=(), fuse=False, **options):
        found = traced(step, *args, **options)
        graph = found.simplified()
        for each in (*first, *((fuse_elementwise,) if fuse else ())):
            each(graph)
        before = graph.copy()
        forward_results(graph)
        remove_dead(graph)
        same_bits(results(found, graph, target), results(found, before, target))
        close(results(found, graph, target), found.run())
        return names(graph), graph

    return run


def results(found, graph, target):
    """Outputs, inputs and state after a run on copies; tensors that share memory share it in the copies, too."""
    inputs, state = [np.array(x) for x in found.inputs], {r: np.array(x) for r, x in found.state.items()}
    return [*Program(graph.copy(), effort=0, target=target).run(inputs, state), *inputs, *state.values()]


def copies(now):
    return now.count("assign")


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
