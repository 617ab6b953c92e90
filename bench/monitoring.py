"""What looking on costs: ``fit`` with and without a ``Monitor``, and watched steps. ``python -m bench.monitoring``

Ways take turns in one process, in an order that turns from round to round; a ratio is of the two times of one round,
and what is printed are medians over the rounds, with quartiles. A time is of a step, without those in which programs
are captured. What a monitor does at each step, and for a sample, is timed by itself as well.

Of a step that must not be made if a gradient is not finite there are two ways: gradients and update as two programs,
which is what ``fit(watch="skip")`` does; and one program whose update is taken back by a gate, ``where(finite, new,
old)``, over all that it writes, which is built here. Both, and a step that nobody watches, are called one after the
other on one batch, without the loop around them.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import time

from . import environment

MONITORED = {"784-128-10": ((784, 128, 10), 64), "64-32-10": ((64, 32, 10), 32)}
WATCHED = {"784-512-512-10": ((784, 512, 512, 10), 128), "64-32-10": ((64, 32, 10), 32)}
BOUND = 0.01  # of a step's time, for a monitor


def network(sizes: tuple[int, ...]):
    import tinynet as tn

    tn.seed(0)
    layers = [tn.nn.Dense(a, b, "relu") for a, b in itertools.pairwise(sizes[:-1])]
    return tn.nn.Sequential(*layers, tn.nn.Dense(sizes[-2], sizes[-1]))


def data(sizes: tuple[int, ...], rows: int):
    import numpy as np

    rng = np.random.default_rng(0)
    return rng.standard_normal((rows, sizes[0]), dtype=np.float32), rng.integers(0, sizes[-1], rows)


def fitted(sizes: tuple[int, ...], batch: int, steps: int, **options) -> float:
    """Seconds of a step of ``fit``, over two epochs of so many steps."""
    import tinynet as tn

    model, samples = network(sizes), min(steps * batch, 6400)
    epochs = 1 + 2 * -(-steps * batch // samples)
    history = tn.fit(
        model, data(sizes, samples), loss="cross_entropy", optimizer="adam", epochs=epochs, batch_size=batch, **options
    )
    return sum(history["seconds"][1:]) / ((epochs - 1) * -(-samples // batch))


class Steps:
    """Calls a step on one batch. Attributes: ``arenas``, the bytes of its programs."""

    def __init__(self, kind: str, sizes: tuple[int, ...], batch: int):
        import tinynet as tn
        from tinynet.train.step import as_program, training_step
        from tinynet.train.watching import WatchedStep

        model, (x, y) = network(sizes), data(sizes, batch)
        parts = model, tn.losses.cross_entropy, tn.optim.Adam(model.parameters())
        self.batch = tn.tensor(x), tn.tensor(y)
        if kind == "two programs":
            self.step = WatchedStep("skip", *parts)
            program = self.step.capture(None)
        else:
            self.step = program = as_program("bench", gated(*parts) if kind == "gate" else training_step(*parts))
        self(3)
        self.arena = program.program(*self.batch).plan.peak_bytes

    def __call__(self, steps: int) -> float:
        start = time.perf_counter()
        for _ in range(steps):
            self.step(*self.batch)
        return (time.perf_counter() - start) / steps


def gated(model, loss_function, optimizer):
    """A step that takes its update back where a gradient was not finite; all is in one program."""
    import tinynet as tn
    from tinynet import ops

    written = [*optimizer.params, *(view for views in optimizer._moments.values() for view in views), optimizer._step]

    def step(x, y):
        optimizer.zero_grad()
        loss = loss_function(model(x), y)
        loss.backward()
        with tn.no_grad():
            judgement = loss.detach() * 0.0
            for p in optimizer.params:
                judgement = judgement + ops.sum(p.grad * 0.0)
            finite = ops.equal(judgement, 0.0)
            before = [each * 1 for each in written]
            optimizer.step()
            for each, old in zip(written, before):
                ops.assign(each, ops.where(finite, each, old))
        return loss.detach()

    return step


class Timed:
    """Stands for a run, whose monitor is timed."""

    def __init__(self, sizes: tuple[int, ...], batch: int):
        import tinynet as tn
        from tinynet.resources import Monitor

        class Within(tn.train.Callback):
            def on_step(self, run):
                if run.step == 10:
                    monitor.every = 1e9
                    monitor._sample(run)
                    self.step = per_call(lambda: monitor.on_step(run), 200_000)
                    self.sample = per_call(lambda: monitor._sample(run), 200)

        monitor, within = Monitor(), Within()
        fitted(sizes, batch, 10, callbacks=[monitor, within])
        self.step, self.sample = within.step, within.sample


def per_call(function, times: int) -> float:
    """Seconds of a call, the least of five means."""
    found = []
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(times // 5):
            function()
        found.append((time.perf_counter() - start) / (times // 5))
    return min(found)


def interleaved(ways: dict, rounds: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for turn in range(rounds + 1):  # the first is a warm-up
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            found[name].append(ways[name]())
    return {name: times[1:] for name, times in found.items()}


def lines(found: dict[str, list[float]], base: str):
    """One for each way: microseconds of a step, and its time over that of ``base``."""
    for name, times in found.items():
        ratios = [here / there for here, there in zip(times, found[base])]
        low, middle, high = statistics.quantiles(ratios, n=4)
        yield f"  {name:28} {statistics.median(times) * 1e6:>10.2f} µs {middle:>8.4f} ({low:.4f} to {high:.4f})"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.monitoring", description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--seconds", type=float, default=1.2, help="of each way in each round, about")
    given = parser.parse_args()
    if given.rounds < 2:
        parser.error("--rounds has to be at least 2")
    held = environment.cores(1)
    if held is not None:
        os.sched_setaffinity(0, held)
    from tinynet.resources import Monitor

    for name, (sizes, batch) in MONITORED.items():
        steps = max(50, int(given.seconds / fitted(sizes, batch, 200) / 2))
        ways = {
            "fit": lambda s=sizes, b=batch, n=steps: fitted(s, b, n),
            "fit with a Monitor": lambda s=sizes, b=batch, n=steps: fitted(s, b, n, callbacks=[Monitor()]),
        }
        timed = Timed(sizes, batch)
        print(f"{name}, batch {batch}; {timed.step * 1e9:.0f} ns a step, {timed.sample * 1e6:.0f} µs a sample")
        print(*lines(interleaved(ways, given.rounds), "fit"), sep="\n", flush=True)
    print(f"wanted of a Monitor: less than {1 + BOUND:.2f}")
    for name, (sizes, batch) in WATCHED.items():
        made = {kind: Steps(kind, sizes, batch) for kind in ("unwatched", "two programs", "gate")}
        steps = max(20, int(given.seconds / 4 / made["gate"](50)))
        found = interleaved({kind: (lambda s=step, n=steps: s(n)) for kind, step in made.items()}, given.rounds)
        arenas = ", ".join(f"{kind} {step.arena:,}" for kind, step in made.items())
        print(f"{name}, batch {batch}; bytes of arenas: {arenas}")
        print(*lines(found, "unwatched"), sep="\n", flush=True)


if __name__ == "__main__":
    main()
