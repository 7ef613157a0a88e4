"""How often a warp waits for memory: the reads that depend on each other, one after the other, on its way.

Reads that do not depend on each other overlap, so a loop that reads four values before it adds them waits once where
four turns of a shorter loop wait four times. A chain runs through blocks that follow each other without a loop or a
barrier between them, since the assembler turns short branches into predicates; it ends with such a stretch. An
asynchronous copy is waited for where the thread waits for all of its groups before the stretch ends; a wait that leaves
some on their way finds the older ones there.
"""

from __future__ import annotations

from collections.abc import Sequence

from warpsmith.device.simulator.flow import Flow
from warpsmith.device.simulator.liveness import reads_and_writes
from warpsmith.device.simulator.ptx import Instruction, Integer

Classified = tuple[Instruction, str | None]


def longest_chain(steps: Sequence[Classified]) -> int:
    """Return how many reads of global memory wait for each other at most. `steps` are instructions with classes."""
    depth: dict[str, int] = {}
    longest = copied = stalled = 0
    for step, kind in steps:
        reads, writes = reads_and_writes(step)
        waited = max((depth[name] for name in reads if name in depth), default=0)
        if step.opcode == "cp":
            copied = max(copied, stalled + 1, waited + 1) if kind == "global" else copied
            stalled = copied if _waits_for_all(step) else stalled
            longest = max(longest, stalled)
            continue
        waited = max(waited, stalled)
        if kind in ("global", "atomic") and writes:
            waited += 1
        for name in writes:
            depth[name] = waited
        longest = max(longest, waited)
    return longest


def _waits_for_all(step: Instruction) -> bool:
    return "wait_all" in step.modifiers or ("wait_group" in step.modifiers and step.operands[0] == Integer(0))


def stretches(flow: Flow) -> tuple[tuple[int, ...], ...]:
    """Cut a kernel into stretches of blocks that run one after the other at most once each time around."""
    begins = {0}
    for block in flow.blocks:
        back = [target for target in block.targets if target <= block.index]
        begins.update(back)
        if back or block.waits:
            begins.add(block.index + 1)
    starts = sorted(begin for begin in begins if begin < len(flow.blocks))
    return tuple(tuple(range(start, end)) for start, end in zip(starts, [*starts[1:], len(flow.blocks)], strict=True))


class Chains:
    """Chains of one kernel. What was worked out for a set of executed blocks is kept for the next call."""

    def __init__(self, flow: Flow, classes: Sequence[Sequence[str | None]]) -> None:
        self._steps = [
            list(zip(block.steps, kinds, strict=True)) for block, kinds in zip(flow.blocks, classes, strict=True)
        ]
        self._stretches = stretches(flow)
        self._known: dict[tuple[int, ...], int] = {}

    def total(self, warps: Sequence[int]) -> int:
        """Return the reads on the chains of all warps; `warps` says how many executed each block.

        Blocks that no more than half of a stretch's warps execute are left out.
        """
        reads = 0
        for stretch in self._stretches:
            most = max(warps[block] for block in stretch)
            taken = tuple(block for block in stretch if 2 * warps[block] > most)
            if most:
                if taken not in self._known:
                    self._known[taken] = longest_chain([step for block in taken for step in self._steps[block]])
                reads += self._known[taken] * most
        return reads
