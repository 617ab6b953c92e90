"""Optimizer updates as operations of the library, one pass each: what is read once is written once.

Rates and step counts are read from memory when the instruction runs. What follows from them is computed in double
precision, by each thread for itself, before its first element. Addresses of inputs and outputs may be the same: an
element is read before it is written, and no other one is.

Weight decay is an operation of its own (``..._decayed``), because without it a parameter that is infinite must not
touch its gradient.
"""

from __future__ import annotations

from llvmlite import ir

from ..emit import I1, I64, Code, Piece, number
from .roots import reciprocal, square_root
from .words import Words, part, written

DOUBLE = ir.DoubleType()
UNIT = 1024  # elements that threads are dealt at a time: whole cache lines, whatever the vector
# Bytes ahead that are asked for. Adam on 16 million parameters moves 24 GB/s without that and 28 with it, with 512 and
# 2048 as well; NumPy copies at 27.
AHEAD = 1024


def everywhere(code: Code, real):
    """A double, rounded to the type of elements, in all lanes."""
    return code.spread(real if code.size == 8 else code.builder.fptrunc(real, code.element))


def own(code: Code, count, thread, threads, *addresses) -> list:
    """The share of a thread: how many elements, and where they are in each array."""
    first, mine = part(code, count, UNIT, thread, threads)
    offset = code.times(first, code.size)
    return [mine, *(code.at(each, offset) for each in addresses)]


def decayed_gradient(code: Code, decay, p, g):
    """g + decay p; g itself where ``decay`` is None."""
    return g if decay is None else code.multiply_add(decay, p, g)


def ask(code: Code, piece: Piece, *addresses) -> None:
    """Has the processor fetch what the loop needs soon."""
    if piece.mask is None:
        for each in addresses:
            code.prefetch(code.at(each, piece.offset, AHEAD))


# ---- gradient descent ----


def _gd(decayed: bool):
    def write(code: Code, words: Words, thread, threads):
        count, out, p, g, lr = words.integers(5)
        (decay,) = words.reals(1)
        mine, out, p, g = own(code, count, thread, threads, out, p, g)
        decay = everywhere(code, decay) if decayed else None
        minus_rate = code.builder.fneg(code.load_spread(lr))

        def body(piece, _):
            ask(code, piece, p, g)
            old = piece.load(p)
            slope = decayed_gradient(code, decay, old, piece.load(g))
            piece.store(code.multiply_add(minus_rate, slope, old), out)

        code.line(mine, body)

    return write


def _gd_momentum(nesterov: bool, decayed: bool):
    def write(code: Code, words: Words, thread, threads):
        count, out_p, out_v, p, g, v, lr = words.integers(7)
        momentum, decay = words.reals(2)
        mine, out_p, out_v, p, g, v = own(code, count, thread, threads, out_p, out_v, p, g, v)
        momentum, decay = everywhere(code, momentum), everywhere(code, decay) if decayed else None
        minus_rate = code.builder.fneg(code.load_spread(lr))

        def body(piece, _):
            ask(code, piece, p, g, v)
            old = piece.load(p)
            slope = decayed_gradient(code, decay, old, piece.load(g))
            velocity = code.multiply_add(momentum, piece.load(v), slope)
            change = code.multiply_add(momentum, velocity, slope) if nesterov else velocity
            piece.store(velocity, out_v)
            piece.store(code.multiply_add(minus_rate, change, old), out_p)

        code.line(mine, body)

    return write


# ---- Adam ----


def _adam(decayed: bool):
    """m / (sqrt(v) + small) * rate, as in NumPy's kernel: the correction of v is a part of ``small`` and ``rate``."""

    def write(code: Code, words: Words, thread, threads):
        builder = code.builder
        count, out_p, out_m, out_v, p, g, m, v, lr, step = words.integers(10)
        beta1, beta2, share1, share2, eps, decay, shrinkage = words.reals(7)
        mine, out_p, out_m, out_v, p, g, m, v = own(code, count, thread, threads, out_p, out_m, out_v, p, g, m, v)
        rate = builder.load(code.pointer(lr, code.element), align=code.size)
        rate = rate if code.size == 8 else builder.fpext(rate, DOUBLE)
        one, t = ir.Constant(DOUBLE, 1.0), builder.load(code.pointer(step, I64), align=8)
        left1, left2 = (_one_minus_power(code, beta, t) for beta in (beta1, beta2))
        root = builder.call(code.declare("llvm.sqrt.f64", DOUBLE, [DOUBLE]), [left2])
        small = everywhere(code, builder.fmul(eps, root))
        minus_rate = everywhere(code, builder.fneg(builder.fdiv(builder.fmul(rate, root), left1)))
        no_decay = builder.fcmp_ordered("==", shrinkage, ir.Constant(DOUBLE, 0.0))  # then the rate may be infinite
        shrink = builder.select(no_decay, one, builder.fsub(one, builder.fmul(rate, shrinkage)))
        shrink = everywhere(code, shrink)
        keep_m, keep_v, share_m, share_v = (everywhere(code, each) for each in (beta1, beta2, share1, share2))
        decay = everywhere(code, decay) if decayed else None

        def body(piece, _):
            ask(code, piece, p, g, m, v)
            old = piece.load(p)
            slope = decayed_gradient(code, decay, old, piece.load(g))
            new_m = code.multiply_add(keep_m, piece.load(m), builder.fmul(share_m, slope))
            square = builder.fmul(slope, slope)
            new_v = code.multiply_add(keep_v, piece.load(v), builder.fmul(share_v, square))
            spread = builder.fadd(square_root(code, new_v), small)
            change = builder.fmul(new_m, reciprocal(code, spread))
            piece.store(new_m, out_m)
            piece.store(new_v, out_v)
            piece.store(code.multiply_add(minus_rate, change, builder.fmul(old, shrink)), out_p)

        code.line(mine, body)

    return write


def _one_minus_power(code: Code, base, exponent):
    """1 - base^exponent, a double and an int64 from 0 on, rounded about once.

    The power is a product of squares, and each number is kept with what its rounding has lost; a square of a rounded
    square of a ... would be off by as many units as the exponent says.
    """
    builder = code.builder
    fused = code.declare("llvm.fma.f64", DOUBLE, [DOUBLE] * 3)
    leading = code.declare("llvm.ctlz.i64", I64, [I64, I1])

    def product(a, b):
        high = builder.fmul(a[0], b[0])
        lost = builder.call(fused, [a[0], b[0], builder.fneg(high)])
        for one, other in ((a[0], b[1]), (b[0], a[1])):
            lost = builder.call(fused, [one, other, lost])
        return high, lost

    def bit(values):
        rest, *values = values
        power, square = values[:2], values[2:]
        odd = builder.icmp_signed("!=", builder.and_(rest, number(1)), number(0))
        power = [builder.select(odd, new, old) for new, old in zip(product(power, square), power)]
        return [builder.lshr(rest, number(1)), *power, *product(square, square)]

    bits = builder.sub(number(64), builder.call(leading, [exponent, ir.Constant(I1, 0)]))
    zero, one = ir.Constant(DOUBLE, 0.0), ir.Constant(DOUBLE, 1.0)
    _, high, low, *_ = code.loop(bits, [exponent, one, zero, base, zero], bit)
    return builder.fsub(builder.fsub(one, high), low)


for _decayed in (False, True):
    _ending = "_decayed" if _decayed else ""
    written("gd" + _ending)(_gd(_decayed))
    written("gd_momentum" + _ending)(_gd_momentum(False, _decayed))
    written("gd_nesterov" + _ending)(_gd_momentum(True, _decayed))
    written("adam" + _ending)(_adam(_decayed))
