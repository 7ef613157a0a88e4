"""Warpgroups: four warps of a block, the first of them with a number that is a multiple of four."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from warpsmith.device.simulator.fragment import WARP, Fragment
from warpsmith.device.simulator.memory import Fault

if TYPE_CHECKING:
    from warpsmith.device.simulator.machine import Chunk

Array = NDArray[Any]
WARPGROUP = 128
WARPS = WARPGROUP // WARP


def _numbers(fragment: Fragment) -> Array:
    """The warpgroup of each thread, counted over the chunk."""
    each = -(-fragment.block_slots // WARPGROUP)
    found: Array = fragment.block_ids * each + fragment.slots % fragment.block_slots // WARPGROUP
    return found


def missing(chunk: Chunk, fragment: Fragment) -> Array:
    """For each thread, whether some living thread of its warpgroup is not here."""
    warps = chunk.block_slots // WARP
    each = -(-warps // WARPS)
    warp = np.arange(warps * chunk.block_count)
    living = np.zeros(each * chunk.block_count, np.int64)
    np.add.at(living, warp // warps * each + warp % warps // WARPS, np.bitwise_count(chunk.alive_masks))
    own = _numbers(fragment)
    here = np.bincount(own, minlength=len(living))
    absent: Array = here[own] < living[own]
    return absent


def require(fragment: Fragment, line: int) -> None:
    """Raise Fault unless all threads of every warpgroup are here, as `.aligned` demands of `wgmma.mma_async`."""
    own = _numbers(fragment)
    here = np.bincount(own)[own]
    wrong = here < WARPGROUP
    if wrong.any():
        lane = int(np.argmax(wrong))
        message = f"wgmma needs all {WARPGROUP} threads of the warpgroup; {int(here[lane])} execute it"
        raise Fault("barrier_divergence", fragment, lane, line, message)


def warps_of(fragment: Fragment) -> Array:
    """The warps of a fragment of whole warps, counted over the chunk, ascending."""
    warps: Array = fragment.slots[::WARP] // WARP
    return warps


def uniform(fragment: Fragment, value: Array, line: int, what: str) -> Array:
    """Return the value of each warpgroup of a fragment of whole ones. Raises Fault where its threads disagree."""
    if value.shape[0] == 1:
        return np.repeat(value, fragment.n // WARPGROUP)
    each = value.reshape(-1, WARPGROUP)
    wrong = each != each[:, :1]
    if wrong.any():
        lane = int(np.flatnonzero(wrong.reshape(-1))[0])
        raise Fault("barrier_divergence", fragment, lane, line, f"the threads of a warpgroup disagree on {what}")
    first: Array = each[:, 0]
    return first
