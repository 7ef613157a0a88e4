"""Contractions in float32 by the 16-bit tensor cores of Hopper: three products of the parts of both operands.

The parts are made by kernels of their own (`contraction_parts`). large·large is summed afresh for every few tiles and
added to the rest by ordinary additions; small·large and large·small, which are 4096 times smaller, stay in tensor
cores. A sum for which may matter what operands lost when they were parted, or one that is not finite, is made again
from the operands themselves.
"""

from __future__ import annotations

from warpsmith.author.builtin.index import Index
from warpsmith.author.builtin.kernels.contraction_fill import Model, Share
from warpsmith.author.builtin.kernels.contraction_layout import Layout, Operand
from warpsmith.author.builtin.kernels.contraction_parts import DEEP, ROWS, SCALE, Parts
from warpsmith.author.builtin.kernels.contraction_tensor import TensorKernel
from warpsmith.author.builtin.kernels.contraction_warps import LEAST_GROUP_STAGES, Warps, all_exact, suits_groups
from warpsmith.author.builtin.kernels.emission import Scope, indented, unrolled
from warpsmith.author.builtin.scalar import Load
from warpsmith.records import GpuSpec

IN_A_ROW = 2
"""Tiles whose products tensor cores sum by themselves."""

# One tile is read by products, one is awaited, the others are on their way.
_STAGES = (4, LEAST_GROUP_STAGES, 6)
# Depth of one instruction, and elements of a piece that is copied at once.
_K, _PIECE = 16, 8


# Tiles of a block. Each lane keeps three sums for every element, so that none can be larger.
_TILES = ("128x128", "64x128", "128x64", "64x64")
# Bytes that are moved for each element of an operand when parts are made: it is read twice, and written once.
_MOVED = 3 * 4
# Seconds for the launch of a kernel that makes parts.
_LAUNCH = 3e-6


def parts_tiles(layout: Layout, gpu: GpuSpec) -> dict[str, Warps]:
    """Tiles that a product of parts can be cut into; none where it cannot be made so."""
    long = layout.depth >= 2 * IN_A_ROW * DEEP
    plain = layout.producer.operation == "matmul" and not layout.region.tf32 and not all_exact(layout)
    if not (long and plain and suits_groups(layout, gpu)):
        return {}
    tiles = {text: Warps.of_groups(text) for text in _TILES}
    return {
        text: tile
        for text, tile in tiles.items()
        if tile.m <= max(64, 2 * layout.m - 1) and tile.n <= max(64, 2 * layout.n - 1)
        if LEAST_GROUP_STAGES * _stage_bytes(tile) <= gpu.shared_per_block
    }


def parts_model(layout: Layout, gpu: GpuSpec) -> Model:
    """The time of products of parts, without that of making them."""
    return Model(layout, gpu, gpu.half_flops / 2 / 3, 4)


def parts_seconds(layout: Layout, gpu: GpuSpec) -> float:
    """Estimate how long it takes to make the parts: as memory allows, if rows are enough for all multiprocessors."""
    seconds = 0.0
    for side in (layout.left, layout.right):
        rows = layout.batches * side.extent
        busy = min(1.0, rows / ROWS / gpu.sm_count)
        seconds += rows * side.depth * _MOVED / (gpu.memory_bandwidth * busy) + _LAUNCH
    return seconds


class WgmmaParts(TensorKernel):
    """The kernel that multiplies parts. Its sums are those of scaled operands until all of them are there."""

    tile_k = str(IN_A_ROW * DEEP)
    extra_bytes = 0  # of each stage, beside its tiles

    def __init__(self, layout: Layout, scope: Scope, warps: Warps, share: Share | None) -> None:
        super().__init__(layout, scope, warps, share)
        self.sides = tuple(
            self._parts(operand, extent) for operand, extent in ((layout.left, warps.m), (layout.right, warps.n))
        )
        read = [Load(b.name, Index(), b.dtype) for side in self.sides for b in side.buffers]
        self.operands = [*(side.value for side in self.sides), *read]
        self.stages = tuple(s for s in _STAGES if s * (_stage_bytes(warps) + self.extra_bytes) <= scope.shared)
        self.slots = scope.tunable("STAGES") if len(self.stages) > 1 else str(self.stages[0])

    def _parts(self, operand: Operand, extent: int) -> Parts:
        steps = -(-operand.depth // (IN_A_ROW * DEEP)) * IN_A_ROW
        return Parts(self.layout, operand, f"{self.scope.kernel}_{operand.side}", extent, steps)

    def tunables(self) -> list[tuple[str, tuple[int, ...]]]:
        """Stages, where there is a choice."""
        return [(self.slots, self.stages)] if len(self.stages) > 1 else []

    def helpers(self) -> set[str]:
        """Snippets."""
        return {"Vec", "copy_async", "wgmma", f"wgmma_shared_f16_{self.warps.n}"}

    def shared(self) -> str:
        """Bytes of shared memory."""
        return f"{self.slots} * ({self.warps.m} + {self.warps.n}) * {2 * 2 * DEEP}"

    def how(self) -> str:
        """What tensor cores multiply."""
        return "three products of float16 parts"

    def summed(self) -> list[str]:
        """Bring tiles, multiply them and add up."""
        return [*self._declared(), *self.share(), *self.fetch(), *self.loop()]

    def _declared(self) -> list[str]:
        """Lay out shared memory and the sums."""
        left, right = self.sides
        text = [
            "extern __shared__ __align__(1024) char shared[];",
            f"auto tile_left = reinterpret_cast<__half (*)[2][{self.warps.m}][{DEEP}]>(shared);",
            f"auto tile_right = reinterpret_cast<__half (*)[2][{self.warps.n}][{DEEP}]>(tile_left + {self.slots});",
        ]
        for side, first in ((left, "first_row"), (right, "first_col")):
            panels = f"({side.at(f'{first} / {side.rows}')}) * {side.steps * side.panel}"
            text.append(f"const __half* {side.operand.side} = {side.name} + {panels};")
        sums = f"[{self.columns}][4]"
        return [*text, f"float acc[1]{sums} = {{}}, cross{sums} = {{}}, sum{sums};  // of large and of mixed parts"]

    def fetch(self) -> list[str]:
        """Define what begins to bring a tile of both operands, which lie as tensor cores want them."""
        integer = self.scope.integer
        body = []
        for side in self.sides:
            name, pieces = side.operand.side, side.panel // _PIECE // self.warps.threads
            to, source = f"tile_{name}[slot][0][0] + i", f"{name} + ptrdiff_t(start / {DEEP}) * {side.panel} + i"
            place = f"const int i = (item * THREADS + threadIdx.x) * {_PIECE};"
            body += unrolled("item", pieces, [place, f"copy_async<16>({to}, {source});"])
        return [
            *self.stop(),
            f"const auto fetch = [&](const {integer} start, const int slot) {{",
            *indented(["if (start < stop) {", *indented(body), "}", "commit_copies();"]),
            "};",
        ]

    def stop(self) -> list[str]:
        """Define where the last tiles end, which may stick out: there parts are zero."""
        return [f"const {self.scope.integer} stop = (last + {self.tile_k} - 1) / {self.tile_k} * {self.tile_k};"]

    def loop(self) -> list[str]:
        """Walk along the depth, some tiles at a time."""
        integer, slots = self.scope.integer, self.slots
        tile = [
            f"await_copies<{slots} - 3>();",
            "wgmma_publish();",
            "__syncthreads();",
            "wgmma_begin();",
            *self.products(),
            "wgmma_commit();",
            f"fetch(start + (tile + {slots} - 2) * {DEEP}, (slot + {slots} - 2) % {slots});",
            f"slot = (slot + 1) % {slots};",
        ]
        return [
            *unrolled("slot", f"{slots} - 2", [f"fetch(first + slot * {DEEP}, slot);"]),
            "int slot = 0;",
            f"for ({integer} start = first; start < last; start += {self.tile_k}) {{",
            *indented([*unrolled("tile", IN_A_ROW, tile), "wgmma_await(sum);", *self.added()]),
            "}",
            "wgmma_await(cross);",
        ]

    def added(self) -> list[str]:
        """Add the sums of some tiles to the rest."""
        return unrolled("j", self.columns, unrolled("e", 4, ["acc[0][j][e] += sum[j][e];"]))

    def products(self) -> list[str]:
        """Begin the products of a tile."""
        first = "threadIdx.x / 128 * 64" if self.warps.m > DEEP else "0"
        text = []
        for into, left, right, keep in (
            ("cross", 1, 0, ""),
            ("cross", 0, 1, ""),
            ("sum", 0, 0, ", tile > 0 || k > 0"),
        ):
            a, b = f"&tile_left[slot][{left}][{first}][k]", f"&tile_right[slot][{right}][0][k]"
            product = f"wgmma_f16<0, 0>({into}, describe_rows({a}), describe_rows({b}){keep});"
            text += unrolled("k", DEEP, [product], _K)
        return text

    def finished(self) -> list[str]:
        """Put the exponents back; what may be wrong by more than float32 itself, and what is not finite, is made
        again.
        """
        left, right = self.sides
        place = {"left": "first_row + row + quad", "right": "first_col + col + member * 2"}
        text = [
            f"auto {side.operand.side}_facts = reinterpret_cast<const Vec<float, 4>*>({side.facts}) + "
            f"{side.fact(place[side.operand.side])};"
            for side in (left, right)
        ]
        each = [
            "const Vec<float, 4> a = left_facts[e / 2 * 8], b = right_facts[j * 8 + e % 2];",
            f"const float whole = ldexpf(acc[0][j][e] + cross[j][e] * 0x1p-{SCALE}f, int(a.at[0] + b.at[0]));",
            "const float lost = a.at[1] * b.at[2] + b.at[1] * a.at[2];  // at most, by what elements lost",
            "acc[0][j][e] = lost <= 0x1p-24f * fabsf(whole) ? whole : NAN;",
        ]
        why = "Not finite are sums of infinities, and those for which may matter what was lost: they are made again."
        return [
            *text,
            *unrolled("j", self.columns, unrolled("e", 4, each)),
            *self.summed_again("!(fabsf(acc[i][j][e]) < INFINITY)", why),
        ]


def _stage_bytes(tile: Warps) -> int:
    """Bytes of shared memory of a stage: two parts of both operands."""
    return 2 * 2 * DEEP * (tile.m + tile.n)
