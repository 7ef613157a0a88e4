"""Pointwise regions: every output element from elements at known places, views as index arithmetic."""

from __future__ import annotations

import math

from warpsmith.author.builtin.index import Axis, unravel
from warpsmith.author.builtin.kernels.emission import (
    Gene,
    Genes,
    Kernels,
    Lanes,
    Scope,
    Store,
    function,
    indented,
    loads,
    parameters,
    vector_widths,
)
from warpsmith.author.builtin.kernels.pointwise_turned import emit_turned, read_dimension
from warpsmith.author.builtin.regions import Region, resolve
from warpsmith.records import GpuSpec, Launch


class Pointwise:
    """`tiles` gives every block one stretch of the output, `grid_stride` lets a fixed grid walk over it, `turned` reads
    along another dimension than it writes.
    """

    def genes(self, region: Region, gpu: GpuSpec) -> tuple[Gene, ...]:
        """Vector width, and how blocks are laid over the output."""
        count = math.prod(region.domain)
        widths = vector_widths(count, [o.dtype for o in region.outputs])
        turned = ("turned",) if read_dimension(region) is not None else ()
        return (
            Gene("algorithm", (*turned, "tiles", "grid_stride")),
            Gene("vec", tuple(sorted(widths, key=lambda v: (v != min(4, max(widths)), v)))),
        )

    def emit(self, region: Region, genes: Genes, scope: Scope) -> Kernels:
        """Write one kernel."""
        if genes["algorithm"] == "turned":
            return emit_turned(region, scope)
        vec = int(genes["vec"])
        count = math.prod(region.domain)
        lanes = Lanes(Axis("i", count // vec), vec)
        coords = unravel(lanes.linear, region.domain)
        values = [resolve(output.at(coords, region.domain), {}) for output in region.outputs]
        stores = [Store(o.name, o.dtype, lanes.linear, v) for o, v in zip(region.outputs, values, strict=True)]
        names, params = parameters(loads(values), [(o.name, o.dtype) for o in region.outputs])
        body = lanes.body(scope.printer(), stores)
        block, items, integer = scope.tunable("BLOCK"), scope.tunable("ITEMS"), scope.integer
        text = [f"constexpr {scope.integer} COUNT = {count // vec};  // {'vectors' if vec > 1 else 'elements'}"]
        if genes["algorithm"] == "tiles":
            text += [
                "#pragma unroll",
                f"for (int item = 0; item < {items}; ++item) {{",
                f"    const {integer} i = ({integer}(blockIdx.x) * {items} + item) * {block} + threadIdx.x;",
                "    if (i < COUNT) {",
                *indented(body, 2),
                "    }",
                "}",
            ]
            grid = f"ceil_div({count // vec}, {block} * {items})"
            tunable: tuple[str, tuple[int, ...]] = (items, (1, 2, 4))
        else:
            waves = scope.tunable("BLOCKS_PER_SM")
            start = f"{scope.integer}(blockIdx.x) * {block} + threadIdx.x"
            text += [
                f"for ({scope.integer} i = {start}; i < COUNT; i += {scope.integer}(gridDim.x) * {block}) {{",
                *indented(body),
                "}",
            ]
            grid = f"min(ceil_div({count // vec}, {block}), sm_count * {waves})"
            tunable = (waves, (4, 2, 8, 1))
        comment = f"{' x '.join(map(str, region.domain)) or 'one'} elements, {vec} at a time."
        return Kernels(
            function(scope, scope.kernel, params, block, text, comment),
            (Launch(scope.kernel, (grid,), (block,), names),),
            ((block, (256, 128, 512, 1024)), tunable),
            helpers=frozenset({"Vec"} if vec > 1 else ()),
        )
