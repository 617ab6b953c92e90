"""How many processors this process may use, and how its threads are kept from sharing one of them.

A thread that spins, and gives way now and then, looks to a system as if it hardly needed a processor. So it wakes a
worker where its caller runs and leaves the two there, for seconds, on a machine that is idle otherwise: they take
turns, and two threads take longer than one. Where a thread can be told which processors it may run on (Linux), it is
sent to one of its own. It is told so for that moment only, because another process may need that processor later.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import sys
from collections.abc import Sequence


def affinity() -> int:
    """How many processors this process may run on."""
    return len(_usable()) or os.cpu_count() or 1


def spread(threads: Sequence[int]) -> set[int]:
    """Sends threads, by the system's numbers of them, to a processor each, none of them that of who calls.

    They stay there until they are set ``free`` with what this returns: the processors that they may use otherwise.
    That is none, and nothing is done, where there are too few or the system does not tell.
    """
    usable, here = _usable(), _here()
    others = sorted(usable - {here})
    if here is None or len(others) < len(threads):
        return set()
    for thread, processor in zip(threads, others):
        free(thread, {processor})
    return usable


def free(thread: int, processors: set[int]) -> None:
    """Lets a thread (0 for who calls) run on these processors; one that runs on another has moved on return."""
    if processors:
        with contextlib.suppress(OSError):  # the thread has ended, or a processor was taken away meanwhile
            os.sched_setaffinity(thread, processors)


def _usable() -> set[int]:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()


def _here() -> int | None:
    """The processor that this thread runs on, where that can be asked."""
    number = _asks()() if _asks() else -1
    return None if number < 0 else number


@functools.cache
def _asks():
    return getattr(ctypes.CDLL(None), "sched_getcpu", None) if sys.platform == "linux" else None
