"""Losses over classes: cross entropy and negative log likelihood."""

from __future__ import annotations

from collections.abc import Callable

from warpsmith.author.builtin.lowering.indexing import indirect
from warpsmith.author.builtin.lowering.losses import summarised
from warpsmith.author.builtin.lowering.pointwise import element, scaled
from warpsmith.author.builtin.lowering.reductions import divided, reduction, softmax_parts
from warpsmith.author.builtin.lowering.registry import Site, lowers
from warpsmith.author.builtin.lowering.views import choose
from warpsmith.author.builtin.scalar import FLOATS, Literal, Scalar, apply, cast, compute_dtype
from warpsmith.author.builtin.values import Coords, Formula, Reduction, Value, Virtual


def _class_losses(
    x: Value, dim: int, target: Value, ignore: int, weight: Value | None, body: Callable[[Coords, Scalar], Scalar]
) -> tuple[Formula, Formula]:
    """Return the loss of every target, zero where it is to be ignored, and how much it counts."""
    dtype = compute_dtype(x.dtype)

    def heard(coords: Coords) -> Scalar:
        return apply("ne", cast(target.at(coords), "int64"), Literal(ignore, "int64"))

    def counted(coords: Coords) -> Scalar:
        if weight is None:
            return heard(coords)
        own = element(weight, (indirect(target, coords, x.shape[dim]),), dtype)
        return choose(heard(coords), own, Literal(0.0, dtype))

    def losses(coords: Coords) -> Scalar:
        place = indirect(target, coords, x.shape[dim])
        loss = body(coords, element(x, (*coords[:dim], place, *coords[dim:]), dtype))
        if weight is not None:
            loss = apply("mul", loss, element(weight, (place,), dtype))
        return choose(heard(coords), loss, Literal(0.0, dtype))

    return losses, counted


@lowers("cross_entropy_loss.default")
def cross_entropy(
    site: Site, x: Value, target: Value, weight: Value | None = None, how: int = 1, ignore: int = -100,
    smoothing: float = 0.0,
) -> Value:  # fmt: skip
    """-log softmax(x)[target], classes in dimension 1 (0 if there is no batch); or -Σ target·log softmax(x).

    Smoothing takes that share of every target and spreads it evenly over all classes.
    """
    both, dim = softmax_parts(site.name("softmax"), x, 1 if len(x.shape) > 1 else 0)

    def surprise(coords: Coords, logit: Scalar) -> Scalar:
        return apply("sub", apply("add", both.part(0, coords), apply("log", both.part(1, coords))), logit)

    if target.dtype in FLOATS:
        spread = _spread(
            site, x, dim, weight, surprise, lambda c: _softened(element(target, c, both.dtype), smoothing, x.shape[dim])
        )
        each = summarised(site, both.shape, spread.at, 0 if how == 0 else 2, both.dtype)
        samples = both.rows
        return each if how != 1 else Virtual(site.name(), (), site.spec.dtype, lambda _: divided(each.at(()), samples))
    losses, counted = _class_losses(x, dim, target, ignore, weight, surprise)
    if not smoothing:
        return summarised(site, both.shape, losses, how, both.dtype, counted)
    even = _spread(site, x, dim, weight, surprise, lambda _: Literal(1.0 / x.shape[dim], both.dtype))

    def smooth(coords: Coords) -> Scalar:
        heard = apply("ne", cast(target.at(coords), "int64"), Literal(ignore, "int64"))
        rest = choose(heard, scaled(even.at(coords), smoothing), Literal(0.0, both.dtype))
        return apply("add", scaled(losses(coords), 1 - smoothing), rest)

    return summarised(site, both.shape, smooth, how, both.dtype, counted)


def _softened(share: Scalar, smoothing: float, classes: int) -> Scalar:
    if not smoothing:
        return share
    return apply("add", scaled(share, 1 - smoothing), Literal(smoothing / classes, share.dtype))


def _spread(
    site: Site, x: Value, dim: int, weight: Value | None, surprise: Callable[[Coords, Scalar], Scalar],
    share: Formula,
) -> Reduction:  # fmt: skip
    """Σ share·weight·surprise over the classes."""
    dtype = compute_dtype(x.dtype)

    def source(coords: Coords) -> Scalar:
        rest = (*coords[:dim], *coords[dim + 1 :])
        loss = apply("mul", surprise(rest, element(x, coords, dtype)), share(coords))
        return loss if weight is None else apply("mul", loss, element(weight, (coords[dim],), dtype))

    return reduction(site.name("spread"), "sum", x.shape, (dim,), source, (dtype,))


@lowers("nll_loss.default", "nll_loss_nd.default", "nll_loss_forward.default")
def nll_loss(
    site: Site, x: Value, target: Value, weight: Value | None = None, how: int = 1, ignore: int = -100
) -> Value | tuple[Value | None, ...]:
    """-x[target], classes in dimension 1 (0 if there is no batch)."""
    dim = 1 if len(x.shape) > 1 else 0
    losses, counted = _class_losses(x, dim, target, ignore, weight, lambda _, chosen: apply("neg", chosen))
    shape = (*x.shape[:dim], *x.shape[dim + 1 :])
    loss = summarised(site, shape, losses, how, compute_dtype(x.dtype), counted)
    return (loss, None) if "forward" in site.node.op else loss
