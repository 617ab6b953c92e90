"""fit, evaluate, predict: what they give, what they leave behind, and how they stop."""

from __future__ import annotations

import signal
import threading

import numpy as np
import pytest

import tinynet as tn
from tinynet.errors import ArgumentError, CheckpointError, RangeError, ShapeError
from tinynet.train import Callback, Checkpoint, CSVLog, EarlyStopping, Progress


def problem(n=48):
    """A noisy plane: x (n, 3), y (n, 1)."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 3)).astype(np.float32)
    return x, (x @ np.float32([[1], [-2], [0.5]]) + np.float32(0.1) * rng.normal(size=(n, 1)).astype(np.float32))


def network():
    tn.seed(3)
    return tn.nn.Sequential(tn.nn.Dense(3, 8, "tanh"), tn.nn.Dropout(0.2), tn.nn.Dense(8, 1))


def adam(model):
    return tn.optim.Adam(model.parameters(), lr=tn.optim.cosine(0.02, steps=60))


def momentum(model):
    return tn.optim.GD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-4)


class At(Callback):
    """Does something after a given step."""

    def __init__(self, step, action):
        self.step, self.action, self.ended = step, action, 0

    def on_step(self, run):
        if run.step == self.step:
            self.action(run)

    def on_end(self, run):
        self.ended += 1


def same_state(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values()))


def test_history_has_a_row_per_epoch_with_what_was_asked_for():
    model = network()
    history = tn.fit(model, problem(), loss="mse", optimizer=adam(model), epochs=3, batch_size=16, valid=problem(12))
    assert history["epoch"] == [1, 2, 3] and len(history) == 3 and history.stopped is None
    columns = ("epoch", "loss", "lr", "batch_size", "seconds", "samples_per_second", "valid_loss", "valid_r2")
    assert history.columns == columns and history["batch_size"] == [16] * 3
    assert history["loss"][-1] < history["loss"][0]
    with pytest.raises(KeyError, match="no column 'nonsense'"):
        history["nonsense"]


def test_training_on_digits_reaches_what_dense_networks_reach():
    tn.seed(0)
    train, test = tn.data.digits()
    model = tn.nn.Sequential(tn.nn.Dense(64, 64, "relu"), tn.nn.Dense(64, 10))
    tn.fit(model, train, loss="cross_entropy", optimizer=tn.optim.Adam(model.parameters(), lr=0.005), epochs=12)
    result = tn.evaluate(model, test, loss="cross_entropy")
    assert result["accuracy"] > 0.95 and result["loss"] < 0.3


def test_the_same_seed_gives_the_same_bits():
    models = []
    for _ in range(2):
        models.append(network())
        tn.fit(models[-1], problem(), loss="mse", optimizer=adam(models[-1]), epochs=4, batch_size=16, seed=5)
    assert same_state(*models)


@pytest.mark.parametrize("name", ["gd", "adam", "adamw"])
def test_optimizers_and_losses_may_be_named(name):
    model = network()
    before = tn.evaluate(model, problem(), "mse")["loss"]
    tn.fit(model, problem(), loss=tn.losses.mse, optimizer=name, epochs=5)
    assert tn.evaluate(model, problem(), "mse")["loss"] < before


def test_penalty_and_clipping_take_part():
    plain, small, clipped = network(), network(), network()
    for model, options in ((plain, {}), (small, {"penalty": lambda m: tn.losses.l2(m.parameters(), 1.0)})):
        tn.fit(model, problem(), loss="mse", optimizer=tn.optim.GD(model.parameters(), lr=0.05), epochs=5, **options)
    assert tn.losses.l2(small.parameters(), 1.0).item() < tn.losses.l2(plain.parameters(), 1.0).item()
    start = clipped.state_dict()
    tn.fit(
        clipped, problem(8), loss="mse", optimizer=tn.optim.GD(clipped.parameters(), lr=1.0), epochs=1, clip_norm=1e-3
    )
    moved = sum(np.square(a - b).sum() for a, b in zip(start.values(), clipped.state_dict().values())) ** 0.5
    assert 0 < moved <= 1.001e-3


def test_the_mode_of_the_model_is_restored():
    model = network().eval()
    tn.fit(model, problem(), loss="mse", optimizer="adam", epochs=1)
    assert not model.training and not model[1].training
    model.train()
    tn.predict(model, problem()[0])
    assert model[1].training


def test_predict_gives_the_outputs_of_evaluation_mode_in_order():
    model, (x, _) = network(), problem()
    outputs = tn.predict(model, x, batch_size=7)
    assert outputs.shape == (48, 1) and outputs.dtype == np.float32
    np.testing.assert_allclose(outputs, model.eval()(x).numpy(), rtol=1e-6)
    np.testing.assert_array_equal(tn.predict(model, x.astype(np.float64), batch_size=7), outputs)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"epochs": 0}, ArgumentError, "epochs"),
        ({"loss": "nonsense"}, ArgumentError, "mse, cross_entropy"),
        ({"optimizer": "nonsense"}, ArgumentError, "gd, adam, adamw"),
        ({"train": (np.zeros((4, 2), np.float32), np.zeros((4, 1), np.float32))}, ShapeError, r"\(\.\.\., 3\)"),
        ({"train": (np.zeros((4, 3)), np.zeros(4))}, ShapeError, r"\(4, 1\) and \(4,\)"),
        ({"train": (np.zeros((4, 3)), np.int64([0, 9, 0, 0])), "loss": "cross_entropy"}, RangeError, "labels"),
        ({"train": 7}, ArgumentError, "pair"),
    ],
)
def test_what_does_not_fit_is_one_error_and_changes_nothing(options, error, message):
    model = network()
    before = model.state_dict()
    with pytest.raises(error, match=message):
        tn.fit(model, **({"train": problem(), "loss": "mse", "optimizer": "adam", "epochs": 1} | options))
    assert all(np.array_equal(v, before[k]) for k, v in model.state_dict().items())


def test_a_loss_that_is_not_a_number_stops_with_a_reason():
    model = network()
    x, y = problem()
    y[5] = np.nan
    history = tn.fit(model, (x, y), loss="mse", optimizer="adam", epochs=5)
    assert len(history) == 1 and "nan" in history.stopped


# ---- stopping and going on ----


def test_ctrl_c_stops_between_two_steps_and_leaves_history_and_checkpoint(tmp_path):
    model, path = network(), tmp_path / "run.safetensors"
    handler = signal.getsignal(signal.SIGINT)
    interrupt = At(7, lambda run: signal.raise_signal(signal.SIGINT))
    history = tn.fit(
        model,
        problem(),
        loss="mse",
        optimizer=adam(model),
        epochs=9,
        batch_size=16,
        callbacks=[interrupt, Checkpoint(path)],
    )
    assert history.stopped == "interrupted" and len(history) == 2 and interrupt.ended == 1
    assert signal.getsignal(signal.SIGINT) is handler
    assert same_state(tn.load(path), model)


def test_fit_works_in_a_thread_where_no_signal_arrives():
    model, seen = network(), []
    thread = threading.Thread(
        target=lambda: seen.append(tn.fit(model, problem(), loss="mse", optimizer="adam", epochs=2))
    )
    thread.start()
    thread.join(60)
    assert len(seen[0]) == 2


@pytest.mark.parametrize("make", [adam, momentum])
@pytest.mark.parametrize("stop_at", [6, 7, 8])
def test_a_resumed_run_ends_in_the_same_bits(make, stop_at, tmp_path):
    whole, path = network(), tmp_path / "run.safetensors"
    reference = tn.fit(whole, problem(), loss="mse", optimizer=make(whole), epochs=5, batch_size=16)
    first = network()
    stop = At(stop_at, lambda run: run.stop("enough"))
    tn.fit(
        first, problem(), loss="mse", optimizer=make(first), epochs=5, batch_size=16, callbacks=[stop, Checkpoint(path)]
    )
    second = network()
    history = tn.fit(second, problem(), loss="mse", optimizer=make(second), epochs=5, batch_size=16, resume=path)
    assert same_state(whole, second)
    np.testing.assert_allclose(history["loss"], reference["loss"], rtol=1e-12)


def test_a_run_of_something_else_is_refused_and_nothing_changes(tmp_path):
    model, path = network(), tmp_path / "run.safetensors"
    tn.fit(model, problem(), loss="mse", optimizer=adam(model), epochs=1, callbacks=[Checkpoint(path)])
    other = tn.nn.Sequential(tn.nn.Dense(3, 9), tn.nn.Dense(9, 1))
    again = network()
    for target, optimizer, data in (
        (other, adam(other), problem()), (again, momentum(again), problem()), (again, adam(again), problem(12)),
    ):  # fmt: skip
        before = target.state_dict()
        with pytest.raises(CheckpointError):
            tn.fit(target, data, loss="mse", optimizer=optimizer, epochs=2, resume=path)
        assert all(np.array_equal(v, before[k]) for k, v in target.state_dict().items())
        assert optimizer.steps == 0
    tn.save(model, path)
    with pytest.raises(CheckpointError, match="a training run"):
        tn.fit(again, problem(), loss="mse", optimizer=adam(again), epochs=2, resume=path)


# ---- callbacks ----


def test_an_error_in_a_callback_comes_out_after_the_others_have_ended():
    def fail(run):
        raise RuntimeError("broken callback")

    model, other = network(), At(0, None)
    with pytest.raises(RuntimeError, match="broken callback"):
        tn.fit(model, problem(), loss="mse", optimizer="adam", epochs=1, callbacks=[At(2, fail), other])
    assert other.ended == 1


def test_early_stopping_gives_back_the_best_epoch():
    class Spoil(Callback):
        """After the second epoch, training makes the model worse."""

        def on_epoch(self, run):
            if run.epoch == 2:
                self.best = run.model.state_dict()
            if run.epoch >= 2:
                run.model[2].bias.data = run.model[2].bias.data + 100.0 * run.epoch

    model, spoil = network(), Spoil()
    history = tn.fit(
        model, problem(), loss="mse", optimizer=tn.optim.Adam(model.parameters(), lr=1e-3), epochs=20,
        valid=problem(12), callbacks=[EarlyStopping(patience=3), spoil],
    )  # fmt: skip
    assert "valid_loss has not improved for 3 epochs" in history.stopped and len(history) == 5
    assert all(np.array_equal(v, spoil.best[k]) for k, v in model.state_dict().items())


def test_early_stopping_on_an_unknown_column_says_which_there_are():
    model = network()
    with pytest.raises(ArgumentError, match="loss, lr"):
        tn.fit(model, problem(), loss="mse", optimizer="adam", epochs=2, callbacks=[EarlyStopping("valid_loss")])


def test_csv_log_holds_the_history(tmp_path):
    model, path = network(), tmp_path / "log.csv"
    history = tn.fit(model, problem(), loss="mse", optimizer="adam", epochs=3, callbacks=[CSVLog(path)])
    lines = path.read_text().splitlines()
    assert lines[0].split(",") == list(history.columns) and len(lines) == 4
    assert [float(line.split(",")[1]) for line in lines[1:]] == history["loss"]


@pytest.mark.parametrize("tqdm", [True, False])
def test_progress_is_shown_with_and_without_tqdm(tqdm, monkeypatch, capsys):
    if tqdm:
        pytest.importorskip("tqdm")
    else:
        monkeypatch.setitem(__import__("sys").modules, "tqdm", None)
    model = network()
    tn.fit(model, problem(), loss="mse", optimizer="adam", epochs=2, valid=problem(12), callbacks=[Progress(every=0)])
    shown = capsys.readouterr().err
    assert "epoch 2/2" in shown and "valid_loss" in shown
