"""Budgets of memory: what is chosen keeps to them and computes the same; what does not fit is an honest error."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
from graphs import close, same_bits, traced
from zoo import batch, build, numbers

import tinynet as tn
from tinynet.errors import ArgumentError, PlanError
from tinynet.program.budget import within
from tinynet.program.compile import compiled
from tinynet.program.plan import MemoryPlan, workspace_bound

nn = tn.nn
MIB = 2**20
MODELS = ["deep", "wide", "dropout", "residual", "inner axis", "embedding", "tied"]
ROWS = 384


def base_of(name, kind="ce", optimizer="adam", dtype="float64", n=ROWS, **options):
    found = traced(build(name, kind, optimizer, dtype=dtype, **options)[1], *batch(0, name, kind, dtype, n=n))
    return found, found.simplified()


def taken(graph):
    return MemoryPlan(graph, "numpy").workspace_bytes


def least_of(error) -> int:
    return int(re.search(r"at least ([\d,]+) bytes", str(error.value)).group(1).replace(",", ""))


@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "plain"])
@pytest.mark.parametrize("name", MODELS)
def test_what_is_chosen_keeps_to_the_budget_and_computes_the_same(name, fuse):
    found, base = base_of(name, clip=1.0, outputs=True)
    whole, expected = taken(compiled(base, fuse)), found.run()
    for share in (0.8, 0.5, 0.3):
        memory = int(whole * share)
        try:
            graph, notes = within(base, memory, fuse, "numpy")
        except PlanError as error:
            assert least_of(pytest.ExceptionInfo.from_exception(error)) > memory
            continue
        assert taken(graph) <= memory and len(notes) == 1 and "instead of" in notes[0]
        close(found.run(graph), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["deep", "wide", "dropout", "embedding", "tied"])
def test_the_least_budget_that_an_error_names_works(name):
    found, base = base_of(name, n=30)
    with pytest.raises(PlanError, match="memory budget: expected at least") as error:
        within(base, 64, True, "numpy")
    least = least_of(error)
    graph, _ = within(base, least, True, "numpy")
    assert taken(graph) <= least < taken(compiled(base, True))
    close(found.run(graph), found.run(), rtol=1e-10, atol=1e-12)


def test_a_budget_that_is_larger_than_needed_changes_nothing():
    found, base = base_of("deep")
    plain = compiled(base, True)
    for memory in (taken(plain), 1 << 30):
        graph, notes = within(base, memory, True, "numpy")
        assert str(graph) == str(plain) and "nothing cut or made again" in notes[0]
    assert within(base, None, True, "numpy")[1] == []
    same_bits(found.run(graph), found.run(plain))


def test_of_two_ways_that_fit_the_one_with_less_work_is_taken():
    """A batch is better cut than computed twice; one that cannot be cut is computed twice."""
    for name, share in (("wide", 0.5), ("deep", 0.8), ("deep", 0.6)):
        _, base = base_of(name)
        _, notes = within(base, int(taken(compiled(base, True)) * share), True, "numpy")
        assert "parts of" in notes[0] and "made again" not in notes[0]
    _, base = base_of("deep", lambda p, t: tn.losses.mse(p, t) ** 2, "momentum")
    _, notes = within(base, int(taken(compiled(base, True)) * 0.7), True, "numpy")
    assert "segments of the forward pass made again" in notes[0] and "parts of" not in notes[0]


def test_a_step_that_can_not_be_cut_is_made_again_as_far_as_it_goes_and_then_refused_with_the_reason():
    def statistics(made, y):
        return tn.losses.mse((made - made.mean(axis=0)) / tn.sqrt(tn.var(made, axis=0) + 0.1), y)

    found, base = base_of("deep", statistics, "momentum")
    whole = taken(compiled(base, True))
    graph, notes = within(base, int(whole * 0.6), True, "numpy")
    assert "made again" in notes[0] and taken(graph) <= 0.6 * whole
    close(found.run(graph), found.run(), rtol=1e-10, atol=1e-12)
    with pytest.raises(PlanError, match="batch cannot be cut: micro-batches") as error:
        within(base, 64, True, "numpy")
    graph, _ = within(base, least_of(error), True, "numpy")
    close(found.run(graph), found.run(), rtol=1e-10, atol=1e-12)


# ---- through capture ----


@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "plain"])
@pytest.mark.parametrize(("name", "share"), [("dropout", 0.4), ("residual", 0.5), ("deep", 0.3), ("inner axis", 0.4)])
def test_training_within_a_budget_is_training(name, share, fuse):
    """Losses, the outputs, which are made of rows, and in the end parameters; batches of two sizes."""
    builds = [build(name, "ce", "adam", clip=1.0, dtype="float64", outputs=True) for _ in range(2)]
    (model, eager), (twin, step) = builds
    args = batch(0, name, "ce", "float64", n=ROWS)
    memory = int(taken(traced(eager, *args).simplified()) * share)
    captured = tn.capture(step, memory=memory, fuse=fuse)
    for i in range(8):
        args = batch(i, name, "ce", "float64", n=ROWS if i % 3 else 111)
        for ours, theirs in zip(numbers(captured(*args)), numbers(eager(*args)), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)
    for ours, theirs in zip(twin.parameters(), model.parameters()):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=0, atol=1e-9)
    program = captured.program(*batch(1, name, "ce", "float64", n=ROWS))
    assert program.plan.workspace_bytes <= memory
    assert "within" in program.explain() and "instead of" in program.explain()


def test_the_first_call_within_a_budget_is_a_step_and_not_two():
    (model, eager), (twin, step) = (build("dropout", "ce", "adam", dtype="float64") for _ in range(2))
    captured = tn.capture(step, memory="1MiB")
    args = batch(0, "dropout", "ce", "float64", n=ROWS)
    for _ in range(3):
        np.testing.assert_allclose(captured(*args).numpy(), eager(*args).numpy(), rtol=1e-12)
    assert [layer.step for layer in (model[1], twin[1])] == [3, 3]


def test_too_small_a_budget_is_an_error_at_the_call_and_changes_nothing():
    model, step = build("wide", "ce", "adam")
    before, args = model.state_dict(), batch(0, "wide", "ce", n=30)
    captured = tn.capture(step, memory=1000)
    for _ in range(2):
        with pytest.raises(PlanError) as error:
            captured(*args)
    assert all(np.array_equal(a, b) for a, b in zip(before.values(), model.state_dict().values()))
    enough = tn.capture(step, memory=least_of(error))
    enough(*args)
    assert enough.program(*args).plan.workspace_bytes <= least_of(error)


@pytest.mark.parametrize("memory", ["lots", -1, "5 apples", 1.5, True])
def test_a_budget_is_a_number_of_bytes(memory):
    with pytest.raises(ArgumentError):
        tn.capture(lambda x: x, memory=memory)


# ---- large models, from shapes alone ----


def layers(*sizes):
    with nn.abstract():
        return nn.Sequential(
            *(nn.Dense(a, b, "relu") for a, b in itertools.pairwise(sizes[:-1])), nn.Dense(sizes[-2], sizes[-1])
        )


def test_a_large_batch_within_eight_mebibytes():
    plan = tn.plan(layers(784, 512, 512, 10), "cross_entropy", "adam", 8192, memory="8MiB")
    assert plan.workspace_bytes <= 8 * MIB and "parts of" in plan.notes[0]
    whole = tn.plan(layers(784, 512, 512, 10), "cross_entropy", "adam", 8192)
    assert whole.workspace_bytes > 5 * plan.workspace_bytes and whole.input_bytes == plan.input_bytes


def test_a_deep_network_within_forty_mebibytes_for_at_most_one_forward_pass_more():
    sizes, n = [512] * 65, 1024
    plan = tn.plan(layers(*sizes), "mse", "adam", n, memory="40MiB")
    whole = tn.plan(layers(*sizes), "mse", "adam", n)
    assert plan.workspace_bytes <= 40 * MIB < whole.workspace_bytes

    def flops(graph):
        return sum(e.op.cost(*graph.operands(e), **e.attributes)[0] for e in graph if not e.view)

    forward = 64 * (2 * n * 512 * 512 + 2 * n * 512)
    assert 0 < flops(plan.graph) - flops(whole.graph) <= forward


def test_a_step_of_the_benchmark_takes_what_was_promised():
    """On NumPy's kernels; compiled ones pack operands of large products, each thread for itself."""
    model = layers(1024, 2048, 2048, 10)
    for executor, most in (("numpy", 14), (None, 24)):
        assert tn.plan(model, "cross_entropy", "adam", 512, executor=executor).workspace_bytes <= most * MIB


def test_a_bound_is_what_a_plan_can_reach():
    for name in MODELS:
        graph = compiled(base_of(name)[1], True)
        assert workspace_bound(graph, "numpy") == taken(graph)
