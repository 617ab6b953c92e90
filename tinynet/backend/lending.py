"""Where new arrays of this thread get their memory: from their library, or from a lender that is in force.

``with allocating(lender):`` puts a lender (an arena) in force, for the block and its thread; blocks nest. Backends ask
``lent`` wherever they make an array. What a lender does is not known here.
"""

from __future__ import annotations

import threading
from typing import Protocol


class Lender(Protocol):
    """What lends memory.

    Attributes:
        backend: the one backend whose arrays it has memory for.
    """

    backend: object

    def lend(self, shape: tuple[int, ...], dtype):
        """An array of unspecified content, or None for one without elements; raises where there is no room."""


class _Thread(threading.local):
    """What is in force in a thread, and what will be when the blocks around it end."""

    lender: Lender | None = None

    def __init__(self):
        self.outer: list[Lender | None] = []


thread = _Thread()


def lent(backend, shape: tuple[int, ...], dtype):
    """Memory from the lender in force, or None if there is none for this backend."""
    lender = thread.lender
    return None if lender is None or lender.backend is not backend else lender.lend(shape, dtype)


def begin(lender: Lender | None) -> None:
    """Puts a lender in force in this thread, or none."""
    thread.outer.append(thread.lender)
    thread.lender = lender


def end() -> None:
    """Puts back what was in force before the last ``begin`` of this thread."""
    thread.lender = thread.outer.pop()


class allocating:
    """``with allocating(lender):`` new arrays of the lender's backend take its memory; with None, their library's."""

    def __init__(self, lender: Lender | None):
        self._lender = lender

    def __enter__(self):
        begin(self._lender)

    def __exit__(self, *_):
        end()
