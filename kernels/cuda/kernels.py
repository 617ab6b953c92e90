"""All kernels for CUDA: importing this registers them."""

from . import elementwise, layouts, matrices, randomness, reductions, rows, updates

__all__ = ["elementwise", "layouts", "matrices", "randomness", "reductions", "rows", "updates"]
