"""Constants that a kernel defines, and which of its sizes the compiler need not know to write as good code.

Those are factors, summands and limits: a multiplication takes its factor from the kernel's arguments as fast as from
the instruction. A divisor must be known, since division by a constant is a multiplication.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from warpsmith.author.builtin.skeleton import FLOATS, Function, Line, Token

_DEFINITIONS = re.compile(r"( *constexpr )(\w+) (.*);( *//.*)?")


# What may stand before a constant's name where a variable would do as well.
_READ = frozenset({"*", "+", "-", "<", ">", "<=", ">=", "==", "!=", "(", "[", ",", "="})


class Constants:
    """The constants of a kernel's body: `names` by the slot of the size that each is set to, where it is set to one."""

    def __init__(self, function: Function) -> None:
        self.function = function
        self.names: dict[int, str] = {}
        self.types: dict[int, str] = {}
        self._uses: dict[str, list[bool | str]] = {}
        for line in function.body:
            for token, use in _uses(line):
                if token.kind == "size" and token.role == "constant":
                    self.names[token.slot] = str(use)
                    self.types[token.slot] = next(t.text for t in line[2:] if t.text.isidentifier())
                elif token.kind == "text":
                    self._uses.setdefault(token.text, []).append(use)

    def unread(self, name: str) -> bool:
        """Whether a constant is defined and never used."""
        return not self._uses.get(name)

    def free(self) -> frozenset[int]:
        """Slots of the sizes that the compiler need not know."""
        sizes = [t for line in self.function.body for t in line if t.kind == "size"]
        return frozenset(
            t.slot
            for t in sizes
            if (self._loose(self.names[t.slot]) if t.role == "constant" else t.suffix in FLOATS or t.role not in "/%")
        )

    def _loose(self, name: str) -> bool:
        """Whether a constant is used only where a variable would do as well."""
        return all(self._loose(use) if isinstance(use, str) else use for use in self._uses.get(name, ()))

    def without(self, line: str, unread: frozenset[str], variable: set[str]) -> list[str]:
        """Rewrite a line that defines constants: without those that are `unread`, and as variables if one has to be.

        `variable` names what is no constant, and gains the constants that are set to it. One that is set to a literal
        stays a constant where it is declared as a mere `const`.
        """
        match = _DEFINITIONS.fullmatch(line)
        if match is None:
            return [line]
        head, kind, definitions, remark = match.groups()
        pairs = [definition.partition(" = ") for definition in definitions.split(", ")]
        kept = [(name, value) for name, _, value in pairs if name not in unread]
        changed = {name for name, value in kept if variable.intersection(re.findall(r"\w+", value))}
        variable |= changed
        head = head.replace("constexpr", "const") if changed else head
        return [f"{head}{kind} {', '.join(f'{n} = {v}' for n, v in kept)};{remark or ''}"] if kept else []


def _uses(line: Line) -> Iterator[tuple[Token, bool | str]]:
    """What a line reads, each with whether a variable would do, or with the name of the constant that needs it."""
    code = [token for token in line if not token.text.isspace()]
    constants = bool(code) and code[0].text == "constexpr"
    defined = ""
    for at, token in enumerate(code):
        before = code[at - 1].text if at else ""
        after = code[at + 1].text if at + 1 < len(code) else ""
        if constants and after == "=":
            defined = token.text
        elif constants:
            yield token, defined if before not in ("/", "%") else False
        else:
            # What is divided may be a condition that the compiler decides, such as whether tiles come out even.
            yield token, token.role in _READ and after not in ("/", "%")
