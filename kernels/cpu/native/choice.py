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

import functools
import importlib.util
import math
import os
import time
from pathlib import Path

import numpy as np

from ...choices import Choice, Choices
from . import machine, plan
from .instructions import Table

LEAST_FLOPS = 4e6  # below, the call into BLAS costs as much as there is to gain
CLEARLY = 1.05  # how many times faster BLAS has to be
OWN, BLAS = "own kernel", "BLAS"  # the ways, as they are remembered
# Turns of a measurement: three at least, since a shortest time needs company, and no more when both have taken so long.
LEAST_TURNS, TURNS, SECONDS = 3, 15, 0.2
# Of this thread, which time that others have taken is no part of. Windows counts that in steps of 16 ms.
_clock = time.perf_counter if os.name == "nt" else time.thread_time

_choices = Choices(CLEARLY, kept=True)


def choose(out, a, b, scratch) -> Choice | None:
    """What was measured for products like this one, now if never before; None where that is not asked.

    ``out`` is written to, and what is in it then means nothing; ``scratch`` does for one thread.
    """
    (m, k), n = a.shape, b.shape[1]
    if 2 * m * k * n < LEAST_FLOPS or min(m, n) == 1:
        return None
    measure = functools.partial(_measure, out, a, b, scratch) if _is_measurable() else None
    return _choices.choose(_key(m, k, n, a, b), (OWN, BLAS), measure, _path)


@functools.cache
def _is_measurable() -> bool:
    return importlib.util.find_spec("threadpoolctl") is not None


def _measure(out, a, b, scratch) -> dict[str, float]:
    """The shortest times of the own kernel and of BLAS, in turns."""
    import threadpoolctl

    own = Table((plan.Product(out, a, b).instruction(scratch),))
    ways, spent = {OWN: own, BLAS: functools.partial(np.matmul, a, b, out)}, 0.0
    best = dict.fromkeys(ways, math.inf)
    with threadpoolctl.threadpool_limits(1, user_api="blas"), np.errstate(all="ignore"):  # operands may be anything
        for turn in range(TURNS):
            if turn >= LEAST_TURNS and spent > SECONDS:
                break
            for way, function in ways.items():
                begin = _clock()
                function()
                seconds = _clock() - begin
                best[way], spent = min(best[way], seconds), spent + seconds
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
