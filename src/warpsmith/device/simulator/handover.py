"""What the sanitizer knows of barriers in shared memory (`mbarrier`) and of bulk copies: who has heard of what.

Warps and barriers have clocks. A warp that arrives at a barrier tells it all that the warp knows; when the phase ends,
whoever passes it knows that, and that the bytes of the phase are there. An access is ordered after another one if its
warp knows of it. What one thread of a warp hears, all of them do: a missing `bar.warp.sync` is not found here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from warpsmith.device.simulator.fragment import WARP, Fragment
from warpsmith.device.simulator.shadow import I4, Access, granules
from warpsmith.device.simulator.site import Site

if TYPE_CHECKING:
    from warpsmith.device.simulator.sanitizer import Watch

Array = NDArray[Any]


class Handover:
    """Clocks of a chunk: `known[w, v]` is the time of warp v up to which warp w knows of its accesses; columns behind
    those of warps are barriers, whose time is the number of phases that have ended.

    For each granule of shared memory, `bytes_of` is the column of the barrier that its last bulk copy told (0 if there
    was none, or something else was written since), `phase` the time from which the bytes are there; `flying` is the
    line of a copy on its way.
    """

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        chunk = watch.chunk
        self.warps = chunk.slot_count // WARP
        self.known = np.zeros((self.warps, 2 * self.warps), I4)
        self.known[np.arange(self.warps), np.arange(self.warps)] = 1
        self.columns: dict[int, int] = {}
        self.told: dict[int, Array] = {}
        self.passed_on: dict[int, Array] = {}
        self.made: dict[int, tuple[int, int, int]] = {}
        size = len(chunk.shared.data) // watch.shared_granule
        self.bytes_of, self.phase, self.flying = (np.zeros(size, I4) for _ in range(3))

    # -- clocks

    def time(self, slots: Array) -> Array:
        """The clocks of these threads' warps."""
        found: Array = self.known[slots // WARP, slots // WARP]
        return found

    def ordered(self, past: Access, now: Access) -> Array:
        """Whether the warps of present accesses know of past ones, all of them in blocks of this chunk."""
        chunk = self.watch.chunk
        first = chunk.first_block * chunk.block_slots
        before, warp = (past.thread - first) // WARP, (now.thread - first) // WARP
        here = (before >= 0) & (before < self.warps) & (before != warp)
        found: Array = here & (self.known[warp, np.where(here, before, 0)] >= past.clock)
        return found

    def met(self, fragment: Fragment) -> None:
        """Threads pass a barrier of their block together: each warp knows what any of them knew."""
        warps = np.unique(fragment.warp_ids)
        blocks = warps * WARP // fragment.block_slots
        for block in np.unique(blocks).tolist():
            together = warps[blocks == block]
            self.known[together] = self.known[together].max(axis=0)
            self.known[together, together] += 1

    # -- barriers

    def makes(self, slot: int, at: int, line: int) -> None:
        """A thread initialises a barrier."""
        warp = slot // WARP
        if at not in self.columns:
            column = self.columns[at] = self.warps + len(self.columns)
            if column == self.known.shape[1]:
                self.known = np.concatenate([self.known, np.zeros_like(self.known)], axis=1)
        self.told[at], self.passed_on[at] = (np.zeros(self.known.shape[1], I4) for _ in range(2))
        self.made[at] = warp, int(self.known[warp, warp]), line

    def uses(self, fragment: Fragment, lane: int, at: int, line: int) -> None:
        """A thread arrives or waits at a barrier: does it know that the barrier was initialised?"""
        maker, time, made = self.made[at]
        warp = int(fragment.slots[lane]) // WARP
        if warp != maker and self.known[warp, maker] < time:
            message = f"uses a barrier that another warp initialises in line {made}, with nothing to order the two"
            self.watch.report("shared_race", fragment, lane, line, message, made)

    def arrives(self, slot: int, at: int) -> None:
        """A thread tells a barrier what its warp knows."""
        warp = slot // WARP
        self._join(self.told, at, self.known[warp])
        self.known[warp, warp] += 1

    def phase_ends(self, at: int, phase: int) -> None:
        """As many phases of a barrier have ended: whoever passes it knows what it was told."""
        self._join(self.passed_on, at, self.told[at])
        self.passed_on[at][self.columns[at]] = phase

    def passes(self, slot: int, at: int) -> None:
        """A thread has seen that a phase has ended."""
        warp = slot // WARP
        time = self.known[warp, warp]
        known = self.passed_on[at]
        np.maximum(self.known[warp, : len(known)], known, out=self.known[warp, : len(known)])
        self.known[warp, warp] = time

    def _join(self, table: dict[int, Array], at: int, known: Array) -> None:
        """Add what somebody knows to a barrier's own."""
        own = np.zeros(self.known.shape[1], I4)
        own[: len(table[at])] = table[at]
        np.maximum(own[: len(known)], known, out=own[: len(known)])
        table[at] = own

    # -- copies

    def begins(self, pieces: Fragment, site: Site, at: Array) -> None:
        """A thread sends bytes to positions in the chunk's shared memory: is anyone else still at work there?"""
        watch = self.watch
        count = max(1, site.width // watch.shared_granule)
        places = granules(at, watch.shared_granule, count)
        self.check(pieces, site.line, places, count, "copies to")
        if watch.proxies is not None:
            watch.proxies.check_write(pieces, site, places, count, mine=False)
        access = watch.access(pieces.slots, site.line, False, count)
        found = watch.shared_shadow.disturbed(places, access, watch.order)
        if found is not None:
            position, other, line, what = found
            block, thread = watch.chunk.run_state.place(other)
            message = f"copies to {watch.offset(places[position])}, which thread {thread} of block {block} {what} "
            message += f"in line {line} with nothing to order the two"
            watch.report("shared_race", pieces, position // count, site.line, message, line)
        self.flying[places] = site.line

    def lands(self, at: int, phase: int, start: int, size: int) -> None:
        """Bytes that a barrier waited for in a phase are there."""
        watch = self.watch
        places = np.arange(start // watch.shared_granule, (start + size) // watch.shared_granule)
        self.flying[places] = 0
        self.bytes_of[places] = self.columns[at]
        self.phase[places] = phase + 1
        watch.shared_known[start : start + size] = 1
        watch.shared_shadow.forget(places)
        if watch.proxies is not None:
            watch.proxies.unfenced[places] = False

    def check(self, fragment: Fragment, line: int, places: Array, count: int, action: str, warp: int = 0) -> None:
        """Report threads that touch bytes of bulk copies, `count` granules each, before they know them to be there.

        `warp` is how far the warps that touch them are from those of the fragment.
        """
        flying = self.flying[places] > 0
        warps = np.repeat(fragment.slots // WARP, count) + warp
        early = (self.bytes_of[places] > 0) & (self.known[warps, self.bytes_of[places]] < self.phase[places])
        wrong = flying | early
        if wrong.any():
            position = int(np.argmax(wrong))
            message = f"{action} {self.watch.offset(places[position])}, "
            message += "while a bulk copy to it is on its way" if flying[position] else "where a bulk copy goes"
            message += ": the warp must see the phase of the copy's barrier end first (mbarrier.try_wait)"
            self.watch.report(
                "shared_race", fragment, position // count, line, message, int(self.flying[places[position]])
            )

    def access(self, fragment: Fragment, site: Site, at: Array, write: bool) -> None:
        """Threads access positions in the chunk's shared memory by ordinary loads and stores."""
        count = max(1, site.width // self.watch.shared_granule)
        places = granules(at, self.watch.shared_granule, count)
        self.check(fragment, site.line, places, count, "writes to" if write else "reads")
        if write:
            self.bytes_of[places] = 0
