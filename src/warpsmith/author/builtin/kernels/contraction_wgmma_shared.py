"""Contractions by the tensor cores of Hopper, which read both operands from shared memory as they lie in memory.

That is possible for 16 bits, whichever way round operands lie, and for TF32 where operands were rounded before and lie
with their depth innermost. Tiles are copied into rows of 128 bytes whose pieces of 16 bytes change places with the
number of the row. Products of one tile run while the next one is awaited and begun.
"""

from __future__ import annotations

from dataclasses import fields

from warpsmith.author.builtin.kernels.contraction_copy import TileCopy
from warpsmith.author.builtin.kernels.contraction_fill import Share
from warpsmith.author.builtin.kernels.contraction_layout import Layout
from warpsmith.author.builtin.kernels.contraction_mma import Mma
from warpsmith.author.builtin.kernels.contraction_warps import LEAST_GROUP_STAGES, Warps
from warpsmith.author.builtin.kernels.emission import Scope, indented, unrolled

# One tile is read by products, one is awaited, the others are on their way.
_STAGES = (4, LEAST_GROUP_STAGES, 5, 6)
# Bytes of a row, and of a piece.
_ROW, _PIECE = 128, 16


class _Swizzled(TileCopy):
    """The way of an operand into rows of 128 bytes."""

    @property
    def shape(self) -> str:
        """Extents of one stage: rows, or of an operand that lies the other way, columns of rows of 64 elements."""
        row = _ROW // self.format.bytes
        if self.staging.transposed:
            return f"[{self.staging.extent}][{row}]"
        return f"[{self.staging.extent // row}][{self.tile_k}][{row}]"

    def _cell(self) -> str:
        row, column = self._spot()
        tile, piece = f"{self.staging.tile}[slot]", _PIECE // self.format.bytes
        if self.staging.transposed:
            return f"{tile}[{row}][(({column}) ^ ({row}) % 8) * {piece}]"
        return f"{tile}[({column}) / 8][{row}][(({column}) % 8 ^ ({row}) % 8) * {piece}]"


class WgmmaShared(Mma):
    """The kernel."""

    wanted_stages = _STAGES
    depth_bytes = (_ROW,)

    def __init__(self, layout: Layout, scope: Scope, warps: Warps, exact: bool, vec: int, share: Share | None) -> None:
        super().__init__(layout, scope, warps, exact, vec, share)
        self.tiles = [_Swizzled(*(getattr(tile, each.name) for each in fields(tile))) for tile in self.tiles]

    @property
    def suits(self) -> bool:
        """Whether both operands lie in memory as tensor cores read them."""
        pieces = all(tile.asynchronous and tile.staging.vec * self.format.bytes == _PIECE for tile in self.tiles)
        untouched = self.left.treatment == self.right.treatment == "as it is"
        turned = self.format.name == "tf32" and not all(tile.staging.transposed for tile in self.tiles)
        return pieces and untouched and not turned

    def multiplying(self) -> set[str]:
        """Snippets."""
        return {"Vec", "wgmma", "wgmma_shared", f"wgmma_shared_{self.format.name}_{self.warps.n}"}

    def shared(self) -> str:
        """Bytes of shared memory."""
        return f"{self.slots} * ({self.warps.m} + {self.warps.n}) * {_ROW}"

    def tiles_declared(self) -> list[str]:
        """Lay out shared memory and the sums."""
        left, right = (tile.shape for tile in self.tiles if isinstance(tile, _Swizzled))
        ctype = self.format.ctype
        return [
            "extern __shared__ __align__(1024) char shared[];",
            f"auto tile_left = reinterpret_cast<{ctype} (*){left}>(shared);",
            f"auto tile_right = reinterpret_cast<{ctype} (*){right}>(tile_left + {self.slots});",
            f"float acc[1][{self.right.count}][4] = {{}};",
        ]

    def loop(self) -> list[str]:
        """Walk along the depth, with the products of one tile behind."""
        integer, step, slots = self.scope.integer, self.tile_k, self.slots
        sides = [tile.staging.transposed for tile in self.tiles]
        first = "threadIdx.x / 128" if self.warps.m > 64 else "0"
        left = f"tile_left[slot][{first} * 64][k]" if sides[0] else f"tile_left[slot][{first}][k][0]"
        right = "tile_right[slot][0][k]" if sides[1] else "tile_right[slot][0][k][0]"
        a, b = (
            f"describe_{'rows' if by_rows else 'columns'}(&{cell})"
            for by_rows, cell in zip(sides, (left, right), strict=True)
        )
        turned = f"<{', '.join('0' if by_rows else '1' for by_rows in sides)}>" if self.format.name != "tf32" else ""
        work = [
            f"await_copies<{slots} - 3>();",
            "wgmma_publish();",
            "__syncthreads();",
            "wgmma_begin();",
            *unrolled("k", step, [f"wgmma_{self.format.name}{turned}(acc[0], {a}, {b});"], self.format.k),
            "wgmma_commit();",
            f"fetch(start + ({slots} - 2) * {step}, (slot + {slots} - 2) % {slots});",
            "wgmma_await_last_but_one();",
        ]
        loop = f"for ({integer} start = first, slot = 0; start < last; start += {step}, slot = (slot + 1) % {slots}) {{"
        opening = unrolled("slot", f"{slots} - 2", [f"fetch(first + slot * {step}, slot);"])
        return [*opening, loop, *indented(work), "}", "wgmma_await(acc[0]);"]
