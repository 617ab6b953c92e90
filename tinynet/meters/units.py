"""Sizes, times and energies as people write them: "64MB", "1.5 GiB", "30s", "2 kJ"; and back again.

The units say what they mean: 1 MB is 10**6 bytes, 1 MiB is 2**20 bytes, 1 Wh is 3,600 J. Capacities and budgets are
read here.
"""

from __future__ import annotations

import math
import numbers
import re

from tinynet.errors import ArgumentError

_DECIMAL = {"TB": 10**12, "GB": 10**9, "MB": 10**6, "kB": 10**3}
_BINARY = {"TiB": 2**40, "GiB": 2**30, "MiB": 2**20, "KiB": 2**10}
_BYTES = {"": 1, "b": 1, **{name.lower(): size for name, size in (_DECIMAL | _BINARY).items()}}
_SECONDS = {"ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}
# As written first, since 1 mJ is not 1 MJ; in lower case where that is unmistakable.
_JOULES = {"mJ": 1e-3, "J": 1.0, "kJ": 1e3, "MJ": 1e6, "Wh": 3.6e3, "kWh": 3.6e6}
_JOULES_IN_LOWER_CASE = {"j": 1.0, "kj": 1e3, "wh": 3.6e3, "kwh": 3.6e6}
_TEXT = re.compile(r"([0-9]{1,19})(?:\.([0-9]{1,19}))?[ _]?([A-Za-z]*)")
_LIMIT = 2**60


def as_bytes(size: str | int, where: str) -> int:
    """A number of bytes from an integer or from text such as "64MB", "64 MiB", "1.5GB", "4096".

    Upper and lower case are the same; a fraction of a byte is dropped.

    Args:
        size: what the user gave.
        where: what it is for, for the message.

    Raises:
        ArgumentError: anything else: negative, without a number, with another unit, or 2**60 bytes and more.
    """
    found = None
    if isinstance(size, numbers.Integral) and not isinstance(size, bool):
        found = int(size)
    elif isinstance(size, str) and (match := _TEXT.fullmatch(size.strip())):
        whole, fraction, unit = match[1], match[2] or "", _BYTES.get(match[3].lower())
        found = None if unit is None else int(whole + fraction) * unit // 10 ** len(fraction)
    if found is None or not 0 <= found < _LIMIT:
        raise ArgumentError(
            where,
            expected="bytes as an integer, or as text with a unit (B, kB, MB, GB, TB, KiB, MiB, GiB, TiB)",
            got=repr(size),
            mend='write, say, "64MB" or "64MiB"',
        )
    return found


def show_bytes(size: int) -> str:
    """A number of bytes with a unit, in four digits: "64 MB", "1.5 GB", "12 B". ``as_bytes`` reads it.

    Exact where four digits of a decimal unit or a whole number of a binary one can say it; else rounded, in decimal
    units.
    """
    if size < 1000:
        return f"{size} B"
    name, unit = next((name, unit) for name, unit in _DECIMAL.items() if size >= unit)
    shown = f"{size / unit:.4g} {name}" if size < 9999 * unit else f"{size // unit} {name}"
    if as_bytes(shown, "") == size:
        return shown
    binary = (f"{size // unit} {name}" for name, unit in _BINARY.items() if size % unit == 0 and size < 10_000 * unit)
    return next(binary, shown)


def as_seconds(time: str | float, where: str) -> float:
    """Seconds from a number or from text such as "30s", "500 ms", "1.5h", "10 min"; more than none.

    Args:
        time: what the user gave; upper and lower case are the same.
        where: what it is for, for the message.

    Raises:
        ArgumentError: anything else: not above 0, not finite, without a number or with another unit.
    """
    unit_of = lambda name: _SECONDS.get(name.lower() or "s")
    return _above_none(time, where, "seconds", _SECONDS, unit_of, "30s")


def as_joules(energy: str | float, where: str) -> float:
    """Joules from a number or from text such as "2kJ", "0.5 kWh", "300 J", "10 mJ"; more than none.

    Upper and lower case are the same but for mJ (a thousandth) and MJ (a million).

    Args:
        energy: what the user gave.
        where: what it is for, for the message.

    Raises:
        ArgumentError: as ``as_seconds``.
    """
    unit_of = lambda name: _JOULES.get(name or "J", _JOULES_IN_LOWER_CASE.get(name.lower()))
    return _above_none(energy, where, "joules", _JOULES, unit_of, "2kJ")


def show_seconds(time: float) -> str:
    """Seconds with a unit, in four digits: "250 ms", "12.3 s", "20 min"."""
    for name, unit, least in (("h", 3600.0, 36_000.0), ("min", 60.0, 600.0), ("s", 1.0, 1.0)):
        if time >= least:
            return f"{time / unit:.4g} {name}"
    return f"{time * 1e3:.4g} ms"


def show_joules(energy: float) -> str:
    """Joules with a unit, in four digits: "1.234 kJ", "20 mJ", "5 uJ"."""
    for name, unit in (("MJ", 1e6), ("kJ", 1e3), ("J", 1.0), ("mJ", 1e-3)):
        if abs(energy) >= unit:
            return f"{energy / unit:.4g} {name}"
    return f"{energy * 1e6:.4g} uJ" if energy else "0 J"


def _above_none(value, where: str, kind: str, units, unit_of, example: str) -> float:
    found = math.nan
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        found = float(value)
    elif isinstance(value, str) and (match := _TEXT.fullmatch(value.strip())):
        unit = unit_of(match[3])
        found = math.nan if unit is None else float(f"{match[1]}.{match[2] or 0}") * unit
    if not 0 < found < math.inf:
        expected = f"{kind} above 0, as a number, or as text with a unit ({', '.join(units)})"
        raise ArgumentError(where, expected=expected, got=repr(value), mend=f'write, say, "{example}"')
    return found
