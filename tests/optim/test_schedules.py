"""Schedules: their values at landmarks, the parts on which they rise or fall, and what they refuse."""

import math

import pytest

import tinynet as tn
from tinynet.errors import ArgumentError
from tinynet.optim import constant, cosine, one_cycle, step, warmup


def near(value):
    return pytest.approx(value, rel=1e-12, abs=1e-15)


def test_constant_stays():
    assert [constant(0.3)(t) for t in (0, 1, 10**9)] == [0.3] * 3


def test_step_multiplies_after_every_so_many_steps():
    rate = step(1.0, every=10, factor=0.5)
    assert [rate(t) for t in (0, 9, 10, 19, 20, 30)] == [1, 1, 0.5, 0.5, 0.25, 0.125]
    assert step(1.0, every=2)(2) == near(0.1)


def test_cosine_goes_from_lr_to_floor_and_stays():
    rate = cosine(1.0, steps=100, floor=0.2)
    assert [rate(t) for t in (0, 50, 100, 101, 10**6)] == [near(v) for v in (1, 0.6, 0.2, 0.2, 0.2)]
    assert rate(25) == near(0.2 + 0.8 * (1 + math.cos(math.pi / 4)) / 2)
    assert cosine(1.0, steps=10)(10) == near(0)


def test_warmup_rises_linearly_and_hands_over_at_its_start():
    rate = warmup(4, cosine(1.0, steps=10))
    assert [rate(t) for t in range(5)] == [near(v) for v in (0.25, 0.5, 0.75, 1, 1)]
    assert rate(4 + 5) == near(cosine(1.0, steps=10)(5))
    assert [warmup(2, 0.1)(t) for t in (0, 1, 2, 99)] == [near(v) for v in (0.05, 0.1, 0.1, 0.1)]


def test_one_cycle_begins_peaks_and_ends_where_it_should():
    rate = one_cycle(2.0, steps=100, start=0.1, end=0.01, rise=0.3)
    assert rate(0) == near(0.2) and rate(30) == near(2.0) and rate(100) == near(0.02) and rate(10**6) == near(0.02)
    assert rate(15) == near(2 * (0.1 + 0.9 / 2)) and rate(65) == near(2 * (0.01 + 0.99 / 2))
    assert one_cycle(1.0, 10)(0) == near(0.04) and one_cycle(1.0, 10)(10) == near(1e-4)


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("rise", [0.01, 0.3, 0.99])
def test_one_cycle_rises_once_and_falls_once(steps, rise):
    rate = one_cycle(1.0, steps, rise=rise)
    values = [rate(t) for t in range(steps + 3)]
    peak = values.index(max(values))
    assert values[: peak + 1] == sorted(values[: peak + 1]) and values[peak:] == sorted(values[peak:], reverse=True)
    assert all(0 < value <= 1 + 1e-12 for value in values)


def test_schedules_stay_within_their_bounds_for_any_numbers():
    hypothesis = pytest.importorskip("hypothesis")
    st = pytest.importorskip("hypothesis.strategies")
    rates, counts = st.floats(1e-6, 10), st.integers(1, 10_000)

    @hypothesis.settings(max_examples=200, deadline=None)
    @hypothesis.given(rates, counts, counts, st.integers(0, 20_000), st.floats(0, 1))
    def check(lr, n, m, t, part):
        floor = part * lr
        within = 1 + 1e-12
        assert constant(lr)(t) == lr
        assert 0 <= step(lr, n)(t + 1) <= step(lr, n)(t) <= lr
        falling = cosine(lr, n, floor)
        assert floor / within <= falling(t + 1) <= falling(t) * within <= lr * within**2
        rising = warmup(m, falling)
        assert 0 < rising(t) <= lr * within or t >= m
        if t + 1 < m:
            assert rising(t) < rising(t + 1)
        assert 0 < one_cycle(lr, n)(t) <= lr * within

    check()


@pytest.mark.parametrize(
    "make",
    [
        lambda: constant(0),
        lambda: constant(math.nan),
        lambda: step(0.1, every=0),
        lambda: step(0.1, every=2, factor=0),
        lambda: cosine(-1, 10),
        lambda: cosine(0.1, 0),
        lambda: warmup(0, 0.1),
        lambda: warmup(5, 0),
        lambda: one_cycle(0, 10),
        lambda: one_cycle(0.1, 0),
        lambda: one_cycle(0.1, 10, start=0),
        lambda: one_cycle(0.1, 10, end=0),
        lambda: one_cycle(0.1, 10, rise=0),
        lambda: one_cycle(0.1, 10, rise=1),
    ],
)
def test_numbers_out_of_range_are_refused(make):
    with pytest.raises(ArgumentError, match=r"expected .* got "):
        make()


def test_an_optimizer_asks_its_schedule_before_each_step():
    asked = []

    def schedule(t):
        asked.append(t)
        return 0.5 / (t + 1)

    p = tn.tensor([0.0], requires_grad=True)
    optimizer = tn.optim.GD([p], schedule)
    moved = []
    for _ in range(3):
        before = p.item()
        p.grad = tn.tensor([1.0])
        optimizer.step()
        moved.append(before - p.item())
    assert moved == [pytest.approx(0.5, rel=1e-6), pytest.approx(0.25, rel=1e-6), pytest.approx(0.5 / 3, rel=1e-6)]
    assert optimizer.lr == 0.125 and max(asked) == 3


def test_a_schedule_that_goes_wrong_stops_the_step_before_it_changes_anything():
    p = tn.tensor([1.0], requires_grad=True)
    optimizer = tn.optim.Adam([p], lambda t: 0.1 if t < 1 else -1.0)
    p.grad = tn.tensor([1.0])
    optimizer.step()
    before, state = p.item(), optimizer._moments["m"][0].item()
    with pytest.raises(ArgumentError, match=r"-1.0"):
        optimizer.step()
    assert (p.item(), optimizer._moments["m"][0].item(), optimizer.steps) == (before, state, 1)
