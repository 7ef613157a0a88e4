"""Variables of PTX: their types, extents and initial bytes."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from warpsmith.device.simulator.lexer import Tokens
from warpsmith.device.simulator.ptx import Float, Variable, type_bytes


class VariableReader(Tokens):
    """Reads declarations of variables and parameters."""

    def variables(self, space: str, extern: bool) -> Iterator[Variable]:
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
                self.expect("(")
                while not self.accept(")"):
                    self.take()
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
        value = self.number()
        if isinstance(value, Float):
            return value.bits.to_bytes(value.width // 8, "little")
        if kind in ("f32", "f64"):
            return struct.pack("<f" if kind == "f32" else "<d", float(value.value))
        return (value.value % (1 << (8 * element))).to_bytes(element, "little")

    def parameters(self) -> tuple[Variable, ...]:
        """Read a parenthesised list of parameters."""
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
                elif token != ".ptr" and token not in (".param", ".global", ".const", ".shared", ".local"):
                    kind = token[1:]
            name = self.take()
            extents, _ = self._extents()
            size = type_bytes(kind) * extents
            found.append(Variable(name, space[1:], kind, size, align or type_bytes(kind)))
            self.accept(",")
        return tuple(found)
