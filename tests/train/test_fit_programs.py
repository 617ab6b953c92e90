"""``fit`` runs programs: by default, within a budget, and with a clear word where it cannot."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import tinynet as tn
from tinynet.errors import ArgumentError, CaptureError, PlanError

RNG = np.random.default_rng(3)
X = RNG.normal(size=(150, 7)).astype(np.float32)  # four batches of 32, and one of 22
LABELS = RNG.integers(0, 4, 150)
Y = RNG.normal(size=(150, 2)).astype(np.float32)


def trained(y, loss, dtype="float32", optimizer="adam", **options):
    tn.seed(1)
    model = tn.nn.Sequential(
        tn.nn.Dense(7, 24, "relu"), tn.nn.Dropout(0.2), tn.nn.Dense(24, 24, "tanh"), tn.nn.LayerNorm(24),
        tn.nn.Dense(24, 4 if y.ndim == 1 else 2),
    ).astype(dtype)  # fmt: skip
    y = y if y.ndim == 1 else y.astype(dtype)
    history = tn.fit(
        model, (X.astype(dtype), y), loss=loss, optimizer=optimizer, epochs=4, batch_size=32, clip_norm=1.0, **options
    )
    return history["loss"], model.state_dict()


@pytest.mark.parametrize("memory", [None, "40kB", "14kB"])
@pytest.mark.parametrize(("y", "loss"), [(LABELS, "cross_entropy"), (Y, "mse")])
def test_programs_train_to_the_numbers_of_eager_steps(y, loss, memory):
    """In float64, so that only rounding is left: with the last, partial batch, dropout and clipping."""
    losses, state = trained(y, loss, "float64", memory=memory)
    expected, eager = trained(y, loss, "float64", capture=False)
    np.testing.assert_allclose(losses, expected, rtol=1e-10)
    for name, value in state.items():
        np.testing.assert_allclose(value, eager[name], rtol=1e-7, atol=1e-9, err_msg=name)


def test_programs_are_the_default():
    seen = []

    def loss(prediction, target):
        seen.append(prediction)
        return tn.losses.mse(prediction, target)

    with pytest.raises(CaptureError, match="changed the length of a list") as caught:
        trained(Y, loss)
    assert any("capture=False" in note for note in caught.value.__notes__)
    assert len(trained(Y, loss, capture=False)[0]) == 4


def test_a_budget_that_nothing_fits_into_changes_nothing():
    tn.seed(0)
    model = tn.nn.Sequential(tn.nn.Dense(7, 64, "relu"), tn.nn.Dense(64, 2))
    optimizer = tn.optim.Adam(model.parameters())
    before = model.state_dict()
    with pytest.raises(PlanError, match="at least"):
        tn.fit(model, (X, Y), loss="mse", optimizer=optimizer, epochs=1, memory="1kB")
    assert all(np.array_equal(value, before[name]) for name, value in model.state_dict().items())
    assert optimizer.steps == 0 and all(p.grad is None for p in model.parameters())


def test_a_budget_needs_a_program():
    for options in ({"capture": False}, {"memory": "much"}):
        with pytest.raises(ArgumentError):
            trained(Y, "mse", **({"memory": "1MB"} | options))


def test_a_backend_without_arenas_trains_eagerly_and_takes_no_budget(strict):
    with tn.use_backend(strict):
        losses, _ = trained(Y, "mse")
        with pytest.raises(ArgumentError, match="strict"):
            trained(Y, "mse", memory="1MB")
    np.testing.assert_allclose(losses, trained(Y, "mse")[0], rtol=1e-4)


def test_a_captured_run_resumes_to_the_same_numbers(tmp_path):
    class Stop(tn.train.Callback):
        def on_epoch(self, run):
            if run.epoch == 2:
                run.stop("enough")

    path = tmp_path / "run"
    whole, state = trained(LABELS, "cross_entropy")
    first, _ = trained(LABELS, "cross_entropy", callbacks=[Stop(), tn.train.Checkpoint(path)])
    rest, resumed = trained(LABELS, "cross_entropy", resume=path)
    assert first == whole[:2] and rest == whole
    assert all(np.array_equal(value, resumed[name]) for name, value in state.items())


@pytest.mark.parametrize(("epochs", "expected"), [(40, 4), (3, 2 + 3)])
def test_held_out_data_is_evaluated_by_a_program_that_is_kept(epochs, expected):
    """Python computes the loss twice for the step, and twice for all evaluations if they are many."""
    calls = itertools.count()  # of which a program knows nothing

    def loss(prediction, target):
        next(calls)
        return tn.losses.mse(prediction, target)

    tn.seed(1)
    model = tn.nn.Sequential(tn.nn.Dense(7, 8, "relu"), tn.nn.Dropout(0.5), tn.nn.Dense(8, 2))
    options = {"optimizer": "gd", "epochs": epochs, "batch_size": 50, "valid": (X, Y)}
    history = tn.fit(model, (X, Y), loss=loss, **options)
    assert next(calls) == expected
    assert history["valid_loss"][-1] == pytest.approx(tn.evaluate(model, (X, Y), "mse")["loss"], rel=1e-5)
