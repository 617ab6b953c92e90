"""Tensors: how they are made, what they are, their operators, and how they leave the engine."""

import operator

import numpy as np
import pytest

import tinynet as tn
from tinynet.errors import ArgumentError, BackendError, DTypeError, ShapeError

# ---- making ----


@pytest.mark.parametrize(
    "dtype",
    ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64"],
)
def test_arrays_and_numpy_scalars_keep_their_type(dtype, backend):
    assert tn.tensor(np.ones((2, 3), dtype)).dtype == dtype
    assert tn.tensor(np.ones(2, dtype)[0]).dtype == dtype
    assert tn.tensor([np.ones(2, dtype), np.ones(2, dtype)]).dtype == dtype
    assert tn.tensor(np.ones(2), dtype=dtype).dtype == dtype


@pytest.mark.parametrize("data", [1, 2.5, [1, 2], [1.0, 2.0], [[1], [2.5]], (1, 2), [], [[]], [True, 2], 10**6])
def test_python_numbers_become_float32(data):
    x = tn.tensor(data)
    assert x.dtype == "float32"
    np.testing.assert_array_equal(x.numpy(), np.asarray(data, "float32"))


def test_python_booleans_stay_booleans():
    assert tn.tensor(True).dtype == "bool"
    assert tn.tensor([[True], [False]]).dtype == "bool"


def test_tensor_copies_and_as_tensor_shares(backend):
    host = np.zeros(3)
    x = tn.tensor(host)
    host[0] = 1.0
    assert x.tolist() == [0.0, 0.0, 0.0]
    assert tn.as_tensor(x) is x
    shared = tn.as_tensor(x.data)
    shared[1] = 5.0
    assert x.tolist() == [0.0, 5.0, 0.0]
    again = tn.tensor(x)
    again[2] = 9.0
    assert x.tolist() == [0.0, 5.0, 0.0]


def test_other_byte_orders_are_converted_and_memory_order_does_not_matter():
    for array in (np.arange(6, dtype=">f4").reshape(2, 3), np.asfortranarray(np.arange(6.0).reshape(2, 3))):
        for x in (tn.tensor(array), tn.as_tensor(array), tn.ops.add(array, 0)):
            assert x.dtype.isnative and x.dtype.kind == "f"
            np.testing.assert_array_equal(x.numpy(), array)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        ([[1], [1, 2]], ShapeError), ([1, [2]], ShapeError), ("text", ArgumentError), (["a"], DTypeError),
        (None, ArgumentError), ([None], DTypeError), ({1: 2}, ArgumentError), ({1}, ArgumentError), (1j, ArgumentError),
        (np.array([1j]), DTypeError), (np.array(["a"]), DTypeError), (np.ones(2, "float16"), DTypeError),
        (len, ArgumentError), (2**70, DTypeError), (np.array([len]), DTypeError),
        (np.array(["2020-01-01"], "M8[D]"), DTypeError),
    ],
)  # fmt: skip
def test_what_is_no_array_of_numbers_is_refused(data, error):
    with pytest.raises(error):
        tn.tensor(data)


@pytest.mark.parametrize("array", [np.ones(2, "float16"), np.ones(2, complex), np.array(["a", "b"])])
def test_operations_and_as_tensor_refuse_types_that_the_engine_does_not_compute_with(array):
    for use in (tn.ops.exp, tn.as_tensor, lambda a: tn.ones(2) + a, lambda a: tn.ops.equal(a, a)):
        with pytest.raises(DTypeError):
            use(array)


@pytest.mark.parametrize("dtype", ["float16", "complex64", "text", "U3", object, "bfloat16"])
def test_unknown_types_are_refused_with_those_there_are(dtype):
    with pytest.raises(DTypeError, match="float32, float64"):
        tn.tensor(1.0, dtype=dtype)


def test_numbers_that_a_type_cannot_hold():
    assert tn.tensor(1e300).item() == float("inf")  # floats round, to infinity too
    for bad in ([float("nan")], [float("inf")], 1e30):
        with pytest.raises(DTypeError):
            tn.tensor(bad, dtype="int64")


def test_zeros_ones_and_full_fill_a_shape(backend):
    assert tn.zeros(3).tolist() == [0.0, 0.0, 0.0]
    assert tn.ones((1, 2), dtype="int64").tolist() == [[1, 1]]
    x = tn.full((2,), 0.5, requires_grad=True)
    assert x.tolist() == [0.5, 0.5] and x.dtype == "float32" and x.requires_grad and x.backend is backend
    assert tn.full((), np.float64(2)).shape == () and tn.zeros((0, 3)).shape == (0, 3)


@pytest.mark.parametrize("shape", [-1, (2, -1), 2.5, (2, "3"), None, True])
def test_shapes_that_are_none_are_refused(shape):
    with pytest.raises(ShapeError):
        tn.zeros(shape)


@pytest.mark.parametrize(
    ("value", "dtype", "error"),
    [("a", "float32", ArgumentError), (None, "float32", ArgumentError), (1.5, "int64", DTypeError),
     (300, "uint8", DTypeError), (-1, "uint8", DTypeError), (float("nan"), "int64", DTypeError)],
)  # fmt: skip
def test_full_refuses_what_the_type_cannot_hold(value, dtype, error):
    with pytest.raises(error):
        tn.full(2, value, dtype=dtype)


@pytest.mark.parametrize(
    "arguments", [(5,), (0,), (2, 7), (0, 10, 3), (10, 0, -3), (5, 5), (5, 2), (-3, 3, 2), (3, -4, -1), (np.int32(4),)]
)
def test_arange_of_whole_numbers_is_numpys(arguments):
    got = tn.arange(*arguments)
    expected = np.arange(*arguments)
    assert got.dtype == "int64"
    np.testing.assert_array_equal(got.numpy(), expected)


@pytest.mark.parametrize("arguments", [(0, 1, 0.25), (1.0, 0.0, -0.25), (2.5,), (0.5, 3)])
def test_arange_of_fractions_is_float32(arguments):
    got = tn.arange(*arguments)
    assert got.dtype == "float32"
    np.testing.assert_allclose(got.numpy(), np.arange(*arguments), rtol=1e-6)


def test_arange_takes_a_type_and_refuses_steps_of_zero_and_text():
    assert tn.arange(3, dtype="float64").dtype == "float64"
    for arguments in ((0, 5, 0), ("a",), (None,)):
        with pytest.raises(ArgumentError):
            tn.arange(*arguments)


# ---- arithmetic and its types ----


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_python_and_numpy_scalars_take_the_tensors_type(dtype, backend):
    x = tn.tensor(np.array([1.0, 4.0], dtype))
    numbers = (2, 2.5, np.float64(2), np.float32(2), np.int64(2))
    for number in numbers:
        for result in (x + number, number + x, x - number, number - x, x * number, number / x, x / number, x**number):
            assert isinstance(result, tn.Tensor) and result.dtype == dtype
    assert (-x).dtype == abs(x).dtype == (+x).dtype == dtype


def test_operators_compute_what_they_say():
    a, b = np.array([1.0, -2.0]), np.array([3.0, 5.0])
    for symbol in (operator.add, operator.sub, operator.mul, operator.truediv, operator.matmul):
        for left, right in ((tn.tensor(a), tn.tensor(b)), (tn.tensor(a), b), (a, tn.tensor(b))):
            result = symbol(left, right)
            assert isinstance(result, tn.Tensor)
            np.testing.assert_allclose(result.numpy(), symbol(a, b))
    np.testing.assert_allclose((2.0 ** tn.tensor(b)).numpy(), 2.0**b)
    np.testing.assert_allclose((10.0 / tn.tensor(b)).numpy(), 10.0 / b)


def test_integers_stay_integers_next_to_whole_numbers_and_refuse_fractions():
    x = tn.arange(3)
    assert (x + 1).dtype == "int64" and (2 * x - x).dtype == "int64"
    for bad in (lambda: x + 1.5, lambda: 0.5 * x, lambda: x / 2, lambda: x + True, lambda: x + 2**70):
        with pytest.raises(DTypeError):
            bad()


def test_two_types_are_refused_with_a_way_out():
    x = tn.ones(2)
    for other in (np.ones(2), np.ones(2, "int64"), tn.ones(2, dtype="float64"), np.ones(2, bool)):
        with pytest.raises(DTypeError, match="astype"):
            x + other


@pytest.mark.parametrize("other", [None, "text", {}, object(), b"x"])
def test_operands_that_are_no_arrays_are_refused(other):
    with pytest.raises(ArgumentError):
        tn.ones(2) + other


def test_numbers_too_large_become_infinities_or_are_refused_without_a_warning():
    assert (tn.ones(1) * 1e300).item() == float("inf")
    with pytest.raises(DTypeError):
        tn.ones(1) * 10**400


def test_comparisons_give_booleans_elementwise():
    x = tn.tensor([1.0, 2.0, 3.0])
    for symbol in (operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge):
        result = symbol(x, 2.0)
        assert result.dtype == "bool" and result.tolist() == [symbol(v, 2.0) for v in (1.0, 2.0, 3.0)]
    assert ((x > 1.0) & (x < 3.0)).tolist() == [False, True, False]
    assert ((x < 2.0) | ~(x < 3.0)).tolist() == [True, False, True]


def test_tensors_are_found_in_sets_and_dicts_by_identity():
    a, b = tn.ones(2), tn.ones(2)
    assert len({a, b, a}) == 2 and {a: 1, b: 2}[a] == 1 and a in {a} and hash(a) != hash(b)


def test_methods_are_the_operations():
    x = np.arange(1.0, 7.0).reshape(2, 3)
    t = tn.tensor(x)
    np.testing.assert_allclose(t.sum(axis=0).numpy(), x.sum(axis=0))
    np.testing.assert_allclose(t.mean(1, True).numpy(), x.mean(axis=1, keepdims=True))
    np.testing.assert_allclose(t.clip(2.0, 4.0).numpy(), x.clip(2.0, 4.0))
    assert t.argmax().item() == 5 and t.max().item() == 6.0 and t.var(correction=1).item() == pytest.approx(3.5)
    assert t.T.shape == (3, 2) and t.reshape(-1).shape == (6,) and t.expand_dims(0).squeeze(0).shape == (2, 3)
    assert type(t).sum.__doc__ == tn.ops.table()["sum"].__doc__


# ---- what it is ----


def test_attributes_are_numpys(backend):
    x = tn.tensor(np.zeros((2, 0, 3), "float32"))
    assert (x.shape, x.dtype, x.ndim, x.size, x.nbytes) == ((2, 0, 3), np.dtype("float32"), 3, 0, 0)
    assert tn.tensor(np.zeros((2, 3))).nbytes == 48


def test_length_and_iteration_go_along_the_first_axis(backend):
    x = tn.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert len(x) == 2
    assert [row.tolist() for row in x] == [[1.0, 2.0], [3.0, 4.0]]
    with pytest.raises(TypeError):
        len(tn.tensor(1.0))
    with pytest.raises(TypeError):
        list(tn.tensor(1.0))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: tn.tensor([1.0, 2.5]), "tensor([1. , 2.5])"),
        (lambda: tn.tensor(3.0), "tensor(3.)"),
        (lambda: tn.arange(3), "tensor([0, 1, 2], dtype=int64)"),
        (lambda: tn.tensor([True]), "tensor([ True], dtype=bool)"),
        (lambda: tn.tensor(np.ones(1)), "tensor([1.], dtype=float64)"),
        (lambda: tn.tensor([1.0], requires_grad=True), "tensor([1.], requires_grad=True)"),
        (lambda: tn.tensor([1.0], requires_grad=True) * 2, "tensor([2.], made_by=multiply)"),
        (lambda: tn.tensor([[1.0], [2.0]]), "tensor([[1.],\n        [2.]])"),
    ],
)
def test_repr_says_values_type_and_history(make, text):
    assert repr(make()) == text


def test_repr_names_another_backend(strict):
    assert repr(tn.tensor([1.0], backend=strict)) == "tensor([1.], backend='strict')"


# ---- out of the engine ----


def test_numpy_is_a_view_that_cannot_be_written_to(backend):
    x = tn.tensor([1.0, 2.0])
    host = x.numpy()
    assert isinstance(host, np.ndarray) and host.dtype == "float32"
    with pytest.raises(ValueError, match="read-only"):
        host[0] = 5.0
    x[0] = 7.0
    if backend.name == "numpy":
        assert host[0] == 7.0
    assert x.tolist() == [7.0, 2.0]


def test_numpy_takes_tensors_as_arrays(backend):
    x = tn.tensor([1.0, 2.0])
    np.testing.assert_array_equal(np.asarray(x), [1.0, 2.0])
    assert np.asarray(x).dtype == "float32" and np.asarray(x, dtype="float64").dtype == "float64"
    copied = np.array(x)
    copied[0] = 9.0
    assert x.tolist() == [1.0, 2.0]


def test_scalars_convert_to_python_numbers(backend):
    assert tn.tensor([[2.5]]).item() == 2.5 and float(tn.tensor(2.5)) == 2.5 and int(tn.tensor(2.0)) == 2
    assert isinstance(tn.arange(1).item(), int) and isinstance(tn.tensor(True).item(), bool)
    assert [10, 20, 30][tn.arange(2)[1]] == 20
    assert f"{tn.tensor(0.5):.3f}" == "0.500" and f"{tn.tensor(0.5)}" == repr(tn.tensor(0.5))


@pytest.mark.parametrize("shape", [(2,), (0,), (1, 2)])
def test_several_elements_are_no_python_number(shape):
    for convert in (tn.Tensor.item, float, int, bool):
        with pytest.raises(ShapeError, match=r"shape \("):
            convert(tn.zeros(shape))


def test_floats_are_no_indices():
    with pytest.raises(TypeError):
        [1, 2][tn.tensor(1.0)]


# ---- assignment ----


def test_assignment_takes_numbers_arrays_and_tensors(backend):
    x = tn.zeros((2, 3))
    x[0] = 1
    x[1, 1:] = np.array([2.0, 3.0], "float32")
    x[:, 0] = tn.tensor([8.0, 9.0])
    assert x.tolist() == [[8.0, 1.0, 1.0], [9.0, 2.0, 3.0]]


def test_assignment_counts_as_a_write_of_every_view():
    x = tn.zeros((2, 3))
    view = x.T
    x[0, 0] = 1.0
    assert view.versions is x.versions and x.versions == [1]


@pytest.mark.parametrize(
    ("index", "value", "error"),
    [
        (0, np.ones(2), DTypeError), (0, np.ones(4, "float32"), ShapeError), (0, None, ArgumentError),
        (0, "a", ArgumentError), (5, 1.0, IndexError), ((0, 0, 0), 1.0, IndexError),
        (0, np.ones((2, 3), "float32"), ShapeError),
        (0, True, DTypeError), ([0], 1.0, ArgumentError), (np.array([True, False]), 1.0, ArgumentError),
    ],
)  # fmt: skip
def test_assignment_that_does_not_fit_changes_nothing(index, value, error):
    x = tn.zeros((2, 3))
    with pytest.raises(error):
        x[index] = value
    assert not x.numpy().any() and x.versions == [0]


def test_broadcast_views_and_read_only_arrays_cannot_be_written_to():
    for x in (tn.ops.broadcast_to(tn.zeros(3), (2, 3)), tn.as_tensor(tn.zeros((2, 3)).numpy())):
        with pytest.raises(ArgumentError, match="copy"):
            x[0] = 1.0
        assert not x.numpy().any()


# ---- to another type, another backend ----


def test_astype_converts_and_carries_gradients_between_floats(backend):
    x = tn.tensor([1.5, 2.5], requires_grad=True)
    y = x.astype("float64")
    (y * y).sum().backward()
    assert y.dtype == "float64" and x.grad.dtype == "float32" and x.grad.tolist() == [3.0, 5.0]
    assert x.astype("float32") is x
    assert x.astype("int64").tolist() == [1, 2] and tn.tensor([0.0, 2.0]).astype(bool).tolist() == [False, True]


def test_to_copies_to_another_backend_and_back(other_backend):
    x = tn.tensor([1.0, 2.0], requires_grad=True)
    y = x.to(other_backend)
    assert y.backend is other_backend and y.requires_grad and y.to(other_backend) is y
    with tn.no_grad():
        y[0] = 5.0
    assert x.tolist() == [1.0, 2.0] and y.to("numpy").tolist() == [5.0, 2.0]


def test_to_refuses_results_on_the_tape_and_unknown_backends(other_backend):
    x = tn.tensor([1.0], requires_grad=True)
    with pytest.raises(tn.errors.GradientError, match="detach"):
        (x * 2.0).to(other_backend)
    assert (x * 2.0).detach().to(other_backend).tolist() == [2.0]
    with pytest.raises(BackendError):
        x.to("abacus")


def test_copy_has_memory_of_its_own(backend):
    x = tn.tensor([[1.0, 2.0]], requires_grad=True)
    y = x.T.copy()
    y[0] = 9.0
    assert x.tolist() == [[1.0, 2.0]] and y.tolist() == [[9.0], [2.0]] and not y.requires_grad
