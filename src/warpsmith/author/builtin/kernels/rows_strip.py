"""Windows that overlap: every thread reduces several, one below the other, and reads each element once for all.

Right for pooling whose windows are longer than their stride.
"""

from __future__ import annotations

from warpsmith.author.builtin.index import Axis, Index, axes_of, lift, ravel
from warpsmith.author.builtin.kernels.emission import Kernels, Scope, Store, function, loads, parameters, unrolled
from warpsmith.author.builtin.kernels.passes import Step, plan_passes
from warpsmith.author.builtin.kernels.slide import Slide, Strips, slide_of
from warpsmith.author.builtin.regions import Region, resolve
from warpsmith.author.builtin.values import Reduction
from warpsmith.records import Launch


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
    return _Rows(region, scope, slide, length).emit()


class _Rows:
    def __init__(self, region: Region, scope: Scope, slide: Slide, length: int) -> None:
        self.region, self.scope = region, scope
        self.strips = Strips(slide, length)
        self.block = scope.tunable("BLOCK")
        axes = [Axis(f"k{d}", e) for d, e in enumerate(region.col_shape)]
        self.others = [axis for d, axis in enumerate(axes) if d != slide.inner]
        col = tuple(lift(self.strips.steps if d == slide.inner else axis) for d, axis in enumerate(axes))
        passes, self.held = plan_passes(region, self.strips.place("strip", Index()), col, one_pass=False)
        self.steps = passes[0].steps

    def emit(self) -> Kernels:
        """Put the parts together."""
        region, scope, strips = self.region, self.scope, self.strips
        row = strips.place("strip", lift(strips.output))
        place = ravel(row, region.row_shape)
        stores = [
            Store(o.name, o.dtype, place, resolve(o.at(row, region.row_shape), self.held))
            for o in region.written("row")
        ]
        names, params = parameters(
            loads([*(step.value for step in self.steps), *(s.value for s in stores)]),
            [(s.tensor, s.dtype) for s in stores],
        )
        body = [*self._setup(), *self._loop(), *self._results(stores)]
        comment = f"{region.rows} rows of {region.cols}.\nA thread makes {strips.length} of them, which overlap."
        return Kernels(
            function(scope, scope.kernel, params, self.block, body, comment),
            (Launch(scope.kernel, (f"ceil_div({strips.count}, {self.block})",), (self.block,), names),),
            ((self.block, (128, 64, 256, 512)),),
            helpers=frozenset(step.struct for step in self.steps),
        )

    def _setup(self) -> list[str]:
        integer = self.scope.integer
        return [
            self.strips.constants,
            f"const {integer} strip = {integer}(blockIdx.x) * {self.block} + threadIdx.x;",
            f"if (strip >= {self.strips.count}) return;",
            *(f"{step.ctype} {_each(step)}[OUTPUTS];" for step in self.steps),
            *unrolled("i", "OUTPUTS", [f"{_each(step)}[i] = {step.ctype}::empty();" for step in self.steps]),
        ]

    def _loop(self) -> list[str]:
        """Walk over what the windows of the strip see together, and give each element to those that it lies in."""
        printer = self.scope.printer()
        read = printer.share([step.value for step in self.steps])
        named = [(step, f"seen{number or ''}") for number, step in enumerate(self.steps)]
        read += [f"const auto {name} = {printer.value(step.value)};" for step, name in named]
        adding = " ".join(f"{_each(step)}[i].add({name});" for step, name in named)
        return self.strips.walk(self.scope.integer, read, f"{{ {adding} }}", self.others)

    def _results(self, stores: list[Store]) -> list[str]:
        printer = self.scope.printer()
        text = [f"const auto {step.variable} = {_each(step)}[i];" for step in self.steps]
        text += printer.share([s.value for s in stores])
        text += [s.hand_over(printer) for s in stores]
        return unrolled("i", "OUTPUTS", text, integer=self.scope.integer)


def _each(step: Step) -> str:
    """The accumulators of all outputs."""
    return f"{step.variable}_i"
