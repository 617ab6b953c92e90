"""Dropout: a mask that is a function of (seed, stream, step), on every backend, and nothing in evaluation."""

import copy
import math

import numpy as np
import pytest

import tinynet as tn
from tinynet import nn
from tinynet.errors import ArgumentError

ONES = np.ones((40, 50), "float32")


def masks(layer, steps=3, x=ONES):
    return [layer(x).numpy() > 0 for _ in range(steps)]


def same(a, b):
    return all((x == y).all() for x, y in zip(a, b, strict=True))


def test_what_is_kept_is_scaled_so_that_the_mean_stays(backend):
    layer = nn.Dropout(0.2, seed=1, stream=2)
    result = layer(np.full((400, 500), 3.0, "float32")).numpy()
    assert set(np.unique(result)) == {np.float32(0), np.float32(3.75)}
    deviation = math.sqrt(0.2 * 0.8 / result.size)
    assert abs((result == 0).mean() - 0.2) < 5 * deviation


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_rows_and_columns_drop_as_often_as_p_says(p):
    zero = nn.Dropout(p, seed=3, stream=0)(np.ones((400, 500), "float32")).numpy() == 0
    for axis, n in ((0, 400), (1, 500)):
        assert np.abs(zero.mean(axis=axis) - p).max() < 5.5 * math.sqrt(p * (1 - p) / n)


def test_the_mask_repeats_for_the_same_seed_stream_and_step(backend):
    first = masks(nn.Dropout(0.5, seed=1, stream=2))
    assert same(first, masks(nn.Dropout(0.5, seed=1, stream=2)))
    assert same(first[2:], masks(nn.Dropout(0.5, seed=1, stream=2, step=2), 1))


def test_another_seed_stream_or_step_gives_another_mask(backend):
    first = masks(nn.Dropout(0.5, seed=1, stream=2), 1)[0]
    for other in ({"seed": 2, "stream": 2}, {"seed": 1, "stream": 3}, {"seed": 1, "stream": 2, "step": 1}):
        agreeing = (first == masks(nn.Dropout(0.5, **other), 1)[0]).mean()
        assert 0.4 < agreeing < 0.6, other


def test_the_masks_are_the_same_on_every_backend(backend):
    with tn.use_backend("numpy"):
        expected = masks(nn.Dropout(0.3, seed=7, stream=1))
    assert same(masks(nn.Dropout(0.3, seed=7, stream=1)), expected)


def test_the_mask_does_not_depend_on_the_dtype(backend):
    expected = masks(nn.Dropout(0.3, seed=7, stream=1))
    assert same(masks(nn.Dropout(0.3, seed=7, stream=1), x=ONES.astype("float64")), expected)


def test_the_gradient_uses_the_mask_of_its_forward(backend):
    layer = nn.Dropout(0.5, seed=1, stream=2)
    x = tn.tensor(ONES, requires_grad=True)
    first = layer(x)
    layer(x)  # another step in between
    first.sum().backward()
    assert (x.grad.numpy() == first.numpy()).all()


def test_in_evaluation_it_returns_its_input_and_counts_nothing(backend):
    layer = nn.Dropout(0.5).eval()
    x = tn.tensor(ONES)
    assert layer(x) is x and layer.step == 0
    assert layer.train()(x) is not x and layer.step == 1


def test_a_model_hands_the_mode_down():
    model = nn.Sequential(nn.Sequential(nn.Dropout(0.5)), nn.Dropout(0.5))
    model.eval()
    assert (model(ONES).numpy() == ONES).all()
    model.train()
    assert not (model(ONES).numpy() == ONES).all()


def test_p_of_zero_changes_nothing_and_p_of_one_leaves_nothing(backend):
    assert (nn.Dropout(0)(ONES).numpy() == ONES).all()
    x = tn.tensor([[1.0, math.inf, math.nan]], requires_grad=True)
    result = nn.Dropout(1)(x)
    assert result.numpy().tolist() == [[0, 0, 0]]
    result.sum().backward()
    assert x.grad.numpy().tolist() == [[0, 0, 0]]


def test_layers_of_one_process_have_streams_of_their_own_and_repeat_after_a_seed():
    def two():
        tn.seed(5)
        return masks(nn.Dropout(0.5)), masks(nn.Dropout(0.5))

    (a, b), (c, d) = two(), two()
    assert same(a, c) and same(b, d) and not same(a, b)


def test_a_copy_goes_on_where_the_layer_is_and_on_its_own(backend):
    layer = nn.Dropout(0.5)
    masks(layer, 2)
    twin = copy.deepcopy(layer)
    expected = masks(layer, 2)
    assert twin.step == 2 and same(masks(twin, 2), expected)


@pytest.mark.parametrize("p", [-0.1, 1.1, math.nan, "half", None, True])
def test_what_is_no_probability_is_refused(p):
    with pytest.raises(ArgumentError, match="probability"):
        nn.Dropout(p)


@pytest.mark.parametrize(
    "options",
    [{"seed": "x"}, {"seed": 2**64}, {"seed": -1}, {"stream": 2**32}, {"stream": 1.5}, {"step": -1}, {"step": "x"}],
)
def test_what_is_no_counter_is_refused(options):
    with pytest.raises(ArgumentError, match="integer from 0"):
        nn.Dropout(0.5, **options)
