"""How exactly float32 matrices are multiplied on a GPU: for the whole process, from the next binding on.

"float32" multiplies and adds in float32, without tensor cores. "tf32" rounds both operands to 10 bits of fraction,
"bf16" to 7, and adds in float32: relative errors of about 3e-4 and 3e-3 of a product, and several times the speed.
float64 is always float64; a GPU without these instructions (before compute capability 8.0) computes in float32.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

PRECISIONS = ("float32", "tf32", "bf16")
_current = "float32"


def precision() -> str:
    """One of ``PRECISIONS``."""
    return _current


def set_precision(name: str) -> str:
    """Sets it, and gives what it was.

    Raises:
        ValueError: no such precision.
    """
    global _current
    if name not in PRECISIONS:
        raise ValueError(f"set_precision: expected one of {', '.join(PRECISIONS)}, got {name!r}")
    before, _current = _current, name
    return before


@contextlib.contextmanager
def using_precision(name: str) -> Iterator[None]:
    """Sets it for what is bound inside."""
    before = set_precision(name)
    try:
        yield
    finally:
        set_precision(before)
