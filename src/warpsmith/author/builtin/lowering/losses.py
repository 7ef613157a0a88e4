"""Losses: a value for each element or sample, then their mean or sum."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from warpsmith.author.builtin.lowering.pointwise import element, literal_like, scaled
from warpsmith.author.builtin.lowering.reductions import divided, reduction
from warpsmith.author.builtin.lowering.registry import Site, lowers
from warpsmith.author.builtin.scalar import Literal, Scalar, apply, cast, compute_dtype
from warpsmith.author.builtin.values import Coords, Formula, Reduction, Value, Virtual, expand_coords

_REDUCTIONS = {0: "none", 1: "mean", 2: "sum"}


def summarised(
    site: Site, shape: Sequence[int], losses: Formula, how: int, dtype: str, counted: Formula | None = None
) -> Value:
    """Return a loss for each element, their mean, or their sum; the mean is over what `counted` says counts."""
    if _REDUCTIONS[how] == "none":
        return Virtual(site.name(), site.spec.shape, site.spec.dtype, losses)
    dims = range(len(shape))
    total = reduction(site.name("total"), "sum", shape, dims, losses, (dtype,))
    if _REDUCTIONS[how] == "sum":
        return Virtual(site.name(), (), site.spec.dtype, lambda _: total.at(()))
    if counted is None:
        return Virtual(site.name(), (), site.spec.dtype, lambda _: divided(total.at(()), total.cols))
    count = reduction(site.name("count"), "sum", shape, dims, lambda c: cast(counted(c), dtype), (dtype,))
    return Virtual(site.name(), (), site.spec.dtype, lambda _: apply("div", total.at(()), count.at(())))


def _pairwise(site: Site, x: Value, y: Value, how: int, body: Callable[[Scalar, Scalar], Scalar]) -> Value:
    return _elementwise(site, (x, y), how, body)


def _elementwise(site: Site, operands: Sequence[Value], how: int, body: Callable[..., Scalar]) -> Value:
    dtype = compute_dtype(site.spec.dtype)
    shape = _broadcast(*(operand.shape for operand in operands))

    def losses(coords: Coords) -> Scalar:
        return body(*(element(operand, coords, dtype) for operand in operands))

    return summarised(site, shape, losses, how, dtype)


def _broadcast(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    rank = max(map(len, shapes))
    padded = [(1,) * (rank - len(s)) + s for s in shapes]
    return tuple(max(extents) for extents in zip(*padded, strict=True))


@lowers("mse_loss.default")
def mse_loss(site: Site, x: Value, y: Value, how: int = 1) -> Value:
    """(x - y)²."""

    def body(a: Scalar, b: Scalar) -> Scalar:
        gap = apply("sub", a, b)
        return apply("mul", gap, gap)

    return _pairwise(site, x, y, how, body)


@lowers("l1_loss.default")
def l1_loss(site: Site, x: Value, y: Value, how: int = 1) -> Value:
    """|x - y|."""
    return _pairwise(site, x, y, how, lambda a, b: apply("abs", apply("sub", a, b)))


@lowers("smooth_l1_loss.default")
def smooth_l1_loss(site: Site, x: Value, y: Value, how: int = 1, beta: float = 1.0) -> Value:
    """Quadratic below `beta`, linear above."""
    return _pairwise(site, x, y, how, lambda a, b: _huber(a, b, beta, 1 / beta))


@lowers("huber_loss.default")
def huber_loss(site: Site, x: Value, y: Value, how: int = 1, delta: float = 1.0) -> Value:
    """`delta` times the smooth L1 loss."""
    return _pairwise(site, x, y, how, lambda a, b: _huber(a, b, delta, 1.0))


def _huber(a: Scalar, b: Scalar, beta: float, scale: float) -> Scalar:
    gap = apply("abs", apply("sub", a, b))
    near = apply("mul", apply("mul", gap, gap), Literal(0.5 * scale, a.dtype))
    far = apply("mul", apply("sub", gap, Literal(0.5 * beta, a.dtype)), Literal(beta * scale, a.dtype))
    return apply("where", apply("lt", gap, Literal(beta, a.dtype)), near, far, dtype=a.dtype)


@lowers("kl_div.default")
def kl_div(site: Site, x: Value, y: Value, how: int = 1, log_target: bool = False) -> Value:
    """y·(log y - x), zero where y is zero; exp(y)·(y - x) for logarithmic targets."""

    def body(a: Scalar, b: Scalar) -> Scalar:
        if log_target:
            return apply("mul", apply("exp", b), apply("sub", b, a))
        value = apply("mul", b, apply("sub", apply("log", b), a))
        zero = Literal(0.0, a.dtype)
        return apply("where", apply("eq", b, zero), zero, value, dtype=a.dtype)

    return _pairwise(site, x, y, how, body)


@lowers("binary_cross_entropy.default")
def binary_cross_entropy(site: Site, x: Value, y: Value, weight: Value | None = None, how: int = 1) -> Value:
    """-(y·log x + (1 - y)·log(1 - x)), logarithms clamped at -100 as ATen does."""

    def body(a: Scalar, b: Scalar, *factor: Scalar) -> Scalar:
        one, floor = Literal(1.0, a.dtype), Literal(-100.0, a.dtype)
        yes = apply("maximum", apply("log", a), floor)
        no = apply("maximum", apply("log1p", apply("neg", a)), floor)
        return _times(apply("sub", apply("mul", apply("sub", b, one), no), apply("mul", b, yes)), *factor)

    return _elementwise(site, (x, y) if weight is None else (x, y, weight), how, body)


@lowers("binary_cross_entropy_with_logits.default")
def binary_cross_entropy_with_logits(
    site: Site, x: Value, y: Value, weight: Value | None = None, pos_weight: Value | None = None, how: int = 1
) -> Value:
    """(1 - y)·x + (1 + (pos_weight - 1)·y)·log(1 + exp(-x)), without overflow."""

    def body(a: Scalar, b: Scalar, *rest: Scalar) -> Scalar:
        one, zero = literal_like(a, 1), literal_like(a, 0)
        factors = list(rest)
        soft = apply("log1p", apply("exp", apply("neg", apply("abs", a))))
        soft = apply("add", soft, apply("maximum", apply("neg", a), zero))
        if pos_weight is not None:
            soft = apply("mul", apply("add", apply("mul", apply("sub", factors.pop(), one), b), one), soft)
        return _times(apply("add", apply("mul", apply("sub", one, b), a), soft), *factors)

    return _elementwise(site, [t for t in (x, y, weight, pos_weight) if t is not None], how, body)


def _times(value: Scalar, *factors: Scalar) -> Scalar:
    for factor in factors:
        value = apply("mul", value, factor)
    return value


@lowers("poisson_nll_loss.default")
def poisson_nll_loss(site: Site, x: Value, y: Value, log_input: bool, full: bool, eps: float, how: int = 1) -> Value:
    """exp(x) - y·x, or x - y·log(x + eps); `full` adds Stirling's formula for log y! where y > 1."""

    def body(a: Scalar, b: Scalar) -> Scalar:
        if log_input:
            loss = apply("sub", apply("exp", a), apply("mul", b, a))
        else:
            loss = apply("sub", a, apply("mul", b, apply("log", apply("add", a, literal_like(a, eps)))))
        if not full:
            return loss
        spread = scaled(apply("log", scaled(b, 2 * math.pi)), 0.5)
        stirling = apply("add", apply("sub", apply("mul", b, apply("log", b)), b), spread)
        large = apply("gt", b, literal_like(b, 1))
        return apply("add", loss, apply("where", large, stirling, literal_like(a, 0), dtype=a.dtype))

    return _pairwise(site, x, y, how, body)


@lowers("soft_margin_loss.default")
def soft_margin_loss(site: Site, x: Value, y: Value, how: int = 1) -> Value:
    """log(1 + exp(-x·y))."""
    return _pairwise(site, x, y, how, lambda a, b: apply("log1p", apply("exp", apply("neg", apply("mul", a, b)))))


@lowers("margin_ranking_loss.default")
def margin_ranking_loss(site: Site, x: Value, y: Value, target: Value, margin: float = 0.0, how: int = 1) -> Value:
    """max(0, margin - target·(x - y))."""

    def body(a: Scalar, b: Scalar, t: Scalar) -> Scalar:
        gap = apply("sub", literal_like(a, margin), apply("mul", t, apply("sub", a, b)))
        return apply("maximum", gap, literal_like(a, 0))

    return _elementwise(site, (x, y, target), how, body)


@lowers("hinge_embedding_loss.default")
def hinge_embedding_loss(site: Site, x: Value, target: Value, margin: float = 1.0, how: int = 1) -> Value:
    """x where the target is 1, max(0, margin - x) where it is -1, their sum where it is neither."""
    return _pairwise(site, x, target, how, lambda a, t: _signed(a, apply("sub", literal_like(a, margin), a), t, False))


def _signed(alike: Scalar, apart: Scalar, target: Scalar, exactly: bool) -> Scalar:
    """`alike` for a target of 1, `apart` above zero for -1; others get neither if `exactly`, else both."""
    zero = literal_like(alike, 0)
    apart = apply("maximum", apart, zero)
    one, minus = literal_like(target, 1), literal_like(target, -1)
    first = apply("eq", target, one) if exactly else apply("ne", target, minus)
    second = apply("eq", target, minus) if exactly else apply("ne", target, one)
    return apply(
        "add",
        apply("where", first, alike, zero, dtype=alike.dtype),
        apply("where", second, apart, zero, dtype=alike.dtype),
    )


def _distances(name: str, x: Value, y: Value, order: float, eps: float) -> tuple[Reduction, Callable[[Scalar], Scalar]]:
    """Σ|x - y + eps|^p over the last dimension, and the root that makes it a distance."""
    dtype = compute_dtype(x.dtype)
    shape = _broadcast(x.shape, y.shape)

    def powers(coords: Coords) -> Scalar:
        a = element(x, expand_coords(coords, x.shape), dtype)
        b = element(y, expand_coords(coords, y.shape), dtype)
        gap = apply("add", apply("sub", a, b), Literal(eps, dtype))
        if order == 2:
            return apply("mul", gap, gap)
        magnitude = apply("abs", gap)
        return magnitude if order == 1 else apply("pow", magnitude, Literal(order, dtype))

    def root(total: Scalar) -> Scalar:
        if order == 2:
            return apply("sqrt", total)
        return total if order == 1 else apply("pow", total, Literal(1 / order, dtype))

    return reduction(name, "sum", shape, (len(shape) - 1,), powers, (dtype,)), root


@lowers("pairwise_distance.default")
def pairwise_distance(site: Site, x: Value, y: Value, order: float = 2, eps: float = 1e-6, keep: bool = False) -> Value:
    """(Σ|x - y + eps|^p)^(1/p) over the last dimension."""
    total, root = _distances(site.name("powers"), x, y, order, eps)
    return Virtual(site.name(), site.spec.shape, site.spec.dtype, lambda c: root(total.at(c[:-1] if keep else c)))


@lowers("triplet_margin_loss.default")
def triplet_margin_loss(
    site: Site, anchor: Value, positive: Value, negative: Value, margin: float = 1.0, order: float = 2,
    eps: float = 1e-6, swap: bool = False, how: int = 1,
) -> Value:  # fmt: skip
    """max(0, margin + d(anchor, positive) - d(anchor, negative)); `swap` takes the nearer of two negatives."""
    near, root = _distances(site.name("near"), anchor, positive, order, eps)
    far, _ = _distances(site.name("far"), anchor, negative, order, eps)
    other, _ = _distances(site.name("other"), positive, negative, order, eps)

    def losses(coords: Coords) -> Scalar:
        away = root(far.at(coords))
        if swap:
            away = apply("minimum", away, root(other.at(coords)))
        gap = apply("sub", apply("add", root(near.at(coords)), Literal(margin, near.dtype)), away)
        return apply("maximum", gap, Literal(0.0, near.dtype))

    return summarised(site, near.shape, losses, how, near.dtype)


def _products(name: str, a: Value, b: Value, dim: int, dtype: str) -> Reduction:
    """Σab along a dimension of both broadcast."""

    def products(coords: Coords) -> Scalar:
        return apply("mul", element(a, coords, dtype), element(b, coords, dtype))

    return reduction(name, "sum", _broadcast(a.shape, b.shape), (dim,), products, (dtype,))


@lowers("cosine_similarity.default")
def cosine_similarity(site: Site, x: Value, y: Value, dim: int = 1, eps: float = 1e-8) -> Value:
    """Σxy / (max(|x|, eps)·max(|y|, eps)) along a dimension."""
    shape = _broadcast(x.shape, y.shape)
    dim %= len(shape)
    dtype = compute_dtype(site.spec.dtype)

    both, xx, yy = (
        _products(site.name(name), a, b, dim, dtype)
        for name, a, b in (("products", x, y), ("left", x, x), ("right", y, y))
    )

    def formula(coords: Coords) -> Scalar:
        lengths = [apply("maximum", apply("sqrt", t.at(coords)), Literal(eps, dtype)) for t in (xx, yy)]
        return apply("div", both.at(coords), apply("mul", *lengths))

    return Virtual(site.name(), site.spec.shape, site.spec.dtype, formula)


@lowers("cosine_embedding_loss.default")
def cosine_embedding_loss(
    site: Site, x: Value, y: Value, target: Value, margin: float = 0.0, how: int = 1
) -> Value:  # fmt: skip
    """1 - cosine where the target is 1, max(0, cosine - margin) where it is -1."""
    dtype = compute_dtype(site.spec.dtype)
    shape = _broadcast(x.shape, y.shape)
    both, xx, yy = (
        _products(site.name(name), a, b, len(shape) - 1, dtype)
        for name, a, b in (("products", x, y), ("left", x, x), ("right", y, y))
    )

    def losses(coords: Coords) -> Scalar:
        # ATen's epsilon, added to the squares of both lengths.
        squares = [apply("add", t.at(coords), Literal(1e-12, dtype)) for t in (xx, yy)]
        cosine = apply("div", both.at(coords), apply("sqrt", apply("mul", *squares)))
        alike = apply("sub", literal_like(cosine, 1), cosine)
        apart = apply("sub", cosine, literal_like(cosine, margin))
        return _signed(alike, apart, element(target, coords, dtype), True)

    return summarised(site, shape[:-1], losses, how, dtype)
