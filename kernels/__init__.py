"""The kernels: what computes, and nothing else. Installed as ``tinynet.kernels``.

A kernel is a function ``kernel(out, *inputs, **attributes) -> None`` that writes its result into ``out`` (a tuple of
arrays where an operation has several results). ``reference`` defines what every kernel computes, in plain array-API
code; ``cpu`` and ``cuda`` hold the fast ones; ``registry`` finds a kernel by (operation, target, dtype);
``expression`` is the little language in which elementwise operations say their mathematics once.

This package knows nothing of the rest of tinynet.
"""

from .activations import ACTIVATIONS
from .cpu.native import pool
from .expression import Expression
from .precision import PRECISIONS, PRODUCTS, of_bf16, using_precision
from .registry import (
    Kernel,
    alignment,
    available,
    define,
    derive,
    feeder,
    find,
    keeps_in_bf16,
    lends,
    link,
    loans,
    obstacle,
    operations,
    register,
    screen,
    stages,
    targets,
)
from .tiles import tiled

__all__ = [
    "ACTIVATIONS",
    "PRECISIONS",
    "PRODUCTS",
    "Expression",
    "Kernel",
    "alignment",
    "available",
    "define",
    "derive",
    "feeder",
    "find",
    "keeps_in_bf16",
    "lends",
    "link",
    "loans",
    "obstacle",
    "of_bf16",
    "operations",
    "pool",
    "register",
    "screen",
    "stages",
    "targets",
    "tiled",
    "using_precision",
]
