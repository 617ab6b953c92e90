"""The real MNIST, where it lies beside the checkout."""

from pathlib import Path

import pytest

import tinynet as tn

FOLDER = Path(__file__).parents[3] / "shared" / "data" / "mnist"


@pytest.mark.skipif(not FOLDER.is_dir(), reason="needs the MNIST files beside the checkout")
def test_one_epoch_of_a_small_network_learns_most_of_mnist():
    tn.seed(0)
    train, test = tn.data.mnist(FOLDER)
    model = tn.nn.Sequential(tn.nn.Dense(784, 128, "relu"), tn.nn.Dense(128, 10))
    optimizer = tn.optim.Adam(model.parameters(), lr=2e-3)
    tn.fit(model, train, loss="cross_entropy", optimizer=optimizer, epochs=1, batch_size=128)
    assert tn.evaluate(model, test, loss="cross_entropy")["accuracy"] > 0.93
