"""fit(watch=...): numbers that are not finite are found before the update, named, and leave the model as it was."""

import warnings

import numpy as np
import pytest

import tinynet as tn
from tinynet.errors import ArgumentError, NonFiniteError
from tinynet.train import Callback

RNG = np.random.default_rng(0)
X = RNG.normal(size=(96, 3)).astype("float32")
Y = X.argmax(axis=1)
CAPTURE = pytest.mark.parametrize("capture", [True, False], ids=["captured", "eager"])


def network(optimizer="adam"):
    tn.seed(0)
    model = tn.nn.Sequential(tn.nn.Dense(3, 8, "tanh"), tn.nn.Dropout(0.2), tn.nn.Dense(8, 3))
    made = {
        "adam": lambda p: tn.optim.Adam(p, lr=0.01),
        "gd": lambda p: tn.optim.GD(p, lr=0.05, momentum=0.9, weight_decay=1e-3),
    }
    return model, made[optimizer](model.parameters())


def train(model, optimizer, x=X, **options):
    options = {"loss": "cross_entropy", "epochs": 2, "batch_size": 16, "shuffle": False} | options
    return tn.fit(model, (x, Y), optimizer=optimizer, **options)


def spoilt(*rows):
    x = X.copy()
    x[list(rows), 1] = np.nan
    return x


def state(model, optimizer):
    """All that a step changes, on the host."""
    arrays = model.state_dict() | {k: np.asarray(v) for k, v in optimizer.state_dict().items()}
    return {name: np.array(array) for name, array in arrays.items()} | {"masks": np.asarray(model[1].step)}


def same_bits(a, b):
    return a.keys() == b.keys() and all(a[k].tobytes() == b[k].tobytes() for k in a)


class Recorded(Callback):
    """The state of model and optimizer after each step."""

    def __init__(self):
        self.states = []

    def on_step(self, run):
        self.states.append(state(run.model, run.optimizer))


@CAPTURE
@pytest.mark.parametrize("mode", ["warn", "raise", "skip"])
@pytest.mark.parametrize("optimizer", ["adam", "gd"])
def test_a_watched_step_is_the_step(capture, mode, optimizer):
    plain, watched = network(optimizer), network(optimizer)
    options = {"capture": capture, "clip_norm": 0.5, "penalty": lambda m: tn.losses.l2(m.parameters(), 1e-3)}
    first, second = train(*plain, **options), train(*watched, watch=mode, **options)
    np.testing.assert_allclose(second["loss"], first["loss"], rtol=1e-6)
    for name, array in plain[0].state_dict().items():
        np.testing.assert_allclose(watched[0].state_dict()[name], array, rtol=1e-4, atol=1e-6)
    assert plain[1].steps == watched[1].steps == 12 and plain[0][1].step == watched[0][1].step


@CAPTURE
def test_a_skipped_step_leaves_every_bit_and_is_counted(capture):
    model, optimizer = network()
    seen = Recorded()
    history = train(model, optimizer, spoilt(20, 21, 70), watch="skip", capture=capture, epochs=3, callbacks=[seen])
    assert history["skipped"] == [2, 2, 2]
    for step in (1, 4, 7, 10, 13, 16):  # of batches of 16, those of rows 20 and 70
        assert same_bits(seen.states[step - 1], seen.states[step])
    assert not same_bits(seen.states[1], seen.states[2])
    assert optimizer.steps == model[1].step == 12
    assert all(np.isfinite(loss) for loss in history["loss"]) and history.stopped is None


@CAPTURE
def test_raise_leaves_the_model_as_before_and_names_the_row(capture):
    model, optimizer = network()
    seen = Recorded()
    with pytest.raises(NonFiniteError, match=r"step 3 in epoch 1, the data of row 6 of the batch: .* nan at \[6, 1\]"):
        train(model, optimizer, spoilt(38), watch="raise", capture=capture, callbacks=[seen])
    assert len(seen.states) == optimizer.steps == 2
    assert same_bits(seen.states[-1], state(model, optimizer))


@CAPTURE
def test_the_operation_and_its_line_are_named(capture):
    def loss(output, y):
        return tn.log(output.sum() - output.sum()) + tn.losses.cross_entropy(output, y)

    expected = rf"log \(test_watch.py:{loss.__code__.co_firstlineno + 1}\): expected finite numbers, got -inf, given x"
    with pytest.raises(NonFiniteError, match=expected):
        train(*network(), loss=loss, watch="raise", capture=capture)


@CAPTURE
def test_a_gradient_that_is_not_finite_is_found_though_the_loss_is(capture):
    model, optimizer = network()
    before = state(model, optimizer)
    with pytest.raises(NonFiniteError, match=r"divide \(.*got -?inf.* b from 0 to 0"):
        train(model, optimizer, loss=lambda output, y: tn.sqrt(output * 0.0).sum(), watch="raise", capture=capture)
    assert same_bits(before, state(model, optimizer))


@CAPTURE
def test_warn_makes_the_step_and_says_each_cause_once(capture):
    model, optimizer = network()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        train(model, optimizer, spoilt(20), watch="warn", capture=capture, epochs=1)
    texts = [str(each.message) for each in said if each.category is RuntimeWarning]
    assert len(texts) == 2 and "step 2 in epoch 1, the data of row 4" in texts[0]
    assert "step 3 in epoch 1, parameter '0.weight'" in texts[1]
    assert optimizer.steps == 6


def test_an_epoch_of_which_all_is_skipped_ends_the_run():
    history = train(*network(), spoilt(*range(0, 96, 16)), watch="skip")
    assert history["skipped"] == [6] and history.stopped == "all 6 steps of epoch 1 were skipped"


def test_parameters_without_a_gradient_stay_as_they_are():
    model, _ = network()
    idle = tn.nn.Dense(2, 2)
    optimizer = tn.optim.GD([*model.parameters(), *idle.parameters()], lr=0.1, weight_decay=0.5)
    before = idle.weight.numpy().copy()
    train(model, optimizer, watch="skip")
    np.testing.assert_array_equal(idle.weight.numpy(), before)


def test_a_budget_of_memory_holds_for_a_watched_step():
    plain, cut = network(), network()
    seen = []

    class Look(Callback):
        def on_step(self, run):
            seen.append(run.program.plan.workspace_bytes)

    train(*plain, watch="skip")
    train(*cut, watch="skip", memory="3kB", callbacks=[Look()])
    assert max(seen) <= 3000
    for name, array in plain[0].state_dict().items():
        np.testing.assert_allclose(cut[0].state_dict()[name], array, rtol=1e-3, atol=1e-5)


def test_an_unknown_watch_is_refused_before_anything_changes():
    model, optimizer = network()
    before = state(model, optimizer)
    with pytest.raises(ArgumentError, match="watch to be None or one of warn, raise, skip, got 'skipp'"):
        train(model, optimizer, watch="skipp")
    assert same_bits(before, state(model, optimizer))
