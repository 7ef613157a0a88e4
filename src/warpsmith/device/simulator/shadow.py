"""Who touched each piece of memory last: what data races are found by.

For every granule (1, 2 or 4 bytes) a shadow keeps the last write and two reads, the first and the last since threads
were last brought into order. Two accesses race if different threads make them, at least one writes, they are not
both atomic or volatile, and nothing orders them. In one block, a barrier between them orders them; in one warp,
`bar.warp.sync` does; in one cluster, its barrier does; between blocks, atomics or volatile accesses to one address do,
where the kernel has fences.

An access knows its thread, the number of barriers its thread has passed (`epoch`) and of warp barriers (`sub`), and
how often its block had released its writes to others (`version`). Where there are barriers of clusters, it knows how
often its thread had arrived at them, and how often waited: one that waits for the n-th time sees what was done before
anyone arrived for the n-th time, unless that arrival was relaxed. What is not found: a race hidden behind a later
access of the same kind, one between threads that passed different numbers of partial barriers, and one between
blocks of a kernel with fences and more than `MOST_BLOCKS` blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from warpsmith.device.simulator.handover import Handover

Array = NDArray[Any]
I4 = np.dtype(np.int32)
MOST_BLOCKS = 4096
NONE = np.zeros(1, I4)


@dataclass(frozen=True, slots=True)
class Access:
    """One access per element: thread (over the launch), epoch, sub, version; its source line and exemption.

    `arrivals` and `waits` are those at barriers of the cluster, `clock` that of the thread's warp where there are
    barriers in shared memory; all are `NONE` in kernels without. `handover` tells what warps know by such barriers.
    """

    thread: Array
    epoch: Array
    sub: Array
    version: Array
    line: int
    exempt: bool
    arrivals: Array = field(default_factory=lambda: NONE)
    waits: Array = field(default_factory=lambda: NONE)
    clock: Array = field(default_factory=lambda: NONE)
    handover: Handover | None = None

    def take(self, index: Array) -> Access:
        """The accesses at these positions."""
        return replace(
            self, thread=self.thread[index], epoch=self.epoch[index], sub=self.sub[index], version=self.version[index],
            arrivals=self.arrivals if self.arrivals is NONE else self.arrivals[index],
            waits=self.waits if self.waits is NONE else self.waits[index],
            clock=self.clock if self.clock is NONE else self.clock[index],
        )  # fmt: skip


class Order:
    """Tells whether two accesses are ordered. `seen[b, c]` is the version of block `c` that block `b` has seen.

    `cluster` is how many blocks barriers of clusters bring together, 0 where a kernel has none; `released_at` says for
    each thread which of its arrivals was the last that was not relaxed, where some are.
    """

    def __init__(self, block_slots: int, blocks: int, fences: bool, cluster: int = 0, relaxed: bool = False) -> None:
        self.block_slots = block_slots
        self.blocks = blocks
        self.fences = fences
        self.seen = np.zeros((blocks, blocks), I4) if fences and 1 < blocks <= MOST_BLOCKS else None
        self.version = np.zeros(blocks, I4)
        self.released: dict[int, Array] = {}
        self.cluster = cluster
        self.released_at = np.zeros(blocks * block_slots, I4) if relaxed else None

    def ordered(self, past: Access, now: Access) -> Array:
        """For each pair, whether the past access is sure to come before the present one."""
        same_thread = past.thread == now.thread
        past_block, block = past.thread // self.block_slots, now.thread // self.block_slots
        same_block = past_block == block
        same_warp = past.thread >> 5 == now.thread >> 5
        within = same_block & ((past.epoch != now.epoch) | (same_warp & (past.sub != now.sub)))
        between = ~same_block & (self.fences and self.blocks > MOST_BLOCKS)
        if self.seen is not None:
            between = ~same_block & (self.seen[block, np.maximum(past_block, 0)] > past.version)
        found: Array = same_thread | within | between
        if self.cluster:
            found |= (past_block // self.cluster == block // self.cluster) & self.met(past, now.waits)
        if now.handover is not None:
            found |= now.handover.ordered(past, now)
        return found

    def met(self, past: Access, waits: Array) -> Array:
        """Whether threads of the cluster that have waited so often at its barrier see the past accesses."""
        seen: Array = past.arrivals < waits
        return seen if self.released_at is None else seen & (past.arrivals < self.released_at[past.thread])

    def synchronise(self, blocks: Array, addresses: Array, acquire: bool, release: bool) -> None:
        """Blocks meet at addresses by atomics or volatile accesses, in this order."""
        if self.seen is None:
            return
        pairs = dict.fromkeys(zip(blocks.tolist(), addresses.tolist()))
        for block, address in pairs:
            known = self.released.get(address)
            if acquire and known is not None:
                np.maximum(self.seen[block], known, out=self.seen[block])
            if release:
                self.version[block] += 1
                clock = self.seen[block].copy()
                clock[block] = self.version[block]
                self.released[address] = clock if known is None else np.maximum(known, clock)


class Shadow:
    """The accesses to `size` granules."""

    FIELDS = ("thread", "epoch", "sub", "version", "line", "exempt")

    def __init__(self, size: int, more: Sequence[str] = ()) -> None:
        """`more` are fields that only some kernels need: `arrivals`, `clock`."""
        fields = (*self.FIELDS, *more)
        self.records = {kind: {name: np.zeros(size, I4) for name in fields} for kind in ("write", "first", "last")}

    def past(self, kind: str, at: Array) -> tuple[Access, Array, Array]:
        """The recorded accesses of a kind, their lines and exemptions; thread is -1 where there is none."""
        record = self.records[kind]
        thread = record["thread"][at] - 1
        arrivals, clock = (record[name][at] if name in record else NONE for name in ("arrivals", "clock"))
        access = Access(
            thread, record["epoch"][at], record["sub"][at], record["version"][at], 0, False, arrivals, clock=clock
        )
        return access, record["line"][at], record["exempt"][at] != 0

    def set(self, kind: str, at: Array, access: Access) -> None:
        """Record accesses; where several go to one granule, the last stays."""
        record = self.records[kind]
        record["thread"][at] = access.thread + 1
        record["epoch"][at] = access.epoch
        record["sub"][at] = access.sub
        record["version"][at] = access.version
        record["line"][at] = access.line
        record["exempt"][at] = access.exempt
        for name in ("arrivals", "clock"):
            if name in record:
                record[name][at] = getattr(access, name)

    def forget(self, at: Array) -> None:
        """Drop what was recorded of granules."""
        for record in self.records.values():
            record["thread"][at] = 0

    def conflict(self, kind: str, at: Array, access: Access, order: Order) -> tuple[int, int, int] | None:
        """Return (position, other thread, other line) of the first race with the recorded accesses of a kind."""
        past, lines, exempt = self.past(kind, at)
        racing = (past.thread >= 0) & ~order.ordered(past, access)
        if access.exempt:
            racing &= ~exempt
        if not racing.any():
            return None
        position = int(np.flatnonzero(racing)[0])
        return position, int(past.thread[position]), int(lines[position])

    def read(self, at: Array, access: Access, order: Order) -> tuple[int, int, int] | None:
        """Record reads; return a race with an earlier write."""
        found = self.conflict("write", at, access, order)
        past, _, _ = self.past("first", at)
        stale = (past.thread < 0) | order.ordered(past, access)
        index = np.flatnonzero(stale)[::-1]
        self.set("first", at[index], access.take(index))
        self.set("last", at, access)
        return found

    def write(self, at: Array, access: Access, order: Order) -> tuple[int, int, int, str] | None:
        """Record writes; return a race with another access, and what that did."""
        found = self._within(at, access) or self.disturbed(at, access, order)
        self.set("write", at, access)
        return found

    def disturbed(self, at: Array, access: Access, order: Order) -> tuple[int, int, int, str] | None:
        """Return the first race that writes would have with accesses by others, and what those did."""
        for kind, what in (("write", "writes"), ("first", "reads"), ("last", "reads")):
            other = self.conflict(kind, at, access, order)
            if other is not None:
                return (*other, what)
        return None

    @staticmethod
    def _within(at: Array, access: Access) -> tuple[int, int, int, str] | None:
        """A race among the threads of one instruction."""
        if access.exempt:
            return None
        sort = np.lexsort((access.thread, at))
        same = (at[sort][1:] == at[sort][:-1]) & (access.thread[sort][1:] != access.thread[sort][:-1])
        if not same.any():
            return None
        where = int(np.flatnonzero(same)[0])
        return int(sort[where + 1]), int(access.thread[sort[where]]), access.line, "writes"


class Flights:
    """Who is copying to each of `size` granules: a thread's number plus 1, or 0, and the line of its copy."""

    def __init__(self, size: int) -> None:
        self.thread = np.zeros(size, np.int64)
        self.line = np.zeros(size, I4)

    def set(self, at: Array, thread: Array | int, line: int) -> None:
        """Record copies that begin, or, with 0, their end."""
        self.thread[at] = thread
        self.line[at] = line

    def first(self, at: Array) -> tuple[int, int, int] | None:
        """Return (position, thread, line) of the first of these granules that a copy is on its way to."""
        flying = np.flatnonzero(self.thread[at])
        if not flying.size:
            return None
        position = int(flying[0])
        return position, int(self.thread[at[position]]) - 1, int(self.line[at[position]])


def granules(at: Array, granule: int, pieces: int) -> Array:
    """Return the numbers of the `pieces` granules from each byte position on, one after the other."""
    found: Array = ((at // granule)[:, None] + np.arange(pieces)).reshape(-1)
    return found
