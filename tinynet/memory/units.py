"""Sizes in bytes as people write them: "64MB", "1.5 GiB", and back again.

The units say what they mean: 1 MB is 10**6 bytes, 1 MiB is 2**20 bytes. Capacities and budgets are read here.
"""

from __future__ import annotations

import re

from tinynet.backend import INTEGERS
from tinynet.errors import ArgumentError

_DECIMAL = {"TB": 10**12, "GB": 10**9, "MB": 10**6, "kB": 10**3}
_BINARY = {"TiB": 2**40, "GiB": 2**30, "MiB": 2**20, "KiB": 2**10}
_UNITS = {"": 1, "b": 1, **{name.lower(): size for name, size in (_DECIMAL | _BINARY).items()}}
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
    if isinstance(size, INTEGERS) and not isinstance(size, bool):
        found = int(size)
    elif isinstance(size, str) and (match := _TEXT.fullmatch(size.strip())):
        whole, fraction, unit = match[1], match[2] or "", _UNITS.get(match[3].lower())
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
