"""The operators of the vector machine that know a block's rows and columns: bringing elements together, and reductions.

In a register a block lies row by row without gaps. ``gather`` brings an operand there that is not so in memory, and
``scatter`` takes a result out. Reductions are over the columns (each row gives one result) or over the rows, downwards.
"""

from __future__ import annotations

from llvmlite import ir

from ..elementwise_words import BLOCKS, FLOATS_ONLY
from ..emit import Code, function, number
from .elementwise_lines import NEUTRAL, Whole, join, reduced_line

_BYTE = ir.IntType(8)


def block_functions(module: ir.Module, size: int, lanes: int, whole: bool) -> list[ir.Function]:
    """Functions of (rows, columns, result, a, row, column, divisor): two strides in bytes, an address of a double."""
    kind = f"i64_{lanes}" if whole else f"f{8 * size}_{lanes}"
    return [
        function(module, f"block_{kind}_{i}", 7, _write_block(op, size, lanes, whole)) for i, op in enumerate(BLOCKS)
    ]


def _write_block(op: str, size: int, lanes: int, whole: bool):
    def write(builder, rows, columns, result, a, row, column, divisor):
        if whole and op in FLOATS_ONLY:
            return
        code = Whole(builder, lanes) if whole else Code(builder, size, lanes)
        name, *rest = op.split()
        if name == "gather":
            _gather(code, rows, columns, result, a, row, column, rest == ["bytes"])
        elif name == "scatter":
            _scatter(code, rows, columns, result, a, row, column, rest == ["bytes"])
        elif rest == ["rows"]:
            _reduce_rows(code, name, rows, columns, result, a, row, divisor)
        else:
            _reduce_down(code, name, rows, columns, result, a, row)

    return write


def _gather(code: Code, rows, columns, result, a, row, column, of_bytes: bool) -> None:
    builder = code.builder
    unit = 1 if of_bytes else code.size
    if of_bytes:
        _element_by_element(code, rows, columns, (result, code.times(columns, 1), number(1)), (a, row, column), _BYTE)
        return
    packed = code.times(columns, unit)
    side_by_side = builder.icmp_signed("==", column, number(unit))
    with builder.if_else(side_by_side) as (lines, others):
        with lines:
            _rows_of(code, rows, (result, packed), (a, row), lambda out, a: _copy_line(code, columns, out, a))
        with others, builder.if_else(builder.icmp_signed("==", column, number(0))) as (same, apart):
            with same:
                _rows_of(code, rows, (result, packed), (a, row), lambda out, a: _spread_line(code, columns, out, a))
            with apart:
                _element_by_element(code, rows, columns, (result, packed, number(unit)), (a, row, column), code.element)


def _scatter(code: Code, rows, columns, result, a, row, column, of_bytes: bool) -> None:
    builder = code.builder
    if of_bytes:
        _element_by_element(code, rows, columns, (result, row, column), (a, columns, number(1)), _BYTE)
        return
    packed = code.times(columns, code.size)
    with builder.if_else(builder.icmp_signed("==", column, number(code.size))) as (lines, apart):
        with lines:
            _rows_of(code, rows, (result, row), (a, packed), lambda out, a: _copy_line(code, columns, out, a))
        with apart:
            _element_by_element(
                code, rows, columns, (result, row, column), (a, packed, number(code.size)), code.element
            )


def _rows_of(code: Code, rows, out: tuple, a: tuple, line) -> None:
    """``line(address, address)`` for each row of two blocks, given as (address, stride)."""

    def body(values):
        line(*values)
        return [code.at(values[0], out[1]), code.at(values[1], a[1])]

    code.loop(rows, [out[0], a[0]], body)


def _copy_line(code: Code, columns, out, a) -> None:
    code.line(columns, lambda piece, _: piece.store(piece.load(a), out))


def _spread_line(code: Code, columns, out, a) -> None:
    value = code.load_spread(a)
    code.line(columns, lambda piece, _: piece.store(value, out))


def _element_by_element(code: Code, rows, columns, out: tuple, a: tuple, kind) -> None:
    builder, align = code.builder, 1 if kind is _BYTE else code.size

    def element(values):
        value = builder.load(code.pointer(values[1], kind), align=align)
        builder.store(value, code.pointer(values[0], kind), align=align)
        return [code.at(values[0], out[2]), code.at(values[1], a[2])]

    _rows_of(code, rows, out, a, lambda *addresses: code.loop(columns, list(addresses), element))


def _reduce_rows(code: Code, op: str, rows, columns, result, a, row, divisor) -> None:
    """One result for each row, ``row`` bytes apart, divided in double precision: the mean, where it is one."""
    builder = code.builder
    by = builder.load(code.pointer(divisor, ir.DoubleType()), align=8)

    def line(out, a):
        total = code.as_element(builder.fdiv(code.as_double(reduced_line(code, op, columns, a)), by))
        builder.store(total, code.pointer(out, code.element), align=code.size)

    _rows_of(code, rows, (result, row), (a, code.times(columns, code.size)), line)


def _reduce_down(code: Code, op: str, rows, columns, result, a, row) -> None:
    """Joins the rows of a block, first with each other, four at a time, and then with the line at ``result``."""
    builder = code.builder

    def body(piece, _):
        def one(values):
            (address, total) = values
            return [code.at(address, row), join(code, op, piece.load(address), total)]

        def four(values):
            address, *totals = values
            following = []
            for each in totals:
                following.append(join(code, op, piece.load(address), each))
                address = code.at(address, row)
            return [address, *following]

        first = piece.load(a)
        address, total = code.loop(builder.srem(rest, number(4)), [code.at(a, row), first], one)
        fours = builder.sdiv(rest, number(4))
        neutral = [code.constant(NEUTRAL[op])] * 3
        _, *totals = code.loop(fours, [address, total, *neutral], four)
        while len(totals) > 1:
            totals = [join(code, op, *totals[i : i + 2]) for i in range(0, len(totals), 2)]
        piece.store(join(code, op, piece.load(result), totals[0]), result)

    rest = builder.sub(rows, number(1))
    code.line(columns, body)
