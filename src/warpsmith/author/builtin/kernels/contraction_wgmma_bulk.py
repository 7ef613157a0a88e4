"""Products of 16-bit parts whose tiles the bulk copy engine brings: one thread asks for a whole tile at a time.

Barriers in shared memory tell the warps when a tile is there, and the thread that asks when all warps are done with
one. So nobody waits for the whole block, and while one group of warps adds up its sums the other one multiplies.
"""

from __future__ import annotations

from warpsmith.author.builtin.kernels.contraction_parts import DEEP
from warpsmith.author.builtin.kernels.contraction_wgmma_parts import IN_A_ROW, WgmmaParts
from warpsmith.author.builtin.kernels.emission import indented, unrolled

_BARRIERS = 2 * 8
"""Bytes of the barriers of a stage."""


class WgmmaBulk(WgmmaParts):
    """The kernel. Barriers of a stage: `arrived` for a tile's bytes, `read` for the warps that are done with them."""

    extra_bytes = _BARRIERS

    def helpers(self) -> set[str]:
        """Snippets."""
        return super().helpers() - {"copy_async"} | {"copy_bulk", "wgmma_shared"}

    def shared(self) -> str:
        """Bytes of shared memory."""
        return f"{super().shared()} + {self.slots} * {_BARRIERS}"

    def fetch(self) -> list[str]:
        """Define what brings a tile of both operands, and what follows when one was multiplied."""
        integer, slots = self.scope.integer, self.slots
        copies = []
        for side in self.sides:
            name = side.operand.side
            source = f"{name} + ptrdiff_t(start / {DEEP}) * {side.panel}"
            copies.append(f"copy_bulk(tile_{name}[slot], {source}, {side.panel} * 2, &arrived[slot]);")
        total = " + ".join(str(side.panel * 2) for side in self.sides)
        released = [
            f"const int before = (slot + {slots} - 1) % {slots};",
            "if (lane == 0) barrier_arrive(&read[before]);",
            "if (threadIdx.x == 0 && start < stop) {",
            "    barrier_await(&read[before], slot == 0 ? turn ^ 1 : turn);",
            "    fetch(start, before);",
            "}",
        ]
        return [
            f"auto arrived = reinterpret_cast<unsigned long long*>(tile_right + {slots}), read = arrived + {slots};",
            "if (threadIdx.x == 0) {",
            f"    for (int slot = 0; slot < {slots}; ++slot) {{",
            "        barrier_init(&arrived[slot], 1);",
            "        barrier_init(&read[slot], THREADS / 32);",
            "    }",
            "    barrier_publish();",
            "}",
            "__syncthreads();",
            *self.stop(),
            f"const auto fetch = [&](const {integer} start, const int slot) {{",
            f"    barrier_expect(&arrived[slot], {total});",
            *indented(copies),
            "};",
            "int slot = 0, turn = 0;  // of the tile at hand, and how often its stage was filled before: even or odd",
            "// The tile before this one was multiplied: its stage is free for the one at `start`.",
            f"const auto released = [&](const {integer} start) {{",
            *indented(released),
            "};",
        ]

    def loop(self) -> list[str]:
        """Walk along the depth, some tiles at a time."""
        integer, slots = self.scope.integer, self.slots
        tile = [
            "barrier_await(&arrived[slot], turn);",
            "wgmma_begin();",
            *self.products(),
            "wgmma_commit();",
            "if (tile > 0) {",
            "    wgmma_await_last_but_one();",
            f"    released(start + (tile - 1 + {slots}) * {DEEP});",
            "}",
            f"if (++slot == {slots}) slot = 0, turn ^= 1;",
        ]
        first = f"first + slot * {DEEP}"
        return [
            f"if (threadIdx.x == 0) for (int slot = 0; slot < {slots} && {first} < stop; ++slot) fetch({first}, slot);",
            f"for ({integer} start = first; start < last; start += {self.tile_k}) {{",
            *indented(unrolled("tile", IN_A_ROW, tile)),
            "    wgmma_await(sum);",
            f"    released(start + ({IN_A_ROW} - 1 + {slots}) * {DEEP});",
            *indented(self.added()),
            "}",
            "wgmma_await(cross);",
        ]
