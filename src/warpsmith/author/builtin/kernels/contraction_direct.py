"""Contractions without shared memory: every thread sums a patch of outputs by itself, operands come from the caches.

Right for few channels and small windows, where a tile would hold little that is used again; with sums shared by several
blocks also for a row times a matrix, whose rows are then read in one piece.
"""

from __future__ import annotations

from warpsmith.author.builtin.index import Axis, Index, lift, ravel
from warpsmith.author.builtin.kernels.contraction_fill import Share
from warpsmith.author.builtin.kernels.contraction_layout import Layout
from warpsmith.author.builtin.kernels.contraction_split import Partials
from warpsmith.author.builtin.kernels.emission import (
    Assign,
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
from warpsmith.records import Launch

# Loops over a convolution's window are unrolled whole up to this extent.
_UNROLLED = 16


def emit_direct(layout: Layout, scope: Scope, rows: int, vec: int, share: Share | None) -> Kernels:
    """Write a kernel in which every thread makes `rows` x `vec` outputs; `vec` divides the extent of n.

    Where threads share sums, another adds up partial sums.
    """
    return _Direct(layout, scope, rows, vec, share).emit()


class _Direct:
    def __init__(self, layout: Layout, scope: Scope, rows: int, vec: int, share: Share | None) -> None:
        self.layout, self.scope, self.rows, self.vec = layout, scope, rows, vec
        self.lanes = Lanes(Axis("column", layout.n // vec), vec)
        self.row = lift(Axis("m", layout.m))
        self.block, self.unroll = scope.tunable("BLOCK"), scope.tunable("UNROLL")
        self.loops = [Axis(f"depth{d}", e) for d, e in enumerate(layout.producer.inner) if e > 1]
        self.columns, self.bands = layout.n // vec, -(-layout.m // rows)
        self.tasks = self.columns * self.bands * layout.batches
        self.partials = Partials(layout, scope, share, self.tasks, 1) if share else None

    def emit(self) -> Kernels:
        """Put the parts together."""
        layout, scope = self.layout, self.scope
        epilogue, stores = self._epilogue()
        left = layout.left.element(layout.batch, self.row, self._depth())
        right = layout.right.element(layout.batch, self.lanes.linear, self._depth())
        names, params = parameters(
            loads([left, right, *(s.value for s in stores)]), [(s.tensor, s.dtype) for s in stores]
        )
        body = [*self._setup(self.columns, self.bands), *self._loop(left, right), *epilogue]
        comment = f"{layout.comment()}\nA thread makes {self.rows} x {self.vec} of them."
        blocks = f"ceil_div({self.tasks}, {self.block})"
        if self.partials:
            comment += f"\nEach of {self.partials.splits} threads sums a share of the depth."
        kernels = Kernels(
            function(scope, scope.kernel, params, self.block, body, comment),
            (
                Launch(
                    scope.kernel, (blocks, self.partials.splits) if self.partials else (blocks,), (self.block,), names
                ),
            ),
            ((self.block, (128, 64, 256, 512)), *(((self.unroll, (4, 1, 2, 8)),) if self.loops else ())),
            helpers=frozenset({"Vec"} if self.vec > 1 else ()),
        )
        return self.partials.completed(kernels) if self.partials else kernels

    def _depth(self) -> Index:
        """The depth as nested loops over the summed dimensions."""
        axes = iter(self.loops)
        inner = self.layout.producer.inner
        return ravel([lift(next(axes)) if extent > 1 else Index() for extent in inner], inner)

    def _setup(self, columns: int, rows: int) -> list[str]:
        integer = self.scope.integer
        text = [
            f"constexpr int ROWS = {self.rows}, COLS = {self.vec};  // of each thread",
            f"const {integer} task = {integer}(blockIdx.x) * {self.block} + threadIdx.x;",
            f"if (task >= {self.tasks}) return;",
        ]
        place = "task"
        if rows * self.layout.batches > 1:
            text.append(f"const {integer} column = task % {columns};")
            place = f"task / {columns}" if columns > 1 else "task"
        else:
            text.append(f"const {integer} column = task;")
        if self.layout.batches > 1:
            text.append(f"const {integer} batch = task / {columns * rows};")
            place = f"{place} % {rows}" if rows > 1 else ""
        first = "0" if rows == 1 else f"{place} * ROWS" if self.rows > 1 else place
        text.append(f"const {integer} row = {first};")
        return [*text, f"{self.layout.ctype} acc[ROWS][COLS] = {{}};"]

    def _loop(self, left: Scalar, right: Scalar) -> list[str]:
        """Walk over the summed dimensions."""
        printer = self.scope.printer()
        text = [f"{self.layout.ctype} right[COLS];"]
        slot = "right[k]" if self.vec > 1 else "right[0]"
        text += self.lanes.body(printer.fork(), [Assign(slot, right)])
        inner = printer.fork()
        patch = [*self._row(), *inner.share([left]), f"const {self.layout.ctype} left = {inner.value(left)};"]
        patch += ["#pragma unroll", "for (int j = 0; j < COLS; ++j) acc[i][j] += left * right[j];"]
        text += ["#pragma unroll", "for (int i = 0; i < ROWS; ++i) {", *indented(patch), "}"]
        integer, opening = self.scope.integer, []
        for number, axis in reversed(list(enumerate(self.loops))):
            first, last = "0", str(axis.extent)
            if number == 0:
                pragma = [f"#pragma unroll {self.unroll}"]
                if self.partials:
                    opening, (first, last) = self._share(self.partials.splits, axis.extent), ("first", "last")
            else:
                pragma = ["#pragma unroll"] if axis.extent <= _UNROLLED else []
            head = f"for ({integer} {axis.name} = {first}; {axis.name} < {last}; ++{axis.name}) {{"
            text = [*pragma, head, *indented(text), "}"]
        return [*opening, *text] if self.loops else ["{", *indented(text), "}"]

    def _share(self, splits: str, extent: int) -> list[str]:
        """Which part of the outermost loop a thread goes through."""
        integer = self.scope.integer
        return [
            f"constexpr {integer} SHARE = ({extent} + {splits} - 1) / {splits};",
            f"const {integer} split = blockIdx.y, first = split * SHARE;",
            f"const {integer} last = min({integer}({extent}), first + SHARE);",
        ]

    def _row(self) -> list[str]:
        """The row that a thread works on; past the end it repeats the last, and its sums are not written."""
        integer, m = self.scope.integer, self.layout.m
        if m % self.rows == 0:
            return [f"const {integer} m = row + i;"]
        return [f"const {integer} m = min(row + i, {integer}({m - 1}));"]

    def _epilogue(self) -> tuple[list[str], list[Store]]:
        held = Local(
            f"acc[i][{'k' if self.vec > 1 else '0'}]",
            self.layout.dtype,
            frozenset({Axis("m", self.layout.m), self.lanes.group, self.lanes.k}),
        )
        make = self.partials.stores if self.partials else self.layout.stores
        stores = make(self.row, self.lanes.linear, held)
        body = self.lanes.body(self.scope.printer(), stores)
        lines = [f"const {self.scope.integer} m = row + i;"]
        lines += [f"if (m < {self.layout.m}) {{", *indented(body), "}"] if self.layout.m % self.rows else body
        return ["#pragma unroll", "for (int i = 0; i < ROWS; ++i) {", *indented(lines), "}"], stores
