"""Instructions: what a native kernel makes of its arrays; and tables of them, which run in one call.

A native kernel's ``bind`` gives ``(run, (instruction,))`` where another one's gives ``(function, arguments)``. ``run``
runs the one; ``link`` makes one table of those that follow each other, so that between them no Python is run.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from . import layout, library, pool

WORTH_WAKING = 20_000  # nanoseconds of work that can be shared, below which a table is run by one thread


class Instruction(NamedTuple):
    """One call of a compiled operation.

    Attributes:
        operation: as ``library.operation`` filed it.
        size: bytes of an element.
        words: its arguments, integers and floats.
        threads: how many can share the work, by its shape alone; 1 where it does not pay.
        cost: about how many nanoseconds of one core it takes: whether a table is worth waking other threads for.
        width: bits of a vector; None for the widest.
        keep: the arrays whose addresses are in the words, which have to live as long.
        note: why it is this one, for who asks.
        lines: how many words after the first, which is a count of elements, are addresses of lines of so many: on a
            part of each line it does the same as on all. 0 where that is not what it is.
        slices: whether threads read slices of a large operand's rows.
    """

    operation: str
    size: int
    words: tuple
    keep: tuple = ()
    threads: int = 1
    cost: float = 0.0
    width: int | None = None
    note: str = ""
    lines: int = 0
    slices: bool = False

    def encoded(self) -> list[int]:
        """All words but whether threads meet and in which order they have their shares."""
        address = library.load(self.size, self.width).addresses[self.operation]
        return [address, layout.HEADER + len(self.words), self.threads, 0, 0, *map(_bits, self.words)]


def _bits(value) -> int:
    number = isinstance(value, (float, np.floating))
    return struct.unpack("<q", struct.pack("<d", value))[0] if number else int(value)


class Table:
    """Instructions one after the other, in one call.

    A slice of rows that are a power of two bytes apart falls into a part of a cache's sets. If a thread had the same
    slice of each layer's weights, they would fight for that part: so of instructions with slices, every second one
    deals them out in reverse.

    Args:
        flush: whether denormal numbers, those below 1.2e-38 in float32, are taken as zero.

    Attributes:
        words: as ``layout`` says; int64.
        address: of the words.
        threads: how many run it.
    """

    def __init__(self, instructions: Iterable[Instruction], flush: bool = False):
        self.instructions = tuple(instructions)
        words, before, reverse = [0] * layout.TABLE, 1, False
        for each in self.instructions:
            row = each.encoded()
            row[layout.MEET] = int(before > 1 or each.threads > 1)
            row[layout.REVERSED] = int(each.slices and reverse)
            reverse ^= each.slices
            words += row
            before = each.threads
        words[layout.COUNT], words[layout.FLUSH] = len(self.instructions), int(flush)
        self.words = np.array(words, np.int64)
        self.address = self.words.ctypes.data
        self.library = library.load(self.instructions[0].size, self.instructions[0].width)
        gain = sum(each.cost for each in self.instructions if each.threads > 1)
        self.threads = max(each.threads for each in self.instructions) if gain > WORTH_WAKING else 1

    def __call__(self) -> None:
        if self.threads == 1 or not pool.run(self.library, self.address):
            self.library.run(self.address)


def run(instruction: Instruction) -> None:
    """Runs one instruction."""
    Table((instruction,))()


def link(calls: Iterable[tuple[Callable, tuple]]) -> tuple[list[tuple[Callable, tuple]], bool]:
    """The same calls, of which instructions that follow each other are one; and whether all are instructions.

    They take denormal numbers as zero.
    """
    linked: list[tuple[Callable, tuple]] = []
    waiting: list[Instruction] = []
    compiled = True

    def close():
        if waiting:
            linked.append((Table(waiting, flush=True), ()))
            waiting.clear()

    for function, arguments in calls:
        if function is run:
            waiting.append(arguments[0])
        else:
            close()
            linked.append((function, arguments))
            compiled = False
    close()
    return linked, compiled
