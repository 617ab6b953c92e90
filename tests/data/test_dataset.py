"""Dataset: two arrays of equal length, indexed and split together."""

import numpy as np
import pytest

from tinynet.data import Dataset
from tinynet.data.sampling import split_indices
from tinynet.errors import ArgumentError, DTypeError, RangeError, ShapeError


def make(n=30, classes=3):
    return Dataset(np.arange(2 * n, dtype=np.float32).reshape(n, 2), np.arange(n) % classes, classes="abc")


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8])
def test_arrays_keep_their_dtype_and_are_not_copied(dtype):
    x, y = np.ones((4, 2), dtype), np.zeros(4, np.int16)
    data = Dataset(x, y)
    assert data.x is x and data.y is y and len(data) == 4


def test_a_slice_is_a_view_that_keeps_names_and_classes():
    data = Dataset(np.ones((4, 2)), np.array([0, 1, 0, 1]), classes=["no", "yes"], names=["a", "b"])
    part = data[1:3]
    assert np.shares_memory(part.x, data.x) and len(part) == 2
    assert part.classes == ("no", "yes") and part.names == ("a", "b")


def test_index_arrays_and_masks_pick_samples():
    data = make(4)
    np.testing.assert_array_equal(data[np.array([3, 0, -1])].x, data.x[[3, 0, -1]])
    np.testing.assert_array_equal(data[[True, False, False, True]].y, data.y[[0, 3]])
    assert len(data[[]]) == 0


def test_an_integer_gives_one_sample_and_iteration_ends():
    data = make(3)
    x, y = data[-1]
    np.testing.assert_array_equal(x, [4, 5])
    assert y == 2
    assert len(list(data)) == 3


@pytest.mark.parametrize(
    ("rows", "error"),
    [(4, RangeError), ([0, 4], RangeError), ([-5], RangeError), ([True], ShapeError), ([0.5], DTypeError),
     ([[0, 1]], DTypeError), ("x", DTypeError)],
)  # fmt: skip
def test_rows_that_do_not_exist_are_refused(rows, error):
    with pytest.raises(error, match="Dataset"):
        make(4)[rows]


def test_lengths_must_agree():
    with pytest.raises(ShapeError, match=r"3 rows in x and 2 in y"):
        Dataset(np.ones((3, 1)), np.ones(2))


def test_single_values_and_objects_are_no_data():
    with pytest.raises(ShapeError, match="single value"):
        Dataset(1.0, np.ones(1))
    with pytest.raises(DTypeError, match="Python objects"):
        Dataset(np.ones(2), np.array(["a", None], dtype=object))


def test_labels_must_lie_within_the_classes():
    with pytest.raises(RangeError, match="0 to 1, got 0 to 2 in y"):
        Dataset(np.ones(3), np.arange(3), classes=["a", "b"])
    with pytest.raises(RangeError, match="got -1 to 0"):
        Dataset(np.ones(2), np.array([-1, 0]), classes=["a", "b"])


def test_names_must_fit_the_columns():
    with pytest.raises(ShapeError, match="column per name"):
        Dataset(np.ones((3, 2)), np.ones(3), names=["only one"])


def test_repr_tells_size_shapes_and_classes():
    assert repr(make(4)) == "Dataset(4 samples, x (2,) float32, y () int64, 3 classes)"


def test_split_divides_every_sample_once_and_depends_on_the_seed_alone():
    data = make(100)
    first, second = data.split(0.7, seed=5)
    assert (len(first), len(second)) == (70, 30)
    np.testing.assert_array_equal(np.sort(np.concatenate([first.x, second.x])[:, 0]), data.x[:, 0])
    np.testing.assert_array_equal(data.split(0.7, seed=5)[0].x, first.x)
    assert not np.array_equal(data.split(0.7, seed=6)[0].x, first.x)


def test_split_keeps_every_class_in_proportion():
    y = np.repeat([0, 1, 2], [600, 300, 30])
    first, second = Dataset(np.zeros((930, 1)), y).split(0.8, seed=1)
    np.testing.assert_array_equal(np.bincount(first.y), [480, 240, 24])
    np.testing.assert_array_equal(np.bincount(second.y), [120, 60, 6])


def test_rare_classes_are_in_both_parts_and_single_samples_in_the_first():
    y = np.array([0] * 95 + [1] * 2 + [2])
    for seed in range(20):
        first, second = Dataset(np.zeros(98), y).split(0.8, seed)
        assert set(first.y) == {0, 1, 2} and set(second.y) == {0, 1}
        assert len(first) == 78


def test_split_without_stratification_ignores_classes():
    y = np.repeat([0, 1], [5, 95])
    counts = {int((Dataset(y, y).split(0.5, seed, stratify=False)[0].y == 0).sum()) for seed in range(20)}
    assert len(counts) > 1


def test_integer_targets_with_as_many_values_as_samples_still_split_as_asked():
    first, second = Dataset(np.zeros(100), np.arange(100)).split(0.8)
    assert (len(first), len(second)) == (80, 20)


@pytest.mark.parametrize(("n", "fraction", "sizes"), [
    (10, 0, (0, 10)), (10, 1, (10, 0)), (10, 0.01, (1, 9)), (10, 0.99, (9, 1)), (1, 0.8, (1, 0)), (0, 0.5, (0, 0)),
])  # fmt: skip
def test_split_leaves_no_part_empty_unless_asked_to(n, fraction, sizes):
    for y in (np.zeros(n), np.zeros(n, np.int64)):
        assert tuple(map(len, Dataset(np.zeros(n), y).split(fraction))) == sizes


@pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan")])
def test_split_refuses_a_fraction_outside_its_range(fraction):
    with pytest.raises(ArgumentError, match="fraction from 0 to 1"):
        make().split(fraction)


@pytest.mark.parametrize("seed", [-1, 2**64, 0.5, None])
def test_split_refuses_a_seed_outside_its_range(seed):
    with pytest.raises(ArgumentError, match="seed"):
        make().split(0.5, seed)


def test_split_cannot_stratify_by_values():
    with pytest.raises(DTypeError, match="float64"):
        Dataset(np.zeros(4), np.zeros(4)).split(0.5, stratify=True)
    with pytest.raises(ShapeError, match="labels"):
        split_indices(4, 0.5, 0, labels=np.zeros(3))
