"""A long sum shared by several blocks: each leaves a partial sum in memory, and a second kernel adds them up.

The order of addition is fixed, so that results do not change from run to run as they would with atomics.
"""

from __future__ import annotations

from dataclasses import replace

from warpsmith.author.builtin.index import Axis, Index, lift, ravel, unravel
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

_SPLITS = (4, 2, 8, 16)


class Partials:
    """The scratch tensor [splits, *domain] of partial sums."""

    def __init__(self, layout: Layout, scope: Scope) -> None:
        self.layout, self.scope = layout, scope
        self.splits = scope.tunable("SPLITS")
        self.name = f"{scope.kernel}_partial"

    def stores(self, m: Index, n: Index, total: Scalar) -> list[Store]:
        """Where a block leaves its share of the sum at (m, n); `split` is the number of the share."""
        place = lift(Axis("split", max(_SPLITS))) * self.layout.count
        coords = self.layout.coords(m, n)
        place += ravel(coords, self.layout.region.domain)
        return [Store(self.name, self.layout.dtype, place, total, self.layout.inside(coords))]

    def completed(self, first: Kernels) -> Kernels:
        """Add the kernel that adds up and writes the outputs, and what both need."""
        source, launch, block = self._sum()
        buffer = Buffer(self.name, (self.splits, str(self.layout.count)), self.layout.dtype)
        return replace(
            first,
            source=f"{first.source}\n\n{source}",
            launches=(*first.launches, launch),
            tunables=(*first.tunables, (self.splits, _SPLITS), block),
            buffers=(buffer,),
            helpers=first.helpers | {"Vec"},
        )

    def _sum(self) -> tuple[str, Launch, tuple[str, tuple[int, ...]]]:
        layout, scope = self.layout, self.scope
        widest = 16 // max(DTYPE_BYTES[d] for d in (layout.dtype, *(o.dtype for o in layout.region.outputs)))
        vec = next(v for v in (4, 2, 1) if v <= widest and layout.count % v == 0)
        lanes = Lanes(Axis("i", layout.count // vec), vec)
        held = Local(f"acc.at[{'k' if vec > 1 else '0'}]", layout.dtype, frozenset({lanes.group, lanes.k}))
        coords = unravel(lanes.linear, layout.region.domain)
        stores = outputs(layout.region, coords, lanes.linear, held)
        names, params = parameters(loads([s.value for s in stores]), [(s.tensor, s.dtype) for s in stores])
        block, integer = scope.tunable("SUM_BLOCK"), scope.integer
        ctype = f"Vec<{layout.ctype}, {vec}>"
        add = f"for (int k = 0; k < {vec}; ++k) acc.at[k] += part.at[k];" if vec > 1 else "acc.at[0] += part.at[0];"
        body = [
            f"constexpr {integer} COUNT = {layout.count // vec};{'  // vectors' if vec > 1 else ''}",
            f"const {integer} i = {integer}(blockIdx.x) * {block} + threadIdx.x;",
            "if (i >= COUNT) return;",
            f"{ctype} acc{{}};",
            "#pragma unroll",
            f"for (int split = 0; split < {self.splits}; ++split) {{",
            f"    const {ctype} part = reinterpret_cast<const {ctype}*>({self.name})[split * COUNT + i];",
            *indented(["#pragma unroll", add] if vec > 1 else [add]),
            "}",
            *lanes.body(scope.printer(), stores),
        ]
        name = f"{scope.kernel}_sum"
        everything = f"const {layout.ctype}* __restrict__ {self.name}, {params}"
        source = function(scope, name, everything, block, body, f"Adds up {self.splits} partial sums of each element.")
        grid = (f"ceil_div({layout.count // vec}, {block})",)
        return source, Launch(name, grid, (block,), (self.name, *names)), (block, (256, 128, 512))
