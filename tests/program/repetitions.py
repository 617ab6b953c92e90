"""Captured steps that are called until calls are repetitions, for the tests of those."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest

import tinynet as tn
from tinynet.program.calls import Call

X = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture(params=["tensors", "arrays"])
def x(request):
    return tn.tensor(X) if request.param == "tensors" else X.copy()


def repeated(step, *args, **kwargs):
    """The step captured, and called until calls are repetitions; a test that could not fail would fail here."""
    captured = tn.capture(step, **kwargs)
    for _ in range(6):
        captured(*args)
    assert repeats(captured, *args)
    return captured


def repeats(captured, *args, **kwargs) -> bool:
    """Whether a call takes the short way."""
    with mock.patch("tinynet.program.capture.Call", side_effect=Call) as taken_apart:
        captured(*args, **kwargs)
    return not taken_apart.called


def same(ours, theirs):
    np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))


class Bag:
    shared = 2.0

    def __init__(self):
        self.number, self.flag, self.inner, self.numbers = 2.0, True, {"k": 3.0}, [1.0, 2.0]

    def forward(self, x):
        y = x * self.number if self.flag else x + self.number
        for number in self.numbers:
            y = y * number
        return y * self.inner["k"] * self.shared + len(self.inner) + getattr(self, "extra", 0.0)
