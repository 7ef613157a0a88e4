"""Few long rows: several blocks share a row, and leave their accumulators in memory for the next kernel."""

from __future__ import annotations

import math
from collections.abc import Sequence

from warpsmith.author.builtin.kernels.emission import (
    Kernels,
    Scope,
    Sink,
    function,
    hoist,
    indented,
    loads,
    parameters,
)
from warpsmith.author.builtin.kernels.frame import Frame
from warpsmith.author.builtin.kernels.passes import Step
from warpsmith.author.builtin.printer import Printer
from warpsmith.records import DTYPE_BYTES, Buffer, Launch

# Eight blocks of 256 threads fill a multiprocessor, and the largest GPUs have some 132.
_BLOCKS = 1024
# Columns, or vectors of them, that a block must at least have: a few for each thread.
_LEAST_GROUPS = 1024
# 32-bit words in each accumulator, by the number of fields of its element type and of ints.
_FIELDS = {
    "LargestAt": (1, 1),
    "SmallestAt": (1, 1),
    "Moments": (3, 0),
    "OnlineSoftmax": (2, 0),
    "Any": (0, 1),
    "All": (0, 1),
}


def emit_split(frame: Frame, scope: Scope) -> Kernels:
    """Write one kernel for each pass, and one that merges the last and writes the results."""
    return _Split(frame, scope).emit()


class _Split:
    def __init__(self, frame: Frame, scope: Scope) -> None:
        self.frame, self.scope = frame, scope
        self.block, self.splits = scope.tunable("BLOCK"), scope.tunable("SPLITS")
        self.unroll = scope.tunable("UNROLL")
        self.helpers = {"block_reduce", "gathered"} | ({"Vec"} if frame.lanes.vec > 1 else set())

    def emit(self) -> Kernels:
        """Put the kernels in order."""
        sources: list[str] = []
        launches: list[Launch] = []
        done: list[Step] = []
        for number, one in enumerate(self.frame.passes):
            name = f"{self.scope.kernel}_pass{number + 1}"
            source, launch = self._partial(name, one.steps, done)
            sources.append(source)
            launches.append(launch)
            done += one.steps
        source, launch = self._final(done)
        tunables = ((self.block, (256, 128, 512)), (self.splits, self._choices()), (self.unroll, (4, 1, 2, 8)))
        buffers = tuple(self._buffer(step) for step in done)
        self.helpers |= {step.struct for step in done}
        return Kernels("\n\n".join([*sources, source]), (*launches, launch), tunables, buffers, frozenset(self.helpers))

    def _choices(self) -> tuple[int, ...]:
        """How many blocks may share a row: first what fills a large GPU, if each thread has a few elements then."""
        most = max(4, self.frame.lanes.group.extent // _LEAST_GROUPS)
        offered = [splits for splits in (4, 8, 16, 32, 64, 128, 256, 512, 1024) if splits <= most]
        rows = self.frame.region.rows
        return tuple(sorted(offered, key=lambda splits: (abs(math.log2(splits * rows / _BLOCKS)), splits)))

    def _parts(self, step: Step) -> str:
        return f"{self.scope.kernel}_{step.variable}_parts"

    def _buffer(self, step: Step) -> Buffer:
        fields, ints = _FIELDS.get(step.struct, (1, 0))
        size = DTYPE_BYTES.get(step.dtype, 4)
        # A 64-bit value aligns the struct, so that an int beside it takes eight bytes.
        words = fields * max(size, 4) // 4 + ints * (2 if size == 8 and fields else 1)
        return Buffer(self._parts(step), (str(self.frame.region.rows), self.splits, str(words)), "float32")

    def _gather(self, done: Sequence[Step]) -> list[str]:
        return [f"const auto {s.variable} = gathered<{self.splits}>({self._parts(s)}, row);" for s in done]

    def _sliced(self, printer: Printer, sinks: Sequence[Sink]) -> list[str]:
        """Run over this block's slice of the row."""
        groups, integer = self.frame.lanes.group.extent, self.scope.integer
        text = hoist(printer, [sink.value for sink in sinks], self.frame.inner)
        body = self.frame.lanes.body(printer.fork(), sinks)
        return [
            *text,
            f"constexpr {integer} COLS = {groups}, SLICE = (COLS + {self.splits} - 1) / {self.splits};",
            f"const {integer} last = min(COLS, ({integer}(blockIdx.y) + 1) * SLICE);",
            f"#pragma unroll {self.unroll}",
            f"for ({integer} j = blockIdx.y * SLICE + threadIdx.x; j < last; j += {self.block}) {{",
            *indented(body),
            "}",
        ]

    def _partial(self, name: str, steps: Sequence[Step], done: Sequence[Step]) -> tuple[str, Launch]:
        printer = self.scope.printer()
        body = [f"const {self.scope.integer} row = blockIdx.x;", *self._gather(done)]
        for step in steps:
            body.append(f"auto {step.variable} = {step.ctype}::empty();")
        body += self._sliced(printer, [step.sink(self.frame.lanes.linear) for step in steps])
        for step in steps:
            body.append(f"{step.variable} = block_reduce<{self.block} / 32>({step.variable});")
        place = f"[row * {self.splits} + blockIdx.y]"
        body.append("if (threadIdx.x == 0) {")
        body += indented([f"{self._parts(step)}{place} = {step.variable};" for step in steps])
        body.append("}")
        names, params = parameters(loads([s.value for s in steps]), [])
        return self._framed(
            name, names, params, done, steps, body, "Every block reduces a slice of a row.", self.splits
        )

    def _final(self, done: Sequence[Step]) -> tuple[str, Launch]:
        printer = self.scope.printer()
        elements, rows = self.frame.element_stores(), self.frame.row_stores()
        body = [f"const {self.scope.integer} row = blockIdx.x;", *self._gather(done)]
        if elements:
            body += self._sliced(printer, elements)
        if rows:
            inner = printer.fork()
            text = inner.share([s.value for s in rows]) + [s.hand_over(inner) for s in rows]
            body += ["if (blockIdx.y == 0 && threadIdx.x == 0) {", *indented(text), "}"]
        stores = [*elements, *rows]
        names, params = parameters(loads([s.value for s in stores]), [(s.tensor, s.dtype) for s in stores])
        across = self.splits if elements else "1"
        return self._framed(self.scope.kernel, names, params, done, (), body, self.frame.comment(), across)

    def _framed(
        self, name: str, names: tuple[str, ...], params: str, done: Sequence[Step], new: Sequence[Step],
        body: list[str], comment: str, across: str,
    ) -> tuple[str, Launch]:  # fmt: skip
        read = [f"const {s.ctype}* __restrict__ {self._parts(s)}" for s in done]
        written = [f"{s.ctype}* __restrict__ {self._parts(s)}" for s in new]
        everything = ", ".join([part for part in (params, *read, *written) if part])
        args = (*names, *(self._parts(s) for s in (*done, *new)))
        grid = (str(self.frame.region.rows), across)
        source = function(self.scope, name, everything, self.block, body, comment)
        return source, Launch(name, grid, (self.block,), args)
