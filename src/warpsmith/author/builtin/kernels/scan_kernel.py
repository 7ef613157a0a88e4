"""The kernel of a scan, for every way in which threads may share a row."""

from __future__ import annotations

from dataclasses import dataclass

from warpsmith.author.builtin.kernels.emission import (
    Add,
    Assign,
    Kernels,
    Scope,
    Sink,
    Store,
    function,
    hoist,
    indented,
    loads,
    parameters,
)
from warpsmith.author.builtin.kernels.mapping import block_per_row, columns, warp_per_row
from warpsmith.author.builtin.kernels.scan_layout import ScanLayout
from warpsmith.author.builtin.scalar import Local
from warpsmith.records import DTYPE_BYTES, Launch

Tunables = tuple[tuple[str, tuple[int, ...]], ...]
# Static shared memory that traded elements may take.
_SHARED_BYTES = 40 * 1024
# Elements that a thread may hold.
_STRETCHES = (4, 2, 8, 1, 16)


def emit_scan(layout: ScanLayout, scope: Scope, algorithm: str, exchanged: bool) -> Kernels:
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
        mapping = block_per_row(rows, scope, block_sizes(layout))
        exchange = f"block_scan<{mapping.threads} / 32>"
    stretch = Stretch.of(layout, scope, mapping.threads, exchange, exchanged, mapping.inside)
    opening = [f"{layout.accumulator} carry = {layout.accumulator}::empty();"]
    rows_known = f"ROWS = {rows}, " if any("ROWS" in line for line in mapping.setup) else ""
    unit = "  // of vectors" if layout.lanes.vec > 1 else ""
    known = f"constexpr {scope.integer} {rows_known}COLS = {layout.groups};{unit}"
    body = [known, *mapping.setup, *opening, *stretch.rounds("0")]
    names, params = signature(layout)
    source = function(scope, scope.kernel, params, mapping.bounds, body, layout.comment())
    launch = Launch(scope.kernel, mapping.grid, mapping.block, names)
    return Kernels(source, (launch,), (*mapping.tunables, *stretch.tunables), helpers=frozenset(stretch.helpers))


def signature(layout: ScanLayout) -> tuple[tuple[str, ...], str]:
    """Launch arguments and parameter list."""
    stores = layout.stores(Local("held", layout.dtype))
    return parameters(loads([layout.source, *(s.value for s in stores)]), [(s.tensor, s.dtype) for s in stores])


def block_sizes(layout: ScanLayout) -> tuple[int, ...]:
    """Threads of a block: no more than there are vectors in a row, but at least two warps."""
    return tuple(b for b in (256, 128, 512, 1024, 64) if b < 2 * layout.groups) or (64,)


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
    names, params = signature(layout)
    source = function(scope, scope.kernel, params, block, body, layout.comment())
    launch = Launch(scope.kernel, (f"ceil_div({rows}, {block})",), (block,), names)
    helpers = {layout.struct} | ({"Vec"} if layout.lanes.vec > 1 else set())
    tunables: Tunables = ((block, (128, 64, 256, 32)), (unroll, (4, 1, 2, 8)))
    return Kernels(source, (launch,), tunables, (), frozenset(helpers))


@dataclass(frozen=True)
class Stretch:
    """Rounds in which `threads` threads scan a stretch of neighbouring vectors each.

    `exchange` is the function that tells a thread what came before its stretch; with `exchanged` the block reads and
    writes its elements in order and trades them through shared memory. `inside` is the condition to write under,
    `last` the end of the row or slice.
    """

    layout: ScanLayout
    scope: Scope
    threads: str
    exchange: str
    exchanged: bool
    inside: str
    last: str
    sizes: tuple[int, ...]

    @staticmethod
    def of(
        layout: ScanLayout, scope: Scope, threads: str, exchange: str, exchanged: bool, inside: str = "",
        last: str = "COLS",
    ) -> Stretch:  # fmt: skip
        """Choose how long stretches may be."""
        shares = layout.groups // (max(block_sizes(layout)) if "block" in exchange else 32)
        fitting = max(1, min(4, 1 << max(shares, 1).bit_length() - 1))
        sizes = tuple(sorted(_STRETCHES, key=lambda s: s != fitting))
        sizes = tuple(s for s in sizes if s * layout.lanes.vec <= 16)
        if exchanged:
            most = _SHARED_BYTES // (max(block_sizes(layout)) * DTYPE_BYTES[layout.dtype])
            sizes = tuple(s for s in sizes if s <= most)
        return Stretch(layout, scope, threads, exchange, exchanged, inside, last, sizes)

    @property
    def items(self) -> str:
        """The macro with the number of vectors in a stretch."""
        return self.scope.tunable("ITEMS")

    @property
    def tunables(self) -> Tunables:
        """The length of a stretch."""
        return ((self.items, self.sizes),)

    @property
    def helpers(self) -> set[str]:
        """Snippets that the rounds use."""
        snippet = self.exchange.split("<")[0]
        vectors = {"Vec"} if self.layout.lanes.vec > 1 else set()
        return {self.layout.struct, "scans" if snippet == "warp_scan" else snippet} | vectors

    def rounds(self, first: str) -> list[str]:
        """Scan the vectors from `first` to `last` of a row, starting with what `carry` holds."""
        layout, integer = self.layout, self.scope.integer
        inner = [
            *(self._collect() if self.exchanged else self._read()),
            f"{layout.accumulator} total;",
            f"{layout.accumulator} before = carry;",
            f"before.merge({self.exchange}(mine, total));",
            *(self._trade() if self.exchanged else self._write()),
            "carry.merge(total);",
            *(["__syncthreads();"] if self.exchanged else []),
        ]
        text = []
        if self.exchanged:
            # One word in 32 is skipped, so that threads that walk along their stretches meet different banks.
            text = [
                f"constexpr int COUNT = {self.threads} * {self.items};",
                f"__shared__ {layout.ctype} tile[COUNT + COUNT / 32];",
            ]
        return [
            *text,
            f"for ({integer} start = {first}; start < {self.last}; start += {self.threads} * {self.items}) {{",
            *indented(inner),
            "}",
        ]

    def _each(self, body: list[str], place: str, inside: str = "") -> list[str]:
        """Run over a thread's share of the round."""
        guard = f"{inside} && j < {self.last}" if inside else f"j < {self.last}"
        return [
            "#pragma unroll",
            f"for (int item = 0; item < {self.items}; ++item) {{",
            f"    const {self.scope.integer} j = start + {place};",
            f"    if ({guard}) {{",
            *indented(body, 2),
            "    }",
            "}",
        ]

    @property
    def _own(self) -> str:
        return f"lane * {self.items} + item"

    def _read(self) -> list[str]:
        """Scan the thread's own stretch in registers."""
        layout, vec = self.layout, self.layout.lanes.vec
        place = f"item * {vec} + k" if vec > 1 else "item"
        sinks: list[Sink] = [
            Add("mine", layout.source),
            Assign(f"running[{place}]", Local("mine.value", layout.dtype, layout.inner)),
        ]
        size = f"{self.items} * {vec}" if vec > 1 else self.items
        return [
            f"{layout.ctype} running[{size}];",
            f"{layout.accumulator} mine = {layout.accumulator}::empty();",
            *self._each(layout.lanes.body(self.scope.printer(), sinks), self._own),
        ]

    def _write(self) -> list[str]:
        vec = self.layout.lanes.vec
        place = f"item * {vec} + k" if vec > 1 else "item"
        stores: list[Store] = self.layout.stores(self.layout.merged("before.value", f"running[{place}]"))
        return self._each(self.layout.lanes.body(self.scope.printer(), stores), self._own, self.inside)

    def _collect(self) -> list[str]:
        """Read in order, then scan the thread's own stretch out of shared memory."""
        layout = self.layout
        read = layout.lanes.body(self.scope.printer(), [Assign("tile[at + at / 32]", layout.source)])
        return [
            *self._each(["const int at = " + self._striped + ";", *read], self._striped),
            "__syncthreads();",
            f"{layout.accumulator} mine = {layout.accumulator}::empty();",
            *self._each([f"const int at = {self._own};", "mine.add(tile[at + at / 32]);"], self._own),
        ]

    @property
    def _striped(self) -> str:
        return f"item * {self.threads} + lane"

    def _trade(self) -> list[str]:
        """Put running results back, then write them in order."""
        layout = self.layout
        stores = layout.stores(Local("tile[at + at / 32]", layout.dtype, layout.inner))
        write = layout.lanes.body(self.scope.printer(), stores)
        back = ["before.add(tile[at + at / 32]);", "tile[at + at / 32] = before.value;"]
        return [
            *self._each([f"const int at = {self._own};", *back], self._own),
            "__syncthreads();",
            *self._each([f"const int at = {self._striped};", *write], self._striped),
        ]
