"""Windows that slide: where one output further reads what this one reads some summands further."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from warpsmith.author.builtin.index import Axis, lift
from warpsmith.author.builtin.values import Coords

# What is read where: from coordinates of an output and of what is reduced.
Reads = Callable[[Coords, Coords], object]

LENGTHS = (8, 4, 7, 5, 6, 2, 3, 16)
"""Outputs that one thread may make, below each other, the likeliest first."""
_STRIDES = (1, 2, 3, 4)
_WINDOW = 16


@dataclass(frozen=True)
class Slide:
    """A step along output dimension `outer` moves the window as `stride` steps along reduced dimension `inner` do.

    `extent` is that of `outer`, `window` that of `inner`.
    """

    outer: int
    inner: int
    stride: int
    extent: int
    window: int

    @property
    def lengths(self) -> tuple[int, ...]:
        """How many outputs a thread may make: each divides their extent."""
        return tuple(length for length in LENGTHS if self.extent % length == 0)

    def reach(self, length: int) -> int:
        """Along `inner`, how far apart the first and the last are that `length` outputs see together, and one more."""
        return (length - 1) * self.stride + self.window


def slide_of(outer: Sequence[int], inner: Sequence[int], reads: Reads) -> Slide | None:
    """Return how windows slide along an output dimension, or None where none does.

    The innermost output dimension is left out, along which neighbouring threads work.
    """
    for o in reversed(range(len(outer) - 1)):
        for i, window in enumerate(inner):
            for stride in _STRIDES:
                slide = Slide(o, i, stride, outer[o], window)
                if outer[o] > 1 and stride < window <= _WINDOW and _slides(slide, outer, inner, reads):
                    return slide
    return None


def _slides(slide: Slide, outer: Sequence[int], inner: Sequence[int], reads: Reads) -> bool:
    here = [lift(Axis(f"o{d}", e - (d == slide.outer))) for d, e in enumerate(outer)]
    now = [lift(Axis(f"k{d}", e - slide.stride * (d == slide.inner))) for d, e in enumerate(inner)]
    there, further = list(here), list(now)
    there[slide.outer] = there[slide.outer] + 1
    further[slide.inner] = further[slide.inner] + slide.stride
    return reads(tuple(there), tuple(now)) == reads(tuple(here), tuple(further))
