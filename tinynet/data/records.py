"""Reading records back: fields of a dictionary that came from JSON, each checked before it is believed.

A saved preprocessor may be damaged or written by hand, so every error names the field, as in
``preprocessor.columns[3].scale``. What the fields mean is the business of :mod:`.encoders`.
"""

from __future__ import annotations

import math

from tinynet.errors import DataError

__all__ = ["RELOAD", "field", "number", "positive", "text", "texts"]

RELOAD = "save the preprocessor again with to_dict()"


def field(state: dict, name: str, kind: type | tuple[type, ...], wanted: str, where: str):
    """``state[name]``, which must be of ``kind``; DataError, with what was ``wanted``, otherwise."""
    value = state.get(name)
    # bool passes for int, and 1 for True, only in Python's own eyes.
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        got = repr(value)[:80] if name in state else "nothing"
        raise DataError(f"{where}.{name}", expected=wanted, got=got, mend=RELOAD)
    return value


def text(state: dict, name: str, where: str) -> str:
    """``state[name]`` as text."""
    return field(state, name, str, "text", where)


def number(state: dict, name: str, where: str) -> float:
    """``state[name]`` as a finite float."""
    value = field(state, name, (int, float), "a finite number", where)
    try:
        finite = math.isfinite(value)
    except OverflowError:  # an integer beyond float64
        finite = False
    if not finite:
        raise DataError(f"{where}.{name}", expected="a finite number", got=repr(value)[:80], mend=RELOAD)
    return float(value)


def positive(state: dict, name: str, where: str) -> float:
    """As :func:`number`, and above 0."""
    value = number(state, name, where)
    if value <= 0:
        raise DataError(f"{where}.{name}", expected="a number above 0", got=repr(value), mend=RELOAD)
    return value


def texts(state: dict, name: str, where: str) -> tuple[str, ...]:
    """``state[name]`` as a tuple of texts, no two alike."""
    values = field(state, name, (list, tuple), "a list of different texts", where)
    if not all(isinstance(value, str) for value in values) or len(set(values)) != len(values):
        raise DataError(f"{where}.{name}", expected="a list of different texts", got=repr(values)[:80], mend=RELOAD)
    return tuple(values)
