"""Images made larger, by repetition or by interpolation between pixels."""

from __future__ import annotations

from collections.abc import Sequence

from warpsmith.author.builtin.index import Index, Indirect
from warpsmith.author.builtin.lowering.pointwise import element
from warpsmith.author.builtin.lowering.registry import Site, lowers
from warpsmith.author.builtin.lowering.views import moved
from warpsmith.author.builtin.scalar import Literal, Position, Scalar, apply, cast, compute_dtype
from warpsmith.author.builtin.values import Coords, Value, Virtual
from warpsmith.errors import UnsupportedOperator


def _check_ratio(site: Site, x: Value, factors: Sequence[float] | None) -> None:
    """ATen steps by the factors that it is given; where rounding made the image smaller, they are not the ratio."""
    extents = zip(x.shape[2:], site.spec.shape[2:], factors or (), strict=False)
    if any(old * factor != new for old, new, factor in extents):
        raise UnsupportedOperator(f"{site.node.op} by a factor that does not give whole extents")


@lowers("upsample_nearest1d.vec", "upsample_nearest2d.vec", "upsample_nearest3d.vec")
def nearest(site: Site, x: Value, _size: object = None, factors: Sequence[float] | None = None) -> Value:
    """Repeat pixels: place p of n reads place p·extent // n."""
    _check_ratio(site, x, factors)
    ratios = list(zip(x.shape, site.spec.shape, strict=True))

    def source(coords: Coords) -> Coords:
        return tuple(c if old == new else (c * old) // new for c, (old, new) in zip(coords, ratios, strict=True))

    return moved(site, x, source)


@lowers("upsample_linear1d.vec", "upsample_bilinear2d.vec", "upsample_trilinear3d.vec")
def linear(
    site: Site, x: Value, _size: object, align_corners: bool, factors: Sequence[float] | None = None
) -> Value:  # fmt: skip
    """Interpolate between the two nearest pixels of every dimension; the outermost ones reach to the border.

    Corners stand for themselves with `align_corners`; without, pixels are squares and their centres count.
    """
    if not align_corners:
        _check_ratio(site, x, factors)
    dtype = compute_dtype(x.dtype)
    out = site.spec.shape

    def formula(coords: Coords) -> Scalar:
        return blended(coords[:2], coords[2:])

    def blended(fixed: Coords, free: Coords) -> Scalar:
        if not free:
            return element(x, fixed, dtype)
        dim = len(fixed)
        lower, upper, share = _neighbours(free[0], x.shape[dim], out[dim], align_corners, dtype)
        near, far = (blended((*fixed, place), free[1:]) for place in (lower, upper))
        return apply("add", near, apply("mul", share, apply("sub", far, near)))

    return Virtual(site.name(), out, x.dtype, formula)


def _neighbours(coord: Index, old: int, new: int, aligned: bool, dtype: str) -> tuple[Index, Index, Scalar]:
    """The two pixels around the place of `coord`, and how far it has left the first one behind, from 0 to 1."""
    numerator, denominator = coord * (2 * old) + (old - new), 2 * new
    if aligned:
        numerator, denominator = coord * (old - 1), max(new - 1, 1)
    place = apply("maximum", Position(numerator), Literal(0, "int64"))
    whole = apply("div_trunc", place, Literal(denominator, "int64"))
    after = apply("minimum", apply("add", whole, Literal(1, "int64")), Literal(old - 1, "int64"))
    rest = apply("sub", place, apply("mul", whole, Literal(denominator, "int64")))
    share = apply("div", cast(rest, dtype), Literal(float(denominator), dtype))
    return _position(whole, old), _position(after, old), share


def _position(value: Scalar, extent: int) -> Index:
    return Index(((Indirect(value, extent), 1),))
