"""How tiles of queries, keys and values come into shared memory.

What lies in memory as the tile wants it is copied asynchronously; what must be computed on the way is computed by the
threads of the block. Either way a tile is whole after the next wait and barrier. What sticks out is filled with zeros.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from warpsmith.author.builtin.index import Axis, Index, lift
from warpsmith.author.builtin.kernels.emission import Assign, Lanes, Scope, indented, loads
from warpsmith.author.builtin.kernels.pieces import copied, copyable, widest_vector
from warpsmith.author.builtin.printer import CTYPES
from warpsmith.author.builtin.scalar import Load, Scalar
from warpsmith.records import DTYPE_BYTES


@dataclass(frozen=True)
class TileCopy:
    """One operand's way. `element` is a formula of the outer axis and of the position `along` a row of the tile.

    The tile has `rows` rows of `length` elements, `pitch` elements apart; `dtype` is that of its elements.
    """

    name: str
    outer: Axis
    along: int
    element: Callable[[Index, Index], Scalar]
    rows: int
    length: int
    pitch: int
    dtype: str

    @property
    def tile(self) -> str:
        """The tile in shared memory."""
        return f"tile_{self.name}"

    def _lanes(self, vec: int) -> Lanes:
        return Lanes(Axis("step", self.along // vec), vec)

    def value(self, vec: int) -> Scalar:
        """The element that a lane brings."""
        return self.element(lift(self.outer), self._lanes(vec).linear)

    @property
    def vec(self) -> int:
        """Elements that are moved at once: the widest vectors, up to 16 bytes, that all reads allow."""
        limit = 16 // DTYPE_BYTES[self.dtype]
        return widest_vector(self.along, limit, "step", lambda lanes: self.value(lanes.vec))

    @property
    def asynchronous(self) -> bool:
        """Whether pieces can be copied as they are."""
        return copyable(self.value(self.vec), self._lanes(self.vec), self.dtype)

    def _downwards(self) -> bool:
        """Whether neighbouring threads should walk down a column, since that is how the elements lie in memory."""
        reads = [load for load in loads([self.value(1)]) if self._lanes(1).group in load.axes]
        return self.vec == 1 and any((self.outer, 1) in load.index.terms for load in reads)

    def fetch(self, scope: Scope, threads: int, slots: int) -> list[str]:
        """Define the function that brings the rows from `start` on, into slot `slot` where there are several."""
        vec, integer = self.vec, scope.integer
        pieces = self.length // vec
        row, piece = f"item / {pieces}", f"item % {pieces}"
        if self._downwards():
            row, piece = f"item % {self.rows}", f"item / {self.rows}"
        conditions = []
        if self.outer.extent % self.rows:
            conditions.append(f"{self.outer.name} < {self.outer.extent}")
        if self.length != self.along:
            conditions.append(f"step < {self.along // vec}")
        at = f"(slot * {self.rows} + row) * {self.pitch}" if slots > 1 else f"row * {self.pitch}"
        spot = f"&{self.tile}[{at} + step{f' * {vec}' if vec > 1 else ''}]"
        move = self._copied if self.asynchronous else self._computed
        body = [
            f"const int row = {row}, step = {piece};",
            f"const {integer} {self.outer.name} = start + row;",
            *move(scope, spot, conditions),
        ]
        arguments = f"const {integer} start{', const int slot' if slots > 1 else ''}"
        count = self.rows * pieces
        unroll = "#pragma unroll" if count <= 8 * threads else "#pragma unroll 4"
        return [
            f"const auto fetch_{self.name} = [&]({arguments}) {{",
            f"    {unroll}",
            f"    for (int item = threadIdx.x; item < {count}; item += {threads}) {{",
            *indented(body, 2),
            "    }",
            "};",
        ]

    def _copied(self, scope: Scope, spot: str, conditions: list[str]) -> list[str]:
        value = self.value(self.vec)
        assert isinstance(value, Load)
        return [copied(scope.printer(), value, self._lanes(self.vec), spot, conditions)]

    def _computed(self, scope: Scope, spot: str, conditions: list[str]) -> list[str]:
        vec, ctype = self.vec, f"Vec<{CTYPES[self.dtype]}, {self.vec}>"
        target = f"part.at[{'k' if vec > 1 else '0'}]"
        body = self._lanes(vec).body(scope.printer(), [Assign(target, self.value(vec))])
        if conditions:
            body = [f"if ({' && '.join(conditions)}) {{", *indented(body), "}"]
        return [
            f"{ctype} part{{}};",
            *body,
            f"*reinterpret_cast<{ctype}*>({spot}) = part;",
        ]
