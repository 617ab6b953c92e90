"""``mask_products``: a product and the mask of a rectifier after it become one instruction."""

import numpy as np
import pytest
from graphs import after, unchanged

import tinynet as tn
from tinynet.program.passes import fuse_elementwise, mask_products

RNG = np.random.default_rng(6)
A, B, H = (RNG.normal(size=shape).astype(np.float32) for shape in ((5, 4), (4, 3), (5, 3)))
FIRST = [fuse_elementwise]


def masked(step, *args) -> bool:
    before, now, _ = after(mask_products, step, *args, first=FIRST)
    assert before.count("matmul") == 1
    return now == ["masked_matmul"]


@pytest.mark.parametrize("step", [
    lambda a, b, h: tn.where(h > 0, a @ b, 0.0),
    lambda a, b, h: tn.where(h > 0.0, a @ b, 0),
], ids=["float zero", "whole zero"])  # fmt: skip
def test_a_product_whose_only_reader_is_a_mask_is_masked(step):
    assert masked(step, A, B, H)


def test_an_h_that_is_no_number_masks_as_zero_does():
    h = H.copy()
    h[0], h[1], h[2] = np.nan, 0.0, np.inf
    assert masked(lambda a, b, h: tn.where(h > 0, a @ b, 0.0), A, B, h)


@pytest.mark.parametrize("step", [
    lambda a, b, h: tn.where(h > 0, a @ b, 1.0),
    lambda a, b, h: tn.where(h > 1, a @ b, 0.0),
    lambda a, b, h: tn.where(h < 0, a @ b, 0.0),
    lambda a, b, h: tn.where(h > 0, 0.0, a @ b),
    lambda a, b, h: tn.where(a @ b > 0, h, 0.0),
    lambda a, b, h: tn.where(h[:1] > 0, a @ b, 0.0),
    lambda a, b, h: tn.where(h > 0, a @ b, 0.0) * 2.0,
    lambda a, b, h: tn.where(h > 0, h, 0.0),
], ids=["else 1", "above 1", "below 0", "else product", "by product", "one row", "times 2", "no product"])  # fmt: skip
def test_other_masks_stay(step):
    unchanged(mask_products, step, A, B, H, first=FIRST)


def test_a_product_that_is_read_again_stays():
    def step(a, b, h):
        product = a @ b
        return tn.where(h > 0, product, 0.0), product

    unchanged(mask_products, step, A, B, H, first=FIRST)


def test_a_factor_that_is_written_over_before_the_mask_is_read_before_that():
    weight = tn.tensor(B)

    def step(a, h):
        product = a @ weight
        tn.ops.assign(weight, weight * 2.0)
        return tn.where(h > 0, product, 0.0)

    _, now, _ = after(mask_products, step, A, H, first=FIRST)
    assert now[0] == "masked_matmul"


@pytest.mark.parametrize("late", [True, False], ids=["made after the product", "written after it"])
def test_an_h_that_is_not_there_yet_is_waited_for(late):
    state = tn.tensor(H)

    def step(a, b, h):
        product = a @ b
        if late:
            return tn.where(tn.tanh(h) * tn.where(product > 0, 1.0, 2.0) > 0, product, 0.0)
        tn.ops.assign(state, h * 2.0)
        return tn.where(state > 0, product, 0.0)

    unchanged(mask_products, step, A, B, H, first=FIRST)


def test_the_gradient_through_a_layer_with_a_rectifier():
    w, v = (tn.tensor(x, requires_grad=True) for x in (B, RNG.normal(size=(3, 2)).astype(np.float32)))

    def step(x):
        w.grad = v.grad = None
        (tn.linear(x, w, activation="relu") @ v).sum().backward()
        return w.grad, v.grad

    _, now, _ = after(mask_products, step, A, first=FIRST, exact=False)
    assert "masked_matmul" in now and not any(name.startswith("where") for name in now)
