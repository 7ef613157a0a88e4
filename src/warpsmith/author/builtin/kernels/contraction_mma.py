"""Contractions on tensor cores: a block keeps several stages of tiles in shared memory, a warp its sums in registers.

Tensor cores cut off what falls below the last place of a running sum instead of rounding it. For float32 accuracy the
products of each tile are therefore summed afresh, and added to the rest by ordinary additions (Ootomo and Yokota,
"Recovering single precision accuracy from Tensor Cores while surpassing the FP32 theoretical peak performance", 2022).
"""

from __future__ import annotations

from warpsmith.author.builtin.kernels.contraction_copy import TileCopy
from warpsmith.author.builtin.kernels.contraction_fill import Share
from warpsmith.author.builtin.kernels.contraction_fragments import Fragments, Treatment, multiplied
from warpsmith.author.builtin.kernels.contraction_layout import Layout, Operand
from warpsmith.author.builtin.kernels.contraction_tensor import TensorKernel
from warpsmith.author.builtin.kernels.contraction_tile import Staging
from warpsmith.author.builtin.kernels.contraction_warps import LEAST_STAGES, Format, Warps, exact_in_tf32
from warpsmith.author.builtin.kernels.emission import (
    Genes,
    Kernels,
    Scope,
    indented,
    unrolled,
)

_STAGES = (3, LEAST_STAGES, 4, 5)


def emit_mma(layout: Layout, scope: Scope, genes: Genes, vec: int, share: Share | None) -> Kernels:
    """Write the kernel; where blocks share sums, another that adds up partial sums."""
    exact = genes.get("precision", "exact") == "exact"
    return Mma(layout, scope, Warps.parse(str(genes["warps"])), exact, vec, share).emit()


class Mma(TensorKernel):
    """The kernel in parts. What other instructions of tensor cores need otherwise, a subclass replaces."""

    wanted_stages: tuple[int, ...] = _STAGES
    depth_bytes: tuple[int, ...] = (128, 64, 32)  # of a tile

    def __init__(self, layout: Layout, scope: Scope, warps: Warps, exact: bool, vec: int, share: Share | None) -> None:
        super().__init__(layout, scope, warps, share)
        wide = [self._staged(layout.left, warps.m, vec, 8), self._staged(layout.right, warps.n, vec, 8)]
        self.format = Format.of(layout, wide)
        stagings = [self._staged(s.operand, s.extent, vec, self.format.chunk) for s in wide]
        room = scope.shared - self.extra_bytes(warps)
        self.depths = self._depths(room, max(s.vec for s in stagings))
        stage = warps.stage_bytes(max(self.depths), self.format.bytes)
        self.stages = tuple(s for s in self.wanted_stages if s * stage <= room)
        self.tile_k, self.slots = (
            scope.tunable(name) if len(values) > 1 else str(values[0])
            for name, values in (("TILE_K", self.depths), ("STAGES", self.stages))
        )
        self.tiles = [
            TileCopy(layout, scope, s, self.format, self.tile_k, self.depths, warps.threads) for s in stagings
        ]
        extents = (warps.warp_m, warps.warp_n)
        self.left, self.right = (
            Fragments(tile, extent, self._treatment(tile.staging, exact))
            for tile, extent in zip(self.tiles, extents, strict=True)
        )
        self.operands = [tile.value for tile in self.tiles]
        self.computed = [tile for tile in self.tiles if not tile.asynchronous]
        self.afresh = "split" in (self.left.treatment, self.right.treatment)

    def _depths(self, room: int, step: int) -> tuple[int, ...]:
        """Depths of a tile, multiples of `step`, whose fewest stages fit into `room` bytes; the default first."""
        size = self.format.bytes
        useful = max(self.format.k, 1 << (self.layout.depth - 1).bit_length())
        wanted = [d // size for d in self.depth_bytes]
        fitting = [
            d for d in wanted if d % step == 0 and min(self.wanted_stages) * self.warps.stage_bytes(d, size) <= room
        ]
        return tuple([d for d in fitting if d <= useful] or fitting[-1:])

    def extra_bytes(self, warps: Warps) -> int:
        """Shared memory beside the stages."""
        return 0

    def _staged(self, operand: Operand, extent: int, vec: int, limit: int) -> Staging:
        along = operand.direction(self.layout.batch)
        return Staging(operand, along, operand.vector(self.layout.batch, along, min(vec, limit, extent)), extent)

    def _treatment(self, staging: Staging, exact: bool) -> Treatment:
        if self.format.name != "tf32" or exact_in_tf32(self.layout, staging):
            return "as it is"
        return "split" if exact else "round"

    def summed(self) -> list[str]:
        """Bring tiles and multiply them."""
        return [*self.tiles_declared(), *self.fetch(), *self.loop()]

    def finished(self) -> list[str]:
        """Look after sums that are not finite."""
        if not self.afresh:
            return []
        why = "In parts, an infinity meets zeros that the whole number is not: what is not finite is summed again."
        return self.summed_again("!(fabsf(acc[i][j][e]) < INFINITY)", why)

    def tunables(self) -> list[tuple[str, tuple[int, ...]]]:
        """Depth of a tile and stages, where there is a choice."""
        found = ((self.tile_k, self.depths), (self.slots, self.stages))
        return [(name, values) for name, values in found if len(values) > 1]

    @property
    def copies(self) -> bool:
        """Whether any operand is copied asynchronously."""
        return len(self.computed) < len(self.tiles)

    def helpers(self) -> set[str]:
        """Snippets that the kernel uses."""
        return self.multiplying() | ({"copy_async"} if self.copies else set())

    def multiplying(self) -> set[str]:
        """Snippets that products take."""
        return {"Vec", f"mma_{self.format.name}", *self.left.helpers, *self.right.helpers}

    def shared(self) -> str:
        """Bytes of shared memory."""
        area = " + ".join(f"{tile.rows} * ({tile.width})" for tile in self.tiles)
        return f"{self.slots} * ({area}) * {self.format.bytes}"

    def how(self) -> str:
        """What tensor cores multiply."""
        passes = 1 + sum(side.treatment == "split" for side in (self.left, self.right))
        name = {"tf32": "TF32", "f16": "float16", "bf16": "bfloat16"}[self.format.name]
        return f"{passes} passes of {name}" if passes > 1 else name

    def tiles_declared(self) -> list[str]:
        """Lay out shared memory and the sums."""
        return ["extern __shared__ __align__(16) char shared[];", *self.stages_declared("shared")]

    def stages_declared(self, place: str) -> list[str]:
        """Stages of both tiles from a place in shared memory on, the sums, and registers for what is computed."""
        left, right = self.tiles
        ctype = self.format.ctype
        counts = f"[{self.left.count}][{self.right.count}][4]"
        return [
            f"auto tile_left = reinterpret_cast<{ctype} (*)[{left.rows}][{left.width}]>({place});",
            f"auto tile_right = reinterpret_cast<{ctype} (*)[{right.rows}][{right.width}]>(tile_left + {self.slots});",
            f"float acc{counts} = {{}};",
            *(line for tile in self.tiles for line in tile.declaration()),
        ]

    def fetch(self) -> list[str]:
        """The share of the depth, and functions that bring a tile of it."""
        integer, text = self.scope.integer, self.share()
        commit = ["commit_copies();"] if self.copies else []
        fetched = [line for tile in self.tiles for line in tile.fetch()]
        text += [
            f"const auto fetch = [&](const {integer} start, const int slot) {{",
            *indented(["if (start < last) {", *indented(fetched), "}", *commit]),
            "};",
        ]
        if self.computed:
            placed = [line for tile in self.computed for line in tile.place()]
            text += ["const auto place = [&](const int slot) {", *indented(placed), "};"]
        return text

    def loop(self) -> list[str]:
        """Walk along the depth, `STAGES - 1` tiles behind the copies."""
        integer, step, slots = self.scope.integer, self.tile_k, self.slots
        ahead = f"start + ({slots} - 1) * {step}"
        into = "sum" if self.afresh else "acc"
        counts = f"[{self.left.count}][{self.right.count}][4]"
        products = [*self.left.read(), *self.right.read(), *multiplied(self.left, self.right, into)]
        work = [
            *([f"await_copies<{slots} - 2>();"] if self.copies else []),
            "__syncthreads();",
            f"const int next = (slot + {slots} - 1) % {slots};",
            f"fetch({ahead}, next);",
            *([f"float sum{counts} = {{}};"] if self.afresh else []),
            "#pragma unroll",
            f"for (int k = 0; k < {step}; k += {self.format.k}) {{",
            *indented(products),
            "}",
            *(self.added() if self.afresh else []),
            *([f"if ({ahead} < last) place(next);"] if self.computed else []),
        ]
        loop = f"for ({integer} start = first, slot = 0; start < last; start += {step}, slot = (slot + 1) % {slots}) {{"
        return [*self.opening(), loop, *indented(work), "}"]

    def opening(self) -> list[str]:
        """Bring the first tiles."""
        text = [f"fetch(first + slot * {self.tile_k}, slot);"]
        if self.computed:
            text.append(f"if (first + slot * {self.tile_k} < last) place(slot);")
        return unrolled("slot", f"{self.slots} - 1", text)

    def added(self) -> list[str]:
        """Add the sums of a tile to the rest."""
        lanes = unrolled("e", 4, ["acc[i][j][e] += sum[i][j][e];"])
        return unrolled("i", self.left.count, unrolled("j", self.right.count, lanes))
