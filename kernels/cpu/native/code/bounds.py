"""Whether integers lie between two numbers: labels and indices, looked at before a step writes anything."""

from __future__ import annotations

from ..emit import I64, Code, number
from .lines import each_kind
from .words import Words, written


@written("outside")
def outside(code: Code, words: Words, thread, threads):
    """How many integers are below ``low``, or not below ``high``: a word that is written.

    Words: where that is; the address of the integers, how many, bytes from one to the next, their kind; low, high.
    """
    builder = code.builder
    found, address, count, step, kind, low, high = words.integers(7)

    def look(read):
        def body(values):
            at, total = values
            value = read(at)
            out = builder.or_(builder.icmp_signed("<", value, low), builder.icmp_signed(">=", value, high))
            return [code.at(at, step), builder.add(total, builder.zext(out, I64))]

        _, total = code.loop(count, [address, number(0)], body)
        builder.store(total, code.pointer(found, I64), align=8)

    each_kind(code, kind, look)
