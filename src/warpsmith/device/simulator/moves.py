"""Emit moves, packing, addresses of variables, control: what moves values between registers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from warpsmith.device.simulator import memory, special
from warpsmith.device.simulator.decode import BOOL, DTYPES, SHORT, DType, Modifiers
from warpsmith.device.simulator.liveness import IGNORED
from warpsmith.device.simulator.ptx import (
    Instruction,
    Operand,
    Register,
    Vector,
)

if TYPE_CHECKING:
    from warpsmith.device.simulator.emit import Emitter

_SPACES = ("global", "shared", "shared::cta", "shared::cluster", "local", "const", "param")


def mov(e: Emitter, step: Instruction) -> str:
    """`mov`, also between a register and a vector of its parts."""
    kind = step.modifiers[-1]
    if kind not in DTYPES:
        raise step.fail(f"unknown type .{kind}")
    target, source = step.operands
    if isinstance(source, Vector):
        _pack(e, step, target, source, DTYPES[kind])
    elif isinstance(target, Vector):
        _unpack(e, step, target, source, DTYPES[kind])
    else:
        dtype = DTYPES[kind]
        if isinstance(target, Register) and target.name in e.home and e.home[target.name].itemsize == dtype.itemsize:
            dtype = e.home[target.name]
        e.write(step, target, e.read(step, source, dtype), dtype)
    return "other"


def _pack(e: Emitter, step: Instruction, target: Operand, source: Vector, dtype: DType) -> None:
    """`mov.b64 d, {a, b}`: the first item to the low bits."""
    part = np.dtype(f"u{dtype.itemsize // len(source.items)}")
    items = ", ".join(e.read(step, item, part) for item in source.items)
    e.write(step, target, f"{e.object(special.pack)}({SHORT[np.dtype(f'u{dtype.itemsize}')]}, {items})", dtype)


def _unpack(e: Emitter, step: Instruction, target: Vector, source: Operand, dtype: DType) -> None:
    """`mov.b64 {a, b}, d`."""
    part = np.dtype(f"u{dtype.itemsize // len(target.items)}")
    text = e.read(step, source, np.dtype(f"u{dtype.itemsize}"))
    e.lines.append(f"t = {text}.view({SHORT[part]}).reshape(-1, {len(target.items)})")
    for column, item in enumerate(target.items):
        e.write(step, item, f"t[:, {column}].copy()", part)


def move(e: Emitter, step: Instruction) -> None:
    """A parameter of an inlined call: written or read as the stated type."""
    targets, sources = step.operands
    assert isinstance(targets, Vector) and isinstance(sources, Vector)
    dtype = DTYPES[step.modifiers[0]]
    for number, source in enumerate(sources.items):
        e.lines.append(f"t{number} = {e.read(step, source, dtype)}")
    for number, target in enumerate(targets.items):
        e.write(step, target, f"t{number}", dtype)


def cvta(e: Emitter, step: Instruction) -> str:
    """`cvta`: add or take off the base of a generic window."""
    modifiers = Modifiers(step)
    back = modifiers.take("to")
    space = modifiers.one_of(*_SPACES, default="global")
    modifiers.type()
    modifiers.done()
    base = {"shared": memory.SHARED_BASE, "local": memory.LOCAL_BASE}.get(space.split("::")[0], 0)
    text = e.read(step, step.operands[1], np.dtype(np.int64))
    if base:
        text = f"{text} {'-' if back else '+'} {e.number(base, np.dtype(np.int64))}"
    e.write(step, step.operands[0], f"({text})", np.dtype(np.int64))
    return "other"


def isspacep(e: Emitter, step: Instruction) -> str:
    """`isspacep`: whether a generic address lies in a window."""
    space = step.modifiers[0]
    if space not in special.SPACE_TESTS:
        raise step.fail(f"unknown space .{space}")
    text = e.read(step, step.operands[1], np.dtype(np.int64))
    e.write(step, step.operands[0], f"{e.object(special.SPACE_TESTS[space])}({text})", BOOL)
    return "int"


def mapa(e: Emitter, step: Instruction) -> str:
    """`mapa`: the same place in the shared memory of another block of the cluster."""
    dtype, base = _window(step)
    items = f"{e.read(step, step.operands[1], dtype)}, {e.read(step, step.operands[2], np.dtype(np.int32))}"
    e.write(step, step.operands[0], f"M.clusters.map(F, {items}, {step.line}, {base})", dtype)
    return "int"


def getctarank(e: Emitter, step: Instruction) -> str:
    """`getctarank`: the rank of the block that an address of shared memory belongs to."""
    dtype, base = _window(step)
    text = f"M.clusters.rank_of(F, {e.read(step, step.operands[1], dtype)}, {base})"
    e.write(step, step.operands[0], text, np.dtype(np.int32))
    return "int"


def _window(step: Instruction) -> tuple[DType, int]:
    """The type of an address of shared memory, and where its window begins: generic, or `shared::cluster`."""
    modifiers = Modifiers(step)
    own = modifiers.take("shared::cluster")
    kind = modifiers.one_of("u32", "u64")
    modifiers.done()
    if kind == "u32" and not own:
        raise step.fail("generic addresses have 64 bits")
    return np.dtype(f"i{int(kind[1:]) // 8}"), 0 if own else memory.SHARED_BASE


def control(e: Emitter, step: Instruction) -> str | None:
    """Branches and the like: the block knows where to go, there is nothing to execute."""
    if step.opcode in IGNORED:
        return None
    return "control"
