"""A constrained environment: training a network whose plain step would take twice what there is, within 16 MB.

Everything that training takes is counted before it starts: parameters, the optimizer's moments, the batch, and the
arena of the step. What does not fit is computed in parts, whose gradients are added with exact weights: the losses are
those of the whole batch.

Run it: python examples/constrained.py
"""

import itertools

import numpy as np

import tinynet as tn

BUDGET, BATCH = "16 MB", 8192
SIZES = (64, 256, 256, 10)


def build():
    tn.seed(0)
    layers = [tn.nn.Dense(n, m, None if m == SIZES[-1] else "relu") for n, m in itertools.pairwise(SIZES)]
    model = tn.nn.Sequential(*layers)
    return model, tn.optim.Adam(model.parameters(), lr=2e-3)


def digits_and_shifted(train):
    """The digits, and the same moved by a pixel to each side: enough for batches of thousands."""
    images = train.x.reshape(-1, 8, 8)
    moved = [np.roll(images, (down, right), (1, 2)) for down in (-1, 0, 1) for right in (-1, 0, 1)]
    return tn.data.Dataset(np.concatenate(moved).reshape(-1, 64), np.tile(train.y, 9), classes=train.classes)


train, test = tn.data.digits()
train = digits_and_shifted(train)
model, optimizer = build()
plain = tn.plan(model, "cross_entropy", optimizer, BATCH)
print(f"a plain step of {BATCH:,} samples takes {plain.total_bytes / 1e6:.1f} MB in all")

found = tn.resources.batch_size(
    model, loss="cross_entropy", optimizer=optimizer, memory=BUDGET, data=train, effective=BATCH
)
print(found)
assert found.fit.bytes <= 16_000_000 < plain.total_bytes

history = tn.fit(model, train, loss="cross_entropy", optimizer=optimizer, epochs=40, **found.options)
accuracy = tn.evaluate(model, test, "cross_entropy")["accuracy"]
print(f"within {BUDGET}: loss {history[-1]['loss']:.4f}, {accuracy:.1%} of the held-out digits are right")

free, its_optimizer = build()
unbounded = tn.fit(free, train, loss="cross_entropy", optimizer=its_optimizer, epochs=40, batch_size=BATCH)
print(f"without a budget: loss {unbounded[-1]['loss']:.4f}")
assert abs(history[-1]["loss"] - unbounded[-1]["loss"]) < 1e-3
