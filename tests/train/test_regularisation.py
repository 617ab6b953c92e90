"""Each means against overfitting does what it says, where there is something to do: few digits, some labelled wrongly.

Margins are at most half of what was seen for several seeds, so that another order of additions changes no answer.
"""

import pytest

import tinynet as tn
from tinynet.data.sampling import permutation

SEED, SAMPLES, WRONG, EPOCHS = 1, 250, 50, 120


@pytest.fixture(scope="module")
def digits():
    """250 digits to learn from, of which each fifth is given as the next higher one, and 359 to be judged on."""
    train, test = tn.data.digits()
    few, _ = train.split(SAMPLES / len(train), seed=SEED)
    y = few.y.copy()
    wrong = permutation(SAMPLES, SEED)[:WRONG]
    y[wrong] = (y[wrong] + 1 + permutation(WRONG, SEED) % 9) % 10
    return tn.data.Dataset(few.x, y), test


def adam(parameters):
    return tn.optim.Adam(parameters, lr=0.01)


def trained(digits, *, dropout=0.0, optimizer=adam, epochs=EPOCHS, **options):
    """A network with far more parameters than samples, and its history."""
    tn.seed(SEED)
    drop = [tn.nn.Dropout(dropout)] if dropout else []
    model = tn.nn.Sequential(tn.nn.Dense(64, 256, "relu"), *drop, tn.nn.Dense(256, 10))
    optimizer = optimizer(model.parameters())
    options = {"loss": "cross_entropy", "batch_size": 50, "seed": SEED} | options
    return model, tn.fit(model, digits[0], optimizer=optimizer, epochs=epochs, **options)


def held_out(model, digits):
    return tn.evaluate(model, digits[1], "cross_entropy")["loss"]


def norm(model):
    return sum(float((p.numpy() ** 2).sum()) for p in model.parameters()) ** 0.5


def near_zero(model):
    """The share of the weights that a network could do without."""
    weights = [p.numpy() for p in model.parameters() if p.ndim == 2]
    return sum(int((abs(w) < 1e-3).sum()) for w in weights) / sum(w.size for w in weights)


@pytest.fixture(scope="module")
def plain(digits):
    """Without any of it. It is checked that it overfits: the wrong labels are learnt by heart."""
    model, history = trained(digits, valid=digits[1])
    assert tn.evaluate(model, digits[0], "cross_entropy")["accuracy"] == 1
    assert history["valid_loss"][-1] > 1.25 * min(history["valid_loss"])
    return model, history


def test_l1_makes_weights_zero_and_generalises_better(digits, plain):
    model, _ = trained(digits, penalty=lambda m: tn.losses.l1(m.parameters(), 3e-3))
    assert near_zero(plain[0]) < 0.05 and near_zero(model) > 0.35
    assert held_out(model, digits) < 0.87 * held_out(plain[0], digits)


def test_l2_shrinks_all_weights_and_generalises_better(digits, plain):
    model, _ = trained(digits, penalty=lambda m: tn.losses.l2(m.parameters(), 3e-3))
    assert norm(model) < 0.6 * norm(plain[0])
    assert held_out(model, digits) < 0.85 * held_out(plain[0], digits)


def test_decoupled_decay_shrinks_all_weights_and_generalises_better(digits, plain):
    model, _ = trained(digits, optimizer=lambda p: tn.optim.AdamW(p, lr=0.01, weight_decay=1.0))
    assert norm(model) < 0.7 * norm(plain[0])
    assert held_out(model, digits) < 0.85 * held_out(plain[0], digits)


def test_under_adam_decoupled_decay_is_a_factor_and_l2_is_not(digits):
    """Seen at weights that the loss does not reach, since the first pixel of every image is 0.

    Decoupled, each step multiplies them by 1 - lr * decay. In the gradient, the decay is all the gradient they have,
    and Adam divides it by its own size: whatever its strength, each step takes away about lr.
    """
    assert not digits[0].x[:, 0].any()
    lr, decay, epochs = 0.01, 0.1, 8
    steps = epochs * SAMPLES // 50
    start, _ = trained(digits, epochs=1, optimizer=adam)
    first = start[0].weight.numpy()[0].copy()  # no gradient: as it was initially
    decoupled, _ = trained(digits, epochs=epochs, optimizer=lambda p: tn.optim.AdamW(p, lr=lr, weight_decay=decay))
    assert decoupled[0].weight.numpy()[0] == pytest.approx(first * (1 - lr * decay) ** steps, rel=1e-4)
    for strength in (decay, decay / 100):
        coupled, _ = trained(
            digits, epochs=epochs, optimizer=lambda p, s=strength: tn.optim.Adam(p, lr=lr, weight_decay=s)
        )
        assert abs(coupled[0].weight.numpy()[0]).mean() < 0.2 * abs(first).mean()


def test_dropout_generalises_better(digits, plain):
    model, _ = trained(digits, dropout=0.7)
    assert held_out(model, digits) < 0.78 * held_out(plain[0], digits)


def test_label_smoothing_makes_a_network_less_sure_and_better_where_it_is_wrong():
    """With right labels, since smoothing is no means against wrong ones; and with 100 of them."""
    train, test = tn.data.digits()
    few, _ = train.split(100 / len(train), seed=SEED)

    def model_of(smoothing):
        tn.seed(SEED)
        layers = tn.nn.Dense(64, 256, "relu"), tn.nn.Dense(256, 256, "relu"), tn.nn.Dense(256, 10)
        model = tn.nn.Sequential(*layers)
        loss = lambda logits, y: tn.losses.cross_entropy(logits, y, label_smoothing=smoothing)
        optimizer = tn.optim.Adam(model.parameters(), lr=0.03)
        tn.fit(model, few, loss=loss, optimizer=optimizer, epochs=60, batch_size=50)
        return model

    def surest(model):
        return tn.softmax(tn.tensor(tn.predict(model, test.x))).numpy().max(axis=-1).mean()

    plain, smoothed = model_of(0.0), model_of(0.1)
    assert surest(plain) > 0.95 and surest(smoothed) < 0.93
    loss_of = lambda model: tn.evaluate(model, test, "cross_entropy")["loss"]
    assert loss_of(smoothed) < 0.75 * loss_of(plain)


def test_early_stopping_ends_in_time_and_keeps_the_best_model(digits, plain):
    model, history = trained(digits, valid=digits[1], callbacks=[tn.train.EarlyStopping(patience=5)])
    assert len(history) < EPOCHS // 2 and "not improved for 5 epochs" in history.stopped
    best = min(history["valid_loss"])
    assert history["valid_loss"][-1] > best
    assert held_out(model, digits) == pytest.approx(best, rel=1e-5)
    assert best < 0.85 * held_out(plain[0], digits)
