"""Sizes in bytes: read as people write them, shown so that they can be read again."""

from __future__ import annotations

import pytest

from tinynet.errors import ArgumentError
from tinynet.memory import as_bytes, show_bytes


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [
        (0, 0), (4096, 4096), ("4096", 4096), ("12 B", 12), ("64MB", 64 * 10**6), ("64MiB", 64 * 2**20),
        ("1.5GB", 1_500_000_000), ("1.5 gib", 3 * 2**29), ("2kb", 2000), ("2 KiB", 2048), (" 1_TB ", 10**12),
        ("0.1GB", 10**8), ("1.1TB", 1_100_000_000_000), ("0.3KiB", 307), ("0MB", 0),
    ],
)  # fmt: skip
def test_units_say_what_they_mean(text, nbytes):
    assert as_bytes(text, "budget") == nbytes


@pytest.mark.parametrize(
    "nonsense",
    [-1, "-1MB", "", "MB", "64 M", "64 megabytes", "1e3MB", "1.MB", ".5GB", "nan", "inf GB", "1,000 B", "٣MB", 1.5, 1e6,
     None, True, b"64MB", 2**60, "2000000TB", "9" * 5000 + "MB", [64]],
)  # fmt: skip
def test_what_is_no_size_is_refused_by_name(nonsense):
    with pytest.raises(ArgumentError, match=r"^budget: expected bytes as an integer.*64MiB"):
        as_bytes(nonsense, "budget")


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [
        (0, "0 B"), (999, "999 B"), (1000, "1 kB"), (1024, "1.024 kB"), (4096, "4.096 kB"), (64 * 10**6, "64 MB"),
        (64 * 2**20, "64 MiB"), (3 * 2**29, "1536 MiB"), (1_500_000_000, "1.5 GB"), (1_234_567, "1.235 MB"),
        (999_999, "1000 kB"), (2**50 + 1, "1126 TB"), (2**60 - 1, "1152921 TB"),
    ],
)  # fmt: skip
def test_sizes_are_shown_in_four_digits(nbytes, text):
    assert show_bytes(nbytes) == text


def test_what_is_shown_can_be_read_again():
    given = pytest.importorskip("hypothesis")
    from hypothesis import strategies as st

    @given.settings(deadline=None, max_examples=300)
    @given.given(st.one_of(st.integers(0, 10**5), st.integers(0, 2**60 - 1)))
    def near(nbytes):
        assert abs(as_bytes(show_bytes(nbytes), "") - nbytes) <= nbytes * 5e-4

    @given.settings(deadline=None, max_examples=300)
    @given.given(st.integers(0, 9999), st.sampled_from((1, 10**3, 10**6, 10**9, 2**10, 2**20, 2**30, 2**40)))
    def exact(count, unit):
        assert as_bytes(show_bytes(count * unit), "") == count * unit

    near()
    exact()
