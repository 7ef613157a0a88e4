"""Operators that leave something to chance: which draw a mask that can be an input, and which no program can reproduce.

A mask holds zeros and ones, drawn with one probability for all elements, by which something is multiplied: so does
dropout, of single elements or of whole channels, and so does stochastic depth. Whatever else draws random numbers, or
gives uninitialised memory, is refused: alpha dropout, which also adds; the dropout inside of attention and of recurrent
layers, whose masks are seen nowhere; `rrelu`; noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
}
_DROPOUTS = frozenset({"aten.native_dropout.default", "aten.dropout.default"})
_DRAWS = frozenset({"aten.bernoulli.p", "aten.bernoulli_.float"})
# What a multiple of a mask, in another dtype or shape, still is.
_MULTIPLES = frozenset(
    {
        *("aten.div.Scalar", "aten.div.Tensor", "aten.mul.Scalar", "aten.mul.Tensor"),
        *("aten._to_copy.default", "aten.clone.default", "aten.alias.default", "aten.detach.default"),
        *("aten.view.default", "aten.expand.default", "aten.unsqueeze.default", "aten.squeeze.dim"),
    }
)


def probability(target: torch._ops.OpOverload, args: Sequence[object], kwargs: Mapping[str, object]) -> float | None:
    """Return with which probability an operator draws ones rather than zeros; None where it does no such thing.

    A probability of 0 or 1, as of dropout outside of training, leaves nothing to chance.
    """
    name = str(target)
    if name not in _DROPOUTS | _DRAWS:
        return None
    given = _arguments(target, args, kwargs)
    p = given["p"]
    assert isinstance(p, (int, float))
    if name in _DRAWS:
        return float(p)
    # `train` may be None, which means that it does.
    return 1.0 if given["train"] is False else 1.0 - p


def mask_probability(node: torch.fx.Node) -> float | None:
    """Return the `probability` of a node whose zeros and ones, or multiples of them, nothing but scale tensors."""
    assert isinstance(node.target, torch._ops.OpOverload)
    found = probability(node.target, node.args, node.kwargs)
    return found if str(node.target) in _DROPOUTS or _only_scales(node) else None


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
    given = _arguments(node.target, node.args, node.kwargs)
    return any(name in given and given[name] == value for name, value in _QUIET.get(base, ()))


def _arguments(
    target: torch._ops.OpOverload, args: Sequence[object], kwargs: Mapping[str, object]
) -> dict[str, object]:
    """Return the arguments of a call by name, with defaults."""
    schema = target._schema.arguments
    given = {argument.name: argument.default_value for argument in schema if argument.has_default_value()}
    return given | {argument.name: value for argument, value in zip(schema, args)} | dict(kwargs)


def _only_scales(node: torch.fx.Node) -> bool:
    """Whether all that is done with a node, or with multiples of it, is to multiply other tensors by it."""
    for user in node.users:
        op = str(user.target)
        alone = all(other is node for other in user.all_input_nodes)
        if not (op in _MULTIPLES and _only_scales(user) if alone else op == "aten.mul.Tensor"):
            return False
    return True
