"""Where everything lies in the arena: slots, each with a place for every argument, output and scratch buffer.

    base │ guard x guard out guard scratch guard │ guard x guard out guard scratch guard │ ...
          └────────────── slot 0 ──────────────┘  └────────────── slot 1 ──────────────┘

A call runs on one slot and on nothing else. Guards stand between all buffers, and hold NaNs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from warpsmith.records import TensorSpec

GUARD = 4096
ALIGN = 512
"""What cuMemAlloc aligns to, so that a kernel cannot tell a buffer of the arena from one of its own."""
Role = Literal["input", "output", "scratch"]


@dataclass(frozen=True, slots=True)
class Place:
    """A buffer in every slot. `start` is in bytes from the beginning of the slot."""

    spec: TensorSpec
    role: Role
    start: int

    @property
    def end(self) -> int:
        """The first byte after the buffer."""
        return self.start + self.spec.nbytes


@dataclass(frozen=True, slots=True)
class Layout:
    """`slots` slots of `stride` bytes, the first of them `base` bytes into the arena of `nbytes` bytes."""

    places: tuple[Place, ...]
    slots: int
    stride: int
    base: int

    @property
    def nbytes(self) -> int:
        """Size of the whole arena: slots, and what stands in front of them and behind."""
        return self.base + self.slots * self.stride + GUARD

    def place(self, name: str) -> Place:
        """Return the place of a tensor. Raises KeyError where there is none."""
        for place in self.places:
            if place.spec.name == name:
                return place
        raise KeyError(name)

    def of(self, role: Role) -> tuple[Place, ...]:
        """Return all places with a role."""
        return tuple(place for place in self.places if place.role == role)

    def offset(self, name: str, slot: int) -> int:
        """Return where a tensor of a slot begins, in bytes from the beginning of the arena."""
        return self.base + slot * self.stride + self.place(name).start


def lay_out(
    inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], scratch: Sequence[TensorSpec], slots: int, base: int
) -> Layout:
    """Lay out an arena. `base` moves everything; it is rounded up to a multiple of the alignment."""
    places: list[Place] = []
    position = GUARD
    groups: tuple[tuple[Role, Sequence[TensorSpec]], ...] = (
        ("input", inputs),
        ("output", outputs),
        ("scratch", scratch),
    )
    for role, specs in groups:
        for spec in specs:
            start = _aligned(position)
            places.append(Place(spec, role, start))
            position = start + spec.nbytes + GUARD
    return Layout(tuple(places), slots, _aligned(position), _aligned(base))


def slots_for(nbytes: int, l2_bytes: int, memory_bytes: int) -> int:
    """Return how many slots of `nbytes` to rotate through: together more than five times the L2, where memory allows.

    Small slots are many anyway, so that a series of calls is long beside the clock's resolution; a flush before the
    series makes up for what they lack. At most a quarter of the memory is taken, at least one slot.
    """
    enough = -(-5 * l2_bytes // max(1, nbytes)) + 1
    least = 8 if nbytes <= 64 << 20 else 4 if nbytes <= 512 << 20 else 2
    fitting = max(1, memory_bytes // 4 // max(1, nbytes))
    return min(max(least, min(enough, MOST_SLOTS)), fitting)


MOST_SLOTS = 128


def _aligned(position: int) -> int:
    return (position + ALIGN - 1) // ALIGN * ALIGN
