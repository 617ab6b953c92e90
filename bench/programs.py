"""What captured steps gain and cost, and what budgets and plans hold: ``python -m bench.programs [--quick]``.

Each pair is run side by side, interleaved, after a check that both compute the same; times are medians, and ratios are
the result. Memory is counted twice: by the plan, and by tracemalloc, to which NumPy reports its arrays.
"""

from __future__ import annotations

import argparse
import itertools
import random
import statistics
import sys
import time
import tracemalloc

import numpy as np

import tinynet as tn
from tinynet.memory import plan_offsets


def network(sizes, optimizer="adam", dropout=0.0, seed=0):
    """A dense network with its step: (function of (x, y), model)."""
    tn.seed(seed)
    layers: list = []
    for i, (n, m) in enumerate(itertools.pairwise(sizes)):
        layers.append(tn.nn.Dense(n, m, "relu" if i < len(sizes) - 2 else None))
        if dropout and i < len(sizes) - 2:
            layers.append(tn.nn.Dropout(dropout))
    model = tn.nn.Sequential(*layers)
    made = {"adam": tn.optim.Adam, "gd": tn.optim.GD}[optimizer](model.parameters(), lr=1e-3)

    def step(x, y):
        made.zero_grad()
        loss = tn.losses.cross_entropy(model(x), y)
        loss.backward()
        made.step()
        return loss

    return step, model


def data(sizes, batch, seed=0):
    rng = np.random.default_rng(seed)
    return tn.tensor(rng.standard_normal((batch, sizes[0]), dtype="float32")), tn.tensor(
        rng.integers(0, sizes[-1], batch)
    )


def timed(f, *args) -> tuple[float, object]:
    start = time.perf_counter()
    result = f(*args)
    return time.perf_counter() - start, result


def steps(name: str, sizes, batch: int, repeats: int, dropout=0.0) -> None:
    """Eager, captured without fusion, captured: medians of interleaved steps, and what the first calls cost."""
    x, y = data(sizes, batch)
    network(sizes, dropout=dropout)[0](x, y)  # BLAS and kernels are warm
    kinds = {
        "eager": network(sizes, dropout=dropout)[0],
        "unfused": tn.capture(network(sizes, dropout=dropout)[0], fuse=False),
        "fused": tn.capture(network(sizes, dropout=dropout)[0]),
    }
    first = {kind: timed(step, x, y) for kind, step in kinds.items()}
    losses = {kind: loss.item() for kind, (_, loss) in first.items()}
    second = {kind: timed(step, x, y)[0] for kind, step in kinds.items()}
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    for i in range(repeats):
        found = {}
        for kind, step in kinds.items():
            seconds, loss = timed(step, x, y)
            times[kind].append(seconds)
            found[kind] = loss.item()
        if i < 20:
            assert found["unfused"] == found["eager"], "the program without fusion gives other bits"
            assert abs(found["fused"] - found["eager"]) <= 1e-4 * abs(found["eager"]), "fusion changes the loss"
    assert losses["unfused"] == losses["eager"]
    median = {kind: statistics.median(each) for kind, each in times.items()}
    print(
        f"{name:28} eager {median['eager'] * 1e6:9,.0f} us   unfused {median['eager'] / median['unfused']:5.2f} x   "
        f"fused {median['eager'] / median['fused']:5.2f} x   first call {first['fused'][0] / median['eager']:5.1f} "
        f"steps, second {second['fused'] / median['eager']:4.1f}"
    )


def budget(name: str, sizes, batch: int, memory: str | None) -> None:
    """A step within a budget: the plan's workspace, the peak that tracemalloc sees, and the loss beside eager mode."""
    x, y = data(sizes, batch)
    step, _ = network(sizes)
    captured = tn.capture(step, memory=memory)
    eager, _ = network(sizes)
    losses = [(captured(x, y).item(), eager(x, y).item()) for _ in range(3)]
    worst = max(abs(a - b) / abs(b) for a, b in losses)
    assert worst < 1e-4, f"losses differ by {worst}"
    program = captured.program(x, y)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    captured(x, y)
    beyond = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    times = {"budget": [], "eager": []}
    for _ in range(3):
        times["budget"].append(timed(captured, x, y)[0])
        times["eager"].append(timed(eager, x, y)[0])
    ratio = statistics.median(times["eager"]) / statistics.median(times["budget"])
    plan = program.plan
    print(
        f"{name:28} workspace {plan.workspace_bytes / 2**20:7.2f} MiB (budget {memory or 'none'}), arena / bound "
        f"{plan.peak_bytes / plan.lower_bound_bytes:.4f}, a call allocates {beyond:,} bytes more, eager / captured "
        f"{ratio:.2f}, losses within {worst:.1e}"
    )
    for note in program.notes:
        print(f"{'':28} {note}")


def planner(count: int) -> None:
    """Random graphs of 200 tensors: peak over bound, and milliseconds for each."""
    sys.path.insert(0, ".")
    from tests.memory.families import FAMILIES

    for name, family in FAMILIES.items():
        ratios, times = [], []
        for seed in range(count):
            lifetimes = family(random.Random(seed))
            seconds, plan = timed(plan_offsets, lifetimes)
            ratios.append(plan.ratio)
            times.append(seconds * 1e3)
        within = sum(ratio <= 1.02 for ratio in ratios)
        print(
            f"planner, {name:19} {within} of {count} within 1.02 of the bound, worst {max(ratios):.4f}; "
            f"median {statistics.median(times):.1f} ms, worst {max(times):.1f} ms"
        )


def large() -> None:
    """Ten billion parameters, planned without memory."""
    with tn.nn.abstract():
        model = tn.nn.Sequential(*(tn.nn.Dense(10_000, 10_000, "relu") for _ in range(100)))
    tracemalloc.start()
    tn.plan(model, "mse", "adam", 1024)
    traced = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    seconds, plan = timed(lambda: tn.plan(model, "mse", "adam", 1024))
    count = sum(p.size for p in model.parameters())
    print(f"{'plan without memory':28} {count:,} parameters in {seconds:.2f} s, {traced / 1e6:.1f} MB traced; {plan}")


def digits(epochs: int) -> None:
    """The digits run, eager and captured."""
    train, test = tn.data.digits()
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(3):
        for capture in (False, True):
            tn.seed(0)
            model = tn.nn.Sequential(tn.nn.Dense(64, 128, "relu"), tn.nn.Dropout(0.2), tn.nn.Dense(128, 10))
            took, _ = timed(
                lambda m=model, c=capture: tn.fit(
                    m, train, loss="cross_entropy", optimizer="adam", epochs=epochs, capture=c
                )
            )
            seconds[capture].append(took)
    accuracy = tn.evaluate(model, test, "cross_entropy")["accuracy"]
    eager, captured = (statistics.median(seconds[each]) for each in (False, True))
    print(
        f"{'fit digits':28} eager {eager:.2f} s, captured {captured:.2f} s: {eager / captured:.2f} x; "
        f"accuracy {accuracy:.2%}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.programs", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer repeats, and no large networks")
    quick = parser.parse_args().quick
    n = 30 if quick else 200
    print(f"tinynet {tn.__version__}, numpy {np.__version__}, python {sys.version.split()[0]}")
    steps("2-16-16-1, batch 32", (2, 16, 16, 2), 32, n)
    steps("64-128-10, batch 32", (64, 128, 10), 32, n)
    steps("64-128-10, dropout, batch 32", (64, 128, 10), 32, n, dropout=0.2)
    steps("784-128-10, batch 64", (784, 128, 10), 64, n)
    steps("784-512-512-10, batch 128", (784, 512, 512, 10), 128, n // 4)
    digits(3 if quick else 20)
    large()
    planner(50 if quick else 1000)
    if not quick:
        steps("1024-2048-2048-10, batch 512", (1024, 2048, 2048, 10), 512, 5)
        budget("1024-2048-2048-10, batch 512", (1024, 2048, 2048, 10), 512, None)
        budget("784-512-512-10, batch 8192", (784, 512, 512, 10), 8192, None)
        budget("784-512-512-10, batch 8192", (784, 512, 512, 10), 8192, "8MiB")
        budget("64 x 512, batch 1024", (512,) * 65, 1024, None)
        budget("64 x 512, batch 1024", (512,) * 65, 1024, "40MiB")


if __name__ == "__main__":
    main()
