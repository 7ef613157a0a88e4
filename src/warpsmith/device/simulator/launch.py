"""One kernel launch: its arguments, its chunks in order, and what was counted on the way."""

from __future__ import annotations

import math
import struct
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from warpsmith.device.arena import Arena
from warpsmith.device.simulator.clusters import block_place
from warpsmith.device.simulator.counters import Counting
from warpsmith.device.simulator.emit import Code
from warpsmith.device.simulator.flow import Flow
from warpsmith.device.simulator.fragment import Fragment
from warpsmith.device.simulator.machine import Chunk
from warpsmith.device.simulator.memory import Fault, Memory
from warpsmith.device.simulator.ptx import Variable
from warpsmith.device.simulator.sanitizer import Sanitizer
from warpsmith.errors import SimulatorError
from warpsmith.records import Finding, GpuSpec

Array = NDArray[Any]
CHUNK_THREADS = 16384
QUANTUM = 5_000


@dataclass
class KernelRun:
    """The state of a launch that all of its chunks share. `executed` counts thread-instructions, up to `budget`."""

    code: Code
    flow: Flow
    spec: GpuSpec
    arena: Arena
    memory: Memory
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    cluster: tuple[int, int, int]
    dynamic_shared: int
    arguments: Mapping[str, bytes]
    counting: Counting | None
    sanitizer: Sanitizer | None
    executed: int
    budget: int | None
    cooperative: bool
    seed: int
    cache: dict[Any, Array] = field(default_factory=dict)

    @property
    def block_threads(self) -> int:
        """Threads of a block."""
        return self.block[0] * self.block[1] * self.block[2]

    @property
    def shared_bytes(self) -> int:
        """Static and dynamic shared memory of a block."""
        return self.flow.shared_bytes + self.dynamic_shared

    def place(self, slot: int) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
        """Return %ctaid and %tid of the thread with a slot, counted over the launch."""
        block, thread = divmod(slot, (self.block_threads + 31) // 32 * 32)
        x, y, z = (int(block_place(block, self.grid, self.cluster, axis)) for axis in range(3))
        bx, by, _ = self.block
        return (x, y, z), (thread % bx, thread // bx % by, thread // (bx * by))

    def scratch(self, size: int) -> NDArray[np.uint8]:
        """Memory of a chunk, its contents undefined on hardware: here bytes that read as NaN."""
        return np.full((size + 15) // 16 * 16, 0xFF, np.uint8)

    def slots(self, blocks: int) -> Array:
        """The slots of the threads of so many blocks."""
        key = ("slots", blocks)
        if key not in self.cache:
            stride = (self.block_threads + 31) // 32 * 32
            table = np.arange(blocks)[:, None] * stride + np.arange(self.block_threads)
            self.cache[key] = table.reshape(-1)
        return self.cache[key]

    def thread_table(self, blocks: int, axis: int) -> Array:
        """%tid along an axis by slot."""
        if self.block[axis] == 1:
            return np.zeros(1, np.int64)
        key = ("tid", blocks, axis)
        if key not in self.cache:
            stride = (self.block_threads + 31) // 32 * 32
            thread = np.arange(stride * blocks) % stride
            x, y, _ = self.block
            self.cache[key] = (thread % x, thread // x % y, thread // (x * y))[axis]
        return self.cache[key]

    def argument(self, name: str, offset: int, dtype: Any) -> Array:
        """A piece of an argument as an array of one element."""
        key = (name, offset, dtype)
        if key not in self.cache:
            data = self.arguments[name][offset : offset + dtype.itemsize]
            self.cache[key] = np.frombuffer(data, dtype)
        return self.cache[key]

    def account(self, pc: int, fragment: Fragment) -> None:
        """Count a basic block. Raises Fault when the budget is spent."""
        self.executed += self.code.lengths[pc] * fragment.n
        if self.counting is not None:
            self.counting.block(pc, fragment)
        if self.budget is not None and self.executed > self.budget:
            line = self.flow.blocks[pc].line
            message = f"not finished after {self.budget} thread-instructions: an endless loop, or too much work"
            raise Fault("budget", fragment, 0, line, message)

    def account_divergence(self, chunk: Chunk, fragment: Fragment, predicate: Array) -> None:
        """Count the warps whose threads disagree on a branch."""
        if self.counting is not None:
            self.counting.divergence(chunk, fragment, predicate)


def argument_bytes(parameter: Variable, value: int) -> bytes:
    """Lay out an integer as the kernel's parameter. Raises SimulatorError for a parameter that is not a scalar."""
    if parameter.type in ("f32", "f64"):
        return struct.pack("<f" if parameter.type == "f32" else "<d", float(value))
    if parameter.size > 8:
        raise SimulatorError(f"parameter {parameter.name} is not a scalar")
    return (value % (1 << (8 * parameter.size))).to_bytes(parameter.size, "little")


def execute(run: KernelRun, kernel: str) -> list[Finding]:
    """Run all blocks; return what stopped the launch, if anything.

    A cluster lies in one chunk. Chunks run one after the other. One that is not done after `QUANTUM` basic blocks may
    wait for blocks that have not begun, so the next one is begun beside it, and all take turns; as many as the GPU
    could hold at once.
    """
    total = run.grid[0] * run.grid[1] * run.grid[2]
    together = math.prod(run.cluster)
    size = total if run.cooperative else together * max(1, CHUNK_THREADS // (run.block_threads * together))
    limit = max(1, run.spec.sm_count * run.spec.threads_per_sm // (size * run.block_threads))
    waiting = deque(range(0, total, size))
    active: list[Chunk] = []
    while waiting or active:
        if waiting and len(active) < limit:
            first = waiting.popleft()
            active.append(Chunk(run, first, min(size, total - first)))
        for chunk in tuple(active):
            try:
                if chunk.run(QUANTUM):
                    active.remove(chunk)
            except Fault as fault:
                return [finding(run, kernel, fault, chunk)]
    return []


def finding(run: KernelRun, kernel: str, fault: Fault, chunk: Chunk) -> Finding:
    """Describe a fault by block and thread."""
    block, thread = run.place(int(fault.fragment.slots[fault.lane]) + chunk.first_block * chunk.block_slots)
    return Finding(fault.kind, kernel, fault.line, str(fault), block, thread)
