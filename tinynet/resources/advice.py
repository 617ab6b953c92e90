"""What costs speed here, and how to mend it: functions from facts to a piece of advice, or to None.

Each function looks at one thing and holds its tongue about what is unknown. The functions of ``CHECKS`` are all there
are; a new one is written, decorated, and given its case in the tests. Nothing is read or measured here: the facts are
those of ``facts.gather``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from .facts import Facts, known
from .machine import cache_bytes


class Advice(NamedTuple):
    problem: str
    mend: str


Check = Callable[[Facts], Advice | None]
CHECKS: list[Check] = []

# Bits of the vectors in which OpenBLAS's kernels of a name multiply and add at once. Sandy Bridge and its like have
# vectors of 256 bits, but no fused multiply-add, which comes to the same as half of that.
_KERNEL_BITS = {
    512: ("skylakex", "cooperlake", "sapphirerapids"),
    256: ("haswell", "zen", "piledriver", "steamroller", "excavator"),
    128: (
        "sandybridge", "bulldozer", "nehalem", "penryn", "dunnington", "core2", "prescott", "northwood", "atom", "nano",
        "opteron", "opteron_sse3", "barcelona", "bobcat", "banias", "katmai", "coppermine",
    ),
}  # fmt: skip
_BITS = {name: bits for bits, names in _KERNEL_BITS.items() for name in names}
# What a BLAS says whose threads are those of an OpenMP library, which is in the list by itself.
_LAYERS_OF_OPENMP = {"openmp", "intel", "gnu", "pgi"}
# Drivers that change the clock by themselves and call it "powersave"; what they are told to prefer decides.
_DRIVERS_THAT_ADAPT = {"intel_pstate", "amd-pstate-epp"}
# Some processors do long vectors in two halves: kernels with short ones cost nothing there, and reach this of the peak.
_NEAR_THE_PEAK = 0.75
_BUSY = 0.4  # of the processors, on average


def check(function: Check) -> Check:
    """Decorator: the function is asked too."""
    CHECKS.append(function)
    return function


def advice(facts: Facts) -> list[Advice]:
    """All that there is to say."""
    return [found for each in CHECKS if (found := each(facts)) is not None]


# ---- BLAS ----


@check
def blas_kernels_for_another_processor(facts: Facts) -> Advice | None:
    asked = _variable(facts, "OPENBLAS_CORETYPE")
    if known(facts, "blas", "in_use", "library") not in ("openblas", None):
        return None
    kernels = known(facts, "blas", "in_use", "architecture") or asked
    widest = max(known(facts, "processor", "vectors", "available_bits") or [0])
    bits = _BITS.get((kernels or "").lower())
    speed = known(facts, "blas", "matrix_product", "one_thread_gflop_per_s")
    peak = known(facts, "processor", "peak", "float32_gflop_per_s")
    share = speed / peak if speed and peak else None
    if kernels and bits and bits < widest and (share or 0) < _NEAR_THE_PEAK:
        why = f"because OPENBLAS_CORETYPE={asked}, " if asked else ""
        measured = f"; measured: {share:.0%} of the peak" if share else ""
        return Advice(
            f"{why}NumPy's BLAS runs its kernels for {kernels}, whose instructions do {bits / widest:.0%} of the "
            f"multiply-adds that this processor's can{measured}",
            "unset OPENBLAS_CORETYPE" if asked else "update NumPy: a newer OpenBLAS may know this processor",
        )
    if asked and not bits:
        return Advice(
            f"OPENBLAS_CORETYPE={asked} chooses the kernels of NumPy's BLAS, instead of the processor",
            "unset OPENBLAS_CORETYPE, unless it works around a fault",
        )
    return None


@check
def blas_cuts_for_another_cache(facts: Facts) -> Advice | None:
    asked = _variable(facts, "OPENBLAS_L2_SIZE")
    size = cache_bytes(known(facts, "processor", "caches") or [], "L2")
    if not asked or (size and asked == str(size // 1024)):
        return None
    really = f"; this core's has {size // 1024} KiB" if size else ""
    return Advice(
        f"OPENBLAS_L2_SIZE={asked}: NumPy's BLAS cuts matrices for a second-level cache of {asked} KiB{really}",
        "unset OPENBLAS_L2_SIZE, unless it works around a fault",
    )


@check
def blas_leaves_processors_idle(facts: Facts) -> Advice | None:
    names = _blas_variables(facts)
    asked = next((name for name in names if _number(_variable(facts, name))), None)
    processors = len(known(facts, "processor", "affinity") or [])
    if asked is None:
        return None
    threads = known(facts, "blas", "in_use", "threads") or _number(_variable(facts, asked))
    if not threads < processors:
        return None
    return Advice(
        f"because {asked}={_variable(facts, asked)}, NumPy's BLAS runs on {_count(threads, 'thread')} of the "
        f"{_count(processors, 'processor')} that this process may use",
        f"unset {asked}, unless several such processes share the machine",
    )


@check
def blas_has_too_many_threads(facts: Facts) -> Advice | None:
    threads = known(facts, "blas", "in_use", "threads")
    processors = len(known(facts, "processor", "affinity") or [])
    if not threads or not processors or threads <= processors:
        return None
    return Advice(
        f"NumPy's BLAS runs on {_count(threads, 'thread')}, and this process may use {_count(processors, 'processor')} "
        "only: its threads wait for each other",
        f"set {_blas_variables(facts)[0]}={processors}",
    )


@check
def several_pools_of_threads(facts: Facts) -> Advice | None:
    pools = known(facts, "blas", "pools") or []
    own = [pool for pool in pools if pool["threads"] > 1 and pool["layer"] not in _LAYERS_OF_OPENMP]
    if len(own) < 2:
        return None
    named = ", ".join(f"{pool['library']} ({pool['threads']})" for pool in own)
    return Advice(
        f"{len(own)} libraries with threads of their own are loaded, and these get in each other's way: {named}",
        "load only one of them, or hold the others at one thread with threadpoolctl.threadpool_limits",
    )


# ---- the executor ----


@check
def no_compiled_programs(facts: Facts) -> Advice | None:
    if known(facts, "programs", "executor", "name") != "numpy":
        return None
    why = known(facts, "programs", "executor", "obstacle")
    return Advice(
        f"programs run on the numpy executor, one NumPy call after the other: {why}",
        "pip install 'tinynet[cpu]', with versions of numba and NumPy that fit",
    )


@check
def kernels_are_not_kept(facts: Facts) -> Advice | None:
    if known(facts, "programs", "kernel_cache", "private") is not False:
        return None
    return Advice(
        "compiled kernels are not kept, and compiled again by every process: "
        + (known(facts, "programs", "kernel_cache", "refused") or "their folder is refused"),
        "set TINYNET_CACHE to a folder that only you can write to",
    )


@check
def thread_count_is_not_a_number(facts: Facts) -> Advice | None:
    asked = _variable(facts, "TINYNET_NUM_THREADS")
    if asked is None or _number(asked):
        return None
    return Advice(
        f"TINYNET_NUM_THREADS={asked!r} is no number from 1 on, and ignored", "set it to a number, or unset it"
    )


@check
def more_threads_than_processors(facts: Facts) -> Advice | None:
    threads = known(facts, "programs", "threads", "count")
    processors = len(known(facts, "processor", "affinity") or [])
    if not threads or not processors or threads <= processors:
        return None
    return Advice(
        f"programs run on {_count(threads, 'thread')}, and this process may use {_count(processors, 'processor')} "
        "only: the threads wait for each other",
        f"set TINYNET_NUM_THREADS={processors}, or unset it",
    )


# ---- the machine ----


@check
def quota_below_the_threads(facts: Facts) -> Advice | None:
    quota = known(facts, "processor", "quota", "processors")
    ours, theirs = known(facts, "programs", "threads", "count"), known(facts, "blas", "in_use", "threads")
    threads = max(ours or 0, theirs or 0)
    if quota is None or threads <= quota:
        return None
    fits = max(1, math.floor(quota))
    return Advice(
        f"{_count(threads, 'thread')} share {quota:g} processors' worth of time, all that the control group allows: "
        "when it is used up, they stop for a while",
        f"set TINYNET_NUM_THREADS={fits} and {_blas_variables(facts)[0]}={fits}, or raise the quota (docker: --cpus)",
    )


@check
def clock_is_held_low(facts: Facts) -> Advice | None:
    clock = known(facts, "processor", "governor") or {}
    if "powersave" not in clock.get("governors", ()):
        return None
    prefers_power = {"power", "balance_power"} & set(clock.get("preferences", ()))
    if _DRIVERS_THAT_ADAPT & set(clock.get("drivers", ())) and not prefers_power:
        return None
    return Advice(
        "the clock's governor is powersave, which holds its frequency low",
        "sudo cpupower frequency-set --governor performance",
    )


@check
def machine_is_busy(facts: Facts) -> Advice | None:
    load, processors = known(facts, "processor", "load"), known(facts, "processor", "counts", "processors")
    if load is None or not processors or load < _BUSY * processors:
        return None
    return Advice(
        f"the machine is busy ({load:.1f} threads on {_count(processors, 'processor')}): the speeds above are too low, "
        "and far too low where threads wait for each other",
        "measure again when the machine is idle; to train beside other programs, set TINYNET_NUM_THREADS lower",
    )


@check
def memory_is_short(facts: Facts) -> Advice | None:
    total, available = (known(facts, "memory", "sizes", f"{name}_bytes") for name in ("total", "available"))
    if not total or available is None or available >= total / 10:
        return None
    return Advice(
        f"{available / 2**30:.1f} GiB of {total / 2**30:.1f} GiB of memory are available",
        "end what is not needed, or give training a budget: tinynet train --memory",
    )


@check
def memory_is_on_disk(facts: Facts) -> Advice | None:
    used = known(facts, "memory", "sizes", "swap_used_bytes")
    if not used or used < 64 * 2**20:
        return None
    return Advice(
        f"{used / 2**30:.1f} GiB of memory have been moved to disk (swap); what needs them again waits for the disk",
        "end what is not needed, or give training a budget: tinynet train --memory",
    )


# ---- words and numbers ----


def _variable(facts: Facts, name: str) -> str | None:
    return known(facts, "software", "variables", name)


def _blas_variables(facts: Facts) -> tuple[str, ...]:
    """The variables that set the threads of NumPy's BLAS, the one that counts most first."""
    own = {"openblas": "OPENBLAS_NUM_THREADS", "mkl": "MKL_NUM_THREADS", "blis": "BLIS_NUM_THREADS"}
    library = known(facts, "blas", "in_use", "library") or "openblas"
    return (own[library], "OMP_NUM_THREADS") if library in own else ("OMP_NUM_THREADS",)


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() and int(text) > 0 else None


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
