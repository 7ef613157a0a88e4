"""A set of threads at the same place in the program, with their registers.

A register's value is an array with one element for each thread of the fragment, in ascending order of their slots;
an array of length 1 stands for the same value in every thread. Arrays are never changed in place, so values are
shared freely. Where a branch divides a fragment, it is split in two; where two meet, they are joined.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
WARP = 32


class Fragment:
    """Threads by their slots in the chunk: 32 slots per warp, whole warps per block, ascending."""

    __slots__ = ("R", "_block_ids", "_warp_ids", "_warps", "block_slots", "cache", "full", "n", "slots")

    def __init__(self, registers: list[Any], slots: Array, block_slots: int, full: bool) -> None:
        self.R = registers
        self.slots = slots
        self.n = int(slots.shape[0])
        self.full = full
        self.block_slots = block_slots
        self._warps = -1
        self._warp_ids: Array | None = None
        self._block_ids: Array | None = None
        self.cache: dict[str, Array] = {}

    @property
    def warp_ids(self) -> Array:
        """The warp of each thread, counted over the chunk."""
        if self._warp_ids is None:
            self._warp_ids = self.slots >> 5
        return self._warp_ids

    @property
    def block_ids(self) -> Array:
        """The block of each thread, counted over the chunk."""
        if self._block_ids is None:
            self._block_ids = self.slots // self.block_slots
        return self._block_ids

    @property
    def warps(self) -> int:
        """How many warps have threads here."""
        if self._warps < 0:
            ids = self.warp_ids
            self._warps = 1 + int(np.count_nonzero(ids[1:] != ids[:-1]))
        return self._warps

    def select(self, index: Array, live: Sequence[int]) -> Fragment:
        """Return the fragment of the threads at these positions (ascending), with the registers that they need."""
        registers: list[Any] = [None] * len(self.R)
        for slot in live:
            value = self.R[slot]
            registers[slot] = value if value.shape[0] == 1 else value.take(index)
        return Fragment(registers, self.slots.take(index), self.block_slots, False)


def join(fragments: Sequence[Fragment], live: Sequence[int], all_slots: Array) -> Fragment:
    """Unite fragments that are at the same place; `all_slots` are those of every thread of the chunk."""
    if len(fragments) == 1:
        return fragments[0]
    slots = np.concatenate([fragment.slots for fragment in fragments])
    order = np.argsort(slots, kind="stable")
    total = int(slots.shape[0])
    registers: list[Any] = [None] * len(fragments[0].R)
    for slot in live:
        values = [fragment.R[slot] for fragment in fragments]
        first = values[0]
        if all(value.shape[0] == 1 for value in values) and all(_same(first, value) for value in values[1:]):
            registers[slot] = first
            continue
        parts = [
            value if value.shape[0] == fragment.n else np.broadcast_to(value, (fragment.n,))
            for value, fragment in zip(values, fragments)
        ]
        registers[slot] = np.concatenate(parts).take(order)
    full = total == all_slots.shape[0]
    return Fragment(registers, all_slots if full else slots.take(order), fragments[0].block_slots, full)


def _same(a: Array, b: Array) -> bool:
    """Whether two values of one element have the same bits."""
    return a is b or a.tobytes() == b.tobytes()
