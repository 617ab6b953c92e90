"""Functions that the array-API standard lacks, in terms of those that it has."""

from __future__ import annotations

from ..expression import Expression, Node

# W. J. Cody, "Rational Chebyshev approximations for the error function", Mathematics of Computation 23 (1969):
# erf(x) = x P(x^2)/Q(x^2) near zero, 1 - exp(-x^2) P(|x|)/Q(|x|) in the middle, and for large |x|
# 1 - exp(-x^2)/|x| (1/sqrt(pi) - P(x^-2)/(x^2 Q(x^-2))). Coefficients from the highest power down.
_NEAR = (
    (1.85777706184603153e-1, 3.16112374387056560e0, 1.13864154151050156e2, 3.77485237685302021e2,
     3.20937758913846947e3),
    (1.0, 2.36012909523441209e1, 2.44024637934444173e2, 1.28261652607737228e3, 2.84423683343917062e3),
)  # fmt: skip
_MIDDLE = (
    (2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594e0, 6.61191906371416295e1,
     2.98635138197400131e2, 8.81952221241769090e2, 1.71204761263407058e3, 2.05107837782607147e3,
     1.23033935479799725e3),
    (1.0, 1.57449261107098347e1, 1.17693950891312499e2, 5.37181101862009858e2, 1.62138957456669019e3,
     3.29079923573345963e3, 4.36261909014324716e3, 3.43936767414372164e3, 1.23033935480374942e3),
)  # fmt: skip
_FAR = (
    (1.63153871373020978e-2, 3.05326634961232344e-1, 3.60344899949804439e-1, 1.25781726111229246e-1,
     1.60837851487422766e-2, 6.58749161529837803e-4),
    (1.0, 2.56852019228982242e0, 1.87295284992346047e0, 5.27905102951428412e-1, 6.05183413124413191e-2,
     2.33520497626869185e-3),
)  # fmt: skip


def _ratio(coefficients, x: str) -> str:
    """P(x) / Q(x) in the expression language, by Horner's rule."""
    top, bottom = (str(each[0]) for each in coefficients)
    for a, b in zip(*(each[1:] for each in coefficients)):
        top, bottom = f"({top} * {x} + {a!r})", f"({bottom} * {x} + {b!r})"
    return f"({top} / {bottom})"


def _erf() -> Node:
    square, size = "(x * x)", "abs(x)"
    near = f"x * {_ratio(_NEAR, f'minimum({square}, 0.25)')}"
    middle_at, far_at = f"minimum(maximum({size}, 0.46875), 4)", f"minimum(maximum({size}, 4), 6)"  # 6: erf is 1
    inverse = f"(1 / ({far_at} * {far_at}))"
    middle = f"(1 - exp(-{middle_at} * {middle_at}) * {_ratio(_MIDDLE, middle_at)})"
    far = f"(1 - exp(-{far_at} * {far_at}) / {far_at} * (0.5641895835477562869 - {inverse} * {_ratio(_FAR, inverse)}))"
    tail = f"where({size} <= 4, {middle}, {far})"
    return Expression(f"where({size} <= 0.46875, {near}, where(x < 0, -{tail}, where(x > 0, {tail}, x)))").tree


ERF = _erf()


def erf(x):
    """The error function 2/sqrt(pi) * integral of exp(-t^2) from 0 to x, to the last digits of float64."""
    return _function(x.__array_namespace__(), x)


_function = Expression(ERF).function()
