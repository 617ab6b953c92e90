"""``share_common``: what is computed twice from the same values is computed once."""

import numpy as np
from graphs import after, unchanged

import tinynet as tn
from tinynet.program.passes import share_common

X = np.linspace(-1, 2, 6, dtype=np.float32).reshape(2, 3)


def test_repeated_operations_and_all_that_follows_from_them_run_once():
    def step(x):
        return tn.tanh(tn.exp(x)) + tn.tanh(tn.exp(x)), x.T, x.T

    before, now, graph = after(share_common, step, X)
    assert before.count("exp") == before.count("tanh") == before.count("transpose") == 2
    assert now == ["exp", "tanh", "add", "transpose"]
    assert graph.outputs[1] == graph.outputs[2]


def test_other_attributes_or_another_order_of_operands_are_other_operations():
    unchanged(share_common, lambda x: (x.sum(axis=0), x.sum(axis=1), x[0], x[1], x - 2.0, 2.0 - x), X)


def test_what_is_read_again_after_a_write_is_computed_again():
    w = tn.tensor(X)

    def step(x):
        before = w * 2.0
        tn.ops.assign(w, x)
        return before, w * 2.0, w[0] * 3.0

    unchanged(share_common, step, X + 1)


def test_a_write_through_a_view_counts_for_the_whole():
    def step(x):
        first = x * 2.0
        tn.ops.assign(x[0], x[1])
        return first, x * 2.0

    unchanged(share_common, step, tn.tensor(X))


def test_a_copy_that_somebody_writes_over_is_not_shared():
    def step(x):
        a, b = x * 2.0, x * 2.0
        tn.ops.assign(a, x)
        return a, b

    unchanged(share_common, step, X)


def test_updates_run_as_often_as_they_were_asked_for():
    w = tn.tensor(X)

    def step(x):
        tn.ops.accumulate(w, x)
        tn.ops.accumulate(w, x)

    unchanged(share_common, step, X)


def test_equal_numbers_are_one_and_a_negative_zero_is_another():
    def step(x):
        return x * 3.0 + x * 3.0, x / 0.0, x / -0.0

    before, now, _ = after(share_common, step, X)
    assert before.count("multiply") == 2 and now.count("multiply") == 1
    assert now.count("divide") == 2


def test_two_masks_of_dropout_stay_two():
    tn.seed(1)
    layer = tn.nn.Dropout(0.5)
    before, now, _ = after(share_common, lambda x: (layer(x), layer(x)), X)
    assert before.count("dropout") == now.count("dropout") == 2
