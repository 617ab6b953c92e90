"""All operations of the library: importing this files them."""

from . import bounds, elementwise, entropy, lines, products, randomness, rows, squares, updates

__all__ = ["bounds", "elementwise", "entropy", "lines", "products", "randomness", "rows", "squares", "updates"]
