"""``tinynet doctor``: what this machine and this installation can do, and what slows them down.

``SECTIONS`` is the report: every line with its probe and how it is said. The probes are in ``tinynet.resources``; here
are their order and their words. A warning never makes the command fail.
"""

from __future__ import annotations

import functools
import json
import textwrap
from collections.abc import Callable
from typing import Any, NamedTuple

from tinynet.memory.units import show_bytes
from tinynet.meters import rapl
from tinynet.resources import machine, measure, software
from tinynet.resources.advice import Advice, advice
from tinynet.resources.facts import Facts, gather, known

WIDTH = 100
_BEFORE = 20  # columns before a value


class Line(NamedTuple):
    """A line of the report.

    Attributes:
        label: what is printed before the value.
        probe: ``probe(quick) -> value``.
        show: ``show(value, facts) -> text``; several lines where the text has them.
    """

    label: str
    probe: Callable[[bool], Any]
    show: Callable[[Any, Facts], str]


def add_parser(commands) -> None:
    parser = commands.add_parser("doctor", help="what this machine and installation can do, and what slows them down")
    parser.add_argument("--json", action="store_true", help="the same as one JSON object")
    parser.add_argument("--quick", action="store_true", help="measure for moments only: less exact")
    parser.set_defaults(run=_doctor)


def _doctor(args) -> None:
    facts = examine(args.quick)
    found = advice(facts)
    if args.json:
        print(json.dumps(facts | {"warnings": [each._asdict() for each in found]}, indent=1))
    else:
        print(report(facts, found))


def examine(quick: bool) -> Facts:
    """The facts of every line."""
    return gather(
        {
            section: {name: functools.partial(line.probe, quick) for name, line in lines.items()}
            for section, lines in SECTIONS.items()
        }
    )


def report(facts: Facts, found: list[Advice]) -> str:
    """The facts and the warnings as text."""
    parts = []
    for section, lines in SECTIONS.items():
        parts.append(section)
        for name, line in lines.items():
            value = known(facts, section, name)
            why = facts["unknown"].get(f"{section}.{name}")
            text = f"unknown: {why}" if value is None else line.show(value, facts)
            parts.append(_aligned(f"  {line.label}".ljust(_BEFORE), text))
        parts.append("")
    parts.append("warnings" if found else "warnings: none")
    for number, each in enumerate(found, 1):
        parts.append(_aligned(f"{number:>4}  ", f"{each.problem}\nmend: {each.mend}"))
    return "\n".join(parts)


def _aligned(start: str, text: str) -> str:
    """``start`` and then the text, whose lines are broken at ``WIDTH`` and begin below each other."""
    wrap = textwrap.TextWrapper(WIDTH - len(start), break_on_hyphens=False, break_long_words=False).wrap
    lines = [line for paragraph in text.split("\n") for line in wrap(paragraph)] or [""]
    return start + f"\n{' ' * len(start)}".join(lines)


# ---- the words ----


def _counts(value: dict, facts: Facts) -> str:
    if value["cores"] is None:
        return f"{value['processors']}"
    return f"{value['processors']}, on {_count(value['cores'], 'core')} in {_count(value['sockets'], 'socket')}"


def _affinity(value: list[int], facts: Facts) -> str:
    return f"{len(value)} of them: {machine.ranges(value)}"


def _quota(value: dict, facts: Facts) -> str:
    quota = value["processors"]
    return "none" if quota is None else f"{quota:g} processors' worth of time, by the control group"


def _caches(value: list[dict], facts: Facts) -> str:
    def one(cache: dict) -> str:
        shared = f" (shared by {cache['shared_by']})" if (cache["shared_by"] or 1) > 1 else ""
        return f"{cache['name']} {show_bytes(cache['bytes'])}{shared}"

    return ", ".join(map(one, value))


def _vectors(value: dict, facts: Facts) -> str:
    used = f"compiled kernels use {value['used_bits']}" if value["used_bits"] else "no compiled kernels to use them"
    return f"{', '.join(map(str, value['available_bits']))} bits; {used}"


def _governor(value: dict, facts: Facts) -> str:
    more = [*value["drivers"], *(f"preference {each}" for each in value["preferences"])]
    return ", ".join(value["governors"]) + (f" ({', '.join(more)})" if more else "")


def _load(value: float, facts: Facts) -> str:
    return f"{value:.1f} threads ran or waited for a processor, over the last minute"


def _peak(value: dict, facts: Facts) -> str:
    speeds = (f"{dtype} {value[f'{dtype}_gflop_per_s']:,.0f} GFLOP/s" for dtype in ("float32", "float64"))
    return f"{', '.join(speeds)} (fused multiply-adds, measured)"


def _sizes(value: dict, facts: Facts) -> str:
    available, limit, swap = value["available_bytes"], value["limit_bytes"], value["swap_used_bytes"]
    return ", ".join(
        [
            _gib(value["total_bytes"]),
            f"{_gib(available)} available" if available is not None else "available: unknown",
            *([f"limit of the control group {_gib(limit)}"] if limit else []),
            f"swap in use {show_bytes(swap)}" if swap else "no swap in use",
        ]
    )


def _copy(value: dict, facts: Facts) -> str:
    last = machine.cache_bytes(known(facts, "processor", "caches") or [], "last")
    size = value["array_bytes"]
    beyond = "" if last and size > last else ", in part from the caches" if last else ", caches unknown"
    together = value["all_threads_gb_per_s"]
    more = f", {value['threads']} threads {together:.1f} GB/s" if together else ""
    return (
        f"1 thread {value['one_thread_gb_per_s']:.1f} GB/s{more} (bytes read and written; "
        f"arrays of {show_bytes(size)}{beyond})"
    )


def _blas(value: dict, facts: Facts) -> str:
    named = f"{value['library']} {value['version'] or 'of unknown version'}"
    if value["architecture"] is None and value["threads"] is None:
        return (
            f"{named}; kernels and threads unknown: {facts['unknown'].get('blas.pools', 'no such library is loaded')}"
        )
    kernels = value["architecture"] or "of unknown architecture"
    return f"{named}, kernels {kernels}, {_count(value['threads'], 'thread')}"


def _pools(value: list[dict], facts: Facts) -> str:
    return ", ".join(f"{each['library']} ({_count(each['threads'], 'thread')})" for each in value) or "none"


def _product(value: dict, facts: Facts) -> str:
    one, together = value["one_thread_gflop_per_s"], value["all_threads_gflop_per_s"]
    threads, peak = known(facts, "blas", "in_use", "threads"), known(facts, "processor", "peak", "float32_gflop_per_s")

    def speed(found: float, count: int | None) -> str:
        share = f" ({found / peak / count:.0%} of {'the' if count == 1 else 'their'} peak)" if peak and count else ""
        return f"{found:,.0f} GFLOP/s{share}"

    parts = [f"1 thread {speed(one, 1)}"] if one else []
    if threads != 1 or not parts:
        parts.append(f"{_count(threads, 'thread') if threads else 'all threads'} {speed(together, threads)}")
    return f"{', '.join(parts)}; {measure.SIZE} x {measure.SIZE} x {measure.SIZE}, float32"


def _executor(value: dict, facts: Facts) -> str:
    if value["name"] == "native":
        return "native: compiled kernels, one call per step"
    return f"numpy: one call after the other\nnot native: {value['obstacle']}"


def _threads(value: dict, facts: Facts) -> str:
    source = {"affinity": "every processor that this process may use", "set_threads": "set by the program"}
    return f"{value['count']}: {source.get(value['source'], value['source'])}"


def _kernel_cache(value: dict, facts: Facts) -> str:
    compiled = " and ".join(f"float{bits}" for bits in value["compiled_float_bits"])
    lines = [value["path"]]
    if value["private"]:
        holds = f"compiled for {compiled}" if compiled else "no programs compiled yet"
        lines.append(f"private, {show_bytes(value['bytes'])}, {holds}")
    else:
        lines.append(f"refused: {value['refused']}")
    if value["older_folders"]:
        count, size = _count(len(value["older_folders"]), "folder"), show_bytes(value["older_bytes"])
        lines.append(f"beside it {count} of other versions or processors ({size}), which can be deleted")
    return "\n".join(lines)


def _gpus(value: dict, facts: Facts) -> str:
    if not value["names"]:
        return "none found"
    sizes = value["memory_bytes"] or [None] * len(value["names"])
    named = ", ".join(f"{name} ({_gib(size)})" if size else name for name, size in zip(value["names"], sizes))
    return named if value["unusable"] is None else f"{named}\nnot usable: {value['unusable']}"


def _energy(value: list[dict], facts: Facts) -> str:
    if not value:
        return "none found in /sys/class/powercap; virtual machines have none"
    named = ", ".join(each["name"] for each in value)
    if all(each["readable"] for each in value):
        return f"{named}: readable"
    closed = ", ".join(each["name"] for each in value if not each["readable"])
    return f"{named}; not readable: {closed}\n{rapl.OPEN}"


def _versions(value: dict, facts: Facts) -> str:
    return f"{value['python']}, NumPy {value['numpy']}, tinynet {value['tinynet'] or 'unknown'}\n{value['system']}"


def _extras(value: dict, facts: Facts) -> str:
    width = max(map(len, value), default=0) + 2
    fill = textwrap.TextWrapper(WIDTH - _BEFORE, subsequent_indent=" " * width, break_on_hyphens=False).fill
    return "\n".join(
        fill(extra.ljust(width) + ", ".join(f"{name} {version or 'missing'}" for name, version in needs.items()))
        for extra, needs in value.items()
    )


def _variables(value: dict, facts: Facts) -> str:
    return "\n".join(f"{name}={text}" for name, text in value.items()) or "none that steers BLAS, numba or tinynet"


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


# ---- the report ----


def _still(probe: Callable[[], Any]) -> Callable[[bool], Any]:
    """A probe that measures nothing, and so is as it is when it has to be quick."""
    return lambda quick: probe()


def _seconds(quick: bool) -> float:
    return 0.1 if quick else 0.3


SECTIONS = {
    "processor": {
        "model": Line("model", _still(machine.model), lambda value, facts: value),
        "counts": Line("processors", _still(machine.counts), _counts),
        "affinity": Line("may be used", _still(machine.affinity), _affinity),
        "quota": Line("quota", _still(machine.quota), _quota),
        "caches": Line("caches", _still(machine.caches), _caches),
        "vectors": Line("vectors", _still(software.vectors), _vectors),
        "governor": Line("clock", _still(machine.governor), _governor),
        "load": Line("load", _still(machine.load), _load),
        "peak": Line("peak of a core", lambda quick: measure.peak(_seconds(quick)), _peak),
    },
    "memory": {
        "sizes": Line("memory", _still(machine.memory), _sizes),
        "copy": Line(
            "copying",
            lambda quick: measure.copy_bandwidth(_seconds(quick), machine.usable(), measure.copy_bytes(quick)),
            _copy,
        ),
    },
    "blas": {
        "in_use": Line("NumPy uses", _still(software.blas), _blas),
        "pools": Line("pools of threads", _still(software.thread_pools), _pools),
        "matrix_product": Line("matrix product", lambda quick: measure.matrix_product(_seconds(quick)), _product),
    },
    "programs": {
        "executor": Line("executor", _still(software.executor), _executor),
        "threads": Line("threads", _still(software.threads), _threads),
        "kernel_cache": Line("compiled kernels", _still(software.kernel_cache), _kernel_cache),
    },
    "devices": {
        "gpus": Line("GPU", _still(software.gpus), _gpus),
        "energy_counters": Line("energy counters", _still(machine.energy_counters), _energy),
    },
    "software": {
        "versions": Line("versions", _still(software.versions), _versions),
        "extras": Line("extras", _still(software.extras), _extras),
        "variables": Line("variables", _still(software.variables), _variables),
    },
}
