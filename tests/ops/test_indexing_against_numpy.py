"""Brackets, with NumPy as the oracle: shapes, values, gradients, and what is refused."""

import numpy as np
import pytest

import tinynet as tn
from tinynet.errors import ArgumentError, DTypeError, RangeError, ShapeError

X = np.arange(4 * 3 * 5, dtype="float64").reshape(4, 3, 5)

BASIC = (
    0, -1, np.int32(2), slice(None), slice(1, 3), slice(-2, None), slice(None, None, -1), slice(3, 0, -2),
    slice(-10, 10), slice(10, -10, -3), slice(-10, None, -1), slice(2, 2), slice(3, 1), Ellipsis, None, (),
    (0, 1, 2), (None, 0, None),
    (Ellipsis, 0), (0, Ellipsis, 1), (slice(None, None, -2), None, 1), (Ellipsis, None, slice(None, None, 3)),
    (1, slice(None), slice(4, None, -1)), (slice(0, 0), 1), (-1, Ellipsis, -1, None),
)  # fmt: skip
ADVANCED = (
    [0, 2], [[0, 1], [2, 3]], [-1, 0, -4], [], np.array([1, 1, 3]), np.array(2), np.array([0, 1], dtype="uint8"),
    (slice(None), [0, 2, 1]), (Ellipsis, [0, 4]), ([0, 1], [1, 2]), ([0, 1], slice(None), [1, 2]),
    (slice(None), [0, 1], [1, 2]), ([[0], [1]], [[1, 2]]), (0, slice(None), [0, 1]), (0, [0, 1]), ([0, 1], 0),
    (slice(None), 0, [1, 2]), ([1, 2], None, [0, 1]), (None, [0, 1]), ([0, 1], None), (slice(None, None, -1), [0, 1]),
    ([3, 0], [0, 1], [4, -5]), (slice(1, 3), [0, 1], slice(None, None, 2)), ([0], Ellipsis, [[1], [2]]),
    ([0, 1], slice(None, None, -1), 2), ((0, 2, 1),), ((0, 2), (1, 1)), (slice(None), (0, 2)),
)  # fmt: skip


def _same(index, x=X):
    got, expected = tn.tensor(x)[index].numpy(), x[index]
    assert got.shape == expected.shape
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("index", BASIC + ADVANCED, ids=repr)
def test_indexing_gives_what_numpy_gives(index):
    _same(index)


@pytest.mark.parametrize("index", BASIC + ADVANCED, ids=repr)
def test_gradient_of_indexing_goes_to_the_elements_that_were_picked(index):
    x = tn.tensor(X, requires_grad=True)
    y = x[index]
    weight = np.arange(1.0, y.size + 1).reshape(y.shape)
    (y * weight).sum().backward()
    expected = np.zeros_like(X)
    np.add.at(expected, index, weight)
    np.testing.assert_array_equal(x.grad.numpy(), expected)


@pytest.mark.parametrize("index", BASIC, ids=repr)
def test_assignment_through_brackets_writes_where_numpy_writes(index):
    x, expected = tn.tensor(X), X.copy()
    x[index] = -1.0
    expected[index] = -1.0
    np.testing.assert_array_equal(x.numpy(), expected)


def test_indices_may_be_tensors():
    rows, columns = np.array([[0], [3]]), np.array([1, 2])
    got = tn.tensor(X)[tn.tensor(rows), :, tn.tensor(columns)]
    np.testing.assert_array_equal(got.numpy(), X[rows, :, columns])


def test_basic_indexing_is_a_view(backend):
    x = tn.tensor(X[:2, 0])
    x[0][1:3] = 7.0
    x[1, 4] = 9.0
    np.testing.assert_array_equal(x.numpy(), [[0, 7, 7, 3, 4], [15, 16, 17, 18, 9]])


def test_indexing_works_on_every_backend(backend):
    x = tn.tensor(X)
    for index in ((1, slice(None, None, -1)), ([0, 1], slice(None), [1, 2]), (Ellipsis, None, [0, 4]), (0, 1, 2)):
        np.testing.assert_array_equal(x[index].numpy(), X[index])


@pytest.mark.parametrize(
    ("index", "error"),
    [
        ((0, 0, 0, 0), RangeError), (([0], 0, 0, 0), RangeError), (4, RangeError), (-5, RangeError),
        ([0, 4], RangeError), ((slice(None), [-4]), RangeError), (([0, 1], [0, 3]), RangeError),
        ((Ellipsis, Ellipsis), RangeError),
        ((Ellipsis, [0], Ellipsis), RangeError), (([0, 1], [0, 1, 2]), ShapeError), ([[0], [1, 2]], ShapeError),
        (1.0, ArgumentError), ("a", ArgumentError), (slice(0.5, 1), ArgumentError),
        (slice(None, None, 0), ArgumentError), (True, ArgumentError), ([0.5], DTypeError),
        ([True, False, True, True], DTypeError), (X > 3, DTypeError),
        ((X[:, 0, 0] > 3, 0), DTypeError), (np.array([0.0]), DTypeError), ((0, [0.5, 1.5]), DTypeError),
    ],
    ids=repr,
)  # fmt: skip
def test_indexing_refuses(index, error):
    with pytest.raises(error):
        tn.tensor(X)[index]


def test_a_boolean_mask_is_refused_with_a_way_out():
    with pytest.raises(DTypeError, match="where"):
        tn.tensor(X)[tn.tensor(X) > 3.0]


def test_random_slices_integers_and_new_axes_equal_numpy():
    hypothesis = pytest.importorskip("hypothesis", reason="hypothesis is not installed")
    from hypothesis.extra import numpy as hnp

    @hypothesis.settings(max_examples=150, deadline=None, derandomize=True, database=None)
    @hypothesis.given(data=hypothesis.strategies.data())
    def check(data):
        shape = data.draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
        x = np.arange(np.prod(shape), dtype="float64").reshape(shape)
        _same(data.draw(hnp.basic_indices(shape, allow_newaxis=True)), x)

    check()


def test_random_brackets_with_integer_arrays_equal_numpy():
    hypothesis = pytest.importorskip("hypothesis", reason="hypothesis is not installed")
    from hypothesis import strategies as st
    from hypothesis.extra import numpy as hnp

    @hypothesis.settings(max_examples=150, deadline=None, derandomize=True, database=None)
    @hypothesis.given(data=st.data())
    def check(data):
        shape = data.draw(hnp.array_shapes(max_dims=4, max_side=4))
        x = np.arange(np.prod(shape), dtype="float64").reshape(shape)
        together = data.draw(st.sampled_from([(), (2,), (2, 3), (1, 2)]))
        index = []
        for size in shape[: data.draw(st.integers(1, len(shape)))]:
            sizes = data.draw(st.sampled_from([together, together[-1:], ()]))
            picks = hnp.arrays("int64", sizes, elements=st.integers(-size, size - 1))
            one = st.slices(size) | st.integers(-size, size - 1) | picks | picks.map(np.ndarray.tolist)
            index += [data.draw(one)] + [None] * data.draw(st.sampled_from([0, 0, 0, 1]))
        if data.draw(st.booleans()):  # shifts the axes of what follows, sometimes out of range
            index.insert(data.draw(st.integers(0, len(index))), Ellipsis)
        index = tuple(index)
        try:
            x[index]
        except IndexError:
            with pytest.raises(RangeError):
                tn.tensor(x)[index]
        else:
            _same(index, x)

    check()


def test_take_equals_numpy_along_every_axis(backend):
    indices = np.array([[0, -1], [2, 0]])
    for axis in (0, 1, 2, -1):
        got = tn.ops.take(tn.tensor(X), indices, axis=axis).numpy()
        np.testing.assert_array_equal(got, np.take(X, indices, axis=axis))


def test_scatter_add_adds_where_indices_repeat(backend):
    x = tn.tensor(np.arange(6.0).reshape(3, 2))
    got = tn.ops.scatter_add(x, tn.tensor(np.array([1, -1, 1])), axis=0, size=4)
    np.testing.assert_array_equal(got.numpy(), [[0, 0], [4, 6], [0, 0], [2, 3]])


def test_scatter_add_keeps_a_nan_where_it_belongs(backend):
    x = tn.tensor(np.array([np.nan, 1.0, np.inf, -np.inf, np.inf]))
    got = tn.ops.scatter_add(x, tn.tensor(np.array([0, 1, 2, 3, 3])), axis=0, size=5)
    np.testing.assert_array_equal(got.numpy(), [np.nan, 1.0, np.inf, np.nan, 0.0])
