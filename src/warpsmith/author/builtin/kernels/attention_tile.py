"""What a block of the attention kernel computes in one step, and whether that fits the GPU.

A block takes `rows` queries and goes through `keys` keys at a time. Its warps stand in `down` rows and `across`
columns: a warp has rows / down of the queries, and 1 / across of the columns of the values. Where several stand side
by side they share the scores through shared memory. `tiles` says how many tiles of keys and values there is room for:
one that serves both in turn, one of each, or two of each.
"""

from __future__ import annotations

from dataclasses import dataclass

from warpsmith.author.builtin.kernels.attention_layout import Layout
from warpsmith.author.builtin.printer import CTYPES
from warpsmith.records import DTYPE_BYTES, GpuSpec

# Rows of the matrix that one instruction adds to, and its columns.
MMA_M, MMA_N = 16, 8
# Bytes of a row that four lanes read at once.
STRETCH = 64
# Registers that a lane needs for other things than its sums and scores.
_OTHER_REGISTERS = {"float32": 32, "float16": 64, "bfloat16": 64}
_MOST_REGISTERS = 250
# Sums of more keys in one accumulator would lose more than float32 may, since tensor cores cut off when they add.
_MOST_KEYS_FLOAT32 = 32
_WARPS = ((4, 1), (8, 1), (2, 1), (1, 1), (4, 2), (2, 2), (2, 4), (1, 4), (1, 8), (2, 8), (1, 2))
_CHOICES = 16


@dataclass(frozen=True)
class Tile:
    """One choice, for one layout."""

    layout: Layout
    rows: int
    keys: int
    down: int
    across: int
    tiles: int

    @staticmethod
    def parse(layout: Layout, text: str) -> Tile:
        """Read `64x64/4x1/2`."""
        (rows, keys), (down, across), (tiles,) = (map(int, part.split("x")) for part in text.split("/"))
        return Tile(layout, rows, keys, down, across, tiles)

    def __str__(self) -> str:
        return f"{self.rows}x{self.keys}/{self.down}x{self.across}/{self.tiles}"

    @property
    def dtype(self) -> str:
        """The dtype of elements in shared memory."""
        return self.layout.precision

    @property
    def ctype(self) -> str:
        """Its C++ type."""
        return CTYPES[self.dtype]

    @property
    def bytes(self) -> int:
        """Size of an element in shared memory."""
        return DTYPE_BYTES[self.dtype]

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return self.down * self.across * 32

    @property
    def row_tiles(self) -> int:
        """Matrices of 16 queries that a warp has."""
        return self.rows // (MMA_M * self.down)

    @property
    def key_tiles(self) -> int:
        """Matrices of 8 keys in a step."""
        return self.keys // MMA_N

    @property
    def wide(self) -> int:
        """Neighbouring matrices of 8 columns that a lane reads together: two by `ldmatrix`, else up to 16 bytes."""
        if self.dtype != "float32":
            return 2
        return min((4, 2, 1), key=lambda wide: (self._padded(wide), -wide))

    @property
    def columns(self) -> int:
        """Columns of the values in shared memory: all, filled up so that each warp has the same number."""
        return self._padded(self.wide)

    def _padded(self, wide: int) -> int:
        unit = self.across * MMA_N * wide
        return -(-self.layout.width // unit) * unit

    @property
    def col_tiles(self) -> int:
        """Matrices of 8 columns that a warp has."""
        return self.columns // self.across // MMA_N

    @property
    def deep(self) -> int:
        """Elements of queries and keys in shared memory: the depth, filled up."""
        unit = STRETCH // self.bytes
        return -(-self.layout.depth // unit) * unit

    @property
    def pitch(self) -> int:
        """Elements from one row of queries or keys to the next, so that eight lanes read from different banks."""
        unit = STRETCH // self.bytes
        return self.deep + (unit if self.deep // unit % 2 == 0 else 0)

    @property
    def value_pitch(self) -> int:
        """Elements from one row of values to the next, likewise."""
        if self.dtype != "float32":
            return self.columns + 8
        return self.columns + (4 - self.columns) % 16

    @property
    def score_pitch(self) -> int:
        """Elements from one row of shared scores to the next, likewise."""
        return self.keys + 8

    @property
    def score_warps(self) -> tuple[int, int]:
        """How the warps that make shared scores stand: the most, and those the squarest, that divide the matrices."""
        if self.across == 1:
            return self.down, 1
        down, across = self.rows // MMA_M, self.key_tiles
        fitting = [
            (d, a)
            for d in (1, 2, 4, 8)
            for a in (1, 2, 4, 8, 16)
            if down % d == 0 and across % a == 0 and d * a <= self.down * self.across
        ]
        return min(fitting, key=lambda w: (-w[0] * w[1], 2 * down // w[0] + across // w[1]))

    @property
    def shared(self) -> int:
        """Bytes of shared memory."""
        return (self.query_elements + self.tile_elements) * self.bytes + self.score_bytes

    @property
    def query_elements(self) -> int:
        """Elements of the tile of queries."""
        return self.rows * self.pitch

    @property
    def tile_elements(self) -> int:
        """Elements of all tiles of keys and values."""
        if self.tiles == 1:
            return self.keys * max(self.pitch, self.value_pitch)
        return self.slots * self.keys * (self.pitch + self.value_pitch)

    @property
    def slots(self) -> int:
        """Tiles of keys, and as many of values."""
        return max(1, self.tiles // 2)

    @property
    def score_bytes(self) -> int:
        """Bytes of shared scores."""
        return self.rows * self.score_pitch * 4 if self.across > 1 else 0

    @property
    def registers(self) -> int:
        """About how many registers a thread needs."""
        sums = 4 * self.row_tiles * self.col_tiles
        # A float32 score is there as a whole and in two parts, and each sum of a step in two.
        whole, parts = (12 * self.key_tiles, 8 * self.wide) if self.dtype == "float32" else (4 * self.key_tiles, 0)
        return sums + self.row_tiles * (whole + parts) + _OTHER_REGISTERS[self.dtype]

    @property
    def blocks(self) -> int:
        """Blocks of the grid."""
        return self.layout.batches * -(-self.layout.queries // self.rows)

    def fits(self, gpu: GpuSpec) -> bool:
        """Whether it is a tile at all, and the GPU has room for it."""
        if self.rows % (MMA_M * self.down) or (self.dtype != "float32" and self.keys % 16):
            return False
        if self.dtype == "float32" and self.keys > _MOST_KEYS_FLOAT32:
            return False
        return self.shared <= gpu.shared_per_block and self.registers <= min(_MOST_REGISTERS, 65536 // self.threads)

    def resident(self, gpu: GpuSpec) -> int:
        """Warps that a multiprocessor holds at a time."""
        blocks = min(
            gpu.shared_per_sm // (self.shared + 1024),
            gpu.registers_per_sm // (self.registers * self.threads),
            gpu.threads_per_sm // self.threads,
        )
        return blocks * self.threads // 32

    def cost(self, gpu: GpuSpec) -> float:
        """About how long it takes, in matrix instructions of some eight clock cycles. Only the order counts."""
        row, col = self.row_tiles, self.col_tiles
        down, across = self.score_warps
        score_row, score_key = self.rows // MMA_M // down, self.key_tiles // across
        passes, pair = (3, 1) if self.dtype == "float32" else (1, 2)
        # A warp's read of 16 bytes a lane keeps shared memory busy for as long as three instructions take.
        reads = 3 * (2 * score_row + score_key)
        scores = self.deep * self.bytes // STRETCH * (2 * passes * score_row * score_key + reads)
        mixing = self.key_tiles / pair * (passes * row * col + 3 * col / 2)
        softmax = 8 * row * self.key_tiles
        work = (scores + mixing + softmax) / min(1.0, self.resident(gpu) / 12)
        # A multiprocessor gets about 24 bytes a cycle from L2, and four warps compute at a time.
        fetching = self.keys * (self.deep + self.columns) * self.bytes / 24 / 8 * 4 / (self.threads // 32)
        step = {4: max(work, fetching) + 60, 2: max(work, fetching) + 120, 1: work + fetching + 160}[self.tiles]
        at_once = max(1, gpu.sm_count * self.resident(gpu) * 32 // self.threads)
        turns = -(-self.blocks // at_once) * max(1.0, self.resident(gpu) / 4)
        return -(-self.layout.keys // self.keys) * step * turns


def choices(layout: Layout, gpu: GpuSpec) -> tuple[Tile, ...]:
    """Tiles that fit, the likeliest first. There is one for every attention that is matched."""
    fitting = [
        tile
        for rows in (16, 32, 64, 128)
        for keys in (8, 16, 32, 64, 128)
        for down, across in _WARPS
        for tiles in (2, 4, 1)
        if (tile := Tile(layout, rows, keys, down, across, tiles)).fits(gpu)
    ]
    useful = [t for t in fitting if _useful(t)] or fitting
    return tuple(sorted(useful, key=lambda tile: (tile.cost(gpu), str(tile)))[:_CHOICES])


def _useful(tile: Tile) -> bool:
    """Whether a tile is not mostly empty, and has work for every warp."""
    down, across = tile.score_warps
    return (
        tile.rows < 2 * max(MMA_M, tile.layout.queries)
        and tile.keys < 2 * max(16, tile.layout.keys)
        and tile.columns < 2 * max(16, tile.layout.width)
        and 2 * down * across > tile.down * tile.across
        and (tile.tiles != 4 or tile.keys < tile.layout.keys)
    )
