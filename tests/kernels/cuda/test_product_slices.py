"""Products on a GPU whose depth is cut into slices, which are added up afterwards."""

import importlib
import itertools

import numpy as np
import pytest
from product_checks import DTYPES, exact, finished, in_bf16, integers, launches, operands, placed, scratch_for
from runs import bound

products = importlib.import_module("tinynet.kernels.cuda.products")
matrices = importlib.import_module("tinynet.kernels.cuda.matrices")

pytestmark = pytest.mark.usefixtures("harness")


@pytest.mark.parametrize(("step", "exactness"), [
    ("vectors", "float32"), ("tensor", "tf32"), ("tensor", "bf16"), ("tensor", "of_bf16")
])  # fmt: skip
def test_slices_of_the_depth_add_up(harness, step, exactness):
    for (m, n, k), aligned, batch in itertools.product([(20, 33, 130), (40, 10, 385)], (False, True), (1, 2)):
        a = placed(integers((batch, m, k), seed=1), False, aligned)
        b = placed(integers((batch, k, n), seed=2), True, aligned)
        bias, mask = integers((n,), seed=3), integers((batch, m, n), seed=4)
        scratch = scratch_for(m, n, k, batch)
        out = placed(np.full((batch, m, n), 77, "float32"), False, aligned)
        given = (in_bf16(a), in_bf16(b)) if exactness == "of_bf16" else (a, b)
        (product,) = matrices.products(out, *given, bias, "relu", mask)
        found = products.launches(product, step, exactness.removeprefix("of_"), scratch)
        count = products.cut(m, n, k, batch, "float32", step).slices
        assert len(found) == 2 and found[0].grid[2] == batch * count > batch and found[1].file == "product_parts"
        harness.run(found, orders=("forward", "shuffled"))
        np.testing.assert_array_equal(out, finished(exact(a, b), bias, "relu", mask))


@pytest.mark.parametrize("dtype", DTYPES)
def test_slices_of_operations(harness, dtype):
    """With the scratch that is declared for them: a narrow layer, its transpose, a vector, and the gradient of each."""
    for m, k, n in ((70, 300, 10), (10, 300, 70), (1, 1100, 3), (3, 1100, 1)):
        first, second = (m, k), (k, n)
        for a_turned, b_turned in itertools.product((False, True), repeat=2):
            a, b = placed(integers(first, dtype), a_turned), placed(integers(second, dtype, 1), b_turned)
            out = np.full((first[0], second[1]), 77, dtype)
            calls = bound("matmul", out, [a, b], {})
            assert len(calls) == 2
            harness.run(calls, orders=("forward",))
            np.testing.assert_array_equal(out, exact(a, b))


def test_there_are_no_more_slices_than_scratch_is_for(harness):
    out, a, b = operands(20, 33, 130)
    found = launches("vectors", "float32", out, a, b, scratch=scratch_for(20, 33, 130)[:-4])
    assert len(found) == 1
    harness.run(found, orders=("forward",))
    np.testing.assert_array_equal(out, exact(a, b))


def test_how_the_depth_is_cut():
    assert products.sliced(200, 10**6) == (1, 10**6)  # there are blocks enough
    assert products.sliced(1, 127) == (1, 127)
    assert products.sliced(1, 0) == (1, 1)
    for blocks, k in itertools.product((1, 2, 7, 50), (128, 129, 784, 1000, 10**5)):
        count, depth = products.sliced(blocks, k)
        assert 1 < count <= products.MOST_SLICES and depth % 32 == 0 and (count - 1) * depth < k <= count * depth
    assert products.cut(784, 128, 64, 1, "float32").slices == 1
    assert products.cut(4096, 4096, 64, 1, "float32") == ((128, 128), 1, 64)
    assert products.scratch_bytes(64, 10, 512, 1, "float32") == 8 * 64 * 10 * 4
    assert products.scratch_bytes(10, 64, 512, 1, "float32") == 8 * 64 * 10 * 4
