"""Memory of this process and of the groups that limit it, in bytes, as Linux shows it under /proc and /sys.

Every function takes ``root``, where those two are, so that a test can bring its own, and returns None where the system
does not say. Nothing is allocated or limited here.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NamedTuple

from .groups import ROOT, files, folders, read


def resident(root: Path = ROOT) -> int | None:
    """Bytes of this process that are in memory now. Takes some tens of microseconds."""
    fields = (read(root / "proc/self/statm") or "").split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") if len(fields) > 1 else None


def peak(root: Path = ROOT) -> int | None:
    """The most bytes of this process that were in memory at one time.

    ``getrusage`` is asked only where there is no /proc: on Linux a process inherits there the peak of the one that
    started it.
    """
    high = _kib(root / "proc/self/status").get("VmHWM")
    if high is not None or root != ROOT:
        return high
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def system(root: Path = ROOT) -> dict[str, int]:
    """What /proc/meminfo says, in bytes, by its names: MemTotal, MemAvailable, SwapTotal ...; empty without it."""
    return _kib(root / "proc/meminfo")


def limit(root: Path = ROOT) -> int | None:
    """The most that the control groups of this process let it use before they kill; None where they set no limit."""
    texts = [*files(root, "memory", "memory.max"), *files(root, "memory", "memory.limit_in_bytes")]
    found = min((int(text) for text in texts if text != "max"), default=None)
    total = system(root).get("MemTotal")  # version 1 writes "no limit" as a number beyond all memory
    return None if found is None or (total is not None and found >= total) else found


def available(root: Path = ROOT) -> int | None:
    """Bytes that can still be had without swapping, being throttled or being killed.

    The least of what the system has and of what each control group has left below ``memory.high`` and ``memory.max``
    (``memory.limit_in_bytes``). Cached files that a group can give back (its ``inactive_file``) count as free. Takes a
    millisecond or two, being some ten files.
    """
    left = []
    if (bytes_of_system := system(root).get("MemAvailable")) is not None:
        left.append(bytes_of_system)
    for limits, usage, idle in (
        (("memory.max", "memory.high"), "memory.current", "inactive_file"),
        (("memory.limit_in_bytes",), "memory.usage_in_bytes", "total_inactive_file"),
    ):
        for group in folders(root, "memory", usage):
            used, most = _number(read(group / usage)), [_number(read(group / name)) for name in limits]
            most = [each for each in most if each is not None]
            if used is not None and most:
                left.append(max(0, min(most) - used + _stat(group).get(idle, 0)))
    return min(left, default=None)


class Pressure(NamedTuple):
    """Percent of the time in which some, or all, threads of the group waited for memory; over 10 and 60 seconds."""

    some_avg10: float
    some_avg60: float
    full_avg10: float
    full_avg60: float


def pressure(root: Path = ROOT) -> Pressure | None:
    """Stalls for want of memory (PSI): of the innermost control group that counts them, else of the whole system."""
    texts = [*files(root, "memory", "memory.pressure"), read(root / "proc/pressure/memory")]
    text = next(filter(None, texts), None)
    if text is None:
        return None
    kinds = {}
    for line in text.splitlines():  # "some avg10=0.12 avg60=0.00 avg300=0.00 total=431"
        kind, *fields = line.split()
        kinds[kind] = dict(field.split("=", 1) for field in fields)
    order = [(kind, over) for kind in ("some", "full") for over in ("avg10", "avg60")]
    return Pressure(*(float(kinds.get(kind, {}).get(over, 0)) for kind, over in order))


def _kib(path: Path) -> dict[str, int]:
    """The lines "Name:  123 kB" of a file, in bytes."""
    lines = (line.partition(":") for line in (read(path) or "").splitlines())
    return {name: int(rest.split()[0]) * 1024 for name, _, rest in lines if rest.strip().endswith("kB")}


def _stat(group: Path) -> dict[str, int]:
    lines = (line.split() for line in (read(group / "memory.stat") or "").splitlines())
    return {fields[0]: int(fields[1]) for fields in lines if len(fields) == 2}


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None
