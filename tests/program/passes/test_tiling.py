"""``tile_updates``: a product that only an update reads is computed and spent tile by tile, with the same result."""

import numpy as np
import pytest
from graphs import close, names, traced

import tinynet as tn
from tinynet.program import Program
from tinynet.program.passes import fold, fuse_elementwise, hoist_updates, remove_dead, share_common, tile_updates
from tinynet.program.plan import workspace_bound

RNG = np.random.default_rng(1)
LR = np.float32(0.1)


def array(*shape, dtype=np.float32):
    return RNG.normal(size=shape).astype(dtype)


@pytest.fixture(params=[1, 2, 3, 6], ids=lambda rows: f"{rows} rows")
def tile(request):
    """Bytes of so many rows of five float64 numbers (13 rows are not a multiple of them)."""
    return request.param * 5 * 8


def tiled(step, *args, tile, before=(remove_dead, fold, share_common, hoist_updates), **options):
    """The graph after the pass, with tiles of so many bytes; results have been compared with those before it."""
    found = traced(step, *args, **options)
    graph = found.graph.copy()
    for each in before:
        each(graph)
    tile_updates(graph, tile)
    graph.verify("tile_updates")
    exact = all(x.dtype != np.float32 for x in found.inputs)
    close(found.run(graph), found.run(), **({"rtol": 1e-12, "atol": 1e-13} if exact else {}))
    return graph


def merged(graph):
    return [name for name in names(graph) if "[" in name]


OPTIMIZERS = {
    "gd": lambda ps: tn.optim.GD(ps, lr=0.1),
    "gd with decay": lambda ps: tn.optim.GD(ps, lr=0.1, weight_decay=0.2),
    "momentum": lambda ps: tn.optim.GD(ps, lr=0.1, momentum=0.9),
    "nesterov": lambda ps: tn.optim.GD(ps, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    "adam": lambda ps: tn.optim.Adam(ps, lr=0.1),
    "adam with decay": lambda ps: tn.optim.Adam(ps, lr=0.1, weight_decay=0.2),
    "adamw": lambda ps: tn.optim.AdamW(ps, lr=0.1),
}


def trainer(make, n=13, objective=lambda y, w: y.mean(), dtype="float64"):
    w = tn.tensor(array(n, 5, dtype=dtype), requires_grad=True)
    b = tn.tensor(array(5, dtype=dtype), requires_grad=True)
    opt = make([w, b])

    def step(x):
        opt.zero_grad()
        loss = objective(tn.tanh(x @ w + b), w)
        loss.backward()
        opt.step()
        return loss

    return step, array(4, n, dtype=dtype)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_gradient_of_a_weight_is_spent_by_every_optimizer(optimizer, tile):
    step, x = trainer(OPTIMIZERS[optimizer])
    graph = tiled(step, x, tile=tile)
    assert len(merged(graph)) == 1 and merged(graph)[0].endswith("[matmul]")


def test_several_steps_in_a_row_give_the_parameters_of_eager_steps(tile):
    """With momentum, so that what a tile leaves behind is read by the next step."""
    step, x = trainer(OPTIMIZERS["momentum"])
    twin = traced(step, x)
    graph = twin.simplified()
    hoist_updates(graph)
    tile_updates(graph, tile)
    program, state = Program(graph), {r: np.array(a) for r, a in twin.state.items()}
    for _ in range(5):
        program.run(twin.inputs, state)
        step(tn.tensor(x))
    for register, ours in state.items():
        np.testing.assert_allclose(ours, twin.tensors[register].numpy(), rtol=1e-12, atol=1e-14)


def test_a_penalty_on_the_weights_is_taken_along(tile):
    step, x = trainer(OPTIMIZERS["adam"], objective=lambda y, w: y.mean() + tn.losses.l2([w], 0.1))
    for fusion in ((), (fuse_elementwise,)):
        graph = tiled(step, x, before=(remove_dead, fold, share_common, hoist_updates, *fusion), tile=tile)
        assert len(merged(graph)) == 1


def test_gradients_that_are_added_up_are_tiled(tile):
    total = tn.zeros((13, 5), "float64")

    def step(a, b):
        tn.ops.accumulate(total, a @ b)

    graph = tiled(step, array(13, 4, dtype=np.float64), array(4, 5, dtype=np.float64), tile=tile)
    assert merged(graph) == ["accumulate[matmul]"]


def test_a_product_with_a_bias_or_in_batches_is_cut_along_its_first_axis(tile):
    w, batch = tn.zeros((13, 5), "float64"), tn.zeros((13, 2, 5), "float64")

    def step(x, v, b, y):
        tn.ops.assign(w, tn.ops.linear(x, v, b, activation="tanh"))
        tn.ops.assign(batch, y @ v)

    args = (array(n, m, dtype=np.float64) for n, m in ((13, 3), (3, 5)))
    graph = tiled(step, *args, array(5, dtype=np.float64), array(13, 2, 3, dtype=np.float64), tile=tile)
    assert merged(graph) == ["assign[linear]", "assign[matmul]"]


def test_the_workspace_is_that_of_a_tile():
    w = tn.tensor(array(3000, 500))

    def step(a, b):
        tn.ops.gd(w, a @ b, tn.tensor(LR))

    found = traced(step, array(3000, 8), array(8, 500))
    whole = workspace_bound(found.graph, "numpy")
    tile_updates(found.graph, 1 << 18)
    assert merged(found.graph) == ["gd[matmul]"]
    assert whole >= 3000 * 500 * 4 and workspace_bound(found.graph, "numpy") < 4 << 18


def test_small_products_stay_whole():
    step, x = trainer(OPTIMIZERS["gd"])
    assert not merged(tiled(step, x, tile=13 * 5 * 8 // 2 + 1)) and merged(tiled(step, x, tile=13 * 5 * 8 // 2))
    found = traced(step, x)
    tile_updates(found.graph)
    assert not merged(found.graph)


def test_a_gradient_that_is_wanted_whole_stays_whole(tile):
    step, x = trainer(OPTIMIZERS["gd"])
    assert not merged(tiled(step, x, keep_grads=True, tile=tile))

    w = tn.tensor(array(13, 5, dtype=np.float64), requires_grad=True)
    opt = tn.optim.GD([w], lr=0.1)

    def clipped(x):
        opt.zero_grad()
        (x @ w).mean().backward()
        tn.optim.clip_grad_norm([w], 0.1)
        opt.step()

    assert not merged(tiled(clipped, x, tile=tile))


def test_a_product_that_reads_what_the_update_writes_row_by_row_is_tiled(tile):
    w = tn.tensor(array(13, 5, dtype=np.float64))

    def step(m):
        tn.ops.gd(w, w @ m, tn.tensor(np.float64(0.1)))

    tiled(step, array(5, 5, dtype=np.float64), tile=tile)


@pytest.mark.parametrize("how", ["all of it", "other rows", "a view", "through what is added", "as moments"])
def test_a_product_that_reads_rows_that_a_tile_before_has_written_stays_whole(how, tile):
    w = tn.tensor(array(13, 5, dtype=np.float64))
    moment = tn.tensor(array(13, 5, dtype=np.float64))
    rate = tn.tensor(np.float64(0.1))

    def step(m, n):
        if how == "all of it":
            tn.ops.gd(w, m @ w, rate)
        elif how == "other rows":
            tn.ops.gd(w, w[::-1] @ n, rate)
        elif how == "a view":
            tn.ops.gd(w, m @ w[:], rate)
        elif how == "through what is added":
            tn.ops.gd(w, w @ n + w[0], rate)
        else:
            tn.ops.gd_momentum(w, m @ moment, moment, rate, momentum=0.9)

    tiled(step, array(13, 13, dtype=np.float64), array(5, 5, dtype=np.float64), tile=tile)


def test_the_penalty_that_keeps_rows_orthogonal_is_right(tile):
    w = tn.tensor(array(13, 5, dtype=np.float64), requires_grad=True)
    opt = tn.optim.GD([w], lr=0.01)
    eye = np.eye(13)

    def step(x):
        opt.zero_grad()
        loss = ((w @ w.T - eye) ** 2).sum() + (x @ w).mean()
        loss.backward()
        opt.step()
        return loss

    for fusion in ((), (fuse_elementwise,)):
        tiled(step, array(4, 13, dtype=np.float64), before=(remove_dead, fold, share_common, *fusion), tile=tile)


def test_a_write_between_product_and_update_keeps_them_apart(tile):
    w = tn.tensor(array(13, 5, dtype=np.float64))
    v = tn.tensor(array(13, 4, dtype=np.float64))

    def operand(x):
        g = v @ x
        tn.ops.assign(v, v * 2.0)
        tn.ops.gd(w, g, tn.tensor(np.float64(0.1)))

    assert not merged(tiled(operand, array(4, 5, dtype=np.float64), before=(remove_dead,), tile=tile))

    def result(x):
        g = v @ x
        tn.ops.accumulate(g, g * 2.0)
        tn.ops.gd(w, g, tn.tensor(np.float64(0.1)))

    tiled(result, array(4, 5, dtype=np.float64), before=(remove_dead,), tile=tile)


def test_rows_of_another_layout_are_read_as_they_lie(tile):
    """The left operand of a gradient is a transposed view: its rows are columns in memory."""
    w = tn.tensor(array(13, 5, dtype=np.float64))

    def step(x, g):
        tn.ops.gd(w, x.T @ g, tn.tensor(np.float64(0.1)))
        tn.ops.gd(w, tn.tanh((x.T @ g) * 2.0), tn.tensor(np.float64(0.1)))

    tiled(step, array(4, 13, dtype=np.float64), array(4, 5, dtype=np.float64), tile=tile)


def test_a_vector_has_one_element_to_a_row(tile):
    v = tn.tensor(array(13, dtype=np.float64))

    def step(a, b):
        tn.ops.gd(v, a @ b, tn.tensor(np.float64(0.1)))

    tiled(step, array(13, 4, dtype=np.float64), array(4, dtype=np.float64), tile=tile)


def test_a_broadcast_value_is_written_whole(tile):
    w = tn.tensor(array(13, 5, dtype=np.float64))

    def step(a, b):
        tn.ops.assign(w, a @ b)  # (5,) over every row
        tn.ops.accumulate(w, (a @ b).reshape(1, 5) * 2.0)

    tiled(step, array(4, dtype=np.float64), array(4, 5, dtype=np.float64), tile=tile)
