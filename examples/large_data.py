"""A large data set at batches of 1,000: written to disk as it comes, and trained on without ever being in memory.

The generator below makes 10,000 rows at a time; nothing holds more of them. What training reads are blocks of rows, in
an order that is random and the same each time, while a thread is one batch ahead. 200,000 rows here; a million take no
more memory: python examples/large_data.py 1000000

Run it: python examples/large_data.py
"""

import sys

import numpy as np

import tinynet as tn
from tinynet.meters import memory

ROWS, COLUMNS, BATCH = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000, 100, 1000


def chunks(seed: int, rows: int):
    """Numbers, and what is to be found of them: a weighted sum, with noise."""
    weights = np.random.default_rng(0).standard_normal((COLUMNS, 1), "float32") / 10
    rng = np.random.default_rng(seed)
    for _ in range(rows // 10_000):
        x = rng.standard_normal((10_000, COLUMNS), "float32")
        yield x, x @ weights + 0.1 * rng.standard_normal((10_000, 1), "float32")


train = tn.data.store("large", chunks(1, ROWS))
test = tn.data.Dataset(*next(chunks(2, 10_000)))
print(f"{len(train):,} rows of {COLUMNS} numbers, {(train.x.nbytes + train.y.nbytes) / 1e6:.1f} MB on disk")

tn.seed(0)
model = tn.nn.Sequential(tn.nn.Dense(COLUMNS, 64, "relu"), tn.nn.Dense(64, 1))
tn.fit(model, test, loss="mse", optimizer="adam", epochs=1, batch_size=BATCH)  # loads compiled kernels
before = memory.resident()
loader = tn.data.Loader(train, BATCH, prefetch=1)
history = tn.fit(model, loader, loss="mse", optimizer="adam", epochs=max(1, 1_000_000 // ROWS))
for row in history:
    print(f"epoch {row['epoch']}: loss {row['loss']:.4f}, {row['samples_per_second']:,.0f} rows per second")
if before is not None:
    print(f"memory grew by {(memory.resident() - before) / 1e6:.1f} MB")
print(f"R2 {tn.evaluate(model, test, 'mse')['r2']:.4f} on rows that were held out")
