"""Optimizer updates as operations of the library, one pass each: what is read once is written once.

Rates and step counts are read from memory when the instruction runs. What follows from them is computed in double
precision, by each thread for itself, before its first element. Addresses of inputs and outputs may be the same: an
element is read before it is written, and no other one is.

Weight decay is an operation of its own (``..._decayed``), because without it a parameter that is infinite must not
touch its gradient.
"""

from __future__ import annotations

from llvmlite import ir

from ..emit import DOUBLE, I32, I64, Code, Piece
from .functions import expm1
from .roots import reciprocal, square_root
from .words import Words, part, written

UNIT = 1024  # elements that threads are dealt at a time: whole cache lines, whatever the vector
# Bytes ahead that are asked for. Adam on 16 million parameters moves 24 GB/s without that and 28 with it, with 512 and
# 2048 as well; NumPy copies at 27.
AHEAD = 1024


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
        decay = code.everywhere(decay) if decayed else None
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
        momentum, decay = code.everywhere(momentum), code.everywhere(decay) if decayed else None
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
        beta1, beta2, share1, share2, log1, log2, eps, decay, shrinkage = words.reals(9)
        mine, out_p, out_m, out_v, p, g, m, v = own(code, count, thread, threads, out_p, out_m, out_v, p, g, m, v)
        rate = code.as_double(builder.load(code.pointer(lr, code.element), align=code.size))
        one, t = ir.Constant(DOUBLE, 1.0), builder.load(code.pointer(step, I64), align=8)
        left1, left2 = _one_minus_powers(builder, (log1, log2), t)
        root = builder.call(code.declare("llvm.sqrt.f64", DOUBLE, [DOUBLE]), [left2])
        small = code.everywhere(builder.fmul(eps, root))
        minus_rate = code.everywhere(builder.fneg(builder.fdiv(builder.fmul(rate, root), left1)))
        no_decay = builder.fcmp_ordered("==", shrinkage, ir.Constant(DOUBLE, 0.0))  # then the rate may be infinite
        shrink = builder.select(no_decay, one, builder.fsub(one, builder.fmul(rate, shrinkage)))
        shrink = code.everywhere(shrink)
        keep_m, keep_v, share_m, share_v = (code.everywhere(each) for each in (beta1, beta2, share1, share2))
        decay = code.everywhere(decay) if decayed else None

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


def _one_minus_powers(builder, logs, exponent):
    """1 - base^exponent of two bases, doubles, of which the logarithms are given: 1 - e^(exponent log base).

    e^x - 1 loses no digits near 0, and an x that has lost half a unit moves it by as much at most.
    """
    both, pair = Code(builder, 8, 2), ir.Constant(ir.VectorType(DOUBLE, 2), ir.Undefined)
    for i, each in enumerate(logs):
        power = builder.fmul(builder.sitofp(exponent, DOUBLE), each)
        pair = builder.insert_element(pair, power, ir.Constant(I32, i))
    pair = builder.fneg(expm1(both, pair))
    return [builder.extract_element(pair, ir.Constant(I32, i)) for i in range(2)]


for _decayed in (False, True):
    _ending = "_decayed" if _decayed else ""
    written("gd" + _ending)(_gd(_decayed))
    written("gd_momentum" + _ending)(_gd_momentum(False, _decayed))
    written("gd_nesterov" + _ending)(_gd_momentum(True, _decayed))
    written("adam" + _ending)(_adam(_decayed))
