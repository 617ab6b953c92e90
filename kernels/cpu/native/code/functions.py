"""The functions of the expression language as vector code: exp, expm1, log, log1p, tanh, erf; and the sigmoid.

    y = exp(code, x)        code: an ``emit.Code``, x: a vector of its type

Each is a reduction of the argument and a polynomial, without a branch, for float and double and any number of lanes.
The error is at most 2 units in the last place of a float (exp, log, log1p: 0.9) and about as many of a double, denormal
results included. Infinities, overflow and NaN come out as they should, and zero keeps its sign where the function does.
Products are joined with the sums that follow them, here and only here: what an expression rounds in between, the vector
machine rounds in between.

What is not here: square roots and quotients (``roots``), and everything else that a processor has an instruction for.
"""

from __future__ import annotations

import math

from llvmlite import ir

from .. import machine
from ..emit import I32, Code
from .roots import reciprocal

# exp(r) - 1 - r = r^2 (c0 + c1 r + ...) on [-ln 2 / 2, ln 2 / 2], minimax: off by 3e-9 and 4e-18.
_EXP = {
    4: (5.000000095315509e-1, 1.666651856969079e-1, 4.166620549713449e-2, 8.368920923993210e-3, 1.395050895111577e-3),
    8: (
        5.0000000000000129191e-1, 1.666666666666669099e-1, 4.1666666666514177214e-2, 8.3333333333119188891e-3,
        1.3888888947311067909e-3, 1.984126990785153514e-4, 2.4801489653012787255e-5, 2.7557224372883243781e-6,
        2.7631380357978297659e-7, 2.5115413657951315544e-8,
    ),
}  # fmt: skip
# ln 2 in two parts; the first has few enough bits that whole multiples of it are exact.
_LN2 = {4: (0.693359375, math.log(2) - 0.693359375), 8: (6.93147180369123816490e-1, 1.90821492927058770002e-10)}
# Beyond these exp is infinite, is 0, is below the smallest normal number, and exp - 1 is -1.
_EXP_MOST = {4: 89.0, 8: 710.0}
_EXP_LEAST = {4: -104.0, 8: -746.0}
_EXP_NORMAL = {4: -87.0, 8: -708.0}
_EXPM1_LEAST = {4: -40.0, 8: -80.0}

# tanh(x) = x + x^3 (c0 + c1 x^2 + ...) below 5/8, minimax: off by 4e-9 and 1e-17.
_TANH = {
    4: (
        -3.3333283867308321e-1, 1.3331489980841287e-1, -5.3743402859163824e-2, 2.0650308239747014e-2,
        -5.7167599596898227e-3,
    ),
    8: (
        -3.3333333333332877223e-1, 1.3333333333264838802e-1, -5.3968253932453329307e-2, 2.1869487601394919548e-2,
        -8.8632213126535906192e-3, 3.5919915226143141101e-3, -1.4549702504342434214e-3, 5.8635180208291004333e-4,
        -2.286319577940173004e-4, 7.7217811650282712159e-5, -1.6106915613367216856e-5,
    ),
}  # fmt: skip
_TANH_MOST = {4: 20.0, 8: 40.0}  # of 2 x, beyond which it is 1

# log((1 + s) / (1 - s)) = 2 s + s (c0 s^2 + c1 s^4 + ...) for 1 + f between the roots of 1/2 and 2, s = f / (2 + f).
# The coefficients are those of FreeBSD's msun (Sun Microsystems, 1993, e_log.c and e_logf.c).
_LOG = {
    4: (0.66666662693, 0.40000972152, 0.28498786688, 0.24279078841),
    8: (
        6.666666666666735130e-1, 3.999999999940941908e-1, 2.857142874366239149e-1, 2.222219843214978396e-1,
        1.818357216161805012e-1, 1.531383769920937332e-1, 1.479819860511658591e-1,
    ),
}  # fmt: skip

# erf(x) = x + x (c0 + c1 x^2 + ...) below 1, minimax: off by 1e-9 and 7e-18.
_ERF = {
    4: (
        1.2837916591289083e-1, -3.7612627129738905e-1, 1.1283600103180678e-1, -2.6854441460214222e-2,
        5.1895292793328921e-3, -8.0207872637539006e-4, 7.8889390787169526e-5,
    ),
    8: (
        1.2837916709551256679e-1, -3.7612638903183546481e-1, 1.1283791670945247702e-1, -2.6866170643275400154e-2,
        5.2239776074172261395e-3, -8.5483259894177026125e-4, 1.2055295312686378212e-4, -1.4924744522568648431e-5,
        1.6447516042875563154e-6, -1.6209164089949888188e-7, 1.3722927853300048074e-8, -7.8011030897592528814e-10,
    ),
}  # fmt: skip
# -log(1 - erf(x)) = c0 + c1 x + ... from 1 to where erf is 1, such that erf is off by 2e-8 and 7e-18.
_ERFC = {
    4: (
        2.6749433477898364e-3, 1.1174273307059128, 6.5450393000906e-1, 8.862436444165625e-2, -1.4774994089313645e-2,
        1.1500347127093922e-3,
    ),
    8: (
        5.140177480365595e-7, 1.128373984304012, 6.366440878993854e-1, 1.0270220030586429e-1, -1.898787358702211e-2,
        -4.137686187966545e-4, 1.9191878140001827e-3, -7.73238636928294e-4, 1.3667783115636577e-4,
        1.9462263934021476e-5, -2.250914313333315e-5, 8.571505490100942e-6, -2.1130752672656756e-6,
        3.692560872097093e-7, -4.5892664082749135e-8, 3.886353747674291e-9, -2.0183124360909562e-10,
        4.859886398389363e-12,
    ),
}  # fmt: skip
_ERF_MOST = {4: 4.0, 8: 6.0}

_MANTISSA = {4: 23, 8: 52}
_BIAS = {4: 127, 8: 1023}


# ---- exponentials ----


def exp(code: Code, x):
    """e^x; infinity and 0 beyond the range."""
    return _exp_inside(code, least(code, most(code, x, _EXP_MOST[code.size]), _EXP_LEAST[code.size]))


def exp_of_negative(code: Code, x):
    """e^x for x <= 0, to one unit in the last place, and 0 where that is no normal number: half the work of ``exp``."""
    builder, low = code.builder, code.constant(_EXP_NORMAL[code.size])
    tiny = builder.fcmp_ordered("<", x, low)
    return builder.select(tiny, code.constant(0.0), _exp_normal(code, builder.select(tiny, low, x)))


def _exp_normal(code: Code, x):
    """e^x to one unit in the last place, where that is a normal number."""
    bits, n = _rounded(code, x, 1 / math.log(2), _BIAS[code.size])
    r, power = _remainder(code, x, n), _power(code, bits)
    series = code.multiply_add(code.builder.fmul(r, r), polynomial(code, r, _EXP[code.size]), r)
    return code.multiply_add(power, series, power)


def _exp_to_a_unit(code: Code, x):
    """e^x to one unit in the last place, for x between the limits of ``exp``."""
    bits, n = _rounded(code, x, 1 / math.log(2), 2 * _BIAS[code.size])
    r = _remainder(code, x, n)
    series = code.multiply_add(code.builder.fmul(r, r), polynomial(code, r, _EXP[code.size]), r)
    return _scaled(code, code.builder.fadd(code.constant(1.0), series), x, bits, n)


def _exp_inside(code: Code, x):
    """n = round(x / ln 2), r = x - n ln 2, and e^x = 2^n e^r."""
    builder, one = code.builder, code.constant(1.0)
    bits, n = _rounded(code, x, 1 / math.log(2), 2 * _BIAS[code.size])
    r = _remainder(code, x, n)
    high = builder.fadd(one, r)
    low = builder.fadd(builder.fsub(one, high), r)  # what the sum has lost: 1 + r is high + low
    series = code.multiply_add(builder.fmul(r, r), polynomial(code, r, _EXP[code.size]), low)
    return _scaled(code, builder.fadd(high, series), x, bits, n)


def _scaled(code: Code, value, x, bits, n):
    """value 2^n, where ``bits`` end in n and twice the bias.

    AVX-512 has an instruction for this. Otherwise 2^n is multiplied in two halves, because near the ends of the range
    it is no number of its own.
    """
    builder = code.builder
    if code.size * code.lanes == 64 and machine.features().get("avx512f"):
        kind, chosen = {4: "ps", 8: "pd"}[code.size], ir.IntType(code.lanes)
        name = f"llvm.x86.avx512.mask.scalef.{kind}.512"
        scale = code.declare(name, code.vector, [code.vector] * 3 + [chosen, I32])
        as_usual = ir.Constant(I32, 4)  # rounding
        return builder.call(scale, [value, n, value, ir.Constant(chosen, -1), as_usual])
    half, _ = _rounded(code, x, 0.5 / math.log(2), _BIAS[code.size])
    for each in (half, builder.sub(bits, half)):  # the difference has the bias of the whole less that of the half
        value = builder.fmul(value, _power(code, each))
    return value


def expm1(code: Code, x):
    """e^x - 1 = 2^n (e^r - 1) + (2^n - 1), which loses no digits near 0."""
    builder = code.builder
    inside = least(code, most(code, x, _EXP_MOST[code.size]), _EXPM1_LEAST[code.size])
    bits, n = _rounded(code, inside, 1 / math.log(2), _BIAS[code.size] - 1)
    r, half = _remainder(code, inside, n), _power(code, bits)
    series = code.multiply_add(builder.fmul(r, r), polynomial(code, r, _EXP[code.size]), r)
    result = code.multiply_add(half, series, builder.fsub(half, code.constant(0.5)))
    result = builder.fadd(result, result)
    near = builder.fcmp_ordered("==", n, code.constant(0.0))
    return _signed(code, builder.select(near, series, result), x)


def tanh(code: Code, x):
    """An odd polynomial below 5/8, 1 - 2 / (e^2|x| + 1) above."""
    builder, size = code.builder, magnitude(code, x)
    square = builder.fmul(x, x)
    near = code.multiply_add(builder.fmul(square, x), polynomial(code, square, _TANH[code.size]), x)
    power = _exp_normal(code, most(code, builder.fadd(size, size), _TANH_MOST[code.size]))
    half = reciprocal(code, builder.fadd(power, code.constant(1.0)), bounded=True)
    far = code.multiply_add(code.constant(-2.0), half, code.constant(1.0))
    is_near = builder.fcmp_ordered("<", size, code.constant(0.625))
    return _signed(code, builder.select(is_near, near, far), x)


def sigmoid(code: Code, x):
    """q = 1 / (1 + e) with e = e^-|x|; for negative x, where it is small and exact still, e / (1 + e) = e - e (e q)."""
    builder, one = code.builder, code.constant(1.0)
    power = _exp_to_a_unit(code, least(code, builder.fneg(magnitude(code, x)), _EXP_LEAST[code.size]))
    upper = reciprocal(code, builder.fadd(one, power), bounded=True)
    lower = code.multiply_add(builder.fneg(power), builder.fmul(power, upper), power)
    return builder.select(builder.fcmp_ordered("<", x, code.constant(0.0)), lower, upper)


def _rounded(code: Code, x, factor: float, bias: int):
    """round(x factor) + bias as an integer's low bits, with 1.5 2^(bits of the mantissa) above them; and without both.

    Adding the large number rounds: it leaves no bits for a fraction.
    """
    large = code.constant(1.5 * 2.0 ** _MANTISSA[code.size] + bias)
    rounded = code.multiply_add(x, code.constant(factor), large)
    return code.builder.bitcast(rounded, code.integers), code.builder.fsub(rounded, large)


def _remainder(code: Code, x, n):
    """x - n ln 2."""
    minus_n = code.builder.fneg(n)
    for part in _LN2[code.size]:
        x = code.multiply_add(minus_n, code.constant(part), x)
    return x


def _power(code: Code, bits):
    """2^n, of n and the bias in the low bits of an integer."""
    power = code.builder.shl(bits, code.whole(_MANTISSA[code.size]))
    return code.builder.bitcast(power, code.vector)


# ---- logarithms ----


def log(code: Code, x):
    """log x = k ln 2 + log(1 + f), with x = 2^k (1 + f)."""
    builder, mantissa = code.builder, _MANTISSA[code.size]
    smallest = 2.0 ** (2 - _BIAS[code.size])
    denormal = builder.fcmp_ordered("<", x, code.constant(smallest))
    scaled = builder.select(denormal, builder.fmul(x, code.constant(2.0**mantissa)), x)
    k, f = _split(code, scaled)
    k = builder.fsub(k, builder.select(denormal, code.constant(float(mantissa)), code.constant(0.0)))
    return _log_limits(code, x, _log_of(code, k, f, code.constant(0.0)), least=0.0)


def log1p(code: Code, x):
    """log(1 + x): what is lost when 1 + x is rounded to u, comes back as c = (1 + x - u) / u."""
    builder, one = code.builder, code.constant(1.0)
    u = builder.fadd(one, x)
    k, f = _split(code, u)
    lost = builder.select(
        builder.fcmp_ordered(">", x, one),
        builder.fsub(one, builder.fsub(u, x)),
        builder.fsub(x, builder.fsub(u, one)),
    )
    near = builder.fcmp_ordered("==", k, code.constant(0.0))  # there x itself is f
    f = builder.select(near, x, f)
    c = builder.select(near, code.constant(0.0), builder.fdiv(lost, u))
    return _signed(code, _log_limits(code, x, _log_of(code, k, f, c), least=-1.0), x)


def _split(code: Code, x):
    """k and f with x = 2^k (1 + f), 1 + f between the roots of 1/2 and 2; for normal positive x."""
    builder, mantissa = code.builder, code.whole(_MANTISSA[code.size])
    root = {4: 0x3F3504F3, 8: 0x3FE6A09E667F3BCD}[code.size]
    bits = builder.sub(builder.bitcast(x, code.integers), code.whole(root))
    k = builder.ashr(bits, mantissa)
    fraction = builder.sub(builder.bitcast(x, code.integers), builder.shl(k, mantissa))
    f = builder.fsub(builder.bitcast(fraction, code.vector), code.constant(1.0))
    return builder.sitofp(k, code.vector), f


def _log_of(code: Code, k, f, c):
    """k ln 2 + log(1 + f) + c, c far below the rest."""
    builder, (high, low) = code.builder, _LN2[code.size]
    s = builder.fdiv(f, builder.fadd(code.constant(2.0), f))
    square = builder.fmul(s, s)
    series = builder.fmul(square, polynomial(code, square, _LOG[code.size]))
    half = builder.fmul(builder.fmul(code.constant(0.5), f), f)
    rest = code.multiply_add(s, builder.fadd(half, series), code.multiply_add(k, code.constant(low), c))
    return code.multiply_add(k, code.constant(high), builder.fsub(f, builder.fsub(half, rest)))


def _log_limits(code: Code, x, result, least: float):
    """The logarithm of infinity, of what is 0 (x = ``least``), of what is below 0, and of NaN."""
    builder, infinity = code.builder, code.constant(math.inf)
    inside = builder.fcmp_ordered("<", x, infinity)
    result = builder.select(inside, result, x)
    result = builder.select(builder.fcmp_ordered("==", x, code.constant(least)), code.constant(-math.inf), result)
    return builder.select(builder.fcmp_ordered("<", x, code.constant(least)), code.constant(math.nan), result)


# ---- the error function ----


def erf(code: Code, x):
    """2 / sqrt(pi) times the integral of e^(-t^2) from 0 to x: an odd polynomial below 1, 1 - e^-p(|x|) above."""
    builder = code.builder
    size = magnitude(code, x)
    near = code.multiply_add(x, polynomial(code, builder.fmul(x, x), _ERF[code.size]), x)
    clamped = most(code, size, _ERF_MOST[code.size])
    power = _exp_inside(code, polynomial(code, clamped, [-each for each in _ERFC[code.size]]))
    far = builder.fsub(code.constant(1.0), power)
    is_near = builder.fcmp_ordered("<", size, code.constant(1.0))
    return _signed(code, builder.select(is_near, near, far), x)


# ---- what they share ----


def polynomial(code: Code, x, coefficients):
    """c0 + c1 x + c2 x^2 + ..., by Horner's rule."""
    value = code.constant(coefficients[-1])
    for each in coefficients[-2::-1]:
        value = code.multiply_add(value, x, code.constant(each))
    return value


def most(code: Code, x, limit: float):
    """The smaller of x and a limit; NaN stays NaN, because a comparison with it is false."""
    limit = code.constant(limit)
    return code.builder.select(code.builder.fcmp_ordered("<", limit, x), limit, x)


def least(code: Code, x, limit: float):
    """The larger of x and a limit; NaN stays NaN."""
    limit = code.constant(limit)
    return code.builder.select(code.builder.fcmp_ordered(">", limit, x), limit, x)


def magnitude(code: Code, x):
    return code.builder.call(code.declare(f"llvm.fabs.{code.suffix}", code.vector, [code.vector]), [x])


def _signed(code: Code, x, sign):
    """|x| with the sign of ``sign``."""
    function = code.declare(f"llvm.copysign.{code.suffix}", code.vector, [code.vector] * 2)
    return code.builder.call(function, [x, sign])
