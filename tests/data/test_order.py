"""Shuffling by blocks: every row once, mixed within a window, a function of seed and epoch alone."""

import numpy as np
import pytest

from tinynet.data import Dataset, Loader
from tinynet.data.order import Mixed, default_window


def rows_of(n, window_rows, seed=0, epoch=0):
    data = Dataset(np.arange(n), np.arange(n))
    return Mixed(data, seed, epoch, window_rows).rows(0, n)


@pytest.mark.parametrize("n", [1, 2, 31, 32, 33, 640, 1000, 1021])
@pytest.mark.parametrize("window_rows", [1, 2, 31, 32, 64, 100, 320, 5000])
def test_an_epoch_has_every_row_once(n, window_rows):
    for epoch in range(4):  # the block that is cut short is in another place each time
        np.testing.assert_array_equal(np.sort(rows_of(n, window_rows, epoch=epoch)), np.arange(n))


@pytest.mark.parametrize("n", [1, 640, 1021])
@pytest.mark.parametrize("window_rows", [1, 64, 100, 320, 5000])
def test_pieces_are_those_of_the_whole(n, window_rows):
    data = Dataset(np.arange(n), -np.arange(n))
    for epoch in range(3):
        order, whole = Mixed(data, 1, epoch, window_rows), rows_of(n, window_rows, 1, epoch)
        for start, stop in [(0, min(7, n)), (n // 2, n), (n // 3, n // 3 + 1), (0, n)]:
            np.testing.assert_array_equal(order.rows(start, stop), whole[start:stop])
            x, y = order.gather(start, stop)
            np.testing.assert_array_equal(x, whole[start:stop])
            np.testing.assert_array_equal(y, -x)


def test_epochs_and_seeds_have_orders_of_their_own():
    first = rows_of(1000, 320)
    np.testing.assert_array_equal(first, rows_of(1000, 320))
    for other in (rows_of(1000, 320, seed=1), rows_of(1000, 320, epoch=1)):
        assert (first != other).mean() > 0.9


def test_rows_are_mixed_within_windows_of_blocks_from_everywhere():
    n, window, block = 32 * 320, 320, 10
    windows = rows_of(n, window).reshape(-1, window)
    blocks = windows // block
    for rows, of in zip(windows, blocks):
        assert len(np.unique(of)) == window // block  # whole blocks, ten rows of each
        assert (np.diff(rows) == 1).mean() < 0.05
        assert rows.min() < n / 4 < 3 * n / 4 < rows.max()
        assert len(np.unique(of[:64])) > 20  # a batch has rows of many blocks


def test_a_small_data_set_is_one_window():
    rows = rows_of(200, 5000)
    assert (np.diff(rows) == 1).mean() < 0.05 and np.abs(rows - np.arange(200)).max() > 100


def test_the_window_fills_eight_mebibytes_by_default():
    data = Dataset(np.zeros((5, 100), np.float32), np.zeros(5))
    assert default_window(data) == (8 << 20) // 408
    assert default_window(Dataset(np.zeros((2, 5 << 20)), np.zeros(2))) == 1


@pytest.mark.parametrize("done", range(1, 34, 4))
def test_a_resumed_loader_yields_what_was_left(done):
    def make():
        return Loader((np.arange(200), np.arange(200)), (7, 16), shuffle="blocks", window_rows=64)

    whole, batches = make(), []
    while whole.epoch < 2:
        batches += [(y.tolist(), whole.state_dict()) for _, y in whole]
    resumed, left = make(), []
    resumed.load_state_dict(batches[done - 1][1])
    while resumed.epoch < 2:
        left += [y.tolist() for _, y in resumed]
    assert len(batches) > 34 and left == [labels for labels, _ in batches[done:]]
