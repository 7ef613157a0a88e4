"""Reads at positions that come from tensors, and the losses that use them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from warpsmith.author.builtin.index import Index, Indirect
from warpsmith.author.builtin.lowering.pointwise import element, mapped
from warpsmith.author.builtin.lowering.reductions import divided, reduction, softmax_parts
from warpsmith.author.builtin.lowering.registry import Site, lowers
from warpsmith.author.builtin.lowering.views import choose
from warpsmith.author.builtin.scalar import Literal, Scalar, apply, cast, compute_dtype
from warpsmith.author.builtin.values import Coords, Formula, Value, Virtual, expand_coords
from warpsmith.errors import UnsupportedOperator

_REDUCTIONS = {0: "none", 1: "mean", 2: "sum"}


def indirect(places: Value, coords: Coords, extent: int) -> Index:
    """Return the position that `places` holds at `coords`; negative ones count from the end."""
    place = cast(places.at(coords), "int64")
    return Index(((Indirect(apply("wrap_index", place, Literal(extent, "int64")), extent), 1),))


@lowers("embedding.default")
def embedding(site: Site, weight: Value, places: Value, *_unused: object) -> Value:
    """Rows of the weight matrix."""
    rank = len(places.shape)

    def formula(coords: Coords) -> Scalar:
        return weight.at((indirect(places, coords[:rank], weight.shape[0]), *coords[rank:]))

    return Virtual(site.name(), site.spec.shape, weight.dtype, formula)


@lowers("gather.default")
def gather(site: Site, x: Value, dim: int, places: Value, *_unused: object) -> Value:
    """Elements along a dimension, at positions given for each element."""
    dim %= len(x.shape)

    def formula(coords: Coords) -> Scalar:
        return x.at((*coords[:dim], indirect(places, coords, x.shape[dim]), *coords[dim + 1 :]))

    return Virtual(site.name(), site.spec.shape, x.dtype, formula)


@lowers("index_select.default")
def index_select(site: Site, x: Value, dim: int, places: Value) -> Value:
    """Slices along a dimension, at given positions."""
    dim %= len(x.shape)

    def formula(coords: Coords) -> Scalar:
        return x.at((*coords[:dim], indirect(places, (coords[dim],), x.shape[dim]), *coords[dim + 1 :]))

    return Virtual(site.name(), site.spec.shape, x.dtype, formula)


@lowers("index.Tensor")
def index(site: Site, x: Value, places: Sequence[Value | None]) -> Value:
    """x[i, j, …] for adjacent integer index tensors that broadcast together."""
    used = [d for d, p in enumerate(places) if p is not None]
    tensors = [p for p in places if p is not None]
    if used != list(range(used[0], used[0] + len(used))) or any(t.dtype == "bool" for t in tensors):
        raise UnsupportedOperator(f"indexing with a mask or with separated tensors (node {site.node.name})")
    rank = max(len(t.shape) for t in tensors)
    start = used[0]

    def formula(coords: Coords) -> Scalar:
        at = coords[start : start + rank]
        found = [
            indirect(t, expand_coords(at, t.shape), x.shape[d]) for d, t in zip(used, tensors, strict=True)
        ]  # fmt: skip
        return x.at((*coords[:start], *found, *coords[start + rank :]))

    return Virtual(site.name(), site.spec.shape, x.dtype, formula)


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
        raise UnsupportedOperator(f"cross entropy with weights, smoothing or soft targets (node {site.node.name})")
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
        raise UnsupportedOperator(f"negative log likelihood with weights (node {site.node.name})")
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
        raise UnsupportedOperator(f"binary cross entropy with weights (node {site.node.name})")

    def body(a: Scalar, b: Scalar) -> Scalar:
        one, floor = Literal(1.0, a.dtype), Literal(-100.0, a.dtype)
        yes = apply("maximum", apply("log", a), floor)
        no = apply("maximum", apply("log1p", apply("neg", a)), floor)
        return apply("sub", apply("mul", apply("sub", b, one), no), apply("mul", b, yes))

    return _pairwise(site, x, y, how, body)
