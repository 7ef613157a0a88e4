"""A scan laid out as rows: coordinates, the element that is scanned, and what is written for each."""

from __future__ import annotations

import math
from dataclasses import dataclass

from warpsmith.author.builtin.index import Axis, Index, lift, ravel, unravel
from warpsmith.author.builtin.kernels.emission import Lanes, Store, loads, parameters
from warpsmith.author.builtin.printer import CTYPES
from warpsmith.author.builtin.regions import Region, resolve
from warpsmith.author.builtin.scalar import Local, Scalar, apply
from warpsmith.author.builtin.values import Coords, Producer, Scan


@dataclass(frozen=True)
class ScanLayout:
    """A scan region with vectors of `lanes.vec` elements along its rows; a reversed scan runs from the end."""

    region: Region
    producer: Scan
    lanes: Lanes
    source: Scalar

    @staticmethod
    def of(region: Region, vec: int) -> ScanLayout:
        """Lay out the region's scan."""
        (producer,) = region.producers
        assert isinstance(producer, Scan)
        lanes = Lanes(Axis("j", region.cols // vec), vec)
        source = resolve(producer.source(_coords(region, producer, lanes.linear)), {})
        return ScanLayout(region, producer, lanes, source)

    @property
    def groups(self) -> int:
        """Vectors in a row."""
        return self.lanes.group.extent

    @property
    def blocks(self) -> tuple[int, ...]:
        """Threads of a block: no more than there are vectors in a row, but at least two warps."""
        return tuple(b for b in (256, 128, 512, 1024, 64) if b < 2 * self.groups) or (64,)

    @property
    def beside(self) -> int:
        """How many rows lie side by side in memory, element next to element; 1 where rows lie behind each other."""
        return math.prod(self.region.domain[self.region.reduced[0] + 1 :])

    @property
    def struct(self) -> str:
        """The accumulator."""
        return "Sum" if self.producer.kind == "sum" else "Product"

    @property
    def dtype(self) -> str:
        """The dtype that is accumulated in."""
        return self.producer.dtype

    @property
    def ctype(self) -> str:
        """Its C++ type."""
        return CTYPES[self.dtype]

    @property
    def accumulator(self) -> str:
        """The accumulator's C++ type."""
        return f"{self.struct}<{self.ctype}>"

    @property
    def inner(self) -> frozenset[Axis]:
        """The axes that vary along a row."""
        return frozenset({self.lanes.group, self.lanes.k})

    @property
    def any_vector(self) -> bool:
        """Whether something can be moved as a vector."""
        moved = [*loads([self.source]), *(s.place for s in self.stores(Local("held", self.dtype)))]
        return any(self.lanes.is_vector(load) for load in moved)

    def merged(self, before: str, own: str) -> Scalar:
        """What came before an element, together with the stretch that ends with it."""
        both = (Local(before, self.dtype), Local(own, self.dtype, self.inner))
        return apply("add" if self.producer.kind == "sum" else "mul", *both)

    def stores(self, total: Scalar) -> list[Store]:
        """The region's outputs at an element whose running result is `total`."""
        coords = _coords(self.region, self.producer, self.lanes.linear)
        place = ravel(coords, self.region.domain)
        held: dict[tuple[Producer, int], Scalar] = {(self.producer, 0): total}
        return [
            Store(o.name, o.dtype, place, resolve(o.at(coords, self.region.domain), held)) for o in self.region.outputs
        ]

    def signature(self) -> tuple[tuple[str, ...], str]:
        """Launch arguments and parameter list of a kernel that reads and writes everything."""
        stores = self.stores(Local("held", self.dtype))
        reads = loads([self.source, *(s.value for s in stores)])
        return parameters(reads, [(s.tensor, s.dtype) for s in stores])

    def comment(self) -> str:
        """What is computed, in one line."""
        word = "sums" if self.producer.kind == "sum" else "products"
        return f"Running {word} along {self.region.rows} rows of {self.region.cols}."


def _coords(region: Region, producer: Scan, at: Index) -> Coords:
    """Coordinates of the element that is scanned `at`-th in its row."""
    row = unravel(lift(Axis("row", region.rows)), region.row_shape)
    place = at * -1 + (region.cols - 1) if producer.reverse else at
    return region.coordinates(row, (place,))
