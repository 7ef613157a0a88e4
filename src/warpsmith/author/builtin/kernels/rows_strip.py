"""Windows that overlap: every thread reduces several, one below the other, and reads each element once for all.

Right for pooling whose windows are longer than their stride.
"""

from __future__ import annotations

import math

from warpsmith.author.builtin.index import Axis, Index, axes_of, lift, ravel, unravel
from warpsmith.author.builtin.kernels.emission import Kernels, Scope, Store, function, indented, loads, parameters
from warpsmith.author.builtin.kernels.passes import Step, plan_passes
from warpsmith.author.builtin.kernels.slide import Slide, slide_of
from warpsmith.author.builtin.regions import Region, resolve
from warpsmith.author.builtin.values import Coords, Reduction
from warpsmith.records import Launch

# Reads that are unrolled.
_UNROLLED = 512


def slide_along(region: Region) -> Slide | None:
    """Return how windows slide along the rows, or None where they do not, or where more than their result is wanted."""
    row, col = (
        tuple(map(lift, axes_of(space, name))) for space, name in ((region.row_shape, "o"), (region.col_shape, "k"))
    )
    passes, _ = plan_passes(region, row, col, one_pass=False)
    if region.written("element") or len(passes) > 1 or any(step.positioned for step in passes[0].steps):
        return None
    producers = [p for p in region.producers if isinstance(p, Reduction)]
    return slide_of(
        region.row_shape, region.col_shape, lambda o, k: [p.source(region.coordinates(o, k)) for p in producers]
    )


def emit_row_strips(region: Region, scope: Scope, slide: Slide, length: int) -> Kernels:
    """Write a kernel in which every thread reduces `length` windows, which divides their number."""
    return _Strips(region, scope, slide, length).emit()


class _Strips:
    def __init__(self, region: Region, scope: Scope, slide: Slide, length: int) -> None:
        self.region, self.scope, self.slide, self.length = region, scope, slide, length
        self.block = scope.tunable("BLOCK")
        self.shape = tuple(e // length if d == slide.outer else e for d, e in enumerate(region.row_shape))
        self.loops = tuple(
            Axis("y", slide.reach(length)) if d == slide.inner else Axis(f"k{d}", e)
            for d, e in enumerate(region.col_shape)
        )
        passes, self.held = plan_passes(region, self._row(Index()), tuple(map(lift, self.loops)), one_pass=False)
        self.steps = passes[0].steps

    def emit(self) -> Kernels:
        """Put the parts together."""
        region, scope, strips = self.region, self.scope, math.prod(self.shape)
        row = self._row(lift(Axis("i", self.length)))
        place = ravel(row, region.row_shape)
        stores = [
            Store(o.name, o.dtype, place, resolve(o.at(row, region.row_shape), self.held))
            for o in region.written("row")
        ]
        names, params = parameters(
            loads([*(step.value for step in self.steps), *(s.value for s in stores)]),
            [(s.tensor, s.dtype) for s in stores],
        )
        body = [*self._setup(strips), *self._loop(), *self._results(stores)]
        comment = f"{region.rows} rows of {region.cols}.\nA thread makes {self.length} of them, which overlap."
        return Kernels(
            function(scope, scope.kernel, params, self.block, body, comment),
            (Launch(scope.kernel, (f"ceil_div({strips}, {self.block})",), (self.block,), names),),
            ((self.block, (128, 64, 256, 512)),),
            helpers=frozenset(step.struct for step in self.steps),
        )

    def _row(self, output: Index) -> Coords:
        """Coordinates of an output of the strip."""
        row = list(unravel(lift(Axis("strip", math.prod(self.shape))), self.shape))
        row[self.slide.outer] = row[self.slide.outer] * self.length + output
        return tuple(row)

    def _setup(self, strips: int) -> list[str]:
        integer = self.scope.integer
        text = [
            f"constexpr int OUTPUTS = {self.length}, STRIDE = {self.slide.stride}, WINDOW = {self.slide.window};",
            f"const {integer} strip = {integer}(blockIdx.x) * {self.block} + threadIdx.x;",
            f"if (strip >= {strips}) return;",
            *(f"{step.ctype} {_each(step)}[OUTPUTS];" for step in self.steps),
            "#pragma unroll",
        ]
        empty = [f"{_each(step)}[i] = {step.ctype}::empty();" for step in self.steps]
        return [*text, "for (int i = 0; i < OUTPUTS; ++i) {", *indented(empty), "}"]

    def _loop(self) -> list[str]:
        """Walk over what the windows of the strip see together, and give each element to those that it lies in."""
        printer = self.scope.printer()
        text = printer.share([step.value for step in self.steps])
        named = [(step, f"seen{number or ''}") for number, step in enumerate(self.steps)]
        text += [f"const auto {name} = {printer.value(step.value)};" for step, name in named]
        adding = " ".join(f"{_each(step)}[i].add({name});" for step, name in named)
        text += [
            "#pragma unroll",
            "for (int i = 0; i < OUTPUTS; ++i) {",
            "    const int tap = y - i * STRIDE;  // known when the loops are unrolled",
            f"    if (tap >= 0 && tap < WINDOW) {{ {adding} }}",
            "}",
        ]
        inward = sorted(range(len(self.loops)), key=lambda d: d != self.slide.inner)
        reads = 1
        for axis in (self.loops[d] for d in inward):
            reads *= axis.extent
            if axis.extent > 1:
                pragma = "#pragma unroll" if reads <= _UNROLLED else "#pragma unroll 1"
                head = f"for ({self.scope.integer} {axis.name} = 0; {axis.name} < {axis.extent}; ++{axis.name}) {{"
                text = [pragma, head, *indented(text), "}"]
        return text

    def _results(self, stores: list[Store]) -> list[str]:
        printer = self.scope.printer()
        text = [f"const auto {step.variable} = {_each(step)}[i];" for step in self.steps]
        text += printer.share([s.value for s in stores])
        text += [s.hand_over(printer) for s in stores]
        return ["#pragma unroll", "for (int i = 0; i < OUTPUTS; ++i) {", *indented(text), "}"]


def _each(step: Step) -> str:
    """The accumulators of all outputs."""
    return f"{step.variable}_i"
