"""Losses: a value for each element or sample, then their mean or sum."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from warpsmith.author.builtin.lowering.indexing import indirect
from warpsmith.author.builtin.lowering.pointwise import element, mapped
from warpsmith.author.builtin.lowering.reductions import divided, reduction, softmax_parts
from warpsmith.author.builtin.lowering.registry import Site, lowers
from warpsmith.author.builtin.lowering.views import choose
from warpsmith.author.builtin.scalar import Literal, Scalar, apply, cast, compute_dtype
from warpsmith.author.builtin.values import Coords, Formula, Reduction, Value, Virtual, expand_coords
from warpsmith.errors import UnsupportedOperator

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


def _class_losses(
    x: Value, dim: int, target: Value, ignore: int, body: Callable[[Coords, Scalar], Scalar]
) -> tuple[Formula, Formula]:
    """Return the loss of every target, zero where it is to be ignored, and whether it counts."""
    dtype = compute_dtype(x.dtype)

    def counted(coords: Coords) -> Scalar:
        return apply("ne", cast(target.at(coords), "int64"), Literal(ignore, "int64"))

    def losses(coords: Coords) -> Scalar:
        place = indirect(target, coords, x.shape[dim])
        chosen = element(x, (*coords[:dim], place, *coords[dim:]), dtype)
        return choose(counted(coords), body(coords, chosen), Literal(0.0, dtype))

    return losses, counted


@lowers("cross_entropy_loss.default")
def cross_entropy(
    site: Site, x: Value, target: Value, weight: Value | None = None, how: int = 1, ignore: int = -100,
    smoothing: float = 0.0,
) -> Value:  # fmt: skip
    """-log softmax(x)[target], classes in dimension 1 (0 if there is no batch)."""
    if weight is not None or smoothing or target.dtype not in ("int64", "uint8"):
        raise UnsupportedOperator("cross entropy with weights, smoothing or soft targets")
    both, dim = softmax_parts(site.name("softmax"), x, 1 if len(x.shape) > 1 else 0)

    def body(coords: Coords, chosen: Scalar) -> Scalar:
        return apply("sub", apply("add", both.part(0, coords), apply("log", both.part(1, coords))), chosen)

    losses, counted = _class_losses(x, dim, target, ignore, body)
    return summarised(site, both.shape, losses, how, both.dtype, counted)


@lowers("nll_loss.default", "nll_loss_nd.default", "nll_loss_forward.default")
def nll_loss(
    site: Site, x: Value, target: Value, weight: Value | None = None, how: int = 1, ignore: int = -100
) -> Value | tuple[Value | None, ...]:
    """-x[target], classes in dimension 1 (0 if there is no batch)."""
    if weight is not None:
        raise UnsupportedOperator("negative log likelihood with weights")
    dim = 1 if len(x.shape) > 1 else 0
    losses, counted = _class_losses(x, dim, target, ignore, lambda _, chosen: apply("neg", chosen))
    shape = (*x.shape[:dim], *x.shape[dim + 1 :])
    loss = summarised(site, shape, losses, how, compute_dtype(x.dtype), counted)
    return (loss, None) if "forward" in site.node.op else loss


def _pairwise(site: Site, x: Value, y: Value, how: int, body: Callable[[Scalar, Scalar], Scalar]) -> Value:
    dtype = compute_dtype(site.spec.dtype)
    one = mapped(site, body, x, y, dtype=dtype)
    shape = _broadcast(x.shape, y.shape)
    each = Virtual(site.name("each"), shape, dtype, one.formula)
    return summarised(site, shape, each.at, how, dtype)


def _broadcast(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    rank = max(len(a), len(b))
    padded = [(1,) * (rank - len(s)) + s for s in (a, b)]
    return tuple(max(p, q) for p, q in zip(*padded, strict=True))


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
    if weight is not None:
        raise UnsupportedOperator("binary cross entropy with weights")

    def body(a: Scalar, b: Scalar) -> Scalar:
        one, floor = Literal(1.0, a.dtype), Literal(-100.0, a.dtype)
        yes = apply("maximum", apply("log", a), floor)
        no = apply("maximum", apply("log1p", apply("neg", a)), floor)
        return apply("sub", apply("mul", apply("sub", b, one), no), apply("mul", b, yes))

    return _pairwise(site, x, y, how, body)


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


@lowers("cosine_similarity.default")
def cosine_similarity(site: Site, x: Value, y: Value, dim: int = 1, eps: float = 1e-8) -> Value:
    """Σxy / (max(|x|, eps)·max(|y|, eps)) along a dimension."""
    shape = _broadcast(x.shape, y.shape)
    dim %= len(shape)
    dtype = compute_dtype(site.spec.dtype)

    def total(name: str, a: Value, b: Value) -> Reduction:
        def products(coords: Coords) -> Scalar:
            left = element(a, expand_coords(coords, a.shape), dtype)
            return apply("mul", left, element(b, expand_coords(coords, b.shape), dtype))

        return reduction(site.name(name), "sum", shape, (dim,), products, (dtype,))

    both, xx, yy = total("products", x, y), total("left", x, x), total("right", y, y)

    def formula(coords: Coords) -> Scalar:
        lengths = [apply("maximum", apply("sqrt", t.at(coords)), Literal(eps, dtype)) for t in (xx, yy)]
        return apply("div", both.at(coords), apply("mul", *lengths))

    return Virtual(site.name(), site.spec.shape, site.spec.dtype, formula)
