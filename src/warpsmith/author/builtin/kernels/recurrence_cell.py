"""Cells of recurrent layers: the next state of one unit as a formula."""

from __future__ import annotations

from collections.abc import Sequence

from warpsmith.author.builtin.scalar import Literal, Scalar, apply
from warpsmith.author.builtin.values import RecurrenceKind


def updated(
    kind: RecurrenceKind, given: Sequence[Scalar], sums: Sequence[Scalar], state: Sequence[Scalar]
) -> tuple[Scalar, ...]:
    """Return the next hidden state, and for an LSTM the next state of its cell.

    `given` is what `Direction.given` lists, `sums` the product of the state with the weights of each gate, in PyTorch's
    order: input, forget, cell, output for an LSTM; reset, update, new for a GRU.
    """
    if kind == "lstm":
        return _lstm([apply("add", g, s) for g, s in zip(given, sums, strict=True)], state[1])
    if kind == "gru":
        return (_gru(given, sums, state[0]),)
    total = apply("add", given[0], sums[0])
    zero = Literal(0.0, total.dtype)
    return (apply("tanh", total) if kind == "tanh" else apply("maximum", total, zero),)


def _lstm(gates: Sequence[Scalar], cell: Scalar) -> tuple[Scalar, Scalar]:
    enter, keep, new, leave = gates
    kept = apply("mul", apply("sigmoid", keep), cell)
    fresh = apply("add", kept, apply("mul", apply("sigmoid", enter), apply("tanh", new)))
    return apply("mul", apply("sigmoid", leave), apply("tanh", fresh)), fresh


def _gru(given: Sequence[Scalar], sums: Sequence[Scalar], hidden: Scalar) -> Scalar:
    reset = apply("sigmoid", apply("add", given[0], sums[0]))
    update = apply("sigmoid", apply("add", given[1], sums[1]))
    inner = apply("add", sums[2], given[3]) if len(given) > 3 else sums[2]
    new = apply("tanh", apply("add", given[2], apply("mul", reset, inner)))
    return apply("add", new, apply("mul", update, apply("sub", hidden, new)))
