"""The tape: backward, accumulation, what is refused, versions, threads."""

import threading
import weakref

import numpy as np
import pytest

import tinynet as tn
from tinynet.errors import ArgumentError, DTypeError, GradientError, ShapeError


def leaf(values, dtype="float64"):
    return tn.tensor(values, dtype=dtype, requires_grad=True)


def assert_equal(tensor, expected):
    np.testing.assert_array_equal(tensor.numpy(), expected)


# ---- shapes of graphs ----


def test_a_chain_of_fifty_thousand_operations_goes_forward_backward_and_away():
    x = leaf(1.0)
    y = x
    for _ in range(50_000):
        y = y + 1.0
    y.backward(retain_graph=True)
    assert (y.item(), x.grad.item()) == (50_001.0, 1.0)
    end = weakref.ref(y)
    del y
    assert end() is None


def test_a_diamond_is_walked_once_per_operation():
    x = leaf([1.0, 2.0])
    a = x * 3.0
    (a * a + a).sum().backward()
    assert_equal(x.grad, 2 * 9 * np.array([1.0, 2.0]) + 3)


def test_many_diamonds_in_a_row_take_linear_time():
    x = leaf(1.0)
    y = x
    for _ in range(60):  # 2**60 paths
        y = (y + y) * 0.5
    y.backward()
    assert x.grad.item() == 1.0


def test_a_leaf_used_twice_gets_both_gradients():
    x = leaf([2.0, 3.0])
    (x * x).sum().backward()
    assert_equal(x.grad, [4.0, 6.0])


def test_gradients_of_broadcast_inputs_have_the_inputs_shapes(backend):
    row, column, scalar = leaf([1.0, 2.0, 3.0]), leaf([[1.0], [2.0]]), leaf(2.0)
    (row * column * scalar).sum().backward()
    assert_equal(row.grad, [6.0, 6.0, 6.0])
    assert_equal(column.grad, [[12.0], [12.0]])
    assert_equal(scalar.grad, 18.0)


def test_parts_of_a_graph_without_gradient_are_left_alone():
    x, constant = leaf([1.0, 2.0]), tn.tensor([3.0, 4.0], dtype="float64")
    y = x * constant
    assert (constant * constant).node is None
    y.sum().backward()
    assert constant.grad is None
    assert_equal(x.grad, [3.0, 4.0])


def test_backward_from_a_leaf_gives_it_its_own_gradient():
    x = leaf([1.0, 2.0])
    x.backward(np.array([5.0, 6.0]))
    assert_equal(x.grad, [5.0, 6.0])


# ---- accumulation, retain_graph ----


def test_gradients_accumulate_over_backwards_until_they_are_set_to_none():
    x = leaf([1.0, 2.0])
    (x * x).sum().backward()
    (x * 3.0).sum().backward()
    assert_equal(x.grad, [5.0, 7.0])
    x.grad = None
    (x * 3.0).sum().backward()
    assert_equal(x.grad, [3.0, 3.0])


def test_accumulation_does_not_write_into_a_gradient_that_was_handed_out():
    x = leaf([1.0])
    (x * 2.0).sum().backward()
    first = x.grad
    (x * 2.0).sum().backward()
    assert_equal(first, [2.0])
    assert_equal(x.grad, [4.0])


def test_second_backward_through_one_tape_is_refused_and_changes_nothing():
    x = leaf([1.0, 2.0])
    y = (x * x).sum()
    y.backward()
    with pytest.raises(GradientError, match="retain_graph"):
        y.backward()
    assert_equal(x.grad, [2.0, 4.0])


def test_retain_graph_allows_a_second_backward():
    x = leaf([1.0, 2.0])
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    assert_equal(x.grad, [4.0, 8.0])


# ---- refusals ----


def test_backward_of_several_elements_needs_a_gradient():
    x = leaf([1.0, 2.0])
    y = x * 2.0
    with pytest.raises(GradientError, match="scalar"):
        y.backward()
    assert x.grad is None
    y.backward(np.array([1.0, 10.0]))
    assert_equal(x.grad, [2.0, 20.0])


def test_seed_of_another_shape_dtype_or_backend_is_refused(other_backend):
    x = leaf([1.0, 2.0])
    y = x * 2.0
    for seed, error in (
        (np.ones(3), ShapeError),
        (np.ones(2, "float32"), DTypeError),
        (tn.tensor(np.ones(2), backend=other_backend), tn.errors.BackendError),
    ):
        with pytest.raises(error):
            y.backward(seed)
    assert x.grad is None
    y.backward(np.ones(2))


def test_backward_of_what_was_not_recorded_is_refused():
    for y in (tn.tensor(1.0), tn.tensor(1.0) * 2.0, leaf(1.0).detach() * 2.0):
        with pytest.raises(GradientError, match="requires_grad"):
            y.backward()
    with tn.no_grad():
        y = leaf(1.0) * 2.0
    with pytest.raises(GradientError):
        y.backward()


def test_integers_have_no_gradients():
    with pytest.raises(DTypeError):
        tn.tensor([1, 2], dtype="int64", requires_grad=True)
    with pytest.raises(GradientError, match="int64"):
        tn.grad(lambda x: x.sum())(tn.arange(3))
    with pytest.raises(GradientError):
        tn.grad(lambda x: x * 1.0)(3.0)


def test_results_without_derivative_are_off_the_tape():
    x = leaf([1.0, 3.0, 2.0])
    for y in (x > 2.0, tn.ops.argmax(x), x.astype("int64")):
        assert not y.requires_grad and y.node is None


def test_only_leaves_can_be_told_not_to_require_gradients():
    y = leaf(1.0) * 2.0
    with pytest.raises(GradientError):
        y.requires_grad_(False)
    assert not leaf(1.0).requires_grad_(False).requires_grad


# ---- versions ----


def test_writing_to_what_backward_needs_is_noticed_and_nothing_is_accumulated():
    w, b = leaf([1.0, 2.0]), leaf([1.0, 1.0])
    y = (w * w + b).sum()
    with tn.no_grad():
        w[0] = 5.0
    with pytest.raises(GradientError, match="multiply"):
        y.backward()
    assert w.grad is None and b.grad is None


def test_error_names_operation_operand_and_number_of_writes():
    a, b = leaf([1.0]), leaf([2.0])
    y = (a / b).sum()
    with tn.no_grad():
        b[0] = 1.0
        b[0] = 2.0
    with pytest.raises(GradientError, match=r"divide.*'b'.*2 write"):
        y.backward()


def test_writing_to_a_result_that_backward_needs_is_noticed():
    x = leaf([1.0])
    y = tn.ops.exp(x)
    y.detach()[0] = 0.0
    with pytest.raises(GradientError, match="result"):
        y.sum().backward()


def test_writing_to_what_backward_does_not_need_is_allowed():
    x = leaf([1.0, 2.0])
    y = (x + 1.0).sum()
    with tn.no_grad():
        x[0] = 100.0
    y.backward()
    assert_equal(x.grad, [1.0, 1.0])


@pytest.mark.parametrize(
    "view", [lambda x: x[0], lambda x: x.T, lambda x: x.reshape(4), lambda x: x[:, None], lambda x: x.detach()]
)
def test_writing_through_a_view_is_noticed_by_the_backward_of_its_base_and_back(view):
    x = leaf([[1.0, 2.0], [3.0, 4.0]])
    y = (x * x).sum()
    with tn.no_grad():
        seen = view(x)
        seen.data = seen.numpy() + 1.0
    with pytest.raises(GradientError):
        y.backward()
    x = leaf([[1.0, 2.0], [3.0, 4.0]])
    seen = view(x).detach().requires_grad_()
    z = (seen * seen).sum()
    with tn.no_grad():
        x[0, 0] = 9.0
    with pytest.raises(GradientError):
        z.backward()


def test_assigning_to_data_is_a_write():
    x = leaf([1.0, 2.0])
    y = (x * x).sum()
    x.data = np.array([3.0, 4.0])
    assert_equal(x, [3.0, 4.0])
    with pytest.raises(GradientError):
        y.backward()


def test_writing_to_a_tracked_tensor_is_refused_outside_of_no_grad():
    x = leaf([1.0, 2.0])
    for target in (x, x * 1.0):
        with pytest.raises(GradientError, match="no_grad"):
            target[0] = 5.0
    with pytest.raises(GradientError):
        tn.tensor([1.0, 2.0], dtype="float64")[0:1] = x[0:1]
    assert_equal(x, [1.0, 2.0])


# ---- no_grad, detach ----


def test_no_grad_is_a_context_a_decorator_and_nests():
    x = leaf([1.0])

    @tn.no_grad()
    def inside(x):
        """Doc."""
        return x * 2.0

    assert not inside(x).requires_grad and inside.__doc__ == "Doc."
    with tn.no_grad():
        with tn.no_grad():
            assert not (x * 2.0).requires_grad
        assert not (x * 2.0).requires_grad
    assert (x * 2.0).requires_grad


def test_no_grad_ends_with_an_exception():
    with pytest.raises(KeyError), tn.no_grad():
        raise KeyError
    assert (leaf([1.0]) * 2.0).requires_grad


def test_grad_works_inside_no_grad():
    with tn.no_grad():
        assert tn.grad(lambda x: x * x)(tn.tensor(3.0)).item() == 6.0
        x = leaf(2.0)
        assert not tn.grad(lambda t: t * x)(leaf(3.0)).requires_grad


def test_no_grad_holds_in_its_thread_only():
    x, found = leaf([1.0]), []
    with tn.no_grad():
        thread = threading.Thread(target=lambda: found.append((x * 2.0).requires_grad))
        thread.start()
        thread.join()
    assert found == [True]


def test_detached_tensors_share_memory_and_have_no_history():
    x = leaf([1.0, 2.0])
    d = (x * 1.0).detach()
    assert not d.requires_grad and d.node is None
    e = x.detach()
    e[0] = 7.0
    assert_equal(x, [7.0, 2.0])


def test_detach_stops_the_gradient():
    x = leaf([2.0])
    (x * x.detach()).sum().backward()
    assert_equal(x.grad, [2.0])


def test_threads_compute_gradients_at_the_same_time():
    shared, results, errors = leaf(np.arange(1.0, 101.0)), {}, []
    start = threading.Barrier(4)

    def work(k):
        try:
            start.wait()
            for _ in range(100):
                gradient = tn.grad(lambda x: (x * shared.detach() * float(k)).sum())(tn.ones(100, dtype="float64"))
                np.testing.assert_array_equal(gradient.numpy(), shared.numpy() * k)
            results[k] = gradient
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and len(results) == 4


def test_argument_that_is_out_of_range_is_refused():
    with pytest.raises(ArgumentError, match="argnums"):
        tn.grad(lambda x: x, argnums=1)(tn.tensor(1.0))
