"""Processor time of this process."""

from __future__ import annotations

import time


def seconds() -> float:
    """Processor seconds of all threads of this process since it began, in user and in system mode.

    Divided by the seconds between two calls, the growth is the number of processors kept busy.
    """
    return time.process_time()
