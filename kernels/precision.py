"""How exactly float32 matrices are multiplied on a GPU: what is bound, and planned, in a context from then on.

"float32" multiplies and adds in float32, without tensor cores. "tf32" rounds both operands to 10 bits of fraction,
"bf16" to 7, and adds in float32: relative errors of about 3e-4 and 3e-3 of a product, and several times the speed.
float64 is always float64; a GPU without these instructions (before compute capability 8.0) computes in float32.

In "bf16" a program may keep operands that are rounded already, as integers of 16 bits, and multiply those: these are
operations of their own, named after the products that they are (``of_bf16``).

Every thread has its own, as every context of ``contextvars`` has, and begins with "float32". Scratch depends on it: a
program is planned and bound under one and the same.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

PRECISIONS = ("float32", "tf32", "bf16")
PRODUCTS = ("matmul", "linear", "masked_matmul")  # of the first two inputs, which may be given in bf16
_current = ContextVar("precision", default="float32")


def of_bf16(product: str) -> str:
    """The name of a product whose operands are given in bf16."""
    return f"{product}_of_bf16"


def precision() -> str:
    """One of ``PRECISIONS``."""
    return _current.get()


def set_precision(name: str) -> str:
    """Sets it, and gives what it was.

    Raises:
        ValueError: no such precision.
    """
    if name not in PRECISIONS:
        raise ValueError(f"set_precision: expected one of {', '.join(PRECISIONS)}, got {name!r}")
    before = _current.get()
    _current.set(name)
    return before


@contextlib.contextmanager
def using_precision(name: str) -> Iterator[None]:
    """Sets it for what is planned and bound inside, and sets back what it was, whatever happens."""
    before = set_precision(name)
    try:
        yield
    finally:
        set_precision(before)
