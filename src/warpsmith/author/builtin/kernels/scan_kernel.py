"""The kernel of a scan whose rows are scanned by one thread, one warp or one block each, or side by side."""

from __future__ import annotations

from warpsmith.author.builtin.kernels.emission import Add, Kernels, Scope, Sink, function, hoist, indented
from warpsmith.author.builtin.kernels.mapping import block_per_row, columns, warp_per_row
from warpsmith.author.builtin.kernels.scan_layout import ScanLayout
from warpsmith.author.builtin.kernels.scan_stretch import Stretch, Tunables
from warpsmith.author.builtin.scalar import Local
from warpsmith.records import Launch


def emit_scan(layout: ScanLayout, scope: Scope, algorithm: str, reads: str) -> Kernels:
    """Write one kernel."""
    rows = layout.region.rows
    if algorithm == "thread":
        return _serial(layout, scope)
    if algorithm == "warp":
        mapping, exchange = warp_per_row(rows, scope), "warp_scan"
    elif algorithm == "columns":
        mapping = columns(rows, scope)
        exchange = f"column_scan<32, {mapping.threads}>"
    else:
        mapping = block_per_row(rows, scope, layout.blocks)
        exchange = f"block_scan<{mapping.threads} / 32>"
    stretch = Stretch.of(layout, scope, mapping.threads, exchange, reads, mapping.inside)
    opening = [f"{layout.accumulator} carry = {layout.accumulator}::empty();"]
    rows_known = f"ROWS = {rows}, " if any("ROWS" in line for line in mapping.setup) else ""
    unit = "  // of vectors" if layout.lanes.vec > 1 else ""
    known = f"constexpr {scope.integer} {rows_known}COLS = {layout.groups};{unit}"
    body = [known, *mapping.setup, *opening, *stretch.rounds("0")]
    names, params = layout.signature()
    source = function(scope, scope.kernel, params, mapping.bounds, body, layout.comment())
    launch = Launch(scope.kernel, mapping.grid, mapping.block, names)
    return Kernels(source, (launch,), (*mapping.tunables, *stretch.tunables), helpers=frozenset(stretch.helpers))


def _serial(layout: ScanLayout, scope: Scope) -> Kernels:
    """Each thread scans a row by itself."""
    rows, block = layout.region.rows, scope.tunable("BLOCK")
    unroll = scope.tunable("UNROLL")
    stores = layout.stores(Local("carry.value", layout.dtype, layout.inner))
    printer = scope.printer()
    outside = hoist(printer, [layout.source, *(s.value for s in stores)], layout.inner)
    sinks: list[Sink] = [Add("carry", layout.source), *stores]
    body = [
        f"const {scope.integer} row = {scope.integer}(blockIdx.x) * {block} + threadIdx.x;",
        f"if (row >= {rows}) return;",
        f"{layout.accumulator} carry = {layout.accumulator}::empty();",
        *outside,
        f"#pragma unroll {unroll}",
        f"for ({scope.integer} j = 0; j < {layout.groups}; ++j) {{",
        *indented(layout.lanes.body(printer.fork(), sinks)),
        "}",
    ]
    names, params = layout.signature()
    source = function(scope, scope.kernel, params, block, body, layout.comment())
    launch = Launch(scope.kernel, (f"ceil_div({rows}, {block})",), (block,), names)
    helpers = {layout.struct} | ({"Vec"} if layout.lanes.vec > 1 else set())
    tunables: Tunables = ((block, (128, 64, 256, 32)), (unroll, (4, 1, 2, 8)))
    return Kernels(source, (launch,), tunables, (), frozenset(helpers))
