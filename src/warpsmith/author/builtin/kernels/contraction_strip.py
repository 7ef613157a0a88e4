"""Contractions of one row with windows that slide: every thread makes a strip of outputs, one below the other.

Right for depthwise convolutions. Neighbouring outputs see nearly the same part of the input: a thread reads each of
its values once, and adds it to every sum of the strip whose window it lies in. Neighbouring threads work on
neighbouring columns, so that what they read and write lies side by side.
"""

from __future__ import annotations

from warpsmith.author.builtin.index import Axis, Index, lift, ravel
from warpsmith.author.builtin.kernels.contraction_layout import Layout
from warpsmith.author.builtin.kernels.emission import (
    Assign,
    Kernels,
    Scope,
    Store,
    function,
    loads,
    parameters,
    unrolled,
)
from warpsmith.author.builtin.kernels.slide import Slide, Strips, slide_of
from warpsmith.author.builtin.scalar import Local, Scalar
from warpsmith.author.builtin.values import Coords
from warpsmith.records import Launch


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
        self.layout, self.scope, self.slide = layout, scope, slide
        self.strips = Strips(slide, length)
        self.block = scope.tunable("BLOCK")
        self.others = [Axis(f"depth{d}", e if d != slide.inner else 1) for d, e in enumerate(layout.right.summed)]

    def emit(self) -> Kernels:
        """Put the parts together."""
        layout, scope, strips = self.layout, self.scope, self.strips
        left = layout.left.at(layout.batch, Index(), self._summed(Axis("tap", self.slide.window)))
        right = layout.right.at(layout.batch, self._column(Index()), self._summed(strips.steps))
        held = Local("acc[i]", layout.dtype, frozenset({strips.output}))
        stores = layout.stores(Index(), self._column(lift(strips.output)), held)
        names, params = parameters(
            loads([left, right, *(s.value for s in stores)]), [(s.tensor, s.dtype) for s in stores]
        )
        tasks = strips.count * layout.batches
        body = [*self._setup(tasks), *self._loop(left, right), *self._epilogue(stores)]
        comment = f"{layout.comment()}\nA thread makes {strips.length} of them, over which the window slides."
        return Kernels(
            function(scope, scope.kernel, params, self.block, body, comment),
            (Launch(scope.kernel, (f"ceil_div({tasks}, {self.block})",), (self.block,), names),),
            ((self.block, (128, 64, 256, 512)),),
        )

    def _summed(self, along: Axis) -> Coords:
        """Coordinates of a summand, `along` the dimension in which the window slides."""
        return tuple(lift(along if d == self.slide.inner else axis) for d, axis in enumerate(self.others))

    def _column(self, output: Index) -> Index:
        """The place along n of an output of the strip."""
        return ravel(self.strips.place("column", output), self.slide.outputs)

    def _setup(self, tasks: int) -> list[str]:
        integer, columns, batched = self.scope.integer, self.strips.count, self.layout.batches > 1
        text = [
            self.strips.constants,
            f"const {integer} task = {integer}(blockIdx.x) * {self.block} + threadIdx.x;",
            f"if (task >= {tasks}) return;",
            f"const {integer} column = task{f' % {columns}' if batched else ''};",
        ]
        text += [f"const {integer} batch = task / {columns};"] if batched else []
        return [*text, f"{self.layout.ctype} acc[OUTPUTS] = {{}};"]

    def _loop(self, left: Scalar, right: Scalar) -> list[str]:
        """Walk over the summed dimensions, the one along which the window slides last."""
        ctype, printer = self.layout.ctype, self.scope.printer()
        weigh, reach = printer.fork(), printer.fork()
        weights = [*weigh.share([left]), Assign("left[tap]", left, self.layout.dtype).hand_over(weigh)]
        return self.strips.walk(
            self.scope.integer,
            [*reach.share([right]), f"const {ctype} right = {reach.value(right)};"],
            "acc[i] += left[tap] * right;",
            self.others,
            [f"{ctype} left[WINDOW];", *unrolled("tap", "WINDOW", weights, integer=self.scope.integer)],
        )

    def _epilogue(self, stores: list[Store]) -> list[str]:
        printer = self.scope.printer()
        text = printer.share([s.value for s in stores])
        text += [s.hand_over(printer) for s in stores]
        return unrolled("i", "OUTPUTS", text, integer=self.scope.integer)
