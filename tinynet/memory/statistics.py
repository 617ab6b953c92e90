"""What an arena holds: as numbers, as a table, and as the message that there is no room."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from tinynet.errors import ArenaError

from .units import show_bytes


class ArenaStats(NamedTuple):
    """An arena at one moment. All sizes in bytes, rounded to the alignment, guards of the debug mode included.

    Attributes:
        capacity: all there is.
        used, free: what is held, and what is not.
        peak: the most that was ever held at once, the high-water mark.
        largest_hole: the most that one array can get now.
        fragmentation: 1 - largest_hole / free: 0 where all that is free is one hole.
        allocations: how many arrays hold memory now.
        served: how many ever did.
        by_tag: tag -> bytes, most first.
        by_line: "file.py:12" -> bytes held by what was made there, most first.
    """

    capacity: int
    used: int
    free: int
    peak: int
    largest_hole: int
    fragmentation: float
    allocations: int
    served: int
    by_tag: dict[str, int]
    by_line: dict[str, int]

    def __str__(self) -> str:
        lines = [
            f"arena of {show_bytes(self.capacity)}: {self.used:,} bytes used in {self.allocations:,} arrays, "
            f"{self.free:,} free",
            f"peak {self.peak:,} bytes, largest hole {self.largest_hole:,}, fragmentation {self.fragmentation:.1%}",
        ]
        for title, held in (("tag", self.by_tag), ("line", self.by_line)):
            rows = [(f"{nbytes:,}", name or "untagged") for name, nbytes in held.items()]
            if rows:
                width = max(len("bytes"), *(len(nbytes) for nbytes, _ in rows))
                lines += ["", *(f"{nbytes:>{width}}  {name}" for nbytes, name in [("bytes", title), *rows])]
        return "\n".join(lines)


def held_by(pairs: Iterable[tuple[str, int]]) -> dict[str, int]:
    """The bytes of each name, most first."""
    held: dict[str, int] = {}
    for name, nbytes in pairs:
        held[name] = held.get(name, 0) + nbytes
    return dict(sorted(held.items(), key=lambda item: -item[1]))


def no_room(where: str, what: str, requested: int, free: int, largest: int, held: dict[str, int]) -> ArenaError:
    """The error of a request that finds no hole.

    Args:
        where, what: the arena and its caller; the array asked for.
        requested, free, largest: in bytes; ``largest`` is the largest hole.
        held: source line -> bytes, most first.
    """
    got = f"{free:,} bytes free, the largest hole {largest:,}"
    if held:
        most = ", ".join(f"{line} ({nbytes:,})" for line, nbytes in list(held.items())[:3])
        got += f"; most bytes are held by {most}"
    mend = "make the arena larger, the batch smaller, or drop tensors that are not needed"
    if free >= requested:
        mend = "free memory is in pieces: reset the arena or make it larger"
    error = ArenaError(where, expected=f"room for {requested:,} bytes of {what}", got=got, mend=mend)
    error.requested, error.free, error.largest_hole = requested, free, largest
    return error
