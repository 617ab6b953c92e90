"""The own product or cuBLAS: decided for each shape by measurement, once per kind of GPU, and remembered.

Which of the two is faster depends on the shape and on the GPU, and on whether bias, activation or mask come with the
product, which cuBLAS leaves to a launch of its own. So the first binding of a large product of some shape times both,
on its own arrays, before anything is captured; the result goes into a file of the user's cache. cuBLAS is taken where
it is clearly faster. Where nothing can be measured (arrays of NumPy, no library, a capture under way), it is the own
product.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from . import blas
from .launch import Launch, run
from .products import NOTHING, Product, finishing

LEAST_FLOPS = 1e7  # below, neither takes longer than a launch does
CLEARLY = 1.05  # how many times faster cuBLAS has to be
RUNS = 9  # of a measurement, after two that are not counted
_chosen: dict[str, list[float]] = {}  # what this process goes by


class Choice(NamedTuple):
    """Seconds of both, and what follows."""

    own: float
    blas: float

    @property
    def is_blas(self) -> bool:
        return self.own > CLEARLY * self.blas

    def __str__(self) -> str:
        first, second = (("cuBLAS", self.blas), ("own kernel", self.own))[:: 1 if self.is_blas else -1]
        return f"{first[0]} {first[1] * 1e6:,.0f} µs, {second[0]} {second[1] * 1e6:,.0f} µs"


def best(product: Product, own: list, precision: str, out) -> list:
    """Launches and calls that compute the product: ``own``, or cuBLAS and what it leaves to do."""
    if product.flops < LEAST_FLOPS or hasattr(out, "__array_interface__"):
        return own
    handle = blas.handle()
    gemm = None if handle is None else blas.gemm(product, precision)
    if gemm is None:
        return own
    calls = [(blas.Call(gemm, product.keep), ()), *rest(product)]
    # Measuring writes to the output; where that is the mask's or the bias's memory too, that would be lost.
    may = not _overlaps(product) and not blas.is_capturing()
    found = choose(key(product, precision), calls_of(own), calls_of(calls), device_seconds if may else None, where())
    return calls if found is not None and found.is_blas else own


def rest(product: Product) -> list[Launch]:
    """What turns the bare product in C into the whole one; nothing where that is all."""
    if product.bias == product.mask == NOTHING and product.activation is None:
        return []
    c = product.c
    return [finishing(product, c, 1)] if c.batch or product.batch == 1 else []


def _overlaps(product: Product) -> bool:
    return product.c.address in (product.mask.address, product.bias.address)


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
    precision = precision if product.dtype == np.float32 else "float64"
    return f"{product.batch}x{product.m}x{product.k}x{product.n} {a}{b}{c} {product.dtype} {precision} {extra}"


def choose(name: str, own: Callable, library: Callable, seconds: Callable | None, path: Path | None) -> Choice | None:
    """What was measured under this name, now if never before.

    Args:
        own, library: both ways to compute it.
        seconds: ``seconds(function) -> float``, how long a call takes on the device; None: not to be measured now.
        path: where it is remembered; None for nowhere.
    """
    if name not in _chosen:
        known = _read(path)
        if name not in known:
            if seconds is None:
                return None
            found = [float(seconds(own)), math.inf]
            with contextlib.suppress(blas.BlasError):  # it cannot do it here: then it never will
                found[1] = float(seconds(library))
            known = {name: found} | _read(path)  # what another process has measured meanwhile, stays
            _write(path, known)
        _chosen[name] = known[name]
    return Choice(*_chosen[name])


def device_seconds(function: Callable) -> float:
    """The median time of a call on the current stream, by events."""
    import cupy

    found = []
    for i in range(RUNS + 2):
        start, end = cupy.cuda.Event(), cupy.cuda.Event()
        start.record()
        function()
        end.record()
        end.synchronize()
        if i >= 2:
            found.append(cupy.cuda.get_elapsed_time(start, end) / 1e3)
    return statistics.median(found)


# ---- what is remembered ----


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


def _read(path: Path | None) -> dict[str, list[float]]:
    """What is remembered; nothing, where a file is damaged."""
    if path is not None:
        with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
            return {str(key): [float(own), float(blas)] for key, (own, blas) in json.loads(path.read_text()).items()}
    return {}


def _write(path: Path | None, known: dict[str, list[float]]) -> None:
    """Whole or not at all: another process may read at the same time."""
    if path is None:
        return
    beside = path.with_suffix(f".{os.getpid()}-{os.urandom(4).hex()}")
    try:
        beside.write_text(json.dumps(known, indent=0))
        beside.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            beside.unlink()
