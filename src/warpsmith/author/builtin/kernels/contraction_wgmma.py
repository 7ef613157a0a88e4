"""Contractions by the tensor cores of Hopper: four warps issue products of 64 rows that run while they go on.

Products in TF32; those of 16-bit operands are in `contraction_wgmma16`. The left operand comes from registers, as
fragments. The right one must lie in shared memory with the depth innermost, swizzled, and already rounded or split: the
threads of the block bring the next tile into that form while tensor cores work on this one.
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
from warpsmith.author.builtin.kernels.contraction_wgmma16 import Wgmma16
from warpsmith.author.builtin.kernels.emission import Genes, Kernels, Scope, indented, unrolled

# The next tile is brought into form while another is on its way.
_STAGES = (4, LEAST_GROUP_STAGES, 5)


def emit_wgmma(layout: Layout, scope: Scope, genes: Genes, vec: int, share: Share | None) -> Kernels:
    """Write the kernel; where blocks share sums, another that adds up partial sums."""
    warps = Warps.of_groups(str(genes["groups"]))
    if group_format(layout).name != "tf32":
        return Wgmma16(layout, scope, warps, share).emit()
    exact = genes.get("precision", "exact") == "exact"
    return _Wgmma(layout, scope, warps, exact, vec, share).emit()


class _Wgmma(Mma):
    wanted_stages = _STAGES
    depth_bytes = (GROUP_DEPTH * 4,)

    @property
    def parts(self) -> tuple[str, ...]:
        """Arrays with the right operand in the form that tensor cores read."""
        return ("right", self.right.small) if self.right.treatment == "split" else ("right",)

    def extra_bytes(self, warps: Warps) -> int:
        """Shared memory for the right operand in the form that tensor cores read."""
        return warps.formed_bytes

    def helpers(self) -> set[str]:
        """Snippets."""
        return {"Vec", "wgmma", f"wgmma_tf32_{self.warps.n}", *self.left.helpers, *self.right.treatment_helpers}

    def shared(self) -> str:
        """Bytes of shared memory."""
        return f"{super().shared()} + {len(self.parts)} * 2 * {self.warps.n} * {GROUP_DEPTH} * 4"

    def tiles_declared(self) -> list[str]:
        """Lay out shared memory and the sums; what is swizzled stands first, where it is aligned to 1024 bytes."""
        n = self.warps.n
        place, text = "shared", ["extern __shared__ __align__(1024) char shared[];"]
        for part in self.parts:
            text.append(f"auto {part} = reinterpret_cast<unsigned (*)[{n}][{GROUP_DEPTH}]>({place});")
            place = f"{part} + 2"
        return [*text, *self.stages_declared(place)]

    def loop(self) -> list[str]:
        """Walk along the depth: multiply a tile, meanwhile convert the next."""
        integer, step, slots = self.scope.integer, self.tile_k, self.slots
        ahead, into = f"start + ({slots} - 1) * {step}", "sum" if self.afresh else "acc"
        fragments = replace(self.left, steps=GROUP_DEPTH // self.format.k)
        # All small parts come first: what the large ones add up to would cut off more of them.
        products = [
            line
            for number, (a, b) in enumerate(passes(self.left, self.right))
            for line in unrolled("k", step, [self._product(into, a, b, number)], 8)
        ]
        work = [
            *([f"await_copies<{slots} - 3>();"] if self.copies else []),
            "__syncthreads();",
            *([f"float sum[1][{self.right.count}][4];"] if self.afresh else []),
            "wgmma_begin();",
            *products,
            "wgmma_commit();",
            f"const int next = (slot + {slots} - 1) % {slots};",
            f"fetch({ahead}, next);",
            fragments.declared("next_"),
            f"if (start + {step} < last) {{",
            f"    convert((slot + 1) % {slots}, buffer ^ 1);",
            f"    read_left((slot + 1) % {slots}, {', '.join(f'next_{name}' for name in fragments.names)});",
            "}",
            f"wgmma_await({into}[0]);",
            *(self.added() if self.afresh else []),
            f"if (start + {step} < last) {{",
            *indented(self._moved(fragments)),
            "}",
            *([f"if ({ahead} < last) place(next);"] if self.computed else []),
        ]
        loop = (
            f"for ({integer} start = first, slot = 0, buffer = 0; start < last; "
            f"start += {step}, slot = (slot + 1) % {slots}, buffer ^= 1) {{"
        )
        ready = [f"await_copies<{slots} - 2>();"] if self.copies else []
        ready += [
            "__syncthreads();",
            fragments.declared(),
            "if (first < last) {",
            "    convert(0, 0);",
            f"    read_left(0, {', '.join(fragments.names)});",
            "}",
        ]
        return [*self.converter(), *fragments.reader(), *self.opening(), *ready, loop, *indented(work), "}"]

    def _moved(self, fragments: Fragments) -> list[str]:
        """Let the fragments of the next tile be those of this one."""
        text = [f"{name}[i][e] = next_{name}[i][e];" for name in fragments.names]
        return unrolled("i", fragments.count, unrolled("e", fragments.registers, text))

    def _product(self, into: str, a: str, b: str, number: int) -> str:
        keep = "k > 0" if self.afresh and number == 0 else "true"
        return f"wgmma_tf32({into}[0], {a}[k / 8], describe_rows(&{b}[buffer][0][k]), {keep});"

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
