"""Real-time prediction: a model that answers within a deadline, refuses what it could not answer in time, and says so.

A classifier of digits is trained for a few seconds and served with a deadline of 20 ms. First one caller asks for the
held-out digits one by one; then callers in four threads ask at once, and their requests are merged into batches.

Run it: python examples/real_time.py
"""

import sys
import threading

import numpy as np

import tinynet as tn

sys.setswitchinterval(1e-4)  # a thread that computes in Python gives way after 0.1 ms, not after 5
train, test = tn.data.digits()
tn.seed(0)
model = tn.nn.Sequential(tn.nn.Dense(64, 128, "relu"), tn.nn.Dense(128, 10))
tn.fit(model, train, loss="cross_entropy", optimizer="adam", epochs=15, batch_size=64)
expected = tn.predict(model, test.x).argmax(axis=1)

with tn.serve(model, batch=16, deadline="20ms") as server:
    one_by_one = np.array([server(x).argmax() for x in test.x])
    assert (one_by_one == expected).all()
    print(f"{(one_by_one == test.y).mean():.0%} of {len(test)} digits are right, asked for one by one")

    at_once, refused = np.full(len(test), -1), []

    def caller(first: int) -> None:
        for i in range(first, len(test), 4):
            try:
                at_once[i] = server(test.x[i]).argmax()
            except tn.errors.BusyError:  # said at once, so that a caller can do something else
                refused.append(i)

    callers = [threading.Thread(target=caller, args=(first,)) for first in range(4)]
    for each in callers:
        each.start()
    for each in callers:
        each.join()
    answered = at_once >= 0
    assert answered.sum() + len(refused) == len(test)  # nothing that was accepted is lost
    assert (at_once[answered] == expected[answered]).all()
    print(f"from four threads: {answered.sum()} answered, {len(refused)} refused")
    stats = server.stats()
    print(f"half of the answers took {stats.p50 * 1e6:.0f} us or less, 99 % {stats.p99 * 1e6:.0f} us or less")
    print(stats)
