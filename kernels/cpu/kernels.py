"""All kernels for NumPy: importing this registers them."""

from . import cross_entropy, indexing, matrices, network, randomness, reductions, shapes, updates

__all__ = ["cross_entropy", "indexing", "matrices", "network", "randomness", "reductions", "shapes", "updates"]
