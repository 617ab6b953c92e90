"""MNIST from the first step to a wanted accuracy on the test images, with the same network and order for every peer."""

from __future__ import annotations

import time

import numpy as np

from . import workloads

NETWORK = workloads.Network((784, 512, 512, 10), 128)
CHUNK = 1000  # of test images at a time


def run(peer, path: str, target: float, epochs: int, limit: float) -> dict:
    """Seconds of training and testing until the accuracy after an epoch is at least ``target``.

    The data are read before; capturing and compiling the step counts. It ends without success after ``epochs``, or at
    the first epoch's end after ``limit`` seconds.
    """
    import tinynet as tn

    train, test = tn.data.mnist(path)
    rng, history = np.random.default_rng(0), []
    start = time.perf_counter()
    model = peer.model(NETWORK, workloads.weights(NETWORK))
    step, forward, loss = peer.training(model), peer.inference(model, CHUNK), None
    for _ in range(epochs):
        order = rng.permutation(len(train))
        for at in range(0, len(order) - NETWORK.batch + 1, NETWORK.batch):
            chosen = order[at : at + NETWORK.batch]
            loss = step(peer.batch(train.x[chosen], train.y[chosen]))
        peer.value(loss)
        right = sum(
            int((forward(test.x[at : at + CHUNK]).argmax(axis=1) == test.y[at : at + CHUNK]).sum())
            for at in range(0, len(test), CHUNK)
        )
        history.append(right / len(test))
        seconds = time.perf_counter() - start
        if history[-1] >= target or seconds > limit:
            break
    return {"seconds": seconds, "accuracy": history, "reached": history[-1] >= target}


def told(answer: dict) -> tuple[str, str | None]:
    """What ``run`` gave in words, and why it does not count; None if it does."""
    epochs, reached = len(answer["accuracy"]), answer["accuracy"][-1]
    text = f"{epochs} epoch{'s' if epochs > 1 else ''} of {answer['seconds'] / epochs:.2f} s, {reached:.2%}"
    return text, None if answer["reached"] else f"not reached: {text}"
