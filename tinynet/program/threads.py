"""How many threads this process computes with: one number, for compiled programs and for the BLAS of eager mode."""

from __future__ import annotations

import importlib.util

from tinynet.errors import ArgumentError
from tinynet.kernels import pool


def get_num_threads() -> int:
    """How many threads compiled programs run on: as many as there are processors that this process may use, or what
    the environment variable TINYNET_NUM_THREADS or ``set_num_threads`` say."""
    return pool.threads()


def set_num_threads(count: int | None) -> None:
    """Sets how many threads are used from now on.

    Results of compiled programs do not depend on it, to the bit, but for products that one thread leaves to NumPy's
    BLAS, as ``program.explain()`` says. With threadpoolctl installed, BLAS keeps to the number as well.

    Args:
        count: from 1 on; None for as many as there are processors that this process may use.

    Raises:
        ArgumentError: anything else.
    """
    try:
        pool.set_threads(count)
    except ValueError:
        raise ArgumentError(
            "set_num_threads", expected="a number of threads from 1 on, or None", got=repr(count)
        ) from None
    if importlib.util.find_spec("threadpoolctl") is not None:
        import threadpoolctl

        threadpoolctl.threadpool_limits(pool.threads(), user_api="blas")
