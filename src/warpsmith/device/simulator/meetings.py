"""What the sanitizer knows of barriers of clusters: who has arrived and waited how often, and what blocks leave behind.

The shared memory of a block is gone when its last thread has ended. Whoever of another block accesses it must have met
that block at a barrier of the cluster afterwards; if nothing says so, hardware may find the memory in other hands.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from warpsmith.device.simulator.fragment import Fragment
from warpsmith.device.simulator.shadow import I4, Access
from warpsmith.records import Finding

if TYPE_CHECKING:
    from warpsmith.device.simulator.sanitizer import Watch

Array = NDArray[Any]


class Meetings:
    """The barriers of clusters that the threads of a chunk have arrived at and waited for, by slot."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.arrivals = np.zeros(watch.chunk.slot_count, I4)
        self.waits = np.zeros(watch.chunk.slot_count, I4)

    def dated(self, access: Access, slots: Array) -> Access:
        """An access by the threads of these slots, with what tells of barriers."""
        return replace(access, arrivals=self.arrivals[slots], waits=self.waits[slots])

    def arrive(self, fragment: Fragment, relaxed: bool) -> None:
        """Threads arrive; others see what they did before, unless they do so `relaxed`."""
        self.arrivals[fragment.slots] += 1
        released = self.watch.order.released_at
        if released is not None and not relaxed:
            chunk = self.watch.chunk
            released[fragment.slots + chunk.first_block * chunk.block_slots] = self.arrivals[fragment.slots]

    def ended(self, blocks: list[int]) -> None:
        """Report what others did to the shared memory of these blocks, and may do after they have ended."""
        chunk, shadow = self.watch.chunk, self.watch.shared_shadow
        granules = chunk.shared_stride // self.watch.shared_granule
        for block in blocks:
            slots = slice(block * chunk.block_slots, (block + 1) * chunk.block_slots)
            waits = self.waits[slots].max(keepdims=True)
            for kind in shadow.records:
                past, lines, _ = shadow.past(kind, np.arange(block * granules, (block + 1) * granules))
                others = (past.thread >= 0) & (past.thread // chunk.block_slots != block + chunk.first_block)
                late = np.flatnonzero(others & ~self.watch.order.met(past, waits))
                if late.size:
                    self._report(block, int(past.thread[late[0]]), int(lines[late[0]]))
                    break

    def _report(self, block: int, thread: int, line: int) -> None:
        chunk, sanitizer = self.watch.chunk, self.watch.sanitizer
        owner = chunk.run_state.place((block + chunk.first_block) * chunk.block_slots)[0]
        message = f"accesses the shared memory of block {owner}, which may have ended: nothing makes that block wait; "
        message += "a barrier of the cluster must come after"
        where, who = chunk.run_state.place(thread)
        sanitizer.add(Finding("shared_race", sanitizer.kernel, line, message, where, who), 0)
