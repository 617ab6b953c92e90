"""Gathering: a probe that fails is one line of the answer, and never the end of it."""

from __future__ import annotations

from tinynet.resources.facts import Unknown, gather, known


def fails(error):
    def probe():
        raise error

    return probe


def test_every_probe_answers_or_says_why_not():
    facts = gather(
        {
            "first": {"fine": lambda: 3, "closed": fails(Unknown("no such file")), "broken": fails(ValueError("x"))},
            "second": {"after": lambda: {"inner": 4}},
        }
    )
    assert facts["first"] == {"fine": 3, "closed": None, "broken": None}
    assert facts["unknown"] == {"first.closed": "no such file", "first.broken": "ValueError: x"}
    assert known(facts, "second", "after", "inner") == 4
    assert known(facts, "first", "closed", "inner") is known(facts, "third") is None
