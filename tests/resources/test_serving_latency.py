"""Percentiles from a bounded histogram, and what is foretold of a request."""

from __future__ import annotations

import math
import random

import pytest

from tinynet.resources.serving.forecast import LATE, Forecast
from tinynet.resources.serving.latency import RELATIVE_ERROR, Latencies

US, MS = 1_000, 1_000_000

# ---- percentiles ----


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("spread", [0.1, 2.0, 4.0])
def test_a_percentile_is_never_too_short_and_at_most_one_part_in_64_too_long(seed, spread):
    rng, latencies = random.Random(seed), Latencies()
    times = sorted(int(rng.lognormvariate(11, spread)) for _ in range(5000))
    for each in rng.sample(times, len(times)):
        latencies.add(each)
    for percent in (0, 1, 50, 90, 99, 99.9, 100):
        exact = times[max(1, math.ceil(len(times) * percent / 100)) - 1]
        assert exact <= latencies.percentile(percent) <= exact * (1 + RELATIVE_ERROR)
    assert latencies.count == 5000 and latencies.worst == times[-1] == latencies.percentile(100)


def test_every_magnitude_has_its_bucket():
    for bits in range(40):
        for value in {2**bits, 2 ** (bits + 1) - 1}:
            latencies = Latencies()
            latencies.add(value)
            latencies.add(2**40)
            assert value <= latencies.percentile(50) <= value * (1 + RELATIVE_ERROR)


def test_memory_does_not_grow_and_nothing_is_too_long_or_there_to_be_counted():
    latencies = Latencies()
    size = len(latencies._counts)
    assert math.isnan(latencies.percentile(99))
    for value in (0, 1, 2**50):
        latencies.add(value)
    assert len(latencies._counts) == size
    assert latencies.percentile(1) == 0 and latencies.worst == 2**50


# ---- the forecast ----


def forecast(deadline=10 * MS, **run_times):
    made = Forecast({1: 100 * US, 4: 200 * US} | run_times, deadline)
    made.gap = 10 * US
    return made


def test_a_request_waits_for_the_run_under_way_and_for_those_before_it():
    made = forecast()
    assert [made.run_time(rows) for rows in (1, 2, 3, 4)] == [100 * US, 200 * US, 200 * US, 200 * US]
    assert made.wait(1, 0, 0) == 110 * US
    assert made.wait(1, 4, 50 * US) == 150 * US + 110 * US
    assert made.wait(4, 0, 0) == 210 * US
    assert made.wait(9, 0, 0) == 2 * 210 * US + 110 * US


def test_a_run_that_is_overdue_is_expected_to_take_as_long_again():
    made = forecast()
    assert made.wait(1, 1, 100 * US) == 110 * US
    assert made.wait(1, 1, 5100 * US) == 5 * MS + 110 * US


def test_a_batch_waits_for_others_where_a_run_takes_longer_than_they_do_and_the_deadline_leaves_time():
    made = forecast()
    assert made.worth_waiting(1, 0)
    assert not made.worth_waiting(4, 0), "it is full"
    assert not made.worth_waiting(1, 9_900 * US), "it would be late"
    made.gap = 150 * US
    assert not made.worth_waiting(1, 0), "it would be done sooner than others are there"
    assert not Forecast({1: 100 * US}, MS).worth_waiting(1, 0)


def test_the_factor_rises_with_deadlines_missed_after_waiting_and_falls_with_those_met():
    made = forecast()
    assert made.answered(10 * MS, True) and made.factor < 1
    before = made.factor
    assert not made.answered(11 * MS, True) and made.factor > before
    before = made.factor
    assert not made.answered(11 * MS, False) and made.factor == before, "nothing was foretold"


def test_what_is_late_without_waiting_is_not_held_against_the_queue():
    made, rng = forecast(), random.Random(0)
    for _ in range(20_000):
        waited = rng.random() < 0.8
        made.answered(11 * MS if rng.random() < 0.03 else MS, waited)
    assert 0.015 < made.late_alone < 0.045 and made.factor < 1
    for _ in range(20_000):
        waited = rng.random() < 0.8
        made.answered(11 * MS if rng.random() < (0.15 if waited else 0.03) else MS, waited)
    assert made.factor > 7


@pytest.mark.parametrize(("late", "settles"), [(LATE / 4, "low"), (LATE, "stays"), (4 * LATE, "high")])
def test_the_factor_settles_where_the_stated_part_is_late(late, settles):
    made, every = forecast(), round(1 / late)
    for i in range(100_000):
        made.answered(11 * MS if i % every == 0 else MS, True)
    assert {"low": made.factor == 0.5, "stays": 0.9 < made.factor < 1.1, "high": made.factor > 7.8}[settles]


def test_the_gap_settles_at_the_median_whatever_is_far_out():
    made, rng = forecast(), random.Random(0)
    for _ in range(4000):
        made.followed(rng.choice([38 * US, 40 * US, 42 * US, 42 * US, 400 * MS]))
    assert 36 * US < made.gap < 48 * US
    for _ in range(4000):
        made.followed(400 * MS)
    assert made.gap == 10 * MS // 4, "never so long that nothing could be accepted"
