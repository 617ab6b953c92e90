"""The own product or one of cuBLAS's: decided for each shape by measurement, once per kind of GPU, and remembered.

Which way is the fastest depends on the shape and on the GPU, and on whether bias, activation or mask come with the
product, which cuBLAS leaves to a launch of its own. In bf16 cuBLAS may round the operands itself, or get copies of them
that are rounded already (``operands``). So the first binding of a large product of some shape times all of them, on its
own arrays, before anything is captured; the result goes into a file of the user's cache. cuBLAS is taken where it is
clearly faster. Where nothing can be measured (arrays of NumPy, no library, a capture under way), it is the own product.
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
from .operands import in_bf16
from .products import NOTHING, Product, finishing

LEAST_FLOPS = 1e7  # below, none takes longer than a launch does
CLEARLY = 1.05  # how many times faster cuBLAS has to be
RUNS = 9  # of a measurement, after two that are not counted
OWN, LIBRARY, COPIES = "own kernel", "cuBLAS", "cuBLAS on bf16 copies"  # the ways, as they are remembered
_chosen: dict[str, dict[str, float]] = {}  # what this process goes by


class Choice(NamedTuple):
    """The way that is taken, and the seconds of all; infinity for what cannot be done here."""

    way: str
    seconds: dict[str, float]

    def __str__(self) -> str:
        others = sorted(self.seconds.keys() - {self.way}, key=lambda way: (self.seconds[way], way))
        return ", ".join(f"{way} {self.seconds[way] * 1e6:,.0f} µs" for way in (self.way, *others))


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
    # Measuring writes to the output; where that is the mask's or the bias's memory too, that would be lost.
    may = not _overlaps(product) and not blas.is_capturing()
    functions = {way: calls_of(calls) for way, calls in ways.items()}
    found = choose(key(product, precision), functions, device_seconds if may else None, where())
    if found is None:
        return own
    for each in ways[found.way]:
        if not isinstance(each, Launch):
            each[0].note = str(found)
    return ways[found.way]


def ways_of_library(product: Product, precision: str, scratch) -> dict[str, list]:
    """How cuBLAS may compute the product: launches and a call, by the name of the way."""
    given = {LIBRARY: ([], product, None)}
    copies = in_bf16(product, scratch) if precision == "bf16" and product.dtype == np.float32 else None
    if copies is not None:
        given[COPIES] = (*copies, "bfloat16")
    found = {}
    for way, (before, one, operands) in given.items():
        arguments = blas.gemm(one, precision, operands)
        if arguments is not None:
            found[way] = [*before, (blas.Call(arguments, one.keep), ()), *rest(product)]
    return found


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


def choose(name: str, ways: dict[str, Callable], seconds: Callable | None, path: Path | None) -> Choice | None:
    """What was measured under this name, now if never before.

    Args:
        ways: to compute it, the own one first. One that was not measured with the others has all measured again.
        seconds: ``seconds(function) -> float``, how long a call takes on the device; None: not to be measured now.
        path: where it is remembered; None for nowhere.
    """
    known = _chosen.get(name, {})
    if not ways.keys() <= known.keys():
        known = _read(path).get(name, {})
        if not ways.keys() <= known.keys():
            if seconds is None:
                return None
            measured = {way: _seconds_of(function, seconds) for way, function in ways.items()}
            remembered = _read(path)  # what another process has measured meanwhile, stays
            known = remembered.get(name, {})
            if not ways.keys() <= known.keys():
                known = measured
                _write(path, remembered | {name: known})
        _chosen[name] = known
    times = {way: known[way] for way in ways}
    own, *others = ways
    fastest = min(others, key=times.get)
    return Choice(fastest if times[own] > CLEARLY * times[fastest] else own, times)


def _seconds_of(function: Callable, seconds: Callable) -> float:
    with contextlib.suppress(blas.BlasError):  # it cannot do it here: then it never will
        return float(seconds(function))
    return math.inf


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


def _read(path: Path | None) -> dict[str, dict[str, float]]:
    """What is remembered: name -> way -> seconds; nothing, where a file is damaged."""
    if path is not None:
        with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
            return {
                str(name): {str(way): float(each) for way, each in times.items()}
                for name, times in json.loads(path.read_text()).items()
            }
    return {}


def _write(path: Path | None, known: dict[str, dict[str, float]]) -> None:
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
