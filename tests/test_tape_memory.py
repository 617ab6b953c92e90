"""What memory a tape keeps, and when it lets go: at once, with the last result that needs it."""

import gc
import weakref

import pytest

import tinynet as tn


@pytest.fixture(autouse=True)
def no_garbage_collector():
    """What is freed here is freed by reference counts alone."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def leaf(values):
    return tn.tensor(values, dtype="float64", requires_grad=True)


def watched(tensor):
    """A weak reference to the array of a tensor, whoever holds it."""
    return weakref.ref(tensor.array)


def test_a_tape_is_freed_with_its_result_without_the_garbage_collector():
    x = leaf([1.0, 2.0])
    kept = tn.ops.exp(x)
    memory = watched(kept)
    y = (kept * kept).sum()
    del kept
    assert memory() is not None  # the product needs it
    del y
    assert memory() is None


def test_backward_frees_what_the_tape_kept_though_the_result_lives():
    x = leaf([1.0, 2.0])
    kept = tn.ops.exp(x)
    memory = watched(kept)
    y = (kept * kept).sum()
    del kept
    y.backward()
    assert memory() is None
    assert y.node is not None


def test_values_that_no_derivative_needs_are_not_kept():
    x = leaf([1.0, 2.0])
    summand = x + 1.0
    memory = watched(summand)
    y = (summand + 2.0).sum()
    del summand
    assert memory() is None
    y.backward()


def test_a_training_loop_with_grad_keeps_nothing_of_earlier_steps():
    x, seen = tn.tensor([1.0, 2.0]), []
    gradient = tn.grad(lambda t: (t * t).sum())
    for _ in range(20):
        seen.append(watched(x))
        x = x - 0.1 * gradient(x)
        assert x.node is None and not x.requires_grad
    assert [each() is None for each in seen] == [True] * 20


def test_gradients_from_backward_carry_no_tape():
    x = leaf([1.0, 2.0])
    tn.ops.exp(x).sum().backward()
    assert x.grad.node is None and not x.grad.requires_grad
