"""Which registers an instruction reads and writes."""

from __future__ import annotations

from warpsmith.device.simulator.ptx import Address, Group, Instruction, Negated, Operand, Pair, Register, Vector

CARRY = "%carry"
IGNORED = frozenset(("brkpt", "pmevent", "griddepcontrol", "prefetch", "prefetchu", "discard", "applypriority"))
ENDS = frozenset(("bra", "brx", "ret", "exit", "trap"))
NO_DESTINATION = IGNORED | ENDS | {"st", "red", "bar", "barrier", "membar", "fence", "nanosleep", "call", "cp"}


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
    if operands and (step.opcode not in NO_DESTINATION or reduces) and not isinstance(operands[0], Address):
        writes = registers_of(operands.pop(0))
    reads = [name for operand in operands for name in registers_of(operand)]
    if step.opcode == "wgmma":
        # Accumulators of a product, and what a wait settles.
        reads += writes
    if step.guard is not None:
        reads.append(step.guard.name)
    if "cc" in step.modifiers:
        writes.append(CARRY)
    if step.opcode in ("addc", "subc", "madc"):
        reads.append(CARRY)
    return reads, writes
