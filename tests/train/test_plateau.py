"""``ReduceLROnPlateau``: when the rate falls, by how much, and that a resumed run does the same."""

import pytest

import tinynet as tn
from tinynet.errors import ArgumentError
from tinynet.train import Callback, Checkpoint, ReduceLROnPlateau

DATA = tn.data.digits()[0][:40]


class Told(Callback):
    """Writes a quantity into the history: its values are told, so that the rates can be known."""

    def __init__(self, values):
        self.values = values

    def on_epoch(self, run):
        run.history[-1]["quantity"] = self.values[run.epoch - 1]


def rates(values, epochs=None, lr=0.8, callbacks=(), resume=None, **options):
    """The rate of each epoch, and the one after the last."""
    tn.seed(0)
    model = tn.nn.Dense(64, 10)
    optimizer = tn.optim.GD(model.parameters(), lr=lr)
    history = tn.fit(
        model, DATA, loss="cross_entropy", optimizer=optimizer, epochs=epochs or len(values), batch_size=20,
        callbacks=[Told(values), ReduceLROnPlateau("quantity", 0.5, **options), *callbacks], resume=resume,
    )  # fmt: skip
    return [pytest.approx(rate, rel=1e-6) for rate in [*history["lr"], optimizer.lr]]


def test_the_rate_falls_after_so_many_epochs_without_improvement():
    assert rates([1.0, 2.0, 2.0, 2.0, 2.0], patience=2) == [0.8, 0.8, 0.8, 0.4, 0.4, 0.2]


def test_an_improvement_begins_the_count_anew():
    assert rates([3.0, 3.0, 2.0, 2.0, 2.0], patience=2) == [0.8, 0.8, 0.8, 0.8, 0.8, 0.4]


def test_what_is_less_than_min_delta_is_no_improvement():
    values = [1.0, 0.95, 0.9, 0.7]
    assert rates(values, patience=2, min_delta=0.15) == [0.8, 0.8, 0.8, 0.4, 0.4]
    assert rates(values, patience=2) == [0.8] * 5


def test_epochs_of_the_cooldown_do_not_count():
    assert rates([1.0, 2.0, 2.0, 2.0, 2.0], patience=1, cooldown=2) == [0.8, 0.8, 0.4, 0.4, 0.4, 0.2]


def test_larger_is_better_with_mode_max():
    assert rates([1.0, 2.0, 2.0], patience=1, mode="max") == [0.8, 0.8, 0.8, 0.4]


def test_the_rate_stays_above_min_lr_and_is_never_raised():
    assert rates([1.0] * 3, patience=1, min_lr=0.5) == [0.8, 0.8, 0.5, 0.5]
    assert rates([1.0] * 2, patience=1, lr=0.1, min_lr=0.5) == [0.1, 0.1, 0.1]


def test_a_resumed_run_goes_on_as_if_it_had_not_stopped(tmp_path):
    values = [1.0, 2.0, 2.0, 0.5, 2.0, 2.0, 2.0]
    whole = [rate.expected for rate in rates(values, patience=2, cooldown=1)]
    path = tmp_path / "run"
    for cut in range(1, len(values)):
        rates(values, cut, patience=2, cooldown=1, callbacks=[Checkpoint(path)])
        assert whole == rates(values, patience=2, cooldown=1, resume=path)


def test_training_with_too_high_a_rate_comes_to_its_end():
    """A line through two points: its steps diverge at rates above one over the larger eigenvalue."""

    def loss(callbacks):
        tn.seed(0)
        model = tn.nn.Dense(1, 1)
        data = [[1.0], [-1.0]], [[3.0], [1.0]]
        optimizer = tn.optim.GD(model.parameters(), lr=1.2)
        data = tuple(tn.tensor(part) for part in data)
        options = {"loss": "mse", "optimizer": optimizer, "epochs": 30, "batch_size": 2, "callbacks": callbacks}
        return tn.fit(model, data, **options)["loss"][-1]

    assert loss([ReduceLROnPlateau("loss", 0.5, patience=1)]) < 1e-3 < 1 < loss([])


@pytest.mark.parametrize(
    "options",
    [
        {"factor": 0}, {"factor": 1}, {"patience": 0}, {"cooldown": -1}, {"min_lr": -1}, {"min_delta": -1},
        {"mode": "up"},
    ],
)  # fmt: skip
def test_numbers_out_of_range_are_refused(options):
    with pytest.raises(ArgumentError, match=r"expected .* got "):
        ReduceLROnPlateau(**options)


def test_a_schedule_and_an_unknown_column_are_refused():
    model = tn.nn.Dense(64, 10)
    options = {"loss": "cross_entropy", "epochs": 1, "callbacks": [ReduceLROnPlateau()]}
    with pytest.raises(ArgumentError, match="schedule"):
        tn.fit(model, DATA, optimizer=tn.optim.GD(model.parameters(), tn.optim.cosine(0.1, 10)), **options)
    with pytest.raises(ArgumentError, match="valid_loss"):
        tn.fit(model, DATA, optimizer="gd", **options)
