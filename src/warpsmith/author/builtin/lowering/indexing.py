"""Reads at positions that come from tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence

from warpsmith.author.builtin.index import Index, Indirect, lift, unravel
from warpsmith.author.builtin.lowering.pointwise import Operand, element
from warpsmith.author.builtin.lowering.registry import Site, lowers
from warpsmith.author.builtin.scalar import Literal, Position, Scalar, apply, cast
from warpsmith.author.builtin.values import Coords, Value, Virtual, expand_coords
from warpsmith.errors import UnsupportedOperator

# Every position is compared with every element: beyond some, that is no way to do it.
_MOST_FILLED = 16


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


@lowers("take_along_dim.default")
def take_along_dim(site: Site, x: Value, places: Value, dim: int | None = None) -> Value:
    """Elements along a dimension at given positions, x and positions broadcast together in the others."""
    if dim is None:
        return Virtual(
            site.name(), site.spec.shape, x.dtype,
            lambda c: x.at(unravel(indirect(places, unravel(c[0], places.shape), math.prod(x.shape)), x.shape)),
        )  # fmt: skip
    dim %= len(x.shape)

    def formula(coords: Coords) -> Scalar:
        place = indirect(places, expand_coords(coords, places.shape), x.shape[dim])
        rest = expand_coords(coords, tuple(1 if d == dim else e for d, e in enumerate(x.shape)))
        return x.at((*rest[:dim], place, *rest[dim + 1 :]))

    return Virtual(site.name(), site.spec.shape, x.dtype, formula)


@lowers("index.Tensor")
def index(site: Site, x: Value, places: Sequence[Value | None]) -> Value:
    """x[i, j, …] for integer index tensors that broadcast together; where they are apart, their shape comes first."""
    used = [d for d, p in enumerate(places) if p is not None]
    tensors = [p for p in places if p is not None]
    if any(t.dtype == "bool" for t in tensors):
        raise UnsupportedOperator("indexing with a mask")
    rank = max(len(t.shape) for t in tensors)
    start = used[0] if used == list(range(used[0], used[0] + len(used))) else 0

    def formula(coords: Coords) -> Scalar:
        at = coords[start : start + rank]
        found = {d: indirect(t, expand_coords(at, t.shape), x.shape[d]) for d, t in zip(used, tensors, strict=True)}
        rest = iter((*coords[:start], *coords[start + rank :]))
        return x.at(tuple(found[d] if d in found else next(rest) for d in range(len(x.shape))))

    return Virtual(site.name(), site.spec.shape, x.dtype, formula)


@lowers("index_put.default")
def index_put(site: Site, x: Value, places: Sequence[Value | None], values: Value, accumulate: bool = False) -> Value:
    """x with one number wherever a mask over its first dimensions holds."""
    mask = places[0]
    if len(places) != 1 or mask is None or mask.dtype != "bool" or accumulate or math.prod(values.shape) != 1:
        raise UnsupportedOperator("assignment to positions from tensors")
    spec = site.spec

    def formula(coords: Coords) -> Scalar:
        number = cast(values.at((Index(),) * len(values.shape)), spec.dtype)
        here = mask.at(coords[: len(mask.shape)])
        return apply("where", here, number, cast(x.at(coords), spec.dtype), dtype=number.dtype)

    return Virtual(site.name(), spec.shape, spec.dtype, formula)


@lowers("index_fill.int_Scalar", "index_fill.int_Tensor")
def index_fill(site: Site, x: Value, dim: int, places: Value, number: Operand) -> Value:
    """x with one number at given positions of a dimension."""
    dim %= len(x.shape)
    count = math.prod(places.shape)
    if count > _MOST_FILLED:
        raise UnsupportedOperator(f"{site.node.op} at {count} positions")
    spec = site.spec

    def formula(coords: Coords) -> Scalar:
        value = cast(x.at(coords), spec.dtype)
        for at in range(count):
            place = indirect(places, (lift(at),) if places.shape else (), x.shape[dim])
            here = apply("eq", Position(place), Position(coords[dim]))
            value = apply("where", here, element(number, coords, spec.dtype), value, dtype=value.dtype)
        return value

    return Virtual(site.name(), spec.shape, spec.dtype, formula)
