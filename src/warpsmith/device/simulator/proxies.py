"""What the sanitizer knows of `wgmma` and shared memory: reads that go on until they are waited for, and proxies.

A product reads its matrices from the moment when it is issued until its warpgroup has waited for it. Writing to them
meanwhile is a race; afterwards they may be written to by the warpgroup itself, and by others after a barrier. What was
written before needs a barrier, since all four warps read.

Hardware reads the matrices by another path (the asynchronous proxy) than ordinary stores and `cp.async` write (the
generic proxy). PTX ISA, "Async Proxy": a `fence.proxy.async` must stand between. It counts here where the writing
thread executes it after the write, the reading warps after the barrier, or any thread of the block between two
barriers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from warpsmith.device.simulator.fragment import WARP, Fragment
from warpsmith.device.simulator.shadow import Access, granules
from warpsmith.device.simulator.site import Site
from warpsmith.device.simulator.warpgroups import WARPGROUP, WARPS

if TYPE_CHECKING:
    from warpsmith.device.simulator.sanitizer import Watch

Array = NDArray[Any]
I4 = np.dtype(np.int32)
PIECE = 16
NEVER = -1


class Proxies:
    """Watches a chunk's shared memory for `wgmma`, in granules of the watch's size.

    `unfenced` marks granules that were written and not fenced by their writer. `fence` holds the barriers that each
    thread had passed when it last fenced; `latest` and `before` those at the last two fences of each block.
    """

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        chunk = watch.chunk
        self.granule = watch.shared_granule
        size = len(chunk.shared.data) // self.granule
        self.unfenced = np.zeros(size, np.bool_)
        self.reading = np.zeros(size, I4)
        self.reader = np.zeros(size, I4)
        self.line = np.zeros(size, I4)
        self.groups = -(-chunk.block_slots // WARPGROUP)
        self.finished_at = np.full((self.groups, size), NEVER, I4)
        clocks = watch.sanitizer.barriers
        self.finished_clock = np.zeros((self.groups, WARPS, size), I4) if clocks else None
        self.fence_at = np.full(chunk.slot_count, NEVER, I4)
        self.latest = np.full(chunk.block_count, NEVER, I4)
        self.before = np.full(chunk.block_count, NEVER, I4)
        self.flights: dict[int, tuple[Array, list[Array]]] = {}

    # -- products

    def read(self, fragment: Fragment, line: int, number: int, pieces: Array) -> None:
        """Warpgroups begin to read pieces of 16 bytes: positions in the chunk's shared memory, (warpgroups, pieces)."""
        first = fragment.slots[::WARPGROUP]
        held: list[Array] = []
        for group, at in enumerate(pieces):
            lane = group * WARPGROUP
            places = np.unique(granules(at, self.granule, PIECE // self.granule))
            self._check(fragment, lane, line, places)
            self.reading[places] += 1
            self.reader[places] = first[group]
            self.line[places] = line
            held.append(places)
        self.flights[number] = first, held

    def finished(self, number: int, pending: Array) -> None:
        """Of a product, the warpgroups that are not `pending` have read all."""
        first, held = self.flights[number]
        for group in np.flatnonzero(~pending).tolist():
            places, slot = held[group], int(first[group])
            if len(places):
                self.reading[places] -= 1
                within = slot % self.watch.chunk.block_slots // WARPGROUP
                self.finished_at[within, places] = self.watch.epoch[slot]
                if self.finished_clock is not None and self.watch.handover is not None:
                    warps = slot + WARP * np.arange(WARPS)
                    self.finished_clock[within, :, places] = self.watch.handover.time(warps)
                held[group] = places[:0]
        if pending.any():
            return
        del self.flights[number]

    def _check(self, fragment: Fragment, lane: int, line: int, places: Array) -> None:
        """Check what a warpgroup, the first of whose threads is at `lane`, begins to read."""
        watch = self.watch
        known = watch.shared_known.reshape(-1, self.granule)[places].all(axis=1)
        if not known.all():
            message = f"a wgmma reads {watch.offset(places[np.argmin(known)])}, which nobody has written"
            watch.report("uninitialised", fragment, lane, line, message, 0)
        if watch.flights is not None:
            watch.copy_in_flight(fragment, lane, line, places)
        if watch.handover is not None:
            one = fragment.select(np.full(len(places), lane), ())
            for warp in range(WARPS):
                watch.handover.check(one, line, places, 1, "a wgmma reads", warp)
        past, lines, _ = watch.shared_shadow.past("write", places)
        written = past.thread >= 0
        racing = np.zeros(len(places), np.bool_)
        hidden = self.unfenced[places] & written
        for warp in range(WARPS):
            now = self._access(int(fragment.slots[lane + WARP * warp]), len(places), line)
            racing |= written & ~watch.order.ordered(past, now)
            hidden &= ~self._fenced(past, now)
        for wrong, what in (
            (racing, " with nothing to order the two: a barrier must follow the write"),
            (hidden, " through another proxy: fence.proxy.async must follow the write"),
        ):
            if wrong.any():
                position = int(np.argmax(wrong))
                message = f"a wgmma reads {watch.offset(places[position])}, which {self._writer(past.thread[position])}"
                message += f" writes in line {int(lines[position])}{what}"
                watch.report("shared_race", fragment, lane, line, message, int(lines[position]))

    def _access(self, slot: int, size: int, line: int) -> Access:
        """An access by one thread to several granules."""
        slots = np.full(size, slot)
        chunk = self.watch.chunk
        thread = slots + chunk.first_block * chunk.block_slots
        return Access(thread, self.watch.epoch[slots], self.watch.sub[slots], np.zeros(size, I4), line, False)

    def _fenced(self, past: Access, now: Access) -> Array:
        """Whether a fence of the reading thread, or of another between barriers, stands between write and read."""
        chunk = self.watch.chunk
        slots = now.thread - chunk.first_block * chunk.block_slots
        block = slots // chunk.block_slots
        between = (self.latest[block] > past.epoch) & (self.latest[block] < now.epoch)
        between |= (self.before[block] > past.epoch) & (self.before[block] < now.epoch)
        found: Array = between | (self.fence_at[slots] > past.epoch)
        return found

    # -- fences and writes

    def fence(self, fragment: Fragment) -> None:
        """`fence.proxy.async`."""
        watch, slots = self.watch, fragment.slots
        self.fence_at[slots] = watch.epoch[slots]
        blocks = np.unique(fragment.block_ids)
        now = np.full(len(self.latest), NEVER, I4)
        np.maximum.at(now, fragment.block_ids, watch.epoch[slots])
        newer = blocks[now[blocks] > self.latest[blocks]]
        self.before[newer] = self.latest[newer]
        self.latest[newer] = now[newer]
        places = np.flatnonzero(self.unfenced)
        past, _, _ = watch.shared_shadow.past("write", places)
        writer = past.thread - watch.chunk.first_block * watch.chunk.block_slots
        here = np.zeros(watch.chunk.slot_count, np.bool_)
        here[slots] = True
        # A fence of another thread of the warp counts where the warp came together since the write.
        joined = np.full(watch.chunk.slot_count // WARP, NEVER, I4)
        np.maximum.at(joined, fragment.warp_ids, watch.sub[slots])
        same_epoch = watch.epoch[writer] == past.epoch
        after = here[writer] | (same_epoch & (joined[writer // WARP] > past.sub))
        self.unfenced[places[after & (past.thread >= 0)]] = False

    def wrote(self, places: Array) -> None:
        """Granules were written through the generic proxy."""
        self.unfenced[places] = True

    def write(self, fragment: Fragment, site: Site, at: Array) -> None:
        """Threads write to shared memory at positions in the chunk: is a product reading there?"""
        pieces = max(1, site.width // self.granule)
        places = granules(at, self.granule, pieces)
        self.wrote(places)
        self.check_write(fragment, site, places, pieces, mine=True)

    def check_write(self, fragment: Fragment, site: Site, places: Array, pieces: int, *, mine: bool) -> None:
        """Report writes to granules, `pieces` by each thread, that a product reads, or has read with nothing between.

        What its own warpgroup has read, a thread may write to if it is it who writes (`mine`); the copy engine may not,
        as long as nothing tells that all four warps are done.
        """
        reading = self.reading[places] > 0
        if reading.any():
            position = int(np.argmax(reading))
            message = f"writes {self.watch.offset(places[position])} while the wgmma in line "
            message += f"{self.line[places[position]]} reads "
            message += "it; its warpgroup must wait (wgmma.wait_group), and other threads at a barrier thereafter"
            self._report(fragment, site, position // pieces, places[position], message)
            return
        slots = np.repeat(fragment.slots, pieces)
        own, epoch = slots % self.watch.chunk.block_slots // WARPGROUP, self.watch.epoch[slots]
        for group in range(self.groups):
            racing = (self.finished_at[group, places] == epoch) & ((own != group) | (not mine))
            racing &= ~self._told(group, places, slots)
            if racing.any():
                position = int(np.argmax(racing))
                message = f"writes {self.watch.offset(places[position])}, which warpgroup {group} of the block reads "
                message += f"by the wgmma in line {self.line[places[position]]} with nothing to order the two"
                self._report(fragment, site, position // pieces, places[position], message)

    def _told(self, group: int, places: Array, slots: Array) -> Array:
        """Whether these threads know by barriers in shared memory that a warpgroup of their block has finished."""
        if self.finished_clock is None or self.watch.handover is None:
            return np.zeros(len(places), np.bool_)
        warp = slots // WARP
        first = slots // self.watch.chunk.block_slots * (self.watch.chunk.block_slots // WARP) + group * WARPS
        told = np.ones(len(places), np.bool_)
        for number in range(WARPS):
            clock = self.finished_clock[group, number, places]
            told &= (warp == first + number) | (self.watch.handover.known[warp, first + number] >= clock)
        return told

    # -- reports

    def _report(self, fragment: Fragment, site: Site, lane: int, place: Any, message: str) -> None:
        self.watch.report("shared_race", fragment, lane, site.line, message, int(self.line[place]))

    def _writer(self, thread: Any) -> str:
        block, at = self.watch.chunk.run_state.place(int(thread))
        return f"thread {at} of block {block}"
