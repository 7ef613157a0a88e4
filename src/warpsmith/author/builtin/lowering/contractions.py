"""Matrix products and linear layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from warpsmith.author.builtin.index import Index, axes_of, lift, ravel, unravel
from warpsmith.author.builtin.lowering.diagonals import Diagonal
from warpsmith.author.builtin.lowering.pointwise import element
from warpsmith.author.builtin.lowering.registry import Site, lowers
from warpsmith.author.builtin.lowering.views import padded
from warpsmith.author.builtin.scalar import Literal, Load, Scalar, apply, compute_dtype
from warpsmith.author.builtin.values import Contraction, Coords, Packed, Stored, Value, Virtual, expand_coords
from warpsmith.records import DTYPE_BYTES

# Products from which on two copies of the operands cost little beside them, and extents that fill a tile.
_WORTH_COPYING, _LEAST_EXTENT = 1 << 30, 64


def product(site: Site, a: Value, b: Value, transposed: bool = False) -> Contraction:
    """Return a @ b with broadcast batch dimensions, for a (…, m, k) and b (…, k, n), or (…, n, k) if `transposed`."""
    m, depth = a.shape[-2:]
    n = b.shape[-2] if transposed else b.shape[-1]
    batch_a, batch_b = a.shape[:-2], b.shape[:-2]
    rank = max(len(batch_a), len(batch_b))
    padded = [(1,) * (rank - len(s)) + s for s in (batch_a, batch_b)]
    batch = tuple(max(p, q) for p, q in zip(*padded, strict=True))
    roles = "".join("b" if p == q else "m" if q == 1 else "n" for p, q in zip(*padded, strict=True))
    dtype = compute_dtype(site.spec.dtype)

    def left(out: Coords, inner: Coords) -> Scalar:
        return element(a, (*expand_coords(out[:rank], batch_a), out[rank], inner[0]), dtype)

    def right(out: Coords, inner: Coords) -> Scalar:
        place = (out[rank + 1], inner[0]) if transposed else (inner[0], out[rank + 1])
        return element(b, (*expand_coords(out[:rank], batch_b), *place), dtype)

    name, factors = site.name("product"), ((a, False), (b, not transposed))
    packed = None
    if math.prod(batch) * m * n * depth >= _WORTH_COPYING and min(m, n, depth) >= _LEAST_EXTENT:
        packed = _packed(site.node.name, factors, dtype)
    return Contraction(name, (*batch, m, n), dtype, (dtype,), roles + "mn", (depth,), left, right, "matmul", (), packed)


def _packed(name: str, factors: Sequence[tuple[Value, bool]], dtype: str) -> Packed | None:
    """Offer both factors with rows that lie whole, start at a multiple of 16 bytes and are filled up with zeros.

    A factor is (…, outer, depth), or (…, depth, outer) if it is to be turned. None where both can be read in vectors as
    they are.
    """
    if all(_regular(factor) for factor, _ in factors):
        return None
    width = max(_vector(factor) for factor, _ in factors)
    (first, turned), *_ = factors
    depth = first.shape[-2 if turned else -1]
    room = -(-depth // width) * width
    rows = [_rows(f"{name}_{side}", *factor, room) for side, factor in zip(("left", "right"), factors, strict=True)]

    def at(number: int) -> Callable[[Coords, Coords], Scalar]:
        row, lead = rows[number], factors[number][0].shape[:-2]
        memory = Stored(row.name, row.shape, row.dtype)

        def operand(out: Coords, inner: Coords) -> Scalar:
            image = ravel(expand_coords(out[:-2], lead), lead)
            return element(memory, (image, out[number - 2], inner[0]), dtype)

        return operand

    return Packed(tuple(rows), (room,), at(0), at(1))


def _rows(name: str, factor: Value, turned: bool, room: int) -> Virtual:
    """Return a factor as (images, outer, room)."""
    *lead, outer, depth = factor.shape
    if turned:
        outer, depth = depth, outer
    whole = Virtual(
        factor.name,
        (math.prod(lead), outer, depth),
        factor.dtype,
        lambda c: factor.at((*unravel(c[0], lead), *(reversed(c[1:]) if turned else c[1:]))),
    )
    return padded(name, whole, (math.prod(lead), outer, room), (0, 0, 0), 0.0)


def _vector(factor: Value) -> int:
    """Elements of 16 bytes."""
    return 16 // DTYPE_BYTES[factor.dtype]


def _regular(factor: Value) -> bool:
    """Whether a factor is read in whole vectors along one of its last two dimensions, or is computed on the way."""
    axes = axes_of(factor.shape, "e")
    value = factor.at(tuple(map(lift, axes)))
    if not isinstance(value, Load):
        return True
    width = _vector(factor)
    for axis in axes[-2:]:
        rest = value.index - lift(axis)
        alone = axis not in rest.axes and axis.extent % width == 0
        if alone and rest.constant % width == 0 and all(c % width == 0 for _, c in rest.terms):
            return True
    return False


def _named(site: Site, formula: Contraction, drop: Sequence[int] = ()) -> Virtual:
    """Give a product the node's name and shape; `drop` are dimensions of extent one that vectors brought."""

    def at(coords: Coords) -> Scalar:
        full = list(coords)
        for place in drop:
            full.insert(place, Index())
        return formula.at(tuple(full))

    return Virtual(site.name(), site.spec.shape, site.spec.dtype, at)


@lowers("mm.default", "bmm.default")
def matrix_product(site: Site, a: Value, b: Value) -> Value:
    """a @ b."""
    return _scaled(site, a, b) or _named(site, product(site, a, b))


def _scaled(site: Site, a: Value, b: Value) -> Virtual | None:
    """Return a @ b where one of them is a diagonal matrix: no sum is left. Zeros times infinity are not looked at."""
    if not isinstance(a, Diagonal) and not isinstance(b, Diagonal):
        return None
    dtype = compute_dtype(site.spec.dtype)

    def at(coords: Coords) -> Scalar:
        if isinstance(a, Diagonal):
            row = coords[-2:-1] if len(b.shape) > 1 else coords
            return apply("mul", element(a.vector, row, dtype), element(b, coords, dtype))
        assert isinstance(b, Diagonal)
        return apply("mul", element(a, coords, dtype), element(b.vector, coords[-1:], dtype))

    return Virtual(site.name(), site.spec.shape, site.spec.dtype, at)


@lowers("matmul.default", "mv.default", "dot.default")
def matmul(site: Site, a: Value, b: Value) -> Value:
    """a @ b, where a vector counts as a row on the left and a column on the right."""
    if (scaled := _scaled(site, a, b)) is not None:
        return scaled
    row, column = len(a.shape) == 1, len(b.shape) == 1
    left = Virtual(a.name, (1, *a.shape), a.dtype, lambda c: a.at(c[1:])) if row else a
    right = Virtual(b.name, (*b.shape, 1), b.dtype, lambda c: b.at(c[:-1])) if column else b
    whole = product(site, left, right)
    rank = len(whole.shape)
    return _named(site, whole, [rank - 2] * row + [rank - 1] * column)


@lowers("linear.default")
def linear(site: Site, x: Value, weight: Value, bias: Value | None = None) -> Value:
    """x @ weightᵀ + bias."""
    flat = len(x.shape) == 1
    left = Virtual(x.name, (1, *x.shape), x.dtype, lambda c: x.at(c[1:])) if flat else x
    whole = product(site, left, weight, transposed=True)
    out = _named(site, whole, [0] if flat else [])
    return biased(site, out, bias, lambda coords: (coords[-1],))


@lowers("addmm.default", "baddbmm.default")
def addmm(site: Site, bias: Value, a: Value, b: Value, beta: float = 1, alpha: float = 1) -> Value:
    """beta·bias + alpha·(a @ b)."""
    whole = product(site, a, b)
    dtype = whole.dtype

    def formula(coords: Coords) -> Scalar:
        scaled, extra = whole.at(coords), element(bias, coords, dtype)
        if alpha != 1:
            scaled = apply("mul", scaled, Literal(float(alpha), dtype))
        if beta != 1:
            extra = apply("mul", extra, Literal(float(beta), dtype))
        return apply("add", scaled, extra)

    return Virtual(site.name(), site.spec.shape, site.spec.dtype, formula)


def biased(site: Site, out: Virtual, bias: Value | None, channel: Callable[[Coords], Coords]) -> Virtual:
    """Add a bias, of which `channel` tells the element that belongs to an output."""
    if bias is None:
        return out
    dtype = compute_dtype(out.dtype)
    return Virtual(
        site.name(), out.shape, out.dtype, lambda c: apply("add", out.at(c), element(bias, channel(c), dtype))
    )
