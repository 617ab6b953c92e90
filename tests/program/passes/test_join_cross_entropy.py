"""``join_cross_entropy``: the loss and its gradient from one softmax, where that gradient is known beforehand."""

import numpy as np
import pytest
from graphs import after, unchanged

import tinynet as tn
from tinynet.program.passes import join_cross_entropy, remove_dead

RNG = np.random.default_rng(5)
X, LABELS = RNG.normal(size=(6, 4)).astype(np.float32), RNG.integers(0, 3, 6)
ROWS = np.full((6, 3), 1 / 3, np.float32)


def trainer(objective):
    """A step whose objective is a function of the rows of cross-entropy."""
    w = tn.tensor(RNG.normal(size=(4, 3)).astype(np.float32), requires_grad=True)

    def step(x, target):
        w.grad = None
        logits = x @ w
        loss = objective(tn.softmax_cross_entropy(logits, target))
        loss.backward()
        return loss, w.grad

    return step


def joined(step, *args, **options):
    before, now, graph = after(join_cross_entropy, step, *args, exact=False, **options)
    assert "softmax_cross_entropy" in before
    return "softmax_cross_entropy_both" in now, now, graph


@pytest.mark.parametrize("objective", [
    tn.mean, tn.sum, lambda rows: rows.mean() * 0.5, lambda rows: (rows * np.linspace(0, 1, 6, dtype=np.float32)).sum(),
    lambda rows: rows[1:].mean(), lambda rows: rows.mean() + rows.sum() * 2.0,
], ids=["mean", "sum", "scaled mean", "weighted", "some rows", "both"])  # fmt: skip
@pytest.mark.parametrize("target", [LABELS, ROWS], ids=["labels", "rows"])
def test_a_loss_whose_gradient_is_known_beforehand_is_joined_with_it(objective, target):
    found, now, graph = joined(trainer(objective), X, target)
    assert found and not {"softmax_cross_entropy", "softmax_cross_entropy_grad"} & set(now)
    both = next(each for each in graph if each.op.name == "softmax_cross_entropy_both")
    assert len(both.outputs) == 2


@pytest.mark.parametrize("objective", [
    lambda rows: (rows.mean() * rows.mean()), lambda rows: (rows * rows).mean(), lambda rows: tn.exp(rows).sum(),
    lambda rows: rows.max(), lambda rows: tn.logsumexp(rows),
], ids=["squared mean", "mean of squares", "exp", "max", "logsumexp"])  # fmt: skip
def test_a_gradient_that_depends_on_the_loss_comes_after_it(objective):
    unchanged(join_cross_entropy, trainer(objective), X, LABELS)


def test_a_loss_without_a_gradient_stays():
    unchanged(join_cross_entropy, lambda x, y: tn.softmax_cross_entropy(x, y).mean(), X[:, :3], LABELS)


def test_the_gradient_of_other_logits_or_targets_is_not_taken_for_it():
    def step(x, y, z, g):
        return tn.softmax_cross_entropy(x, y), tn.ops.softmax_cross_entropy_grad(x, z, g)

    unchanged(join_cross_entropy, step, ROWS, LABELS, LABELS[::-1].copy(), X[:, 0].copy())


@pytest.mark.parametrize("which", ["logits", "target", "incoming"])
def test_what_is_written_over_between_loss_and_gradient_keeps_them_apart(which):
    def step(x, target, g):
        logits, target, g = x * 2.0, target * 1.0, g * 3.0
        loss = tn.softmax_cross_entropy(logits, target)
        written = {"logits": logits, "target": target, "incoming": g}[which]
        tn.ops.assign(written, written * 0.5)
        return loss, tn.ops.softmax_cross_entropy_grad(logits, target, g)

    unchanged(join_cross_entropy, step, ROWS + X[:, :3], ROWS, X[:, 0].copy())


def test_an_incoming_gradient_of_something_that_is_written_in_between_stays_behind_the_write():
    w = tn.tensor(X[:, 0].copy())

    def step(x, target):
        loss = tn.softmax_cross_entropy(x, target)
        tn.ops.assign(w, w * 2.0)
        return loss, tn.ops.softmax_cross_entropy_grad(x, target, w + 1.0)

    unchanged(join_cross_entropy, step, ROWS + X[:, :3], LABELS)


def test_two_losses_are_joined_each_with_its_own():
    w = tn.tensor(RNG.normal(size=(4, 3)).astype(np.float32), requires_grad=True)

    def step(x, y, z):
        w.grad = None
        logits = x @ w
        loss = tn.softmax_cross_entropy(logits, y).mean() + tn.softmax_cross_entropy(tn.tanh(logits), z).sum()
        loss.backward()
        return loss, w.grad

    _, now, _ = joined(step, X, LABELS, LABELS[::-1].copy(), first=(remove_dead,))
    assert now.count("softmax_cross_entropy_both") == 2
