"""A region that reduces, laid out: coordinates for rows and columns, passes, and what is written."""

from __future__ import annotations

from dataclasses import dataclass

from warpsmith.author.builtin.index import Axis, lift, ravel, unravel
from warpsmith.author.builtin.kernels.emission import Lanes, Store, loads, parameters
from warpsmith.author.builtin.kernels.passes import Held, Pass, plan_passes
from warpsmith.author.builtin.regions import Region, resolve
from warpsmith.author.builtin.values import Coords


@dataclass(frozen=True)
class Frame:
    """A region with coordinates for its rows and columns, its passes, and what each result is held in."""

    region: Region
    lanes: Lanes
    row: Coords
    col: Coords
    passes: tuple[Pass, ...]
    held: Held

    @staticmethod
    def of(region: Region, vec: int, one_pass: bool) -> Frame:
        """Lay vectors of `vec` columns over the rows of a region."""
        lanes = Lanes(Axis("j", region.cols // vec), vec)
        row = unravel(lift(Axis("row", region.rows)), region.row_shape)
        col = unravel(lanes.linear, region.col_shape)
        passes, held = plan_passes(region, row, col, one_pass)
        return Frame(region, lanes, row, col, passes, held)

    @property
    def inner(self) -> tuple[Axis, Axis]:
        """The axes that vary along a row."""
        return self.lanes.group, self.lanes.k

    def element_stores(self) -> list[Store]:
        """Outputs that are written once for every element."""
        coords = self.region.coordinates(self.row, self.col)
        place = ravel(coords, self.region.domain)
        return [
            Store(o.name, o.dtype, place, resolve(o.at(coords, self.region.domain), self.held))
            for o in self.region.written("element")
        ]

    def row_stores(self) -> list[Store]:
        """Outputs that are written once for every row."""
        row = lift(Axis("row", self.region.rows))
        return [
            Store(o.name, o.dtype, row, resolve(o.at(self.row, self.region.row_shape), self.held))
            for o in self.region.written("row")
        ]

    def signature(self) -> tuple[tuple[str, ...], str]:
        """Launch arguments and parameter list."""
        values = [step.value for p in self.passes for step in p.steps]
        stores = [*self.element_stores(), *self.row_stores()]
        reads = loads([*values, *(s.value for s in stores)])
        return parameters(reads, [(s.tensor, s.dtype) for s in stores])

    def comment(self) -> str:
        """What the kernel is about, in one line."""
        return f"{self.region.rows} rows of {self.region.cols}."
