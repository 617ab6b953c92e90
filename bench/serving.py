"""Serving beyond its capacity: ``python -m bench.serving [--seconds 60] [--load 2]``.

Callers in threads of their own ask for single samples at times that were fixed beforehand, with exponential gaps,
whether or not earlier answers have come (an open loop), at twice the best rate at which one, four or all of them are
answered when each asks again as soon as it has its answer. All share one interpreter with the server: where a run takes
less time than Python needs to call it, they cannot offer as much, and "offered" says what they did.

Every answer is compared with the model's. Latencies are taken by the callers, from the call to its return; how late
they came to call, for want of a processor or of Python's lock, is said beside them.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

import tinynet as tn

from . import environment

CASES = (((784, 512, 512, 10), 1), ((784, 512, 512, 10), 16), ((64, 32, 10), 1), ((64, 32, 10), 16))
CALLERS = 4  # 16 that ask this often keep the interpreter's lock from each other for milliseconds
_CHUNK = 256  # answers that are compared at a time


@dataclass
class Tally:
    """What callers saw. Times in nanoseconds."""

    seconds: float = 0.0
    offered: int = 0
    refused: int = 0
    wrong: int = 0
    failed: int = 0
    lost: int = 0
    latencies: list[int] = field(default_factory=list)
    lateness: list[int] = field(default_factory=list)

    @property
    def accepted(self) -> int:
        return len(self.latencies)

    def latency(self, percent: float) -> float:
        """In microseconds."""
        return percentile(self.latencies, percent)


def percentile(times: Sequence[int], percent: float) -> float:
    """The exact one, in microseconds."""
    return float(np.percentile(times, percent, method="higher")) / 1e3 if len(times) else float("nan")


class Caller:
    """One thread's calls, and what came of them."""

    def __init__(self, server, samples: np.ndarray, expected: np.ndarray, seed: int):
        self.server, self.samples, self.expected = server, samples, expected
        self.tally, self.rng = Tally(), np.random.default_rng(seed)
        self.answers = np.empty((_CHUNK, *expected.shape[1:]), expected.dtype)
        self.asked: list[int] = []
        self.at = seed % len(samples)
        self.tolerance = 1e-4 * float(abs(expected).max())

    def ask(self) -> None:
        """One call."""
        tally, self.at = self.tally, (self.at + 1) % len(self.samples)
        tally.offered += 1
        start = time.perf_counter_ns()
        try:
            answer = self.server(self.samples[self.at])
        except tn.errors.BusyError:
            tally.refused += 1
            return
        tally.latencies.append(time.perf_counter_ns() - start)
        self.answers[len(self.asked)] = answer
        self.asked.append(self.at)
        if len(self.asked) == _CHUNK:
            self.compare()

    def compare(self) -> None:
        off = abs(self.answers[: len(self.asked)] - self.expected[self.asked]) > self.tolerance
        self.tally.wrong += int(off.any(axis=tuple(range(1, off.ndim))).sum())
        self.asked.clear()

    def closed(self, until: float) -> None:
        """Asks again as soon as it has its answer."""
        while time.perf_counter() < until:
            self.ask()

    def open(self, start: float, until: float, gap: float) -> None:
        """Asks at times that do not depend on the answers, ``gap`` seconds apart on average."""
        due = start
        while True:
            due += self.rng.exponential(gap)
            if due > until or time.perf_counter() > until:  # what it came too late for is not offered
                return
            wait = due - time.perf_counter()
            if wait > 0:
                time.sleep(wait)
            self.tally.lateness.append(int(max(0.0, time.perf_counter() - due) * 1e9))
            self.ask()


def drive(server, samples, expected, seconds: float, callers: int, rate: float | None = None) -> Tally:
    """Calls of so many threads, at a rate per second, or as fast as answers come (None)."""
    all_of = [Caller(server, samples, expected, seed) for seed in range(callers)]
    start = time.perf_counter() + 0.05
    until = start + seconds

    def run(caller: Caller) -> None:
        time.sleep(max(0.0, start - time.perf_counter()))
        try:
            if rate is None:
                caller.closed(until)
            else:
                caller.open(start, until, callers / rate)
            caller.compare()
        except Exception as error:
            caller.tally.failed += 1
            print(f"a call failed: {error!r}", file=sys.stderr)

    threads = [threading.Thread(target=run, args=(caller,), daemon=True) for caller in all_of]
    for thread in threads:
        thread.start()
    for thread in threads:  # one whose answer never comes is waited for until all others must have theirs
        thread.join(max(0.0, until - time.perf_counter()) + 30)
    total = Tally(seconds=time.perf_counter() - start, lost=sum(thread.is_alive() for thread in threads))
    for each in (caller.tally for caller in all_of):
        total.offered += each.offered
        total.refused += each.refused
        total.wrong += each.wrong
        total.failed += each.failed
        total.latencies += each.latencies
        total.lateness += each.lateness
    return total


def network(sizes: Sequence[int]) -> tn.nn.Module:
    tn.seed(0)
    pairs = list(itertools.pairwise(sizes))
    return tn.nn.Sequential(*(tn.nn.Dense(n, m, "relu" if m != sizes[-1] else None) for n, m in pairs))


def overloaded(
    sizes: Sequence[int], batch: int, seconds: float, load: float = 2.0, deadline: str | float = "1ms",
    callers: int = CALLERS, trial: float = 1.0, **options,
):  # fmt: skip
    """(capacity per second, tally of the callers, statistics of the server) of a load that is so many times it.

    ``trial`` is how many seconds each measurement of the capacity takes, and how long the load lasts before it counts;
    ``options`` are those of ``serve``.
    """
    model = network(sizes)
    samples = np.random.default_rng(0).standard_normal((512, sizes[0]), dtype="float32")
    expected = tn.predict(model, samples)
    capacity = 0.0
    for count in sorted({1, 4, callers}):
        with tn.serve(model, batch, 60.0) as server:  # a deadline that refuses nobody
            closed = drive(server, samples, expected, trial, count)
        capacity = max(capacity, closed.accepted / closed.seconds)
    with tn.serve(model, batch, deadline, **options) as server:
        drive(server, samples, expected, trial, callers, load * capacity)  # the forecast learns
        before = server.stats()
        tally = drive(server, samples, expected, seconds, callers, load * capacity)
        stats = server.stats()
    if stats.accepted - before.accepted != tally.accepted + tally.lost:
        raise AssertionError(f"the server accepted {stats.accepted - before.accepted}, callers got {tally.accepted}")
    return capacity, tally, stats


def row(cells) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.serving", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="of load, for each network and batch")
    parser.add_argument("--load", type=float, default=2.0, help="times the capacity")
    parser.add_argument("--deadline", default="1ms")
    parser.add_argument("--callers", type=int, default=CALLERS)
    options = parser.parse_args()
    tn.set_num_threads(1)
    sys.setswitchinterval(1e-4)
    machine = environment.machine()
    print(f"{machine['processor']}, {machine['cores']} cores, python {machine['python']}, load "
          f"{machine['load_before']}; {options.callers} callers, {options.seconds:g} s, deadline {options.deadline}; "
          "times in us")  # fmt: skip
    names = ("network", "batch", "capacity/s", "offered/s", "accepted/s", "refused", "lost", "wrong or failed",
             "p50", "p99", "p99.9", "worst", "late", "calls late by p99", "rows a batch")  # fmt: skip
    print(row(names), row(["---"] * len(names)), sep="\n")
    for sizes, batch in CASES:
        capacity, tally, stats = overloaded(
            sizes, batch, options.seconds, options.load, options.deadline, options.callers
        )
        late = sum(latency > stats.deadline * 1e9 for latency in tally.latencies) / max(tally.accepted, 1)
        print(row((
            "-".join(map(str, sizes)), batch, f"{capacity:,.0f}", f"{tally.offered / tally.seconds:,.0f}",
            f"{tally.accepted / tally.seconds:,.0f}", f"{tally.refused / max(tally.offered, 1):.0%}", tally.lost,
            tally.wrong + tally.failed, *(f"{tally.latency(percent):,.0f}" for percent in (50, 99, 99.9, 100)),
            f"{late:.2%}", f"{percentile(tally.lateness, 99):,.0f}", f"{stats.rows / stats.batches:.1f}",
        )), flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
