"""``lr_range``: its suggestion can be trained with, and whatever it does, it does to copies."""

import math

import pytest

import tinynet as tn
from tinynet.errors import ArgumentError, MissingExtraError
from tinynet.resources import LRRange, lr_range

DIGITS, TEST = tn.data.digits()
FEW = DIGITS[:200]


def network(*layers):
    tn.seed(0)
    return tn.nn.Sequential(tn.nn.Dense(64, 32, "relu"), *layers, tn.nn.Dense(32, 10))


def state(model, optimizer):
    """Everything that training changes, bit by bit."""
    arrays = model.state_dict() | {k: v for k, v in optimizer.state_dict().items() if hasattr(v, "tobytes")}
    steps = [module.step for _, module in model.named_modules() if isinstance(module, tn.nn.Dropout)]
    grads = [None if p.grad is None else p.grad.numpy().tobytes() for p in model.parameters()]
    others = optimizer.steps, optimizer.lr, model.training, steps, grads
    return {name: array.tobytes() for name, array in arrays.items()}, others


@pytest.fixture
def begun():
    """A model and its optimizer in the middle of training, with a schedule and a dropout."""
    model = network(tn.nn.Dropout(0.2))
    optimizer = tn.optim.Adam(model.parameters(), tn.optim.cosine(0.01, 100))
    tn.fit(model, FEW, loss="cross_entropy", optimizer=optimizer, epochs=2)
    model.eval()
    return model, optimizer


def test_the_suggestion_trains_better_than_rates_far_from_it():
    def loss(rate):
        model = network()
        optimizer = tn.optim.Adam(model.parameters(), rate)
        tn.fit(model, FEW, loss="cross_entropy", optimizer=optimizer, epochs=8)
        return tn.evaluate(model, TEST, "cross_entropy")["loss"]

    rate = lr_range(network(), FEW, loss="cross_entropy", optimizer="adam").suggestion
    assert loss(rate) < 0.7 * min(loss(rate / 100), loss(rate * 100))


def test_rates_grow_by_a_factor_and_losses_are_those_of_training_with_them():
    model = network()
    found = lr_range(model, FEW, loss="cross_entropy", optimizer="gd", low=1e-3, high=0.1, steps=9, batch_size=50)
    assert found.rates == [pytest.approx(1e-3 * 10 ** (i / 4)) for i in range(9)]
    optimizer = tn.optim.GD(model.parameters(), 1.0)
    loader, losses = tn.data.Loader(FEW, 50, seed=0), []
    batches = [batch for _ in range(3) for batch in loader]
    for rate, (x, y) in zip(found.rates, batches):
        optimizer.lr = rate
        model.zero_grad()
        loss = tn.losses.cross_entropy(model(tn.tensor(x)), tn.tensor(y))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert found.losses == pytest.approx(losses, rel=1e-4)
    assert found.stopped == "All rates were tried."


def test_model_and_optimizer_are_as_they_were(begun):
    before = state(*begun)
    lr_range(begun[0], FEW, loss="cross_entropy", optimizer=begun[1], steps=30)
    assert state(*begun) == before


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_model_and_optimizer_are_as_they_were_after_an_error_or_ctrl_c(begun, error):
    before, calls = state(*begun), []

    def loss(logits, y):
        calls.append(0)
        if len(calls) == 5:
            raise error
        return tn.losses.cross_entropy(logits, y)

    with pytest.raises(error):
        lr_range(begun[0], FEW, loss=loss, optimizer=begun[1], capture=False)
    assert state(*begun) == before


def test_all_rates_run_on_one_program(monkeypatch):
    traced, trace = [], tn.program.Captured._trace

    def counted(self, *args):
        traced.append(self)
        return trace(self, *args)

    monkeypatch.setattr(tn.program.Captured, "_trace", counted)
    times = []
    for steps in (5, 40):
        found = lr_range(network(), FEW, loss="cross_entropy", optimizer="gd", steps=steps, high=0.1)
        assert len(found.rates) == steps
        times.append(len(traced))
        traced.clear()
    assert 1 <= times[0] == times[1] <= 2


def test_it_stops_where_the_loss_diverges():
    found = lr_range(network(), FEW, loss="cross_entropy", optimizer="gd", high=1e4)
    assert "Stopped at" in found.stopped and len(found.rates) < 100
    assert found.suggestion < found.rates[-1] and all(map(math.isfinite, found.losses))


# ---- what is read from the curve, with curves whose answer is known ----


def curve(height, smoothing=0.0, n=101):
    rates = [10 ** (-6 + 6 * i / (n - 1)) for i in range(n)]
    return LRRange(rates, [height(math.log10(rate)) for rate in rates], smoothing, "")


def test_the_suggestion_is_where_the_loss_falls_most():
    found = curve(lambda e: -1 / (1 + math.exp(-4 * (e + 3))) + math.exp(4 * (e + 0.5)))
    assert found.suggestion == found.steepest == pytest.approx(1e-3, rel=0.2)
    minimum = found.rates[found.losses.index(min(found.losses))]
    assert found.tenth_of_minimum == minimum / 10


def test_a_loss_that_never_falls_leaves_the_other_rule():
    found = curve(lambda e: e)
    assert found.steepest is None and found.suggestion == found.tenth_of_minimum
    assert "never fell" in str(found)


def test_the_moving_average_is_corrected_for_its_start():
    """With beta = 1/2: weights 1; 1/3, 2/3; 1/7, 2/7, 4/7."""
    found = LRRange([1.0, 2.0, 3.0], [3.0, 6.0, 7.0], 0.5, "")
    assert found.smoothed == [pytest.approx(v, rel=1e-12) for v in (3, 5, 43 / 7)]


def test_it_can_be_read(tmp_path):
    found = curve(lambda e: (e + 2) ** 2)
    assert f"suggestion        {found.suggestion:.2e}" in str(found) and "1.00e-06" in str(found)
    assert set(found.to_dict()) >= {"rates", "losses", "smoothed", "suggestion"}
    pytest.importorskip("matplotlib")
    found.plot(tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_a_plot_without_matplotlib_says_which_extra_brings_it(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"tinynet\[viz\]"):
        curve(lambda e: e).plot(tmp_path / "curve.png")


@pytest.mark.parametrize(
    "options",
    [
        {"low": 0}, {"low": 1, "high": 1}, {"high": math.inf}, {"low": math.nan}, {"steps": 1}, {"steps": 2.5},
        {"smoothing": 1}, {"batch_size": 0}, {"optimizer": "sgd"}, {"loss": "l2"}, {"data": 3},
    ],
)  # fmt: skip
def test_bad_arguments_are_refused(options):
    given = {"model": network(), "data": FEW, "loss": "cross_entropy", "optimizer": "adam"} | options
    with pytest.raises(ArgumentError, match=r"expected .* got "):
        lr_range(given.pop("model"), given.pop("data"), **given)


def test_a_loss_that_is_not_finite_at_the_first_rate_is_refused():
    data = DIGITS.x[:64] + math.inf, DIGITS.y[:64]
    with pytest.raises(ArgumentError, match="finite loss at the first rate"):
        lr_range(network(), data, loss="cross_entropy", optimizer="adam")
