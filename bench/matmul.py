"""The matrix product, step by step, beside NumPy's BLAS and the core's peak: ``python -m bench.matmul [--quick]``.

One core, float32, operands aligned as the arena aligns them. Every version is checked against float64 first, on small
integers, so that the check is for equality. Then they run in turn, and after each of them the loop of multiply-adds
that measures the core's peak: the clock of a shared machine moves, and a ratio is taken of neighbours in time. Speeds
and ratios are medians over the rounds.

Layouts: NN is the forward pass, m x k times k x n. TN is the weight's gradient of the same layer, k x m times m x n,
its left operand a transpose; NT the input's gradient, m x n times n x k, its right operand a transpose. TT is NN with
both operands transposes."""

from __future__ import annotations

import argparse
import functools
import os
import platform
import statistics
import sys
import time

SHAPES = (
    (64, 784, 128), (128, 784, 512), (128, 512, 512), (512, 512, 512), (512, 1024, 2048), (2048, 2048, 2048),
)  # fmt: skip
LADDER = ("naive", "blocked", "packed", "tiled", "fused")
SLOW = ("naive", "blocked", "packed")  # measured once, and not at all where that takes seconds
SLOW_FLOPS = 2e9
TARGETS = {(128, 512, 512): 0.95, (512, 512, 512): 0.95, (64, 784, 128): 0.90, (2048, 2048, 2048): 0.90}
ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}


def in_a_clean_process() -> None:
    """Starts over without the variables that choose another BLAS kernel, with one thread, on one core."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OPENBLAS_")} | ENVIRONMENT
    if clean != dict(os.environ):
        os.execve(sys.executable, [sys.executable, "-m", "bench.matmul", *sys.argv[1:]], clean)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def blas() -> str:
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return "BLAS of unknown kind"
    found = [each for each in threadpool_info() if each["user_api"] == "blas"]
    return ", ".join(f"{each['internal_api']} {each['version']} ({each.get('architecture')})" for each in found)


def operands(layout: str, m: int, k: int, n: int):
    """A (m x k) and B (k x n) of small integers, aligned; "T" for one that is the transpose of what lies in memory."""
    from tinynet.kernels.cpu.native import ladder

    def laid_out(way, rows, columns, seed):
        made = ladder.small_integers((columns, rows) if way == "T" else (rows, columns), seed)
        return made.T if way == "T" else made

    return laid_out(layout[0], m, k, 0), laid_out(layout[1], k, n, 1)


def versions(layout: str, m: int, k: int, n: int, slow: bool):
    """(name -> call, flops), each checked. C is m x n and the sum has k terms, whatever the layout."""
    import numpy as np

    from tinynet.kernels.cpu import native
    from tinynet.kernels.cpu.native import ladder

    a, b = operands(layout, m, k, n)
    c, row = ladder.aligned((m, n)), ladder.small_integers((8192 + n,), 2)
    product = native.Product(c, a, b)
    room = ladder.aligned((product.scratch_bytes,), "uint8")
    calls = {"product": lambda: product(room), "BLAS": lambda: np.matmul(a, b, out=c)}
    if layout == "NN":
        for name in LADDER:
            if name not in SLOW or (slow and 2 * m * k * n <= SLOW_FLOPS):
                calls[name] = functools.partial(ladder.step(name), c, a, b, row)
    for name, call in calls.items():
        c[...] = np.nan
        call()
        np.testing.assert_array_equal(c, ladder.expected(name, a, b, row), err_msg=name)
    return calls, 2 * m * k * n


def measured(calls, flops: float, seconds: float):
    """For each version: (median GFLOP/s, median share of the peak), and the median peak."""
    from tinynet.kernels.cpu.native import ceiling, widths

    width = widths()[0]
    loop, one = ceiling.loop(4, width), ceiling.flops(4, width)
    loop(1000, 0.5)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    start = time.perf_counter()
    while not all(found.values()) or time.perf_counter() - start < seconds or len(found["product"]) < 5:
        for name, call in calls.items():
            if name in SLOW and found[name]:
                continue
            count = max(1, int(4e7 / flops))  # at least a fifth of a millisecond
            rounds = int(min(flops * count, 2e9) / one) + 1
            call()  # the caches are as its own last call leaves them
            before = time.perf_counter()
            for _ in range(count):
                call()
            between = time.perf_counter()
            loop(rounds, 0.5)
            after = time.perf_counter()
            speed, peak = count * flops / (between - before), rounds * one / (after - between)
            found[name].append((speed / 1e9, peak / 1e9))
    speeds = {
        name: (statistics.median(s for s, _ in each), statistics.median(s / p for s, p in each))
        for name, each in found.items()
    }
    return speeds, statistics.median(p for each in found.values() for _, p in each)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.matmul", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds, the shapes that have an aim, no slow steps")
    quick = parser.parse_args().quick
    in_a_clean_process()
    import llvmlite
    import numba
    import numpy as np

    from tinynet.kernels.cpu import native

    print(f"{processor()}, one core, vectors of {native.widths()[0]} bits; {blas()}")
    print(f"python {platform.python_version()}, numpy {np.__version__}, numba {numba.__version__}, llvmlite "
          f"{llvmlite.__version__}; GFLOP/s, medians of turns")  # fmt: skip
    columns = (*LADDER, "product", "BLAS")
    print(f"{'':2} {'m x k x n':>16}", *(f"{each:>8}" for each in columns), f"{'peak':>6} {'product / peak':>14}",
          f"{'product / BLAS':>14}")  # fmt: skip
    missed = []
    for m, k, n in SHAPES:
        if quick and (m, k, n) not in TARGETS:
            continue
        for layout, shape in (("NN", (m, k, n)), ("TN", (k, m, n)), ("NT", (m, n, k)), ("TT", (m, k, n))):
            speeds, peak = measured(*versions(layout, *shape, slow=not quick), 0.4 if quick else 2.0)
            cells = (f"{speeds[each][0]:8.1f}" if each in speeds else f"{'-':>8}" for each in columns)
            share, ratio = speeds["product"][1], speeds["product"][1] / speeds["BLAS"][1]
            aim = TARGETS.get((m, k, n), 0) if layout == "NN" else 0
            mark = "" if not aim else f"  (aim {aim:.0%}: {'met' if share >= aim else 'missed'})"
            name = f"{layout} {' x '.join(map(str, shape)):>16}"
            print(name, *cells, f"{peak:6.1f} {share:14.1%} {ratio:14.2f}{mark}", flush=True)
            if ratio < 1:
                missed.append(f"{layout} {shape}")
    print("slower than BLAS:", "; ".join(missed) or "none")


if __name__ == "__main__":
    main()
