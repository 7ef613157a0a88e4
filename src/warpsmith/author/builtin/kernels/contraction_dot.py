"""Contractions as dot products: a warp or a block runs along the depth of each output and merges its lanes' sums.

Right for a matrix times a vector and for few outputs with long sums.
"""

from __future__ import annotations

from warpsmith.author.builtin.index import Axis, lift
from warpsmith.author.builtin.kernels.contraction_fill import Share
from warpsmith.author.builtin.kernels.contraction_layout import Layout
from warpsmith.author.builtin.kernels.contraction_split import Partials
from warpsmith.author.builtin.kernels.emission import (
    Add,
    Kernels,
    Lanes,
    Scope,
    Store,
    function,
    indented,
    loads,
    parameters,
)
from warpsmith.author.builtin.scalar import Local, Scalar, apply
from warpsmith.records import Launch

# Threads of a block that makes outputs as a whole.
_BLOCKS = (256, 128, 512, 64, 1024)


def emit_dot(layout: Layout, scope: Scope, team: str, several: int, vec: int, share: Share | None) -> Kernels:
    """Write a kernel in which a `team` ("warp" or "block") makes `several` neighbouring outputs.

    Where teams share sums, another adds up partial sums.
    """
    return _Dot(layout, scope, team, several, vec, share).emit()


class _Dot:
    def __init__(self, layout: Layout, scope: Scope, team: str, several: int, vec: int, share: Share | None) -> None:
        self.layout, self.scope, self.several = layout, scope, several
        self.by_warp = team == "warp"
        self.lanes = Lanes(Axis("step", layout.depth // vec), vec)
        # Neighbours that share a team lie along m if there is more than one row, else along n.
        self.along_m = layout.m > 1
        self.extent = layout.m if self.along_m else layout.n
        self.threads = "32" if self.by_warp else scope.tunable("BLOCK")
        self.unroll = scope.tunable("UNROLL")
        usual = 32 if self.by_warp else _BLOCKS[0]
        self.partials = Partials(layout, scope, share, self._count, usual) if share else None

    def emit(self) -> Kernels:
        """Put the parts together."""
        layout, scope = self.layout, self.scope
        own, shared = (layout.left, layout.right) if self.along_m else (layout.right, layout.left)
        factors = [side.value(layout.batch, "depth", self.lanes) for side in (shared, own)]
        epilogue, stores = self._epilogue()
        body = [*self._setup(), *self._loop(*factors), *self._merge(), *epilogue]
        names, params = parameters(loads([*factors, *(s.value for s in stores)]), [(s.tensor, s.dtype) for s in stores])
        block = f"32 * {self._teams}" if self.by_warp else self.threads
        grid = f"ceil_div({self._count}, {self._teams})" if self.by_warp else str(self._count)
        comment = f"{layout.comment()}\nA {'warp' if self.by_warp else 'block'} makes {self.several} of them."
        if self.partials:
            comment += f"\nEach of {self.partials.splits} teams sums a share of the depth."
        launch = Launch(scope.kernel, (grid, self.partials.splits) if self.partials else (grid,), (block,), names)
        size = (self._teams, (4, 8, 2, 1, 16)) if self.by_warp else (self.threads, _BLOCKS)
        kernels = Kernels(
            function(scope, scope.kernel, params, block, body, comment),
            (launch,),
            (size, (self.unroll, (4, 1, 2, 8))),
            helpers=frozenset({"Vec", "Sum", "warp_reduce" if self.by_warp else "block_reduce"}),
        )
        return self.partials.completed(kernels) if self.partials else kernels

    @property
    def _teams(self) -> str:
        return self.scope.tunable("WARPS")

    @property
    def _count(self) -> int:
        """Number of teams that there is work for."""
        across = self.layout.n if self.along_m else self.layout.m
        return -(-self.extent // self.several) * across * self.layout.batches

    def _setup(self) -> list[str]:
        layout, integer = self.layout, self.scope.integer
        if self.by_warp:
            text = [
                f"const {integer} task = {integer}(blockIdx.x) * {self._teams} + threadIdx.x / 32;",
                "const int lane = threadIdx.x % 32;",
                f"if (task >= {self._count}) return;  // whole warps leave together",
            ]
        else:
            text = [f"const {integer} task = blockIdx.x;", "const int lane = threadIdx.x;"]
        groups = -(-self.extent // self.several)
        scale = f" * {self.several}" if self.several > 1 else ""
        if self.along_m:
            # Neighbouring teams take neighbouring outputs.
            text.append(f"const {integer} n = task % {layout.n}, first = task / {layout.n} % {groups}{scale};")
            inner = layout.n * groups
        else:
            text.append(f"const {integer} first = task % {groups}{scale};")
            inner = groups
        if layout.batches > 1:
            text.append(f"const {integer} batch = task / {inner};")
        return [*text, f"Sum<{layout.ctype}> acc[{self.several}] = {{}};"]

    def _loop(self, shared: Scalar, own: Scalar) -> list[str]:
        """Walk along the depth; the operand that all outputs of a team share is read once."""
        integer, groups = self.scope.integer, self.lanes.group.extent
        printer = self.scope.printer()
        text, inner = self.lanes.vectors(printer, loads([shared])) if self.lanes.vec > 1 else ([], printer.fork())
        if self.lanes.vec == 1 and self.several > 1:
            text = inner.share([shared])
        patch = self._place() + self.lanes.body(inner.fork(), [Add("acc[i]", apply("mul", shared, own))])
        text += self._each(patch)
        start, step, last, opening = "lane", self.threads, str(groups), []
        if self.partials:
            opening = [
                f"constexpr {integer} SHARE = ({groups} + {self.partials.splits} - 1) / {self.partials.splits};",
                f"const {integer} split = blockIdx.y, last = min({integer}({groups}), (split + 1) * SHARE);",
            ]
            start, last = "split * SHARE + lane", "last"
        head = f"for ({integer} step = {start}; step < {last}; step += {step}) {{"
        return [*opening, f"#pragma unroll {self.unroll}", head, *indented(text), "}"]

    def _merge(self) -> list[str]:
        reduce = "warp_reduce" if self.by_warp else f"block_reduce<{self.threads} / 32>"
        return ["#pragma unroll", f"for (int i = 0; i < {self.several}; ++i) acc[i] = {reduce}(acc[i]);"]

    def _place(self) -> list[str]:
        """The output that a team sums; past the end it repeats the last, which is not written twice."""
        axis, integer = "m" if self.along_m else "n", self.scope.integer
        if self.extent % self.several == 0:
            return [f"const {integer} {axis} = first + i;"]
        return [f"const {integer} {axis} = min(first + i, {integer}({self.extent - 1}));"]

    def _each(self, body: list[str]) -> list[str]:
        return ["#pragma unroll", f"for (int i = 0; i < {self.several}; ++i) {{", *indented(body), "}"]

    def _epilogue(self) -> tuple[list[str], list[Store]]:
        layout = self.layout
        m, n = Axis("m", layout.m), Axis("n", layout.n)
        held = Local("acc[i].value", layout.dtype, frozenset({m, n}))
        make = self.partials.stores if self.partials else layout.stores
        stores = make(lift(m), lift(n), held)
        printer = self.scope.printer()
        body = printer.share([s.value for s in stores]) + [s.hand_over(printer) for s in stores]
        axis = "m" if self.along_m else "n"
        lines = [f"const {self.scope.integer} {axis} = first + i;"]
        lines += [f"if ({axis} < {self.extent}) {{", *indented(body), "}"] if self.extent % self.several else body
        return ["if (lane == 0) {", *indented(self._each(lines)), "}"], stores
