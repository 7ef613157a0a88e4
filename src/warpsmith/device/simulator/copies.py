"""Asynchronous copies (`cp.async`): issued now, there when the thread has waited for them.

A copy reads global memory when it is issued. Its bytes appear in shared memory when the thread that issued it waits
for its group; until then the destination holds bytes that read as NaN, so that a kernel that does not wait gets a
wrong result, and the sanitizer reports whoever touches them. On hardware the bytes may appear at any time between.
Other threads see them after a barrier that follows the wait.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from warpsmith.device.simulator import memory, warp
from warpsmith.device.simulator.fragment import Fragment
from warpsmith.device.simulator.site import Site

if TYPE_CHECKING:
    from warpsmith.device.simulator.machine import Chunk

Array = NDArray[Any]
UNDEFINED = 0xFF


@dataclass(frozen=True, slots=True)
class Flight:
    """Copies on their way: who issued each, in which of its groups, where to in the chunk's shared memory, what."""

    slots: Array
    groups: Array
    at: Array
    rows: NDArray[np.uint8]
    line: int

    def take(self, index: Array) -> Flight:
        """The copies at these positions."""
        return Flight(self.slots[index], self.groups[index], self.at[index], self.rows[index], self.line)


class Copies:
    """The copies of a chunk. `groups` says how many groups each thread has committed."""

    def __init__(self, chunk: Chunk) -> None:
        self.chunk = chunk
        self.flying: list[Flight] = []
        self.groups = np.zeros(chunk.slot_count, np.int64)

    def issue(
        self, fragment: Fragment, reading: Site, writing: Site, target: Array, source: Array, kept: Array | None
    ) -> None:
        """Begin to copy. `kept` bytes come from the source, all of them if it is None; the rest are zeros."""
        chunk = self.chunk
        at = memory.positions(target, writing.offset)
        memory.check_range(fragment, writing, at, chunk.shared_bytes, "shared memory")
        rows = _source(chunk, fragment, reading, source, kept)
        chunk.observe_shared(fragment, writing, at, write=True)
        where = warp.expand(fragment, memory.shared_positions(chunk, fragment, at))
        self._put(where, np.uint8(UNDEFINED), writing.width)
        self.flying.append(Flight(fragment.slots, self.groups[fragment.slots], where, rows, writing.line))
        if chunk.watch is not None:
            chunk.watch.copy_begins(fragment, writing, where)

    def commit(self, fragment: Fragment) -> None:
        """Close the group of copies that these threads have issued since the last one."""
        self.groups[fragment.slots] += 1

    def wait(self, fragment: Fragment, left: int) -> None:
        """Let all groups of these threads arrive but the last `left`."""
        if not self.flying:
            return
        limit = np.full(self.chunk.slot_count, -1, np.int64)
        limit[fragment.slots] = self.groups[fragment.slots] - left
        remaining: list[Flight] = []
        for flight in self.flying:
            done = flight.groups < limit[flight.slots]
            if not done.any():
                remaining.append(flight)
            elif done.all():
                self._arrive(flight)
            else:
                self._arrive(flight.take(np.flatnonzero(done)))
                remaining.append(flight.take(np.flatnonzero(~done)))
        self.flying = remaining

    def wait_all(self, fragment: Fragment) -> None:
        """Let all copies of these threads arrive, in a committed group or not."""
        self.commit(fragment)
        self.wait(fragment, 0)

    def _arrive(self, flight: Flight) -> None:
        self._put(flight.at, flight.rows, flight.rows.shape[1])
        if self.chunk.watch is not None:
            self.chunk.watch.copy_arrives(flight.slots, flight.at, flight.rows.shape[1], flight.line)

    def _put(self, at: Array, rows: Any, width: int) -> None:
        self.chunk.shared.view(np.dtype(np.uint8), width)[at // width] = rows


def _source(chunk: Chunk, fragment: Fragment, reading: Site, addresses: Array, kept: Array | None) -> NDArray[np.uint8]:
    """Return the bytes that each thread copies, checked: (threads, width)."""
    width = reading.width
    if kept is None:
        return _bytes(fragment, memory.load(chunk, fragment, reading, addresses))
    sizes = warp.expand(fragment, kept)
    rows = np.zeros((fragment.n, width), np.uint8)
    for size in np.unique(sizes).tolist():
        index = np.flatnonzero(sizes == size)
        part = fragment.select(index, ())
        if not 0 <= size <= width:
            raise memory.Fault("out_of_bounds", part, 0, reading.line, f"copies {size} bytes by a copy of {width}")
        if size:
            chosen = warp.expand(fragment, addresses).take(index)
            rows[index, :size] = _first_bytes(chunk, part, reading, chosen, size)
    return rows


def _first_bytes(chunk: Chunk, part: Fragment, reading: Site, addresses: Array, size: int) -> NDArray[np.uint8]:
    """Read the first `size` bytes that a copy would read. Only these must lie within a buffer."""
    width = reading.width
    if size == width:
        return _bytes(part, memory.load(chunk, part, reading, addresses))
    at = memory.positions(addresses, reading.offset)
    if (at & (width - 1)).any():
        lane = int(np.flatnonzero(at & (width - 1))[0])
        raise memory.Fault("misaligned", part, lane, reading.line, f"copies from an address not a multiple of {width}")
    dtype = np.dtype(np.int32 if size % 4 == 0 else np.uint8)
    pieces = [
        replace(reading, dtype=dtype, count=1, offset=reading.offset + start)
        for start in range(0, size, dtype.itemsize)
    ]
    return np.concatenate([_bytes(part, memory.load(chunk, part, one, addresses)) for one in pieces], axis=1)


def _bytes(fragment: Fragment, values: tuple[Array, ...]) -> NDArray[np.uint8]:
    """Lay out the elements of each thread next to each other."""
    return np.stack([warp.expand(fragment, one) for one in values], axis=1).view(np.uint8)
