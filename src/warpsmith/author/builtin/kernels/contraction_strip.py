"""Contractions of one row with windows that slide: every thread makes a strip of outputs, one below the other.

Right for depthwise convolutions. Neighbouring outputs see nearly the same part of the input: a thread reads each of
its values once, and adds it to every sum of the strip whose window it lies in. Neighbouring threads work on
neighbouring columns, so that what they read and write lies side by side.
"""

from __future__ import annotations

import math

from warpsmith.author.builtin.index import Axis, Index, lift, ravel, unravel
from warpsmith.author.builtin.kernels.contraction_layout import Layout
from warpsmith.author.builtin.kernels.emission import (
    Assign,
    Kernels,
    Scope,
    Store,
    function,
    indented,
    loads,
    parameters,
)
from warpsmith.author.builtin.kernels.slide import Slide, slide_of
from warpsmith.author.builtin.scalar import Local, Scalar
from warpsmith.author.builtin.values import Coords
from warpsmith.records import Launch

# Reads that are unrolled.
_UNROLLED = 512


def slide_along(layout: Layout) -> Slide | None:
    """Return how windows slide along the outputs, or None where they do not, or where there are several rows."""
    if layout.m > 1 or layout.producer.phases:
        return None
    extents = layout.extents("n")
    return slide_of(
        extents, layout.right.summed, lambda o, inner: layout.right.at(layout.batch, ravel(o, extents), inner)
    )


def emit_strip(layout: Layout, scope: Scope, slide: Slide, length: int) -> Kernels:
    """Write a kernel in which every thread makes `length` outputs, which divides their extent."""
    return _Strip(layout, scope, slide, length).emit()


class _Strip:
    def __init__(self, layout: Layout, scope: Scope, slide: Slide, length: int) -> None:
        self.layout, self.scope, self.slide, self.length = layout, scope, slide, length
        self.block = scope.tunable("BLOCK")
        extents = layout.extents("n")
        self.strips = tuple(e // length if d == slide.outer else e for d, e in enumerate(extents))
        self.steps = Axis("y", slide.reach(length))
        self.tap, self.output = Axis("tap", slide.window), Axis("i", length)
        self.loops = [Axis(f"depth{d}", e if d != slide.inner else 1) for d, e in enumerate(layout.right.summed)]

    def emit(self) -> Kernels:
        """Put the parts together."""
        layout, scope = self.layout, self.scope
        left = layout.left.at(layout.batch, Index(), self._summed(lift(self.tap)))
        right = layout.right.at(layout.batch, self._column(Index()), self._summed(lift(self.steps)))
        held = Local("acc[i]", layout.dtype, frozenset({self.output}))
        stores = layout.stores(Index(), self._column(lift(self.output)), held)
        names, params = parameters(
            loads([left, right, *(s.value for s in stores)]), [(s.tensor, s.dtype) for s in stores]
        )
        columns = math.prod(self.strips)
        tasks = columns * layout.batches
        body = [*self._setup(columns, tasks), *self._loop(left, right), *self._epilogue(stores)]
        comment = f"{layout.comment()}\nA thread makes {self.length} of them, over which the window slides."
        return Kernels(
            function(scope, scope.kernel, params, self.block, body, comment),
            (Launch(scope.kernel, (f"ceil_div({tasks}, {self.block})",), (self.block,), names),),
            ((self.block, (128, 64, 256, 512)),),
        )

    def _summed(self, along: Index) -> Coords:
        """Coordinates of a summand, `along` the dimension in which the window slides."""
        return tuple(along if d == self.slide.inner else lift(axis) for d, axis in enumerate(self.loops))

    def _column(self, output: Index) -> Index:
        """The place along n of an output of the strip."""
        strip = list(unravel(lift(Axis("column", math.prod(self.strips))), self.strips))
        strip[self.slide.outer] = strip[self.slide.outer] * self.length + output
        return ravel(tuple(strip), self.layout.extents("n"))

    def _setup(self, columns: int, tasks: int) -> list[str]:
        integer, batched = self.scope.integer, self.layout.batches > 1
        text = [
            f"constexpr int OUTPUTS = {self.length}, STRIDE = {self.slide.stride}, WINDOW = {self.slide.window};",
            f"const {integer} task = {integer}(blockIdx.x) * {self.block} + threadIdx.x;",
            f"if (task >= {tasks}) return;",
            f"const {integer} column = task{f' % {columns}' if batched else ''};",
        ]
        text += [f"const {integer} batch = task / {columns};"] if batched else []
        return [*text, f"{self.layout.ctype} acc[OUTPUTS] = {{}};"]

    def _loop(self, left: Scalar, right: Scalar) -> list[str]:
        """Walk over the summed dimensions, the one along which the window slides last."""
        ctype, integer = self.layout.ctype, self.scope.integer
        printer = self.scope.printer()
        weigh, reach = printer.fork(), printer.fork()
        text = [
            f"{ctype} left[WINDOW];",
            "#pragma unroll",
            "for (int tap = 0; tap < WINDOW; ++tap) {",
            *indented([*weigh.share([left]), Assign("left[tap]", left, self.layout.dtype).hand_over(weigh)]),
            "}",
            "#pragma unroll",
            "for (int y = 0; y < (OUTPUTS - 1) * STRIDE + WINDOW; ++y) {",
            *indented([*reach.share([right]), f"const {ctype} right = {reach.value(right)};"]),
            "    #pragma unroll",
            "    for (int i = 0; i < OUTPUTS; ++i) {",
            "        const int tap = y - i * STRIDE;  // known when the loops are unrolled",
            "        if (tap >= 0 && tap < WINDOW) acc[i] += left[tap] * right;",
            "    }",
            "}",
        ]
        reads = self.steps.extent
        for axis in reversed(self.loops):
            if axis.extent > 1:
                reads *= axis.extent
                pragma = "#pragma unroll" if reads <= _UNROLLED else "#pragma unroll 1"
                head = f"for ({integer} {axis.name} = 0; {axis.name} < {axis.extent}; ++{axis.name}) {{"
                text = [pragma, head, *indented(text), "}"]
        return text if any(axis.extent > 1 for axis in self.loops) else ["{", *indented(text), "}"]

    def _epilogue(self, stores: list[Store]) -> list[str]:
        printer = self.scope.printer()
        text = printer.share([s.value for s in stores])
        text += [s.hand_over(printer) for s in stores]
        return ["#pragma unroll", "for (int i = 0; i < OUTPUTS; ++i) {", *indented(text), "}"]
