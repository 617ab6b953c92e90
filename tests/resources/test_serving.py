"""A server answers as the model does, whoever asks beside one, refuses what is no sample, and allocates nothing."""

from __future__ import annotations

import gc
import itertools
import sys
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import tinynet as tn
from tinynet.resources.serving.programs import ladder

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # bench is run from the checkout and is not installed

from bench import serving as bench

LONG = 60.0  # seconds: a deadline that nothing misses


def network(*sizes, seed=0, dropout=0.0):
    tn.seed(seed)
    layers = [tn.nn.Dense(n, m, "tanh" if m != sizes[-1] else None) for n, m in itertools.pairwise(sizes)]
    return tn.nn.Sequential(*layers[:1], *([tn.nn.Dropout(dropout)] if dropout else []), *layers[1:])


def samples(n, features, seed=0):
    return np.random.default_rng(seed).standard_normal((n, features), dtype="float32")


def near(a, b):
    return a.shape == b.shape and a.dtype == b.dtype and np.allclose(a, b, atol=1e-5)


# ---- answers ----


def test_sizes_of_programs_fill_a_batch_up_by_a_fifth_at_most():
    for batch in (*range(1, 70), 100, 256, 1000):
        sizes = ladder(batch)
        assert sizes[0] == 1 and sizes[-1] == batch and sizes == sorted(set(sizes))
        for rows in range(1, batch + 1):
            size = next(size for size in sizes if size >= rows)
            assert size - rows <= size / 5
    assert ladder(16) == [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16]
    assert len(ladder(256)) == 28


@pytest.mark.parametrize("batch", [1, 3, 11])
def test_samples_and_rows_are_answered_as_the_model_answers_them(batch):
    model, x = network(5, 8, 3), samples(batch, 5)
    expected = tn.predict(model, x)
    with tn.serve(model, batch, LONG) as server:
        for row, answer in zip(x, expected):
            assert near(server(row), answer)
        for rows in range(1, batch + 1):
            assert near(server(x[:rows]), expected[:rows])
            assert near(server.submit(x[:rows]).result(20), expected[:rows])
        assert near(server.submit(x[0]).result(20), expected[0])


def test_a_sample_may_come_in_any_form():
    model, x = network(4, 6, 2), samples(6, 4)
    expected = tn.predict(model, x)
    with tn.serve(model, 8, LONG) as server:
        for form in (x.astype("float64"), tn.tensor(x), x.tolist(), np.asfortranarray(x), x[::-1][::-1]):
            assert near(server(form), expected)
        assert near(server(x[0].tolist()), expected[0])


def test_answers_keep_their_numbers_and_submitted_samples_too():
    model, x = network(4, 6, 2), samples(2, 4)
    expected = tn.predict(model, x)
    with tn.serve(model, 1, LONG) as server:
        first, given = server(x[0]), x[1].copy()
        future = server.submit(given)
        given[:] = 0
        assert near(future.result(20), expected[1]) and near(first, expected[0])


def test_the_model_keeps_its_mode_and_is_served_without_dropout():
    model, x = network(4, 50, 2, dropout=0.5), samples(1, 4)
    assert model.training
    with tn.serve(model, 2, LONG) as server:
        assert model.training
        assert near(server(x), tn.predict(model, x)) and near(server(x), server(x))


def test_weights_that_change_in_place_are_seen_by_the_next_request():
    model, x = network(4, 6, 2), samples(32, 4)
    with tn.serve(model, 4, LONG) as server:
        before = server(x[:3])
        model.load_state_dict(network(4, 6, 2, seed=1).state_dict())
        loaded = server(x[:3])
        assert not np.allclose(before, loaded) and near(loaded, tn.predict(model, x[:3]))
        optimizer = tn.optim.Adam(model.parameters(), lr=0.1)
        tn.fit(model, (x, x[:, :2].copy()), loss="mse", optimizer=optimizer, epochs=3, batch_size=8)
        assert not np.allclose(loaded, server(x[:3])) and near(server(x[:3]), tn.predict(model, x[:3]))
        model.astype("float64")
        with pytest.raises(tn.errors.ArgumentError, match=r"parameters where they were .* another server after to\(\)"):
            server(x[:3])


def test_float64_models_are_served_in_float64():
    model = network(4, 6, 2).astype("float64")
    with tn.serve(model, 2, LONG, executor="numpy") as server:
        x = np.random.default_rng(0).standard_normal((2, 4))
        assert near(server(x), tn.predict(model, x))
        assert near(server(x.tolist()), tn.predict(model, x)), "numbers are not rounded to float32 on the way"


def test_models_on_every_backend_that_has_programs_are_served(any_program_backend):
    model, x = network(4, 6, 2), samples(3, 4)
    expected = model(tn.tensor(x)).numpy()
    with tn.serve(model, 3, LONG) as server:
        for answer, right in ((server(x), expected), (server(x[0]), expected[0])):
            assert type(answer) is np.ndarray and near(answer, right)


def test_answers_are_not_in_the_arena_of_the_thread_that_runs_them():
    with tn.serve(network(4, 6, 2), 2, LONG) as server, tn.Arena("1MB") as arena:
        server(samples(2, 4))
        assert arena.stats().served == 0


# ---- what is refused ----


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (np.zeros(5, "float32"), "ShapeError", r"sample of shape \(4,\), or 1 to 2 rows of it, got shape \(5,\)"),
        (np.zeros((3, 4), "float32"), "ShapeError", r"got shape \(3, 4\).*a larger batch"),
        (np.zeros((0, 4), "float32"), "ShapeError", r"got shape \(0, 4\)"),
        (np.zeros((1, 1, 4), "float32"), "ShapeError", r"got shape \(1, 1, 4\)"),
        (np.zeros(4, "uint8"), "DTypeError", "samples of float32, got uint8. Convert and scale"),
        (np.zeros(4, "complex64"), "DTypeError", "complex64"),
        (["a"] * 4, "DTypeError", "one of bool, int8"),
        ([[1, 2], [3]], "ShapeError", "nested lists of equal lengths"),
    ],
)
def test_what_is_no_sample_is_refused(x, error, message):
    with tn.serve(network(4, 6, 2), 2, LONG) as server:
        for ask in (server, server.submit):
            with pytest.raises(getattr(tn.errors, error), match=message):
                ask(x)
        assert server.stats().accepted == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 0}, "batch to be a whole number from 1 on, got 0"),
        ({"batch": 1.5}, "batch to be a whole number"),
        ({"queue": True}, "queue to be a whole number"),
        ({"deadline": "soon"}, "deadline: expected seconds above 0"),
        ({"deadline": 0}, "deadline: expected seconds above 0"),
        ({"deadline": 1e-9}, "a deadline that one sample can meet, longer than"),
        ({"executor": "fast"}, "executor"),
    ],
)
def test_options_out_of_their_range_are_refused(options, message):
    with pytest.raises(tn.errors.ArgumentError, match=message):
        tn.serve(network(4, 6, 2), **options)


def test_models_that_cannot_be_served_are_refused():
    class Model(tn.nn.Module):
        def __init__(self, forward):
            super().__init__()
            self.dense, self.function = tn.nn.Dense(4, 4), forward

        def forward(self, x):
            return self.function(self.dense(x))

    mixing = Model(lambda y: y - y.mean(axis=0, keepdims=True))
    with pytest.raises(tn.errors.CaptureError, match=r"answers each sample by itself.*batch=1"):
        tn.serve(mixing, 4, LONG)
    assert np.all(tn.serve(mixing, 1, LONG)(samples(1, 4)) == 0)
    for forward, message in ((lambda y: y.sum(), r"one of shape \(\)"), (lambda y: (y, y), "a tuple")):
        with pytest.raises(tn.errors.CaptureError, match=rf"a model that returns a tensor of 1 rows, got {message}"):
            tn.serve(Model(forward), 1, LONG)
    with pytest.raises(tn.errors.CaptureError):
        tn.serve(Model(lambda y: y * float(y.sum().item())), 1, LONG)
    with pytest.raises(tn.errors.ArgumentError, match="serve: expected an input_shape"):
        tn.serve(tn.nn.Sequential(tn.nn.ReLU()))
    with pytest.raises(tn.errors.ArgumentError, match="Module, got function"):
        tn.serve(lambda x: x)


def test_a_backend_without_programs_is_refused(strict):
    with pytest.raises(tn.errors.BackendError, match="got strict"):
        tn.serve(network(4, 6, 2).to(strict))


def test_a_value_out_of_bounds_fails_its_own_request_alone():
    class Lookup(tn.nn.Module):
        def __init__(self):
            super().__init__()
            self.dense = tn.nn.Dense(3, 2)

        def forward(self, index):
            return self.dense.weight[index]

    model, answers = Lookup(), {}
    table = model.dense.weight.numpy()
    with tn.serve(model, 8, LONG, input_shape=(1,), dtype="int64") as server:

        def client(i):
            try:
                answers[i] = server([[i % 4]] if i % 2 else np.array([i % 4]))
            except tn.errors.RangeError as error:
                answers[i] = error

        threads = [threading.Thread(target=client, args=(i,)) for i in range(40)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        stats = server.stats()
    assert (stats.accepted, stats.failed, stats.missed) == (40, 10, 0)
    for i, answer in answers.items():
        if i % 4 == 3:
            assert isinstance(answer, tn.errors.RangeError)
        else:
            assert np.array_equal(answer.reshape(2), table[i % 4])


def test_integers_stay_whole_and_in_their_range():
    class Twice(tn.nn.Module):
        def forward(self, x):
            return x * 2

    with tn.serve(Twice(), 2, LONG, input_shape=(2,), dtype="int16") as server:
        assert server([1, 2]).tolist() == [2, 4] and server(np.int64([[3, 4]])).tolist() == [[6, 8]]
        for x in ([1.5, 2], np.zeros(2), [1, 2**20], np.int64([1, 2**20])):
            with pytest.raises(tn.errors.DTypeError):
                server(x)


# ---- what it costs ----


@pytest.mark.parametrize("batch", [1, 12], ids=["as it is", "filled up"])
def test_a_request_allocates_no_array_but_its_result(batch):
    """A sample takes 64 kB, which would show; results take 8 bytes, and the histogram fills its buckets."""
    model, x = network(16384, 8, 2), samples(batch, 16384)
    with tn.serve(model, batch, LONG) as server:
        asks = [lambda: server(x[0]), lambda: server(x), lambda: server(x[: max(batch - 1, 1)])]
        for ask in asks * 10:
            ask()
        gc.collect()
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            for ask in asks * 330:
                ask()
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak - before < 32768


def test_what_a_server_counts():
    with tn.serve(network(4, 6, 2), 4, LONG) as server:
        assert np.isnan(server.stats().p99)
        for rows in (1, 2, 3):
            server(samples(rows, 4))
        stats = server.stats()
    assert (stats.accepted, stats.refused, stats.failed, stats.missed, stats.waiting) == (3, 0, 0, 0, 0)
    assert (stats.batches, stats.rows, stats.deadline) == (3, 6, LONG)
    assert 0 < stats.p50 <= stats.p99 <= stats.p999 <= stats.worst < LONG
    assert str(stats).startswith("3 accepted (0 failed), 0 refused, 0 waiting; 2.0 rows to a batch; p50 ")
    assert repr(server) == "Server((4,) float32, batch=4, deadline=60 s)"


@pytest.mark.parametrize("batch", [1, 8])
def test_twice_the_load_it_can_take_loses_nothing_and_answers_right(batch):
    """The queue is what refuses here, so that no time decides: one is answered, two may wait, eight ask."""
    _, tally, stats = bench.overloaded(
        (64, 256, 256, 10), batch, 1.0, load=4.0, deadline=LONG, callers=8, trial=0.2, queue=2
    )
    assert (tally.lost, tally.failed, tally.wrong) == (0, 0, 0)
    assert tally.refused > 0 and tally.accepted > 0
    assert tally.offered == tally.accepted + tally.refused
    assert (stats.waiting, stats.missed, stats.deadline) == (0, 0, LONG)


def test_the_load_test_sees_wrong_answers_and_lost_ones():
    x = samples(8, 4)
    wrong = bench.drive(lambda sample: sample + 1, x, x, 0.1, 2, rate=2000)
    assert wrong.wrong == wrong.accepted == wrong.offered > 0
    failed = bench.drive(lambda sample: 1 / 0, x, x, 0.1, 2)
    assert failed.failed == 2


@pytest.mark.parametrize("error", [SystemExit, GeneratorExit, ValueError])
def test_what_a_callback_of_a_future_raises_ends_nobody_elses_answers(error):
    def fails(_):
        raise error

    with tn.serve(tn.nn.Dense(4, 2), batch=4, deadline="10s") as server:
        for _ in range(3):
            future = server.submit(np.ones(4, "float32"))
            future.add_done_callback(fails)
            assert future.result(10).shape == (2,)
        assert server(np.ones(4, "float32")).shape == (2,)
    assert server.stats().accepted == 4
