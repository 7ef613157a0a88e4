"""Copy device functions into the kernels that call them.

Every copy gets registers, labels and local variables of its own; parameters become registers that the caller writes
and the copy reads. A recursive or indirect call is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
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

MAX_INSTRUCTIONS = 200_000


@dataclass
class Inliner:
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


def parameter_access(
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


def check_parameter_slots(registers: Mapping[str, str]) -> None:
    """Parameters must be written and read in the same pieces."""
    seen: dict[tuple[str, int], tuple[int, int]] = {}
    for name in registers:
        if name.startswith("%param "):
            _, variable, offset, width = name.split(" ")
            piece = int(offset), int(width)
            for byte in range(piece[0], sum(piece)):
                if seen.setdefault((variable, byte), piece) != piece:
                    raise SimulatorError(f"parameter {variable} is written and read in different pieces")
