"""A plan as a picture: time across, addresses up, each tensor a block, the lower bound a line.

The result is one SVG text without scripts. It follows the reader's light or dark setting, names blocks where the name
fits, and tells name, bytes and lifetime of every block when the pointer rests on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from xml.sax.saxutils import escape

from .lifetimes import as_lifetimes, lower_bound, round_up

__all__ = ["memory_map"]

_LEFT, _RIGHT, _TOP, _BOTTOM = 76, 20, 44, 46  # margins, in pixels
_CHARACTER, _LINE = 6.2, 11  # width and height of a label's letter
# Okabe and Ito's colours, which readers with any colour vision can tell apart.
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#b5a900", "#7f7f7f")

_STYLE = """
text{font:11px system-ui,sans-serif;fill:#222}.small{font-size:10px}.title{font-size:13px;font-weight:600}
.paper{fill:#fff}.axis{stroke:#888;stroke-width:1}.grid{stroke:#888;stroke-opacity:.22}
.block{stroke:#fff;stroke-width:.6}.name{fill:#fff;font-size:10px;pointer-events:none;
paint-order:stroke;stroke:#000;stroke-opacity:.45;stroke-width:2px}
.bound{stroke:#c00;stroke-width:1.4;stroke-dasharray:6 4}.boundname{fill:#c00}
@media (prefers-color-scheme:dark){text{fill:#ddd}.paper{fill:#16181c}.block{stroke:#16181c}
.bound{stroke:#ff6b6b}.boundname{fill:#ff6b6b}.name{fill:#fff}}
"""


def memory_map(
    lifetimes: Iterable[Sequence],
    offsets: Sequence[int],
    *,
    alignment: int = 64,
    title: str = "Memory map",
    width: int = 1000,
    height: int = 560,
) -> str:
    """The plan as SVG.

    Args:
        lifetimes: as for ``plan_offsets``; blocks are coloured by ``tag``.
        offsets: where each begins, in bytes.
        alignment: of the plan, for the lower bound.
        title: shown above.
        width, height: in pixels.

    Raises:
        PlanError: lifetimes that are none.
    """
    items = as_lifetimes(lifetimes)
    peak = max((at + round_up(item.size, alignment) for item, at in zip(items, offsets)), default=0)
    bound = lower_bound(items, alignment)
    steps = max((item.last for item in items), default=0) + 1
    top = max(peak, bound, 1)
    across, up = (width - _LEFT - _RIGHT) / steps, (height - _TOP - _BOTTOM) / top
    ground = height - _BOTTOM
    tags = sorted({item.tag for item in items})
    colours = {tag: _COLOURS[i % len(_COLOURS)] for i, tag in enumerate(tags)}
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img"><title>{escape(title)}</title><style>{_STYLE}</style>'
        f'<rect class="paper" width="{width}" height="{height}"/>',
        f'<text class="title" x="{_LEFT}" y="18">{escape(title)}</text>',
        *_legend(tags, colours, width),
        *_grid(top, steps, across, up, ground, width),
    ]
    for item, at in zip(items, offsets):
        if not item.size:
            continue
        x, w = _LEFT + item.first * across, (item.last + 1 - item.first) * across
        h = item.size * up
        y = ground - at * up - h
        name = item.name or "tensor"
        tip = f"{name}: {_bytes(item.size)} at {at}, instructions {item.first} to {item.last}"
        parts.append(
            f'<rect class="block" x="{x:.2f}" y="{y:.2f}" width="{max(w, 0.5):.2f}" height="{max(h, 0.5):.2f}" '
            f'fill="{colours[item.tag]}"><title>{escape(tip)}</title></rect>'
        )
        if len(name) * _CHARACTER + 6 <= w and h >= _LINE:
            parts.append(f'<text class="name" x="{x + 3:.2f}" y="{y + h / 2 + 3.5:.2f}">{escape(name)}</text>')
    line = ground - bound * up
    says = f"lower bound {_bytes(bound)}" if bound != peak else f"peak = lower bound {_bytes(bound)}"
    parts.append(f'<line class="bound" x1="{_LEFT}" x2="{width - _RIGHT}" y1="{line:.2f}" y2="{line:.2f}"/>')
    parts.append(
        f'<text class="boundname small" x="{width - _RIGHT}" y="{line - 4:.2f}" text-anchor="end">{says}'
        f"{'' if bound == peak else f', peak {_bytes(peak)}'}</text></svg>"
    )
    return "\n".join(parts)


def _legend(tags: list[str], colours: dict[str, str], width: int):
    x = width - _RIGHT
    for tag in reversed(tags):
        if tag:
            x -= len(tag) * _CHARACTER + 22
            yield f'<rect x="{x:.1f}" y="9" width="10" height="10" rx="2" fill="{colours[tag]}"/>'
            yield f'<text x="{x + 14:.1f}" y="18">{escape(tag)}</text>'


def _grid(top: int, steps: int, across: float, up: float, ground: int, width: int):
    """Axes, with lines at round numbers of bytes and of instructions."""
    unit = 1
    while top / unit > 8:
        unit *= 2  # powers of two, as memory is counted
    for at in range(0, top + 1, unit):
        y = ground - at * up
        yield f'<line class="grid" x1="{_LEFT}" x2="{width - _RIGHT}" y1="{y:.2f}" y2="{y:.2f}"/>'
        yield f'<text class="small" x="{_LEFT - 6}" y="{y + 3.5:.2f}" text-anchor="end">{_bytes(at)}</text>'
    every = next(n * 10**k for k in range(9) for n in (1, 2, 5) if steps / (n * 10**k) <= 16)
    for step in range(0, steps, every):
        x = _LEFT + (step + 0.5) * across
        yield f'<text class="small" x="{x:.2f}" y="{ground + 15}" text-anchor="middle">{step}</text>'
    yield f'<line class="axis" x1="{_LEFT}" x2="{width - _RIGHT}" y1="{ground}" y2="{ground}"/>'
    yield f'<text x="{(_LEFT + width - _RIGHT) / 2:.1f}" y="{ground + 34}" text-anchor="middle">instruction</text>'


def _bytes(n: int) -> str:
    for unit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if n >= unit:
            return f"{n / unit:.4g} {name}"
    return f"{n} B"
