"""The own product or one of cuBLAS's: decided for each shape by measurement, once per kind of GPU, and remembered.

Which way is the fastest depends on the shape and on the GPU, and on whether bias, activation or mask come with the
product, which cuBLAS leaves to a launch of its own. In bf16 cuBLAS may round the operands itself, or get copies of them
that are rounded already (``operands``). So the first binding of a large product of some shape times all of them, on its
own arrays, before anything is captured, and puts back what was in the output; the result goes into a file of the user's
cache. cuBLAS is taken where it is clearly faster. Where nothing can be measured (arrays of NumPy, no library, a capture
under way, no memory for what is put back), it is the own product.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..choices import Choices
from . import blas
from .launch import Launch, run
from .operands import in_bf16
from .products import NOTHING, Product, finishing

LEAST_FLOPS = 1e7  # below, none takes longer than a launch does
CLEARLY = 1.05  # how many times faster cuBLAS has to be
RUNS = 9  # of a measurement, after two that are not counted
OWN, LIBRARY, COPIES = "own kernel", "cuBLAS", "cuBLAS on bf16 copies"  # the ways, as they are remembered

_choices = Choices(CLEARLY)


def best(product: Product, own: list, precision: str, out, scratch=None) -> list:
    """Launches and calls that compute the product: ``own``, or cuBLAS and what comes before it and after it.

    Args:
        scratch: bytes, which copies of the operands may be made in.
    """
    if product.flops < LEAST_FLOPS or hasattr(out, "__array_interface__") or blas.handle() is None:
        return own
    ways = {OWN: own} | ways_of_library(product, precision, scratch)
    if len(ways) == 1:
        return own
    measure = None if blas.is_capturing() else functools.partial(_measure, ways, out)
    try:
        found = _choices.choose(key(product, precision), tuple(ways), measure, where)
    except MemoryError:
        return own
    return own if found is None else _noted(ways[found.way], str(found))


def _noted(found: list, note: str) -> list:
    """The same launches and calls, which say why it is these."""
    for each in found:
        if not isinstance(each, Launch):
            each[0].note = note
    return [each._replace(note=note) if isinstance(each, Launch) else each for each in found]


def ways_of_library(product: Product, precision: str, scratch) -> dict[str, list]:
    """How cuBLAS may compute the product: launches and a call, by the name of the way."""
    given = {LIBRARY: ([], product)}
    may = precision == "bf16" and product.operands == np.float32
    copies = in_bf16(product, scratch) if may else None
    if copies is not None:
        given[COPIES] = copies
    found = {}
    for way, (before, one) in given.items():
        arguments = blas.gemm(one, precision)
        if arguments is not None:
            found[way] = [*before, (blas.Call(arguments, one.keep), ()), *rest(product)]
    return found


def rest(product: Product) -> list[Launch]:
    """What turns the bare product in C into the whole one; nothing where that is all."""
    if product.bias == product.mask == NOTHING and product.activation is None:
        return []
    c = product.c
    return [finishing(product, c, 1)] if c.batch or product.batch == 1 else []


def calls_of(found: list) -> Callable[[], None]:
    def call() -> None:
        for each in found:
            function, arguments = (run, (each,)) if isinstance(each, Launch) else each
            function(*arguments)

    return call


def key(product: Product, precision: str) -> str:
    """What a measurement holds for: sizes, how the operands lie, the type and precision, and what is done besides."""
    a, b, c = ("N" if view.column == 1 else "T" for view in (product.a, product.b, product.c))
    extra = "".join((
        "b" * (product.bias != NOTHING), (product.activation or "-")[0], "m" * (product.mask != NOTHING),
    ))  # fmt: skip
    precision = "of bf16" if product.of_bf16 else precision if product.dtype == np.float32 else "float64"
    return f"{product.batch}x{product.m}x{product.k}x{product.n} {a}{b}{c} {product.dtype} {precision} {extra}"


def _measure(ways: dict[str, list], out) -> dict[str, float]:
    """Seconds of each way. The output may be a tensor of the user's, or the mask: what it holds is put back."""
    before = out.copy()
    try:
        return {way: _seconds_of(calls_of(calls)) for way, calls in ways.items()}
    finally:
        out[...] = before


def _seconds_of(function: Callable) -> float:
    with contextlib.suppress(blas.BlasError):  # it cannot do it here: then it never will
        return device_seconds(function)
    return math.inf


def device_seconds(function: Callable) -> float:
    """The median time of a call on the current stream, by events.

    Another call goes ahead of each: while the GPU is at it, Python prepares the one that is timed.
    """
    import cupy

    found = []
    for i in range(RUNS + 2):
        start, end = cupy.cuda.Event(), cupy.cuda.Event()
        function()
        start.record()
        function()
        end.record()
        end.synchronize()
        if i >= 2:
            found.append(cupy.cuda.get_elapsed_time(start, end) / 1e3)
    return statistics.median(found)


# ---- where it is remembered ----


def where() -> Path | None:
    """The file for this kind of GPU and this cuBLAS; None without a folder that is this user's own."""
    import cupy

    device = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.runtime.getDevice())["name"].decode()
    name = "".join(c if c.isalnum() else "-" for c in f"{device}-{blas.version()}")
    folder = _folder()
    return None if folder is None else folder / f"products-{name}.json"


def _folder() -> Path | None:
    chosen, caches = os.environ.get("TINYNET_CACHE"), os.environ.get("XDG_CACHE_HOME")
    try:
        root = Path(chosen).expanduser() if chosen else Path(caches or Path.home() / ".cache") / "tinynet"
        folder = root / "cuda"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder if not hasattr(os, "getuid") or folder.stat().st_uid == os.getuid() else None
    except (OSError, RuntimeError):
        return None
