"""What every operation computes: plain array-API code, obvious first, in float64 where sums are long.

Faster kernels are tested against these. Elementwise operations have no code here: their expressions say it all.
"""

from . import bf16, indexing, linalg, network, random, reduction, shaping, special, updates

__all__ = ["bf16", "indexing", "linalg", "network", "random", "reduction", "shaping", "special", "updates"]
