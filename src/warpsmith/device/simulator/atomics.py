"""Atomic operations on global and shared memory.

The threads of a fragment take their turns in the order of their slots. Where addresses collide, operations that NumPy
can accumulate (add, min, max, and, or, xor) run along each address's threads; others run in rounds, each round
serving one thread per address. Float sums are rounded after every single addition, as on hardware.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from warpsmith.device.simulator import half, memory
from warpsmith.device.simulator.decode import DTYPES
from warpsmith.device.simulator.fragment import Fragment
from warpsmith.device.simulator.ptx import Instruction
from warpsmith.device.simulator.site import Site

if TYPE_CHECKING:
    from warpsmith.device.simulator.machine import Chunk

Array = NDArray[Any]
Update = Callable[..., Array]
FEW_ROUNDS = 32


@dataclass(frozen=True, slots=True)
class Atomic:
    """`update(old, *operands)` gives the new value; `ufunc` is the same where NumPy can accumulate it."""

    update: Update
    ufunc: np.ufunc | None = None


def choose(condition: Array, a: Any, b: Any) -> Array:
    """`np.where`, with a result of a type that the checker can follow."""
    result: Array = np.where(condition, a, b)
    return result


def operation(step: Instruction, name: str, kind: str) -> Atomic:
    """Return what an atomic does. Raises SimulatorError for a combination that does not exist."""
    dtype = DTYPES[kind]
    if kind in ("f16", "bf16", "f16x2", "bf16x2"):
        if name not in ("add", "min", "max"):
            raise step.fail(f"no such atomic as .{name}.{kind}")
        function = half.scalar16(name, kind.startswith("bf16"))
        return Atomic(half.packed(function, kind.startswith("bf16")) if kind.endswith("x2") else function)
    ufuncs: dict[str, np.ufunc] = {
        "add": np.add,
        "min": np.minimum if dtype.kind in "iu" else np.fmin,
        "max": np.maximum if dtype.kind in "iu" else np.fmax,
        "and": np.bitwise_and,
        "or": np.bitwise_or,
        "xor": np.bitwise_xor,
    }
    if name in ufuncs:
        return Atomic(ufuncs[name], ufuncs[name])
    one = dtype.type(1)
    updates: dict[str, Update] = {
        "exch": lambda old, value: value,
        "cas": lambda old, expected, value: choose(old == expected, value, old),
        "inc": lambda old, limit: choose(old >= limit, dtype.type(0), old + one),
        "dec": lambda old, limit: choose((old == 0) | (old > limit), limit, old - one),
    }
    if name not in updates:
        raise step.fail(f"unknown atomic .{name}")
    return Atomic(updates[name])


def execute(
    chunk: Chunk, fragment: Fragment, site: Site, atomic: Atomic, returns: bool, addresses: Array, *operands: Array
) -> Array:
    """Execute an atomic; return the old values (for `red`, something unspecified)."""
    if site.space == "generic":
        return _generic(chunk, fragment, site, atomic, returns, addresses, operands)
    offset = site.offset - (memory.GLOBAL_BASE if site.space == "global" else 0)
    at = memory.positions(addresses, offset)
    at = at if at.shape[0] == fragment.n else np.broadcast_to(at, (fragment.n,))
    if site.space == "cluster":
        at = chunk.clusters.locate(fragment, site, addresses, (), write=True)
        view = chunk.shared.view(site.dtype)
    elif site.space == "global":
        memory.check_global(chunk, fragment, site, at)
        chunk.observe_global(fragment, site, at, write=True)
        view = chunk.memory.view(site.dtype)
    else:
        memory.check_range(fragment, site, at, chunk.shared_bytes, "shared memory")
        chunk.observe_shared(fragment, site, at, write=True)
        at = memory.shared_positions(chunk, fragment, at)
        view = chunk.shared.view(site.dtype)
    index = at >> (site.width.bit_length() - 1)
    values = tuple(np.ascontiguousarray(np.broadcast_to(operand, (fragment.n,))) for operand in operands)
    return _apply(view, index, atomic, values, returns)


def _generic(
    chunk: Chunk,
    fragment: Fragment,
    site: Site,
    atomic: Atomic,
    returns: bool,
    addresses: Array,
    operands: tuple[Array, ...],
) -> Array:
    spaces = np.broadcast_to(memory.space_of(chunk, fragment, site, addresses), (fragment.n,))
    result = np.empty(fragment.n, site.dtype)
    for kind in np.unique(spaces).tolist():
        name, base = memory.window(chunk, kind)
        if name == "local":
            raise memory.Fault("invalid_launch", fragment, 0, site.line, "an atomic on local memory")
        index = np.flatnonzero(spaces == kind)
        part = fragment.select(index, ())
        chosen = [one if one.shape[0] == 1 else one.take(index) for one in (addresses - base, *operands)]
        concrete = replace(site, space=name)
        result[index] = execute(chunk, part, concrete, atomic, returns, chosen[0], *chosen[1:])
    return result


def _apply(view: Array, index: Array, atomic: Atomic, values: tuple[Array, ...], returns: bool) -> Array:
    """Apply the operation at elements of `view`, lane after lane; return the old values."""
    if atomic.ufunc is not None and not returns:
        atomic.ufunc.at(view, index, values[0])
        return values[0]
    order = np.argsort(index, kind="stable")
    ordered = index[order]
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    lengths = np.diff(np.concatenate((starts, [len(ordered)])))
    old = np.empty(len(ordered), view.dtype)
    sorted_values = [value[order] for value in values]
    longest = int(lengths.max())
    if longest <= FEW_ROUNDS or len(starts) > longest:
        for turn in range(longest):
            lanes = starts[lengths > turn] + turn
            places = ordered[lanes]
            old[lanes] = view[places]
            view[places] = atomic.update(old[lanes], *(value[lanes] for value in sorted_values))
    else:
        for start, length in zip(starts.tolist(), lengths.tolist()):
            place = int(ordered[start])
            part = [value[start : start + length] for value in sorted_values]
            old[start : start + length], view[place] = _along(atomic, view[place : place + 1].copy(), part)
    result = np.empty_like(old)
    result[order] = old
    return result


def _along(atomic: Atomic, first: Array, values: list[Array]) -> tuple[Array, Any]:
    """Apply the operation to one address for one thread after the other; return old values and the last."""
    if atomic.ufunc is not None:
        running = atomic.ufunc.accumulate(np.concatenate((first, values[0])), dtype=first.dtype)
        return running[:-1], running[-1]
    old = np.empty(len(values[0]), first.dtype)
    current = first
    for turn in range(len(old)):
        old[turn] = current[0]
        current = atomic.update(current, *(value[turn : turn + 1] for value in values))
    return old, current[0]
