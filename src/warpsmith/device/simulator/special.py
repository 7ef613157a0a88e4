"""Special registers, and the few instructions that are neither arithmetic nor plain memory accesses."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from warpsmith.device.simulator import memory
from warpsmith.device.simulator.clusters import RANK_BIT, cluster_place, rank_place
from warpsmith.device.simulator.fragment import Fragment
from warpsmith.device.simulator.ptx import Instruction

if TYPE_CHECKING:
    from warpsmith.device.simulator.machine import Chunk

Array = NDArray[Any]
Reader = Callable[["Chunk", Fragment], Array]
I8 = np.int64
AXES = {"x": 0, "y": 1, "z": 2}


def _one(value: int) -> Array:
    return np.array([value], I8)


def _clock(chunk: Chunk, fragment: Fragment) -> Array:
    """A clock that counts the thread-instructions executed so far: it only ever grows."""
    return _one(chunk.executed)


READERS: dict[str, Reader] = {
    "%laneid": lambda chunk, fragment: fragment.slots & 31,
    "%warpid": lambda chunk, fragment: (fragment.slots % chunk.block_slots) >> 5,
    "%nwarpid": lambda chunk, fragment: _one(chunk.block_slots >> 5),
    "%smid": lambda chunk, fragment: (fragment.block_ids + chunk.first_block) % chunk.spec.sm_count,
    "%nsmid": lambda chunk, fragment: _one(chunk.spec.sm_count),
    "%gridid": lambda chunk, fragment: _one(1),
    "%lanemask_eq": lambda chunk, fragment: np.int64(1) << (fragment.slots & 31),
    "%lanemask_lt": lambda chunk, fragment: (np.int64(1) << (fragment.slots & 31)) - 1,
    "%lanemask_le": lambda chunk, fragment: (np.int64(2) << (fragment.slots & 31)) - 1,
    "%lanemask_gt": lambda chunk, fragment: 0xFFFFFFFF & ~((np.int64(2) << (fragment.slots & 31)) - 1),
    "%lanemask_ge": lambda chunk, fragment: 0xFFFFFFFF & ~((np.int64(1) << (fragment.slots & 31)) - 1),
    "%clock": _clock,
    "%clock_hi": lambda chunk, fragment: _one(0),
    "%clock64": _clock,
    "%globaltimer": _clock,
    "%globaltimer_lo": _clock,
    "%globaltimer_hi": lambda chunk, fragment: _one(0),
    "%dynamic_smem_size": lambda chunk, fragment: _one(chunk.dynamic_shared),
    "%total_smem_size": lambda chunk, fragment: _one(chunk.shared_bytes),
    "%cluster_ctarank": lambda chunk, fragment: chunk.clusters.rank(fragment),
    "%cluster_nctarank": lambda chunk, fragment: _one(chunk.clusters.size),
}


def _numbers(chunk: Chunk, fragment: Fragment) -> Array:
    """The number of each thread's block, counted cluster by cluster."""
    return fragment.block_ids + chunk.first_block


_CLUSTER_READERS: dict[str, Callable[[int, Chunk, Fragment], Array]] = {
    "%cluster_ctaid": lambda axis, chunk, fragment: rank_place(_numbers(chunk, fragment), chunk.cluster, axis),
    "%cluster_nctaid": lambda axis, chunk, fragment: _one(chunk.cluster[axis]),
    "%clusterid": lambda axis, chunk, fragment: cluster_place(
        _numbers(chunk, fragment), chunk.grid, chunk.cluster, axis
    ),
    "%nclusterid": lambda axis, chunk, fragment: _one(chunk.grid[axis] // chunk.cluster[axis]),
}


def reader(step: Instruction, name: str) -> Reader:
    """Return the function that reads a special register. Raises SimulatorError if there is no such register."""
    if name in READERS:
        return READERS[name]
    stem, _, axis = name.rpartition(".")
    if axis in AXES and stem in _CLUSTER_READERS:
        return partial(_CLUSTER_READERS[stem], AXES[axis])
    if axis not in AXES or stem not in ("%tid", "%ntid", "%ctaid", "%nctaid"):
        raise step.fail(f"unknown special register {name}")
    number = AXES[axis]
    if stem == "%tid":
        return lambda chunk, fragment: chunk.thread_index(fragment, number)
    if stem == "%ctaid":
        return lambda chunk, fragment: chunk.block_index(fragment, number)
    if stem == "%ntid":
        return lambda chunk, fragment: _one(chunk.block[number])
    return lambda chunk, fragment: _one(chunk.grid[number])


def pack(dtype: Any, *items: Array) -> Array:
    """Put items next to each other, the first in the low bits."""
    shape = np.broadcast_shapes(*(item.shape for item in items))
    rows = np.empty((*shape, len(items)), items[0].dtype)
    for column, item in enumerate(items):
        rows[:, column] = item
    return rows.reshape(-1).view(dtype)


SPACE_TESTS: dict[str, Callable[[Array], Array]] = {
    "global": lambda a: (a >= memory.GLOBAL_BASE) & (a < memory.GLOBAL_BASE + memory.WINDOW),
    "shared": lambda a: (a >= memory.SHARED_BASE) & (a < memory.SHARED_BASE + memory.WINDOW),
    "local": lambda a: (a >= memory.LOCAL_BASE) & (a < memory.LOCAL_BASE + memory.WINDOW),
    "const": lambda a: np.zeros(a.shape, np.bool_),
}
SPACE_TESTS["shared::cluster"] = SPACE_TESTS["shared"]
SPACE_TESTS["shared"] = SPACE_TESTS["shared::cta"] = lambda a: (a >> RANK_BIT) == memory.SHARED_BASE >> RANK_BIT
