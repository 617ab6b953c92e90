"""All native kernels: importing this registers them."""

from . import elementwise, matrices, randomness, rows, shapes, updates

__all__ = ["elementwise", "matrices", "randomness", "rows", "shapes", "updates"]
