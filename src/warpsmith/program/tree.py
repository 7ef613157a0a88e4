"""The tree of an integer expression: its nodes, its text, the names in it.

`column` (1-based) is where a node stands in the text that it was parsed from; it takes no part in comparisons.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

BINDING: Final[Mapping[str, int]] = MappingProxyType({"+": 1, "-": 1, "*": 2, "//": 2, "%": 2})
"""How tightly each binary operator binds."""
UNARY_BINDING: Final = 3


@dataclass(frozen=True, slots=True)
class Integer:
    """A literal."""

    value: int
    column: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Name:
    """A symbol, a tunable or a property of the device."""

    name: str
    column: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Extent:
    """`tensor.shape[axis]`; a negative axis counts from the end."""

    tensor: str
    axis: int
    column: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Numel:
    """`tensor.numel`."""

    tensor: str
    column: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Negative:
    """`-operand`."""

    operand: Expression
    column: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Binary:
    """`left operator right`."""

    operator: str
    left: Expression
    right: Expression
    column: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Call:
    """`function(arguments)`."""

    function: str
    arguments: tuple[Expression, ...]
    column: int = field(default=0, compare=False)


Expression = Integer | Name | Extent | Numel | Negative | Binary | Call


def format_expression(tree: Expression) -> str:
    """Return text that parses to an equal tree, with no parentheses that are not needed."""
    match tree:
        case Integer(value):
            return str(value)
        case Name(name):
            return name
        case Extent(tensor, axis):
            return f"{tensor}.shape[{axis}]"
        case Numel(tensor):
            return f"{tensor}.numel"
        case Call(function, arguments):
            return f"{function}({', '.join(map(format_expression, arguments))})"
        case Negative(operand):
            return f"-{_inside(operand, UNARY_BINDING)}"
        case Binary(operator, left, right):
            binding = BINDING[operator]
            return f"{_inside(left, binding)} {operator} {_inside(right, binding + 1)}"


def _inside(tree: Expression, binding: int) -> str:
    text = format_expression(tree)
    return f"({text})" if isinstance(tree, Binary) and BINDING[tree.operator] < binding else text


def names_in(tree: Expression) -> frozenset[str]:
    """Return the symbols, tunables and device properties that the value depends on; no names of tensors."""
    match tree:
        case Name(name):
            return frozenset({name})
        case Negative(operand):
            return names_in(operand)
        case Binary(_, left, right):
            return names_in(left) | names_in(right)
        case Call(_, arguments):
            return frozenset().union(*map(names_in, arguments))
    return frozenset()
