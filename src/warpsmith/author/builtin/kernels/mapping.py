"""How threads share the rows of a reduction: one thread, one warp or one block to a row, or a tile of columns."""

from __future__ import annotations

from dataclasses import dataclass

from warpsmith.author.builtin.kernels.emission import Scope
from warpsmith.author.builtin.kernels.passes import Step

# Rows from which on every GPU is full though a thread takes four; those that overlap then share what is in the cache.
_MANY = 1 << 21


@dataclass(frozen=True)
class Mapping:
    """`threads` work on each row; `lane` is a thread's number among them.

    `setup`, which may use ROWS, defines `row` and, where there is more than one thread, `lane`. `reduce` names the
    function that merges accumulators over a row. `inside` is the condition under which results may be written. Where
    `looped`, the second line of the setup opens a loop around all that follows. `cluster` says how many blocks share a
    row, if they do.
    """

    setup: tuple[str, ...]
    threads: str
    reduce: str
    snippet: str
    bounds: str
    grid: tuple[str, ...]
    block: tuple[str, ...]
    tunables: tuple[tuple[str, tuple[int, ...]], ...]
    inside: str = ""
    looped: bool = False
    cluster: str = ""

    def merge(self, step: Step) -> list[str]:
        """Return the statement that merges an accumulator over the threads of its row."""
        return [f"{step.variable} = {self.reduce}({step.variable});"] if self.reduce else []


def thread_per_row(rows: int, scope: Scope, adjacent: bool) -> Mapping:
    """Each thread reduces a row by itself, then another: short rows, or rows that lie side by side.

    A thread's rows are neighbours if `adjacent`, so that windows that overlap share what is in the cache; else the
    threads of a warp have neighbouring rows, so that their reads coalesce.
    """
    block, turns = scope.tunable("BLOCK"), scope.tunable("ROWS_PER_THREAD")
    place = f"({scope.integer}(blockIdx.x) * {turns} + turn) * {block} + threadIdx.x"
    if adjacent:
        place = f"({scope.integer}(blockIdx.x) * {block} + threadIdx.x) * {turns} + turn"
    setup = (
        "#pragma unroll",
        f"for (int turn = 0; turn < {turns}; ++turn) {{",
        f"const {scope.integer} row = {place};",
        "if (row >= ROWS) return;",
    )
    tunables = ((block, (128, 64, 256, 512)), (turns, (4, 2, 1) if rows >= _MANY else (1, 2, 4)))
    grid = f"ceil_div({rows}, {block} * {turns})"
    return Mapping(setup, "1", "", "", block, (grid,), (block,), tunables, looped=True)


def warp_per_row(rows: int, scope: Scope) -> Mapping:
    """Each warp reduces a row with shuffles alone."""
    warps = scope.tunable("ROWS_PER_BLOCK")
    setup = [
        f"const {scope.integer} row = {scope.integer}(blockIdx.x) * {warps} + threadIdx.x / 32;",
        "const int lane = threadIdx.x % 32;",
        "if (row >= ROWS) return;  // whole warps leave together",
    ]
    return Mapping(
        tuple(setup), "32", "warp_reduce", "warp_reduce", f"32 * {warps}", (f"ceil_div({rows}, {warps})",),
        (f"32 * {warps}",), ((warps, (4, 8, 2, 1, 16)),),
    )  # fmt: skip


def block_per_row(rows: int, scope: Scope, sizes: tuple[int, ...]) -> Mapping:
    """Each block reduces a row, warps meeting in shared memory."""
    block = scope.tunable("BLOCK")
    setup = (f"const {scope.integer} row = blockIdx.x;", "const int lane = threadIdx.x;")
    return Mapping(
        setup, block, f"block_reduce<{block} / 32>", "block_reduce", block, (str(rows),), (block,), ((block, sizes),)
    )


def columns(rows: int, scope: Scope) -> Mapping:
    """A block takes 32 neighbouring rows, so that reads coalesce, and HEIGHT threads share each."""
    height = scope.tunable("HEIGHT")
    place = "int(blockIdx.x) * 32 + int(threadIdx.x)"
    setup = [f"const {scope.integer} row = {place};"]
    inside = ""
    if rows % 32:
        setup = [f"const bool inside = {place} < ROWS;", f"const {scope.integer} row = inside ? {place} : ROWS - 1;"]
        inside = "inside"
    return Mapping(
        (*setup, "const int lane = threadIdx.y;"), height, f"column_reduce<32, {height}>", "column_reduce",
        f"32 * {height}", (str(-(-rows // 32)),), ("32", height), ((height, (8, 4, 16, 2)),), inside,
    )  # fmt: skip
