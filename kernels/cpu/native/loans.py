"""Arguments that a program reads where they lie: the addresses of their slots in its tables, and how to change them.

To copy an argument into its slot takes as long as to read it, and leaves it in the cache of one core where others want
it too. Which words of a table are such addresses is found without knowing any operation: the same instructions are made
once more with the slots elsewhere, and what has moved by just as much is one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .encoding import address
from .instructions import Table

LEAST = 32 * 1024  # bytes of an argument; a smaller one is copied in the time that it takes to change the words


def elsewhere(slots: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Arrays like these in other memory, each another distance away; nothing touches that memory."""
    room = sum(slot.nbytes for slot in slots) + 64 * (len(slots) + 1) ** 2
    block = np.empty(room, np.uint8)
    at, found, distances = -address(block) % 64, [], set()
    for slot in slots:
        while address(block) + at - address(slot) in distances:
            at += 64
        distances.add(address(block) + at - address(slot))
        found.append(block[at : at + slot.nbytes].view(slot.dtype).reshape(slot.shape))
        at += -(-slot.nbytes // 64) * 64
    return found


class Loan:
    """One argument. Called with an array, it has the instructions read that; ``copy`` has them read the slot again."""

    def __init__(self, slot: np.ndarray, places: list[tuple[memoryview, int, int]]):
        self._slot, self._own, self._places = slot, address(slot), places

    def __call__(self, array: np.ndarray) -> None:
        """``array``, of the slot's shape and dtype, has to live, and to stay as it is, until the tables have run."""
        flags = array.flags
        if flags.c_contiguous and flags.aligned:
            self._point(array.ctypes.data)  # the other way to it wears out the interpreter's table of names
        else:
            self.copy(array)

    def copy(self, array: np.ndarray) -> None:
        """The slot gets the numbers of ``array``, and is read."""
        self._slot[...] = array
        self._point(self._own)

    def _point(self, at: int) -> None:
        for words, i, within in self._places:
            words[i] = at + within


def loans(tables: Sequence[Table], moved: Sequence[Table], slots, others) -> list[Loan] | None:
    """A loan for each of the slots; None if the tables differ in anything but where the slots are.

    Args:
        tables: of the instructions on ``slots``.
        moved: of the same instructions on ``others``.
    """
    distances = {address(other) - address(slot): i for i, (slot, other) in enumerate(zip(slots, others))}
    places: list[list] = [[] for _ in slots]
    for here, there in zip(tables, moved, strict=True):
        if here.words.shape != there.words.shape:
            return None
        view = memoryview(here.words)
        for at in np.flatnonzero(here.words != there.words).tolist():
            which = distances.get(int(there.words[at]) - int(here.words[at]))
            if which is None:
                return None
            places[which].append((view, at, int(here.words[at]) - address(slots[which])))
    return [Loan(slot, found) for slot, found in zip(slots, places)]
