"""From a parsed kernel to basic blocks: calls inlined, guards turned into branches, registers live at each block.

A block's index is its program counter. A block begins where a branch may land, at every instruction that makes the
threads of a warp wait for each other, and after a barrier, so that threads only ever wait at the start of a block.
Device functions are inlined at each call, with names of their own; a recursive or indirect call is an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, replace

from warpsmith.device.simulator.flying import InFlight, trace
from warpsmith.device.simulator.inline import Inliner, check_parameter_slots, parameter_access
from warpsmith.device.simulator.liveness import CARRY, ENDS, reads_and_writes
from warpsmith.device.simulator.ptx import (
    Address,
    Group,
    Instruction,
    Label,
    Module,
    Operand,
    Pair,
    Register,
    Symbol,
    Variable,
    Vector,
)
from warpsmith.device.simulator.wgmma import multiplies
from warpsmith.errors import SimulatorError

# Where shared memory of a size that the launch says begins, unless its declaration asks for more.
_DYNAMIC_ALIGN = 16


@dataclass(frozen=True, slots=True)
class Jump:
    """Go on at a block."""

    target: int


@dataclass(frozen=True, slots=True)
class Branch:
    """Go to `taken` where the predicate holds (or, if negated, does not), else to `other`.

    A branch that stands for the guard of another instruction is not `counted`.
    """

    predicate: str
    negated: bool
    taken: int
    other: int
    counted: bool


@dataclass(frozen=True, slots=True)
class Switch:
    """Go to the target with the number in a register."""

    selector: str
    targets: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Exit:
    """The thread ends; `trap` if it asked to be aborted."""

    trap: Instruction | None = None


@dataclass(frozen=True, slots=True)
class Barrier:
    """Wait for the block's threads, or a number of them, at a barrier; then go on at `target`.

    `barrier` and `threads` are operands; `threads` is None for all of them. `arrive` does not wait.
    """

    instruction: Instruction
    barrier: Operand
    threads: Operand | None
    arrive: bool
    target: int


@dataclass(frozen=True, slots=True)
class ClusterWait:
    """Wait until all threads of the cluster have arrived (`barrier.cluster.wait`); then go on at `target`."""

    instruction: Instruction
    target: int


End = Jump | Branch | Switch | Exit | Barrier | ClusterWait


@dataclass
class Block:
    """Instructions that are executed one after the other, and where to go from there."""

    index: int
    steps: list[Instruction]
    end: End
    live_in: frozenset[str] = frozenset()
    waits: bool = False
    line: int = 0

    @property
    def gathers(self) -> bool:
        """Whether it begins with an instruction for which a whole warpgroup must come together."""
        return bool(self.steps) and multiplies(self.steps[0])

    @property
    def decides(self) -> tuple[str, ...]:
        """Registers that say where to go from here."""
        match self.end:
            case Branch(predicate=name) | Switch(selector=name):
                return (name,)
            case Barrier(barrier=barrier, threads=threads):
                return tuple(one.name for one in (barrier, threads) if isinstance(one, Register))
            case _:
                return ()

    @property
    def targets(self) -> tuple[int, ...]:
        """Blocks that may come next."""
        match self.end:
            case Jump(target) | Barrier(target=target) | ClusterWait(target=target):
                return (target,)
            case Branch(taken=taken, other=other):
                return (taken, other)
            case Switch(targets=targets):
                return targets
            case _:
                return ()


@dataclass(frozen=True)
class Flow:
    """A kernel as basic blocks, with its registers and the variables it may address."""

    name: str
    parameters: tuple[Variable, ...]
    registers: Mapping[str, str]
    local: Mapping[str, int]
    local_bytes: int
    shared: Mapping[str, int]
    shared_bytes: int
    blocks: tuple[Block, ...]
    max_threads: tuple[int, ...]
    in_flight: InFlight


def flow(module: Module, name: str) -> Flow:
    """Return the kernel's blocks. Raises SimulatorError for what cannot be executed."""
    function = module.functions.get(name)
    if function is None or not function.entry:
        raise SimulatorError(f"the module has no kernel named {name}")
    inlined = Inliner(module)
    inlined.add(function, "", {}, ())
    parameters = {variable.name for variable in function.parameters}
    items = [parameter_access(item, parameters, inlined.registers) for item in inlined.items]
    check_parameter_slots(inlined.registers)
    blocks = _blocks(items, inlined.targets)
    registers = inlined.registers | {CARRY: "pred"}
    _liveness(blocks, registers)
    in_flight = trace(blocks)
    _liveness(blocks, registers)
    local, local_bytes = _layout(inlined.variables, "local", 0)
    shared, shared_bytes = _shared([*inlined.variables, *module.variables.values()], _symbols(items))
    return Flow(
        name,
        function.parameters,
        registers,
        local,
        local_bytes,
        shared,
        shared_bytes,
        tuple(blocks),
        function.max_threads,
        in_flight,
    )


def _shared(variables: Iterable[Variable], named: Set[str]) -> tuple[dict[str, int], int]:
    """Place the shared variables that a kernel names, what is sized by the launch last; return offsets and that end."""
    own = [v for v in variables if v.space == "shared" and v.name in named]
    offsets, end = _layout(own, "shared", 0)
    dynamic = [variable for variable in own if variable.extern]
    if dynamic:
        align = max(_DYNAMIC_ALIGN, *(variable.align for variable in dynamic))
        end = (end + align - 1) // align * align
    return offsets | {variable.name: end for variable in dynamic}, end


def _symbols(items: Iterable[Instruction | Label]) -> Set[str]:
    """Every variable or label that instructions name."""
    found: set[str] = set()
    waiting: list[object] = [o for item in items if isinstance(item, Instruction) for o in item.operands]
    while waiting:
        match waiting.pop():
            case Symbol(name):
                found.add(name)
            case Address(base):
                waiting.append(base)
            case Vector(parts) | Group(parts):
                waiting += parts
            case Pair(first, second):
                waiting += (first, second)
    return found


def _layout(variables: Iterable[Variable], space: str, start: int) -> tuple[dict[str, int], int]:
    """Place the variables of a space one after the other; return their offsets and the end."""
    offsets: dict[str, int] = {}
    for variable in variables:
        if variable.space == space and not variable.extern and variable.name not in offsets:
            start = (start + variable.align - 1) // variable.align * variable.align
            offsets[variable.name] = start
            start += variable.size
    return offsets, start


def waits_for_warp(instruction: Instruction) -> bool:
    """Whether the threads named in a member mask must arrive before the instruction is executed."""
    if instruction.opcode in ("shfl", "vote", "match", "redux", "elect"):
        return "sync" in instruction.modifiers
    if needs_whole_warp(instruction):
        return True
    return instruction.opcode == "bar" and instruction.modifiers[:1] == ("warp",)


def needs_whole_warp(instruction: Instruction | Label) -> bool:
    """Whether all 32 threads of a warp must execute the instruction together."""
    return isinstance(instruction, Instruction) and instruction.opcode in ("mma", "ldmatrix", "wgmma")


def _together(item: Instruction | Label) -> int:
    """How many warps must execute an item together: 0, 1, or the 4 of a warpgroup."""
    return 4 if isinstance(item, Instruction) and multiplies(item) else int(needs_whole_warp(item))


def _is_barrier(instruction: Instruction) -> bool:
    return instruction.opcode in ("bar", "barrier") and instruction.modifiers[:1] not in (("warp",), ("cluster",))


def waits_for_cluster(instruction: Instruction) -> bool:
    """Whether an instruction is `barrier.cluster.wait`. Raises SimulatorError for an unknown form of it."""
    if instruction.opcode != "barrier" or instruction.modifiers[:2] != ("cluster", "wait"):
        return False
    if not set(instruction.modifiers[2:]) <= {"acquire", "aligned"}:
        raise instruction.fail("unknown form of barrier")
    return True


def _ends(instruction: Instruction) -> bool:
    return instruction.opcode in ENDS or _is_barrier(instruction) or waits_for_cluster(instruction)


def _expand_guards(items: list[Instruction | Label]) -> list[tuple[Instruction | Label, bool]]:
    """Turn every guarded instruction that is not a branch into a branch around it. The flag marks such branches."""
    expanded: list[tuple[Instruction | Label, bool]] = []
    for number, item in enumerate(items):
        if isinstance(item, Label) or item.guard is None or item.opcode == "bra":
            expanded.append((item, False))
            continue
        skip = Label(f" guard{number}")
        around = replace(
            item, opcode="bra", modifiers=(), operands=(Symbol(skip.name),), guard_negated=not item.guard_negated
        )
        expanded.append((around, True))
        expanded.append((replace(item, guard=None), False))
        expanded.append((skip, False))
    return expanded


def _blocks(items: list[Instruction | Label], targets: Mapping[str, tuple[str, ...]]) -> list[Block]:
    expanded = _expand_guards(items)
    starts: list[int] = [0]
    labels: dict[str, int] = {}
    previous_ended, together = False, 0
    for position, (item, _) in enumerate(expanded):
        # Within a block, warps that came together for one instruction are still together for the next.
        again = 0 < _together(item) <= together
        waits = isinstance(item, Instruction) and waits_for_warp(item) and not again
        begins = isinstance(item, Label) or previous_ended or waits
        together = max(_together(item), 0 if begins else together)
        if begins and starts[-1] != position:
            starts.append(position)
        if isinstance(item, Label):
            if item.name in labels:
                raise SimulatorError(f"PTX: label {item.name} stands twice")
            labels[item.name] = len(starts) - 1
        previous_ended = isinstance(item, Instruction) and _ends(item)
    blocks: list[Block] = []
    for index, start in enumerate(starts):
        stop = starts[index + 1] if index + 1 < len(starts) else len(expanded)
        blocks.append(_block(index, expanded[start:stop], labels, targets))
    return blocks


def _block(
    index: int,
    part: list[tuple[Instruction | Label, bool]],
    labels: Mapping[str, int],
    targets: Mapping[str, tuple[str, ...]],
) -> Block:
    steps = [(item, synthetic) for item, synthetic in part if isinstance(item, Instruction)]
    end: End = Jump(index + 1)
    if steps:
        last, synthetic = steps[-1]
        if last.opcode == "bra":
            target = labels[_symbol(last)]
            end = Jump(target)
            if last.guard is not None:
                end = Branch(last.guard.name, last.guard_negated, target, index + 1, not synthetic)
            if synthetic:
                steps.pop()
        elif last.opcode == "brx":
            selector = last.operands[0]
            if not isinstance(selector, Register) or not isinstance(last.operands[1], Symbol):
                raise last.fail("unsupported form of brx")
            end = Switch(selector.name, tuple(labels[name] for name in targets[last.operands[1].name]))
        elif last.opcode in ("ret", "exit"):
            end = Exit()
        elif last.opcode == "trap":
            end = Exit(last)
        elif _is_barrier(last):
            end = _barrier(last, index + 1)
        elif waits_for_cluster(last):
            end = ClusterWait(last, index + 1)
    line = next((step.line for step, _ in steps if step.line), 0)
    waits = bool(steps) and waits_for_warp(steps[0][0])
    return Block(index, [step for step, _ in steps], end, waits=waits, line=line)


def _symbol(instruction: Instruction) -> str:
    target = instruction.operands[0]
    if not isinstance(target, Symbol):
        raise instruction.fail("a branch must name a label")
    return target.name


def _barrier(instruction: Instruction, target: int) -> Barrier:
    """Read `bar.sync a{, b}`, `bar.arrive a, b` and `bar.red.op p, a{, b}, {!}c`."""
    names = [name for name in instruction.modifiers if name not in ("cta", "aligned")]
    operands = instruction.operands
    if names[:1] == ["red"]:
        middle = operands[1:-1]
        return Barrier(instruction, middle[0], middle[1] if len(middle) > 1 else None, False, target)
    if names not in (["sync"], ["arrive"]):
        raise instruction.fail("unknown form of barrier")
    return Barrier(instruction, operands[0], operands[1] if len(operands) > 1 else None, names == ["arrive"], target)


def _liveness(blocks: list[Block], registers: Mapping[str, str]) -> None:
    """Compute which registers each block needs from the blocks before it."""
    reads: list[set[str]] = []
    writes: list[set[str]] = []
    for block in blocks:
        needed: set[str] = set()
        written: set[str] = set()
        for step in block.steps:
            step_reads, step_writes = reads_and_writes(step)
            needed |= {name for name in step_reads if name in registers and name not in written}
            written |= {name for name in step_writes if name in registers}
        if isinstance(block.end, Branch) and block.end.predicate not in written:
            needed.add(block.end.predicate)
        reads.append(needed)
        writes.append(written)
    live = [frozenset(needed) for needed in reads]
    before: dict[int, list[int]] = {block.index: [] for block in blocks}
    for block in blocks:
        for target in block.targets:
            before[target].append(block.index)
    waiting = list(range(len(blocks)))
    while waiting:
        index = waiting.pop()
        block = blocks[index]
        after: set[str] = set()
        for target in block.targets:
            after |= live[target]
        found = frozenset(reads[index] | (after - writes[index]))
        if found != live[index] or not block.live_in:
            block.live_in = found
            if found != live[index]:
                live[index] = found
                waiting.extend(before[index])
    for block in blocks:
        block.live_in = live[block.index]
