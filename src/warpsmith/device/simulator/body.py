"""Bodies of PTX functions: declarations, labels, instructions, source lines.

Registers and variables declared in a nested scope `{ }` get names of their own, so that every name is unique within
its function.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from warpsmith.device.simulator.lexer import join
from warpsmith.device.simulator.ptx import (
    Address,
    Group,
    Instruction,
    Integer,
    Label,
    Negated,
    Operand,
    Pair,
    Register,
    Symbol,
    Variable,
    Vector,
)
from warpsmith.device.simulator.variables import VariableReader
from warpsmith.errors import SimulatorError


@dataclass
class _Scope:
    """Names declared between two braces, with the unique names they stand for."""

    names: dict[str, str] = field(default_factory=dict)


@dataclass
class Body:
    """A function while it is being read."""

    registers: dict[str, str] = field(default_factory=dict)
    ranges: dict[str, tuple[str, int]] = field(default_factory=dict)
    variables: list[Variable] = field(default_factory=list)
    items: list[Instruction | Label] = field(default_factory=list)
    targets: dict[str, tuple[str, ...]] = field(default_factory=dict)
    scopes: list[_Scope] = field(default_factory=lambda: [_Scope()])


class BodyReader(VariableReader):
    """Reads function bodies. `main_file` is the number of the device code's file, `line` the last line seen in it."""

    main_file = 1
    line = 0
    unique = 0

    def body(self) -> Body:
        """Read from the opening brace to the closing one."""
        body = Body()
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

    def _directive(self, body: Body) -> None:
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
            for variable in self.variables(token, extern):
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

    def _registers(self, body: Body) -> None:
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

    def _declare_register(self, body: Body, name: str, kind: str) -> None:
        unique = name
        if name in body.registers:
            self.unique += 1
            unique = f"{name}${self.unique}"
        body.registers[unique] = kind
        body.scopes[-1].names[name] = unique

    def _declare_variable(self, body: Body, variable: Variable) -> None:
        unique = variable.name
        if any(known.name == unique for known in body.variables):
            self.unique += 1
            unique = f"{unique}${self.unique}"
        body.scopes[-1].names[variable.name] = unique
        body.variables.append(replace(variable, name=unique))

    def _statement(self, body: Body) -> None:
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

    def _instruction(self, body: Body) -> Instruction:
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
        text = join(self.tokens[start : self.position - 1])
        return Instruction(opcode, tuple(modifiers), tuple(operands), self.line, text, guard, negated)

    # -- operands

    def _operand(self, body: Body) -> Operand:
        first = self._simple_operand(body)
        if self.accept("|"):
            return Pair(first, self._simple_operand(body))
        return first

    def _simple_operand(self, body: Body) -> Operand:
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
            return self.number()
        name = self._resolve(body, self.take())
        if name == "WARP_SZ":
            return Integer(32)
        if name in body.registers or self._in_range(body, name) or name[0] == "%":
            return Register(name)
        if name == "_":
            return Register("_")
        offset = self.integer() if self.next in ("+", "-") else 0
        return Symbol(name, offset)

    def _list(self, end: str, body: Body) -> tuple[Operand, ...]:
        items: list[Operand] = []
        while not self.accept(end):
            items.append(self._operand(body))
            self.accept(",")
        return tuple(items)

    def _address(self, body: Body) -> Address:
        base = self._simple_operand(body)
        offset = self.integer() if self.next in ("+", "-") else 0
        self.expect("]")
        if isinstance(base, Symbol):
            return Address(Symbol(base.name), base.offset + offset)
        if isinstance(base, Register | Integer):
            return Address(base, offset)
        raise SimulatorError(f"PTX: unsupported address {base}")

    def _resolve(self, body: Body, name: str) -> str:
        for scope in reversed(body.scopes):
            if name in scope.names:
                return scope.names[name]
        self._in_range(body, name)
        return name

    @staticmethod
    def _in_range(body: Body, name: str) -> bool:
        """Whether `name` is one of a family such as `%r<18>`; declares it when it is."""
        if name in body.registers:
            return True
        stem = name.rstrip("0123456789")
        found = body.ranges.get(stem)
        if found is None or stem == name or int(name[len(stem) :]) >= found[1]:
            return False
        body.registers[name] = found[0]
        return True
