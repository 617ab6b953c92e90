"""Softmax, its logarithm and cross-entropy as operations of the library, on the groups of rows of ``rows``.

    loss = -sum t (x - peak - log sum e)          e = exp(x - peak), t the target's probabilities
    gradient = (e / sum e * sum t - t) * g

A class index stands for the row that is 1 there. The gradient may be written over the logits: the exponentials go
there, and what else is needed of a row is read before.
"""

from __future__ import annotations

import math

from llvmlite import ir

from ..emit import I64, Code, number
from .functions import exp_of_negative, log, magnitude
from .lines import each_kind, within
from .rows import Rows, added
from .words import Words, written


class Softmax:
    """The two passes that all of them begin with: the peak of each row, and the sum of its exponentials.

    Attributes:
        peaks: of each row, once ``find_peaks`` is through.
        tails: exponentials of the piece with a mask: see ``keep``.
    """

    def __init__(self, code: Code, rows: Rows):
        self.code, self.rows = code, rows
        self.partial, self.peaks, self.tails = rows.partial(), rows.numbers(), rows.partial()

    def find_peaks(self, group, x: int) -> None:
        """``x`` is the number of the array."""
        code, builder = self.code, self.code.builder

        def larger(a, b):
            return builder.select(builder.fcmp_ordered(">", a, b), a, b)

        def peak(i, addresses):
            body = lambda piece, values: [larger(piece.load(addresses[x], -math.inf), values[0])]
            merge = lambda values, others: [larger(values[0], others[0])]
            self.partial.put(i, *self.rows.line(body, [code.constant(-math.inf)], merge))

        group.each(peak)
        self.peaks.put_all(self.partial.fold(larger))

    def exponentials(self, group, x: int, keep: int | None, also=None, sums=()):
        """The sum of each row's exponentials, which are stored in the array ``keep``, as lanes of one vector.

        ``also(piece, addresses, shifted) -> values`` is added up in the columns ``sums``.
        """
        code, builder = self.code, self.code.builder
        columns = [self.partial, *sums]

        def one(i, addresses):
            peak = self.peaks.spread(i)

            def body(piece, values):
                # lanes beyond the row are -inf, and their exponentials 0
                shifted = builder.fsub(piece.load(addresses[x], -math.inf), peak)
                e = exp_of_negative(code, shifted)
                more = also(piece, addresses, shifted) if also is not None else []
                if keep is not None:
                    self.keep(piece, i, e, addresses[keep])
                return [builder.fadd(a, b) for a, b in zip(values, [e, *more])]

            carried = [code.constant(0.0)] * len(columns)
            for column, value in zip(columns, self.rows.line(body, carried, added(code))):
                column.put(i, value)

        group.each(one)
        return self.partial.fold(builder.fadd)

    # Exponentials stay in the array of results, but for the piece with a mask: what is stored with a mask has to reach
    # the cache before it can be loaded again, and a row of ten elements would wait for that. It stays in ``tails``.

    def keep(self, piece, i, value, address) -> None:
        if piece.mask is None:
            piece.store(value, address)
        else:
            self.tails.put(i, value)

    def kept(self, piece, i, address):
        return piece.load(address) if piece.mask is None else self.tails.get(i)

    def kept_at(self, i, offset, address):
        """The address of one of them, ``offset`` bytes from the beginning of the row."""
        builder, tail = self.code.builder, self.rows.tail()
        in_tail = self.code.at(self.tails.address(i), builder.sub(offset, tail))
        return builder.select(builder.icmp_signed("<", offset, tail), self.code.at(address, offset), in_tail)


def _softmax(logarithm: bool):
    """Words: rows, count, group; out and x with their strides."""

    def write(code: Code, words: Words, thread, threads):
        builder = code.builder
        count_rows, n, size, out, out_row, x, x_row = words.integers(7)
        rows = Rows(code, count_rows, n, size, thread, threads, [(out, out_row), (x, x_row)])
        softmax, results = Softmax(code, rows), rows.numbers()

        def work(group):
            softmax.find_peaks(group, 1)
            total = softmax.exponentials(group, 1, None if logarithm else 0)
            results.put_all(log(code, total) if logarithm else builder.fdiv(code.constant(1.0), total))

            def finish(i, addresses):
                out, x = addresses
                result, peak = results.spread(i), softmax.peaks.spread(i) if logarithm else None

                def body(piece, _):
                    if logarithm:
                        value = builder.fsub(builder.fsub(piece.load(x), peak), result)
                    else:
                        value = builder.fmul(softmax.kept(piece, i, out), result)
                    piece.store(value, out)

                rows.line(body)

            group.each(finish)

        rows.groups(work)

    return write


class Entropy:
    """Losses, gradients or both, for class indices or rows of probabilities.

    Words: rows, count, group; loss, gradient, logits, target and g, each with its stride; the kind of an index.

    Attributes:
        weights, expected: of each row of probabilities, their sum, and the sum that they make of x - peak.
        classes, at_class: of each row with an index: it, and the logit there.
    """

    LOSS, GRADIENT, X, T, G = range(5)

    def __init__(self, code: Code, words: Words, thread, threads, losses: bool, gradient: bool, indexed: bool):
        self.code, self.losses, self.gradient, self.indexed = code, losses, gradient, indexed
        rows, self.n, size, *arrays, self.kind = words.integers(14)
        self.rows = Rows(code, rows, self.n, size, thread, threads, list(zip(arrays[0::2], arrays[1::2])))
        self.softmax, self.scalar = Softmax(code, self.rows), Code(code.builder, code.size, 1)
        self.length = code.spread(code.builder.trunc(self.n, code.integer) if code.size == 4 else self.n)
        self.results, self.factors = self.rows.numbers(), self.rows.numbers()
        if indexed:
            self.at_class, self.classes = self.rows.numbers(), self.rows.numbers(code.integer)
        else:
            self.weights, self.expected = self.rows.partial(), self.rows.partial()

    def work(self, group) -> None:
        code, builder, zero = self.code, self.code.builder, self.code.constant(0.0)
        if self.indexed:
            each_kind(code, self.kind, lambda read: group.each(lambda i, addresses: self.look_up(read, i, addresses)))
        self.softmax.find_peaks(group, self.X)
        kept = self.GRADIENT if self.gradient else None
        if self.indexed:
            total = self.softmax.exponentials(group, self.X, kept)
            there = builder.icmp_unsigned("<", self.classes.get_all(), self.length)
            weight = builder.select(there, code.constant(1.0), zero)
        else:
            sums = [self.weights, self.expected] if self.losses else [self.weights]
            total = self.softmax.exponentials(group, self.X, kept, self.expectation, sums)
            weight = self.weights.fold(builder.fadd)
        if self.gradient:
            self.factors.put_all(builder.fdiv(weight, total))
            group.each(self.store_gradient)
        if self.losses:  # last: while the logarithm is on its way, the next group begins
            if self.indexed:
                expected = builder.fsub(self.at_class.get_all(), self.softmax.peaks.get_all())
            else:
                expected = self.expected.fold(builder.fadd)
            result = builder.fsub(builder.fmul(weight, log(code, total)), expected)
            # Without probabilities there is no loss, whatever the logarithm is. Infinite ones multiply what is below 0,
            # and here is made of two parts, of which one may be 0; the sum less itself is 0, or NaN.
            result = builder.select(builder.fcmp_ordered("==", weight, zero), zero, result)
            infinite = builder.fcmp_ordered("==", magnitude(code, weight), code.constant(math.inf))
            limit = builder.fadd(weight, builder.fsub(total, total))
            self.results.put_all(builder.select(infinite, limit, result))
            group.each(lambda i, addresses: self.scalar.store(self.results.get(i), addresses[self.LOSS]))

    def look_up(self, read, i, addresses) -> None:
        """The class, and the logit there: the gradient may be written over it."""
        code, builder = self.code, self.code.builder
        index = within(code, read(addresses[self.T]), self.n)
        self.classes.put(i, builder.trunc(index, code.integer) if code.size == 4 else index)
        if self.losses:
            self.at_class.put(i, self.scalar.load(code.at(addresses[self.X], self.offset(index))))

    def offset(self, index):
        """Where a class is in its row, in bytes; of an index that is none, the last class."""
        builder, last = self.code.builder, self.code.builder.sub(self.n, number(1))
        index = builder.select(builder.icmp_signed("<", index, last), index, last)
        return self.code.times(index, self.code.size)

    def expectation(self, piece, addresses, shifted) -> list:
        """What adds up to sum t and sum t (x - peak). A class without probability does not count."""
        builder, t = self.code.builder, piece.load(addresses[self.T])
        nothing = builder.fcmp_ordered("==", t, self.code.constant(0.0))
        product = builder.select(nothing, t, builder.fmul(t, shifted))
        return [t, product] if self.losses else [t]

    def store_gradient(self, i, addresses) -> None:
        code, builder, out = self.code, self.code.builder, addresses[self.GRADIENT]
        slope = self.scalar.load(addresses[self.G])
        if self.indexed and not self.rows.short:
            self.store_long(i, out, slope)
            return
        factor, slope = self.factors.spread(i), code.spread(slope)
        if self.indexed:
            lanes = ir.Constant(code.integers, list(range(code.lanes)))
            at_class = builder.icmp_signed("==", lanes, self.classes.spread(i))

        def body(piece, _):
            value = builder.fmul(self.softmax.kept(piece, i, out), factor)
            if self.indexed:
                value = builder.select(at_class, builder.fsub(value, code.constant(1.0)), value)
            else:
                value = builder.fsub(value, piece.load(addresses[self.T]))
            piece.store(builder.fmul(value, slope), out)

        self.rows.line(body)

    def store_long(self, i, out, slope) -> None:
        """Of a row of several vectors: as if it had no class, and then the one element that is the class's."""
        code, builder, scalar = self.code, self.code.builder, self.scalar
        index, factor = self.classes.get(i), self.factors.get(i)
        index = builder.zext(index, I64) if code.size == 4 else index
        offset = self.offset(index)
        before = scalar.load(self.softmax.kept_at(i, offset, out))
        both = code.spread(builder.fmul(factor, slope))
        self.rows.line(lambda piece, _: piece.store(builder.fmul(self.softmax.kept(piece, i, out), both), out))
        value = builder.fsub(builder.fmul(before, factor), scalar.constant(1.0))
        with builder.if_then(builder.icmp_signed("<", index, self.n)):
            scalar.store(builder.fmul(value, slope), code.at(out, offset))


def _entropy(losses: bool, gradient: bool, indexed: bool):
    def write(code: Code, words: Words, thread, threads):
        entropy = Entropy(code, words, thread, threads, losses, gradient, indexed)
        entropy.rows.groups(entropy.work)

    return write


written("softmax")(_softmax(False))
written("log_softmax")(_softmax(True))
for _indexed in (True, False):
    _target = "indices" if _indexed else "rows"
    written(f"entropy_{_target}")(_entropy(True, False, _indexed))
    written(f"entropy_grad_{_target}")(_entropy(False, True, _indexed))
    written(f"entropy_both_{_target}")(_entropy(True, True, _indexed))
