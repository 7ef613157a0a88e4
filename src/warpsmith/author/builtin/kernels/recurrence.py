"""Recurrent layers: all steps of a layer in one launch, both directions side by side.

`rows` gives a block some sequences and all units, so that blocks need not wait for each other. `grid` gives a block
some units and lets all blocks meet between steps, so that each keeps its share of the weights close.
"""

from __future__ import annotations

import math
from itertools import product

from warpsmith.author.builtin.index import Axis
from warpsmith.author.builtin.kernels.emission import Gene, Genes, Kernels, Lanes, Scope, loads, vector_widths
from warpsmith.author.builtin.kernels.recurrence_kernel import emit_recurrence
from warpsmith.author.builtin.kernels.recurrence_layout import SHARED_BYTES, RecurrenceLayout, Tile, recurrence_of
from warpsmith.author.builtin.regions import Region
from warpsmith.errors import UnsupportedOperator
from warpsmith.records import GpuSpec

# From so many units on, weights are too many for one block to keep.
_WIDE = 64
_MOST_TILES = 8
_HOLDINGS = ("registers", "shared", "memory")


class Recurrences:
    """Algorithms `rows` and `grid`."""

    def genes(self, region: Region, gpu: GpuSpec) -> tuple[Gene, ...]:
        """Algorithm, what a block keeps in either, where it holds its weights, and vector width."""
        rows, tiles, widths = _rows(region, gpu), _tiles(region, gpu), _widths(region)
        algorithms = [name for name, found in (("rows", rows), ("grid", tiles)) if found]
        if not algorithms:
            raise UnsupportedOperator(
                f"a recurrence of {recurrence_of(region).hidden} units leaves no room for a block"
            )
        if recurrence_of(region).hidden >= _WIDE:
            algorithms.reverse()
        tile = Tile.parse(tiles[0]) if algorithms[0] == "grid" else _whole(region, rows[0])
        holdings = RecurrenceLayout.of(region, tile, widths[0]).holdings()
        genes = (
            Gene("algorithm", tuple(algorithms)),
            Gene("rows", rows),
            Gene("tile", tiles),
            Gene("weights", holdings),
            Gene("vec", widths),
        )
        return tuple(gene for gene in genes if gene.choices)

    def emit(self, region: Region, genes: Genes, scope: Scope) -> Kernels:
        """Write one kernel, and for `grid` a second one that prepares the meetings."""
        grid = genes["algorithm"] == "grid"
        tile = Tile.parse(str(genes["tile"])) if grid else _whole(region, int(genes["rows"]))
        layout = RecurrenceLayout.of(region, tile, int(genes["vec"]))
        # Another tile than the usual one may have no room for its weights: the next best place is taken.
        asked = _HOLDINGS.index(str(genes["weights"]))
        holding = next(h for h in layout.holdings() if _HOLDINGS.index(h) >= asked)
        return emit_recurrence(layout, scope, holding)


def _whole(region: Region, rows: int) -> Tile:
    return Tile(rows, recurrence_of(region).hidden)


def _fits(region: Region, tile: Tile) -> bool:
    return RecurrenceLayout.of(region, tile, 1).shared_bytes("memory") <= SHARED_BYTES


def _rows(region: Region, gpu: GpuSpec) -> tuple[int, ...]:
    """Sequences of a block: the fewest first, unless there would be more blocks than multiprocessors."""
    producer = recurrence_of(region)
    fitting = [r for r in (1, 2, 4, 8) if r < 2 * producer.batch and _fits(region, _whole(region, r))]
    filling = [r for r in fitting if len(producer.directions) * -(-producer.batch // r) <= gpu.sm_count]
    return tuple(sorted(fitting, key=lambda r: r != (filling or fitting[-1:])[0]))


def _tiles(region: Region, gpu: GpuSpec) -> tuple[str, ...]:
    """Tiles whose blocks are all resident at once, one to a multiprocessor; those with the least work first."""
    producer = recurrence_of(region)
    fitting = []
    for rows, units in product((1, 2, 4, 8, 16), (1, 2, 4, 8, 16, 32, 64)):
        tile = Tile(rows, units)
        layout = RecurrenceLayout.of(region, tile, 1)
        blocks = math.prod(layout.groups)
        if rows < 2 * producer.batch and units < producer.hidden and blocks <= gpu.sm_count and _fits(region, tile):
            fitting.append((min(rows, producer.batch) * units, -rows, f"{rows}x{units}"))
    return tuple(text for *_, text in sorted(fitting)[:_MOST_TILES])


def _widths(region: Region) -> tuple[int, ...]:
    """Vector widths in which rows of weights can be read, the widest first."""
    producer = recurrence_of(region)
    found = []
    for vec in vector_widths(producer.hidden, [producer.dtype]):
        lanes = Lanes(Axis("j", producer.hidden // vec), vec)
        layout = RecurrenceLayout.of(region, _whole(region, 1), vec)
        reads = loads([layout.weight(producer.directions[0], 0, lanes.linear)])
        if vec == 1 or any(lanes.is_vector(load) for load in reads):
            found.append(vec)
    return tuple(found)
