"""Activation functions."""

from __future__ import annotations

import math

from warpsmith.author.builtin.lowering.pointwise import Operand, literal_like, mapped, scaled
from warpsmith.author.builtin.lowering.registry import Site, lowers
from warpsmith.author.builtin.scalar import Scalar, apply
from warpsmith.author.builtin.values import Value


@lowers("relu.default", "relu_.default")
def relu(site: Site, x: Value) -> Value:
    """max(x, 0); NaN stays NaN."""
    return mapped(site, _relu, x)


def _relu(a: Scalar) -> Scalar:
    zero = literal_like(a, 0)
    return apply("where", apply("lt", a, zero), zero, a, dtype=a.dtype)


@lowers("relu6.default")
def relu6(site: Site, x: Value) -> Value:
    """x clamped to [0, 6]."""
    return mapped(site, lambda a: _clamp(a, 0, 6), x)


@lowers("hardtanh.default", "hardtanh_.default")
def hardtanh(site: Site, x: Value, low: float = -1.0, high: float = 1.0) -> Value:
    """x clamped to [low, high]."""
    return mapped(site, lambda a: _clamp(a, low, high), x)


@lowers("clamp.default", "clamp.Tensor", "clamp_min.default", "clamp_min.Tensor", "clip.default")
def clamp(site: Site, x: Value, min: Operand | None = None, max: Operand | None = None) -> Value:
    """x limited from below and above; NaN stays NaN."""
    given = [bound for bound in (min, max) if bound is not None]
    names = [op for op, bound in (("maximum", min), ("minimum", max)) if bound is not None]

    def body(a: Scalar, *limits: Scalar) -> Scalar:
        for op, limit in zip(names, limits, strict=True):
            a = apply(op, a, limit)
        return a

    return mapped(site, body, x, *given)


@lowers("clamp_max.default", "clamp_max.Tensor")
def clamp_max(site: Site, x: Value, high: Operand) -> Value:
    """x limited from above."""
    return mapped(site, lambda a, b: apply("minimum", a, b), x, high)


def _clamp(a: Scalar, low: float, high: float) -> Scalar:
    return apply("minimum", apply("maximum", a, literal_like(a, low)), literal_like(a, high))


@lowers("gelu.default")
def gelu(site: Site, x: Value, approximate: str = "none") -> Value:
    """x·Φ(x), by erf, or by tanh where the module asks for it."""

    def by_erf(a: Scalar) -> Scalar:
        inner = apply("mul", a, literal_like(a, math.sqrt(0.5)))
        return _product(literal_like(a, 0.5), a, _plus_one(apply("erf", inner)))

    def by_tanh(a: Scalar) -> Scalar:
        cube = _product(literal_like(a, 0.044715), a, a, a)
        inner = apply("mul", literal_like(a, math.sqrt(2 / math.pi)), apply("add", a, cube))
        return _product(literal_like(a, 0.5), a, _plus_one(apply("tanh", inner)))

    return mapped(site, by_tanh if approximate == "tanh" else by_erf, x)


def _product(first: Scalar, *rest: Scalar) -> Scalar:
    for factor in rest:
        first = apply("mul", first, factor)
    return first


def _plus_one(a: Scalar) -> Scalar:
    return apply("add", literal_like(a, 1), a)


@lowers("silu.default", "silu_.default")
def silu(site: Site, x: Value) -> Value:
    """x·sigmoid(x)."""
    return mapped(site, lambda a: apply("mul", a, apply("sigmoid", a)), x)


@lowers("mish.default")
def mish(site: Site, x: Value) -> Value:
    """x·tanh(softplus(x))."""
    return mapped(site, lambda a: apply("mul", a, apply("tanh", _softplus(a, 1.0, 20.0))), x)


@lowers("softplus.default")
def softplus(site: Site, x: Value, beta: float = 1.0, threshold: float = 20.0) -> Value:
    """log(1 + exp(beta·x)) / beta; x itself where beta·x exceeds the threshold."""
    return mapped(site, lambda a: _softplus(a, beta, threshold), x)


def _softplus(a: Scalar, beta: float, threshold: float) -> Scalar:
    steep = scaled(a, beta)
    soft = scaled(apply("log1p", apply("exp", steep)), 1 / beta)
    return apply("where", apply("gt", steep, literal_like(a, threshold)), a, soft, dtype=a.dtype)


@lowers("softsign.default")
def softsign(site: Site, x: Value) -> Value:
    """x / (1 + |x|)."""
    return mapped(site, lambda a: apply("div", a, _plus_one(apply("abs", a))), x)


@lowers("log_sigmoid.default", "log_sigmoid_forward.default")
def log_sigmoid(site: Site, x: Value) -> Value:
    """min(x, 0) - log(1 + exp(-|x|))."""

    def body(a: Scalar) -> Scalar:
        tail = apply("log1p", apply("exp", apply("neg", apply("abs", a))))
        return apply("sub", apply("minimum", a, literal_like(a, 0)), tail)

    return mapped(site, body, x)


@lowers("elu.default", "elu_.default")
def elu(site: Site, x: Value, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Value:
    """scale·x above zero, scale·alpha·(exp(input_scale·x) - 1) below."""

    def body(a: Scalar) -> Scalar:
        below = scaled(apply("expm1", scaled(a, input_scale)), alpha * scale)
        return apply("where", apply("gt", a, literal_like(a, 0)), scaled(a, scale), below, dtype=a.dtype)

    return mapped(site, body, x)


@lowers("selu.default")
def selu(site: Site, x: Value) -> Value:
    """Self-normalising ELU with its two fixed constants (Klambauer et al., 2017)."""
    return elu(site, x, 1.6732632423543772, 1.0507009873554805)


@lowers("celu.default")
def celu(site: Site, x: Value, alpha: float = 1.0) -> Value:
    """max(x, 0) + min(0, alpha·(exp(x / alpha) - 1))."""
    return elu(site, x, alpha, 1.0, 1.0 / alpha)


@lowers("leaky_relu.default", "leaky_relu_.default")
def leaky_relu(site: Site, x: Value, slope: float = 0.01) -> Value:
    """x above zero, slope·x below."""
    return mapped(
        site, lambda a: apply("where", apply("gt", a, literal_like(a, 0)), a, scaled(a, slope), dtype=a.dtype), x
    )


@lowers("hardsigmoid.default")
def hardsigmoid(site: Site, x: Value) -> Value:
    """clamp(x + 3, 0, 6) / 6."""
    return mapped(
        site, lambda a: apply("div", _clamp(apply("add", a, literal_like(a, 3)), 0, 6), literal_like(a, 6)), x
    )


@lowers("hardswish.default", "hardswish_.default")
def hardswish(site: Site, x: Value) -> Value:
    """x·clamp(x + 3, 0, 6) / 6."""

    def body(a: Scalar) -> Scalar:
        gate = _clamp(apply("add", a, literal_like(a, 3)), 0, 6)
        return apply("div", apply("mul", a, gate), literal_like(a, 6))

    return mapped(site, body, x)


@lowers("threshold.default")
def threshold(site: Site, x: Value, limit: float, value: float) -> Value:
    """x above the limit, `value` elsewhere."""
    return mapped(
        site,
        lambda a: apply("where", apply("le", a, literal_like(a, limit)), literal_like(a, value), a, dtype=a.dtype),
        x,
    )
