"""Which argument of a graph stands behind an operand, and what each integer argument may hold."""

from __future__ import annotations

import math
from collections.abc import Iterator

from warpsmith.records import Arg, Graph, Node, Ref

_SAME_VALUES = """
    view expand expand_as unsqueeze squeeze permute transpose t select slice split chunk unbind flatten repeat flip
    roll narrow _to_copy movedim diagonal unfold pad constant_pad_nd contiguous
"""


class Tracer:
    """Follows operands back through operators that move values without changing them."""

    def __init__(self, graph: Graph) -> None:
        self._nodes = {node.name: node for node in graph.nodes}
        self._arguments = {spec.name for spec in graph.arguments}

    def source(self, arg: Arg) -> str | None:
        """Return the argument whose values `arg` holds; None where it is computed, or no tensor."""
        while isinstance(arg, Ref):
            if arg.name in self._arguments:
                return arg.name
            node = self._nodes[arg.name]
            if base_name(node) not in _SAME_VALUES.split():
                return None
            arg = node.args[0]
        return None


def base_name(node: Node) -> str:
    """Return the operator's name without namespace and overload."""
    return node.op.split(".")[1]


def looks_at_shape_only(node: Node) -> bool:
    """Tell operators whose result does not depend on the values of their first operand."""
    return base_name(node) in ("zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full")


def integer_bounds(graph: Graph) -> dict[str, int]:
    """Return, for every argument that is used as an index, the number of values it may take: 0 to that, exclusive.

    Known are embeddings, gathers, scatters, indexing, one-hot and class targets of losses.
    """
    tracer = Tracer(graph)
    bounds: dict[str, int] = {}
    for node in graph.nodes:
        for operand, extent in _index_uses(graph, node):
            name = tracer.source(operand)
            if name is not None and extent > 0:
                bounds[name] = min(extent, bounds.get(name, extent))
    return bounds


def _index_uses(graph: Graph, node: Node) -> Iterator[tuple[Arg, int]]:
    """Yield every operand of `node` that is an index, with the extent that it indexes."""
    base, args = base_name(node), node.args
    if not args or not isinstance(args[0], Ref):
        return
    shape = graph.spec_of(args[0]).shape
    if base in ("embedding", "embedding_bag"):
        yield args[1], shape[0]
    elif base in ("gather", "scatter", "scatter_add", "scatter_reduce", "index_select", "index_add", "index_copy"):
        dim = args[1] if isinstance(args[1], int) else 0
        yield args[2], shape[dim] if shape else 1
    elif base in ("index", "index_put"):
        indices = args[1]
        if isinstance(indices, tuple):
            for dim, index in enumerate(indices):
                yield index, shape[dim]
    elif base == "take_along_dim":
        along = args[2] if len(args) > 2 else None
        yield args[1], shape[along] if isinstance(along, int) else math.prod(shape)
    elif base == "index_fill":
        yield args[2], shape[args[1]] if isinstance(args[1], int) else 1
    elif base == "take":
        yield args[1], graph.spec_of(args[0]).numel
    elif base == "one_hot" and len(args) > 1 and isinstance(args[1], int):
        yield args[0], args[1]
    elif base in (
        "cross_entropy_loss",
        "nll_loss",
        "nll_loss_nd",
        "nll_loss2d",
        "multi_margin_loss",
        "nll_loss_forward",
    ):
        yield args[1], shape[1] if len(shape) > 1 else shape[0]
