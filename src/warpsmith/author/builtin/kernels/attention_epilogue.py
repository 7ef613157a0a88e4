"""The end of the attention kernel: sums divided by the total of their row, and the region's outputs."""

from __future__ import annotations

from warpsmith.author.builtin.index import Axis, lift
from warpsmith.author.builtin.kernels.attention_tile import Tile
from warpsmith.author.builtin.kernels.emission import Lanes, Scope, Store, indented, unrolled
from warpsmith.author.builtin.scalar import Local


class Epilogue:
    """Writes what a warp holds in `acc`: a lane has runs of neighbouring columns of two rows of each matrix."""

    def __init__(self, tile: Tile, scope: Scope) -> None:
        self.tile, self.layout, self.scope = tile, tile.layout, scope
        # With `wide` matrices read together, neighbouring columns are in neighbouring matrices.
        self.wide = tile.wide if tile.dtype == "float32" else 1
        self.run = max(2, self.wide)
        self.whole = self.layout.width % self.run == 0
        self.lanes = Lanes(Axis("column", self.layout.width // self.vec), self.vec)
        self.element = f"acc[r][c * {self.wide} + k][2 * i + h]" if self.wide > 1 else "acc[r][c][2 * i + k]"

    @property
    def vec(self) -> int:
        """Columns that are written together."""
        return self.run if self.whole else 1

    def stores(self) -> list[Store]:
        """The region's outputs at a lane's element."""
        layout = self.layout
        m = lift(layout.m)
        held = Local(self.element, "float32", frozenset({layout.m, self.lanes.group, Axis("k", self.run)}))
        largest = Local("largest[r][i]", "float32", frozenset({layout.m}))
        return layout.stores(m, self.lanes.linear, layout.finished(m, held, largest))

    def emit(self) -> list[str]:
        """Return the statements."""
        layout, integer = self.layout, self.scope.integer
        body = self.lanes.body(self.scope.printer(), self.stores())
        over = f" / {self.vec}" if self.vec > 1 else ""
        if self.tile.columns > layout.width:
            body = [f"if (column < WIDTH{over}) {{", *indented(body), "}"]
        body = [f"const {integer} column = {self._column()};", *body]
        if not self.whole:
            body = unrolled("k", self.run, body)
        if self.wide > 1:
            body = unrolled("h", 2, body)
        written = unrolled("c", f"COL_TILES / {self.wide}" if self.wide > 1 else "COL_TILES", body)
        if layout.queries % self.tile.rows:
            written = ["if (m < QUERIES) {", *indented(written), "}"]
        row = f"const {integer} m = first_row + row + r * 16 + i * 8;"
        return unrolled("r", "ROW_TILES", unrolled("i", 2, [*self._divided(), row, *written]))

    def _column(self) -> str:
        """Where a run starts, in units of what is written together."""
        first = "first_col" if self.tile.across > 1 else ""
        if not self.whole:
            run = f"(c * 8 + 2 * member + h) * {self.wide}" if self.wide > 1 else "c * 8 + 2 * member"
            return " + ".join(filter(None, (first, run, "k")))
        first = f"first_col / {self.run}" if first else ""
        run = "c * 8 + 2 * member + h" if self.wide > 1 else "c * 4 + member"
        return " + ".join(filter(None, (first, run)))

    def _divided(self) -> list[str]:
        """Divide a row by its total."""
        if self.layout.found.softmax is None:
            return []
        nan = []
        if self.layout.conditional:
            nan = ["if (total[r][i] != total[r][i]) largest[r][i] = total[r][i];  // a maximum that passed over NaN"]
        return [
            "total[r][i] = team_sum<4>(total[r][i]);",
            *nan,
            "const float base = 1.0f / total[r][i];",
            *unrolled("c", "COL_TILES", unrolled("h", 2, ["acc[r][c][2 * i + h] *= base;"])),
        ]
