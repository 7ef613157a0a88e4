"""Contractions on tensor cores: a block keeps several stages of tiles in shared memory, a warp its sums in registers.

Tensor cores cut off what falls below the last place of a running sum instead of rounding it. For float32 accuracy the
products of each tile are therefore summed afresh, and added to the rest by ordinary additions (Ootomo and Yokota,
"Recovering single precision accuracy from Tensor Cores while surpassing the FP32 theoretical peak performance", 2022).
"""

from __future__ import annotations

from warpsmith.author.builtin.index import Axis, lift
from warpsmith.author.builtin.kernels.contraction_copy import TileCopy
from warpsmith.author.builtin.kernels.contraction_fill import Share, tiles_of
from warpsmith.author.builtin.kernels.contraction_fragments import Fragments, Treatment, multiplied
from warpsmith.author.builtin.kernels.contraction_layout import Layout, Operand
from warpsmith.author.builtin.kernels.contraction_split import Partials
from warpsmith.author.builtin.kernels.contraction_tile import Staging
from warpsmith.author.builtin.kernels.contraction_warps import LEAST_STAGES, MMA_M, MMA_N, Format, Warps, exact_in_tf32
from warpsmith.author.builtin.kernels.emission import (
    Genes,
    Kernels,
    Lanes,
    Scope,
    Store,
    function,
    indented,
    loads,
    parameters,
    unrolled,
)
from warpsmith.author.builtin.scalar import Local
from warpsmith.records import Launch

_STAGES = (3, LEAST_STAGES, 4, 5)
# Rows of tiles that blocks go through together, so that they find each other's operands in L2.
_GROUPS = (8, 1, 4, 16)


def emit_mma(layout: Layout, scope: Scope, genes: Genes, vec: int, share: Share | None) -> Kernels:
    """Write the kernel; where blocks share sums, another that adds up partial sums."""
    exact = genes.get("precision", "exact") == "exact"
    return Mma(layout, scope, Warps.parse(str(genes["warps"])), exact, vec, share).emit()


class Mma:
    """The kernel in parts. What other instructions of tensor cores need otherwise, a subclass replaces."""

    wanted_stages: tuple[int, ...] = _STAGES
    depth_bytes: tuple[int, ...] = (128, 64, 32)  # of a tile

    def __init__(self, layout: Layout, scope: Scope, warps: Warps, exact: bool, vec: int, share: Share | None) -> None:
        self.layout, self.scope, self.warps = layout, scope, warps
        self.partials = Partials(layout, scope, share, tiles_of(layout, warps), warps.threads) if share else None
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
        self.computed = [tile for tile in self.tiles if not tile.asynchronous]
        self.afresh = "split" in (self.left.treatment, self.right.treatment)
        self.down, self.across = -(-layout.m // warps.m), -(-layout.n // warps.n)

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

    def emit(self) -> Kernels:
        """Put the parts together."""
        layout, scope, warps = self.layout, self.scope, self.warps
        epilogue, stores = self.epilogue()
        body = [*self.constants(), *self.tiles_declared(), *self.fetch(), *self.loop(), *epilogue]
        reads = loads([*(tile.value for tile in self.tiles), *(s.value for s in stores)])
        names, params = parameters(reads, [(s.tensor, s.dtype) for s in stores])
        source = function(scope, scope.kernel, params, str(warps.threads), body, self.comment())
        blocks = str(layout.batches * self.down * self.across)
        grid = (blocks, self.partials.splits) if self.partials else (blocks,)
        launch = Launch(scope.kernel, grid, (str(warps.threads),), names, shared=self.shared())
        tunables = [
            (name, values)
            for name, values in ((self.tile_k, self.depths), (self.slots, self.stages))
            if len(values) > 1
        ]
        if self.down > 1 and self.across > 1:
            tunables.append((self.scope.tunable("GROUP"), _GROUPS))
        helpers = self.helpers() | ({"copy_async"} if self.copies else set())
        kernels = Kernels(source, (launch,), tuple(tunables), helpers=frozenset(helpers))
        return self.partials.completed(kernels) if self.partials else kernels

    @property
    def copies(self) -> bool:
        """Whether any operand is copied asynchronously."""
        return len(self.computed) < len(self.tiles)

    def helpers(self) -> set[str]:
        """Snippets that the kernel uses, but for copies."""
        return {"Vec", f"mma_{self.format.name}", *self.left.helpers, *self.right.helpers}

    def shared(self) -> str:
        """Bytes of shared memory."""
        area = " + ".join(f"{tile.rows} * ({tile.width})" for tile in self.tiles)
        return f"{self.slots} * ({area}) * {self.format.bytes}"

    def comment(self) -> str:
        """What the kernel is about."""
        passes = 1 + sum(side.treatment == "split" for side in (self.left, self.right))
        how = {"tf32": "TF32", "f16": "float16", "bf16": "bfloat16"}[self.format.name]
        how = f"{passes} passes of {how}" if passes > 1 else how
        text = (
            f"{self.layout.comment()} On tensor cores: {how}.\nA block makes a tile of {self.warps.m} x {self.warps.n},"
            f" a warp {self.warps.warp_m} x {self.warps.warp_n} of it."
        )
        return text + (f"\nEach of {self.partials.splits} blocks sums a share of the depth." if self.partials else "")

    def constants(self) -> list[str]:
        """Extents, and the places of the block, the warp and the lane."""
        layout, warps, integer = self.layout, self.warps, self.scope.integer
        extents = [f"M = {layout.m}"] * (layout.m % warps.m > 0) + [f"N = {layout.n}"] * (layout.n % warps.n > 0)
        text = [
            f"constexpr {integer} {', '.join([*extents, f'DEPTH = {layout.depth}'])};",
            f"constexpr int THREADS = {warps.threads};",
            "const int lane = threadIdx.x % 32, quad = lane / 4, member = lane % 4;  // place in a fragment",
            *self._place_of_block(),
        ]
        row = f"threadIdx.x / 32 / {warps.across}" if warps.across > 1 else "threadIdx.x / 32"
        col = f"threadIdx.x / 32 % {warps.across} * {warps.warp_n}" if warps.across > 1 else "0"
        rows = f"{row} * {warps.warp_m}" if warps.m > warps.warp_m else "0"
        return [*text, f"const int row = {rows}, col = {col};  // of the warp in the tile"]

    def _place_of_block(self) -> list[str]:
        """Where in the matrix a block works."""
        layout, integer, down, across = self.layout, self.scope.integer, self.down, self.across
        text = []
        block = "blockIdx.x"
        if layout.batches > 1:
            text.append(f"const {integer} batch = blockIdx.x / {down * across};")
            block = f"blockIdx.x % {down * across}" if down * across > 1 else "0"
        if down == 1 or across == 1:
            places = (("row", down, self.warps.m), ("col", across, self.warps.n))
            return [
                *text,
                *(
                    f"const {integer} first_{line} = {integer}({block}) * {extent};"
                    if count > 1
                    else f"constexpr int first_{line} = 0;"
                    for line, count, extent in places
                ),
            ]
        group = self.scope.tunable("GROUP")
        return [
            *text,
            f"// Blocks go through {group} rows of tiles column by column.",
            f"const int tile = {block}, band = tile / ({group} * {across}) * {group};",
            f"const int height = min({group}, {down} - band), within = tile % ({group} * {across});",
            f"const {integer} first_row = {integer}(band + within % height) * {self.warps.m};",
            f"const {integer} first_col = {integer}(within / height) * {self.warps.n};",
        ]

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
        integer, step = self.scope.integer, self.tile_k
        if self.partials:
            share = f"(DEPTH + {step} * {self.partials.splits} - 1) / ({step} * {self.partials.splits}) * {step}"
            text = [
                f"constexpr {integer} SHARE = {share};  // of the depth, in whole tiles",
                f"const {integer} split = blockIdx.y, first = split * SHARE, last = min(DEPTH, first + SHARE);",
            ]
        else:
            text = [f"constexpr {integer} first = 0, last = DEPTH;"]
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

    def epilogue(self) -> tuple[list[str], list[Store]]:
        """Write each lane's sums: pairs of columns in two rows of every fragment."""
        layout, integer = self.layout, self.scope.integer
        vec = layout.widest(2)
        lanes, row = Lanes(Axis("column", layout.n // vec), vec), Axis("m", layout.m)
        held = Local(f"acc[i][j][e * 2 + {'k' if vec > 1 else 'h'}]", "float32", frozenset({lanes.group, lanes.k, row}))
        make = self.partials.stores if self.partials else layout.stores
        stores = make(lift(row), lanes.linear, held)
        body = lanes.body(self.scope.printer(), stores)
        guards = ["m < M"] * (layout.m % self.warps.m > 0)
        guards += [f"column < N{' / 2' if vec > 1 else ''}"] * (layout.n % self.warps.n > 0)
        guarded = [f"if ({' && '.join(guards)}) {{", *indented(body), "}"] if guards else body
        if vec > 1:
            inner = [f"const {integer} column = (first_col + col) / 2 + j * {MMA_N // 2} + member;", *guarded]
        else:
            place = f"const {integer} column = first_col + col + j * {MMA_N} + member * 2 + h;"
            inner = unrolled("h", 2, [place, *guarded])
        place = f"const {integer} m = first_row + row + i * {MMA_M} + e * 8 + quad;"
        halves = unrolled("e", 2, [place, *unrolled("j", self.right.count, inner)])
        return [*(self.summed_again() if self.afresh else []), *unrolled("i", self.left.count, halves)], stores

    def summed_again(self) -> list[str]:
        """Sum anew what is not finite: in parts, an infinity meets zeros that the whole number is not."""
        layout, integer, columns = self.layout, self.scope.integer, self.right.count
        m, n, depth = (lift(Axis(*axis)) for axis in (("m", layout.m), ("n", layout.n), ("depth", layout.depth)))
        values = [layout.left.element(layout.batch, m, depth), layout.right.element(layout.batch, n, depth)]
        printer = self.scope.printer()
        terms = [*printer.share(values), f"total += {' * '.join(f'({printer.value(v)})' for v in values)};"]
        inside = ["m < M"] * (layout.m % self.warps.m > 0) + ["n < N"] * (layout.n % self.warps.n > 0)
        strange, this = "!(fabsf(acc[i][j][e]) < INFINITY)", f"place == (i * {columns} + j) * 4 + e"

        def every(statement: str) -> list[str]:
            return unrolled("i", self.left.count, unrolled("j", columns, unrolled("e", 4, [statement])))

        body = [
            f"const {integer} m = first_row + row + place / {4 * columns} * {MMA_M} + place / 2 % 2 * 8 + quad;",
            f"const {integer} n = first_col + col + place / 4 % {columns} * {MMA_N} + member * 2 + place % 2;",
            "bool due = false;",
            *every(f"due |= {this} && {strange};"),
            f"if ({' && '.join(['due', *inside])}) {{",
            "    float total = 0;",
            f"    for ({integer} depth = first; depth < last; ++depth) {{",
            *indented(terms, 2),
            "    }",
            *indented(every(f"if ({this}) acc[i][j][e] = total;")),
            "}",
        ]
        return [
            "// In parts, an infinity meets zeros that the whole number is not: what is not finite is summed again.",
            "bool strange = false;",
            *every(f"strange |= {strange};"),
            f"for (int place = 0; strange && place < {self.left.count * columns * 4}; ++place) {{",
            *indented(body),
            "}",
        ]
