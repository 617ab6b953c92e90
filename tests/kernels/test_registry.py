"""Where kernels are found: targets fall back to the reference, element types go before types in general."""

import numpy as np
import pytest

from tinynet import kernels, ops
from tinynet.kernels import Expression


@pytest.fixture
def name():
    """A name for an operation that exists in this test only."""
    yield "only_here"
    kernels.registry.forget("only_here")


def test_every_target_falls_back_to_the_reference(name):
    @kernels.register(name)
    def reference(out, x):
        out[...] = x

    for target in kernels.targets():
        assert kernels.find(name, target).function is reference
        assert kernels.find(name, target, "float64").function is reference


def test_a_target_of_its_own_goes_before_the_reference(name):
    @kernels.register(name)
    def reference(out, x):
        out[...] = x

    @kernels.register(name, "numpy")
    def fast(out, x):
        np.copyto(out, x)

    assert kernels.find(name, "numpy").function is fast
    assert kernels.find(name, "reference").function is reference
    assert kernels.find(name, "cupy").function is reference


def test_a_kernel_for_one_element_type_serves_that_type_only(name):
    @kernels.register(name)
    def any_type(out, x):
        out[...] = x

    @kernels.register(name, "numpy", "float32")
    def single(out, x):
        out[...] = x

    assert kernels.find(name, "numpy", "float32").function is single
    assert kernels.find(name, "numpy", "float64").function is any_type
    assert kernels.find(name, "numpy").function is any_type


def test_elementwise_kernels_are_derived_from_the_expression_on_each_target(name):
    kernels.define(name, Expression("x * x + 1"))
    for target in ("reference", "numpy"):
        out = np.empty(3)
        kernels.find(name, target)(out, np.array([1.0, 2.0, 3.0]))
        np.testing.assert_array_equal(out, [2.0, 5.0, 10.0])
    assert kernels.find(name, "numpy") is kernels.find(name, "numpy")


def test_a_registered_kernel_goes_before_a_derived_one(name):
    kernels.define(name, Expression("x"))

    @kernels.register(name, "numpy", "float32")
    def by_hand(out, x):
        out[...] = x

    assert kernels.find(name, "numpy", "float32").function is by_hand
    assert kernels.find(name, "numpy", "float64").function is not by_hand


def test_unknown_target_is_refused():
    with pytest.raises(ValueError, match="abacus"):
        kernels.register("add", "abacus")
    with pytest.raises(ValueError, match="abacus"):
        kernels.find("add", "abacus")


def test_operation_without_any_kernel_is_a_lookup_error():
    with pytest.raises(LookupError, match="no_such_operation"):
        kernels.find("no_such_operation", "numpy")


def test_forgotten_operation_is_nowhere(name):
    kernels.define(name, Expression("x"))
    assert name in kernels.operations()
    kernels.find(name, "numpy")
    kernels.registry.forget(name)
    assert name not in kernels.operations()
    with pytest.raises(LookupError):
        kernels.find(name, "numpy")


def test_every_operation_of_the_table_has_a_reference():
    assert set(ops.table()) <= set(kernels.operations())
    for operation in ops.table():
        assert callable(kernels.find(operation, "reference"))
