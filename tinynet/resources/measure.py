"""What can only be measured: the peak of a core, the bandwidth of memory, the speed of NumPy's matrix product.

Each is the best of many short runs, because whatever else the machine does only ever makes one slower. On a machine
that is busy throughout, all of them are too low.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import itertools
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from tinynet.backend import get_backend
from tinynet.kernels import available, obstacle

from . import machine
from .facts import Unknown

SIZE = 512  # of the square matrices
_MOST, _LEAST, _QUICK = 512 * 2**20, 64 * 2**20, 16 * 2**20  # bytes of each of the two arrays


@functools.cache
def peak(seconds: float) -> dict:
    """Fused multiply-adds of one core that wait for nothing, a multiply-add counted as two operations."""
    if not available("native"):
        raise Unknown(f"needs numba, in tinynet[cpu]; {obstacle('native')}")
    from tinynet.kernels.cpu.native import peak

    return {f"{dtype}_gflop_per_s": peak(dtype, seconds=seconds) / 1e9 for dtype in ("float32", "float64")}


def matrix_product(seconds: float) -> dict:
    """NumPy's float32 product of two matrices of 512 x 512: on one thread, if threads can be limited, and on all."""
    xp = get_backend("numpy").xp
    a, b, out = (xp.full((SIZE, SIZE), 0.5, dtype=xp.float32) for _ in range(3))

    def speed() -> float:
        return 2 * SIZE**3 / fastest(lambda: xp.matmul(a, b, out=out), seconds) / 1e9

    one = None
    with contextlib.suppress(ImportError), importlib.import_module("threadpoolctl").threadpool_limits(1):
        one = speed()
    return {"one_thread_gflop_per_s": one, "all_threads_gflop_per_s": speed()}


def copy_bandwidth(seconds: float, threads: int, nbytes: int) -> dict:
    """Copying one array to another, by one thread and by all: bytes read and bytes written, per second.

    Args:
        seconds: for each of the two measurements.
        threads: how many "all" are.
        nbytes: of each array.
    """
    xp = get_backend("numpy").xp
    source, target = xp.ones(nbytes, dtype=xp.uint8), xp.ones(nbytes, dtype=xp.uint8)  # written to, so that they exist

    def speed(count: int) -> float:
        cuts = [nbytes * i // count for i in range(count + 1)]
        parts = [(target[start:stop], source[start:stop]) for start, stop in itertools.pairwise(cuts)]
        return 2 * nbytes / fastest_together([functools.partial(xp.copyto, *part) for part in parts], seconds) / 1e9

    return {
        "one_thread_gb_per_s": speed(1),
        "all_threads_gb_per_s": speed(threads) if threads > 1 else None,
        "threads": threads,
        "array_bytes": nbytes,
    }


def copy_bytes(quick: bool) -> int:
    """Bytes of each array to copy: half as much again as the last cache has, but no more than half a GiB and than a
    sixteenth of the memory at hand."""
    last, most = None, _MOST
    with contextlib.suppress(Unknown):
        last = machine.cache_bytes(machine.caches(), "last")
    with contextlib.suppress(Unknown):
        memory = machine.memory()
        at_hand = [memory[name] for name in ("total_bytes", "available_bytes", "limit_bytes") if memory[name]]
        most = min(most, min(at_hand) // 16)
    return min(most, _QUICK if quick else max(_LEAST, (last or _MOST) * 3 // 2))


def fastest(call: Callable[[], object], seconds: float) -> float:
    """The shortest time that a call took, in seconds, called for about so many seconds and at least twice."""
    best, calls, start = math.inf, 0, time.perf_counter()
    while calls < 2 or time.perf_counter() - start < seconds:
        began = time.perf_counter()
        call()
        best, calls = min(best, time.perf_counter() - began), calls + 1
    return best


def fastest_together(calls: list[Callable[[], object]], seconds: float) -> float:
    """The shortest time that all calls took side by side, each in a thread of its own."""
    if len(calls) == 1:
        return fastest(calls[0], seconds)
    with ThreadPoolExecutor(len(calls)) as pool:
        return fastest(lambda: list(pool.map(lambda call: call(), calls)), seconds)
