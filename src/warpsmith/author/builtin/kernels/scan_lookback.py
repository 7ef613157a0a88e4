"""One pass over long rows: a block scans a tile, and looks back at what the tiles before it have posted.

After "Single-pass Parallel Prefix Scan with Decoupled Look-back" (Merrill and Garland, 2016): every element is read
once and written once. A block takes the number of its tile from a counter, so that it only ever waits for blocks that
are running already.

What differs is what a tile adds up. There, a tile stops at the nearest one whose whole prefix is known, which depends
on who was faster, and floating-point sums vary from run to run. A chain in which each tile waits for the prefix of the
one before it would not vary, but costs a trip through memory for every tile of a row, one after the other. Here sums
of 32 neighbouring tiles are posted as well, and sums of 32 such sums: a tile merges the same posts in every run, at
most 31 of each level, and waits for no more trips than there are levels.

Scratch memory is undefined when a call begins, so a first small kernel takes all posts away.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from warpsmith.author.builtin.kernels.emission import Kernels, Scope, function
from warpsmith.author.builtin.kernels.scan_layout import ScanLayout
from warpsmith.author.builtin.kernels.scan_stretch import Stretch
from warpsmith.records import DTYPE_BYTES, Buffer, Launch

# Rows that lie side by side are scanned 32 at once from this many on; fewer would leave most lanes without work.
BESIDE = 8
# Tiles that keep every multiprocessor busy, on any GPU of today.
_TILES = 512
_HEIGHTS = (8, 16, 32)
# Elements of a row that a tile has at least, so that posts are few beside them.
_LEAST = 64
_RESET = 256


def emit_lookback(layout: ScanLayout, scope: Scope, reads: str) -> Kernels:
    """Write the kernel that scans, and the one that prepares its scratch memory."""
    return _Lookback(layout, scope, "direct" if layout.beside >= BESIDE else reads).emit()


@dataclass(frozen=True)
class _Lookback:
    layout: ScanLayout
    scope: Scope
    reads: str

    @property
    def beside(self) -> bool:
        """Whether a block scans 32 rows at once."""
        return self.layout.beside >= BESIDE

    @property
    def bands(self) -> int:
        """Rows, or bands of 32 rows that lie side by side."""
        return -(-self.layout.region.rows // 32) if self.beside else self.layout.region.rows

    @property
    def threads(self) -> str:
        """The macro with the number of threads that share a row's tile."""
        return self.scope.tunable("HEIGHT" if self.beside else "BLOCK")

    @property
    def shares(self) -> tuple[int, ...]:
        """Its values."""
        return _HEIGHTS if self.beside else self.layout.blocks

    @property
    def posts(self) -> str:
        """The buffer with what tiles have posted."""
        return f"{self.scope.kernel}_posts"

    @property
    def taken(self) -> str:
        """The buffer with the number of tiles that blocks have taken."""
        return f"{self.scope.kernel}_taken"

    def emit(self) -> Kernels:
        """Put everything together."""
        layout, scope, stretch = self.layout, self.scope, self._stretch()
        names, params = layout.signature()
        scratch = f"unsigned long long* {self.posts}, int* {self.taken}"
        body = [*self._setup(stretch), *stretch.opening, *stretch.round(self._meeting(stretch))]
        bounds = f"32 * {self.threads}" if self.beside else self.threads
        comment = f"{layout.comment()}\nA block scans a tile, and looks back at what came before it."
        scan = function(scope, scope.kernel, f"{params}, {scratch}", bounds, body, comment)
        tiles = f"ceil_div({layout.groups}, {self.threads} * {stretch.items})"
        block = ("32", self.threads) if self.beside else (self.threads,)
        launch = Launch(scope.kernel, (f"{tiles} * {self.bands}",), block, (*names, self.posts, self.taken))
        reset, first = self._reset(stretch, scratch)
        reduce = "column_reduce" if self.beside else "warp_reduce"
        return Kernels(
            f"{reset}\n\n{scan}",
            (first, launch),
            ((self.threads, self.shares), *stretch.tunables),
            (Buffer(self.posts, self._words(stretch), "int64"), Buffer(self.taken, ("1",), "int32")),
            frozenset(stretch.helpers | {"look_back", reduce}),
        )

    def _stretch(self) -> Stretch:
        """What a thread scans: as much as it can hold, as long as there are tiles enough."""
        layout, vec = self.layout, self.layout.lanes.vec
        exchange = f"column_scan<32, {self.threads}>" if self.beside else f"block_scan<{self.threads} / 32>"
        shares = self.bands * layout.groups // (self.shares[0] * _TILES)
        fitting = min(16 // vec, 1 << max(shares, 1).bit_length() - 1)
        inside = "inside" if self.beside and layout.region.rows % 32 else ""
        found = Stretch.of(layout, self.scope, self.threads, exchange, self.reads, inside, fitting=fitting)
        return replace(found, sizes=tuple(s for s in found.sizes if s * vec * min(self.shares) >= _LEAST))

    def _words(self, stretch: Stretch) -> tuple[str, ...]:
        """The extents of the posts: levels as long as the smallest tiles need them."""
        tile, tiles = f"{self.threads} * {stretch.items}", self.layout.groups / (min(self.shares) * min(stretch.sizes))
        levels = [f"ceil_div({self.layout.groups}, {tile})"]
        while math.ceil(tiles) > 32:
            tiles /= 32
            levels.append(f"ceil_div({self.layout.groups}, {tile} * {32 ** len(levels)})")
        words = DTYPE_BYTES[self.layout.dtype] // 4 * (32 if self.beside else 1)
        return str(self.bands), " + ".join(levels), str(words)

    def _reset(self, stretch: Stretch, scratch: str) -> tuple[str, Launch]:
        """The kernel that takes all posts away, and its launch."""
        name = f"{self.scope.kernel}_reset"
        body = [
            *self._sizes(stretch),
            f"constexpr int WORDS = {self.bands} * {self._words_of_band};",
            f"const int at = blockIdx.x * {_RESET} + threadIdx.x;",
            f"if (at < WORDS) {self.posts}[at] = 0;",
            f"if (at == 0) *{self.taken} = 0;",
        ]
        source = function(self.scope, name, scratch, str(_RESET), body, "No tile is taken or posted.")
        grid = f"ceil_div({self.posts}.numel, {_RESET})"
        return source, Launch(name, (grid,), (str(_RESET),), (self.posts, self.taken))

    # -- text

    def _sizes(self, stretch: Stretch) -> list[str]:
        """The length of a row and of a tile, and the number of tiles."""
        integer, unit = self.scope.integer, "  // of vectors" if self.layout.lanes.vec > 1 else ""
        return [
            f"constexpr {integer} COLS = {self.layout.groups}, TILE = {self.threads} * {stretch.items};{unit}",
            "constexpr int TILES = (COLS + TILE - 1) / TILE;",
        ]

    @property
    def _words_of_band(self) -> str:
        """How many words the posts of a band take."""
        return f"words_for<{self.layout.accumulator}>(TILES)" + (" * 32" if self.beside else "")

    def _setup(self, stretch: Stretch) -> list[str]:
        """Take a tile, and find out where it lies."""
        integer = self.scope.integer
        first = "threadIdx.x == 0 && threadIdx.y == 0" if self.beside else "threadIdx.x == 0"
        return [
            *self._sizes(stretch),
            "// Tiles are taken in order, so what comes before a tile is being worked on, or done.",
            "__shared__ int slot;",
            f"if ({first}) slot = atomicAdd({self.taken}, 1);",
            "__syncthreads();",
            f"const int part = slot / {self.bands}, band = slot % {self.bands};",
            f"const {integer} start = part * TILE;",
            *self._row(),
        ]

    def _row(self) -> list[str]:
        """Define `row` and `lane`."""
        integer, rows = self.scope.integer, self.layout.region.rows
        if not self.beside:
            return [f"const {integer} row = band;", "const int lane = threadIdx.x;"]
        place, lane = "band * 32 + int(threadIdx.x)", "const int lane = threadIdx.y;"
        if rows % 32 == 0:
            return [f"const {integer} row = {place};", lane]
        return [
            f"const bool inside = {place} < {rows};",
            f"const {integer} row = inside ? {place} : {rows - 1};",
            lane,
        ]

    def _meeting(self, stretch: Stretch) -> list[str]:
        """What came before a thread in its tile, and before the tile in its row."""
        kind, posts = self.layout.accumulator, f"{self.posts} + band * {self._words_of_band}"
        own = f"{kind} before = {stretch.exchange}({stretch.share}, total);"
        if self.beside:
            reduce = f"[]({kind} some) {{ return column_reduce<32, {self.threads}>(some); }}"
            given = f"{posts} + threadIdx.x, part, lane, total, {reduce}"
            return [own, f"before.merge(look_back<TILES, 32, {self.threads}>({given}));"]
        reduce = f"[]({kind} some) {{ return warp_reduce(some); }}"
        return [
            own,
            f"__shared__ {kind} tile_before;",
            "if (lane < 32) {",
            f"    const {kind} found = look_back<TILES, 1, 32>({posts}, part, lane, total, {reduce});",
            "    if (lane == 0) tile_before = found;",
            "}",
            "__syncthreads();",
            "before.merge(tile_before);",
        ]
