"""Loader: epochs of batches, a fresh order each, resumable anywhere."""

import json

import numpy as np
import pytest

from tinynet.data import Dataset, Loader
from tinynet.errors import ArgumentError, ShapeError

N = 23


def make(batch_size=5, **options):
    x = np.arange(2 * N, dtype=np.float32).reshape(N, 2)
    return Loader(Dataset(x, np.arange(N)), batch_size, **options)


def labels(batches):
    return [y.tolist() for _, y in batches]


def flat(lists):
    return [label for labels in lists for label in labels]


def test_an_epoch_holds_every_sample_once():
    loader = make()
    batches = list(loader)
    assert len(batches) == len(loader) == 5
    assert [len(y) for _, y in batches] == [5, 5, 5, 5, 3]
    assert sorted(flat(labels(batches))) == list(range(N))
    for x, y in batches:
        np.testing.assert_array_equal(x[:, 0], 2 * y)
        assert x.flags.c_contiguous and x.dtype == np.float32


def test_drop_last_leaves_out_the_partial_batch():
    loader = make(drop_last=True)
    assert [len(y) for _, y in loader] == [5] * 4 and len(loader) == 4


def test_every_epoch_has_its_own_order_and_a_seed_repeats_them():
    one, two = make(seed=7), make(seed=7)
    epochs = [labels(one) for _ in range(3)]
    assert epochs == [labels(two) for _ in range(3)]
    assert epochs[0] != epochs[1] != epochs[2]
    assert labels(make(seed=8)) != epochs[0]


def test_the_order_of_an_epoch_does_not_depend_on_what_was_drawn_before():
    one, two = make(seed=3), make(seed=3)
    list(one), list(one)
    two.epoch = 2
    np.random.default_rng(0).random(10)
    assert labels(one) == labels(two)


@pytest.mark.parametrize("seed", [0, 2**63, 2**64 - 1])
def test_any_64_bit_seed_will_do(seed):
    assert sorted(flat(labels(make(seed=seed)))) == list(range(N))


def test_without_shuffling_batches_are_views_in_order():
    loader = make(shuffle=False)
    batches = list(loader)
    assert flat(labels(batches)) == list(range(N))
    assert all(np.shares_memory(x, loader.dataset.x) for x, _ in batches)
    assert labels(batches) == labels(loader)


def test_a_pair_of_arrays_will_do():
    assert len(Loader((np.zeros((4, 1)), np.zeros(4)), 2)) == 2
    with pytest.raises(ShapeError):
        Loader((np.zeros((4, 1)), np.zeros(3)), 2)


def test_epoch_counts_the_epochs_done():
    loader = make()
    assert loader.epoch == 0
    for _ in loader:
        assert loader.epoch == 0
    assert loader.epoch == 1


def test_an_epoch_left_early_is_followed_by_the_next():
    loader, whole = make(), make()
    epochs = [labels(whole) for _ in range(2)]
    first = next(iter(loader))
    assert first[1].tolist() == epochs[0][0]
    assert labels(loader) == epochs[1]


def test_two_iterations_side_by_side_do_not_mix():
    loader, whole = make(), make()
    epochs = [labels(whole) for _ in range(2)]
    pairs = list(zip(loader, loader))
    assert labels(a for a, _ in pairs) == epochs[0]
    assert labels(b for _, b in pairs) == epochs[1]


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("done", range(13))
def test_a_resumed_loader_yields_exactly_the_batches_that_were_left(done, shuffle):
    whole = make(shuffle=shuffle, seed=4)
    expected = [batch for _ in range(3) for batch in labels(whole)]

    stopped, seen = make(shuffle=shuffle, seed=4), []
    state = stopped.state_dict()
    for _ in range(3):
        for _, y in stopped:
            if len(seen) == done:
                break
            seen.append(y.tolist())
            state = json.loads(json.dumps(stopped.state_dict()))
        else:
            continue
        break
    resumed = make(shuffle=shuffle, seed=4)
    resumed.load_state_dict(state)
    while resumed.epoch < 3:
        seen += labels(resumed)
    assert seen == expected


def test_a_state_of_another_loader_is_refused_and_changes_nothing():
    state = make().state_dict()
    others = {
        "length": Loader((np.zeros(9), np.zeros(9)), 5),
        "batch_size": make(batch_size=4),
        "seed": make(seed=1),
        "shuffle": make(shuffle=False),
        "drop_last": make(drop_last=True),
    }
    for name, other in others.items():
        before = other.state_dict()
        with pytest.raises(ArgumentError, match=name):
            other.load_state_dict(state)
        assert other.state_dict() == before


@pytest.mark.parametrize(("name", "value"), [
    ("epoch", -1), ("epoch", None), ("epoch", 1.5), ("batch", 6), ("batch", -1), ("batch", "2"), ("epoch", 2**64),
])  # fmt: skip
def test_a_damaged_state_is_refused(name, value):
    with pytest.raises(ArgumentError, match=f"{name} from 0"):
        make().load_state_dict({**make().state_dict(), name: value})


def test_a_state_without_an_entry_is_refused():
    state = make().state_dict()
    del state["seed"]
    with pytest.raises(ArgumentError, match="'seed'"):
        make().load_state_dict(state)


@pytest.mark.parametrize("batch_size", [0, -3, 2.5, "8", None])
def test_a_batch_holds_at_least_one_sample(batch_size):
    with pytest.raises(ArgumentError, match="batch_size of at least 1"):
        make(batch_size=batch_size)


def test_a_batch_larger_than_the_data_holds_all_of_it_but_not_with_drop_last():
    assert [len(y) for _, y in make(batch_size=100)] == [N]
    with pytest.raises(ArgumentError, match="at most 23"):
        make(batch_size=24, drop_last=True)


def test_no_samples_and_no_pair_are_refused():
    with pytest.raises(ArgumentError, match="empty data set"):
        Loader((np.zeros((0, 2)), np.zeros(0)), 4)
    with pytest.raises(ArgumentError, match="ndarray"):
        Loader(np.zeros((2, 2)), 1)
