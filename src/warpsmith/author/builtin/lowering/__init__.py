"""One lowering for each ATen operator: from a node of the graph to tensor values."""

from warpsmith.author.builtin.lowering import (  # noqa: F401  (importing a module registers its operators)
    activations,
    attention,
    classification,
    contractions,
    convolutions,
    diagonals,
    einsum,
    indexing,
    losses,
    normalization,
    pointwise,
    pooling,
    rearranging,
    recurrences,
    reductions,
    special,
    transposed,
    upsampling,
    views,
)
from warpsmith.author.builtin.lowering.registry import Lowered, lower, operators_of

__all__ = ["Lowered", "lower", "operators_of"]
