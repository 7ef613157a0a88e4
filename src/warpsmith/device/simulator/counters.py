"""Counting what the hardware would do: instructions by class, sectors, bank conflicts, divergence, bytes touched.

Instructions, branches and bytes touched are exact. Sectors and shared-memory wavefronts are exact where a fragment
has at most `SAMPLE` warps; for more, that many warps spread evenly over the fragment are looked at and the result is
scaled, except that consecutive addresses are always exact. `branches` and `divergent_branches` count warps.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from warpsmith.device.simulator.emit import Code
from warpsmith.device.simulator.flow import Branch, Flow
from warpsmith.device.simulator.fragment import Fragment
from warpsmith.device.simulator.memory import run_start
from warpsmith.device.simulator.mma import product
from warpsmith.device.simulator.site import Site
from warpsmith.device.simulator.wgmma import multiplies
from warpsmith.device.simulator.wgmma import product as warpgroup_product
from warpsmith.records import Counters

if TYPE_CHECKING:
    from warpsmith.device.simulator.machine import Chunk

Array = NDArray[Any]
SAMPLE = 64
SECTOR = 32
REMOTE_COST = 8
"""Wavefronts that one of another block's shared memory counts as. A round figure of the size that microbenchmarks of
Hopper report for both: some 180 cycles until an answer, and a fraction of the bandwidth of a block's own."""
LANES = np.arange(32)
_ARITHMETIC = ("fp32", "fp64", "fp16", "int", "special", "convert", "control")
_OTHERS = ("tensor", "shared", "global", "local", "atomic", "barrier", "shuffle", "other")
CLASSES = (*_ARITHMETIC, *_OTHERS)


class Counting:
    """Collects the counters of one launch. `arena_bytes` is the size of global memory."""

    def __init__(self, code: Code, flow: Flow, arena_bytes: int) -> None:
        self.code = code
        self.flow = flow
        self.threads = [0] * len(flow.blocks)
        self.warps = [0] * len(flow.blocks)
        self.loaded = np.zeros(arena_bytes, np.uint8)
        self.stored = np.zeros(arena_bytes, np.uint8)
        self.sectors = {False: 0.0, True: 0.0}
        self.requests = {False: 0, True: 0}
        self.wavefronts = 0.0
        self.shared_requests = 0.0
        self.local_bytes = 0
        self.divergent = 0

    # -- events

    def block(self, pc: int, fragment: Fragment) -> None:
        """A basic block was executed."""
        self.threads[pc] += fragment.n
        self.warps[pc] += fragment.warps

    def divergence(self, chunk: Chunk, fragment: Fragment, predicate: Array) -> None:
        """Threads of the fragment disagree on a branch."""
        starts = _warp_starts(fragment)
        some = np.logical_or.reduceat(predicate, starts)
        every = np.logical_and.reduceat(predicate, starts)
        self.divergent += int(np.count_nonzero(some & ~every))

    def global_access(self, fragment: Fragment, site: Site, at: Array, write: bool) -> None:
        """Threads access global memory at byte positions."""
        width = site.width
        warps = fragment.warps
        self.requests[write] += warps
        for touched in (self.loaded, self.stored) if site.atomic else (self.stored if write else self.loaded,):
            _touch(touched, at, width)
        if at.shape[0] == 1:
            self.sectors[write] += warps
            return
        start = run_start(at, width)
        if start >= 0 and fragment.n == 32 * warps and start % SECTOR == 0:
            self.sectors[write] += warps * width
            return
        sample, scale = _sample(fragment, warps)
        ids, sector = fragment.warp_ids, at >> 5
        if sample is not None:
            ids, sector = ids[sample], sector[sample]
        self.sectors[write] += _distinct(ids, sector) * scale

    def shared_access(self, fragment: Fragment, site: Site, at: Array) -> None:
        """Threads access shared memory at byte offsets."""
        warps = fragment.warps
        self.shared_requests += warps
        width = site.width
        passes = max(1, width // 4)
        if at.shape[0] == 1:
            self.wavefronts += warps
            return
        if run_start(at[: min(32, at.shape[0])], width) >= 0 and run_start(at, width) >= 0:
            self.wavefronts += warps * passes
            return
        sample, scale = _sample(fragment, warps)
        where = at if sample is None else at[sample]
        if len(where) == 32 * min(warps, SAMPLE):
            uniform = _uniform_passes(where.reshape(-1, 32), width)
            if uniform:
                self.wavefronts += warps * uniform
                return
        ids, lane = fragment.warp_ids, fragment.slots & 31
        if sample is not None:
            ids, lane = ids[sample], lane[sample]
        self.wavefronts += _wavefronts(ids, lane, where, width) * scale

    def cluster_access(self, fragment: Fragment, site: Site, at: Array, far: float) -> None:
        """Threads access shared memory of their cluster at byte offsets, a share of them, `far`, in other blocks."""
        wavefronts, requests = self.wavefronts, self.shared_requests
        self.shared_access(fragment, site, at)
        self.wavefronts += (REMOTE_COST - 1) * far * (self.wavefronts - wavefronts)
        self.shared_requests += (REMOTE_COST - 1) * far * (self.shared_requests - requests)

    def matrix_read(self, pieces: int) -> None:
        """A `wgmma` reads so many pieces of 16 bytes: eight, a core matrix, in one request without conflicts."""
        self.shared_requests += pieces // 8
        self.wavefronts += pieces // 8

    def local_access(self, fragment: Fragment, site: Site) -> None:
        """Threads access local memory."""
        self.local_bytes += fragment.n * site.width

    # -- result

    def result(self, kernel: str, grid: tuple[int, int, int], block: tuple[int, int, int], shared: int) -> Counters:
        """Return what was counted."""
        instructions: Counter[str] = Counter()
        issued: Counter[str] = Counter()
        tensor: Counter[str] = Counter()
        branches = 0
        for number, classes in enumerate(self.code.classes):
            for name, count in classes:
                instructions[name] += count * self.threads[number]
                issued[name] += count * self.warps[number]
            for step in self.flow.blocks[number].steps:
                if step.opcode == "mma":
                    form = product(step)
                    tensor[form.name] += form.multiply_adds * self.warps[number]
                elif multiplies(step):
                    wide = warpgroup_product(step)
                    tensor[wide.operands] += wide.multiply_adds * self.warps[number]
            end = self.flow.blocks[number].end
            if isinstance(end, Branch) and end.counted:
                branches += self.warps[number]
        return Counters(
            kernel,
            grid,
            block,
            shared,
            tuple((name, instructions[name]) for name in CLASSES),
            tuple((name, issued[name]) for name in CLASSES),
            round(self.sectors[False]),
            round(self.sectors[True]),
            self.requests[False],
            self.requests[True],
            int(np.count_nonzero(self.loaded)),
            int(np.count_nonzero(self.stored)),
            round(self.wavefronts),
            round(self.shared_requests),
            self.local_bytes,
            self.divergent,
            branches,
            self.code.chains.total(self.warps),
            tuple(sorted(tensor.items())),
        )


def _touch(touched: NDArray[np.uint8], at: Array, width: int) -> None:
    """Mark the bytes of every access."""
    start = run_start(at, width)
    if start >= 0:
        touched[start : start + at.shape[0] * width] = 1
        return
    if width <= 8:
        touched.view(f"u{width}")[at >> (width.bit_length() - 1)] = (1 << (8 * width)) - 1
        return
    touched.view("u8").reshape(-1, 2)[at >> 4] = 0xFFFFFFFFFFFFFFFF


def _warp_starts(fragment: Fragment) -> Array:
    """Positions at which the threads of a new warp begin."""
    found = fragment.cache.get("starts")
    if found is None:
        found = np.flatnonzero(np.diff(fragment.warp_ids, prepend=-1))
        fragment.cache["starts"] = found
    return found


def _sample(fragment: Fragment, warps: int) -> tuple[Array | None, float]:
    """Choose the threads to look at: all, or those of `SAMPLE` warps; and the factor to scale by."""
    if warps <= SAMPLE:
        return None, 1.0
    found = fragment.cache.get("sample")
    if found is None:
        starts = _warp_starts(fragment)
        ends = np.append(starts[1:], fragment.n)
        chosen = np.linspace(0, warps - 1, SAMPLE).astype(np.int64)
        lengths = ends[chosen] - starts[chosen]
        base = np.repeat(starts[chosen], lengths)
        within = np.arange(len(base)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        found = fragment.cache["sample"] = base + within
    return found, warps / SAMPLE


def _distinct(ids: Array, values: Array) -> int:
    """Count distinct values, warp by warp."""
    same_warp = ids[1:] == ids[:-1]
    step = values[1:] - values[:-1]
    if not bool((same_warp & (step < 0)).any()):
        return 1 + int(np.count_nonzero((step != 0) | ~same_warp))
    order = np.lexsort((values, ids))
    ids, values = ids[order], values[order]
    return 1 + int(np.count_nonzero((values[1:] != values[:-1]) | (ids[1:] != ids[:-1])))


def _uniform_passes(at: Array, width: int) -> int:
    """Passes for each warp (a row of `at`) if all threads of a warp read one place, or consecutive ones; else 0."""
    steps = at - at[:, :1]
    if not steps.any():
        return 1
    if bool((steps == LANES * width).all()) and width >= 4:
        return width // 4
    return 0


def _wavefronts(ids: Array, lane: Array, at: Array, width: int) -> int:
    """Count the passes that 32 banks of 4 bytes need: 8-byte accesses by half warps, 16-byte ones by quarters.

    Within a pass, threads that read the same word share it; different words of one bank take turns.
    """
    parts = max(1, width // 4)
    group = ids * parts + lane * parts // 32
    words = ((at >> 2)[:, None] + np.arange(parts)).reshape(-1)
    groups = np.repeat(group, parts)
    key = np.unique(groups * (1 << 24) + words)
    bank = (key >> 24) * 32 + (key & 31)
    bank, counts = np.unique(bank, return_counts=True)
    owner = bank >> 5
    starts = np.flatnonzero(np.diff(owner, prepend=-1))
    return int(np.maximum.reduceat(counts, starts).sum())
