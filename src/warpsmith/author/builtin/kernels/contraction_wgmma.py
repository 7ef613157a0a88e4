"""Contractions by the tensor cores of Hopper: four warps issue products of 64 rows that run while they go on.

Products in TF32; operands that can be read as they lie in memory are the matter of `contraction_wgmma_shared`. Here the
left operand comes from registers, as fragments. The right one must lie in shared memory with the depth innermost,
swizzled, and already rounded or split: the threads of the block bring the next tile into that form while tensor cores
work on this one.
"""

from __future__ import annotations

from dataclasses import replace

from warpsmith.author.builtin.kernels.contraction_fill import Share
from warpsmith.author.builtin.kernels.contraction_fragments import Fragments, passes, treated
from warpsmith.author.builtin.kernels.contraction_layout import Layout
from warpsmith.author.builtin.kernels.contraction_mma import Mma
from warpsmith.author.builtin.kernels.contraction_warps import (
    GROUP_DEPTH,
    LEAST_GROUP_STAGES,
    Warps,
    group_format,
)
from warpsmith.author.builtin.kernels.contraction_wgmma_shared import WgmmaShared
from warpsmith.author.builtin.kernels.emission import Genes, Kernels, Scope, indented, unrolled

# The next tile is brought into form while another is on its way.
_STAGES = (4, LEAST_GROUP_STAGES, 5)
# Tiles whose products follow each other without a pause.
_IN_A_ROW = 2
# The narrowest product of one instruction that there is a snippet for.
_LEAST_COLUMNS = 32


def emit_wgmma(layout: Layout, scope: Scope, genes: Genes, vec: int, share: Share | None) -> Kernels:
    """Write the kernel; where blocks share sums, another that adds up partial sums."""
    warps = Warps.of_groups(str(genes["groups"]))
    exact = genes.get("precision", "exact") == "exact"
    if group_format(layout).name != "tf32":
        return WgmmaShared(layout, scope, warps, exact, 8, share).emit()
    plain = WgmmaShared(layout, scope, warps, exact, 4, share)
    if plain.suits:
        return plain.emit()
    kernel = Wgmma(layout, scope, warps, exact, vec, share)
    if kernel.afresh and warps.n >= 2 * _LEAST_COLUMNS:
        kernel = WgmmaHalves(layout, scope, warps, exact, vec, share)
    return kernel.emit()


class Wgmma(Mma):
    """The kernel: each tile's products are awaited before the next tile's begin."""

    wanted_stages = _STAGES
    depth_bytes = (GROUP_DEPTH * 4,)
    buffers = 2  # for the right operand in the form that tensor cores read

    @property
    def parts(self) -> tuple[str, ...]:
        """Arrays with the right operand in the form that tensor cores read."""
        return ("right", self.right.small) if self.right.treatment == "split" else ("right",)

    def extra_bytes(self, warps: Warps) -> int:
        """Shared memory for the right operand in the form that tensor cores read."""
        return warps.formed_bytes

    def multiplying(self) -> set[str]:
        """Snippets."""
        return {"Vec", "wgmma", f"wgmma_tf32_{self.warps.n}", *self.left.helpers, *self.right.treatment_helpers}

    def shared(self) -> str:
        """Bytes of shared memory."""
        return f"{super().shared()} + {len(self.parts)} * {self.buffers} * {self.warps.n} * {GROUP_DEPTH} * 4"

    def tiles_declared(self) -> list[str]:
        """Lay out shared memory and the sums; what is swizzled stands first, where it is aligned to 1024 bytes."""
        n = self.warps.n
        place, text = "shared", ["extern __shared__ __align__(1024) char shared[];"]
        for part in self.parts:
            text.append(f"auto {part} = reinterpret_cast<unsigned (*)[{n}][{GROUP_DEPTH}]>({place});")
            place = f"{part} + {self.buffers}"
        return [*text, *self.stages_declared(place)]

    def loop(self) -> list[str]:
        """Walk along the depth: multiply a tile, meanwhile convert the next."""
        step, slots = self.tile_k, self.slots
        ahead, into = f"start + ({slots} - 1) * {step}", "sum" if self.afresh else "acc"
        fragments = self.fragments
        work = [
            *self.arrival(),
            *([f"float sum[1][{self.right.count}][4];"] if self.afresh else []),
            "wgmma_begin();",
            *self.products(f"{into}[0]", self.warps.n, "0"),
            "wgmma_commit();",
            f"const int next = (slot + {slots} - 1) % {slots};",
            f"fetch({ahead}, next);",
            fragments.declared("ahead_"),
            *self.made_ready(fragments, "buffer ^ 1"),
            f"wgmma_await({into}[0]);",
            *(self.added() if self.afresh else []),
            f"if (start + {step} < last) {{",
            *indented(self._moved(fragments)),
            "}",
            *([f"if ({ahead} < last) place(next);"] if self.computed else []),
        ]
        loop = (
            f"for ({self.scope.integer} start = first, slot = 0, buffer = 0; start < last; "
            f"start += {step}, slot = (slot + 1) % {slots}, buffer ^= 1) {{"
        )
        return [*self.prepared(fragments), loop, *indented(work), "}"]

    @property
    def fragments(self) -> Fragments:
        """The left operand of a tile: all of its depth."""
        return replace(self.left, steps=GROUP_DEPTH // self.format.k)

    def arrival(self) -> list[str]:
        """Wait until the tile after this one is in shared memory, and until all are done with the one before."""
        return [*([f"await_copies<{self.slots} - 3>();"] if self.copies else []), "__syncthreads();"]

    def prepared(self, fragments: Fragments) -> list[str]:
        """Define what brings tiles into form, and do so with the first."""
        return [
            *self.converter(),
            *fragments.reader(),
            *self.opening(),
            *([f"await_copies<{self.slots} - 2>();"] if self.copies else []),
            "__syncthreads();",
            fragments.declared(),
            "if (first < last) {",
            "    convert(0, 0);",
            f"    read_left(0, {', '.join(fragments.names)});",
            "}",
        ]

    def products(self, into: str, columns: int, first: str) -> list[str]:
        """Begin the products of a tile's `columns` from `first` on.

        All small parts come before the large ones: what these add up to would cut off more of them.
        """
        text = []
        for number, (a, b) in enumerate(passes(self.left, self.right)):
            keep = "k > 0" if self.afresh and number == 0 else "true"
            product = f"wgmma_tf32({into}, {a}[k / 8], describe_rows(&{b}[buffer][{first}][k]), {keep});"
            text += unrolled("k", self.tile_k, [product], 8)
        return text

    def _moved(self, fragments: Fragments) -> list[str]:
        """Let the fragments of the next tile be those of this one."""
        text = [f"{name}[i][e] = ahead_{name}[i][e];" for name in fragments.names]
        return unrolled("i", fragments.count, unrolled("e", fragments.registers, text))

    def made_ready(self, fragments: Fragments, buffer: str) -> list[str]:
        """Bring the next tile into form while tensor cores are at work."""
        step, place = self.tile_k, f"(slot + 1) % {self.slots}"
        return [
            f"if (start + {step} < last) {{",
            f"    convert({place}, {buffer});",
            f"    read_left({place}, {', '.join(f'ahead_{name}' for name in fragments.names)});",
            "}",
        ]

    def converter(self) -> list[str]:
        """A function that rounds or splits a tile of the right operand and swizzles its rows."""
        n, right = self.warps.n, self.right
        cell = "[column][chunk * 4 + e]" if right.tile.staging.transposed else "[chunk * 4 + e][column]"
        element = f"{right.tile.staging.tile}[slot]{cell}"
        value = treated(right.treatment, element, "large.at[e]", "small.at[e]")
        both = right.treatment == "split"
        body = [
            "const int i = item * THREADS + threadIdx.x;",
            f"const int column = i % {n}, chunk = i / {n};",
            f"Vec<unsigned, 4> large{', small' if both else ''};",
            *unrolled("e", 4, value),
            "const int place = (chunk ^ column % 8) * 4;  // chunks of a row change places with the row's number",
            "*reinterpret_cast<Vec<unsigned, 4>*>(&right[buffer][column][place]) = large;",
        ]
        if both:
            body.append("*reinterpret_cast<Vec<unsigned, 4>*>(&right_small[buffer][column][place]) = small;")
        pieces = n * GROUP_DEPTH // 4
        guarded = body
        if pieces % self.warps.threads:
            guarded = [body[0], f"if (i < {pieces}) {{", *indented(body[1:]), "}"]
        text = unrolled("item", f"({pieces} + THREADS - 1) / THREADS", guarded)
        return [
            "const auto convert = [&](const int slot, const int buffer) {",
            *indented([*text, "wgmma_publish();"]),
            "};",
        ]


class WgmmaHalves(Wgmma):
    """The kernel where each tile is summed afresh: products of half of the columns run while the rest is added up.

    Tensor cores go from one tile on to the next without a pause, for some tiles in a row: ptxas lets products run on
    only where it sees, without a branch between, which of them are awaited. A tile is read until a step after its
    products began, so there are three buffers.
    """

    buffers = 3

    def multiplying(self) -> set[str]:
        """Snippets."""
        return {*super().multiplying() - {f"wgmma_tf32_{self.warps.n}"}, f"wgmma_tf32_{self.warps.n // 2}"}

    def loop(self) -> list[str]:
        """Walk along the depth, some tiles at a time: one's registers are read while the next one's are filled."""
        integer, step, slots = self.scope.integer, self.tile_k, self.slots
        ahead, fragments = f"start + ({slots} - 1) * {step}", self.fragments
        now = list(fragments.names)
        later = [f"ahead_{name}" for name in now]
        shape = f"[{fragments.count}][{fragments.registers}]"
        given = ", ".join(f"unsigned (&{name}){shape}" for name in (*now, *later))
        work = [
            *self.arrival(),
            *self._begun(0),
            "if (follows) {",
            *indented(self._ended(1, pending=1)),
            "}",
            *self._begun(1),
            f"const int next = (slot + {slots} - 1) % {slots};",
            f"fetch({ahead}, next);",
            *self.made_ready(fragments, f"(buffer + 1) % {self.buffers}"),
            *self._ended(0, pending=1),
            *([f"if ({ahead} < last) place(next);"] if self.computed else []),
        ]
        row = []
        for number in range(_IN_A_ROW):
            order = ", ".join((*now, *later) if number % 2 == 0 else (*later, *now))
            more = f"start + {number} * {step}, (slot + {number}) % {slots}, (buffer + {number}) % {self.buffers}"
            row.append(f"multiply({'true' if number else 'false'}, {more}, {order});")
        alone = f"multiply(false, start, slot, buffer, {', '.join((*now, *later))});"
        return [
            *self.prepared(fragments),
            fragments.declared("ahead_"),
            f"float sum[2][{self.right.count // 2}][4];  // of either half of the columns",
            "// With `follows`, the products of the tile before are not awaited yet.",
            "const auto multiply = [&](const bool follows, "
            f"const {integer} start, const int slot, const int buffer, {given}) {{",
            *indented(work),
            "};",
            f"{integer} start = first;",
            "int slot = 0, buffer = 0;",
            f"for (; start + {_IN_A_ROW - 1} * {step} < last; start += {_IN_A_ROW} * {step}) {{",
            *indented([*row, *self._ended(1), *self._advanced(_IN_A_ROW)]),
            "}",
            f"for (; start < last; start += {step}) {{",
            *indented([alone, *self._ended(1), *self._moved(fragments), *self._advanced(1)]),
            "}",
        ]

    def _begun(self, half: int) -> list[str]:
        """Begin the products of half of the columns."""
        columns = self.warps.n // 2
        return ["wgmma_begin();", *self.products(f"sum[{half}]", columns, str(half * columns)), "wgmma_commit();"]

    def _ended(self, half: int, pending: int = 0) -> list[str]:
        """Await the products of half of the columns, and add them to the rest."""
        count = self.right.count // 2
        place = f"{count} + j" if half else "j"
        adding = unrolled("j", count, unrolled("e", 4, [f"acc[0][{place}][e] += sum[{half}][j][e];"]))
        return [f"wgmma_await{f'<{pending}>' if pending else ''}(sum[{half}]);", *adding]

    def _advanced(self, tiles: int) -> list[str]:
        return [f"slot = (slot + {tiles}) % {self.slots};", f"buffer = (buffer + {tiles}) % {self.buffers};"]
