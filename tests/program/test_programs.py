"""Captured equals eager to the bit over a zoo of models; plans reach the bound; steady state takes no memory."""

from __future__ import annotations

import gc
import itertools
import tracemalloc

import numpy as np
import pytest

import tinynet as tn
from tinynet.errors import CaptureError
from tinynet.memory import check_plan
from tinynet.program.graph import TEMPORARY, Graph, Instruction

nn = tn.nn


class Residual(nn.Module):
    def __init__(self, n):
        self.inner = [nn.Dense(n, n, "gelu"), nn.Dense(n, n)]
        self.norm = nn.LayerNorm(n)

    def forward(self, x):
        return self.norm(x + self.inner[1](self.inner[0](x)))


class Branches(nn.Module):
    def __init__(self):
        self.a, self.b, self.c = nn.Dense(6, 4, "relu"), nn.Dense(6, 5, "silu"), nn.Dense(9, 3)

    def forward(self, x):
        return self.c(tn.concatenate([self.a(x), self.b(x)], axis=1))


class Tied(nn.Module):
    """The same weights twice, the second time transposed."""

    def __init__(self):
        self.encode = nn.Dense(6, 3, "tanh")

    def forward(self, x):
        return self.encode(x) @ self.encode.weight.T


class Shared(nn.Module):
    def __init__(self):
        self.layer, self.out = nn.Dense(6, 6, "sigmoid"), nn.Dense(6, 3)

    def forward(self, x):
        for _ in range(4):
            x = self.layer(x)
        return self.out(x)


ZOO = {
    "linear": lambda: nn.Dense(6, 3),
    "deep": lambda: nn.Sequential(*(nn.Dense(6, 6, "relu") for _ in range(20)), nn.Dense(6, 3)),
    "wide": lambda: nn.Sequential(nn.Dense(6, 300, "relu"), nn.Dense(300, 3)),
    "tanh": lambda: nn.Sequential(nn.Dense(6, 8, "tanh"), nn.Dense(8, 3)),
    "modern": lambda: nn.Sequential(nn.Dense(6, 8, "silu"), nn.Dense(8, 8, "gelu_tanh"), nn.Dense(8, 3, "softplus")),
    "dropout": lambda: nn.Sequential(nn.Dense(6, 32, "relu"), nn.Dropout(0.3), nn.Dense(32, 3)),
    "normalised": lambda: nn.Sequential(nn.LayerNorm(6), nn.Dense(6, 8), nn.LayerNorm(8), nn.ReLU(), nn.Dense(8, 3)),
    "residual": lambda: nn.Sequential(Residual(6), Residual(6), nn.Dense(6, 3)),
    "branches": Branches,
    "tied": Tied,
    "shared": Shared,
    "leaky": lambda: nn.Sequential(nn.Dense(6, 8, "leaky_relu"), nn.Flatten(), nn.Dense(8, 3, bias=False)),
    "everything": lambda: nn.Sequential(nn.Dense(6, 8), nn.GELU(), nn.Dropout(0.1), Residual(8), nn.Dense(8, 3)),
}
OPTIMIZERS = {
    "momentum": lambda ps: tn.optim.GD(ps, lr=0.05, momentum=0.9, nesterov=True),
    "adam": lambda ps: tn.optim.Adam(ps, lr=tn.optim.cosine(1e-2, 60)),
}


def build(name, loss, optimizer, clip=None):
    tn.seed(4)
    model = ZOO[name]()
    opt = OPTIMIZERS[optimizer](model.parameters())

    def step(x, y):
        opt.zero_grad()
        value = loss(model(x), y)
        value.backward()
        if clip:
            tn.optim.clip_grad_norm(opt.params, clip)
        opt.step()
        return value

    return model, step


def batch(i, outputs, kind):
    rng = np.random.default_rng(i)
    x = rng.normal(size=(16 if i % 6 else 5, 6)).astype(np.float32)
    if kind == "ce":
        return x, rng.integers(0, outputs, len(x))
    return x, rng.normal(size=(len(x), outputs)).astype(np.float32)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("kind", ["mse", "ce"])
@pytest.mark.parametrize("name", ZOO)
def test_fifty_captured_steps_give_the_bits_of_fifty_eager_ones(name, kind, optimizer):
    loss = tn.losses.mse if kind == "mse" else tn.losses.cross_entropy
    outputs = 6 if name == "tied" else 3
    model, eager = build(name, loss, optimizer, clip=1.0)
    twin, step = build(name, loss, optimizer, clip=1.0)
    captured = tn.capture(step)
    for i in range(50):
        x, y = batch(i, outputs, kind)
        np.testing.assert_array_equal(captured(x, y).numpy(), eager(x, y).numpy())
    for ours, theirs in zip(twin.state_dict().values(), model.state_dict().values()):
        np.testing.assert_array_equal(ours, theirs)
    plan = captured.program(*batch(1, outputs, kind)).plan
    assert plan.peak_bytes == plan.lower_bound_bytes
    check_plan(
        [(t.first, t.last, t.nbytes) for t in plan.tensors], [t.offset for t in plan.tensors], 64, plan.peak_bytes
    )


def test_fit_with_capture_gives_the_same_bits():
    train, _ = tn.data.digits()
    models = []
    for capture in (False, True):
        tn.seed(0)
        models.append(nn.Sequential(nn.Dense(64, 32, "relu"), nn.Dropout(0.2), nn.Dense(32, 10)))
        tn.fit(
            models[-1], train[:300], loss="cross_entropy", optimizer="adam", epochs=3, clip_norm=1.0, capture=capture,
            penalty=lambda m: tn.losses.l2(m.parameters(), 1e-4),
        )  # fmt: skip
    for a, b in zip(*(m.state_dict().values() for m in models)):
        np.testing.assert_array_equal(a, b)


def test_in_steady_state_memory_does_not_grow():
    _, step = build("dropout", tn.losses.cross_entropy, "adam")
    captured = tn.capture(step)
    x, y = batch(1, 3, "ce")
    tracemalloc.start()
    sizes = []
    for _ in range(6):  # in the first rounds the interpreter's own free lists fill up
        for _ in range(1000):
            captured(x, y)
        gc.collect()
        sizes.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    # one object that stays per call would be 28,000 bytes or more in every round
    assert min(after - before for before, after in itertools.pairwise(sizes)) < 1000


def test_the_listing_and_the_table_name_what_runs(tmp_path):
    _, step = build("linear", tn.losses.mse, "momentum")
    captured = tn.capture(step)
    x, y = batch(1, 3, "mse")
    with pytest.raises(CaptureError, match="called with"):
        captured.program(x, y)
    captured(x, y)
    program = captured.program(x, y)
    listing = program.listing()
    for word in ("linear", "mse", "gd_momentum", "test_programs.py:", f"arena {program.plan.peak_bytes:,} bytes"):
        assert word in listing
    assert len(listing.splitlines()) == len(program.graph) + 2
    assert f"peak {program.plan.peak_bytes:,} bytes" in program.plan.table()
    program.plan.svg(tmp_path / "map.svg")
    assert (tmp_path / "map.svg").read_text().startswith("<svg")
    flops, moved = program.cost
    assert flops > 2 * 2 * 16 * 6 * 3 and moved > 0


def test_the_verifier_finds_a_spoiled_graph():
    _, step = build("linear", tn.losses.mse, "momentum")
    captured = tn.capture(step)
    x, y = batch(1, 3, "mse")
    captured(x, y)
    graph = captured.program(x, y).graph
    graph.verify()
    whole = list(graph.instructions)

    def spoiled(change):
        graph.instructions = list(whole)
        change()
        with pytest.raises(CaptureError):
            graph.verify()

    spoiled(lambda: graph.instructions.reverse())
    spoiled(lambda: graph.instructions.pop(0))
    spoiled(lambda: graph.instructions.insert(0, Instruction(tn.exp, (graph.inputs[0],), (whole[0].outputs[0],), {})))
    other = Graph("numpy")
    t = other.add(tn.ops.Spec((2,), x.dtype), TEMPORARY)
    other.outputs.append(t)
    with pytest.raises(CaptureError, match="outputs with a value"):
        other.verify()


def test_random_graphs_of_operations_give_the_same_bits():
    given = pytest.importorskip("hypothesis")
    from hypothesis import strategies as st

    unary = ("tanh", "sigmoid", "relu", "negative", "square", "softplus", "exp")
    binary = ("add", "multiply", "subtract", "maximum", "minimum")

    @given.settings(deadline=None, max_examples=60)
    @given.given(
        st.lists(st.tuples(st.integers(0, 13), st.integers(0, 99), st.integers(0, 99)), min_size=1, max_size=25)
    )
    def holds(choices):
        def step(x, y):
            values = [x, y, x.T.reshape(x.shape)]
            for which, i, j in choices:
                a, b = values[i % len(values)], values[j % len(values)]
                if which < len(unary):
                    values.append(tn.clip(tn.ops.table()[unary[which]](a), -3.0, 3.0))
                elif which < len(unary) + len(binary):
                    values.append(tn.clip(tn.ops.table()[binary[which - len(unary)]](a, b), -3.0, 3.0))
                elif which == 12:
                    values.append(a - a.mean(axis=0, keepdims=True))
                else:
                    values.append(a[::-1])
            return values[-1], values[len(values) // 2].sum()

        captured = tn.capture(step)
        for k in range(4):
            x = np.linspace(-1, 1 + k, 12, dtype=np.float32).reshape(4, 3)
            for ours, theirs in zip(captured(x, x[::-1]), step(tn.as_tensor(x), tn.as_tensor(x[::-1]))):
                np.testing.assert_array_equal(ours.numpy(), theirs.numpy())

    holds()
