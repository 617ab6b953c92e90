"""Live ranges, and what they say before anything is placed: the live bytes over time and the lower bound.

A lifetime is a tensor reduced to what a planner needs: the first and the last instruction at which its bytes are in
use, and how many bytes that is. No arena can be smaller than the largest sum of bytes that live at one instruction;
that sum (the *load*, in the terms of Buchsbaum et al., "OPT versus LOAD in dynamic storage allocation", SIAM J. Comput.
33, 2004) is the bound against which every plan is measured. Offsets are not chosen here (``planner``).
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tinynet.errors import PlanError

__all__ = ["Lifetime", "as_lifetimes", "check_alignment", "live_bytes", "lower_bound", "round_up"]


class Lifetime(NamedTuple):
    """One tensor as the planner sees it.

    Attributes:
        first, last: the instructions between which it lives, both included.
        size: in bytes; zero is allowed and takes no room.
        name: for error messages and pictures.
        tag: what kind of tensor it is ("weight", "activation", ...); pictures colour by it.
        pinned: the offset in bytes that it must have, or None where the planner may choose.
    """

    first: int
    last: int
    size: int
    name: str = ""
    tag: str = ""
    pinned: int | None = None


def as_lifetimes(lifetimes: Iterable[Sequence]) -> list[Lifetime]:
    """Lifetimes from ``Lifetime`` or plain ``(first, last, size, ...)`` tuples, checked.

    Raises:
        PlanError: fewer than three numbers, numbers that are not integers, an end before the beginning, a negative
            size, or a negative pinned offset. The message names the tensor by its index.
    """
    checked = []
    for index, given in enumerate(lifetimes):
        try:
            item = Lifetime(*given)
            first, last, size = operator.index(item.first), operator.index(item.last), operator.index(item.size)
            pinned = None if item.pinned is None else operator.index(item.pinned)
        except TypeError as error:
            raise PlanError(
                f"lifetime {index}",
                expected="(first, last, size) as integers, then perhaps name, tag and pinned offset",
                got=repr(given),
                mend="Give instruction indices and a size in bytes",
            ) from error
        if last < first or size < 0 or (pinned or 0) < 0:
            raise PlanError(
                f"lifetime {index}" + (f" {item.name!r}" if item.name else ""),
                expected="first <= last, size >= 0 and pinned >= 0",
                got=f"first {first}, last {last}, size {size}, pinned {pinned}",
                mend="An unused tensor ends at the instruction that writes it",
            )
        checked.append(Lifetime(first, last, size, item.name, item.tag, pinned))
    return checked


def check_alignment(alignment: int) -> int:
    """The alignment in bytes as an int; ``PlanError`` unless it is a whole number of at least one byte."""
    try:
        value = operator.index(alignment)
    except TypeError:
        value = 0
    if value < 1:
        raise PlanError(
            "memory plan",
            expected="an alignment of one byte or more",
            got=repr(alignment),
            mend="Use 64 for a processor and 256 for a GPU",
        )
    return value


def round_up(size: int, alignment: int) -> int:
    """The size in bytes, rounded up to a multiple of the alignment."""
    return -(-size // alignment) * alignment


def live_bytes(lifetimes: Iterable[Sequence], alignment: int = 1) -> list[tuple[int, int]]:
    """How many bytes live when: a step function, as (instruction, bytes from there on) pairs in order of time.

    Consecutive pairs differ in their bytes, and the last pair, one past the end of the last lifetime, has none.
    Tensors of zero bytes leave no trace. Sizes are rounded up to the alignment (in bytes) first.

    Raises:
        PlanError: a lifetime or the alignment is not what it should be.
    """
    alignment = check_alignment(alignment)
    change: dict[int, int] = {}
    for item in as_lifetimes(lifetimes):
        size = round_up(item.size, alignment)
        change[item.first] = change.get(item.first, 0) + size
        change[item.last + 1] = change.get(item.last + 1, 0) - size
    profile, live = [], 0
    for time in sorted(change):
        if change[time]:
            live += change[time]
            profile.append((time, live))
    return profile


def lower_bound(lifetimes: Iterable[Sequence], alignment: int = 64) -> int:
    """The bytes below which no plan can go: the largest sum of sizes that live at one instruction.

    Sizes are rounded up to the alignment (in bytes) first, because every tensor begins at a multiple of it. A pinned
    tensor raises the bound to its own end. One sweep over the sorted ends of the lifetimes, O(n log n).

    Raises:
        PlanError: a lifetime or the alignment is not what it should be.
    """
    lifetimes, alignment = as_lifetimes(lifetimes), check_alignment(alignment)
    load = max((live for _, live in live_bytes(lifetimes, alignment)), default=0)
    pins = (item.pinned + round_up(item.size, alignment) for item in lifetimes if item.pinned is not None and item.size)
    return max(load, *pins, 0)
