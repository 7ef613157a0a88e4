"""The scheduler: whole blocks run together, the lowest program counter among runnable threads first.

A chunk holds some blocks of a launch. Its threads begin as one fragment; a branch on which they disagree splits it,
and fragments that come to the same place are joined. As long as all agree, nothing is masked or copied. Threads wait
only at the beginning of a basic block: at a barrier for their block, at `.sync` instructions for their warp.

Fairness: hardware promises that every thread makes progress, which the lowest program counter alone would not keep
where threads spin. So after `PATIENCE` basic blocks the fragments take turns for a while, `STEP` blocks each.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from warpsmith.device.simulator import warp, warpgroups
from warpsmith.device.simulator.barriers import Barriers
from warpsmith.device.simulator.bulk import Bulk
from warpsmith.device.simulator.clusters import Clusters, Three, block_place
from warpsmith.device.simulator.copies import Copies
from warpsmith.device.simulator.flow import Barrier, Branch, ClusterWait, Exit, Jump, Switch
from warpsmith.device.simulator.fragment import Fragment, join
from warpsmith.device.simulator.memory import Fault, Memory
from warpsmith.device.simulator.products import Products
from warpsmith.device.simulator.site import Site
from warpsmith.records import GpuSpec

if TYPE_CHECKING:
    from warpsmith.device.simulator.launch import KernelRun

Array = NDArray[Any]
PATIENCE = 1024
TURN = 1024
STEP = 64


class Chunk:
    """Some consecutive blocks of a launch, from the first instruction to the last thread's end."""

    def __init__(self, run: KernelRun, first_block: int, block_count: int) -> None:
        self.run_state: KernelRun = run
        self.code = run.code
        self.flow = run.flow
        self.spec: GpuSpec = run.spec
        self.memory = run.memory
        self.regions = run.arena
        self.grid: Three = run.grid
        self.block: Three = run.block
        self.cluster: Three = run.cluster
        self.first_block: int = first_block
        self.block_count: int = block_count
        self.block_threads = run.block_threads
        self.block_slots: int = (self.block_threads + 31) // 32 * 32
        self.whole_warps = self.block_slots == self.block_threads
        self.slot_count = self.block_slots * block_count
        self.shared_bytes: int = run.shared_bytes
        self.dynamic_shared: int = run.dynamic_shared
        self.shared_stride = (self.shared_bytes + 15) // 16 * 16
        self.shared = Memory(run.scratch(self.shared_stride * block_count))
        self.local_bytes = self.flow.local_bytes
        self.local_stride = (self.local_bytes + 15) // 16 * 16
        self.local = Memory(run.scratch(self.local_stride * self.slot_count))
        self.slots = run.slots(block_count)
        self.barrier_values: tuple[str, Array] | None = None
        registers: list[Any] = [None] * len(self.code.slots)
        zero = {name: np.zeros(1, run.code.homes[name]) for name in self.flow.blocks[0].live_in}
        for name, value in zero.items():
            registers[self.code.slots[name]] = value
        first = Fragment(registers, self.slots, self.block_slots, True)
        self.ready: dict[int, list[Fragment]] = {0: [first]}
        self.parked: dict[int, list[Fragment]] = {}
        self.barriers = Barriers(self)
        self.clusters: Clusters = Clusters(self, math.prod(run.cluster))
        self.copies = Copies(self)
        self.bulk = Bulk(self)
        self.products = Products(self)
        self.alive = np.full(block_count, self.block_threads, np.int64)
        self.alive_total = first.n
        self.alive_masks = np.bitwise_or.reduceat(
            np.int64(1) << (self.slots & 31), np.flatnonzero(np.diff(self.slots >> 5, prepend=-1))
        )
        self.turn = 0
        self.left = 0
        self.watch = run.sanitizer.watch(self) if run.sanitizer is not None else None

    @property
    def executed(self) -> int:
        """Thread-instructions executed so far in this call."""
        return self.run_state.executed

    # -- scheduling

    def run(self, quantum: int) -> bool:
        """Execute up to `quantum` blocks; return whether every thread has ended. Raises Fault."""
        self.left = quantum
        while self.left > 0:
            if not self.ready and not self._wake():
                return True
            self.left -= 1
            self._step()
        return not self.ready and not self.parked and not self.barriers.waiting

    def _wake(self) -> bool:
        """Called when nobody can run: let warps that wait in vain go on. Raises Fault where a barrier is stuck.

        That of a cluster never is by itself: it opens once all threads that have not ended are there.
        """
        if self.parked:
            pc = min(self.parked)
            fragment = join(self.parked.pop(pc), self.code.live[pc], self.slots)
            self.report_absent(fragment, 0, self.flow.blocks[pc].line)
            self._execute(pc, fragment)
            return True
        if self.barriers.waiting:
            barrier, fragment, _ = next(iter(self.barriers.waiting.values()))[0]
            line = barrier.instruction.line
            message = "some threads of the block wait at a barrier that the others never reach"
            raise Fault("barrier_divergence", fragment, 0, line, message)
        return False

    def _step(self) -> None:
        pc = self._choose()
        found = self.ready.pop(pc)
        if pc in self.parked:
            found = found + self.parked.pop(pc)
        fragment = found[0] if len(found) == 1 else join(found, self.code.live[pc], self.slots)
        if self.flow.blocks[pc].waits and fragment.n != self.alive_total:
            complete = self._complete(pc, fragment)
            if complete is None:
                return
            fragment = complete
        self._execute(pc, fragment)

    def _choose(self) -> int:
        """The lowest program counter; now and then, each in turn."""
        lowest = min(self.ready)
        if len(self.ready) == 1:
            self.turn = 0
            return lowest
        self.turn += 1
        if self.turn < PATIENCE:
            return lowest
        if self.turn >= PATIENCE + TURN:
            self.turn = 0
            return lowest
        order = sorted(self.ready)
        return order[self.turn // STEP % len(order)]

    def take_turns(self) -> None:
        """Let others run: whoever is at the lowest program counter waits for them."""
        self.turn = max(self.turn, PATIENCE)

    def _complete(self, pc: int, fragment: Fragment) -> Fragment | None:
        """Park the threads whose warps (or warpgroups) are not all here; return the others."""
        absent = warpgroups.missing(self, fragment) if self.flow.blocks[pc].gathers else self._missing(pc, fragment)
        if not absent.any():
            return fragment
        live = self.code.live[pc]
        self.parked.setdefault(pc, []).append(fragment.select(np.flatnonzero(absent), live))
        index = np.flatnonzero(~absent)
        return fragment.select(index, live) if len(index) else None

    def _missing(self, pc: int, fragment: Fragment) -> Array:
        """For each thread, whether some living thread of its warp that the member mask names is not here."""
        member = self.code.members[pc]
        assert member is not None
        if member[0] >= 0:
            mask = fragment.R[member[0]].view(np.uint32).astype(np.int64)
        else:
            mask = np.array([member[1]], np.int64)
        bits = np.int64(1) << warp.lanes(fragment)
        present = warp.warp_reduce(self, fragment, bits, np.bitwise_or)
        absent: Array = mask & self.alive_masks[fragment.warp_ids] & ~present != 0
        return absent

    def put(self, pc: int, fragment: Fragment) -> None:
        """Let a fragment go on at a block."""
        self.ready.setdefault(pc, []).append(fragment)

    def _execute(self, pc: int, fragment: Fragment) -> None:
        """Run one block, and more as long as this fragment is alone."""
        run = self.run_state
        while True:
            run.account(pc, fragment)
            self.code.functions[pc](self, fragment)
            end = self.flow.blocks[pc].end
            if isinstance(end, Jump):
                pc = end.target
            elif isinstance(end, Branch):
                following = self._branch(pc, end, fragment)
                if following < 0:
                    return
                pc = following
            else:
                self._leave(end, fragment)
                return
            self.left -= 1
            if self.ready or self.parked or self.left <= 0 or self.flow.blocks[pc].waits:
                self.put(pc, fragment)
                return

    def _branch(self, pc: int, end: Branch, fragment: Fragment) -> int:
        """Return where the whole fragment goes, or split it and return -1."""
        predicate = fragment.R[self.code.slots[end.predicate]]
        n = predicate.shape[0]
        count = int(np.count_nonzero(predicate))
        if count == 0 or count == n:
            return end.taken if (count == n) != end.negated else end.other
        if end.counted:
            self.run_state.account_divergence(self, fragment, predicate)
        yes, no = np.flatnonzero(predicate), np.flatnonzero(~predicate)
        taken, other = (no, yes) if end.negated else (yes, no)
        self.put(end.taken, fragment.select(taken, self.code.live[end.taken]))
        self.put(end.other, fragment.select(other, self.code.live[end.other]))
        return -1

    def _leave(self, end: Exit | Switch | Barrier | ClusterWait, fragment: Fragment) -> None:
        if isinstance(end, Exit):
            self._exit(end, fragment)
        elif isinstance(end, Switch):
            self._switch(end, fragment)
        elif isinstance(end, ClusterWait):
            self.clusters.wait(end, fragment)
        else:
            self.barriers.arrive(end, fragment)

    def _exit(self, end: Exit, fragment: Fragment) -> None:
        if end.trap is not None:
            raise Fault("trap", fragment, 0, end.trap.line, "the kernel executed a trap")
        self.alive_total -= fragment.n
        if self.alive_total:
            self.alive -= np.bincount(fragment.block_ids, minlength=self.block_count)
            ids = fragment.warp_ids
            np.bitwise_and.at(self.alive_masks, ids, ~(np.int64(1) << warp.lanes(fragment)))
            self._wake_parked()
            self.barriers.release_all()
        self.clusters.end(fragment)

    def _wake_parked(self) -> None:
        """Threads that ended no longer keep their warps waiting."""
        for pc, fragments in self.parked.items():
            self.ready.setdefault(pc, []).extend(fragments)
        self.parked.clear()

    def _switch(self, end: Switch, fragment: Fragment) -> None:
        selector = fragment.R[self.code.slots[end.selector]].view(np.uint32)
        if int(selector.max()) >= len(end.targets):
            lane = int(np.argmax(selector))
            raise Fault("out_of_bounds", fragment, lane, 0, "an indexed branch beyond its table")
        if selector.shape[0] == 1:
            self.put(end.targets[int(selector[0])], fragment)
            return
        for target in sorted(set(end.targets)):
            chosen = [number for number, one in enumerate(end.targets) if one == target]
            index = np.flatnonzero(np.isin(selector, chosen))
            if len(index):
                self.put(target, fragment.select(index, self.code.live[target]))

    # -- what the emitted code asks

    def warp_barrier(self, fragment: Fragment) -> None:
        """Order the accesses of each warp (`bar.warp.sync`)."""
        if self.watch is not None:
            self.watch.warp_barrier(fragment)

    def proxy_fence(self, fragment: Fragment) -> None:
        """Order what these threads wrote before what `wgmma` reads (`fence.proxy.async`)."""
        if self.watch is not None and self.watch.proxies is not None:
            self.watch.proxies.fence(fragment)

    def argument(self, name: str, offset: int, dtype: Any) -> Array:
        """A piece of a kernel argument."""
        return self.run_state.argument(name, offset, dtype)

    def thread_index(self, fragment: Fragment, axis: int) -> Array:
        """%tid of each thread."""
        table = self.run_state.thread_table(self.block_count, axis)
        if table.shape[0] == 1:
            return table
        return table if fragment.full and self.whole_warps else table.take(fragment.slots)

    def block_index(self, fragment: Fragment, axis: int) -> Array:
        """%ctaid of each thread."""
        if self.grid[axis] == 1:
            return np.zeros(1, np.int64)
        if self.block_count == 1:
            number = np.array([self.first_block], np.int64)
        else:
            number = fragment.block_ids + self.first_block
        if self.cluster[1:] != (1, 1):
            place: Array = block_place(number, self.grid, self.cluster, axis)
            return place
        if axis == 0:
            return number if self.grid[1] == self.grid[2] == 1 else number % self.grid[0]
        number = number // self.grid[0]
        return number % self.grid[1] if axis == 1 else number // self.grid[1]

    def concrete(self, site: Site, space: str) -> Site:
        """A generic access, once its space is known."""
        return replace(site, space=space)

    # -- observers

    def observe_global(
        self, fragment: Fragment, site: Site, at: Array, *, write: bool, values: tuple[Array, ...] = ()
    ) -> None:
        """Tell counters and sanitizer of an access that was checked."""
        run = self.run_state
        if run.counting is not None:
            run.counting.global_access(fragment, site, at, write)
        if self.watch is not None:
            self.watch.global_access(fragment, site, at, write, values)

    def observe_shared(
        self, fragment: Fragment, site: Site, at: Array, *, write: bool, values: tuple[Array, ...] = ()
    ) -> None:
        """Tell counters and sanitizer of an access that was checked."""
        run = self.run_state
        if run.counting is not None:
            run.counting.shared_access(fragment, site, at)
        if self.watch is not None:
            self.watch.shared_access(fragment, site, at, write, values)

    def observe_cluster(
        self, fragment: Fragment, site: Site, offsets: Array, where: Array, far: Array, *, write: bool,
        values: tuple[Array, ...],
    ) -> None:  # fmt: skip
        """Tell counters and sanitizer of an access at `where` in the chunk's shared memory, `far` in other blocks."""
        if self.run_state.counting is not None:
            self.run_state.counting.cluster_access(fragment, site, offsets, float(far.mean()))
        if self.watch is not None:
            self.watch.cluster_access(fragment, site, offsets, where, far, write, values)

    def observe_local(self, fragment: Fragment, site: Site, at: Array, *, write: bool) -> None:
        """Tell counters and sanitizer of an access that was checked."""
        run = self.run_state
        if run.counting is not None:
            run.counting.local_access(fragment, site)
        if self.watch is not None:
            self.watch.local_access(fragment, site, at, write)

    def report_absent(self, fragment: Fragment, lane: int, line: int) -> None:
        """A thread used, or waited for, one of its warp that is not there."""
        if self.watch is not None:
            self.watch.absent_lane(fragment, lane, line)
