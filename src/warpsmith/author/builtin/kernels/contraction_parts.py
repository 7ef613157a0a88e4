"""Operands of a product in two parts of 16 bits each, so that tensor cores multiply float32 at the speed of float16.

x = 2^e (large + small / 4096), where e puts the largest element of a row into the upper end of float16. Both parts have
eleven significant bits and a sign, so that together they miss x by its last place at most, as long as it is not some
2^28 times smaller than the largest element of its row. What smaller ones lose is known afterwards: a kernel that
multiplies parts can tell which of its sums that may matter for. The products small·large and large·small are summed
apart from large·large, and small·small is left out, as it is with TF32 (see `contraction_fragments`; Ootomo and Yokota,
cited in `contraction_mma`, compare the two).

Rows of an operand are those of its outer dimension: m on the left, n on the right. They are kept in panels, of as many
rows as a block multiplies and of 64 elements along the depth, in the order in which tensor cores read them from shared
memory; so a tile is brought there as it is, in one piece.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from warpsmith.author.builtin.kernels.contraction_layout import Along, Layout, Operand
from warpsmith.author.builtin.kernels.emission import (
    Assign,
    Kernels,
    Lanes,
    Scope,
    function,
    indented,
    loads,
    parameters,
    unrolled,
)
from warpsmith.author.builtin.scalar import Scalar
from warpsmith.records import Buffer, Launch

DEEP = 64
"""Elements of a panel along the depth: as many as the 128 bytes that are swizzled together hold."""

SCALE = 12
"""The smaller part is stored times two to this power."""

TOP = 14
"""The largest element of a row lies between 2^TOP and twice that."""

ROWS = 32
"""Rows that a block brings into parts."""

# Each of a block's threads has eight elements of a row, which are 16 bytes of either part.
_THREADS, _PIECE = 256, 8
# The widest range of exponents with which scaling is one product with a power of two.
_LEAST, _MOST = -110, 127


@dataclass(frozen=True)
class Parts:
    """One operand in parts, in panels of `rows`, and so many `steps` of panels along the depth.

    Buffers: `name`, float16 [batches, panels, steps, 2, rows, 64]; and `facts`, float32 [batches, panels · rows, 4]
    with each row's exponent e, the most that an element lost, and the sum of all absolute values.
    """

    layout: Layout
    operand: Operand
    name: str
    rows: int
    steps: int

    @property
    def facts(self) -> str:
        """The buffer with what is known of each row."""
        return f"{self.name}_facts"

    @property
    def along(self) -> Along:
        """The dimension that neighbouring threads read along."""
        return self.operand.direction(self.layout.batch)

    @property
    def lanes(self) -> Lanes:
        """The vectors in which the operand is read."""
        return self.operand.lanes(self.along, self.operand.vector(self.layout.batch, self.along, 4))

    @property
    def value(self) -> Scalar:
        """What a lane reads."""
        return self.operand.value(self.layout.batch, self.along, self.lanes)

    @property
    def batches(self) -> int:
        """How many there are: one, if all products have this operand in common."""
        varies = any(axis.name == "batch" for axis in self.value.axes)
        return self.layout.batches if varies else 1

    @property
    def panels(self) -> int:
        """Panels side by side."""
        return -(-self.operand.extent // self.rows)

    @property
    def panel(self) -> int:
        """Elements of a panel in both parts."""
        return 2 * self.rows * DEEP

    def at(self, panel: str) -> str:
        """The place of a panel of the batch at hand, in panels."""
        return f"ptrdiff_t(batch) * {self.panels} + {panel}" if self.batches > 1 else f"ptrdiff_t({panel})"

    def fact(self, row: str) -> str:
        """The place of a row of the batch at hand among the facts."""
        return f"ptrdiff_t(batch) * {self.panels * self.rows} + {row}" if self.batches > 1 else row

    @property
    def buffers(self) -> tuple[Buffer, Buffer]:
        """Scratch memory."""
        rows = self.panels * self.rows
        shape = (self.batches, self.panels, self.steps, 2, self.rows, DEEP)
        return (
            Buffer(self.name, tuple(map(str, shape)), "float16"),
            Buffer(self.facts, (str(self.batches), str(rows), "4"), "float32"),
        )

    def emit(self, scope: Scope) -> Kernels:
        """Write the kernel that makes the parts."""
        names, params = parameters(loads([self.value]), [(b.name, b.dtype) for b in self.buffers])
        kernel = f"{self.name}_kernel"
        blocks = self.batches * self.panels * self.rows // ROWS
        source = function(scope, kernel, params, str(_THREADS), self._body(scope), self._comment())
        launch = Launch(kernel, (str(blocks),), (str(_THREADS),), names)
        return Kernels(source, (launch,), (), self.buffers, frozenset({"Vec"}))

    def _comment(self) -> str:
        side = self.operand.side
        return (
            f"The {side} operand in two parts of 16 bits: 2^exponent (large + small / {1 << SCALE}).\n"
            f"A block has {ROWS} rows of the operand, and goes through them twice: for their largest elements, then "
            "for the parts."
        )

    def _body(self, scope: Scope) -> list[str]:
        integer, blocks = scope.integer, self.panels * self.rows // ROWS
        batch = [f"const {integer} batch = blockIdx.x / {blocks};"] if self.batches > 1 else []
        extent = self.operand.extent
        return [
            f"constexpr {integer} {self.operand.outer.upper()} = {extent}, DEPTH = {self.operand.depth};",
            *batch,
            f"const {integer} first = blockIdx.x{f' % {blocks}' if self.batches > 1 else ''} * {ROWS};",
            f"const int row = threadIdx.x / {DEEP // _PIECE}, piece = threadIdx.x % {DEEP // _PIECE};",
            f"__shared__ float tile[{ROWS}][{DEEP + 1}];",
            *self._loader(scope),
            *self._measured(integer),
            *self._parted(integer),
        ]

    def _loader(self, scope: Scope) -> list[str]:
        """Define `load`, which brings 64 elements of all rows into shared memory, zeros beyond the operand."""
        vec, outer = self.lanes.vec, self.operand.outer
        down = self.along == "depth"
        width = (DEEP if down else ROWS) // vec
        scale = f" / {vec}" if vec > 1 else ""
        if down:
            axes = f"const {scope.integer} {outer} = first + i / {width}, step = start{scale} + i % {width};"
            inside = f"{outer} < {outer.upper()} && step < DEPTH{scale}"
            cell = f"tile[i / {width}][i % {width}{f' * {vec} + k' if vec > 1 else ''}]"
        else:
            axes = f"const {scope.integer} depth = start + i / {width}, group = first{scale} + i % {width};"
            inside = f"depth < DEPTH && group < {outer.upper()}{scale}"
            cell = f"tile[i % {width}{f' * {vec} + k' if vec > 1 else ''}][i / {width}]"
        zero = unrolled("k", vec, [f"{cell} = 0;"]) if vec > 1 else [f"{cell} = 0;"]
        item = [
            f"const int i = item * {_THREADS} + threadIdx.x;",
            axes,
            f"if ({inside}) {{",
            *indented(self.lanes.body(scope.printer(), [Assign(cell, self.value)])),
            "} else {",
            *indented(zero),
            "}",
        ]
        return [
            f"const auto load = [&](const {scope.integer} start) {{",
            *indented(
                ["__syncthreads();", *unrolled("item", ROWS * DEEP // vec // _THREADS, item), "__syncthreads();"]
            ),
            "};",
        ]

    def _measured(self, integer: str) -> list[str]:
        """Find the largest element of each row, and the sum of the absolute values."""
        each = [
            f"const float x = fabsf(tile[row][piece * {_PIECE} + e]);",
            "largest = fmaxf(largest, x), total += x;",
        ]
        return [
            "float largest = 0, total = 0;",
            f"for ({integer} start = 0; start < DEPTH; start += {DEEP}) {{",
            "    load(start);",
            *indented(unrolled("e", _PIECE, each)),
            "}",
            *self._over_row("largest = fmaxf(largest, {})", "largest"),
            *self._over_row("total += {}", "total"),
            "// Powers of two by their exponents; rows of zeros have any.",
            f"const int exponent = min(max(ilogbf(largest), {_LEAST}), {_MOST}) - {TOP};",
            "const float scale = __int_as_float((127 - exponent) << 23);",
        ]

    def _parted(self, integer: str) -> list[str]:
        """Write the parts, and what is known of each row."""
        each = [
            f"const float x = tile[row][piece * {_PIECE} + e] * scale;",
            "large.at[e] = __float2half_rn(x);",
            f"const float rest = (x - __half2float(large.at[e])) * {1 << SCALE};",
            "small.at[e] = __float2half_rn(rest);",
            "const float gone = fabsf(rest - __half2float(small.at[e]));",
            f"if (gone > fabsf(x) * 0x1p{SCALE - 23}f) lost = fmaxf(lost, gone);",
        ]
        panel = f"{self.name} + ({self.at(f'at / {self.rows}')}) * {self.steps * self.panel}"
        return [
            f"const {integer} at = first + row;",
            f"__half* to = {panel} + at % {self.rows} * {DEEP} + (piece ^ at % 8) * {_PIECE};",
            "float lost = 0;",
            f"for ({integer} start = 0; start < {self.steps * DEEP}; start += {DEEP}, to += {self.panel}) {{",
            "    load(start);",
            f"    Vec<__half, {_PIECE}> large, small;",
            *indented(unrolled("e", _PIECE, each)),
            f"    *reinterpret_cast<Vec<__half, {_PIECE}>*>(to) = large;",
            f"    *reinterpret_cast<Vec<__half, {_PIECE}>*>(to + {self.rows * DEEP}) = small;",
            "}",
            *self._over_row("lost = fmaxf(lost, {})", "lost"),
            f"const Vec<float, 4> known = {{float(exponent), ldexpf(lost, exponent - {SCALE}), total, 0}};",
            f"auto facts = reinterpret_cast<Vec<float, 4>*>({self.facts});",
            f"if (piece == 0) facts[{self.fact('at')}] = known;",
        ]

    def _over_row(self, statement: str, name: str) -> Sequence[str]:
        """Combine a value over the threads of a row."""
        shuffle = statement.format(f"__shfl_xor_sync(0xffffffffu, {name}, other)")
        return [f"for (int other = 1; other < {DEEP // _PIECE}; other *= 2) {shuffle};"]
