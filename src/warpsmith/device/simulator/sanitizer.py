"""Finds what happens to work: uninitialised reads, data races, barriers that not all threads reach.

Uninitialised: shared and local memory, outputs and scratch, byte by byte. Races: see `shadow`; inputs are not
watched, since writing them is found out anyway. A store of the value that is there already is a race all the same,
and says so. Each pair of source lines is reported once.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from warpsmith.device.arena import Arena
from warpsmith.device.simulator.flow import Flow
from warpsmith.device.simulator.fragment import Fragment
from warpsmith.device.simulator.handover import Handover
from warpsmith.device.simulator.meetings import Meetings
from warpsmith.device.simulator.memory import GLOBAL_BASE, shared_positions
from warpsmith.device.simulator.proxies import Proxies
from warpsmith.device.simulator.ptx import Instruction
from warpsmith.device.simulator.shadow import Access, Flights, Order, Shadow, granules
from warpsmith.device.simulator.site import Site
from warpsmith.device.simulator.wgmma import multiplies
from warpsmith.records import Finding, FindingKind

if TYPE_CHECKING:
    from warpsmith.device.simulator.machine import Chunk

Array = NDArray[Any]
MOST_FINDINGS = 32


class Initialised:
    """Which bytes of the arena hold defined values; lives as long as the call."""

    def __init__(self, arena: Arena) -> None:
        self.known = np.zeros(len(arena.data), np.uint8)
        for region in arena.regions.values():
            if region.role in ("input", "variable"):
                self.known[region.start : region.end] = 1


class Sanitizer:
    """Watches one launch."""

    def __init__(
        self,
        kernel: str,
        flow: Flow,
        sites: tuple[Site, ...],
        arena: Arena,
        initialised: Initialised,
        blocks: int,
        cluster: int,
    ) -> None:
        self.kernel = kernel
        self.arena = arena
        self.initialised = initialised
        self.blocks = blocks
        steps = [step for block in flow.blocks for step in block.steps]
        meetings = [step for step in steps if step.opcode == "barrier" and step.modifiers[:1] == ("cluster",)]
        self.fences = any(
            (step.opcode in ("membar", "fence") and "proxy" not in step.modifiers)
            or ({"acquire", "release", "acq_rel"} & set(step.modifiers) and step.opcode != "barrier")
            for step in steps
        )
        self.cluster = cluster if meetings else 0
        self.relaxed = any("relaxed" in step.modifiers for step in meetings)
        self.products = any(multiplies(step) for step in steps)
        self.granules = {
            space: min((site.width for site in sites if site.space in (space, "generic", other)), default=4)
            for space, other in (("global", ""), ("shared", "cluster"))
        }
        self.granules = {space: min(width, 4) for space, width in self.granules.items()}
        self.barriers = any(step.opcode == "mbarrier" for step in steps)
        self.more = ("arrivals",) * (self.cluster > 0) + ("clock",) * self.barriers
        self.shadow = Shadow(len(arena.data) // self.granules["global"], self.more)
        self.order: Order | None = None
        self.findings: list[Finding] = []
        self._seen: set[tuple[str, int, int]] = set()

    def watch(self, chunk: Chunk) -> Watch:
        """Begin to watch a chunk."""
        if self.order is None:
            self.order = Order(chunk.block_slots, self.blocks, self.fences, self.cluster, self.relaxed)
        return Watch(self, chunk, self.order)

    def add(self, finding: Finding, other_line: int) -> None:
        """Keep a finding unless this pair of lines was reported."""
        key = (finding.kind, finding.line, other_line)
        if key not in self._seen and len(self.findings) < MOST_FINDINGS:
            self._seen.add(key)
            self.findings.append(finding)


class Watch:
    """Watches one chunk: its shared and local memory, and its part of global memory."""

    def __init__(self, sanitizer: Sanitizer, chunk: Chunk, order: Order) -> None:
        self.sanitizer = sanitizer
        self.chunk = chunk
        self.order = order
        self.shared_known = np.zeros(len(chunk.shared.data), np.uint8)
        self.local_known = np.zeros(len(chunk.local.data), np.uint8)
        self.shared_granule = sanitizer.granules["shared"]
        self.shared_shadow = Shadow(len(chunk.shared.data) // self.shared_granule, sanitizer.more)
        self.flights: Flights | None = None
        self.epoch = np.zeros(chunk.slot_count, np.int32)
        self.sub = np.zeros(chunk.slot_count, np.int32)
        self.proxies = Proxies(self) if sanitizer.products else None
        self.meetings = Meetings(self) if order.cluster else None
        self.handover = Handover(self) if sanitizer.barriers else None

    # -- accesses

    def global_access(self, fragment: Fragment, site: Site, at: Array, write: bool, values: tuple[Array, ...]) -> None:
        """Threads access global memory at byte positions of the arena."""
        s = self.sanitizer
        at = np.broadcast_to(at, (fragment.n,))
        self._initialised(s.initialised.known, fragment, site, at, write, at)
        if site.read_only and not write:
            return
        if site.atomic or site.strong:
            blocks = fragment.block_ids + self.chunk.first_block
            self.order.synchronise(blocks, at, site.atomic or not write, site.atomic or write)
        self._race("global_race", s.shadow, s.granules["global"], fragment, site, at, at, write, values)

    def shared_access(self, fragment: Fragment, site: Site, at: Array, write: bool, values: tuple[Array, ...]) -> None:
        """Threads access shared memory at byte offsets."""
        where = np.broadcast_to(shared_positions(self.chunk, fragment, at), (fragment.n,))
        self._shared_at(fragment, site, np.broadcast_to(at, (fragment.n,)), where, write, values)

    def cluster_access(
        self, fragment: Fragment, site: Site, offsets: Array, where: Array, far: Array, write: bool,
        values: tuple[Array, ...],
    ) -> None:  # fmt: skip
        """Threads access shared memory of their cluster, at positions in that of the chunk, `far` in other blocks."""
        if far.any():
            early = far if self.meetings is None else far & (self.meetings.waits[fragment.slots] == 0)
            if early.any():
                message = "accesses the shared memory of another block, which may not have begun: "
                message += "a barrier of the cluster must come before"
                self.report("shared_race", fragment, int(np.flatnonzero(early)[0]), site.line, message, 0)
        self._shared_at(fragment, site, offsets, where, write, values)

    def _shared_at(
        self, fragment: Fragment, site: Site, offsets: Array, at: Array, write: bool, values: tuple[Array, ...]
    ) -> None:
        self._initialised(self.shared_known, fragment, site, at, write, offsets)
        if self.flights is not None:
            self._in_flight(self.flights, fragment, site, at, offsets, write)
        if self.proxies is not None and (write or site.atomic):
            self.proxies.write(fragment, site, at)
        if self.handover is not None:
            self.handover.access(fragment, site, at, write or site.atomic)
        self._race("shared_race", self.shared_shadow, self.shared_granule, fragment, site, at, offsets, write, values)

    def local_access(self, fragment: Fragment, site: Site, at: Array, write: bool) -> None:
        """Threads access local memory at byte positions of the chunk."""
        at = np.broadcast_to(at, (fragment.n,))
        self._initialised(self.local_known, fragment, site, at, write, at % max(1, self.chunk.local_stride))

    def _initialised(
        self, known: NDArray[np.uint8], fragment: Fragment, site: Site, at: Array, write: bool, offsets: Array
    ) -> None:
        """Check that reads find defined bytes; mark written ones as defined."""
        positions = at[:, None] + np.arange(site.width)
        if site.atomic or not write:
            undefined = ~known[positions].all(axis=1)
            if undefined.any() and ".exch" not in site.text:
                lane = int(np.flatnonzero(undefined)[0])
                where = self._where(site, int(offsets[lane]))
                self.report("uninitialised", fragment, lane, site.line, f"reads {where}, which nobody has written", 0)
        if write:
            known[positions] = 1

    def _race(
        self,
        kind: FindingKind,
        shadow: Shadow,
        granule: int,
        fragment: Fragment,
        site: Site,
        at: Array,
        offsets: Array,
        write: bool,
        values: tuple[Array, ...],
    ) -> None:
        pieces = max(1, site.width // granule)
        flat = granules(at, granule, pieces)
        access = self.access(fragment.slots, site.line, site.atomic or site.strong, pieces)
        if write:
            found = shadow.write(flat, access, self.order)
        else:
            race = shadow.read(flat, access, self.order)
            found = None if race is None else (*race, "writes")
        if found is None:
            return
        position, other, other_line, what = found
        lane = position // pieces
        action = "accesses" if site.atomic else "writes" if write else "reads"
        block, thread = self._place(other)
        message = f"{action} {self._where(site, int(offsets[lane]))}, which thread {thread} of block {block} {what}"
        message += f" in line {other_line} with nothing to order the two"
        if what == "writes" and self._same_value(kind, site, at, values, lane):
            message += " (the same value)"
        self.report(kind, fragment, lane, site.line, message, other_line)

    def access(self, slots: Array, line: int, exempt: bool, pieces: int) -> Access:
        """Accesses by the threads of these slots, each of so many granules."""
        slots = np.repeat(slots, pieces)
        blocks = slots // self.chunk.block_slots + self.chunk.first_block
        thread = slots + self.chunk.first_block * self.chunk.block_slots
        access = Access(thread, self.epoch[slots], self.sub[slots], self.order.version[blocks], line, exempt)
        if self.meetings is not None:
            access = self.meetings.dated(access, slots)
        if self.handover is not None:
            access = replace(access, clock=self.handover.time(slots), handover=self.handover)
        return access

    def _same_value(self, kind: FindingKind, site: Site, at: Array, values: tuple[Array, ...], lane: int) -> bool:
        """Whether a store brings what is there already, or what the other threads of the instruction bring."""
        if len(values) != 1:
            return False
        memory = self.chunk.memory if kind == "global_race" else self.chunk.shared
        value = np.broadcast_to(values[0], at.shape)
        together = value[at == at[lane]]
        if len(together) > 1:
            return bool((together == together[0]).all())
        return bool(memory.view(site.dtype)[int(at[lane]) // site.width] == value[lane])

    # -- asynchronous copies

    def copy_begins(self, fragment: Fragment, site: Site, at: Array) -> None:
        """Threads issued copies to these positions of the chunk's shared memory."""
        if self.flights is None:
            self.flights = Flights(len(self.chunk.shared.data) // self.shared_granule)
        pieces = site.width // self.shared_granule
        access = self.access(fragment.slots, site.line, False, pieces)
        self.flights.set(granules(at, self.shared_granule, pieces), access.thread + 1, site.line)

    def copy_arrives(self, slots: Array, at: Array, width: int, line: int) -> None:
        """Copies that these threads issued in a line are there; from now on they are writes by these threads."""
        pieces = width // self.shared_granule
        places = granules(at, self.shared_granule, pieces)
        if self.flights is not None:
            self.flights.set(places, 0, 0)
        if self.proxies is not None:
            self.proxies.wrote(places)
        self.shared_shadow.set("write", places, self.access(slots, line, False, pieces))

    def _in_flight(
        self, flights: Flights, fragment: Fragment, site: Site, at: Array, offsets: Array, write: bool
    ) -> None:
        """Report an access to what a copy is on its way to."""
        pieces = max(1, site.width // self.shared_granule)
        found = flights.first(granules(at, self.shared_granule, pieces))
        if found is not None:
            lane = found[0] // pieces
            action = f"{'writes' if write else 'reads'} {self._where(site, int(offsets[lane]))}"
            self._report_copy(fragment, lane, site.line, action, found[1], found[2])

    def copy_in_flight(self, fragment: Fragment, lane: int, line: int, places: Array) -> None:
        """Report a `wgmma` that reads granules while a copy to one of them is on its way."""
        found = None if self.flights is None else self.flights.first(places)
        if found is not None:
            action = f"a wgmma reads {self.offset(places[found[0]])}"
            self._report_copy(fragment, lane, line, action, found[1], found[2])

    def _report_copy(self, fragment: Fragment, lane: int, line: int, action: str, other: int, other_line: int) -> None:
        block, thread = self._place(other)
        message = f"{action} while a copy to it is on its way, which thread {thread} of block {block} issued in line "
        message += f"{other_line}; that thread must wait for it (cp.async.wait_group), and the others at a barrier "
        self.report("shared_race", fragment, lane, line, message + "thereafter", other_line)

    # -- order

    def block_barrier(self, fragment: Fragment) -> None:
        """Threads pass a barrier together."""
        latest = np.zeros(self.chunk.block_count, np.int32)
        np.maximum.at(latest, fragment.block_ids, self.epoch[fragment.slots])
        self.epoch[fragment.slots] = latest[fragment.block_ids] + 1
        if self.handover is not None:
            self.handover.met(fragment)

    def cluster_arrive(self, fragment: Fragment, relaxed: bool) -> None:
        """Threads arrive at the barrier of their cluster."""
        if self.meetings is not None:
            self.meetings.arrive(fragment, relaxed and not self.order.fences)

    def cluster_wait(self, fragment: Fragment) -> None:
        """Threads go on after the barrier of their cluster."""
        if self.meetings is not None:
            self.meetings.waits[fragment.slots] += 1

    def blocks_ended(self, blocks: list[int]) -> None:
        """All threads of these blocks of the chunk have ended."""
        if self.meetings is not None:
            self.meetings.ended(blocks)

    def warp_barrier(self, fragment: Fragment) -> None:
        """Threads pass a warp barrier together."""
        latest = np.zeros(self.chunk.slot_count // 32, np.int32)
        np.maximum.at(latest, fragment.warp_ids, self.sub[fragment.slots])
        self.sub[fragment.slots] = latest[fragment.warp_ids] + 1

    def absent_lane(self, fragment: Fragment, lane: int, line: int) -> None:
        """A thread needs one of its warp that is not there."""
        message = "a warp instruction needs a thread of the warp that does not take part: its value is undefined"
        self.report("uninitialised", fragment, lane, line, message, 0)

    def mixed_barriers(self, arrivals: list[tuple[Instruction, Fragment]]) -> None:
        """Threads meet at different barrier instructions: harmless only where no block has both."""
        blocks: dict[int, tuple[Instruction, Fragment]] = {}
        for instruction, fragment in arrivals:
            for block in np.unique(fragment.block_ids).tolist():
                known = blocks.setdefault(block, (instruction, fragment))
                if known[0] is not instruction:
                    message = f"threads of one block wait at different barriers, in lines {known[0].line} and "
                    message += f"{instruction.line}"
                    self.report("barrier_divergence", fragment, 0, instruction.line, message, known[0].line)

    # -- reports

    def _where(self, site: Site, offset: int) -> str:
        if site.space == "global":
            return "memory " + self.sanitizer.arena.describe(offset, GLOBAL_BASE)
        if site.space == "cluster":
            return f"shared memory of its cluster, at offset {offset} of a block"
        return f"{site.space} memory at offset {offset}"

    def offset(self, place: Any) -> str:
        """Where a granule of shared memory lies in its block."""
        stride = max(1, self.chunk.shared_stride)
        return f"shared memory at offset {int(place) * self.shared_granule % stride}"

    def _place(self, thread: int) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
        return self.chunk.run_state.place(thread)

    def report(
        self, kind: FindingKind, fragment: Fragment, lane: int, line: int, message: str, other_line: int
    ) -> None:
        """Keep a finding about the thread at a position of the fragment."""
        slot = int(fragment.slots[lane]) + self.chunk.first_block * self.chunk.block_slots
        block, thread = self._place(slot)
        self.sanitizer.add(Finding(kind, self.sanitizer.kernel, line, message, block, thread), other_line)
