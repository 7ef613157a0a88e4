"""Diagonals of matrices: taken out, put in, summed."""

from __future__ import annotations

from dataclasses import dataclass

from warpsmith.author.builtin.lowering.reductions import reduction
from warpsmith.author.builtin.lowering.registry import Site, lowers
from warpsmith.author.builtin.lowering.views import choose
from warpsmith.author.builtin.scalar import Literal, Position, Scalar, apply, both, cast, compute_dtype, within
from warpsmith.author.builtin.values import Coords, Value, Virtual


@dataclass(frozen=True, eq=False)
class Diagonal(Virtual):
    """A square matrix of zeros with `vector` on its diagonal: multiplying by it scales rows or columns."""

    vector: Value


@lowers("diag.default")
def diag(site: Site, x: Value, diagonal: int = 0) -> Value:
    """The diagonal of a matrix, or the matrix that has a vector as its diagonal."""
    if len(x.shape) > 1:
        return diagonal_of(site, x, diagonal)
    matrix = diag_embed(site, x, diagonal)
    return matrix if diagonal else Diagonal(matrix.name, matrix.shape, matrix.dtype, matrix.formula, x)


@lowers("diagonal.default", "linalg_diagonal.default", "diagonal_copy.default")
def diagonal_of(site: Site, x: Value, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Value:
    """Elements whose position in `dim2` lies `offset` behind that in `dim1`, as a last dimension."""
    rows, cols = dim1 % len(x.shape), dim2 % len(x.shape)

    def formula(coords: Coords) -> Scalar:
        placed = {rows: coords[-1] + max(-offset, 0), cols: coords[-1] + max(offset, 0)}
        rest = iter(coords[:-1])
        return x.at(tuple(placed[d] if d in placed else next(rest) for d in range(len(x.shape))))

    return Virtual(site.name(), site.spec.shape, x.dtype, formula)


@lowers("diag_embed.default")
def diag_embed(site: Site, x: Value, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Virtual:
    """Zeros, with the last dimension of x on a diagonal of each matrix."""
    shape = site.spec.shape
    rows, cols = dim1 % len(shape), dim2 % len(shape)

    def formula(coords: Coords) -> Scalar:
        place = coords[rows] - max(-offset, 0)
        rest = tuple(c for d, c in enumerate(coords) if d not in (rows, cols))
        on = apply("eq", Position(coords[cols] - offset), Position(coords[rows]))
        inside = x.at((*rest, place))
        condition = both(on, within(place, 0, x.shape[-1]))
        return choose(condition, inside, cast(Literal(0.0, "float32"), inside.dtype))

    return Virtual(site.name(), shape, x.dtype, formula)


@lowers("trace.default")
def trace(site: Site, x: Value) -> Value:
    """Sum of the diagonal."""
    dtype = compute_dtype(site.spec.dtype)
    extent = min(x.shape)
    total = reduction(site.name("sum"), "sum", (extent,), (0,), lambda c: cast(x.at((c[0], c[0])), dtype), (dtype,))
    return Virtual(site.name(), (), site.spec.dtype, lambda _: total.at(()))


@lowers("eye.default", "eye.m")
def eye(site: Site, *_extents: int) -> Value:
    """Ones on the diagonal, zeros elsewhere."""
    dtype = site.spec.dtype

    def formula(coords: Coords) -> Scalar:
        return cast(apply("eq", Position(coords[0]), Position(coords[1])), dtype)

    return Virtual(site.name(), site.spec.shape, dtype, formula)
