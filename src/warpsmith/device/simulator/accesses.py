"""Emit loads, stores, atomics and asynchronous copies."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from warpsmith.device.simulator import atomics, ldmatrix, memory
from warpsmith.device.simulator.decode import BOOL, DTYPES, SHORT, DType
from warpsmith.device.simulator.ptx import (
    Address,
    Instruction,
    Integer,
    Operand,
    Register,
    Symbol,
    Vector,
)

if TYPE_CHECKING:
    from warpsmith.device.simulator.emit import Emitter

SPACES = ("global", "shared", "local", "const", "param")
CACHE_HINTS = ("nc", "ca", "cg", "cs", "lu", "cv", "wb", "wt", "weak")
STRONG = ("volatile", "relaxed", "acquire", "release", "acq_rel", "mmio", "sc")
SCOPES = ("cta", "cluster", "gpu", "sys")


def _access(step: Instruction) -> tuple[str, str, int, bool, bool]:
    """Read the modifiers of ld and st: space, type, elements, strong, read-only."""
    names = [name for name in step.modifiers if "::" not in name and name not in SCOPES]
    dropped = [name for name in step.modifiers if "::" in name]
    for name in dropped:
        stem = name.split("::")[0]
        if stem not in ("L1", "L2", "shared", "param", "level"):
            raise step.fail(f"unknown modifier .{name}")
        if name == "shared::cluster":
            names.insert(0, "cluster")
        elif stem in ("shared", "param"):
            if name.split("::")[1] not in ("cta", "entry", "func"):
                raise step.fail(f"unknown modifier .{name}")
            names.insert(0, stem)
    space, kind, count, strong, read_only = "generic", "", 1, False, False
    for name in names:
        if name in SPACES or name == "cluster":
            space = "global" if name == "const" else name
            read_only = read_only or name == "const"
        elif name in DTYPES:
            kind = name
        elif name in ("v2", "v4"):
            count = int(name[1:])
        elif name in STRONG:
            strong = True
        elif name == "nc":
            read_only = True
        elif name not in CACHE_HINTS:
            raise step.fail(f"unknown modifier .{name}")
    if not kind:
        raise step.fail("no type that the simulator knows")
    return space, kind, count, strong, read_only


def address_of(e: Emitter, step: Instruction, where: Operand, space: str) -> tuple[str, int]:
    """Return the expression of an address without its constant offset, and that offset."""
    if not isinstance(where, Address):
        raise step.fail("an address is due")
    match where.base:
        case Register(name) if name in e.home:
            size = e.home[name].itemsize
            return e.read(step, where.base, np.dtype(f"i{size}")), where.offset
        case Symbol(name, _):
            address = e.address(step, name)
            return e.number(address, np.dtype(np.int64)), where.offset
        case Integer(value):
            return e.number(value, np.dtype(np.int64)), where.offset
    raise step.fail("unsupported address")


def load(e: Emitter, step: Instruction) -> str:
    """`ld`."""
    space, kind, count, strong, read_only = _access(step)
    target, where = step.operands[:2]
    targets = target.items if isinstance(target, Vector) else (target,)
    dtype = _memory_dtype(e, kind, targets)
    if space == "param":
        _ld_param(e, step, targets, where, kind)
        return "other"
    base, offset = address_of(e, step, where, space)
    site = e.site(step, space, dtype, count, offset, strong=strong, read_only=read_only)
    call = f"{e.object(memory.load)}(M, F, {site}, {base})"
    if count == 1:
        e.write(step, targets[0], f"{call}[0]", dtype)
        return _class(space)
    e.lines.append(f"t = {call}")
    for column, item in enumerate(targets):
        e.write(step, item, f"t[{column}]", dtype)
    return _class(space)


def _class(space: str) -> str:
    """The class that an access is counted in."""
    return {"local": "local", "shared": "shared", "cluster": "shared"}.get(space, "global")


def _memory_dtype(e: Emitter, kind: str, registers: tuple[Operand, ...]) -> DType:
    """The dtype to move: that of the register where the widths agree, so that no view is needed."""
    dtype = DTYPES[kind]
    first = registers[0]
    if isinstance(first, Register) and first.name in e.home:
        home = e.home[first.name]
        if home.itemsize == dtype.itemsize:
            return home
    return dtype


def _ld_param(e: Emitter, step: Instruction, targets: tuple[Operand, ...], where: Operand, kind: str) -> None:
    """A kernel's argument: the same for all threads, known at launch."""
    if not isinstance(where, Address) or not isinstance(where.base, Symbol):
        raise step.fail("a parameter whose address is computed")
    dtype = DTYPES[kind]
    for number, target in enumerate(targets):
        offset = where.offset + number * dtype.itemsize
        text = f"M.argument({where.base.name!r}, {offset}, {SHORT[dtype]})"
        e.write(step, target, text, dtype)


def store(e: Emitter, step: Instruction) -> str:
    """`st`."""
    space, kind, count, strong, _ = _access(step)
    where, value = step.operands[:2]
    values = value.items if isinstance(value, Vector) else (value,)
    dtype = _memory_dtype(e, kind, values)
    base, offset = address_of(e, step, where, space)
    site = e.site(step, space, dtype, count, offset, strong=strong)
    items = ", ".join(e.read(step, item, dtype) for item in values)
    e.lines.append(f"{e.object(memory.store)}(M, F, {site}, {base}, {items})")
    return _class(space)


def atomic(e: Emitter, step: Instruction) -> str:
    """`atom` and `red`."""
    names = [name for name in step.modifiers if name not in SCOPES and name not in STRONG]
    names = [name.removesuffix("::cta").removeprefix("shared::") for name in names]
    space = "generic"
    if names and names[0] in ("global", "shared", "cluster"):
        space = names.pop(0)
    names = [name for name in names if name not in ("noftz", "L2::cache_hint")]
    if len(names) != 2 or names[1] not in DTYPES:
        raise step.fail("unknown form of atomic")
    returns = step.opcode == "atom"
    where, *sources = step.operands[1:] if returns else step.operands
    dtype = DTYPES[names[1]]
    function = atomics.operation(step, names[0], names[1])
    base, offset = address_of(e, step, where, space)
    site = e.site(step, space, dtype, 1, offset, atomic=True)
    items = ", ".join(e.read(step, item, dtype) for item in sources)
    call = f"{e.object(atomics.execute)}(M, F, {site}, {e.object(function)}, {returns}, {base}, {items})"
    if returns and not (isinstance(step.operands[0], Register) and step.operands[0].name == "_"):
        e.write(step, step.operands[0], call, dtype)
    else:
        e.lines.append(call)
    return "atomic"


def load_matrix(e: Emitter, step: Instruction) -> str:
    """`ldmatrix`."""
    return ldmatrix.emit(e, step, *address_of(e, step, step.operands[1], "shared"))


def copy(e: Emitter, step: Instruction) -> str | None:
    """`cp.async` from global to shared memory, and waiting for it."""
    names = [name.removesuffix("::cta") for name in step.modifiers if not name.startswith("L2::")]
    match names:
        case ["async", "commit_group"]:
            e.lines.append("M.copies.commit(F)")
            return "control"
        case ["async", "wait_all"]:
            e.lines.append("M.copies.wait_all(F)")
            return "control"
        case ["async", "wait_group"]:
            left = step.operands[0]
            if not isinstance(left, Integer) or left.value < 0:
                raise step.fail("the number of groups must be constant")
            e.lines.append(f"M.copies.wait(F, {left.value})")
            return "control"
        case ["async", "ca" | "cg" as cache, "shared", "global"]:
            _copy(e, step, cache)
            return "global"
    raise step.fail("unknown form of copy")


def _copy(e: Emitter, step: Instruction, cache: str) -> None:
    target, source, size, *rest = step.operands
    if not isinstance(size, Integer) or size.value not in ((16,) if cache == "cg" else (4, 8, 16)):
        raise step.fail("no size that this copy can have")
    if rest and (len(rest) > 1 or (isinstance(rest[0], Register) and e.home.get(rest[0].name) == BOOL)):
        raise step.fail("unknown form of copy")
    dtype: DType = np.dtype(np.int32 if size.value == 4 else np.int64)
    count = 2 if size.value == 16 else 1
    to, to_offset = address_of(e, step, target, "shared")
    start, start_offset = address_of(e, step, source, "global")
    reading = e.site(step, "global", dtype, count, start_offset)
    writing = e.site(step, "shared", dtype, count, to_offset)
    kept = e.read(step, rest[0], np.dtype(np.int32)) if rest else "None"
    e.lines.append(f"M.copies.issue(F, {reading}, {writing}, {to}, {start}, {kept})")
