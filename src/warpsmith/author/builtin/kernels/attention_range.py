"""Which keys a query can see at all, where masks that are formulas of positions say so.

A mask hides a key if the logit is minus infinity wherever a condition does not hold, or, without a softmax, if the
share is zero there. Conditions of the form key <= query + offset (a causal mask) and key >= query + offset (a window)
bound the keys that a block of queries has to look at. A value that is not finite, behind a hidden key, is not met.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from warpsmith.author.builtin.index import Axis, Index, lift
from warpsmith.author.builtin.scalar import Apply, Literal, Position, Scalar

_OPPOSITE = {"lt": "ge", "le": "gt", "gt": "le", "ge": "lt"}


@dataclass(frozen=True)
class Range:
    """Keys from query + `after` to query + `before`, both included; None where nothing is known."""

    after: int | None = None
    before: int | None = None


def visible(logit: Scalar, query: Axis, key: Axis, hidden: float) -> Range:
    """The keys whose logit, a formula over both axes, may be other than `hidden`: minus infinity or zero."""
    after: list[int] = []
    before: list[int] = []
    for condition, due in _needed(logit, hidden):
        for gap in _not_positive(condition, due):
            # gap = ±(key - query) + constant, and gap <= 0 wherever the key is visible.
            difference = lift(key) - lift(query)
            above, below = gap - difference, gap + difference
            if not above.terms:
                before.append(-above.constant)
            elif not below.terms:
                after.append(below.constant)
    return Range(max(after, default=None), min(before, default=None))


def _needed(node: Scalar, hidden: float) -> Iterator[tuple[Scalar, bool]]:
    """Conditions without which a formula has the value `hidden`, each with the truth that it must have."""
    if not isinstance(node, Apply):
        return
    if node.op == "where":
        condition, yes, no = node.args
        if _is(no, hidden):
            yield condition, True
            yield from _needed(yes, hidden)
        elif _is(yes, hidden):
            yield condition, False
            yield from _needed(no, hidden)
    elif hidden == 0 and node.op == "mul":
        for factor in node.args:
            yield from _needed(factor, hidden)
    elif hidden == 0 and node.op == "div":
        yield from _needed(node.args[0], hidden)
    elif hidden != 0 and node.op == "add":
        for term in node.args:
            yield from _needed(term, hidden)
    elif hidden != 0 and node.op == "mul" and isinstance(node.args[1], Literal) and node.args[1].value > 0:
        yield from _needed(node.args[0], hidden)


def _is(node: Scalar, value: float) -> bool:
    return isinstance(node, Literal) and not isinstance(node.value, bool) and node.value == value


def _not_positive(condition: Scalar, due: bool) -> Iterator[Index]:
    """Indices that are at most zero wherever a condition is as it is due."""
    if not isinstance(condition, Apply):
        return
    op, args = condition.op, condition.args
    if op == "not":
        yield from _not_positive(args[0], not due)
    elif op == ("and" if due else "or"):
        for part in args:
            yield from _not_positive(part, due)
    elif op == "cast" and isinstance(args[0], Apply):
        yield from _not_positive(args[0], due)
    elif op in ("eq", "ne") and isinstance(args[1], Literal):
        yield from _chosen(args[0], args[1].value, due == (op == "eq"))
    elif op == "where":
        # As a truth value: what is not zero.
        yield from _chosen(condition, 0, not due)
    elif op in _OPPOSITE:
        left, right = (_index(a) for a in args)
        if left is not None and right is not None:
            relation = op if due else _OPPOSITE[op]
            gap = left - right if relation in ("lt", "le") else right - left
            yield gap + (1 if relation in ("lt", "gt") else 0)


def _chosen(choice: Scalar, value: float | bool, equal: bool) -> Iterator[Index]:
    """The same for the condition of a choice between two constants, of which one is the value asked for."""
    while isinstance(choice, Apply) and choice.op == "cast":
        choice = choice.args[0]
    if not (isinstance(choice, Apply) and choice.op == "where"):
        return
    condition, yes, no = choice.args
    if not isinstance(yes, Literal) or not isinstance(no, Literal) or math.isnan(float(value)):
        return
    if (yes.value == value) != (no.value == value):
        yield from _not_positive(condition, (yes.value == value) == equal)


def _index(node: Scalar) -> Index | None:
    if isinstance(node, Position):
        return node.index
    if isinstance(node, Literal) and not isinstance(node.value, float):
        return lift(int(node.value))
    return None
