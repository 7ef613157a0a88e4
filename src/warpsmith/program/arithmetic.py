"""What the operators and functions of expressions mean: Python's integers, held to 64 bits by the evaluator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

INT64_MIN: Final = -(2**63)
INT64_MAX: Final = 2**63 - 1


class UndefinedError(Exception):
    """An operation has no value for these operands."""


def _ceil_div(a: int, b: int) -> int:
    if b <= 0:
        raise UndefinedError(f"ceil_div divides by {b}; the divisor must be positive")
    return -(-a // b)


def _align_up(a: int, b: int) -> int:
    if b <= 0:
        raise UndefinedError(f"align_up to a multiple of {b}; it must be positive")
    return -(-a // b) * b


def _next_pow2(a: int) -> int:
    if a <= 0:
        raise UndefinedError(f"next_pow2 of {a}; it needs a positive number")
    return 1 << (a - 1).bit_length()


def _log2(a: int) -> int:
    if a <= 0:
        raise UndefinedError(f"log2 of {a}; it needs a positive number")
    return a.bit_length() - 1


def _divide(a: int, b: int) -> int:
    if b == 0:
        raise UndefinedError("division by zero")
    return a // b


def _modulo(a: int, b: int) -> int:
    if b == 0:
        raise UndefinedError("remainder of a division by zero")
    return a % b


# Name -> (fewest arguments, most arguments, meaning).
FUNCTIONS: Mapping[str, tuple[int, int, Callable[..., int]]] = MappingProxyType(
    {
        "ceil_div": (2, 2, _ceil_div),
        "align_up": (2, 2, _align_up),
        "min": (2, 16, min),
        "max": (2, 16, max),
        "next_pow2": (1, 1, _next_pow2),
        "log2": (1, 1, _log2),
    }
)
OPERATORS: Mapping[str, Callable[[int, int], int]] = MappingProxyType(
    {
        "+": lambda a, b: a + b,
        "-": lambda a, b: a - b,
        "*": lambda a, b: a * b,
        "//": _divide,
        "%": _modulo,
    }
)
