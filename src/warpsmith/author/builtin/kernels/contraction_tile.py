"""The shape of a contraction's tiles, and how they come into shared memory."""

from __future__ import annotations

from dataclasses import dataclass

from warpsmith.author.builtin.kernels.contraction_layout import Along, Layout, Operand
from warpsmith.author.builtin.kernels.emission import Lanes
from warpsmith.records import DTYPE_BYTES

# Static shared memory that a block may declare.
_SHARED_BYTES = 48 * 1024
# Words that a row of a transposed tile is longer than it holds, so that a column spreads over the banks.
PADS = (4, 0)


@dataclass(frozen=True)
class Tile:
    """What a block computes (`m` x `n`) and what each of its threads does (`rows` x `cols`)."""

    m: int
    n: int
    rows: int
    cols: int

    @staticmethod
    def parse(text: str) -> Tile:
        """Read `64x64/4x4`."""
        block, thread = text.split("/")
        (m, n), (rows, cols) = (map(int, part.split("x")) for part in (block, thread))
        return Tile(m, n, rows, cols)

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return (self.m // self.rows) * (self.n // self.cols)

    def depths(self, layout: Layout, stages: int, step: int) -> tuple[int, ...]:
        """Depths of a tile, each a multiple of `step`, that fit shared memory and the sum, the default first."""
        size = DTYPE_BYTES[layout.dtype] * stages * (self.m + self.n + 2 * max(PADS))
        useful = max(8, 1 << (layout.depth - 1).bit_length())
        fitting = [d for d in (16, 8, 32, 4) if d <= useful and d * size <= _SHARED_BYTES and d % step == 0]
        return tuple(fitting if layout.depth > 8 else [d for d in fitting if d <= 8])


@dataclass(frozen=True)
class Staging:
    """How the tile of one operand comes into shared memory."""

    operand: Operand
    along: Along
    vec: int
    extent: int

    @property
    def lanes(self) -> Lanes:
        """The vectors that are moved at once."""
        return self.operand.lanes(self.along, self.vec)

    @property
    def tile(self) -> str:
        """The array in shared memory."""
        return f"tile_{self.operand.side}"

    @property
    def base(self) -> str:
        """The variable with the place of the tile along the outer dimension."""
        return "first_row" if self.operand.side == "left" else "first_col"

    @property
    def transposed(self) -> bool:
        """Whether vectors run along the depth, so that each is spread over rows of the tile."""
        return self.along == "depth"

    def axes(self, integer: str, depth: str, outer: str) -> tuple[list[str], tuple[str, str]]:
        """Define the operand's axes at a piece of the tile that starts at `start`; `depth` and `outer` say which piece.

        Returns the statements, and what keeps the piece inside the operand: along the depth, and along the other
        dimension.
        """
        name, scale = self.operand.outer, f" / {self.vec}" if self.vec > 1 else ""
        if self.transposed:
            text = [
                f"const {integer} step = start{scale} + {depth};",
                f"const {integer} {name} = {self.base} + {outer};",
            ]
            return text, (f"step < DEPTH{scale}", f"{name} < {name.upper()}")
        text = [
            f"const {integer} depth = start + {depth};",
            f"const {integer} group = {self.base}{scale} + {outer};",
        ]
        return text, ("depth < DEPTH", f"group < {name.upper()}{scale}")
