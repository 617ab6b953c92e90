"""Programs over the zoo: to the bit of eager mode unfused, to rounding fused; plans reach the bound."""

from __future__ import annotations

import numpy as np
import pytest
from zoo import CASES, batch, build

import tinynet as tn
from tinynet.errors import CaptureError
from tinynet.memory import check_plan

nn = tn.nn
STEPS = 50


def planned_at_the_bound(program):
    """The peak is the lower bound, or little more where compiled kernels take scratch; the checker finds no overlap."""
    plan = program.plan
    assert plan.peak_bytes <= plan.lower_bound_bytes * (1 if program.target == program.backend.target else 1.05)
    lifetimes = [(t.first, t.last, t.nbytes) for t in plan.tensors]
    check_plan(lifetimes, [t.offset for t in plan.tensors], plan.alignment, plan.peak_bytes)


@pytest.mark.usefixtures("program_backend")
@pytest.mark.parametrize(("name", "kind", "optimizer"), CASES)
def test_fifty_captured_steps_give_the_losses_of_fifty_eager_ones(name, kind, optimizer):
    """Without fusion to the bit, parameters included. With it to 2e-6 of the loss in float32.

    A sum of few numbers in another order is off by a unit or two in the last place, 6e-8 each; fifty steps of training
    carry that on to at most some ten of them here.
    """
    models, steps = zip(*(build(name, kind, optimizer, clip=1.0) for _ in range(3)))
    eager, plain, fused = steps[0], tn.capture(steps[1], fuse=False), tn.capture(steps[2])
    for i in range(STEPS):
        x, y = batch(i, name, kind)
        expected = eager(x, y).numpy()
        np.testing.assert_array_equal(plain(x, y).numpy(), expected)
        np.testing.assert_allclose(fused(x, y).numpy(), expected, rtol=2e-6)
    for ours, theirs in zip(models[1].state_dict().values(), models[0].state_dict().values()):
        np.testing.assert_array_equal(ours, theirs)
    for captured in (plain, fused):
        for i in range(2):  # a whole batch, and a smaller last one
            planned_at_the_bound(captured.program(*batch(i, name, kind)))


@pytest.mark.usefixtures("program_backend")
@pytest.mark.parametrize(("name", "kind", "optimizer"), [case for case in CASES if case[2] != "momentum"])
def test_fifty_fused_steps_in_float64_end_at_the_parameters_of_fifty_eager_ones(name, kind, optimizer):
    """Losses to 1e-12, parameters to 1e-9.

    Adam divides a gradient by its own size plus 1e-8: rounding noise of 1e-16 in a gradient that should be zero moves a
    parameter by at most 1e-8 of the rate in a step. (In float32 noise of 1e-8 would move it by half the rate.)
    """
    models, (eager, step) = zip(*(build(name, kind, optimizer, clip=1.0, dtype="float64") for _ in range(2)))
    captured = tn.capture(step)
    for i in range(STEPS):
        x, y = batch(i, name, kind, "float64")
        np.testing.assert_allclose(captured(x, y).numpy(), eager(x, y).numpy(), rtol=1e-12)
    for ours, theirs in zip(models[1].parameters(), models[0].parameters()):
        assert ours.dtype == "float64"
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=0, atol=1e-9)


@pytest.mark.usefixtures("program_backend")
@pytest.mark.parametrize(("dtype", "rtol"), [("float32", 1e-5), ("float64", 1e-13)])
@pytest.mark.parametrize("name", ["wide", "normalised", "gated", "inner axis"])
def test_fused_steps_of_large_batches_give_the_losses_of_eager_ones(name, dtype, rtol):
    """Where sums are long, and are made in blocks: rounding grows with the root of their length."""
    (_, eager), (_, step) = (build(name, "mse", "momentum", clip=1.0, dtype=dtype) for _ in range(2))
    captured = tn.capture(step)
    for i in range(6):
        x, y = batch(i, name, "mse", dtype, n=5000)
        np.testing.assert_allclose(captured(x, y).numpy(), eager(x, y).numpy(), rtol=rtol)


@pytest.mark.usefixtures("program_backend")
def test_fit_with_capture_gives_the_same_model_to_rounding():
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
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("program_backend")
def test_the_listing_and_the_table_name_what_runs(tmp_path):
    _, step = build("linear")
    captured = tn.capture(step, fuse=False)
    x, y = batch(1, "linear")
    with pytest.raises(CaptureError, match="called with"):
        captured.program(x, y)
    captured(x, y)
    program = captured.program(x, y)
    listing = program.listing()
    for word in ("linear", "mse", "gd_momentum", "zoo.py:", f"arena {program.plan.peak_bytes:,} bytes"):
        assert word in listing
    assert len(listing.splitlines()) == len(program.graph) + 2
    assert f"peak {program.plan.peak_bytes:,} bytes" in program.plan.table()
    program.plan.svg(tmp_path / "map.svg")
    assert (tmp_path / "map.svg").read_text().startswith("<svg")
    flops, moved = program.cost
    assert flops > 2 * 2 * 16 * 6 * 3 and moved > 0


def test_a_program_can_be_called_with_arrays_alone():
    model, _ = build("tanh")
    x = batch(0, "tanh")[0]
    captured = tn.capture(lambda x: model(x))
    captured(x)
    captured(x)
    program, array = captured.program(x), np.asarray(x.numpy() if isinstance(x, tn.Tensor) else x)
    np.testing.assert_allclose(program(array), model(x).numpy(), rtol=1e-5, atol=1e-6)
    first = program(array)
    program(array * 2)
    np.testing.assert_array_equal(first, program(array))  # results have memory of their own
    model.load_state_dict({name: value * 0.5 for name, value in model.state_dict().items()})
    np.testing.assert_allclose(program(array), model(x).numpy(), rtol=1e-5, atol=1e-6)
    with pytest.raises(tn.errors.ShapeError, match="of shape"):
        program(array[:1])
    with pytest.raises(tn.errors.DTypeError, match="float32"):
        program(array.astype("float64"))
    with pytest.raises(CaptureError, match="1 arrays"):
        program(array, array)
    np.testing.assert_array_equal(program(np.asfortranarray(array)), program(array))
