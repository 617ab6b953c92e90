"""Products of a matrix and a vector on a GPU."""

import importlib
import itertools

import numpy as np
import pytest
from product_checks import DTYPES, LAYOUTS, exact, integers, operands, placed
from runs import bound

products = importlib.import_module("tinynet.kernels.cuda.products")

pytestmark = pytest.mark.usefixtures("harness")


@pytest.mark.parametrize("dtype", DTYPES)
def test_vectors_of_every_length_and_layout(harness, dtype):
    lengths = (1, 2, 31, 32, 33, 127, 128, 129, 515)
    for k, m, (turned, x_apart, aligned) in itertools.product(lengths, (1, 9, 33), LAYOUTS):
        if m == 33 and k > 129:
            continue
        x = integers((k, 5), dtype)[:, 2] if x_apart else placed(integers((1, k), dtype), False, aligned)[0]
        matrix = placed(integers((m, k), dtype, 1), turned, aligned)
        out = np.full(m, 77, dtype)
        for first, second in ((matrix, x), (x, matrix.T)):
            out[...] = 77
            harness.run(bound("matmul", out, [first, second], {}), orders=("forward",))
            np.testing.assert_array_equal(out, exact(first, second), f"{m} x {k}, {turned} {x_apart} {aligned}")


def test_kernels_for_vectors_are_chosen_by_how_the_matrix_lies(harness):
    def name(m, k, turned=False, aligned=True):
        out, a, b = operands(m, 1, k, "float32", turned, False, aligned)
        b = placed(integers((1, k)), False, aligned)[0]
        calls = bound("matmul", out[:, 0], [a, b], {})
        if m * k < 50000:
            harness.run(calls, orders=("reverse",))
            np.testing.assert_array_equal(out[:, 0], exact(a, b))
        return calls[0][1][0].function

    assert name(20, 40) == "matvec_rows_wide_f32"
    assert name(20, 40, aligned=False) == "matvec_rows_f32"
    assert name(20, 40, turned=True) == "matvec_columns_f32"
    assert name(2, 4100) == "matvec_rows_wide_f32"  # in slices
    assert name(500, 1030) == "matvec_rows_wide_f32"
    assert name(1, 10**6) == "matvec_block_wide_f32"
    assert name(1, 10**6, aligned=False) == "matvec_block_f32"


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_block_for_each_row(harness, monkeypatch, dtype):
    monkeypatch.setattr(products, "MOST_SLICES", 1)
    for k, aligned in itertools.product((1024, 1027, 4100), (False, True)):
        out, a, b = operands(3, 1, k, dtype, False, False, aligned)
        b = placed(integers((1, k), dtype), False, aligned)[0]
        calls = bound("matmul", out[:, 0], [a, b], {})
        assert "_block_" in calls[0][1][0].function
        harness.run(calls)
        np.testing.assert_array_equal(out[:, 0], exact(a, b))
