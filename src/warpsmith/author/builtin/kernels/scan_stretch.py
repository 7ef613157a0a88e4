"""Rounds of a scan: the threads of a row take a stretch each, and tell one another what came before.

Three ways to read. `direct`: a thread reads its own stretch of neighbouring vectors. `exchanged`: the block reads
elements in order and trades them through shared memory. `striped`: each warp has a stretch, of which it reads 32
neighbouring vectors at a time, so that reads are in order and nothing is traded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from warpsmith.author.builtin.kernels.emission import Add, Assign, Scope, Sink, Store, indented
from warpsmith.author.builtin.kernels.scan_layout import ScanLayout
from warpsmith.author.builtin.scalar import Local
from warpsmith.records import DTYPE_BYTES

Tunables = tuple[tuple[str, tuple[int, ...]], ...]
# Static shared memory that traded elements may take.
_SHARED_BYTES = 40 * 1024
# Vectors that a thread may hold, and elements.
_STRETCHES = (4, 2, 8, 1, 16)
_MOST = 16


@dataclass(frozen=True)
class Stretch:
    """Rounds in which `threads` threads scan a stretch each.

    `exchange` is the function that tells a thread what came before it among them; `reads` says how elements are read,
    `direct` wherever threads are no block to a row. `inside` is the condition to write under, `last` the end of the
    row or slice. `sizes` are the lengths of a stretch, in vectors.
    """

    layout: ScanLayout
    scope: Scope
    threads: str
    exchange: str
    reads: str
    inside: str
    last: str
    sizes: tuple[int, ...]

    @staticmethod
    def of(
        layout: ScanLayout, scope: Scope, threads: str, exchange: str, reads: str, inside: str = "",
        last: str = "COLS", fitting: int | None = None,
    ) -> Stretch:  # fmt: skip
        """Choose how long stretches may be; `fitting` comes first, by default what a row has for each thread."""
        if fitting is None:
            shares = layout.groups // (max(layout.blocks) if "block" in exchange else 32)
            fitting = max(1, min(4, 1 << max(shares, 1).bit_length() - 1))
        most = _MOST // layout.lanes.vec
        if reads == "exchanged":
            most = min(most, _SHARED_BYTES // (max(layout.blocks) * DTYPE_BYTES[layout.dtype]))
        first = min(fitting, 1 << most.bit_length() - 1)
        sizes = tuple(sorted((s for s in _STRETCHES if s <= most), key=lambda s: s != first))
        return Stretch(layout, scope, threads, exchange, reads, inside, last, sizes)

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
        meeting = [
            f"{self.layout.accumulator} before = carry;",
            f"before.merge({self.exchange}({self.share}, total));",
        ]
        inner = [
            *self.round(meeting),
            "carry.merge(total);",
            *(["__syncthreads();"] if self.reads == "exchanged" else []),
        ]
        head = (
            f"for ({self.scope.integer} start = {first}; start < {self.last}; start += {self.threads} * {self.items})"
        )
        return [*self.opening, f"{head} {{", *indented(inner), "}"]

    @property
    def opening(self) -> list[str]:
        """What stands before the first round."""
        if self.reads != "exchanged":
            return []
        # One word in 32 is skipped, so that threads that walk along their stretches meet different banks.
        return [
            f"constexpr int COUNT = {self.threads} * {self.items};",
            f"__shared__ {self.layout.ctype} tile[COUNT + COUNT / 32];",
        ]

    @property
    def share(self) -> str:
        """What a thread brings to the exchange: its stretch, or the last lane that of its warp."""
        return f"lane % 32 == 31 ? mine : {self.layout.accumulator}::empty()" if self.reads == "striped" else "mine"

    def round(self, meeting: Sequence[str]) -> list[str]:
        """Scan from `start` on. In between, `meeting` sets `total` and defines `before`, what came before a stretch."""
        read = {"direct": self._read, "exchanged": self._collect, "striped": self._read_striped}[self.reads]
        return [
            *read(),
            f"{self.layout.accumulator} total;",
            *meeting,
            *(self._trade() if self.reads == "exchanged" else self._write()),
        ]

    def _each(self, body: list[str], place: str, inside: str = "") -> list[str]:
        """Run over a thread's share of the round."""
        guard = f"{inside} && j < {self.last}" if inside else f"j < {self.last}"
        return self._every([f"if ({guard}) {{", *indented(body), "}"], place)

    def _every(self, body: list[str], place: str) -> list[str]:
        """Run over a thread's share of the round, beyond the end of the row as well."""
        at = f"const {self.scope.integer} j = start + {place};"
        head = f"for (int item = 0; item < {self.items}; ++item) {{"
        return ["#pragma unroll", head, *indented([at, *body]), "}"]

    @property
    def _own(self) -> str:
        """Where a thread's stretch lies."""
        return f"lane * {self.items} + item"

    @property
    def _striped(self) -> str:
        """The vector that a thread of the block reads in a turn, so that all read in order."""
        return f"item * {self.threads} + lane"

    @property
    def _of_warp(self) -> str:
        """The same within the stretch of a warp."""
        return f"(lane / 32 * {self.items} + item) * 32 + lane % 32"

    @property
    def _place(self) -> str:
        """Where a thread keeps the running result of an element."""
        vec = self.layout.lanes.vec
        return f"running[item * {vec} + k]" if vec > 1 else "running[item]"

    @property
    def _running(self) -> str:
        size = f"{self.items} * {self.layout.lanes.vec}" if self.layout.lanes.vec > 1 else self.items
        return f"{self.layout.ctype} running[{size}];"

    def _scan_into(self, accumulator: str) -> list[str]:
        """Add a vector to an accumulator, and keep each result on the way."""
        layout = self.layout
        kept = Assign(self._place, Local(f"{accumulator}.value", layout.dtype, layout.inner))
        sinks: list[Sink] = [Add(accumulator, layout.source), kept]
        return layout.lanes.body(self.scope.printer(), sinks)

    def _read(self) -> list[str]:
        """Scan the thread's own stretch in registers."""
        mine = f"{self.layout.accumulator} mine = {self.layout.accumulator}::empty();"
        return [self._running, mine, *self._each(self._scan_into("mine"), self._own)]

    def _read_striped(self) -> list[str]:
        """Scan the warp's stretch in registers, 32 vectors after the other; `mine` is the same in all lanes."""
        kind, vec = self.layout.accumulator, self.layout.lanes.vec
        add = [f"{kind} held = left;", f"held.add({self._place});", f"{self._place} = held.value;"]
        add = ["#pragma unroll", f"for (int k = 0; k < {vec}; ++k) {{", *indented(add), "}"] if vec > 1 else add
        step = [
            f"{kind} own = {kind}::empty();",
            f"if (j < {self.last}) {{",
            *indented(self._scan_into("own")),
            "}",
            f"{kind} left = mine, sum;",
            "left.merge(warp_scan(own, sum));",
            f"if (j < {self.last}) {{",
            *indented(add),
            "}",
            "mine.merge(sum);",
        ]
        return [self._running, f"{kind} mine = {kind}::empty();", *self._every(step, self._of_warp)]

    def _write(self) -> list[str]:
        stores: list[Store] = self.layout.stores(self.layout.merged("before.value", self._place))
        place = self._of_warp if self.reads == "striped" else self._own
        return self._each(self.layout.lanes.body(self.scope.printer(), stores), place, self.inside)

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
