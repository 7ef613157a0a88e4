"""Reads at positions that come from tensors."""

from __future__ import annotations

from collections.abc import Sequence

from warpsmith.author.builtin.index import Index, Indirect
from warpsmith.author.builtin.lowering.registry import Site, lowers
from warpsmith.author.builtin.scalar import Literal, Scalar, apply, cast
from warpsmith.author.builtin.values import Coords, Value, Virtual, expand_coords
from warpsmith.errors import UnsupportedOperator


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
        raise UnsupportedOperator("indexing with a mask or with separated tensors")
    rank = max(len(t.shape) for t in tensors)
    start = used[0]

    def formula(coords: Coords) -> Scalar:
        at = coords[start : start + rank]
        found = [
            indirect(t, expand_coords(at, t.shape), x.shape[d]) for d, t in zip(used, tensors, strict=True)
        ]  # fmt: skip
        return x.at((*coords[:start], *found, *coords[start + rank :]))

    return Virtual(site.name(), site.spec.shape, x.dtype, formula)
