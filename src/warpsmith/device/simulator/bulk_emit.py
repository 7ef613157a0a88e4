"""Emit `mbarrier` and `cp.async.bulk`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from warpsmith.device.simulator import accesses
from warpsmith.device.simulator.decode import BOOL
from warpsmith.device.simulator.ptx import Instruction, Operand, Register

if TYPE_CHECKING:
    from warpsmith.device.simulator.emit import Emitter

I4, I8 = np.dtype(np.int32), np.dtype(np.int64)
COPY = ["async", "bulk", "shared", "global", "mbarrier::complete_tx::bytes"]
"""Modifiers of a copy, where `::cta` and `::cluster` are left out: to a block's own memory they mean the same."""


def barrier(e: Emitter, step: Instruction) -> str:
    """`mbarrier`: the arrivals and the bytes that a phase waits for."""
    names = [name.removesuffix("::cta") for name in step.modifiers if name not in ("release", "cta", "acquire")]
    match names:
        case ["init", "shared", "b64"]:
            where, count = step.operands
            e.lines.append(f"M.bulk.init(F, {_barrier(e, step, where)}, {e.read(step, count, I4)})")
        case ["arrive", "shared", "b64"] if len(step.operands) == 2:
            _unused(step)
            e.lines.append(f"M.bulk.arrive(F, {_barrier(e, step, step.operands[1])}, None)")
        case ["arrive", "expect_tx", "shared", "b64"]:
            _unused(step)
            _, where, size = step.operands
            e.lines.append(f"M.bulk.arrive(F, {_barrier(e, step, where)}, {e.read(step, size, I4)})")
        case ["try_wait" | "test_wait", "parity", "shared", "b64"] if len(step.operands) == 3:
            target, where, parity = step.operands
            call = f"M.bulk.test(F, {_barrier(e, step, where)}, {e.read(step, parity, I4)})"
            e.write(step, target, call, BOOL)
        case _:
            raise step.fail("unknown form of mbarrier")
    return "barrier"


def _unused(step: Instruction) -> None:
    """The state that an arrival returns is not kept: waiting goes by parity."""
    if step.operands[0] != Register("_"):
        raise step.fail("the state of a barrier: only waiting by parity is known")


def _barrier(e: Emitter, step: Instruction, where: Operand) -> str:
    """The site and the address of a barrier."""
    base, offset = accesses.address_of(e, step, where, "shared")
    return f"{e.site(step, 'shared', I8, 1, offset, atomic=True)}, {base}"


def copy(e: Emitter, step: Instruction) -> str | None:
    """`cp.async.bulk` from global to shared memory; other copies are left to `accesses`."""
    if "bulk" not in step.modifiers:
        return accesses.copy(e, step)
    if [name.removesuffix("::cta").removesuffix("::cluster") for name in step.modifiers] != COPY:
        raise step.fail("unknown form of copy")
    target, source, size, told = step.operands
    to, to_offset = accesses.address_of(e, step, target, "shared")
    start, start_offset = accesses.address_of(e, step, source, "global")
    reading, writing = e.site(step, "global", I8, 2, start_offset), e.site(step, "shared", I8, 2, to_offset)
    count = e.read(step, size, I4)
    e.lines.append(f"M.bulk.copy(F, {reading}, {writing}, {to}, {start}, {count}, {_barrier(e, step, told)})")
    return "global"
