"""All operations of the library: importing this files them."""

from . import bounds, elementwise, entropy, lines, products, randomness, rows, squares, strips, updates

__all__ = ["bounds", "elementwise", "entropy", "lines", "products", "randomness", "rows", "squares"]
__all__ += ["strips", "updates"]
