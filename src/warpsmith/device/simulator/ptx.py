"""Parse PTX text: module variables, functions, instructions with their source lines.

The grammar is that of the PTX ISA (version 9.0), as far as NVRTC uses it. Nothing is interpreted here: an unknown
opcode parses, and whoever decodes it complains. Registers and variables declared in a nested scope `{ }` get names
of their own, so that every name is unique within its function.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from warpsmith.errors import SimulatorError

TOKEN = re.compile(
    r"""(?P<space>\s+|//[^\n]*|/\*.*?\*/)
      | (?P<string>"[^"]*")
      | (?P<number>0[fF][0-9a-fA-F]{8}|0[dD][0-9a-fA-F]{16}|0[xX][0-9a-fA-F]+U?|\d+\.\d*(?:[eE][-+]?\d+)?|\d+U?)
      | (?P<name>[%$_.A-Za-z][\w$.]*(?:::[\w.]+)*)
      | (?P<sign>[-+{}()\[\],;:|!=<>@*~&^])""",
    re.VERBOSE | re.DOTALL,
)

STATE_SPACES = (".reg", ".param", ".local", ".shared", ".global", ".const")


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
    """A kernel (`entry`) or device function; a declaration alone has no body."""

    name: str
    entry: bool
    returns: tuple[Variable, ...]
    parameters: tuple[Variable, ...]
    registers: dict[str, str]
    variables: tuple[Variable, ...]
    body: tuple[Instruction | Label, ...]
    targets: dict[str, tuple[str, ...]]
    max_threads: tuple[int, ...] = ()


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


def parse(text: str) -> Module:
    """Parse a PTX module. Raises SimulatorError naming what cannot be parsed."""
    return _Parser(text).module()


@dataclass
class _Scope:
    """Names declared between two braces, with the unique names they stand for."""

    names: dict[str, str] = field(default_factory=dict)


@dataclass
class _Body:
    """A function while it is being read."""

    registers: dict[str, str] = field(default_factory=dict)
    ranges: dict[str, tuple[str, int]] = field(default_factory=dict)
    variables: list[Variable] = field(default_factory=list)
    items: list[Instruction | Label] = field(default_factory=list)
    targets: dict[str, tuple[str, ...]] = field(default_factory=dict)
    scopes: list[_Scope] = field(default_factory=lambda: [_Scope()])
    locations: list[tuple[int, tuple[int, int, int]]] = field(default_factory=list)


class _Parser:
    """Recursive descent over a list of tokens."""

    def __init__(self, text: str) -> None:
        self.tokens = list(self._tokenize(text))
        self.position = 0
        self.functions: dict[str, Function] = {}
        self.variables: dict[str, Variable] = {}
        self.main_file = self._main_file(text)
        self.line = 0
        self.unique = 0

    @staticmethod
    def _tokenize(text: str) -> Iterator[str]:
        position = 0
        while position < len(text):
            match = TOKEN.match(text, position)
            if match is None:
                raise SimulatorError(f"not PTX: {text[position : position + 40]!r}")
            position = match.end()
            if match.lastgroup != "space":
                yield match[0]

    @staticmethod
    def _main_file(text: str) -> int:
        """The number of the device code's file: kernels stand in it, whatever headers were inlined into them."""
        found = re.search(r"\.entry\b.*?\.loc\s+(\d+)", text, re.DOTALL)
        return int(found[1]) if found else 1

    # -- tokens

    @property
    def next(self) -> str:
        return self.tokens[self.position] if self.position < len(self.tokens) else ""

    def take(self) -> str:
        token = self.next
        self.position += 1
        return token

    def accept(self, token: str) -> bool:
        if self.next == token:
            self.position += 1
            return True
        return False

    def expect(self, token: str) -> None:
        if not self.accept(token):
            around = " ".join(self.tokens[max(0, self.position - 8) : self.position + 3])
            raise SimulatorError(f"PTX: expected {token!r} but found {self.next!r} near `{around}`")

    def integer(self) -> int:
        if self.accept("-"):
            return -self.integer()
        if self.accept("+"):
            return self.integer()
        return int(self.take().rstrip("U"), 0)

    # -- module

    def module(self) -> Module:
        while self.next:
            token = self.take()
            if token in (".version", ".target", ".address_size"):
                self._skip_target(token)
            elif token == ".file":
                self._skip_file()
            elif token == ".section":
                self._skip_section()
            elif token in (".visible", ".extern", ".weak", ".common"):
                continue
            elif token in (".entry", ".func"):
                self._function(entry=token == ".entry")
            elif token in (".global", ".const", ".shared"):
                extern = self.tokens[self.position - 2] == ".extern"
                for variable in self._variables(token, extern):
                    self.variables[variable.name] = variable
            elif token in (".pragma", ".alias"):
                while self.take() != ";":
                    pass
            else:
                raise SimulatorError(f"PTX: unexpected {token!r} at module level")
        return Module(self.functions, self.variables)

    def _skip_target(self, token: str) -> None:
        self.take()
        while token == ".target" and self.accept(","):
            self.take()

    def _skip_file(self) -> None:
        self.take()
        self.take()
        while self.accept(","):
            self.take()

    def _skip_section(self) -> None:
        self.take()
        self.expect("{")
        depth = 1
        while depth:
            token = self.take()
            depth += {"{": 1, "}": -1, "": -depth}.get(token, 0)

    def _variables(self, space: str, extern: bool) -> Iterator[Variable]:
        """Read `.align 4 .b8 name[16] = {…}, …;` after the state space."""
        align = 0
        width = 1
        kind = ""
        while self.next.startswith("."):
            token = self.take()
            if token == ".align":
                align = self.integer()
            elif token in (".v2", ".v4"):
                width = int(token[2:])
            elif token == ".attribute":
                self._operand()
            else:
                kind = token[1:]
        element = type_bytes(kind)
        while True:
            name = self.take()
            extents, unknown = self._extents()
            size = 0 if unknown else element * width * extents
            data, references = self._initialiser(element, kind) if self.accept("=") else (None, ())
            if unknown and data is not None:
                size = len(data)
            if data is not None:
                data = data.ljust(size, b"\0")
            yield Variable(name, space[1:], kind, size, align or element * width, data, references, extern)
            if not self.accept(","):
                break
        self.expect(";")

    def _extents(self) -> tuple[int, bool]:
        count, unknown = 1, False
        while self.accept("["):
            if self.accept("]"):
                unknown = True
                continue
            count *= self.integer()
            self.expect("]")
        return count, unknown

    def _initialiser(self, element: int, kind: str) -> tuple[bytes, tuple[tuple[int, str, int], ...]]:
        data = bytearray()
        references: list[tuple[int, str, int]] = []
        depth = 0
        while True:
            if self.accept("{"):
                depth += 1
            elif self.accept("}"):
                depth -= 1
            elif not self.accept(","):
                data += self._initial_value(element, kind, len(data), references)
            if depth == 0:
                break
        return bytes(data), tuple(references)

    def _initial_value(self, element: int, kind: str, offset: int, references: list[tuple[int, str, int]]) -> bytes:
        if self.next == "generic" or self.next[0] in "_$%" or self.next[0].isalpha():
            name = self.take()
            if name == "generic":
                self.expect("(")
                name = self.take()
                self.expect(")")
            addend = self.integer() if self.next in ("+", "-") else 0
            references.append((offset, name, addend))
            return bytes(element)
        value = self._number()
        if isinstance(value, Float):
            return value.bits.to_bytes(value.width // 8, "little")
        if kind in ("f32", "f64"):
            return struct.pack("<f" if kind == "f32" else "<d", float(value.value))
        return (value.value % (1 << (8 * element))).to_bytes(element, "little")

    # -- functions

    def _function(self, *, entry: bool) -> None:
        returns = self._parameters() if self.next == "(" else ()
        name = self.take()
        parameters = self._parameters() if self.next == "(" else ()
        max_threads: tuple[int, ...] = ()
        while self.next not in ("{", ";"):
            token = self.take()
            if token in (".maxntid", ".reqntid"):
                values = [self.integer()]
                while self.accept(","):
                    values.append(self.integer())
                max_threads = tuple(values)
        if self.accept(";"):
            self.functions.setdefault(name, Function(name, entry, returns, parameters, {}, (), (), {}))
            return
        body = self._body()
        self.functions[name] = Function(
            name,
            entry,
            returns,
            parameters,
            body.registers,
            tuple(body.variables),
            tuple(body.items),
            body.targets,
            max_threads,
        )

    def _parameters(self) -> tuple[Variable, ...]:
        self.expect("(")
        found: list[Variable] = []
        while not self.accept(")"):
            space = self.take()
            align = 0
            kind = ""
            while self.next.startswith("."):
                token = self.take()
                if token == ".align":
                    align = self.integer()
                elif token != ".ptr" and token not in STATE_SPACES:
                    kind = token[1:]
            name = self.take()
            extents, _ = self._extents()
            size = type_bytes(kind) * extents
            found.append(Variable(name, space[1:], kind, size, align or type_bytes(kind)))
            self.accept(",")
        return tuple(found)

    def _body(self) -> _Body:
        body = _Body()
        self.line = 0
        self.expect("{")
        while body.scopes:
            token = self.next
            if self.accept("{"):
                body.scopes.append(_Scope())
            elif self.accept("}"):
                body.scopes.pop()
            elif token.startswith("."):
                self._directive(body)
            elif token[:1] in "_$" or token[:1].isalpha() or token[:1] in "@%":
                self._statement(body)
            elif not self.accept(";"):
                raise SimulatorError(f"PTX: unexpected {token!r} in a function")
        return body

    def _directive(self, body: _Body) -> None:
        token = self.take()
        if token.startswith(".reg."):  # inline assembly writes the type without a space
            self.position -= 1
            self.tokens[self.position] = token.removeprefix(".reg")
            token = ".reg"
        if token == ".loc":
            self._location()
        elif token == ".reg":
            self._registers(body)
        elif token in (".local", ".shared", ".param", ".global", ".const"):
            extern = self.tokens[self.position - 2] == ".extern"
            for variable in self._variables(token, extern):
                self._declare_variable(body, variable)
        elif token == ".pragma":
            while self.take() != ";":
                pass
        elif token != ".extern":
            raise SimulatorError(f"PTX: unexpected {token!r} in a function")

    def _location(self) -> None:
        """Read `file line column[, function_name label, inlined_at file line column]`.

        A place in a header that was inlined counts as the place in the device code that called it.
        """
        file, line, _ = self.integer(), self.integer(), self.integer()
        while self.accept(","):
            word = self.take()
            if word == "function_name":
                self.take()
                if self.accept("+"):
                    self.integer()
            elif word == "inlined_at":
                outer_file, outer_line, _ = self.integer(), self.integer(), self.integer()
                if file != self.main_file:
                    file, line = outer_file, outer_line
        if file == self.main_file:
            self.line = line

    def _registers(self, body: _Body) -> None:
        kind = self.take()[1:]
        if kind in ("v2", "v4"):
            raise SimulatorError("PTX: vector registers are not supported")
        while True:
            name = self.take()
            if self.accept("<"):
                body.ranges[name] = (kind, self.integer())
                self.expect(">")
            else:
                self._declare_register(body, name, kind)
            if not self.accept(","):
                break
        self.expect(";")

    def _declare_register(self, body: _Body, name: str, kind: str) -> None:
        unique = name
        if name in body.registers:
            self.unique += 1
            unique = f"{name}${self.unique}"
        body.registers[unique] = kind
        body.scopes[-1].names[name] = unique

    def _declare_variable(self, body: _Body, variable: Variable) -> None:
        unique = variable.name
        if any(known.name == unique for known in body.variables):
            self.unique += 1
            unique = f"{unique}${self.unique}"
        body.scopes[-1].names[variable.name] = unique
        body.variables.append(
            Variable(
                unique,
                variable.space,
                variable.type,
                variable.size,
                variable.align,
                variable.data,
                variable.references,
                variable.extern,
            )
        )

    def _statement(self, body: _Body) -> None:
        if self.tokens[self.position + 1] == ":":
            name = self.take()
            self.take()
            if self.next in (".branchtargets", ".calltargets"):
                self.take()
                found = [self.take()]
                while self.accept(","):
                    found.append(self.take())
                self.expect(";")
                body.targets[name] = tuple(found)
            elif self.next == ".callprototype":
                while self.take() != ";":
                    pass
            else:
                body.items.append(Label(name))
            return
        body.items.append(self._instruction(body))

    def _instruction(self, body: _Body) -> Instruction:
        start = self.position
        guard: Register | None = None
        negated = False
        if self.accept("@"):
            negated = self.accept("!")
            guard = Register(self._resolve(body, self.take()))
        opcode, *modifiers = self.take().split(".")
        operands: list[Operand] = []
        while not self.accept(";"):
            if self.next == "":
                raise SimulatorError(f"PTX: the text ends within {opcode}")
            operands.append(self._operand(body))
            self.accept(",")
        text = _join(self.tokens[start : self.position - 1])
        return Instruction(opcode, tuple(modifiers), tuple(operands), self.line, text, guard, negated)

    # -- operands

    def _operand(self, body: _Body | None = None) -> Operand:
        first = self._simple_operand(body)
        if self.accept("|"):
            return Pair(first, self._simple_operand(body))
        return first

    def _simple_operand(self, body: _Body | None) -> Operand:
        token = self.next
        if self.accept("["):
            return self._address(body)
        if self.accept("{"):
            return Vector(self._list("}", body))
        if self.accept("("):
            return Group(self._list(")", body))
        if self.accept("!"):
            return Negated(Register(self._resolve(body, self.take())))
        if token in ("-", "+") or token[0].isdigit():
            return self._number()
        name = self._resolve(body, self.take())
        if body is not None and (name in body.registers or self._in_range(body, name) or name[0] == "%"):
            return Register(name)
        if name == "_":
            return Register("_")
        offset = self.integer() if self.next in ("+", "-") else 0
        return Symbol(name, offset)

    def _list(self, end: str, body: _Body | None) -> tuple[Operand, ...]:
        items: list[Operand] = []
        while not self.accept(end):
            items.append(self._operand(body))
            self.accept(",")
        return tuple(items)

    def _address(self, body: _Body | None) -> Address:
        base = self._simple_operand(body)
        offset = self.integer() if self.next in ("+", "-") else 0
        self.expect("]")
        if isinstance(base, Symbol):
            return Address(Symbol(base.name), base.offset + offset)
        if isinstance(base, Register | Integer):
            return Address(base, offset)
        raise SimulatorError(f"PTX: unsupported address {base}")

    def _number(self) -> Integer | Float:
        if self.accept("-"):
            value = self._number()
            if isinstance(value, Float):
                return Float(value.bits ^ (1 << (value.width - 1)), value.width)
            return Integer(-value.value)
        self.accept("+")
        token = self.take()
        if token[:2] in ("0f", "0F"):
            return Float(int(token[2:], 16), 32)
        if token[:2] in ("0d", "0D"):
            return Float(int(token[2:], 16), 64)
        if "." in token:
            return Float(struct.unpack("<Q", struct.pack("<d", float(token)))[0], 64)
        return Integer(int(token.rstrip("U"), 0))

    def _resolve(self, body: _Body | None, name: str) -> str:
        if body is None:
            return name
        for scope in reversed(body.scopes):
            if name in scope.names:
                return scope.names[name]
        self._in_range(body, name)
        return name

    @staticmethod
    def _in_range(body: _Body, name: str) -> bool:
        """Whether `name` is one of a family such as `%r<18>`; declares it when it is."""
        if name in body.registers:
            return True
        stem = name.rstrip("0123456789")
        found = body.ranges.get(stem)
        if found is None or stem == name or int(name[len(stem) :]) >= found[1]:
            return False
        body.registers[name] = found[0]
        return True


def _join(tokens: list[str]) -> str:
    """Write tokens as one would by hand."""
    text = " ".join(tokens)
    for sign in (",", "]", ")", "}"):
        text = text.replace(f" {sign}", sign)
    for sign in ("[", "(", "{", "@", "!", "-"):
        text = text.replace(f"{sign} ", sign)
    return text.replace(" + ", "+")
