"""Few long rows: several blocks share a row. The first kernel sums each block's slice, the second scans the slices."""

from __future__ import annotations

from warpsmith.author.builtin.kernels.emission import Add, Kernels, Scope, function, indented, loads, parameters
from warpsmith.author.builtin.kernels.scan_layout import ScanLayout
from warpsmith.author.builtin.kernels.scan_stretch import Stretch
from warpsmith.records import Buffer, Launch

_SLICES = (32, 16, 64, 8, 128)


def emit_split_scan(layout: ScanLayout, scope: Scope, reads: str) -> Kernels:
    """Write both kernels. What came before a slice is added up in the order of the slices, so results never vary."""
    block, slices, unroll = scope.tunable("BLOCK"), scope.tunable("SLICES"), scope.tunable("UNROLL")
    totals = f"{scope.kernel}_totals"
    integer, rows = scope.integer, layout.region.rows
    share = [
        f"constexpr {integer} SLICE = ({layout.groups} + {slices} - 1) / {slices};",
        f"const {integer} row = blockIdx.x, first = blockIdx.y * SLICE;",
        f"const {integer} last = min({integer}({layout.groups}), first + SLICE);",
        "const int lane = threadIdx.x;",
    ]

    summing = [
        *share,
        f"{layout.accumulator} mine = {layout.accumulator}::empty();",
        f"#pragma unroll {unroll}",
        f"for ({integer} j = first + lane; j < last; j += {block}) {{",
        *indented(layout.lanes.body(scope.printer(), [Add("mine", layout.source)])),
        "}",
        f"mine = block_reduce<{block} / 32>(mine);",
        f"if (lane == 0) {totals}[row * {slices} + blockIdx.y] = mine.value;",
    ]
    names, params = parameters(loads([layout.source]), [(totals, layout.dtype)])
    first_kernel = f"{scope.kernel}_slices"
    comment = f"{layout.comment()}\nThe total of every slice."
    sums = function(scope, first_kernel, params, block, summing, comment)

    stretch = Stretch.of(layout, scope, block, f"block_scan<{block} / 32>", reads, last="last")
    scanning = [
        *share,
        f"{layout.accumulator} carry = {layout.accumulator}::empty();",
        f"for (int slice = 0; slice < blockIdx.y; ++slice) carry.add({totals}[row * {slices} + slice]);",
        *stretch.rounds("first"),
    ]
    all_names, all_params = layout.signature()
    everything = f"const {layout.ctype}* __restrict__ {totals}, {all_params}"
    scans = function(scope, scope.kernel, everything, block, scanning, "Scans every slice, from what came before it.")
    grid = (str(rows), slices)
    return Kernels(
        f"{sums}\n\n{scans}",
        (
            Launch(first_kernel, grid, (block,), names),
            Launch(scope.kernel, grid, (block,), (totals, *all_names)),
        ),
        ((block, layout.blocks), (slices, _SLICES), (unroll, (4, 1, 2, 8)), *stretch.tunables),
        (Buffer(totals, (str(rows), slices), layout.dtype),),
        frozenset(stretch.helpers | {"block_reduce"}),
    )
