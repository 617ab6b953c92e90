"""Rows of numbers as operations of the library: what softmax, layer norm and their kin are made of.

Rows are worked on in groups, as many as a vector has lanes, or fewer where that many do not fit the first-level cache.
A pass over the group leaves for each row a vector of partial results; these are folded all at once, so that lane i of
one vector is the result of row i. What follows from it, a logarithm or a quotient, is then computed once for the group,
and a row of ten elements does not pay for it alone. The next pass takes the number of its row from memory.

The result of a row is computed in the same order wherever it stands in a group: it depends on no other row, and not on
the number of threads. Here is what such operations share, and layer norm; ``entropy`` has softmax and cross-entropy.
"""

from __future__ import annotations

from llvmlite import ir

from ..emit import DOUBLE, I32, I64, Code, Piece, number
from .words import Words, part, written

TURN = 2  # vectors of a long row that are worked on at a time


def folded(code: Code, vectors: list, combine):
    """A vector whose lane i is vector i, folded to one element: its halves, their halves, and so on.

    Half of what there is to add is added in each of the stages, two vectors at a time.
    """
    builder, lanes, segment = code.builder, code.lanes, code.lanes
    while segment > 1:  # each vector is made of segments, one for a row
        half = segment // 2
        low = [start + i for start in range(0, 2 * lanes, segment) for i in range(half)]
        pairs = zip(vectors[0::2], vectors[1::2])
        orders = [ir.Constant(ir.VectorType(I32, lanes), [i + move for i in low]) for move in (0, half)]
        vectors = [combine(*(builder.shuffle_vector(a, b, order) for order in orders)) for a, b in pairs]
        segment = half
    return vectors[0]


class Rows:
    """Rows of ``count`` elements, of which each thread has its share, in groups.

    Words of the operation, before its own: how many rows, their length, how many rows make a group.

    Rows that fit a vector have code of their own: ``line`` is a single piece then, without a loop.

    Args:
        arrays: pairs of an address and a distance in bytes from row to row, for each array.

    Attributes:
        short: whether what is being written is the code for rows that fit a vector.
    """

    def __init__(self, code: Code, rows, count, group, thread, threads, arrays: list):
        most = number(code.lanes)
        group = code.builder.select(code.builder.icmp_signed("<", group, most), group, most)
        self.code, self.count, self.group = code, count, group
        first, self.mine = part(code, rows, code.lanes, thread, threads)
        self.strides = [stride for _, stride in arrays]
        self.starts = [code.at(at, code.builder.mul(first, stride)) for at, stride in arrays]
        self.short, self._mask = False, code.mask(count)

    def partial(self) -> Column:
        """Room for a vector of each row of a group."""
        return Column(self.code, self.code.vector)

    def numbers(self, kind=None) -> Column:
        """Room for a number of each row of a group."""
        return Column(self.code, kind or self.code.element)

    def line(self, body, carried: list | tuple = (), merge=None) -> list:
        """``Code.line`` over the elements of a row."""
        if self.short:
            return body(Piece(self.code, number(0), self._mask), carried) or []
        return self.code.line(self.count, body, carried, TURN, merge)

    def tail(self):
        """Where the piece with a mask begins, in bytes from the beginning of a row."""
        code = self.code
        if self.short:
            return number(0)
        return code.times(code.builder.sdiv(self.count, number(code.lanes)), code.lanes * code.size)

    def groups(self, work) -> None:
        """Runs ``work(group)`` for each group."""
        short = self.code.builder.icmp_signed("<=", self.count, number(self.code.lanes))
        with self.code.builder.if_else(short) as branches:
            for self.short, branch in zip((True, False), branches):
                with branch:
                    self._groups(work)

    def _groups(self, work) -> None:
        code, builder = self.code, self.code.builder

        def step(values):
            left, *starts = values
            size = builder.select(builder.icmp_signed("<", left, self.group), left, self.group)
            work(Group(self, size, starts))
            moved = [code.at(at, builder.mul(size, stride)) for at, stride in zip(starts, self.strides)]
            return [builder.sub(left, size), *moved]

        pieces = builder.sdiv(builder.add(self.mine, builder.sub(self.group, number(1))), self.group)
        code.loop(pieces, [self.mine, *self.starts], step)


class Group:
    """Some rows, one after the other."""

    def __init__(self, rows: Rows, size, starts: list):
        self.rows, self.size, self.starts = rows, size, starts

    def each(self, work) -> None:
        """Runs ``work(i, addresses)`` for each row: its number in the group, and where it is in each array."""
        code = self.rows.code

        def step(values):
            i, *addresses = values
            work(i, addresses)
            moved = [code.at(each, stride) for each, stride in zip(addresses, self.rows.strides)]
            return [builder.add(i, number(1)), *moved]

        builder = code.builder
        code.loop(self.size, [number(0), *self.starts], step)


class Column:
    """A vector or a number for each row of a group, in memory of the function's own."""

    def __init__(self, code: Code, kind):
        self.code, self.kind = code, kind
        builder = code.builder
        with builder.goto_entry_block():
            self._memory = builder.alloca(ir.ArrayType(kind, code.lanes))
            self._memory.align = 64
            if kind == code.vector:  # a group may be short: what is folded beside its rows shall be numbers
                builder.store(ir.Constant(ir.ArrayType(kind, code.lanes), None), self._memory)

    def _pointer(self, i):
        return self.code.builder.gep(self._memory, [number(0), i])

    def put(self, i, value) -> None:
        self.code.builder.store(value, self._pointer(i))

    def get(self, i):
        return self.code.builder.load(self._pointer(i))

    def address(self, i):
        return self.code.builder.ptrtoint(self._pointer(i), I64)

    def spread(self, i):
        """The number of row i, in all lanes."""
        return self.code.spread(self.get(i))

    def fold(self, combine):
        """What ``folded`` makes of the vectors."""
        return folded(self.code, [self.get(number(i)) for i in range(self.code.lanes)], combine)

    def put_all(self, vector) -> None:
        """The lanes of a vector, as the numbers of the rows."""
        self.code.builder.store(vector, self._whole(), align=self.code.size)

    def get_all(self):
        return self.code.builder.load(self._whole(), align=self.code.size)

    def _whole(self):
        return self.code.builder.bitcast(self._memory, ir.VectorType(self.kind, self.code.lanes).as_pointer())


def added(code: Code):
    """Sums of several chains, as ``Code.line`` merges them."""
    return lambda values, others: [code.builder.fadd(a, b) for a, b in zip(values, others)]


@written("layer_norm")
def layer_norm(code: Code, words: Words, thread, threads):
    """gain (x - mean) / sqrt(var + eps) + bias.

    The mean is rounded, and so is each difference from it; the mean of the differences, which would be 0, says by how
    much, and is taken off again from them and from the variance: the corrected two-pass algorithm of T. F. Chan, G. H.
    Golub and R. J. LeVeque, "Algorithms for computing the sample variance", The American Statistician 37 (1983).

    Words: rows, count, group; out and x with their strides; gain, bias; eps.
    """
    builder = code.builder
    count_rows, n, group = words.integers(3)
    out, out_row, x, x_row, gain, bias = words.integers(6)
    (eps,) = words.reals(1)
    eps = code.everywhere(eps)
    share = code.everywhere(builder.fdiv(ir.Constant(DOUBLE, 1.0), builder.sitofp(n, DOUBLE)))
    rows = Rows(code, count_rows, n, group, thread, threads, [(out, out_row), (x, x_row)])
    sums, squares = rows.partial(), rows.partial()
    means, drifts, scales = (rows.numbers() for _ in range(3))
    zero = code.constant(0.0)

    def work(group):
        def total(i, addresses):
            _, x = addresses
            body = lambda piece, values: [builder.fadd(values[0], piece.load(x))]
            sums.put(i, *rows.line(body, [zero], added(code)))

        group.each(total)
        means.put_all(builder.fmul(sums.fold(builder.fadd), share))

        def spread(i, addresses):
            _, x = addresses
            mean = means.spread(i)

            def body(piece, values):
                difference = piece.keep(builder.fsub(piece.load(x), mean))
                return [
                    builder.fadd(values[0], difference),
                    code.multiply_add(difference, difference, values[1]),
                ]

            for column, value in zip((sums, squares), rows.line(body, [zero, zero], added(code))):
                column.put(i, value)

        group.each(spread)
        drift = builder.fmul(sums.fold(builder.fadd), share)
        variance = builder.fmul(squares.fold(builder.fadd), share)
        variance = code.multiply_add(builder.fneg(drift), drift, variance)
        root = code.declare(f"llvm.sqrt.{code.suffix}", code.vector, [code.vector])
        deviation = builder.call(root, [builder.fadd(variance, eps)])
        drifts.put_all(drift)
        scales.put_all(builder.fdiv(code.constant(1.0), deviation))

        def scale(i, addresses):
            out, x = addresses
            mean, drift, factor = means.spread(i), drifts.spread(i), scales.spread(i)

            def body(piece, _):
                normal = builder.fsub(builder.fsub(piece.load(x), mean), drift)
                normal = builder.fmul(normal, factor)
                piece.store(code.multiply_add(normal, piece.load(gain), piece.load(bias)), out)

            rows.line(body)

        group.each(scale)

    rows.groups(work)
