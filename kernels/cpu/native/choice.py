"""The own product or NumPy's BLAS: decided for each shape by measurement, once per machine, and remembered.

Which of the two is faster depends on the shape, on the processor and on the BLAS, and no rule of thumb knows all three.
So the first program with a large product of some shape times both, on its own arrays, before it runs; the result goes
into a file beside the compiled code. BLAS is taken only where it is clearly faster, because it parts a program's one
call into several. Both are timed in turns and on one thread, lest it matters what else the machine does; that takes
threadpoolctl, which can hold BLAS to one. What was chosen first stays, whichever process it was and on whatever number
of threads, so that a run that is repeated computes by the same kernels; where nothing can be measured or remembered, it
is the own kernel.

Where programs run on several threads it is the own kernel as well. They share that one; and BLAS has threads of its
own, which go on waiting for work for a tenth of a second and take the cores from the rest of the program. So a product
that one thread leaves to BLAS is the one thing whose bits depend on the number of threads.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import os
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from . import machine, plan
from .instructions import Table
from .library import only_one, write_whole

LEAST_FLOPS = 4e6  # below, the call into BLAS costs as much as there is to gain
CLEARLY = 1.05  # how many times faster BLAS has to be
RUNS, SECONDS = 7, 0.2  # of a measurement: whichever comes first, one run of each at least

_chosen: dict[str, list[float] | None] = {}  # what this process goes by


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
    key = _key(m, k, n, a, b)
    if key not in _chosen:
        _chosen[key] = _decide(key, out, a, b, scratch)
    seconds = _chosen[key]
    return None if seconds is None else Choice(*seconds)


def _decide(key: str, out, a, b, scratch) -> list[float] | None:
    """What any process has measured, or this one now: one at a time, so that none disturbs or contradicts another."""
    path = _path()
    known = _read(path) if path is not None else {}
    if path is None or key in known or importlib.util.find_spec("threadpoolctl") is None:
        return known.get(key)
    with only_one(path.with_suffix(".lock")):
        known = _read(path)
        if key not in known:
            known[key] = _measure(out, a, b, scratch)
            if not write_whole(path, json.dumps(known, indent=0).encode()):
                return None
    return known[key]


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


def _path() -> Path | None:
    """Of this BLAS, however it is steered; its number of threads is none of it."""
    folder = machine.cache_folder()
    if folder is None:
        return None
    steering = (f"{name}={value}" for name, value in sorted(os.environ.items())
                if "OPENBLAS" in name and not name.endswith("NUM_THREADS"))  # fmt: skip
    return folder / f"products-{machine.digest([np.__version__, *steering])[:8]}.json"


def _read(path: Path) -> dict[str, list[float]]:
    """What is remembered; nothing, where a file is damaged."""
    with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
        return {str(key): [float(own), float(blas)] for key, (own, blas) in json.loads(path.read_text()).items()}
    return {}
