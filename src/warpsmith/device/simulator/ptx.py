"""The nouns of PTX: modules, functions, variables, instructions and their operands. `parse` reads them from text."""

from __future__ import annotations

import re
from dataclasses import dataclass

from warpsmith.errors import SimulatorError


@dataclass(frozen=True, slots=True)
class Register:
    """A virtual or special register, such as `%r3` or `%tid.x`."""

    name: str


@dataclass(frozen=True, slots=True)
class Integer:
    """An integer literal."""

    value: int


@dataclass(frozen=True, slots=True)
class Float:
    """A floating-point literal by its bits: 32 of them (`0f…`) or 64 (`0d…`)."""

    bits: int
    width: int


@dataclass(frozen=True, slots=True)
class Symbol:
    """A variable, function or label, plus an offset in bytes."""

    name: str
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Address:
    """A memory operand `[base + offset]`, offset in bytes."""

    base: Register | Symbol | Integer
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Vector:
    """A braced list `{a, b}`."""

    items: tuple[Operand, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """A parenthesised list, as in calls."""

    items: tuple[Operand, ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two destinations `p|q`."""

    first: Operand
    second: Operand


@dataclass(frozen=True, slots=True)
class Negated:
    """A predicate operand `!p`."""

    register: Register


Operand = Register | Integer | Float | Symbol | Address | Vector | Group | Pair | Negated


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction. `line` is the line of the device code (0 if unknown), `guard` its predicate."""

    opcode: str
    modifiers: tuple[str, ...]
    operands: tuple[Operand, ...]
    line: int
    text: str
    guard: Register | None = None
    guard_negated: bool = False

    def fail(self, why: str) -> SimulatorError:
        """Return the error that says why this instruction cannot be executed."""
        return SimulatorError(f"the simulator cannot execute `{self.text}` (source line {self.line}): {why}")


@dataclass(frozen=True, slots=True)
class Label:
    """A branch target."""

    name: str


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable of a state space. `size` and `align` in bytes; `data` its initial bytes, None where it has none.

    `references` are (offset, symbol, addend) of initialisers that are addresses. An `extern` array of shared memory
    has size 0.
    """

    name: str
    space: str
    type: str
    size: int
    align: int
    data: bytes | None = None
    references: tuple[tuple[int, str, int], ...] = ()
    extern: bool = False


@dataclass(frozen=True, slots=True)
class Function:
    """A kernel (`entry`) or device function; a declaration alone has no body. `cluster` is its `__cluster_dims__`."""

    name: str
    entry: bool
    returns: tuple[Variable, ...]
    parameters: tuple[Variable, ...]
    registers: dict[str, str]
    variables: tuple[Variable, ...]
    body: tuple[Instruction | Label, ...]
    targets: dict[str, tuple[str, ...]]
    max_threads: tuple[int, ...] = ()
    cluster: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Module:
    """Everything in a PTX file that matters for execution."""

    functions: dict[str, Function]
    variables: dict[str, Variable]


def type_bytes(name: str) -> int:
    """Return the size of a PTX type such as `f32` or `.b64`. Raises SimulatorError if there is no such type."""
    match = re.fullmatch(r"\.?(?:pred|[usbf](\d+)(x2)?|bf16(x2)?)", name)
    if match is None:
        raise SimulatorError(f"unknown PTX type {name}")
    if match[1] is None:
        return 1 if name.endswith("pred") else 4 if match[3] else 2
    return int(match[1]) // 8 * (2 if match[2] else 1)
