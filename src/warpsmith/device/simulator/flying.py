"""Which registers may belong to a `wgmma` on its way, at each instruction: what has to be settled or checked where.

Marks of results (see `products`) are exact, but looking for one costs time, so this finds where one may be at all:
results flow from `wgmma.mma_async` through `mov`, and end with a `wgmma.wait_group 0` or with another write. Each wait
gets the registers which it must settle as an operand: those that may be marked and are needed afterwards.

A compiler may move values between registers at any place, so a plain `mov` never counts as reading a result.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from warpsmith.device.simulator.liveness import reads_and_writes, registers_of
from warpsmith.device.simulator.ptx import Instruction, Integer, Register, Vector
from warpsmith.device.simulator.wgmma import multiplies, waits

if TYPE_CHECKING:
    from warpsmith.device.simulator.flow import Block

# A register that may hold the result of a product on its way, and whether the product's group is not yet committed.
State = frozenset[tuple[str, bool]]


@dataclass(frozen=True)
class InFlight:
    """What to check at instructions, by their identity.

    `reads` are registers that an instruction reads while they may be marked. `unfenced` are products that take a
    register which was computed after the last wait with no fence since.
    """

    reads: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    unfenced: frozenset[int] = frozenset()


def moved(step: Instruction) -> tuple[tuple[str, str], ...]:
    """Pairs of target and source of a `mov` between registers of one width; nothing for other instructions."""
    if step.opcode == "move":
        sides = [one.items for one in step.operands if isinstance(one, Vector)]
    elif step.opcode == "mov":
        sides = [(one,) for one in step.operands]
    else:
        return ()
    if len(sides) != 2:
        return ()
    pairs = zip(*sides, strict=False)
    return tuple((a.name, b.name) for a, b in pairs if isinstance(a, Register) and isinstance(b, Register))


def _after(step: Instruction, state: State) -> State:
    """The state after an instruction."""
    if multiplies(step):
        results = registers_of(step.operands[0])
        return state - {(name, False) for name in results} | {(name, True) for name in results}
    if step.opcode == "wgmma":
        if "commit_group" in step.modifiers:
            return frozenset((name, False) for name, _ in state)
        if waits(step) and step.operands[-1] == Integer(0):
            return frozenset(one for one in state if one[1])
        return state
    if not state:
        return state
    gone = {item for name in reads_and_writes(step)[1] for item in _items(state, name)}
    come = {(target, item[1]) for target, source in moved(step) for item in _items(state, source)}
    return state if gone == come else state - gone | come


def _items(state: State, name: str) -> Iterator[tuple[str, bool]]:
    return (item for item in ((name, False), (name, True)) if item in state)


def _states(blocks: Sequence[Block]) -> list[State]:
    """The state before each block: whatever some way to it may leave."""
    before: list[State] = [frozenset() for _ in blocks]
    waiting = {block.index for block in blocks if any(step.opcode == "wgmma" for step in block.steps)}
    while waiting:
        index = min(waiting)
        waiting.remove(index)
        state = before[index]
        for step in blocks[index].steps:
            state = _after(step, state)
        for target in blocks[index].targets:
            if not state <= before[target]:
                before[target] |= state
                waiting.add(target)
    return before


def trace(blocks: Sequence[Block]) -> InFlight:
    """Find what to check, and give waits the registers to settle. Reads `live_in` of every block."""
    if not any(step.opcode == "wgmma" for block in blocks for step in block.steps):
        return InFlight()
    reads: dict[int, tuple[str, ...]] = {}
    before = _states(blocks)
    for block in blocks:
        state = before[block.index]
        needed = list(_needed_after(blocks, block))
        for number, step in enumerate(block.steps):
            marked = {name for name, _ in state}
            if waits(step):
                settled = Vector(tuple(Register(name) for name in sorted(marked & needed[number])))
                block.steps[number] = replace(step, operands=(settled, *step.operands))
            elif marked and (read := marked & _read_at_once(step)):
                reads[id(step)] = tuple(sorted(read))
            state = _after(step, state)
    return InFlight(reads, frozenset(_unfenced(blocks)))


def _read_at_once(step: Instruction) -> set[str]:
    """Registers whose values an instruction needs. What a product finds in its accumulators, it checks itself."""
    if multiplies(step):
        return set(registers_of(step.operands[1]))
    return set(reads_and_writes(step)[0]) - {source for _, source in moved(step)}


def _needed_after(blocks: Sequence[Block], block: Block) -> Iterator[frozenset[str]]:
    """For each instruction of a block, the registers that are needed after it."""
    needed = {name for target in block.targets for name in blocks[target].live_in} | set(block.decides)
    found: list[frozenset[str]] = []
    for step in reversed(block.steps):
        found.append(frozenset(needed))
        reads, writes = reads_and_writes(step)
        needed = needed - set(writes) | set(reads)
    return reversed(found)


def _unfenced(blocks: Sequence[Block]) -> Iterator[int]:
    """Products that take a register computed after a wait, where no way leads around that and no fence follows it."""
    sources: dict[int, list[int]] = {}
    for block in blocks:
        for target in block.targets:
            sources.setdefault(target, []).append(block.index)
    for block in blocks:
        for number, step in enumerate(block.steps):
            if multiplies(step) and _computed_since_wait(blocks, sources, block, number):
                yield id(step)


def _computed_since_wait(blocks: Sequence[Block], sources: Mapping[int, list[int]], block: Block, number: int) -> bool:
    """Walk back from a product, as long as there is one way only, to a fence or a wait."""
    step = block.steps[number]
    wanted = {name for operand in step.operands[:2] for name in registers_of(operand) if isinstance(operand, Vector)}
    computed = False
    seen = {block.index}
    steps = block.steps[:number]
    while True:
        for earlier in reversed(steps):
            if earlier.opcode == "wgmma":
                if waits(earlier):
                    return computed
                return False
            pairs = dict(moved(earlier))
            written = set(reads_and_writes(earlier)[1]) & wanted
            wanted -= written
            wanted |= {pairs[name] for name in written if name in pairs}
            computed = computed or any(name not in pairs and earlier.opcode not in ("mov", "move") for name in written)
        come_from = sources.get(block.index, [])
        if len(come_from) != 1 or come_from[0] in seen:
            return False
        block = blocks[come_from[0]]
        seen.add(block.index)
        steps = block.steps
