"""Movements of elements beyond plain views: windows, blocks, repetition, updates of a part, and counting tensors."""

from __future__ import annotations

from collections.abc import Sequence

from warpsmith.author.builtin.index import Index, lift, unravel
from warpsmith.author.builtin.lowering.pointwise import Operand, element
from warpsmith.author.builtin.lowering.reductions import windows
from warpsmith.author.builtin.lowering.registry import Site, lowers
from warpsmith.author.builtin.lowering.views import choose, moved
from warpsmith.author.builtin.scalar import Literal, Position, Scalar, apply, both, cast, compute_dtype, within
from warpsmith.author.builtin.values import Coords, Value, Virtual


@lowers("unfold.default")
def unfold(site: Site, x: Value, dim: int, _size: int, step: int) -> Value:
    """Windows along a dimension, `step` apart; the place within the window is a new last dimension."""
    if not x.shape:
        return moved(site, x, lambda _: ())
    dim %= len(x.shape)
    return moved(site, x, lambda c: (*c[:dim], c[dim] * step + c[-1], *c[dim + 1 : -1]))


@lowers("im2col.default")
def im2col(
    site: Site, x: Value, kernel: Sequence[int], dilation: Sequence[int], padding: Sequence[int],
    stride: Sequence[int],
) -> Value:  # fmt: skip
    """Windows of an image as columns: (batch, channels·window, places)."""
    out = tuple(
        (e + 2 * p - d * (k - 1) - 1) // s + 1
        for e, k, d, p, s in zip(x.shape[-2:], kernel, dilation, padding, stride, strict=True)
    )
    _, source = windows(x, out, kernel, stride, padding, dilation, 0.0)
    lead = x.shape[:-3]

    def formula(coords: Coords) -> Scalar:
        channel, *taps = unravel(coords[-2], (x.shape[-3], *kernel))
        return source((*coords[: len(lead)], channel, *unravel(coords[-1], out), *taps))

    return Virtual(site.name(), site.spec.shape, x.dtype, formula)


@lowers("pixel_shuffle.default")
def pixel_shuffle(site: Site, x: Value, factor: int) -> Value:
    """Spread groups of factor² channels over blocks of factor·factor pixels."""

    def source(c: Coords) -> Coords:
        channel = c[-3] * (factor * factor) + (c[-2] % factor) * factor + c[-1] % factor
        return (*c[:-3], channel, c[-2] // factor, c[-1] // factor)

    return moved(site, x, source)


@lowers("pixel_unshuffle.default")
def pixel_unshuffle(site: Site, x: Value, factor: int) -> Value:
    """Gather blocks of factor·factor pixels into factor² channels; the inverse of pixel_shuffle."""

    def source(c: Coords) -> Coords:
        channel, row, col = unravel(c[-3], (x.shape[-3], factor, factor))
        return (*c[:-3], channel, c[-2] * factor + row, c[-1] * factor + col)

    return moved(site, x, source)


@lowers("channel_shuffle.default", "native_channel_shuffle.default")
def channel_shuffle(site: Site, x: Value, groups: int) -> Value:
    """Interleave groups of channels (dimension 1)."""
    each = x.shape[1] // groups

    def source(c: Coords) -> Coords:
        place, group = unravel(c[1], (each, groups))
        return (c[0], group * each + place, *c[2:])

    return moved(site, x, source)


@lowers("repeat_interleave.self_int")
def repeat_interleave(site: Site, x: Value, times: int, dim: int | None = None) -> Value:
    """Repeat each position of a dimension, or each element of the flattened tensor."""
    if dim is None:
        return moved(site, x, lambda c: unravel(c[0] // times, x.shape))
    dim %= len(x.shape)
    return moved(site, x, lambda c: (*c[:dim], c[dim] // times, *c[dim + 1 :]))


@lowers("meshgrid.indexing", "meshgrid.default")
def meshgrid(site: Site, tensors: Sequence[Value], *, indexing: str = "ij") -> tuple[Value | None, ...]:
    """Every tensor spread along a dimension of its own; `xy` swaps the first two."""
    order = list(range(len(tensors)))
    if indexing == "xy" and len(order) > 1:
        order[0], order[1] = 1, 0
    specs = site.node.outputs

    def spread(number: int, x: Value) -> Virtual:
        spec = specs[number] or site.spec
        return Virtual(
            site.name(str(number)), spec.shape, x.dtype, lambda c: x.at((c[order[number]],) if x.shape else ())
        )

    return tuple(spread(number, x) for number, x in enumerate(tensors))


@lowers("one_hot.default")
def one_hot(site: Site, places: Value, _classes: int = -1) -> Value:
    """One where the last coordinate is the class, zero elsewhere."""

    def formula(coords: Coords) -> Scalar:
        place = cast(places.at(coords[:-1]), "int64")
        return cast(apply("eq", place, Position(coords[-1])), "int64")

    return Virtual(site.name(), site.spec.shape, "int64", formula)


@lowers("linspace.default")
def linspace(site: Site, start: float, end: float, steps: int) -> Value:
    """`steps` numbers from start to end; the second half is counted from the end, as ATen does."""
    dtype = compute_dtype(site.spec.dtype)
    step = (end - start) / max(steps - 1, 1)

    def formula(coords: Coords) -> Scalar:
        def away(index: Index) -> Scalar:
            return apply("mul", cast(Position(index), dtype), Literal(step, dtype))

        rising = apply("add", Literal(float(start), dtype), away(coords[0]))
        falling = apply("sub", Literal(float(end), dtype), away(lift(steps - 1) - coords[0]))
        early = apply("lt", Position(coords[0]), Literal(steps // 2, "int64"))
        return apply("where", early, rising, falling, dtype=dtype) if steps > 1 else rising

    return Virtual(site.name(), site.spec.shape, site.spec.dtype, formula)


@lowers("slice_scatter.default")
def slice_scatter(
    site: Site, x: Value, part: Value, dim: int = 0, start: int | None = None, _end: int | None = None, step: int = 1
) -> Value:
    """x with `part` in every `step`-th position from `start`."""
    dim %= len(x.shape)
    extent = x.shape[dim]
    first = 0 if start is None else max(0, min(extent, start + extent if start < 0 else start))
    spec = site.spec

    def formula(coords: Coords) -> Scalar:
        # Places before the start are shifted by whole steps, since positions are divided only where not negative.
        ahead = -(-first // step) * step
        shifted = coords[dim] - first + ahead
        place = shifted // step - ahead // step
        condition = within(place, 0, part.shape[dim])
        if step > 1:
            condition = both(condition, apply("eq", Position(shifted % step), Literal(0, "int64")))
        inside = cast(part.at((*coords[:dim], place, *coords[dim + 1 :])), spec.dtype)
        return choose(condition, inside, cast(x.at(coords), spec.dtype))

    return Virtual(site.name(), spec.shape, spec.dtype, formula)


@lowers("select_scatter.default")
def select_scatter(site: Site, x: Value, part: Value, dim: int, index: int) -> Value:
    """x with `part` at one position of a dimension."""
    dim %= len(x.shape)
    index %= x.shape[dim]
    spec = site.spec

    def formula(coords: Coords) -> Scalar:
        here = apply("eq", Position(coords[dim]), Literal(index, "int64"))
        inside = cast(part.at((*coords[:dim], *coords[dim + 1 :])), spec.dtype)
        return choose(here, inside, cast(x.at(coords), spec.dtype))

    return Virtual(site.name(), spec.shape, spec.dtype, formula)


@lowers("fill.Scalar", "fill.Tensor", "zero.default")
def fill(site: Site, _x: Value, number: Operand = 0) -> Value:
    """One number everywhere, in the shape and dtype of x."""
    spec = site.spec
    return Virtual(site.name(), spec.shape, spec.dtype, lambda coords: element(number, coords, spec.dtype))
