"""From a parsed kernel to basic blocks: calls inlined, guards turned into branches, registers live at each block.

A block's index is its program counter. A block begins where a branch may land, at every instruction that makes the
threads of a warp wait for each other, and after a barrier, so that threads only ever wait at the start of a block.
Device functions are inlined at each call, with names of their own; a recursive or indirect call is an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from warpsmith.device.simulator.ptx import (
    Address,
    Function,
    Group,
    Instruction,
    Integer,
    Label,
    Module,
    Negated,
    Operand,
    Pair,
    Register,
    Symbol,
    Variable,
    Vector,
    type_bytes,
)
from warpsmith.errors import SimulatorError

CARRY = "%carry"
MAX_INSTRUCTIONS = 200_000
IGNORED = frozenset(("brkpt", "pmevent", "griddepcontrol", "prefetch", "prefetchu", "discard", "applypriority"))
ENDS = frozenset(("bra", "brx", "ret", "exit", "trap"))
NO_DESTINATION = IGNORED | ENDS | {"st", "red", "bar", "barrier", "membar", "fence", "nanosleep", "call", "cp"}


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


End = Jump | Branch | Switch | Exit | Barrier


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
    def targets(self) -> tuple[int, ...]:
        """Blocks that may come next."""
        match self.end:
            case Jump(target) | Barrier(target=target):
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


def flow(module: Module, name: str) -> Flow:
    """Return the kernel's blocks. Raises SimulatorError for what cannot be executed."""
    function = module.functions.get(name)
    if function is None or not function.entry:
        raise SimulatorError(f"the module has no kernel named {name}")
    inlined = _Inliner(module)
    inlined.add(function, "", {}, ())
    parameters = {variable.name for variable in function.parameters}
    items = [_parameter_access(item, parameters, inlined.registers) for item in inlined.items]
    _check_parameter_slots(inlined.registers)
    blocks = _blocks(items, inlined.targets)
    registers = inlined.registers | {CARRY: "pred"}
    _liveness(blocks, registers)
    local, local_bytes = _layout(inlined.variables, "local", 0)
    shared_variables = [*inlined.variables, *module.variables.values()]
    shared, shared_bytes = _layout(shared_variables, "shared", 0)
    dynamic = (shared_bytes + 15) // 16 * 16
    for variable in shared_variables:
        if variable.space == "shared" and variable.extern:
            shared[variable.name] = dynamic
            shared_bytes = dynamic
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
    )


def _layout(variables: Iterable[Variable], space: str, start: int) -> tuple[dict[str, int], int]:
    """Place the variables of a space one after the other; return their offsets and the end."""
    offsets: dict[str, int] = {}
    for variable in variables:
        if variable.space == space and not variable.extern and variable.name not in offsets:
            start = (start + variable.align - 1) // variable.align * variable.align
            offsets[variable.name] = start
            start += variable.size
    return offsets, start


# --------------------------------------------------------------------------------------------------------- inlining


@dataclass
class _Inliner:
    """Copies function bodies into one list of instructions, renaming what is local to each copy."""

    module: Module
    items: list[Instruction | Label] = field(default_factory=list)
    registers: dict[str, str] = field(default_factory=dict)
    variables: list[Variable] = field(default_factory=list)
    targets: dict[str, tuple[str, ...]] = field(default_factory=dict)
    copies: int = 0

    def add(self, function: Function, suffix: str, names: dict[str, str], stack: tuple[str, ...]) -> None:
        """Append the body; `names` maps formal parameters to those of the caller."""
        if function.name in stack:
            raise SimulatorError(f"recursive call of {function.name}: the simulator inlines every call")
        self.registers.update({name + suffix: kind for name, kind in function.registers.items()})
        renamed = {name: name + suffix for name in function.registers}
        for variable in function.variables:
            if variable.space in ("local", "param"):
                renamed[variable.name] = variable.name + suffix
            self.variables.append(replace(variable, name=renamed.get(variable.name, variable.name)))
        labels = {item.name for item in function.body if isinstance(item, Label)} | set(function.targets)
        renamed.update({label: label + suffix for label in labels})
        renamed.update(names)
        self.targets.update({one + suffix: tuple(t + suffix for t in many) for one, many in function.targets.items()})
        end = Label(f" end{suffix}")
        for item in function.body:
            if isinstance(item, Label):
                self.items.append(Label(item.name + suffix))
            elif item.opcode == "call":
                self._call(_rename(item, renamed), (*stack, function.name))
            elif item.opcode == "ret" and suffix:
                jump = _rename(item, renamed)
                self.items.append(replace(jump, opcode="bra", modifiers=(), operands=(Symbol(end.name),)))
            else:
                self.items.append(_rename(item, renamed))
        self.items.append(end)
        if not suffix:
            self.items.append(Instruction("exit", (), (), 0, "exit"))
        if len(self.items) > MAX_INSTRUCTIONS:
            raise SimulatorError(f"more than {MAX_INSTRUCTIONS} instructions once calls are inlined")

    def _call(self, call: Instruction, stack: tuple[str, ...]) -> None:
        results, callee, arguments = _call_parts(call)
        function = self.module.functions.get(callee.name)
        if function is None or not function.body:
            raise call.fail(f"{callee.name} has no body in this module")
        self.copies += 1
        suffix = f"@{self.copies}"
        names: dict[str, str] = {}
        for formal, actual in zip((*function.returns, *function.parameters), (*results, *arguments), strict=True):
            if not isinstance(actual, Symbol):
                raise call.fail("an argument that is not a parameter variable")
            names[formal.name] = actual.name
        skip = Label(f" skip{suffix}")
        if call.guard is not None:
            guard = (Symbol(skip.name),)
            self.items.append(
                replace(call, opcode="bra", operands=guard, modifiers=(), guard_negated=not call.guard_negated)
            )
        self.add(function, suffix, names, stack)
        self.items.append(skip)


def _call_parts(call: Instruction) -> tuple[tuple[Operand, ...], Symbol, tuple[Operand, ...]]:
    """Read `(results), function, (arguments)`, both lists optional."""
    operands = list(call.operands)
    first = operands.pop(0)
    results: tuple[Operand, ...] = ()
    if isinstance(first, Group):
        results, first = first.items, operands.pop(0)
    if not isinstance(first, Symbol) or len(operands) > 1:
        raise call.fail("indirect calls are not supported")
    arguments = operands[0] if operands else Group(())
    if not isinstance(arguments, Group):
        raise call.fail("a list of arguments is due")
    return results, first, arguments.items


def _rename(instruction: Instruction, names: Mapping[str, str]) -> Instruction:
    guard = instruction.guard
    if guard is not None:
        guard = Register(names.get(guard.name, guard.name))
    operands = tuple(_rename_operand(operand, names) for operand in instruction.operands)
    return replace(instruction, operands=operands, guard=guard)


def _rename_operand(operand: Operand, names: Mapping[str, str]) -> Operand:
    match operand:
        case Register(name):
            return Register(names.get(name, name))
        case Symbol(name, offset):
            return Symbol(names.get(name, name), offset)
        case Address(base, offset):
            inner = _rename_operand(base, names)
            assert isinstance(inner, Register | Symbol | Integer)
            return Address(inner, offset)
        case Vector(items):
            return Vector(tuple(_rename_operand(item, names) for item in items))
        case Group(items):
            return Group(tuple(_rename_operand(item, names) for item in items))
        case Pair(first, second):
            return Pair(_rename_operand(first, names), _rename_operand(second, names))
        case Negated(register):
            return Negated(Register(names.get(register.name, register.name)))
    return operand


def _parameter_access(
    item: Instruction | Label, kernel_parameters: set[str], registers: dict[str, str]
) -> Instruction | Label:
    """Turn accesses to the parameters of inlined calls into moves to and from registers made for them."""
    if isinstance(item, Label) or item.opcode not in ("ld", "st") or "param" not in item.modifiers:
        return item
    where = item.operands[1 if item.opcode == "ld" else 0]
    value = item.operands[0 if item.opcode == "ld" else 1]
    if not isinstance(where, Address) or not isinstance(where.base, Symbol):
        raise item.fail("a parameter whose address is computed")
    if where.base.name in kernel_parameters:
        return item
    kind = item.modifiers[-1]
    width = type_bytes(kind)
    values = value.items if isinstance(value, Vector) else (value,)
    slots = []
    for position in range(len(values)):
        slot = f"%param {where.base.name} {where.offset + position * width} {width}"
        registers[slot] = f"b{8 * width}"
        slots.append(Register(slot))
    moves = (Vector(tuple(values)), Vector(tuple(slots)))
    if item.opcode == "st":
        moves = (moves[1], moves[0])
    return replace(item, opcode="move", modifiers=(kind,), operands=moves)


def _check_parameter_slots(registers: Mapping[str, str]) -> None:
    """Parameters must be written and read in the same pieces."""
    seen: dict[tuple[str, int], tuple[int, int]] = {}
    for name in registers:
        if name.startswith("%param "):
            _, variable, offset, width = name.split(" ")
            piece = int(offset), int(width)
            for byte in range(piece[0], sum(piece)):
                if seen.setdefault((variable, byte), piece) != piece:
                    raise SimulatorError(f"parameter {variable} is written and read in different pieces")


# ------------------------------------------------------------------------------------------------------------ blocks


def waits_for_warp(instruction: Instruction) -> bool:
    """Whether the threads named in a member mask must arrive before the instruction is executed."""
    if instruction.opcode in ("shfl", "vote", "match", "redux"):
        return "sync" in instruction.modifiers
    return instruction.opcode == "bar" and instruction.modifiers[:1] == ("warp",)


def _is_barrier(instruction: Instruction) -> bool:
    return instruction.opcode in ("bar", "barrier") and instruction.modifiers[:1] not in (("warp",), ("cluster",))


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
    previous_ended = False
    for position, (item, _) in enumerate(expanded):
        begins = isinstance(item, Label) or previous_ended or waits_for_warp(item)
        if begins and starts[-1] != position:
            starts.append(position)
        if isinstance(item, Label):
            if item.name in labels:
                raise SimulatorError(f"PTX: label {item.name} stands twice")
            labels[item.name] = len(starts) - 1
        previous_ended = isinstance(item, Instruction) and (item.opcode in ENDS or _is_barrier(item))
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


# ---------------------------------------------------------------------------------------------------------- liveness


def registers_of(operand: Operand) -> list[str]:
    """Names of the registers in an operand."""
    match operand:
        case Register(name):
            return [name]
        case Address(base, _):
            return registers_of(base)
        case Vector(items) | Group(items):
            return [name for item in items for name in registers_of(item)]
        case Pair(first, second):
            return registers_of(first) + registers_of(second)
        case Negated(register):
            return [register.name]
    return []


def reads_and_writes(step: Instruction) -> tuple[list[str], list[str]]:
    """Registers that an instruction reads and those that it writes."""
    operands = list(step.operands)
    writes: list[str] = []
    reduces = step.opcode in ("bar", "barrier") and "red" in step.modifiers
    if operands and (step.opcode not in NO_DESTINATION or reduces):
        writes = registers_of(operands.pop(0))
    reads = [name for operand in operands for name in registers_of(operand)]
    if step.guard is not None:
        reads.append(step.guard.name)
    if "cc" in step.modifiers:
        writes.append(CARRY)
    if step.opcode in ("addc", "subc", "madc"):
        reads.append(CARRY)
    return reads, writes


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
