"""A long sum shared by several blocks: each leaves a partial sum in memory, and a second kernel adds them up.

The order of addition is fixed, so that results do not change from run to run as they would with atomics.
"""

from __future__ import annotations

from dataclasses import replace

from warpsmith.author.builtin.index import Axis, Index, lift, ravel, unravel
from warpsmith.author.builtin.kernels.contraction_fill import Share
from warpsmith.author.builtin.kernels.contraction_layout import Layout, outputs
from warpsmith.author.builtin.kernels.emission import (
    Kernels,
    Lanes,
    Scope,
    Store,
    function,
    indented,
    loads,
    parameters,
)
from warpsmith.author.builtin.scalar import Local, Scalar
from warpsmith.records import DTYPE_BYTES, Buffer, Launch

# Parts that a thread reads before it adds them.
_UNROLLED = 16
_BLOCKS = (128, 256, 512, 64)
# Rows of threads in a block, which share the parts of their elements.
_ROWS = (16, 8, 4, 2, 1)
# Threads that should add up for each multiprocessor.
_THREADS = 512


class Partials:
    """The scratch tensor [splits, *domain] of partial sums."""

    def __init__(self, layout: Layout, scope: Scope, share: Share, tiles: int, threads: int) -> None:
        """`tiles` blocks of `threads` make the whole sums."""
        self.layout, self.scope, self.share = layout, scope, share
        self.values = share.near(layout, tiles, threads)
        self.splits = scope.tunable("SPLITS")
        self.name = f"{scope.kernel}_partial"

    def stores(self, m: Index, n: Index, total: Scalar) -> list[Store]:
        """Where a block leaves its share of the sum at (m, n); `split` is the number of the share."""
        place = lift(Axis("split", max(self.values))) * self.layout.count
        coords = self.layout.coords(m, n)
        place += ravel(coords, self.layout.region.domain)
        return [Store(self.name, self.layout.dtype, place, total, self.layout.inside(coords))]

    def completed(self, first: Kernels) -> Kernels:
        """Add the kernel that adds up and writes the outputs, and what both need."""
        source, launch, tunables = self._sum()
        buffer = Buffer(self.name, (self.splits, str(self.layout.count)), self.layout.dtype)
        return replace(
            first,
            source=f"{first.source}\n\n{source}",
            launches=(*first.launches, launch),
            tunables=(*first.tunables, (self.splits, self.values), *tunables),
            buffers=(buffer,),
            helpers=first.helpers | {"Vec"},
        )

    def _sum(self) -> tuple[str, Launch, tuple[tuple[str, tuple[int, ...]], ...]]:
        layout, scope = self.layout, self.scope
        widest = 16 // max(DTYPE_BYTES[d] for d in (layout.dtype, *(o.dtype for o in layout.region.outputs)))
        threads = self.share.blocks * _THREADS
        room = min(widest, max(1, layout.count // threads))
        vec = next(v for v in (4, 2, 1) if v <= room and layout.count % v == 0)
        lanes = Lanes(Axis("i", layout.count // vec), vec)
        held = Local(f"acc.at[{'k' if vec > 1 else '0'}]", layout.dtype, frozenset({lanes.group, lanes.k}))
        coords = unravel(lanes.linear, layout.region.domain)
        stores = outputs(layout.region, coords, lanes.linear, held)
        names, params = parameters(loads([s.value for s in stores]), [(s.tensor, s.dtype) for s in stores])
        block, rows, integer = scope.tunable("SUM_BLOCK"), scope.tunable("SUM_ROWS"), scope.integer
        ctype = f"Vec<{layout.ctype}, {vec}>"

        def added(part: str) -> list[str]:
            if vec == 1:
                return [f"acc.at[0] += {part}.at[0];"]
            return ["#pragma unroll", f"for (int k = 0; k < {vec}; ++k) acc.at[k] += {part}.at[k];"]

        body = [
            f"constexpr {integer} COUNT = {layout.count // vec};{'  // vectors' if vec > 1 else ''}",
            f"constexpr int COLUMNS = {block} / {rows};",
            "const int row = threadIdx.x / COLUMNS, col = threadIdx.x % COLUMNS;",
            f"const {integer} i = {integer}(blockIdx.x) * COLUMNS + col;",
            f"__shared__ {ctype} tile[{rows}][COLUMNS];",
            f"{ctype} acc{{}};",
            "if (i < COUNT) {",
            f"    #pragma unroll {_UNROLLED}",
            f"    for (int start = 0; start < {self.splits}; start += {rows}) {{",
            "        const int split = start + row;",
            f"        {ctype} part{{}};",
            f"        if ({self.splits} % {rows} == 0 || split < {self.splits}) {{",
            f"            part = reinterpret_cast<const {ctype}*>({self.name})[split * COUNT + i];",
            "        }",
            *indented(added("part"), 2),
            "    }",
            "}",
            "tile[row][col] = acc;",
            "__syncthreads();",
            "if (row > 0 || i >= COUNT) return;",
            f"for (int other = 1; other < {rows}; ++other) {{",
            *indented(added("tile[other][col]")),
            "}",
            *lanes.body(scope.printer(), stores),
        ]
        name = f"{scope.kernel}_sum"
        everything = f"const {layout.ctype}* __restrict__ {self.name}, {params}"
        comment = f"Adds up {self.splits} partial sums of each element: {rows} threads, then one of them."
        source = function(scope, name, everything, block, body, comment)
        grid = (f"ceil_div({layout.count // vec}, {block} // {rows})",)
        usual = next(r for r in _ROWS if r == 1 or (r * 4 <= self.values[0] and r * layout.count // vec < 2 * threads))
        tunables = ((block, _BLOCKS), (rows, (usual, *(r for r in _ROWS if r in (usual * 2, usual // 2)))))
        return source, Launch(name, grid, (block,), (self.name, *names)), tunables
