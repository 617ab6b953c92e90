"""Batch sizes that change during a run: schedules, the noise scale, what ``fit`` makes of them, and that it pays."""

import importlib
import itertools
import math

import numpy as np
import pytest

import tinynet as tn
from tinynet.errors import ArgumentError
from tinynet.resources.batches import (
    GradientNoise,
    NoiseScale,
    gradient_noise,
    growing,
    mixed,
    shrinking,
    stages,
    steps,
)
from tinynet.train import Callback, Checkpoint

capture_module = importlib.import_module("tinynet.program.capture")  # whose name in the package is its function
RNG = np.random.default_rng(0)
X = RNG.normal(size=(100, 3)).astype("float32")
DATA = X, (X @ np.array([[1.0], [-2.0], [0.5]]) + RNG.normal(size=(100, 1)) / 10).astype("float32")


def network():
    return tn.nn.Sequential(tn.nn.Dense(3, 8, "tanh"), tn.nn.Dropout(0.2), tn.nn.Dense(8, 1))


def train(batch_size, epochs=4, callbacks=(), **options):
    tn.seed(3)
    model = network()
    optimizer = tn.optim.Adam(model.parameters(), lr=0.01)
    history = tn.fit(
        model, DATA, loss="mse", optimizer=optimizer, epochs=epochs, batch_size=batch_size, callbacks=callbacks,
        **options,
    )
    return model, history


class Lengths(Callback):
    """Notes the length of each batch, by epoch."""

    def __init__(self):
        self.epochs = {}

    def on_step(self, run):
        self.epochs.setdefault(run.epoch, []).append(len(run.batch[0]))


class At(Callback):
    """Does something after a given step."""

    def __init__(self, step, action):
        self.step, self.action = step, action

    def on_step(self, run):
        if run.step == self.step:
            self.action(run)


# ---- schedules ----


def sizes(schedule, epochs):
    return [schedule(epoch) for epoch in range(epochs)]


def test_growing_doubles_up_to_the_most():
    assert sizes(growing(32, most=200), 5) == [32, 64, 128, 128, 128]
    assert sizes(growing(10, most=40, every=2), 6) == [10, 10, 20, 20, 40, 40]
    assert sizes(growing(10, most=1000, factor=10), 4) == [10, 80, 640, 640]


def test_shrinking_halves_down_to_the_least():
    assert sizes(shrinking(256, least=64), 4) == [256, 128, 64, 64]
    assert sizes(shrinking(500, least=32), 6) == [500, 256, 128, 64, 32, 32]


@pytest.mark.parametrize("schedule", [
    growing(32, most=10_000, factor=1.1), growing(7, most=999, factor=3), shrinking(10_000, least=32, factor=1.1),
])  # fmt: skip
def test_however_slowly_it_changes_there_are_few_sizes_and_no_overflow(schedule):
    found = sizes(schedule, 500)
    assert len(set(found)) <= 10 and found[-1] == schedule(10**6)
    assert found in (sorted(found), sorted(found, reverse=True))


def test_stages_begin_at_their_epochs():
    assert sizes(stages({0: 32, 2: [64, 128], 5: 256}), 7) == [32, 32, [64, 128], [64, 128], [64, 128], 256, 256]


def test_mixed_sizes_may_be_schedules():
    assert sizes(mixed(16, growing(32, most=64)), 3) == [(16, 32), (16, 64), (16, 64)]


@pytest.mark.parametrize(("make", "message"), [
    (lambda: growing(0, most=8), "start to be an integer of at least 1"),
    (lambda: growing(8, most=4), "most to be an integer of at least 8"),
    (lambda: growing(8, most=16.0), "most"),
    (lambda: growing(8, most=16, factor=1), "a factor above 1"),
    (lambda: growing(8, most=16, every=0), "every"),
    (lambda: shrinking(4, least=8), "start to be an integer of at least 8"),
    (lambda: shrinking(8, least=4, factor=math.nan), "a factor above 1"),
    (lambda: stages({1: 32}), "one of them epoch 0"),
    (lambda: stages({0: 32, "2": 64}), "one of them epoch 0"),
    (lambda: mixed(), "at least one batch size"),
    (lambda: mixed(32, 0), "size to be an integer of at least 1"),
    (lambda: NoiseScale("mse", least=0, most=8), "least"),
    (lambda: NoiseScale("mse", least=8, most=4), "most to be an integer of at least 8"),
    (lambda: NoiseScale("mse", least=8, most=16, batches=1), "batches to be an integer of at least 2"),
    (lambda: NoiseScale("mse", least=8, most=16, decay=1), "decay from 0 to below 1"),
    (lambda: NoiseScale("nonsense", least=8, most=16), "mse, cross_entropy"),
])  # fmt: skip
def test_numbers_out_of_range_are_refused_at_once(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()


# ---- in fit ----


def test_a_schedule_is_asked_at_the_beginning_of_each_epoch():
    lengths = Lengths()
    _, history = train(growing(16, most=64), callbacks=[lengths])
    assert lengths.epochs == {0: [16] * 6 + [4], 1: [32] * 3 + [4], 2: [64, 36], 3: [64, 36]}
    assert history["batch_size"] == [16, 32, 64, 64]


def test_a_sequence_is_taken_in_turn_within_each_epoch():
    lengths = Lengths()
    _, history = train([10, 30], epochs=1, callbacks=[lengths])
    assert lengths.epochs == {0: [10, 30, 10, 30, 10, 10]}
    assert history["batch_size"] == [pytest.approx(100 / 6)]


def test_a_schedule_may_give_sequences_and_comes_before_the_sizes_of_a_loader():
    lengths = Lengths()
    loader = tn.data.Loader(DATA, 7)
    tn.fit(network(), loader, loss="mse", optimizer="adam", epochs=2, callbacks=[lengths],
           batch_size=stages({0: 50, 1: (25, 50)}))  # fmt: skip
    assert lengths.epochs == {0: [50, 50], 1: [25, 50, 25]}


def test_a_callback_may_change_the_size_within_an_epoch():
    lengths = Lengths()
    smaller = At(2, lambda run: setattr(run.loader, "batch_size", 10))
    _, history = train(40, epochs=2, callbacks=[lengths, smaller])
    assert lengths.epochs == {0: [40, 40, 10, 10], 1: [10] * 10}
    assert history["batch_size"] == [25, 10]


def test_the_steps_of_a_run_are_counted_at_the_sizes_there_will_be():
    seen = []

    class Watch(Callback):
        def on_step(self, run):
            seen.append((run.step, run.total_steps, run.steps_per_epoch))

    train(growing(16, most=64), callbacks=[Watch()])
    assert [total for _, total, _ in seen] == [7 + 4 + 2 + 2] * 15
    assert steps(growing(16, most=64), samples=100, epochs=4) == 15
    assert [per_epoch for *_, per_epoch in seen] == [7] * 7 + [4] * 4 + [2] * 4
    seen.clear()
    train(50, epochs=2, callbacks=[At(1, lambda run: setattr(run.loader, "batch_size", 10)), Watch()])
    assert steps([10, 30], 100, epochs=2, drop_last=True) == 2 * 5 and steps(30, 100, epochs=2) == 8
    assert seen[0] == (1, 1 + 5 + 10, 10) and seen[-1] == (16, 16, 10)


def test_a_progress_bar_follows_the_steps(capsys):
    pytest.importorskip("tqdm")
    train(growing(16, most=64), callbacks=[tn.train.Progress(every=0)])
    assert "15/15" in capsys.readouterr().err
    train(50, epochs=2, callbacks=[
        At(1, lambda run: setattr(run.loader, "batch_size", 10)), tn.train.Progress(every=0),
    ])  # fmt: skip
    assert "16/16" in capsys.readouterr().err


@pytest.mark.parametrize("bad", [0, -3, [], [16, 0], 1.5, "many", lambda epoch: 0, lambda epoch: None,
                                 lambda epoch: 16 - 16 * epoch])  # fmt: skip
def test_bad_sizes_are_refused_before_anything_changes(bad):
    model = network()
    before = {k: v.copy() for k, v in model.state_dict().items()}
    with pytest.raises(ArgumentError, match="batch_size"):
        tn.fit(model, DATA, loss="mse", optimizer="adam", epochs=2, batch_size=bad)
    assert all(np.array_equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("memory", [None, "1MB"])
def test_each_size_is_captured_once_and_found_again(monkeypatch, memory):
    """Over a run that comes back to its sizes: one program for each length of a batch, whatever the epochs."""
    made = []

    class Counting(capture_module.Variant):
        def __init__(self, trace, result, call, options):
            super().__init__(trace, result, call, options)
            made.append(call.shapes[0][0][0])

    monkeypatch.setattr(capture_module, "Variant", Counting)
    lengths = Lengths()
    back_and_forth = lambda epoch: [16, 32, (16, 32), 48][epoch % 4]
    train(back_and_forth, epochs=12, callbacks=[lengths], memory=memory)
    assert sorted(made) == sorted(set(itertools.chain(*lengths.epochs.values())))


# ---- taken up again ----


def numbers(history):
    """The history without the clock."""
    return [{k: v for k, v in row.items() if k not in ("seconds", "samples_per_second")} for row in history]


def bits(model):
    return {name: value.tobytes() for name, value in model.state_dict().items()}


SCHEDULES = {
    "growing": (lambda: growing(16, most=64), list),
    "mixed": (lambda: (10, 30), list),
    "a size set within an epoch": (lambda: 40, lambda: [At(2, lambda run: setattr(run.loader, "batch_size", 10))]),
    "by the noise scale": (lambda: 16, lambda: [NoiseScale("mse", least=8, most=64, batches=4)]),
}


@pytest.mark.parametrize("what", SCHEDULES)
@pytest.mark.parametrize("last_first", [False, True])
def test_a_run_stopped_anywhere_and_taken_up_again_comes_to_the_same_numbers(tmp_path, what, last_first):
    make, more = SCHEDULES[what]
    whole, expected = train(make(), callbacks=more())
    steps = sum(math.ceil(100 / row["batch_size"]) for row in expected)
    for stop in {1, 3, 4, 7, 8, min(12, steps - 1)}:
        path = tmp_path / f"{stop}"
        callbacks = [*more(), At(stop, lambda run: run.stop("enough")), Checkpoint(path)]
        _, history = train(make(), callbacks=callbacks[::-1] if last_first else callbacks)
        assert history.stopped == "enough"
        model, history = train(make(), resume=path, callbacks=more())
        assert bits(model) == bits(whole)
        for row, other in zip(numbers(history), numbers(expected), strict=True):
            assert row == {k: pytest.approx(v, rel=1e-9) for k, v in other.items()}


# ---- the noise scale ----


def test_two_batch_sizes_give_the_gradient_and_its_variance():
    """The expected squared norms of gradients of 4 and of 64 samples, for |G|^2 = 2 and tr(Sigma) = 48."""
    noise = GradientNoise.of(4, 2 + 48 / 4, 64, 2 + 48 / 64)
    assert noise == pytest.approx((2, 48)) and noise.scale == pytest.approx(24)
    assert GradientNoise(-0.1, 3.0).scale == math.inf and GradientNoise(1.0, 0.0).scale == 0
    averaged = GradientNoise(4.0, 10.0).averaged_with(GradientNoise(2.0, 20.0), decay=0.75)
    assert averaged == (2.5, 17.5)
    with pytest.raises(ArgumentError, match="small < large"):
        GradientNoise.of(8, 1.0, 8, 1.0)


@pytest.mark.parametrize("capture", [True, False])
def test_the_estimate_is_that_of_gradients_of_single_samples(capture):
    """Unbiased: its mean over many draws is near |G|^2 and tr(Sigma) as they are, which are computed one by one."""
    tn.seed(0)
    train_set, _ = tn.data.digits()
    data = train_set[:400]
    model = tn.nn.Sequential(tn.nn.Dense(64, 8, "tanh"), tn.nn.Dropout(0.5), tn.nn.Dense(8, 10)).eval()
    gradients = []
    for i in range(len(data)):
        model.zero_grad()
        tn.losses.cross_entropy(model(tn.tensor(data.x[i : i + 1])), tn.tensor(data.y[i : i + 1])).backward()
        gradients.append(np.concatenate([p.grad.numpy().ravel() for p in model.parameters()]))
    model.zero_grad()
    mean = np.mean(gradients, axis=0)
    square, variance = float(mean @ mean), float(np.square(gradients - mean).sum() / (len(data) - 1))
    options = {"small": 8, "batches": 10, "capture": capture}
    draws = [gradient_noise(model, data, "cross_entropy", seed=seed, **options) for seed in range(25)]
    found = np.mean(draws, axis=0)
    assert found[1] == pytest.approx(variance, rel=0.05)
    assert found[0] == pytest.approx(square, rel=0.15)
    assert all(p.grad is None for p in model.parameters()) and not model.training


def test_sizes_follow_the_noise_scale_within_their_bounds():
    lengths = Lengths()
    _, history = train(16, epochs=6, callbacks=[lengths, NoiseScale("mse", least=8, most=64, batches=4, decay=0.0)])
    for row, following in itertools.pairwise(history):
        scale = row["noise_scale"]
        assert scale == GradientNoise(row["gradient_square"], row["gradient_variance"]).scale
        size = following["batch_size"]
        assert size in (8, 16, 32, 64)
        assert (size <= scale or size == 8) and (2 * size > scale or size == 64)


def test_measuring_does_not_change_what_is_trained():
    quiet, _ = train(16)
    measured, history = train(16, callbacks=[NoiseScale("mse", least=16, most=16, every=2)])
    assert bits(quiet) == bits(measured)
    assert ["noise_scale" in row for row in history] == [False, True, False, True]


def test_data_of_less_than_two_small_batches_are_refused():
    with pytest.raises(ArgumentError, match="at least two batches of 64"):
        train(16, callbacks=[NoiseScale("mse", least=64, most=128)])


# ---- that it pays ----


def digits_run(batch_size, callbacks=(), epochs=12):
    tn.seed(0)
    train_set, test_set = tn.data.digits()
    model = tn.nn.Sequential(tn.nn.Dense(64, 48, "relu"), tn.nn.Dense(48, 10))
    counted = Lengths()
    history = tn.fit(
        model, train_set, loss="cross_entropy", optimizer=tn.optim.GD(model.parameters(), lr=0.1, momentum=0.9),
        epochs=epochs, batch_size=batch_size, callbacks=[counted, *callbacks],
    )  # fmt: skip
    steps = sum(map(len, counted.epochs.values()))
    return tn.evaluate(model, test_set, "cross_entropy")["accuracy"], steps, history


def test_growing_batches_reach_the_accuracy_of_small_ones_in_fewer_steps():
    small, small_steps, _ = digits_run(16)
    grown, grown_steps, _ = digits_run(growing(16, most=256, every=2))
    assert small > 0.94
    assert grown > small - 0.01 and grown_steps < 0.5 * small_steps


def test_the_noise_scale_grows_while_a_model_learns_and_the_batches_with_it():
    _, _, history = digits_run(16, [NoiseScale("cross_entropy", least=16, most=256, batches=64)], epochs=8)
    scales = history["noise_scale"]
    assert min(scales[-3:]) > 3 * scales[0]
    assert history["batch_size"][0] == 16 and history["batch_size"][-1] >= 128
