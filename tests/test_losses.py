"""Losses equal their formulas, stay finite where their value is, and refuse targets that do not belong to them."""

import math

import numpy as np
import pytest

import tinynet as tn
from tinynet.errors import ArgumentError, DTypeError, RangeError, ShapeError
from tinynet.losses import cross_entropy, l1, l2, mse

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(6, 4)) * 3
LABELS = np.array([0, 3, 1, 2, 3, 0])
ROWS = np.exp(RNG.normal(size=(6, 4)))
ROWS /= ROWS.sum(axis=1, keepdims=True)
UNIT = np.eye(4)[LABELS]


def log_softmax(x):
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def gradient(loss, values):
    x = tn.tensor(values, requires_grad=True)
    loss(x).backward()
    return x.grad.numpy()


# ---- mse ----


@pytest.mark.parametrize("shape", [(7, 1), (7,), (3, 4), (2, 3, 4), (1, 1)])
def test_mse_is_the_mean_of_squared_differences_over_all_elements(backend, shape):
    pred, target = RNG.normal(size=shape), RNG.normal(size=shape)
    result = mse(tn.tensor(pred), target)
    assert result.shape == () and result.dtype == "float64" and result.backend is backend
    np.testing.assert_allclose(result.item(), ((pred - target) ** 2).mean(), rtol=1e-14)
    np.testing.assert_allclose(gradient(lambda x: mse(x, target), pred), 2 * (pred - target) / pred.size, rtol=1e-13)
    np.testing.assert_allclose(gradient(lambda x: mse(pred, x), target), 2 * (target - pred) / pred.size, rtol=1e-13)


def test_mse_keeps_float32_and_takes_python_numbers():
    result = mse(tn.tensor([[1.0], [2.0]]), [[0.0], [4.0]])
    assert result.dtype == "float32" and result.item() == 2.5


@pytest.mark.parametrize("shapes", [((5, 1), (5,)), ((5,), (5, 1)), ((5, 2), (5, 1)), ((5, 1), ()), ((5, 1), (4, 1))])
def test_mse_broadcasts_nothing(backend, shapes):
    pred, target = (np.zeros(shape, "float32") for shape in shapes)
    with pytest.raises(ShapeError) as caught:
        mse(tn.tensor(pred), target)
    assert str(shapes[0]) in str(caught.value) and str(shapes[1]) in str(caught.value)


def test_mse_refuses_an_empty_batch_and_other_dtypes(backend):
    with pytest.raises(ShapeError, match=r"empty|at least one"):
        mse(tn.zeros((0, 1)), np.zeros((0, 1), "float32"))
    with pytest.raises(DTypeError, match=r"float32.*float64|float64.*float32"):
        mse(tn.zeros((3, 1)), np.zeros((3, 1)))
    with pytest.raises(DTypeError, match="int64"):
        mse(tn.zeros((3, 1)), np.zeros((3, 1), "int64"))
    with pytest.raises(DTypeError, match="int64"):
        mse(np.zeros((3, 1), "int64"), np.zeros((3, 1), "int64"))


# ---- cross-entropy ----


@pytest.mark.parametrize("target, rows", [(LABELS, UNIT), (LABELS.astype("uint8"), UNIT), (ROWS, ROWS), (UNIT, UNIT)],
                         ids=["labels", "uint8 labels", "probabilities", "unit rows"])  # fmt: skip
def test_cross_entropy_is_the_mean_over_rows_of_minus_t_log_softmax(backend, target, rows):
    result = cross_entropy(tn.tensor(LOGITS), target)
    assert result.shape == () and result.dtype == "float64" and result.backend is backend
    np.testing.assert_allclose(result.item(), -(rows * log_softmax(LOGITS)).sum(axis=1).mean(), rtol=1e-13)
    expected = (np.exp(log_softmax(LOGITS)) - rows) / len(rows)
    np.testing.assert_allclose(gradient(lambda x: cross_entropy(x, target), LOGITS), expected, rtol=1e-11, atol=1e-15)


@pytest.mark.parametrize("target, rows", [(LABELS, UNIT), (ROWS, ROWS)], ids=["labels", "probabilities"])
@pytest.mark.parametrize("smoothing", [0.1, 0.5, 1.0])
def test_label_smoothing_mixes_the_uniform_row_in(backend, target, rows, smoothing):
    mixed = (1 - smoothing) * rows + smoothing / 4
    result = cross_entropy(tn.tensor(LOGITS), target, label_smoothing=smoothing)
    np.testing.assert_allclose(result.item(), -(mixed * log_softmax(LOGITS)).sum(axis=1).mean(), rtol=1e-13)
    expected = (np.exp(log_softmax(LOGITS)) - mixed) / len(rows)
    found = gradient(lambda x: cross_entropy(x, target, smoothing), LOGITS)
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-15)


def test_cross_entropy_of_more_than_one_row_axis(backend):
    logits, labels = RNG.normal(size=(2, 3, 4)), RNG.integers(0, 4, (2, 3))
    expected = -np.take_along_axis(log_softmax(logits), labels[..., None], -1).mean()
    np.testing.assert_allclose(cross_entropy(tn.tensor(logits), labels).item(), expected, rtol=1e-13)


def test_cross_entropy_of_a_single_row_takes_a_number(backend):
    expected = -log_softmax(LOGITS[0])[2]
    for label in (2, np.int64(2), np.array(2)):
        np.testing.assert_allclose(cross_entropy(tn.tensor(LOGITS[0]), label).item(), expected, rtol=1e-13)


def test_lists_of_whole_numbers_are_labels_and_lists_of_rows_probabilities(backend):
    logits = tn.tensor(LOGITS.astype("float32"))
    expected = cross_entropy(logits, LABELS).item()
    assert cross_entropy(logits, LABELS.tolist()).item() == expected
    np.testing.assert_allclose(cross_entropy(logits, UNIT.tolist()).item(), expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_cross_entropy_is_stable_for_any_logits(backend, dtype):
    big = np.array([[1e4, -1e4, 0], [-1e4, 1e4, 0], [1e4, 1e4, 1e4]], dtype)
    right, wrong = np.array([0, 1, 2]), np.array([1, 0, 2])
    np.testing.assert_allclose(cross_entropy(tn.tensor(big), right).item(), math.log(3) / 3, rtol=1e-6)
    np.testing.assert_allclose(cross_entropy(tn.tensor(big), wrong).item(), (4e4 + math.log(3)) / 3, rtol=1e-6)
    for target in (right, wrong):
        found = gradient(lambda x, target=target: cross_entropy(x, target), big)
        probabilities = np.exp(log_softmax(big.astype("float64")))
        np.testing.assert_allclose(found, (probabilities - np.eye(3)[target]) / 3, atol=1e-7)
    rows = np.array([[0.5, 0.5, 0], [0, 1, 0], [0, 0, 1]], dtype)
    np.testing.assert_allclose(cross_entropy(tn.tensor(big), rows).item(), (1e4 + math.log(3)) / 3, rtol=1e-6)


@pytest.mark.parametrize("label", [4, -1, 100])
def test_a_label_out_of_range_is_named(backend, label):
    labels = LABELS.copy()
    labels[3] = label
    with pytest.raises(RangeError, match=str(label)):
        cross_entropy(tn.tensor(LOGITS), labels)


WRONG = {
    "labels as a column": (LABELS[:, None], ShapeError, r"\(6, 4\).*\(6, 1\)"),
    "too few labels": (LABELS[:5], ShapeError, r"\(6,\).*\(5,\)"),
    "one label for many rows": (np.array(1), ShapeError, r"\(6,\)"),
    "rows of another width": (ROWS[:, :3], ShapeError, r"\(6, 4\).*\(6, 3\)"),
    "labels as floats": (LABELS.astype("float64"), DTypeError, "int64"),
    "fractional labels in a list": ([0.5, 1, 2, 3, 0, 1], DTypeError, "integer"),
    "boolean labels": (LABELS > 1, DTypeError, "integer"),
    "rows of integers": (UNIT.astype("int64"), DTypeError, "floats"),
    "rows of another float": (ROWS.astype("float32"), DTypeError, "float32"),
    "nothing": (None, ArgumentError, "None"),
    "text": ("cat", ArgumentError, "cat"),
}


@pytest.mark.parametrize("what", WRONG)
def test_targets_that_do_not_belong_to_the_logits_are_refused(backend, what):
    target, error, says = WRONG[what]
    with pytest.raises(error, match=says):
        cross_entropy(tn.tensor(LOGITS), target)


def test_an_empty_batch_has_no_cross_entropy(backend):
    with pytest.raises(ShapeError):
        cross_entropy(tn.zeros((0, 4)), np.zeros(0, "int64"))


def test_integer_logits_are_refused():
    with pytest.raises(DTypeError, match="int64"):
        cross_entropy(np.zeros((2, 3), "int64"), np.zeros(2, "int64"))


@pytest.mark.parametrize("smoothing", [-0.1, 1.1, math.nan])
def test_label_smoothing_outside_its_range_is_refused(smoothing):
    with pytest.raises(ArgumentError, match="from 0 to 1"):
        cross_entropy(tn.tensor(LOGITS), LABELS, smoothing)


# ---- penalties ----


def test_penalties_are_sums_over_all_parameters(backend):
    arrays = [RNG.normal(size=(3, 2)), RNG.normal(size=(2,))]
    parameters = [tn.tensor(array, requires_grad=True) for array in arrays]
    flat = np.concatenate([array.ravel() for array in arrays])
    np.testing.assert_allclose(l1(parameters, 0.1).item(), 0.1 * np.abs(flat).sum(), rtol=1e-13)
    np.testing.assert_allclose(l2(iter(parameters), 0.1).item(), 0.1 * (flat**2).sum(), rtol=1e-13)
    (l1(parameters, 0.1) + l2(parameters, 0.5)).backward()
    for parameter, array in zip(parameters, arrays):
        np.testing.assert_allclose(parameter.grad.numpy(), 0.1 * np.sign(array) + array, rtol=1e-13)


def test_a_penalty_of_no_parameters_is_refused():
    for penalty in (l1, l2):
        with pytest.raises(ArgumentError, match="at least one parameter"):
            penalty([], 0.1)
