"""Instructions by which the threads of a warp see each other: shuffle, vote, match, redux, activemask.

They act on the threads of the fragment, which the scheduler has made sure are all that the member masks name. What
a thread reads from one that is not there is undefined; it reads 0, as on an H200, and the sanitizer reports it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from warpsmith.device.simulator.fragment import Fragment

if TYPE_CHECKING:
    from warpsmith.device.simulator.machine import Chunk

Array = NDArray[Any]
I8 = np.int64


def lanes(fragment: Fragment) -> Array:
    """The lane of each thread in its warp, int64."""
    found = fragment.cache.get("lanes")
    if found is None:
        found = fragment.cache["lanes"] = fragment.slots & 31
    return found


def expand(fragment: Fragment, value: Array) -> Array:
    """Write out a value that is the same for all threads."""
    return value if value.shape[0] == fragment.n else np.broadcast_to(value, (fragment.n,))


def shuffle(mode: str) -> Callable[..., tuple[Array, Array]]:
    """Return `shfl.sync` in mode up, down, bfly or idx: value and whether the source lane was in range."""

    def apply(
        chunk: Chunk, fragment: Fragment, line: int, value: Array, b: Array, c: Array, member: Array
    ) -> tuple[Array, Array]:
        lane = lanes(fragment)
        control = c.astype(I8)
        clamp = control & 31
        segment = (control >> 8) & 31
        amount = b.astype(I8) & 31
        upper = (lane & segment) | (clamp & ~segment)
        lower = lane & segment
        if mode == "up":
            source = lane - amount
            inside = source >= upper
        elif mode == "down":
            source = lane + amount
            inside = source <= upper
        elif mode == "bfly":
            source = lane ^ amount
            inside = source <= upper
        else:
            source = lower | (amount & ~segment)
            inside = source <= upper
        source = np.where(inside, source, lane)
        if value.shape[0] == 1 and fragment.full:
            return value, inside
        return _gather(chunk, fragment, line, expand(fragment, value), source), inside

    return apply


def _gather(chunk: Chunk, fragment: Fragment, line: int, value: Array, source: Array) -> Array:
    """Read `value` of another lane of the warp."""
    wanted = (fragment.slots & ~31) + source
    if fragment.full and chunk.whole_warps:
        direct: Array = value.take(wanted)
        return direct
    place = np.full(chunk.slot_count, -1, I8)
    place[fragment.slots] = np.arange(fragment.n)
    found = place[wanted]
    taken: Array = value.take(np.maximum(found, 0))
    absent = found < 0
    if absent.any():
        chunk.report_absent(fragment, int(np.flatnonzero(absent)[0]), line)
        taken[absent] = 0
    return taken


def ballot(chunk: Chunk, fragment: Fragment, predicate: Array, member: Array) -> Array:
    """The bits of `predicate` over the warp's threads in the member mask, as int64, for each thread."""
    bits = np.where(expand(fragment, predicate), np.int64(1), np.int64(0)) << lanes(fragment)
    return warp_reduce(chunk, fragment, bits, np.bitwise_or) & member.view(np.uint32).astype(I8)


def warp_reduce(chunk: Chunk, fragment: Fragment, values: Array, function: np.ufunc) -> Array:
    """Reduce over the threads of each warp that are here; every thread gets the result."""
    if fragment.full and chunk.whole_warps:
        whole: Array = np.repeat(function.reduce(values.reshape(-1, 32), axis=1), 32)
        return whole
    ids = fragment.warp_ids
    starts = np.flatnonzero(np.concatenate(([True], ids[1:] != ids[:-1])))
    each: Array = np.repeat(function.reduceat(values, starts), np.diff(np.concatenate((starts, [fragment.n]))))
    return each


def vote(mode: str) -> Callable[..., Array]:
    """Return `vote.sync` in mode all, any, uni (predicates) or ballot (int32)."""

    def apply(chunk: Chunk, fragment: Fragment, line: int, predicate: Array, member: Array) -> Array:
        ones = ballot(chunk, fragment, predicate, member)
        result: Array
        if mode == "ballot":
            return ones.astype(np.uint32).view(np.int32)
        if mode == "any":
            result = ones != 0
            return result
        here = ballot(chunk, fragment, np.ones(1, np.bool_), member)
        result = ones == here if mode == "all" else (ones == 0) | (ones == here)
        return result

    return apply


def active_mask(chunk: Chunk, fragment: Fragment) -> Array:
    """The lanes that are here, as int32."""
    every = np.full(1, -1, np.int32)
    return ballot(chunk, fragment, np.ones(1, np.bool_), every).astype(np.uint32).view(np.int32)


def elect(chunk: Chunk, fragment: Fragment, member: Array) -> tuple[Array, Array]:
    """The lowest lane that is here and in the member mask, int32, and for each thread whether it is that one."""
    mask = ballot(chunk, fragment, np.ones(1, np.bool_), member)
    leader = np.bitwise_count((mask & -mask) - 1).astype(np.int32)
    return leader, leader == lanes(fragment)


def redux(name: str, signed: bool) -> Callable[..., Array]:
    """Return `redux.sync`: add, min, max, and, or, xor over the warp's threads, 32 bits."""
    function: np.ufunc = {
        "add": np.add,
        "min": np.minimum,
        "max": np.maximum,
        "and": np.bitwise_and,
        "or": np.bitwise_or,
        "xor": np.bitwise_xor,
    }[name]
    dtype = np.int32 if signed else np.uint32

    def apply(chunk: Chunk, fragment: Fragment, line: int, value: Array, member: Array) -> Array:
        values = np.ascontiguousarray(expand(fragment, value)).view(dtype)
        groups = expand(fragment, member)
        if bool((groups == groups[0]).all()):
            return warp_reduce(chunk, fragment, values, function).astype(dtype)
        result = np.empty(fragment.n, dtype)
        for mask in np.unique(groups):
            index = np.flatnonzero(groups == mask)
            part = fragment.select(index, ())
            result[index] = warp_reduce(chunk, part, values.take(index), function)
        return result

    return apply


def match(mode: str) -> Callable[..., Any]:
    """Return `match.any` (mask of the lanes with the same value) or `match.all` (mask or 0, and a predicate)."""

    def apply(chunk: Chunk, fragment: Fragment, line: int, value: Array, member: Array) -> Any:
        values = np.ascontiguousarray(expand(fragment, value))
        lane = lanes(fragment)
        table = np.zeros((chunk.slot_count // 32, 32), values.dtype)
        here = np.zeros((chunk.slot_count // 32, 32), np.bool_)
        table[fragment.warp_ids, lane] = values
        here[fragment.warp_ids, lane] = True
        same = (table[fragment.warp_ids] == values[:, None]) & here[fragment.warp_ids]
        mask = (same.astype(I8) << np.arange(32)).sum(axis=1) & member.view(np.uint32).astype(I8)
        if mode == "any":
            return mask.astype(np.uint32).view(np.int32)
        everyone = ballot(chunk, fragment, np.ones(1, np.bool_), member)
        agreed = mask == everyone
        return np.where(agreed, mask, 0).astype(np.uint32).view(np.int32), agreed

    return apply
