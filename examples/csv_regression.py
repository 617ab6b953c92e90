"""Linear regression on a CSV file: the batch grows while it trains, and a step keeps to a budget of memory.

Small batches find the way in few passes; large ones have less noise at the end, and their steps have more to compute at
a time. A growing batch does both, at one learning rate. Each size is a program that is captured once; under `memory` a
batch that would take more is cut into parts whose gradients are added with exact weights, so nothing else changes.

The file is written here: houses whose price is 1,200 per square metre, 9,000 per room, less 800 per year of age, and
50,000, with noise of 10,000.

Run it: python examples/csv_regression.py
"""

import csv

import numpy as np

import tinynet as tn

ROWS, EPOCHS, MEMORY = 4000, 12, "10 kB"
TRUE = {"area": 1200.0, "rooms": 9000.0, "age": -800.0}

rng = np.random.default_rng(0)
area, rooms, age = rng.uniform(40, 200, ROWS), rng.integers(1, 7, ROWS), rng.integers(0, 60, ROWS)
price = 50_000 + TRUE["area"] * area + TRUE["rooms"] * rooms + TRUE["age"] * age + rng.normal(0, 10_000, ROWS)
with open("houses.csv", "w", newline="", encoding="utf-8") as file:
    writer = csv.writer(file)
    writer.writerow(["area", "rooms", "age", "price"])
    writer.writerows(zip(area.round(1), rooms, age, price.round()))

train, test = tn.data.csv("houses.csv", target="price")
tn.seed(0)
model = tn.nn.Sequential(tn.nn.Dense(train.x.shape[1], 1))
optimizer = tn.optim.Adam(model.parameters(), lr=0.05)
schedule = tn.resources.batches.growing(32, most=1024, every=2)

whole = tn.plan(model, "mse", optimizer, schedule(EPOCHS))
within = tn.plan(model, "mse", optimizer, schedule(EPOCHS), memory=MEMORY)
print(f"a step of {schedule(EPOCHS):,} rows takes {whole.workspace_bytes:,} bytes beyond the batch and the model")
print(f"within {MEMORY} it takes {within.workspace_bytes:,}")

history = tn.fit(
    model, train, loss="mse", optimizer=optimizer, epochs=EPOCHS, batch_size=schedule, valid=test, memory=MEMORY
)
for row in history:
    print(f"epoch {row['epoch']:2}: batches of {row['batch_size']:5,.0f}, held-out R2 {row['valid_r2']:.4f}")

# In the units of the file: what the model learnt of standardised columns, put back.
prices, found = train.preprocessor.target_column, {}
for column, weight in zip(train.preprocessor.columns, model[0].weight.numpy()[:, 0]):
    found[column.name] = float(weight) * prices.scale / column.scale
for name, right in TRUE.items():
    print(f"{name:5}: {found[name]:8,.0f} per unit; the file was made with {right:6,.0f}")
    assert abs(found[name] - right) < 0.05 * abs(right)
