"""A contraction laid out as a batched matrix product: out[b, m, n] = Σ left[b, m, depth] · right[b, depth, n].

Every output dimension counts as m, n or batch by what varies along it, and dimensions of one kind are counted through
by one linear index. So a convolution is a product of its weights with windows of its input, and the images of a
batch lie side by side along n. A dimension with phases is worked on as two, quotient and remainder; where its extent
is no multiple of the phases, the last quotient sticks out, and nothing is written there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Literal as Choice

from warpsmith.author.builtin.index import Axis, Index, axes_of, lift, ravel, unravel
from warpsmith.author.builtin.kernels.emission import Lanes, Store, loads
from warpsmith.author.builtin.kernels.pieces import widest_vector
from warpsmith.author.builtin.printer import CTYPES
from warpsmith.author.builtin.regions import Region, resolve
from warpsmith.author.builtin.scalar import Apply, Literal, Load, Scalar, apply, both, guarded, within
from warpsmith.author.builtin.values import Contraction, Coords, Packed, Virtual
from warpsmith.records import DTYPE_BYTES

Side = Choice["left", "right"]
Along = Choice["depth", "outer"]
ROUNDED = "nearest_tf32"
"""The operation that rounds to what tensor cores read."""
_ANY = Literal(0.0, "float32")


@dataclass(frozen=True)
class Operand:
    """One factor: its element `at` (batch, outer, inner), where `outer` is m on the left and n on the right, and
    `inner` are the coordinates, of extents `summed`, that are summed over.

    `widths` and `directions` keep answers that take long to find and are asked for often.
    """

    side: Side
    extent: int
    summed: tuple[int, ...]
    at: Callable[[Index, Index, Coords], Scalar]
    widths: dict[tuple[Index, Along, int], int] = field(default_factory=dict, compare=False, repr=False)
    directions: dict[Index, Along] = field(default_factory=dict, compare=False, repr=False)

    @property
    def depth(self) -> int:
        """Length of each sum."""
        return math.prod(self.summed)

    def element(self, batch: Index, outer: Index, depth: Index) -> Scalar:
        """The element whose summed coordinates are counted through by `depth`."""
        return self.at(batch, outer, unravel(depth, self.summed))

    @property
    def outer(self) -> str:
        """The name of the axis that only this operand varies along."""
        return "m" if self.side == "left" else "n"

    def lanes(self, along: Along, vec: int) -> Lanes:
        """Vectors along one of the two dimensions."""
        if along == "depth":
            return Lanes(Axis("step", self.depth // vec), vec)
        return Lanes(Axis("group", self.extent // vec), vec)

    def value(self, batch: Index, along: Along, lanes: Lanes) -> Scalar:
        """The element that a lane holds; the other dimension is the axis of its own name."""
        if along == "depth":
            return self.element(batch, lift(Axis(self.outer, self.extent)), lanes.linear)
        return self.element(batch, lanes.linear, lift(Axis("depth", self.depth)))

    def vector(self, batch: Index, along: Along, limit: int) -> int:
        """Widest vector, at most `limit` elements and 16 bytes, in which everything that varies is read whole."""
        known = self.widths.get((batch, along, limit))
        if known is None:
            extent, axis = (self.depth, "step") if along == "depth" else (self.extent, "group")
            known = widest_vector(extent, limit, axis, lambda lanes: self.value(batch, along, lanes))
            self.widths[batch, along, limit] = known
        return known

    def direction(self, batch: Index) -> Along:
        """The dimension that neighbouring threads should walk along, so that reads coalesce."""
        if batch not in self.directions:
            down, across = self.vector(batch, "depth", 8), self.vector(batch, "outer", 8)
            if down == across:
                down, across = self._neighbours(batch, "depth"), self._neighbours(batch, "outer")
            self.directions[batch] = "outer" if across > down else "depth"
        return self.directions[batch]

    def _neighbours(self, batch: Index, along: Along) -> int:
        """How many of the first steps of a warp along a dimension go to the next element in memory."""
        extent = self.depth if along == "depth" else self.extent
        places = []
        for at in range(min(extent, 32)):
            outer, depth = (Index(), lift(at)) if along == "depth" else (lift(at), Index())
            places.append([load.index.constant for load in loads([self.element(batch * 0, outer, depth)])])
        return sum(b == a + 1 for one, other in pairwise(places) for a, b in zip(one, other, strict=False))


@dataclass(frozen=True)
class Layout:
    """A contraction region with linear indices for m, n and the batch. The innermost output dimension is never m.

    `shape` are the extents of the dimensions that are worked on, `roles` what each of them counts as; `tensors` must be
    in memory before the operands can be read. Those called in `rounded` hold what tensor cores read, and nothing more.
    """

    region: Region
    producer: Contraction
    shape: tuple[int, ...]
    roles: str
    left: Operand
    right: Operand
    tensors: tuple[Virtual, ...] = ()
    rounded: frozenset[str] = frozenset()

    @staticmethod
    def of(region: Region, packed: bool = False, *, tf32: bool = False) -> Layout:
        """Lay out the region's contraction, with its operands `packed` if it offers that, and rounded to `tf32`."""
        (producer,) = region.producers
        assert isinstance(producer, Contraction)
        source = producer.packed if packed and producer.packed is not None else producer
        first, second = source.left, source.right
        shape = _worked(producer)
        roles = _roles(producer, shape)
        innermost = next((r for r, e in zip(reversed(roles), reversed(shape), strict=True) if e > 1), "n")
        if innermost == "m":
            first, second = second, first
            roles = roles.translate(str.maketrans("mn", "nm"))

        def left(batch: Index, outer: Index, inner: Coords) -> Scalar:
            out = _joined(producer, _coords(shape, roles, batch, outer, Index()))
            return _read(resolve(first(out, inner), {}))

        def right(batch: Index, outer: Index, inner: Coords) -> Scalar:
            out = _joined(producer, _coords(shape, roles, batch, Index(), outer))
            return _read(resolve(second(out, inner), {}))

        m, n = (math.prod(_extents(shape, roles, role)) for role in "mn")
        tensors = source.tensors if isinstance(source, Packed) else ()
        return Layout(
            region,
            producer,
            shape,
            roles,
            Operand("left", m, source.inner, left),
            Operand("right", n, source.inner, right),
            tuple(_rounded(t) if tf32 else t for t in tensors),
            frozenset(t.name for t in tensors if tf32 and t.dtype == "float32"),
        )

    @property
    def m(self) -> int:
        """Extent of m."""
        return self.left.extent

    @property
    def n(self) -> int:
        """Extent of n."""
        return self.right.extent

    @property
    def batches(self) -> int:
        """Number of independent products."""
        return math.prod(self.extents("b"))

    @property
    def depth(self) -> int:
        """Length of each sum."""
        return self.left.depth

    @property
    def count(self) -> int:
        """Number of output elements."""
        return math.prod(self.producer.shape)

    @property
    def batch(self) -> Index:
        """The batch as an axis."""
        return lift(Axis("batch", self.batches))

    def extents(self, role: str) -> tuple[int, ...]:
        """Extents of the dimensions that count as m, n or b."""
        return _extents(self.shape, self.roles, role)

    @property
    def dtype(self) -> str:
        """The dtype that products are summed in."""
        return self.producer.dtype

    @property
    def ctype(self) -> str:
        """Its C++ type."""
        return CTYPES[self.dtype]

    def coords(self, m: Index, n: Index) -> Coords:
        """Coordinates of an output element of the current batch."""
        return _joined(self.producer, _coords(self.shape, self.roles, self.batch, m, n))

    def inside(self, coords: Coords) -> Scalar | None:
        """Whether there is such an output element, or None where there always is."""
        condition: Scalar | None = None
        for coord, extent, phases in zip(coords, self.producer.shape, _phases(self.producer), strict=True):
            condition = both(condition, within(coord, 0, extent)) if phases > 1 else condition
        return condition

    def stores(self, m: Index, n: Index, total: Scalar) -> list[Store]:
        """The region's outputs at an element whose sum is `total`."""
        coords = self.coords(m, n)
        stores = outputs(self.region, coords, ravel(coords, self.region.domain), total)
        condition = self.inside(coords)
        if condition is None:
            return stores
        return [replace(s, value=guarded(s.value, condition), guard=condition) for s in stores]

    def widest(self, limit: int) -> int:
        """Widest vectors along n in which some output can be written, at most `limit` elements and 16 bytes."""
        for vec in (8, 4, 2):
            if vec > limit or self.n % vec:
                continue
            lanes = Lanes(Axis("column", self.n // vec), vec)
            coords = self.coords(lift(Axis("m", self.m)), lanes.linear)
            place, condition = ravel(coords, self.region.domain), self.inside(coords)
            stores = [Store(o.name, o.dtype, place, _ANY, condition) for o in self.region.outputs]
            fits = all(DTYPE_BYTES[o.dtype] * vec <= 16 for o in self.region.outputs)
            if fits and any(lanes.is_vector(store.place) for store in stores):
                return vec
        return 1

    def comment(self) -> str:
        """What is computed, in one line."""
        times = f"{self.batches} times " if self.batches > 1 else ""
        return f"{times}{self.m} x {self.n} sums of {self.depth} products."


def _rounded(tensor: Virtual) -> Virtual:
    """The tensor with its elements rounded to what tensor cores read, if they have more bits."""
    if tensor.dtype != "float32":
        return tensor
    return replace(tensor, formula=lambda coords: apply(ROUNDED, tensor.at(coords)))


def outputs(region: Region, coords: Coords, place: Index, total: Scalar) -> list[Store]:
    """The outputs of a region with one producer, at the element `coords` whose result is `total`."""
    (producer,) = region.producers
    values = [resolve(o.at(coords, region.domain), {(producer, 0): total}) for o in region.outputs]
    return [Store(o.name, o.dtype, place, value) for o, value in zip(region.outputs, values, strict=True)]


def _read(value: Scalar) -> Scalar:
    """A choice between a read and zero as nothing but the read, which gives zero where its guard does not hold."""
    if isinstance(value, Apply) and value.op == "where":
        condition, inside, outside = value.args
        if isinstance(inside, Load) and isinstance(outside, Literal) and outside.value == 0:
            held = inside.guard
            if held is condition or (isinstance(held, Apply) and held.op == "and" and condition in held.args):
                return inside
    return value


def _extents(shape: tuple[int, ...], roles: str, role: str) -> tuple[int, ...]:
    return tuple(e for e, r in zip(shape, roles, strict=True) if r == role)


def _coords(shape: tuple[int, ...], roles: str, batch: Index, m: Index, n: Index) -> Coords:
    places = {role: iter(unravel(at, _extents(shape, roles, role))) for role, at in (("b", batch), ("m", m), ("n", n))}
    return tuple(next(places[role]) for role in roles)


def _phases(producer: Contraction) -> tuple[int, ...]:
    return producer.phases or (1,) * len(producer.shape)


def _worked(producer: Contraction) -> tuple[int, ...]:
    """Extents of the dimensions that are worked on: a dimension with phases becomes quotient and remainder."""
    pairs = ((-(-extent // p), p) if p > 1 else (extent,) for extent, p in zip(producer.shape, _phases(producer)))
    return tuple(extent for pair in pairs for extent in pair)


def _joined(producer: Contraction, worked: Coords) -> Coords:
    """Return the output's coordinates at coordinates of the dimensions that are worked on."""
    places = iter(worked)
    return tuple(next(places) * p + next(places) if p > 1 else next(places) for p in _phases(producer))


def _roles(producer: Contraction, worked: tuple[int, ...]) -> str:
    """Tell from the operands themselves what varies along each dimension that is worked on."""
    axes = axes_of(worked, "o")
    out = _joined(producer, tuple(lift(axis) for axis in axes))
    inner = tuple(lift(axis) for axis in axes_of(producer.inner, "k"))
    left, right = (operand(out, inner).axes for operand in (producer.left, producer.right))
    return "".join("b" if a in left and a in right else "m" if a in left else "n" for a in axes)
