"""The sections of the page. Each says what it shows, or in a sentence what is missing and how to get it.

A section takes the views of one run or of two, and gives the children of its element.
"""

from __future__ import annotations

from collections.abc import Sequence

from tinynet.errors import DataError, PlanError
from tinynet.memory import memory_map
from tinynet.meters.units import show_bytes

from . import curves
from .charts import Chart, figure, framed
from .curves import View
from .energy import told
from .markup import Child, Element, drawing, element
from .roofline import one_if_alike, roof_of, roofline, spots
from .style import MAP_STYLE
from .tables import NONE, flattened, in_words, table

_WHOLE, _HALF, _THIRD, _NARROW = (896, 450), (540, 300), (350, 230), (350, 240)
_ROWS = 10  # of a table of the largest or the slowest
_BLOCKS = 2000  # of a memory map: more cannot be told apart
_NAME, _TAG = 48, 16  # letters, within a memory map

_MONITOR, _CONTROLLER = (
    f"pass tn.resources.{name}(path) among the callbacks of tn.fit, with a path in this folder"
    for name in ("Monitor", "Controller")
)
_RECORD = "pass tn.resources.Record(folder) among the callbacks of tn.fit"
_TRAIN = "'python -m tinynet train' writes it"
_HOW = {
    "history": ("history.json", f"{_TRAIN}, and so does history.save(path)"),
    "metrics": ("metrics.json", _TRAIN),
    "config": ("config.json", _TRAIN),
    "samples": ("monitor.jsonl", _MONITOR),
    "decisions": ("decisions.jsonl", _CONTROLLER),
    "plan": ("plan.json", _RECORD),
    "instructions": ("instructions.json", _RECORD),
}

Children = list[Child]


def learning(views: Sequence[View]) -> Children:
    missing = [*_missing(views, "history"), *_missing(views, "metrics")]
    return [*missing, _figures(curves.learning(views), "learning", (_HALF, _NARROW))]


def pace(views: Sequence[View]) -> Children:
    return [*_missing(views, "samples"), _figures(curves.pace(views), "pace", (_THIRD,), "small")]


def memory(views: Sequence[View]) -> Children:
    parts = _missing(views, "plan")
    for view in views:
        if view.run.plan is not None:
            parts += _plan(view)
    return [*parts, _figures(curves.used(views), "memory", (_HALF, _NARROW))]


def energy(views: Sequence[View]) -> Children:
    parts: Children = []
    found = []
    for view in views:
        about = told(view.run)
        if about is None:
            parts += _missing([view], "samples")
        else:
            parts.append(element("p", *letter_of(view), about.words))
            found.append((view, about))
    return [*parts, _figures(curves.energy(found), "energy", (_HALF, _NARROW))]


def time(views: Sequence[View]) -> Children:
    parts = _missing(views, "instructions")
    there = [view for view in views if view.run.instructions is not None]
    found = [spot for view in there for spot in spots(view.run.instructions, view.look)]
    roofs = [roof_of(view.run.instructions, view.look, view.letter) for view in there]
    roofs = one_if_alike([roof for roof in roofs if roof])
    for view in there:
        parts.append(element("p", *letter_of(view), _step_in_words(view.run.instructions)))
    if roofs:
        parts.append(element("p", "What is above the slanted line has its operands in caches.", class_="quiet"))
    if found:
        sizes = ((*_WHOLE, "wide"), (350, 380, "narrow"))
        drawn = [roofline(found, roofs, w, h, f"roofline-{name}") for w, h, name in sizes]
        unit = element("span", "\u00a0GFLOP/s over flop per byte; areas are parts of the time", class_="unit")
        parts.append(framed(element("figcaption", element("strong", "Roofline"), unit), drawn))
    return [*parts, *(_slowest(view) for view in there)]


def decisions(views: Sequence[View]) -> Children:
    parts = _missing(views, "decisions")
    for view in views:
        if view.run.decisions:
            start = _start(view)
            rows = [
                [f"{each['time'] - start:,.1f}\u00a0s" if each["time"] is not None else NONE,
                 in_words("", each["step"]), _change(each), each["reason"] or NONE]
                for each in view.run.decisions
            ]  # fmt: skip
            caption, head = _titled("What was decided", view), ("after", "step", "change", "reason")
            parts.append(table(caption, head, rows, numbers=(1,), spare=(1,), tight=(0, 1)))
        elif view.run.decisions is not None:
            parts.append(element("p", *letter_of(view), "The controller decided nothing."))
    return parts


def differences(views: Sequence[View]) -> Children:
    """The configuration and the results of two runs, where they are not the same."""
    head, parts = ("", *(f"{view.letter}: {view.run.name}" for view in views)), []
    for words, facts in (
        ("Configuration", [_settings(view) | _environment(view) for view in views]),
        ("Results", [flattened(view.run.metrics or {}) for view in views]),
    ):
        rows = [[name, *values] for name, *values in _unequal(*facts)]
        same = element("p", f"{words}: no difference.")
        parts.append(table(words, head, rows, numbers=(1, 2)) if rows else same)
    return parts


def configuration(views: Sequence[View]) -> Children:
    parts: Children = _missing(views, "config")
    for view in views:
        tables = [
            table(_titled(words, view), ("name", "value"), [[name, value] for name, value in facts.items()])
            for words, facts in (("Settings", _settings(view)), ("Environment", _environment(view)))
            if facts
        ]
        parts.append(element("div", tables, class_="tables") if tables else None)
    return parts


# ---- parts of sections ----


def _missing(views: Sequence[View], name: str) -> Children:
    """For each view without that file, what it is and how it comes to be."""
    file, how = _HOW[name]
    return [
        element("p", *letter_of(view), element("code", file), f" is missing: {how}.", class_="missing")
        for view in views
        if getattr(view.run, name) is None
    ]


def letter_of(view: View) -> Children:
    """The letter of a run before a sentence on it, where there are two."""
    return [element("b", view.letter, class_=f"run {view.look}"), "\u00a0\u00a0"] if view.letter else []


def _titled(words: str, view: View) -> str:
    return f"{view.letter}: {words[0].lower()}{words[1:]}" if view.letter else words


def _figures(charts: Sequence[Chart], name: str, sizes, more: str = "") -> Element | None:
    if not charts:
        return None
    drawn = [figure(chart, sizes, f"{name}-{i}") for i, chart in enumerate(charts)]
    return element("div", drawn, class_=f"grid-of-figures {more}".strip())


def _plan(view: View) -> Children:
    plan = view.run.plan
    tensors = sorted(plan["tensors"], key=lambda t: (-t["bytes"], t["first"], t["name"]))
    parts: Children = [element("p", *letter_of(view), _plan_in_words(plan))]
    parts += [element("p", note, class_="quiet") for note in plan["notes"] or ()]
    try:
        least = tensors[:_BLOCKS][-1]["bytes"] if tensors else 0
        shown = [t for t in plan["tensors"] if t["bytes"] >= least][:_BLOCKS]  # in their order, which gives the colours
        lifetimes = [(t["first"], t["last"], t["bytes"], t["name"][:_NAME], t["tag"][:_TAG]) for t in shown]
        offsets, alignment = [t["offset"] for t in shown], plan["alignment"] or 64
        drawn = [
            _shadowed(memory_map(lifetimes, offsets, alignment=alignment, title="", width=width, height=height))
            for width, height in (_WHOLE, (350, 420))
        ]
    except PlanError as error:
        raise DataError(f"{view.run.name}/plan.json", expected="a memory plan", got=str(error)) from error
    unit = "\u00a0tensors of the arena by instruction"
    unit += f"; the {_BLOCKS:,} largest, whose peak and bound are shown" if len(tensors) > _BLOCKS else ""
    caption = element("figcaption", element("strong", "Memory map"), element("span", unit, class_="unit"))
    parts.append(framed(caption, drawn))
    rows = [
        [t["name"], t["tag"], f"{t['bytes']:,}", f"{t['offset']:,}", f"{t['first']} to {t['last']}"]
        for t in tensors[:_ROWS]
    ]
    rest = len(tensors) - len(rows)
    words = f"The {len(rows)} largest tensors, of {len(tensors):,}" if rest else "Tensors"
    head = ("tensor", "kind", "bytes", "offset", "alive in instructions")
    return [*parts, table(_titled(words, view), head, rows, numbers=(2, 3, 4), spare=(1, 3), tight=(2, 3, 4))]


def _plan_in_words(plan: dict) -> str:
    peak, bound = plan["peak_bytes"], plan["lower_bound_bytes"]
    rows = f" of {plan['rows']:,} rows" if plan["rows"] else ""
    above = "the least that these lifetimes allow" if peak == bound else f"{peak / max(bound, 1):.3f} times the least"
    said = [f"A step{rows} was planned to take {show_bytes(peak)} ({peak:,} bytes), {above}"]
    if plan["arena_bytes"] is not None:
        equal = plan["arena_bytes"] == plan["peak_bytes"]
        said.append("; measured by the addresses of its arrays: " + ("equal" if equal else f"{plan['arena_bytes']:,}"))
    if plan["parameter_bytes"] is not None:
        said.append(f"; parameters take {_size(plan['parameter_bytes'])} beside it")
    begin, end, peak = plan["resident_at_begin"], plan["resident_at_end"], plan["resident_peak"]
    if begin is not None and end is not None:
        most = f", and had {_size(peak)} at most" if peak is not None else ""
        verb = "grew" if end >= begin else "shrank"
        said.append(
            f". Measured: the whole process, with Python, its libraries, compiled kernels and the data, {verb} from "
            f"{_size(begin)} to {_size(end)} while it trained{most}"
        )
    return f"{''.join(said)}."


def _size(number: float) -> str:
    return show_bytes(int(number)) if 0 <= number < 2**60 else f"{number:,} bytes"


def _shadowed(svg: str) -> Element:
    """The map in a shadow of its own: the style that it brings ends there."""
    inside = element("template", element("style", MAP_STYLE), drawing(svg), shadowrootmode="open")
    return element("div", inside, class_="map")


def _step_in_words(instructions: dict) -> str:
    rows, limits = instructions["instructions"], instructions["roofline"]
    total = sum(row["seconds"] or 0 for row in rows)
    whole = f"A whole step took {_micro(instructions['step_seconds'])}" if instructions["step_seconds"] else "A step"
    said = [f"{whole}; its {len(rows):,} instructions, timed one by one, {_micro(total)} together"]
    if instructions["executor"]:
        said.append(f" on the {instructions['executor']} executor")
    threads = limits["threads"]
    if limits["flop_per_s"] and limits["bytes_per_s"]:
        said.append(
            f". The limits were measured on this machine: {limits['flop_per_s'] / 1e9:,.4g} GFLOP/s of multiply-adds "
            f"({threads or 'unknown'} times one core's) and {limits['bytes_per_s'] / 1e9:,.3g} GB/s of memory copied"
        )
    else:
        said.append(f". There is no roof: {'; '.join(limits['unknown'] or ()) or 'the limits were not measured'}")
    return f"{''.join(said)}."


def _micro(seconds: float) -> str:
    return f"{seconds * 1e6:,.1f} µs" if seconds < 1e-3 else f"{seconds * 1e3:,.4g} ms"


def _slowest(view: View) -> Element:
    rows, limits = view.run.instructions["instructions"], view.run.instructions["roofline"]
    timed = sorted((row for row in rows if row["seconds"]), key=lambda row: (-row["seconds"], row["place"]))
    total = sum(row["seconds"] for row in timed)
    cells = []
    for row in timed[:_ROWS]:
        seconds, flops, moved = row["seconds"], row["flops"] or 0, row["bytes"] or 0
        shapes = " ".join("x".join(map(str, shape)) for shape in row["shapes"] or () if shape)
        more = ", ".join(filter(None, (shapes, row["line"], f"on {row['kernel']}" if row["kernel"] else "")))
        cells.append([
            [row["name"], element("small", more) if more else None], f"{seconds * 1e6:,.1f}",
            [_bar(seconds / timed[0]["seconds"], view.look), f"{seconds / total:.0%}".rjust(4, "\N{FIGURE SPACE}")],
            f"{flops / seconds / 1e9:,.3g}", f"{moved / seconds / 1e9:,.3g}", _of_roof(seconds, flops, moved, limits),
        ])  # fmt: skip
    words = f"The {len(cells)} slowest instructions, of {len(rows):,}" if len(cells) < len(rows) else "Instructions"
    head = ("instruction", "µs", "part", "GFLOP/s", "GB/s", "of the roof")
    return table(_titled(words, view), head, cells, numbers=(1, 2, 3, 4, 5), spare=(3, 4), tight=(1, 2, 3, 4, 5))


def _bar(part: float, look: str) -> Element:
    return element("span", element("span", class_=f"bar {look}", style=f"width:{part:.0%}"), class_="track spare")


def _of_roof(seconds: float, flops: float, moved: float, limits: dict) -> str:
    """How much of the time would do, if either limit were reached: the larger of the two."""
    if not limits["flop_per_s"] or not limits["bytes_per_s"]:
        return NONE
    return f"{max(flops / limits['flop_per_s'], moved / limits['bytes_per_s']) / seconds:.0%}"


def _start(view: View) -> float:
    """When the times of decisions begin, as for the samples."""
    times = [each["time"] for each in (*(view.run.samples or ())[:1], *view.run.decisions) if each["time"] is not None]
    return curves.start_of(times[0]) if times else 0


def _change(decision: dict) -> str:
    before, after = (in_words(decision["what"], decision[end]) for end in ("from", "to"))
    return f"{decision['what'].replace('_', ' ')} {before}\u00a0→\u00a0{after}"


def _settings(view: View) -> dict[str, str]:
    """What was asked for; where nothing was, what was chosen."""
    config = view.run.config or {}
    return flattened((config.get("settings") or {}) | (config.get("chosen") or {}))


def _environment(view: View) -> dict[str, str]:
    return flattened((view.run.config or {}).get("environment") or {})


def _unequal(a: dict[str, str], b: dict[str, str]) -> list[tuple[str, str, str]]:
    found = ((name, a.get(name, NONE), b.get(name, NONE)) for name in dict.fromkeys((*a, *b)))
    return [row for row in found if row[1] != row[2]]
