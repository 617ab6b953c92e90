"""The roofline of a program: how fast each instruction computes, by how much it computes for each byte it moves.

After Williams, Waterman and Patterson, "Roofline: an insightful visual performance model for multicore architectures",
CACM 52(4), 2009: an instruction of intensity I flop/byte can reach at most min(peak, I times bandwidth). The bandwidth
is that of memory, so that an instruction whose operands lie in caches may be above the slanted part.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from .charts import LETTER, STRONG, picture
from .markup import Element, element
from .scales import Scale

_LEFT, _RIGHT, _ABOVE, _BELOW = 66, 14, 16, 45
_NAMED = 6  # of the slowest instructions
_ALIKE = 1.1  # limits, within this factor
_COVERED = 2  # of the seven boxes of a roof's name

Box = tuple[float, float, float, float]  # left, top, right, bottom; in pixels


class Spot(NamedTuple):
    """An instruction: text; flop per byte, flop per second, its part of the time, and the look of its run."""

    name: str
    intensity: float
    speed: float
    part: float
    look: str


class Roof(NamedTuple):
    """The limits of a run's machine: flop and bytes per second; and the look of the run."""

    peak: float
    bandwidth: float
    look: str
    name: str = ""


def spots(instructions: dict, look: str) -> list[Spot]:
    """The instructions that compute, of what ``instructions.json`` describes; the slowest first."""
    rows = [row for row in instructions["instructions"] if (row["seconds"] or 0) > 0]
    total = sum(row["seconds"] for row in rows)
    found = [
        Spot(row["name"], row["flops"] / row["bytes"], row["flops"] / row["seconds"], row["seconds"] / total, look)
        for row in rows
        if (row["flops"] or 0) > 0 and (row["bytes"] or 0) > 0
    ]
    return sorted(found, key=lambda spot: (-spot.part, spot.name))


def roof_of(instructions: dict, look: str, name: str = "") -> Roof | None:
    """The limits that were measured; None if either is not known."""
    limits = instructions["roofline"]
    if not (limits["flop_per_s"] or 0) > 0 or not (limits["bytes_per_s"] or 0) > 0:
        return None
    return Roof(limits["flop_per_s"], limits["bytes_per_s"], look, name)


def one_if_alike(roofs: list[Roof]) -> list[Roof]:
    """The roofs, or the first of them without a name where they differ by less than can be told apart."""
    alike = all(
        max(limits) < _ALIKE * min(limits) for limits in zip(*((roof.peak, roof.bandwidth) for roof in roofs))
    )  # fmt: skip
    return [roofs[0]._replace(look="", name="")] if roofs and alike else roofs


def roofline(found: list[Spot], roofs: list[Roof], width: int, height: int, identity: str) -> Element:
    """The picture; ``found`` is not empty. Areas of the dots are parts of the time."""
    ridges = [roof.peak / roof.bandwidth for roof in roofs]
    intensities = [spot.intensity for spot in found] + [2 * ridge for ridge in ridges]
    speeds = [spot.speed for spot in found] + [roof.peak for roof in roofs]
    bottom, right = height - _BELOW, width - _RIGHT
    across, up = max(3, (right - _LEFT) // 90), max(4, (bottom - _ABOVE) // 40)  # room for so many ticks
    x = Scale(min(intensities) / 1.5, max(intensities) * 1.5, _LEFT, right, about=across, log=True)
    highest = max(speeds) * (2 if len(roofs) < 2 else 4) / 1e9  # with room for names above
    y = Scale(min(speeds) / 1.6e9, highest, bottom, _ABOVE, about=up, log=True, rounded=False)
    parts: list[Element] = []
    for number, text in y.ticks:
        parts.append(element("line", class_="grid", x1=_LEFT, x2=right, y1=y(number), y2=y(number)))
        parts.append(element("text", text, class_="tick", x=_LEFT - 7, y=y(number) + 4, text_anchor="end"))
    for number, text in x.ticks:
        parts.append(element("line", class_="grid", x1=x(number), x2=x(number), y1=_ABOVE, y2=bottom))
        inward = {_LEFT: "start", right: "end"}.get(round(x(number)), "middle")
        parts.append(element("text", text, class_="tick", x=x(number), y=bottom + 20, text_anchor=inward))
    parts.append(element("line", class_="axis", x1=_LEFT, x2=right, y1=bottom, y2=bottom))
    middle = (_LEFT + right) / 2
    parts.append(element("text", "flop per byte", class_="tick", x=middle, y=height - 5, text_anchor="middle"))
    taken = [_box(x(spot.intensity), y(spot.speed / 1e9), _radius(spot)) for spot in found]
    top = min((y(roof.peak / 1e9) for roof in roofs), default=0)
    for i, roof in enumerate(roofs):
        parts += _roof(roof, x, y, i, top - 6 - 14 * i, taken)
    for spot in reversed(found):
        says = f"{_spoken(spot)}, {spot.part:.1%} of the time"
        at = {"cx": x(spot.intensity), "cy": y(spot.speed / 1e9), "r": _radius(spot)}
        parts.append(element("circle", element("title", says), class_=f"spot {spot.look}", **at))
    for spot in found[:_NAMED]:
        parts += _name(spot, x(spot.intensity), y(spot.speed / 1e9), (_LEFT, _ABOVE, right, bottom), taken)
    return picture(width, height, identity, "GFLOP/s by flop per byte", _described(found, roofs), parts)


def _radius(spot: Spot) -> float:
    return 3 + 14 * math.sqrt(spot.part)


def _box(cx: float, cy: float, r: float) -> Box:
    return cx - r, cy - r, cx + r, cy + r


def _roof(roof: Roof, x: Scale, y: Scale, index: int, above: float, taken: list) -> list[Element]:
    """The two lines of a roof, and what they are: the peak is named above all roofs."""
    ridge = roof.peak / roof.bandwidth
    low = max(x.low, y.low * 1e9 / roof.bandwidth)
    at = [(low, low * roof.bandwidth), (ridge, roof.peak), (x.high, roof.peak)]
    (x0, y0), (x1, y1), (x2, _) = placed = [(x(intensity), y(speed / 1e9)) for intensity, speed in at]
    parts = [element("path", class_=f"roof {roof.look}", d="M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in placed))]
    name = f"{roof.name} " if roof.name else ""
    flat, slanted = f"{name}peak {roof.peak / 1e9:,.3g} GFLOP/s", f"{name}memory {roof.bandwidth / 1e9:,.3g} GB/s"
    down = 14 if index else -6  # a second roof is named below the line
    parts.append(element("text", flat, class_=f"name {roof.look}", x=x2 - 4, y=above, text_anchor="end"))
    taken.append((x2 - STRONG * len(flat), above - 12, x2, above + 4))
    boxes = _along(x0, y0, x1, y1, STRONG * len(slanted), down, taken)
    if boxes:
        taken += boxes
        (left, top, end, low), angle = boxes[len(boxes) // 2], math.degrees(math.atan2(y1 - y0, x1 - x0))
        turned = f"translate({(left + end) / 2:.1f} {(top + low) / 2 - down / 2:.1f}) rotate({angle:.1f})"
        look = f"name {roof.look}"
        parts.append(element("text", slanted, class_=look, transform=turned, y=down / 2 + 4, text_anchor="middle"))
    return parts


def _along(x0: float, y0: float, x1: float, y1: float, wide: float, down: float, taken: list) -> list[Box]:
    """Boxes of words beside a slanted line, where they cover least of what is taken; none where that is a lot, or the
    line is too short."""
    length = math.hypot(x1 - x0, y1 - y0)
    room, found = length - wide - 20, []
    for step in range(9) if room > 0 else ():
        begin = (10 + room * step / 8) / length
        at = [begin + wide / length * i / 6 for i in range(7)]
        boxes = [_box(x0 + (x1 - x0) * part, y0 + (y1 - y0) * part + down, 9) for part in at]
        found.append((sum(any(_meet(box, other) for other in taken) for box in boxes), step, boxes))
    covered, _, boxes = min(found, default=(math.inf, 0, []))
    return boxes if covered <= _COVERED else []


def _meet(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _name(spot: Spot, cx: float, cy: float, within, taken: list) -> list[Element]:
    """The name beside its dot, where there is room; else it is in the table alone."""
    words = spot.name if len(spot.name) <= 22 else f"{spot.name[:21]}…"
    wide, r = LETTER * len(words), _radius(spot) + 4
    for left, middle in ((cx + r, cy), (cx - r - wide, cy), (cx - wide / 2, cy - r - 6), (cx - wide / 2, cy + r + 8)):
        box = (left, middle - 8, left + wide, middle + 8)
        inside = within[0] <= box[0] and within[1] <= box[1] and box[2] <= within[2] and box[3] <= within[3]
        if inside and not any(_meet(box, other) for other in taken):
            taken.append(box)
            return [element("text", words, class_="label", x=left, y=middle + 4)]
    return []


def _spoken(spot: Spot) -> str:
    return f"{spot.name} {spot.speed / 1e9:,.3g} GFLOP/s at {spot.intensity:,.3g} flop/byte"


def _described(found: list[Spot], roofs: list[Roof]) -> str:
    slowest = ", ".join(map(_spoken, found[:_NAMED]))
    limits = [f"{r.name} {r.peak / 1e9:,.3g} GFLOP/s and {r.bandwidth / 1e9:,.3g} GB/s".strip() for r in roofs]
    return f"Limits: {', '.join(limits) or 'not measured'}. The slowest instructions: {slowest}."
