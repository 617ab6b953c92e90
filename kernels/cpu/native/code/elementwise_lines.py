"""The operators of the vector machine that go along a line of elements side by side: arithmetic, choice, functions.

A condition lies in a register as a mask: all bits of an element, or none. A number that is the same for a whole line is
read once, ahead of the loop. Every operator rounds by itself, as the calls of NumPy do that an expression stands for.
"""

from __future__ import annotations

from llvmlite import ir

from ..elementwise_words import AHEAD, FLOATS_ONLY, FUNCTIONS, HEAVY, LINES
from ..emit import DOUBLE, I64, Code, Piece, function, number
from . import functions

_COMPARISONS = ("==", "!=", "<", "<=")
_WORK = 2  # vectors that a cheap operator handles in a turn


class Whole(Code):
    """Vectors of int64, with the interface of ``Code``."""

    def __init__(self, builder: ir.IRBuilder, lanes: int):
        super().__init__(builder, 8, lanes)
        self.element, self.vector, self.suffix = self.integer, self.integers, f"v{lanes}i64"

    def constant(self, value: float):
        return self.whole(int(value))


def write_line(op: str, pattern: str, size: int, lanes: int, whole: bool):
    """The writer of an operator: a function of (count, result, a, b, c), addresses of lines or of single elements.

    While a heavy one computes, the next block of what its idle operands name is fetched.
    """

    def write(builder, count, result, *addresses):
        if whole and op in FLOATS_ONLY:
            return
        code = Whole(builder, lanes) if whole else Code(builder, size, lanes)
        if op in ("sum", "max", "min"):
            total = code.as_double(reduced_line(code, op, count, addresses[0]))
            builder.store(total, code.pointer(result, DOUBLE), align=8)
            return
        if op == "stream":
            _stream(code, count, *addresses, result)
            return
        single = [code.load_spread(address) if kind == "s" else None for kind, address in zip(pattern, addresses)]

        def body(piece, _):
            for address in addresses[len(pattern) :] if op in HEAVY else ():
                code.prefetch(code.at(address, piece.offset, AHEAD))
            if op == "from bool":
                operands = [_load_bytes(piece, addresses[0])]
            else:
                operands = [
                    piece.load(address) if kind == "v" else one
                    for kind, address, one in zip(pattern, addresses, single)
                ]
            value = apply(code, op, operands)
            if op == "to bool":
                _store_bytes(piece, value, result)
            else:
                piece.store(value if value.type == code.vector else builder.bitcast(value, code.vector), result)

        code.line(count, body, turn=1 if op in FUNCTIONS else _WORK)

    return write


def _stream(code: Code, count, source, b, c, result) -> None:
    """Copies a line: whole lines of the cache past it, and as usual what is before and behind them.

    The next blocks of ``b`` and ``c`` are fetched meanwhile.
    """
    builder = code.builder
    ahead = builder.sdiv(builder.and_(builder.neg(result), number(63)), number(code.size))
    ahead = builder.select(builder.icmp_signed("<", ahead, count), ahead, count)
    code.line(ahead, lambda piece, _: piece.store(piece.load(source), result))
    offset = code.times(ahead, code.size)
    source, result, *others = (code.at(each, offset) for each in (source, result, b, c))

    def body(piece, _):
        for each in others:
            code.prefetch(code.at(each, piece.offset, AHEAD))
        if piece.mask is None:
            code.stream(piece.load(source), code.at(result, piece.offset))
        else:
            piece.store(piece.load(source), result)

    code.line(builder.sub(count, ahead), body, turn=_WORK)


def line_functions(module: ir.Module, size: int, lanes: int, whole: bool) -> list[ir.Function]:
    kind = f"i64_{lanes}" if whole else f"f{8 * size}_{lanes}"
    return [
        function(module, f"line_{kind}_{i}", 5, write_line(op, pattern, size, lanes, whole))
        for i, (op, pattern) in enumerate(LINES)
    ]


# ---- one vector ----


def apply(code: Code, op: str, operands: list):
    """The vector that an operator makes of vectors; that of a comparison is a mask, of integers."""
    builder, whole = code.builder, isinstance(code, Whole)
    if op in FUNCTIONS:
        return getattr(functions, op)(code, *operands)
    if op in ("+", "-", "*", "/"):
        name = {"+": "add", "-": "sub", "*": "mul", "/": "div"}[op]
        return getattr(builder, name if whole else f"f{name}")(*operands)
    if op in ("maximum", "minimum"):
        return extremum(code, op, *operands)
    if op in _COMPARISONS:
        return _mask(code, compare(code, op, *operands))
    if op in ("logical_and", "logical_or"):
        a, b = (builder.bitcast(each, code.integers) for each in operands)
        return builder.and_(a, b) if op == "logical_and" else builder.or_(a, b)
    if op == "where":
        condition, a, b = operands
        return builder.select(holds(code, condition), a, b)
    if op == "gate":
        a, b = operands
        return builder.select(compare(code, ">", b, code.constant(0.0)), a, code.constant(0.0))
    return _apply_to_one(code, op, operands[0])


def _apply_to_one(code: Code, op: str, x):
    builder, whole = code.builder, isinstance(code, Whole)
    zero, one = code.constant(0.0), code.constant(1.0)
    if op in ("copy", "spread", "from bool", "to bool"):
        return x
    if op == "neg":
        return builder.neg(x) if whole else builder.fneg(x)
    if op == "square":
        return builder.mul(x, x) if whole else builder.fmul(x, x)
    if op == "abs":
        return builder.select(compare(code, "<", x, zero), builder.neg(x), x) if whole else functions.magnitude(code, x)
    if op == "sign":
        negative = builder.select(compare(code, "<", x, zero), code.constant(-1.0), zero)
        result = builder.select(compare(code, ">", x, zero), one, negative)
        return result if whole else builder.select(builder.fcmp_unordered("uno", x, x), x, result)
    if op == "sqrt":
        return builder.call(code.declare(f"llvm.sqrt.{code.suffix}", code.vector, [code.vector]), [x])
    if op == "logical_not":
        return builder.not_(builder.bitcast(x, code.integers))
    if op == "one":
        return builder.select(holds(code, x), one, zero)
    raise ValueError(f"no operator of the vector machine: {op!r}")


def compare(code: Code, op: str, a, b):
    """A comparison, one bit for each lane. NaN is unequal to everything, and neither less nor greater."""
    builder = code.builder
    if isinstance(code, Whole):
        return builder.icmp_signed(op, a, b)
    return builder.fcmp_unordered(op, a, b) if op == "!=" else builder.fcmp_ordered(op, a, b)


def extremum(code: Code, op: str, a, b):
    """The larger or the smaller; NaN if either is NaN."""
    builder = code.builder
    result = builder.select(compare(code, ">" if op == "maximum" else "<", a, b), a, b)
    return result if isinstance(code, Whole) else builder.select(builder.fcmp_unordered("uno", a, a), a, result)


def _mask(code: Code, bits):
    return code.builder.sext(bits, code.integers)


def holds(code: Code, mask):
    """A mask as one bit for each lane."""
    builder = code.builder
    return builder.icmp_signed("!=", builder.bitcast(mask, code.integers), code.whole(0))


# ---- booleans in memory: bytes ----


def _bytes_of(piece: Piece, address):
    """The place of a piece's bytes, the type of their vector, and the suffix of its intrinsics."""
    code = piece.code
    offset = code.builder.udiv(piece.offset, ir.Constant(I64, code.size))
    kind = ir.VectorType(ir.IntType(8), code.lanes)
    return code.pointer(code.at(address, offset), kind), kind, f"v{code.lanes}i8.p0"


def _load_bytes(piece: Piece, address):
    code, builder = piece.code, piece.code.builder
    pointer, kind, suffix = _bytes_of(piece, address)
    none = ir.Constant(kind, [0] * code.lanes)
    if piece.mask is None:
        value = builder.load(pointer, align=1)
    else:
        load = code.declare(f"llvm.masked.load.{suffix}", kind, [pointer.type, ir.IntType(32), code.mask_type, kind])
        value = builder.call(load, [pointer, ir.Constant(ir.IntType(32), 1), piece.mask, none])
    return _mask(code, builder.icmp_unsigned("!=", value, none))


def _store_bytes(piece: Piece, mask, address) -> None:
    code, builder = piece.code, piece.code.builder
    pointer, kind, suffix = _bytes_of(piece, address)
    value = builder.zext(holds(code, mask), kind)
    if piece.mask is None:
        builder.store(value, pointer, align=1)
    else:
        store = code.declare(
            f"llvm.masked.store.{suffix}", ir.VoidType(), [kind, pointer.type, ir.IntType(32), code.mask_type]
        )
        builder.call(store, [value, pointer, ir.Constant(ir.IntType(32), 1), piece.mask])


# ---- reductions ----

NEUTRAL = {"sum": 0.0, "max": float("-inf"), "min": float("inf")}


def join(code: Code, op: str, a, b):
    """What a reduction makes of two vectors: of a new one and of what there is, whose chain is the shorter this way."""
    if op == "sum":
        return code.builder.fadd(a, b)
    return extremum(code, "maximum" if op == "max" else "minimum", a, b)


def reduced_line(code: Code, op: str, count, address):
    """One element of a line: lane by lane in four chains, then the lanes in pairs."""
    neutral = NEUTRAL[op]

    def body(piece, values):
        return [join(code, op, piece.load(address, neutral), values[0])]

    (total,) = code.line(
        count, body, [code.constant(neutral)], turn=4, merge=lambda a, b: [join(code, op, x, y) for x, y in zip(a, b)]
    )
    return code.across(total, lambda a, b: join(code, op, a, b))
