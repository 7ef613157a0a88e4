"""Operands in pieces: how many elements can be moved at once, and asynchronous copies of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeGuard

from warpsmith.author.builtin.index import Axis, lift
from warpsmith.author.builtin.kernels.emission import Lanes, loads, pointer
from warpsmith.author.builtin.printer import Printer
from warpsmith.author.builtin.scalar import Load, Scalar, looked_up
from warpsmith.records import DTYPE_BYTES


def widest_vector(extent: int, limit: int, axis: str, value: Callable[[Lanes], Scalar]) -> int:
    """Widest vectors along `axis`, at most `limit` elements and 16 bytes, in which all that varies is read whole."""
    for vec in (8, 4, 2):
        if vec > limit or extent % vec:
            continue
        lanes = Lanes(Axis(axis, extent // vec), vec)
        varying = [load for load in loads([value(lanes)]) if lanes.k in load.axes]
        narrow = all(DTYPE_BYTES[load.stored] * vec <= 16 for load in varying)
        if varying and narrow and all(lanes.is_vector(load) for load in varying):
            return vec
    return 1


def copyable(value: Scalar, lanes: Lanes, dtype: str) -> TypeGuard[Load]:
    """Whether lanes read elements of `dtype` as they lie in memory, in pieces that can be copied asynchronously."""
    if not isinstance(value, Load) or value.stored != dtype:
        return False
    whole = lanes.vec == 1 or lanes.is_vector(value)
    return whole and DTYPE_BYTES[dtype] * lanes.vec in (4, 8, 16)


def copied(printer: Printer, load: Load, lanes: Lanes, spot: str, conditions: Sequence[str]) -> str:
    """Return the statement that copies a piece asynchronously, zeros where a condition or the guard does not hold.

    Where it lies is then not asked either, if that has to be read from memory.
    """
    inside = [*conditions, *([f"({printer.value(load.guard)})"] if load.guard is not None else [])]
    at = load.index - lift(lanes.k) if lanes.vec > 1 else load.index
    source, holds = f"&{pointer(load.tensor)}[{printer.index(at)}]", " && ".join(inside)
    if inside and looked_up(at):
        source = f"{holds} ? {source} : {pointer(load.tensor)}"
    last = f", {holds}" if inside else ""
    return f"copy_async<{DTYPE_BYTES[load.stored] * lanes.vec}>({spot}, {source}{last});"
