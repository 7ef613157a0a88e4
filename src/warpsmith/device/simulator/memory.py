"""Global, shared and local memory: loads and stores of all widths, checked.

Addresses: global memory begins at `GLOBAL_BASE`; the generic windows of shared and local memory at `SHARED_BASE` and
`LOCAL_BASE`. Within their own spaces, shared and local addresses begin at 0.

Where all threads of a fragment access consecutive elements, the access is a slice; otherwise NumPy gathers or
scatters. Where several threads store to one address, the last one's value stays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from warpsmith.device.simulator.fragment import Fragment
from warpsmith.device.simulator.site import Site
from warpsmith.records import FindingKind

if TYPE_CHECKING:
    from warpsmith.device.simulator.machine import Chunk

Array = NDArray[Any]
GLOBAL_BASE = 0x7000_0000_0000
SHARED_BASE = 0x6E00_0000_0000
LOCAL_BASE = 0x6C00_0000_0000
WINDOW = 0x0100_0000_0000


class Fault(Exception):
    """A thread did what it must not, and the run ends. `lane` is a position in the fragment."""

    def __init__(self, kind: FindingKind, fragment: Fragment, lane: int, line: int, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.fragment = fragment
        self.lane = lane
        self.line = line


class Memory:
    """Bytes with views of every dtype. The length is a multiple of 16."""

    def __init__(self, data: NDArray[np.uint8]) -> None:
        self.data = data
        self.views: dict[Any, Array] = {}

    def view(self, dtype: Any, count: int = 1) -> Array:
        """The bytes as elements, or as rows of `count` elements."""
        key = (dtype, count)
        found = self.views.get(key)
        if found is None:
            found = self.data.view(dtype)
            if count > 1:
                found = found[: len(found) // count * count].reshape(-1, count)
            self.views[key] = found
        return found

    def load(self, at: Array, site: Site, n: int) -> tuple[Array, ...]:
        """Read at byte positions that were checked; return one array for each element."""
        width = site.width
        view = self.view(site.dtype, site.count)
        start = run_start(at, width)
        if start >= 0:
            first = start // width
            found = view[first : first + at.shape[0]]
            return tuple(found.T.copy()) if site.count > 1 else (found.copy(),)
        found = view.take(at >> (width.bit_length() - 1), axis=0)
        return tuple(found.T.copy()) if site.count > 1 else (found,)

    def store(self, at: Array, site: Site, values: tuple[Array, ...], n: int) -> None:
        """Write at byte positions that were checked."""
        width = site.width
        view = self.view(site.dtype, site.count)
        if at.shape[0] == 1:
            index: Any = int(at[0]) // width
            if site.count == 1:
                view[index] = values[0][-1]
            else:
                view[index] = [value[-1] for value in values]
            return
        start = run_start(at, width)
        shift = width.bit_length() - 1
        index = slice(start >> shift, (start >> shift) + at.shape[0]) if start >= 0 else at >> shift
        if site.count == 1:
            view[index] = values[0]
            return
        rows = np.empty((at.shape[0], site.count), site.dtype)
        for column, value in enumerate(values):
            rows[:, column] = value
        view[index] = rows


def run_start(at: Array, width: int) -> int:
    """Return the first position if positions are consecutive elements of `width` bytes, else -1."""
    n = at.shape[0]
    if n == 1:
        return -1
    first = int(at[0])
    if int(at[-1]) - first != (n - 1) * width:
        return -1
    if not bool((at[1:] - at[:-1] == width).all()):
        return -1
    return first


def positions(addresses: Array, offset: int) -> Array:
    """Return addresses plus offset as int64."""
    if addresses.dtype.itemsize == 4:
        addresses = addresses.view(np.uint32).astype(np.int64)
    return addresses + offset if offset else addresses


def load(chunk: Chunk, fragment: Fragment, site: Site, addresses: Array) -> tuple[Array, ...]:
    """Execute a load: one array for each element that a thread reads."""
    if site.space == "global":
        at = positions(addresses, site.offset - GLOBAL_BASE)
        check_global(chunk, fragment, site, at)
        chunk.observe_global(fragment, site, at, write=False)
        return chunk.memory.load(at, site, fragment.n)
    if site.space == "shared":
        at = positions(addresses, site.offset)
        check_range(fragment, site, at, chunk.shared_bytes, "shared memory")
        chunk.observe_shared(fragment, site, at, write=False)
        return chunk.shared.load(shared_positions(chunk, fragment, at), site, fragment.n)
    if site.space == "cluster":
        return chunk.shared.load(chunk.clusters.locate(fragment, site, addresses, (), write=False), site, fragment.n)
    if site.space == "local":
        at = positions(addresses, site.offset)
        check_range(fragment, site, at, chunk.local_bytes, "local memory")
        at = fragment.slots * chunk.local_stride + at
        chunk.observe_local(fragment, site, at, write=False)
        return chunk.local.load(at, site, fragment.n)
    return _generic(chunk, fragment, site, addresses, None)


def store(chunk: Chunk, fragment: Fragment, site: Site, addresses: Array, *values: Array) -> None:
    """Execute a store."""
    if site.space == "global":
        at = positions(addresses, site.offset - GLOBAL_BASE)
        check_global(chunk, fragment, site, at)
        chunk.observe_global(fragment, site, at, write=True, values=values)
        chunk.memory.store(at, site, values, fragment.n)
    elif site.space == "shared":
        at = positions(addresses, site.offset)
        check_range(fragment, site, at, chunk.shared_bytes, "shared memory")
        chunk.observe_shared(fragment, site, at, write=True, values=values)
        chunk.shared.store(shared_positions(chunk, fragment, at), site, values, fragment.n)
    elif site.space == "cluster":
        at = chunk.clusters.locate(fragment, site, addresses, values, write=True)
        chunk.shared.store(at, site, values, fragment.n)
    elif site.space == "local":
        at = positions(addresses, site.offset)
        check_range(fragment, site, at, chunk.local_bytes, "local memory")
        at = fragment.slots * chunk.local_stride + at
        chunk.observe_local(fragment, site, at, write=True)
        chunk.local.store(at, site, values, fragment.n)
    else:
        _generic(chunk, fragment, site, addresses, values)


def shared_positions(chunk: Chunk, fragment: Fragment, at: Array) -> Array:
    """Return positions in the shared memory of the whole chunk."""
    if chunk.block_count == 1:
        return at
    base = fragment.cache.get("shared")
    if base is None:
        base = fragment.block_ids * chunk.shared_stride
        if base[0] == base[-1]:
            base = base[:1]
        fragment.cache["shared"] = base
    return base + at


def space_of(chunk: Chunk, fragment: Fragment, site: Site, addresses: Array) -> Array:
    """Tell the space of each generic address: 0 global, 1 shared, 2 local. Raises Fault for one that is in none."""
    at = positions(addresses, site.offset)
    return np.where(at >= GLOBAL_BASE, 0, np.where(at >= SHARED_BASE, 1, np.where(at >= LOCAL_BASE, 2, 0)))


def window(chunk: Chunk, kind: int) -> tuple[str, int]:
    """The name of a space by its number, and where its window begins. Blocks of a cluster share one for theirs."""
    shared = "shared" if chunk.clusters.size == 1 else "cluster"
    return (("global", 0), (shared, SHARED_BASE), ("local", LOCAL_BASE))[kind]


def _generic(
    chunk: Chunk, fragment: Fragment, site: Site, addresses: Array, values: tuple[Array, ...] | None
) -> tuple[Array, ...]:
    """Execute a load or store with generic addresses, space by space."""
    spaces = space_of(chunk, fragment, site, addresses)
    results: tuple[Array, ...] = ()
    kinds = np.unique(spaces)
    for kind in kinds.tolist():
        name, base = window(chunk, kind)
        concrete = chunk.concrete(site, name)
        if len(kinds) == 1:
            if values is None:
                return load(chunk, fragment, concrete, addresses - base)
            store(chunk, fragment, concrete, addresses - base, *values)
            return ()
        index = np.flatnonzero(spaces == kind)
        part = fragment.select(index, ())
        chosen = addresses.take(index) - base
        if values is None:
            found = load(chunk, part, concrete, chosen)
            results = results or tuple(np.empty(fragment.n, one.dtype) for one in found)
            for whole, one in zip(results, found):
                whole[index] = one
        else:
            store(chunk, part, concrete, chosen, *(one if one.shape[0] == 1 else one.take(index) for one in values))
    return results


# ------------------------------------------------------------------------------------------------------------ checks


def check_global(chunk: Chunk, fragment: Fragment, site: Site, at: Array) -> None:
    """Raise Fault unless every access lies within a buffer and is aligned. Positions are relative to the arena."""
    low, high = int(at.min()), int(at.max())
    width = site.width
    arena = chunk.regions
    if arena.contains(low, high + width):
        if width == 1 or not int(np.bitwise_or.reduce(at)) & (width - 1):
            return
    elif bool(arena.inside(at, width).all()) and not int(np.bitwise_or.reduce(at)) & (width - 1):
        return
    wrong = ~arena.inside(at, width)
    action = f"{'reads' if site.text.startswith('ld') else 'accesses' if site.atomic else 'writes'} {width} bytes"
    if wrong.any():
        lane = int(np.flatnonzero(wrong)[0])
        where = arena.describe(int(at[lane]), GLOBAL_BASE)
        raise Fault("out_of_bounds", fragment, lane, site.line, f"{action} {where}")
    lane = int(np.flatnonzero(at & (width - 1))[0])
    where = arena.describe(int(at[lane]), GLOBAL_BASE)
    raise Fault("misaligned", fragment, lane, site.line, f"{action} at an address not a multiple of {width}: {where}")


def check_range(fragment: Fragment, site: Site, at: Array, size: int, space: str) -> None:
    """Raise Fault unless every access lies within the first `size` bytes of its space and is aligned."""
    low, high = int(at.min()), int(at.max())
    width = site.width
    if low < 0 or high + width > size:
        lane = int(np.flatnonzero((at < 0) | (at + width > size))[0])
        action = "reads" if site.text.startswith("ld") else "accesses" if site.atomic else "writes"
        message = f"{action} {width} bytes at offset {int(at[lane])} of {space}, which has {size}"
        raise Fault("out_of_bounds", fragment, lane, site.line, message)
    if width > 1 and int(np.bitwise_or.reduce(at)) & (width - 1):
        lane = int(np.flatnonzero(at & (width - 1))[0])
        message = f"accesses {width} bytes at offset {int(at[lane])} of {space}, not a multiple of {width}"
        raise Fault("misaligned", fragment, lane, site.line, message)
