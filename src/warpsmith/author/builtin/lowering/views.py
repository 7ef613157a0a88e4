"""Operators that only move elements: index arithmetic, never a copy."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from warpsmith.author.builtin.index import Index, Indirect, lift, ravel, unravel
from warpsmith.author.builtin.lowering.registry import Site, lowers
from warpsmith.author.builtin.scalar import Literal, Position, Scalar, apply, both, cast, compute_dtype, guarded, within
from warpsmith.author.builtin.values import Coords, Value, Virtual, expand_coords
from warpsmith.errors import UnsupportedOperator

CoordMap = Callable[[Coords], Coords]


def moved(site: Site, x: Value, source: CoordMap) -> Virtual:
    """Return the tensor whose element at c is x at `source(c)`."""
    spec = site.spec
    return Virtual(site.name(), spec.shape, x.dtype, lambda coords: x.at(source(coords)))


@lowers(
    "view.default",
    "reshape.default",
    "_unsafe_view.default",
    "flatten.using_ints",
    "unflatten.int",
    "squeeze.default",
    "squeeze.dim",
    "squeeze.dims",
    "unsqueeze.default",
    "view_as.default",
    "_reshape_copy.default",
)
def reshape(site: Site, x: Value, *_unused: object) -> Value:
    """Keep the row-major order, change the shape."""
    shape = site.spec.shape
    return moved(site, x, lambda coords: unravel(ravel(coords, shape), x.shape))


@lowers("permute.default")
def permute(site: Site, x: Value, dims: Sequence[int]) -> Value:
    """Reorder dimensions."""
    rank = len(x.shape)
    order = [d % rank for d in dims]

    def source(coords: Coords) -> Coords:
        placed = [Index()] * rank
        for coord, d in zip(coords, order, strict=True):
            placed[d] = coord
        return tuple(placed)

    return moved(site, x, source)


@lowers("transpose.int", "swapaxes.default")
def transpose(site: Site, x: Value, first: int, second: int) -> Value:
    """Swap two dimensions."""
    dims = list(range(len(x.shape)))
    dims[first], dims[second] = dims[second], dims[first]
    return permute(site, x, dims)


@lowers("t.default", "numpy_T.default", "mT.default")
def transpose_last(site: Site, x: Value) -> Value:
    """Swap the last two dimensions, if there are two."""
    return transpose(site, x, -1, -2) if len(x.shape) > 1 else moved(site, x, lambda coords: coords)


@lowers("expand.default", "expand_as.default", "broadcast_to.default")
def expand(site: Site, x: Value, *_unused: object) -> Value:
    """Repeat along dimensions of extent one."""
    return moved(site, x, lambda coords: expand_coords(coords, x.shape))


@lowers("repeat.default", "tile.default")
def repeat(site: Site, x: Value, _times: Sequence[int]) -> Value:
    """Repeat the whole tensor along each dimension."""
    return moved(
        site, x, lambda coords: tuple(c % e for c, e in zip(coords[len(coords) - len(x.shape) :], x.shape, strict=True))
    )


@lowers("select.int")
def select(site: Site, x: Value, dim: int, index: int) -> Value:
    """Take one position of a dimension away."""
    dim %= len(x.shape)
    position = lift(index % x.shape[dim])
    return moved(site, x, lambda coords: (*coords[:dim], position, *coords[dim:]))


@lowers("slice.Tensor")
def slice_(
    site: Site, x: Value, dim: int = 0, start: int | None = None, _end: int | None = None, step: int = 1
) -> Value:
    """Take every `step`-th position from `start`."""
    dim %= len(x.shape)
    extent = x.shape[dim]
    first = 0 if start is None else max(0, min(extent, start + extent if start < 0 else start))
    return moved(site, x, lambda coords: (*coords[:dim], coords[dim] * step + first, *coords[dim + 1 :]))


@lowers("narrow.default")
def narrow(site: Site, x: Value, dim: int, start: int, _length: int) -> Value:
    """Take a range of positions."""
    return slice_(site, x, dim, start)


def _piece(site: Site, x: Value, dim: int, start: int, length: int, number: int) -> Virtual:
    shape = (*x.shape[:dim], length, *x.shape[dim + 1 :])
    return Virtual(
        site.name(str(number)), shape, x.dtype,
        lambda coords: x.at((*coords[:dim], coords[dim] + start, *coords[dim + 1 :])),
    )  # fmt: skip


@lowers("split.Tensor", "split_with_sizes.default", "split.sizes", "chunk.default", "unsafe_chunk.default")
def split(site: Site, x: Value, sizes: int | Sequence[int], dim: int = 0) -> tuple[Value | None, ...]:
    """Cut a dimension into consecutive pieces: of given sizes, of one size, or into a number of chunks."""
    dim %= len(x.shape)
    extent = x.shape[dim]
    if isinstance(sizes, int):
        size = -(-extent // sizes) if "chunk" in site.node.op else sizes
        sizes = [min(size, extent - start) for start in range(0, extent, size)]
    starts = [sum(sizes[:n]) for n in range(len(sizes))]
    return tuple(_piece(site, x, dim, at, size, n) for n, (at, size) in enumerate(zip(starts, sizes, strict=True)))


@lowers("broadcast_tensors.default")
def broadcast_tensors(site: Site, tensors: Sequence[Value]) -> tuple[Value | None, ...]:
    """Every tensor expanded to the shape of all of them together."""
    rank = max(len(t.shape) for t in tensors)
    padded = [(1,) * (rank - len(t.shape)) + t.shape for t in tensors]
    shape = tuple(max(extents) for extents in zip(*padded, strict=True))

    def expanded(number: int, x: Value) -> Virtual:
        return Virtual(site.name(str(number)), shape, x.dtype, lambda coords: x.at(expand_coords(coords, x.shape)))

    return tuple(expanded(number, x) for number, x in enumerate(tensors))


@lowers("unbind.int")
def unbind(site: Site, x: Value, dim: int = 0) -> tuple[Value | None, ...]:
    """One tensor for each position of a dimension."""
    dim %= len(x.shape)

    def at(number: int) -> Value:
        shape = (*x.shape[:dim], *x.shape[dim + 1 :])
        place = lift(number)
        return Virtual(
            site.name(str(number)), shape, x.dtype, lambda coords: x.at((*coords[:dim], place, *coords[dim:]))
        )

    return tuple(at(number) for number in range(x.shape[dim]))


@lowers("flip.default")
def flip(site: Site, x: Value, dims: Sequence[int]) -> Value:
    """Reverse dimensions."""
    flipped = {d % len(x.shape) for d in dims}

    def source(coords: Coords) -> Coords:
        return tuple(
            lift(e - 1) - c if d in flipped else c for d, (c, e) in enumerate(zip(coords, x.shape, strict=True))
        )

    return moved(site, x, source)


@lowers("roll.default")
def roll(site: Site, x: Value, shifts: Sequence[int], dims: Sequence[int] = ()) -> Value:
    """Rotate dimensions; without dimensions, the tensor as a whole."""
    if not dims:
        total = (x.shape and ravel([lift(e - 1) for e in x.shape], x.shape).constant + 1) or 1
        return moved(site, x, lambda coords: unravel((ravel(coords, x.shape) + (-shifts[0]) % total) % total, x.shape))
    by = {d % len(x.shape): s for d, s in zip(dims, shifts, strict=True)}
    return moved(
        site, x, lambda coords: tuple(
            (c + (-by.get(d, 0)) % e) % e for d, (c, e) in enumerate(zip(coords, x.shape, strict=True))
        ),
    )  # fmt: skip


def choose(condition: Scalar | None, inside: Scalar, outside: Scalar) -> Scalar:
    """Return `inside`, read only where the condition holds, else `outside`."""
    if condition is None:
        return inside
    return apply("where", condition, guarded(inside, condition), outside, dtype=inside.dtype)


@lowers("cat.default", "concat.default", "concatenate.default")
def concatenate(site: Site, tensors: Sequence[Value], dim: int = 0) -> Value:
    """Join along a dimension: each element chooses the tensor that it lies in."""
    spec = site.spec
    dim %= len(spec.shape)
    pieces = [t for t in tensors if t.shape != (0,)]

    def formula(coords: Coords) -> Scalar:
        starts = [sum(t.shape[dim] for t in pieces[:n]) for n in range(len(pieces))]
        result: Scalar | None = None
        for piece, start in reversed(list(zip(pieces, starts, strict=True))):
            place = coords[dim] - start
            value = cast(piece.at((*coords[:dim], place, *coords[dim + 1 :])), spec.dtype)
            if result is None:
                result = guarded(value, lower) if (lower := within(place, 0, spec.shape[dim])) else value
            else:
                inside = both(within(place, 0, piece.shape[dim]), None)
                result = choose(inside, value, result)
        assert result is not None
        return result

    return Virtual(site.name(), spec.shape, spec.dtype, formula)


@lowers("stack.default")
def stack(site: Site, tensors: Sequence[Value], dim: int = 0) -> Value:
    """Join along a new dimension."""
    rank = len(site.spec.shape)
    dim %= rank

    def lifted(x: Value) -> Value:
        shape = (*x.shape[:dim], 1, *x.shape[dim:])
        return Virtual(x.name, shape, x.dtype, lambda coords: x.at((*coords[:dim], *coords[dim + 1 :])))

    return concatenate(site, [lifted(t) for t in tensors], dim)


@lowers("constant_pad_nd.default", "pad.default")
def pad(site: Site, x: Value, pads: Sequence[int], *rest: object) -> Value:
    """Surround with a constant; `pads` names (before, after) pairs from the last dimension on."""
    mode = rest[0] if rest and isinstance(rest[0], str) else "constant"
    number = next((r for r in rest if isinstance(r, (int, float)) and not isinstance(r, bool)), 0.0)
    before = [0] * len(x.shape)
    for pair in range(len(pads) // 2):
        before[-1 - pair] = pads[2 * pair]
    if mode != "constant":
        return _pad_by_index(site, x, before, mode)
    return padded(site.name(), x, site.spec.shape, before, float(number))


def padded(name: str, x: Value, shape: Sequence[int], before: Sequence[int], number: float) -> Virtual:
    """Return x inside a tensor of `shape`, `before` positions from its start, `number` around it."""

    def formula(coords: Coords) -> Scalar:
        source = tuple(c - b for c, b in zip(coords, before, strict=True))
        condition: Scalar | None = None
        for coord, extent in zip(source, x.shape, strict=True):
            condition = both(condition, within(coord, 0, extent))
        inside = x.at(source)
        return choose(condition, inside, cast(Literal(number, "float32"), inside.dtype))

    return Virtual(name, tuple(shape), x.dtype, formula)


def _pad_by_index(site: Site, x: Value, before: Sequence[int], mode: str) -> Value:
    def source(coords: Coords) -> Coords:
        places = zip(coords, before, x.shape, site.spec.shape, strict=True)
        return tuple(c if e == o else _padded_place(c, b, e, mode) for c, b, e, o in places)

    return moved(site, x, source)


def _padded_place(coord: Index, before: int, extent: int, mode: str) -> Index:
    """Where to read what stands `before` positions after `coord`, from a dimension that goes on in some way."""
    if mode == "circular":
        return (coord + (-before) % extent) % extent
    place, last = Position(coord - before), Literal(extent - 1, "int64")
    if mode == "replicate":
        inside = apply("minimum", apply("maximum", place, Literal(0, "int64")), last)
    elif mode == "reflect":
        inside = apply("sub", last, apply("abs", apply("sub", last, apply("abs", place))))
    else:
        raise UnsupportedOperator(f"aten.pad with mode {mode!r}")
    return Index(((Indirect(inside, extent), 1),))


@lowers("tril.default", "triu.default")
def triangle(site: Site, x: Value, diagonal: int = 0) -> Value:
    """Zero above (tril) or below (triu) a diagonal."""
    upper = "triu" in site.node.op

    def formula(coords: Coords) -> Scalar:
        row, col = coords[-2], coords[-1]
        kept = apply("ge" if upper else "le", Position(col), Position(row + diagonal))
        inside = x.at(coords)
        return choose(kept, inside, cast(Literal(0.0, "float32"), inside.dtype))

    return Virtual(site.name(), site.spec.shape, x.dtype, formula)


@lowers("arange.default", "arange.start", "arange.start_step")
def arange(site: Site, *args: object) -> Value:
    """start, start + step, …"""
    numbers = [a for a in args if isinstance(a, (int, float)) and not isinstance(a, bool)]
    start = numbers[0] if len(numbers) > 1 else 0
    step = numbers[2] if len(numbers) > 2 else 1
    dtype = compute_dtype(site.spec.dtype)

    def formula(coords: Coords) -> Scalar:
        count = cast(Position(coords[0]), dtype)
        scaled = apply("mul", count, cast(Literal(step, "int64"), dtype)) if step != 1 else count
        return apply("add", scaled, cast(Literal(start, "int64"), dtype)) if start else scaled

    return Virtual(site.name(), site.spec.shape, site.spec.dtype, formula)
