"""Plans are valid, reproducible, and as small as can be shown."""

from __future__ import annotations

import itertools
import random

import pytest

from tinynet.errors import PlanError
from tinynet.memory import Lifetime, check_plan, live_bytes, lower_bound, plan_offsets

from .families import FAMILIES, chain


def planned(lifetimes, **options):
    """A plan that the independent checker has accepted."""
    plan = plan_offsets(lifetimes, **options)
    check_plan(lifetimes, plan.offsets, options.get("alignment", 64), plan.peak_bytes)
    assert plan.peak_bytes >= plan.lower_bound_bytes
    if "pinned" not in options:
        assert plan.lower_bound_bytes == lower_bound(lifetimes, options.get("alignment", 64))
    return plan


def test_the_bound_is_the_largest_sum_of_rounded_live_bytes():
    lifetimes = [(0, 2, 100), (1, 3, 64), (3, 3, 1), (4, 4, 0)]
    assert live_bytes(lifetimes, 64) == [(0, 128), (1, 192), (3, 128), (4, 0)]
    assert lower_bound(lifetimes, 64) == 192 and lower_bound(lifetimes, 1) == 164
    assert lower_bound([]) == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_200_tensors_stay_within_two_percent_of_the_bound(family):
    """The worst of a seeded sample; see also the thousand graphs below."""
    ratios = [planned(FAMILIES[family](random.Random(seed))).ratio for seed in range(40)]
    assert max(ratios) <= 1.02


def test_a_thousand_random_graphs_stay_within_two_percent():
    assert max(planned(FAMILIES["graph"](random.Random(seed))).ratio for seed in range(1000)) <= 1.02


@pytest.mark.parametrize("n", [1, 2, 3, 10, 200, 2000])
def test_nested_lifetimes_reach_the_bound(n):
    assert planned(chain(random.Random(n), n)).ratio == 1


def test_tiny_problems_are_solved_exactly():
    """Against every order of first-fit placement, which contains an optimal one."""

    def first_fit(order):
        placed = []
        for first, last, size in order:
            at = 0
            for begin, end in sorted((b, e) for b, e, born, dies in placed if born <= last and first <= dies):
                if begin - at >= size:
                    break
                at = max(at, end)
            placed.append((at, at + size, first, last))
        return max(end for _, end, _, _ in placed)

    for seed in range(60):
        rng = random.Random(seed)
        spans = [sorted((rng.randrange(6), rng.randrange(6))) for _ in range(6)]
        lifetimes = [(a, b, rng.randrange(1, 9)) for a, b in spans]
        best = min(map(first_fit, itertools.permutations(lifetimes)))
        plan = planned(lifetimes, alignment=1)
        assert plan.peak_bytes == best and plan.optimal


def test_the_same_input_gives_the_same_plan():
    lifetimes = FAMILIES["intervals"](random.Random(3))
    assert plan_offsets(lifetimes) == plan_offsets(list(lifetimes))


def test_pinned_tensors_stay_where_they_are():
    lifetimes = [Lifetime(0, 9, 256, "slot", pinned=0), (0, 4, 512), Lifetime(2, 6, 64, "out", pinned=256), (3, 9, 128)]
    plan = planned(lifetimes)
    assert (plan.offsets[0], plan.offsets[2]) == (0, 256)
    assert planned([(0, 4, 512), (1, 2, 64)], pinned={1: 1024}).offsets[1] == 1024


def test_pins_that_overlap_are_refused_by_name():
    with pytest.raises(PlanError, match=r"left.*right|right.*left"):
        plan_offsets([Lifetime(0, 3, 128, "left", pinned=0), Lifetime(2, 5, 128, "right", pinned=64)])


@pytest.mark.parametrize("alignment", [1, 64, 256])
def test_offsets_are_multiples_of_the_alignment(alignment):
    plan = planned(FAMILIES["training"](random.Random(1)), alignment=alignment)
    assert all(at % alignment == 0 for at in plan.offsets)


def test_nothing_and_tensors_without_bytes_take_no_room():
    assert planned([]).peak_bytes == 0
    assert planned([(0, 3, 0), (1, 2, 0)]).peak_bytes == 0


def test_a_pinned_tensor_without_bytes_keeps_its_offset_and_raises_no_peak():
    plan = planned([Lifetime(0, 1, 0, pinned=256), (0, 1, 64)])
    assert plan.offsets == [256, 0] and plan.peak_bytes == 64


@pytest.mark.parametrize("pins", [{0: 0}, {0: 4096}], ids=["standing", "floating"])
@pytest.mark.parametrize("n", [40, 700, 2100])
def test_pins_are_kept_however_many_tensors_meet(n, pins):
    """Few conflicts are searched, more are stacked and searched, and too many to list are only stacked."""
    planned([(0, 3 * n, 640), *FAMILIES["intervals"](random.Random(n), n)], pinned=pins)


@pytest.mark.parametrize("lifetime", [(3, 2, 8), (0, 1, -8), (0, 1), (0, 1.5, 8), ("a", 1, 8), 7])
def test_what_is_no_lifetime_is_refused(lifetime):
    with pytest.raises(PlanError, match="lifetime 1"):
        plan_offsets([(0, 1, 64), lifetime])


def test_twenty_thousand_tensors_are_planned_and_checked():
    planned(FAMILIES["graph"](random.Random(0), 20_000))


# ---- the checker ----


def test_the_checker_finds_every_way_to_spoil_a_plan():
    lifetimes = [Lifetime(*each, name=f"t{i}") for i, each in enumerate(FAMILIES["graph"](random.Random(5), 60))]
    plan = plan_offsets(lifetimes)
    overlaps = 0
    for i, j in itertools.permutations(range(60), 2):
        a, b = lifetimes[i], lifetimes[j]
        if a.first <= b.last and b.first <= a.last and j > i:
            moved = list(plan.offsets)
            moved[i] = moved[j]
            with pytest.raises(PlanError, match=r"share no byte|within"):
                check_plan(lifetimes, moved, 64, plan.peak_bytes)
            overlaps += 1
    assert overlaps > 100
    for spoiled in (-64, 32, plan.peak_bytes):
        with pytest.raises(PlanError):
            check_plan(lifetimes, [spoiled, *plan.offsets[1:]], 64, plan.peak_bytes)
    with pytest.raises(PlanError, match="60 offsets"):
        check_plan(lifetimes, plan.offsets[1:])
    with pytest.raises(PlanError, match="pinned"):
        check_plan([Lifetime(0, 1, 64, pinned=64)], [0])
    with pytest.raises(PlanError, match="first <= last"):
        check_plan([(5, 3, 64), (4, 6, 64)], [0, 64])


def test_the_checker_names_both_tensors_with_times_and_addresses():
    both = r"'a' \(instructions 0 to 2\) at bytes 0 to 100 and 'b' \(instructions 2 to 3\)"
    with pytest.raises(PlanError, match=both):
        check_plan([(0, 2, 100, "a"), (2, 3, 64, "b")], [0, 64])
    check_plan([(0, 1, 100, "a"), (2, 3, 64, "b")], [0, 64])  # the one is dead when the other is born


def test_random_lifetimes_get_valid_plans():
    given = pytest.importorskip("hypothesis")
    from hypothesis import strategies as st

    numbers = st.tuples(st.integers(0, 40), st.integers(0, 15), st.integers(0, 5000))
    span = numbers.map(lambda t: (t[0], t[0] + t[1], t[2]))

    @given.settings(deadline=None, max_examples=150)
    @given.given(st.lists(span, max_size=40), st.sampled_from((1, 64, 256)))
    def holds(lifetimes, alignment):
        planned(lifetimes, alignment=alignment)

    holds()
