"""One lowering for each ATen operator: from a node of the graph to tensor values."""

from warpsmith.author.builtin.lowering import (  # noqa: F401  (importing a module registers its operators)
    activations,
    contractions,
    indexing,
    losses,
    normalization,
    pointwise,
    reductions,
    views,
)
from warpsmith.author.builtin.lowering.registry import Lowered, lower, registered, supported

CONTRACTIONS = registered(contractions)
"""Operators that contract."""

MOVEMENTS = registered(views)
"""Operators that only move elements."""

__all__ = ["CONTRACTIONS", "MOVEMENTS", "Lowered", "lower", "supported"]
