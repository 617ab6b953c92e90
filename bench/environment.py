"""The surroundings of a measurement: a clean environment for each peer, the cores it is held on, what machine it is."""

from __future__ import annotations

import functools
import os
import pathlib
import platform
import sys
import time
from collections.abc import Callable

# What chooses kernels, threads and ways to wait; taken out, whoever set it.
REMOVED_PREFIXES = ("OPENBLAS_", "GOTO_", "OMP_", "GOMP_", "KMP_", "MKL_", "BLIS_", "VECLIB_", "XLA_", "JAX_", "TORCH")
REMOVED = (
    "NUMBA_NUM_THREADS", "NUMBA_THREADING_LAYER", "NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES", "NUMBA_OPT", "TF_CPP_FLAGS",
    "NPY_DISABLE_CPU_FEATURES", "LD_PRELOAD", "DEV", "CPU", "BEAM", "JIT", "DEBUG", "PYTHONPROFILEIMPORTTIME",
    "PYTHONDONTWRITEBYTECODE",  # a package that is not installed but in a checkout would be compiled at every start
)  # fmt: skip
THREADS = (
    "TINYNET_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS",
    "NUM_CPU_THREADS",
)  # fmt: skip
TICK = 0.01  # seconds between two looks of the system at what runs, at most
SET = {"JAX_PLATFORMS": "cpu", "DEV": "CPU"}


def clean(environment: dict[str, str], threads: int, more: dict[str, str] | None = None) -> dict[str, str]:
    """The environment of a peer's process: without what could steer it, and with what is meant to."""
    kept = {
        name: value
        for name, value in environment.items()
        if not name.startswith(REMOVED_PREFIXES) and name not in REMOVED
    }
    return kept | dict.fromkeys(THREADS, str(threads)) | SET | (more or {})


def cores(count: int) -> list[int] | None:
    """The last ``count`` cores that this process may use (the first one answers interrupts on many machines), or None
    where a process cannot be held on cores."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    return sorted(os.sched_getaffinity(0))[-count:]


def available() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def pinned(chosen: list[int] | None):
    """What a new process calls before it begins, or None."""
    return functools.partial(os.sched_setaffinity, 0, chosen) if chosen else None


def _read(path: str) -> str | None:
    try:
        return pathlib.Path(path).read_text().strip()
    except OSError:
        return None


def busy(chosen: list[int] | None) -> float | None:
    """Seconds that these cores have worked since the machine was started, for whomever, the host of a virtual machine
    among them; counted in hundredths. None where the system does not say."""
    text = _read("/proc/stat")
    if chosen is None or text is None:
        return None
    wanted, ticks = {f"cpu{core}" for core in chosen}, 0
    for name, *counts in map(str.split, text.splitlines()):
        if name in wanted:
            user, nice, system, _, _, irq, softirq, steal = map(int, counts[:8])
            ticks += user + nice + system + irq + softirq + steal
    return ticks / os.sysconf("SC_CLK_TCK")


def still(counted: Callable[[], float | None], longest: float = 0.5) -> None:
    """Until threads no longer run, by the seconds on cores that are counted for them: None where nobody knows.

    Threads of a pool spin before they sleep, OpenBLAS's for a tenth of a second, and take the cores of who comes next.
    What a thread has run on another core is counted once per tick: a shorter look takes one that spins for still.
    """
    before, deadline = counted(), time.monotonic() + longest
    while before is not None and time.monotonic() < deadline:
        time.sleep(2 * TICK)
        now = counted()
        if now is None or now - before < 0.001:
            return
        before = now


def _sized(text: str) -> int:
    units = {"K": 2**10, "M": 2**20, "G": 2**30}
    return int(text[:-1]) * units[text[-1]] if text[-1:] in units else int(text)


def caches() -> dict[str, int]:
    """Bytes of each cache that the first core sees, by name: L1d, L1i, L2, L3."""
    found = {}
    for index in range(8):
        base = f"/sys/devices/system/cpu/cpu0/cache/index{index}/"
        level, kind, size = (_read(base + name) for name in ("level", "type", "size"))
        if level and size:
            found[f"L{level}" + {"Data": "d", "Instruction": "i"}.get(kind or "", "")] = _sized(size)
    return found


def last_level_cache() -> int:
    """Bytes; 32 MiB where the machine does not say."""
    return max(caches().values(), default=32 * 2**20)


def _from_file(path: str, start: str) -> str | None:
    for line in (_read(path) or "").splitlines():
        if line.startswith(start):
            return line.split(":", 1)[1].strip()
    return None


def machine() -> dict[str, object]:
    """The processor, its caches and clock policy, the memory, the system, and how busy it is."""
    memory = _from_file("/proc/meminfo", "MemTotal")
    return {
        "processor": _from_file("/proc/cpuinfo", "model name") or platform.processor() or platform.machine(),
        "cores": available(),
        "caches": caches(),
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "memory_bytes": int(memory.split()[0]) * 1024 if memory else None,
        "system": platform.platform(),
        "python": sys.version.split()[0],
        "load_before": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "removed_variables": sorted(
            name for name in os.environ if name.startswith(REMOVED_PREFIXES) or name in REMOVED
        ),
    }
