"""Elementwise operations: each says its mathematics once, as an expression, and its derivative, as operations.

At a kink the derivative is what the frameworks give: 0 for relu and abs at 0, 1 for clip at its bounds, one half to
each operand where maximum and minimum tie.
"""

from __future__ import annotations

import math

from tinynet.backend import is_floating
from tinynet.errors import ArgumentError, DTypeError

from .record import Op
from .samples import Arg, Sample, binary, unary
from .spec import BOOL, Spec, broadcast_shapes, same_dtype


def elementwise(name, inputs, expression, *, vjp=None, keep=(), kind="float", samples, doc="", result=None, **more):
    """A record for an elementwise operation with broadcasting.

    Args:
        kind: which element types it takes ("float", "number" or "any"); all inputs have the same.
        result: the element type of the output; that of the inputs by default.
    """

    def rule(*specs, **_):
        dtype = same_dtype(name, *specs, kind=kind)
        return Spec(broadcast_shapes(name, *(spec.shape for spec in specs)), result or dtype)

    return Op(
        name, inputs, rule, expression=expression, vjp=vjp, keep=keep, broadcasts=True, samples=samples, doc=doc,
        overwrites=() if result else tuple(range(len(inputs.split()))), **more,
    )  # fmt: skip


# ---- arithmetic ----

add = elementwise(
    "add", "a b", "a + b", kind="number", samples=binary(), doc="a + b, with broadcasting.",
    vjp=(lambda g, y, a, b: g, lambda g, y, a, b: g),
)  # fmt: skip
subtract = elementwise(
    "subtract", "a b", "a - b", kind="number", samples=binary(), doc="a - b, with broadcasting.",
    vjp=(lambda g, y, a, b: g, lambda g, y, a, b: -g),
)  # fmt: skip
multiply = elementwise(
    "multiply", "a b", "a * b", kind="number", samples=binary(), doc="a * b, with broadcasting.",
    vjp=(lambda g, y, a, b: g * b, lambda g, y, a, b: g * a), keep=(0, 1),
)  # fmt: skip
divide = elementwise(
    "divide", "a b", "a / b", samples=binary(second=(0.5, 2.0)), doc="a / b, with broadcasting.",
    vjp=(lambda g, y, a, b: g / b, lambda g, y, a, b: -g * y / b), keep=(1, "y"),
)  # fmt: skip


def _power_base(g, y, a, b):
    # x ** 0 is constantly 1, at 0 too, where b a^(b - 1) would be 0 times infinity
    return g * b * power(where(logical_and(a == 0, b == 0), 1.0, a), b - 1)


def _power_exponent(g, y, a, b):
    # 0 ** b is constantly 0 (or 1) in b: the logarithm is taken of 1 there
    return g * where(a == 0, 0.0, y * log(where(a == 0, 1.0, a)))


power = elementwise(
    "power", "a b", "a ** b", samples=binary(0.5, 2.0), vjp=(_power_base, _power_exponent), keep=(0, 1, "y"),
    doc="a ** b. NaN where a < 0 and b is not whole.",
)  # fmt: skip
negative = elementwise(
    "negative", "x", "-x", kind="number", samples=unary(), vjp=(lambda g, y, x: -g,), doc="-x.",
)  # fmt: skip
square = elementwise(
    "square", "x", "x * x", kind="number", samples=unary(), vjp=(lambda g, y, x: g * (2 * x),), keep=(0,), doc="x^2.",
)  # fmt: skip
abs = elementwise(
    "abs", "x", "abs(x)", kind="number", samples=unary(avoid=(0,)), vjp=(lambda g, y, x: g * sign(x),), keep=(0,),
    doc="The absolute value.",
)  # fmt: skip
sign = elementwise(
    "sign", "x", "sign(x)", kind="number", samples=unary(avoid=(0,)), vjp=(lambda g, y, x: g * 0,),
    doc="-1, 0 or 1; NaN stays NaN. Its derivative is 0.",
)  # fmt: skip


def _share(wins, ties):
    return where(wins, 1.0, where(ties, 0.5, 0.0))


maximum = elementwise(
    "maximum", "a b", "maximum(a, b)", kind="number", samples=binary(), keep=(0, 1),
    vjp=(
        lambda g, y, a, b: g * _share(a > b, a == b).astype(g.dtype),
        lambda g, y, a, b: g * _share(b > a, a == b).astype(g.dtype),
    ),
    doc="The larger of a and b; NaN if either is.",
)  # fmt: skip
minimum = elementwise(
    "minimum", "a b", "minimum(a, b)", kind="number", samples=binary(), keep=(0, 1),
    vjp=(
        lambda g, y, a, b: g * _share(a < b, a == b).astype(g.dtype),
        lambda g, y, a, b: g * _share(b < a, a == b).astype(g.dtype),
    ),
    doc="The smaller of a and b; NaN if either is.",
)  # fmt: skip


def _check_clip(spec, low, high):
    if not low <= high:
        raise ArgumentError("clip", expected="low <= high", got=f"low={low}, high={high}")
    if not is_floating(spec.dtype) and not all(isinstance(each, int) or math.isinf(each) for each in (low, high)):
        raise DTypeError("clip", expected=f"whole bounds for a tensor of {spec.dtype}", got=f"{low} and {high}")
    return {"low": low, "high": high}


clip = elementwise(
    "clip", "x", "minimum(maximum(x, low), high)", samples=unary(avoid=(-1, 1), low=-3, high=3, ),
    attributes={"low": -1.0, "high": 1.0}, normalize=_check_clip, keep=(0,),
    vjp=(lambda g, y, x, low, high: where(logical_and(x >= low, x <= high), g, 0.0),),
    doc="x, no less than low and no more than high (Python numbers).",
)  # fmt: skip

# ---- exponentials and their kin ----

exp = elementwise("exp", "x", "exp(x)", samples=unary(), vjp=(lambda g, y, x: g * y,), keep=("y",), doc="e^x.")
expm1 = elementwise(
    "expm1", "x", "expm1(x)", samples=unary(), vjp=(lambda g, y, x: g * (y + 1),), keep=("y",),
    doc="e^x - 1, exact near 0.",
)  # fmt: skip
log = elementwise(
    "log", "x", "log(x)", samples=unary(0.3, 3), vjp=(lambda g, y, x: g / x,), keep=(0,), doc="The natural logarithm.",
)  # fmt: skip
log1p = elementwise(
    "log1p", "x", "log1p(x)", samples=unary(-0.5, 3), vjp=(lambda g, y, x: g / (x + 1),), keep=(0,),
    doc="log(1 + x), exact near 0.",
)  # fmt: skip
sqrt = elementwise(
    "sqrt", "x", "sqrt(x)", samples=unary(0.3, 3), vjp=(lambda g, y, x: g / (2 * y),), keep=("y",), doc="Square root.",
)  # fmt: skip
erf = elementwise(
    "erf", "x", "erf(x)", samples=unary(), vjp=(lambda g, y, x: g * (exp(-square(x)) * (2 / math.sqrt(math.pi))),),
    keep=(0,), doc="The error function, 2/sqrt(pi) times the integral of exp(-t^2) from 0 to x.",
)  # fmt: skip

# ---- activations ----

tanh = elementwise(
    "tanh", "x", "tanh(x)", samples=unary(), vjp=(lambda g, y, x: g * (1 - square(y)),), keep=("y",),
    doc="The hyperbolic tangent.",
)  # fmt: skip
sigmoid = elementwise(
    "sigmoid", "x", "1 / (1 + exp(-x))", samples=unary(), vjp=(lambda g, y, x: g * (y * (1 - y)),), keep=("y",),
    doc="The logistic function, 1 / (1 + e^-x).",
)  # fmt: skip
relu = elementwise(
    "relu", "x", "maximum(x, 0)", samples=unary(avoid=(0,)), vjp=(lambda g, y, x: where(y > 0, g, 0.0),), keep=("y",),
    doc="max(x, 0).",
)  # fmt: skip


def _check_slope(spec, slope):
    if not isinstance(slope, (int, float)) or slope < 0:
        raise ArgumentError("leaky_relu", expected="slope >= 0", got=repr(slope))
    return {"slope": float(slope)}


leaky_relu = elementwise(
    "leaky_relu", "x", "where(x > 0, x, slope * x)", samples=unary(avoid=(0,)), attributes={"slope": 0.01},
    vjp=(lambda g, y, x, slope: where(y > 0, g, g * slope),), keep=("y",), normalize=_check_slope,
    doc="x where positive, slope * x elsewhere (Maas et al. 2013); slope 0.01 by default.",
)  # fmt: skip


def _gelu_vjp(g, y, x):
    density = exp(square(x) * -0.5) * (1 / math.sqrt(2 * math.pi))
    return g * ((1 + erf(x * math.sqrt(0.5))) * 0.5 + x * density)


def _gelu_tanh_vjp(g, y, x):
    t = tanh((x + square(x) * x * 0.044715) * math.sqrt(2 / math.pi))
    inner = (1 + square(x) * (3 * 0.044715)) * math.sqrt(2 / math.pi)
    return g * (0.5 * (1 + t) + 0.5 * x * (1 - square(t)) * inner)


gelu = elementwise(
    "gelu", "x", "0.5 * x * (1 + erf(x * sqrt(0.5)))", samples=unary(), vjp=(_gelu_vjp,), keep=(0,),
    doc="x Phi(x), Phi the normal distribution (Hendrycks and Gimpel 2016), by the error function.",
)  # fmt: skip
gelu_tanh = elementwise(
    "gelu_tanh", "x", "0.5 * x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x * x * x)))", samples=unary(), keep=(0,),
    vjp=(_gelu_tanh_vjp,), doc="The tanh approximation of gelu (Hendrycks and Gimpel 2016).",
)  # fmt: skip


def _silu_vjp(g, y, x):
    s = sigmoid(x)
    return g * (s * (1 + x * (1 - s)))


silu = elementwise(
    "silu", "x", "x / (1 + exp(-x))", samples=unary(), vjp=(_silu_vjp,), keep=(0,),
    doc="x sigmoid(x), also called swish (Elfwing et al. 2017).",
)  # fmt: skip
softplus = elementwise(
    "softplus", "x", "maximum(x, 0) + log1p(exp(-abs(x)))", samples=unary(), vjp=(lambda g, y, x: g * sigmoid(x),),
    keep=(0,), doc="log(1 + e^x), without overflow.",
)  # fmt: skip

# ---- comparisons, logic, choice ----


def _comparison(name, symbol, words, kind="number"):
    return elementwise(
        name, "a b", f"a {symbol} b", kind=kind, result=BOOL, samples=binary(),
        doc=f"Whether a is {words} b: booleans.",
    )  # fmt: skip


equal = _comparison("equal", "==", "equal to", kind="any")
not_equal = _comparison("not_equal", "!=", "unequal to", kind="any")
less = _comparison("less", "<", "less than")
less_equal = _comparison("less_equal", "<=", "less than or equal to")
greater = _comparison("greater", ">", "greater than")
greater_equal = _comparison("greater_equal", ">=", "greater than or equal to")


def _logic(name, inputs, expression, doc):
    def rule(*specs):
        for spec in specs:
            if spec.dtype != BOOL:
                raise DTypeError(name, expected="bool", got=str(spec.dtype), mend="compare first: x > 0")
        return Spec(broadcast_shapes(name, *(spec.shape for spec in specs)), BOOL)

    def samples(n):
        yield Sample(tuple(Arg((3, n), kind="bool") for _ in inputs.split()))

    return Op(name, inputs, rule, expression=expression, samples=samples, broadcasts=True, doc=doc)


logical_and = _logic("logical_and", "a b", "logical_and(a, b)", "Whether both are true.")
logical_or = _logic("logical_or", "a b", "logical_or(a, b)", "Whether either is true.")
logical_not = _logic("logical_not", "x", "logical_not(x)", "Whether it is false.")


def _where_rule(condition, a, b):
    if condition.dtype != BOOL:
        raise DTypeError(
            "where", expected="a bool condition", got=str(condition.dtype), mend="compare first: where(x > 0, a, b)"
        )
    return Spec(broadcast_shapes("where", condition.shape, a.shape, b.shape), same_dtype("where", a, b, kind="any"))


def _where_samples(n):
    yield Sample((Arg((n,), kind="bool"), Arg((n,)), Arg((n,))))
    yield Sample((Arg((3, 1), kind="bool"), Arg((n,)), Arg(())))


where = Op(
    "where", "condition a b", _where_rule, expression="where(condition, a, b)", broadcasts=True, keep=(0,),
    vjp=(None, lambda g, y, c, a, b: where(c, g, 0.0), lambda g, y, c, a, b: where(c, 0.0, g)),
    samples=_where_samples, doc="a where the condition holds, b elsewhere; with broadcasting.",
)  # fmt: skip
