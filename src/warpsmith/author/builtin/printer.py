"""Scalar expressions as C++ text: one named variable for each value used twice, the rest inline."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from warpsmith.author.builtin.index import Atom, Axis, Div, Index, Indirect, Mod
from warpsmith.author.builtin.scalar import FUNCTIONS, Apply, Literal, Load, Local, Position, Scalar, positions, walk

CTYPES: Mapping[str, str] = {
    "float64": "double",
    "float32": "float",
    "float16": "__half",
    "bfloat16": "__nv_bfloat16",
    "int64": "long long",
    "int32": "int",
    "int16": "short",
    "int8": "signed char",
    "uint8": "unsigned char",
    "bool": "bool",
}

# Binding strengths, as in C++: a looser operand needs parentheses.
_ATOM, _UNARY, _TIMES, _PLUS, _SHIFT, _COMPARE, _EQUAL, _BITS, _AND, _OR, _CHOICE = range(11)
_INFIX: Mapping[str, tuple[str, int]] = {
    "add": ("+", _PLUS),
    "sub": ("-", _PLUS),
    "mul": ("*", _TIMES),
    "lt": ("<", _COMPARE),
    "le": ("<=", _COMPARE),
    "gt": (">", _COMPARE),
    "ge": (">=", _COMPARE),
    "eq": ("==", _EQUAL),
    "ne": ("!=", _EQUAL),
    "and": ("&&", _AND),
    "or": ("||", _OR),
    "bit_and": ("&", _BITS),
    "bit_or": ("|", _BITS),
    "bit_xor": ("^", _BITS),
}
_FUNCTIONS = frozenset({*FUNCTIONS, "pow", "fmod"})
# Fast intrinsics that may stand for exact functions where the recipe says so (CUDA C++ Programming Guide, 17.2).
_FAST = {"exp": "__expf", "log": "__logf", "log2": "__log2f", "log10": "__log10f", "sin": "__sinf", "cos": "__cosf"}
FAST_FUNCTIONS = frozenset(_FAST)
# Functions of our own, pasted into the source where used.
HELPERS: Mapping[str, str] = {
    "nearest_tf32": """// The nearest number with the eleven significant bits that tensor cores read.
__device__ float nearest_tf32(float x) {
    unsigned rounded;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(rounded) : "f"(x));
    return __uint_as_float(rounded);
}""",
    "maximum": """// The larger value; NaN if either is.
template <typename T> __device__ T maximum(T a, T b) { return (a > b || a != a) ? a : b; }""",
    "minimum": """// The smaller value; NaN if either is.
template <typename T> __device__ T minimum(T a, T b) { return (a < b || a != a) ? a : b; }""",
    "sigmoid": "template <typename T> __device__ T sigmoid(T x) { return T(1) / (T(1) + exp(-x)); }",
    "sign": "template <typename T> __device__ T sign(T x) { return x != x ? x : T((x > T(0)) - (x < T(0))); }",
    "floor_divide": """// Quotient rounded down.
template <typename T> __device__ T floor_divide(T a, T b) {
    if constexpr (T(1) / T(2) != T(0)) return floor(a / b);
    else { T q = a / b; return (a % b != 0 && (a < 0) != (b < 0)) ? q - 1 : q; }
}""",
    "remainder_of": """// Remainder with the sign of the divisor.
template <typename T> __device__ T remainder_of(T a, T b) {
    T r;
    if constexpr (T(1) / T(2) != T(0)) r = fmod(a, b); else r = a % b;
    return (r != 0 && (r < 0) != (b < 0)) ? r + b : r;
}""",
    "wrap_index": """// Negative positions count from the end.
__device__ long long wrap_index(long long at, long long extent) { return at < 0 ? at + extent : at; }""",
}
_CALLS = {"maximum": "maximum", "minimum": "minimum", "sigmoid": "sigmoid", "sign": "sign", "div_floor": "floor_divide",
          "remainder": "remainder_of", "wrap_index": "wrap_index", "nearest_tf32": "nearest_tf32"}  # fmt: skip
OPERATIONS = frozenset(
    {
        *_INFIX,
        *_FUNCTIONS,
        *_CALLS,
        "neg",
        "not",
        "bit_not",
        "abs",
        "round",
        "reciprocal",
        "div",
        "div_trunc",
        "where",
        "cast",
    }
)


def symbol(axis: Axis) -> str:
    """The C++ name of an axis."""
    return axis.name


@dataclass
class Printer:
    """Writes expressions for one place in a kernel.

    `load` turns a read into C++ text, so that a kernel can serve it from registers or shared memory; `fast` uses
    intrinsics of lower accuracy; `wide` makes index arithmetic 64-bit. `helpers` collects the functions to paste in.
    """

    load: Callable[[Load, str], str] | None = None
    fast: bool = False
    wide: bool = False
    helpers: set[str] = field(default_factory=set)
    numbers: list[int] = field(default_factory=lambda: [0])
    _named: dict[Scalar, str] = field(default_factory=dict)

    def fork(self, load: Callable[[Load, str], str] | None = None) -> Printer:
        """Return a printer for an inner scope: it knows the variables of this one, and adds none to it."""
        return Printer(load or self.load, self.fast, self.wide, self.helpers, self.numbers, dict(self._named))

    def adopt(self, outer: Printer) -> Printer:
        """Learn the variables that an outer scope has gained since the fork."""
        self._named = {**outer._named, **self._named}
        return self

    def knows(self, node: Scalar) -> bool:
        """Whether a variable stands for the expression."""
        return node in self._named

    def fresh(self) -> int:
        """A number that no variable of this kernel has yet."""
        self.numbers[0] += 1
        return self.numbers[0] - 1

    def name(self, node: Scalar, variable: str) -> None:
        """Let a variable stand for an expression from here on."""
        self._named[node] = variable

    def define(self, roots: Mapping[str, Scalar]) -> list[str]:
        """Return statements that define one variable for each root."""
        text = self.share(roots.values())
        for name, root in roots.items():
            text.append(f"const {CTYPES[root.dtype]} {name} = {self.value(root)};")
            self._named[root] = name
        return text

    def share(self, roots: Iterable[Scalar]) -> list[str]:
        """Return statements that define a variable for every value that the roots use more than once."""
        uses: dict[Scalar, int] = {}
        roots = list(roots)
        for root in roots:
            for node in walk(root, self._named):
                uses.setdefault(node, 0)
        for node in [*uses]:
            below = [*node.children, *(p for index in node.indices for p in positions(index))]
            for child in below:
                if child in uses:
                    uses[child] += 1
        for root in roots:
            if root in uses:
                uses[root] += 1
        text: list[str] = []
        for node, count in uses.items():
            if count > 1 and isinstance(node, (Apply, Load)):
                variable = f"t{self.fresh()}"
                text.append(f"const {CTYPES[node.dtype]} {variable} = {self.value(node)};")
                self._named[node] = variable
        return text

    def value(self, node: Scalar) -> str:
        """Return an expression as text."""
        return self._text(node)[0]

    def index(self, index: Index) -> str:
        """Return an index as text."""
        return self._index(index)[0]

    def _text(self, node: Scalar) -> tuple[str, int]:
        if node in self._named:
            return self._named[node], _ATOM
        if isinstance(node, Literal):
            return literal(node), _ATOM
        if isinstance(node, Local):
            return node.name, _ATOM
        if isinstance(node, Position):
            text, strength = self._index(node.index)
            return (text, strength) if self.wide else (f"(long long)({text})", _UNARY)
        if isinstance(node, Load):
            return self._load(node)
        assert isinstance(node, Apply), f"{node} is not resolved"
        return self._apply(node)

    def _load(self, node: Load) -> tuple[str, int]:
        at = self.index(node.index)
        text = self.load(node, at) if self.load else f"{node.tensor}[{at}]"
        if node.stored in ("float16", "bfloat16") and self.load is None:
            text = f"float({text})"
        if node.guard is None:
            return text, _ATOM
        zero = literal(Literal(False if node.dtype == "bool" else 0, node.dtype))
        return f"{self._tight(node.guard, _OR)} ? {text} : {zero}", _CHOICE

    def _apply(self, node: Apply) -> tuple[str, int]:
        op, args = node.op, node.args
        if op in _INFIX:
            sign, strength = _INFIX[op]
            if strength in (_COMPARE, _EQUAL) and all(_is_plain_integer(a) for a in args):
                return " ".join((self._plain(args[0]), sign, self._plain(args[1]))), strength
            left, right = self._tight(args[0], strength), self._tight(args[1], strength - 1)
            return f"{left} {sign} {right}", strength
        if op in ("div", "div_trunc"):
            quotient = f"{self._tight(args[0], _TIMES)} / {self._tight(args[1], _UNARY)}"
            if op == "div_trunc" and node.dtype.startswith("float"):
                return f"trunc({quotient})", _ATOM
            return quotient, _TIMES
        if op in ("neg", "not", "bit_not"):
            sign = {"neg": "-", "not": "!", "bit_not": "~"}[op]
            return f"{sign}{self._tight(args[0], _ATOM)}", _UNARY
        if op == "where":
            chosen = args[1]
            if isinstance(chosen, Load) and chosen.guard is args[0]:  # the choice itself is the guard
                chosen = Load(chosen.tensor, chosen.index, chosen.stored)
            condition, yes, no = (self._tight(a, _OR) for a in (args[0], chosen, args[2]))
            return f"{condition} ? {yes} : {no}", _CHOICE
        if op == "cast":
            return f"{_cast_name(node.dtype)}({self.value(args[0])})", _ATOM
        if op == "reciprocal":
            return f"{literal(Literal(1, node.dtype))} / {self._tight(args[0], _UNARY)}", _TIMES
        return self._call(node), _ATOM

    def _call(self, node: Apply) -> str:
        inner = ", ".join(self.value(a) for a in node.args)
        single = node.dtype == "float32"
        if node.op in _CALLS:
            helper = _CALLS[node.op]
            self.helpers.add(helper)
            return f"{helper}({inner})"
        if self.fast and single and node.op in _FAST:
            return f"{_FAST[node.op]}({inner})"
        if node.op == "abs":
            return f"{'fabsf' if single else 'fabs' if node.dtype == 'float64' else 'llabs'}({inner})"
        if node.op == "round":
            return f"{'rintf' if single else 'rint'}({inner})"
        assert node.op in _FUNCTIONS, f"no C++ for {node.op}"
        return f"{node.op}{'f' if single else ''}({inner})"

    def _plain(self, node: Scalar) -> str:
        """Write an operand of a comparison of positions, in the type of indices."""
        if isinstance(node, Literal):
            return self._integer(int(node.value))
        assert isinstance(node, Position)
        return self.index(node.index)

    def _tight(self, node: Scalar, strength: int) -> str:
        text, own = self._text(node)
        return f"({text})" if own > strength else text

    def _index(self, index: Index) -> tuple[str, int]:
        parts: list[str] = []
        for atom, coefficient in index.terms:
            text, strength = self._atom(atom)
            size = abs(coefficient)
            if size != 1:
                text = f"{f'({text})' if strength > _TIMES else text} * {self._integer(size)}"
            parts.append(("- " if coefficient < 0 else "+ ") + text)
        if index.constant or not parts:
            sign = "- " if index.constant < 0 else "+ "
            parts.append(sign + self._integer(abs(index.constant)))
        text = " ".join(parts)
        text = text[2:] if text.startswith("+ ") else "-" + text[2:]
        alone = len(parts) == 1 and not text.startswith("-")
        if not alone:
            return text, _PLUS
        return text, _ATOM if text.isidentifier() or text.isdigit() else _TIMES

    def _integer(self, value: int) -> str:
        return f"{value}ll" if value > 2**31 - 1 else str(value)

    def _atom(self, atom: Atom) -> tuple[str, int]:
        if isinstance(atom, Axis):
            return symbol(atom), _ATOM
        if isinstance(atom, Indirect):
            return self._tight(atom.value, _TIMES), _TIMES
        text, strength = self._index(atom.base)
        base = f"({text})" if strength > _TIMES else text
        return f"{base} {'/' if isinstance(atom, Div) else '%'} {self._integer(atom.by)}", _TIMES + (
            1 if isinstance(atom, Mod) else 0
        )


def literal(node: Literal) -> str:
    """Write a constant of its dtype."""
    value = node.value
    if node.dtype == "bool":
        return "true" if value else "false"
    if node.dtype == "int64":
        return f"{int(value)}ll"
    if node.dtype not in ("float32", "float64"):
        return str(int(value))
    if math.isinf(value):
        return "INFINITY" if value > 0 else "-INFINITY"
    if math.isnan(value):
        return "NAN"
    text = repr(float(value))
    if node.dtype == "float64":
        return text
    return f"{text}f"


def _cast_name(dtype: str) -> str:
    ctype = CTYPES[dtype]
    return ctype if " " not in ctype else f"({ctype})"


def _is_plain_integer(node: Scalar) -> bool:
    return isinstance(node, Position) or (isinstance(node, Literal) and node.dtype == "int64")
