"""Pointwise functions that are formulas of others, and gates that halve or weight channels."""

from __future__ import annotations

import math

from warpsmith.author.builtin.lowering.pointwise import Operand, element, literal_like, mapped
from warpsmith.author.builtin.lowering.registry import Site, lowers
from warpsmith.author.builtin.scalar import FLOATS, Literal, Scalar, apply, compute_dtype
from warpsmith.author.builtin.values import Coords, Value, Virtual

_LARGEST = {
    "float64": 1.7976931348623157e308, "float32": 3.4028234663852886e38, "float16": 65504.0,
    "bfloat16": 3.3895313892515355e38,
}  # fmt: skip


@lowers("logit.default", "special_logit.default")
def logit(site: Site, x: Value, eps: float | None = None) -> Value:
    """log(x / (1 - x)), x first limited to [eps, 1 - eps] where given."""

    def body(a: Scalar) -> Scalar:
        one = literal_like(a, 1)
        if eps is not None:
            low, high = literal_like(a, eps), apply("sub", one, literal_like(a, eps))
            a = apply("minimum", apply("maximum", a, low), high)
        return apply("log", apply("div", a, apply("sub", one, a)))

    return mapped(site, body, x)


@lowers("xlogy.Tensor", "xlogy.Scalar_Other", "xlogy.Scalar_Self", "special_xlogy.default")
def xlogy(site: Site, x: Operand, y: Operand) -> Value:
    """x·log(y), zero where x is; NaN where y is."""

    def body(a: Scalar, b: Scalar) -> Scalar:
        zero = literal_like(a, 0)
        value = apply("where", apply("eq", a, zero), zero, apply("mul", a, apply("log", b)), dtype=a.dtype)
        return apply("where", apply("ne", b, b), b, value, dtype=a.dtype)

    return mapped(site, body, x, y)


@lowers("special_entr.default")
def entropy(site: Site, x: Value) -> Value:
    """-x·log(x), zero at zero and minus infinity below."""

    def body(a: Scalar) -> Scalar:
        zero = literal_like(a, 0)
        inside = apply("neg", apply("mul", a, apply("log", a)))
        value = apply("where", apply("eq", a, zero), zero, inside, dtype=a.dtype)
        return apply("where", apply("lt", a, zero), literal_like(a, -math.inf), value, dtype=a.dtype)

    return mapped(site, body, x)


@lowers("frac.default")
def frac(site: Site, x: Value) -> Value:
    """What follows the decimal point, with the sign of x."""
    return mapped(site, lambda a: apply("sub", a, apply("trunc", a)), x)


@lowers("isinf.default", "isfinite.default")
def isinf(site: Site, x: Value) -> Value:
    """Whether the element is infinite, or (isfinite) neither infinite nor NaN."""
    finite = "isfinite" in site.node.op

    def body(a: Scalar) -> Scalar:
        if a.dtype not in FLOATS:
            return Literal(finite, "bool")
        op = "lt" if finite else "eq"
        return apply(op, apply("abs", a), Literal(math.inf, a.dtype))

    return mapped(site, body, x)


@lowers("nan_to_num.default")
def nan_to_num(
    site: Site, x: Value, nan: float | None = None, posinf: float | None = None, neginf: float | None = None
) -> Value:
    """Numbers in the place of NaN and of both infinities: zero and the largest finite ones unless given."""
    largest = _LARGEST.get(x.dtype, 0.0)

    def body(a: Scalar) -> Scalar:
        if a.dtype not in FLOATS:
            return a
        out = a
        for limit, given, usual in ((math.inf, posinf, largest), (-math.inf, neginf, -largest)):
            due = literal_like(a, usual if given is None else given)
            out = apply("where", apply("eq", a, literal_like(a, limit)), due, out, dtype=a.dtype)
        return apply("where", apply("ne", a, a), literal_like(a, nan or 0.0), out, dtype=a.dtype)

    return mapped(site, body, x)


@lowers("logaddexp.default")
def logaddexp(site: Site, x: Value, y: Value) -> Value:
    """log(exp(x) + exp(y)), without overflow; equal infinities give themselves."""

    def body(a: Scalar, b: Scalar) -> Scalar:
        gap = apply("abs", apply("sub", a, b))
        sum_ = apply("add", apply("maximum", a, b), apply("log1p", apply("exp", apply("neg", gap))))
        alike = apply("and", apply("eq", a, b), apply("eq", apply("abs", a), literal_like(a, math.inf)))
        return apply("where", alike, a, sum_, dtype=a.dtype)

    return mapped(site, body, x, y)


@lowers("glu.default")
def glu(site: Site, x: Value, dim: int = -1) -> Value:
    """The first half of a dimension times the sigmoid of the second."""
    dim %= len(x.shape)
    half = x.shape[dim] // 2
    dtype = compute_dtype(x.dtype)

    def formula(coords: Coords) -> Scalar:
        second = (*coords[:dim], coords[dim] + half, *coords[dim + 1 :])
        return apply("mul", element(x, coords, dtype), apply("sigmoid", element(x, second, dtype)))

    return Virtual(site.name(), site.spec.shape, site.spec.dtype, formula)


@lowers("prelu.default", "_prelu_kernel.default")
def prelu(site: Site, x: Value, weight: Value) -> Value:
    """x above zero, its channel's slope times x below; channels are dimension 1."""
    dtype = compute_dtype(x.dtype)

    def formula(coords: Coords) -> Scalar:
        a = element(x, coords, dtype)
        if len(weight.shape) == len(x.shape):
            slope = element(weight, coords, dtype)
        else:
            slope = element(weight, coords[1:2] if len(x.shape) > 1 else coords[:1], dtype)
        return apply("where", apply("gt", a, literal_like(a, 0)), a, apply("mul", slope, a), dtype=dtype)

    return Virtual(site.name(), site.spec.shape, site.spec.dtype, formula)
