"""Scalar expressions: what one element of a tensor is, in terms of elements of others.

Nodes are interned, so equal expressions are one object: comparing and hashing take constant time however much is
shared, and the printer sees common subexpressions for free.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakValueDictionary

from warpsmith.author.builtin.index import Axis, Index, Indirect, lift

if TYPE_CHECKING:
    from warpsmith.author.builtin.values import Producer

FLOATS = ("float64", "float32", "float16", "bfloat16")
# Functions of one floating value that are called the same in ATen and in CUDA.
# fmt: off
FUNCTIONS = (
    "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sqrt", "rsqrt", "sin", "cos", "tan", "asin", "acos",
    "atan", "sinh", "cosh", "tanh", "erf", "erfc", "floor", "ceil", "trunc",
)
# fmt: on


def compute_dtype(dtype: str) -> str:
    """Return the dtype in which values of `dtype` are computed: half precisions are widened to float32."""
    return "float32" if dtype in ("float16", "bfloat16") else dtype


class Scalar:
    """Base of all scalar expressions. `dtype` is the dtype of the value."""

    __slots__ = ("__weakref__", "_axes", "_fields", "dtype")
    _table: ClassVar[WeakValueDictionary[Any, Scalar]] = WeakValueDictionary()
    _fields: tuple[Any, ...]
    _axes: frozenset[Axis] | None
    dtype: str

    def __new__(cls, *fields: Any) -> Scalar:
        """Return the one node with these fields."""
        # What is left out is what is None. repr tells 0.0 from -0.0 and 1 from True, which compare equal.
        while fields and fields[-1] is None:
            fields = fields[:-1]
        key = (cls, tuple(repr(f) if isinstance(f, (bool, int, float)) else f for f in fields))
        found = Scalar._table.get(key)
        if found is None:
            found = super().__new__(cls)
            found._fields = fields
            found._axes = None
            Scalar._table[key] = found
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), self._fields)

    def __repr__(self) -> str:
        return f"{type(self).__name__}{self._fields}"

    @property
    def children(self) -> tuple[Scalar, ...]:
        """Direct operands."""
        return ()

    @property
    def indices(self) -> tuple[Index, ...]:
        """Indices that the node itself uses."""
        return ()

    @property
    def axes(self) -> frozenset[Axis]:
        """Every axis that the value depends on."""
        if self._axes is None:
            found: frozenset[Axis] = frozenset()
            for index in self.indices:
                found |= index.axes
            for child in self.children:
                found |= child.axes
            self._axes = found
        return self._axes

    def rebuild(self, scalar: Callable[[Scalar], Scalar], index: Callable[[Index], Index]) -> Scalar:
        """Return the same node over mapped operands and indices."""
        return self


class Literal(Scalar):
    """A constant."""

    __slots__ = ("value",)

    def __init__(self, value: float | int | bool, dtype: str) -> None:
        self.value, self.dtype = value, dtype


class Local(Scalar):
    """A variable that the kernel around the expression defines; `varies` are the axes that its value depends on."""

    __slots__ = ("name", "varies")

    def __init__(self, name: str, dtype: str, varies: frozenset[Axis] = frozenset()) -> None:
        self.name, self.dtype, self.varies = name, dtype, varies

    @property
    def axes(self) -> frozenset[Axis]:
        """Axes that the value depends on."""
        return self.varies


class Position(Scalar):
    """The value of an index, as an int64."""

    __slots__ = ("index",)

    def __init__(self, index: Index) -> None:
        self.index, self.dtype = index, "int64"

    @property
    def indices(self) -> tuple[Index, ...]:
        """Indices that the node itself uses."""
        return (self.index,)

    def rebuild(self, scalar: Callable[[Scalar], Scalar], index: Callable[[Index], Index]) -> Scalar:
        """Return the same node over mapped operands and indices."""
        return Position(index(self.index))


class Load(Scalar):
    """Element `index` of `tensor`, whose elements are `stored`; zero where `guard` is false, without being read."""

    __slots__ = ("guard", "index", "stored", "tensor")

    def __init__(self, tensor: str, index: Index, stored: str, guard: Scalar | None = None) -> None:
        self.tensor, self.index, self.stored, self.guard = tensor, index, stored, guard
        self.dtype = compute_dtype(stored)

    @property
    def children(self) -> tuple[Scalar, ...]:
        """Direct operands."""
        return (self.guard,) if self.guard is not None else ()

    @property
    def indices(self) -> tuple[Index, ...]:
        """Indices that the node itself uses."""
        return (self.index,)

    def rebuild(self, scalar: Callable[[Scalar], Scalar], index: Callable[[Index], Index]) -> Scalar:
        """Return the same node over mapped operands and indices."""
        guard = scalar(self.guard) if self.guard is not None else None
        return Load(self.tensor, index(self.index), self.stored, guard)


class Result(Scalar):
    """Element `coords` of part `part` of what a producer computes; the region decides where it comes from."""

    __slots__ = ("coords", "guard", "part", "producer")

    def __init__(
        self, producer: Producer, part: int, coords: tuple[Index, ...], dtype: str, guard: Scalar | None = None
    ):
        self.producer, self.part, self.coords, self.dtype, self.guard = producer, part, coords, dtype, guard

    @property
    def children(self) -> tuple[Scalar, ...]:
        """Direct operands."""
        return (self.guard,) if self.guard is not None else ()

    @property
    def indices(self) -> tuple[Index, ...]:
        """Indices that the node itself uses."""
        return self.coords

    def rebuild(self, scalar: Callable[[Scalar], Scalar], index: Callable[[Index], Index]) -> Scalar:
        """Return the same node over mapped operands and indices."""
        guard = scalar(self.guard) if self.guard is not None else None
        return Result(self.producer, self.part, tuple(index(c) for c in self.coords), self.dtype, guard)


class Apply(Scalar):
    """An operation on scalars; `printer.OPERATIONS` lists the names."""

    __slots__ = ("args", "op")

    def __init__(self, op: str, args: tuple[Scalar, ...], dtype: str) -> None:
        self.op, self.args, self.dtype = op, args, dtype

    @property
    def children(self) -> tuple[Scalar, ...]:
        """Direct operands."""
        return self.args

    def rebuild(self, scalar: Callable[[Scalar], Scalar], index: Callable[[Index], Index]) -> Scalar:
        """Return the same node over mapped operands and indices."""
        return Apply(self.op, tuple(scalar(a) for a in self.args), self.dtype)


COMPARISONS = frozenset({"lt", "le", "gt", "ge", "eq", "ne"})


def apply(op: str, *args: Scalar, dtype: str | None = None) -> Scalar:
    """Apply an operation; the result has the dtype of the first argument, or is bool for comparisons."""
    return Apply(op, args, dtype or ("bool" if op in COMPARISONS else args[0].dtype))


def cast(value: Scalar, dtype: str) -> Scalar:
    """Convert. Half precisions are held in float32 and rounded only when they are stored."""
    dtype = compute_dtype(dtype)
    if dtype == value.dtype:
        return value
    if isinstance(value, Literal) and dtype in FLOATS and not isinstance(value.value, bool):
        return Literal(float(value.value), dtype)
    return Apply("cast", (value,), dtype)


def both(a: Scalar | None, b: Scalar | None) -> Scalar | None:
    """Conjunction of two optional conditions."""
    if a is None or b is None:
        return a or b
    return a if a is b else Apply("and", (a, b), "bool")


def walk(root: Scalar, stop: Container[Scalar] = ()) -> Iterator[Scalar]:
    """Yield every distinct node below `root`, operands first, without those in `stop` and what is only below them."""
    seen: set[Scalar] = set()
    stack: list[tuple[Scalar, bool]] = [(root, False)]
    while stack:
        node, expanded = stack.pop()
        if expanded:
            yield node
        elif node not in seen and node not in stop:
            seen.add(node)
            stack.append((node, True))
            stack.extend((child, False) for child in node.children)
            stack.extend((value, False) for index in node.indices for value in positions(index))


def positions(index: Index) -> Iterator[Scalar]:
    """Yield the scalars that an index reads its positions from."""
    for atom, _ in index.terms:
        if isinstance(atom, Indirect):
            yield atom.value
        elif not isinstance(atom, Axis):
            yield from positions(atom.base)


def looked_up(index: Index) -> bool:
    """Whether a position has to be read from memory."""
    return any(True for _ in positions(index))


def transform(root: Scalar, visit: Callable[[Scalar], Scalar], bindings: Mapping[Axis, Index] | None = None) -> Scalar:
    """Rebuild an expression bottom-up: put `bindings` in the place of axes, then let `visit` replace each node."""
    done: dict[Scalar, Scalar] = {}

    def index(old: Index) -> Index:
        return old.replace(bindings or {}, lambda value: done[value])

    for node in walk(root):
        done[node] = visit(node.rebuild(lambda child: done[child], index))
    return done[root]


def guarded(root: Scalar, condition: Scalar) -> Scalar:
    """Return `root` with every read of memory below it made under `condition`."""

    def visit(node: Scalar) -> Scalar:
        if isinstance(node, Load):
            return Load(node.tensor, node.index, node.stored, both(condition, node.guard))
        if isinstance(node, Result):
            return Result(node.producer, node.part, node.coords, node.dtype, both(condition, node.guard))
        return node

    return transform(root, visit)


def within(index: Index, low: int, high: int) -> Scalar | None:
    """Return the condition low ≤ index < high, or None where the ranges of the axes already imply it."""
    lower = apply("ge", Position(index), Literal(low, "int64")) if index.low < low else None
    upper = apply("lt", Position(index), Literal(high, "int64")) if index.high >= high else None
    return both(lower, upper)


def position(value: Index | Axis | int) -> Scalar:
    """An index as a value."""
    return Position(lift(value))
