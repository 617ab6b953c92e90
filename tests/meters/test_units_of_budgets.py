"""Times and energies as people write them. Sizes in bytes are tested with the memory that they are for."""

import math

import pytest

from tinynet.errors import ArgumentError
from tinynet.meters.units import as_joules, as_seconds, show_joules, show_seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("30 s", 30), ("500ms", 0.5), ("10 min", 600), ("10MIN", 600), ("1.5h", 5400), ("2", 2), (2, 2),
     (0.25, 0.25), (" 3_s ", 3)],
)  # fmt: skip
def test_times(text, seconds):
    assert as_seconds(text, "time") == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "joules"),
    [("300J", 300), ("300 j", 300), ("2kJ", 2000), ("2KJ", 2000), ("1.5 MJ", 1.5e6), ("10 mJ", 0.01), ("1Wh", 3600),
     ("0.5 kWh", 1.8e6), ("0.5kwh", 1.8e6), ("7", 7), (7, 7), (0.5, 0.5)],
)  # fmt: skip
def test_energies(text, joules):
    assert as_joules(text, "energy") == pytest.approx(joules)


@pytest.mark.parametrize("read", [as_seconds, as_joules])
@pytest.mark.parametrize(
    "nonsense",
    ["", "s", "J", "-3", "0", 0, -1, "3 parsecs", "3 kB", "3 mj", "1e3", "3 4", math.nan, math.inf, True, None, []],
)
def test_nonsense_is_refused_with_the_units_named(read, nonsense):
    with pytest.raises(ArgumentError, match=r"somewhere: expected (seconds|joules) above 0.*unit") as caught:
        read(nonsense, "somewhere")
    assert repr(nonsense) in str(caught.value)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 ms"), (0.0123, "12.3 ms"), (1, "1 s"), (599.94, "599.9 s"), (600, "10 min"), (36_000, "10 h")],
)
def test_times_are_shown(seconds, text):
    assert show_seconds(seconds) == text


@pytest.mark.parametrize(
    ("joules", "text"),
    [(0, "0 J"), (2e-6, "2 uJ"), (0.02, "20 mJ"), (999.94, "999.9 J"), (1234.5, "1.234 kJ"), (3.6e6, "3.6 MJ")],
)
def test_energies_are_shown(joules, text):
    assert show_joules(joules) == text
