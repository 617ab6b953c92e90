"""A training step under a budget of memory: planned before it runs, drawn, and run to the same losses.

Writes memory_free.svg and memory_budget.svg into the current folder: time goes across, addresses go up.

Run it: python examples/memory_budget.py
"""

import itertools

import numpy as np

import tinynet as tn

SIZES, BATCH, BUDGET = (64, 256, 256, 10), 1024, "1MiB"


def build():
    tn.seed(0)
    pairs = list(itertools.pairwise(SIZES))
    model = tn.nn.Sequential(*(tn.nn.Dense(n, m, "relu" if m != SIZES[-1] else None) for n, m in pairs))
    return model, tn.optim.Adam(model.parameters(), lr=1e-3)


def trainer(memory=None):
    model, optimizer = build()

    @tn.capture(memory=memory)
    def step(x, y):
        optimizer.zero_grad()
        loss = tn.losses.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return step


model, _ = build()
free = tn.plan(model, "cross_entropy", "adam", BATCH)
tight = tn.plan(model, "cross_entropy", "adam", BATCH, memory=BUDGET)
print(free.summary(), end="\n\n")
print(tight.summary(), end="\n\n")
print(f"without a budget, {free.largest_batch(BUDGET)} samples would fit into {BUDGET}\n")
free.svg("memory_free.svg")
tight.svg("memory_budget.svg")

rng = np.random.default_rng(0)
x, y = rng.random((BATCH, SIZES[0]), dtype=np.float32), rng.integers(0, SIZES[-1], BATCH)
whole, parts = trainer(), trainer(BUDGET)
for i in range(5):
    print(f"step {i}: loss {whole(x, y).item():.6f}, within {BUDGET} {parts(x, y).item():.6f}")
program = parts.program(x, y)
assert program.plan.workspace_bytes == tight.workspace_bytes  # what was planned is what runs
print(f"\n{program.explain()}")
