"""Steps traced with shapes alone: nothing is changed or computed, and what is found is what a real trace finds."""

from __future__ import annotations

import inspect
import tracemalloc

import numpy as np
import pytest
from graphs import traced
from zoo import CASES, ZOO, batch, build

import tinynet as tn
from tinynet.backend import SHADOWS, Shadow
from tinynet.errors import ArgumentError, CaptureError
from tinynet.program.calls import Call, Results
from tinynet.program.guards import Guards
from tinynet.program.trace import Trace
from tinynet.train.step import training_step

pytestmark = pytest.mark.usefixtures("any_program_backend")

nn = tn.nn
FLOAT = np.dtype("float32")


def state_of(model, step):
    """All that a step changes: numbers, gradients, counts of writes, counts of steps; and the rate of the next one."""
    optimizer = inspect.getclosurevars(step).nonlocals["opt"]
    moments = [view for views in optimizer._moments.values() for view in views]
    counters = [m.counter for _, m in model.named_modules() if isinstance(m, nn.Dropout)]
    tensors = [*model.parameters(), *moments, *counters, optimizer._step]
    return (
        [t.numpy().tobytes() for t in tensors], [t.versions[0] for t in tensors], [id(t.array) for t in tensors],
        [t._grad for t in model.parameters()], optimizer.steps, optimizer.lr,
    )  # fmt: skip


@pytest.mark.parametrize("steps", [0, 2], ids=["fresh", "trained"])
@pytest.mark.parametrize("name", ZOO)
def test_tracing_with_shapes_changes_nothing(name, steps):
    model, step = build(name, "ce", "adam", clip=1.0)
    for i in range(steps):  # afterwards there are gradients
        step(*map(tn.tensor, batch(i, name, "ce")))
    before = state_of(model, step)
    x, y = (tn.tensor(each) for each in batch(7, name, "ce"))
    arrays = [x.numpy().copy(), y.numpy().copy()]
    traced(step, x, y)
    assert state_of(model, step) == before
    assert x.versions == y.versions == [0] and x.grad is None
    for tensor, array in zip((x, y), arrays):
        np.testing.assert_array_equal(tensor.numpy(), array)


def test_an_error_within_a_trace_changes_nothing_either():
    model, step = build("dropout", "ce", "adam")

    def broken(x, y):
        step(x, y)
        raise RuntimeError("inside")

    before = state_of(model, step)
    with pytest.raises(RuntimeError, match="inside"):
        traced(broken, *batch(0, "dropout", "ce"))
    assert state_of(model, step) == before
    with pytest.raises(CaptureError):
        traced(lambda x, y: step(x, y).item(), *batch(0, "dropout", "ce"))
    assert state_of(model, step) == before


@pytest.mark.parametrize(("name", "kind", "optimizer"), CASES)
def test_the_graph_is_that_of_a_trace_that_computes(name, kind, optimizer):
    args = batch(1, name, kind)
    found = traced(build(name, kind, optimizer, clip=1.0)[1], *args).graph
    step = build(name, kind, optimizer, clip=1.0)[1]
    call = Call(args, {})
    with Trace(call.leaves, Guards(step), call.backend) as trace:
        result = step(*call.args)
    Results(result, trace, call, False)
    assert str(found) == str(trace.graph)
    assert [each.line for each in found] == [each.line for each in trace.graph]
    assert [each.phase for each in found] == [each.phase for each in trace.graph]
    assert found.constants.keys() == trace.graph.constants.keys()
    for register, array in found.constants.items():
        np.testing.assert_array_equal(array, trace.graph.constants[register])


def test_a_shadow_has_the_views_of_an_array():
    array = np.zeros((4, 6), np.float32)
    shadow = Shadow((4, 6), FLOAT)
    for view in (
        lambda xp, reshape, a: a[1:3, ::-2], lambda xp, reshape, a: a[None, 2],
        lambda xp, reshape, a: xp.permute_dims(a, (1, 0)), lambda xp, reshape, a: xp.expand_dims(a, axis=1),
        lambda xp, reshape, a: xp.broadcast_to(a[0], (5, 6)), lambda xp, reshape, a: xp.squeeze(a[:1], axis=0),
        lambda xp, reshape, a: reshape(a, (2, 12))[0],
    ):  # fmt: skip
        real = view(np, lambda a, shape: (a.reshape(shape), True), array)
        ours = view(SHADOWS.xp, SHADOWS.reshape, shadow)
        assert (ours.shape, ours.strides, ours.dtype) == (real.shape, real.strides, real.dtype)
    turned = SHADOWS.xp.permute_dims(shadow, (1, 0))
    assert SHADOWS.reshape(turned, (24,))[1] is False and SHADOWS.reshape(shadow, (24,))[1] is True
    with pytest.raises(AttributeError, match="viewed in other ways"):
        _ = SHADOWS.xp.exp


# ---- plans ----


def test_a_model_of_ten_billion_parameters_is_planned_without_memory_for_it():
    with nn.abstract():
        model = nn.Sequential(*(nn.Dense(50_000, 50_000, "relu") for _ in range(4)))
    assert sum(p.size for p in model.parameters()) > 10e9
    tracemalloc.start()
    try:
        plan = tn.plan(model, "mse", "adam", 32)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20e6
    assert plan.parameter_bytes > 40e9 and plan.moment_bytes >= 2 * plan.parameter_bytes
    assert plan.total_bytes == plan.parameter_bytes + plan.moment_bytes + plan.peak_bytes


@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "plain"])
@pytest.mark.parametrize("name", [name for name, model in ZOO.items() if not model.words])
def test_the_plan_is_that_of_the_program(name, fuse):
    """To the byte and to the instruction, for two losses, two optimizers, and with what else a step may have."""
    for kind, loss, optimizer, options in (
        ("ce", "cross_entropy", "adam", {}),
        ("mse", "mse", "gd", {"clip_norm": 1.0, "penalty": lambda m: tn.losses.l2(m.parameters(), 0.01)}),
    ):
        x, y = batch(1, name, kind, n=48)
        model = ZOO[name].make()
        before = model.state_dict()
        plan = tn.plan(model, loss, optimizer, 48, ZOO[name].shape, fuse=fuse, **options)
        assert all(np.array_equal(a, b) for a, b in zip(before.values(), model.state_dict().values()))
        made = tn.optim.Adam(model.parameters()) if optimizer == "adam" else tn.optim.GD(model.parameters(), 0.01)
        function = tn.losses.mse if kind == "mse" else tn.losses.cross_entropy
        step = training_step(model, function, made, options.get("penalty"), options.get("clip_norm"))
        captured = tn.capture(step, fuse=fuse)
        captured(x, y)
        program = captured.program(x, y)
        assert plan.peak_bytes == program.plan.peak_bytes and plan.workspace_bytes == program.plan.workspace_bytes
        assert plan.input_bytes == program.plan.input_bytes
        assert [e.op.name for e in plan.graph] == [e.op.name for e in program.graph]


def test_a_plan_within_a_budget_is_that_of_the_program_within_it():
    model = ZOO["wide"].make()
    plan = tn.plan(model, "mse", "adam", 256, memory="200KiB")
    step = training_step(model, tn.losses.mse, tn.optim.Adam(model.parameters()))
    captured = tn.capture(step, memory="200KiB")
    x, y = batch(0, "wide", n=256)
    captured(x, y)
    assert captured.program(x, y).plan.peak_bytes == plan.peak_bytes and plan.workspace_bytes <= 200 * 1024


@pytest.mark.parametrize(("name", "loss", "optimizer"), [
    ("tanh", "mse", "gd"), ("wide", "cross_entropy", "adam"), ("residual", "mse", "adam"), ("dropout", "mse", "adamw"),
    ("inner axis", "cross_entropy", "adam"),
])  # fmt: skip
def test_the_largest_batch_is_the_largest(name, loss, optimizer):
    with nn.abstract():
        model = ZOO[name].make()

    def plan(n):
        return tn.plan(model, loss, optimizer, n, ZOO[name].shape)

    for memory in (5_000, 64 * 1024, 1_000_003, 16 * 2**20):
        n = plan(16).largest_batch(memory)
        assert n == 0 or plan(n).workspace_bytes <= memory
        assert plan(n + 1).workspace_bytes > memory
    assert plan(16).largest_batch("1MiB") == plan(5).largest_batch(2**20) > 0
    assert plan(16).largest_batch(1) == 0


def test_what_a_plan_can_not_know_is_asked_for():
    with pytest.raises((ArgumentError, IndexError)):
        tn.plan(nn.Sequential(nn.Flatten(), nn.Dropout(0.5)), "mse", "adam", 4)
    for n in (0, -1, 1.5, True, "4"):
        with pytest.raises(ArgumentError, match="batch_size"):
            tn.plan(ZOO["tanh"].make(), "mse", "adam", n)


def test_a_plan_says_what_it_is_made_of():
    plan = tn.plan(ZOO["wide"].make(), "cross_entropy", "adam", 64)
    text = plan.summary()
    for word in ("parameters", "moments", "batch", "workspace", "lower bound", f"{plan.workspace_bytes:,} bytes"):
        assert word in text
    assert plan.batch_size == 64 and plan.peak_bytes == plan.lower_bound_bytes
