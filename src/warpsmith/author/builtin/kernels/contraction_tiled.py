"""Contractions by tiles: a block keeps tiles of both operands in shared memory, a thread its sums in registers."""

from __future__ import annotations

from collections.abc import Callable

from warpsmith.author.builtin.index import Axis, lift
from warpsmith.author.builtin.kernels.contraction_fill import Share, tiles_of
from warpsmith.author.builtin.kernels.contraction_layout import Layout, Operand
from warpsmith.author.builtin.kernels.contraction_split import Partials
from warpsmith.author.builtin.kernels.contraction_tile import PADS, Staging, Tile
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
    vector_read,
)
from warpsmith.author.builtin.scalar import Load, Local
from warpsmith.records import DTYPE_BYTES, Launch


def emit_tiled(layout: Layout, scope: Scope, tile: Tile, stages: int, vec: int, share: Share | None) -> Kernels:
    """Write the kernel; where blocks share sums, another that adds up partial sums."""
    return _Tiled(layout, scope, tile, stages, vec, share).emit()


class _Tiled:
    def __init__(self, layout: Layout, scope: Scope, tile: Tile, stages: int, vec: int, share: Share | None) -> None:
        self.layout, self.scope, self.tile, self.stages = layout, scope, tile, stages
        self.partials = Partials(layout, scope, share, tiles_of(layout, tile), tile.threads) if share else None
        self.staging = [self._staged(layout.left, tile.m, vec), self._staged(layout.right, tile.n, vec)]
        step = max([s.vec for s in self.staging if s.transposed], default=1)
        self.depths = tile.depths(layout, stages, step)
        self.tile_k, self.pad = scope.tunable("TILE_K"), scope.tunable("PAD")
        wide = 16 // DTYPE_BYTES[layout.dtype]
        self.fragment = {"left": min(tile.rows, wide), "right": min(tile.cols, wide)}

    def _staged(self, operand: Operand, extent: int, vec: int) -> Staging:
        along = operand.direction(self.layout.batch)
        # A vector must not be longer than the shallowest tile.
        deepest = 4 if along == "depth" and self.layout.depth <= 8 else vec
        return Staging(operand, along, operand.vector(self.layout.batch, along, min(vec, deepest, extent)), extent)

    def emit(self) -> Kernels:
        """Put the parts together."""
        layout, scope, tile = self.layout, self.scope, self.tile
        epilogue, stores = self._epilogue()
        values = [s.operand.value(layout.batch, s.along, s.lanes) for s in self.staging]
        body = [*self._constants(), *self._tiles(), *self._place(), *self._loop(), *epilogue]
        reads = loads([*values, *(s.value for s in stores)])
        names, params = parameters(reads, [(s.tensor, s.dtype) for s in stores])
        tunables = [(self.tile_k, self.depths)]
        if any(s.transposed for s in self.staging):
            tunables.append((self.pad, PADS))
        blocks = layout.batches * -(-layout.m // tile.m) * -(-layout.n // tile.n)
        comment = (
            f"{layout.comment()}\nA block makes a tile of {tile.m} x {tile.n}, "
            f"a thread {tile.rows} x {tile.cols} of it."
        )
        if self.partials:
            comment += f"\nEach of {self.partials.splits} blocks sums a share of the depth."
        source = function(scope, scope.kernel, params, str(tile.threads), body, comment)
        grid = (str(blocks), self.partials.splits) if self.partials else (str(blocks),)
        launch = Launch(scope.kernel, grid, (str(tile.threads),), names)
        kernels = Kernels(source, (launch,), tuple(tunables), helpers=frozenset({"Vec"}))
        return self.partials.completed(kernels) if self.partials else kernels

    def _constants(self) -> list[str]:
        layout, tile, integer = self.layout, self.tile, self.scope.integer
        extents = [f"M = {layout.m}"] * (layout.m % tile.m > 0) + [f"N = {layout.n}"] * (layout.n % tile.n > 0)
        pieces = [f"{self._pieces(s)} = {self._tile_extent(s)} * {self.tile_k}{_over(s.vec)}" for s in self.staging]
        text = [
            f"constexpr {integer} {', '.join([*extents, f'DEPTH = {layout.depth}'])};",
            f"constexpr int TILE_M = {tile.m}, TILE_N = {tile.n}, ROWS = {tile.rows}, COLS = {tile.cols};",
            f"constexpr int ACROSS = TILE_N / COLS, THREADS = {tile.threads};  // threads along a row, and in all",
            f"constexpr int {', '.join(pieces)};  // that are moved at once",
        ]
        across = -(-layout.n // tile.n)
        down = -(-layout.m // tile.m)
        row = f"blockIdx.x / {across}" if across > 1 else "blockIdx.x"
        if layout.batches > 1:
            text.append(f"const {integer} batch = blockIdx.x / {across * down};")
            row = f"{row} % {down}"
        text.append(
            f"const {integer} first_row = {integer}({row}) * TILE_M;" if down > 1 else "constexpr int first_row = 0;"
        )
        text.append(
            f"const {integer} first_col = {integer}(blockIdx.x % {across}) * TILE_N;"
            if across > 1
            else "constexpr int first_col = 0;"
        )
        return [*text, "const int row = threadIdx.x / ACROSS * ROWS, col = threadIdx.x % ACROSS;"]

    def _tiles(self) -> list[str]:
        """Declare shared memory."""
        slots = "[2]" if self.stages == 2 else ""
        text = []
        for staging in self.staging:
            width = f"{self._tile_extent(staging)}{f' + {self.pad}' if staging.transposed else ''}"
            text.append(f"__shared__ alignas(16) {self.layout.ctype} {staging.tile}{slots}[{self.tile_k}][{width}];")
        return [*text, f"{self.layout.ctype} acc[ROWS][COLS] = {{}};"]

    def _place(self) -> list[str]:
        """With two stages, the functions that move a tile into registers and on into shared memory."""
        if self.stages == 1:
            return []
        text, fetch, place = [], [], []
        for staging in self.staging:
            side, items = staging.operand.side, self._items(staging)
            text.append(f"{self._part(staging)} next_{side}[{items}];")
            fetch += self._items_loop(staging, self._fetch(staging, f"next_{side}[item]", declare=False))
            place += self._items_loop(staging, self._hand_over(staging, f"next_{side}[item]", "[slot]"))
        return [
            *text,
            "// The next tile waits in registers while the block works on this one.",
            f"const auto fetch = [&](const {self.scope.integer} start) {{",
            *indented(fetch),
            "};",
            "const auto place = [&](const int slot) {",
            *indented(place),
            "};",
        ]

    def _loop(self) -> list[str]:
        """Walk along the depth."""
        integer, step = self.scope.integer, self.tile_k
        first, last = "0", "DEPTH"
        text = []
        if self.partials:
            share = f"(DEPTH + {step} * {self.partials.splits} - 1) / ({step} * {self.partials.splits}) * {step}"
            text += [
                f"constexpr {integer} SHARE = {share};  // of the depth, in whole tiles",
                f"const {integer} split = blockIdx.y, first = split * SHARE;",
                f"const {integer} last = min(DEPTH, first + SHARE);",
            ]
            first, last = "first", "last"
        if self.stages == 1:
            stage = []
            for staging in self.staging:
                fetched = self._fetch(staging, "part", declare=True) + self._hand_over(staging, "part", "")
                stage += self._items_loop(staging, fetched)
            head = f"for ({integer} start = {first}; start < {last}; start += {step}) {{"
            return [*text, head, *indented([*stage, "__syncthreads();", *self._multiply(""), "__syncthreads();"]), "}"]
        opening = [f"fetch({first});", "place(0);"]
        if self.partials:
            opening = [f"if ({first} < {last}) {{  // the last share may be empty", *indented(opening), "}"]
        work = [
            f"const bool more = start + {step} < {last};",
            f"if (more) fetch(start + {step});",
            *self._multiply("[slot]"),
            "if (more) place(slot ^ 1);",
            "__syncthreads();",
        ]
        head = f"for ({integer} start = {first}, slot = 0; start < {last}; start += {step}, slot ^= 1) {{"
        return [*text, *opening, "__syncthreads();", head, *indented(work), "}"]

    def _items(self, staging: Staging) -> str:
        return f"({self._pieces(staging)} + THREADS - 1) / THREADS"

    def _pieces(self, staging: Staging) -> str:
        return f"PIECES_{staging.operand.outer.upper()}"

    def _tile_extent(self, staging: Staging) -> str:
        return f"TILE_{staging.operand.outer.upper()}"

    def _part(self, staging: Staging) -> str:
        return f"Vec<{self.layout.ctype}, {staging.vec}>" if staging.vec > 1 else self.layout.ctype

    def _items_loop(self, staging: Staging, body: list[str]) -> list[str]:
        """Let the block's threads share the pieces of a tile."""
        pieces = self._pieces(staging)
        even = all(staging.extent * depth // staging.vec % self.tile.threads == 0 for depth in self.depths)
        inner = ["const int i = item * THREADS + threadIdx.x;"]
        inner += body if even else [f"if ({pieces} % THREADS == 0 || i < {pieces}) {{", *indented(body), "}"]
        return [
            "#pragma unroll",
            f"for (int item = 0; item < {self._items(staging)}; ++item) {{",
            *indented(inner),
            "}",
        ]

    def _spot(self, staging: Staging) -> tuple[str, str]:
        """Where in the tile piece `i` belongs: along the depth and along the outer dimension, in pieces."""
        side = self._tile_extent(staging)
        if staging.along == "depth":
            pieces = f"({self.tile_k} / {staging.vec})" if staging.vec > 1 else self.tile_k
            return f"i % {pieces}", f"i / {pieces}"
        pieces = f"({side} / {staging.vec})" if staging.vec > 1 else side
        return f"i / {pieces}", f"i % {pieces}"

    def _fetch(self, staging: Staging, target: str, *, declare: bool) -> list[str]:
        """Compute a piece of the operand, zero where the tile sticks out."""
        operand, vec = staging.operand, staging.vec
        text, limits = staging.axes(self.scope.integer, *self._spot(staging))
        conditions = []
        if any(self.layout.depth % d for d in self.depths):
            conditions.append(f"DEPTH % {self.tile_k} == 0 || {limits[0]}")
        if operand.extent % staging.extent:
            conditions = [f"({c})" for c in conditions] + [limits[1]]
        element = f"{target}.at[k]" if vec > 1 else target
        value = operand.value(self.layout.batch, staging.along, staging.lanes)
        printer = self.scope.printer()
        if isinstance(value, Load) and staging.lanes.is_vector(value) and value.stored == self.layout.dtype:
            filled = vector_read(printer, value, staging.lanes, target, declare=False)
        else:
            filled = staging.lanes.body(printer, [Assign(element, value)])
        if declare:
            empty = "" if not conditions else "{}" if vec > 1 else " = 0"
            text.append(f"{self._part(staging)} {target}{empty};")
        elif conditions:
            text.append(f"{target} = {'{}' if vec > 1 else '0'};")
        return text + ([f"if ({' && '.join(conditions)}) {{", *indented(filled), "}"] if conditions else filled)

    def _hand_over(self, staging: Staging, source: str, slot: str) -> list[str]:
        """Put a piece into shared memory."""
        depth, outer = self._spot(staging)
        if staging.vec == 1:
            return [f"{staging.tile}{slot}[{depth}][{outer}] = {source};"]
        if staging.transposed:
            place = f"{staging.tile}{slot}[{depth} * {staging.vec} + k][{outer}]"
            return ["#pragma unroll", f"for (int k = 0; k < {staging.vec}; ++k) {place} = {source}.at[k];"]
        place = f"{staging.tile}{slot}[{depth}][{outer} * {staging.vec}]"
        return [f"*reinterpret_cast<{self._part(staging)}*>(&{place}) = {source};"]

    def _multiply(self, slot: str) -> list[str]:
        """Multiply the tiles: each thread reads a strip of both and adds their outer product to its sums."""
        left, row = self._strip(
            "left", self.tile.rows, f"tile_left{slot}[k]", lambda at: f"row + {at}" if at else "row"
        )
        right, col = self._strip("right", self.tile.cols, f"tile_right{slot}[k]", self._column)
        outer = [
            "#pragma unroll",
            "for (int i = 0; i < ROWS; ++i) {",
            "    #pragma unroll",
            f"    for (int j = 0; j < COLS; ++j) acc[i][j] += {row} * {col};",
            "}",
        ]
        return [
            "#pragma unroll",
            f"for (int k = 0; k < {self.tile_k}; ++k) {{",
            *indented([*left, *right, *outer]),
            "}",
        ]

    def _column(self, at: str) -> str:
        """Where strip `at` of a thread's columns starts: strips of a row of threads lie side by side."""
        width = self.fragment["right"]
        scale = f" * {width}" if width > 1 else ""
        if not at:
            return f"col{scale}"
        strip = at.removesuffix(f" * {width}") if width > 1 else at
        return f"({strip} * ACROSS + col){scale}" if width > 1 else f"{strip} * ACROSS + col"

    def _strip(self, side: str, extent: int, tile: str, place: Callable[[str], str]) -> tuple[list[str], str]:
        """Read a thread's share of one row of a tile; returns the statements and how an element is called."""
        width, variable = self.fragment[side], "i" if side == "left" else "j"
        ctype = f"Vec<{self.layout.ctype}, {width}>" if width > 1 else self.layout.ctype

        def read(at: str) -> str:
            cell = f"{tile}[{place(at)}]"
            return f"*reinterpret_cast<const {ctype}*>(&{cell})" if width > 1 else cell

        if extent == width:
            return [f"const {ctype} {side} = {read('')};"], f"{side}.at[{variable}]" if width > 1 else side
        count = extent // width
        scaled = f"{variable} * {width}" if width > 1 else variable
        text = [
            f"{ctype} {side}[{count}];",
            "#pragma unroll",
            f"for (int {variable} = 0; {variable} < {count}; ++{variable}) {side}[{variable}] = {read(scaled)};",
        ]
        return text, f"{side}[{variable} / {width}].at[{variable} % {width}]" if width > 1 else f"{side}[{variable}]"

    def _epilogue(self) -> tuple[list[str], list[Store]]:
        """Write each thread's patch."""
        layout, fragment, integer = self.layout, self.fragment["right"], self.scope.integer
        vec = layout.widest(fragment)
        lanes = Lanes(Axis("column", layout.n // vec), vec)
        row = Axis("m", layout.m)
        held = Local(
            f"acc[i][j * {vec} + k]" if vec > 1 else "acc[i][j]", layout.dtype, frozenset({lanes.group, lanes.k, row})
        )
        make = self.partials.stores if self.partials else layout.stores
        stores = make(lift(row), lanes.linear, held)
        ratio = fragment // vec
        spot = f"(j / {ratio} * ACROSS + col) * {ratio} + j % {ratio}" if ratio > 1 else "j * ACROSS + col"
        base = f"first_col{_over(vec)}"
        guards = []
        if layout.m % self.tile.m:
            guards.append("m < M")
        if layout.n % self.tile.n:
            guards.append(f"column < N{_over(vec)}")
        body = lanes.body(self.scope.printer(), stores)
        guarded = [f"if ({' && '.join(guards)}) {{", *indented(body), "}"] if guards else body
        columns = [f"const {integer} column = {base} + {spot};", *guarded]
        rows = [
            f"const {integer} m = first_row + row + i;",
            "#pragma unroll",
            f"for (int j = 0; j < COLS{_over(vec)}; ++j) {{",
            *indented(columns),
            "}",
        ]
        return ["#pragma unroll", "for (int i = 0; i < ROWS; ++i) {", *indented(rows), "}"], stores


def _over(vec: int) -> str:
    """A division by the vector's width, where there is one."""
    return f" / {vec}" if vec > 1 else ""
