"""The table of matrix products: what a program runs, beside the own kernel and NumPy's BLAS.

What a program runs is chosen for each shape by measurement; here that choice is held against both things it chose from.
A process measures one product at a time, all three versions in turns on the same arrays: an attempt. The same code at
another time, or in other pages of memory, differs by more than the few percent that are asked about. So two versions
are compared round by round, and the median of the ratios in all rounds of all attempts counts; a product that seems
slow is attempted again before it is called so. Speeds are those of the best attempt. Nothing here starts a process:
that is the section's part. The steps that led to the own kernel are measured by ``bench.matmul``.
"""

from __future__ import annotations

import functools
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from .environment import still
from .peers.base import Unsupported

DISPATCHED, OWN, BLAS = "dispatched", "own kernel", "BLAS"
SLOWER = 1.05  # times the best, from which a product counts as slower
GAIN, GAIN_FROM = 1.9, 256**3  # of two cores over one, from so many multiply-adds on
ROUNDS, LEAST_ROUNDS = 11, 3
SHORTEST = 1e8  # flops of a call: half a millisecond or more
LONG = 0.05  # seconds of a call that warms its own caches
WARM = 0.003  # seconds of calls before a shorter one is timed: threads that slept wake, and their cores' clocks rise


class Shape(NamedTuple):
    """C (m x n) = A (m x k) B (k x n), of which "T" names an operand that is the transpose of what lies in memory."""

    m: int
    k: int
    n: int
    layout: str = "NN"

    def __str__(self) -> str:
        return f"{self.layout} {self.m} x {self.k} x {self.n}"

    @property
    def flops(self) -> int:
        return 2 * self.m * self.k * self.n


SQUARE = (32, 64, 128, 256, 512, 1024, 2048, 4096)
ODD = (33, 63, 99, 255, 513, 1025)
PRIME = (37, 61, 127, 257, 509, 1021, 2053)
THIN = (
    (32, 4096, 32), (32, 32, 4096), (4096, 32, 32), (4096, 32, 4096), (32, 4096, 4096), (4096, 4096, 32),
    (37, 2053, 61), (2053, 61, 37), (61, 37, 2053), (1021, 33, 1021), (101, 4093, 101),
)  # fmt: skip
NETWORKS = ((64, 784, 128), (128, 784, 512), (128, 512, 512), (512, 1024, 2048))
IN_FOUR_LAYOUTS = (
    *NETWORKS, (61, 61, 61), (257, 257, 257), (512, 512, 512), (509, 1021, 257), (1024, 1024, 1024), (2048, 2048, 2048),
    (32, 4096, 4096), (4096, 32, 4096), (4096, 4096, 32),
)  # fmt: skip
LAYOUTS = ("NN", "TN", "NT", "TT")


def table() -> list[Shape]:
    """All products: squares, odd and prime sizes, thin ones, those of networks; some with operands transposed."""
    sizes = [*((n, n, n) for n in sorted((*SQUARE, *ODD, *PRIME))), *THIN, (509, 1021, 257), *NETWORKS]
    return [Shape(*each, layout) for each in sizes for layout in (LAYOUTS if each in IN_FOUR_LAYOUTS else ("NN",))]


def short_table() -> list[Shape]:
    """A bit of everything, for a quick run."""
    return [
        Shape(32, 32, 32), Shape(61, 61, 61, "NT"), Shape(64, 784, 128), Shape(256, 256, 256),
        Shape(257, 257, 257, "TN"), Shape(37, 2053, 61), Shape(512, 512, 512, "TT"),
    ]  # fmt: skip


def measured(shape: Shape, threads: int, seconds: float) -> dict:
    """One attempt on this product, each version checked and then timed for about ``seconds`` in all.

    Returns:
        {"rounds": version -> seconds of one product in each round, "share": version -> median share of the peak of the
        cores, "peak": their flops a second, "way": which of the two the dispatched product is, "note": why}.

    Raises:
        Unsupported: there is no Numba, and so no own kernel.
        AssertionError: a version is wrong.
    """
    try:
        from tinynet.kernels.cpu import native
        from tinynet.kernels.cpu.native import ladder
    except ImportError as error:
        raise Unsupported(f"the own kernel needs Numba ({error})") from None
    from .matmul import operands

    a, b = operands(shape.layout, shape.m, shape.k, shape.n)
    c = ladder.aligned((shape.m, shape.n))
    calls, way, note = versions(native, c, a, b, max(1, int(SHORTEST / shape.flops)))
    for name, (call, _) in calls.items():
        check(name, call, c, a, b)
    return {**times(calls, shape.flops, threads, seconds), "way": way, "note": note}


def versions(native, c, a, b, count: int) -> tuple[dict, str, str]:
    """name -> (what computes the product ``count`` times, ``count``); which way programs take; and why.

    Compiled products follow each other in one table, as they do in a program.
    """
    import numpy as np

    from tinynet import kernels
    from tinynet.kernels.cpu.native import instructions, ladder

    def linked(bound):
        calls, compiled = kernels.link(bound * count, "native")

        def run():
            for function, arguments in calls:
                function(*arguments)

        return run, compiled

    def blas():
        for _ in range(count):
            np.matmul(a, b, out=c)

    product = native.Product(c, a, b, threads=kernels.pool.threads())
    kernel = kernels.find("matmul", "native", c.dtype.name)
    room = ladder.aligned((max(product.scratch_bytes, kernel.scratch_bytes(c, a, b)),), "uint8")
    own, _ = linked([(instructions.run, (product.instruction(room),))])
    bound = kernel.bind(c, a, b, scratch=room)
    dispatched, compiled = linked(bound)
    named = [each for function, arguments in bound for each in (function, *arguments[:1])]
    note = next((each.note for each in named if getattr(each, "note", "")), "")
    found = {DISPATCHED: (dispatched, count), OWN: (own, count), BLAS: (blas, count)}
    return found, OWN if compiled else BLAS, note


def check(name: str, call, c, a, b) -> None:
    """Freivalds' (1977): C v = A (B v) for a random v, which no wrong C is likely to fulfil; exact in integers."""
    import numpy as np

    c[...] = np.nan
    call()
    v = np.random.default_rng(5).integers(1, 1000, c.shape[1]).astype("float64")
    np.testing.assert_array_equal(c @ v, a @ (b @ v), err_msg=name)


def times(calls: dict, flops: int, threads: int, seconds: float) -> dict:
    """Rounds in which each version has its turn and the peak is measured after them, and medians over them."""
    from tinynet.kernels.cpu.native import ceiling, widths

    loop, one = ceiling.loop(4, widths()[0]), ceiling.flops(4, widths()[0])
    rounds = int(5e8 / one) + 1

    def peak(_) -> float:
        begin = time.perf_counter()
        loop(rounds, 0.5)
        return rounds * one / (time.perf_counter() - begin)

    took: dict[str, list[float]] = {name: [] for name in calls}
    shares: dict[str, list[float]] = {name: [] for name in calls}
    peaks: list[float] = []
    names, spent, together = list(calls), 0.0, map if threads == 1 else _pool(threads).map
    for i in range(ROUNDS):
        if i >= LEAST_ROUNDS and spent > seconds:
            break
        turn = i % len(names)
        for name in names[turn:] + names[:turn]:
            call, count = calls[name]
            settle(threads)
            if not took[name] or took[name][-1] * count < LONG:
                warm(call)
            begin = time.perf_counter()
            call()
            each = time.perf_counter() - begin
            spent += each
            took[name].append(each / count)
        settle(threads)
        peaks.append(sum(together(peak, range(threads))))
        for name in names:
            shares[name].append(flops / took[name][-1] / peaks[-1])
    return {
        "rounds": took,
        "share": {name: statistics.median(each) for name, each in shares.items()},
        "peak": statistics.median(peaks),
    }


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """One for all products: what threads have run is counted as long as they live."""
    return ThreadPoolExecutor(threads)


def warm(call) -> None:
    """The caches are then as its own last call leaves them, and its threads are awake."""
    until = time.perf_counter() + WARM
    call()
    while time.perf_counter() < until:
        call()


def settle(threads: int) -> None:
    """Until no thread of this process runs on: those of a pool wait for work for a while before they sleep."""
    if threads > 1:
        still(time.process_time)


def joined(attempts: list[dict]) -> dict:
    """The least medians of several attempts, and how many times what the best version needs the dispatched one does.

    Attempts that other processes disturbed count where there are no others, and are told as such.
    """
    undisturbed = [each for each in attempts if not each["disturbed"]]
    tried, attempts = len(attempts), undisturbed or attempts
    medians = [{name: statistics.median(each) for name, each in one["rounds"].items()} for one in attempts]
    best = min(range(len(attempts)), key=lambda i: medians[i][DISPATCHED])
    return {name: attempts[best][name] for name in ("share", "peak", "way", "note")} | {
        "seconds": {name: min(each[name] for each in medians) for name in medians[0]},
        "ratio": max(_ratio(attempts, OWN), _ratio(attempts, BLAS)), "attempts": tried, "disturbed": not undisturbed,
    }  # fmt: skip


def _ratio(attempts: list[dict], other: str) -> float:
    """Of the dispatched version to another, the two taken from the same round."""
    return statistics.median(
        one / two for each in attempts for one, two in zip(each["rounds"][DISPATCHED], each["rounds"][other])
    )


def described(shape: Shape, tries: dict[int, list[dict]], failed: dict[int, str]) -> dict[int, dict]:
    """Cores -> a product of the report: its attempts joined, or why there are none; and on two cores how many times
    faster it is than on one."""
    made = {}
    for cores, attempts in tries.items():
        made[cores] = {"name": str(shape), "flops": shape.flops, "cores": cores}
        made[cores] |= {"state": failed[cores]} if cores in failed else joined(attempts)
    if all(cores in made and not made[cores].get("disturbed", True) for cores in (1, 2)):
        one, two = (made[cores]["seconds"][DISPATCHED] for cores in (1, 2))
        made[2]["gain"] = one / two
    return made


def is_doubtful(product: dict) -> bool:
    """Whether a result is worth another attempt: one that was disturbed, or would be told as missing an aim."""
    return "ratio" in product and (product["ratio"] > SLOWER or product["disturbed"] or lacks_gain(product))


def lacks_gain(product: dict) -> bool:
    return product["flops"] >= 2 * GAIN_FROM and product.get("gain", GAIN) < GAIN


def line(product: dict) -> str:
    """A product in words."""
    head = f"{product['name']}, cores {product['cores']}:"
    if "state" in product:
        return f"{head} {product['state']}"
    speeds = ", ".join(f"{name} {speed(product, name):.1f}" for name in product["seconds"])
    gained = f", {product['gain']:.2f} times one core" if "gain" in product else ""
    share = f"{product['share'][DISPATCHED]:.0%} of the peak"
    ratio = f"{product['ratio']:.2f} times the best's time{gained}"
    mark = " !" if product["disturbed"] else ""
    return f"{head} GFLOP/s {speeds}; {product['way']}, {share}, {ratio}, attempts {product['attempts']}{mark}"


def speed(product: dict, name: str) -> float:
    """GFLOP/s of a version."""
    return product["flops"] / product["seconds"][name] / 1e9


def summary(products: list[dict]) -> str:
    """How many products of one number of cores miss an aim, and the worst of them; disturbed ones are told apart."""
    there = [each for each in products if not each.get("disturbed", True)]
    slower = [each for each in there if each["ratio"] > SLOWER]
    text = f"{len(slower)} of {len(there)} dispatched products slower than the best by more than {SLOWER - 1:.0%}"
    if there:
        worst = max(there, key=lambda each: each["ratio"])
        text += f"; worst {worst['name']}: {worst['ratio']:.2f} ({worst['way']})"
    gains = [each for each in there if "gain" in each and each["flops"] >= 2 * GAIN_FROM]
    if gains:
        low, least = [each for each in gains if lacks_gain(each)], min(gains, key=lambda each: each["gain"])
        text += f"; two cores below {GAIN} times one on {len(low)} of {len(gains)} from 256 x 256 x 256 up, "
        text += f"least {least['gain']:.2f} ({least['name']})"
    if disturbed := sum(each.get("disturbed", False) for each in products):
        text += f"; {disturbed} more were disturbed by other processes at every attempt (!)"
    if lost := [each["name"] for each in products if "ratio" not in each]:
        text += f"; not measured: {', '.join(lost)}"
    return text
