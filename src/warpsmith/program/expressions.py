"""The integer arithmetic of launch plans: parsed into a small tree, never `eval`ed.

    rows * ceil_div(cols, BLOCK * 4) + x.shape[-1] % 32

The grammar, tightest last; all binary operators associate to the left, as in Python:

    sum      := product (("+" | "-") product)*
    product  := unary (("*" | "//" | "%") unary)*
    unary    := "-" unary | atom
    atom     := integer | name | name "." "shape" "[" ["-"] integer "]" | name "." "numel"
              | function "(" sum ("," sum)* ")" | "(" sum ")"

`//` rounds down and `%` takes the sign of the divisor, both as in Python. Every intermediate value must fit a signed
64-bit integer. Functions: `ceil_div(a, b)` and `align_up(a, b)` round a / b, or a to a multiple of b, upwards (b > 0);
`min` and `max` take two or more; `next_pow2(a)` is the least power of two that is at least a (a > 0); `log2(a)` is the
base-2 logarithm rounded down (a > 0).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from warpsmith.errors import ExpressionError
from warpsmith.program.arithmetic import FUNCTIONS, INT64_MAX, INT64_MIN, OPERATORS, UndefinedError
from warpsmith.program.hints import suggest
from warpsmith.program.parser import error_at, parse
from warpsmith.program.tree import Binary, Call, Expression, Extent, Integer, Name, Negative, Numel
from warpsmith.records import TensorSpec


def evaluate(text: str, names: Mapping[str, int], tensors: Mapping[str, TensorSpec]) -> int:
    """Return the value of `text`.

    `names` holds the values of symbols, tunables and device properties. Raises ExpressionError, with a caret under the
    place, for unknown names (with the closest known one), axes out of range, division by zero, and any intermediate
    value that does not fit 64 bits.
    """
    return _value(parse(text), text, names, tensors)


def evaluate_at(place: str, text: str, names: Mapping[str, int], tensors: Mapping[str, TensorSpec]) -> int:
    """Return the value of `text`. Raises ExpressionError as `evaluate` does, with `place` in front of the message."""
    try:
        return evaluate(text, names, tensors)
    except ExpressionError as error:
        raise ExpressionError(f"{place}: {error.message}") from error


def _value(tree: Expression, text: str, names: Mapping[str, int], tensors: Mapping[str, TensorSpec]) -> int:
    match tree:
        case Integer(value):
            return value
        case Name(name, column):
            if name not in names:
                if name in tensors:
                    raise error_at(text, column, f"{name!r} is a tensor; write {name}.shape[0] or {name}.numel")
                raise error_at(text, column, f"unknown name {name!r}{suggest(name, names)}")
            return names[name]
        case Extent(tensor, axis, column):
            shape = _tensor(tensor, column, text, tensors).shape
            if not -len(shape) <= axis < len(shape):
                raise error_at(text, column, f"{tensor} has {len(shape)} dimensions; there is no axis {axis}")
            return shape[axis]
        case Numel(tensor, column):
            return _tensor(tensor, column, text, tensors).numel
        case Negative(operand, column):
            operands = [_value(operand, text, names, tensors)]
            operation: Callable[..., int] = int.__neg__
        case Binary(operator, left, right, column):
            operands = [_value(left, text, names, tensors), _value(right, text, names, tensors)]
            operation = OPERATORS[operator]
        case Call(function, arguments, column):
            operands = [_value(argument, text, names, tensors) for argument in arguments]
            operation = FUNCTIONS[function][2]
    try:
        result = operation(*operands)
    except UndefinedError as reason:
        raise error_at(text, column, str(reason)) from reason
    if not INT64_MIN <= result <= INT64_MAX:
        raise error_at(text, column, "the value does not fit 64 bits")
    return result


def _tensor(name: str, column: int, text: str, tensors: Mapping[str, TensorSpec]) -> TensorSpec:
    if name not in tensors:
        raise error_at(text, column, f"unknown tensor {name!r}{suggest(name, tensors)}")
    return tensors[name]
