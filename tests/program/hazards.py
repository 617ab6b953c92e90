"""Captured steps at each of their first calls, proven by eager runs or within a budget: for the tests of hazards."""

from __future__ import annotations

import functools

import numpy as np
import pytest

import tinynet as tn


@pytest.fixture(autouse=True, params=["proven", "budgeted"])
def mode(request, monkeypatch):
    if request.param == "budgeted":
        monkeypatch.setattr(tn, "capture", functools.partial(tn.capture, memory="1GiB"))
    return request.param


X = np.arange(6, dtype=np.float32).reshape(2, 3)


def calls(step, *args, times=4):
    """The results of several calls: traced, compared, and run as a program."""
    return [step(*args) for _ in range(times)]


def agree(step, *args):
    """A captured step gives what the step gives, at each of its first calls."""
    captured = tn.capture(step)
    expected = step(*map(tn.as_tensor, args)).numpy()
    for result in calls(captured, *args):
        np.testing.assert_array_equal(result.numpy(), expected)
    return captured
