"""Thread block clusters: which blocks stand together, their barrier, and the shared memory that they share.

Blocks are numbered cluster by cluster, so that the blocks of one are neighbours and run in one chunk. An address in
the window `shared::cluster` is an offset, which means the thread's own block, or what `mapa` made of it: the rank of a
block of the cluster, plus one, above bit `RANK_BIT`, and the offset below.

The barrier (PTX ISA, "barrier.cluster"): a thread arrives and goes on; it waits until all threads of its cluster that
have not ended have arrived. Arriving twice without waiting, and waiting without having arrived, are undefined: faults.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from warpsmith.device.simulator import warp
from warpsmith.device.simulator.flow import ClusterWait
from warpsmith.device.simulator.fragment import Fragment, join
from warpsmith.device.simulator.memory import Fault, check_range, positions
from warpsmith.device.simulator.site import Site

if TYPE_CHECKING:
    from warpsmith.device.simulator.machine import Chunk

Array = NDArray[Any]
Three = tuple[int, int, int]
RANK_BIT = 24


def block_place(number: Any, grid: Three, cluster: Three, axis: int) -> Any:
    """Return %ctaid along an axis of the blocks with these numbers (an integer, or an array)."""
    within = rank_place(number, cluster, axis)
    return cluster_place(number, grid, cluster, axis) * cluster[axis] + within


def cluster_place(number: Any, grid: Three, cluster: Three, axis: int) -> Any:
    """Return %clusterid along an axis."""
    x, y, z = cluster
    return _unravel(number // (x * y * z), grid[0] // x, grid[1] // y, axis)


def rank_place(number: Any, cluster: Three, axis: int) -> Any:
    """Return %cluster_ctaid along an axis."""
    x, y, z = cluster
    return _unravel(number % (x * y * z), x, y, axis)


def _unravel(number: Any, x: int, y: int, axis: int) -> Any:
    return (number % x, number // x % y, number // (x * y))[axis]


class Clusters:
    """The clusters of a chunk, of `size` blocks each.

    `arrived` marks threads that have arrived since the barrier last opened, `pending` those that have not yet waited
    for that, `due` the opening they wait for; `phase` counts the openings of each cluster's barrier.
    """

    def __init__(self, chunk: Chunk, size: int) -> None:
        self.chunk = chunk
        self.size = size
        self.slots = chunk.block_slots * size
        self.arrived = np.zeros(chunk.slot_count, np.bool_)
        self.pending = np.zeros(chunk.slot_count, np.bool_)
        self.ended = np.ones(chunk.slot_count, np.bool_)
        self.ended[chunk.slots] = False
        self.due = np.zeros(chunk.slot_count, np.int64)
        self.phase = np.zeros(chunk.block_count // size, np.int64)
        self.waiting: list[tuple[ClusterWait, Fragment]] = []

    # -- the barrier

    def arrive(self, fragment: Fragment, line: int, relaxed: bool) -> None:
        """Threads arrive, and go on. What they wrote before is not ordered if they arrive `relaxed`."""
        again = self.pending[fragment.slots]
        if again.any():
            lane = int(np.flatnonzero(again)[0])
            message = "arrives at the barrier of its cluster again without having waited for it"
            raise Fault("barrier_divergence", fragment, lane, line, message)
        self.pending[fragment.slots] = self.arrived[fragment.slots] = True
        self.due[fragment.slots] = self.phase[fragment.slots // self.slots]
        if self.chunk.watch is not None:
            self.chunk.watch.cluster_arrive(fragment, relaxed)
        self._open()

    def wait(self, end: ClusterWait, fragment: Fragment) -> None:
        """Threads wait until all of their cluster have arrived."""
        if not self.pending[fragment.slots].all():
            lane = int(np.flatnonzero(~self.pending[fragment.slots])[0])
            message = "waits at the barrier of its cluster without having arrived there"
            raise Fault("barrier_divergence", fragment, lane, end.instruction.line, message)
        self.waiting.append((end, fragment))
        self._release()

    def end(self, fragment: Fragment) -> None:
        """Threads have ended: nobody waits for them, and the memory of their blocks is gone with the last one."""
        self.ended[fragment.slots] = True
        if self.chunk.watch is not None and self.size > 1:
            over = self._over()
            self.chunk.watch.blocks_ended([block for block in np.unique(fragment.block_ids).tolist() if over[block]])
        if self.waiting:
            self._open()

    def _over(self) -> Array:
        """For each block, whether all of its threads have ended."""
        over: Array = np.logical_and.reduce(self.ended.reshape(self.chunk.block_count, -1), axis=1)
        return over

    def _open(self) -> None:
        """Open the barriers of clusters in which all have arrived."""
        here = (self.arrived | self.ended).reshape(len(self.phase), -1).all(axis=1)
        opened = here & self.arrived.reshape(len(self.phase), -1).any(axis=1)
        if opened.any():
            self.phase[opened] += 1
            self.arrived.reshape(len(self.phase), -1)[opened] = False
            self._release()

    def _release(self) -> None:
        """Let threads go on whose barrier has opened."""
        waiting, self.waiting = self.waiting, []
        going: dict[int, list[Fragment]] = {}
        for end, fragment in waiting:
            live = self.chunk.code.live[end.target]
            through = self.phase[fragment.slots // self.slots] > self.due[fragment.slots]
            if through.all():
                going.setdefault(end.target, []).append(fragment)
            elif not through.any():
                self.waiting.append((end, fragment))
            else:
                going.setdefault(end.target, []).append(fragment.select(np.flatnonzero(through), live))
                self.waiting.append((end, fragment.select(np.flatnonzero(~through), live)))
        for target, fragments in going.items():
            fragment = join(fragments, self.chunk.code.live[target], self.chunk.slots)
            self.pending[fragment.slots] = False
            if self.chunk.watch is not None:
                self.chunk.watch.cluster_wait(fragment)
            self.chunk.put(target, fragment)

    # -- addresses

    def rank(self, fragment: Fragment) -> Array:
        """%cluster_ctarank of each thread."""
        return fragment.block_ids % self.size

    def map(self, fragment: Fragment, addresses: Array, ranks: Array, line: int, base: int) -> Array:
        """`mapa`: the same places in the shared memory of the blocks with these ranks. Addresses begin at `base`."""
        ranks = ranks.view(np.uint32).astype(np.int64)
        if int(ranks.max()) >= self.size:
            message = f"maps an address to block {int(ranks.max())} of a cluster of {self.size}"
            raise Fault("out_of_bounds", fragment, int(np.argmax(ranks)), line, message)
        offsets = positions(addresses, -base) & ((1 << RANK_BIT) - 1)
        mapped: Array = offsets + (((ranks + 1) << RANK_BIT) if self.size > 1 else 0) + base
        return mapped.astype(addresses.dtype)

    def rank_of(self, fragment: Fragment, addresses: Array, base: int) -> Array:
        """`getctarank`: the rank of the block that addresses belong to."""
        ranks: Array = self._split(fragment, positions(addresses, -base))[1].astype(np.int32)
        return ranks

    def _split(self, fragment: Fragment, addresses: Array) -> tuple[Array, Array]:
        """Offsets within a block's shared memory, and ranks."""
        ranks = (addresses >> RANK_BIT) - 1
        return addresses & ((1 << RANK_BIT) - 1), np.where(ranks < 0, self.rank(fragment), ranks)

    def locate(self, fragment: Fragment, site: Site, addresses: Array, values: tuple[Array, ...], write: bool) -> Array:
        """Check an access to the shared memory of the cluster and tell of it; return positions in the chunk's."""
        chunk = self.chunk
        offsets, ranks = self._split(fragment, warp.expand(fragment, positions(addresses, site.offset)))
        if int(ranks.max()) >= self.size:
            lane = int(np.argmax(ranks))
            message = f"accesses the shared memory of block {int(ranks[lane])} of a cluster of {self.size}"
            raise Fault("out_of_bounds", fragment, lane, site.line, message)
        check_range(fragment, site, offsets, chunk.shared_bytes, "shared memory")
        block = fragment.block_ids // self.size * self.size + ranks
        gone = self._over()[block]
        if gone.any():
            lane = int(np.flatnonzero(gone)[0])
            place = chunk.run_state.place((int(block[lane]) + chunk.first_block) * chunk.block_slots)[0]
            message = f"accesses the shared memory of block {place}, which has ended"
            raise Fault("out_of_bounds", fragment, lane, site.line, message)
        where: Array = block * chunk.shared_stride + offsets
        chunk.observe_cluster(fragment, site, offsets, where, block != fragment.block_ids, write=write, values=values)
        return where
