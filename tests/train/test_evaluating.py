"""evaluate and predict equal what one computes by hand; data of every accepted kind trains, on every backend."""

import itertools
import math

import numpy as np
import pytest

import tinynet as tn
from tinynet.errors import ArgumentError, CaptureError, DTypeError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(50, 4)).astype("float32")
LABELS = RNG.integers(0, 3, 50)
VALUES = RNG.normal(size=(50, 2)).astype("float32")


def network(outputs):
    tn.seed(1)
    return tn.nn.Sequential(tn.nn.Dense(4, 8, "relu"), tn.nn.Dropout(0.5), tn.nn.Dense(8, outputs))


def by_hand(model, x=X):
    w = model.state_dict()
    return np.maximum(x @ w["0.weight"] + w["0.bias"], 0) @ w["2.weight"] + w["2.bias"]


@pytest.mark.parametrize("batch_size", [1, 7, 50, 1024])
def test_classification_gives_loss_and_accuracy_over_all_samples(backend, batch_size):
    model = network(3)
    logits = by_hand(model)
    expected = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(50), LABELS]
    result = tn.evaluate(model, (X, LABELS), "cross_entropy", batch_size=batch_size)
    assert result["loss"] == pytest.approx(expected.mean(), rel=1e-5)
    assert result["accuracy"] == (logits.argmax(axis=1) == LABELS).mean()
    assert result.keys() == {"loss", "accuracy"} and model.training and model[1].step == 0


def test_regression_gives_loss_and_r2(backend):
    model = network(2)
    result = tn.evaluate(model, tn.data.Dataset(X, VALUES), "mse")
    error = by_hand(model) - VALUES
    assert result["loss"] == pytest.approx((error**2).mean(), rel=1e-5)
    r2 = 1 - (error**2).sum() / ((VALUES - VALUES.mean(axis=0)) ** 2).sum()
    assert result == {"loss": result["loss"], "r2": pytest.approx(r2, rel=1e-5)}


def test_r2_is_none_where_targets_do_not_vary():
    assert math.isnan(tn.evaluate(network(2), (X, np.ones((50, 2), "float32")), "mse")["r2"])


def test_a_loss_may_be_any_function():
    model = network(2)
    mean_absolute = lambda pred, target: (pred - target).abs().mean()
    result = tn.evaluate(model, (X, VALUES), mean_absolute)
    assert result["loss"] == pytest.approx(np.abs(by_hand(model) - VALUES).mean(), rel=1e-5)


@pytest.mark.parametrize(("y", "loss"), [(LABELS, "cross_entropy"), (VALUES, "mse")])
def test_programs_give_the_numbers_of_eager_batches(y, loss):
    """In float64, so that only rounding is left: 33 batches of 3, and one of 2."""
    model, x, y = network(3 if y.ndim == 1 else 2).astype("float64"), np.tile(X, (3, 1))[:101], np.concatenate([y] * 3)
    data = x, y[:101]
    result = tn.evaluate(model, data, loss, batch_size=3)
    assert result == pytest.approx(tn.evaluate(model, data, loss, batch_size=3, capture=False), rel=1e-12)
    np.testing.assert_allclose(
        tn.predict(model, x, batch_size=3), tn.predict(model, x, batch_size=3, capture=False), rtol=1e-12
    )


def counting():
    """A loss, and how often Python has computed it: in a counter, of which a program knows nothing."""
    calls = itertools.count()

    def loss(prediction, target):
        next(calls)
        return tn.losses.mse(prediction, target)

    return loss, calls


@pytest.mark.parametrize(
    ("samples", "capture", "expected"), [(31, True, 31), (40, True, 2), (40, False, 40)], ids=["few", "many", "eager"]
)
def test_many_batches_of_a_shape_are_a_program(samples, capture, expected):
    loss, calls = counting()
    tn.evaluate(network(2), (X[:samples], VALUES[:samples]), loss, batch_size=1, capture=capture)
    assert next(calls) == expected


def test_what_cannot_be_a_program_is_told_of_capture():
    model, seen = network(2), []

    def loss(prediction, target):
        seen.append(prediction)
        return tn.losses.mse(prediction, target)

    with pytest.raises(CaptureError, match="changed the length of a list") as caught:
        tn.evaluate(model, (X, VALUES), loss, batch_size=1)
    assert any("evaluate(..., capture=False)" in note for note in caught.value.__notes__) and model.training
    assert tn.evaluate(model, (X, VALUES), loss, batch_size=1, capture=False).keys() == {"loss", "r2"}


@pytest.mark.parametrize("kind", [np.asarray, tn.tensor, list, lambda x: tn.data.Dataset(x, LABELS)])
def test_predict_takes_arrays_tensors_lists_and_data_sets(backend, kind):
    model = network(3)
    outputs = tn.predict(model, kind(X), batch_size=16)
    assert type(outputs) is np.ndarray and outputs.dtype == "float32"
    np.testing.assert_allclose(outputs, by_hand(model), rtol=1e-5, atol=1e-6)


def test_the_mode_returns_after_an_error_too():
    model = network(3)
    for call in (lambda: tn.predict(model, X[:, :2]), lambda: tn.evaluate(model, (X, VALUES), "cross_entropy")):
        with pytest.raises(tn.errors.TinynetError):
            call()
        assert model.training and model[1].training


def test_no_samples_are_refused():
    for call in (lambda m: tn.predict(m, X[:0]), lambda m: tn.evaluate(m, (X[:0], LABELS[:0]), "cross_entropy")):
        with pytest.raises(ArgumentError, match="at least one sample"):
            call(network(3))


def test_inputs_that_are_integers_are_refused_by_the_layer():
    with pytest.raises(DTypeError, match="int64"):
        tn.predict(network(3), np.ones((5, 4), "int64"))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_training_learns_on_every_backend_and_in_both_types(backend, dtype):
    model = network(3).astype(dtype)
    labels = X[:, :3].argmax(axis=1)
    before = tn.evaluate(model, (X, labels), "cross_entropy")
    optimizer = tn.optim.Adam(model.parameters(), lr=0.05)
    tn.fit(model, (X, labels), loss="cross_entropy", optimizer=optimizer, epochs=8, batch_size=25)
    after = tn.evaluate(model, (X, labels), "cross_entropy")
    assert after["loss"] < 0.7 * before["loss"] and after["accuracy"] > 0.7
    assert all(p.backend is backend and p.dtype == dtype for p in model.parameters())


def test_a_loader_given_is_used_as_it_is():
    seen = []

    class Batches(tn.train.Callback):
        def on_step(self, run):
            seen.append(run.loader.batch_size)

    loader = tn.data.Loader((X, LABELS), 20, drop_last=True)
    tn.fit(network(3), loader, loss="cross_entropy", optimizer="adam", epochs=2, batch_size=5, callbacks=[Batches()])
    assert seen == [20] * 4 and loader.epoch == 2


def test_gradients_are_forgotten_at_the_end():
    model = network(3)
    tn.fit(model, (X, LABELS), loss="cross_entropy", optimizer="gd", epochs=1)
    assert all(p.grad is None for p in model.parameters())


def test_an_optimizer_of_another_model_is_refused():
    model, other = network(3), network(3)
    optimizer = tn.optim.Adam(other.parameters())
    with pytest.raises(ArgumentError, match="this model"):
        tn.fit(model, (X, LABELS), loss="cross_entropy", optimizer=optimizer, epochs=1)


def test_held_out_data_of_a_wrong_kind_is_refused_before_training():
    model = network(3)
    before = model.state_dict()
    with pytest.raises(ArgumentError, match="pair"):
        tn.fit(model, (X, LABELS), loss="cross_entropy", optimizer="adam", epochs=1, valid=X)
    assert all((model.state_dict()[name] == value).all() for name, value in before.items())


def test_history_shows_itself_and_saves_itself(tmp_path):
    import json

    history = tn.fit(network(3), (X, LABELS), loss="cross_entropy", optimizer="adam", epochs=2)
    assert repr(history).startswith("History(2 epochs; epoch=2, loss=")
    assert repr(tn.History()) == "History(0 epochs; no epoch)"
    history.save(tmp_path / "h.json")
    assert json.loads((tmp_path / "h.json").read_text()) == {"epochs": list(history), "stopped": None}
    assert tn.History([{"epoch": 1}, {"epoch": 2, "late": 3.0}])["late"] == [None, 3.0]
