"""The machine as the system describes it: processor, caches, clock, limits, memory, energy counters.

Every function reads what Linux shows under /proc and /sys and returns it as plain values; ``root`` is where those two
are, so that a test can bring its own. What the system does not show is ``Unknown``, with the reason. Nothing is
measured, judged or changed here.
"""

from __future__ import annotations

import itertools
import os
import platform
from pathlib import Path

from tinynet.meters import groups, rapl
from tinynet.meters import memory as counted
from tinynet.meters.groups import read as _read

from .facts import Unknown

ROOT = Path("/")
_CPUS = "sys/devices/system/cpu"


# ---- the processor ----


def model(root: Path = ROOT) -> str:
    """The processor's name as its maker writes it."""
    found = _cpuinfo(root).get("model name") or platform.processor()
    if not found or found == platform.machine():
        raise Unknown("the system names no model")
    return found


def counts(root: Path = ROOT) -> dict:
    """Processors as the system counts them, the cores they are threads of, and the sockets of those."""
    places = []
    for topology in (root / _CPUS).glob("cpu[0-9]*/topology"):
        package, core = _read(topology / "physical_package_id"), _read(topology / "core_id")
        if package is not None and core is not None:
            places.append((package, core))
    if not places:
        return {"processors": os.cpu_count(), "cores": None, "sockets": None}
    return {"processors": len(places), "cores": len(set(places)), "sockets": len({package for package, _ in places})}


def affinity() -> list[int]:
    """The processors that this process may run on."""
    if not hasattr(os, "sched_getaffinity"):
        raise Unknown("this system has no affinity masks")
    return sorted(os.sched_getaffinity(0))


def usable() -> int:
    """How many processors this process may run on."""
    try:
        return len(affinity())
    except Unknown:
        return os.cpu_count() or 1


def caches(root: Path = ROOT) -> list[dict]:
    """The caches of the first processor, from the nearest to the last."""
    folders = sorted((root / _CPUS).glob("cpu[0-9]*/cache"), key=lambda path: int(path.parent.name[3:]))
    found = []
    for index in sorted(folders[0].glob("index[0-9]*")) if folders else ():
        level, kind, size = (_read(index / name) for name in ("level", "type", "size"))
        if level and size:
            letter = {"Data": "d", "Instruction": "i"}.get(kind or "", "")
            shared = len(from_ranges(_read(index / "shared_cpu_list") or "")) or None
            found.append({"name": f"L{level}{letter}", "bytes": _size(size), "shared_by": shared})
    if not found:
        raise Unknown("the system does not show them")
    return found


def cache_bytes(found: list[dict], name: str) -> int | None:
    """The size of a cache among ``caches``, by name ("L2"); "last" is the largest."""
    if name == "last":
        return max((each["bytes"] for each in found), default=None)
    return next((each["bytes"] for each in found if each["name"] == name), None)


def vector_bits(root: Path = ROOT) -> list[int]:
    """Bits of the vectors in which this processor multiplies and adds, the widest first."""
    info = _cpuinfo(root)
    flags = set((info.get("flags") or info.get("Features") or "").split())
    if not flags:
        raise Unknown("/proc/cpuinfo lists no features")
    has = {512: {"avx512f", "avx512vl"} <= flags, 256: {"avx2", "fma"} <= flags, 128: flags & {"sse2", "asimd"}}
    return [bits for bits, there in has.items() if there]


def governor(root: Path = ROOT) -> dict:
    """Who chooses the clock's frequency, and in whose favour, over all processors."""
    folders = list((root / _CPUS).glob("cpu[0-9]*/cpufreq"))

    def all_of(name: str) -> list[str]:
        return sorted({text for folder in folders if (text := _read(folder / name))})

    names = all_of("scaling_governor")
    if not names:
        raise Unknown("the system shows no clock policy, as is usual in virtual machines")
    return {
        "governors": names,
        "drivers": all_of("scaling_driver"),
        "preferences": all_of("energy_performance_preference"),
    }


def load() -> float:
    """How many threads of all programs ran or waited for a processor, on average over the last minute."""
    if not hasattr(os, "getloadavg"):
        raise Unknown("this system does not count it")
    return os.getloadavg()[0]


# ---- limits and memory ----


def quota(root: Path = ROOT) -> dict:
    """How many processors' worth of time the control groups of this process allow; None where they set no limit."""
    if not groups.known(root):
        raise Unknown("the system has no /proc/self/cgroup")
    limits = []
    for text in groups.files(root, "cpu", "cpu.max"):  # version 2: "150000 100000", or "max 100000"
        spend, _, period = text.partition(" ")
        limits += [int(spend) / int(period or 100_000)] if spend != "max" else []
    for spend, period in zip(*(groups.files(root, "cpu", f"cpu.cfs_{name}_us") for name in ("quota", "period"))):
        limits += [int(spend) / int(period)] if int(spend) > 0 else []
    return {"processors": min(limits, default=None)}


def memory(root: Path = ROOT) -> dict:
    """Bytes of memory: all, what is available, the control groups' limit (None without), and swap in use."""
    system = counted.system(root)
    if "MemTotal" not in system:
        raise Unknown("the system has no /proc/meminfo")
    return {
        "total_bytes": system["MemTotal"],
        "available_bytes": system.get("MemAvailable"),
        "limit_bytes": counted.limit(root),
        "swap_used_bytes": system.get("SwapTotal", 0) - system.get("SwapFree", 0),
    }


# ---- energy and graphics ----


def energy_counters(root: Path = ROOT) -> list[dict]:
    """The energy counters of the processor (RAPL), and whether this user may read them; empty where there are none."""
    zones = rapl.zones(root / "sys/class/powercap")
    return [{"name": zone.name, "readable": zone.readable()} for zone in zones]


def nvidia_models(root: Path = ROOT) -> list[str]:
    """The GPUs that NVIDIA's driver lists."""
    found = []
    for path in sorted((root / "proc/driver/nvidia/gpus").glob("*/information")):
        found.append(_fields(_read(path) or "").get("Model", "of unknown model"))
    return found


# ---- files ----


def from_ranges(text: str) -> list[int]:
    """The numbers in a list as the system writes them: "0-3,8"."""
    found = []
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def ranges(numbers: list[int]) -> str:
    """The list as the system would write it: the inverse of ``from_ranges``."""
    runs = itertools.groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0])
    ends = [(run[0][1], run[-1][1]) for run in (list(pairs) for _, pairs in runs)]
    return ",".join(f"{first}-{last}" if last > first else f"{first}" for first, last in ends)


def _cpuinfo(root: Path) -> dict[str, str]:
    """What /proc/cpuinfo says of the first processor."""
    return _fields((_read(root / "proc/cpuinfo") or "").partition("\n\n")[0])


def _fields(text: str) -> dict[str, str]:
    lines = (line.partition(":") for line in text.splitlines())
    return {name.strip(): value.strip() for name, _, value in lines}


def _size(text: str) -> int:
    units = {"K": 2**10, "M": 2**20, "G": 2**30}
    return int(text[:-1]) * units[text[-1]] if text[-1] in units else int(text)
