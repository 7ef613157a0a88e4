"""How the tiles of a product on tensor cores come into shared memory, several stages ahead of their use.

What an operand has in memory as it is due is copied asynchronously. What must be computed on the way waits in
registers while the block multiplies, and is put into its stage afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from warpsmith.author.builtin.kernels.contraction_layout import Layout
from warpsmith.author.builtin.kernels.contraction_tile import Staging
from warpsmith.author.builtin.kernels.contraction_warps import Format
from warpsmith.author.builtin.kernels.emission import Assign, Scope, indented, pointer, unrolled, vector_read
from warpsmith.author.builtin.kernels.pieces import copied, copyable
from warpsmith.author.builtin.printer import Printer
from warpsmith.author.builtin.scalar import Load, Scalar


@dataclass(frozen=True)
class TileCopy:
    """One operand's way into shared memory. `tile_k` is the macro for the depth of a tile, `depths` its values."""

    layout: Layout
    scope: Scope
    staging: Staging
    format: Format
    tile_k: str
    depths: tuple[int, ...]
    threads: int

    @property
    def value(self) -> Scalar:
        """What a lane brings."""
        return self.staging.operand.value(self.layout.batch, self.staging.along, self.staging.lanes)

    @property
    def asynchronous(self) -> bool:
        """Whether the elements lie in memory as the tile wants them, in pieces that can be copied."""
        return copyable(self.value, self.staging.lanes, self.format.dtype)

    @property
    def rows(self) -> str:
        """Rows of the tile: k where vectors run along the outer dimension."""
        return str(self.staging.extent) if self.staging.transposed else self.tile_k

    @property
    def width(self) -> str:
        """Elements from one row of the tile to the next."""
        inner = self.tile_k if self.staging.transposed else str(self.staging.extent)
        return f"{inner} + {self.format.pad(self.staging)}"

    @property
    def held(self) -> str:
        """Registers in which computed pieces wait."""
        return f"next_{self.staging.operand.side}"

    @property
    def pieces(self) -> str:
        """Number of pieces of a tile."""
        vec = self.staging.vec
        return f"{self.staging.extent} * {self.tile_k}{f' / {vec}' if vec > 1 else ''}"

    def declaration(self) -> list[str]:
        """The registers of pieces that are computed."""
        if self.asynchronous:
            return []
        return [f"Vec<{self.format.ctype}, {self.staging.vec}> {self.held}[({self.pieces} + THREADS - 1) / THREADS];"]

    def fetch(self) -> list[str]:
        """Statements that begin to bring the tile at depth `start`, into stage `slot` or into registers."""
        return self._loop(self._copied() if self.asynchronous else self._computed())

    def place(self) -> list[str]:
        """Statements that put computed pieces into stage `slot`."""
        ctype = f"Vec<{self.format.ctype}, {self.staging.vec}>"
        return self._loop([f"*reinterpret_cast<{ctype}*>(&{self._cell()}) = {self.held}[item];"])

    def _loop(self, body: Sequence[str]) -> list[str]:
        """Let the block's threads share the pieces."""
        even = all(self.staging.extent * d // self.staging.vec % self.threads == 0 for d in self.depths)
        guarded = body if even else [f"if (i < {self.pieces}) {{", *indented(body), "}"]
        count = f"({self.pieces} + THREADS - 1) / THREADS"
        return unrolled("item", count, ["const int i = item * THREADS + threadIdx.x;", *guarded])

    def _spot(self) -> tuple[str, str]:
        """Row and column of piece `i` in the tile, in pieces."""
        vec = self.staging.vec
        inner = self.tile_k if self.staging.transposed else str(self.staging.extent)
        inner = f"({inner} / {vec})" if vec > 1 else inner
        return f"i / {inner}", f"i % {inner}"

    def _cell(self) -> str:
        row, column = self._spot()
        vec = self.staging.vec
        return f"{self.staging.tile}[slot][{row}][{column}{f' * {vec}' if vec > 1 else ''}]"

    def _axes(self) -> tuple[list[str], list[str]]:
        """Define the operand's axes at piece `i`; returns the statements and what keeps it inside the operand."""
        row, column = self._spot()
        depth, outer = (column, row) if self.staging.transposed else (row, column)
        text, limits = self.staging.axes(self.scope.integer, depth, outer)
        sticks_out = (
            any(self.layout.depth % d for d in self.depths),
            self.staging.operand.extent % self.staging.extent > 0,
        )
        return text, [limit for limit, needed in zip(limits, sticks_out, strict=True) if needed]

    def _copied(self) -> list[str]:
        """Copy a piece asynchronously."""
        text, conditions = self._axes()
        value = self.value
        assert isinstance(value, Load)
        return [*text, copied(self.scope.printer(), value, self.staging.lanes, f"&{self._cell()}", conditions)]

    def _computed(self) -> list[str]:
        """Compute a piece into registers, zeros where the tile sticks out."""
        text, conditions = self._axes()
        staging, value, printer = self.staging, self.value, self.scope.printer()
        target = f"{self.held}[item]"
        element = f"{target}.at[{'k' if staging.vec > 1 else '0'}]"
        if isinstance(value, Load) and value.stored == self.format.dtype:
            if staging.vec > 1 and staging.lanes.is_vector(value):
                filled = vector_read(printer, value, staging.lanes, target, declare=False)
            else:
                filled = self._each(f"{element} = {self._raw(printer, value)};")
        else:
            filled = staging.lanes.body(printer, [Assign(element, value)])
        if not conditions:
            return [*text, *filled]
        return [*text, f"{target} = {{}};", f"if ({' && '.join(conditions)}) {{", *indented(filled), "}"]

    def _raw(self, printer: Printer, load: Load) -> str:
        """An element as it is stored: converting it there and back would only cost time."""
        read = f"{pointer(load.tensor)}[{printer.index(load.index)}]"
        return read if load.guard is None else f"{printer.value(load.guard)} ? {read} : {self.format.ctype}(0)"

    def _each(self, statement: str) -> list[str]:
        vec = self.staging.vec
        return [statement] if vec == 1 else unrolled("k", vec, [statement])
