"""Launches that begin before the one before them has ended: does a kernel wait before it touches global memory?

Under programmatic dependent launch a kernel runs beside the one before it until it executes `griddepcontrol.wait`,
which returns once that one has ended and its writes are visible (PTX ISA, "griddepcontrol"). What is read before may
not be there yet, and what is written may still be needed by others. The simulator runs launches one after the other,
so it would never see that, and on hardware it goes well most of the time. Therefore this looks at the code: on every
path from the start of the kernel a wait must stand before the first access, and before the end. The latter keeps chains
in order: a kernel that ended without having waited would tell the next one that all before it is done.

This is conservative. A path counts whether or not a thread can take it. An access counts whatever it reads, so also
parameters of the module, which nobody writes. A generic access counts, although it may be to shared memory, and so does
a prefetch, since what it brings into a cache may be stale. Where the code cannot be followed, such as through an
indirect call, the launch is refused.
"""

from __future__ import annotations

from functools import lru_cache

from warpsmith.device.simulator.flow import Exit, Flow, flow
from warpsmith.device.simulator.parse import parse
from warpsmith.device.simulator.ptx import Instruction
from warpsmith.errors import SimulatorError
from warpsmith.records import BoundPlan, Finding

_WAIT = "griddepcontrol.wait"
_ACCESSES = frozenset(("ld", "ldu", "st", "atom", "red", "prefetch", "prefetchu", "discard", "multimem"))
_TEXTURES = frozenset(("tex", "tld4", "suld", "sust", "sured"))
_ELSEWHERE = frozenset(("shared", "local", "const", "param"))
"""Spaces that no other launch sees, or none can write."""


def early_access(flow: Flow) -> Finding | None:
    """Return what a kernel does before it has waited: the first such access in the order of the code, or its end."""
    seen, waiting = {0}, [0]
    accesses: list[tuple[int, Instruction]] = []
    ends: list[tuple[int, int]] = []
    while waiting:
        block = flow.blocks[waiting.pop()]
        for step in block.steps:
            if _waits(step):
                break
            if _touches_global(step):
                accesses.append((block.index, step))
                break
        else:
            if isinstance(block.end, Exit) and block.end.trap is None:
                ends.append((block.index, block.steps[-1].line if block.steps else 0))
            fresh = set(block.targets) - seen
            seen |= fresh
            waiting.extend(fresh)
    if accesses:
        _, step = min(accesses, key=lambda found: found[0])
        why = f"`{step.text}` may touch global memory before {_WAIT}, while launches before this one still use it"
        return Finding("global_race", flow.name, step.line, why)
    if ends:
        why = f"a path ends without {_WAIT}, so that launches after this one may begin too early"
        return Finding("global_race", flow.name, min(ends)[1], why)
    return None


@lru_cache(maxsize=64)
def early_accesses(ptx: str, plan: BoundPlan) -> Finding | None:
    """Look at every launch of a plan that may overlap; return the first finding, None also for kernels not there."""
    names = dict.fromkeys(launch.kernel for launch in plan.launches if launch.overlap)
    name = ""
    try:
        module = parse(ptx) if names else None
        for name in names:
            if module is not None and name in module.functions:
                found = early_access(flow(module, name))
                if found is not None:
                    return found
    except SimulatorError as error:
        why = f"it cannot be told whether the kernel waits before it touches global memory: {error}"
        return Finding("global_race", name or next(iter(names)), 0, why)
    return None


def _waits(step: Instruction) -> bool:
    return step.opcode == "griddepcontrol" and "wait" in step.modifiers


def _touches_global(step: Instruction) -> bool:
    """Whether an instruction reads or writes global memory, or may do so."""
    if step.opcode in _TEXTURES:
        return True
    spaces = {name.split("::")[0] for name in step.modifiers}
    if step.opcode == "cp":
        return "global" in spaces
    return step.opcode in _ACCESSES and ("global" in spaces or not spaces & _ELSEWHERE)
