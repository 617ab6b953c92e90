"""For the tests of the arena: where arrays lie, and a network with everything that allocates."""

from __future__ import annotations

import numpy as np

import tinynet as tn

NUMPY = tn.get_backend("numpy")
F32 = np.dtype("float32")


def place(array) -> tuple[int, int]:
    """First and last address, one past the end, of an array or a tensor."""
    array = array.array if isinstance(array, tn.Tensor) else array
    return np.lib.array_utils.byte_bounds(array)


def lies_in(arena, array) -> bool:
    first, last = place(array)
    begin = NUMPY.address(arena._block)
    return begin <= first and last <= begin + arena.capacity


def network():
    """A small network with everything that allocates, and one step of its training."""
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(5, 6)).astype(np.float32), rng.integers(0, 3, 5)
    nn = tn.nn
    model = nn.Sequential(nn.LayerNorm(6), nn.Dense(6, 8, "gelu"), nn.Dropout(0.3), nn.Dense(8, 3))
    optimizer = tn.optim.Adam(model.parameters(), lr=tn.optim.cosine(1e-2, 60))

    def step(stage=lambda name: None):
        stage("forward")
        loss = tn.losses.cross_entropy(model(x), y)
        stage("backward")
        loss.backward()
        stage("optimizer")
        optimizer.step()
        stage("done")
        return loss

    step.x = x
    return model, optimizer, step
