"""The text of a kernel taken apart: what two layers of a network may differ in, and what must be the same.

A kernel's skeleton is its text without its own name, those of tensors and tunables, and the sizes that it calculates
with. What stands in the gaps is kept beside it, so that the text can be written again with other names and sizes.
Numbers that make the structure of the code (extents of arrays, of vectors, of blocks, of unrolled loops) are no gaps.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal

from warpsmith.records import Launch

Kind = Literal["text", "size", "tensor", "macro"]
FLOATS = ("float", "double")

_FUNCTION = re.compile(
    r'((?://[^\n]*\n)*)extern "C" __global__ void __launch_bounds__\(([^\n]*?)\) (\w+)\(([^\n]*)\) \{\n(.*)\n\}',
    re.DOTALL,
)
_TOKEN = re.compile(r'//[^\n]*|"(?:[^"\\\n]|\\.)*"|[A-Za-z_]\w*|(?:\d|\.\d)(?:[eEpP][+-]|\w|\.(?=\w))*|\s+|[<>=!]=|.')
_INTEGER = re.compile(r"(0|[1-9]\d{0,18})(ll)?")
_WHOLE = re.compile(r"([1-9]\d{0,9})\.0(f?)")
# What kernels call the vector, or the share of a row, that they read of a tensor.
_HELD = re.compile(r"(\w+)(_[vrs]\d*)")
_DECLARATION = re.compile(r"(?:const )?[\w:]+(?:<[^>]*>)? \w+(?:\[[^\]]*\])+(?: = \{\})?;")
# Where a number is a size: behind these operators, as a constant's whole value, and in a comment.
_SIZED = frozenset({"*", "+", "-", "/", "%", "<", ">", "<=", ">=", "==", "!=", "constant", "said"})


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of text. `slot` numbers the tensor, macro or size that it stands for; `suffix` follows a tensor's name.

    Of a size, `suffix` is its type (nothing, `ll`, or that of a whole floating-point number). `role` says what stands
    before it: an operator or other sign, `constant` where it is the whole value of one, nothing where the compiler must
    know it whatever it is.
    """

    text: str
    kind: Kind = "text"
    slot: int = -1
    suffix: str = ""
    role: str = ""


Line = tuple[Token, ...]


@dataclass(frozen=True, eq=False)
class Function:
    """A kernel: its comment, launch bounds and body.

    `sizes` are the numbers that another may have otherwise, in the order of the text. Slots of tensors count in the
    order in which the body first names them, so that they do not depend on how parameters are sorted: `order` gives the
    slots as the signature has them, `types` and `tensors` what each is declared as, and bound to by the launch.
    """

    name: str
    text: str
    comment: tuple[Line, ...]
    bounds: Line
    body: tuple[Line, ...]
    sizes: tuple[int, ...]
    order: tuple[int, ...]
    types: tuple[str, ...]
    tensors: tuple[str, ...]

    @property
    def lines(self) -> tuple[Line, ...]:
        """All of it, in the order of the text."""
        return (*self.comment, self.bounds, *self.body)

    @property
    def skeleton(self) -> tuple[str, ...]:
        """What must be the same for two kernels to differ only in names and sizes."""
        pieces = [f"{len(self.comment)} {len(self.body)}", *self.types]
        for line in self.lines:
            pieces += [t.text if t.kind == "text" else f"\0{t.kind} {t.slot} {t.suffix}" for t in line]
            pieces.append("\n")
        return tuple(pieces)

    @property
    def tunables(self) -> frozenset[int]:
        """Slots of the tunables that occur, outside the comment."""
        return frozenset(t.slot for line in (self.bounds, *self.body) for t in line if t.kind == "macro")

    @cached_property
    def words(self) -> frozenset[str]:
        """Every identifier of the body that names no tensor or tunable."""
        return frozenset(t.text for line in self.body for t in line if t.kind == "text" and t.text.isidentifier())


@lru_cache(maxsize=1024)
def take_apart(source: str, launches: tuple[Launch, ...], tunables: frozenset[str]) -> tuple[Function, ...] | None:
    """Return the kernels of a region, or None where its text has anything else.

    Every kernel must be launched exactly once, with a tensor for every parameter. Remembers what it took apart: a
    search changes a few regions at a time.
    """
    macros: dict[str, int] = {}
    functions = []
    by_name = {launch.kernel: launch for launch in launches}
    for text in source.split("\n\n"):
        match = _FUNCTION.fullmatch(text)
        launch = by_name.get(match[3]) if match else None
        function = _Reader(match, launch.args, tunables, macros).function(text) if match and launch else None
        if function is None:
            return None
        functions.append(function)
    return tuple(functions) if len(functions) == len(launches) else None


class _Reader:
    def __init__(
        self, match: re.Match[str], tensors: Sequence[str], tunables: Collection[str], macros: dict[str, int]
    ) -> None:
        self.match, self.tunables, self.macros = match, tunables, macros
        declared = [part.rpartition(" ") for part in match[4].split(", ")]
        self.fits = len(declared) == len(tensors) == len(set(tensors)) and all(map(str.isidentifier, tensors))
        self.type_of = {name: kind for kind, _, name in declared}
        self.tensor_of = {name: tensor for (_, _, name), tensor in zip(declared, tensors)}
        self.held_as = {tensor: name for name, tensor in self.tensor_of.items()}
        self.slots: dict[str, int] = {}
        self.sizes: list[int] = []

    def function(self, text: str) -> Function | None:
        if not self.fits:
            return None
        said, bounds, name, _, code = self.match.groups()
        comment = tuple(self._comment(line) for line in said.splitlines())
        limit = self._line(bounds, stiff=True)
        lines = []
        unrolled = False
        for line in code.split("\n"):
            lines.append(self._line(line, _is_stiff(line.strip(), unrolled)))
            unrolled = line.strip().startswith("#pragma")
        for parameter in self.type_of:
            self.slots.setdefault(parameter, len(self.slots))
        return Function(
            name,
            text,
            comment,
            limit,
            tuple(lines),
            tuple(self.sizes),
            tuple(self.slots[parameter] for parameter in self.type_of),
            tuple(self.type_of[parameter] for parameter in self.slots),
            tuple(self.tensor_of[parameter] for parameter in self.slots),
        )

    def _comment(self, line: str) -> Line:
        """A comment speaks of sizes and tunables; a word in it is no tensor."""
        pieces = [m[0] for m in _TOKEN.finditer(line, 2)]
        return (_plain("//", ""), *(self._macro(p) or self._size(p, "said") or _plain(p, "") for p in pieces))

    def _line(self, line: str, stiff: bool) -> Line:
        tokens: list[Token] = []
        for before, piece, role in _pieces(line, stiff):
            if piece[0].isalpha() or piece[0] == "_":
                # The x of threadIdx.x is no tensor.
                tensor = self._tensor(piece) if before != "." else None
                tokens.append(tensor or self._macro(piece) or _plain(piece, role))
            elif piece[0].isdigit():
                tokens.append(self._size(piece, role) or _plain(piece, role))
            elif piece.startswith("//"):
                words = (m[0] for m in _TOKEN.finditer(piece, 2))
                tokens += [_plain("//", ""), *(self._macro(word) or _plain(word, "") for word in words)]
            else:
                tokens.append(_plain(piece, role))
        return tuple(tokens)

    def _tensor(self, text: str) -> Token | None:
        parameter, suffix = (text, "") if text in self.type_of else (None, "")
        if parameter is None and (held := _HELD.fullmatch(text)):
            parameter, suffix = self.held_as.get(held[1]), held[2]
        if parameter is None:
            return None
        return Token(text, "tensor", self.slots.setdefault(parameter, len(self.slots)), suffix)

    def _macro(self, text: str) -> Token | None:
        return Token(text, "macro", self.macros.setdefault(text, len(self.macros))) if text in self.tunables else None

    def _size(self, text: str, role: str) -> Token | None:
        if role not in _SIZED:
            return None
        integer, whole = _INTEGER.fullmatch(text), _WHOLE.fullmatch(text)
        if integer and (integer[2] or int(integer[1]) < 2**31):
            value, kind = int(integer[1]), integer[2] or ""
        elif whole and int(whole[1]) < 2**31:
            value, kind = int(whole[1]), "float" if whole[2] else "double"
        else:
            return None
        self.sizes.append(value)
        return Token(text, "size", len(self.sizes) - 1, kind, role)


def _is_stiff(line: str, unrolled: bool) -> bool:
    """Whether numbers of a line make structure: extents of arrays, of unrolled loops, what the preprocessor reads."""
    structural = line.startswith(("#", "__shared__", "extern")) or "if constexpr" in line or "asm" in line
    return structural or _DECLARATION.fullmatch(line) is not None or (unrolled and line.startswith("for ("))


@lru_cache(maxsize=1 << 14)
def _plain(text: str, role: str) -> Token:
    return Token(text, role=role)


@lru_cache(maxsize=1 << 12)
def _pieces(line: str, stiff: bool) -> tuple[tuple[str, str, str], ...]:
    """Return what stands before each piece of a line of code, the piece itself and its role."""
    pieces = [m[0] for m in _TOKEN.finditer(line)]
    return tuple(zip(["", *pieces], pieces, _roles(pieces, stiff)))


def _roles(pieces: Sequence[str], stiff: bool) -> list[str]:
    """Return the role of each piece, see `Token`. What stands in a divisor in parentheses is a divisor."""
    code = [(at, piece) for at, piece in enumerate(pieces) if not piece.isspace()]
    roles = [""] * len(pieces)
    constants = bool(code) and code[0][1] == "constexpr"
    depth = 0
    divisors: list[str] = []
    for number, (at, piece) in enumerate(code):
        before = code[number - 1][1] if number else ""
        after = code[number + 1][1] if number + 1 < len(code) else ""
        if piece == "<" and at and not pieces[at - 1].isspace():
            depth += 1  # of template arguments: an operator has space around it
        elif piece == ">" and depth:
            depth -= 1
        elif constants:
            roles[at] = "constant" if before == "=" and after in (",", ";") else ""
        elif not stiff and depth == 0:
            roles[at] = next(filter(None, divisors), before)
        if piece == "(":
            divisors.append(before if before in ("/", "%") else "")
        elif piece == ")" and divisors:
            divisors.pop()
    return roles


def write(line: Line, tensors: Sequence[str], macros: Mapping[int, str], size: Callable[[Token], str]) -> str:
    """Return a line with names and sizes filled in."""
    pieces = []
    for token in line:
        if token.kind == "tensor":
            pieces.append(tensors[token.slot] + token.suffix)
        elif token.kind == "macro":
            pieces.append(macros[token.slot])
        else:
            pieces.append(size(token) if token.kind == "size" else token.text)
    return "".join(pieces)
