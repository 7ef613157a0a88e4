"""Pooling: the largest element or the mean of every window."""

from __future__ import annotations

import math
from collections.abc import Sequence

from warpsmith.author.builtin.index import Index
from warpsmith.author.builtin.lowering.reductions import divided, reduction, windows
from warpsmith.author.builtin.lowering.registry import Site, lowers
from warpsmith.author.builtin.lowering.views import choose
from warpsmith.author.builtin.scalar import Literal, Position, Scalar, apply, both, cast, compute_dtype
from warpsmith.author.builtin.values import Coords, Formula, Reduction, ReductionKind, Value, Virtual


def _pool_rank(site: Site) -> int:
    return next(n for n in (1, 2, 3) if f"pool{n}d" in site.node.op)


def _per_dim(value: int | Sequence[int], rank: int) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * rank if len(values) == 1 else values


@lowers(
    "max_pool1d.default",
    "max_pool2d.default",
    "max_pool3d.default",
    "max_pool2d_with_indices.default",
    "max_pool3d_with_indices.default",
)
def max_pool(
    site: Site, x: Value, kernel: Sequence[int], stride: Sequence[int] = (), padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1, _ceil: bool = False,
) -> Value | tuple[Value | None, ...]:  # fmt: skip
    """Largest element of each window."""
    rank = _pool_rank(site)
    sizes = _per_dim(kernel, rank)
    out = site.spec.shape[-rank:]
    domain, source = windows(
        x, out, sizes, _per_dim(stride, rank) if stride else sizes, _per_dim(padding, rank), _per_dim(dilation, rank),
        -math.inf,
    )  # fmt: skip
    reduced = tuple(range(len(domain) - rank, len(domain)))
    best = reduction(site.name("max"), "max", domain, reduced, source, (compute_dtype(x.dtype),))
    pooled = Virtual(site.name(), site.spec.shape, site.spec.dtype, best.at)
    return (pooled, None) if "with_indices" in site.node.op else pooled


@lowers("avg_pool1d.default", "avg_pool2d.default", "avg_pool3d.default")
def avg_pool(
    site: Site, x: Value, kernel: Sequence[int], stride: Sequence[int] = (), padding: int | Sequence[int] = 0,
    ceil_mode: bool = False, count_include_pad: bool = True, divisor: int | None = None,
) -> Value:  # fmt: skip
    """Mean of each window; padding counts unless told otherwise, and what reaches beyond it does not."""
    rank = _pool_rank(site)
    sizes, before = _per_dim(kernel, rank), _per_dim(padding, rank)
    steps = _per_dim(stride, rank) if stride else sizes
    domain, source = windows(x, site.spec.shape[-rank:], sizes, steps, before, [1] * rank, 0.0)
    reduced = tuple(range(len(domain) - rank, len(domain)))
    total = reduction(site.name("sum"), "sum", domain, reduced, source, (compute_dtype(x.dtype),))
    border = before if count_include_pad else [0] * rank
    partial = divisor is None and (ceil_mode or border != before)

    def count(coords: Coords) -> Scalar:
        number: Scalar = Literal(1, "int64")
        for n in range(-rank, 0):
            first = coords[n] * steps[n] - before[n]
            number = apply("mul", number, _overlap(first, sizes[n], -border[n], x.shape[n] + border[n]))
        return cast(number, total.dtype)

    def formula(coords: Coords) -> Scalar:
        if partial:
            return apply("div", total.at(coords), count(coords))
        return divided(total.at(coords), divisor or math.prod(sizes))

    return Virtual(site.name(), site.spec.shape, site.spec.dtype, formula)


def _overlap(first: Index, size: int, low: int, high: int) -> Scalar:
    """How many of `size` positions from `first` on lie in [low, high)."""
    start = apply("maximum", Position(first), Literal(low, "int64"))
    end = apply("minimum", Position(first + size), Literal(high, "int64"))
    return apply("sub", end, start)


def _adaptive(
    site: Site, x: Value, kind: ReductionKind, fill: float
) -> tuple[Reduction, Formula]:  # fmt: skip
    """Reduce windows, each from floor(p·extent / n) to ceil((p + 1)·extent / n), and say how many elements each has."""
    rank = _pool_rank(site)
    lead, space, out = x.shape[:-rank], x.shape[-rank:], site.spec.shape[-rank:]
    longest = tuple(max(_end(p, e, o) - p * e // o for p in range(o)) for e, o in zip(space, out, strict=True))

    def starts(coords: Coords) -> list[Index]:
        return [(c * e) // o for c, e, o in zip(coords[len(lead) : len(lead) + rank], space, out, strict=True)]

    def ends(coords: Coords) -> list[Index]:
        places = zip(coords[len(lead) : len(lead) + rank], space, out, strict=True)
        return [(c * e + (e + o - 1)) // o for c, e, o in places]

    def source(coords: Coords) -> Scalar:
        at = [s + t for s, t in zip(starts(coords), coords[-rank:], strict=True)]
        condition: Scalar | None = None
        for place, end, extent, o in zip(at, ends(coords), space, out, strict=True):
            if extent % o:
                condition = both(condition, apply("lt", Position(place), Position(end)))
        inside = x.at((*coords[: len(lead)], *at))
        return choose(condition, inside, cast(Literal(fill, "float32"), inside.dtype))

    def sizes(coords: Coords) -> Scalar:
        number: Scalar = Literal(1, "int64")
        for start, end in zip(starts(coords), ends(coords), strict=True):
            number = apply("mul", number, Position(end - start))
        return cast(number, dtype)

    dtype = compute_dtype(x.dtype)
    domain = (*lead, *out, *longest)
    reduced = range(len(domain) - rank, len(domain))
    return reduction(site.name(kind), kind, domain, reduced, source, (dtype,)), sizes


def _end(place: int, extent: int, count: int) -> int:
    return -(-(place + 1) * extent // count)


@lowers(
    "adaptive_avg_pool1d.default",
    "adaptive_avg_pool2d.default",
    "_adaptive_avg_pool2d.default",
    "adaptive_avg_pool3d.default",
)
def adaptive_avg_pool(site: Site, x: Value, _size: Sequence[int]) -> Value:
    """Mean over windows that cover the input, as equal as they can be."""
    rank = _pool_rank(site)
    out = site.spec.shape[-rank:]
    if not any(e % o for e, o in zip(x.shape[-rank:], out, strict=True)):
        sizes = [e // o for e, o in zip(x.shape[-rank:], out, strict=True)]
        return avg_pool(site, x, sizes, sizes)
    total, count = _adaptive(site, x, "sum", 0.0)
    return Virtual(
        site.name(), site.spec.shape, site.spec.dtype, lambda c: apply("div", total.at(c), count(c))
    )  # fmt: skip


@lowers("adaptive_max_pool1d.default", "adaptive_max_pool2d.default", "adaptive_max_pool3d.default")
def adaptive_max_pool(site: Site, x: Value, _size: Sequence[int]) -> tuple[Value | None, ...]:
    """Largest element of windows that cover the input, as equal as they can be; its position is not computed."""
    best, _ = _adaptive(site, x, "max", -math.inf)
    return Virtual(site.name(), site.spec.shape, site.spec.dtype, best.at), None
