"""A plan as a picture: time across, addresses up, one block for each tensor, as SVG text.

The picture stands alone: no scripts, no fonts, no files. It follows the reader's light or dark setting, and every
block says its name, bytes, addresses and lifetime when pointed at. It shows any offsets, right or wrong (``check``
decides which), and needs no array.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from xml.sax.saxutils import escape

from tinynet.errors import PlanError

from .lifetimes import Lifetime, as_lifetimes, lower_bound, round_up

__all__ = ["memory_map"]

_FILLS = (  # light, dark; the last one serves all tags beyond
    ("#9cc3f0", "#2d5a94"),
    ("#f5c086", "#94561a"),
    ("#a5d69c", "#37733b"),
    ("#cbb5ea", "#624596"),
    ("#f1a8a4", "#963c3a"),
    ("#94d4cf", "#27706d"),
    ("#ecdd84", "#786a1b"),
    ("#efb0d2", "#8b4074"),
    ("#c9ccd1", "#565b63"),
)
_LETTER = 6.3  # pixels across of a letter at 11 pixels, on the safe side
_LEFT, _RIGHT, _BOTTOM = 78, 16, 44  # margins in pixels, with room for the axes
_STYLE = """
.paper { fill: #ffffff } .frame { fill: #f4f5f7; stroke: #b8bcc4 } .grid { stroke: #dfe2e7 }
text { font: 11px system-ui, "Segoe UI", "DejaVu Sans", sans-serif; fill: #24292f }
.title { font-size: 15px; font-weight: 600 } .axis { fill: #57606a }
.block { stroke: #ffffff; stroke-width: 0.75 } .pinned { stroke: #24292f } .dense { stroke-width: 0.2 }
.peak { stroke: #24292f; stroke-width: 1.2 } .bound { stroke: #c0262d; stroke-width: 1.5; stroke-dasharray: 7 4 }
.boundtext { fill: #c0262d }"""
_DARK = """
.paper { fill: #15181c } .frame { fill: #1d2126; stroke: #4a515b } .grid { stroke: #2e343b }
text { fill: #e6e9ed } .axis { fill: #a3abb5 } .block { stroke: #15181c } .pinned { stroke: #e6e9ed }
.bound { stroke: #ff7b72 } .boundtext { fill: #ff7b72 } .peak { stroke: #e6e9ed }"""


def memory_map(
    lifetimes: Iterable[Sequence],
    offsets: Sequence[int],
    *,
    alignment: int = 64,
    title: str = "Memory map",
    width: int = 1000,
    height: int = 560,
) -> str:
    """A plan as the text of an SVG file.

    Blocks are coloured by tag, with a legend where there are tags, and labelled by name where the name fits; pinned
    ones have a dark edge. Tensors of zero bytes take no room and are not drawn. A dashed line marks the lower bound
    and a solid one the peak.

    Args:
        lifetimes: as for ``plan_offsets``; instructions and bytes.
        offsets: in bytes, one for each lifetime.
        alignment: in bytes, for the lower bound and the peak.
        title: shown above.
        width, height: in pixels.

    Raises:
        PlanError: lifetimes that are not what they should be, or more or fewer offsets than lifetimes.
    """
    items = as_lifetimes(lifetimes)
    if len(items) != len(offsets):
        raise PlanError(
            "memory map",
            expected=f"{len(items)} offsets",
            got=str(len(offsets)),
            mend="Pass the lifetimes that were planned, in their order",
        )
    drawn = [(item, at, i) for i, (item, at) in enumerate(zip(items, offsets)) if item.size]
    peak = max((at + round_up(item.size, alignment) for item, at, _ in drawn), default=0)
    bound = lower_bound(items, alignment)
    tags = list(dict.fromkeys(item.tag for item, _, _ in drawn))
    legend, rows = _legend(tags, width) if any(tags) else ([], 0)
    top = (44 if title else 20) + 20 * rows
    scale = _Scale(drawn, max(peak, bound, 1), width, height, top)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'role="img"><title>{_text(title)}</title>',
        f"<style>{_style(len(tags))}</style>",
        f'<rect class="paper" width="{width}" height="{height}"/>',
        f'<text class="title" x="{_LEFT}" y="24">{_text(title)}</text>',
        f'<g transform="translate({_LEFT},{top - 8 - 20 * rows})">',
        *legend,
        "</g>",
        *scale.axes(),
        *(_block(item, at, i, tags.index(item.tag), scale) for item, at, i in drawn),
        *_lines(peak, bound, scale),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


class _Scale:
    """From instructions and addresses to pixels."""

    def __init__(self, drawn, highest: int, width: int, height: int, top: int):
        self.first = min((item.first for item, _, _ in drawn), default=0)
        self.last = max((item.last for item, _, _ in drawn), default=0)
        self.left, self.right, self.top, self.bottom = _LEFT, width - _RIGHT, top, height - _BOTTOM
        self.highest = highest * 1.06  # room for the peak's label
        self.across = (self.right - self.left) / (self.last + 1 - self.first)
        self.up = (self.bottom - self.top) / self.highest

    def x(self, instruction: float) -> float:
        return self.left + (instruction - self.first) * self.across

    def y(self, address: float) -> float:
        return self.bottom - address * self.up

    def axes(self) -> list[str]:
        """Frame, grid, ticks and their labels."""
        left, right, top, bottom = self.left, self.right, self.top, self.bottom
        parts = [f'<rect class="frame" x="{left}" y="{top}" width="{right - left}" height="{bottom - top}"/>']
        step = 2 ** max(0, math.ceil(math.log2(self.highest / 8)))  # powers of two, as memory is counted
        for address in range(0, int(self.highest) + 1, step):
            y = self.y(address)
            parts.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
            says = _bytes(address)
            parts.append(f'<text class="axis" x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{says}</text>')
        step = _round_step((self.last + 1 - self.first) / 12)
        for instruction in range(-(-self.first // step) * step, self.last + 1, step):
            x = self.x(instruction + 0.5)
            parts.append(f'<line class="peak" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom}" y2="{bottom + 4}"/>')
            parts.append(f'<text class="axis" x="{x:.1f}" y="{bottom + 17}" text-anchor="middle">{instruction}</text>')
        middle = (left + right) / 2
        parts.append(f'<text class="axis" x="{middle}" y="{bottom + 35}" text-anchor="middle">instruction</text>')
        return parts


def _round_step(least: float) -> int:
    """The smallest of 1, 2, 5, 10, 20, 50, ... that is not less."""
    decade = 10 ** max(0, math.floor(math.log10(max(least, 1))))
    return next(factor * decade for factor in (1, 2, 5, 10) if factor * decade >= least)


def _block(item: Lifetime, at: int, index: int, tag: int, scale: _Scale) -> str:
    x, y = scale.x(item.first), scale.y(at + item.size)
    wide, high = scale.x(item.last + 1) - x, item.size * scale.up
    name = item.name or f"tensor {index}"
    says = (
        f"{name}{f' ({item.tag})' if item.tag else ''}: {item.size:,} bytes ({_bytes(item.size)}), "
        f"instructions {item.first} to {item.last}, addresses {at} to {at + item.size}"
    )
    kind = f"block t{min(tag, len(_FILLS) - 1)}"
    if item.pinned is not None:
        kind, says = f"{kind} pinned", f"{says}, pinned"
    if min(wide, high) < 5:  # an edge would swallow it
        kind = f"{kind} dense"
    rect = f'<rect class="{kind}" x="{x:.2f}" y="{y:.2f}" width="{wide:.2f}" height="{max(high, 0.3):.2f}">'
    label, letters = "", int((wide - 6) / _LETTER)
    if high >= 13 and item.name and letters >= min(len(name), 6):
        short = name if len(name) <= letters else f"{name[: letters - 1]}…"
        middle = f'x="{x + wide / 2:.1f}" y="{y + high / 2 + 4:.1f}" text-anchor="middle"'
        label = f'<text class="name" {middle}>{_text(short)}</text>'
    return f"{rect}<title>{_text(says)}</title></rect>{label}"


def _lines(peak: int, bound: int, scale: _Scale) -> list[str]:
    """The peak, labelled at the right, and the bound, dashed, and labelled at the left where it differs."""
    if not peak:
        return []
    left, right = scale.left, scale.right
    at_peak, at_bound = scale.y(peak), scale.y(bound)
    parts = [
        f'<line class="{kind}" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>'
        for kind, y in (("peak", at_peak), ("bound", at_bound))
    ]
    if peak == bound:
        says = f"peak = lower bound {_bytes(peak)}"
    else:
        says = f"peak {_bytes(peak)}, {peak / max(bound, 1):.3f} times the bound"
        y = at_peak if at_bound - at_peak < 20 else at_bound  # between two close lines there is no room for words
        parts.append(f'<text class="boundtext" x="{left + 6}" y="{y - 5:.1f}">lower bound {_bytes(bound)}</text>')
    parts.append(f'<text x="{right - 6}" y="{at_peak - 5:.1f}" text-anchor="end">{says}</text>')
    return parts


def _legend(tags: list[str], width: int) -> tuple[list[str], int]:
    """A swatch and a word for each tag, in rows, and the number of rows. Tags beyond the colours share the last."""
    shown = [tag or "untagged" for tag in tags]
    if len(shown) > len(_FILLS):
        shown = [*shown[: len(_FILLS) - 1], f"{len(shown) - len(_FILLS) + 1} others"]
    parts, x, row = [], 0.0, 0
    for i, tag in enumerate(shown):
        wide = 30 + _LETTER * len(tag)
        if x and x + wide > width - _LEFT - _RIGHT:
            x, row = 0.0, row + 1
        parts.append(f'<rect class="t{i}" x="{x:.1f}" y="{20 * row}" width="11" height="11"/>')
        parts.append(f'<text x="{x + 16:.1f}" y="{20 * row + 10}">{_text(tag)}</text>')
        x += wide
    return parts, row + 1


def _style(tags: int) -> str:
    used = list(enumerate(_FILLS[: max(tags, 1)]))
    light = "".join(f"\n.t{i} {{ fill: {fill} }}" for i, (fill, _) in used)
    dark = "".join(f"\n.t{i} {{ fill: {fill} }}" for i, (_, fill) in used)
    return f"{_STYLE}{light}\n@media (prefers-color-scheme: dark) {{{_DARK}{dark}\n}}\n"


def _bytes(count: int) -> str:
    """Bytes in the largest binary unit that they fill."""
    for unit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if count >= unit:
            return f"{count / unit:.4g} {name}"
    return f"{count} B"


def _text(words: str) -> str:
    """Words as XML text: escaped, and without the characters that XML cannot hold."""
    return escape("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in words))
