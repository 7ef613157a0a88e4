"""What happens to each score between the two products: scale, masks, and what is left to do to a share."""

from __future__ import annotations

import re
from collections.abc import Callable

from warpsmith.author.builtin.index import Axis, Index, lift
from warpsmith.author.builtin.kernels.attention_tile import Tile
from warpsmith.author.builtin.kernels.emission import Assign, Lanes, Scope, hoist, indented, unrolled
from warpsmith.author.builtin.scalar import Local, Scalar

Formula = Callable[[Index, Index, Local], Scalar]


class Elements:
    """Formulas over the scores that a lane holds: two neighbouring keys at a time, where their number is even."""

    def __init__(self, tile: Tile, scope: Scope) -> None:
        self.tile, self.layout, self.scope = tile, tile.layout, scope
        self.lanes = Lanes(Axis("step", self.layout.keys // 2), 2) if self.layout.keys % 2 == 0 else None
        self.single = Lanes(Axis("step", self.layout.keys), 1)

    def formulas(self) -> list[Scalar]:
        """All formulas, for what they read."""
        found = [self._value(self.layout.logit, "score")]
        weighted = self._weighted("score")
        return found if weighted is None else [*found, weighted]

    def logits(self, array: str, row: str, column: str, rows: str, tiles: str) -> list[str]:
        """Statements that turn the scores in `array` into logits; `row` and `column` name its first in the tile.

        Keys that do not exist get minus infinity, or without a softmax zero.
        """
        nothing = "-INFINITY" if self.layout.found.softmax is not None else "0.0f"
        value = self._value(self.layout.logit, array)
        return self._each(array, row, column, rows, tiles, value, nothing)

    def weights(self, array: str, row: str, column: str, rows: str, tiles: str) -> list[str]:
        """Statements that turn exponentials into shares, up to the sum of the row."""
        value = self._weighted(array)
        return [] if value is None else self._each(array, row, column, rows, tiles, value, "0.0f")

    def _held(self, array: str) -> Local:
        lanes = self.lanes or self.single
        varies = frozenset({self.layout.m, lanes.group, *([lanes.k] if self.lanes else [])})
        return Local(f"{array}[r][j][2 * i + k]", "float32", varies)

    def _value(self, formula: Formula, array: str) -> Scalar:
        return formula(lift(self.layout.m), (self.lanes or self.single).linear, self._held(array))

    def _weighted(self, array: str) -> Scalar | None:
        return self.layout.weighted(lift(self.layout.m), (self.lanes or self.single).linear, self._held(array))

    def _each(
        self, array: str, row: str, column: str, rows: str, tiles: str, value: Scalar, nothing: str
    ) -> list[str]:  # fmt: skip
        """Let `value` replace every score."""
        sticks_out, unchanged = self.layout.keys % self.tile.keys > 0, value is self._held(array)
        if unchanged and not sticks_out:
            return []
        lanes, even = self.lanes or self.single, self.lanes is not None
        printer = self.scope.printer()
        fixed = hoist(printer, [value], [lanes.group, lanes.k])
        body = [] if unchanged else lanes.body(printer.fork(), [Assign(f"{array}[r][j][2 * i + k]", value)])
        if sticks_out:
            cells = [f"{array}[r][j][2 * i]", f"{array}[r][j][2 * i + 1]"] if even else [f"{array}[r][j][2 * i + k]"]
            body = self._guarded(body, f"step < KEYS{' / 2' if even else ''}", " = ".join([*cells, f"{nothing};"]))
        if even:
            start = f"(start + {column}) / 2" if column else "start / 2"
            body = self._defined(body, "step", f"{start} + j * 4 + member")
        else:
            start = f"start + {column}" if column else "start"
            body = unrolled("k", 2, self._defined(body, "step", f"{start} + j * 8 + 2 * member + k"))
        return unrolled("r", rows, unrolled("i", 2, self._with_query([*fixed, *unrolled("j", tiles, body)], row)))

    def _guarded(self, body: list[str], condition: str, empty: str) -> list[str]:
        if not body:
            return [f"if (!({condition})) {empty}"]
        return [f"if ({condition}) {{", *indented(body), "} else {", f"    {empty}", "}"]

    def _defined(self, body: list[str], name: str, value: str) -> list[str]:
        """Define a variable if the statements use it."""
        if not _uses(body, name):
            return body
        return [f"const {self.scope.integer} {name} = {value};", *body]

    def _with_query(self, body: list[str], row: str) -> list[str]:
        """Define the query, if the statements use it: the last one for rows that stick out."""
        if not _uses(body, "m"):
            return body
        integer, here = self.scope.integer, f"first_row + {row} + r * 16 + i * 8"
        if self.layout.queries % self.tile.rows == 0:
            return [f"const {integer} m = {here};", *body]
        return [f"const {integer} at = {here}, m = at < QUERIES ? at : QUERIES - 1;", *body]


def _uses(body: list[str], name: str) -> bool:
    return any(re.search(rf"\b{name}\b", line) for line in body)
