"""Schedules: their values at landmarks, the parts on which they rise or fall, and what they refuse."""

import math

import pytest

import tinynet as tn
from tinynet.errors import ArgumentError
from tinynet.optim import (
    chain,
    constant,
    cosine,
    cosine_restarts,
    cyclic,
    exponential,
    inverse_sqrt,
    linear,
    multistep,
    one_cycle,
    polynomial,
    sequential,
    step,
    warmup,
)


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


# ---- by the formulas of other frameworks, with their numbers written out ----


def test_multistep_multiplies_at_milestones():
    """PyTorch's MultiStepLR(milestones=[30, 80], gamma=0.1) from 0.05."""
    rate = multistep(0.05, [30, 80])
    assert [rate(t) for t in (0, 29, 30, 79, 80, 1000)] == [near(v) for v in (0.05, 0.05, 5e-3, 5e-3, 5e-4, 5e-4)]


def test_exponential_multiplies_a_little_at_each_step():
    """PyTorch's ExponentialLR(gamma=0.5), and Keras's ExponentialDecay(0.1, decay_steps=100, decay_rate=0.96)."""
    assert [exponential(0.8, 0.5)(t) for t in range(4)] == [near(v) for v in (0.8, 0.4, 0.2, 0.1)]
    rate = exponential(0.1, 0.96, every=100)
    assert [rate(t) for t in (0, 50, 100, 200)] == [near(v) for v in (0.1, 0.1 * 0.96**0.5, 0.096, 0.09216)]


def test_polynomial_and_linear_fall_to_the_floor_and_stay():
    """PyTorch's PolynomialLR(total_iters=4, power=1) from 0.001, and Keras's PolynomialDecay to 0.01 by a root."""
    rate = polynomial(0.001, 4)
    assert [rate(t) for t in range(6)] == [near(v) for v in (0.001, 0.00075, 0.0005, 0.00025, 0, 0)]
    assert [linear(0.001, 4)(t) for t in range(6)] == [rate(t) for t in range(6)]
    rate = polynomial(0.1, 100, floor=0.01, power=0.5)
    assert [rate(t) for t in (0, 75, 100, 101)] == [near(v) for v in (0.1, 0.055, 0.01, 0.01)]
    assert [linear(1.0, 10, floor=0.5)(t) for t in (0, 5, 10, 11)] == [near(v) for v in (1, 0.75, 0.5, 0.5)]


def test_cosine_restarts_from_its_top():
    """PyTorch's CosineAnnealingWarmRestarts(T_0=4, eta_min=0.2) from 1.0; then with T_mult=2."""
    quarter = 0.2 + 0.4 * (1 + math.cos(math.pi / 4))
    rate = cosine_restarts(1.0, 4, floor=0.2)
    assert [rate(t) for t in (0, 1, 2, 4, 5, 402)] == [near(v) for v in (1, quarter, 0.6, 1, quarter, 0.6)]
    rate = cosine_restarts(1.0, 4, growth=2, floor=0.2)  # of 4, 8, 16 steps, so from 0, 4, 12, 28 on
    expected = (0.6, 1, quarter, 0.6, 1, quarter, 0.6, 1)
    assert [rate(t) for t in (2, 4, 6, 8, 12, 16, 20, 28)] == [near(v) for v in expected]


def test_peaks_of_cosine_restarts_fall_by_a_factor():
    """Keras's CosineDecayRestarts(m_mul=0.5)."""
    rate = cosine_restarts(1.0, 10, factor=0.5)
    assert [rate(t) for t in (0, 5, 10, 15, 20)] == [near(v) for v in (1, 0.5, 0.5, 0.25, 0.25)]


def test_cyclic_goes_up_and_down():
    """PyTorch's CyclicLR(base_lr=0.1, max_lr=0.5, step_size_up=4) in its three modes, and with step_size_down=2."""
    expected = (0.1, 0.2, 0.3, 0.4, 0.5, 0.4, 0.3, 0.2, 0.1, 0.2)
    assert [cyclic(0.1, 0.5, 4)(t) for t in range(10)] == [near(v) for v in expected]
    halves = cyclic(0.1, 0.5, 4, mode="triangular2")
    assert [halves(t) for t in (4, 8, 12, 20)] == [near(v) for v in (0.5, 0.1, 0.3, 0.2)]
    falling = cyclic(0.1, 0.5, 4, mode="exp_range", factor=0.9)
    assert [falling(t) for t in (0, 4, 12)] == [near(v) for v in (0.1, 0.1 + 0.4 * 0.9**4, 0.1 + 0.4 * 0.9**12)]
    uneven = cyclic(0.1, 0.5, 4, fall=2)
    assert [uneven(t) for t in (4, 5, 6, 10)] == [near(v) for v in (0.5, 0.3, 0.1, 0.5)]


def test_inverse_sqrt_is_the_schedule_of_transformers():
    """Vaswani et al. 2017: d^-0.5 min(s^-0.5, s warmup^-1.5) with d = 512, warmup = 4000, s from 1 on."""
    rate = inverse_sqrt((512 * 4000) ** -0.5, 4000)
    for s in (1, 100, 4000, 16_000, 100_000):
        assert rate(s - 1) == near(512**-0.5 * min(s**-0.5, s * 4000**-1.5))
    assert [inverse_sqrt(0.4, 4)(t) for t in (0, 1, 3, 15)] == [near(v) for v in (0.1, 0.2, 0.4, 0.2)]


def test_sequential_begins_each_schedule_at_its_own_start():
    """PyTorch's SequentialLR of ConstantLR(factor=0.1) and ExponentialLR(gamma=0.9), milestones=[2]; and of three."""
    rate = sequential([0.1, exponential(1.0, 0.9)], [2])
    assert [rate(t) for t in range(5)] == [near(v) for v in (0.1, 0.1, 1, 0.9, 0.81)]
    three = sequential([constant(3.0), linear(2.0, 4), 1.0], [2, 5])
    assert [three(t) for t in (0, 1, 2, 4, 5, 100)] == [near(v) for v in (3, 3, 2, 1, 1, 1)]


def test_chain_is_the_product():
    """PyTorch's ChainedScheduler of ConstantLR(factor=0.1, total_iters=2) and ExponentialLR(gamma=0.9), from 1."""
    rate = chain(exponential(1.0, 0.9), sequential([0.1, 1.0], [2]))
    assert [rate(t) for t in range(4)] == [near(v) for v in (0.1, 0.09, 0.81, 0.729)]


SOME = [
    multistep(0.1, [3, 5]), exponential(0.1, 0.9), polynomial(0.1, 7, power=2), linear(0.1, 7), cyclic(0.01, 0.1, 3),
    cosine_restarts(0.1, 3, growth=1.5), inverse_sqrt(0.1, 4), sequential([0.1, 0.2], [4]), chain(0.1, step(1.0, 3)),
]  # fmt: skip


@pytest.mark.parametrize("rate", SOME)
def test_one_program_runs_with_all_rates(rate):
    """The weight of each step is known: its gradient is 1."""
    p = tn.tensor([1.0], dtype="float64", requires_grad=True)
    optimizer = tn.optim.GD([p], rate)

    @tn.capture
    def move():
        optimizer.zero_grad()
        tn.sum(p).backward()
        optimizer.step()

    programs, expected = set(), 1.0
    for t in range(8):
        move()
        expected -= rate(t)
        assert p.item() == pytest.approx(expected, rel=1e-12)
        programs.add(id(move.program()))
    assert len(programs) == 1


@pytest.mark.parametrize(
    "make",
    [
        lambda: constant("fast"),
        lambda: constant(True),
        lambda: constant(math.inf),
        lambda: cosine(0.1, 10, floor=-0.1),
        lambda: cosine(0.1, 10, floor=0.2),
        lambda: multistep(0.1, [5, 5]),
        lambda: multistep(0.1, [0, 5]),
        lambda: multistep(0.1, 5),
        lambda: multistep(0.1, [2.5]),
        lambda: multistep(0.1, [5], factor=-1),
        lambda: exponential(0.1, 0),
        lambda: exponential(0.1, 0.9, every=0),
        lambda: polynomial(0.1, 0),
        lambda: polynomial(0.1, 10, power=0),
        lambda: polynomial(0.1, 10, floor=0.2),
        lambda: linear(0.1, 10, floor=-1),
        lambda: cosine_restarts(0.1, 0),
        lambda: cosine_restarts(0.1, 10, growth=0.5),
        lambda: cosine_restarts(0.1, 10, factor=2),
        lambda: cosine_restarts(0.1, 10, floor=math.nan),
        lambda: cyclic(0.2, 0.1, 5),
        lambda: cyclic(0.1, 0.2, 0),
        lambda: cyclic(0.1, 0.2, 5, fall=-1),
        lambda: cyclic(0.1, 0.2, 5, mode="square"),
        lambda: cyclic(0.1, 0.2, 5, mode="exp_range", factor=1.1),
        lambda: inverse_sqrt(0.1, 0),
        lambda: sequential([0.1, 0.2], []),
        lambda: sequential([0.1, 0.2], [5, 6]),
        lambda: sequential([0.1, -0.2], [5]),
        lambda: sequential([], []),
        lambda: chain(),
        lambda: chain(0.1, "half"),
    ],
)
def test_numbers_out_of_range_are_refused_by_these_too(make):
    with pytest.raises(ArgumentError, match=r"expected .* got "):
        make()
