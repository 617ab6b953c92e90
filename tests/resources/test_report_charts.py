"""Scales have round ticks, names stand apart, and a chart shows every piece of its lines."""

from __future__ import annotations

import itertools
import math
import random
import re

import pytest

from tinynet.resources.report.charts import Chart, Series, draw
from tinynet.resources.report.roofline import Roof, one_if_alike, roof_of, roofline, spots
from tinynet.resources.report.scales import Scale, apart, round_step


def number(text):
    """What the text of a tick says."""
    text = text.replace(",", "").replace("\N{MINUS SIGN}", "-")
    superscripts = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
    if power := re.fullmatch(r"(?:(\d)·)?10([⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)", text):
        return int(power[1] or 1) * 10.0 ** int(power[2].translate(superscripts))
    return float(text)


@pytest.mark.parametrize("log", [False, True])
def test_ticks_are_round_cover_the_range_and_say_their_number(log):
    chance = random.Random(0)
    for _ in range(300):
        low = 10 ** chance.uniform(-6, 6) * (1 if log else chance.choice((1, -1)))
        high = abs(low) * 10 ** chance.uniform(0, 8) if log else low + 10 ** chance.uniform(-3, 7) * max(1e-3, abs(low))
        scale = Scale(low, high, 0, 100, about=5, log=log)
        assert scale.low <= low and scale.high >= high and 2 <= len(scale.ticks) <= 16, (low, high)
        assert scale(low) >= -1e-6 and scale(high) <= 100 + 1e-6
        for tick, text in scale.ticks:
            assert number(text) == pytest.approx(tick, rel=1e-3, abs=1e-9)
        at = [scale(tick) for tick, _ in scale.ticks]
        assert at == sorted(at) and len({text for _, text in scale.ticks}) == len(at)


def test_a_single_number_has_room_around_it():
    for value, log in itertools.product((0.0, 5.0, 1e-3, 7e9), (False, True)):
        scale = Scale(value or log * 1.0, value or log * 1.0, 0, 10, log=log)
        assert scale.high > scale.low and all(map(math.isfinite, (scale.low, scale.high)))


def test_whole_ticks_are_integers():
    for last in (1, 2, 3, 7, 40, 12_345):
        ticks = [tick for tick, _ in Scale(1, last, 0, 10, whole=True, rounded=False).ticks]
        assert ticks and all(tick == int(tick) and 1 <= tick <= last + 1 for tick in ticks)


def test_steps_are_one_two_and_five():
    assert [round(round_step(least), 6) for least in (0.3, 1, 1.1, 2.5, 7, 70)] == [0.5, 1, 2, 5, 10, 100]


def test_names_stand_apart_near_where_they_belong():
    assert apart([10, 50], 15, 0, 100) == [10, 50]
    placed = apart([50, 50, 51, 99], 15, 0, 100)
    assert min(b - a for a, b in itertools.pairwise(sorted(placed))) >= 15 and max(placed) <= 100
    assert placed.index(max(placed)) == 3
    crowded = apart([1] * 9, 15, 0, 100)
    assert min(crowded) >= 0 and max(crowded) <= 100 and len(set(crowded)) == 9


def drawn(series, **how):
    return draw(Chart("Loss", "", "epoch", series, **how), 400, 200, "x")


def test_a_line_is_broken_where_a_value_is_unknown():
    found = drawn([Series("train", [(1, 1.0), (2, 2.0), (3, None), (4, 1.5), (5, 1.0)])])
    assert len(list(found.iter("path"))) == 2
    assert "train 1" in [each.text for each in found.iter("text")]


def test_a_value_between_two_unknown_ones_is_a_dot():
    found = drawn([Series("", [(1, 1.0), (2, None), (3, 2.0), (4, None), (5, 1.0)])])
    assert len(list(found.iter("circle"))) == 3


def test_many_points_are_thinned_and_extremes_stay():
    points = [(i, math.sin(i / 900)) for i in range(50_000)]
    points[31_234] = (31_234, 40.0)
    found = drawn([Series("", points)])
    (path,) = found.iter("path")
    ys = [float(pair.split()[1]) for pair in path.get("d")[1:].split("L")]
    assert len(ys) < 2000
    assert sum(y < min(ys) + 20 for y in ys) == 1, "the one high value"


def test_a_chart_says_what_it_shows():
    found = drawn([Series("valid", [(1, 4.0), (2, 1.0), (3, 2.0)])])
    assert found.find("title").text == "Loss by epoch"
    assert found.find("desc").text == "valid: 4 at epoch 1, 2 at 3, between 1 and 4."
    assert found.get("aria-labelledby") == f"{found.find('title').get('id')} {found.find('desc').get('id')}"


def test_stairs_stay_until_they_change():
    (path,) = drawn([Series("", [(0, 1.0), (5, 1.0), (6, 2.0)])], stairs=True).iter("path")
    ys = [pair.split()[1] for pair in path.get("d")[1:].split("L")]
    assert len(set(ys)) == 2 and len(ys) == 4


# ---- the roofline ----


def described(seconds=1e-6, flops=2e5, moved=1e4, limits=(4e11, 2e10)):
    row = {"name": "matmul", "seconds": seconds, "flops": flops, "bytes": moved}
    return {"instructions": [row], "roofline": {"flop_per_s": limits[0], "bytes_per_s": limits[1]}}


def test_a_spot_is_at_its_intensity_and_speed():
    (spot,) = spots(described(), "a")
    assert (spot.intensity, spot.speed, spot.part) == (20, pytest.approx(2e11), 1)
    assert spots(described(seconds=0), "a") == spots(described(flops=0), "a") == spots(described(moved=0), "a") == []


def test_the_roof_bends_where_memory_is_as_fast_as_arithmetic():
    found = roofline(spots(described(), "a"), [roof_of(described(), "a")], 800, 400, "x")
    (path,) = found.iter("path")
    (x0, y0), (x1, y1), (_, y2) = (tuple(map(float, pair.split())) for pair in path.get("d")[1:].split("L"))
    assert y1 == y2 < y0 and x0 < x1
    (circle,) = found.iter("circle")
    assert float(circle.get("cx")) == pytest.approx(x1, abs=0.1), "20 flop per byte is the ridge of these limits"
    assert float(circle.get("cy")) > y1, "half of the peak is below it"


def test_without_limits_there_is_no_roof():
    assert roof_of(described(limits=(None, 2e10)), "a") is None
    assert not list(roofline(spots(described(), "a"), [], 800, 400, "x").iter("path"))


def test_roofs_that_cannot_be_told_apart_are_one():
    one, two = Roof(4e11, 2e10, "a", "A"), Roof(4.1e11, 1.9e10, "b", "B")
    assert one_if_alike([one, two]) == [Roof(4e11, 2e10, "", "")]
    assert one_if_alike([one, two._replace(peak=5e11)]) == [one, two._replace(peak=5e11)]
    assert one_if_alike([]) == []
