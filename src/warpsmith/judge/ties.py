"""Indices that are not unique: any is right that picks a value as good as the one that is due.

Between values that differ by less than rounding, either index is right. Between values that are equal and exact,
PyTorch promises the first for argmax, argmin, max and min, and leaves the order open for topk and for sorts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from warpsmith.judge.rounding import scattered
from warpsmith.records import Graph, Node, Ref, Task
from warpsmith.task import evaluate

_REPLICAS = 8
_SLACK = 8.0
"""How many times the scatter of a value another may fall short of it: above the limit of most outputs, which is 6."""


@dataclass(frozen=True, slots=True)
class _Operator:
    """Positions of the dimension among the arguments and of the indices among the results."""

    dim: int
    result: int
    several: bool


_OPERATORS: Mapping[str, _Operator] = {
    "aten.argmax.default": _Operator(1, 0, several=False),
    "aten.argmin.default": _Operator(1, 0, several=False),
    "aten.max.dim": _Operator(1, 1, several=False),
    "aten.min.dim": _Operator(1, 1, several=False),
    "aten.topk.default": _Operator(2, 1, several=True),
    "aten.sort.default": _Operator(1, 1, several=True),
    "aten.argsort.default": _Operator(1, 0, several=True),
}


@dataclass(frozen=True, eq=False)
class Ranking:
    """Indices along `dim` of `values`, each of which rounding moves by up to `slack`.

    `several` tells a ranking, in which equal values may stand in any order but no index twice, from a single choice.
    """

    values: torch.Tensor
    slack: torch.Tensor
    dim: int
    several: bool

    def accepts(self, got: torch.Tensor, due: torch.Tensor) -> torch.Tensor:
        """Say for each index of `got` whether it is as right as that of `due`."""
        shape = got.shape
        if not self.several:
            got, due = self._with_dim(got), self._with_dim(due)
        extent = self.values.shape[self.dim]
        inside = (got >= 0) & (got < extent)
        index = got.clamp(0, extent - 1)
        distance = (self.values.gather(self.dim, index) - self.values.gather(self.dim, due)).abs()
        slack = self.slack.gather(self.dim, index) + self.slack.gather(self.dim, due)
        if self.several:
            return inside & (distance <= slack) & ~_repeated(got, self.dim)
        return (inside & (slack > 0.0) & (distance <= slack)).reshape(shape)

    def _with_dim(self, index: torch.Tensor) -> torch.Tensor:
        shape = list(self.values.shape)
        shape[self.dim] = 1
        return index.reshape(shape)


def rankings(task: Task, arguments: Mapping[str, torch.Tensor], *, correlated: bool) -> dict[str, Ranking]:
    """Return, for each output that holds indices of a ranking, the values that were ranked."""
    graph = task.graph
    nodes = {node.name: node for node in graph.nodes}
    found: dict[str, Ranking] = {}
    for spec, ref in graph.outputs:
        node = nodes.get(ref.name)
        operator = _OPERATORS.get(node.op) if node is not None else None
        if node is None or operator is None or operator.result != ref.index:
            continue
        operand = node.args[0]
        if isinstance(operand, Ref) and graph.spec_of(operand).shape:
            found[spec.name] = _ranking(task, arguments, operand, _dimension(node, operator), operator, correlated)
    return found


def _ranking(
    task: Task,
    arguments: Mapping[str, torch.Tensor],
    operand: Ref,
    dim: int | None,
    operator: _Operator,
    correlated: bool,
) -> Ranking:
    part = _up_to(task, operand)
    (values,) = evaluate(part.graph, arguments, "float64").values()
    squares = torch.zeros_like(values)
    for replica in range(_REPLICAS):
        (moved,) = scattered(part, arguments, replica, correlated=correlated, move_arguments=False).values()
        squares += (moved - values).nan_to_num(0.0, 0.0, 0.0).square()
    slack = _SLACK * torch.sqrt(squares / _REPLICAS)
    if dim is None:
        return Ranking(values.reshape(-1), slack.reshape(-1), 0, operator.several)
    return Ranking(values, slack, dim, operator.several)


def _up_to(task: Task, operand: Ref) -> Task:
    """Return the task that ends with what `operand` names."""
    graph: Graph = replace(task.graph, outputs=((task.graph.spec_of(operand), operand),), updates=())
    return replace(task, graph=graph)


def _dimension(node: Node, operator: _Operator) -> int | None:
    default = -1 if operator.several else None
    given = node.args[operator.dim] if operator.dim < len(node.args) else dict(node.kwargs).get("dim", default)
    return given if isinstance(given, int) else default


def _repeated(indices: torch.Tensor, dim: int) -> torch.Tensor:
    """Where an index stands that already stands before it along `dim`."""
    order = indices.argsort(stable=True, dim=dim)
    ordered = indices.gather(dim, order)
    count = indices.shape[dim]
    again = torch.zeros_like(indices, dtype=torch.bool)
    again.narrow(dim, 1, count - 1).copy_(ordered.narrow(dim, 1, count - 1) == ordered.narrow(dim, 0, count - 1))
    return torch.zeros_like(again).scatter(dim, order, again)
