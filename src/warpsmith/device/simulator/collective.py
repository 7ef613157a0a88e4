"""Emit instructions by which threads wait for or see each other: barriers, fences, shuffles, votes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from warpsmith.device.simulator import warp
from warpsmith.device.simulator.decode import BOOL, DTYPES, Modifiers
from warpsmith.device.simulator.ptx import (
    Instruction,
    Pair,
    Register,
)

if TYPE_CHECKING:
    from warpsmith.device.simulator.emit import Emitter


def shuffle(e: Emitter, step: Instruction) -> str:
    """`shfl.sync`."""
    modifiers = Modifiers(step)
    modifiers.one_of("sync")
    mode = modifiers.one_of("up", "down", "bfly", "idx")
    modifiers.type()
    modifiers.done()
    target, value, b, c, member = step.operands
    word = np.dtype(np.int32)
    if isinstance(value, Register) and value.name in e.home:
        word = e.home[value.name]
    integer = np.dtype(np.int32)
    items = ", ".join((e.read(step, value, word), *(e.read(step, one, integer) for one in (b, c, member))))
    e.lines.append(f"t, u = {e.object(warp.shuffle(mode))}(M, F, {step.line}, {items})")
    e.write(step, target.first if isinstance(target, Pair) else target, "t", word)
    if isinstance(target, Pair):
        e.write(step, target.second, "u", BOOL)
    return "shuffle"


def vote(e: Emitter, step: Instruction) -> str:
    """`vote.sync`."""
    modifiers = Modifiers(step)
    modifiers.one_of("sync")
    mode = modifiers.one_of("all", "any", "uni", "ballot")
    modifiers.type()
    modifiers.done()
    target, predicate, member = step.operands
    text = f"{e.read(step, predicate, BOOL)}, {e.read(step, member, np.dtype(np.int32))}"
    dtype = np.dtype(np.int32) if mode == "ballot" else BOOL
    e.write(step, target, f"{e.object(warp.vote(mode))}(M, F, {step.line}, {text})", dtype)
    return "shuffle"


def redux(e: Emitter, step: Instruction) -> str:
    """`redux.sync`."""
    modifiers = Modifiers(step)
    modifiers.one_of("sync")
    name = modifiers.one_of("add", "min", "max", "and", "or", "xor")
    dtype = DTYPES[modifiers.type()]
    modifiers.done()
    target, value, member = step.operands
    text = f"{e.read(step, value, dtype)}, {e.read(step, member, np.dtype(np.int32))}"
    function = warp.redux(name, dtype.kind == "i")
    e.write(step, target, f"{e.object(function)}(M, F, {step.line}, {text})", dtype)
    return "shuffle"


def match(e: Emitter, step: Instruction) -> str:
    """`match.sync`."""
    modifiers = Modifiers(step)
    mode = modifiers.one_of("any", "all")
    modifiers.one_of("sync")
    dtype = DTYPES[modifiers.type()]
    modifiers.done()
    target, value, member = step.operands
    text = f"{e.read(step, value, dtype)}, {e.read(step, member, np.dtype(np.int32))}"
    call = f"{e.object(warp.match(mode))}(M, F, {step.line}, {text})"
    integer = np.dtype(np.int32)
    if mode == "any":
        e.write(step, target, call, integer)
        return "shuffle"
    e.lines.append(f"t, u = {call}")
    e.write(step, target.first if isinstance(target, Pair) else target, "t", integer)
    if isinstance(target, Pair):
        e.write(step, target.second, "u", BOOL)
    return "shuffle"


def elect(e: Emitter, step: Instruction) -> str:
    """`elect.sync`: the lowest lane of the member mask. Hardware says only that it is the same one every time."""
    modifiers = Modifiers(step)
    modifiers.one_of("sync")
    modifiers.done()
    target, member = step.operands
    integer = np.dtype(np.int32)
    if not isinstance(target, Pair):
        raise step.fail("two destinations are due")
    e.lines.append(f"t, u = {e.object(warp.elect)}(M, F, {e.read(step, member, integer)})")
    e.write(step, target.first, "t", integer)
    e.write(step, target.second, "u", BOOL)
    return "shuffle"


def activemask(e: Emitter, step: Instruction) -> str:
    """`activemask`."""
    e.write(step, step.operands[0], f"{e.object(warp.active_mask)}(M, F)", np.dtype(np.int32))
    return "shuffle"


def barrier(e: Emitter, step: Instruction) -> str:
    """`bar` and `barrier`: the scheduler does the waiting."""
    if step.modifiers[:1] == ("cluster",):
        _cluster_barrier(e, step)
        return "barrier"
    if step.modifiers[:1] == ("warp",):
        e.lines.append("M.warp_barrier(F)")
        return "barrier"
    if "red" in step.modifiers:
        names = [name for name in step.modifiers if name not in ("cta", "aligned", "red", "pred", "u32")]
        if names not in (["popc"], ["and"], ["or"]):
            raise step.fail("unknown reduction")
        e.lines.append(f"M.barrier_values = ({names[0]!r}, {e.read(step, step.operands[-1], BOOL)})")
        target = step.operands[0]
        if isinstance(target, Register):
            e.lines.append(f"r{e.slots[target.name]} = {e.number(0, e.home[target.name])}")
    return "barrier"


def _cluster_barrier(e: Emitter, step: Instruction) -> None:
    """`barrier.cluster.arrive`; a wait is how a block ends."""
    names = set(step.modifiers[2:])
    if step.modifiers[1:2] == ("arrive",):
        if not names <= {"release", "relaxed", "aligned"}:
            raise step.fail("unknown form of barrier")
        e.lines.append(f"M.clusters.arrive(F, {step.line}, {'relaxed' in names})")
    elif step.modifiers[1:2] != ("wait",):
        raise step.fail("unknown form of barrier")


def fence(e: Emitter, step: Instruction) -> str:
    """`membar` and `fence`: memory is always consistent here, but the sanitizer wants to know of proxies."""
    if step.modifiers in (("proxy", "async"), ("proxy", "async", "shared::cta")):
        e.lines.append("M.proxy_fence(F)")
        return "barrier"
    if step.modifiers == ("mbarrier_init", "release", "cluster"):
        return "barrier"
    known = {"gl", "cta", "sys", "sc", "acq_rel", "gpu", "cluster", "level", "proxy", "alias", "async"}
    if not set(step.modifiers) - {"global"} <= known:
        raise step.fail("unknown form of fence")
    return "barrier"
