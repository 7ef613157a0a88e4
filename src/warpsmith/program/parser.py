"""Text into a tree, by top-down operator precedence. The grammar stands in `expressions`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from warpsmith.errors import ExpressionError
from warpsmith.program.arithmetic import FUNCTIONS, INT64_MAX
from warpsmith.program.hints import suggest
from warpsmith.program.tree import (
    BINDING,
    UNARY_BINDING,
    Binary,
    Call,
    Expression,
    Extent,
    Integer,
    Name,
    Negative,
    Numel,
)

MAX_LENGTH: Final = 1000
"""Characters of one expression."""
MAX_DEPTH: Final = 64
"""Levels of one tree; a chain `a + b + c` of n terms has n levels."""

_DIGITS = frozenset("0123456789")
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_")


def error_at(text: str, column: int, message: str) -> ExpressionError:
    """Return an error with the text and a caret under `column` (1-based). Long texts are cut around it."""
    start = max(0, column - 41)
    window = text[start : start + 80]
    shown = "".join(character if character.isprintable() else "?" for character in window)
    return ExpressionError(f"{message}\n    {shown}\n    {' ' * (column - 1 - start)}^")


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    """`integer`, `name`, `end`, or the punctuation itself."""
    text: str
    column: int


def _tokens(text: str) -> Iterator[_Token]:
    position = 0
    while position < len(text):
        character = text[position]
        start = position
        if character in " \t":
            position += 1
            continue
        if character in _DIGITS:
            while position < len(text) and text[position] in _DIGITS:
                position += 1
            yield _Token("integer", text[start:position], start + 1)
        elif character in _LETTERS:
            while position < len(text) and (text[position] in _LETTERS or text[position] in _DIGITS):
                position += 1
            yield _Token("name", text[start:position], start + 1)
        elif text.startswith("//", position):
            position += 2
            yield _Token("//", "//", start + 1)
        elif character in "+-*%(),.[]":
            position += 1
            yield _Token(character, character, start + 1)
        elif character == "/":
            raise error_at(
                text, start + 1, "'/' is not defined for integers; write '//' to round down or ceil_div(a, b)"
            )
        else:
            raise error_at(text, start + 1, f"unexpected character {character!r}")
    yield _Token("end", "", len(text) + 1)


class _Parser:
    """Top-down operator precedence. Every method returns a tree and its depth, so that the depth can be limited."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(_tokens(text))
        self._index = 0

    def parse(self) -> Expression:
        tree, _ = self._expression(0, 0)
        if self._next.kind != "end":
            raise self._error(self._next, f"unexpected {self._next.text!r}")
        return tree

    @property
    def _next(self) -> _Token:
        return self._tokens[self._index]

    def _take(self) -> _Token:
        token = self._next
        self._index += token.kind != "end"
        return token

    def _error(self, token: _Token, message: str) -> ExpressionError:
        return error_at(self._text, token.column, message)

    def _expect(self, kind: str) -> _Token:
        token = self._take()
        if token.kind != kind:
            what = f"{token.text!r}" if token.kind != "end" else "the end"
            article = "a name" if kind == "name" else "an integer" if kind == "integer" else repr(kind)
            raise self._error(token, f"expected {article}, found {what}")
        return token

    def _limit(self, depth: int, token: _Token) -> int:
        if depth > MAX_DEPTH:
            raise self._error(token, f"nested or chained more than {MAX_DEPTH} deep")
        return depth

    def _expression(self, binding: int, level: int) -> tuple[Expression, int]:
        self._limit(level, self._next)
        left, depth = self._operand(level)
        while BINDING.get(self._next.kind, 0) > binding:
            operator = self._take()
            right, right_depth = self._expression(BINDING[operator.kind], level + 1)
            left = Binary(operator.kind, left, right, operator.column)
            depth = self._limit(max(depth, right_depth) + 1, operator)
        return left, depth

    def _operand(self, level: int) -> tuple[Expression, int]:
        token = self._take()
        if token.kind == "integer":
            return Integer(self._integer(token), token.column), 1
        if token.kind == "name":
            return self._named(token, level)
        if token.kind == "-":
            operand, depth = self._expression(UNARY_BINDING, level + 1)
            return Negative(operand, token.column), self._limit(depth + 1, token)
        if token.kind == "(":
            inside = self._expression(0, level + 1)
            self._expect(")")
            return inside
        raise self._error(
            token, "the expression ends too early" if token.kind == "end" else f"unexpected {token.text!r}"
        )

    def _integer(self, token: _Token) -> int:
        value = int(token.text)
        if value > INT64_MAX:
            raise self._error(token, "the number does not fit 64 bits")
        return value

    def _named(self, token: _Token, level: int) -> tuple[Expression, int]:
        if self._next.kind == "(":
            return self._call(token, level)
        if self._next.kind != ".":
            return Name(token.text, token.column), 1
        self._take()
        attribute = self._expect("name")
        if attribute.text == "numel":
            return Numel(token.text, token.column), 1
        if attribute.text != "shape":
            raise self._error(attribute, f"a tensor has no {attribute.text!r}; it has 'shape' and 'numel'")
        self._expect("[")
        sign = -1 if self._next.kind == "-" else 1
        if sign < 0:
            self._take()
        axis = sign * self._integer(self._expect("integer"))
        self._expect("]")
        return Extent(token.text, axis, token.column), 1

    def _call(self, function: _Token, level: int) -> tuple[Expression, int]:
        if function.text not in FUNCTIONS:
            raise self._error(function, f"unknown function {function.text!r}{suggest(function.text, FUNCTIONS)}")
        self._expect("(")
        arguments, depths = [], []
        while True:
            argument, depth = self._expression(0, level + 1)
            arguments.append(argument)
            depths.append(depth)
            if self._next.kind != ",":
                break
            self._take()
        self._expect(")")
        fewest, most, _ = FUNCTIONS[function.text]
        if not fewest <= len(arguments) <= most:
            due = "1 argument" if most == 1 else f"{fewest if fewest == most else f'{fewest} to {most}'} arguments"
            raise self._error(function, f"{function.text} takes {due}, not {len(arguments)}")
        return Call(function.text, tuple(arguments), function.column), self._limit(max(depths) + 1, function)


@lru_cache(maxsize=4096)
def parse(text: str) -> Expression:
    """Return the tree of `text`.

    Raises ExpressionError, with a caret under the place, for anything that is not an expression of the grammar above,
    for more than `MAX_LENGTH` characters, and for trees deeper than `MAX_DEPTH`.
    """
    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"the expression is {len(text)} characters long; {MAX_LENGTH} is the limit")
    return _Parser(text).parse()
