"""Concatenations that grow, as in a DenseNet: one that begins with the parts of an earlier one begins with its result.

Otherwise each would read all parts of those before it, and the text of a deep network would grow with the square of
its depth.
"""

from __future__ import annotations

from dataclasses import replace

from warpsmith.records import Arg, Graph, Node, Ref

_CONCATENATIONS = frozenset({"aten.cat.default", "aten.concat.default", "aten.concatenate.default"})
# With more parts than this, a concatenation is worth to be stored: every read chooses among them.
_MANY = 4


def joined(graph: Graph) -> Graph:
    """Let each concatenation begin with the longest earlier one that has the same first parts."""
    known: dict[tuple[object, ...], Ref] = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        parts = _parts(node)
        short = node
        if parts:
            rest = node.args[1:]
            prefixes = (((parts[:n], rest, node.kwargs), parts[n:]) for n in range(len(parts), 1, -1))
            found = next(((known[key], others) for key, others in prefixes if key in known), None)
            if found is not None:
                short = replace(node, args=((found[0], *found[1]), *rest))
            known[parts, rest, node.kwargs] = Ref(node.name)
        nodes.append(short)
    return replace(graph, nodes=tuple(nodes))


def worth_storing(graph: Graph) -> frozenset[str]:
    """Concatenations that another begins with, or of many parts."""
    found = {node.name: _parts(node) for node in graph.nodes if _parts(node)}
    begun = {part.name for parts in found.values() for part in parts if isinstance(part, Ref) and part.name in found}
    return frozenset(begun | {name for name, parts in found.items() if len(parts) > _MANY})


def _parts(node: Node) -> tuple[Arg, ...]:
    first = node.args[0] if node.op in _CONCATENATIONS else ()
    return first if isinstance(first, tuple) else ()
