"""Windows that slide: where one output further reads what this one reads some summands further."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from warpsmith.author.builtin.index import Axis, Index, lift, unravel
from warpsmith.author.builtin.kernels.emission import unrolled
from warpsmith.author.builtin.values import Coords

# What is read where: from coordinates of an output and of what is reduced.
Reads = Callable[[Coords, Coords], object]

# Outputs that one thread may make, below each other, the likeliest first.
_LENGTHS = (8, 4, 7, 5, 6, 2, 3, 16)
_STRIDES = (1, 2, 3, 4)
# Taps of a window along which it slides, and reads that are unrolled.
_WINDOW, _UNROLLED = 16, 512


@dataclass(frozen=True)
class Slide:
    """A step along output dimension `outer` moves the window as `stride` steps along reduced dimension `inner` do.

    `outputs` are the extents of all output dimensions, `window` is that of `inner`.
    """

    outer: int
    inner: int
    stride: int
    outputs: tuple[int, ...]
    window: int

    @property
    def lengths(self) -> tuple[int, ...]:
        """How many outputs a thread may make: each divides their extent."""
        return tuple(length for length in _LENGTHS if self.outputs[self.outer] % length == 0)


@dataclass(frozen=True)
class Strips:
    """Strips of `length` outputs, below each other, over which a window slides.

    In a kernel `i` is the number of an output in its strip, `y` a place along `inner` that some of them see.
    """

    slide: Slide
    length: int

    @property
    def output(self) -> Axis:
        """The axis of the outputs of a strip."""
        return Axis("i", self.length)

    @property
    def steps(self) -> Axis:
        """The axis of what the outputs of a strip see together along `inner`."""
        return Axis("y", (self.length - 1) * self.slide.stride + self.slide.window)

    @property
    def count(self) -> int:
        """Number of strips."""
        return math.prod(self._shape)

    @property
    def _shape(self) -> tuple[int, ...]:
        return tuple(e // self.length if d == self.slide.outer else e for d, e in enumerate(self.slide.outputs))

    def place(self, strip: str, output: Index) -> Coords:
        """Coordinates of an output of the strip whose number the axis called `strip` counts."""
        place = list(unravel(lift(Axis(strip, self.count)), self._shape))
        place[self.slide.outer] = place[self.slide.outer] * self.length + output
        return tuple(place)

    @property
    def constants(self) -> str:
        """The statement that names the numbers of a strip."""
        slide = self.slide
        return f"constexpr int OUTPUTS = {self.length}, STRIDE = {slide.stride}, WINDOW = {slide.window};"

    def walk(
        self, integer: str, read: Sequence[str], take: str, others: Sequence[Axis], before: Sequence[str] = ()
    ) -> list[str]:
        """Loops in which each element is `read` once, and outputs whose window it lies in `take` it as their `tap`.

        `integer` is the type of places, `others` are the reduced dimensions along which the window does not slide;
        `before` stands within their loops.
        """
        taken = [
            "const int tap = y - i * STRIDE;  // known when the loops are unrolled",
            f"if (tap >= 0 && tap < WINDOW) {take}",
        ]
        text = [
            *before,
            *unrolled(
                "y",
                "(OUTPUTS - 1) * STRIDE + WINDOW",
                [*read, *unrolled("i", "OUTPUTS", taken)],
                integer=integer,
            ),
        ]
        reads = self.steps.extent
        for axis in reversed([axis for axis in others if axis.extent > 1]):
            reads *= axis.extent
            text = unrolled(axis.name, axis.extent, text, integer=integer)
            if reads > _UNROLLED:
                text[0] = "#pragma unroll 1"
        return text


def slide_of(outer: Sequence[int], inner: Sequence[int], reads: Reads) -> Slide | None:
    """Return how windows slide along an output dimension that strips can divide, or None where none does.

    The innermost output dimension is left out, along which neighbouring threads work.
    """
    for o in reversed(range(len(outer) - 1)):
        for i, window in enumerate(inner):
            for stride in _STRIDES:
                slide = Slide(o, i, stride, tuple(outer), window)
                if outer[o] > 1 and stride < window <= _WINDOW and _slides(slide, outer, inner, reads):
                    return slide if slide.lengths else None
    return None


def _slides(slide: Slide, outer: Sequence[int], inner: Sequence[int], reads: Reads) -> bool:
    here = [lift(Axis(f"o{d}", e - (d == slide.outer))) for d, e in enumerate(outer)]
    now = [lift(Axis(f"k{d}", e - slide.stride * (d == slide.inner))) for d, e in enumerate(inner)]
    there, further = list(here), list(now)
    there[slide.outer] = there[slide.outer] + 1
    further[slide.inner] = further[slide.inner] + slide.stride
    return reads(tuple(there), tuple(now)) == reads(tuple(here), tuple(further))
