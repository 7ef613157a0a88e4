"""How the lanes of a warp read fragments of a tile, and how they are multiplied.

A float32 element is split into two TF32 numbers, large + small; three products, small·large + large·small +
large·large, then come to float32 accuracy. Where the task allows one pass of TF32, elements are rounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from warpsmith.author.builtin.kernels.contraction_copy import TileCopy
from warpsmith.author.builtin.kernels.contraction_warps import MMA_M, MMA_N
from warpsmith.author.builtin.kernels.emission import indented, unrolled

# What becomes of an element on its way to a fragment of TF32; 16-bit elements stay as they are.
Treatment = Literal["as it is", "round", "split"]


def treated(treatment: Treatment, element: str, large: str, small: str) -> list[str]:
    """Statements that bring a float32 element into TF32; `small` takes the rest where it is split in two."""
    if treatment == "split":
        return [f"const Tf32 parts = split_tf32({element});", f"{large} = parts.large, {small} = parts.small;"]
    return [f"{large} = {'round_tf32' if treatment == 'round' else '__float_as_uint'}({element});"]


@dataclass(frozen=True)
class Fragments:
    """One operand's fragments: of 16 rows on the left, of 8 columns on the right; `extent` is that of a warp.

    They are those at depth `k`, one below the other; or, with `steps`, those of one place at so many depths.
    """

    tile: TileCopy
    extent: int
    treatment: Treatment
    steps: int = 0

    @property
    def side(self) -> str:
        """`left` or `right`, also the name of the registers."""
        return self.tile.staging.operand.side

    @property
    def count(self) -> int:
        """Fragments that are read together."""
        return self.steps or self.extent // (MMA_M if self.side == "left" else MMA_N)

    @property
    def outer(self) -> str:
        """Where fragment `i` begins along the outer dimension."""
        start = "row" if self.side == "left" else "col"
        return start if self.steps else f"{start} + i * {MMA_M if self.side == 'left' else MMA_N}"

    @property
    def deep(self) -> str:
        """Where fragment `i` begins along the depth."""
        return f"i * {self.tile.format.k}" if self.steps else "k"

    @property
    def small(self) -> str:
        """The registers of the smaller parts."""
        return f"{self.side}_small"

    @property
    def treatment_helpers(self) -> frozenset[str]:
        """Snippets that rounding and splitting need."""
        return frozenset({"round": {"round_tf32"}, "split": {"Tf32"}}.get(self.treatment, set()))

    @property
    def helpers(self) -> frozenset[str]:
        """Snippets that reading needs."""
        found = self.treatment_helpers
        if self.tile.staging.transposed:
            return found | {"load_matrices"}
        return found if self.tile.format.name == "tf32" else found | {"load_transposed"}

    def read(self) -> list[str]:
        """Statements that read all fragments at depth `k` of stage `slot`."""
        return [self.declared(), *self.filled()]

    @property
    def names(self) -> tuple[str, ...]:
        """The arrays of registers."""
        return (self.side, self.small) if self.treatment == "split" else (self.side,)

    @property
    def registers(self) -> int:
        """Registers of a fragment."""
        return 4 if self.side == "left" else 2

    def declared(self, prefix: str = "") -> str:
        """Declare the registers."""
        arrays = ", ".join(f"{prefix}{name}[{self.count}][{self.registers}]" for name in self.names)
        return f"unsigned {arrays};"

    def filled(self) -> list[str]:
        """Statements that read the fragments into their registers."""
        if not self.tile.staging.transposed and self.tile.format.name == "tf32":
            return self._by_word()
        return [*self._by_matrix(), *self._treated()]

    def reader(self) -> list[str]:
        """Define `read_left` or `read_right`, which reads the fragments of a stage into registers of that form."""
        arrays = ", ".join(f"unsigned (&{name})[{self.count}][{self.registers}]" for name in self.names)
        head = f"const auto read_{self.side} = [&](const int slot, {arrays}) {{"
        return [head, *indented(self.filled()), "};"]

    def _by_word(self) -> list[str]:
        """Rows of the tile run along the outer dimension: every register is a read of its own."""
        if self.side == "left":
            cell = f"[{self.deep} + member + e / 2 * 4][{self.outer} + e % 2 * 8 + quad]"
        else:
            cell = f"[{self.deep} + member + e * 4][{self.outer} + quad]"
        element = f"{self.tile.staging.tile}[slot]{cell}"
        body = treated(self.treatment, element, f"{self.side}[i][e]", f"{self.small}[i][e]")
        return self._each(body)

    def _treated(self) -> list[str]:
        """Split or round what `ldmatrix` has loaded."""
        if self.treatment == "as it is":
            return []
        element = f"{self.side}[i][e]"
        body = treated(self.treatment, f"__uint_as_float({element})", element, f"{self.small}[i][e]")
        return self._each(body)

    def _each(self, body: list[str]) -> list[str]:
        return unrolled("i", self.count, unrolled("e", self.registers, body))

    def _by_matrix(self) -> list[str]:
        """Four matrices of 8 x 16 bytes at a time: a fragment on the left, two on the right."""
        chunk = self.tile.format.chunk
        tile = f"{self.tile.staging.tile}[slot]"
        if self.side == "left":
            step, into = 1, "left[i]"
        else:
            step, into = 2, "reinterpret_cast<unsigned(&)[4]>(right[i])"
        # Left, matrices go down the rows first, then on along the depth; right, it is the other way round.
        first, second = "lane % 16", f"lane / 16 * {chunk}"
        if self.side == "right":
            first, second = "lane / 16 * 8 + lane % 8", f"lane / 8 % 2 * {chunk}"
        if self.tile.staging.transposed:
            load, cell = "load_matrices", f"[{self.outer} + {first}][{self.deep} + {second}]"
        else:
            outer = "lane / 8 % 2 * 8" if self.side == "left" else "lane / 16 * 8"
            deep = "lane / 16 * 8" if self.side == "left" else "lane / 8 % 2 * 8"
            load, cell = "load_transposed", f"[{self.deep} + {deep} + lane % 8][{self.outer} + {outer}]"
        return unrolled("i", self.count, [f"{load}({into}, &{tile}{cell});"], step)


def passes(left: Fragments, right: Fragments) -> list[tuple[str, str]]:
    """Which registers of the left are multiplied with which of the right, small parts first."""
    pairs = [("left", "right")]
    if right.treatment == "split":
        pairs.insert(0, ("left", right.small))
    if left.treatment == "split":
        pairs.insert(0, (left.small, "right"))
    return pairs


def multiplied(left: Fragments, right: Fragments, into: str) -> list[str]:
    """Statements that multiply all fragments."""
    text = []
    for a, b in passes(left, right):
        product = f"mma_{left.tile.format.name}({into}[i][j], {a}[i], {b}[j]);"
        text += unrolled("i", left.count, unrolled("j", right.count, [product]))
    return text
