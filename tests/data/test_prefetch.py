"""Loader with a transform and batches made ahead: the same batches, errors where they arise, no thread left over."""

import gc
import subprocess
import sys
import threading
import time
import weakref

import numpy as np
import pytest

from tinynet.data import Dataset, Loader
from tinynet.errors import ArgumentError, DataError

N = 40


@pytest.fixture(autouse=True)
def no_thread_left_over():
    yield
    assert not threads()


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "tinynet-prefetch"]


def data():
    return Dataset(np.arange(3 * N, dtype=np.float32).reshape(N, 3), np.arange(N))


def doubled(x, y):
    return 2 * x, y + 100


def wait_for(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it does not come"
        time.sleep(0.001)


@pytest.mark.parametrize("shuffle", [True, False, "blocks"])
@pytest.mark.parametrize("batch_size", [1, 7, (3, 8), 100])
@pytest.mark.parametrize("prefetch", [1, 3, 50])
def test_batches_are_the_same_bit_for_bit(prefetch, batch_size, shuffle):
    plain = Loader(data(), batch_size, shuffle, seed=2, transform=doubled)
    ahead = Loader(data(), batch_size, shuffle, seed=2, transform=doubled, prefetch=prefetch)
    for _ in range(2):
        for (x, y), (also_x, also_y) in zip(plain, ahead, strict=True):
            np.testing.assert_array_equal(x, also_x)
            np.testing.assert_array_equal(y, also_y)
            np.testing.assert_array_equal(x[:, 0], 6 * (y - 100))


@pytest.mark.parametrize("prefetch", [0, 2])
def test_sizes_assigned_while_batches_were_made_ahead_count_from_the_next_one(prefetch):
    loader, seen = Loader(data(), 4, prefetch=prefetch), []
    for _, y in loader:
        if prefetch and not seen:
            wait_for(lambda: threads())
        seen.append(y.tolist())
        if len(seen) == 3:
            loader.batch_size = 9
    assert [len(each) for each in seen] == [4, 4, 4, 9, 9, 9, 1]
    assert np.concatenate(seen).tolist() == next(iter(Loader(data(), N)))[1].tolist()


def test_at_most_so_many_batches_live_at_once():
    made, most, limit = [], [], 3

    def counted(x, y):
        x = x.copy()
        made.append(weakref.ref(x))
        most.append(sum(ref() is not None for ref in made))
        return x, y

    taken = 0
    for x, _ in Loader(data(), 2, transform=counted, prefetch=limit):
        taken += 1
        # As far ahead as it goes: the batch at hand, those that are ready, and the one that waits for room.
        wait_for(lambda: len(made) >= min(taken + limit + 1, N // 2))  # noqa: B023 - waited for at once
        del x
    assert taken == N // 2 and max(most) == limit + 2


def test_a_state_counts_what_was_handed_out():
    made = []

    def noted(x, y):
        made.append(len(y))
        return x, y

    loader = Loader(data(), 4, transform=noted, prefetch=5)
    batches = iter(loader)
    next(batches), next(batches)
    wait_for(lambda: len(made) >= 7)
    state = loader.state_dict()
    batches.close()
    assert (state["batch"], state["row"]) == (2, 8)
    resumed = Loader(data(), 4, prefetch=5)
    resumed.load_state_dict(state)
    assert len(list(resumed)) == 8


def test_two_iterations_side_by_side_do_not_mix():
    whole = Loader(data(), 6)
    epochs = [[y.tolist() for _, y in whole] for _ in range(2)]
    loader = Loader(data(), 6, prefetch=2)
    pairs = [(a[1].tolist(), b[1].tolist()) for a, b in zip(loader, loader)]
    assert [a for a, _ in pairs] == epochs[0] and [b for _, b in pairs] == epochs[1]


# ---- errors ----


def fails_at(row):
    def fails(x, y):
        if (y == row).any():
            raise KeyError("not this one")
        return x, y

    return fails


@pytest.mark.parametrize("prefetch", [0, 1, 4])
def test_an_error_comes_at_its_batch_and_names_the_sample(prefetch):
    loader = Loader(data(), 4, shuffle=False, transform=fails_at(21), prefetch=prefetch)
    seen = []
    with pytest.raises(DataError, match=r"epoch 0, batch 5 \(rows 20 to 23\).*sample at row 21 ") as caught:
        for _, y in loader:
            seen.append(y.tolist())
    assert np.concatenate(seen).tolist() == list(range(20))
    assert isinstance(caught.value.__cause__, KeyError)
    assert loader.state_dict()["row"] == 20
    loader.transform = None
    assert len(list(loader)) == 10 and loader.epoch == 2


@pytest.mark.parametrize("prefetch", [0, 2])
def test_an_error_that_no_row_raises_by_itself_names_the_rows(prefetch):
    def two_at_least(x, y):
        if len(x) > 1:
            raise ValueError("too many")
        return x, y

    loader = Loader(data(), 10, seed=1, transform=two_at_least, prefetch=prefetch)
    rows = ", ".join(map(str, next(iter(Loader(data(), 10, seed=1)))[1][:8]))
    with pytest.raises(DataError, match=rf"batch 0 \(rows {rows} and 2 more\)") as caught:
        next(iter(loader))
    assert "by itself" not in str(caught.value)


@pytest.mark.parametrize("returned", [
    None, 3, (1,), (np.zeros((2, 1)), np.zeros(3)), (1.0, 2.0), (np.zeros((0, 3)), np.zeros(0)),
])  # fmt: skip
def test_a_transform_returns_a_pair_with_a_row_per_sample(returned):
    with pytest.raises(DataError, match="batch 0") as caught:
        next(iter(Loader(data(), 4, transform=lambda x, y: returned)))
    assert isinstance(caught.value.__cause__, DataError)


def test_a_transform_may_write_into_its_batch_and_not_into_the_data():
    def zero(x, y):
        x[:] = 0
        return x, y

    loader = Loader(data(), 4, shuffle=False, transform=zero)
    assert not np.concatenate([x for x, _ in loader]).any()
    np.testing.assert_array_equal(loader.dataset.x, data().x)


@pytest.mark.parametrize(("options", "said"), [
    ({"prefetch": -1}, "prefetch of at least 0"), ({"prefetch": 1.5}, "prefetch of at least 0"),
    ({"transform": 3}, "transform, a function"), ({"shuffle": "random"}, "shuffle True"),
    ({"window_rows": 10}, "window_rows with shuffle='blocks'"),
    ({"shuffle": "blocks", "window_rows": 0}, "window_rows of"),
])  # fmt: skip
def test_other_options_are_refused(options, said):
    with pytest.raises(ArgumentError, match=said):
        Loader(data(), 4, **options)


# ---- the end of the thread ----


def test_an_epoch_that_is_left_ends_its_thread():
    loader = Loader(data(), 4, prefetch=2)
    for _ in loader:
        assert threads()
        break
    assert not threads()
    with pytest.raises(ZeroDivisionError):
        for _ in loader:
            raise ZeroDivisionError
    gc.collect()  # the traceback held the frame
    assert not threads()
    next(iter(loader))
    assert not threads()


def test_an_iteration_that_is_no_longer_in_use_ends_its_thread():
    batches = iter(Loader(data(), 4, prefetch=2))
    next(batches)
    cycle = [batches]
    cycle.append(cycle)
    assert threads()
    del batches, cycle
    gc.collect()
    assert not threads()


@pytest.mark.parametrize("size", [1, 40])
def test_the_interpreter_ends_while_batches_are_made(size):
    code = (
        "import numpy as np, time\nfrom tinynet.data import Loader\n"
        "def slow(x, y):\n    time.sleep(0.01)\n    return x, y\n"
        f"batches = iter(Loader((np.zeros((400, 2)), np.zeros(400)), {size}, prefetch=2, transform=slow))\n"
        "next(batches)\nprint('done')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
