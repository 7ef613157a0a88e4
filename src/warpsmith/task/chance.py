"""Operators whose results no program can reproduce: those that draw random numbers, and uninitialised memory."""

from __future__ import annotations

from collections.abc import Mapping

import torch

_UNDEFINED = frozenset({"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "empty_permuted"})
# Operators that draw numbers only where these arguments say so; their quiet forms are deterministic.
_QUIET: Mapping[str, tuple[tuple[str, object], ...]] = {
    "scaled_dot_product_attention": (("dropout_p", 0.0),),
    "gru": (("dropout", 0.0), ("train", False)),
    "lstm": (("dropout", 0.0), ("train", False)),
    "rnn_tanh": (("dropout", 0.0), ("train", False)),
    "rnn_relu": (("dropout", 0.0), ("train", False)),
    "rrelu": (("training", False),),
    "native_dropout": (("p", 0.0), ("train", False)),
    "dropout": (("p", 0.0), ("train", False)),
}


def unreproducible(node: torch.fx.Node) -> str | None:
    """Return why the result of `node` cannot be reproduced, None if it can."""
    assert isinstance(node.target, torch._ops.OpOverload)
    base = node.target._schema.name.split("::")[1]
    if torch.Tag.nondeterministic_seeded in node.target.tags and not _is_quiet(node, base):
        return f"{node.target} draws random numbers; call eval() on the module or set its probability to 0"
    if base in _UNDEFINED:
        return f"{node.target} gives uninitialised memory, whose contents no program can reproduce"
    return None


def _is_quiet(node: torch.fx.Node, base: str) -> bool:
    assert isinstance(node.target, torch._ops.OpOverload)
    schema = node.target._schema.arguments
    given = {argument.name: argument.default_value for argument in schema if argument.has_default_value()}
    given |= {argument.name: value for argument, value in zip(schema, node.args)}
    given |= node.kwargs
    return any(name in given and given[name] == value for name, value in _QUIET.get(base, ()))
