"""Loader: batch sizes that change, taken in turn or assigned, without a row repeated or left out."""

import json

import numpy as np
import pytest

from tinynet.data import Dataset, Loader
from tinynet.errors import ArgumentError

N = 23


def make(batch_size=5, **options):
    x = np.arange(2 * N, dtype=np.float32).reshape(N, 2)
    return Loader(Dataset(x, np.arange(N)), batch_size, **options)


def labels(batches):
    return [y.tolist() for _, y in batches]


def flat(lists):
    return [label for labels in lists for label in labels]


def lengths(batches):
    return [len(y) for _, y in batches]


def order(seed=0):
    """The rows of the first epoch."""
    return labels(make(N, seed=seed))[0]


@pytest.mark.parametrize("sizes", [(2, 3), [7, 1, 4], np.array([6, 2]), (N, 1), (100,)])
@pytest.mark.parametrize("drop_last", [False, True])
def test_sizes_are_taken_in_turn_and_begin_anew_with_each_epoch(sizes, drop_last):
    if drop_last and max(sizes) > N:
        with pytest.raises(ArgumentError, match="at most 23"):
            make(sizes, drop_last=True)
        return
    loader = make(sizes, drop_last=drop_last)
    expected, left = [], N
    while left and not (drop_last and sizes[len(expected) % len(sizes)] > left):
        expected.append(min(left, sizes[len(expected) % len(sizes)]))
        left -= expected[-1]
    assert len(loader) == len(expected)
    assert lengths(loader) == lengths(loader) == [int(n) for n in expected]


def test_the_rows_of_an_epoch_do_not_depend_on_the_batch_size():
    assert flat(labels(make((3, 4)))) == flat(labels(make(5))) == order()


def test_an_assigned_size_counts_from_the_next_batch_on():
    loader, seen = make(5), []
    for _, y in loader:
        seen.append(y.tolist())
        if len(seen) == 2:
            loader.batch_size = 3
            assert loader.batch_size == 3 and len(loader) == 8
    assert [len(each) for each in seen] == [5, 5, 3, 3, 3, 3, 1]
    assert flat(seen) == order()
    assert lengths(loader) == [3] * 7 + [2]


def test_an_assigned_sequence_begins_with_its_first_size():
    loader, seen = make((1, 2, 3)), []
    for _, y in loader:
        seen.append(len(y))
        if len(seen) == 2:
            loader.batch_size = (4, 6)
            assert loader.batch_size == (4, 6)
    assert seen == [1, 2, 4, 6, 4, 6]


def test_an_assigned_size_that_does_not_fit_ends_the_epoch_with_drop_last():
    loader, seen = make(10, drop_last=True), []
    for _, y in loader:
        seen.append(len(y))
        loader.batch_size = 20
    assert seen == [10]


@pytest.mark.parametrize("size", [0, -3, 2.5, "8", None, (), (4, 0), (3, "a")])
def test_what_is_no_size_is_refused_and_changes_nothing(size):
    with pytest.raises(ArgumentError, match="batch_size of at least 1"):
        make(size)
    loader = make((4, 6))
    before = loader.state_dict()
    with pytest.raises(ArgumentError, match="batch_size of at least 1"):
        loader.batch_size = size
    assert loader.batch_size == (4, 6) and loader.state_dict() == before


# ---- states ----


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("prefetch", [0, 2])
@pytest.mark.parametrize("done", range(10))
def test_a_resumed_loader_goes_on_with_what_was_assigned(done, prefetch, shuffle):
    def epochs(loader, change):
        """(labels, state behind it) of each batch of two epochs."""
        for _ in range(2):
            for _, y in loader:
                change(loader)
                yield y.tolist(), json.loads(json.dumps(loader.state_dict()))

    changes = {1: 3, 4: (2, 6), 6: 4}  # batch -> what is assigned in its body
    counted = iter(range(100))
    whole = [*epochs(make((5, 1), shuffle=shuffle), lambda loader: _assign(loader, changes.get(next(counted))))]

    resumed = make((5, 1), shuffle=shuffle, prefetch=prefetch)
    resumed.load_state_dict(whole[done][1])
    counted, left = iter(range(done + 1, 100)), [batch for batch, _ in whole[done + 1 :]]
    seen = []
    while len(seen) < len(left):
        for _, y in resumed:
            _assign(resumed, changes.get(next(counted)))
            seen.append(y.tolist())
    assert seen == left


def _assign(loader, size):
    if size is not None:
        loader.batch_size = size


def test_the_size_of_the_constructor_is_what_is_compared():
    loader = make(5)
    loader.batch_size = 3
    same, other = make(5), make(3)
    same.load_state_dict(loader.state_dict())
    assert same.batch_size == 3
    with pytest.raises(ArgumentError, match="batch_size 3, as this loader has, got 5"):
        other.load_state_dict(loader.state_dict())
    loader.load_state_dict(make(5).state_dict())
    assert loader.batch_size == 5


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("batches", range(5))
def test_states_that_count_batches_alone_are_taken_up(batches, drop_last):
    whole = labels(make(5, drop_last=drop_last))
    state = {"epoch": 0, "batch": batches, "length": N, "batch_size": 5, "seed": 0, "shuffle": True}
    loader = make(5, drop_last=drop_last)
    loader.load_state_dict({**state, "drop_last": drop_last})
    assert labels(loader) == whole[batches:]


@pytest.mark.parametrize("change", [
    {"row": 24}, {"row": -1}, {"row": 2.5}, {"turn": 3}, {"turn": None}, {"batch": 11}, {"sizes": 0},
    {"sizes": [2, "a"]}, {"sizes": None}, {"row": True},
])  # fmt: skip
def test_a_damaged_position_is_refused_and_changes_nothing(change):
    loader = make(5)
    before = loader.state_dict()
    with pytest.raises(ArgumentError):
        loader.load_state_dict({**before, "batch": 2, "row": 10, "turn": 2, **change})
    assert loader.state_dict() == before


# ---- where an epoch ends ----


def test_between_epochs_from_the_last_batch_to_the_next_first_one():
    loader = make(5)
    assert loader.between_epochs
    assert [loader.between_epochs for _ in loader] == [False] * 4 + [True]
    assert loader.between_epochs


def test_between_epochs_looks_at_the_sizes_as_they_are():
    loader = make(10, drop_last=True)
    for _ in loader:
        assert not loader.between_epochs
        loader.batch_size = 20  # of which no batch is left
        assert loader.between_epochs


def test_an_epoch_left_early_is_not_under_way_but_a_resumed_one_is():
    loader = make(5)
    for _ in loader:
        break
    assert loader.between_epochs
    resumed = make(5)
    resumed.load_state_dict(loader.state_dict())
    assert not resumed.between_epochs
    at_start = make(5)
    at_start.load_state_dict(make(5).state_dict())
    assert at_start.between_epochs


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("sizes", [4, (3, 5), (1, 9, 2)])
def test_the_batches_left_are_those_that_come(sizes, drop_last):
    loader = make(sizes, drop_last=drop_last)
    assert loader.batches_left == len(loader)
    told = [loader.batches_left for _ in loader]
    assert told == [*range(len(loader) - 1, 0, -1), len(loader)]  # after the last one, those of the next epoch


def test_an_assigned_size_changes_how_many_batches_are_left():
    loader = make(5)
    for _ in loader:
        loader.batch_size = (8, 1)
        assert loader.batches_left == 4
        break
