"""The own product or NumPy's BLAS: decided for each shape by measurement, once per machine, and remembered.

Which of the two is faster depends on the shape, on the processor and on the BLAS, and no rule of thumb knows all three.
So the first program with a large product of some shape times both, on its own arrays, before it runs; the result goes
into a file beside the compiled code. BLAS is taken only where it is clearly faster, because it parts a program's one
call into several. Both are timed in turns and on one thread, lest it matters what else the machine does; that takes
threadpoolctl, which can hold BLAS to one. What is remembered decides on any number of threads, so that results do not
change with it; where nothing can be measured or remembered, it is the own kernel.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import os
import time
from typing import NamedTuple

import numpy as np

from . import machine, plan
from .instructions import Table

LEAST_FLOPS = 4e6  # below, the call into BLAS costs as much as there is to gain
CLEARLY = 1.05  # how many times faster BLAS has to be
RUNS, SECONDS = 7, 0.2  # of a measurement: whichever comes first, one run of each at least

_known: dict[str, list[float]] | None = None


class Choice(NamedTuple):
    """Seconds of both, and what follows."""

    own: float
    blas: float

    @property
    def is_blas(self) -> bool:
        return self.own > CLEARLY * self.blas

    def __str__(self) -> str:
        first, second = (("BLAS", self.blas), ("own kernel", self.own))[:: 1 if self.is_blas else -1]
        return f"{first[0]} {first[1] * 1e6:,.0f} µs, {second[0]} {second[1] * 1e6:,.0f} µs"


def choose(out, a, b, scratch) -> Choice | None:
    """What was measured for products like this one, now if never before; None where that is not asked.

    ``out`` is written to, and what is in it then means nothing; ``scratch`` does for one thread.
    """
    (m, k), n = a.shape, b.shape[1]
    if 2 * m * k * n < LEAST_FLOPS or min(m, n) == 1:
        return None
    known = _load()
    if known is None:
        return None
    key = _key(m, k, n, a, b)
    if key not in known:
        if importlib.util.find_spec("threadpoolctl") is None:
            return None
        known[key] = _measure(out, a, b, scratch)
        _save(known)
    return Choice(*known[key])


def _measure(out, a, b, scratch) -> list[float]:
    """The shortest times of the own kernel and of BLAS, in turns."""
    import threadpoolctl

    own = Table((plan.Product(out, a, b).instruction(scratch),))
    best, start = [math.inf, math.inf], time.perf_counter()
    with threadpoolctl.threadpool_limits(1, user_api="blas"), np.errstate(all="ignore"):  # operands may be anything
        own()
        np.matmul(a, b, out)
        for _ in range(RUNS):
            for i, (function, arguments) in enumerate(((own, ()), (np.matmul, (a, b, out)))):
                begin = time.perf_counter()
                function(*arguments)
                best[i] = min(best[i], time.perf_counter() - begin)
            if time.perf_counter() - start > SECONDS:
                break
    return best


def _key(m: int, k: int, n: int, a, b) -> str:
    way = "".join("N" if x.strides[1] == x.itemsize else "T" for x in (a, b))
    return f"{m}x{k}x{n} {way} {a.dtype}"


def _path():
    folder = machine.cache_folder()
    if folder is None:
        return None
    blas = [np.__version__, *(f"{name}={value}" for name, value in sorted(os.environ.items()) if "OPENBLAS" in name)]
    return folder / f"products-{machine.digest(blas)[:8]}.json"


def _load() -> dict[str, list[float]] | None:
    """What is remembered; None where nothing can be."""
    global _known
    if _known is None:
        path = _path()
        if path is None:
            return None
        _known = {}
        with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):  # a file that is damaged is no file
            _known = {str(key): [float(own), float(blas)] for key, (own, blas) in json.loads(path.read_text()).items()}
    return _known


def _save(known: dict[str, list[float]]) -> None:
    path = _path()
    if path is not None:
        with contextlib.suppress(OSError):
            beside = path.with_suffix(f".{os.getpid()}")
            beside.write_text(json.dumps(known, indent=0))
            beside.replace(path)
