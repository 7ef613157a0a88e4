"""The bulk copy engine, and the barriers in shared memory (`mbarrier`) that tell when its bytes are there.

A phase of a barrier ends when as many threads have arrived as were announced at its initialisation, and as many bytes
have come as were expected; then the next one begins (PTX ISA, "Phase of the mbarrier object"). Whoever waits says
whether an even or an odd phase must have ended.

A copy reads global memory when it is issued. Its bytes appear in shared memory when somebody looks at its barrier;
until then the destination holds bytes that read as NaN. On hardware they may appear at any time between.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from warpsmith.device.simulator import memory, warp
from warpsmith.device.simulator.copies import UNDEFINED
from warpsmith.device.simulator.fragment import Fragment
from warpsmith.device.simulator.site import Site

if TYPE_CHECKING:
    from warpsmith.device.simulator.handover import Handover
    from warpsmith.device.simulator.machine import Chunk

Array = NDArray[Any]
PIECE = 16
MOST_ARRIVALS = (1 << 20) - 1
"""The largest count of arrivals (PTX ISA)."""


@dataclass(frozen=True, slots=True)
class Flight:
    """Bytes on their way to a position in the chunk's shared memory."""

    at: int
    data: NDArray[np.uint8]


@dataclass(slots=True)
class Barrier:
    """`pending` arrivals and `due` bytes are missing in this `phase`; bytes may come before they are expected."""

    expected: int
    pending: int
    due: int = 0
    phase: int = 0
    flights: list[Flight] = field(default_factory=list)

    def advance(self) -> bool:
        """Begin the next phase if nothing is missing in this one; return whether it did."""
        if self.pending or self.due:
            return False
        self.phase += 1
        self.pending = self.expected
        return True


class Bulk:
    """The barriers of a chunk, by their positions in its shared memory, and the copies that they wait for."""

    def __init__(self, chunk: Chunk) -> None:
        self.chunk = chunk
        self.barriers: dict[int, Barrier] = {}

    @property
    def handover(self) -> Handover | None:
        """The sanitizer's knowledge of barriers, if it watches."""
        watch = self.chunk.watch
        return None if watch is None else watch.handover

    # -- barriers

    def init(self, fragment: Fragment, site: Site, addresses: Array, count: Array) -> None:
        """Threads make barriers that so many arrivals complete."""
        counts = warp.expand(fragment, count).tolist()
        for lane, at in self._places(fragment, site, addresses):
            if not 1 <= counts[lane] <= MOST_ARRIVALS:
                message = f"a barrier for {counts[lane]} arrivals: between 1 and {MOST_ARRIVALS} are possible"
                raise memory.Fault("barrier_divergence", fragment, lane, site.line, message)
            self.barriers[at] = Barrier(counts[lane], counts[lane])
            if self.handover is not None:
                self.handover.makes(int(fragment.slots[lane]), at, site.line)

    def arrive(self, fragment: Fragment, site: Site, addresses: Array, expected: Array | None) -> None:
        """Threads arrive at barriers, and may say how many bytes are `expected` in this phase."""
        sizes = None if expected is None else warp.expand(fragment, expected).tolist()
        for lane, at in self._places(fragment, site, addresses):
            barrier = self._known(fragment, site, lane, at)
            if not barrier.pending:
                message = "arrives at a barrier more often than was announced when it was initialised"
                raise memory.Fault("barrier_divergence", fragment, lane, site.line, message)
            barrier.due += sizes[lane] if sizes else 0
            barrier.pending -= 1
            if self.handover is not None:
                self.handover.arrives(int(fragment.slots[lane]), at)
            self._advance(at, barrier)

    def test(self, fragment: Fragment, site: Site, addresses: Array, parity: Array) -> NDArray[np.bool_]:
        """For each thread, whether the last phase of this parity has ended. Threads that must wait let others run."""
        parities = warp.expand(fragment, parity).tolist()
        found = np.zeros(fragment.n, np.bool_)
        for lane, at in self._places(fragment, site, addresses):
            barrier = self._known(fragment, site, lane, at)
            self._land(at, barrier)
            found[lane] = barrier.phase % 2 != parities[lane] & 1
            if found[lane] and self.handover is not None:
                self.handover.passes(int(fragment.slots[lane]), at)
        if not found.all():
            self.chunk.take_turns()
        return found

    def _places(self, fragment: Fragment, site: Site, addresses: Array) -> list[tuple[int, int]]:
        """Each thread's position in the fragment, and where its barrier lies in the chunk's shared memory."""
        at = memory.positions(addresses, site.offset)
        memory.check_range(fragment, site, at, self.chunk.shared_bytes, "shared memory")
        where = warp.expand(fragment, memory.shared_positions(self.chunk, fragment, at))
        return list(enumerate(where.tolist()))

    def _known(self, fragment: Fragment, site: Site, lane: int, at: int) -> Barrier:
        barrier = self.barriers.get(at)
        if barrier is None:
            message = (
                f"uses a barrier at offset {at % self.chunk.shared_stride} of shared memory that nobody initialised"
            )
            raise memory.Fault("uninitialised", fragment, lane, site.line, message)
        if self.handover is not None:
            self.handover.uses(fragment, lane, at, site.line)
        return barrier

    def _advance(self, at: int, barrier: Barrier) -> None:
        if barrier.advance() and self.handover is not None:
            self.handover.phase_ends(at, barrier.phase)

    # -- copies

    def copy(
        self, fragment: Fragment, reading: Site, writing: Site, target: Array, source: Array, size: Array,
        telling: Site, barrier: Array,
    ) -> None:  # fmt: skip
        """Threads send bytes from global to shared memory. Barriers hear of them when they are there."""
        chunk = self.chunk
        sizes, sources = warp.expand(fragment, size).tolist(), warp.expand(fragment, source)
        at = memory.positions(target, writing.offset)
        offsets = warp.expand(fragment, at)
        where = warp.expand(fragment, memory.shared_positions(chunk, fragment, at)).tolist()
        for lane, told in self._places(fragment, telling, barrier):
            known = self._known(fragment, telling, lane, told)
            count = sizes[lane] // PIECE
            if sizes[lane] <= 0 or sizes[lane] % PIECE:
                message = f"copies {sizes[lane]} bytes: a multiple of {PIECE} is due"
                raise memory.Fault("misaligned", fragment, lane, reading.line, message)
            # One thread, once for each piece.
            pieces = Fragment([], np.repeat(fragment.slots[lane], count), fragment.block_slots, False)
            steps = PIECE * np.arange(count)
            values = memory.load(chunk, pieces, reading, sources[lane].astype(np.int64) + steps)
            memory.check_range(pieces, writing, offsets[lane] + steps, chunk.shared_bytes, "shared memory")
            data = np.stack(values, axis=1).view(np.uint8).reshape(-1)
            if chunk.run_state.counting is not None:
                chunk.run_state.counting.matrix_read(count)
            if self.handover is not None:
                self.handover.begins(pieces, writing, where[lane] + steps)
            chunk.shared.data[where[lane] : where[lane] + sizes[lane]] = UNDEFINED
            known.flights.append(Flight(where[lane], data))

    def _land(self, at: int, barrier: Barrier) -> None:
        """Let all copies that a barrier waits for arrive."""
        for flight in barrier.flights:
            self.chunk.shared.data[flight.at : flight.at + len(flight.data)] = flight.data
            barrier.due -= len(flight.data)
            if self.handover is not None:
                self.handover.lands(at, barrier.phase, flight.at, len(flight.data))
        if barrier.flights:
            barrier.flights.clear()
            self._advance(at, barrier)
