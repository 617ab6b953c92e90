"""``overlay_gradients``: a layer's gradient goes where the layer's input was, and everything else stays as it is."""

import itertools

import numpy as np
import pytest
from graphs import TARGETS, close, names, traced

import tinynet as tn
from tinynet.ops import lookup
from tinynet.program.budget import SMALLEST_TILE
from tinynet.program.compile import compiled
from tinynet.program.graph import TEMPORARY
from tinynet.program.plan import MemoryPlan

RNG = np.random.default_rng(3)
BATCH, WIDTH = 24, 130  # strips of 64, 64 and 2 rows

OPTIMIZERS = {
    "gd": lambda ps: tn.optim.GD(ps, lr=0.1),
    "nesterov with decay": lambda ps: tn.optim.GD(ps, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    "adam": lambda ps: tn.optim.Adam(ps, lr=0.1),
    "adam with decay": lambda ps: tn.optim.Adam(ps, lr=0.1, weight_decay=0.2),
    "adamw": lambda ps: tn.optim.AdamW(ps, lr=0.1),
}


def array(*shape, dtype="float64"):
    return RNG.normal(size=shape).astype(dtype)


def weights(*sizes):
    return [tn.tensor(array(n, m) / n**0.5, requires_grad=True) for n, m in itertools.pairwise(sizes)]


def trainer(forward, params, optimizer="adam"):
    """A step on ``forward(x, *params)``, and an x for it."""
    opt = OPTIMIZERS[optimizer](params)

    def step(x):
        opt.zero_grad()
        loss = forward(x, *params)
        loss.backward()
        opt.step()
        return loss

    return step, array(BATCH, params[0].shape[0])


def overlaid(step, x, target="numpy", strips=3):
    """The graph without and with strips; both compute what the one without passes does."""
    found = traced(step, x)
    base = found.simplified()
    plain, cut = (compiled(base, True, target=target, strips=count) for count in (1, strips))
    expected = found.run()
    for graph in (plain, cut):
        close(found.run(graph), expected, rtol=1e-12, atol=1e-13)
    return plain, cut


def written_over(graph):
    """Names of the temporaries that are written over column by column."""
    makers, found = graph.makers(), []
    for each in graph:
        if each.op.name.startswith("assign") and graph.kind_of_storage(each.targets[0]) == TEMPORARY:
            assert graph.instructions[makers[each.targets[0]]].op.name == "getitem"
            found.append(graph.registers[graph.storage(each.targets[0])].name)
    return sorted(set(found))


def layers(activation=tn.relu):
    return lambda x, a, b, c: (activation(activation(x @ a) @ b) @ c).mean()


# ---- what is cut ----


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("activation", [tn.relu, tn.tanh, tn.gelu, lambda x: x], ids=["relu", "tanh", "gelu", "none"])
def test_each_hidden_layer_holds_its_own_gradient(activation, target):
    plain, cut = overlaid(*trainer(layers(activation), weights(7, WIDTH, WIDTH, 3)), target=target)
    assert written_over(plain) == [] and len(written_over(cut)) == 2
    assert sum(name.startswith("adam") for name in names(cut)) == 1 + 2 * 3


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_updates_strips(optimizer):
    _, cut = overlaid(*trainer(layers(), weights(7, WIDTH, WIDTH, 3), optimizer))
    assert len(written_over(cut)) == 2


def held(graph, *shape):
    """How many tensors of a shape a program finds memory for."""
    return sum(graph.spec(storage).shape == shape for storage in graph.lifetimes())


def test_the_gradient_takes_the_memory_of_a_strip():
    model = weights(7, 1280, 64)
    plain, cut = overlaid(*trainer(lambda x, a, b: (tn.tanh(x @ a) @ b).mean(), model, "gd"), strips=20)
    assert held(plain, BATCH, 1280) == 2 and held(cut, BATCH, 1280) == 1 and held(cut, BATCH, 64) >= 20
    spared = MemoryPlan(plain).workspace_bytes - MemoryPlan(cut).workspace_bytes
    assert spared >= BATCH * (1280 - 64) * 8


def test_a_chain_of_layers_needs_no_memory_for_gradients():
    depth = 6
    model = weights(*[WIDTH] * (depth + 1), 3)

    def forward(x, *ws):
        for w in ws[:-1]:
            x = tn.tanh(x @ w)
        return (x @ ws[-1]).mean()

    plain, cut = overlaid(*trainer(forward, model, "gd"))
    assert held(cut, BATCH, WIDTH) == depth + 1 < held(plain, BATCH, WIDTH)  # with the argument


@pytest.mark.parametrize("executor", TARGETS)
def test_several_steps_in_a_row_are_those_of_eager_mode(executor):
    params = weights(7, WIDTH, WIDTH, 3)
    twins = [tn.tensor(p.numpy().copy(), requires_grad=True) for p in params]
    (step, x), (eager, _) = trainer(layers(), params), trainer(layers(), twins)
    least = compiled(traced(step, x).simplified(), True, None, SMALLEST_TILE, executor, 4)
    memory = MemoryPlan(least, executor).workspace_bytes
    captured = tn.capture(step, memory=memory, executor=executor)
    for _ in range(6):
        x = tn.tensor(array(BATCH, 7))
        np.testing.assert_allclose(captured(x).numpy(), eager(x).numpy(), rtol=1e-10)
    program = captured.program(x)
    assert "strips of their weights" in program.explain() and program.plan.workspace_bytes <= memory
    for ours, theirs in zip(params, twins):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-8, atol=1e-10)


def test_of_a_weight_that_is_used_twice_the_first_layer_is_cut():
    """It is the last going back, when nobody needs the old weight any more; and one more layer, that of c."""
    params = weights(7, WIDTH, WIDTH, 3)
    _, cut = overlaid(*trainer(lambda x, a, b, c: (tn.tanh(tn.tanh(tn.tanh(x @ a) @ b) @ b) @ c).mean(), params))
    linear = [each.outputs[0] for each in cut if each.op.name == "matmul" and each.phase == "forward"]
    assert len(linear) == 4 and len(written_over(cut)) == 2


# ---- what stays as it is ----


def unchanged(forward, params, optimizer="adam", step=None):
    made, x = trainer(forward, params, optimizer)
    plain, cut = overlaid(step or made, x)
    assert written_over(cut) == written_over(plain) and len(cut) == len(plain)


def test_a_weight_with_too_few_rows_stays_whole():
    unchanged(layers(), weights(7, 64, 64, 3))


def by_hand(backward, results=lambda h, dy: (dy * dy).sum(), columns=3):
    """A step on one layer whose gradients are written out: ``backward(h, b, dy) -> (dx, gradient of b)``."""
    a, b = weights(7, WIDTH, columns)
    opt = OPTIMIZERS["gd"]([a, b])

    def step(x):
        with tn.no_grad():
            h = tn.tanh(x @ a)
            dy = tn.tanh(h @ b)
            dx, b.grad = backward(h, b, dy)
            a.grad = x.T @ dx
            opt.step()
            return results(h, dy)

    plain, cut = overlaid(step, array(BATCH, 7))
    return len(plain), len(cut), written_over(cut)


def test_a_layer_whose_gradients_are_written_by_hand_is_one_as_well():
    before, after, over = by_hand(lambda h, b, dy: ((dy @ b.T) * (1 - h * h), h.T @ dy))
    assert after > before and len(over) == 1


def test_an_input_that_is_read_later_stays():
    before, after, over = by_hand(lambda h, b, dy: (dy @ b.T, h.T @ dy), lambda h, dy: tn.softmax(h).max())
    assert after == before and over == []


def test_an_input_that_is_a_result_stays():
    before, after, over = by_hand(lambda h, b, dy: (dy @ b.T, h.T @ dy), lambda h, dy: h.T)
    assert after == before and over == []


def test_a_gradient_that_is_needed_before_the_update_stays():
    """Its rows are summed up into the gradient of the weight."""
    before, after, over = by_hand(lambda h, b, dy: ((dx := dy @ b.T), h.T @ (dy * dx.sum(axis=1, keepdims=True))))
    assert after == before and over == []


def test_a_gradient_through_other_columns_of_the_input_stays():
    """Other strips have been written over by then."""
    before, after, over = by_hand(lambda h, b, dy: ((dy @ b.T) * h[:, ::-1], h.T @ dy))
    assert after == before and over == []


def test_an_update_that_reads_other_rows_stays_whole():
    """Rows of the weight from its columns, which other strips have updated by then."""
    before, after, over = by_hand(lambda h, b, dy: (dy @ b.T, h.T @ dy + b.T * 0.1), columns=WIDTH)
    assert after == before and over == []
    before, after, over = by_hand(lambda h, b, dy: (dy @ b.T, h.T @ dy + b * 0.1), columns=WIDTH)
    assert after > before and len(over) == 1


def test_a_product_stays_before_a_write_to_what_it_reads():
    kept = tn.tensor(array(BATCH, 3))

    def backward(h, b, dy):
        dx = kept @ b.T
        lookup("assign")(kept, dy)
        return dx, h.T @ kept

    before, after, over = by_hand(backward)
    assert after == before and over == []


def test_gradients_that_are_clipped_together_stay():
    params = weights(7, WIDTH, WIDTH, 3)
    opt, forward = OPTIMIZERS["adam"](params), layers()

    def step(x):
        opt.zero_grad()
        loss = forward(x, *params)
        loss.backward()
        tn.optim.clip_grad_norm(params, 1.0)
        opt.step()
        return loss

    unchanged(forward, params, step=step)


def test_without_fusion_nothing_is_cut():
    found = traced(*trainer(layers(), weights(7, WIDTH, WIDTH, 3)))
    base = found.simplified()
    assert str(compiled(base, False, strips=3)) == str(compiled(base, False))



ACTIVATIONS = (tn.relu, tn.tanh, tn.gelu, tn.softmax, lambda x: x, lambda x: x * x.mean(axis=0))


def random_step(rng):
    """Layers of few weights, which may come again, with sums of earlier layers, penalties, and other results."""
    square = [tn.tensor(0.5 * rng.normal(size=(6, 6)), requires_grad=True) for _ in range(3)]
    last = tn.tensor(rng.normal(size=(6, 2)), requires_grad=True)
    choices = [(rng.integers(3), rng.integers(len(ACTIVATIONS)), rng.integers(9)) for _ in range(rng.integers(1, 6))]
    penalty, clip, after = rng.integers(8, size=3)
    params = [*(square[i] for i in sorted({choice[0] for choice in choices})), last]
    opt = list(OPTIMIZERS.values())[rng.integers(len(OPTIMIZERS))](params)

    def step(x):
        opt.zero_grad()
        made = [x]
        for weight, activation, earlier in choices:
            h = ACTIVATIONS[activation](made[-1] @ square[weight])
            made.append(h + made[earlier] if earlier < len(made) else h)
        loss = (made[-1] @ last).mean()
        if penalty < 3:
            loss = loss + 0.1 * (params[penalty % len(params)] ** 2).sum() + tn.tanh(made[penalty % len(made)]).mean()
        loss.backward()
        if clip == 0:
            tn.optim.clip_grad_norm(params, 1.0)
        opt.step()
        return (loss, made[-1]) if after == 0 else (loss, made[1].detach().max(axis=0)) if after == 1 else loss

    return step, rng.normal(size=(4, 6))


def test_random_layers(monkeypatch):
    monkeypatch.setattr("tinynet.program.passes.overlaying._ROUND", 1)
    counts = []
    for seed in range(150):
        _, cut = overlaid(*random_step(np.random.default_rng(seed)), strips=2 + seed % 5)
        counts.append(len(written_over(cut)))
    assert counts.count(0) > 20 and sum(count > 1 for count in counts) > 40, counts
