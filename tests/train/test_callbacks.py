"""Callbacks one by one: when they write, when they stop, what they give back, and what they refuse."""

import csv
import sys

import numpy as np
import pytest

import tinynet as tn
from tinynet.errors import ArgumentError
from tinynet.train import Callback, Checkpoint, CSVLog, EarlyStopping, Progress

X = np.random.default_rng(0).normal(size=(24, 3)).astype("float32")
DATA = X, X.sum(axis=1, keepdims=True)


def network():
    tn.seed(1)
    return tn.nn.Sequential(tn.nn.Dense(3, 4, "tanh"), tn.nn.Dense(4, 1))


def fit(callbacks, epochs=4, model=None, **options):
    options = {"loss": "mse", "optimizer": "adam", "batch_size": 8} | options
    return tn.fit(model or network(), DATA, epochs=epochs, callbacks=callbacks, **options)


class Script(Callback):
    """Writes given numbers into a column of the history, and remembers the model after each epoch."""

    def __init__(self, values, column="score"):
        self.values, self.column, self.states = values, column, []

    def on_epoch(self, run):
        run.history[-1][self.column] = self.values[run.epoch - 1]
        self.states.append(run.model.state_dict())


class Seen(Callback):
    """Remembers on which occasions it was asked."""

    def __init__(self):
        self.calls = []

    def on_begin(self, run):
        self.calls.append(("begin", run.step))

    def on_step(self, run):
        self.calls.append(("step", run.step))
        assert run.loss.shape == () and not run.loss.requires_grad

    def on_epoch(self, run):
        self.calls.append(("epoch", run.epoch))

    def on_end(self, run):
        self.calls.append(("end", run.step))


def same(a, b):
    return all((a[name] == b[name]).all() for name in a)


def test_they_are_asked_in_order():
    seen = Seen()
    fit([seen], epochs=2)
    assert seen.calls == [
        ("begin", 0), ("step", 1), ("step", 2), ("step", 3), ("epoch", 1), ("step", 4), ("step", 5), ("step", 6),
        ("epoch", 2), ("end", 6),
    ]  # fmt: skip


def test_a_callback_that_fails_at_the_beginning_leaves_the_model_as_it_was():
    class Broken(Callback):
        def on_begin(self, run):
            raise RuntimeError("not today")

    model = network().eval()
    before = model.state_dict()
    with pytest.raises(RuntimeError, match="not today"):
        fit([Broken()], model=model)
    assert same(model.state_dict(), before) and not model.training


# ---- early stopping ----


@pytest.mark.parametrize(
    "values, options, epochs, best",
    [
        ([5, 4, 4, 4, 4, 4, 4], {"patience": 2}, 4, 2),
        ([5, 4, 6, 3, 6, 6, 6], {"patience": 2}, 6, 4),
        ([7, 6, 5, 4, 3, 2, 1], {"patience": 1}, 7, 7),
        ([5, 6, 5, 4, 4, 4, 4], {"patience": 3, "mode": "max"}, 5, 2),
        ([5.0, 4.5, 4.2, 3.9, 3, 3, 3], {"patience": 3, "min_delta": 1.0}, 7, 4),
        ([np.nan] * 7, {"patience": 3}, 3, None),
    ],
)
def test_it_stops_when_nothing_has_improved_for_so_long_and_gives_back_the_best(values, options, epochs, best):
    model, script = network(), Script(values)
    history = fit([script, EarlyStopping("score", **options)], epochs=7, model=model)
    assert len(history) == epochs
    reason = f"score has not improved for {options['patience']} epochs"
    assert history.stopped == (None if best == 7 else reason)
    assert same(model.state_dict(), script.states[-1 if best is None else best - 1])


def test_accuracies_and_r2_are_to_grow_of_their_own_accord():
    for column in ("valid_accuracy", "valid_r2"):
        history = fit([Script([1, 2, 3, 2, 2, 9], column), EarlyStopping(column, patience=2)], epochs=6)
        assert len(history) == 5


def test_without_restore_best_the_last_parameters_stay():
    model, script = network(), Script([1, 2, 2, 2])
    fit([script, EarlyStopping("score", patience=2, restore_best=False)], model=model)
    assert len(script.states) == 3 and same(model.state_dict(), script.states[-1])


@pytest.mark.parametrize("options", [{"patience": 0}, {"min_delta": -1}, {"mode": "up"}])
def test_early_stopping_refuses_what_makes_no_sense(options):
    with pytest.raises(ArgumentError, match="patience >= 1"):
        EarlyStopping(**options)


# ---- checkpoints ----


class Times(Callback):
    """After which epochs a file has changed."""

    def __init__(self, path):
        self.path, self.epochs, self._before = path, [], None

    def on_epoch(self, run):
        now = self.path.read_bytes() if self.path.exists() else None
        if now != self._before:
            self.epochs.append(run.epoch)
        self._before = now


@pytest.mark.parametrize("every, epochs", [(1, [1, 2, 3, 4, 5]), (2, [2, 4]), (9, [])])
def test_a_checkpoint_is_written_every_so_many_epochs_and_at_the_end(tmp_path, every, epochs):
    path, model = tmp_path / "m", network()
    times = Times(path)
    fit([Checkpoint(path, every, extra={"note": "grün"}), times], epochs=5, model=model)
    assert times.epochs == epochs
    assert same(tn.load(path).state_dict(), model.state_dict())
    assert tn.train.load_extra(path) == {"note": "grün"}


def test_a_monitored_checkpoint_holds_the_best_epoch(tmp_path):
    path, script = tmp_path / "m", Script([3, 2, 4, 1, 5, np.nan])
    times = Times(path)
    fit([script, Checkpoint(path, monitor="score"), times], epochs=6)
    assert times.epochs == [1, 2, 4]
    assert same(tn.load(path).state_dict(), script.states[3])


def test_a_monitored_checkpoint_on_an_unknown_column_says_which_there_are(tmp_path):
    with pytest.raises(ArgumentError, match=r"epoch, loss.*'valid_los'"):
        fit([Checkpoint(tmp_path / "m", monitor="valid_los")])
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_object_can_be_used_again(tmp_path):
    checkpoint = Checkpoint(tmp_path / "m", every=100)
    for seed in (1, 2):
        model = network()
        tn.fit(model, DATA, loss="mse", optimizer="adam", epochs=1, seed=seed, callbacks=[checkpoint], batch_size=8)
        assert same(tn.load(tmp_path / "m").state_dict(), model.state_dict())


def test_a_checkpoint_refuses_what_makes_no_sense(tmp_path):
    with pytest.raises(ArgumentError, match="every >= 1"):
        Checkpoint(tmp_path / "m", every=0)


def test_an_error_within_a_step_writes_no_checkpoint_and_one_between_steps_does(tmp_path):
    class Fail(Callback):
        def on_step(self, run):
            if run.step == 4:
                raise RuntimeError("between steps")

    with pytest.raises(RuntimeError, match="between steps"):
        fit([Fail(), Checkpoint(tmp_path / "between", every=9)])
    assert (tmp_path / "between").exists()

    calls = []

    def loss(pred, target):
        calls.append(None)
        if len(calls) == 5:
            raise RuntimeError("within a step")
        return tn.losses.mse(pred, target)

    with pytest.raises(RuntimeError, match="within a step"):
        tn.fit(network(), DATA, loss=loss, optimizer="adam", epochs=3, batch_size=8, capture=False,
               callbacks=[Checkpoint(tmp_path / "within", every=9)])  # fmt: skip
    assert not (tmp_path / "within").exists()


# ---- logs ----


def rows(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_log_can_be_read_while_training_goes_on(tmp_path):
    counts, path = [], tmp_path / "log.csv"

    class Count(Callback):
        def on_epoch(self, run):
            counts.append(len(rows(path)))

    fit([CSVLog(path), Count()], epochs=3)
    assert counts == [1, 2, 3]


def test_a_log_replaces_what_was_there_and_after_a_resumption_holds_every_epoch_once(tmp_path):
    path, run = tmp_path / "log.csv", tmp_path / "run"
    path.write_text("something else\n")
    fit([CSVLog(path), Checkpoint(run, every=2), Script([0] * 3)], epochs=2)
    assert [row["epoch"] for row in rows(path)] == ["1", "2"]
    with open(path, "a", encoding="utf-8") as file:
        file.write("3,lost,with,a,crash\n")
    history = fit([CSVLog(path)], epochs=4, resume=run)
    assert [row["epoch"] for row in rows(path)] == ["1", "2", "3", "4"]
    assert [float(row["loss"]) for row in rows(path)] == history["loss"]


def test_progress_on_a_terminal_renews_one_line(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    fit([Progress(every=0)], epochs=2)
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1 and shown.endswith("\n") and shown.count("\r") == 8
    assert "epoch 2/2  step 6/6  loss" in shown.rsplit("\r", 1)[1]


def test_progress_into_a_file_writes_a_line_now_and_then(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    fit([Progress(every=0)], epochs=40)
    lines = capsys.readouterr().err.splitlines()
    assert 9 <= len(lines) <= 12 and lines[-1].startswith("epoch 40/40  step 120/120")


class Ends(Callback):
    def __init__(self, at: str | None = None):
        self.at, self.begun, self.ended = at, 0, 0

    def on_begin(self, run):
        self.begun += 1
        if self.at == "begin":
            raise ValueError("at the beginning")

    def on_end(self, run):
        self.ended += 1
        if self.at == "end":
            raise ValueError("at the end")


def tiny(*callbacks):
    x = np.ones((8, 2), "float32")
    return tn.fit(tn.nn.Dense(2, 1), (x, x[:, :1]), loss="mse", optimizer="gd", epochs=2, callbacks=callbacks)


def test_every_callback_comes_to_its_end_though_one_fails_at_it(tmp_path):
    fails, path = Ends("end"), tmp_path / "run.safetensors"
    last = Ends()
    with pytest.raises(ValueError, match="at the end"):
        tiny(fails, Checkpoint(path, every=100), last)
    assert path.exists() and fails.ended == last.ended == 1


def test_those_that_began_come_to_their_end_though_another_cannot_begin(tmp_path):
    first, path = Ends(), tmp_path / "run.safetensors"
    path.write_bytes(b"of another run")
    with pytest.raises(ValueError, match="at the beginning"):
        tiny(first, Checkpoint(path), Ends("begin"), last := Ends())
    assert (first.begun, first.ended, last.begun, last.ended) == (1, 1, 0, 0)
    assert path.read_bytes() == b"of another run", "nothing was trained that could take its place"


def test_a_column_that_comes_later_is_logged_too(tmp_path):
    class Adds(Callback):
        def on_epoch(self, run):
            if run.epoch == 2:
                run.history[-1]["late"] = 7

    tiny(Adds(), CSVLog(tmp_path / "log.csv"))
    with open(tmp_path / "log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["late"] for row in rows] == ["", "7"] and [row["epoch"] for row in rows] == ["1", "2"]
