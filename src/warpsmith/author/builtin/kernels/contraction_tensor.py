"""What all kernels on tensor cores have in common: the place of a block, and sums that lie in fragments.

A lane holds its sums as `acc[i][j][e]`: fragment `i` of 16 rows, `j` of 8 columns, and its four elements of that one.
"""

from __future__ import annotations

from collections.abc import Sequence

from warpsmith.author.builtin.index import Axis, lift
from warpsmith.author.builtin.kernels.contraction_fill import Share, tiles_of
from warpsmith.author.builtin.kernels.contraction_layout import Layout
from warpsmith.author.builtin.kernels.contraction_split import Partials
from warpsmith.author.builtin.kernels.contraction_warps import MMA_M, MMA_N, Warps
from warpsmith.author.builtin.kernels.emission import (
    Kernels,
    Lanes,
    Scope,
    Store,
    function,
    indented,
    loads,
    parameters,
    unrolled,
)
from warpsmith.author.builtin.scalar import Local, Scalar
from warpsmith.records import Launch

# Rows of tiles that blocks go through together, so that they find each other's operands in L2.
_GROUPS = (8, 1, 4, 16)


class TensorKernel:
    """The kernel but for the way of its operands into tensor cores.

    `tile_k` is the depth of a tile, a number or the macro of a tunable; `operands` are what products are made of.
    """

    tile_k: str
    operands: Sequence[Scalar]

    def __init__(self, layout: Layout, scope: Scope, warps: Warps, share: Share | None) -> None:
        self.layout, self.scope, self.warps = layout, scope, warps
        self.partials = Partials(layout, scope, share, tiles_of(layout, warps), warps.threads) if share else None
        self.rows, self.columns = warps.warp_m // MMA_M, warps.warp_n // MMA_N
        self.down, self.across = -(-layout.m // warps.m), -(-layout.n // warps.n)

    # What a kernel must say.

    def summed(self) -> list[str]:
        """Statements that make all sums of the block's share of the depth in `acc`."""
        raise AssertionError(f"{type(self).__name__} has no sums")

    def finished(self) -> list[str]:
        """What is to be done with the sums before they are used."""
        return []

    def tunables(self) -> list[tuple[str, tuple[int, ...]]]:
        """Tunables of its own."""
        return []

    def helpers(self) -> set[str]:
        """Snippets that it uses."""
        return set()

    def shared(self) -> str:
        """Bytes of shared memory."""
        raise AssertionError(f"{type(self).__name__} has no tiles")

    def how(self) -> str:
        """What tensor cores multiply, for the comment."""
        raise AssertionError(f"{type(self).__name__} has no products")

    # The frame.

    def emit(self) -> Kernels:
        """Put the parts together."""
        layout, scope, warps = self.layout, self.scope, self.warps
        epilogue, stores = self.epilogue()
        body = [*self.constants(), *self.summed(), *self.finished(), *epilogue]
        reads = loads([*self.operands, *(s.value for s in stores)])
        names, params = parameters(reads, [(s.tensor, s.dtype) for s in stores])
        source = function(scope, scope.kernel, params, str(warps.threads), body, self.comment())
        blocks = str(layout.batches * self.down * self.across)
        grid = (blocks, self.partials.splits) if self.partials else (blocks,)
        launch = Launch(scope.kernel, grid, (str(warps.threads),), names, shared=self.shared())
        tunables = self.tunables()
        if self.down > 1 and self.across > 1:
            tunables.append((self.scope.tunable("GROUP"), _GROUPS))
        kernels = Kernels(source, (launch,), tuple(tunables), helpers=frozenset(self.helpers()))
        return self.partials.completed(kernels) if self.partials else kernels

    def comment(self) -> str:
        """What the kernel is about."""
        text = (
            f"{self.layout.comment()} On tensor cores: {self.how()}.\nA block makes a tile of "
            f"{self.warps.m} x {self.warps.n}, a warp {self.warps.warp_m} x {self.warps.warp_n} of it."
        )
        return text + (f"\nEach of {self.partials.splits} blocks sums a share of the depth." if self.partials else "")

    def constants(self) -> list[str]:
        """Extents, and the places of the block, the warp and the lane."""
        layout, warps, integer = self.layout, self.warps, self.scope.integer
        extents = [f"M = {layout.m}"] * (layout.m % warps.m > 0) + [f"N = {layout.n}"] * (layout.n % warps.n > 0)
        text = [
            f"constexpr {integer} {', '.join([*extents, f'DEPTH = {layout.depth}'])};",
            f"constexpr int THREADS = {warps.threads};",
            "const int lane = threadIdx.x % 32, quad = lane / 4, member = lane % 4;  // place in a fragment",
            *self._place_of_block(),
        ]
        row = f"threadIdx.x / 32 / {warps.across}" if warps.across > 1 else "threadIdx.x / 32"
        col = f"threadIdx.x / 32 % {warps.across} * {warps.warp_n}" if warps.across > 1 else "0"
        rows = f"{row} * {warps.warp_m}" if warps.m > warps.warp_m else "0"
        return [*text, f"const int row = {rows}, col = {col};  // of the warp in the tile"]

    def _place_of_block(self) -> list[str]:
        """Where in the matrix a block works."""
        layout, integer, down, across = self.layout, self.scope.integer, self.down, self.across
        text = []
        block = "blockIdx.x"
        if layout.batches > 1:
            text.append(f"const {integer} batch = blockIdx.x / {down * across};")
            block = f"blockIdx.x % {down * across}" if down * across > 1 else "0"
        if down == 1 or across == 1:
            places = (("row", down, self.warps.m), ("col", across, self.warps.n))
            return [
                *text,
                *(
                    f"const {integer} first_{line} = {integer}({block}) * {extent};"
                    if count > 1
                    else f"constexpr int first_{line} = 0;"
                    for line, count, extent in places
                ),
            ]
        group = self.scope.tunable("GROUP")
        return [
            *text,
            f"// Blocks go through {group} rows of tiles column by column.",
            f"const int tile = {block}, band = tile / ({group} * {across}) * {group};",
            f"const int height = min({group}, {down} - band), within = tile % ({group} * {across});",
            f"const {integer} first_row = {integer}(band + within % height) * {self.warps.m};",
            f"const {integer} first_col = {integer}(within / height) * {self.warps.n};",
        ]

    def share(self) -> list[str]:
        """Define `first` and `last`, the block's share of the depth."""
        integer, step = self.scope.integer, self.tile_k
        if not self.partials:
            return [f"constexpr {integer} first = 0, last = DEPTH;"]
        share = f"(DEPTH + {step} * {self.partials.splits} - 1) / ({step} * {self.partials.splits}) * {step}"
        return [
            f"constexpr {integer} SHARE = {share};  // of the depth, in whole tiles",
            f"const {integer} split = blockIdx.y, first = split * SHARE, last = min(DEPTH, first + SHARE);",
        ]

    def epilogue(self) -> tuple[list[str], list[Store]]:
        """Write each lane's sums: pairs of columns in two rows of every fragment."""
        layout, integer = self.layout, self.scope.integer
        vec = layout.widest(2)
        lanes, row = Lanes(Axis("column", layout.n // vec), vec), Axis("m", layout.m)
        held = Local(f"acc[i][j][e * 2 + {'k' if vec > 1 else 'h'}]", "float32", frozenset({lanes.group, lanes.k, row}))
        make = self.partials.stores if self.partials else layout.stores
        stores = make(lift(row), lanes.linear, held)
        body = lanes.body(self.scope.printer(), stores)
        guards = ["m < M"] * (layout.m % self.warps.m > 0)
        guards += [f"column < N{' / 2' if vec > 1 else ''}"] * (layout.n % self.warps.n > 0)
        guarded = [f"if ({' && '.join(guards)}) {{", *indented(body), "}"] if guards else body
        if vec > 1:
            inner = [f"const {integer} column = (first_col + col) / 2 + j * {MMA_N // 2} + member;", *guarded]
        else:
            place = f"const {integer} column = first_col + col + j * {MMA_N} + member * 2 + h;"
            inner = unrolled("h", 2, [place, *guarded])
        place = f"const {integer} m = first_row + row + i * {MMA_M} + e * 8 + quad;"
        halves = unrolled("e", 2, [place, *unrolled("j", self.columns, inner)])
        return unrolled("i", self.rows, halves), stores

    def summed_again(self, strange: str, why: str) -> list[str]:
        """Sum anew, one product after the other, where `strange` is true of `acc[i][j][e]`."""
        layout, integer, columns = self.layout, self.scope.integer, self.columns
        m, n, depth = (lift(Axis(*axis)) for axis in (("m", layout.m), ("n", layout.n), ("depth", layout.depth)))
        values = [layout.left.element(layout.batch, m, depth), layout.right.element(layout.batch, n, depth)]
        printer = self.scope.printer()
        terms = [*printer.share(values), f"total += {' * '.join(f'({printer.value(v)})' for v in values)};"]
        inside = ["m < M"] * (layout.m % self.warps.m > 0) + ["n < N"] * (layout.n % self.warps.n > 0)
        this = f"place == (i * {columns} + j) * 4 + e"

        def every(statement: str) -> list[str]:
            return unrolled("i", self.rows, unrolled("j", columns, unrolled("e", 4, [statement])))

        body = [
            f"const {integer} m = first_row + row + place / {4 * columns} * {MMA_M} + place / 2 % 2 * 8 + quad;",
            f"const {integer} n = first_col + col + place / 4 % {columns} * {MMA_N} + member * 2 + place % 2;",
            "bool due = false;",
            *every(f"due |= {this} && {strange};"),
            f"if ({' && '.join(['due', *inside])}) {{",
            "    float total = 0;",
            f"    for ({integer} depth = first; depth < last; ++depth) {{",
            *indented(terms, 2),
            "    }",
            *indented(every(f"if ({this}) acc[i][j][e] = total;")),
            "}",
        ]
        return [
            f"// {why}",
            "bool strange = false;",
            *every(f"strange |= {strange};"),
            f"for (int place = 0; strange && place < {self.rows * columns * 4}; ++place) {{",
            *indented(body),
            "}",
        ]
