"""Curves as SVG: thin axes, ticks at round numbers, and each line's name and last value at its end instead of a legend.

A chart is drawn once for each width that the page may show it in, so that its letters have one size on all of them.
Colours and fonts are the style's (``style``); nothing here knows what is drawn.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from .markup import Element, element
from .scales import Scale, apart

LETTER, STRONG = 7.0, 8.3  # pixels across of a letter at 12 pixels, also of a strong one, on the safe side
_ABOVE, _BELOW, _BETWEEN = 14, 43, 15  # pixels: margins, and from one name to the next
_MOST = 2  # points for each pixel across: beyond that, the least and the greatest of each pixel

Point = tuple[float, float | None]


class Series(NamedTuple):
    """A line.

    Attributes:
        name: at its end; may be empty.
        points: x, ascending, and y; where y is None the line is broken.
        look: classes of the style.
    """

    name: str
    points: Sequence[Point]
    look: str = "a"


class Chart(NamedTuple):
    """What is drawn.

    Attributes:
        title, unit: what y is; the unit may be empty.
        across: what x is.
        series: lines, none of which is without points.
        show: a number of y as text, for the last values.
        log: y by powers of ten.
        zero: y begins at 0.
        whole: x has ticks at integers only.
        stairs: y stays as it is until it changes.
    """

    title: str
    unit: str
    across: str
    series: list[Series]
    show: Callable[[float], str] = lambda number: f"{number:,.3g}"
    log: bool = False
    zero: bool = False
    whole: bool = False
    stairs: bool = False


def known(points: Sequence[Point]) -> list[tuple[float, float]]:
    """The points whose y is known."""
    return [(x, y) for x, y in points if y is not None]


def draw(chart: Chart, width: int, height: int, identity: str) -> Element:
    """The chart as an SVG element.

    Args:
        width, height: in pixels.
        identity: unique on the page.
    """
    points = [known(each.points) for each in chart.series]
    ends = [f"{each.name} {chart.show(their[-1][1])}".strip() for each, their in zip(chart.series, points)]
    ys = [y for _, y in itertools.chain(*points)] + ([0.0] if chart.zero else [])
    xs = [x for x, _ in itertools.chain(*points)]
    bottom = height - _BELOW
    y = Scale(min(ys), max(ys), bottom, _ABOVE, about=max(3, (bottom - _ABOVE) // 45), log=chart.log)
    left = 12 + LETTER * max(len(text) for _, text in y.ticks)
    right = width - 12 - STRONG * max(map(len, ends))
    x = Scale(
        min(xs), max(xs), left, right, about=max(3, int(right - left) // 50), whole=chart.whole, rounded=False
    )  # fmt: skip
    parts: list[Element] = []
    for number, text in y.ticks:
        parts += _tick_of_y(y(number), text, left, right)
    for number, text in x.ticks:
        parts.append(element("line", class_="axis", x1=x(number), x2=x(number), y1=bottom, y2=bottom + 4))
        parts.append(element("text", text, class_="tick", x=x(number), y=bottom + 20, text_anchor="middle"))
    parts.append(element("line", class_="axis", x1=left, x2=right, y1=bottom, y2=bottom))
    parts.append(element("text", chart.across, class_="tick", x=(left + right) / 2, y=height - 5, text_anchor="middle"))
    for each in chart.series:
        parts += _line(each, x, y, chart.stairs)
    places = apart([y(their[-1][1]) for their in points], _BETWEEN, _ABOVE, bottom)
    for each, end, place in zip(chart.series, ends, places):
        parts.append(element("text", end, class_=f"name {each.look}", x=right + 8, y=place + 4))
    return picture(width, height, identity, f"{chart.title} by {chart.across}", _described(chart, points), parts)


def picture(width: int, height: int, identity: str, title: str, description: str, parts: list[Element]) -> Element:
    """An SVG element that says what it shows."""
    return element(
        "svg",
        element("title", title, id=f"{identity}-title"),
        element("desc", description, id=f"{identity}-desc"),
        parts,
        viewBox=f"0 0 {width} {height}", width=width, height=height, role="img",
        aria_labelledby=f"{identity}-title {identity}-desc",
    )  # fmt: skip


def _tick_of_y(at: float, text: str, left: float, right: float) -> list[Element]:
    return [
        element("line", class_="grid", x1=left, x2=right, y1=at, y2=at),
        element("text", text, class_="tick", x=left - 7, y=at + 4, text_anchor="end"),
    ]


def _line(series: Series, x: Scale, y: Scale, stairs: bool) -> list[Element]:
    """The line, in pieces where it is broken, and a dot at its end."""
    pieces: list[list[tuple[float, float]]] = [[]]
    for at, value in series.points:
        if value is not None:
            pieces[-1].append((x(at), y(value)))
        elif pieces[-1]:
            pieces.append([])
    parts = []
    for piece in pieces:
        if len(piece) > 1:
            placed = _stairs(piece) if stairs else _thinned(piece, abs(x.end - x.start))
            d = "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in placed)
            parts.append(element("path", class_=f"line {series.look}", d=d))
        elif piece and piece is not pieces[-1]:
            parts.append(element("circle", class_=f"dot {series.look}", cx=piece[0][0], cy=piece[0][1], r=2))
    end_x, end_y = next(piece for piece in reversed(pieces) if piece)[-1]
    return [*parts, element("circle", class_=f"dot {series.look}", cx=end_x, cy=end_y, r=3)]


def _stairs(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    found = points[:1]
    for (_, before), (at, value) in itertools.pairwise(points):
        if value != before:
            found += [(at, before), (at, value)]
    return [*found, points[-1]]


def _thinned(points: list[tuple[float, float]], pixels: float) -> list[tuple[float, float]]:
    """No more points than can be seen: of each pixel across the first, the highest, the lowest and the last."""
    if len(points) <= _MOST * pixels:
        return points
    found = []
    for _, group in itertools.groupby(points, key=lambda point: math.floor(point[0])):
        their = list(group)
        chosen = {0, len(their) - 1, *(pick(range(len(their)), key=lambda i: their[i][1]) for pick in (min, max))}
        found += [their[i] for i in sorted(chosen)]
    return found


def _described(chart: Chart, points: list[list[tuple[float, float]]]) -> str:
    said = []
    for each, their in zip(chart.series, points):
        (first, begin), (last, end) = their[0], their[-1]
        low, high = min(y for _, y in their), max(y for _, y in their)
        name = f"{each.name}: " if each.name else ""
        said.append(
            f"{name}{chart.show(begin)} at {chart.across} {first:,.6g}, {chart.show(end)} at {last:,.6g}, "
            f"between {chart.show(low)} and {chart.show(high)}."
        )
    return " ".join([*said, f"In {chart.unit}." if chart.unit else ""]).strip()


def figure(chart: Chart, sizes: Sequence[tuple[int, int]], identity: str) -> Element:
    """The chart with its title, drawn for wide pages, and for narrow ones where a second size is given."""
    unit = element("span", f"\u00a0{chart.unit}", class_="unit") if chart.unit else None
    drawn = [draw(chart, *size, f"{identity}-{width}") for size, width in zip(sizes, ("wide", "narrow"))]
    return framed(element("figcaption", element("strong", chart.title), unit), drawn)


def framed(caption: Element, drawn: list[Element]) -> Element:
    """A figure of a picture, or of a wide and a narrow one of the same."""
    if len(drawn) == 1:
        return element("figure", caption, drawn)
    wide, narrow = drawn
    return element("figure", caption, element("div", wide, class_="wide"), element("div", narrow, class_="narrow"))
